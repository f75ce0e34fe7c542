//! Who is there: every member's state, from connections, pings and polls.
//!
//! What is guaranteed, for a node, with timers run at [`Health::next_wakeup`]:
//!
//! - Its last connection closes: it is not offered from then on, and removed after [`GRACE`] unless it is back.
//! - It falls silent: it is not offered after the first poll that it does not answer within [`POLL_DEADLINE`], is
//!   polled again at once, and removed after the second. As polls are at most an interval apart, that is within an
//!   interval and two deadlines of its last sign of life.
//! - It is removed and still connected: it is polled every [`PROBE_INTERVAL`], so that it is back soon after it runs
//!   again, and its connection is closed after [`PROBING_MAX`].
//! - It is removed and not connected: it is dialled, often at first and then now and then.
//! - It answers everything in time and stays connected: it is never suspected.
//! - It signs off: it is offline at once, which is no removal, and neither polled nor dialled until it is back.
//! - Others cannot reach it: it is polled at once, at most every [`HEED_INTERVAL`]. Whoever reports can hasten what this
//!   super-peer finds out by itself, and nothing more.
//!
//! A registration is a sign of life as an answered poll is, and so is an answer that came too late. Nothing else is: a
//! connection stays open for long after the process behind it has stopped.
//!
//! ```text
//!              answered, registered                      poll missed, or connection closed
//!  ┌─────────┐ ───────────────────▶ ┌────────┐ ───────────────────▶ ┌─────────┐
//!  │ Offline │                      │ Online │                      │ Suspect │
//!  └─────────┘                      └────────┘ ◀─────────────────── └─────────┘
//!       ▲                                       answered, registered     │
//!       └────────────────────────────────────────────────────────────────┘
//!                        poll missed again, or not back in time
//! ```
//!
//! A member that signs off is offline from any state, and looked at anew with its next connection or when it says that
//! it is back; what it had sent before does not count.
//!
//! Super-peers are not polled: their connection is their sign of life.
//!
//! Every member has exactly one timer, in one ordered set, so a step costs the logarithm of the number of members.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{credentials::Role, messages::index::MemberState};

/// How long after a poll its answer is waited for before the node is suspected.
///
/// Far above any round trip and a page's transfer, and low enough that two of them and an interval keep the promise of
/// removal within two intervals and 3 s.
pub const POLL_DEADLINE: Duration = Duration::from_millis(1500);
/// How long a node without a connection is kept before it is removed: the time of a reconnect on a network change.
pub const GRACE: Duration = Duration::from_secs(1);
/// How often a removed node that is still connected is polled: it must be back within 2 s of running again.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// For how long a removed node's connection is kept: it is likely dead on the way, and a fresh one will tell.
pub const PROBING_MAX: Duration = Duration::from_secs(30);
/// How often a removed node without a connection is dialled at first: a restart or a cable takes that long.
pub const DIAL_INTERVAL: Duration = Duration::from_secs(1);
/// For how long it is dialled that often.
pub const DIALLING_OFTEN: Duration = Duration::from_mins(1);
/// How often it is dialled then, on average. A node that runs dials by itself; this finds those that cannot.
pub const DIAL_INTERVAL_LATER: Duration = Duration::from_secs(15);
/// How often another super-peer is dialled then, on average: there are few, and until it is back both sides of a cut go
/// their own ways.
pub const SUPERPEER_DIAL_INTERVAL_LATER: Duration = Duration::from_secs(2);
/// How often a node is polled at most because others say that they cannot reach it: a reporter must not make a
/// super-peer flood anybody.
pub const HEED_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest poll interval: below, polls of a large network would be a load of their own.
pub const POLL_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// The longest poll interval: above, silence goes unnoticed for too long to call a list available.
pub const POLL_INTERVAL_MAX: Duration = Duration::from_mins(10);
/// How often nodes are polled where nothing else is configured.
pub const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);

/// How often nodes are polled: between [`POLL_INTERVAL_MIN`] and [`POLL_INTERVAL_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PollInterval(Duration);

/// A poll interval outside its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a poll interval is between 250 ms and 10 minutes, not {0:?}")]
pub struct NotAPollInterval(pub Duration);

impl PollInterval {
    /// Checks an interval.
    ///
    /// # Errors
    /// [`NotAPollInterval`] outside the bounds.
    pub fn new(interval: Duration) -> Result<Self, NotAPollInterval> {
        let possible = (POLL_INTERVAL_MIN..=POLL_INTERVAL_MAX).contains(&interval);
        possible.then_some(Self(interval)).ok_or(NotAPollInterval(interval))
    }

