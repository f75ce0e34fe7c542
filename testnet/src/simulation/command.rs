//! `quarta-testnet simulate`: runs a seed's schedule and tells its story, or runs many and tells of the first that fails.

use std::time::Instant;

use quarta_daemon::cli::{ExitCode, Failure, Output, note};

use super::{STEPS, Schedule, faults::Fault, run_all};

/// Failing schedules after which a run of many ends: the first is of interest, the others are seldom about another bug.
const FAILURES_MAX: usize = 3;

/// What to simulate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The first seed.
    pub seed: u64,
    /// How many seeds from there on.
    pub schedules: u64,
    /// Steps of each schedule; [`STEPS`] where nothing is said.
    pub steps: Option<usize>,
}

/// Runs the schedules; fails where a promise is broken.
///
/// # Errors
/// A [`Failure`] that names the seed to replay.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    let Options { seed, schedules, steps } = options;
    let steps = steps.unwrap_or(STEPS);
    let failing = if schedules == 1 {
        Some(Schedule { steps, ..Schedule::of(seed) })
    } else {
        let started = Instant::now();
        let summary = run_all(seed..seed.saturating_add(schedules), steps, None, FAILURES_MAX);
        let per_second = summary.schedules as f64 / started.elapsed().as_secs_f64();
        print(&format!("{} schedules, {per_second:.0} a second", summary.schedules))?;
        for fault in Fault::ALL {
            print(&format!("{:>9}  {fault:?}", summary.counts.of(fault)))?;
        }
        for (schedule, violation) in &summary.failures {
            print(&format!("seed {}: {violation}", schedule.seed))?;
        }
        summary.failures.first().map(|(schedule, _)| {
            note("looking for the shortest beginning of the schedule that fails");
            schedule.shrink()
        })
    };
    let Some(schedule) = failing else { return Ok(ExitCode::Success) };
    let outcome = schedule.tell();
    for line in &outcome.story {
        print(line)?;
    }
    match outcome.violation {
        None => Ok(ExitCode::Success),
        Some(violation) => Err(Failure::new(
            "a promise is broken",
            violation.to_string(),
            format!("replay it: quarta-testnet simulate --seed {} --steps {}", schedule.seed, schedule.steps),
        )),
    }
}

fn print(line: &str) -> Result<(), Failure> {
    Output::stdout(false).line(&(), line)
}
