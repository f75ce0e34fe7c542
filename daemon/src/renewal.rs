//! When a member renews its credential.
//!
//! What is guaranteed, with [`Schedule::handle`] called at [`Schedule::next_wakeup`]:
//!
//! - It renews when half of the credential's life is over, spread over the following eighth, so that the members of a
//!   network that was set up in one afternoon do not all come in one afternoon again.
//! - It renews at once when its clock says that the credential is over, or when a member refuses it for that.
//! - A failed attempt is repeated: after a minute at first and an hour at last while there is time, ever sooner as the
//!   end draws near, and every few seconds once the credential is of no use any more.
//! - Whatever the clock does, and whatever refusals come in, it renews at most every minute, and at most every hour where
//!   that does not help: a wrong clock, here or elsewhere, must not become a load on the network.
//!
//! Two clocks are needed. Validity is a matter of the wall clock, which people and daemons set back and forth; waits are
//! counted on the steady one, and the wall clock is looked at anew every [`LOOK_EVERY`], so that a jump is noticed within
//! that time. Pure: callers pass both in.

use quarta_protocols::credentials::{Membership, UnixSeconds};
use std::time::{Duration, Instant};

/// How often the wall clock is looked at: it may have jumped.
pub const LOOK_EVERY: Duration = Duration::from_mins(1);
/// First and longest wait after a failure while the credential is good.
pub const RETRY: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// First and longest wait after a failure while it is not: the member is cut off until it succeeds.
pub const RETRY_CUT_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Shortest and longest time from one renewal to the next.
pub const SPACING: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// A renewal that follows the one before within this time shows that renewing does not help.
const IN_VAIN_WITHIN: Duration = Duration::from_hours(2);
/// The part of its life, in eighths, after which a credential is renewed, and over which members are spread.
const RENEW_AFTER_EIGHTHS: u64 = 4;

/// From when to when a credential is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From when.
    pub issued: UnixSeconds,
    /// Until when.
    pub expires: UnixSeconds,
}

impl From<&Membership> for Validity {
    fn from(membership: &Membership) -> Self {
        Self { issued: membership.issued, expires: membership.expires }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Nothing but time.
    Tick,
    /// A member did not accept the credential, for a reason that a new one would remove.
    Refused,
    /// The attempt has brought a new credential.
    Renewed(Validity),
    /// The attempt has brought none.
    Failed,
}

/// When to renew.
#[derive(Debug)]
pub struct Schedule {
    validity: Validity,
    seed: u64,
    attempt: Attempt,
    /// Whether the present credential was refused.
    refused: bool,
    renewed: Option<Instant>,
    /// How often in a row renewing did not help.
    in_vain: u32,
}

#[derive(Debug, Clone, Copy)]
enum Attempt {
    None,
    UnderWay { failures: u32 },
    Failed { failures: u32, at: Instant },
}

impl Schedule {
    /// The schedule for a credential. `seed` spreads members: any number that differs between them.
    pub const fn new(validity: Validity, seed: u64) -> Self {
        Self { validity, seed, attempt: Attempt::None, refused: false, renewed: None, in_vain: 0 }
    }

    /// Takes note of what happened; whether an attempt is to be made now. Its outcome is to be told as
    /// [`Input::Renewed`] or [`Input::Failed`]; there is never a second one before.
    #[must_use]
    pub fn handle(&mut self, now: Instant, clock: UnixSeconds, input: Input) -> bool {
        match input {
            Input::Tick => {}
            Input::Refused => self.refused = true,
            Input::Renewed(validity) => {
                let last = self.renewed.replace(now);
                let again = last.is_some_and(|last| now.saturating_duration_since(last) < IN_VAIN_WITHIN);
                self.in_vain = if again { self.in_vain.saturating_add(1) } else { 0 };
                self.validity = validity;
                self.refused = false;
                self.attempt = Attempt::None;
            }
            Input::Failed => {
                if let Attempt::UnderWay { failures } = self.attempt {
                    self.attempt = Attempt::Failed { failures: failures.saturating_add(1), at: now };
                }
            }
        }
        let failures = match self.attempt {
            Attempt::UnderWay { .. } => return false,
            Attempt::None => 0,
            Attempt::Failed { failures, .. } => failures,
        };
        let due = self.is_wanted(clock) && self.may_begin(clock).is_none_or(|at| now >= at);
        if due {
            self.attempt = Attempt::UnderWay { failures };
        }
        due
    }

