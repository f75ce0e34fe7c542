//! The node's own list: what it reports to super-peers, with the position that each change gives it.
//!
//! Two kinds of page leave here, and each says what the list was at the page's own `position`:
//!
//! - A **delta** page carries the changes after the receiver's position, the net effect for each entry. Changes that do
//!   not fit one page are cut between two revisions, never within one: the page brings its receiver to exactly the list
//!   that stood at that revision, with the summary that the list had there, and says that it is not the `last`. To be
//!   able to, the list keeps its latest [`CHANGES_KEPT`] changes as they were, not only the set of changed keys: a key
//!   changed before and after the cut must be sent as it was at the cut. (Answering with a full listing instead would
//!   be simpler, and would make a large library that is being filled send itself again at every poll.)
//! - A **full** page is the answer to everybody else: no position, a foreign epoch, a revision from the future, or one
//!   older than the changes kept. Its entries are those of this moment, so a listing of several pages mixes moments.
//!   Its receiver therefore stands at the *first* page's position, asks for the changes after it, and has the list once
//!   a delta page is the `last`; until then only that page's summary can be compared. Every entry that changed during
//!   the listing is among those changes, and every other one was sent as it is.
//!
//! The same request always gets a correct answer and answering changes nothing here, so lost, repeated and overlapping
//! requests do no harm, and any number of super-peers can follow at their own pace.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use quarta_protocols::{
    limits::{INVENTORY_PAGE_ENTRIES, PAGE_FILL_BYTES},
    messages::inventory::{Completeness, Coverage, Item, Key, Page, Position, Summary},
};

/// Latest changes kept for delta pages, removals among them: eight pages, about the changes of a poll interval while a
/// large folder is added, and a few MiB of memory. A receiver that is further behind gets the full list.
pub const CHANGES_KEPT: usize = 8 * INVENTORY_PAGE_ENTRIES;

/// What an encoded item has beside its name, in bytes, rounded up: keys, three hashes, sizes.
const ITEM_OVERHEAD_BYTES: usize = 224;
/// What an encoded key takes, in bytes, rounded up.
const KEY_BYTES: usize = 48;

/// The list, its position, its summary and its latest changes.
#[derive(Debug)]
pub struct Inventory {
    position: Position,
    items: BTreeMap<Key, Arc<Item>>,
    summary: Summary,
    holdings: Holdings,
    /// The changes up to now, oldest first: the last one made the current revision.
    changes: VecDeque<Change>,
    bounds: Bounds,
}

/// The files of the library that are held whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// How many they are.
    pub files: u64,
    /// What they take, in bytes.
    pub bytes: u64,
}

impl Holdings {
    fn of(item: &Item) -> Self {
        match item {
            Item::Library { completeness: Completeness::Complete, .. } => {
                Self { files: 1, bytes: item.size_bytes() }
            }
            _ => Self::default(),
        }
    }

    const fn add(&mut self, more: Self) {
        self.files += more.files;
        self.bytes = self.bytes.wrapping_add(more.bytes);
    }

    /// Undoes [`Self::add`].
    const fn remove(&mut self, less: Self) {
        self.files -= less.files;
        self.bytes = self.bytes.wrapping_sub(less.bytes);
    }
}

/// One change: the entry as it was after it (none: gone), and the list's summary after it.
#[derive(Debug)]
struct Change {
    key: Key,
    now: Option<Arc<Item>>,
    summary: Summary,
}

/// What limits pages and memory; tests use small ones.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    page_entries: usize,
    page_bytes: usize,
    changes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { page_entries: INVENTORY_PAGE_ENTRIES, page_bytes: PAGE_FILL_BYTES, changes: CHANGES_KEPT }
    }
}

impl Inventory {
    /// An empty list in a fresh epoch, which the caller draws at random: after a first or an unclean start.
    pub fn new(epoch: u64) -> Self {
        Self::resume(Position { epoch, revision: 0 }, [])
    }

    /// The list as it stood at `position` when the node last stopped cleanly. Of two items with one key the later counts.
    pub fn resume(position: Position, items: impl IntoIterator<Item = Item>) -> Self {
        let items: BTreeMap<_, _> = items.into_iter().map(|item| (item.key(), Arc::new(item))).collect();
        let (mut summary, mut holdings) = (Summary::default(), Holdings::default());
        for item in items.values() {
            summary.add(item);
            holdings.add(Holdings::of(item));
        }
        Self { position, items, summary, holdings, changes: VecDeque::new(), bounds: Bounds::default() }
    }

