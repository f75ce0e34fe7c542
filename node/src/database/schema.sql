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

-- Members as their own enrolments and the super-peer that was followed last describe them.
CREATE TABLE members (
    peer         BLOB PRIMARY KEY,
    name         TEXT NOT NULL,
    role         TEXT NOT NULL,
    addresses    TEXT NOT NULL,  -- a JSON array of multiaddresses
    seen_ms      INTEGER NOT NULL, -- when this node last heard of it
    enrolment    BLOB,           -- none while only a super-peer's word is known
    state        TEXT NOT NULL DEFAULT 'offline',
    last_seen    INTEGER,        -- in seconds since 1970
    version      TEXT NOT NULL DEFAULT '',
    files        INTEGER NOT NULL DEFAULT 0,
    stored_bytes INTEGER NOT NULL DEFAULT 0,
    free_bytes   INTEGER NOT NULL DEFAULT 0,
    relayed      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX members_by_name ON members (name);

-- How memberships ended, as signed. By a member's own hand (kind 3) it is final; a revocation (kind 4) ends a
-- super-peer's only where the root signed it.
CREATE TABLE endings (
    peer    BLOB NOT NULL,
    kind    INTEGER NOT NULL,
    by_root INTEGER NOT NULL,
    bytes   BLOB NOT NULL,
    PRIMARY KEY (peer, kind)
) STRICT;

-- How far this node has followed each super-peer.
CREATE TABLE cursors (
    superpeer BLOB PRIMARY KEY,
    store     BLOB NOT NULL,
    run       BLOB NOT NULL,     -- u64, big endian: random, so that it needs all its bits
    sequence  INTEGER NOT NULL,
    condition INTEGER NOT NULL
) STRICT;

-- Who was a source of a content lately; the higher the id, the later.
CREATE TABLE sources (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    content BLOB NOT NULL,
    peer    BLOB NOT NULL,
    seen_ms INTEGER NOT NULL,
    UNIQUE (content, peer)
) STRICT;

-- `content` is there as long as there may be partial data of it.
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
    shares     TEXT NOT NULL,    -- a JSON array, one object for each source
    owner      TEXT,             -- the owner's name; none in rows of format 1
    content    BLOB,
    resumed    INTEGER NOT NULL DEFAULT 0 -- bytes that were here when it last began or went on
) STRICT;
CREATE INDEX transfers_with_data ON transfers (file, id) WHERE content IS NOT NULL;

-- One row while no run is under way and the last ended cleanly.
CREATE TABLE clean_end (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    epoch    BLOB NOT NULL,      -- u64, big endian: random, so that it needs all its bits
    revision INTEGER NOT NULL
) STRICT;
