//! How a node keeps in touch with one super-peer: when to connect, when to register, when to stop believing in a
//! connection.
//!
//! Pure: [`Liaison::handle`] takes a moment and an input and says what to do; the service does it. Three rules:
//!
//! - Not connected: try again within a second for the first ten minutes, then every 15 s. Waits are spread at random,
//!   so that seventy branches do not return to a restarted super-peer in the same instant.
//! - Connected: the super-peer has this node's list, and gets every change at once. One registration is under way at a
//!   time; what changes meanwhile goes with the next.
//! - Silent: a super-peer polls at an interval that it tells. When none came for that long and [`SILENCE_GRACE`] more,
//!   the connection may be dead without the system knowing, so further ones are tried beside it. TCP itself would wait
//!   for as long again as the outage has lasted.

use std::time::{Duration, Instant};

use quarta_protocols::messages::{
    index::Registered,
    inventory::{Key, Position},
};

/// Longest wait between attempts at first.
pub const RETRY_SOON: Duration = Duration::from_secs(1);
/// Longest wait between attempts after [`RETRY_SOON_FOR`].
pub const RETRY_LATER: Duration = Duration::from_secs(15);
/// How long a lost super-peer is tried for every second.
pub const RETRY_SOON_FOR: Duration = Duration::from_mins(10);
/// How much later than its interval a poll may come.
pub const SILENCE_GRACE: Duration = Duration::from_secs(2);
/// How long a registration may take before it counts as failed.
const REGISTRATION_RETRY: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The super-peer is connected and both sides have let each other in.
    Connected,
    /// Its last connection is gone.
    Departed,
    /// An attempt to connect failed.
    ConnectFailed,
    /// It polled, and does so at this interval.
    Polled(Duration),
    /// The list stands at this position now.
    Changed(Position),
    /// A page was sent, ending at this key, and this is its answer.
    Answered {
        /// What the super-peer says.
        registered: Registered,
        /// The last key of the page, where it was one of a full list.
        last_key: Option<Key>,
    },
    /// A page was sent and there was no answer.
    RegisterFailed,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Connect; `fresh` even though a connection seems to exist.
    Connect {
        /// Whether to make a further connection.
        fresh: bool,
    },
    /// Send a page of the list.
    Register {
        /// What the super-peer has; none for the full list.
        since: Option<Position>,
        /// Continue a full list after this key.
        after: Option<Key>,
    },
}

#[derive(Debug)]
enum Link {
    Down { since: Instant, try_at: Instant },
    Connecting { since: Instant },
    Up { heard: Instant, fresh_try_at: Instant },
}

/// Keeps in touch with one super-peer.
#[derive(Debug)]
pub struct Liaison {
    link: Link,
    /// What the super-peer has of the list.
    acknowledged: Option<Position>,
    /// Where the list stands.
    current: Position,
    registering: bool,
    register_at: Option<Instant>,
    poll_interval: Option<Duration>,
    jitter: u64,
}

impl Liaison {
    /// A liaison that connects at once. `seed` spreads the waits.
    pub const fn new(now: Instant, current: Position, seed: u64) -> Self {
        Self {
            link: Link::Down { since: now, try_at: now },
            acknowledged: None,
            current,
            registering: false,
            register_at: None,
            poll_interval: None,
            jitter: seed | 1,
        }
    }

    /// Whether the super-peer is connected.
    pub const fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// Whether the super-peer has the present list.
    pub fn is_registered(&self) -> bool {
        self.is_connected() && self.acknowledged == Some(self.current)
    }

