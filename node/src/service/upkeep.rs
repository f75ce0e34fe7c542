//! Copies follow the records of their files: the shell around [`crate::upkeep`].
//!
//! What is to be done is found in the database, where every change of a record notes the copies that it concerns in the
//! same step. So it does not matter by which way a record came, nor that the node was off in between: a copy of a file
//! that was deleted meanwhile goes when its node is back, and one of a file that was updated is replaced.
//!
//! Newer contents are got by ordinary transfers, a few at a time, so that what people ask for finds a turn. The old copy
//! stays where it is, and is served, until the new content is complete and verified.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{
    credentials::Trust,
    ids::{ContentId, FileId, RecordHash},
    names::MemberName,
    records::Record,
};
use tokio::sync::{Notify, mpsc};

use super::{Shared, fetching, keyring::listed_sha256, trash::TrashError};
use crate::{
    api::model::TransferState,
    database::{Database, DatabaseError, LibraryCopy, Outdated, Provenance, TrashId, TrashReason},
    library::{Defect, Place},
    upkeep::{Fate, Meanwhile, Now, Role, fate},
};

/// Transfers that this begins and that move bytes at once: half of all, so that a person's fetch finds a turn.
const FOLLOWED_AT_ONCE: usize = fetching::FETCHES_AT_WORK / 2;
/// How often all outdated copies are looked at: for what could not be done before, e.g. because the disk was full.
const LOOK_AGAIN_EVERY: Duration = Duration::from_mins(1);
/// How long after a failed transfer the same content is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_mins(10);
/// Outdated copies read at a time.
const COPIES_AT_A_TIME: u32 = 500;

/// What keeps copies up to date, for those who have news.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Files with news; at most as many as this node has heard of.
    changed: Mutex<HashSet<FileId>>,
    /// Whether copies may be brought up that could not be before.
    all: AtomicBool,
    wake: Notify,
}

impl Upkeep {
    /// The records of these files, or their copies, are others than before.
    pub(crate) fn changed(&self, files: impl IntoIterator<Item = FileId>) {
        self.files().extend(files);
        self.wake.notify_one();
    }

    /// Keys have come that copies may have waited for.
    pub(super) fn look_at_all(&self) {
        self.all.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    fn files(&self) -> MutexGuard<'_, HashSet<FileId>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> HashSet<FileId> {
        std::mem::take(&mut *self.files())
    }
}

/// Why a copy is not what it should be yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpkeepError {
    #[error(transparent)]
    Trash(#[from] TrashError),
    #[error("the database could not be read or written: {0}")]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Library(#[from] crate::library::LibraryError),
}

/// The transfers that were begun here.
#[derive(Default)]
struct Followed {
    /// To be followed when others have ended.
    waiting: BTreeSet<FileId>,
    /// Under way and moving bytes, or about to.
    moving: HashSet<FileId>,
    /// What was tried and did not come: not again before that moment, or never for this record.
    tried: HashMap<FileId, (RecordHash, Option<Instant>)>,
}

/// Keeps copies up to date until the node stops.
pub(super) async fn keep_up(shared: Arc<Shared>) {
    let mut followed = Followed::default();
    // At most one word of each transfer waits, and there are few.
    let (told, mut hear) = mpsc::channel(FOLLOWED_AT_ONCE * 2);
    let mut look_at_all = true;
    loop {
        let changed = shared.upkeep.take();
        for file in &changed {
            if let Err(error) = fetching::record_changed(&shared, *file).await {
                tracing::error!(%error, %file, "a transfer could not be told of its file's change");
            }
        }
        let all = std::mem::take(&mut look_at_all) | shared.upkeep.all.swap(false, Ordering::Relaxed);
        let blocking = shared.clone();
        match tokio::task::spawn_blocking(move || blocking.deal_with(changed, all)).await {
            Ok(Ok(to_follow)) => followed.waiting.extend(to_follow),
            Ok(Err(error)) => {
                tracing::error!(%error, "copies could not be brought up to date; it is tried again");
            }
            Err(_) => return,
        }
        followed.begin(&shared, &told).await;
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.upkeep.wake.notified() => {}
            Some((file, hash, state)) = hear.recv() => followed.heard(file, hash, state),
            () = tokio::time::sleep(LOOK_AGAIN_EVERY) => look_at_all = true,
        }
    }
}

type Told = mpsc::Sender<(FileId, RecordHash, TransferState)>;

