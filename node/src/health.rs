//! Whether this node is well, in words: what is wrong, and what to do about it.
//!
//! The most fundamental comes first, since much else follows from it: a node whose disk is read-only has a failing
//! database too, and one whose clock is years off reaches nobody. Pure; `crate::service` gathers the [`Facts`].

use std::time::Duration;

use quarta_daemon::{clocks::Offset, disk::Disk};
use quarta_protocols::{credentials::UnixSeconds, network::Refusal};

use crate::library::Defect;

/// How long before its end a credential is warned of.
pub const CREDENTIAL_WARNING: Duration = Duration::from_hours(24);
/// Defective copies that are named.
pub const COPIES_NAMED: usize = 3;

/// What the node knows of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How the disk of the data folder is.
    pub disk: Disk,
    /// Why the database did not take the last write, if it did not.
    pub database: Option<String>,
    /// What is the matter with the number of open files, if anything is.
    pub open_files: Option<String>,
    /// How far this machine's clock is off.
    pub clock: Option<Offset>,
    /// The network's time, or this machine's where that is not known.
    pub now: UnixSeconds,
    /// When the credential ends.
    pub expires: UnixSeconds,
    /// Why the last attempt to renew it failed, if it did.
    pub renewal: Option<String>,
    /// Whether this branch has signed off by itself.
    pub signed_off: bool,
    /// The super-peers.
    pub superpeers: Vec<Superpeer>,
    /// How many copies are not sound.
    pub defective: usize,
    /// The first of them: what is wrong, and the file's path.
    pub named: Vec<(Defect, String)>,
}

/// One super-peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superpeer {
    /// Whether it is connected and has let this node in.
    pub connected: bool,
    /// Why it did not, as far as it said.
    pub refusal: Option<Refusal>,
}

