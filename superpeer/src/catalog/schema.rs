//! The database file: its place, its settings, its format.
//!
//! Acknowledged means on the disk: write-ahead log, synced at every commit (`synchronous=FULL`). Readers have
//! connections of their own and never wait for the writer.

use std::{
    fs::{OpenOptions, Permissions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use quarta_protocols::{clock::HybridTime, credentials::Trust, ids::NetworkId};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, config::DbConfig, params,
};

use super::{CatalogError, positions, projection};

/// One step per format: format *n* is what the first *n* steps make. Steps are only ever added.
const STEPS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
];
/// Marks the file as ours: "Qcat".
const APPLICATION_ID: i32 = 0x5163_6174;
/// How long a statement waits for another connection's lock, e.g. of a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The log is cut back to this after a burst of writes, in bytes.
const LOG_KEPT_BYTES: i64 = 64 * 1024 * 1024;
/// Page cache of the writer and of each reader, in KiB: holds the inner pages of the indexes of a million files.
const CACHE_KIB: i64 = 16 * 1024;
/// Prepared statements kept for each connection: as many as there are.
const STATEMENTS_KEPT: usize = 128;

/// Opens the database for writing, creating it or bringing it to the newest format.
pub(super) fn open(path: &Path, trust: &Trust) -> Result<Connection, CatalogError> {
    // SQLite gives its log the mode of the database, so the database must be private before SQLite sees it.
    let file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(CatalogError::File)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(CatalogError::File)?;
    drop(file);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    set(&conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let before = upgrade(&tx)?;
    claim(&tx, &trust.network)?;
    if (1..2).contains(&before) {
        // Format 1 may have kept entries of these kinds unread.
        projection::read_what_was_kept_unread(&tx, trust)?;
    }
    if (1..3).contains(&before) {
        positions::fill(&tx)?;
    }
    if (1..4).contains(&before) {
        projection::read_who_may_see_what(&tx, trust)?;
    }
    tx.commit()?;
    // Only now: a file that is not ours keeps its own journal mode.
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    Ok(conn)
}

/// Opens the database for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, CatalogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    set(&conn)?;
    Ok(conn)
}

fn set(conn: &Connection) -> Result<(), CatalogError> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "foreign_keys", true)?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Else a statement with a bound value is planned anew for each value.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

/// Brings the tables to the newest format, and gives the one they had; 0 for a new file.
fn upgrade(tx: &Transaction<'_>) -> Result<u32, CatalogError> {
    let application: i32 = tx.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let found: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: u32 = tx.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = application == 0 && found == 0 && tables == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(CatalogError::NotACatalog);
    }
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(CatalogError::Newer { found, known });
    }
    for step in STEPS.iter().skip(found as usize) {
        tx.execute_batch(step)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", known)?;
    Ok(found)
}

/// Writes a page as it is.
pub(super) fn probe(conn: &Connection) -> Result<(), CatalogError> {
    let format = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    Ok(conn.pragma_update(None, "user_version", format)?)
}

fn claim(tx: &Transaction<'_>, network: &NetworkId) -> Result<(), CatalogError> {
    let found: Option<[u8; 32]> =
        tx.query_row("SELECT network FROM catalog", [], |row| row.get(0)).optional()?;
    match found.map(NetworkId::from_bytes) {
        Some(found) if found != *network => {
            return Err(CatalogError::OtherNetwork { found, expected: *network });
        }
        Some(_) => {}
        None => {
            tx.execute(
                "INSERT INTO catalog (one, network, clock_millis, clock_counter) VALUES (1, ?1, 0, 0)",
                params![network.as_bytes()],
            )?;
        }
    }
    tx.execute("UPDATE catalog SET store = ?1 WHERE store = x''", [rand::random::<[u8; 16]>()])?;
    Ok(())
}

/// What tells this database from every other.
pub(super) fn store_id(conn: &Connection) -> Result<[u8; 16], CatalogError> {
    Ok(conn.query_row("SELECT store FROM catalog", [], |row| row.get(0))?)
}