    /// When [`Input::Tick`] is next needed; none while an attempt is under way.
    pub fn next_wakeup(&self, now: Instant, clock: UnixSeconds) -> Option<Instant> {
        if matches!(self.attempt, Attempt::UnderWay { .. }) {
            return None;
        }
        let at = if self.is_wanted(clock) {
            self.may_begin(clock).unwrap_or(now)
        } else {
            now + Duration::from_secs(self.renew_at().0.saturating_sub(clock.0)).min(LOOK_EVERY)
        };
        Some(at.clamp(now, now + LOOK_EVERY))
    }

    /// How many attempts in a row have failed.
    pub const fn failures(&self) -> u32 {
        match self.attempt {
            Attempt::None => 0,
            Attempt::UnderWay { failures } | Attempt::Failed { failures, .. } => failures,
        }
    }

    fn renew_at(&self) -> UnixSeconds {
        let life = self.validity.expires.0.saturating_sub(self.validity.issued.0);
        let spread = (life / 8).max(1);
        let after = life / 8 * RENEW_AFTER_EIGHTHS + mixed(self.seed) % spread;
        UnixSeconds(self.validity.issued.0.saturating_add(after))
    }

    fn is_wanted(&self, clock: UnixSeconds) -> bool {
        self.refused || clock >= self.renew_at()
    }

    /// Before when no attempt is made; none where nothing stands against it.
    fn may_begin(&self, clock: UnixSeconds) -> Option<Instant> {
        let spaced = self.renewed.map(|renewed| renewed + doubled(SPACING, self.in_vain));
        let retried = match self.attempt {
            Attempt::Failed { failures, at } => Some(at + self.wait_after(failures, clock)),
            Attempt::None | Attempt::UnderWay { .. } => None,
        };
        spaced.max(retried)
    }

    /// Depends on the clock as it is now and not as it was at the failure, so that a jump shortens the wait.
    fn wait_after(&self, failures: u32, clock: UnixSeconds) -> Duration {
        let cut_off = self.refused || clock >= self.validity.expires;
        let wait = if cut_off {
            doubled(RETRY_CUT_OFF, failures.saturating_sub(1))
        } else {
            let left = Duration::from_secs(self.validity.expires.0.saturating_sub(clock.0));
            doubled(RETRY, failures.saturating_sub(1)).min((left / 8).max(RETRY_CUT_OFF.1))
        };
        wait.mul_f64(0.8 + 0.4 * (mixed(self.seed ^ u64::from(failures)) % 1000) as f64 / 1000.0)
    }
}

fn doubled((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX)).min(longest)
}

