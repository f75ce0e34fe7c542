-- What format 4 adds. Ids are 32-byte blobs, peer ids their binary form, times milliseconds since 1970 unless the column says
-- otherwise.

-- Hand-overs under way: own files that are offered to their next owner, and files of others that this node takes over.
CREATE TABLE handovers (
    file     BLOB PRIMARY KEY,
    taking   INTEGER NOT NULL,   -- whether this node is the next owner
    offer    BLOB NOT NULL,      -- as it travels: the record, the signed link, the rule
    since_ms INTEGER NOT NULL
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
