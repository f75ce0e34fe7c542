//! Taking files over from their owners: an offer is kept, the file fetched where it is not here, read to its last byte,
//! and only then signed for.
//!
//! Whoever offers hears how far this is as often as it asks, and may go away: what was offered is in the database, so this
//! side goes on by itself, also after a restart, and publishes what it has signed. The answer to an offer that was taken is
//! the signed record, however often and late it is asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use libp2p::PeerId;
use quarta_protocols::{
    credentials::Role,
    ids::{FileId, RecordHash},
    messages::{
        handover::{Handover as Lane, Refusal, Request, Response},
        inventory::Completeness,
    },
    names::MemberName,
    network::Asked,
    records::{Entry, Record, SignedRecord},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, fetching, keyring::Readers, verifying, wall_ms};
use crate::{
    api::model::{NodeEvent, Transfer, TransferState, VerifyEvent},
    database::{Handover, LibraryCopy, Provenance},
    handover::taking::{Offer, Offered, consider, free_name},
};

/// Files that are taken over at a time: each may be a transfer, of which a few move bytes at once.
const TAKINGS_MAX: usize = 32;
/// How long an answer waits for a file that is here already, or small: then one question is enough.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Space that a file must leave on the disk: nobody's gift fills it.
const ROOM_LEFT_BYTES: u64 = 256 << 20;
/// The pause after what may pass, such as a disk that is full.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Results of a check that wait to be read: one, and how far it is.
const CHECKS_WAITING: usize = 4;

/// The files that are being taken over.
#[derive(Default)]
pub(super) struct Takings(Mutex<HashMap<FileId, Taking>>);

/// A file that is being taken over.
#[derive(Clone)]
struct Taking {
    link: RecordHash,
    progress: watch::Receiver<Progress>,
    cancel: CancellationToken,
}

#[derive(Debug, Clone)]
enum Progress {
    Fetching { have_bytes: u64 },
    Ended(Result<SignedRecord, Refusal>),
}

impl Takings {
    fn all(&self) -> MutexGuard<'_, HashMap<FileId, Taking>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This branch takes nothing over any more.
    pub(super) fn cancel_all(&self) {
        for taking in self.all().values() {
            taking.cancel.cancel();
        }
    }
}

/// Answers whoever offers a file.
pub(super) fn answer(shared: &Arc<Shared>, asked: Asked<Lane>) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let by_superpeer = asked.membership.is_some_and(|asker| asker.role == Role::Superpeer);
        let response = match shared.offered(asked.request, asked.peer, by_superpeer).await {
            Ok(response) => response,
            Err(refusal) => Response::Refused(refusal),
        };
        asked.responder.respond(response);
    });
}

impl Shared {
    async fn offered(
        self: &Arc<Self>,
        request: Request,
        by: PeerId,
        by_superpeer: bool,
    ) -> Result<Response, Refusal> {
        // The rule is signed by nobody: it is heard from who signed the link, or passes that on for the root.
        let link = request.link.peek().map_err(|_| Refusal::Invalid)?;
        if link.from != by && !(link.by_root && by_superpeer) {
            return Err(Refusal::Invalid);
        }
        let mut progress = {
            let _changing = self.handovers.changing.lock().await;
            let (looking, asked) = (self.clone(), request.clone());
            let offer = match in_blocking(move || looking.look_at(&asked)).await? {
                Offered::Taken(signed) => return Ok(Response::Taken(signed)),
                Offered::Open(offer) => offer,
            };
            if self.handovers.is_leaving() {
                return Err(Refusal::Leaving);
            }
            self.begin_taking(request, *offer).await?
        };
        let has_ended = |progress: &Progress| matches!(progress, Progress::Ended(_));
        // Where it is still under way it says how far it is.
        let _ = tokio::time::timeout(ANSWER_WITHIN, progress.wait_for(has_ended)).await;
        let now = progress.borrow().clone();
        match now {
            Progress::Fetching { have_bytes } => Ok(Response::Fetching { have_bytes }),
            Progress::Ended(ended) => ended.map(Response::Taken),
        }
    }

