//! What all members of a cluster tell Prometheus at one moment, and what changed between two of them.

use crate::cluster::{Cluster, ClusterError, Member};
use crate::exposition::{Exposition, Sample};
use crate::record::{Bucket, MetricChange, Polls};
use futures::future::join_all;
use quarta_daemon::Role;
use std::collections::{BTreeMap, BTreeSet};

/// What says how a process is and not what the network did; other parts of a record show it.
const PROCESS: &str = "process_";
const POLLS: &str = "quarta_superpeer_polls_total";
const POLL_DURATION: &str = "quarta_superpeer_poll_duration_seconds";
const OFFERED: &str = "quarta_superpeer_sources_offered_total";

/// Every running member's metrics.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    members: Vec<Told>,
}

/// What a member told.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// As it wrote it.
    pub text: String,
    /// As it was read.
    pub exposition: Exposition,
}

impl Snapshot {
    /// Asks every member.
    ///
    /// # Errors
    /// [`ClusterError`] with the first that does not answer, or not with an exposition.
    pub async fn take(cluster: &Cluster) -> Result<Self, ClusterError> {
        let members =
            join_all(cluster.members().iter().map(told)).await.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { members })
    }

    /// Asks every member that runs, and leaves out those that do not answer.
    pub async fn of_those_that_answer(cluster: &Cluster) -> Self {
        let running = cluster.members().iter().filter(|member| member.pid().is_some());
        Self { members: join_all(running.map(told)).await.into_iter().flatten().collect() }
    }

    /// What the members told.
    pub fn members(&self) -> &[Told] {
        &self.members
    }

    /// What a member told.
    pub fn member(&self, name: &str) -> Option<&Exposition> {
        self.members.iter().find(|told| told.name == name).map(|told| &told.exposition)
    }

    /// What the super-peers told.
    pub fn superpeers(&self) -> impl Iterator<Item = &Exposition> {
        self.members.iter().filter(|told| told.role == Role::Superpeer).map(|told| &told.exposition)
    }

    /// How often the super-peers named each of `nodes` as a source.
    pub fn offered(&self, nodes: &[String]) -> BTreeMap<String, u64> {
        let times =
            |node: &String| self.superpeers().map(|told| told.sum_where(OFFERED, "member", node)).sum();
        nodes.iter().map(|node| (node.clone(), count(times(node)))).collect()
    }

    /// What the super-peers' polls took.
    pub fn polls(&self) -> Vec<Polls> {
        let superpeers = self.members.iter().filter(|told| told.role == Role::Superpeer);
        superpeers.map(|told| polls(&told.name, &told.exposition)).collect()
    }

    /// The families that are not the same in both, by member. Buckets of histograms are left out: their sum and count
    /// tell what changed.
    pub fn changes(before: &Self, after: &Self) -> Vec<MetricChange> {
        let names: BTreeSet<(&str, bool)> = before
            .members
            .iter()
            .chain(&after.members)
            .map(|told| (told.name.as_str(), told.role == Role::Node))
            .collect();
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(_, node)| *node);
        let mut changes = Vec::new();
        for (name, _) in names {
            let (then, now) = (before.sums(name), after.sums(name));
            let families: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
            for family in families {
                let (before, after) = (then.get(family).copied(), now.get(family).copied());
                if before != after {
                    let (member, family) = (name.to_owned(), family.clone());
                    changes.push(MetricChange { member, family, before, after });
                }
            }
        }
        changes
    }

    fn sums(&self, name: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.member(name).into_iter().flat_map(Exposition::samples) {
            if !sample.name.ends_with("_bucket") && !sample.name.starts_with(PROCESS) {
                *sums.entry(sample.name.clone()).or_default() += sample.value;
            }
        }
        sums
    }
}

async fn told(member: &Member) -> Result<Told, ClusterError> {
    let text = member.scrape("/metrics").await?;
    let exposition = Exposition::parse(&text).map_err(|error| ClusterError::Http {
        member: member.name().to_owned(),
        path: "/metrics",
        why: error.to_string(),
    })?;
    Ok(Told { name: member.name().to_owned(), role: member.role(), text, exposition })
}