/// The latest moment that was given out before.
pub(super) fn latest_moment(conn: &Connection) -> Result<HybridTime, CatalogError> {
    let (millis, counter): (i64, u32) =
        conn.query_row("SELECT clock_millis, clock_counter FROM catalog", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let millis = u64::try_from(millis).map_err(CatalogError::damaged)?;
    Ok(HybridTime { millis, counter })
}

/// Makes sure that no moment up to this one is given out again, even after a restart.
pub(super) fn keep_moment(tx: &Transaction<'_>, latest: HybridTime) -> Result<(), CatalogError> {
    let millis = i64::try_from(latest.millis).unwrap_or(i64::MAX);
    tx.prepare_cached("UPDATE catalog SET clock_millis = ?1, clock_counter = ?2")?
        .execute(params![millis, latest.counter])?;
    Ok(())
}

/// Keeps when the catalog was last compared with another super-peer's.
pub(super) fn keep_comparison(conn: &Connection, seconds: u64) -> Result<(), CatalogError> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    conn.execute("INSERT OR REPLACE INTO comparison VALUES (1, ?1)", [seconds])?;
    Ok(())
}

/// When that was; none where it never was.
pub(super) fn last_comparison(conn: &Connection) -> Result<Option<u64>, CatalogError> {
    let last: Option<i64> = conn.query_row("SELECT last FROM comparison", [], |row| row.get(0)).optional()?;
    last.map(|seconds| u64::try_from(seconds).map_err(CatalogError::damaged)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust() -> Trust {
        crate::catalog::fixtures::trust()
    }

    #[test]
    fn the_format_on_disk_is_held_still() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open(&dir.path().join("catalog.db"), &trust()).unwrap();
        let mut schema =
            conn.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB '*_names_*' ORDER BY name").unwrap();
        let all: Vec<String> = schema.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let hash = blake3::hash(all.join(";\n").as_bytes()).to_hex();
        assert_eq!(hash.as_str(), GOLDEN, "a changed format needs a new step: {all:#?}");
        let version: u32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 4);
    }
    const GOLDEN: &str = "3e620d1a070b571d3607eb46486c8495d2f1aa918e727dbe63cf5f07741dfde4";

    #[test]
    fn what_was_acknowledged_is_synced_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let conn = open(&path, &trust()).unwrap();
        let pragma = |name: &str| {
            conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "wal".to_owned().into());
        assert_eq!(pragma("synchronous"), 2.into());
        assert_eq!(pragma("foreign_keys"), 1.into());
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn a_statement_is_planned_once_for_all_values() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open(&dir.path().join("catalog.db"), &trust()).unwrap();
        let mut statement = conn.prepare("SELECT 1 FROM files WHERE folded LIKE ?1").unwrap();
        for value in ["a%", "b%", "c%"] {
            assert!(!statement.exists([value]).unwrap());
        }
        assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
    }

    #[test]
    fn a_newer_foreign_or_damaged_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let conn = open(&path, &trust()).unwrap();
        conn.pragma_update(None, "user_version", 7).unwrap();
        drop(conn);
        assert!(matches!(open(&path, &trust()), Err(CatalogError::Newer { found: 7, known: 4 })));
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "user_version", 4).unwrap();
        drop(conn);
        let root = libp2p::identity::Keypair::generate_ed25519();
        let other = Trust::in_root(root.public().try_into_ed25519().unwrap());
        assert!(matches!(
            open(&path, &other),
            Err(CatalogError::OtherNetwork { found, .. }) if found == trust().network
        ));
        open(&path, &trust()).unwrap();

        let path = dir.path().join("shopping.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE list (item TEXT)").unwrap();
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(open(&path, &trust()), Err(CatalogError::NotACatalog)));
        assert_eq!(std::fs::read(&path).unwrap(), before);

        let path = dir.path().join("letter.txt");
        std::fs::write(&path, "Dear reader, this is no database. ".repeat(100)).unwrap();
        assert!(matches!(open(&path, &trust()), Err(CatalogError::Damaged(_))));
        let nowhere = dir.path().join("missing").join("catalog.db");
        assert!(matches!(open(&nowhere, &trust()), Err(CatalogError::File(_))));
    }
}
