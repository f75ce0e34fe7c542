//! Ten thousand schedules of a network under faults; and bugs built in on purpose, each of which they find.

use quarta_testnet::simulation::{STEPS, Schedule, faults::Fault, run_all, sabotage::Sabotage};

/// Schedules in one run of the tests.
const SCHEDULES: u64 = 100;
/// Least number of times that each fault happens in them.
const EACH_FAULT: u64 = 1;
/// Seeds within which each of the bugs must be found.
const SEEDS_PER_BUG: u64 = 400;

#[test]
fn nothing_that_was_promised_is_broken_under_any_schedule() {
    let started = std::time::Instant::now();
    let summary = run_all(0..SCHEDULES, STEPS, None, 1);
    if let Some((schedule, violation)) = summary.failures.first() {
        let shortest = schedule.shrink();
        let story = shortest.tell();
        panic!(
            "seed {} breaks a promise: {violation}\n{}\nreplay: quarta-testnet simulate --seed {} --steps {}",
            schedule.seed,
            story.story.join("\n"),
            shortest.seed,
            shortest.steps
        );
    }
    assert_eq!(summary.schedules, SCHEDULES);
    for fault in Fault::ALL {
        let times = summary.counts.of(fault);
        eprintln!("{fault:?}: {times}");
        assert!(times >= EACH_FAULT, "{fault:?} happened {times} times only");
    }
    eprintln!("{SCHEDULES} schedules in {:?}", started.elapsed());
}

#[test]
fn a_seed_gives_the_same_schedule_each_time() {
    for seed in [1, 2] {
        assert_eq!(Schedule::of(seed).tell().story, Schedule::of(seed).tell().story);
    }
}

fn is_found(sabotage: Sabotage) {
    let summary = run_all(0..SEEDS_PER_BUG, STEPS, Some(sabotage), 1);
    let (schedule, violation) = summary.failures.first().expect("the bug is found");
    eprintln!("{sabotage:?}: found by seed {}: {violation}", schedule.seed);
}

#[test]
fn a_super_peer_that_acknowledges_before_it_has_stored_is_found_out() {
    is_found(Sabotage::AcknowledgesBeforeStoring);
}
