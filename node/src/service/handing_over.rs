//! Handing own files over: to somebody in particular (`give`), and to whoever is drawn when this branch leaves.
//!
//! An offer is in the database before it is first sent, and stays there until the next owner has signed or refused: a
//! daemon that is restarted goes on with it, and so does the other side (see [`super::taking_over`]). A signed link cannot
//! be taken back from somebody who has seen it. So while an offer stands, an own file is changed by nobody
//! ([`Shared::is_offered`]): the next owner's record goes before whatever this node would sign now.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Rule, inherited},
    credentials::Role,
    ids::FileId,
    messages::{
        handover::{Handover as Lane, Refusal, Request, Response},
        index::{ListedMember, MemberState},
    },
    names::MemberName,
    records::{LINKS_MAX, Record},
    signing::Signed,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Shared, listing::FindError, taking_over::Takings, wall_ms};
use crate::{
    api::model::{Given, GivenState, NodeEvent},
    database::{DatabaseError, Handover},
    handover::asking::{Asking, Heard, Next},
};

/// How long whoever gives a file waits for its next owner before it is told how far that one is. An exchange or two; a
/// file that has to be fetched first takes longer, and is asked for again.
const GIVE_WAIT: Duration = Duration::from_secs(5);

/// The hand-overs of this node.
#[derive(Default)]
pub(crate) struct Handovers {
    offers: Mutex<HashMap<FileId, Offering>>,
    pub(super) takings: Takings,
    /// Whether this branch is about to leave, and takes nothing over.
    leaving: AtomicBool,
    /// Held while an offer is made or taken, so that there is one for a file, and none is signed for once this branch
    /// leaves.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// A file that is being offered.
#[derive(Clone)]
struct Offering {
    to: PeerId,
    progress: watch::Receiver<Progress>,
    cancel: CancellationToken,
}

/// How an offer stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next owner is asked.
    Asking { have_bytes: u64, reached: bool },
    /// It has signed.
    Done,
    /// It will not have the file.
    Refused(Refusal),
    /// It has not moved for too long.
    Stalled,
    /// It is a member no more.
    Gone,
    /// Another offer took its place, or the daemon stops.
    Cancelled,
    /// This node's database failed.
    Failed(String),
}

impl Progress {
    pub(super) const fn has_ended(&self) -> bool {
        !matches!(self, Self::Asking { .. })
    }
}

/// Why a file is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Somebody wants it so; the owner so far stays a reader, and it takes as long as it takes.
    Gift,
    /// The owner leaves; who stands still for this long does not get the file.
    Departure(Duration),
}

impl Manner {
    const fn patience(self) -> Option<Duration> {
        match self {
            Self::Gift => None,
            Self::Departure(patience) => Some(patience),
        }
    }
}

/// Why a file is not given. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveError {
    /// No file, or several, are called so.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The file is another branch's.
    #[error("{name} belongs to {owner}, and only its owner can hand it over")]
    NotOwner {
        /// The file's name.
        name: String,
        /// Its owner's.
        owner: String,
    },
    /// Nobody is called so.
    #[error("no member is called {0:?}")]
    UnknownMember(String),
    /// Super-peers own no files.
    #[error("{0} is a super-peer, which owns no files")]
    Superpeer(MemberName),
    /// Its membership has ended.
    #[error("{0} is a member no more")]
    Ended(MemberName),
    /// It is this branch itself.
    #[error("the file belongs to this branch already")]
    Itself,
    /// The member is on the list of those that may not read it.
    #[error("{0} may not read the file")]
    MayNotRead(MemberName),
    /// The file is on its way to another one, which has begun to fetch it.
    #[error("the file is being handed over to {0}, which is fetching it")]
    UnderWay(String),
    /// It has had as many owners as a record can tell.
    #[error("the file has been handed over {LINKS_MAX} times")]
    TooManyOwners,
    /// The next owner does not take it.
    #[error("{to} does not take it over: {why}")]
    Refused {
        /// Who.
        to: MemberName,
        /// Why, in words.
        why: String,
    },
    /// The database failed.
    #[error("the database could not be read or written: {0}")]
    Database(String),
}

