-- Format 2: endings of memberships, the audit trail, and numbers by which others follow the catalog's changes.

-- 128 random bits that tell this database from every other; schema.rs draws them.
ALTER TABLE catalog ADD COLUMN store BLOB NOT NULL DEFAULT x'';

-- Grows with every entry that is new or replaced, so that "what came after number n" is all that changed since.
ALTER TABLE entries ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
UPDATE entries SET sequence = row;
CREATE UNIQUE INDEX entries_by_sequence ON entries (sequence);
-- Events (kind 5) are not followed: a tail of them must not be read past by everybody who asks for news.
CREATE INDEX entries_followed ON entries (sequence) WHERE kind <> 5;

-- The runs of the process, and the last number given out when each began. A database that was restored from a backup
-- has lost the runs since: numbers that those gave out are not its own.
CREATE TABLE runs (
    place INTEGER PRIMARY KEY,
    run INTEGER NOT NULL UNIQUE,
    sequence INTEGER NOT NULL
) STRICT;

-- Whose membership has ended. What that makes of a member is computed from these and its role whenever it is asked, so
-- that it does not matter which of the entries came first.
CREATE TABLE departures (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    peer BLOB NOT NULL UNIQUE
) STRICT;
CREATE TABLE revocations (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    peer BLOB NOT NULL UNIQUE,
    by_root INTEGER NOT NULL CHECK (by_root IN (0, 1))
) STRICT;

-- The audit trail. Its order is (millis, counter, event), which is the same on every super-peer.
CREATE TABLE events (
    row INTEGER PRIMARY KEY REFERENCES entries (row),
    event BLOB NOT NULL,
    millis INTEGER NOT NULL,
    counter INTEGER NOT NULL,
    superpeer BLOB NOT NULL,
    actor BLOB,
    subject BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX events_by_time ON events (millis, counter, event);
CREATE INDEX events_by_actor ON events (actor, millis, counter, event);
CREATE INDEX events_by_subject ON events (subject, millis, counter, event);
CREATE INDEX events_by_payload ON events (payload, subject, millis, counter, event);

-- What this super-peer saw for itself. It stays here; only so many are kept of each kind.
CREATE TABLE observations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    millis INTEGER NOT NULL,
    what INTEGER NOT NULL,
    peer BLOB NOT NULL,
    name TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX observations_by_time ON observations (millis, number);
CREATE INDEX observations_by_peer ON observations (peer, millis, number);
CREATE INDEX observations_by_kind ON observations (what, number);

-- The departed member whose name the invite gives again.
ALTER TABLE invites ADD COLUMN replaces TEXT;

-- Super-peers that redeemed an invite and wait for the root's holder.
CREATE TABLE candidates (
    peer BLOB PRIMARY KEY,
    secret_hash BLOB NOT NULL REFERENCES invites (secret_hash) ON DELETE CASCADE,
    name TEXT NOT NULL,
    sealing_key BLOB NOT NULL,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
