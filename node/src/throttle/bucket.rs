//! How fast bytes may go: a token bucket that goes into debt.
//!
//! Every piece is charged when it asks, and goes when its debt is paid. So what has gone never exceeds the rate by more
//! than [`BURST`], whatever the size of the pieces, and a piece that is larger than the burst needs no special case. The
//! rate may change at any time: what was charged before is then paid at the new one.

use std::time::{Duration, Instant};

/// How much may go at once after a pause: small, so that any ten seconds stay within one per cent of the rate.
pub const BURST: Duration = Duration::from_millis(100);

/// Debts are counted in billionths of a byte: at any rate a nanosecond pays a whole number of them.
const NANOS: u128 = 1_000_000_000;

/// The pure core: how long to wait before so many bytes may go.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes_per_second: u64,
    /// Up to when time has been counted.
    at: Instant,
    /// What time has paid for, ever.
    paid: u128,
    /// What has been charged, ever.
    charged: u128,
}

/// When something charged is paid for, whatever the rate will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due(u128);

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1 byte per second.
    pub fn new(now: Instant, bytes_per_second: u64) -> Self {
        let mut bucket = Self { bytes_per_second: bytes_per_second.max(1), at: now, paid: 0, charged: 0 };
        bucket.paid = bucket.burst();
        bucket
    }

    /// From now on this rate. A rate of 0 counts as 1 byte per second.
    pub fn set_rate(&mut self, now: Instant, bytes_per_second: u64) {
        self.settle(now);
        self.bytes_per_second = bytes_per_second.max(1);
    }

    /// Charges `bytes` and says when they are paid for.
    pub fn charge(&mut self, now: Instant, bytes: usize) -> Due {
        self.settle(now);
        self.charged = self.charged.saturating_add(bytes as u128 * NANOS);
        Due(self.charged)
    }

    /// How long it takes until that is paid for, at the present rate.
    pub fn wait(&self, now: Instant, due: Due) -> Duration {
        let paid = self.paid.saturating_add(self.earned(now));
        let nanos = due.0.saturating_sub(paid).div_ceil(u128::from(self.bytes_per_second));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Charges `bytes` and says how long to wait before they may go.
    pub fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let due = self.charge(now, bytes);
        self.wait(now, due)
    }

    /// How long it takes until everything charged so far is paid for.
    pub fn owed(&self, now: Instant) -> Duration {
        self.wait(now, Due(self.charged))
    }

    fn burst(&self) -> u128 {
        u128::from(self.bytes_per_second) * BURST.as_nanos()
    }

    /// What the time since it was counted pays.
    fn earned(&self, now: Instant) -> u128 {
        let elapsed = now.saturating_duration_since(self.at);
        elapsed.as_nanos().saturating_mul(u128::from(self.bytes_per_second))
    }

    /// Counts the time up to now. A pause earns no more than one burst.
    fn settle(&mut self, now: Instant) {
        let paid = self.paid.saturating_add(self.earned(now));
        self.paid = paid.min(self.charged.saturating_add(self.burst()));
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_one_burst_goes_at_once_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 1_000_000);
        let later = start + Duration::from_mins(1);
        assert_eq!(bucket.take(later, 100_000), Duration::ZERO);
        assert_eq!(bucket.take(later, 50_000), Duration::from_millis(50));
    }

    #[test]
    fn a_rate_of_zero_and_an_endless_debt_are_no_panic() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now, 0);
        bucket.take(now, usize::MAX);
        bucket.take(now, usize::MAX);
        bucket.set_rate(now + Duration::from_hours(1 << 20), u64::MAX);
        bucket.take(now, usize::MAX);
    }

    #[test]
    fn a_debt_is_paid_at_the_rate_that_holds_by_then() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 1_000);
        let due = bucket.charge(start, 10_100);
        assert_eq!(bucket.wait(start, due), Duration::from_secs(10));
        let later = start + Duration::from_secs(4);
        bucket.set_rate(later, 6_000);
        assert_eq!(bucket.wait(later, due), Duration::from_secs(1));
        assert_eq!(bucket.owed(later), Duration::from_secs(1));
    }
}