impl From<DatabaseError> for GiveError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error.to_string())
    }
}

impl Handovers {
    fn offers(&self) -> MutexGuard<'_, HashMap<FileId, Offering>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offering(&self, file: &FileId) -> Option<Offering> {
        self.offers().get(file).cloned()
    }

    /// Whether this branch is about to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// From here on, until what is given is dropped, this branch takes nothing over.
    pub(super) async fn leave(&self) -> Leaving<'_> {
        let _changing = self.changing.lock().await;
        self.leaving.store(true, Ordering::SeqCst);
        self.takings.cancel_all();
        Leaving(self)
    }
}

/// This branch is about to leave.
pub(super) struct Leaving<'a>(&'a Handovers);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.leaving.store(false, Ordering::SeqCst);
    }
}

/// Goes on with the hand-overs of the last run, on both sides. Does not wait for any.
pub(super) async fn go_on(shared: Arc<Shared>) {
    let reading = shared.clone();
    let under_way = match in_blocking(move || Ok(reading.database.handovers()?)).await {
        Ok(under_way) => under_way,
        Err(error) => {
            tracing::error!(%error, "the hand-overs of the last run could not be read; give the files again");
            return;
        }
    };
    let _changing = shared.handovers.changing.lock().await;
    for (file, handover) in under_way {
        tracing::info!(%file, taking = handover.taking, "a hand-over of the last run goes on");
        if handover.taking {
            shared.go_on_taking(file, handover.offer);
        } else if let Ok(link) = handover.offer.link.peek() {
            shared.pursue(file, handover.offer, link.to, None);
        }
    }
}

/// Gives a file to a member, or goes on with that, and says how it stands after a moment.
pub(crate) async fn give(shared: &Arc<Shared>, reference: &str, to: &str) -> Result<Given, GiveError> {
    let found = shared.find(reference).await?;
    let to = shared.member_meant(to).await?;
    let (reading, seen) = (shared.clone(), found.record.clone());
    let record = in_blocking(move || Ok(reading.latest(seen)?)).await?;
    let size_bytes = record.entry().map_or(0, |entry| entry.size_bytes);
    let name = record.entry().map(|entry| entry.name.to_string()).unwrap_or_default();
    let given = |state, have_bytes, reachable| Given {
        id: record.file().to_string(),
        name: name.clone(),
        owner: to.name.to_string(),
        state,
        size_bytes,
        have_bytes,
        reachable,
    };
    let me = shared.identity.keys.peer();
    if record.owner() != me {
        // Asked again after it was done.
        if record.owner() == to.peer && record.links().last().is_some_and(|(link, _)| link.from == me) {
            return Ok(given(GivenState::HandedOver, size_bytes, true));
        }
        let owner = shared.member_name(&record.owner()).await;
        return Err(GiveError::NotOwner { name, owner });
    }
    let (checking, asked, next) = (shared.clone(), record.clone(), to.clone());
    in_blocking(move || checking.check_next_owner(&asked, &next)).await?;
    let mut progress = shared.offer_to(&record, &to).await?;
    // Where it has not ended, what is told is how far it is.
    let _ = tokio::time::timeout(GIVE_WAIT, progress.wait_for(Progress::has_ended)).await;
    let now = progress.borrow().clone();
    let refused = |why: String| Err(GiveError::Refused { to: to.name.clone(), why });
    match now {
        Progress::Done => Ok(given(GivenState::HandedOver, size_bytes, true)),
        Progress::Asking { have_bytes, reached } => Ok(given(GivenState::Offered, have_bytes, reached)),
        Progress::Stalled => Ok(given(GivenState::Offered, 0, false)),
        Progress::Refused(refusal) => refused(refusal.to_string()),
        Progress::Gone => Err(GiveError::Ended(to.name.clone())),
        Progress::Cancelled => {
            refused("the offer was replaced by another, or the node is stopping".to_owned())
        }
        Progress::Failed(why) => Err(GiveError::Database(why)),
    }
}