impl Followed {
    /// Begins as many transfers as may be under way.
    async fn begin(&mut self, shared: &Arc<Shared>, told: &Told) {
        while self.moving.len() < FOLLOWED_AT_ONCE
            && let Some(file) = self.waiting.pop_first()
        {
            let blocking = shared.clone();
            let found = tokio::task::spawn_blocking(move || blocking.to_follow(&file)).await;
            let (record, owner) = match found {
                Ok(Ok(Some(found))) => found,
                Ok(Ok(None)) => {
                    self.tried.remove(&file);
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, %file, "what is to be fetched anew could not be read");
                    continue;
                }
                Err(_) => return,
            };
            let hash = record.hash();
            let rests = self.tried.get(&file).is_some_and(|(tried, again)| {
                *tried == hash && again.is_none_or(|again| Instant::now() < again)
            });
            if rests || self.moving.contains(&file) {
                continue;
            }
            self.moving.insert(file);
            let (shared, told) = (shared.clone(), told.clone());
            tokio::spawn(async move { follow(&shared, record, owner, &told).await });
        }
    }

    /// A transfer has ended, or waits.
    fn heard(&mut self, file: FileId, hash: RecordHash, state: TransferState) {
        self.moving.remove(&file);
        match state {
            TransferState::Failed => {
                self.tried.insert(file, (hash, Some(Instant::now() + TRY_AGAIN_AFTER)));
            }
            // A person does not want it.
            TransferState::Cancelled | TransferState::Paused => {
                self.tried.insert(file, (hash, None));
            }
            TransferState::Completed
            | TransferState::Waiting
            | TransferState::Queued
            | TransferState::Active => {
                self.tried.remove(&file);
            }
        }
    }
}

/// Gets the new content of a copy, without fetching it where only its key is new, and tells how that goes.
async fn follow(shared: &Arc<Shared>, record: Record, owner: MemberName, told: &Told) {
    let (file, hash, revision) = (record.file(), record.hash(), record.body().revision);
    // Nobody hears it where the node stops.
    let say = async |state| told.send((file, hash, state)).await.is_ok();
    let (resealing, same) = (shared.clone(), record.clone());
    match tokio::task::spawn_blocking(move || resealing.reseal_copy(&same)).await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => {
            say(TransferState::Completed).await;
            return;
        }
        Ok(Err(error)) => {
            tracing::error!(%error, %file, "a copy could not be sealed anew");
            say(TransferState::Failed).await;
            return;
        }
        Err(_) => return,
    }
    let mut watched = match fetching::follow(shared, record, owner).await {
        Ok(Some(watched)) => watched,
        Ok(None) => {
            say(TransferState::Completed).await;
            return;
        }
        Err(error) => {
            tracing::warn!(%file, %error, "a file was updated by its owner and is not fetched yet");
            say(TransferState::Failed).await;
            return;
        }
    };
    tracing::info!(%file, revision, "a file was updated by its owner; its new content is fetched");
    let mut said = false;
    loop {
        let state = watched.borrow_and_update().state;
        // One that waits for sources is in nobody's way.
        let rests = !state.is_going_on();
        if rests && (!said || state != TransferState::Waiting) {
            said = true;
            if !say(state).await {
                return;
            }
        }
        if rests && state != TransferState::Waiting || watched.changed().await.is_err() {
            return;
        }
    }
}

/// Whose a copy is, by the record that holds now, or the one it belongs to.
fn role(own: &PeerId, record: &Record) -> Role {
    if record.owner() == *own { Role::Owner } else { Role::Reader }
}

impl Shared {
    /// What is to become of an outdated copy, with the record that holds now. None where a record is not genuine: then
    /// nothing is known. Blocks on the disk.
    pub(super) fn fate_of(&self, outdated: &Outdated) -> Option<(Fate, Option<Record>)> {
        let opens = |record: &Record| self.secret_of(record).is_some();
        fate_of(&self.identity.trust, &self.identity.keys.peer(), outdated, opens)
    }

