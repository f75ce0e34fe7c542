//! Files that are hidden from this node: how far each had come, and who said so.
//!
//! Together with `records` this is what [`crate::following::hiding`] calls the place of a file: either its record is here, or a
//! row of this table, whichever counts more. A record that does not count more than the row is not taken, whichever way it
//! comes.

use libp2p::PeerId;
use quarta_protocols::{cbor, credentials::Trust, ids::FileId, records::Precedence};
use rusqlite::{OptionalExtension, Transaction};

use super::{DatabaseError, handovers, records};
use crate::following::hiding::{Hiding, Verdict};

/// Hidden files that are remembered, those told of longest ago going first: some 50 MB. A network is made for 100 000 files
/// in all; more than twice as many hidden ones are the work of a super-peer that invents ids.
const HIDDEN_KEPT: u32 = 250_000;

/// Takes in that a file is hidden; whether a record went with it.
pub(super) fn hide(
    transaction: &Transaction<'_>,
    hiding: &Hiding,
    teller: &PeerId,
    own: &PeerId,
    trust: &Trust,
) -> Result<bool, DatabaseError> {
    let file = &hiding.file;
    let known = records::known(transaction, file, trust)?;
    let handed_to = match hiding.verdict(known.as_ref(), own, trust) {
        Verdict::Older => return Ok(false),
        Verdict::Own => {
            tracing::warn!(%file, superpeer = %teller, "a super-peer hides a file of this branch's own; it is kept");
            return Ok(false);
        }
        Verdict::Hidden { handed_to } => handed_to,
    };
    if let Some(place) = &hiding.place
        && place_of(transaction, file)?.is_none_or(|before| before < *place)
    {
        let sql = "INSERT OR REPLACE INTO hidden (file, place, told_by) VALUES (?1, ?2, ?3)";
        let values = rusqlite::params![&file.as_bytes()[..], cbor::to_vec(place), teller.to_bytes()];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    if let Some(owner) = handed_to {
        handovers::follow_owner(transaction, file, &owner)?;
    }
    Ok(records::forget(transaction, file)? > 0)
}

/// Whether a record of this place is hidden.
pub(super) fn hides(
    transaction: &Transaction<'_>,
    file: &FileId,
    place: &Precedence,
) -> Result<bool, DatabaseError> {
    Ok(place_of(transaction, file)?.is_some_and(|hidden| hidden >= *place))
}

/// A record that counts more is here now.
pub(super) fn show(transaction: &Transaction<'_>, file: &FileId) -> rusqlite::Result<()> {
    let sql = "DELETE FROM hidden WHERE file = ?1";
    transaction.prepare_cached(sql)?.execute([&file.as_bytes()[..]]).map(drop)
}

/// A super-peer's word counts no more; how many files it had hidden.
pub(super) fn disbelieve(transaction: &Transaction<'_>, superpeer: &PeerId) -> rusqlite::Result<usize> {
    let sql = "DELETE FROM hidden WHERE told_by = ?1";
    transaction.prepare_cached(sql)?.execute([superpeer.to_bytes()])
}

/// Forgets what is too much.
pub(super) fn trim(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM hidden WHERE id <= (SELECT max(id) FROM hidden) - ?1";
    transaction.prepare_cached(sql)?.execute([HIDDEN_KEPT]).map(drop)
}

fn place_of(transaction: &Transaction<'_>, file: &FileId) -> Result<Option<Precedence>, DatabaseError> {
    let bytes: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT place FROM hidden WHERE file = ?1")?
        .query_row([&file.as_bytes()[..]], |row| row.get(0))
        .optional()?;
    let damaged = |_| DatabaseError::Damaged("how far a hidden file had come");
    bytes.map(|bytes| cbor::from_slice(&bytes).map_err(damaged)).transpose()
}

#[cfg(test)]
mod tests;
