//! What the status tells of this machine: disk, catalog, descriptors, clock, credential, other super-peers.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::PeerId;
use quarta_daemon::{clocks::Clocks, disk::Disk};
use quarta_protocols::credentials::UnixSeconds;

use super::Shared;

impl Shared {
    pub(super) fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a member's clock.
    pub(super) fn hear_clock(&self, peer: PeerId, told: Option<UnixSeconds>) {
        let Some(told) = told else { return };
        let (now, own) = (Instant::now(), UnixSeconds::now());
        let mut clocks = self.clocks();
        let before = clocks.off(now, own);
        clocks.hear(peer, told, now);
        if let Some(offset) = clocks.off(now, own).filter(|off| Some(*off) != before) {
            tracing::warn!("this machine's clock is {offset} most members'; set the clock");
        }
    }

    /// What is not as it should be or wants attention, each as "why; what to do": the most fundamental first.
    pub(crate) async fn problems(&self, superpeers: u64, connected: u64) -> Vec<String> {
        let path = self.dir.path().to_owned();
        let disk = tokio::task::spawn_blocking(move || Disk::of(&[path])).await.unwrap_or(Disk::Unknown);
        let catalog = match self.store.write(|catalog| catalog.probe()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let catalog = catalog.map(|why| {
            format!(
                "nothing can be stored, {why}; see the daemon's log and check the disk of the data folder"
            )
        });
        let (now, own) = (Instant::now(), UnixSeconds::now());
        let clock = self.clocks().off(now, own).map(|offset| {
            format!(
                "this machine's clock is {offset} most members', so that they refuse each other; set the clock, \
                 and run a time service"
            )
        });
        let credential = self.credential_problem(own);
        let silent = superpeers.saturating_sub(connected);
        let others = (silent > 0).then(|| {
            format!("{silent} of {superpeers} other super-peers do not answer; see that they run and are reachable")
        });
        let admits_nobody = self.admits_nobody().await;
        let open_files = self.open_files.problem().or_else(|| self.open_files.shortage());
        [disk.problem(), catalog, open_files, clock, credential, admits_nobody, others]
            .into_iter()
            .flatten()
            .collect()
    }
}
