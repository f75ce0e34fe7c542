//! Who waits since when for what: members' open questions, answered when there is something or when their time is up.
//!
//! Where there is something at once, the answer comes at once; what comes while a member waits is gathered for [`GATHER`],
//! so that a burst of writes makes one page and not hundreds. A member has one question open: a second one is answered
//! in its place, and the first at once with what there is, since its asker has given up on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;

use super::Head;

/// For how long news are gathered before those who wait are told.
pub const GATHER: Duration = Duration::from_millis(50);
/// Members that may wait at a time: as many as may be connected. Further ones are told to ask another super-peer.
pub const FOLLOWERS_MAX: usize = quarta_protocols::network::limits::CONNECTIONS_MAX as usize;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A member asks.
    Asked {
        /// Who.
        peer: PeerId,
        /// Names the question.
        question: u64,
        /// What it has.
        seen: Head,
        /// How long it waits.
        wait: Duration,
    },
    /// The feed has got to here.
    Moved(Head),
    /// Nothing but time.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Answer a question with what there is, if anything.
    Answer(u64),
    /// Too many wait already.
    Refuse(u64),
}

/// Those who wait.
#[derive(Debug, Default)]
pub struct Waiting {
    head: Head,
    /// In an order, so that the same inputs have the same effects in the same order.
    members: BTreeMap<PeerId, Waiter>,
    ends: BTreeSet<(Instant, PeerId)>,
    /// When those are told that wait for what has come.
    tell_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    question: u64,
    seen: Head,
    until: Instant,
}

impl Waiting {
    /// Takes note of what happened and says what to do.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Asked { peer, question, seen, wait } => {
                effects.extend(self.remove(&peer).map(|before| Effect::Answer(before.question)));
                if wait.is_zero() || self.head.is_after(seen) {
                    effects.push(Effect::Answer(question));
                } else if self.members.len() >= FOLLOWERS_MAX {
                    effects.push(Effect::Refuse(question));
                } else {
                    let until = now + wait;
                    self.members.insert(peer, Waiter { question, seen, until });
                    self.ends.insert((until, peer));
                }
            }
            Input::Moved(head) => {
                let head = Head {
                    sequence: head.sequence.max(self.head.sequence),
                    condition: head.condition.max(self.head.condition),
                };
                if head.is_after(self.head) {
                    self.head = head;
                    if !self.members.is_empty() {
                        self.tell_at.get_or_insert(now + GATHER);
                    }
                }
            }
            Input::Tick => {}
        }
        while let Some((_, peer)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            effects.extend(self.remove(&peer).map(|waiter| Effect::Answer(waiter.question)));
        }
        if self.tell_at.take_if(|at| *at <= now).is_some() {
            let head = self.head;
            let behind: Vec<PeerId> = self
                .members
                .iter()
                .filter(|(_, waiter)| head.is_after(waiter.seen))
                .map(|(peer, _)| *peer)
                .collect();
            for peer in behind {
                effects.extend(self.remove(&peer).map(|waiter| Effect::Answer(waiter.question)));
            }
        }
        effects
    }

    /// When [`Input::Tick`] is next needed.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until).into_iter().chain(self.tell_at).min()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn remove(&mut self, peer: &PeerId) -> Option<Waiter> {
        let waiter = self.members.remove(peer)?;
        self.ends.remove(&(waiter.until, *peer));
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    fn head(sequence: u64) -> Head {
        Head { sequence, condition: 0 }
    }

    fn peer(seed: u8) -> PeerId {
        libp2p::identity::Keypair::ed25519_from_bytes([seed + 1; 32]).unwrap().public().to_peer_id()
    }

    fn asks(seed: u8, question: u64, sequence: u64) -> Input {
        Input::Asked { peer: peer(seed), question, seen: head(sequence), wait: WAIT }
    }

    #[test]
    fn who_is_behind_is_answered_at_once_and_who_is_not_when_there_is_something() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.handle(now, Input::Moved(head(5)));
        assert_eq!(waiting.handle(now, asks(0, 1, 4)), [Effect::Answer(1)]);
        assert_eq!(waiting.handle(now, asks(0, 2, 5)), []);
        // A burst makes one answer.
        for sequence in 6..100 {
            assert_eq!(waiting.handle(now, Input::Moved(head(sequence))), []);
        }
        assert_eq!(waiting.next_wakeup(), Some(now + GATHER));
        assert_eq!(waiting.handle(now + GATHER, Input::Tick), [Effect::Answer(2)]);
        assert_eq!((waiting.len(), waiting.next_wakeup()), (0, None));
    }

    #[test]
    fn an_empty_answer_comes_when_the_wait_is_over() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        assert_eq!(waiting.handle(now, asks(0, 1, 0)), []);
        assert_eq!(waiting.next_wakeup(), Some(now + WAIT));
        assert_eq!(waiting.handle(now + WAIT, Input::Tick), [Effect::Answer(1)]);
    }

    #[test]
    fn a_second_question_answers_the_first() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.handle(now, asks(0, 1, 0));
        assert_eq!(waiting.handle(now, asks(0, 2, 0)), [Effect::Answer(1)]);
        assert_eq!(waiting.len(), 1);
    }

    #[test]
    fn a_flood_of_followers_is_bounded() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for number in 0..FOLLOWERS_MAX as u64 {
            let asked = Input::Asked { peer: PeerId::random(), question: number, seen: head(0), wait: WAIT };
            assert_eq!(waiting.handle(now, asked), []);
        }
        assert_eq!(waiting.handle(now, asks(0, 9999, 0)), [Effect::Refuse(9999)]);
    }

    proptest! {
        #[test]
        fn every_question_is_answered_once_and_in_time_and_no_news_waits_for_long(
            steps in prop::collection::vec((0_u8..5, any::<bool>(), 0_u64..1500), 1..200),
        ) {
            let mut now = Instant::now();
            let mut waiting = Waiting::default();
            let mut open: BTreeMap<u64, (Instant, u64)> = BTreeMap::new();
            let (mut sequence, mut question) = (0, 0);
            let mut moved = now;
            for (seed, asks_now, wait) in steps {
                // Timers run when they are due.
                let until = now + Duration::from_millis(wait);
                let mut effects = Vec::new();
                while let Some(at) = waiting.next_wakeup().filter(|at| *at <= until) {
                    now = at;
                    effects.extend(waiting.handle(now, Input::Tick));
                    for (asked, seen) in open.values() {
                        prop_assert!(now <= *asked + WAIT && (*seen >= sequence || now <= moved + GATHER));
                    }
                    for effect in effects.drain(..) {
                        let Effect::Answer(answered) = effect else { panic!("refused") };
                        prop_assert!(open.remove(&answered).is_some());
                    }
                }
                now = until;
                if asks_now {
                    question += 1;
                    open.insert(question, (now, sequence));
                    effects.extend(waiting.handle(now, asks(seed, question, sequence)));
                } else {
                    sequence += 1;
                    moved = now;
                    effects.extend(waiting.handle(now, Input::Moved(head(sequence))));
                }
                for effect in effects {
                    let Effect::Answer(answered) = effect else { panic!("refused") };
                    prop_assert!(open.remove(&answered).is_some(), "answered twice");
                }
            }
            let effects = waiting.handle(now + WAIT, Input::Tick);
            for effect in effects {
                let Effect::Answer(answered) = effect else { panic!("refused") };
                prop_assert!(open.remove(&answered).is_some());
            }
            prop_assert!(open.is_empty());
        }
    }
}
