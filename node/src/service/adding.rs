//! Adding: files of this machine become files of the network.
//!
//! In this order, so that what is acknowledged lasts and nothing half-done is seen: the file is sealed and lies in the
//! library; its signed record and manifest are in the database, durably; then it is announced. Where no super-peer
//! answers, the announcement waits for the next one that does.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use quarta_daemon::cause::{self, Plain};
use quarta_metrics::node::AddOutcome;
use quarta_protocols::{
    audiences::AccessSecret,
    ids::FileId,
    messages::inventory::Completeness,
    names::FileName,
    records::{Body, Entry, Origin, Record, SignedRecord, State},
};
use serde_bytes::{ByteArray, ByteBuf};
use tokio::sync::mpsc;

use super::{
    Shared,
    keyring::{Readers, listed_sha256},
    wall_ms,
};
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
/// How often is told how far a file is; one that takes less time is not heard of before it is added.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What the thread that adds tells.
#[expect(clippy::large_enum_variant, reason = "a few wait at a time, and nearly all are results")]
enum Told {
    /// How far a file is.
    Progress { path: String, done_bytes: u64, size_bytes: u64 },
    /// What became of a file.
    Ended(Result<(String, LibraryCopy), Failed>),
}

/// One thing that is not shared, and why.
struct Failed {
    path: String,
    why: String,
    next_step: String,
    outcome: AddOutcome,
}

