//! A whole network in one thread, under everything that can go wrong, by the thousand.
//!
//! A *schedule* is some hundreds of steps drawn from a seed: letters are delivered late, twice, out of order or never;
//! the network splits and heals; processes die at the worst moment; disks are replaced by old backups; clocks are ten
//! years off; adversaries send what they should not. What runs under it is what runs in production: the super-peer's
//! catalog, admission, reconciliation and feed, the node's database and follower, over real signatures. Only the
//! shells around them, sockets and tasks, are replaced by [`network::Network`] and a loop. So a violation is a bug that
//! users could meet, and its seed is a recipe: the same seed gives the same schedule, step by step.
//!
//! [`checks::Truth`] watches. At the end everything heals, clocks are set right, and after some quiet time all must
//! agree. [`sabotage::Sabotage`] builds in bugs on purpose, to see that such are found.
//!
//! In reading order: [`cast`], [`clock`], [`network`], [`faults`]; [`superpeer`], [`member`], [`adversary`];
//! [`world`], where it all comes together; [`checks`], [`sabotage`], [`story`]; [`command`].

pub mod adversary;
pub mod cast;
pub mod checks;
pub mod clock;
pub mod command;
pub mod faults;
pub mod member;
pub mod network;
pub mod sabotage;
pub mod story;
pub mod superpeer;
pub mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use self::{checks::Violation, faults::Counts, sabotage::Sabotage, story::Story, world::World};

/// Steps of a schedule, where nothing else is asked for.
pub const STEPS: usize = 200;

/// Which schedule, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// What everything in it is drawn from.
    pub seed: u64,
    /// How many steps before everything heals.
    pub steps: usize,
    /// A bug built in on purpose.
    pub sabotage: Option<Sabotage>,
}

/// How a schedule went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How often each fault happened.
    pub counts: Counts,
    /// The rule that was broken first, if any.
    pub violation: Option<Violation>,
    /// What happened, where it was to be told.
    pub story: Vec<String>,
}

/// What many schedules came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Schedules that were run.
    pub schedules: u64,
    /// How often each fault happened in all.
    pub counts: Counts,
    /// The failing schedules, lowest seed first.
    pub failures: Vec<(Schedule, Violation)>,
}

impl Schedule {
    /// The usual schedule of a seed.
    pub const fn of(seed: u64) -> Self {
        Self { seed, steps: STEPS, sabotage: None }
    }

    /// Runs it.
    pub fn run(self) -> Outcome {
        World::new(self, Story::untold()).run()
    }

    /// Runs it and tells what happens.
    pub fn tell(self) -> Outcome {
        World::new(self, Story::told()).run()
    }

    /// The shortest beginning of this schedule that breaks a rule too, found by running ever fewer steps.
    ///
    /// A schedule's first steps do not depend on how many follow, so the shorter one is a prefix of the longer.
    #[must_use]
    pub fn shrink(self) -> Self {
        // Not all shorter ones fail: the search need not find the very shortest, but what it finds does fail.
        let (mut fails, mut holds) = (self.steps, 0);
        while fails - holds > 1 {
            let steps = usize::midpoint(holds, fails);
            if (Self { steps, ..self }).run().violation.is_some() {
                fails = steps;
            } else {
                holds = steps;
            }
        }
        Self { steps: fails, ..self }
    }
}

/// Runs the schedules of these seeds on all cores; ends early once `failures_max` have failed.
pub fn run_all(
    seeds: std::ops::Range<u64>,
    steps: usize,
    sabotage: Option<Sabotage>,
    failures_max: usize,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        let mut summary = Summary::default();
        while failed.load(Ordering::Relaxed) < failures_max as u64 {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let schedule = Schedule { seed, steps, sabotage };
            let outcome = schedule.run();
            summary.schedules += 1;
            summary.counts.add(&outcome.counts);
            if let Some(violation) = outcome.violation {
                failed.fetch_add(1, Ordering::Relaxed);
                summary.failures.push((schedule, violation));
            }
        }
        summary
    };
    let mut all = Summary::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let summary = worker.join().expect("a schedule ends without a panic");
            all.schedules += summary.schedules;
            all.counts.add(&summary.counts);
            all.failures.extend(summary.failures);
        }
    });
    all.failures.sort_by_key(|(schedule, _)| schedule.seed);
    all
}
