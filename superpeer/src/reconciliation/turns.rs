//! Whose turn it is: a super-peer walks with one other at a time.
//!
//! After a partition several super-peers lack the same entries of each other. Were all pairs to compare at once, each of
//! these entries would come from every side; one after the other, the second finds that the first has brought them.
//! Whoever asks out of turn hears that this one is busy and asks again soon. A turn that was begun and not ended runs
//! out by itself.

use std::time::{Duration, Instant};

use libp2p::PeerId;

/// How long a turn lasts after the last request in it: merging a page takes less, also on a slow disk.
pub const TURN: Duration = Duration::from_secs(3);

/// Whose turn it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Turns {
    /// Whether a session of this super-peer's own is under way.
    own: bool,
    /// Which other one compares with this one, and when it last asked.
    other: Option<(PeerId, Instant)>,
}

impl Turns {
    /// Whether this super-peer may begin a session now; it then has the turn until [`Self::ended`].
    pub fn begin(&mut self, now: Instant) -> bool {
        let free = !self.own && self.holder(now).is_none();
        self.own |= free;
        free
    }

    /// The own session has ended.
    pub const fn ended(&mut self) {
        self.own = false;
    }

    /// Whether to answer another super-peer that asks on its walk; it then has the turn.
    pub fn asked(&mut self, by: PeerId, now: Instant) -> bool {
        let free = !self.own && self.holder(now).is_none_or(|holder| holder == by);
        if free {
            self.other = Some((by, now));
        }
        free
    }

    /// Another super-peer compares roots, as at the beginning and the end of its turn.
    pub fn compared(&mut self, by: PeerId) {
        self.other = self.other.filter(|(holder, _)| *holder != by);
    }

    fn holder(&self, now: Instant) -> Option<PeerId> {
        self.other.filter(|(_, at)| now.saturating_duration_since(*at) < TURN).map(|(holder, _)| holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_wait_until_the_one_whose_turn_it_is_has_ended_it_or_is_gone() {
        let (a, b, now) = (PeerId::random(), PeerId::random(), Instant::now());
        let mut turns = Turns::default();
        assert!(turns.asked(a, now) && turns.asked(a, now));
        assert!(!turns.asked(b, now) && !turns.begin(now));
        turns.compared(b);
        assert!(!turns.asked(b, now), "another's comparison ends nothing");
        turns.compared(a);
        assert!(turns.asked(b, now));
        assert!(!turns.asked(a, now + TURN / 2));
        assert!(turns.asked(a, now + TURN), "it broke off");
    }

    #[test]
    fn an_own_session_is_a_turn_too() {
        let (a, now) = (PeerId::random(), Instant::now());
        let mut turns = Turns::default();
        assert!(turns.begin(now));
        assert!(!turns.begin(now) && !turns.asked(a, now));
        turns.ended();
        assert!(turns.asked(a, now));
    }
}