    /// What an offer comes to by what this node knows. Blocks on the disk.
    fn look_at(&self, request: &Request) -> Result<Offered, Refusal> {
        let (trust, keys) = (&self.identity.trust, &self.identity.keys);
        let file = request.record.peek().map_err(|_| Refusal::Invalid)?.file;
        let known = self.database.record(&file).map_err(|error| unavailable(&error))?;
        let known = known.and_then(|signed| Record::verify(signed, trust).ok());
        consider(request, known.as_ref(), &keys.identity, trust)
    }

    /// Begins to take a file over, or joins what has begun. The caller holds `changing`.
    async fn begin_taking(
        self: &Arc<Self>,
        request: Request,
        offer: Offer,
    ) -> Result<watch::Receiver<Progress>, Refusal> {
        let (file, link) = (offer.record().file(), RecordHash::of(request.link.body()));
        let before = self.handovers.takings.all().get(&file).cloned();
        match before {
            Some(taking) if taking.link == link => return Ok(taking.progress),
            Some(taking) => taking.cancel.cancel(),
            None if self.handovers.takings.all().len() >= TAKINGS_MAX => return Err(Refusal::Busy),
            None => {}
        }
        let (writing, kept) = (self.clone(), Handover { taking: true, offer: request.clone() });
        in_blocking(move || {
            writing.check_room(offer.record())?;
            let keeping = writing.database.put_handover(&file, &kept, wall_ms());
            writing.noted(keeping).map_err(|error| unavailable(&error))
        })
        .await?;
        Ok(self.spawn_taking(file, link, request))
    }

    /// Goes on with what was offered in an earlier run. The caller holds `changing`.
    pub(super) fn go_on_taking(self: &Arc<Self>, file: FileId, request: Request) {
        let link = RecordHash::of(request.link.body());
        self.spawn_taking(file, link, request);
    }

    fn spawn_taking(
        self: &Arc<Self>,
        file: FileId,
        link: RecordHash,
        request: Request,
    ) -> watch::Receiver<Progress> {
        let (sender, progress) = watch::channel(Progress::Fetching { have_bytes: 0 });
        let cancel = self.stop.child_token();
        let taking = Taking { link, progress: progress.clone(), cancel: cancel.clone() };
        self.handovers.takings.all().insert(file, taking);
        let shared = self.clone();
        tokio::spawn(async move {
            let taking = shared.take_in_the_end(&request, &sender);
            let ended = match cancel.run_until_cancelled(taking).await {
                Some(ended) => ended,
                None if shared.stop.is_cancelled() => Err(Refusal::Unavailable),
                None if shared.handovers.is_leaving() => Err(Refusal::Leaving),
                // Another offer of the file took the place of this one.
                None => Err(Refusal::Outdated),
            };
            let mine = {
                let mut takings = shared.handovers.takings.all();
                let mine = takings.get(&file).is_some_and(|taking| taking.cancel == cancel);
                mine.then(|| takings.remove(&file)).is_some()
            };
            // A stop leaves everything for the next start.
            if mine && matches!(&ended, Err(refusal) if *refusal != Refusal::Unavailable) {
                let writing = shared.clone();
                let dropped = in_blocking(move || {
                    let dropping = writing.database.drop_handover(&file);
                    writing.noted(dropping).map_err(|error| unavailable(&error))
                });
                // Logged where it happens; the next start looks at the offer again.
                let _ = dropped.await;
            }
            sender.send_replace(Progress::Ended(ended));
        });
        progress
    }

