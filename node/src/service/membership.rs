//! This node's own membership over time: renewing the credential, signing off and on again, leaving for good.
//!
//! - **Renewal** follows `quarta_daemon::renewal`'s schedule. A new credential is on the disk before it is shown, and is
//!   shown at once on the connections that exist.
//! - **Signed off** is a state on the disk, so that a branch that signed off stays off across restarts until somebody
//!   signs it on: no connection is made and none is let in. The super-peers are told first, as far as they answer, so
//!   that nobody takes it for a failure.
//! - **Leaving** is given up here only when a super-peer has it on its disk: a departure that nobody heard of would leave
//!   a member behind that everybody waits for. Before that its files go to others (see [`super::parting`]). Afterwards the
//!   data folder says what happened and serves no more; the library's files stay where they are.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use libp2p::PeerId;
use quarta_daemon::{
    data_dir::{Folder, FolderError},
    identity::Identity,
    renewing::{self, Keeper, Renewed, Unrenewed, ask_as_anybody},
};
use quarta_protocols::{
    credentials::{Membership, UnixSeconds},
    endings::Departure,
    messages::{
        admission::{self, PeerAddresses},
        index::{Index, Request},
    },
    network::Refusal,
    signing::Signed,
};

use super::{COPIES_AT_A_TIME, Shared, parting::Parted};
use crate::{
    database::{Database, DatabaseError, Provenance},
    liaison::Input,
};

/// Is in the data folder while this node is signed off.
const SIGNED_OFF_FILE: &str = "signed-off";
/// How long a super-peer may take to hear that this node signs off: one that is frozen must not keep it.
const TELL_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a super-peer may take to store a departure, with all its addresses, before the next is asked.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(6);

/// This node as a member.
pub(crate) struct Own {
    keeper: Keeper,
    /// A super-peer that was revoked, as others say: what it issues is worth nothing to them.
    shunned: Mutex<Option<PeerId>>,
    signed_off: AtomicBool,
    /// Whether super-peers may still believe that this node is signed off.
    announces: AtomicBool,
    /// Signing off and on and leaving take turns.
    turn: tokio::sync::Mutex<()>,
}

/// Why this node has not left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaveError {
    /// Files would be left without an owner.
    #[error("{} of this branch would have no owner any more: {named}", counted(*.files))]
    Abandons {
        /// How many.
        files: u64,
        /// The first few, with the reasons.
        named: String,
    },
    /// It is signed off, and can tell nobody.
    #[error("this branch has signed off, and its departure can be told to nobody")]
    SignedOff,
    /// No super-peer has stored the departure.
    #[error(transparent)]
    Untold(Unrenewed),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It has left, and the data folder could not be marked.
    #[error("this branch has left, and its data folder could not be marked: {0}")]
    Unmarked(FolderError),
}

