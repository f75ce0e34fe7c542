//! What goes wrong, how often, and how often it has.

use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom};

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The network is split in two halves.
    Partition,
    /// One machine does not hear another, which hears it.
    OneWayCut,
    /// A letter gets lost.
    Lost,
    /// A letter arrives twice.
    Duplicated,
    /// A letter overtakes another.
    Reordered,
    /// A super-peer's process dies.
    SuperpeerCrash,
    /// A super-peer's process dies after it has stored something and before it answers.
    CrashBeforeAnswer,
    /// A member's process dies.
    MemberCrash,
    /// A super-peer loses its disk and comes back with an old backup.
    RestoredBackup,
    /// A clock jumps by minutes to weeks.
    ClockJump,
    /// A clock is years off.
    ClockYearsOff,
    /// Everything stands still for days.
    LongSilence,
    /// Somebody sends an old record again.
    Replay,
    /// Somebody sends what it may not, or what is signed by nobody who may.
    Forgery,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Partition,
        Self::OneWayCut,
        Self::Lost,
        Self::Duplicated,
        Self::Reordered,
        Self::SuperpeerCrash,
        Self::CrashBeforeAnswer,
        Self::MemberCrash,
        Self::RestoredBackup,
        Self::ClockJump,
        Self::ClockYearsOff,
        Self::LongSilence,
        Self::Replay,
        Self::Forgery,
    ];

    /// How often it happens in a hundred steps, of a schedule that has it. Those of letters are in a hundred letters.
    const fn per_hundred(self) -> f64 {
        match self {
            Self::OneWayCut | Self::RestoredBackup | Self::ClockYearsOff => 0.7,
            Self::Lost => 6.0,
            Self::Duplicated => 5.0,
            Self::Reordered => 50.0,
            Self::Partition | Self::SuperpeerCrash | Self::CrashBeforeAnswer | Self::MemberCrash => 1.5,
            Self::ClockJump => 1.0,
            Self::LongSilence => 0.4,
            Self::Replay => 3.0,
            Self::Forgery => 4.0,
        }
    }
}

/// How often each fault has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Counts {
    /// One more.
    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often it happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Adds those of another schedule.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

/// What can go wrong in one schedule.
///
/// Each schedule has some of the faults only, and those more or less often: where everything goes wrong all the time,
/// nothing gets far enough to go wrong in an interesting way (Groce et al., *Swarm Testing*, 2012).
#[derive(Debug)]
pub struct Weather {
    per_hundred: [f64; Fault::ALL.len()],
}

impl Weather {
    /// Nothing goes wrong any more.
    pub const CALM: Self = Self { per_hundred: [0.0; Fault::ALL.len()] };

    /// Draws a schedule's weather.
    pub fn draw(rng: &mut SmallRng) -> Self {
        let per_hundred = Fault::ALL.map(|fault| {
            let often = [0.0, 0.5, 1.0, 1.0, 2.0].choose(rng).copied().unwrap_or(1.0);
            fault.per_hundred() * often
        });
        Self { per_hundred }
    }

    /// Whether it happens now.
    pub fn strikes(&self, fault: Fault, rng: &mut SmallRng) -> bool {
        rng.random_bool(self.per_hundred[fault as usize] / 100.0)
    }
}
