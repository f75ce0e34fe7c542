//! Who is let in to be served: the shell around [`Slots`].
//!
//! Peers on the own network have slots of their own, as they have no limit: a line that is limited to a request or two at
//! once must not keep the branch's own machines waiting. Small questions, of manifests and of what is there, have places of
//! their own too: whoever asks them has no use for "later", and they say nothing about what is fetched for whom.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::messages::chunk::Purpose;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::{
    service::Shared,
    throttle::slots::{Slots, Ticket},
};

/// How long people count as served after a request of theirs has ended: a fetch asks again within a round trip.
const LINGERS: Duration = Duration::from_secs(1);

/// Small questions answered at once: what a holder has is asked by many others some times a second, and takes no slot.
const QUESTIONS_MAX: usize = 64;

pub(super) struct Door {
    slots: u32,
    questions: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    far: Slots<PeerId>,
    near: Slots<PeerId>,
    /// By whether near, and ticket.
    waiting: HashMap<(bool, Ticket), oneshot::Sender<()>>,
    /// When a person's request ended last.
    last_person: Option<Instant>,
}

impl State {
    const fn lane(&mut self, near: bool) -> &mut Slots<PeerId> {
        if near { &mut self.near } else { &mut self.far }
    }

    fn grant(&mut self, near: bool, slots: u32) {
        while let Some(ticket) = self.lane(near).grant(slots) {
            // Who has given up in this moment gives its slot back at once.
            let _ = self.waiting.remove(&(near, ticket)).map(|waiting| waiting.send(()));
        }
    }
}

impl Door {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots, questions: Semaphore::new(QUESTIONS_MAX), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) const fn slots(&self) -> u32 {
        self.slots
    }

    /// A small question is answered, until this is dropped; none where as many are for longer than `wait`.
    pub(super) async fn question(&self, wait: Duration) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(wait, self.questions.acquire()).await.ok()?.ok()
    }

    pub(super) fn active(&self) -> u32 {
        let state = self.state();
        state.far.active() + state.near.active()
    }

    pub(super) fn serves_people(&self, now: Instant) -> bool {
        let state = self.state();
        let lingers = |ended: Instant| now.saturating_duration_since(ended) < LINGERS;
        state.far.people() > 0 || state.near.people() > 0 || state.last_person.is_some_and(lingers)
    }
}

/// Puts a request in line; none where this node is too busy for that.
pub(super) fn enter(shared: &Arc<Shared>, peer: PeerId, purpose: Purpose) -> Option<Slot> {
    let near = shared.limits.spares(&peer);
    let door = &shared.uploads.door;
    let slots = if near { door.slots } else { shared.limits.uploads_fed(door.slots) };
    let mut state = door.state();
    let ticket = state.lane(near).ask(peer, purpose)?;
    let (sender, granted) = oneshot::channel();
    state.waiting.insert((near, ticket), sender);
    state.grant(near, slots);
    Some(Slot { shared: shared.clone(), peer, purpose, near, ticket, granted })
}

/// A request that is served or waits, until this is dropped.
pub(super) struct Slot {
    shared: Arc<Shared>,
    peer: PeerId,
    purpose: Purpose,
    near: bool,
    ticket: Ticket,
    granted: oneshot::Receiver<()>,
}

impl Slot {
    /// Waits until the request is served; `false` where it has to wait longer.
    pub(super) async fn granted_within(&mut self, wait: Duration) -> bool {
        matches!(tokio::time::timeout(wait, &mut self.granted).await, Ok(Ok(())))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let door = &self.shared.uploads.door;
        // The clock is read before the door is locked.
        let fed = if self.near { door.slots } else { self.shared.limits.uploads_fed(door.slots) };
        let mut state = door.state();
        state.waiting.remove(&(self.near, self.ticket));
        if state.lane(self.near).give_up(self.ticket) {
            return;
        }
        state.lane(self.near).end(self.peer, self.purpose);
        if self.purpose.is_person() {
            state.last_person = Some(Instant::now());
        }
        state.grant(self.near, fed);
    }
}
