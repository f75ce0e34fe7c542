//! What is claimed and by whom: every distinct entry once, however many nodes report it, and the holders of a content.
//!
//! A list has millions of entries and most of them are the same on many nodes, so an entry is stored once as a *claim*
//! (all of it but the completeness, which is the node's own) and a list refers to it by a slot of four bytes. Slots are
//! counted and reused. With a million files on 24 nodes each, this is what keeps the index within a few hundred MiB.

use std::hash::{BuildHasher, RandomState};

use hashbrown::{HashTable, hash_table::Entry};
use quarta_protocols::{
    ids::ContentId,
    messages::inventory::{Completeness, Item, Key},
};

/// Entries of one node's list that are kept as holdings of one content.
///
/// An honest list has two at most, one in the library and one in the vault. But records that name another file's
/// content can be published by anybody, so such a list must not be refused: what is above the bound is listed and only
/// not searched through when the content is looked up, so that the work for each entry stays bounded.
const HOLDINGS_PER_NODE_MAX: usize = 16;

/// Where a claim is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u32);

/// A node, by its place among the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeSlot(pub(super) u32);

/// One node's entry with a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holding {
    pub(super) node: NodeSlot,
    pub(super) slot: Slot,
}

#[derive(Debug)]
struct Claim {
    /// Its completeness is always `Complete`, so that equal claims are equal items.
    item: Item,
    /// How many lists, being received or in use, refer to it.
    references: u32,
    /// Where its content is kept.
    content: u32,
}

#[derive(Debug)]
struct Content {
    id: ContentId,
    /// How many claims name it.
    claims: u32,
    /// Sorted.
    holdings: Vec<Holding>,
}

/// All claims and contents.
#[derive(Debug, Default)]
pub(super) struct Claims {
    slots: Slab<Claim>,
    contents: Slab<Content>,
    by_key: HashTable<u32>,
    by_content: HashTable<u32>,
    files: usize,
    // Keyed at random: nodes choose the ids they report.
    hasher: RandomState,
}

impl Claims {
    /// The slot of this item's claim, counted as one reference more.
    pub(super) fn acquire(&mut self, mut item: Item) -> Slot {
        set_completeness(&mut item, Completeness::Complete);
        let key = item.key();
        let hash = self.hasher.hash_one(key);
        let Self { slots, by_key, .. } = self;
        if let Some(slot) = by_key.find(hash, |slot| slots.get(*slot).item == item) {
            slots.get_mut(*slot).references += 1;
            return Slot(*slot);
        }
        let known = by_key.find(hash, |slot| slots.get(*slot).item.key() == key).is_some();
        self.files += usize::from(!known && matches!(key, Key::Library(_)));
        let content = self.acquire_content(item.content());
        let Self { slots, by_key, hasher, .. } = self;
        let slot = slots.insert(Claim { item, references: 1, content });
        by_key.insert_unique(hash, slot, |slot| hasher.hash_one(slots.get(*slot).item.key()));
        Slot(slot)
    }

