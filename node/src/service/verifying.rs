//! Verifying: reading copies on disk to their last byte, and comparing them with what was shared.
//!
//! A copy is sound when its SHA-256 is the record's and each of its chunks, sealed, is the manifest's, so that it can be
//! shown to people and served to branches; and when its file was not written to meanwhile. What is not sound stops being
//! a source at once, what is sound again becomes one again.
//!
//! One verification runs at a time, on one blocking thread and at no more than [`BYTES_PER_SECOND`], so that a library
//! of a terabyte can be verified on a machine that serves others meanwhile. It ends when nobody listens any more: it
//! changes nothing that it would have to finish.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quarta_daemon::cause::{self, Plain};
use quarta_metrics::node::CopyChecked;
use quarta_protocols::{
    content::{Cipher, Manifest},
    ids::Sha256,
    messages::inventory::Completeness,
    records::Record,
};
use sha2::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{COPIES_AT_A_TIME, Shared, listing::FindError};
use crate::{
    api::model::{Checked, VerifyEvent},
    database::{DatabaseError, LibraryCopy},
    library::{Defect, Library, Place, Stamp},
    throttle::Bucket,
};

/// What a verification reads at most, in bytes a second: a hard disk's rate, and a quarter of what one core checks.
const BYTES_PER_SECOND: u64 = 256 * 1024 * 1024;
/// How often it tells how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The verifications of this node: one at a time.
#[derive(Debug)]
pub(crate) struct Verifications(Arc<Semaphore>);

impl Default for Verifications {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Verifications {
    /// The turn to verify; none while somebody else has it.
    pub(crate) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}

/// What to check.
pub(crate) enum Scope {
    /// Every copy of the library.
    All,
    /// These.
    Copies(Vec<LibraryCopy>),
}

/// Which copies the references name.
///
/// # Errors
/// [`FindError`], also where no copy of a file is on this machine.
pub(crate) async fn scope(shared: &Arc<Shared>, references: &[String]) -> Result<Scope, FindError> {
    if references.is_empty() {
        return Ok(Scope::All);
    }
    let mut copies = Vec::with_capacity(references.len());
    for reference in references {
        // What is on this machine is known without a super-peer.
        let found = super::listing::one_of(reference, shared.find_known(reference.clone()).await?)?;
        let (blocking, file) = (shared.clone(), found.record.file());
        let copy = tokio::task::spawn_blocking(move || blocking.database.copy(&file))
            .await
            .map_err(|e| FindError::Database(e.to_string()))??;
        let whole = copy.filter(|copy| copy.completeness == Completeness::Complete);
        copies.push(whole.ok_or_else(|| FindError::NotHere(reference.clone()))?);
    }
    Ok(Scope::Copies(copies))
}

/// Checks copies one after the other and tells each result. Blocks on the disk; ends early where nobody listens or the
/// daemon stops.
pub(crate) fn run(shared: &Arc<Shared>, scope: Scope, to: &mpsc::Sender<VerifyEvent>) {
    let mut run = Run {
        shared,
        to,
        bucket: Bucket::new(Instant::now(), BYTES_PER_SECOND),
        told: Instant::now(),
        size_bytes: 0,
        done_bytes: 0,
        sound: 0,
        defective: 0,
    };
    let last = match run.all(scope) {
        Ok(()) => VerifyEvent::Summary { sound: run.sound, defective: run.defective },
        Err(Ended::Unheard) => return,
        Err(Ended::Database(error)) => VerifyEvent::Failed {
            why: error.to_string(),
            next_step: "see the daemon's log and check the disk of the data folder".to_owned(),
        },
    };
    // Nobody may be listening any more.
    let _ = to.blocking_send(last);
}

/// Why a verification does not come to its end.
enum Ended {
    Unheard,
    Database(DatabaseError),
}

impl From<DatabaseError> for Ended {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

/// A verification under way.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    to: &'a mpsc::Sender<VerifyEvent>,
    bucket: Bucket,
    told: Instant,
    size_bytes: u64,
    done_bytes: u64,
    sound: u64,
    defective: u64,
}

impl Run<'_> {
    fn all(&mut self, scope: Scope) -> Result<(), Ended> {
        match scope {
            Scope::Copies(copies) => {
                self.size_bytes = copies.iter().map(|copy| copy.stamp.size_bytes).sum();
                copies.iter().try_for_each(|copy| self.check(copy))
            }
            Scope::All => {
                self.each_page(|run, copies| {
                    run.size_bytes += copies.iter().map(|copy| copy.stamp.size_bytes).sum::<u64>();
                    Ok(())
                })?;
                self.each_page(|run, copies| copies.iter().try_for_each(|copy| run.check(copy)))
            }
        }
    }