    /// Does what can be done at once about the outdated copies of files with news, and where `all` about every one; gives
    /// the files whose new content is to be fetched. Blocks on the disk.
    fn deal_with(self: &Arc<Self>, changed: HashSet<FileId>, all: bool) -> Result<Vec<FileId>, UpkeepError> {
        let mut to_follow = Vec::new();
        for file in changed {
            if let Some(outdated) = self.database.outdated_copy(&file)? {
                self.deal_with_one(&outdated, &mut to_follow);
            } else if self.is_damaged(&file) {
                to_follow.push(file);
            } else if self.database.record(&file)?.is_none() {
                // Hidden from this node, which may have old versions of it without a copy.
                self.erase_all_of(&file)?;
            }
        }
        if !all {
            return Ok(to_follow);
        }
        let mut after = None;
        loop {
            let page = self.database.outdated(after.as_ref(), COPIES_AT_A_TIME)?;
            let Some(last) = page.last() else { return Ok(to_follow) };
            after = Some(last.copy.file);
            for outdated in &page {
                self.deal_with_one(outdated, &mut to_follow);
            }
        }
    }

    /// Whether a copy is not to be offered, whatever its bytes are. Blocks on the disk.
    pub(super) fn is_withheld(&self, file: &FileId) -> bool {
        match self.database.outdated_copy(file) {
            Ok(None) => false,
            Ok(Some(outdated)) => self.fate_of(&outdated).is_none_or(|(fate, _)| !fate.is_served()),
            Err(error) => {
                tracing::error!(%error, "the database could not be read; a copy is not offered");
                true
            }
        }
    }

    fn deal_with_one(self: &Arc<Self>, outdated: &Outdated, to_follow: &mut Vec<FileId>) {
        let file = outdated.copy.file;
        match self.bring_up(outdated) {
            Ok(true) => to_follow.push(file),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, %file, "a copy could not be brought up to date; it is tried again");
            }
        }
    }

    /// Brings one copy up to what holds now, but for fetching, which it says is needed. Blocks on the disk.
    ///
    /// # Errors
    /// [`UpkeepError`]; it stays outdated then, and what must not be served is not.
    pub(super) fn bring_up(self: &Arc<Self>, outdated: &Outdated) -> Result<bool, UpkeepError> {
        let Some((fate, now)) = self.fate_of(outdated) else { return Ok(false) };
        let copy = &outdated.copy;
        if !fate.is_served() {
            self.withdraw(copy.file);
            self.uploads.forget(&copy.content);
        }
        match fate {
            Fate::Keep | Fate::Wait(_) => Ok(false),
            Fate::Follow(meanwhile) => {
                if meanwhile == Meanwhile::Withheld {
                    tracing::info!(file = %copy.name, "a file was restricted by its owner; its old content is served no more");
                }
                Ok(true)
            }
            Fate::Note => {
                if let Some(record) = now {
                    self.note_record(copy, &record)?;
                }
                Ok(false)
            }
            Fate::Trash => {
                tracing::info!(file = %copy.name, "a file was deleted by its owner; the copy goes to the trash");
                self.retire(copy)?;
                Ok(false)
            }
            Fate::Erase => {
                self.erase(copy)?;
                Ok(false)
            }
        }
    }

    /// A copy whose content is still the file's, under a newer record.
    fn note_record(self: &Arc<Self>, copy: &LibraryCopy, record: &Record) -> Result<(), UpkeepError> {
        let (Some(entry), Some(manifest)) = (record.entry(), self.database.manifest(&copy.content)?) else {
            return Ok(());
        };
        let owner = record.owner();
        let noted = LibraryCopy {
            owner,
            owner_name: self.owner_name(record)?.unwrap_or_else(|| copy.owner_name.clone()),
            name: entry.name.clone(),
            provenance: match role(&self.identity.keys.peer(), record) {
                Role::Owner => Provenance::Own,
                Role::Reader => Provenance::Fetched,
            },
            sha256: listed_sha256(&entry.access),
            record: record.signed().clone(),
            ..copy.clone()
        };
        self.noted(self.database.put_copy(&noted, &manifest))?;
        if self.inventory().get(&quarta_protocols::messages::inventory::Key::Library(copy.file)).is_some() {
            self.offer(&noted);
        }
        Ok(())
    }

    /// The copy of a deleted file goes to the trash. One that lies where its user keeps it stays there, and is shared no
    /// more.
    fn retire(self: &Arc<Self>, copy: &LibraryCopy) -> Result<(), UpkeepError> {
        match self.set_aside(copy, TrashReason::Deleted)? {
            Some(id) => self.noted(self.database.trash_copy(id, &copy.file))?,
            None => {
                self.noted(self.database.remove_copy(&copy.file))?;
            }
        }
        self.defects.replaced(&copy.file);
        Ok(())
    }

    /// The copy of a file that was taken away from this branch is erased, with what the trash has of it.
    fn erase(self: &Arc<Self>, copy: &LibraryCopy) -> Result<(), UpkeepError> {
        if let Place::Library(path) = &copy.place {
            self.library.remove(path)?;
        }
        self.erase_all_of(&copy.file)?;
        self.noted(self.database.remove_copy(&copy.file))?;
        self.defects.replaced(&copy.file);
        Ok(())
    }

    /// What is to be fetched for a copy, if it is outdated still. Blocks on the disk.
    fn to_follow(&self, file: &FileId) -> Result<Option<(Record, MemberName)>, DatabaseError> {
        let Some(outdated) = self.database.outdated_copy(file)? else { return self.to_repair(file) };
        let Some((Fate::Follow(_), Some(record))) = self.fate_of(&outdated) else { return Ok(None) };
        let owner = self.owner_name(&record)?.unwrap_or_else(|| outdated.copy.owner_name.clone());
        Ok(Some((record, owner)))
    }

    /// What is to be fetched again for a copy of another branch's file, if its disk has lost some of it.
    fn to_repair(&self, file: &FileId) -> Result<Option<(Record, MemberName)>, DatabaseError> {
        let copy = self.database.copy(file)?.filter(|copy| copy.provenance == Provenance::Fetched);
        let Some(copy) = copy.filter(|_| self.is_damaged(file)) else { return Ok(None) };
        let record = Record::verify(copy.record, &self.identity.trust).ok();
        Ok(record.map(|record| (record, copy.owner_name)))
    }

    fn is_damaged(&self, file: &FileId) -> bool {
        self.defects.get(file).is_some_and(|found| found.defect == Defect::Damaged)
    }

    /// Makes room for a file's new content, which is complete: the copy in its place goes to the trash, as a plan. What a
    /// person has changed there stays, and the new content is put beside it. Blocks on the disk.
    pub(super) fn make_way(&self, file: &FileId, content: &ContentId) -> Option<(TrashId, LibraryCopy)> {
        let copy = match self.database.copy(file) {
            Ok(copy) => copy?,
            Err(error) => {
                tracing::error!(%error, "the database could not be read; a new version is put beside the old one");
                return None;
            }
        };
        let defect = self.defects.get(file).map(|known| known.defect);
        let reason = match (copy.content == *content, defect) {
            (false, None) => TrashReason::Replaced,
            (_, Some(Defect::Damaged)) => TrashReason::Damaged,
            _ => return None,
        };
        if reason == TrashReason::Replaced && !matches!(self.library.look(&copy.place, copy.stamp), Ok(None))
        {
            return None;
        }
        match self.set_aside(&copy, reason) {
            Ok(aside) => aside.map(|id| (id, copy)),
            Err(error) => {
                tracing::error!(%error, "the old version could not be moved; the new one is put beside it");
                None
            }
        }
    }
}