    /// Gives up one reference; the last one frees the slot.
    pub(super) fn release(&mut self, slot: Slot) {
        let claim = self.slots.get_mut(slot.0);
        claim.references -= 1;
        if claim.references > 0 {
            return;
        }
        let claim = self.slots.remove(slot.0);
        let key = claim.item.key();
        let hash = self.hasher.hash_one(key);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == slot.0) {
            entry.remove();
        }
        let Self { slots, by_key, .. } = self;
        let known = by_key.find(hash, |slot| slots.get(*slot).item.key() == key).is_some();
        self.files -= usize::from(!known && matches!(key, Key::Library(_)));
        self.release_content(claim.content);
    }

    fn acquire_content(&mut self, id: ContentId) -> u32 {
        let Self { contents, by_content, hasher, .. } = self;
        let entry = by_content.entry(
            hasher.hash_one(id),
            |slot| contents.get(*slot).id == id,
            |slot| hasher.hash_one(contents.get(*slot).id),
        );
        match entry {
            Entry::Occupied(entry) => {
                contents.get_mut(*entry.get()).claims += 1;
                *entry.get()
            }
            Entry::Vacant(entry) => {
                let slot = contents.insert(Content { id, claims: 1, holdings: Vec::new() });
                entry.insert(slot);
                slot
            }
        }
    }

    fn release_content(&mut self, slot: u32) {
        let content = self.contents.get_mut(slot);
        content.claims -= 1;
        if content.claims > 0 {
            return;
        }
        let content = self.contents.remove(slot);
        let hash = self.hasher.hash_one(content.id);
        if let Ok(entry) = self.by_content.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    /// Makes a node a holder by this claim.
    pub(super) fn link(&mut self, slot: Slot, node: NodeSlot) {
        let holdings = &mut self.contents.get_mut(self.slots.get(slot.0).content).holdings;
        let holding = Holding { node, slot };
        let Err(place) = holdings.binary_search(&holding) else { return };
        let first = holdings.partition_point(|other| other.node < node);
        let of_node = holdings[first..].iter().take_while(|other| other.node == node);
        if of_node.take(HOLDINGS_PER_NODE_MAX).count() == HOLDINGS_PER_NODE_MAX {
            return;
        }
        if holdings.len() == holdings.capacity() {
            // A quarter more, not double: with a million contents the unused places would weigh as much as the rest.
            holdings.reserve_exact(holdings.len() / 4 + 1);
        }
        holdings.insert(place, holding);
    }

    /// Undoes [`Self::link`].
    pub(super) fn unlink(&mut self, slot: Slot, node: NodeSlot) {
        let holdings = &mut self.contents.get_mut(self.slots.get(slot.0).content).holdings;
        if let Ok(place) = holdings.binary_search(&Holding { node, slot }) {
            holdings.remove(place);
        }
    }

    /// The holdings of a content, those of one node beside each other.
    pub(super) fn holdings(&self, content: &ContentId) -> &[Holding] {
        self.by_content
            .find(self.hasher.hash_one(content), |slot| self.contents.get(*slot).id == *content)
            .map_or(&[], |slot| &self.contents.get(*slot).holdings)
    }

    /// Which entry a claim is.
    pub(super) fn key(&self, slot: Slot) -> Key {
        self.slots.get(slot.0).item.key()
    }

    /// Whether it is a file of a library that not every member may know of: such files are reported without checksum.
    pub(super) fn is_restricted(&self, slot: Slot) -> bool {
        matches!(self.slots.get(slot.0).item, Item::Library { sha256: None, .. })
    }

    /// The entry as a node reports it.
    pub(super) fn item(&self, slot: Slot, completeness: Completeness) -> Item {
        let mut item = self.slots.get(slot.0).item.clone();
        set_completeness(&mut item, completeness);
        item
    }

    /// Distinct files that are claimed.
    pub(super) const fn files(&self) -> usize {
        self.files
    }

    /// Distinct contents that are claimed.
    pub(super) fn contents(&self) -> usize {
        self.by_content.len()
    }

    /// Distinct claims.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// References to all claims together.
    #[cfg(test)]
    pub(super) fn references(&self) -> usize {
        self.by_key.iter().map(|slot| self.slots.get(*slot).references as usize).sum()
    }
}

const fn set_completeness(item: &mut Item, value: Completeness) {
    match item {
        Item::Library { completeness, .. } | Item::Vault { completeness, .. } => *completeness = value,
    }
}

/// Values at places that stay, with freed places used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// # Panics
    /// Above 2³² values, which no machine that holds them in memory reaches by lists of bounded length.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(value);
            return place;
        }
        let place = u32::try_from(self.places.len()).expect("fewer than 2^32 claims fit the memory");
        self.places.push(Some(value));
        place
    }

    /// # Panics
    /// On a place that is free: whoever keeps a place also keeps a reference to it.
    pub(super) fn remove(&mut self, place: u32) -> T {
        self.free.push(place);
        self.places[place as usize].take().expect("a place in use")
    }

    /// # Panics
    /// On a place that is free.
    pub(super) fn get(&self, place: u32) -> &T {
        self.places[place as usize].as_ref().expect("a place in use")
    }

    /// # Panics
    /// On a place that is free.
    pub(super) fn get_mut(&mut self, place: u32) -> &mut T {
        self.places[place as usize].as_mut().expect("a place in use")
    }
}