    /// Goes through the whole copies of the library.
    fn each_page(
        &mut self,
        mut act: impl FnMut(&mut Self, &[LibraryCopy]) -> Result<(), Ended>,
    ) -> Result<(), Ended> {
        let mut after = None;
        loop {
            let mut copies = self.shared.database.copies(after.as_ref(), COPIES_AT_A_TIME)?;
            let Some(last) = copies.last() else { return Ok(()) };
            after = Some(last.file);
            copies.retain(|copy| copy.completeness == Completeness::Complete);
            act(self, &copies)?;
        }
    }

    fn check(&mut self, copy: &LibraryCopy) -> Result<(), Ended> {
        let Some(against) = Against::of(self.shared, copy)? else { return Ok(()) };
        let before = self.done_bytes;
        let found = check(&self.shared.library, &copy.place, &against, &mut |bytes| self.pass(copy, bytes));
        // Whatever was read of it, it has had its turn.
        self.done_bytes = before + copy.stamp.size_bytes;
        let (defect, why, next_step) = match found {
            Err(Unfinished::Stopped) => return Err(Ended::Unheard),
            Ok(stamp) => {
                if !self.shared.found_sound(copy, stamp) {
                    return Ok(());
                }
                (None, String::new(), String::new())
            }
            Err(Unfinished::Defect(defect, why)) => {
                self.shared.lost(copy, defect);
                let next = match defect {
                    Defect::Changed | Defect::Missing | Defect::Damaged => {
                        "put the right file back and verify again, or fetch it with `quarta get`"
                    }
                    Defect::Unreadable => "see who may read it and check the disk, and verify again",
                };
                (Some(defect), why, next.to_owned())
            }
        };
        self.count(defect);
        self.tell(VerifyEvent::Checked(Checked {
            id: copy.file.to_string(),
            name: copy.name.to_string(),
            owner: copy.owner_name.to_string(),
            path: self.shared.library.path_of(&copy.place).display().to_string(),
            size_bytes: copy.stamp.size_bytes,
            defect,
            why,
            next_step,
        }))
    }

    fn count(&mut self, defect: Option<Defect>) {
        match defect {
            None => self.sound += 1,
            Some(_) => self.defective += 1,
        }
        self.shared.metrics.node.copies_checked.inc(match defect {
            None => CopyChecked::Sound,
            Some(Defect::Changed) => CopyChecked::Changed,
            Some(Defect::Missing) => CopyChecked::Missing,
            Some(Defect::Unreadable) => CopyChecked::Unreadable,
            Some(Defect::Damaged) => CopyChecked::Damaged,
        });
    }

    /// So many bytes were read: waits for the rate, and tells how far it is. `false` where it is to end.
    fn pass(&mut self, copy: &LibraryCopy, bytes: usize) -> bool {
        self.done_bytes += bytes as u64;
        let wait = self.bucket.take(Instant::now(), bytes);
        if !wait.is_zero() {
            thread::sleep(wait);
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let progress = VerifyEvent::Progress {
                name: copy.name.to_string(),
                done_bytes: self.done_bytes,
                size_bytes: self.size_bytes,
            };
            // A reader that is behind needs the next one only.
            let _ = self.to.try_send(progress);
        }
        !self.to.is_closed() && !self.shared.stop.is_cancelled()
    }

