//! The node's upload limit, shared by all its uploads.
//!
//! A token bucket that may go into debt: every chunk is charged when it asks, in the order of asking, and waits until
//! its debt is paid. So the bytes that have left never exceed the rate by more than the burst, whatever the size of a
//! chunk, and uploads share the limit by turns.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much may leave at once after a pause: small, so that any ten seconds stay within one per cent of the rate.
pub const BURST: Duration = Duration::from_millis(100);

/// The pure core: how long to wait before so many bytes may leave.
#[derive(Debug, Clone)]
pub struct Bucket {
    bytes_per_second: u64,
    /// When everything charged so far is paid for.
    paid: Instant,
}

impl Bucket {
    /// A full bucket. A rate of 0 counts as 1 byte per second.
    pub fn new(now: Instant, bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid: now.checked_sub(BURST).unwrap_or(now) }
    }

    /// Charges `bytes` and says how long to wait before they may leave.
    pub fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        // A pause earns no more than one burst.
        let earned = now.checked_sub(BURST).unwrap_or(now);
        let from = self.paid.max(earned);
        self.paid = from.checked_add(cost).unwrap_or(from);
        self.paid.saturating_duration_since(now)
    }

    /// How long it takes until everything charged so far is paid for.
    pub fn owed(&self, now: Instant) -> Duration {
        self.paid.saturating_duration_since(now)
    }
}

/// The shell around a [`Bucket`]: waits on the runtime's timer.
#[derive(Debug)]
pub struct Throttle(Mutex<Bucket>);

impl Throttle {
    /// A limit of so many bytes per second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self(Mutex::new(Bucket::new(Instant::now(), bytes_per_second)))
    }

    /// Returns when `bytes` may leave. Dropping the future keeps the bytes charged.
    pub async fn pass(&self, bytes: usize) {
        let wait = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_a_pause_one_burst_leaves_at_once_and_no_more() {
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
    }

    proptest! {
        #[test]
        fn ten_seconds_of_uploads_are_within_five_per_cent_of_the_rate(
            rate in 10_000_000u64..1_000_000_000, uploads in 1usize..8, chunk in 1_000usize..262_160,
        ) {
            let start = Instant::now();
            let mut bucket = Bucket::new(start, rate);
            // Each upload asks again as soon as its chunk has left.
            let mut next = vec![start; uploads];
            let mut sent = 0u64;
            let end = start + Duration::from_secs(10);
            loop {
                let upload = next.iter_mut().min().unwrap();
                let leaves = *upload + bucket.take(*upload, chunk);
                if leaves > end {
                    break;
                }
                *upload = leaves;
                sent += chunk as u64;
            }
            let ideal = rate * 10;
            prop_assert!(sent.abs_diff(ideal) * 100 <= ideal * 5, "{sent} of {ideal}");
        }
    }
}
