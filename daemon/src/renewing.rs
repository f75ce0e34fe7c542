//! Renewing a credential: asking super-peers for a new one, whatever the old one is still worth.
//!
//! A member that is let in asks over the connection that it has. One that is not, because its credential has expired or
//! its issuer was revoked, connects without presenting itself and asks as a stranger may: *admission* is the protocol that
//! is open to strangers, the transport proves who asks, and the old credential says who that was.
//!
//! A new credential is believed where this member's own keys, name and role stand in it and it was issued now. The last
//! is what keeps one super-peer whose clock is years off from handing out credentials that nobody else accepts: its
//! answer is put aside and the next one is asked.

use crate::clocks::Offset;
use crate::data_dir::Folder;
use crate::identity::{self, Identity};
use crate::renewal::{Input, Schedule, Validity};
use crate::timer;
use libp2p::{Multiaddr, PeerId};
use quarta_protocols::credentials::{Credential, Membership, UnixSeconds};
use quarta_protocols::members::Enrolment;
use quarta_protocols::messages::admission::{Admission, PeerAddresses, Refusal, Request, Response};
use quarta_protocols::network::Network;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long one super-peer may take, with all its addresses, before the next is asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);

/// The credential of a running member, and what keeps it good.
#[derive(Debug)]
pub struct Keeper {
    held: RwLock<Renewed>,
    schedule: Mutex<Schedule>,
    woken: Notify,
    /// Whether somebody refused the credential since this was last looked at.
    refused: AtomicBool,
    trouble: Mutex<Option<Unrenewed>>,
}

