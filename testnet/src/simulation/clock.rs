//! Time as it is, and as each machine's clock shows it.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use quarta_protocols::credentials::UnixSeconds;
use rand::{RngExt, rngs::SmallRng};

use super::cast::START_MS;

/// Ten years, in milliseconds: how far a clock is off at worst.
pub const TEN_YEARS_MS: i64 = 3653 * 24 * 3600 * 1000;

/// True time: moves forward, and no machine can read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    since_start_ms: u64,
}

/// A machine's clock: true time and how far it is off.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    off_ms: i64,
}

impl Moment {
    /// When every schedule begins.
    pub const START: Self = Self { since_start_ms: 0 };

    /// That much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self { since_start_ms: self.since_start_ms.saturating_add(millis) }
    }

    /// The same for those parts that measure by a clock that only moves forward.
    pub fn instant(self) -> Instant {
        static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
        *BEGINNING + self.elapsed()
    }

    /// How long the schedule has run.
    pub const fn elapsed(self) -> Duration {
        Duration::from_millis(self.since_start_ms)
    }
}

impl Clock {
    /// What the clock shows, in milliseconds since 1970.
    pub fn wall_ms(self, now: Moment) -> u64 {
        (START_MS + now.since_start_ms).saturating_add_signed(self.off_ms)
    }

    /// What the clock shows, in seconds since 1970.
    pub fn wall(self, now: Moment) -> UnixSeconds {
        UnixSeconds(self.wall_ms(now) / 1000)
    }

    /// Jumps by minutes, hours or weeks, forwards or backwards.
    pub fn jump(&mut self, rng: &mut SmallRng) -> Duration {
        const UNITS_MS: [i64; 3] = [60_000, 3_600_000, 7 * 24 * 3_600_000];
        let unit = UNITS_MS[rng.random_range(0..UNITS_MS.len())];
        self.set(rng.random_range(-3 * unit..=3 * unit))
    }

    /// Is years off, up to ten, forwards or backwards.
    pub fn fall_out(&mut self, rng: &mut SmallRng) -> Duration {
        let years = rng.random_range(TEN_YEARS_MS / 10..=TEN_YEARS_MS);
        self.set(if rng.random_bool(0.5) { years } else { -years })
    }

    /// Somebody sets it right.
    pub fn correct(&mut self) {
        self.off_ms = 0;
    }

    fn set(&mut self, off_ms: i64) -> Duration {
        self.off_ms = off_ms;
        Duration::from_millis(off_ms.unsigned_abs())
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.since_start_ms / 1000;
        let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
        write!(f, "{days}d {hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60)
    }
}
