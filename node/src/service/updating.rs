//! Updating own files: a new content under the same id, name and place.
//!
//! In this order, so that a crash leaves either version whole and what is acknowledged lasts: the new content is sealed
//! and complete; the old file moves to the trash, as a plan; the new one takes its place; the signed record, the manifest,
//! the copy and the plan's end are noted in one step; then it is announced. Two updates at once are two revisions, one
//! after the other, and the later one stands.

use std::sync::{Arc, MutexGuard, PoisonError};

use quarta_protocols::{
    audiences::AccessSecret,
    content::Manifest,
    ids::FileId,
    messages::inventory::Completeness,
    records::{Body, Entry, Record, State},
};
use serde_bytes::ByteBuf;

use super::{
    Shared, adding,
    keyring::{Readers, listed_sha256},
    listing::{FindError, FoundFile},
    receiving::{self, Receipt, ReceiveError},
    trash::TrashError,
    wall_ms,
};
use crate::{
    api::model::File,
    database::{LibraryCopy, Provenance, TrashId, TrashReason},
    library::{LibraryError, Place},
    sealing::{
        AddError, Added,
        renewing::{Renewed, renew, renew_in_place},
    },
};

/// Why an own file is not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OwnError {
    /// The reference names none.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It is another branch's.
    #[error("the file belongs to {owner}, and only its owner changes it")]
    NotOwner {
        /// The owner's name.
        owner: String,
    },
    /// It was deleted already.
    #[error("the file is deleted")]
    Deleted,
    /// It is on its way to another owner.
    #[error("the file is being handed over to another branch")]
    HandingOver,
    /// Its content's key cannot be sealed for those who may read it.
    #[error("this branch does not have the keys of those who may read the file")]
    Keyless,
    /// There is no file on this machine to take as the new version.
    #[error("no copy of the file is on this machine")]
    NotHere,
    /// It could not be sealed or put into the library.
    #[error(transparent)]
    Add(#[from] AddError),
    /// The old version could not be moved.
    #[error(transparent)]
    Trash(#[from] TrashError),
    /// As many as can be are being received.
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// It could not be noted.
    #[error("{0}")]
    Unnoted(String),
}

/// Begins to receive the new content of the own file that a reference names. `size_bytes`, where it is known, is reserved
/// at once.
///
/// # Errors
/// [`OwnError`]; everything that shows later is the receipt's end.
pub(crate) async fn begin(
    shared: &Arc<Shared>,
    reference: &str,
    size_bytes: Option<u64>,
) -> Result<Receipt<File, OwnError>, OwnError> {
    let found = shared.find_own(reference).await?;
    let entry = found.record.entry().ok_or(OwnError::Deleted)?;
    let (file, name) = (found.record.file(), entry.name.clone());
    let receipt = receiving::receive(shared, move |shared, stream| -> Result<_, OwnError> {
        let renewed = renew(&shared.library, stream, &name, size_bytes)?;
        put(shared, &file, renewed)
    })?;
    let shared = shared.clone();
    Ok(receipt.then(move |noted| async move { announce(&shared, noted).await }))
}

/// Takes the file as it lies on this machine as the new content of the own file that a reference names.
///
/// # Errors
/// [`OwnError`]; then nothing has changed.
pub(crate) async fn adopt(shared: &Arc<Shared>, reference: &str) -> Result<File, OwnError> {
    let found = shared.find_own(reference).await?;
    let (blocking, file) = (shared.clone(), found.record.file());
    let noted = tokio::task::spawn_blocking(move || adopt_copy(&blocking, &file));
    let noted = noted.await.map_err(|e| OwnError::Unnoted(e.to_string()))??;
    announce(shared, noted).await
}

/// What an update came to, before it is announced.
struct Noted {
    copy: LibraryCopy,
    changed: bool,
}

async fn announce(shared: &Arc<Shared>, noted: Noted) -> Result<File, OwnError> {
    if noted.changed {
        adding::announce(shared, std::slice::from_ref(&noted.copy)).await;
        shared.upkeep.changed([noted.copy.file]);
    }
    let shown = shared.show_copy(&noted.copy);
    shown.ok_or_else(|| OwnError::Unnoted("its record is not valid".to_owned()))
}

/// Puts a sealed content into the place of the one before.
fn put(shared: &Arc<Shared>, file: &FileId, renewed: Renewed) -> Result<Noted, OwnError> {
    let _turn = shared.changes_of_own();
    let (record, entry) = shared.own_record_to_change(file)?;
    let unread = |e: crate::database::DatabaseError| OwnError::Unnoted(e.to_string());
    let before = shared.database.copy(file).map_err(unread)?;
    if let Some(copy) = &before
        && shared.secret_of(&record).is_some_and(|secret| secret.sha256 == renewed.sha256())
        && copy.content == entry.content
        && shared.is_sound(copy)
    {
        return Ok(Noted { copy: copy.clone(), changed: false });
    }
    let aside =
        before.as_ref().map(|copy| shared.set_aside(copy, TrashReason::Replaced)).transpose()?.flatten();
    let undo = |error: OwnError| {
        if let Some(copy) = &before {
            shared.put_back(aside, copy);
        }
        error
    };
    let place = before.as_ref().map(|copy| &copy.place);
    let placed = renewed.settle(&entry.name, |staged| match place {
        Some(Place::Library(path)) => shared.library.place_again(staged, path, &entry.name),
        Some(Place::InPlace(_)) | None => shared.library.place_own(staged, &entry.name),
    });
    let added = placed.map_err(|error: LibraryError| undo(AddError::from(error).into()))?;
    note(shared, &record, &entry, &added, aside).map_err(|error| {
        adding::take_back(shared, &added);
        undo(error)
    })
}

fn adopt_copy(shared: &Arc<Shared>, file: &FileId) -> Result<Noted, OwnError> {
    let _turn = shared.changes_of_own();
    let (record, entry) = shared.own_record_to_change(file)?;
    let unread = |e: crate::database::DatabaseError| OwnError::Unnoted(e.to_string());
    let copy = shared.database.copy(file).map_err(unread)?.ok_or(OwnError::NotHere)?;
    let added = renew_in_place(&shared.library, &copy.place, &entry.name)?;
    let known = shared.secret_of(&record);
    if known.is_some_and(|known| known.sha256 == added.sha256) && copy.content == entry.content {
        // Only its date is another one.
        shared.found_sound(&copy, added.stamp);
        return Ok(Noted { copy: LibraryCopy { stamp: added.stamp, ..copy }, changed: false });
    }
    note(shared, &record, &entry, &added, None)
}

/// Signs the next revision and notes it with its copy.
fn note(
    shared: &Arc<Shared>,
    before: &Record,
    entry: &Entry,
    added: &Added,
    aside: Option<TrashId>,
) -> Result<Noted, OwnError> {
    let unnoted = |e: &dyn std::fmt::Display| OwnError::Unnoted(e.to_string());
    let identity = &shared.identity;
    let content = added.manifest.id();
    let known = shared.secret_of(before).ok_or(OwnError::Keyless)?;
    let secret = AccessSecret {
        key: added.key.clone(),
        sha256: added.sha256,
        media_type: known.media_type.clone().or_else(|| added.media_type.clone()),
    };
    let access = Readers::of(&entry.access)
        .access(shared, &before.file(), &content, secret)
        .map_err(|_| OwnError::Keyless)?;
    let sha256 = listed_sha256(&access);
    let next = Entry {
        name: entry.name.clone(),
        size_bytes: added.manifest.geometry().size_bytes(),
        content,
        manifest: single(&added.manifest),
        access,
    };
    let body = before.body();
    let body = Body {
        file: body.file,
        origin: body.origin.clone(),
        links: body.links.clone(),
        revision: body.revision.saturating_add(1),
        state: State::Present(next),
    };
    let record =
        Record::sign(&body, &identity.trust, &identity.keys.identity).map_err(|error| unnoted(&error))?;
    let copy = LibraryCopy {
        file: body.file,
        owner: identity.keys.peer(),
        owner_name: identity.membership.name.clone(),
        name: entry.name.clone(),
        provenance: Provenance::Own,
        place: added.place.clone(),
        stamp: added.stamp,
        sha256,
        content,
        completeness: Completeness::Complete,
        record: record.signed().clone(),
    };
    let noting =
        shared.database.replace_copy(aside, &copy, &added.manifest, &record, &identity.trust, wall_ms());
    shared.noted(noting).map_err(|error| unnoted(&error))?;
    shared.defects.replaced(&copy.file);
    Ok(Noted { copy, changed: true })
}

/// The manifest as it stands in a record: where it lists one chunk.
fn single(manifest: &Manifest) -> Option<ByteBuf> {
    (manifest.geometry().chunks() == 1).then(|| ByteBuf::from(manifest.to_bytes()))
}

impl Shared {
    /// The own file that a reference names.
    pub(crate) async fn find_own(self: &Arc<Self>, reference: &str) -> Result<FoundFile, OwnError> {
        let found = self.find(reference).await?;
        if found.record.owner() != self.identity.keys.peer() {
            return Err(OwnError::NotOwner { owner: found.owner_name.to_string() });
        }
        Ok(found)
    }

    /// The newest record of an own file and its entry: what the next one continues. Hold [`Shared::changes_of_own`].
    pub(super) fn own_record(&self, file: &FileId) -> Result<(Record, Entry), OwnError> {
        let signed = self.database.record(file).map_err(|e| OwnError::Unnoted(e.to_string()))?;
        let signed = signed.ok_or_else(|| FindError::NotFound(file.to_string()))?;
        let record =
            Record::verify(signed, &self.identity.trust).map_err(|e| OwnError::Unnoted(e.to_string()))?;
        if record.owner() != self.identity.keys.peer() {
            let owner = self.owner_name(&record).ok().flatten();
            let owner = owner.map_or_else(|| record.owner().to_string(), |name| name.to_string());
            return Err(OwnError::NotOwner { owner });
        }
        let entry = record.entry().cloned().ok_or(OwnError::Deleted)?;
        if self.is_offered(file).map_err(|e| OwnError::Unnoted(e.to_string()))? {
            return Err(OwnError::HandingOver);
        }
        Ok((record, entry))
    }

    /// As [`Shared::own_record`], where the file is not on its way to another owner: that one signs for what was offered.
    pub(super) fn own_record_to_change(&self, file: &FileId) -> Result<(Record, Entry), OwnError> {
        let found = self.own_record(file)?;
        let offered = self.is_offered(file).map_err(|e| OwnError::Unnoted(e.to_string()))?;
        if offered { Err(OwnError::HandingOver) } else { Ok(found) }
    }

    /// The turn to change own records and their copies: one at a time, so that no revision is given twice. On a blocking
    /// thread only, and never across an await.
    pub(super) fn changes_of_own(&self) -> MutexGuard<'_, ()> {
        self.own_changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
