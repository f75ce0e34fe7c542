-- Ids are 32-byte blobs, peer ids their binary form, times milliseconds since 1970 unless the column says otherwise.

-- Manifests are up to 2 MiB and wanted one at a time, so they are kept apart.
CREATE TABLE manifests (
    content BLOB PRIMARY KEY,
    bytes   BLOB NOT NULL
) STRICT;

-- What this node holds in plaintext. `record` is the revision that the copy belongs to: it has the content's key.
CREATE TABLE copies (
    file       BLOB PRIMARY KEY,
    owner      BLOB NOT NULL,
    owner_name TEXT NOT NULL,
    name       TEXT NOT NULL,
    folded     TEXT NOT NULL,
    fetched    INTEGER NOT NULL,
    in_place   INTEGER NOT NULL,
    path       BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    sha256     BLOB,
    content    BLOB NOT NULL REFERENCES manifests (content),
    verified   INTEGER,          -- chunks here, none where all are
    record     BLOB NOT NULL
) STRICT;
CREATE INDEX copies_by_content ON copies (content);
CREATE UNIQUE INDEX own_names ON copies (folded) WHERE NOT fetched;

-- Every file of which this node has verified a record, deletions included.
CREATE TABLE records (
    file       BLOB PRIMARY KEY,
    owner      BLOB NOT NULL,
    revision   INTEGER NOT NULL,
    name       TEXT,             -- none for a deleted file
    folded     TEXT,
    size_bytes INTEGER,
    restricted INTEGER,
    sha256     BLOB,             -- none for a restricted file
    record     BLOB NOT NULL,
    seen_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX records_by_name ON records (folded, file) WHERE folded IS NOT NULL;

CREATE TABLE members (
    peer      BLOB PRIMARY KEY,
    name      TEXT NOT NULL,
    role      TEXT NOT NULL,
    addresses TEXT NOT NULL,     -- a JSON array of multiaddresses
    seen_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX members_by_name ON members (name);

CREATE TABLE transfers (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    file       BLOB NOT NULL,
    name       TEXT NOT NULL,
    direction  TEXT NOT NULL,
    state      TEXT NOT NULL,
    problem    TEXT,
    size_bytes INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    ended_ms   INTEGER,
    sha256     BLOB,
    shares     TEXT NOT NULL     -- a JSON array, one object for each source
) STRICT;

-- One row while no run is under way and the last ended cleanly.
CREATE TABLE clean_end (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    epoch    BLOB NOT NULL,      -- u64, big endian: random, so that it needs all its bits
    revision INTEGER NOT NULL
) STRICT;