    /// The interval.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl Default for PollInterval {
    fn default() -> Self {
        Self(POLL_INTERVAL_DEFAULT)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// There is such a member; it is dialled until it is connected. A role is taken once: it goes with the identity.
    Known(PeerId, Role),
    /// A verified member has a first connection.
    Connected(PeerId, Role),
    /// A member's last connection closed.
    ConnectionClosed(PeerId),
    /// A node answered a poll, however late.
    PollAnswered(PeerId),
    /// A node registered its list.
    Registered(PeerId),
    /// A ping was not answered: reason enough to poll at once.
    PingMissed(PeerId),
    /// Another member could not reach it: reason enough to poll soon.
    ReportedUnreachable(PeerId),
    /// It says that it goes, until it is back.
    SignedOff(PeerId),
    /// It says that it is back.
    SignedOn(PeerId),
    /// It is no member any more.
    Forgotten(PeerId),
    /// Nothing but time.
    Tick,
}

/// What is to be done or told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Poll the node now.
    Poll(PeerId),
    /// Dial the member, unless a dial is under way.
    Dial(PeerId),
    /// Close the member's connections.
    Close(PeerId),
    /// The member is offered, for the first time.
    Arrived(PeerId),
    /// The member is offered no more.
    Suspected(PeerId),
    /// The suspicion was unfounded: the member is offered again.
    Cleared(PeerId),
    /// The member is off the available list.
    Removed(PeerId, RemovalCause),
    /// A removed member is on the available list again.
    Returned(PeerId),
    /// The member is off the available list by its own will.
    SignedOff(PeerId),
}

/// Why a member was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovalCause {
    /// Its last connection closed and it did not come back.
    ConnectionClosed,
    /// It missed two polls in a row.
    PollsMissed,
}

/// A member as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The member.
    pub peer: PeerId,
    /// Node or super-peer.
    pub role: Role,
    /// How it is.
    pub state: MemberState,
    /// Its last sign of life; none where there was none yet.
    pub last_seen: Option<Instant>,
}

/// The state of every member.
#[derive(Debug)]
pub struct Health {
    interval: Duration,
    /// What the phases of polls are counted from.
    start: Instant,
    members: HashMap<PeerId, Member>,
    /// For each member that waits for anything, when.
    timers: BTreeSet<(Instant, PeerId)>,
}

#[derive(Debug)]
struct Member {
    role: Role,
    connected: bool,
    last_seen: Option<Instant>,
    condition: Condition,
    timer: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
enum Condition {
    Online(Polling),
    Suspect {
        since: Instant,
        remove_at: Instant,
    },
    /// Gone by its own will.
    SignedOff,
    Offline {
        /// Since when it is looked for in the present way, by polls or by dials.
        since: Instant,
        /// When it is next looked for.
        next: Instant,
        /// Whether it has been there and was removed.
        removed: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Polling {
    /// The next poll begins then.
    Next(Instant),
    /// A poll is under way, to be answered by then.
    Until(Instant),
    /// It is not polled.
    Never,
}

impl Health {
    /// Nobody known yet. The phases of polls are counted from `start`.
    pub fn new(interval: PollInterval, start: Instant) -> Self {
        Self { interval: interval.get(), start, members: HashMap::new(), timers: BTreeSet::new() }
    }

    /// Takes in what happened, then runs what is due at `now`.
    ///
    /// What happened goes first: if this super-peer itself was held up, the answers that waited for it count.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Known(peer, role) => self.known(now, peer, role, false, &mut effects),
            Input::Connected(peer, role) => self.known(now, peer, role, true, &mut effects),
            Input::ConnectionClosed(peer) => {
                self.step(peer, &mut effects, |member, effects| member.closed(peer, now, effects));
            }
            Input::PollAnswered(peer) | Input::Registered(peer) => {
                let next = self.next_poll(&peer, now);
                self.step(peer, &mut effects, |member, effects| member.alive(peer, now, next, effects));
            }
            Input::PingMissed(peer) => {
                self.step(peer, &mut effects, |member, effects| member.ping_missed(peer, now, effects));
            }
            Input::ReportedUnreachable(peer) => {
                self.step(peer, &mut effects, |member, _| member.reported_unreachable(now));
            }
            Input::SignedOff(peer) => {
                self.step(peer, &mut effects, |member, effects| member.signed_off(peer, now, effects));
            }
            Input::SignedOn(peer) => self.step(peer, &mut effects, |member, _| member.signed_on(now)),
            Input::Forgotten(peer) => {
                if let Some(timer) = self.members.remove(&peer).and_then(|member| member.timer) {
                    self.timers.remove(&(timer, peer));
                }
            }
            Input::Tick => {}
        }
        self.run_due(now, &mut effects);
        effects
    }