impl Shared {
    /// Whom an own file is on its way to. Blocks on the disk.
    pub(super) fn offered_to(&self, file: &FileId) -> Result<Option<PeerId>, DatabaseError> {
        let handover = self.database.handover(file)?.filter(|handover| !handover.taking);
        Ok(handover.and_then(|handover| handover.offer.link.peek().ok()).map(|link| link.to))
    }

    /// Whether an own file is on its way to another owner, so that nothing else can be changed of it. Blocks on the disk.
    pub(super) fn is_offered(&self, file: &FileId) -> Result<bool, DatabaseError> {
        Ok(self.offered_to(file)?.is_some())
    }

    /// What is to be told of a file's owner: whether it is gone, and whom the file is offered to. Blocks on the disk.
    pub(super) fn ownership_of(&self, record: &Record) -> (bool, Option<String>) {
        let (owner, me) = (record.owner(), self.identity.keys.peer());
        let name = |peer: &PeerId| {
            let known = self.database.member(peer).ok().flatten();
            known.map_or_else(|| peer.to_string(), |known| known.listed.name.to_string())
        };
        if owner == me {
            let to = self.offered_to(&record.file()).ok().flatten();
            return (false, to.map(|to| name(&to)));
        }
        let known = self.database.member(&owner).ok().flatten();
        (known.is_some_and(|known| has_ended(&known.listed)), None)
    }

    /// The latest record of a file: the one given, or what this node knows.
    pub(super) fn latest(&self, seen: Record) -> Result<Record, DatabaseError> {
        let known = self.database.record(&seen.file())?;
        let known = known.and_then(|signed| Record::verify(signed, &self.identity.trust).ok());
        Ok(known.filter(|known| known.supersedes(&seen)).unwrap_or(seen))
    }

    /// The member that a name or a peer id stands for.
    async fn member_meant(self: &Arc<Self>, text: &str) -> Result<ListedMember, GiveError> {
        let peer = text.parse::<PeerId>().ok();
        let (members, _) = self.members().await?;
        let meant = |member: &ListedMember| member.name.as_str() == text || Some(member.peer) == peer;
        // A name can be used again after its member has gone.
        let mut meant: Vec<ListedMember> = members.into_iter().filter(meant).collect();
        meant.sort_by_key(|member| !has_ended(member));
        meant.pop().ok_or_else(|| GiveError::UnknownMember(text.to_owned()))
    }

    async fn member_name(self: &Arc<Self>, peer: &PeerId) -> String {
        let (reading, peer) = (self.clone(), *peer);
        let known = in_blocking(move || Ok(reading.database.member(&peer)?)).await;
        known.ok().flatten().map_or_else(|| peer.to_string(), |known| known.listed.name.to_string())
    }

    /// Whether a member can have an own file. Blocks on the disk.
    fn check_next_owner(&self, record: &Record, to: &ListedMember) -> Result<(), GiveError> {
        if to.peer == self.identity.keys.peer() {
            return Err(GiveError::Itself);
        }
        if to.role == Role::Superpeer {
            return Err(GiveError::Superpeer(to.name.clone()));
        }
        if has_ended(to) {
            return Err(GiveError::Ended(to.name.clone()));
        }
        if record.links().len() >= LINKS_MAX {
            return Err(GiveError::TooManyOwners);
        }
        if self.readers_rule(record)?.is_some_and(|rule| !rule.permits(&to.peer)) {
            return Err(GiveError::MayNotRead(to.name.clone()));
        }
        Ok(())
    }

    /// Who may read an own file, which whoever is to own it must; none where everybody may. Blocks on the disk.
    pub(super) fn readers_rule(&self, record: &Record) -> Result<Option<Rule>, GiveError> {
        let Some(entry) = record.entry() else { return Ok(None) };
        self.rule_of(&entry.access).map_err(|error| GiveError::Database(error.to_string()))
    }