/// Adds what the request names, telling each result. Goes on to its end also where nobody listens any more.
pub(crate) async fn add_all(
    shared: Arc<Shared>,
    request: AddRequest,
    readers: Readers,
    events: mpsc::Sender<AddEvent>,
) {
    let (results, mut told) = mpsc::channel::<Told>(PUBLISH_TOGETHER);
    let blocking = shared.clone();
    let adding = tokio::task::spawn_blocking(move || {
        let mode = if request.in_place { Mode::InPlace } else { Mode::Copy };
        let how = How { mode, readers };
        for path in &request.paths {
            if add_path(&blocking, Path::new(path), request.name.as_deref(), how, &results).is_err() {
                return;
            }
        }
    });
    let mut batch = Vec::new();
    while told.recv_many(&mut batch, PUBLISH_TOGETHER).await > 0 {
        let records = batch
            .iter()
            .filter_map(|told| match told {
                Told::Ended(Ok((_, copy))) => Some((copy.file, copy.record.clone())),
                Told::Ended(Err(_)) | Told::Progress { .. } => None,
            })
            .collect::<Vec<_>>();
        publish(&shared, records).await;
        for told in batch.drain(..) {
            let event = match told {
                Told::Progress { path, done_bytes, size_bytes } => {
                    AddEvent::Progress { path, done_bytes, size_bytes }
                }
                Told::Ended(Ok((path, copy))) => {
                    offer(&shared, &copy);
                    match shared.show_copy(&copy) {
                        Some(file) => AddEvent::Added { path, file },
                        None => continue,
                    }
                }
                Told::Ended(Err(failed)) => {
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

pub(super) async fn publish(shared: &Arc<Shared>, records: Vec<(FileId, SignedRecord)>) {
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

/// How files are shared.
#[derive(Clone, Copy)]
struct How {
    mode: Mode,
    readers: Readers,
}

/// Nobody wants further results.
struct Unheard;

type Results = mpsc::Sender<Told>;

fn add_path(
    shared: &Arc<Shared>,
    path: &Path,
    name: Option<&str>,
    how: How,
    results: &Results,
) -> Result<(), Unheard> {
    let shown = path.display().to_string();
    let told = |result| results.blocking_send(Told::Ended(result)).map_err(|_| Unheard);
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
        return add_folder(shared, path, named, how, results);
    }
    let name = match named.map_or_else(|| name_of(path), Ok) {
        Ok(name) => name,
        Err(why) => return told(Err(refused(shown, why, "give it a name with --name"))),
    };
    let source = Source::named(path, &shared.library);
    told(add_source(shared, source, shown, name, how, results))
}

/// Adds an open file, telling now and then how far it is.
fn add_source(
    shared: &Arc<Shared>,
    source: Result<Source, SourceError>,
    path: String,
    name: FileName,
    how: How,
    results: &Results,
) -> Result<(String, LibraryCopy), Failed> {
    let added = source.map_err(AddError::from).and_then(|source| {
        let size_bytes = source.stamp().size_bytes;
        let mut told = Instant::now();
        let mut progress = |done_bytes| {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                // Whoever is behind needs the next one only.
                let _ = results.try_send(Told::Progress { path: path.clone(), done_bytes, size_bytes });
            }
        };
        add(&shared.library, source, &name, how.mode, &mut progress)
    });
    keep(shared, path, name, how.readers, added)
}

fn add_folder(
    shared: &Arc<Shared>,
    path: &Path,
    named: Option<FileName>,
    how: How,
    results: &Results,
) -> Result<(), Unheard> {
    let shown = path.display().to_string();
    let told = |result| results.blocking_send(Told::Ended(result)).map_err(|_| Unheard);
    let opened = match named.map_or_else(|| name_of(path), Ok) {
        Ok(prefix) => Folder::open(path, Some(&prefix), &shared.library),
        Err(why) => return told(Err(refused(shown, why, "give the folder a name with --name"))),
    };
    let folder = match opened {
        Ok(folder) => folder,
        Err(error) => {
            let why = format!("the folder cannot be read: {}", Plain(&error));
            return told(Err(refused(shown, why, cause::next_step(&error))));
        }
    };
    for found in folder.walk() {
        match found {
            Found::File { name, relative } => {
                let shown = path.join(&relative).display().to_string();
                let source = Source::found(&folder, &relative, &shared.library);
                told(add_source(shared, source, shown, name, how, results))?;
            }
            Found::Skipped { relative, reason } => {
                let shown = path.join(&relative).display().to_string();
                told(Err(refused(shown, reason.to_string(), reason.next_step())))?;
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
        None => path.canonicalize().map_err(|e| Plain(&e).to_string())?,
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
    readers: Readers,
    added: Result<Added, AddError>,
) -> Result<(String, LibraryCopy), Failed> {
    let added = added.map_err(|error| failed(path.clone(), &error))?;
    match note(shared, name, readers, &added) {
        Ok(copy) => Ok((path, copy)),
        Err(why) => {
            take_back(shared, &added);
            let next_step = "make room on the disk of the data folder or check it, and try again".to_owned();
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
pub(super) fn note(
    shared: &Arc<Shared>,
    name: FileName,
    readers: Readers,
    added: &Added,
) -> Result<LibraryCopy, String> {
    let identity = &shared.identity;
    let owner = identity.keys.peer();
    let content = added.manifest.id();
    let origin = Origin { owner, nonce: ByteArray::new(rand::random()) };
    let file: FileId = origin.file_id(&identity.trust.network);
    let single = added.manifest.geometry().chunks() == 1;
    let (key, sha256, media_type) = (added.key.clone(), added.sha256, added.media_type.clone());
    let secret = AccessSecret { key, sha256, media_type };
    let access = readers.access(shared, &file, &content, secret).map_err(|e| e.to_string())?;
    let sha256 = listed_sha256(&access);
    let entry = Entry {
        name: name.clone(),
        size_bytes: added.manifest.geometry().size_bytes(),
        content,
        manifest: single.then(|| ByteBuf::from(added.manifest.to_bytes())),
        access,
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
        sha256,
        content,
        completeness: Completeness::Complete,
        record: record.signed().clone(),
    };
    let kept = shared.database.keep_copy(&copy, &added.manifest, &record, &identity.trust, wall_ms());
    shared.noted(kept).map_err(|e| e.to_string())?;
    Ok(copy)
}

fn refused(path: String, why: String, next_step: &str) -> Failed {
    Failed { path, why, next_step: next_step.to_owned(), outcome: AddOutcome::Refused }
}

/// What a person is shown of an error.
fn failed(path: String, error: &AddError) -> Failed {
    let outcome = match error {
        AddError::Source(SourceError::Irregular { .. } | SourceError::DataFolder { .. })
        | AddError::Library(LibraryError::Taken { .. } | LibraryError::Twin { .. })
        | AddError::TooLarge { .. } => AddOutcome::Refused,
        _ => AddOutcome::Failed,
    };
    Failed { path, why: error.why(), next_step: error.next_step().to_owned(), outcome }
}