    /// Takes a file over, trying again what may pass: whoever has offered it may be gone, and ask no more.
    async fn take_in_the_end(
        self: &Arc<Self>,
        request: &Request,
        sender: &watch::Sender<Progress>,
    ) -> Result<SignedRecord, Refusal> {
        loop {
            match self.take(request, sender).await {
                Err(Refusal::Unavailable | Refusal::Busy) => tokio::time::sleep(TRY_AGAIN_AFTER).await,
                ended => return ended,
            }
        }
    }

    /// Takes a file over, however long that takes.
    async fn take(
        self: &Arc<Self>,
        request: &Request,
        sender: &watch::Sender<Progress>,
    ) -> Result<SignedRecord, Refusal> {
        loop {
            let (looking, asked) = (self.clone(), request.clone());
            let offer = match in_blocking(move || looking.look_at(&asked)).await? {
                Offered::Taken(signed) => return Ok(signed),
                Offered::Open(offer) => offer,
            };
            let (reading, record) = (self.clone(), offer.record().clone());
            let (copy, owner_name) =
                in_blocking(move || Ok((reading.whole_copy(&record)?, reading.giver_of(&record)?))).await?;
            match copy {
                Some(copy) if self.is_sound_to_its_end(copy.clone()).await => {
                    let (signing, asked, from) = (self.clone(), request.clone(), owner_name.clone());
                    let signed = {
                        let _changing = self.handovers.changing.lock().await;
                        if self.handovers.is_leaving() {
                            return Err(Refusal::Leaving);
                        }
                        in_blocking(move || signing.sign_for(&asked, &copy, &from)).await?
                    };
                    // None where the file has changed meanwhile.
                    if let Some(copy) = signed {
                        self.announce_taken(&copy, &owner_name).await;
                        return Ok(copy.record);
                    }
                }
                _ => self.fetch_for(offer.record().clone(), owner_name, sender).await?,
            }
        }
    }

    /// The whole copy of a record's content that is here, if there is one. Blocks on the disk.
    fn whole_copy(&self, record: &Record) -> Result<Option<LibraryCopy>, Refusal> {
        let content = record.entry().map(|entry| entry.content);
        let copy = self.database.copy(&record.file()).map_err(|error| unavailable(&error))?;
        let whole =
            |copy: &LibraryCopy| Some(copy.content) == content && copy.completeness == Completeness::Complete;
        Ok(copy.filter(whole))
    }

    /// Whose the file is until it is taken over. Blocks on the disk.
    fn giver_of(&self, record: &Record) -> Result<MemberName, Refusal> {
        let known = self.owner_name(record).map_err(|error| unavailable(&error))?;
        // It is heard of in the feed in a moment.
        known.ok_or(Refusal::Unavailable)
    }

    /// Whether the file fits beside what is here. Blocks on the disk.
    fn check_room(&self, record: &Record) -> Result<(), Refusal> {
        if self.whole_copy(record)?.is_some() {
            return Ok(());
        }
        let needed = record.entry().map_or(0, |entry| entry.size_bytes).saturating_add(ROOM_LEFT_BYTES);
        if self.free_bytes() < needed { Err(Refusal::NoRoom) } else { Ok(()) }
    }

