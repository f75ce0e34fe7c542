//! Families labelled with the names of members.
//!
//! A branch's name is the one label value that comes from outside, so its number is bounded: the first
//! [`MAX_LABELLED_MEMBERS`] names that a process sees are labels of their own, and all later ones share the
//! label [`OTHER`]. Sums over a family stay right either way. A name keeps its label until the process ends;
//! giving labels back would let counters fall and rise again, which Prometheus reads as new events.
//!
//! The names are shared by all families of a registry, so a branch is told apart in all of them or in none.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use crate::{
    family::{Label, saturated},
    registry::{RegisterError, Registry},
};

/// How many member names one process exposes. Several times the largest organisation Quarta is made for, while
/// the exposition of the widest family, by member and transport, stays near 100 KiB.
pub const MAX_LABELLED_MEMBERS: usize = 512;

/// The label value that all members beyond [`MAX_LABELLED_MEMBERS`] share.
pub const OTHER: &str = "other";

/// The label's name.
const MEMBER: &str = "member";

/// The member names in use as label values, shared by the families of one registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemberNames(Arc<Mutex<HashSet<Box<str>>>>);

impl MemberNames {
    /// The label value for `member`: its name while there is room for it, else [`OTHER`].
    fn label<'a>(&self, member: &'a str) -> &'a str {
        // A panic elsewhere cannot leave a set of names half-changed.
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.contains(member) {
            return member;
        }
        if names.len() >= MAX_LABELLED_MEMBERS {
            return OTHER;
        }
        names.insert(member.into());
        member
    }
}

/// A monotonic count for each member.
#[derive(Clone, Debug)]
pub struct MemberCounter {
    series: IntCounterVec,
    names: MemberNames,
}

impl MemberCounter {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        let opts = Opts::new(registry.name(name), help);
        let series = registry.register(IntCounterVec::new(opts, &[MEMBER])?)?;
        Ok(Self { series, names: registry.members().clone() })
    }

    /// Counts one for `member`.
    pub fn inc(&self, member: &str) {
        self.add(member, 1);
    }

    /// Counts `n` for `member`.
    pub fn add(&self, member: &str, n: u64) {
        self.series.with_label_values(&[self.names.label(member)]).inc_by(n);
    }
}

/// A monotonic count for each member and each value of another label.
#[derive(Clone, Debug)]
pub struct MemberCounterBy<L> {
    series: IntCounterVec,
    names: MemberNames,
    label: PhantomData<L>,
}

impl<L: Label> MemberCounterBy<L> {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        let opts = Opts::new(registry.name(name), help);
        let series = registry.register(IntCounterVec::new(opts, &[MEMBER, L::NAME])?)?;
        Ok(Self { series, names: registry.members().clone(), label: PhantomData })
    }

    /// Counts `n` for `member`.
    pub fn add(&self, member: &str, label: L, n: u64) {
        self.series.with_label_values(&[self.names.label(member), label.value()]).inc_by(n);
    }
}

/// A level for each member, replaced as a whole.
#[derive(Clone, Debug)]
pub struct MemberGauge {
    series: IntGaugeVec,
    names: MemberNames,
    shown: Arc<Mutex<HashSet<Box<str>>>>,
}

impl MemberGauge {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        let opts = Opts::new(registry.name(name), help);
        let series = registry.register(IntGaugeVec::new(opts, &[MEMBER])?)?;
        Ok(Self { series, names: registry.members().clone(), shown: Arc::default() })
    }

    /// Shows these levels, and zero for every member shown before that is not among them.
    ///
    /// The whole is given at once because members beyond the bound share one series: single sets would overwrite
    /// each other there, where this adds them up.
    pub fn replace<'a>(&self, levels: impl IntoIterator<Item = (&'a str, u64)>) {
        let mut sums: HashMap<&str, u64> = HashMap::new();
        for (member, level) in levels {
            let sum = sums.entry(self.names.label(member)).or_default();
            *sum = sum.saturating_add(level);
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.iter().filter(|member| !sums.contains_key(&***member)) {
            self.series.with_label_values(&[&**gone]).set(0);
        }
        for (member, level) in sums {
            self.series.with_label_values(&[member]).set(saturated(level));
            if !shown.contains(member) {
                shown.insert(member.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{network::Transport, registry::Service};

    fn registry() -> Registry {
        Registry::new(Service::Node, "1").unwrap()
    }

    fn fill(names: &MemberNames) {
        for number in 0..MAX_LABELLED_MEMBERS {
            names.label(&format!("branch-{number}"));
        }
    }

    #[test]
    fn members_beyond_the_bound_share_one_label_and_the_sum_stays_right() {
        let registry = registry();
        let bytes = MemberCounter::register(&registry, "bytes_total", "Bytes.").unwrap();
        for number in 0..MAX_LABELLED_MEMBERS + 10 {
            bytes.add(&format!("branch-{number}"), 2);
        }
        bytes.inc("branch-0");
        let text = registry.encode();
        let series: Vec<&str> =
            text.lines().filter(|line| line.starts_with("quarta_node_bytes_total{")).collect();
        assert_eq!(series.len(), MAX_LABELLED_MEMBERS + 1);
        assert!(series.contains(&r#"quarta_node_bytes_total{member="branch-0"} 3"#));
        assert!(series.contains(&r#"quarta_node_bytes_total{member="other"} 20"#));
    }

    #[test]
    fn a_branch_is_told_apart_in_every_family_or_in_none() {
        let registry = registry();
        fill(registry.members());
        let fetched = MemberCounterBy::<Transport>::register(&registry, "fetched_total", "Bytes.").unwrap();
        fetched.add("branch-7", Transport::Quic, 5);
        fetched.add("latecomer", Transport::Tcp, 6);
        let text = registry.encode();
        assert!(text.contains(r#"fetched_total{member="branch-7",transport="quic"} 5"#), "{text}");
        assert!(text.contains(r#"fetched_total{member="other",transport="tcp"} 6"#), "{text}");
        assert!(!text.contains("latecomer"), "{text}");
    }

    #[test]
    fn replaced_levels_add_up_beyond_the_bound_and_fall_to_zero_when_absent() {
        let registry = registry();
        fill(registry.members());
        let leased = MemberGauge::register(&registry, "leased_bytes", "Bytes.").unwrap();
        leased.replace([("branch-1", 10), ("late-a", 3), ("late-b", 4)]);
        assert!(registry.encode().contains("leased_bytes{member=\"other\"} 7\n"));
        leased.replace([("branch-2", 1)]);
        let text = registry.encode();
        assert!(text.contains("leased_bytes{member=\"branch-1\"} 0\n"), "{text}");
        assert!(text.contains("leased_bytes{member=\"branch-2\"} 1\n"), "{text}");
        assert!(text.contains("leased_bytes{member=\"other\"} 0\n"), "{text}");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let registry = registry();
        let bytes = MemberCounter::register(&registry, "bytes_total", "Bytes.").unwrap();
        bytes.inc("evil\"} 1\nquarta_node_forged 1");
        let text = registry.encode();
        assert!(text.contains(r#"{member="evil\"} 1\nquarta_node_forged 1"} 1"#), "{text}");
    }
}