    /// Puts an entry in, in place of one with the same key. Says whether that changed the list, and so its position.
    pub fn upsert(&mut self, item: Item) -> bool {
        let key = item.key();
        let before = self.items.get(&key);
        if before.is_some_and(|before| **before == item) {
            return false;
        }
        if let Some(before) = before {
            self.summary.remove(before);
            self.holdings.remove(Holdings::of(before));
        }
        self.summary.add(&item);
        self.holdings.add(Holdings::of(&item));
        let item = Arc::new(item);
        self.items.insert(key, Arc::clone(&item));
        self.record(key, Some(item));
        true
    }

    /// Takes an entry out. Says whether it was there.
    pub fn remove(&mut self, key: Key) -> bool {
        let Some(before) = self.items.remove(&key) else { return false };
        self.summary.remove(&before);
        self.holdings.remove(Holdings::of(&before));
        self.record(key, None);
        true
    }

    fn record(&mut self, key: Key, now: Option<Arc<Item>>) {
        self.position.revision += 1;
        self.changes.push_back(Change { key, now, summary: self.summary });
        if self.changes.len() > self.bounds.changes {
            self.changes.pop_front();
        }
    }

    /// How far the list has got.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Count and digest of the list as it is.
    pub const fn summary(&self) -> Summary {
        self.summary
    }

    /// What is held whole of the library.
    pub const fn holdings(&self) -> Holdings {
        self.holdings
    }

    /// The entry with this key.
    pub fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key).map(AsRef::as_ref)
    }

    /// All entries, in key order.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values().map(AsRef::as_ref)
    }

    /// The page for a receiver at `since`, or the next one of its full listing where it names the key to go on `after`.
    /// At most [`INVENTORY_PAGE_ENTRIES`] entries and [`PAGE_FILL_BYTES`] encoded bytes.
    pub fn page(&self, since: Option<Position>, after: Option<Key>) -> Page {
        match since.and_then(|since| self.changes_after(since)) {
            Some((since, behind)) if after.is_none() => self.delta_page(since, behind),
            _ => self.full_page(after),
        }
    }

    /// How many of the kept changes come after `since`; none where it cannot be known what changed since then.
    fn changes_after(&self, since: Position) -> Option<(Position, usize)> {
        let behind = self.position.revision.checked_sub(since.revision)?;
        let behind = usize::try_from(behind).ok()?;
        (since.epoch == self.position.epoch && behind <= self.changes.len()).then_some((since, behind))
    }

    fn full_page(&self, after: Option<Key>) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.items.range((from, Bound::Unbounded)).map(|(_, item)| item).peekable();
        let mut present = Vec::new();
        let mut bytes = 0;
        while let Some(item) = rest.peek() {
            bytes += item_bytes(item);
            if present.len() == self.bounds.page_entries
                || (bytes > self.bounds.page_bytes && !present.is_empty())
            {
                break;
            }
            present.extend(rest.next().map(|item| Item::clone(item)));
        }
        Page {
            coverage: Coverage::Full { after },
            position: self.position,
            last: rest.peek().is_none(),
            present,
            gone: Vec::new(),
            summary: self.summary,
        }
    }

    fn delta_page(&self, since: Position, behind: usize) -> Page {
        let mut net: BTreeMap<Key, Option<&Arc<Item>>> = BTreeMap::new();
        let (mut bytes, mut taken, mut summary) = (0, 0_u64, None);
        for change in self.changes.range(self.changes.len() - behind..) {
            // An entry that changes again is counted again: the page ends a little early, and the sum stays simple.
            bytes += change.now.as_deref().map_or(KEY_BYTES, item_bytes);
            let fits = bytes <= self.bounds.page_bytes
                && (net.len() < self.bounds.page_entries || net.contains_key(&change.key));
            if !fits && taken > 0 {
                break;
            }
            net.insert(change.key, change.now.as_ref());
            taken += 1;
            summary = Some(change.summary);
        }
        let revision = since.revision + taken;
        let gone = net.iter().filter(|(_, now)| now.is_none()).map(|(key, _)| *key).collect();
        Page {
            coverage: Coverage::Since(since),
            position: Position { revision, ..self.position },
            last: revision == self.position.revision,
            present: net.into_values().flatten().map(|item| Item::clone(item)).collect(),
            gone,
            summary: summary.unwrap_or(self.summary),
        }
    }
}

