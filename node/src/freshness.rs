//! Whether this node knows enough of what its owners have withdrawn to serve its library. Pure.
//!
//! A node that was off may hold what was restricted or deleted meanwhile, and would hand it out to whoever asks. So it
//! serves nothing until it has read a super-peer's feed to its end, which takes a moment; and nothing for at most
//! [`WITHIN`] where no super-peer answers, since with all of them down files are still to be had. A node that has lost all
//! super-peers goes on, and catches up when one is back: no rule can tell it what nobody can tell it.

use std::time::{Duration, Instant};

/// How long a node waits for the news before it serves without: longer than connecting and reading the feed take by far, and
/// a pause that people bear where no super-peer is there at all.
pub const WITHIN: Duration = Duration::from_secs(10);
/// How long it may have been without any super-peer and still need no news first: what was withdrawn in less is told as
/// soon as it would have been anyway.
pub const MISSED_MAX: Duration = Duration::from_secs(2);

/// How far this node's knowledge goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Since when it has been behind; none while it is not.
    behind: Option<Instant>,
    /// Since when no super-peer has been connected.
    alone: Option<Instant>,
}

impl Freshness {
    /// A node that has just started knows what it knew before.
    pub const fn started(now: Instant) -> Self {
        Self { behind: Some(now), alone: Some(now) }
    }

    /// A super-peer is connected.
    pub fn connected(&mut self, now: Instant) {
        let missed = self.alone.take().is_some_and(|since| now.saturating_duration_since(since) > MISSED_MAX);
        if missed && self.behind.is_none() {
            self.behind = Some(now);
        }
    }

    /// None is connected any more.
    pub fn alone(&mut self, now: Instant) {
        self.alone.get_or_insert(now);
    }

    /// A super-peer's feed was read to its end.
    pub const fn caught_up(&mut self) {
        self.behind = None;
    }

    /// How much longer nothing is served, if no news comes; none where it is served.
    pub fn waits(&self, now: Instant) -> Option<Duration> {
        let waited = now.saturating_duration_since(self.behind?);
        WITHIN.checked_sub(waited).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_starts_serves_when_it_has_caught_up_or_after_a_bounded_time() {
        let start = Instant::now();
        let mut freshness = Freshness::started(start);
        assert_eq!(freshness.waits(start), Some(WITHIN));
        freshness.connected(start + Duration::from_secs(1));
        assert_eq!(
            freshness.waits(start + Duration::from_secs(1)),
            WITHIN.checked_sub(Duration::from_secs(1))
        );
        let mut without = freshness;
        assert_eq!(without.waits(start + WITHIN), None, "with nobody to ask");
        without.connected(start + WITHIN);
        freshness.caught_up();
        assert_eq!(freshness.waits(start + Duration::from_secs(1)), None);
    }

    #[test]
    fn one_that_was_without_super_peers_catches_up_first_and_one_that_missed_nothing_need_not() {
        let start = Instant::now();
        let mut freshness = Freshness::started(start);
        freshness.connected(start);
        freshness.caught_up();
        freshness.alone(start);
        assert_eq!(freshness.waits(start + Duration::from_hours(1)), None, "it goes on alone");
        let mut short = freshness;
        short.connected(start + MISSED_MAX);
        assert_eq!(short.waits(start + MISSED_MAX), None);
        let back = start + Duration::from_hours(1);
        freshness.connected(back);
        assert_eq!(freshness.waits(back), Some(WITHIN));
        freshness.connected(back + Duration::from_secs(1));
        assert_eq!(
            freshness.waits(back + Duration::from_secs(2)),
            WITHIN.checked_sub(Duration::from_secs(2))
        );
    }
}
