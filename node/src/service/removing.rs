//! Deleting own files, everywhere and for ever.
//!
//! The deletion is signed and durable before anything else happens, and announced before it is acknowledged where a
//! super-peer answers, else as soon as one does. The own copy then goes the way of every other: to the trash.

use std::sync::Arc;

use quarta_protocols::{
    ids::FileId,
    names::FileName,
    records::{Body, Record, State},
};

use super::{Shared, updating::OwnError, wall_ms};

/// A deleted file.
#[derive(Debug, Clone)]
pub(crate) struct Removed {
    pub(crate) file: FileId,
    pub(crate) name: FileName,
    pub(crate) revision: u64,
    /// Whether a super-peer has taken note; otherwise one is told as soon as it answers.
    pub(crate) announced: bool,
}

/// Deletes the own file that a reference names.
///
/// # Errors
/// [`OwnError`]; then it is not deleted.
pub(crate) async fn remove(shared: &Arc<Shared>, reference: &str) -> Result<Removed, OwnError> {
    let found = shared.find_own(reference).await?;
    let (blocking, file) = (shared.clone(), found.record.file());
    let deleted = tokio::task::spawn_blocking(move || delete(&blocking, &file));
    let (record, name) = deleted.await.map_err(|e| OwnError::Unnoted(e.to_string()))??;
    let publishing = shared.superpeers.publish(shared, vec![(file, record.signed().clone())]).await;
    if let Err(error) = &publishing {
        tracing::warn!(%error, "a deletion is announced as soon as a super-peer answers");
    }
    shared.upkeep.changed([file]);
    let revision = record.body().revision;
    Ok(Removed { file, name, revision, announced: publishing.is_ok() })
}

fn delete(shared: &Arc<Shared>, file: &FileId) -> Result<(Record, FileName), OwnError> {
    let _turn = shared.changes_of_own();
    let (before, entry) = shared.own_record_to_change(file)?;
    let before = before.body();
    let body = Body {
        file: *file,
        origin: before.origin.clone(),
        links: before.links.clone(),
        revision: before.revision.saturating_add(1),
        state: State::Deleted,
    };
    let (trust, keys) = (&shared.identity.trust, &shared.identity.keys.identity);
    let record = Record::sign(&body, trust, keys).map_err(|e| OwnError::Unnoted(e.to_string()))?;
    let noted = shared.database.remember_record(&record, trust, wall_ms());
    shared.noted(noted).map_err(|e| OwnError::Unnoted(e.to_string()))?;
    // From here on it is deleted, whatever becomes of the copy now.
    match shared.database.outdated_copy(file) {
        Ok(Some(outdated)) => {
            if let Err(error) = shared.bring_up(&outdated) {
                tracing::error!(%error, name = %entry.name, "the copy of a deleted file could not be moved; it is tried again");
            }
        }
        Ok(None) => {}
        Err(error) => tracing::error!(%error, "the database could not be read"),
    }
    Ok((record, entry.name))
}