    /// Reads a copy to its last byte, and compares it with what was shared.
    async fn is_sound_to_its_end(self: &Arc<Self>, copy: LibraryCopy) -> bool {
        let (events, mut told) = mpsc::channel(CHECKS_WAITING);
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            verifying::run(&shared, verifying::Scope::Copies(vec![copy]), &events);
        });
        let mut sound = false;
        while let Some(event) = told.recv().await {
            if let VerifyEvent::Summary { sound: count, .. } = event {
                sound = count == 1;
            }
        }
        sound
    }

    /// Fetches the file as any other; it goes on where an earlier attempt stopped.
    async fn fetch_for(
        self: &Arc<Self>,
        record: Record,
        owner_name: MemberName,
        sender: &watch::Sender<Progress>,
    ) -> Result<(), Refusal> {
        let mut transfer = fetching::begin(self, record, owner_name).await.map_err(|error| match error {
            fetching::BeginError::NotReadable => Refusal::MayNotRead,
            fetching::BeginError::Deleted => Refusal::Outdated,
            fetching::BeginError::Busy => Refusal::Busy,
            fetching::BeginError::Database(_) => unavailable(&error),
        })?;
        loop {
            let now: Transfer = transfer.borrow_and_update().clone();
            sender.send_replace(Progress::Fetching { have_bytes: now.done_bytes });
            match now.state {
                TransferState::Completed => return Ok(()),
                TransferState::Failed => {
                    tracing::warn!(file = %now.name, why = now.error, "a file that is to be taken over is not here yet");
                    return Err(Refusal::Unavailable);
                }
                TransferState::Cancelled | TransferState::Paused => return Err(Refusal::Declined),
                TransferState::Queued | TransferState::Active | TransferState::Waiting => {}
            }
            if transfer.changed().await.is_err() {
                return Err(Refusal::Unavailable);
            }
        }
    }

    /// Signs for a file whose copy was found sound, and keeps that. None where the file is another by now. Blocks on the
    /// disk; the caller holds `changing`, and not [`Shared::changes_of_own`].
    fn sign_for(
        &self,
        request: &Request,
        checked: &LibraryCopy,
        from: &MemberName,
    ) -> Result<Option<LibraryCopy>, Refusal> {
        let _turn = self.changes_of_own();
        let (trust, keys) = (&self.identity.trust, &self.identity.keys);
        let Offered::Open(offer) = self.look_at(request)? else { return Ok(None) };
        let Some(copy) = self.whole_copy(offer.record())?.filter(|copy| copy.content == checked.content)
        else {
            return Ok(None);
        };
        let entry = offer.record().entry().ok_or(Refusal::Outdated)?;
        let is_taken = |name: &_| {
            let own = self.database.own_named(name);
            own.map_or(true, |own| own.is_some_and(|own| own.file != copy.file))
        };
        let name = free_name(&entry.name, from, is_taken).ok_or(Refusal::Unavailable)?;
        // The same content under the same key, for the same readers, in an audience of this owner's.
        let access = match offer.rule() {
            None => entry.access.clone(),
            Some(rule) => {
                let secret = self.secret_of(offer.record()).ok_or(Refusal::MayNotRead)?;
                let audience = self.audience_with(rule.clone()).map_err(|error| unavailable(&error))?;
                let access = Readers::Audience(audience).access(self, &copy.file, &copy.content, secret);
                access.map_err(|error| unavailable(&error))?
            }
        };
        let entry = Entry { name: name.clone(), access, ..entry.clone() };
        let record = offer.sign(entry, &keys.identity, trust)?;
        let copy = LibraryCopy {
            owner: keys.peer(),
            owner_name: self.identity.membership.name.clone(),
            name,
            provenance: Provenance::Own,
            record: record.signed().clone(),
            ..copy
        };
        let taken = self.noted(self.database.take_over(&copy, &record, trust, wall_ms()));
        Ok(taken.map_err(|error| unavailable(&error))?.then_some(copy))
    }

    /// Tells everybody. Where no super-peer answers, the next one that does is told.
    async fn announce_taken(self: &Arc<Self>, copy: &LibraryCopy, from: &MemberName) {
        tracing::info!(file = %copy.name, %from, "a file was taken over");
        self.offer(copy);
        self.upkeep.changed([copy.file]);
        // Keys first, so that no reader sees a file that it cannot open.
        self.publish_owed_keys().await;
        let record = vec![(copy.file, copy.record.clone())];
        if let Err(error) = self.superpeers.publish(self, record).await {
            tracing::warn!(%error, "that a file has another owner is published as soon as a super-peer answers");
        }
        self.events.publish(NodeEvent::FilesChanged { files: 1 });
    }
}

fn unavailable(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "a file could not be taken over");
    Refusal::Unavailable
}

async fn in_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| unavailable(&error))?
}
