//! Gathers what the status tells of this machine: disk, database, descriptors, clock, copies.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use libp2p::PeerId;
use quarta_daemon::{clocks::Clocks, disk::Disk, open_files::OpenFiles};
use quarta_protocols::credentials::UnixSeconds;

use super::Shared;
use crate::{
    database::DatabaseError,
    health::{self, COPIES_NAMED, Facts},
};

/// What is remembered of this machine's troubles.
pub(crate) struct Condition {
    pub(crate) open_files: OpenFiles,
    pub(crate) clocks: Mutex<Clocks>,
    /// Why the last write to the database failed; none once one succeeds.
    database: Mutex<Option<String>>,
}

impl Condition {
    pub(super) fn new(open_files: OpenFiles) -> Self {
        Self { open_files, clocks: Mutex::default(), database: Mutex::default() }
    }
}

impl Shared {
    /// Takes note of a member's clock. Only super-peers', which are designated servers, say what the network's time is.
    pub(super) fn hear_clock(&self, peer: PeerId, told: Option<UnixSeconds>) {
        let Some(told) = told.filter(|_| self.superpeers.knows(&peer)) else { return };
        let (now, own) = (Instant::now(), UnixSeconds::now());
        let mut clocks = self.condition.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = clocks.off(now, own);
        clocks.hear(peer, told, now);
        let off = clocks.off(now, own);
        if off != before {
            if let Some(offset) = off {
                tracing::warn!("this machine's clock is {offset} the network's; set the clock");
            } else {
                tracing::info!("this machine's clock agrees with the network's");
            }
        }
    }

    /// A member has gone, and its clock is not heard any more.
    pub(super) fn forget_clock(&self, peer: &PeerId) {
        self.condition.clocks.lock().unwrap_or_else(PoisonError::into_inner).forget(peer);
    }

    /// Takes note of how a write to the database went, and passes it on.
    pub(crate) fn noted<T>(&self, written: Result<T, DatabaseError>) -> Result<T, DatabaseError> {
        *self.condition.database.lock().unwrap_or_else(PoisonError::into_inner) =
            written.as_ref().err().map(ToString::to_string);
        written
    }

    /// Why the database does not take writes, if it does not now. Where the last one failed it is tried again, so that
    /// a node that writes nothing meanwhile does not stay ill. Blocks on the disk.
    fn database_failure(&self) -> Option<String> {
        let failure = self.condition.database.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.and_then(|_| self.noted(self.database.probe()).err()).map(|error| error.to_string())
    }

    /// What is not as it should be, each as "why; what to do"; nothing where the node is healthy.
    pub(crate) async fn problems(self: &Arc<Self>) -> Vec<String> {
        let shared = self.clone();
        let facts = tokio::task::spawn_blocking(move || shared.facts());
        match facts.await {
            Ok(facts) => health::problems(&facts),
            Err(error) => vec![format!("the daemon could not look at itself, {error}; see its log")],
        }
    }

    fn facts(&self) -> Facts {
        let (now, own_clock) = (Instant::now(), UnixSeconds::now());
        let (clock, network_time) = {
            let clocks = self.condition.clocks.lock().unwrap_or_else(PoisonError::into_inner);
            (clocks.off(now, own_clock), clocks.network_time(now))
        };
        let (defective, first) = self.defects.first(COPIES_NAMED);
        let open_files = self.condition.open_files;
        Facts {
            // What is under way and the library lie in folders of their own, which may have another owner.
            disk: Disk::of(&[
                self.dir.path().to_owned(),
                self.library.folder(),
                self.library.partial_folder(),
            ]),
            database: self.database_failure(),
            open_files: open_files.problem().or_else(|| open_files.shortage()),
            clock,
            now: network_time.unwrap_or(own_clock),
            expires: self.own.membership().expires,
            renewal: self.own.trouble().map(|why| why.to_string()),
            signed_off: self.own.is_signed_off(),
            superpeers: self
                .superpeers
                .overview()
                .into_iter()
                .map(|known| health::Superpeer { connected: known.connected, refusal: known.refusal })
                .collect(),
            defective,
            named: first.into_iter().map(|found| (found.defect, found.path.display().to_string())).collect(),
        }
    }
}
