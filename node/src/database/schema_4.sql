-- What format 4 adds to format 3. A new database is made of `schema.sql` and this.

-- Own records, deletions included, are published anew to super-peers that may have lost them.
CREATE INDEX records_by_owner ON records (owner);

-- Copies that are not of the record that is known of their file now, until that has been dealt with. One whose file has
-- no record at all was hidden from this node.
CREATE TABLE outdated (file BLOB PRIMARY KEY) STRICT;
INSERT INTO outdated
    SELECT copies.file FROM copies JOIN records USING (file) WHERE records.record <> copies.record;

-- Files that were replaced or deleted: each lies in `DATA/trash` under its number, unless it is `planned` only.
CREATE TABLE trash (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    file       BLOB NOT NULL,
    owner_name TEXT NOT NULL,
    name       TEXT NOT NULL,
    own        INTEGER NOT NULL,
    path       TEXT NOT NULL,    -- where it lay in the library
    size_bytes INTEGER NOT NULL,
    sha256     BLOB,             -- none where it is not known
    revision   INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    since_ms   INTEGER NOT NULL,
    planned    INTEGER NOT NULL
) STRICT;
CREATE INDEX trash_by_file ON trash (file);

-- Hand-overs under way: own files that are offered to their next owner, and files of others that this node takes over.
CREATE TABLE handovers (
    file     BLOB PRIMARY KEY,
    taking   INTEGER NOT NULL,   -- whether this node is the next owner
    offer    BLOB NOT NULL,      -- as it travels: the record, the signed link, the rule
    since_ms INTEGER NOT NULL
) STRICT;

-- How far the library has been read through: one row once it was begun.
CREATE TABLE library_scrub (
    only     INTEGER PRIMARY KEY CHECK (only = 1),
    after    BLOB,               -- the last file that was read; none at the beginning
    began_ms INTEGER NOT NULL,
    ended_ms INTEGER             -- none while it is under way
) STRICT;

-- Own audiences. `rule` and `keys` are CBOR.
CREATE TABLE audiences (
    audience BLOB PRIMARY KEY,
    owner    BLOB NOT NULL,
    nonce    BLOB NOT NULL,
    rule     BLOB NOT NULL,
    epoch    INTEGER NOT NULL,
    keys     BLOB NOT NULL
) STRICT;
CREATE INDEX audiences_by_rule ON audiences (rule);

-- Members' keys of audiences, as signed: those sealed here for own readers, and this node's own of others' audiences.
CREATE TABLE wraps (
    audience  BLOB NOT NULL,
    member    BLOB NOT NULL,
    epoch     INTEGER NOT NULL,
    sealed_to BLOB,            -- the member's sealing key; none where it was sealed elsewhere
    wrap      BLOB NOT NULL,
    PRIMARY KEY (audience, member)
) STRICT;
