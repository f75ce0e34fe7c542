-- Format 3: reconciliation with other super-peers.

-- Where an entry stands among all: 48 bits of a hash of its kind and id. Filled by positions.rs.
ALTER TABLE entries ADD COLUMN position INTEGER;
CREATE INDEX entries_by_position ON entries (position);

-- When the catalog was last compared with another super-peer's, in seconds since 1970.
CREATE TABLE comparison (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;
