//! From the formats of earlier versions to this one.
//!
//! Each step leads from one format to the next and is carried out with the change of the format's number in one
//! transaction: whatever happens meanwhile, a database is of the one format or of the other. A step is never changed
//! once a version with it is out.

use rusqlite::Connection;

use super::DatabaseError;

/// The format that this version writes, counting changes of the tables.
pub(super) const FORMAT: i32 = 5;

/// What format 4 adds.
pub(super) const SCHEMA_4: &str = include_str!("schema_4.sql");

/// What format 5 adds.
pub(super) const SCHEMA_5: &str = include_str!("schema_5.sql");

/// What leads from format 1 to 2, from 2 to 3, and so on.
const STEPS: [&str; FORMAT as usize - 1] = [
    // Transfers that go on after a restart, with their partial data.
    "ALTER TABLE transfers ADD COLUMN owner TEXT;
     ALTER TABLE transfers ADD COLUMN content BLOB;
     ALTER TABLE transfers ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX transfers_with_data ON transfers (file, id) WHERE content IS NOT NULL;",
    // The members' condition, the ends of memberships, how far super-peers were followed, and who was a source.
    "ALTER TABLE members ADD COLUMN enrolment BLOB;
     ALTER TABLE members ADD COLUMN state TEXT NOT NULL DEFAULT 'offline';
     ALTER TABLE members ADD COLUMN last_seen INTEGER;
     ALTER TABLE members ADD COLUMN version TEXT NOT NULL DEFAULT '';
     ALTER TABLE members ADD COLUMN files INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE members ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE members ADD COLUMN free_bytes INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE members ADD COLUMN relayed INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE endings (
         peer    BLOB NOT NULL,
         kind    INTEGER NOT NULL,
         by_root INTEGER NOT NULL,
         bytes   BLOB NOT NULL,
         PRIMARY KEY (peer, kind)
     ) STRICT;
     CREATE TABLE cursors (
         superpeer BLOB PRIMARY KEY,
         store     BLOB NOT NULL,
         run       BLOB NOT NULL,
         sequence  INTEGER NOT NULL,
         condition INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE sources (
         id      INTEGER PRIMARY KEY AUTOINCREMENT,
         content BLOB NOT NULL,
         peer    BLOB NOT NULL,
         seen_ms INTEGER NOT NULL,
         UNIQUE (content, peer)
     ) STRICT;",
    // Copies that are to follow their records, the trash, hand-overs, audiences: what else a file's life needs.
    SCHEMA_4,
    // Files that are hidden from this node, and for how far.
    SCHEMA_5,
];

/// Whether a database of this format can be brought to [`FORMAT`].
pub(super) const fn is_known(format: i32) -> bool {
    format >= 1 && format <= FORMAT
}

/// Brings a database of a known format to [`FORMAT`].
pub(super) fn migrate(connection: &mut Connection, from: i32) -> Result<(), DatabaseError> {
    for format in from..FORMAT {
        let Some(step) = usize::try_from(format - 1).ok().and_then(|at| STEPS.get(at)) else { break };
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", format + 1)?;
        transaction.commit()?;
        tracing::info!(from = format, to = format + 1, "the database was brought to a newer format");
    }
    Ok(())
}
