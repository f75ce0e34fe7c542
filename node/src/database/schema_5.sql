-- What format 5 adds to format 4. A new database is made of `schema.sql`, `schema_4.sql` and this.

-- Files that are hidden from this node. `place` is CBOR: up to where the file's records are hidden. The higher the id, the
-- later it was told.
CREATE TABLE hidden (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    file    BLOB NOT NULL UNIQUE,
    place   BLOB NOT NULL,
    told_by BLOB NOT NULL        -- the super-peer
) STRICT;
CREATE INDEX hidden_by_teller ON hidden (told_by);

-- What was hidden before was not noted: everything is heard once more.
DELETE FROM cursors;