/// The files whose copies are not to be offered any more, though they are here still. For the start. Blocks on the disk.
pub(super) fn withheld(
    database: &Database,
    trust: &Trust,
    own: &PeerId,
) -> Result<HashSet<FileId>, DatabaseError> {
    let mut withheld = HashSet::new();
    let mut after = None;
    loop {
        let page = database.outdated(after.as_ref(), COPIES_AT_A_TIME)?;
        let Some(last) = page.last() else { return Ok(withheld) };
        after = Some(last.copy.file);
        let unserved = page.iter().filter(|outdated| {
            fate_of(trust, own, outdated, |_| false).is_some_and(|(fate, _)| !fate.is_served())
        });
        withheld.extend(unserved.map(|outdated| outdated.copy.file));
    }
}

/// As [`Shared::fate_of`], before there is a service. Whether this node can open a record has no say in what is served.
fn fate_of(
    trust: &Trust,
    own: &PeerId,
    outdated: &Outdated,
    opens: impl Fn(&Record) -> bool,
) -> Option<(Fate, Option<Record>)> {
    let held = Record::verify(outdated.copy.record.clone(), trust).ok()?;
    let Some(signed) = &outdated.now else {
        // Whose the file is now, which the record that the copy belongs to need not say yet.
        let role = if outdated.copy.owner == *own { Role::Owner } else { Role::Reader };
        return Some((fate(&held, Now::Hidden, role), None));
    };
    let now = Record::verify(signed.clone(), trust).ok()?;
    let fate = fate(&held, Now::Record { record: &now, opens: opens(&now) }, role(own, &now));
    Some((fate, Some(now)))
}
