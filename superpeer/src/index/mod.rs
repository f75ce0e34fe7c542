//! What every node holds, in memory.
//!
//! Nodes report their lists as full pages and as changes since a position ([`quarta_protocols::messages::inventory`]);
//! this is the receiving side. It guarantees:
//!
//! - A list that cannot be true is refused with its reason and changes nothing.
//! - A full list replaces the previous one at once, when its last page is there; until then the previous one serves.
//! - Pages may be lost, repeated or arrive in another order: what they cannot continue, they do not change, and the
//!   answer says from where to go on. Changes are idempotent, so pages from registrations and polls may overlap.
//! - Count and digest of the whole list are checked whenever the list stands exactly where the page was made. A list
//!   that differs is not indexed, and the next request asks for all of it.
//!
//! A full list of several pages stands at the position of its *first* page: the later ones may have changes already
//! that others lack, and the changes after that position bring all of it up to date.
//!
//! Who is available is not known here: health decides, and callers filter.

mod claims;
mod list;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use libp2p::PeerId;
use quarta_protocols::{
    content::CHUNK_MIN_BYTES,
    ids::{ContentId, FileId, ID_BYTES},
    limits::INVENTORY_ENTRIES_MAX,
    messages::{
        index::Registered,
        inventory::{Completeness, Coverage, Item, Key, Page, Position, Summary},
    },
};

use claims::{Claims, NodeSlot, Slab};
use list::{Change, List, Staging};

use crate::replication::{self, Lists};

/// The lists of all nodes.
#[derive(Debug, Default)]
pub struct Index {
    claims: Claims,
    nodes: Slab<Node>,
    by_peer: HashMap<PeerId, NodeSlot>,
    entries: usize,
}

#[derive(Debug)]
struct Node {
    peer: PeerId,
    /// Where `list` stands; none where it is not known to be what the node has.
    position: Option<Position>,
    list: List,
    staging: Option<Staging>,
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The list stands at this position.
    Stands {
        /// The position.
        position: Position,
        /// Whether it was found to be exactly what the node has. Otherwise more is to be asked for at once. Whoever
        /// does so bounds how often: a node can go on for ever.
        verified: bool,
    },
    /// The page is part of a full list that has further pages.
    Staged,
    /// The page does not continue what is here, which stands at this position and serves on.
    Elsewhere(Position),
    /// Nothing can be done with the page; the full list is needed.
    Unusable(Unusable),
    /// The page cannot be true.
    Refused(Refusal),
}

impl Outcome {
    /// The answer to a node that registered the page; none where it is refused.
    pub const fn registered(self) -> Option<Registered> {
        match self {
            Self::Stands { position, .. } | Self::Elsewhere(position) => Some(Registered::At(position)),
            Self::Staged => Some(Registered::Continue),
            Self::Unusable(_) => Some(Registered::SendAll),
            Self::Refused(_) => None,
        }
    }
}

/// Why the full list is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// Changes to a list that is not here, or of another epoch.
    UnknownPosition,
    /// A page of a full list of which the pages before it are not here.
    Gap,
    /// Count or digest are not those of the node's list.
    Differs,
}

/// Why a page is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// A size above the largest file, or more chunks than the size has.
    #[error("an entry's size or number of chunks is not possible")]
    ImpossibleSize,
    /// A key twice.
    #[error("an entry occurs twice")]
    Duplicate,
    /// A full page's keys are not in order, or not after the page before.
    #[error("the entries are not in order")]
    OutOfOrder,
    /// Removals in a full page, changes that lead backwards, or a page that leads nowhere.
    #[error("the page contradicts itself")]
    Malformed,
    /// More than [`INVENTORY_ENTRIES_MAX`] entries.
    #[error("a member may have at most {INVENTORY_ENTRIES_MAX} entries")]
    TooMany,
}

/// What to ask a node for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The changes after this position; none for the full list.
    pub since: Option<Position>,
    /// Where the full list goes on.
    pub after: Option<Key>,
}

/// What one node has of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// The node.
    pub peer: PeerId,
    /// How much of it is in its library; none where it is not there.
    pub library: Option<Completeness>,
    /// How much of it is in its vault; none where it is not there.
    pub vault: Option<Completeness>,
}

/// A node's holding of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The node.
    pub peer: PeerId,
    /// Whether it is in the vault only, and not in the library.
    pub vault: bool,
    /// Whether all of it is there.
    pub complete: bool,
}

/// How much is indexed. Lists that are being received count for files and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Entries of all lists.
    pub entries: usize,
    /// Distinct files.
    pub files: usize,
    /// Distinct contents.
    pub contents: usize,
}

