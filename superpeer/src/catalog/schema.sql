-- The catalog's tables, format 1. A change here is a new step in schema.rs, never an edit of this file.

-- Whose catalog this is, and the latest moment given out, so that stamps move forward across restarts.
CREATE TABLE catalog (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    network BLOB NOT NULL,
    clock_millis INTEGER NOT NULL,
    clock_counter INTEGER NOT NULL
) STRICT;

-- The truth: every entry as it travels, known kind or not. All tables below derive from it.
CREATE TABLE entries (
    row INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    id BLOB NOT NULL,
    payload BLOB NOT NULL,
    stamp BLOB NOT NULL,
    UNIQUE (kind, id)
) STRICT;

-- Files that exist, for finding them. A deleted file has an entry and no line here.
CREATE TABLE files (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    file BLOB NOT NULL UNIQUE,
    owner BLOB NOT NULL,
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    content BLOB NOT NULL
) STRICT;
CREATE INDEX files_by_name ON files (folded, file);
CREATE INDEX files_by_owner ON files (owner, folded, file);
CREATE INDEX files_by_content ON files (content, file);

-- Letters within names. Names are folded before they come here, so the tokenizer must not fold again.
CREATE VIRTUAL TABLE file_names USING fts5 (
    folded, content = '', contentless_delete = 1, tokenize = 'trigram case_sensitive 1'
);

-- How many file entries each member owns, deleted ones included: what a flooding member is stopped by.
CREATE TABLE owners (
    peer BLOB PRIMARY KEY,
    files INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    peer BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    superpeer INTEGER NOT NULL CHECK (superpeer IN (0, 1)),
    issued INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
-- Super-peers cut off from each other may have given one name twice: the earlier member has it.
CREATE INDEX members_by_name ON members (name, issued, peer);

-- Invites of this super-peer. They stay here: no other super-peer redeems them.
CREATE TABLE invites (
    secret_hash BLOB PRIMARY KEY,
    superpeer INTEGER NOT NULL CHECK (superpeer IN (0, 1)),
    uses INTEGER NOT NULL,
    uses_left INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND uses),
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE redemptions (
    secret_hash BLOB NOT NULL REFERENCES invites (secret_hash) ON DELETE CASCADE,
    peer BLOB NOT NULL,
    redeemed INTEGER NOT NULL,
    PRIMARY KEY (secret_hash, peer)
) STRICT, WITHOUT ROWID;
