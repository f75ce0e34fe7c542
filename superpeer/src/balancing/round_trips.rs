//! A member's round trip: the shortest of its last few pings.
//!
//! What delays a ping beside the way is the machine at either end, for a moment and in one direction only: no ping comes
//! back too early. The shortest of several is therefore the way itself, and a holder whose machine was busy for one ping
//! is not taken for a far one. A way that has become longer shows after [`REMEMBERED`] pings. For the same reason a holder
//! counts as near until [`TELLING`] pings say otherwise: the first is made while the connection is still being set up.

use std::time::Duration;

/// Pings remembered. At one in 5 s, a changed way shows within 20 s.
pub(super) const REMEMBERED: usize = 4;
/// Pings before anything is said: 10 s after a holder has come.
const TELLING: usize = 3;
/// Round trips above this are taken for this.
const LONGEST: Duration = Duration::from_secs(5);

/// The last round trips, in no order.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    last: [Option<Duration>; REMEMBERED],
    next: usize,
}

impl RoundTrips {
    pub(super) fn add(&mut self, round_trip: Duration) {
        self.last[self.next] = Some(round_trip.min(LONGEST));
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// None while too few pings have been made.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let told = self.last.iter().flatten();
        if told.clone().count() < TELLING { None } else { told.min().copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_slow_ping_does_not_count_and_a_longer_way_counts_once_every_ping_shows_it() {
        let mut round_trips = RoundTrips::default();
        for millis in [900, 1] {
            assert_eq!(round_trips.shortest(), None);
            round_trips.add(Duration::from_millis(millis));
        }
        assert_eq!(round_trips.shortest(), None, "the way cannot be told from what delayed them yet");
        round_trips.add(Duration::from_millis(700));
        assert_eq!(round_trips.shortest(), Some(Duration::from_millis(1)));
        for _ in 0..REMEMBERED {
            round_trips.add(Duration::from_mins(1));
        }
        assert_eq!(round_trips.shortest(), Some(LONGEST));
    }
}