/// At least as many bytes as the item has encoded: knowing it exactly would mean encoding every page twice.
fn item_bytes(item: &Item) -> usize {
    match item {
        Item::Library { name, .. } => ITEM_OVERHEAD_BYTES + name.as_str().len(),
        Item::Vault { .. } => ITEM_OVERHEAD_BYTES,
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::needless_for_each,
        reason = "small numbers and short loops"
    )]

    use proptest::prelude::*;
    use quarta_protocols::{
        cbor,
        content::FILE_MAX_BYTES,
        ids::{ContentId, FileId, Sha256},
        limits::PAGE_MESSAGE_BYTES,
        names::FileName,
    };

    use super::*;

    fn library(n: u32, version: u32, name: &str) -> Item {
        let mut id = [0xff; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Item::Library {
            file: FileId::from_bytes(id),
            name: FileName::new(name).unwrap(),
            size_bytes: FILE_MAX_BYTES,
            sha256: Some(Sha256::from_bytes([0xff; 32])),
            content: ContentId::from_bytes([0xff; 32]),
            completeness: Completeness::Partial(u32::MAX - version),
        }
    }

    fn vault(n: u8, version: u32) -> Item {
        Item::Vault {
            content: ContentId::from_bytes([n; 32]),
            size_bytes: u64::from(version),
            completeness: Completeness::Complete,
        }
    }

    fn item(n: u8, version: u32) -> Item {
        if n.is_multiple_of(2) { vault(n, version) } else { library(u32::from(n), version, "a.txt") }
    }

    /// A super-peer as it follows one node's list.
    #[derive(Debug, Default)]
    struct Receiver {
        items: BTreeMap<Key, Item>,
        position: Option<Position>,
        /// A full listing under way: its first page's position, and the key to go on after.
        listing: Option<(Position, Key)>,
        listed: BTreeMap<Key, Item>,
        /// The latest moment that a listing of several pages shows; its entries add up to a list only after that.
        mixed_until: Option<Position>,
    }

    impl Receiver {
        fn request(&self) -> (Option<Position>, Option<Key>) {
            match self.listing {
                Some((_, after)) => (None, Some(after)),
                None => (self.position, None),
            }
        }

        fn take(&mut self, page: &Page) {
            match page.coverage {
                Coverage::Full { after } => {
                    if after != self.listing.map(|(_, key)| key) {
                        return;
                    }
                    // A late page of an earlier listing: the changes asked for at the end begin after it.
                    if self.listing.is_some_and(|(first, _)| page.position < first) {
                        return;
                    }
                    if after.is_none() {
                        self.listed.clear();
                        self.mixed_until = None;
                    } else {
                        self.mixed_until = self.mixed_until.max(Some(page.position));
                    }
                    let first = self.listing.map_or(page.position, |(first, _)| first);
                    self.listed.extend(page.present.iter().map(|item| (item.key(), item.clone())));
                    if page.last {
                        self.items = std::mem::take(&mut self.listed);
                        (self.position, self.listing) = (Some(first), None);
                        if self.mixed_until.is_none() {
                            assert_eq!(self.summary(), page.summary);
                        }
                    } else {
                        self.listing = Some((first, page.present.last().unwrap().key()));
                    }
                }
                Coverage::Since(since) => {
                    if self.listing.is_some() || self.position != Some(since) {
                        return;
                    }
                    page.gone.iter().for_each(|key| {
                        self.items.remove(key);
                    });
                    self.items.extend(page.present.iter().map(|item| (item.key(), item.clone())));
                    self.position = Some(page.position);
                    self.mixed_until = self.mixed_until.filter(|latest| page.position < *latest);
                    if self.mixed_until.is_none() {
                        assert_eq!(self.summary(), page.summary, "at every revision a delta ends at");
                    }
                }
            }
        }

        fn summary(&self) -> Summary {
            let mut summary = Summary::default();
            self.items.values().for_each(|item| summary.add(item));
            summary
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Upsert(u8, u32),
        Remove(u8),
        /// A page is made for the receiver now, and arrives after some further steps, or never.
        Ask,
        Deliver(prop::sample::Index),
        Duplicate(prop::sample::Index),
        Lose,
        Restart {
            clean: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..40u8, 0..3u32).prop_map(|(n, version)| Step::Upsert(n, version)),
            4 => (0..40u8).prop_map(Step::Remove),
            6 => Just(Step::Ask),
            5 => any::<prop::sample::Index>().prop_map(Step::Deliver),
            1 => any::<prop::sample::Index>().prop_map(Step::Duplicate),
            1 => Just(Step::Lose),
            1 => any::<bool>().prop_map(|clean| Step::Restart { clean }),
        ]
    }

    proptest! {
        #[test]
        fn a_receiver_has_the_list_in_the_end_whatever_was_lost_repeated_or_changed_meanwhile(
            steps in prop::collection::vec(step(), 0..200),
            page_entries in 1..6usize,
            changes in 1..30usize,
        ) {
            let bounds = Bounds { page_entries, page_bytes: 1000, changes };
            let mut list = Inventory { bounds, ..Inventory::new(1) };
            let mut receiver = Receiver::default();
            let mut under_way: Vec<Page> = Vec::new();
            for step in steps {
                match step {
                    Step::Upsert(n, version) => { list.upsert(item(n, version)); },
                    Step::Remove(n) => { list.remove(item(n, 0).key()); },
                    Step::Ask => {
                        let (since, after) = receiver.request();
                        under_way.push(list.page(since, after));
                    }
                    Step::Deliver(which) if !under_way.is_empty() => {
                        receiver.take(&under_way.remove(which.index(under_way.len())));
                    }
                    Step::Duplicate(which) if !under_way.is_empty() => {
                        receiver.take(&under_way[which.index(under_way.len())].clone());
                    }
                    Step::Deliver(_) | Step::Duplicate(_) => {}
                    Step::Lose => under_way.clear(),
                    Step::Restart { clean } => {
                        let Position { epoch, .. } = list.position();
                        let position = if clean { list.position() } else { Position { epoch: epoch + 1, revision: 0 } };
                        let items: Vec<_> = list.items().cloned().collect();
                        list = Inventory { bounds, ..Inventory::resume(position, items) };
                    }
                }
                prop_assert!(list.changes.len() <= changes);
            }
            for _ in 0..200 {
                let (since, after) = receiver.request();
                receiver.take(&list.page(since, after));
            }
            prop_assert_eq!(receiver.position, Some(list.position()));
            prop_assert_eq!(receiver.summary(), list.summary());
            prop_assert!(receiver.items.values().eq(list.items()));
        }

        #[test]
        fn what_is_held_whole_is_counted_as_it_changes(steps in prop::collection::vec((0..6u8, 0..4u32), 0..60)) {
            let mut list = Inventory::new(1);
            for (n, step) in steps {
                let mut file = library(u32::from(n), step, "a.txt");
                if step > 1 && let Item::Library { size_bytes, completeness, .. } = &mut file {
                    (*size_bytes, *completeness) = (u64::from(step), Completeness::Complete);
                }
                let _ = if step == 0 { list.remove(file.key()) } else { list.upsert(file) };
                list.upsert(vault(n, 0));
                let whole = list.items().filter(|item| {
                    matches!(item, Item::Library { .. }) && item.completeness() == Completeness::Complete
                });
                let counted = whole.fold((0, 0), |(files, bytes), item| (files + 1, bytes + item.size_bytes()));
                prop_assert_eq!((list.holdings().files, list.holdings().bytes), counted);
            }
        }
    }

    #[test]
    fn a_change_that_changes_nothing_moves_no_position() {
        let mut list = Inventory::new(1);
        assert!(list.upsert(item(1, 0)));
        let before = list.position();
        assert!(!list.upsert(item(1, 0)));
        assert!(!list.remove(item(2, 0).key()));
        assert_eq!(list.position(), before);
        let page = list.page(Some(before), None);
        assert!(page.last && page.present.is_empty() && page.gone.is_empty());
        assert_eq!((page.position, page.coverage), (before, Coverage::Since(before)));
    }

    #[test]
    fn a_foreign_epoch_a_revision_from_the_future_and_a_too_old_one_get_a_full_page() {
        let mut list = Inventory { bounds: Bounds { changes: 2, ..Bounds::default() }, ..Inventory::new(7) };
        (0..4).for_each(|n| {
            list.upsert(item(n, 0));
        });
        let page = |epoch, revision| list.page(Some(Position { epoch, revision }), None).coverage;
        assert_eq!(page(8, 4), Coverage::Full { after: None });
        assert_eq!(page(7, 5), Coverage::Full { after: None });
        assert_eq!(page(7, 1), Coverage::Full { after: None });
        assert_eq!(page(7, 2), Coverage::Since(Position { epoch: 7, revision: 2 }));
    }

    #[test]
    fn pages_of_the_longest_names_and_of_removals_fit_their_message() {
        let name = |n: u32| format!("{}/{n:06}{}", vec!["n".repeat(200); 4].join("/"), "x".repeat(12));
        let mut list = Inventory::new(u64::MAX);
        (0..5000).for_each(|n| {
            list.upsert(library(n, 0, &name(n)));
        });
        let start = Position { epoch: u64::MAX, revision: 0 };
        let (full, delta) = (list.page(None, None), list.page(Some(start), None));
        (0..5000).for_each(|n| {
            list.remove(library(n, 0, "a").key());
        });
        let gone = list.page(Some(Position { revision: 5000, ..start }), None);
        assert_eq!(gone.gone.len(), INVENTORY_PAGE_ENTRIES);
        for page in [full, delta, gone] {
            assert!(!page.last);
            assert!(cbor::to_vec(&page).len() < PAGE_MESSAGE_BYTES);
        }
    }

    #[test]
    fn the_estimate_of_an_items_size_is_never_too_low() {
        for item in [vault(255, u32::MAX), library(u32::MAX, 0, "a"), library(0, 0, &"n".repeat(200))] {
            let exact = cbor::to_vec(&item).len();
            assert!(exact <= item_bytes(&item) && item_bytes(&item) < exact + 160, "{exact}");
            assert!(cbor::to_vec(&item.key()).len() <= KEY_BYTES);
        }
    }
}