    /// When [`Input::Tick`] is due; none while nobody is waited for.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How a member is; offline where unknown.
    pub fn state(&self, peer: &PeerId) -> MemberState {
        self.members.get(peer).map_or(MemberState::Offline, Member::state)
    }

    /// Whether a member may be named as a source.
    pub fn is_offered(&self, peer: &PeerId) -> bool {
        self.state(peer) == MemberState::Online
    }

    /// When a member last gave a sign of life.
    pub fn last_seen(&self, peer: &PeerId) -> Option<Instant> {
        self.members.get(peer)?.last_seen
    }

    /// All members, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Seen> {
        self.members.iter().map(|(peer, member)| Seen {
            peer: *peer,
            role: member.role,
            state: member.state(),
            last_seen: member.last_seen,
        })
    }

    fn known(&mut self, now: Instant, peer: PeerId, role: Role, connected: bool, effects: &mut Vec<Effect>) {
        let condition = Condition::Offline { since: now, next: now, removed: false };
        let new = Member { role, connected: false, last_seen: None, condition, timer: None };
        self.members.entry(peer).or_insert(new);
        self.step(peer, effects, |member, effects| {
            if connected {
                member.connected(peer, now, effects);
            }
        });
    }

    fn step(
        &mut self,
        peer: PeerId,
        effects: &mut Vec<Effect>,
        step: impl FnOnce(&mut Member, &mut Vec<Effect>),
    ) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        step(member, effects);
        let timer = member.due();
        if timer != member.timer {
            if let Some(before) = std::mem::replace(&mut member.timer, timer) {
                self.timers.remove(&(before, peer));
            }
            self.timers.extend(timer.map(|at| (at, peer)));
        }
    }

    /// Every timer that runs is set again past `now`, so each member runs at most once.
    fn run_due(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        while let Some((at, peer)) = self.timers.first().copied()
            && at <= now
        {
            self.step(peer, effects, |member, effects| member.run(peer, now, effects));
        }
    }

    /// The node's next turn. Turns are an interval apart, at a place in it that depends on the node, so that polls are
    /// spread over the interval.
    fn next_poll(&self, peer: &PeerId, now: Instant) -> Instant {
        let interval = nanoseconds(self.interval);
        let phase = hash(peer) % interval;
        let elapsed = nanoseconds(now.saturating_duration_since(self.start));
        let in_turn = (elapsed % interval + interval - phase) % interval;
        now + Duration::from_nanos(interval - in_turn)
    }
}

impl Member {
    const fn state(&self) -> MemberState {
        match self.condition {
            Condition::Online(_) => MemberState::Online,
            Condition::Suspect { .. } => MemberState::Suspect,
            Condition::Offline { .. } | Condition::SignedOff => MemberState::Offline,
        }
    }

    const fn is_polled(&self) -> bool {
        matches!(self.role, Role::Node)
    }

    /// When this member's timer runs.
    fn due(&self) -> Option<Instant> {
        match self.condition {
            Condition::Online(Polling::Next(at) | Polling::Until(at)) => Some(at),
            Condition::Online(Polling::Never) | Condition::SignedOff => None,
            Condition::Suspect { remove_at, .. } => Some(remove_at),
            Condition::Offline { next, .. } => Some(next),
        }
    }

