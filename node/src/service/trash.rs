//! The trash: files that were replaced or deleted, kept for a while and given back on demand.
//!
//! Moving something there is always the same three steps, so that no crash loses a file: it is planned in the database,
//! moved by a rename, and noted with what takes its place. What a start finds unfinished is settled by `crate::trash`.

use std::{sync::Arc, time::Duration};

use quarta_protocols::{ids::FileId, records::Record};

use super::{Shared, wall_ms};
use crate::{
    database::{Database, DatabaseError, LibraryCopy, Provenance, TrashId, TrashReason, Trashed},
    library::{Library, LibraryError, LibraryPath, Place},
    trash::{Settlement, expired_before, settle},
};

/// How often is looked for what has been kept long enough.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);
/// Entries removed at a time.
const ENTRIES_AT_A_TIME: u32 = 500;

/// Why the trash cannot do what it is asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrashError {
    /// Nothing of that number is there.
    #[error("there is nothing in the trash under the number {0}")]
    Unknown(i64),
    /// The disk refused.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The database failed.
    #[error("the database could not be read or written: {0}")]
    Database(#[from] DatabaseError),
}

/// Settles what the last run left in the middle. For the start, before anything else touches the library.
pub(super) fn settle_plans(database: &Database, library: &Library) -> Result<(), TrashError> {
    for (id, trashed) in database.planned_trash()? {
        let moved = library.is_in_trash(id.0);
        let place = Place::Library(trashed.path.clone());
        let place_free = library.open_file(&place).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        match settle(&trashed, moved, place_free) {
            Settlement::Forget => {
                database.forget_trash(id)?;
            }
            Settlement::PutBack => {
                tracing::warn!(file = %trashed.name, "a change of an own file was cut off; it is as it was before");
                match library.put_back(id.0, &trashed.path, &trashed.name) {
                    Ok(()) => {
                        database.forget_trash(id)?;
                    }
                    // Better found in the trash than a node that does not start.
                    Err(error) => {
                        tracing::error!(%error, file = %trashed.name, "it stays in the trash");
                        database.keep_trash(id)?;
                    }
                }
            }
            Settlement::Keep => {
                let copy = database.copy(&trashed.file)?;
                // Where an own file's new version was not noted, the copy of the database is not there any more.
                if copy.is_some_and(|copy| !trashed.own && copy.place == place) {
                    database.trash_copy(id, &trashed.file)?;
                } else {
                    database.keep_trash(id)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes what has been kept long enough, until the node stops.
pub(super) async fn expire(shared: Arc<Shared>) {
    loop {
        let blocking = shared.clone();
        let expired = tokio::task::spawn_blocking(move || {
            let before = expired_before(wall_ms(), blocking.settings.trash_retention_days);
            loop {
                let ids = blocking.database.trash_before(before, ENTRIES_AT_A_TIME)?;
                for id in &ids {
                    blocking.erase_trashed(*id)?;
                }
                if ids.is_empty() {
                    return Ok::<_, TrashError>(());
                }
            }
        });
        if let Ok(Err(error)) = expired.await {
            tracing::error!(%error, "the trash could not be tidied; the next time is in an hour");
        }
        if shared.stop.run_until_cancelled(tokio::time::sleep(EXPIRE_EVERY)).await.is_none() {
            return;
        }
    }
}

impl Shared {
    /// Moves a copy's file to the trash, as a plan that whoever calls this ends or undoes. None where there is no such
    /// file, or it lies where its user keeps it. Blocks on the disk.
    ///
    /// # Errors
    /// [`TrashError`]; then the file is where it was.
    pub(super) fn set_aside(
        &self,
        copy: &LibraryCopy,
        reason: TrashReason,
    ) -> Result<Option<TrashId>, TrashError> {
        let Place::Library(path) = &copy.place else { return Ok(None) };
        let revision = Record::verify(copy.record.clone(), &self.identity.trust)
            .map_or(0, |record| record.body().revision);
        // What a person has written over is not what the checksum says.
        let sound = matches!(self.library.look(&copy.place, copy.stamp), Ok(None));
        let trashed = Trashed {
            file: copy.file,
            owner_name: copy.owner_name.clone(),
            name: copy.name.clone(),
            own: copy.provenance == Provenance::Own,
            path: path.clone(),
            size_bytes: copy.stamp.size_bytes,
            sha256: copy.sha256.filter(|_| sound),
            revision,
            reason,
            since_ms: wall_ms(),
        };
        let id = self.noted(self.database.plan_trash(&trashed))?;
        match self.library.discard(path, id.0) {
            Ok(true) => Ok(Some(id)),
            other => {
                self.noted(self.database.forget_trash(id))?;
                other.map(|_| None).map_err(TrashError::from)
            }
        }
    }

    /// Undoes [`Shared::set_aside`]. Blocks on the disk.
    pub(super) fn put_back(&self, aside: Option<TrashId>, copy: &LibraryCopy) {
        let (Some(id), Place::Library(path)) = (aside, &copy.place) else { return };
        let undone = self.library.put_back(id.0, path, &copy.name).map_err(TrashError::from);
        if let Err(error) = undone.and_then(|()| Ok(self.database.forget_trash(id).map(drop)?)) {
            tracing::error!(%error, file = %copy.name, "a file could not be put back; the next start tries again");
        }
    }

    /// Gives back a file of the trash: into the library folder, shared with nobody. Says where. Blocks on the disk.
    ///
    /// # Errors
    /// [`TrashError`]; then it stays in the trash.
    pub(crate) fn restore_trashed(&self, id: TrashId) -> Result<(Trashed, LibraryPath), TrashError> {
        let trashed = self.database.trashed(id)?.ok_or(TrashError::Unknown(id.0))?;
        let path = self.library.restore(id.0, &trashed.path, &trashed.file)?;
        self.noted(self.database.forget_trash(id))?;
        Ok((trashed, path))
    }

    /// Removes a file from the trash for good. Blocks on the disk.
    ///
    /// # Errors
    /// [`TrashError::Unknown`] where it is not there; else as the disk and the database fail.
    pub(crate) fn erase_trashed(&self, id: TrashId) -> Result<(), TrashError> {
        self.library.erase_trashed(id.0)?;
        let known = self.noted(self.database.forget_trash(id))?;
        known.then_some(()).ok_or(TrashError::Unknown(id.0))
    }

    /// Removes all that the trash has of a file, for good. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Shared::erase_trashed`].
    pub(crate) fn erase_all_of(&self, file: &FileId) -> Result<(), TrashError> {
        self.database.trash_of(file)?.into_iter().try_for_each(|id| self.erase_trashed(id))
    }

    /// Empties the trash; says how many files that were. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Shared::erase_trashed`].
    pub(crate) fn empty_trash(&self) -> Result<u64, TrashError> {
        let mut emptied = 0;
        loop {
            let entries = self.database.trash(None, ENTRIES_AT_A_TIME)?;
            if entries.is_empty() {
                return Ok(emptied);
            }
            for (id, _) in entries {
                match self.erase_trashed(id) {
                    // Somebody else was faster.
                    Err(TrashError::Unknown(_)) => {}
                    other => other.map(|()| emptied += 1)?,
                }
            }
        }
    }
}