impl Index {
    /// Takes in a page of a node's list.
    pub fn apply(&mut self, peer: PeerId, page: Page) -> Outcome {
        if let Err(refusal) = check(&page) {
            return Outcome::Refused(refusal);
        }
        let node = self.node(peer);
        match page.coverage {
            Coverage::Full { after } => self.apply_full(node, after, page),
            Coverage::Since(since) => self.apply_changes(node, since, page),
        }
    }

    fn node(&mut self, peer: PeerId) -> NodeSlot {
        *self.by_peer.entry(peer).or_insert_with(|| {
            NodeSlot(self.nodes.insert(Node { peer, position: None, list: List::default(), staging: None }))
        })
    }

    fn apply_full(&mut self, node: NodeSlot, after: Option<Key>, page: Page) -> Outcome {
        let mut staging = match self.continued(node, after, page.position) {
            Ok(staging) => staging,
            Err(outcome) => return outcome,
        };
        if staging.list.len() + page.present.len() > INVENTORY_ENTRIES_MAX {
            self.release(&staging.list);
            return Outcome::Refused(Refusal::TooMany);
        }
        staging.latest = staging.latest.max(page.position);
        for item in page.present {
            staging.list.push(item, &mut self.claims);
        }
        if !page.last {
            self.nodes.get_mut(node.0).staging = Some(staging);
            return Outcome::Staged;
        }
        // Pages made at different positions need not add up to any list that the node ever had.
        let verified = staging.first == staging.latest;
        if verified && staging.list.summary != page.summary {
            self.release(&staging.list);
            return self.distrust(node);
        }
        staging.list.shrink();
        let position = staging.first;
        self.replace(node, staging.list);
        self.nodes.get_mut(node.0).position = Some(position);
        Outcome::Stands { position, verified }
    }

    /// Takes out the staging that a full page continues, or a new one for a first page.
    fn continued(
        &mut self,
        node: NodeSlot,
        after: Option<Key>,
        position: Position,
    ) -> Result<Staging, Outcome> {
        let Some(after) = after else {
            self.drop_staging(node);
            return Ok(Staging { first: position, latest: position, list: List::default() });
        };
        let gap = Outcome::Unusable(Unusable::Gap);
        let staging = self.nodes.get_mut(node.0).staging.take().ok_or(gap)?;
        if position.epoch != staging.first.epoch || position < staging.first {
            // Another run: what these pages add up to would not be brought up to date by the changes since the first.
            self.release(&staging.list);
            return Err(gap);
        }
        let last = staging.list.last_key(&self.claims);
        if last == Some(after) {
            return Ok(staging);
        }
        // Here already, or a page that came too early: the run goes on where it stands.
        self.nodes.get_mut(node.0).staging = Some(staging);
        Err(if last > Some(after) { Outcome::Staged } else { gap })
    }

    fn apply_changes(&mut self, node: NodeSlot, since: Position, page: Page) -> Outcome {
        let Some(position) = self.nodes.get(node.0).position.filter(|held| held.epoch == since.epoch) else {
            return Outcome::Unusable(Unusable::UnknownPosition);
        };
        // A page that begins earlier has the changes since here too, and changes are idempotent; one that ends earlier
        // would undo some.
        if since > position || page.position < position {
            return Outcome::Elsewhere(position);
        }
        let (changes, after) = self.prepare(node, page.present, page.gone);
        let old = &self.nodes.get(node.0).list;
        let grown =
            changes.iter().filter(|change| change.entry.is_some() && old.replaced_by(change).is_none());
        let shrunk =
            changes.iter().filter(|change| change.entry.is_none() && old.replaced_by(change).is_some());
        let len = (old.len() + grown.count()).saturating_sub(shrunk.count());
        let too_many = len > INVENTORY_ENTRIES_MAX;
        if too_many || (page.last && after != page.summary) {
            for (slot, _) in changes.iter().filter_map(|change| change.entry) {
                self.claims.release(slot);
            }
            return if too_many { Outcome::Refused(Refusal::TooMany) } else { self.distrust(node) };
        }
        self.commit(node, &changes, after);
        self.nodes.get_mut(node.0).position = Some(page.position);
        if page.last {
            // The list is known to be right: what is being received of a full one is of no use any more.
            self.drop_staging(node);
        }
        Outcome::Stands { position: page.position, verified: page.last }
    }