    fn connected(&mut self, peer: PeerId, now: Instant, effects: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.connected, true) {
            return;
        }
        if !self.is_polled() {
            self.online(peer, now, Polling::Never, effects);
            return;
        }
        if matches!(self.condition, Condition::SignedOff) {
            // A new connection: it would make none if it were to stay away.
            self.signed_on(now);
        }
        match &mut self.condition {
            Condition::Online(_) | Condition::SignedOff => {}
            Condition::Suspect { since, remove_at } => {
                // Counted from the first suspicion, so that one that comes and goes is removed all the same.
                *remove_at = (now + POLL_DEADLINE).min(*since + 2 * POLL_DEADLINE);
                effects.push(Effect::Poll(peer));
            }
            Condition::Offline { since, next, .. } => {
                (*since, *next) = (now, now + PROBE_INTERVAL);
                effects.push(Effect::Poll(peer));
            }
        }
    }

    fn closed(&mut self, peer: PeerId, now: Instant, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.connected, false) {
            return;
        }
        match &mut self.condition {
            Condition::Online(_) => {
                self.condition = Condition::Suspect { since: now, remove_at: now + GRACE };
                effects.push(Effect::Suspected(peer));
                if !self.is_polled() {
                    self.last_seen = Some(now);
                }
            }
            Condition::Suspect { remove_at, .. } => *remove_at = (*remove_at).min(now + GRACE),
            Condition::Offline { since, next, .. } => (*since, *next) = (now, now),
            Condition::SignedOff => {}
        }
    }

    fn signed_off(&mut self, peer: PeerId, now: Instant, effects: &mut Vec<Effect>) {
        if self.is_polled() && !matches!(self.condition, Condition::SignedOff) {
            self.last_seen = Some(now);
            self.condition = Condition::SignedOff;
            effects.push(Effect::SignedOff(peer));
        }
    }

    /// It was gone by its own will, so its return is no surprise and its absence was no removal.
    fn signed_on(&mut self, now: Instant) {
        if matches!(self.condition, Condition::SignedOff) {
            self.condition = Condition::Offline { since: now, next: now, removed: false };
        }
    }

    fn reported_unreachable(&mut self, now: Instant) {
        if let Condition::Online(Polling::Next(next)) = &mut self.condition {
            let heeded = self.last_seen.map_or(now, |seen| (seen + HEED_INTERVAL).max(now));
            *next = (*next).min(heeded);
        }
    }

    /// A sign of life; `next` is the node's next turn to be polled.
    fn alive(&mut self, peer: PeerId, now: Instant, next: Instant, effects: &mut Vec<Effect>) {
        let signed_off = matches!(self.condition, Condition::SignedOff);
        if self.connected && self.is_polled() && !signed_off {
            self.online(peer, now, Polling::Next(next), effects);
        } else {
            // What it sent before its connection closed or it signed off: it was there, and is not.
            self.last_seen = Some(now);
        }
    }

    fn online(&mut self, peer: PeerId, now: Instant, polling: Polling, effects: &mut Vec<Effect>) {
        match self.condition {
            Condition::Online(_) => {}
            Condition::Suspect { .. } => effects.push(Effect::Cleared(peer)),
            Condition::Offline { removed: true, .. } => effects.push(Effect::Returned(peer)),
            Condition::Offline { removed: false, .. } | Condition::SignedOff => {
                effects.push(Effect::Arrived(peer));
            }
        }
        self.last_seen = Some(now);
        self.condition = Condition::Online(polling);
    }

    fn ping_missed(&mut self, peer: PeerId, now: Instant, effects: &mut Vec<Effect>) {
        if let Condition::Online(polling @ Polling::Next(_)) = &mut self.condition {
            *polling = Polling::Until(now + POLL_DEADLINE);
            effects.push(Effect::Poll(peer));
        }
    }

    /// What is due at `now`.
    fn run(&mut self, peer: PeerId, now: Instant, effects: &mut Vec<Effect>) {
        match &mut self.condition {
            Condition::Online(polling) => match polling {
                Polling::Next(_) => {
                    *polling = Polling::Until(now + POLL_DEADLINE);
                    effects.push(Effect::Poll(peer));
                }
                Polling::Until(_) => {
                    self.condition = Condition::Suspect { since: now, remove_at: now + POLL_DEADLINE };
                    effects.extend([Effect::Suspected(peer), Effect::Poll(peer)]);
                }
                Polling::Never => {}
            },
            Condition::Suspect { .. } => {
                let cause =
                    if self.connected { RemovalCause::PollsMissed } else { RemovalCause::ConnectionClosed };
                effects.push(Effect::Removed(peer, cause));
                self.condition = Condition::Offline { since: now, next: now, removed: true };
                self.look_for(peer, now, effects);
            }
            Condition::Offline { .. } => self.look_for(peer, now, effects),
            Condition::SignedOff => {}
        }
    }

    /// Polls or dials an offline member, and sets when to do so again.
    fn look_for(&mut self, peer: PeerId, now: Instant, effects: &mut Vec<Effect>) {
        let Condition::Offline { since, next, .. } = &mut self.condition else { return };
        if !self.connected {
            effects.push(Effect::Dial(peer));
            let later = match self.role {
                Role::Superpeer => SUPERPEER_DIAL_INTERVAL_LATER,
                Role::Node => DIAL_INTERVAL_LATER,
            };
            let often = now.saturating_duration_since(*since) < DIALLING_OFTEN;
            *next = now + if often { DIAL_INTERVAL } else { jittered(later, &peer, now) };
        } else if now.saturating_duration_since(*since) < PROBING_MAX {
            effects.push(Effect::Poll(peer));
            *next = now + PROBE_INTERVAL;
        } else {
            // Asked for again later if the connection is still there then.
            effects.push(Effect::Close(peer));
            (*since, *next) = (now, now + PROBE_INTERVAL);
        }
    }
}

/// Between 80 % and 120 % of an interval, by member and time.
fn jittered(interval: Duration, peer: &PeerId, now: Instant) -> Duration {
    let percent = 80 + hash(&(peer, now)) % 41;
    Duration::from_nanos(nanoseconds(interval) / 100 * percent)
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Whole nanoseconds: enough for 584 years.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
