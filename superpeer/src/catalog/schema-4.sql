-- Format 4: who may see what.

-- Audiences and the members that their rules name.
CREATE TABLE audiences (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    audience BLOB NOT NULL UNIQUE,
    owner BLOB NOT NULL,
    only INTEGER NOT NULL CHECK (only IN (0, 1)),
    epoch INTEGER NOT NULL
) STRICT;
CREATE INDEX audiences_by_owner ON audiences (owner);
CREATE TABLE audience_members (
    audience BLOB NOT NULL,
    peer BLOB NOT NULL,
    PRIMARY KEY (audience, peer)
) STRICT, WITHOUT ROWID;

-- Members' keys, for counting what each owner has made.
CREATE TABLE wraps (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    owner BLOB NOT NULL
) STRICT;
CREATE INDEX wraps_by_owner ON wraps (owner);

-- Files that not everybody may see, deleted ones included. `always`: as far as this catalog can tell, no revision of it
-- was ever shown to anybody else, so that nobody has anything to forget.
CREATE TABLE restrictions (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    audience BLOB NOT NULL,
    owner BLOB NOT NULL,
    always INTEGER NOT NULL CHECK (always IN (0, 1))
) STRICT;
CREATE INDEX restrictions_by_audience ON restrictions (audience, row);

-- The audience of a restricted file, empty for an open one. Files in name order stand apart by it, so that nobody reads past
-- files that are hidden from it, however many somebody makes.
ALTER TABLE files ADD COLUMN audience BLOB NOT NULL DEFAULT x'';
CREATE INDEX files_open_by_name ON files (folded, file) WHERE audience = x'';
CREATE INDEX files_restricted ON files (owner, audience, folded, file) WHERE audience <> x'';
-- Letters within restricted files' names; the other table is for the open ones.
CREATE VIRTUAL TABLE restricted_names USING fts5 (
    folded, content = '', contentless_delete = 1, tokenize = 'trigram case_sensitive 1'
);