    /// The changes, sorted, with references to the claims taken, and the summary of the list after them.
    fn prepare(&mut self, node: NodeSlot, present: Vec<Item>, gone: Vec<Key>) -> (Vec<Change>, Summary) {
        let Self { claims, nodes, .. } = self;
        let list = &nodes.get(node.0).list;
        let mut summary = list.summary;
        let mut changes = Vec::with_capacity(present.len() + gone.len());
        let gone = gone.into_iter().map(|key| (key, None));
        for (key, item) in gone.chain(present.into_iter().map(|item| (item.key(), Some(item)))) {
            let mut change = list.change(key, claims);
            if let Some(before) = list.replaced_by(&change) {
                summary.remove(&claims.item(before, list.completeness(before)));
            }
            if let Some(item) = item {
                summary.add(&item);
                let completeness = item.completeness();
                change.entry = Some((claims.acquire(item), completeness));
            }
            changes.push(change);
        }
        changes.sort_unstable_by_key(|change| change.key);
        (changes, summary)
    }

    fn commit(&mut self, node: NodeSlot, changes: &[Change], summary: Summary) {
        let Self { claims, nodes, entries, .. } = self;
        let list = &mut nodes.get_mut(node.0).list;
        let before: Vec<_> = changes.iter().filter_map(|change| list.replaced_by(change)).collect();
        *entries -= list.len();
        list.apply(changes, claims);
        list.summary = summary;
        *entries += list.len();
        for slot in &before {
            claims.unlink(*slot, node);
        }
        for (slot, _) in changes.iter().filter_map(|change| change.entry) {
            claims.link(slot, node);
        }
        for slot in before {
            claims.release(slot);
        }
    }

    /// Puts a new list in the place of a node's list, touching only the holders of what differs.
    fn replace(&mut self, node: NodeSlot, list: List) {
        let old = std::mem::take(&mut self.nodes.get_mut(node.0).list);
        let (mut gone, mut come) = (old.slots(), list.slots());
        while let (Some((was, gone_rest)), Some((is, come_rest))) = (gone.split_first(), come.split_first()) {
            if was == is {
                // The usual case, and no key need be looked up.
                (gone, come) = (gone_rest, come_rest);
                continue;
            }
            let order = self.claims.key(*was).cmp(&self.claims.key(*is));
            if order.is_le() {
                self.claims.unlink(*was, node);
                gone = gone_rest;
            }
            if order.is_ge() {
                self.claims.link(*is, node);
                come = come_rest;
            }
        }
        for slot in gone {
            self.claims.unlink(*slot, node);
        }
        for slot in come {
            self.claims.link(*slot, node);
        }
        self.entries = self.entries - old.len() + list.len();
        self.release(&old);
        self.nodes.get_mut(node.0).list = list;
    }

    fn distrust(&mut self, node: NodeSlot) -> Outcome {
        self.drop_staging(node);
        self.nodes.get_mut(node.0).position = None;
        Outcome::Unusable(Unusable::Differs)
    }

    fn drop_staging(&mut self, node: NodeSlot) {
        if let Some(staging) = self.nodes.get_mut(node.0).staging.take() {
            self.release(&staging.list);
        }
    }

    fn release(&mut self, list: &List) {
        for slot in list.slots() {
            self.claims.release(*slot);
        }
    }

    /// What a poll asks this node for.
    pub fn wanted(&self, peer: &PeerId) -> Wanted {
        let Some(node) = self.get(peer) else { return Wanted::default() };
        match &node.staging {
            Some(staging) => Wanted { since: None, after: staging.list.last_key(&self.claims) },
            None => Wanted { since: node.position, after: None },
        }
    }

    /// Where this node's list stands; none where it is not here, or not known to be what the node has.
    pub fn position_of(&self, peer: &PeerId) -> Option<Position> {
        self.get(peer)?.position
    }

    /// Forgets a node's list.
    pub fn remove(&mut self, peer: &PeerId) {
        let Some(node) = self.by_peer.remove(peer) else { return };
        self.drop_staging(node);
        self.replace(node, List::default());
        self.nodes.remove(node.0);
    }

    /// Who holds a content, each node once with the most it reported.
    pub fn holders(&self, content: &ContentId) -> impl Iterator<Item = (PeerId, Completeness)> {
        self.claims.holdings(content).chunk_by(|a, b| a.node == b.node).filter_map(|of_node| {
            let node = self.nodes.get(of_node.first()?.node.0);
            let most = of_node
                .iter()
                .map(|holding| node.list.completeness(holding.slot))
                .max_by_key(|held| rank(*held))?;
            Some((node.peer, most))
        })
    }