impl Own {
    pub(super) fn new(identity: &Identity, folder: &Folder) -> Result<Self, FolderError> {
        let signed_off = match folder.read_private(SIGNED_OFF_FILE) {
            Ok(_) => true,
            Err(error) if error.is_not_found() => false,
            Err(error) => return Err(error),
        };
        Ok(Self {
            keeper: Keeper::new(identity),
            shunned: Mutex::default(),
            signed_off: AtomicBool::new(signed_off),
            announces: AtomicBool::new(signed_off),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// What the present credential says.
    pub(crate) fn membership(&self) -> Membership {
        self.keeper.membership()
    }

    /// Why the last attempt to renew it failed, if it did.
    pub(crate) fn trouble(&self) -> Option<Unrenewed> {
        self.keeper.trouble()
    }

    /// Whether this node stays off the network until it is told otherwise.
    pub(crate) fn is_signed_off(&self) -> bool {
        self.signed_off.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// A member did not let this node in.
    pub(super) fn not_accepted(&self, refusal: Refusal) {
        match refusal {
            Refusal::Expired => self.own.keeper.renew_soon(),
            Refusal::IssuerRevoked => self.shun_the_issuer(),
            _ => {}
        }
    }

    /// A membership has ended. If it was the issuer's, nobody lets this node in any more until another one has renewed.
    pub(super) fn issuer_may_be_gone(&self, ended: PeerId) {
        if self.own.membership().issuer == Some(ended) {
            self.shun_the_issuer();
        }
    }

    /// Renews, and not at the one that issued the present credential: it may not have heard, or not care, that it was
    /// revoked. Nor is it followed while another can be, whose news will show. Whoever claims that falsely makes this node
    /// prefer another super-peer, and nothing more.
    fn shun_the_issuer(&self) {
        let issuer = self.own.membership().issuer;
        *self.own.shunned.lock().unwrap_or_else(PoisonError::into_inner) = issuer;
        if let Some(issuer) = issuer {
            self.superpeers.doubt(issuer);
        }
        self.own.keeper.renew_soon();
    }

    /// Renews the credential whenever it is time, until the node stops.
    pub(super) async fn keep_renewed(self: Arc<Self>) {
        let paused = || self.own.is_signed_off();
        self.own.keeper.keep(&self.stop, paused, || self.renew()).await;
    }

    async fn renew(&self) -> Result<Renewed, Unrenewed> {
        let (mut known, held) = (self.superpeers_to_ask(), self.own.keeper.credential());
        let shunned = *self.own.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|superpeer| Some(superpeer.peer) != shunned);
        let time = self.network_time();
        let renewed = renewing::renew(&self.network, &self.identity, &held, &known, time).await?;
        renewed.take_over(&self.network, &self.identity, self.dir.folder()).await;
        Ok(renewed)
    }

    /// The network's time, or this machine's where that is not known.
    fn network_time(&self) -> UnixSeconds {
        let clocks = self.condition.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.network_time(Instant::now()).unwrap_or_else(UnixSeconds::now)
    }

    /// All super-peers, those first that are connected.
    fn superpeers_to_ask(&self) -> Vec<PeerAddresses> {
        let connected = self.superpeers.connected_peers();
        let place = |known: &PeerAddresses| {
            connected.iter().position(|peer| *peer == known.peer).unwrap_or(connected.len())
        };
        let mut known = self.superpeers.known();
        known.sort_by_key(place);
        known
    }

    /// Leaves the network until [`Self::sign_on`], also across restarts. Repeatable.
    pub(crate) async fn sign_off(self: &Arc<Self>) -> Result<(), FolderError> {
        let _turn = self.own.turn.lock().await;
        self.store_signed_off(true).await?;
        self.own.signed_off.store(true, Ordering::SeqCst);
        self.own.announces.store(true, Ordering::SeqCst);
        let told = self.superpeers.connected_peers().into_iter().map(async |peer| {
            let telling = self.network.call::<Index>(peer, Request::Presence { online: false });
            match tokio::time::timeout(TELL_TIMEOUT, telling).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a super-peer does not hear that this node signs off");
                }
                Err(_) => tracing::debug!(%peer, "a super-peer does not hear that this node signs off"),
            }
        });
        join_all(told).await;
        self.network.sign_off(true).await;
        tracing::info!("signed off");
        Ok(())
    }

    /// Comes back. Repeatable.
    pub(crate) async fn sign_on(self: &Arc<Self>) -> Result<(), FolderError> {
        let _turn = self.own.turn.lock().await;
        self.store_signed_off(false).await?;
        if self.own.signed_off.swap(false, Ordering::SeqCst) {
            self.network.sign_off(false).await;
            // As if all had just been lost: each is tried at once.
            self.superpeers.feed_all(self, Input::Departed);
            self.own.keeper.wake();
            tracing::info!("signed on");
        }
        Ok(())
    }

    async fn store_signed_off(self: &Arc<Self>, off: bool) -> Result<(), FolderError> {
        let shared = self.clone();
        let stored = tokio::task::spawn_blocking(move || {
            let folder = shared.dir.folder();
            if off {
                folder.write_private(SIGNED_OFF_FILE, b"Signed off: `quarta connect` signs on.\n")
            } else {
                folder.remove_private(SIGNED_OFF_FILE)
            }
        });
        // The task neither panics nor is cancelled while the runtime runs.
        stored.await.unwrap_or(Ok(()))
    }

    /// A super-peer is connected: it may still have this node down as signed off.
    pub(super) fn announce_presence(self: &Arc<Self>, peer: PeerId) {
        if !self.own.announces.load(Ordering::SeqCst) || self.own.is_signed_off() {
            return;
        }
        let network = self.network.clone();
        tokio::spawn(async move {
            if let Err(error) = network.call::<Index>(peer, Request::Presence { online: true }).await {
                tracing::debug!(%peer, %error, "a super-peer does not hear that this node is back");
            }
        });
    }

    /// Another member could not be reached: the super-peers look after it now rather than at their next poll.
    pub(crate) fn report_unreachable(self: &Arc<Self>, member: PeerId) {
        for peer in self.superpeers.connected_peers() {
            let network = self.network.clone();
            tokio::spawn(async move {
                let request = Request::Unreachable { peer: member };
                if let Err(error) = network.call::<Index>(peer, request).await {
                    tracing::debug!(%peer, %error, "a super-peer does not hear of an unreachable member");
                }
            });
        }
    }

    /// Files whose owner this branch is.
    pub(crate) async fn own_files(self: &Arc<Self>) -> Result<u64, DatabaseError> {
        let database = self.database.clone();
        // The task neither panics nor is cancelled while the runtime runs.
        tokio::task::spawn_blocking(move || count_own(&database)).await.unwrap_or(Ok(0))
    }

    /// Leaves for good, and stops the node, once others own its files. Gives who that is.
    pub(crate) async fn leave(self: &Arc<Self>, abandon: bool) -> Result<Parted, LeaveError> {
        let _turn = self.own.turn.lock().await;
        if self.own.is_signed_off() {
            return Err(LeaveError::SignedOff);
        }
        let _leaving = self.handovers.leave().await;
        let parted = self.part_with_all(abandon).await?;
        self.tell_departure().await.map_err(LeaveError::Untold)?;
        tracing::info!(abandoned = parted.abandoned(), "this branch has left the network for good");
        self.network.sign_off(true).await;
        let dir = self.dir.clone();
        let marked = tokio::task::spawn_blocking(move || dir.mark_left()).await.unwrap_or(Ok(()));
        self.stop.cancel();
        marked.map_err(LeaveError::Unmarked)?;
        Ok(parted)
    }

    /// Returns once a super-peer has the departure on its disk.
    async fn tell_departure(&self) -> Result<(), Unrenewed> {
        let keys = &self.identity.keys;
        let departure =
            Signed::new(&Departure { member: keys.peer() }, &self.identity.trust.network, &keys.identity);
        let mut last = Unrenewed::NobodyKnown;
        for superpeer in self.superpeers_to_ask() {
            let request = admission::Request::Leave(departure.clone());
            let asked =
                tokio::time::timeout(LEAVE_TIMEOUT, ask_as_anybody(&self.network, &superpeer, request));
            last = match asked.await {
                Ok(Ok(admission::Response::Farewell)) => return Ok(()),
                Ok(Ok(admission::Response::Refused(refusal))) => Unrenewed::Refused(refusal),
                Ok(Ok(_)) => Unrenewed::Unanswered("it answered something else".to_owned()),
                Ok(Err(error)) => error,
                Err(_) => Unrenewed::Unanswered("no answer in time".to_owned()),
            };
        }
        Err(last)
    }
}

/// "1 file", "2 files".
pub(crate) fn counted(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn count_own(database: &Database) -> Result<u64, DatabaseError> {
    let (mut files, mut after) = (0, None);
    loop {
        let copies = database.copies(after.as_ref(), COPIES_AT_A_TIME)?;
        let Some(last) = copies.last() else { return Ok(files) };
        after = Some(last.file);
        let own = copies.iter().filter(|copy| copy.provenance == Provenance::Own).count();
        files += u64::try_from(own).unwrap_or(u64::MAX);
    }
}
