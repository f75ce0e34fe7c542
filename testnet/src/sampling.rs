//! Looking at a running cluster at regular times: what its members use and move, and who is seen by the super-peers.
//!
//! **What is guaranteed.** A member that does not answer delays nobody else's figures and leaves a gap in its own, never
//! a guess. Memory is bounded for any length of run: [`Samples`] thins itself out.
//!
//! Memory and processor time come from `/proc`, at the system's own resolution and without asking the member. Bytes come
//! from its status, which counts while a transfer is under way; what it tells Prometheus of fetches counts at their end.

use crate::api::NodeApi;
use crate::cluster::{Cluster, Lives, Member};
use crate::record::samples::{Look, Samples};
use crate::record::{SIGHTINGS_MAX, Sighting};
use futures::future::join_all;
use quarta_daemon::Role;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often it is looked: short enough to see a transfer of seconds rise and fall, and a fraction of a per cent of a
/// core for each member.
const EVERY: Duration = Duration::from_millis(500);
/// How long a member may take to answer; a frozen one must not take the others' turn.
const ANSWER_DEADLINE: Duration = Duration::from_millis(400);

/// Looks at a cluster until it is finished or dropped.
#[derive(Debug)]
pub struct Sampler {
    seen: Arc<Mutex<Observed>>,
    task: JoinHandle<()>,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// What members used and moved.
    pub samples: Samples,
    /// How members stood at a super-peer: every change, up to [`SIGHTINGS_MAX`].
    pub sightings: Vec<Sighting>,
}

/// How one member is looked at.
struct Subject {
    name: String,
    /// None for a super-peer, through which no file passes.
    node: Option<NodeApi>,
}

impl Sampler {
    /// Begins to look at `cluster`'s members; times are counted from `clock`.
    pub fn start(cluster: &Cluster, clock: Instant) -> Self {
        let seen = Arc::default();
        let task = tokio::spawn(look_on(cluster, clock, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// The sightings from the `from`th on.
    pub fn sightings(&self, from: usize) -> Vec<Sighting> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.sightings.get(from..).map(<[Sighting]>::to_vec).unwrap_or_default()
    }

    /// Stops looking, and answers what was seen.
    pub fn finish(self) -> Observed {
        self.task.abort();
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns what it needs of the cluster, which others change meanwhile.
fn look_on(
    cluster: &Cluster,
    clock: Instant,
    seen: Arc<Mutex<Observed>>,
) -> impl Future<Output = ()> + Send + use<> {
    let lives = cluster.lives();
    let subjects: Vec<Subject> = cluster.members().iter().map(Subject::of).collect();
    let superpeers: Vec<_> = cluster.superpeers().map(Member::superpeer).collect();
    let mut states: BTreeMap<String, String> = BTreeMap::new();
    async move {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let at_seconds = clock.elapsed().as_secs_f64();
            let looks = join_all(subjects.iter().map(|subject| subject.look(&lives))).await;
            let mut listed = None;
            for superpeer in &superpeers {
                if let Ok(Ok(members)) = tokio::time::timeout(ANSWER_DEADLINE, superpeer.members()).await {
                    listed = Some((superpeer.member(), members));
                    break;
                }
            }
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.samples.push(at_seconds, looks);
            let Some((seen_by, members)) = listed else { continue };
            for member in members {
                let before = states.insert(member.name.clone(), member.state.clone());
                if before.as_ref() != Some(&member.state) && seen.sightings.len() < SIGHTINGS_MAX {
                    let (member, state, seen_by) = (member.name, member.state, seen_by.to_owned());
                    seen.sightings.push(Sighting { at_seconds, member, state, seen_by });
                }
            }
        }
    }
}

impl Subject {
    fn of(member: &Member) -> Self {
        let node = (member.role() == Role::Node).then(|| member.node());
        Self { name: member.name().to_owned(), node }
    }

    /// What can be said of it now.
    async fn look(&self, lives: &Lives) -> (String, Look) {
        let mut look = Look::default();
        if let Some(pid) = lives.pid(&self.name) {
            (look.rss_bytes, look.cpu_seconds) = (resident_bytes(pid), processor_seconds(pid));
            if let Some(node) = &self.node {
                let status = tokio::time::timeout(ANSWER_DEADLINE, node.status()).await;
                look.sent_bytes = status.ok().and_then(Result::ok).map(|status| status.served_bytes);
            }
        }
        (self.name.clone(), look)
    }
}

/// A process's resident memory, in bytes: the second field of `statm`, in pages.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// A process's user and system time since its start, in seconds.
pub(crate) fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    seconds(&stat, OWN_TIMES)
}

/// The user and system time, in seconds, of all children of this process that have ended.
pub(crate) fn children_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    seconds(&stat, CHILDRENS_TIMES).unwrap_or_default()
}

/// Where in `stat` a process's own user and system time stand, as proc(5) counts fields.
const OWN_TIMES: usize = 14;
/// Where those of its children stand that it has waited for.
const CHILDRENS_TIMES: usize = 16;

fn seconds(stat: &str, field: usize) -> Option<f64> {
    ticks(stat, field).map(|ticks| ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The sum of this field of `stat` and the next. The second is the program's name, which may hold spaces and
/// parentheses.
fn ticks(stat: &str, field: usize) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(field - 3);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_past_a_hostile_program_name() {
        let stat = "7 (a) R 1 (x) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 0 0 20 0 1 0 99 1 1";
        assert_eq!(ticks(stat, OWN_TIMES), Some(281));
        assert_eq!(ticks(stat, CHILDRENS_TIMES), Some(0));
        assert_eq!(ticks("7 (a", OWN_TIMES), None);
    }

    #[test]
    fn this_process_uses_memory_and_a_process_that_is_not_there_is_a_gap() {
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
        assert!(processor_seconds(std::process::id()).is_some());
        assert_eq!((resident_bytes(u32::MAX), processor_seconds(u32::MAX)), (None, None));
    }
}