    /// Begins to offer an own file to a member, or joins the offer to it that is under way.
    async fn offer_to(
        self: &Arc<Self>,
        record: &Record,
        to: &ListedMember,
    ) -> Result<watch::Receiver<Progress>, GiveError> {
        let _changing = self.handovers.changing.lock().await;
        let file = record.file();
        if let Some(offering) = self.handovers.offering(&file) {
            if offering.to == to.peer {
                return Ok(offering.progress);
            }
            let now = offering.progress.borrow().clone();
            if matches!(now, Progress::Asking { have_bytes: 1.., reached: true }) {
                return Err(GiveError::UnderWay(self.member_name(&offering.to).await));
            }
            offering.cancel.cancel();
        }
        let begun = self.begin_offer(record.clone(), to.peer, Vec::new(), Manner::Gift).await?;
        begun.ok_or_else(|| GiveError::Find(FindError::NotFound(file.to_string())))
    }

    /// Signs an offer of an own file as it is now, keeps it, and asks until it ends. None where the file is not this
    /// branch's any more. The caller holds `changing`.
    pub(super) async fn begin_offer(
        self: &Arc<Self>,
        seen: Record,
        to: PeerId,
        candidates: Vec<PeerId>,
        how: Manner,
    ) -> Result<Option<watch::Receiver<Progress>>, GiveError> {
        let (signing, file) = (self.clone(), seen.file());
        let signed = in_blocking(move || {
            let _own = signing.changes_of_own();
            let (trust, keys) = (&signing.identity.trust, &signing.identity.keys);
            let (record, me) = (signing.latest(seen)?, keys.peer());
            if record.owner() != me || record.entry().is_none() {
                return Ok(None);
            }
            let rule = signing.readers_rule(&record)?;
            let rule = rule.map(|rule| inherited(rule, &me, &to, how == Manner::Gift));
            let link = record.link_to(to, false, candidates);
            let link = Signed::new(&link, &trust.network, &keys.identity);
            let offer = Request { record: record.signed().clone(), link, rule };
            let handover = Handover { taking: false, offer: offer.clone() };
            signing.noted(signing.database.put_handover(&file, &handover, wall_ms()))?;
            Ok(Some(offer))
        });
        Ok(signed.await?.map(|offer| self.pursue(file, offer, to, how.patience())))
    }

    /// The offer of a file that is under way, with whom it goes to.
    pub(super) fn offer_under_way(&self, file: &FileId) -> Option<(PeerId, watch::Receiver<Progress>)> {
        self.handovers.offering(file).map(|offering| (offering.to, offering.progress))
    }

    /// Asks the next owner until the hand-over has ended. The caller holds `changing`.
    fn pursue(
        self: &Arc<Self>,
        file: FileId,
        offer: Request,
        to: PeerId,
        patience: Option<Duration>,
    ) -> watch::Receiver<Progress> {
        let first = Progress::Asking { have_bytes: 0, reached: true };
        let (sender, progress) = watch::channel(first);
        let cancel = self.stop.child_token();
        let offering = Offering { to, progress: progress.clone(), cancel: cancel.clone() };
        if let Some(before) = self.handovers.offers().insert(file, offering) {
            before.cancel.cancel();
        }
        let shared = self.clone();
        tokio::spawn(async move {
            let asking = shared.ask_until_taken(file, &offer, to, patience, &sender);
            let ended = cancel.run_until_cancelled(asking).await.unwrap_or(Progress::Cancelled);
            if ended != Progress::Cancelled {
                let mut offers = shared.handovers.offers();
                if offers.get(&file).is_some_and(|offering| offering.cancel == cancel) {
                    offers.remove(&file);
                }
            }
            sender.send_replace(ended);
        });
        progress
    }