    fn tell(&self, event: VerifyEvent) -> Result<(), Ended> {
        self.to.blocking_send(event).map_err(|_| Ended::Unheard)
    }
}

/// What a copy must be.
pub(super) struct Against {
    sha256: Option<Sha256>,
    cipher: Cipher,
    manifest: Manifest,
}

impl Against {
    /// What a copy is compared with; none where its record does not let this node read it.
    pub(super) fn of(shared: &Shared, copy: &LibraryCopy) -> Result<Option<Self>, DatabaseError> {
        let Some(manifest) = shared.database.manifest(&copy.content)? else { return Ok(None) };
        let record = Record::verify(copy.record.clone(), &shared.identity.trust).ok();
        let secret = record.and_then(|record| shared.secret_of(&record));
        Ok(secret.map(|secret| Self { sha256: Some(secret.sha256), cipher: secret.key.cipher(), manifest }))
    }
}

/// Why a copy was not found sound.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    Defect(Defect, String),
    /// It was not read to its end, since nobody wants to know.
    Stopped,
}

/// Reads a copy to its end; gives the stamp with which it is sound. `pass` is told of every chunk read, and ends it.
pub(super) fn check(
    library: &Library,
    place: &Place,
    against: &Against,
    pass: &mut dyn FnMut(usize) -> bool,
) -> Result<Stamp, Unfinished> {
    let unreadable = |error: io::Error| {
        let why = match Defect::of_failure(&error) {
            Some(Defect::Changed) if error.kind() == io::ErrorKind::InvalidInput => error.to_string(),
            Some(Defect::Changed) => "it has become shorter".to_owned(),
            Some(Defect::Missing) => "it is not there any more".to_owned(),
            _ => Plain(&error).to_string(),
        };
        // For want of descriptors it could not be told either, which `next_step` says; it is not changed for that.
        Unfinished::Defect(Defect::of_failure(&error).unwrap_or(Defect::Unreadable), why)
    };
    let changed = |why: &str| Unfinished::Defect(Defect::Changed, why.to_owned());
    let file = open(library, place).map_err(unreadable)?;
    let stamp = Stamp::of(&file).map_err(unreadable)?;
    let geometry = against.manifest.geometry();
    if stamp.size_bytes != geometry.size_bytes() {
        return Err(changed(&format!("it has {} bytes and not {}", stamp.size_bytes, geometry.size_bytes())));
    }
    let mut sha256 = sha2::Sha256::new();
    let mut chunk = Vec::new();
    for index in 0..geometry.chunks() {
        chunk.resize(geometry.plain_len(index), 0);
        file.read_exact_at(&mut chunk, geometry.offset(index)).map_err(unreadable)?;
        sha256.update(&chunk);
        let read = chunk.len();
        against.cipher.seal(index, &mut chunk);
        if against.manifest.check(index, &chunk).is_err() {
            return Err(changed("its bytes are not those that were shared"));
        }
        if !pass(read) {
            return Err(Unfinished::Stopped);
        }
    }
    let sum = Sha256::from_bytes(sha256.finalize().into());
    if against.sha256.is_some_and(|expected| expected != sum) {
        return Err(changed("its SHA-256 is not the one that was shared"));
    }
    if Stamp::of(&file).map_err(unreadable)? != stamp {
        return Err(changed("it was written to while it was checked"));
    }
    Ok(stamp)
}

/// Opens a copy, with patience where the process has no descriptor left for a moment.
fn open(library: &Library, place: &Place) -> io::Result<File> {
    const TRIES: u32 = 20;
    for _ in 1..TRIES {
        match library.open_file(place) {
            Err(error) if cause::too_many_open(&error) => thread::sleep(TELL_EVERY),
            other => return other,
        }
    }
    library.open_file(place)
}

#[cfg(test)]
mod tests;
