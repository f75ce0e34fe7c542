//! Super-peers among each other: what one accepts is pushed to all, and what was missed is fetched.
//!
//! Each other super-peer has a task of its own with a bounded queue. While it is connected, new entries go out in
//! batches at once. Whatever a push misses (a lost connection, a full queue) is found by comparing digests, on
//! every connection and every [`COMPARE_EVERY`]: where they differ, the other's catalog is read page by page and
//! merged. The other side does the same, so both end with the union. Order and duplicates do not matter, because
//! merging records does not care (see `quarta_protocols::records`).

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use quarta_metrics::superpeer::PushOutcome;
use quarta_protocols::{
    credentials::Membership,
    limits::{PAGE_FILL_BYTES, SYNC_PAGE_ENTRIES},
    messages::sync::{Entry, Place, Request, Response, Sync},
};
use tokio::sync::{Notify, mpsc};

use super::Shared;

/// Entries waiting for one super-peer. What does not fit is found by the next comparison.
pub(super) const QUEUE_MAX: usize = 4096;
/// How often digests are compared while nothing suggests a difference.
const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Pages read in one reconciliation: enough for 10 000 000 small entries, and an end for a super-peer that never ends.
const PAGES_MAX: usize = 100_000;
/// What an entry takes beside its payload on the wire, in bytes.
const ENTRY_FRAME_BYTES: usize = 512;

/// The queue towards one super-peer.
#[derive(Debug, Clone)]
pub(super) struct Link {
    entries: mpsc::Sender<Entry>,
    compare: Arc<Notify>,
}

impl Link {
    /// Queues an entry. A full queue is no loss: a comparison finds what is missing.
    pub(super) fn push(&self, entry: &Entry) {
        if self.entries.try_send(entry.clone()).is_err() {
            self.compare.notify_one();
        }
    }

    /// Asks for a comparison soon.
    pub(super) fn compare(&self) {
        self.compare.notify_one();
    }
}

/// Starts the task for one other super-peer.
pub(super) fn start(shared: Arc<Shared>, peer: PeerId) -> Link {
    let (entries, queue) = mpsc::channel(QUEUE_MAX);
    let compare = Arc::new(Notify::new());
    let link = Link { entries, compare: compare.clone() };
    tokio::spawn(async move { run(&shared, peer, queue, &compare).await });
    link
}

async fn run(shared: &Arc<Shared>, peer: PeerId, mut queue: mpsc::Receiver<Entry>, compare: &Notify) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            received = queue.recv_many(&mut batch, SYNC_PAGE_ENTRIES) => {
                if received == 0 {
                    return;
                }
                while !batch.is_empty() {
                    let page = fitting(&mut batch);
                    push(shared, peer, page).await;
                }
            }
            () = compare.notified() => reconcile(shared, peer).await,
            () = tokio::time::sleep(COMPARE_EVERY) => reconcile(shared, peer).await,
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

async fn push(shared: &Shared, peer: PeerId, entries: Vec<Entry>) {
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
}

/// Compares catalogs and takes over what the other has and this one lacks.
async fn reconcile(shared: &Arc<Shared>, peer: PeerId) {
    let Some(membership) = shared.superpeer_membership(&peer).await else { return };
    match differs(shared, peer).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(why) => {
            tracing::debug!(%peer, why, "cannot compare catalogs now");
            return;
        }
    }
    // Twice: what was deferred in the first pass, because its stamp's maker came later, is taken in the second.
    for _ in 0..2 {
        match read_all(shared, peer, &membership).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(why) => {
                tracing::info!(%peer, why, "reading another super-peer's catalog broke off; it goes on later");
                return;
            }
        }
    }
}

async fn differs(shared: &Shared, peer: PeerId) -> Result<bool, String> {
    let request = Request::Digest { addresses: shared.advertised().await };
    let response = shared.network.call::<Sync>(peer, request).await.map_err(|e| e.to_string())?;
    let Response::Digest(theirs) = response else { return Err("it answered something else".to_owned()) };
    let ours = shared.store.write(|catalog| catalog.digest()).await.map_err(|e| e.to_string())?;
    Ok(ours != theirs)
}

/// Reads the other's catalog and merges it; gives how many entries had to be put off.
async fn read_all(shared: &Arc<Shared>, peer: PeerId, membership: &Membership) -> Result<u32, String> {
    let mut after: Option<Place> = None;
    let mut deferred = 0;
    for _ in 0..PAGES_MAX {
        let response =
            shared.network.call::<Sync>(peer, Request::Page { after }).await.map_err(|e| e.to_string())?;
        let Response::Page { entries, next } = response else {
            return Err("it answered something else".to_owned());
        };
        deferred += shared.take_entries(membership.clone(), entries).await?.deferred;
        match next {
            // A page that does not move on would never end.
            Some(next)
                if after.is_none_or(|after| {
                    (after.kind, *after.id) < (next.kind, *next.id) || after.kind != next.kind
                }) =>
            {
                after = Some(next);
            }
            _ => break,
        }
    }
    Ok(deferred)
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
