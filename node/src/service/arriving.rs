//! Files that are being fetched, as sources for others: each verified chunk is served from the moment it is here.
//!
//! A file that all branches want at once spreads from those who have a part of it, so a fetch tells super-peers at its
//! beginning that this node has some of the content, and others ask for what. It is listed as sealed chunks and not as a
//! file of the library: an older copy of the file may be listed there and is served until the newer one is whole.
//!
//! What is served is the file's present content as far as this node knows, and only while it is being fetched: a fetch
//! that is paused, cancelled or restarted because the file was changed, restricted or deleted serves nothing from that
//! moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarta_protocols::{
    ids::{ContentId, FileId},
    messages::inventory::{Completeness, Item, Key, Position},
    records::Record,
};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{liaison::Input, serving::Serving};

/// Contents of fewer chunks are not offered in part: they are whole before anybody would hear of it.
const OFFERED_FROM_CHUNKS: u32 = 8;

/// What is arriving, by content.
#[derive(Debug, Default)]
pub(crate) struct Arriving(Mutex<HashMap<ContentId, Arc<Arrival>>>);

/// A file that is being fetched.
#[derive(Debug)]
pub(crate) struct Arrival {
    file: FileId,
    pub(super) serving: Serving,
    /// Ends the fetch, and with it the serving.
    ended: CancellationToken,
}

/// Offers a content for as long as it is held.
pub(super) struct Offer {
    shared: Arc<Shared>,
    content: ContentId,
    arrival: Arc<Arrival>,
}

impl Arriving {
    fn all(&self) -> MutexGuard<'_, HashMap<ContentId, Arc<Arrival>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is arriving of a content, unless its fetch is about to end.
    pub(super) fn get(&self, content: &ContentId) -> Option<Arc<Arrival>> {
        self.all().get(content).filter(|arrival| !arrival.ended.is_cancelled()).cloned()
    }
}

impl Arrival {
    /// Whether this is the file's content as far as this node knows. Blocks on the disk.
    pub(super) fn is_current(&self, shared: &Shared, content: &ContentId) -> bool {
        let known = shared.database.record(&self.file).ok().flatten();
        let record = known.and_then(|signed| Record::verify(signed, &shared.identity.trust).ok());
        record.and_then(|record| record.entry().map(|entry| entry.content)) == Some(*content)
    }

    /// Whether it may be sent on: it is arriving still, or lies in the library as a whole by now.
    pub(super) fn is_offered(self: &Arc<Self>, shared: &Shared, content: &ContentId) -> bool {
        shared.arriving.get(content).is_some_and(|known| Arc::ptr_eq(&known, self))
            || shared.inventory().get(&Key::Library(self.file)).is_some_and(|item| item.content() == *content)
    }

    /// It is offered to nobody any more: its disk fails, or holds something else than was written.
    pub(super) fn give_up(self: &Arc<Self>, shared: &Arc<Shared>, content: &ContentId) {
        withdraw(shared, content, self);
    }
}

impl Offer {
    /// Begins to offer what arrives of a file; none where that is not worth it.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        file: FileId,
        content: ContentId,
        serving: Serving,
        ended: CancellationToken,
    ) -> Option<Self> {
        let geometry = serving.geometry();
        if geometry.chunks() < OFFERED_FROM_CHUNKS {
            return None;
        }
        let arrival = Arc::new(Arrival { file, serving, ended });
        shared.arriving.all().insert(content, arrival.clone());
        let item = Item::Vault {
            content,
            size_bytes: geometry.size_bytes(),
            completeness: Completeness::Partial(0),
        };
        let position = {
            let mut inventory = shared.inventory();
            // Here already, as a replica: that says more.
            let listed = inventory.get(&Key::Vault(content)).is_some();
            (!listed && inventory.upsert(item)).then(|| inventory.position())
        };
        tell(shared, position);
        Some(Self { shared: shared.clone(), content, arrival })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        withdraw(&self.shared, &self.content, &self.arrival);
    }
}

fn withdraw(shared: &Arc<Shared>, content: &ContentId, arrival: &Arc<Arrival>) {
    let position = {
        let mut arriving = shared.arriving.all();
        // Another fetch may be at work on the same content.
        if !arriving.get(content).is_some_and(|known| Arc::ptr_eq(known, arrival)) {
            return;
        }
        arriving.remove(content);
        let mut inventory = shared.inventory();
        let partial = |item: &Item| item.completeness() != Completeness::Complete;
        let listed = inventory.get(&Key::Vault(*content)).is_some_and(partial);
        (listed && inventory.remove(Key::Vault(*content))).then(|| inventory.position())
    };
    tell(shared, position);
}

fn tell(shared: &Arc<Shared>, position: Option<Position>) {
    if let Some(position) = position {
        shared.superpeers.feed_all(shared, Input::Changed(position));
    }
}

impl Shared {
    /// Takes what is still arriving out of the list, for the end of a run: it is not there when the next one begins.
    pub(super) fn unlist_arriving(&self) {
        let mut arriving = self.arriving.all();
        let mut inventory = self.inventory();
        for (content, _) in arriving.drain() {
            let key = Key::Vault(content);
            if inventory.get(&key).is_some_and(|item| item.completeness() != Completeness::Complete) {
                inventory.remove(key);
            }
        }
    }
}
