//! How long many requests took.

use std::fmt;
use std::time::Duration;

/// Durations in order.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Of requests, in any order.
    pub fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self(durations)
    }

    /// All of them, the shortest first.
    pub fn iter(&self) -> impl Iterator<Item = Duration> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The shortest duration that at least `per_cent` of them do not exceed (nearest rank); zero where there is none.
    pub fn percentile(&self, per_cent: u32) -> Duration {
        let rank = (self.0.len() * per_cent as usize).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |per_cent| self.percentile(per_cent).as_secs_f64() * 1e3;
        write!(
            f,
            "median {:6.1} ms   p95 {:6.1} ms   p99 {:6.1} ms   longest {:6.1} ms   ({})",
            ms(50),
            ms(95),
            ms(99),
            ms(100),
            self.count()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let latencies = Latencies::of((1..=200).rev().map(Duration::from_millis).collect());
        let of = |per_cent| latencies.percentile(per_cent).as_millis();
        assert_eq!((of(50), of(95), of(99), of(100)), (100, 190, 198, 200));
        assert_eq!(Latencies::default().percentile(95), Duration::ZERO);
        assert_eq!(Latencies::of(vec![Duration::from_millis(7)]).percentile(1), Duration::from_millis(7));
    }
}