/// What is not as it should be, each as "why; what to do"; nothing where the node is healthy.
pub fn problems(facts: &Facts) -> Vec<String> {
    let clock = facts.clock.map(|offset| {
        format!(
            "this machine's clock is {offset} the network's, so that members refuse each other; set the clock, \
             and run a time service"
        )
    });
    [
        facts.disk.problem(),
        facts.database.as_ref().map(|why| {
            format!("what happens cannot be noted, {why}; see the daemon's log and check the disk of the data folder")
        }),
        facts.open_files.clone(),
        clock,
        credential(facts),
        superpeers(facts),
        copies(facts),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn credential(facts: &Facts) -> Option<String> {
    // It renews when it signs on.
    if facts.signed_off {
        return None;
    }
    let why = facts.renewal.as_deref();
    let next =
        "this node keeps trying; see that a super-peer runs and is reachable, or ask who runs the network";
    if facts.expires <= facts.now {
        let why = why.unwrap_or("no super-peer has renewed it yet");
        return Some(format!(
            "this branch's credential has expired, so that members refuse it: {why}; {next}"
        ));
    }
    let soon = facts.expires <= facts.now.plus(CREDENTIAL_WARNING);
    why.filter(|_| soon).map(|why| {
        format!("this branch's credential expires within a day and could not be renewed: {why}; {next}")
    })
}

fn superpeers(facts: &Facts) -> Option<String> {
    if facts.signed_off || facts.superpeers.iter().any(|superpeer| superpeer.connected) {
        return None;
    }
    // What was found out already needs no second explanation.
    if facts.clock.is_some() || facts.expires <= facts.now {
        return None;
    }
    let refusal = facts.superpeers.iter().find_map(|superpeer| superpeer.refusal);
    Some(match refusal {
        None => "no super-peer is reachable, and this node keeps trying; see that this machine is connected and that a \
                 super-peer runs"
            .to_owned(),
        Some(refusal @ (Refusal::Expired | Refusal::NotYetValid)) => format!(
            "no super-peer lets this branch in: {refusal} by the super-peer's clock and not by this machine's; compare \
             the clocks of both"
        ),
        Some(refusal @ Refusal::Left) => {
            format!("no super-peer lets this branch in: {refusal}; run `quarta leave --yes` to end it here too")
        }
        Some(refusal @ Refusal::IssuerRevoked) => format!(
            "no super-peer lets this branch in: {refusal}; this node keeps asking for a new one, or ask who runs the \
             network"
        ),
        Some(refusal @ Refusal::Revoked) => {
            format!("no super-peer lets this branch in: {refusal}; ask who runs the network")
        }
        Some(refusal) => format!(
            "no super-peer lets this branch in: {refusal}; see that this data folder belongs to that network, or ask \
             who runs it"
        ),
    })
}

fn copies(facts: &Facts) -> Option<String> {
    let next = "share a file of your own that you changed with `quarta update`; put others back and run `quarta verify`, \
        or fetch them with `quarta get`";
    let named: Vec<String> =
        facts.named.iter().map(|(defect, path)| format!("{path} is {}", in_words(*defect))).collect();
    let more = facts.defective.checked_sub(named.len()).filter(|more| *more > 0);
    let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
    (facts.defective > 0).then(|| {
        format!(
            "files of the library are not what was shared, and are offered to nobody: {}{more}; {next}",
            named.join(", ")
        )
    })
}

const fn in_words(defect: Defect) -> &'static str {
    match defect {
        Defect::Changed => "changed",
        Defect::Missing => "not there any more",
        Defect::Unreadable => "not readable",
        Defect::Damaged => "damaged by its disk",
    }
}

#[cfg(test)]
mod tests {
    use quarta_daemon::disk::LOW_SPACE_BYTES;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn well() -> Facts {
        Facts {
            disk: Disk::Writable { free_bytes: LOW_SPACE_BYTES },
            database: None,
            open_files: None,
            clock: None,
            now: NOW,
            expires: NOW.plus(Duration::from_hours(25)),
            renewal: None,
            signed_off: false,
            superpeers: vec![
                Superpeer { connected: false, refusal: None },
                Superpeer { connected: true, refusal: None },
            ],
            defective: 0,
            named: Vec::new(),
        }
    }

    fn only(facts: &Facts) -> String {
        let mut problems = problems(facts);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = problems.remove(0);
        assert!(problem.contains("; "), "what to do: {problem}");
        problem
    }

    fn alone(refusal: Option<Refusal>) -> Facts {
        Facts { superpeers: vec![Superpeer { connected: false, refusal }], ..well() }
    }

    #[test]
    fn a_node_with_one_super_peer_and_room_is_healthy() {
        assert_eq!(problems(&well()), [] as [&str; 0]);
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_with_what_to_do() {
        let low = Facts { disk: Disk::Writable { free_bytes: 3 << 20 }, ..well() };
        assert!(only(&low).contains("only 3.0 MiB are free"));
        assert!(only(&Facts { disk: Disk::ReadOnly, ..well() }).contains("cannot be written"));
        let failing = Facts { database: Some("the database failed: the disk is full".into()), ..well() };
        assert!(only(&failing).contains("the disk is full"));
        assert!(only(&Facts { expires: NOW, ..well() }).contains("has expired"));
        let unrenewed =
            Facts { expires: NOW.plus(CREDENTIAL_WARNING), renewal: Some("no answer".into()), ..well() };
        assert!(only(&unrenewed).contains("within a day and could not be renewed: no answer"));
        assert!(only(&alone(None)).contains("no super-peer is reachable"));
        assert!(only(&alone(Some(Refusal::Revoked))).contains("revoked"));
        assert!(only(&alone(Some(Refusal::Left))).contains("quarta leave --yes"));
        assert!(only(&alone(Some(Refusal::IssuerRevoked))).contains("keeps asking"));
        assert!(only(&alone(Some(Refusal::Expired))).contains("compare the clocks"));
    }

    #[test]
    fn a_credential_that_is_about_to_be_renewed_and_a_branch_that_has_signed_off_are_no_problems() {
        let soon = Facts { expires: NOW.plus(Duration::from_mins(20)), ..well() };
        assert_eq!(problems(&soon), [] as [&str; 0]);
        let off = Facts { signed_off: true, expires: NOW, ..alone(None) };
        assert_eq!(problems(&off), [] as [&str; 0]);
    }

    #[test]
    fn a_wrong_clock_is_told_as_that_and_not_as_its_consequences() {
        let ahead = Offset::between(NOW.plus(Duration::from_hours(24 * 800)), NOW);
        let facts = Facts { clock: ahead, ..alone(Some(Refusal::Expired)) };
        assert!(only(&facts).contains("this machine's clock is 2 years ahead of the network's"));
    }

    #[test]
    fn of_many_defective_copies_the_first_few_are_named() {
        let named = vec![(Defect::Changed, "/l/a.csv".to_owned()), (Defect::Missing, "/l/b.csv".to_owned())];
        let problem = only(&Facts { defective: 9, named, ..well() });
        assert!(
            problem.contains("/l/a.csv is changed, /l/b.csv is not there any more and 7 more; share"),
            "{problem}"
        );
    }
}
