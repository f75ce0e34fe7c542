//! Whether this machine's clock is right, judged by the clocks of the members it meets.
//!
//! Nothing that Quarta orders depends on wall clocks; the validity of credentials does. A machine whose clock is years
//! off refuses everybody, or is refused, for reasons that sound like anything but a clock. So members tell each other
//! their time when they meet, and the middle one of what was told counts as the network's: a few wrong clocks, or a
//! member that lies, do not move it. It serves words for people and nothing else: no credential is accepted on its
//! account. Pure: callers pass both clocks in.

use libp2p::PeerId;
use quarta_protocols::credentials::{CLOCK_SKEW, UnixSeconds};
use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

/// Members whose time is remembered: more add nothing to the middle of them.
const READINGS_MAX: usize = 256;

/// What members said their time is.
#[derive(Debug, Default)]
pub struct Clocks(HashMap<PeerId, (UnixSeconds, Instant)>);

/// How far this machine's clock is off, in seconds; never within the skew that credentials allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    ahead: bool,
    seconds: u64,
}

impl Clocks {
    /// Takes note of a member's time, told at `now`.
    pub fn hear(&mut self, peer: PeerId, told: UnixSeconds, now: Instant) {
        if self.0.len() < READINGS_MAX || self.0.contains_key(&peer) {
            self.0.insert(peer, (told, now));
        }
    }

    /// A member has gone. This machine may sleep before it is back, and its steady clock with it.
    pub fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// The time of the network; none while nobody has told any.
    pub fn network_time(&self, now: Instant) -> Option<UnixSeconds> {
        let passed = |(told, at): &(UnixSeconds, Instant)| told.plus(now.saturating_duration_since(*at));
        let mut times: Vec<UnixSeconds> = self.0.values().map(passed).collect();
        times.sort_unstable();
        times.get(times.len().checked_sub(1)? / 2).copied()
    }

    /// How far `own`, this machine's clock at `now`, is off the network's; none where it is right or nothing is known.
    pub fn off(&self, now: Instant, own: UnixSeconds) -> Option<Offset> {
        Offset::between(own, self.network_time(now)?)
    }
}

impl Offset {
    /// How far `own` is off `right`; none within [`CLOCK_SKEW`].
    pub fn between(own: UnixSeconds, right: UnixSeconds) -> Option<Self> {
        let seconds = own.0.abs_diff(right.0);
        (seconds > CLOCK_SKEW.as_secs()).then_some(Self { ahead: own > right, seconds })
    }
}

/// As in "3 years behind", "2 days ahead of": what follows is whose clock is right.
impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] =
            [(365 * 86_400, "year"), (86_400, "day"), (3600, "hour"), (60, "minute")];
        let (size, unit) = *UNITS.iter().find(|(size, _)| self.seconds >= *size).unwrap_or(&UNITS[3]);
        let count = self.seconds / size;
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} {unit}{plural} {}", if self.ahead { "ahead of" } else { "behind" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn told(times: &[u64], now: Instant) -> Clocks {
        let mut clocks = Clocks::default();
        for time in times {
            clocks.hear(PeerId::random(), UnixSeconds(*time), now);
        }
        clocks
    }

    #[test]
    fn nobody_told_and_a_small_difference_are_no_offset() {
        let now = Instant::now();
        assert_eq!(Clocks::default().off(now, NOW), None);
        assert_eq!(told(&[NOW.0 + CLOCK_SKEW.as_secs()], now).off(now, NOW), None);
    }

    #[test]
    fn the_middle_of_what_was_told_counts_whatever_one_member_claims() {
        let now = Instant::now();
        let clocks = told(&[0, NOW.0 - 3, NOW.0, NOW.0 + 2, u64::MAX], now);
        assert_eq!(clocks.off(now, NOW), None);
        let behind = UnixSeconds(NOW.0 - 3 * 365 * 86_400);
        assert_eq!(clocks.off(now, behind).unwrap().to_string(), "3 years behind");
    }

    #[test]
    fn a_clock_that_is_set_right_is_right_at_once_and_time_passes_for_what_was_told() {
        let start = Instant::now();
        let clocks = told(&[NOW.0], start);
        let later = start + Duration::from_hours(2);
        assert_eq!(clocks.off(later, UnixSeconds(NOW.0 + 7200)), None);
        assert_eq!(clocks.off(later, NOW).unwrap().to_string(), "2 hours behind");
    }

    #[test]
    fn offsets_are_told_in_their_largest_unit() {
        let ahead = |seconds| Offset::between(UnixSeconds(NOW.0 + seconds), NOW).unwrap().to_string();
        assert_eq!(ahead(301), "5 minutes ahead of");
        assert_eq!(ahead(3600), "1 hour ahead of");
        assert_eq!(ahead(86_400 * 364), "364 days ahead of");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_goes_with_the_member() {
        let now = Instant::now();
        let mut clocks = told(&[1; READINGS_MAX + 10], now);
        assert_eq!(clocks.0.len(), READINGS_MAX);
        let peers: Vec<PeerId> = clocks.0.keys().copied().collect();
        for peer in peers {
            clocks.forget(&peer);
        }
        assert_eq!(clocks.network_time(now), None);
    }
}