fn polls(superpeer: &str, told: &Exposition) -> Polls {
    let sum = |suffix| told.sum(&format!("{POLL_DURATION}_{suffix}")).unwrap_or_default();
    let answered = sum("count");
    // Buckets are cumulative; a histogram with labels has one for each of them.
    let mut cumulative: Vec<(f64, f64)> = Vec::new();
    for Sample { labels, value, .. } in told.family(&format!("{POLL_DURATION}_bucket")) {
        let Some(bound) = labels.get("le").and_then(|bound| bound.parse::<f64>().ok()) else { continue };
        match cumulative.iter_mut().find(|(other, _)| other.total_cmp(&bound).is_eq()) {
            Some((_, count)) => *count += value,
            None => cumulative.push((bound, *value)),
        }
    }
    cumulative.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut below = 0.0;
    let buckets = cumulative
        .into_iter()
        .map(|(bound, value)| {
            let bucket =
                Bucket { up_to_seconds: bound.is_finite().then_some(bound), count: count(value - below) };
            below = value;
            bucket
        })
        .collect();
    Polls {
        superpeer: superpeer.to_owned(),
        answered: count(answered),
        missed: count(told.sum_where(POLLS, "outcome", "missed")),
        mean_seconds: (answered > 0.0).then(|| sum("sum") / answered),
        buckets,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are not negative; `as` saturates"
)]
fn count(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(members: &[(&str, Role, &str)]) -> Snapshot {
        let told = |(name, role, text): &(&str, Role, &str)| Told {
            name: (*name).to_owned(),
            role: *role,
            text: (*text).to_owned(),
            exposition: Exposition::parse(text).unwrap(),
        };
        Snapshot { members: members.iter().map(told).collect() }
    }

    #[test]
    fn only_what_changed_is_told_and_a_member_that_came_or_went_too() {
        let before = snapshot(&[
            ("a", Role::Node, "x_total{l=\"1\"} 1\nx_total{l=\"2\"} 2\nsame 5\nprocess_threads 3\n"),
            ("gone", Role::Node, "y_total 4\n"),
        ]);
        let after = snapshot(&[
            ("a", Role::Node, "x_total{l=\"1\"} 1\nx_total{l=\"2\"} 6\nsame 5\nprocess_threads 9\n"),
            ("p", Role::Superpeer, "z_total 1\n"),
        ]);
        let told: Vec<_> = Snapshot::changes(&before, &after)
            .into_iter()
            .map(|change| (change.member, change.family, change.before, change.after))
            .collect();
        let change =
            |member: &str, family: &str, before, after| (member.to_owned(), family.to_owned(), before, after);
        assert_eq!(
            told,
            [
                change("p", "z_total", None, Some(1.0)),
                change("a", "x_total", Some(3.0), Some(7.0)),
                change("gone", "y_total", Some(4.0), None),
            ]
        );
    }

    #[test]
    fn polls_are_told_by_how_long_they_took() {
        let text = "quarta_superpeer_poll_duration_seconds_bucket{le=\"0.01\"} 4\n\
            quarta_superpeer_poll_duration_seconds_bucket{le=\"0.1\"} 6\n\
            quarta_superpeer_poll_duration_seconds_bucket{le=\"+Inf\"} 7\n\
            quarta_superpeer_poll_duration_seconds_sum 3.5\nquarta_superpeer_poll_duration_seconds_count 7\n\
            quarta_superpeer_polls_total{outcome=\"answered\"} 7\nquarta_superpeer_polls_total{outcome=\"missed\"} 2\n";
        let polls = snapshot(&[("p", Role::Superpeer, text), ("n", Role::Node, text)]).polls();
        assert_eq!(polls.len(), 1);
        assert_eq!((polls[0].answered, polls[0].missed, polls[0].mean_seconds), (7, 2, Some(0.5)));
        let buckets: Vec<_> = polls[0].buckets.iter().map(|b| (b.up_to_seconds, b.count)).collect();
        assert_eq!(buckets, [(Some(0.01), 4), (Some(0.1), 2), (None, 1)]);
    }
}