/// Spreads neighbouring numbers (the finaliser of `SplitMix64`).
const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: UnixSeconds = UnixSeconds(1_800_000_000);
    const FORTNIGHT: Duration = Duration::from_hours(14 * 24);

    /// A member whose wall clock is `start` plus what has passed, plus whatever it was set by.
    struct World {
        schedule: Schedule,
        begun: Instant,
        now: Instant,
        set_by: i64,
        life: Duration,
        answers: bool,
        attempts: u32,
        renewals: u32,
    }

    impl World {
        fn new(life: Duration, seed: u64) -> Self {
            let begun = Instant::now();
            let validity = Validity { issued: START, expires: START.plus(life) };
            let schedule = Schedule::new(validity, seed);
            Self { schedule, begun, now: begun, set_by: 0, life, answers: true, attempts: 0, renewals: 0 }
        }

        fn true_time(&self) -> UnixSeconds {
            START.plus(self.now - self.begun)
        }

        fn clock(&self) -> UnixSeconds {
            UnixSeconds(self.true_time().0.saturating_add_signed(self.set_by))
        }

        fn input(&mut self, input: Input) {
            if !self.schedule.handle(self.now, self.clock(), input) {
                return;
            }
            assert_eq!(self.schedule.next_wakeup(self.now, self.clock()), None);
            assert!(!self.schedule.handle(self.now, self.clock(), Input::Tick), "one at a time");
            self.attempts += 1;
            let issued = self.true_time();
            let outcome = if self.answers {
                self.renewals += 1;
                Input::Renewed(Validity { issued, expires: issued.plus(self.life) })
            } else {
                Input::Failed
            };
            assert!(!self.schedule.handle(self.now, self.clock(), outcome), "not twice in a moment");
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while let Some(at) = self.schedule.next_wakeup(self.now, self.clock()).filter(|at| *at <= end) {
                assert!(at >= self.now && at <= self.now + LOOK_EVERY);
                // A schedule that wakes without doing anything must at least let time pass.
                let (before, attempts) = (self.now, self.attempts);
                self.now = at;
                self.input(Input::Tick);
                assert!(self.now > before || self.attempts > attempts, "it spins");
            }
            self.now = end;
        }

        fn is_valid(&self) -> bool {
            let validity = self.schedule.validity;
            (validity.issued..validity.expires).contains(&self.true_time())
        }
    }

    #[test]
    fn a_credential_is_renewed_in_the_eighth_after_half_of_its_life_by_each_member_at_its_own_time() {
        let mut times = Vec::new();
        for seed in 0..50 {
            let mut world = World::new(FORTNIGHT, seed);
            world.run(FORTNIGHT.mul_f64(0.4999));
            assert_eq!(world.attempts, 0);
            while world.attempts == 0 {
                world.run(LOOK_EVERY);
            }
            times.push(world.now - world.begun);
        }
        assert!(times.iter().all(|time| *time <= FORTNIGHT / 8 * 5 + LOOK_EVERY));
        times.sort_unstable();
        times.dedup();
        assert!(times.len() > 45, "{} different times", times.len());
    }

    #[test]
    fn a_member_that_comes_back_after_its_credential_ran_out_renews_at_once() {
        let mut world = World::new(FORTNIGHT, 1);
        world.now += FORTNIGHT * 2;
        world.input(Input::Tick);
        assert_eq!(world.renewals, 1);
        assert!(world.is_valid());
    }

    #[test]
    fn a_refusal_is_reason_enough_whatever_the_own_clock_says() {
        let mut world = World::new(FORTNIGHT, 1);
        world.input(Input::Tick);
        assert_eq!(world.attempts, 0);
        world.input(Input::Refused);
        assert_eq!(world.renewals, 1);
    }

    #[test]
    fn failures_are_repeated_slowly_while_there_is_time_and_every_few_seconds_when_there_is_none() {
        let mut world = World::new(FORTNIGHT, 1);
        world.answers = false;
        world.run(FORTNIGHT / 8 * 5);
        assert!(world.attempts > 0);
        let before = world.attempts;
        world.run(Duration::from_hours(24));
        assert!((18..=32).contains(&(world.attempts - before)), "{} in a day", world.attempts - before);
        world.run(FORTNIGHT / 8 * 3);
        let before = world.attempts;
        world.run(Duration::from_mins(10));
        assert!((15..=40).contains(&(world.attempts - before)), "{} in 10 minutes", world.attempts - before);
        world.answers = true;
        world.run(RETRY_CUT_OFF.1 * 2);
        assert!(world.is_valid(), "back within a minute of the super-peer");
    }

    #[test]
    fn refusals_that_a_new_credential_does_not_end_do_not_become_a_load() {
        let mut world = World::new(FORTNIGHT, 1);
        for _ in 0..24 * 360 {
            world.input(Input::Refused);
            world.run(Duration::from_secs(10));
        }
        assert!(world.renewals <= 6 + 24, "{} renewals in a day", world.renewals);
    }

    #[test]
    fn a_clock_years_ahead_neither_spins_nor_floods() {
        let mut world = World::new(FORTNIGHT, 1);
        world.set_by = 10 * 365 * 86_400;
        world.run(Duration::from_hours(24));
        assert!((1..=30).contains(&world.renewals), "{} renewals in a day", world.renewals);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Jumps of years back and forth, and a super-peer that answers now and then: afterwards, with the clock right
        /// and an answer to be had, the credential is good again soon, and stays so.
        #[test]
        fn whatever_the_clock_did_a_member_whose_clock_is_right_again_has_a_good_credential(
            seed in any::<u64>(),
            life_hours in 1u64..336,
            happenings in prop::collection::vec(
                (-400_000_000i64..400_000_000, any::<bool>(), any::<bool>(), 1u64..200_000), 0..12),
        ) {
            let life = Duration::from_hours(life_hours);
            let mut world = World::new(life, seed);
            for (set_by, answers, refused, wait) in happenings {
                (world.set_by, world.answers) = (set_by, answers);
                if refused {
                    world.input(Input::Refused);
                }
                let (attempts, time) = (world.attempts, Duration::from_secs(wait));
                world.run(time);
                let most = time.as_secs() / 20 + 12;
                prop_assert!(u64::from(world.attempts - attempts) <= most, "a flood");
            }
            (world.set_by, world.answers) = (0, true);
            // The longest spacing after renewals in vain.
            world.run(SPACING.1 + LOOK_EVERY);
            prop_assert!(world.is_valid());
            for _ in 0..7 {
                world.run(life / 5);
                prop_assert!(world.is_valid());
            }
        }
    }
}
