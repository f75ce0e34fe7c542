//! Adding: files of this machine become files of the network.
//!
//! In this order, so that what is acknowledged lasts and nothing half-done is seen: the file is sealed and lies in the
//! library; its signed record and manifest are in the database, durably; then it is announced. Where no super-peer
//! answers, the announcement waits for the next one that does.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use quarta_metrics::node::AddOutcome;
use quarta_protocols::{
    ids::FileId,
    messages::inventory::Completeness,
    names::FileName,
    records::{Access, Body, Entry, Origin, Record, SignedRecord, State},
};
use serde_bytes::{ByteArray, ByteBuf};
use tokio::sync::mpsc;

use super::{Shared, wall_ms};
use crate::{
    api::model::{AddEvent, AddRequest},
    database::{LibraryCopy, Provenance},
    library::{
        LibraryError,
        walk::{Folder, Found},
    },
    sealing::{AddError, Added, Mode, Source, SourceError, add},
};

/// Records published together.
const PUBLISH_TOGETHER: usize = 64;

/// One thing that is not shared, and why.
struct Failed {
    path: String,
    why: String,
    next_step: String,
    outcome: AddOutcome,
}

/// Adds what the request names, telling each result. Goes on to its end also where nobody listens any more.
pub(crate) async fn add_all(shared: Arc<Shared>, request: AddRequest, events: mpsc::Sender<AddEvent>) {
    let (results, mut added) = mpsc::channel::<Result<(String, LibraryCopy), Failed>>(PUBLISH_TOGETHER);
    let blocking = shared.clone();
    let adding = tokio::task::spawn_blocking(move || {
        let mode = if request.in_place { Mode::InPlace } else { Mode::Copy };
        for path in &request.paths {
            if add_path(&blocking, Path::new(path), request.name.as_deref(), mode, &results).is_err() {
                return;
            }
        }
    });
    let mut batch = Vec::new();
    while added.recv_many(&mut batch, PUBLISH_TOGETHER).await > 0 {
        let records = batch
            .iter()
            .filter_map(|result| result.as_ref().ok())
            .map(|(_, copy)| (copy.file, copy.record.clone()))
            .collect::<Vec<_>>();
        publish(&shared, records).await;
        for result in batch.drain(..) {
            let event = match result {
                Ok((path, copy)) => {
                    offer(&shared, &copy);
                    match shared.show_copy(&copy) {
                        Some(file) => AddEvent::Added { path, file },
                        None => continue,
                    }
                }
                Err(failed) => {
                    shared.metrics.node.adds.inc(failed.outcome);
                    AddEvent::Failed { path: failed.path, why: failed.why, next_step: failed.next_step }
                }
            };
            // The requester may be gone; what was added is announced all the same.
            let _ = events.send(event).await;
        }
    }
    let _ = adding.await;
}

/// Announces files that have been noted.
pub(super) async fn announce(shared: &Arc<Shared>, copies: &[LibraryCopy]) {
    publish(shared, copies.iter().map(|copy| (copy.file, copy.record.clone())).collect()).await;
    for copy in copies {
        offer(shared, copy);
    }
}

async fn publish(shared: &Arc<Shared>, records: Vec<(FileId, SignedRecord)>) {
    if !records.is_empty()
        && let Err(error) = shared.superpeers.publish(shared, records).await
    {
        tracing::warn!(%error, "new files are announced as soon as a super-peer answers");
    }
}

fn offer(shared: &Arc<Shared>, copy: &LibraryCopy) {
    shared.metrics.node.adds.inc(AddOutcome::Added);
    shared.metrics.node.added_bytes.add(copy.stamp.size_bytes);
    shared.offer(copy);
}

/// Nobody wants further results.
struct Unheard;

type Results = mpsc::Sender<Result<(String, LibraryCopy), Failed>>;

fn add_path(
    shared: &Arc<Shared>,
    path: &Path,
    name: Option<&str>,
    mode: Mode,
    results: &Results,
) -> Result<(), Unheard> {
    let shown = path.display().to_string();
    let told = |result| results.blocking_send(result).map_err(|_| Unheard);
    let named = match name {
        Some(name) => match FileName::normalised(name) {
            Ok(name) => Some(name),
            Err(error) => {
                let why = format!("the name {name:?} cannot be shared: {error}");
                return told(Err(refused(shown, why, "choose another name with --name")));
            }
        },
        None => None,
    };
    if path.is_dir() {
        return add_folder(shared, path, named, mode, results);
    }
    let name = match named.map_or_else(|| name_of(path), Ok) {
        Ok(name) => name,
        Err(why) => return told(Err(refused(shown, why, "give it a name with --name"))),
    };
    let added = Source::named(path, &shared.library)
        .map_err(AddError::from)
        .and_then(|source| add(&shared.library, source, &name, mode));
    told(keep(shared, shown, name, added))
}

