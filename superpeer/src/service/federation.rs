//! Super-peers among each other: what one accepts is pushed to all, and what was missed is found and exchanged.
//!
//! For each other super-peer there are two tasks. One pushes new entries from a bounded queue, in batches, at once. The
//! other one reconciles ([`crate::reconciliation`]) when the link's agenda says so: on a new connection, soon after a
//! push did not arrive, and now and then. They do not wait for each other, so that a long reconciliation delays no push.
//! Order and duplicates do not matter, because merging records does not care (see `quarta_protocols::records`).

mod agreeing;
mod answering;
mod reconciling;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use libp2p::PeerId;
use quarta_metrics::superpeer::PushOutcome;
use quarta_protocols::{
    limits::{PAGE_FILL_BYTES, SYNC_PAGE_ENTRIES},
    messages::sync::{Entry, Request, Response, Sync},
};
use tokio::sync::{Notify, mpsc};

use super::Shared;
use crate::reconciliation::{Agenda, Agreement, Turns};

pub(super) use answering::answer;

/// Entries waiting for one super-peer. What does not fit is found by the next comparison.
pub(super) const QUEUE_MAX: usize = 4096;
/// What an entry takes beside its payload on the wire, in bytes.
const ENTRY_FRAME_BYTES: usize = 512;

/// What all links have in common.
#[derive(Debug, Default)]
pub(crate) struct Federation {
    turns: Mutex<Turns>,
    agreement: Mutex<Agreement>,
}

impl Federation {
    /// Before the first comparison of this run.
    pub(super) fn started(agreement: Agreement) -> Self {
        Self { turns: Mutex::default(), agreement: Mutex::new(agreement) }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the agreement with others.
    pub(super) fn agreement(&self) -> MutexGuard<'_, Agreement> {
        self.agreement.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link with one other super-peer.
#[derive(Debug, Clone)]
pub(super) struct Link {
    entries: mpsc::Sender<Entry>,
    plan: Arc<Plan>,
}

/// When the link reconciles.
#[derive(Debug)]
struct Plan {
    agenda: Mutex<Agenda>,
    changed: Notify,
}

impl Plan {
    fn change(&self, change: impl FnOnce(&mut Agenda)) {
        change(&mut self.agenda.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn begun(&self) {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner).begun(Instant::now());
    }

    fn due(&self) -> Instant {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner).due()
    }
}

impl Link {
    /// Queues an entry. A full queue is no loss: a comparison finds what is missing.
    pub(super) fn push(&self, entry: &Entry) {
        if self.entries.try_send(entry.clone()).is_err() {
            self.plan.change(|agenda| agenda.missed(Instant::now()));
        }
    }

    /// There is a new connection.
    pub(super) fn connected(&self) {
        self.plan.change(|agenda| agenda.connected(Instant::now()));
    }

    /// The other is reconciling, and sees to it.
    fn left_to_other(&self) {
        self.plan.change(|agenda| agenda.left_to_other(Instant::now()));
    }
}

/// Starts the tasks for one other super-peer.
pub(super) fn start(shared: &Arc<Shared>, peer: PeerId) -> Link {
    let (entries, queue) = mpsc::channel(QUEUE_MAX);
    let begins = shared.identity.keys.peer() < peer;
    let agenda = Mutex::new(Agenda::new(begins, Instant::now()));
    let plan = Arc::new(Plan { agenda, changed: Notify::new() });
    tokio::spawn(reconciling::run(shared.clone(), peer, plan.clone()));
    let pushing = (shared.clone(), plan.clone());
    tokio::spawn(async move { push_all(&pushing.0, peer, queue, &pushing.1).await });
    Link { entries, plan }
}

async fn push_all(shared: &Shared, peer: PeerId, mut queue: mpsc::Receiver<Entry>, plan: &Plan) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            received = queue.recv_many(&mut batch, SYNC_PAGE_ENTRIES) => if received == 0 { return },
        }
        while !batch.is_empty() {
            let page = fitting(&mut batch);
            if push(shared, peer, page).await == PushOutcome::Failed {
                plan.change(|agenda| agenda.missed(Instant::now()));
            }
        }
    }
}

/// Takes as many entries from the front as fit one message.
fn fitting(batch: &mut Vec<Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let count = batch
        .iter()
        .take_while(|entry| {
            bytes += entry.payload.len() + ENTRY_FRAME_BYTES;
            bytes <= PAGE_FILL_BYTES
        })
        .count()
        .max(1);
    batch.drain(..count).collect()
}

async fn push(shared: &Shared, peer: PeerId, entries: Vec<Entry>) -> PushOutcome {
    let outcome = match shared.network.call::<Sync>(peer, Request::Push(entries)).await {
        Ok(Response::Taken { invalid: 0, .. }) => PushOutcome::Delivered,
        Ok(Response::Taken { invalid, .. }) => {
            tracing::warn!(%peer, invalid, "another super-peer refused entries of this catalog");
            PushOutcome::Refused
        }
        Ok(_) => PushOutcome::Failed,
        Err(error) => {
            tracing::debug!(%peer, %error, "a push did not arrive; the next comparison makes up for it");
            PushOutcome::Failed
        }
    };
    shared.metrics.superpeer.sync_pushes.inc(outcome);
    outcome
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use quarta_protocols::{
        clock::HybridTime,
        ids::{NetworkId, RecordHash},
        messages::sync::{Kind, Stamp},
        signing::Signed,
    };
    use serde_bytes::{ByteArray, ByteBuf};

    use super::*;

    fn entry(bytes: usize) -> Entry {
        let key = Keypair::generate_ed25519();
        let stamp = Stamp {
            superpeer: key.public().to_peer_id(),
            payload: RecordHash::of(b""),
            time: HybridTime::default(),
        };
        Entry {
            kind: Kind::FILE,
            id: ByteArray::new([0; 32]),
            payload: ByteBuf::from(vec![0; bytes]),
            stamp: Signed::new(&stamp, &NetworkId::from_bytes([0; 32]), &key),
        }
    }

    #[test]
    fn a_batch_is_split_into_messages_that_fit_and_nothing_is_left_out() {
        let mut batch = vec![entry(40_000); 50];
        let mut sent = 0;
        while !batch.is_empty() {
            let page = fitting(&mut batch);
            assert!(!page.is_empty());
            assert!(
                quarta_protocols::cbor::to_vec(&Request::Push(page.clone())).len()
                    <= quarta_protocols::limits::PAGE_MESSAGE_BYTES
            );
            sent += page.len();
        }
        assert_eq!(sent, 50);
    }
}
