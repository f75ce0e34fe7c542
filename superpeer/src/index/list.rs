//! One node's list: slots in key order, and what has been received of its replacement.

use std::collections::HashMap;

use quarta_protocols::messages::inventory::{Completeness, Item, Key, Position, Summary};

use super::claims::{Claims, Slot};

/// A list of entries.
///
/// A sorted array costs four bytes an entry and is filled by full pages at its end; a page of changes moves it once.
/// Completeness stands aside, for the entries that are not complete: few, most of the time.
#[derive(Debug, Default)]
pub(super) struct List {
    /// In the order of their keys.
    slots: Vec<Slot>,
    partial: HashMap<Slot, u32>,
    /// Entries of the library that not every member may know of.
    restricted: usize,
    pub(super) summary: Summary,
}

/// A full list of which pages are still to come.
#[derive(Debug)]
pub(super) struct Staging {
    /// Where the node's list stood at the first page: changes after that may be missing from the pages.
    pub(super) first: Position,
    /// Where it stood at the latest page.
    pub(super) latest: Position,
    pub(super) list: List,
}

/// What a page of changes does to one key.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) key: Key,
    /// The entry's claim and completeness; none where it left the list.
    pub(super) entry: Option<(Slot, Completeness)>,
    /// Where the key is in the list before the change, or where it would be.
    place: Result<usize, usize>,
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn completeness(&self, slot: Slot) -> Completeness {
        if self.partial.is_empty() {
            return Completeness::Complete;
        }
        self.partial.get(&slot).map_or(Completeness::Complete, |chunks| Completeness::Partial(*chunks))
    }

    /// The key of the last entry.
    pub(super) fn last_key(&self, claims: &Claims) -> Option<Key> {
        self.slots.last().map(|slot| claims.key(*slot))
    }

    /// Where the first entry after `key` stands.
    pub(super) fn place_after(&self, key: Key, claims: &Claims) -> usize {
        self.slots.partition_point(|slot| claims.key(*slot) <= key)
    }

    /// How many files of the library every member may know of.
    pub(super) fn open_files(&self, claims: &Claims) -> usize {
        let library = self.slots.partition_point(|slot| matches!(claims.key(*slot), Key::Library(_)));
        library - self.restricted
    }

    /// Adds an entry whose key is above all that are here.
    pub(super) fn push(&mut self, item: Item, claims: &mut Claims) {
        self.summary.add(&item);
        let completeness = item.completeness();
        let slot = claims.acquire(item);
        self.restricted += usize::from(claims.is_restricted(slot));
        self.slots.push(slot);
        self.set_completeness(slot, completeness);
    }

    fn set_completeness(&mut self, slot: Slot, completeness: Completeness) {
        match completeness {
            Completeness::Complete => self.partial.remove(&slot),
            Completeness::Partial(chunks) => self.partial.insert(slot, chunks),
        };
    }

    /// Gives up the spare room after a list has been received.
    pub(super) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.partial.shrink_to_fit();
    }

    /// A removal of this key, which becomes an insertion or replacement by setting its entry.
    pub(super) fn change(&self, key: Key, claims: &Claims) -> Change {
        let place = self.slots.binary_search_by_key(&key, |slot| claims.key(*slot));
        Change { key, entry: None, place }
    }

    /// The slot that a change replaces or removes.
    pub(super) fn replaced_by(&self, change: &Change) -> Option<Slot> {
        change.place.ok().map(|place| self.slots[place])
    }

    /// Carries out changes that [`Self::change`] prepared, sorted by key. References to claims are the caller's.
    pub(super) fn apply(&mut self, changes: &[Change], claims: &Claims) {
        let restricted = |slot: &Slot| claims.is_restricted(*slot);
        let came = changes.iter().filter_map(|change| change.entry).filter(|(slot, _)| restricted(slot));
        let went = changes.iter().filter_map(|change| self.replaced_by(change)).filter(restricted);
        self.restricted = self.restricted + came.count() - went.count();
        for before in changes.iter().filter_map(|change| self.replaced_by(change)).collect::<Vec<_>>() {
            self.partial.remove(&before);
        }
        let same_places = |change: &Change| change.place.is_ok() == change.entry.is_some();
        if changes.iter().all(same_places) {
            for change in changes {
                if let (Ok(place), Some((slot, _))) = (change.place, change.entry) {
                    self.slots[place] = slot;
                }
            }
        } else {
            let old = std::mem::take(&mut self.slots);
            self.slots = Vec::with_capacity(old.len() + changes.len());
            let mut copied = 0;
            for change in changes {
                let (place, next) = match change.place {
                    Ok(place) => (place, place + 1),
                    Err(place) => (place, place),
                };
                self.slots.extend_from_slice(&old[copied..place]);
                self.slots.extend(change.entry.map(|(slot, _)| slot));
                copied = next;
            }
            self.slots.extend_from_slice(&old[copied..]);
        }
        for (slot, completeness) in changes.iter().filter_map(|change| change.entry) {
            self.set_completeness(slot, completeness);
        }
    }
}