fn add_folder(
    shared: &Arc<Shared>,
    path: &Path,
    named: Option<FileName>,
    mode: Mode,
    results: &Results,
) -> Result<(), Unheard> {
    let shown = path.display().to_string();
    let told = |result| results.blocking_send(result).map_err(|_| Unheard);
    let opened = match named.map_or_else(|| name_of(path), Ok) {
        Ok(prefix) => Folder::open(path, Some(&prefix), &shared.library).map_err(|e| e.to_string()),
        Err(why) => return told(Err(refused(shown, why, "give the folder a name with --name"))),
    };
    let folder = match opened {
        Ok(folder) => folder,
        Err(why) => return told(Err(refused(shown, why, "check the folder and its permissions"))),
    };
    for found in folder.walk() {
        match found {
            Found::File { name, relative } => {
                let shown = path.join(&relative).display().to_string();
                let added = Source::found(&folder, &relative, &shared.library)
                    .map_err(AddError::from)
                    .and_then(|source| add(&shared.library, source, &name, mode));
                told(keep(shared, shown, name, added))?;
            }
            Found::Skipped { relative, reason } => {
                let shown = path.join(&relative).display().to_string();
                told(Err(refused(
                    shown,
                    reason.to_string(),
                    "the other files of the folder are not affected",
                )))?;
            }
        }
    }
    Ok(())
}

/// The name of a path's last part.
fn name_of(path: &Path) -> Result<FileName, String> {
    // "." and ".." have no last part of their own.
    let real: PathBuf = match path.file_name() {
        Some(_) => path.to_owned(),
        None => path.canonicalize().map_err(|e| e.to_string())?,
    };
    let leaf = real.file_name().ok_or("the root folder has no name")?;
    let leaf = leaf.to_str().ok_or("its name is not valid UTF-8")?;
    FileName::normalised(leaf).map_err(|error| format!("the name {leaf:?} cannot be shared: {error}"))
}

/// Signs a sealed file's record and notes both in the database. A file that cannot be noted is taken back.
fn keep(
    shared: &Arc<Shared>,
    path: String,
    name: FileName,
    added: Result<Added, AddError>,
) -> Result<(String, LibraryCopy), Failed> {
    let added = added.map_err(|error| failed(path.clone(), &error))?;
    match note(shared, name, &added) {
        Ok(copy) => Ok((path, copy)),
        Err(why) => {
            take_back(shared, &added);
            let next_step = "check the disk of the data folder and try again".to_owned();
            Err(Failed { path, why, next_step, outcome: AddOutcome::Failed })
        }
    }
}

/// Removes a file that could not be noted.
pub(super) fn take_back(shared: &Arc<Shared>, added: &Added) {
    if let crate::library::Place::Library(place) = &added.place
        && let Err(error) = shared.library.remove(place)
    {
        tracing::error!(%error, "a file that could not be noted could not be removed either");
    }
}

/// Signs a sealed file's record and notes both in the database.
pub(super) fn note(shared: &Arc<Shared>, name: FileName, added: &Added) -> Result<LibraryCopy, String> {
    let identity = &shared.identity;
    let owner = identity.keys.peer();
    let content = added.manifest.id();
    let origin = Origin { owner, nonce: ByteArray::new(rand::random()) };
    let file: FileId = origin.file_id(&identity.trust.network);
    let single = added.manifest.geometry().chunks() == 1;
    let entry = Entry {
        name: name.clone(),
        size_bytes: added.manifest.geometry().size_bytes(),
        content,
        manifest: single.then(|| ByteBuf::from(added.manifest.to_bytes())),
        access: Access::Open {
            key: added.key.clone(),
            sha256: added.sha256,
            media_type: added.media_type.clone(),
        },
    };
    let body = Body { file, origin, links: Vec::new(), revision: 1, state: State::Present(entry) };
    let record = Record::sign(&body, &identity.trust, &identity.keys.identity).map_err(|e| e.to_string())?;
    let copy = LibraryCopy {
        file,
        owner,
        owner_name: identity.membership.name.clone(),
        name,
        provenance: Provenance::Own,
        place: added.place.clone(),
        stamp: added.stamp,
        sha256: Some(added.sha256),
        content,
        completeness: Completeness::Complete,
        record: record.signed().clone(),
    };
    shared.database.remember_record(&record, &identity.trust, wall_ms()).map_err(|e| e.to_string())?;
    shared.database.put_copy(&copy, &added.manifest).map_err(|e| e.to_string())?;
    Ok(copy)
}

fn refused(path: String, why: String, next_step: &str) -> Failed {
    Failed { path, why, next_step: next_step.to_owned(), outcome: AddOutcome::Refused }
}

/// Splits an error's text, made as "what: why; next step", into what a person is shown.
fn failed(path: String, error: &AddError) -> Failed {
    let outcome = match error {
        AddError::Source(SourceError::Irregular { .. } | SourceError::DataFolder { .. })
        | AddError::Library(LibraryError::Taken { .. } | LibraryError::Twin { .. })
        | AddError::TooLarge { .. } => AddOutcome::Refused,
        _ => AddOutcome::Failed,
    };
    let text = error.to_string();
    let (rest, next_step) = text.rsplit_once("; ").unwrap_or((&text, "check the file and try again"));
    let why = rest.split_once(": ").map_or(rest, |(_, why)| why);
    Failed { path, why: why.to_owned(), next_step: next_step.to_owned(), outcome }
}
