//! How fast a source is: bytes over the time in which it had something to send.

use std::time::{Duration, Instant};

/// Over which time a measurement fades to about a third: long enough to even out chunks that arrive in bursts, short
/// enough to follow a line that slows down.
const FADES_OVER: Duration = Duration::from_secs(2);
/// How much time a first guess weighs against measurements.
const GUESS_WEIGHS: Duration = Duration::from_millis(50);

/// A faded mean of bytes a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    bytes: f64,
    seconds: f64,
}

impl Rate {
    /// Begins with a guess, in bytes a second.
    pub(super) fn guess(bytes_per_second: f64) -> Self {
        let seconds = GUESS_WEIGHS.as_secs_f64();
        Self { bytes: bytes_per_second * seconds, seconds }
    }

    /// Takes note of bytes that arrived over some time.
    pub(super) fn measured(&mut self, bytes: u64, over: Duration) {
        let fade = (-over.as_secs_f64() / FADES_OVER.as_secs_f64()).exp();
        self.bytes = self.bytes * fade + bytes as f64;
        self.seconds = self.seconds * fade + over.as_secs_f64();
    }

    /// In bytes a second, taking into account that nothing has arrived for `silence`. Above zero.
    pub(super) fn after(&self, silence: Duration) -> f64 {
        (self.bytes / (self.seconds + silence.as_secs_f64())).max(1.0)
    }
}

/// The time between two instants that may have come in the wrong order.
pub(super) fn between(earlier: Instant, later: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_source_is_measured_right_whatever_the_guess_and_silence_lowers_it() {
        for guess in [1.0, 1e9] {
            let mut rate = Rate::guess(guess);
            (0..80).for_each(|_| rate.measured(262_144, Duration::from_millis(250)));
            let measured = rate.after(Duration::ZERO);
            assert!((measured / 1_048_576.0 - 1.0).abs() < 0.01, "{measured}");
            assert!(rate.after(Duration::from_secs(8)) < measured / 4.0);
        }
    }
}
