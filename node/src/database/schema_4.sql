-- What format 4 adds. Ids are 32-byte blobs, peer ids their binary form, times milliseconds since 1970 unless the column says
-- otherwise.

-- Hand-overs under way: own files that are offered to their next owner, and files of others that this node takes over.
CREATE TABLE handovers (
    file     BLOB PRIMARY KEY,
    taking   INTEGER NOT NULL,   -- whether this node is the next owner
    offer    BLOB NOT NULL,      -- as it travels: the record, the signed link, the rule
    since_ms INTEGER NOT NULL
) STRICT;