impl Keeper {
    /// Keeps the credential that the data folder held at the start.
    pub fn new(identity: &Identity) -> Self {
        let (credential, membership) = (identity.credential.clone(), identity.membership.clone());
        // Any number that differs between members.
        let mix = |seed: u64, byte: &u8| seed.wrapping_mul(31).wrapping_add(u64::from(*byte));
        let seed = identity.keys.peer().to_bytes().iter().fold(0, mix);
        let schedule = Schedule::new(Validity::from(&membership), seed);
        Self {
            held: RwLock::new(Renewed { credential, membership }),
            schedule: Mutex::new(schedule),
            woken: Notify::new(),
            refused: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// What is shown now.
    pub fn credential(&self) -> Credential {
        self.held.read().unwrap_or_else(PoisonError::into_inner).credential.clone()
    }

    /// What that says.
    pub fn membership(&self) -> Membership {
        self.held.read().unwrap_or_else(PoisonError::into_inner).membership.clone()
    }

    /// Why the last attempt to renew failed, if it did.
    pub fn trouble(&self) -> Option<Unrenewed> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The credential is of no use any more, whatever its time.
    pub fn renew_soon(&self) {
        self.refused.store(true, Ordering::SeqCst);
        self.woken.notify_one();
    }

    /// Has [`Self::keep`] look again, after what it was paused for is over.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Makes an attempt whenever the schedule says so, until `stop`. `attempt` asks, and has stored and presented what it
    /// gives; none is made while the member `is_paused`.
    pub async fn keep<F: Future<Output = Result<Renewed, Unrenewed>>>(
        &self,
        stop: &CancellationToken,
        is_paused: impl Fn() -> bool,
        attempt: impl Fn() -> F,
    ) {
        let mut input = Input::Tick;
        loop {
            let paused = is_paused();
            if !paused && self.schedule().handle(Instant::now(), UnixSeconds::now(), input) {
                input = tokio::select! {
                    () = stop.cancelled() => return,
                    outcome = attempt() => self.outcome(outcome),
                };
                continue;
            }
            input = Input::Tick;
            let wakeup = self.schedule().next_wakeup(Instant::now(), UnixSeconds::now());
            tokio::select! {
                () = stop.cancelled() => return,
                () = timer::until(wakeup.filter(|_| !paused)) => {}
                () = self.woken.notified() => {}
            }
            if self.refused.swap(false, Ordering::SeqCst) {
                input = Input::Refused;
            }
        }
    }

    fn outcome(&self, outcome: Result<Renewed, Unrenewed>) -> Input {
        let trouble = outcome.as_ref().err().cloned();
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        match outcome {
            Ok(renewed) => {
                let validity = Validity::from(&renewed.membership);
                tracing::info!(expires = validity.expires.0, "the credential is renewed");
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = renewed;
                Input::Renewed(validity)
            }
            Err(error) => {
                tracing::warn!(%error, "the credential could not be renewed; this is tried again");
                Input::Failed
            }
        }
    }

    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new credential, verified.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// What is to be shown from now on.
    pub credential: Credential,
    /// What it says.
    pub membership: Membership,
}

impl Renewed {
    /// Stores the credential and presents it, in this order. Where it cannot be stored it is presented all the same: it
    /// is good until the next start, which renews again.
    pub async fn take_over(&self, network: &Network, identity: &Identity, folder: &Folder) {
        let (folder, credential) = (folder.clone(), self.credential.clone());
        let stored = tokio::task::spawn_blocking(move || identity::save_credential(&folder, &credential));
        if let Ok(Err(error)) = stored.await {
            tracing::error!(%error, "the new credential could not be stored");
        }
        network.present(self.enrolment(identity)).await;
    }

    /// What is presented to others.
    pub fn enrolment(&self, identity: &Identity) -> Enrolment {
        Enrolment {
            peer: identity.keys.peer(),
            credential: self.credential.clone(),
            sealing_key: identity.sealing_statement(),
        }
    }
}

/// Why there is no new credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrenewed {
    /// No super-peer is known.
    #[error("no super-peer is known")]
    NobodyKnown,
    /// None of those known answered; the text is the last one's reason.
    #[error("no super-peer answers: {0}")]
    Unanswered(String),
    /// What came back is not a credential for this member.
    #[error("what the super-peer issued is not a credential for this member")]
    NotOurs,
    /// The super-peer's clock and this machine's differ.
    #[error("this machine's clock is {0} the super-peer's that was asked")]
    Clock(Offset),
    /// A super-peer refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Unrenewed {
    /// How much it says: of several super-peers' answers, the one that says most is told.
    const fn weight(&self) -> u8 {
        match self {
            Self::NobodyKnown => 0,
            Self::Unanswered(_) => 1,
            // The others will say more.
            Self::Refused(
                Refusal::NotAMember
                | Refusal::NotTheRoot
                | Refusal::AwaitingApproval
                | Refusal::NotReconciled
                | Refusal::Unavailable,
            ) => 2,
            Self::NotOurs => 3,
            Self::Clock(_) => 4,
            Self::Refused(_) => 5,
        }
    }
}

/// Asks super-peers in the order given until one renews. `time` is the present time as well as it is known here.
///
/// Cancel-safe: a credential that is on its way then is lost, and the next attempt gets another.
///
/// # Errors
/// [`Unrenewed`] with what says most of all answers.
pub async fn renew(
    network: &Network,
    identity: &Identity,
    held: &Credential,
    superpeers: &[PeerAddresses],
    time: UnixSeconds,
) -> Result<Renewed, Unrenewed> {
    let mut worst = Unrenewed::NobodyKnown;
    for superpeer in superpeers.iter().filter(|superpeer| superpeer.peer != identity.keys.peer()) {
        let asking = ask(network, identity, held, superpeer, time);
        let outcome = tokio::time::timeout(ASK_TIMEOUT, asking)
            .await
            .unwrap_or_else(|_| Err(Unrenewed::Unanswered("no answer in time".to_owned())));
        match outcome {
            Ok(renewed) => return Ok(renewed),
            Err(error) => {
                tracing::debug!(superpeer = %superpeer.peer, %error, "not renewed");
                if error.weight() >= worst.weight() {
                    worst = error;
                }
            }
        }
    }
    Err(worst)
}

async fn ask(
    network: &Network,
    identity: &Identity,
    held: &Credential,
    superpeer: &PeerAddresses,
    time: UnixSeconds,
) -> Result<Renewed, Unrenewed> {
    let request = Request::Renew { credential: held.clone(), sealing_key: identity.sealing_statement() };
    let response = ask_as_anybody(network, superpeer, request).await?;
    match response {
        Response::Renewed(credential) => check(identity, credential, time),
        Response::Refused(refusal) => Err(refusal.into()),
        Response::Joined { .. } | Response::Superpeers(_) | Response::Farewell => Err(Unrenewed::NotOurs),
    }
}

/// Asks something of *admission* over whatever connection there is, or over one made without presenting ourselves.
///
/// # Errors
/// [`Unrenewed::Unanswered`].
pub async fn ask_as_anybody(
    network: &Network,
    superpeer: &PeerAddresses,
    request: Request,
) -> Result<Response, Unrenewed> {
    let unanswered = |error: &dyn std::error::Error| Unrenewed::Unanswered(error.to_string());
    let admitted = !network.connections(Some(superpeer.peer)).await.is_empty();
    if !admitted {
        reach(network, superpeer.peer, &superpeer.addresses).await.map_err(Unrenewed::Unanswered)?;
    }
    network.call::<Admission>(superpeer.peer, request).await.map_err(|error| unanswered(&error))
}

/// Connects to a peer as a stranger, and gives the address at which it answered.
///
/// # Errors
/// Why none of the addresses leads to it.
pub async fn reach(network: &Network, peer: PeerId, addresses: &[Multiaddr]) -> Result<Multiaddr, String> {
    let mut failures = Vec::new();
    for known in addresses {
        let address = known.clone().with_p2p(peer).unwrap_or_else(|address| address);
        match network.connect_stranger(address).await {
            Ok(found) if found == peer => return Ok(known.clone()),
            Ok(_) => failures.push("somebody else answered".to_owned()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() { Err("no address is known".to_owned()) } else { Err(failures.join(", ")) }
}

fn check(identity: &Identity, credential: Credential, time: UnixSeconds) -> Result<Renewed, Unrenewed> {
    let membership = credential
        .verify_ignoring_time(&identity.trust, &identity.keys.peer())
        .map_err(|_| Unrenewed::NotOurs)?;
    let own = &identity.membership;
    if membership.role != own.role || membership.name != own.name {
        return Err(Unrenewed::NotOurs);
    }
    match Offset::between(time, membership.issued) {
        Some(offset) => Err(Unrenewed::Clock(offset)),
        None => Ok(Renewed { credential, membership }),
    }
}
