//! When which member's process ran, kept beyond the processes and the cluster, for whoever tells the story afterwards.

use crate::process::Ending;
use quarta_daemon::Role;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// All lives of a cluster's members, in the order in which they began. Clones tell of the same cluster.
#[derive(Debug, Clone, Default)]
pub struct Lives(Arc<Mutex<Vec<Life>>>);

/// One run of a member's process.
#[derive(Debug, Clone)]
pub struct Life {
    /// The member's name.
    pub member: String,
    /// What it is.
    pub role: Role,
    /// The process id, which is the process's own until it has ended.
    pub pid: u32,
    /// When it was started.
    pub began: Instant,
    /// How and when it ended.
    pub ending: Ending,
}

impl Lives {
    /// A member's process has been started.
    pub(super) fn began(&self, member: &str, role: Role, pid: u32, ending: Ending) {
        let life = Life { member: member.to_owned(), role, pid, began: Instant::now(), ending };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(life);
    }

    /// All of them so far.
    pub fn all(&self) -> Vec<Life> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The process id of a member that runs.
    pub fn pid(&self, member: &str) -> Option<u32> {
        let lives = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lives
            .iter()
            .rev()
            .find(|life| life.member == member && life.ending.get().is_none())
            .map(|life| life.pid)
    }
}