    async fn ask_until_taken(
        self: &Arc<Self>,
        file: FileId,
        offer: &Request,
        to: PeerId,
        patience: Option<Duration>,
        sender: &watch::Sender<Progress>,
    ) -> Progress {
        let mut asking = Asking::new(Instant::now(), patience);
        loop {
            let heard = match self.ask_to_take(offer, to).await {
                Ok(heard) => heard,
                Err(ended) => return self.withdrawn(file, ended).await,
            };
            match asking.heard(Instant::now(), heard) {
                Next::Done => return Progress::Done,
                Next::Refused(refusal) => {
                    tracing::info!(%file, %to, %refusal, "a hand-over was refused");
                    return self.withdrawn(file, Progress::Refused(refusal)).await;
                }
                Next::Stalled => return self.withdrawn(file, Progress::Stalled).await,
                Next::Ask(pause) => {
                    let (have_bytes, reached) = (asking.have_bytes(), asking.is_reached());
                    sender.send_replace(Progress::Asking { have_bytes, reached });
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// The offer will not be taken, and is kept no longer.
    async fn withdrawn(self: &Arc<Self>, file: FileId, ended: Progress) -> Progress {
        let writing = self.clone();
        let dropped = in_blocking(move || Ok(writing.noted(writing.database.drop_handover(&file))?)).await;
        if let Err(error) = dropped {
            tracing::error!(%file, %error, "that a hand-over has ended could not be noted; the next start tries again");
        }
        ended
    }

    /// Asks once. Where the file was taken, that is noted before this returns.
    async fn ask_to_take(self: &Arc<Self>, offer: &Request, to: PeerId) -> Result<Heard, Progress> {
        let reading = self.clone();
        let known = in_blocking(move || Ok(reading.database.member(&to)?)).await;
        let known = known.map_err(|error| Progress::Failed(error.to_string()))?;
        let Some(member) = known.map(|known| known.listed) else { return Ok(Heard::Unreached) };
        if has_ended(&member) {
            return Err(Progress::Gone);
        }
        let addresses = self.policy.select(&to, member.addresses);
        if let Err(error) = self.network.connect(to, addresses).await {
            tracing::debug!(%to, %error, "the next owner of a file could not be reached");
            return Ok(Heard::Unreached);
        }
        match self.network.call::<Lane>(to, offer.clone()).await {
            Ok(Response::Fetching { have_bytes }) => Ok(Heard::Fetching { have_bytes }),
            Ok(Response::Refused(refusal)) => Ok(Heard::Refused(refusal)),
            Ok(Response::Taken(signed)) => {
                let genuine = Record::verify(signed, &self.identity.trust);
                let Some(record) = genuine.ok().filter(|record| record.carries(&offer.link)) else {
                    tracing::warn!(%to, "a member says that it has taken a file over, and does not prove it");
                    return Ok(Heard::Refused(Refusal::Unavailable));
                };
                self.note_handed_over(record, &member.name).await.map(|()| Heard::Taken)
            }
            Err(error) => {
                tracing::debug!(%to, %error, "the next owner of a file did not answer");
                Ok(Heard::Unreached)
            }
        }
    }

    async fn note_handed_over(self: &Arc<Self>, record: Record, to: &MemberName) -> Result<(), Progress> {
        let (writing, file) = (self.clone(), record.file());
        let noted = in_blocking(move || {
            let trust = &writing.identity.trust;
            Ok(writing.noted(writing.database.handed_over(&record, trust, wall_ms()))?)
        });
        noted.await.map_err(|error| Progress::Failed(error.to_string()))?;
        self.upkeep.changed([file]);
        tracing::info!(%file, owner = %to, "a file was handed over");
        self.events.publish(NodeEvent::FilesChanged { files: 1 });
        Ok(())
    }
}

fn has_ended(member: &ListedMember) -> bool {
    matches!(member.state, MemberState::Left | MemberState::Revoked)
}

pub(super) async fn in_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, GiveError> + Send + 'static,
) -> Result<T, GiveError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| GiveError::Database(error.to_string()))?
}
