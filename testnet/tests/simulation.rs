//! Ten thousand schedules of a network under faults; and bugs built in on purpose, each of which they find.

use std::time::Instant;

use quarta_testnet::simulation::{STEPS, Schedule, checks::Rule, faults::Fault, run_all, sabotage::Sabotage};

/// Schedules in one run of the tests. `quarta-testnet simulate --schedules N` runs others.
const SCHEDULES: u64 = 10_000;
/// Least number of times that each fault happens in them.
const EACH_FAULT: u64 = 1_000;
/// Seeds within which each of the bugs must be found.
const SEEDS_PER_BUG: u64 = 3_000;

#[test]
fn nothing_that_was_promised_is_broken_under_any_schedule() {
    let started = Instant::now();
    let summary = run_all(0..SCHEDULES, STEPS, None, 1);
    if let Some((schedule, violation)) = summary.failures.first() {
        let shortest = schedule.shrink();
        panic!(
            "seed {} breaks a promise: {violation}\n{}\nreplay: quarta-testnet simulate --seed {} --steps {}",
            schedule.seed,
            shortest.tell().story.join("\n"),
            shortest.seed,
            shortest.steps
        );
    }
    assert_eq!(summary.schedules, SCHEDULES);
    for fault in Fault::ALL {
        let times = summary.counts.of(fault);
        eprintln!("{times:>9}  {fault:?}");
        assert!(times >= EACH_FAULT, "{fault:?} happened {times} times only");
    }
    eprintln!("{SCHEDULES} schedules in {:?}", started.elapsed());
}

#[test]
fn a_seed_gives_the_same_schedule_each_time() {
    for seed in 0..4 {
        assert_eq!(Schedule::of(seed).tell().story, Schedule::of(seed).tell().story);
    }
}

/// Runs schedules with a bug until one of these rules is broken, which must be soon.
fn is_found(sabotage: Sabotage, rules: &[Rule]) {
    let summary = run_all(0..SEEDS_PER_BUG, STEPS, Some(sabotage), 1);
    let Some((schedule, violation)) = summary.failures.first() else {
        panic!("{SEEDS_PER_BUG} schedules did not find {sabotage:?}");
    };
    eprintln!("{sabotage:?}: found by seed {}: {violation}", schedule.seed);
    assert!(rules.contains(&violation.rule), "{sabotage:?} was found by another rule: {violation}");
}

#[test]
fn a_super_peer_that_acknowledges_before_it_has_stored_is_found() {
    is_found(Sabotage::AcknowledgesBeforeStoring, &[Rule::NothingLost]);
}

#[test]
fn a_cursor_of_one_super_peer_that_another_takes_for_its_own_is_found() {
    is_found(Sabotage::OneCursorForAll, &[Rule::Converge]);
}

#[test]
fn a_super_peer_that_forgets_the_uses_of_invites_in_a_crash_is_found() {
    is_found(Sabotage::ForgetsInviteUses, &[Rule::InvitesAreUsedUp]);
}

#[test]
fn a_reconciliation_that_skips_a_branch_is_found() {
    // Whoever lacks a branch may also believe that it has caught up.
    is_found(Sabotage::SkipsABranch, &[Rule::Converge, Rule::ReconciledFirst]);
}

#[test]
fn a_member_that_keeps_what_arrived_last_is_found() {
    is_found(Sabotage::LastArrivalWins, &[Rule::OnlyForward, Rule::Converge]);
}

#[test]
fn a_super_peer_that_believes_every_sender_to_be_one_is_found() {
    is_found(Sabotage::BelievesEverySender, &[Rule::NothingInvalid]);
}

#[test]
fn a_super_peer_that_goes_on_answering_the_ended_is_found() {
    is_found(Sabotage::AnswersTheEnded, &[Rule::NoneOfTheEnded]);
}

#[test]
fn a_super_peer_that_admits_before_it_has_reconciled_is_found() {
    is_found(Sabotage::AdmitsBeforeReconciling, &[Rule::ReconciledFirst, Rule::InvitesAreUsedUp]);
}

#[test]
fn a_super_peer_that_shows_what_is_hidden_is_found() {
    is_found(Sabotage::ShowsTheHidden, &[Rule::NoneOfTheListed]);
}

#[test]
fn a_super_peer_that_lists_what_is_hidden_is_found() {
    is_found(Sabotage::ListsTheHidden, &[Rule::NoneOfTheListed]);
}

#[test]
fn a_member_that_keeps_what_is_hidden_from_it_is_found() {
    is_found(Sabotage::KeepsTheHidden, &[Rule::Converge]);
}
