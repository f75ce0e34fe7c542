//! A hybrid logical clock: close to wall time, never behind anything it has seen.
//!
//! Stamps need an order that respects cause and effect even where machines' clocks do not agree. A [`HybridTime`] is
//! the wall clock in milliseconds where that moves forward, and a counter where it does not (Kulkarni et al., *Logical
//! Physical Clocks*, 2014). A far-off remote time is not followed beyond [`DRIFT_MAX_MS`], so that one machine with a
//! wrong clock cannot drag the others along. No merge depends on it.

use serde::{Deserialize, Serialize};

/// How far ahead of the own wall clock a remote time is followed.
pub const DRIFT_MAX_MS: u64 = 10 * 60 * 1000;

/// A moment: milliseconds since 1970 UTC, then a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct HybridTime {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    pub millis: u64,
    /// Tells apart moments of one millisecond.
    pub counter: u32,
}

/// The clock's state: the latest moment given out or seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct HybridClock {
    latest: HybridTime,
}

impl HybridClock {
    /// A clock that continues after `latest`, e.g. the last stamp in the database.
    pub const fn after(latest: HybridTime) -> Self {
        Self { latest }
    }

    /// A new moment, later than all given out or seen before.
    pub fn tick(&mut self, wall_ms: u64) -> HybridTime {
        self.latest = if wall_ms > self.latest.millis {
            HybridTime { millis: wall_ms, counter: 0 }
        } else {
            next(self.latest)
        };
        self.latest
    }

    /// Takes note of a moment seen on another machine.
    pub fn observe(&mut self, seen: HybridTime, wall_ms: u64) {
        if seen.millis <= wall_ms.saturating_add(DRIFT_MAX_MS) {
            self.latest = self.latest.max(seen);
        }
    }
}

const fn next(time: HybridTime) -> HybridTime {
    match time.counter.checked_add(1) {
        Some(counter) => HybridTime { millis: time.millis, counter },
        None => HybridTime { millis: time.millis.saturating_add(1), counter: 0 },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moments_only_move_forward_whatever_the_wall_clock_does(walls in prop::collection::vec(any::<u64>(), 1..50)) {
            let mut clock = HybridClock::default();
            let mut before = HybridTime::default();
            for wall in walls {
                let now = clock.tick(wall.min(u64::MAX - 1));
                prop_assert!(now > before);
                before = now;
            }
        }
    }

    #[test]
    fn what_follows_an_observed_moment_is_later_than_it() {
        let mut clock = HybridClock::default();
        let seen = HybridTime { millis: 5_000, counter: 9 };
        clock.observe(seen, 4_000);
        assert!(clock.tick(4_001) > seen);
    }

    #[test]
    fn a_clock_years_ahead_is_not_followed() {
        let mut clock = HybridClock::default();
        clock.observe(HybridTime { millis: 1_000 + DRIFT_MAX_MS + 1, counter: 0 }, 1_000);
        assert_eq!(clock.tick(1_000).millis, 1_000);
    }
}