    /// Takes note of what happened and says what to do.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Connected => {
                self.link = Link::Up { heard: now, fresh_try_at: now };
                // What it had may be lost with its restart: its answer to a delta tells.
                self.registering = false;
                self.register_at = Some(now);
            }
            Input::Departed => {
                self.link = Link::Down { since: now, try_at: now };
                self.registering = false;
                self.register_at = None;
            }
            Input::ConnectFailed => {
                if let Link::Connecting { since } = self.link {
                    let lost_for = now.duration_since(since);
                    let longest = if lost_for < RETRY_SOON_FOR { RETRY_SOON } else { RETRY_LATER };
                    self.link = Link::Down { since, try_at: now + self.spread(longest) };
                }
            }
            Input::Polled(interval) => {
                self.poll_interval = Some(interval);
                if let Link::Up { heard, .. } = &mut self.link {
                    *heard = now;
                }
            }
            Input::Changed(position) => {
                self.current = position;
                if self.is_connected() && !self.registering {
                    self.register_at = Some(now);
                }
            }
            Input::Answered { registered, last_key } => {
                self.answered(now, registered, last_key, &mut effects)
            }
            Input::RegisterFailed => {
                self.registering = false;
                self.register_at = self.is_connected().then_some(now + REGISTRATION_RETRY);
            }
            Input::Tick => {}
        }
        self.due(now, &mut effects);
        effects
    }

    /// When [`Input::Tick`] is next needed.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Down { try_at, .. } => Some(try_at),
            Link::Connecting { .. } => None,
            Link::Up { heard, fresh_try_at } => {
                self.silent_from(heard).map(|silent| silent.max(fresh_try_at))
            }
        };
        link.into_iter().chain(self.register_at.filter(|_| !self.registering)).min()
    }

    fn answered(
        &mut self,
        now: Instant,
        registered: Registered,
        last_key: Option<Key>,
        effects: &mut Vec<Effect>,
    ) {
        if !self.registering {
            // The answer of a registration that was given up when the connection changed.
            return;
        }
        match registered {
            Registered::At(position) => {
                self.registering = false;
                self.acknowledged = Some(position);
                self.register_at = (position != self.current).then_some(now);
            }
            Registered::Continue => effects.push(Effect::Register { since: None, after: last_key }),
            Registered::SendAll => {
                self.acknowledged = None;
                effects.push(Effect::Register { since: None, after: None });
            }
        }
    }

    /// What time has made due.
    fn due(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match self.link {
            Link::Down { since, try_at } if now >= try_at => {
                self.link = Link::Connecting { since };
                effects.push(Effect::Connect { fresh: false });
            }
            Link::Up { heard, fresh_try_at } => {
                let silent = self.silent_from(heard).is_some_and(|from| now >= from);
                if silent && now >= fresh_try_at {
                    self.link = Link::Up { heard, fresh_try_at: now + RETRY_SOON };
                    effects.push(Effect::Connect { fresh: true });
                }
            }
            _ => {}
        }
        if self.is_connected() && !self.registering && self.register_at.is_some_and(|at| now >= at) {
            self.register_at = None;
            self.registering = true;
            effects.push(Effect::Register { since: self.acknowledged, after: None });
        }
    }

    /// From when on the super-peer counts as silent.
    fn silent_from(&self, heard: Instant) -> Option<Instant> {
        self.poll_interval.map(|interval| heard + interval + SILENCE_GRACE)
    }

    /// A wait of half to all of `longest`.
    fn spread(&mut self, longest: Duration) -> Duration {
        // xorshift64: only the spread matters.
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let share = u32::try_from(self.jitter % 512).unwrap_or(0) + 512;
        longest * share / 1024
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPOCH: u64 = 7;

    fn at(revision: u64) -> Position {
        Position { epoch: EPOCH, revision }
    }

    fn connected(now: Instant) -> Liaison {
        let mut liaison = Liaison::new(now, at(1), 3);
        assert_eq!(liaison.handle(now, Input::Tick), [Effect::Connect { fresh: false }]);
        assert_eq!(liaison.handle(now, Input::Connected), [Effect::Register { since: None, after: None }]);
        liaison
    }

    fn accepted(revision: u64) -> Input {
        Input::Answered { registered: Registered::At(at(revision)), last_key: None }
    }

    #[test]
    fn what_changes_during_a_registration_goes_with_the_next() {
        let now = Instant::now();
        let mut liaison = connected(now);
        assert_eq!(liaison.handle(now, Input::Changed(at(2))), []);
        assert_eq!(liaison.handle(now, accepted(1)), [Effect::Register { since: Some(at(1)), after: None }]);
        assert_eq!(liaison.handle(now, accepted(2)), []);
        assert!(liaison.is_registered());
    }

    #[test]
    fn a_long_list_goes_page_by_page_and_a_forgotten_one_from_the_beginning() {
        let now = Instant::now();
        let mut liaison = connected(now);
        let key = Some(Key::Library(quarta_protocols::ids::FileId::from_bytes([1; 32])));
        let more = Input::Answered { registered: Registered::Continue, last_key: key };
        assert_eq!(liaison.handle(now, more), [Effect::Register { since: None, after: key }]);
        assert_eq!(liaison.handle(now, accepted(1)), []);
        // The super-peer restarted without what it had.
        liaison.handle(now, Input::Departed);
        assert_eq!(
            liaison.handle(now, Input::Connected),
            [Effect::Register { since: Some(at(1)), after: None }]
        );
        let all = Input::Answered { registered: Registered::SendAll, last_key: None };
        assert_eq!(liaison.handle(now, all), [Effect::Register { since: None, after: None }]);
    }

    #[test]
    fn a_lost_super_peer_is_tried_every_second_then_every_fifteen() {
        let start = Instant::now();
        let mut liaison = connected(start);
        let mut now = start;
        assert_eq!(liaison.handle(now, Input::Departed), [Effect::Connect { fresh: false }]);
        while now < start + Duration::from_mins(20) {
            assert_eq!(liaison.handle(now, Input::ConnectFailed), []);
            let next = liaison.next_wakeup().unwrap();
            let longest = if now.duration_since(start) < RETRY_SOON_FOR { RETRY_SOON } else { RETRY_LATER };
            assert!(next - now <= longest && next - now >= longest / 2, "{:?}", next - now);
            now = next;
            assert_eq!(liaison.handle(now, Input::Tick), [Effect::Connect { fresh: false }]);
        }
    }

    #[test]
    fn a_silent_super_peer_is_tried_afresh_every_second_until_it_polls() {
        let start = Instant::now();
        let mut liaison = connected(start);
        liaison.handle(start, accepted(1));
        let interval = Duration::from_secs(1);
        liaison.handle(start, Input::Polled(interval));
        let silent = start + interval + SILENCE_GRACE;
        assert_eq!(liaison.next_wakeup(), Some(silent));
        assert_eq!(liaison.handle(silent, Input::Tick), [Effect::Connect { fresh: true }]);
        assert_eq!(liaison.next_wakeup(), Some(silent + RETRY_SOON));
        assert_eq!(liaison.handle(silent + RETRY_SOON, Input::Tick), [Effect::Connect { fresh: true }]);
        liaison.handle(silent + RETRY_SOON, Input::Polled(interval));
        assert_eq!(liaison.handle(silent + RETRY_SOON * 2, Input::Tick), []);
    }

    #[test]
    fn a_failed_registration_is_tried_again() {
        let now = Instant::now();
        let mut liaison = connected(now);
        assert_eq!(liaison.handle(now, Input::RegisterFailed), []);
        let again = liaison.next_wakeup().unwrap();
        assert_eq!(liaison.handle(again, Input::Tick), [Effect::Register { since: None, after: None }]);
    }

    fn any_input() -> impl Strategy<Value = Input> {
        prop_oneof![
            Just(Input::Connected),
            Just(Input::Departed),
            Just(Input::ConnectFailed),
            (1u64..20).prop_map(|s| Input::Polled(Duration::from_secs(s))),
            (1u64..50).prop_map(|r| Input::Changed(at(r))),
            (1u64..50).prop_map(accepted),
            Just(Input::Answered { registered: Registered::Continue, last_key: None }),
            Just(Input::Answered { registered: Registered::SendAll, last_key: None }),
            Just(Input::RegisterFailed),
            Just(Input::Tick),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_it_keeps_trying_and_ends_registered(
            inputs in prop::collection::vec((any_input(), 0u64..3000), 0..60), seed: u64,
        ) {
            let mut now = Instant::now();
            let mut liaison = Liaison::new(now, at(1), seed);
            for (input, wait) in inputs {
                now += Duration::from_millis(wait);
                let effects = liaison.handle(now, input);
                prop_assert!(effects.iter().filter(|e| matches!(e, Effect::Register { .. })).count() <= 1);
            }
            // The shell answers every effect, so from here on all goes well.
            let mut current = at(99);
            let mut pending = liaison.handle(now, Input::Departed);
            pending.extend(liaison.handle(now, Input::Changed(current)));
            for _ in 0..20 {
                let inputs: Vec<Input> = pending
                    .drain(..)
                    .map(|effect| match effect {
                        Effect::Connect { .. } => Input::Connected,
                        Effect::Register { .. } => accepted(current.revision),
                    })
                    .collect();
                for input in inputs {
                    pending.extend(liaison.handle(now, input));
                }
                now += RETRY_SOON;
                pending.extend(liaison.handle(now, Input::Tick));
                current = liaison.current;
            }
            prop_assert!(liaison.is_registered());
        }
    }
}