    /// Who holds any of a content, each node once, with how much of it is in its library and in its vault.
    pub fn copies(&self, content: &ContentId) -> impl Iterator<Item = Copies> {
        self.claims.holdings(content).chunk_by(|a, b| a.node == b.node).filter_map(move |of_node| {
            let node = self.nodes.get(of_node.first()?.node.0);
            let most = |in_library: bool| {
                let of_kind = of_node.iter().filter(move |holding| {
                    matches!(self.claims.key(holding.slot), Key::Library(_)) == in_library
                });
                of_kind.map(|holding| node.list.completeness(holding.slot)).max_by_key(|held| rank(*held))
            };
            Some(Copies { peer: node.peer, library: most(true), vault: most(false) })
        })
    }

    /// Who holds a content and how, each node once: as a file of its library where that is as complete as its replica.
    pub fn held(&self, content: &ContentId) -> impl Iterator<Item = Held> {
        self.copies(content).filter_map(|copies| {
            // Of equals the last one is taken.
            let most = [copies.vault, copies.library].into_iter().flatten().max_by_key(|held| rank(*held))?;
            Some(Held {
                peer: copies.peer,
                vault: copies.library != Some(most),
                complete: most == Completeness::Complete,
            })
        })
    }

    /// The entries of a node's list after `after`, in key order, at most `limit`; empty for an unknown node.
    pub fn list_of(&self, peer: &PeerId, after: Option<Key>, limit: usize) -> Vec<Item> {
        let Some(node) = self.get(peer) else { return Vec::new() };
        let start = after.map_or(0, |after| node.list.place_after(after, &self.claims));
        let slots = node.list.slots()[start..].iter().take(limit);
        slots.map(|slot| self.claims.item(*slot, node.list.completeness(*slot))).collect()
    }

    /// How many files are in a node's library, restricted ones aside: whoever may not see those would find by the number
    /// that they are there.
    pub fn files_of(&self, peer: &PeerId) -> usize {
        self.get(peer).map_or(0, |node| node.list.open_files(&self.claims))
    }

    /// How much is indexed.
    pub fn stats(&self) -> Stats {
        Stats { entries: self.entries, files: self.claims.files(), contents: self.claims.contents() }
    }

    fn get(&self, peer: &PeerId) -> Option<&Node> {
        self.by_peer.get(peer).map(|node| self.nodes.get(node.0))
    }
}

/// Orders by how much is held.
const fn rank(completeness: Completeness) -> u64 {
    match completeness {
        Completeness::Partial(chunks) => chunks as u64,
        Completeness::Complete => u64::MAX,
    }
}

/// Whether a page can be true, as far as it tells by itself.
fn check(page: &Page) -> Result<(), Refusal> {
    if !page.present.iter().all(is_possible) {
        return Err(Refusal::ImpossibleSize);
    }
    match page.coverage {
        Coverage::Full { after } => {
            if !page.gone.is_empty() || (page.present.is_empty() && !page.last) {
                return Err(Refusal::Malformed);
            }
            let mut previous = after;
            for key in page.present.iter().map(Item::key) {
                match previous.cmp(&Some(key)) {
                    std::cmp::Ordering::Less => previous = Some(key),
                    std::cmp::Ordering::Equal => return Err(Refusal::Duplicate),
                    std::cmp::Ordering::Greater => return Err(Refusal::OutOfOrder),
                }
            }
        }
        Coverage::Since(since) => {
            let backwards = since.epoch != page.position.epoch || since > page.position;
            if backwards || (since == page.position && !page.last) {
                return Err(Refusal::Malformed);
            }
            let mut keys: Vec<Key> =
                page.present.iter().map(Item::key).chain(page.gone.iter().copied()).collect();
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(Refusal::Duplicate);
            }
        }
    }
    Ok(())
}

/// Whether a size and a number of chunks can be, and belong together.
fn is_possible(item: &Item) -> bool {
    let chunks_max = item.size_bytes().div_ceil(CHUNK_MIN_BYTES).max(1);
    let chunks_possible = match item.completeness() {
        Completeness::Complete => true,
        Completeness::Partial(chunks) => u64::from(chunks) <= chunks_max,
    };
    item.is_possible() && chunks_possible
}

impl Lists for Index {
    fn copies(&self, content: &ContentId) -> Vec<replication::Held> {
        let whole = |held: Completeness| held == Completeness::Complete;
        Self::copies(self, content)
            .map(|copies| replication::Held {
                peer: copies.peer,
                library: copies.library.is_some_and(whole),
                vault: copies.vault.map(whole),
            })
            .collect()
    }

    fn vault_of(&self, peer: &PeerId, after: Option<ContentId>, limit: usize) -> Vec<ContentId> {
        // Vaults come after libraries in the order of a list.
        let after = after.map_or(Key::Library(FileId::from_bytes([u8::MAX; ID_BYTES])), Key::Vault);
        let items = self.list_of(peer, Some(after), limit);
        items.iter().map(Item::content).collect()
    }
}
