//! The index against nodes that report honestly over a network that loses, repeats and reorders, and against others.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quarta_protocols::{
    content::FILE_MAX_BYTES,
    ids::{FileId, Sha256},
    names::FileName,
};

use super::*;

fn library(file: u8, content: u8, completeness: Completeness) -> Item {
    Item::Library {
        file: FileId::from_bytes([file; 32]),
        name: FileName::new(&format!("{file}.txt")).unwrap(),
        size_bytes: 10 * CHUNK_MIN_BYTES,
        sha256: Some(Sha256::from_bytes([content; 32])),
        content: content_id(content),
        completeness,
    }
}

fn vault(content: u8, completeness: Completeness) -> Item {
    Item::Vault { content: content_id(content), size_bytes: 10 * CHUNK_MIN_BYTES, completeness }
}

fn content_id(content: u8) -> ContentId {
    ContentId::from_bytes([content; 32])
}

const COMPLETE: Completeness = Completeness::Complete;

fn at(revision: u64) -> Position {
    Position { epoch: 1, revision }
}

fn summary(items: &[Item]) -> Summary {
    let mut summary = Summary::default();
    for item in items {
        summary.add(item);
    }
    summary
}

fn full(revision: u64, items: &[Item]) -> Page {
    Page {
        coverage: Coverage::Full { after: None },
        position: at(revision),
        last: true,
        present: items.to_vec(),
        gone: vec![],
        summary: summary(items),
    }
}

fn changes(since: u64, revision: u64, present: &[Item], gone: &[Key], whole: &[Item]) -> Page {
    Page {
        coverage: Coverage::Since(at(since)),
        position: at(revision),
        last: true,
        present: present.to_vec(),
        gone: gone.to_vec(),
        summary: summary(whole),
    }
}

fn stands(revision: u64) -> Outcome {
    Outcome::Stands { position: at(revision), verified: true }
}

fn holders(index: &Index, content: u8) -> Vec<(PeerId, Completeness)> {
    index.holders(&content_id(content)).collect()
}

#[test]
fn a_content_in_library_and_vault_of_a_node_has_one_holder_with_the_most_of_it() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let items = [library(1, 7, Completeness::Partial(3)), vault(7, Completeness::Partial(5))];
    assert_eq!(index.apply(peer, full(1, &items)), stands(1));
    assert_eq!(holders(&index, 7), [(peer, Completeness::Partial(5))]);
    assert_eq!(index.stats(), Stats { entries: 2, files: 1, contents: 1 });
    assert_eq!(index.files_of(&peer), 1);

    let now = [library(1, 7, COMPLETE)];
    assert_eq!(index.apply(peer, changes(1, 3, &now, &[items[1].key()], &now)), stands(3));
    assert_eq!(holders(&index, 7), [(peer, COMPLETE)]);
    assert_eq!(index.list_of(&peer, None, 10), now);
}

#[test]
fn the_previous_list_serves_until_the_last_page_of_its_replacement() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    index.apply(peer, full(1, &[library(1, 1, COMPLETE)]));
    let new = [library(2, 2, COMPLETE), library(3, 3, COMPLETE)];
    let mut first = full(5, &new[..1]);
    first.last = false;
    assert_eq!(index.apply(peer, first), Outcome::Staged);
    assert_eq!(holders(&index, 1).len(), 1);
    assert!(holders(&index, 2).is_empty());
    assert_eq!(index.wanted(&peer), Wanted { since: None, after: Some(new[0].key()) });

    let mut second = full(5, &new);
    second.coverage = Coverage::Full { after: Some(new[0].key()) };
    second.present.remove(0);
    assert_eq!(index.apply(peer, second), stands(5));
    assert!(holders(&index, 1).is_empty());
    assert_eq!((holders(&index, 2).len(), holders(&index, 3).len()), (1, 1));
    assert_eq!(index.wanted(&peer), Wanted { since: Some(at(5)), after: None });
}

#[test]
fn a_full_list_that_changed_between_its_pages_stands_at_its_first_page_until_the_changes_follow() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let (one, two) = (library(1, 1, COMPLETE), library(2, 2, COMPLETE));
    let mut first = full(5, std::slice::from_ref(&one));
    first.last = false;
    index.apply(peer, first);
    let mut second = full(6, std::slice::from_ref(&two));
    second.coverage = Coverage::Full { after: Some(one.key()) };
    assert_eq!(index.apply(peer, second), Outcome::Stands { position: at(5), verified: false });
    let page = changes(5, 6, &[], &[one.key()], std::slice::from_ref(&two));
    assert_eq!(index.apply(peer, page), stands(6));
    assert!(holders(&index, 1).is_empty());
}

#[test]
fn a_list_that_differs_from_its_digest_is_not_indexed_and_asked_for_in_full() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let items = [library(1, 1, COMPLETE)];
    index.apply(peer, full(1, &items));
    let wrong = changes(1, 2, &[library(2, 2, COMPLETE)], &[], &items);
    assert_eq!(index.apply(peer, wrong), Outcome::Unusable(Unusable::Differs));
    assert!(holders(&index, 2).is_empty());
    assert_eq!(holders(&index, 1).len(), 1, "what was right before serves on");
    assert_eq!(index.wanted(&peer), Wanted::default());

    let mut wrong = full(3, &[library(2, 2, COMPLETE)]);
    wrong.summary = Summary::default();
    assert_eq!(index.apply(peer, wrong), Outcome::Unusable(Unusable::Differs));
    assert!(holders(&index, 2).is_empty());
}

#[test]
fn changes_are_taken_only_where_they_continue_what_is_here() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let items = [library(1, 1, COMPLETE)];
    assert_eq!(
        index.apply(peer, changes(1, 2, &items, &[], &items)),
        Outcome::Unusable(Unusable::UnknownPosition)
    );
    index.apply(peer, full(4, &items));
    assert_eq!(index.apply(peer, changes(5, 6, &[], &[items[0].key()], &[])), Outcome::Elsewhere(at(4)));
    assert_eq!(index.apply(peer, changes(1, 3, &[], &[items[0].key()], &[])), Outcome::Elsewhere(at(4)));
    assert_eq!(index.apply(peer, changes(2, 4, &items, &[], &items)), stands(4), "repeated");
    let mut other_epoch = changes(4, 5, &[], &[items[0].key()], &[]);
    other_epoch.coverage = Coverage::Since(Position { epoch: 2, revision: 4 });
    other_epoch.position = Position { epoch: 2, revision: 5 };
    assert_eq!(index.apply(peer, other_epoch), Outcome::Unusable(Unusable::UnknownPosition));
    assert_eq!(index.list_of(&peer, None, 9), items);
}

#[test]
fn pages_that_cannot_be_true_are_refused_and_change_nothing() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let items = [library(1, 1, COMPLETE), library(2, 2, COMPLETE)];
    index.apply(peer, full(1, &items));
    let huge = Item::Vault { content: content_id(9), size_bytes: FILE_MAX_BYTES + 1, completeness: COMPLETE };
    let mut not_last = full(2, &[]);
    not_last.last = false;
    let mut gone = full(2, &items);
    gone.gone = vec![items[0].key()];
    let twice = [items[0].clone(), items[0].clone()];
    for (page, refusal) in [
        (full(2, &[huge]), Refusal::ImpossibleSize),
        (full(2, &[vault(9, Completeness::Partial(11))]), Refusal::ImpossibleSize),
        (full(2, &[items[1].clone(), items[0].clone()]), Refusal::OutOfOrder),
        (full(2, &twice), Refusal::Duplicate),
        (changes(1, 2, &items, &[items[0].key()], &items), Refusal::Duplicate),
        (changes(1, 2, &twice, &[], &items), Refusal::Duplicate),
        (changes(2, 1, &[], &[], &items), Refusal::Malformed),
        (not_last, Refusal::Malformed),
        (gone, Refusal::Malformed),
    ] {
        assert_eq!(index.apply(peer, page), Outcome::Refused(refusal));
    }
    assert_eq!(index.list_of(&peer, None, 9), items);
    assert_eq!(index.position_of(&peer), Some(at(1)));
}

#[test]
fn a_nodes_number_of_files_tells_nobody_of_its_restricted_ones() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let restricted = |file, content| match library(file, content, COMPLETE) {
        Item::Library { file, name, size_bytes, content, completeness, .. } => {
            Item::Library { file, name, size_bytes, sha256: None, content, completeness }
        }
        vault @ Item::Vault { .. } => vault,
    };
    let items = [library(1, 1, COMPLETE), restricted(2, 2), vault(3, COMPLETE)];
    index.apply(peer, full(1, &items));
    assert_eq!(index.files_of(&peer), 1);
    // One more is added, one is restricted, one is opened, one goes.
    for (revision, item, files) in [
        (2, restricted(4, 4), 1),
        (3, restricted(1, 5), 0),
        (4, library(2, 2, COMPLETE), 1),
        (5, library(6, 6, COMPLETE), 2),
    ] {
        let mut list = index.list_of(&peer, None, 99);
        list.retain(|old| old.key() != item.key());
        list.push(item.clone());
        let page = changes(revision - 1, revision, &[item], &[], &list);
        assert_eq!(index.apply(peer, page), stands(revision));
        assert_eq!(index.files_of(&peer), files, "{revision}");
    }
    let gone = restricted(4, 4);
    let mut list = index.list_of(&peer, None, 99);
    list.retain(|old| old.key() != gone.key());
    assert_eq!(index.apply(peer, changes(5, 6, &[], &[gone.key()], &list)), stands(6));
    assert_eq!(index.files_of(&peer), 2);
}

#[test]
fn who_holds_a_content_is_told_with_how_it_holds_it() {
    let (mut index, [a, b, c]) = (Index::default(), [(); 3].map(|()| PeerId::random()));
    index.apply(a, full(1, &[library(1, 7, COMPLETE), vault(7, COMPLETE)]));
    index.apply(b, full(1, &[vault(7, COMPLETE)]));
    index.apply(c, full(1, &[library(1, 7, Completeness::Partial(2)), vault(7, Completeness::Partial(5))]));
    let mut held: Vec<_> =
        index.held(&content_id(7)).map(|held| (held.peer, held.vault, held.complete)).collect();
    held.sort();
    let mut expected = vec![(a, false, true), (b, true, true), (c, true, false)];
    expected.sort();
    assert_eq!(held, expected);
}

#[test]
fn a_list_is_shown_page_by_page() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let items: Vec<Item> = (0..7).map(|n| library(n, n, COMPLETE)).chain([vault(9, COMPLETE)]).collect();
    index.apply(peer, full(1, &items));
    let (mut shown, mut after) = (Vec::new(), None);
    loop {
        let page = index.list_of(&peer, after, 3);
        let Some(last) = page.last() else { break };
        after = Some(last.key());
        shown.extend(page);
    }
    assert_eq!(shown, items);
    assert_eq!(index.files_of(&peer), 7);
}

#[test]
fn a_node_that_lists_one_content_under_very_many_files_stays_one_holder() {
    let (mut index, peer) = (Index::default(), PeerId::random());
    let items: Vec<Item> = (0..200).map(|n| library(n, 1, COMPLETE)).collect();
    assert_eq!(index.apply(peer, full(1, &items)), stands(1));
    assert_eq!(holders(&index, 1), [(peer, COMPLETE)]);
    index.remove(&peer);
    assert!(holders(&index, 1).is_empty());
    assert_eq!(index.stats(), Stats::default());
}

/// A node with a journal, as simply as it can be written.
#[derive(Debug, Clone, Default)]
struct Model {
    epoch: u64,
    revision: u64,
    items: BTreeMap<Key, Item>,
    /// At which revision a key last changed.
    changed: BTreeMap<Key, u64>,
}

impl Model {
    fn position(&self) -> Position {
        Position { epoch: self.epoch, revision: self.revision }
    }

    fn set(&mut self, item: Item) {
        self.revision += 1;
        self.changed.insert(item.key(), self.revision);
        self.items.insert(item.key(), item);
    }

    fn remove(&mut self, key: Key) {
        self.revision += 1;
        self.changed.insert(key, self.revision);
        self.items.remove(&key);
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.revision = 0;
        self.changed.clear();
    }

    fn answer(&self, wanted: Wanted, size: usize) -> Page {
        let summary = summary(&self.items.values().cloned().collect::<Vec<_>>());
        if let Some(since) = wanted.since.filter(|since| since.epoch == self.epoch) {
            let mut keys: Vec<_> = self.changed.iter().filter(|(_, at)| **at > since.revision).collect();
            keys.sort_by_key(|(_, at)| **at);
            let last = keys.len() <= size;
            keys.truncate(size);
            let revision = if last { self.revision } else { *keys.last().unwrap().1 };
            let (present, gone): (Vec<_>, Vec<_>) =
                keys.iter().map(|(key, _)| **key).partition(|key| self.items.contains_key(key));
            return Page {
                coverage: Coverage::Since(since),
                position: Position { epoch: self.epoch, revision },
                last,
                present: present.iter().map(|key| self.items[key].clone()).collect(),
                gone,
                summary,
            };
        }
        let after = wanted.after.filter(|_| wanted.since.is_none());
        let mut rest = self.items.values().filter(|item| Some(item.key()) > after);
        let present: Vec<Item> = rest.by_ref().take(size).cloned().collect();
        let last = rest.next().is_none();
        Page {
            coverage: Coverage::Full { after },
            position: self.position(),
            last,
            present,
            gone: vec![],
            summary,
        }
    }
}

/// What the index says must be what its lists say, and nothing may be kept that no list refers to.
fn assert_consistent(index: &Index, peers: &[PeerId]) {
    let mut expected: BTreeMap<ContentId, BTreeMap<PeerId, u64>> = BTreeMap::new();
    let mut entries = 0;
    for peer in peers {
        for item in index.list_of(peer, None, usize::MAX) {
            let most = expected.entry(item.content()).or_default().entry(*peer).or_default();
            *most = (*most).max(rank(item.completeness()));
            entries += 1;
        }
    }
    for content in (0..16).map(content_id) {
        let found: Vec<_> = index.holders(&content).collect();
        let distinct: BTreeMap<_, _> = found.iter().map(|(peer, held)| (*peer, rank(*held))).collect();
        assert_eq!(distinct.len(), found.len(), "a holder is named once");
        assert_eq!(distinct, expected.remove(&content).unwrap_or_default());
    }
    let referred: Vec<claims::Slot> = index
        .by_peer
        .values()
        .map(|node| index.nodes.get(node.0))
        .flat_map(|node| {
            node.list.slots().iter().chain(node.staging.iter().flat_map(|s| s.list.slots())).copied()
        })
        .collect();
    assert_eq!(index.claims.references(), referred.len());
    let claims: BTreeSet<_> = referred.into_iter().collect();
    assert_eq!(index.claims.len(), claims.len());
    let keys: BTreeSet<Key> = claims.iter().map(|slot| index.claims.key(*slot)).collect();
    let contents: BTreeSet<ContentId> =
        claims.iter().map(|slot| index.claims.item(*slot, COMPLETE).content()).collect();
    let files = keys.iter().filter(|key| matches!(key, Key::Library(_))).count();
    assert_eq!(index.stats(), Stats { entries, files, contents: contents.len() });
}

#[derive(Debug, Clone)]
enum Step {
    Set {
        node: usize,
        item: Item,
    },
    Remove {
        node: usize,
        pick: usize,
    },
    Restart {
        node: usize,
    },
    /// The node answers what the index wants; the answer is under way from now on.
    Ask {
        node: usize,
        size: usize,
    },
    /// The node sends a page unasked, from some revision on.
    Push {
        node: usize,
        since: Option<u64>,
        size: usize,
    },
    /// One of the pages under way arrives, and stays under way where repeated.
    Deliver {
        pick: usize,
        again: bool,
    },
    Forget {
        node: usize,
    },
}

const NODES: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let completeness = prop_oneof![2 => Just(COMPLETE), 1 => (0u32..10).prop_map(Completeness::Partial)];
    let item = (any::<bool>(), 0u8..12, 0u8..16, completeness).prop_map(|(lib, file, content, held)| {
        if lib { library(file, content, held) } else { vault(content, held) }
    });
    let node = 0..NODES;
    prop::collection::vec(
        prop_oneof![
            6 => (node.clone(), item).prop_map(|(node, item)| Step::Set { node, item }),
            3 => (node.clone(), any::<usize>()).prop_map(|(node, pick)| Step::Remove { node, pick }),
            1 => node.clone().prop_map(|node| Step::Restart { node }),
            6 => (node.clone(), 1usize..5).prop_map(|(node, size)| Step::Ask { node, size }),
            2 => (node.clone(), prop::option::of(0u64..20), 1usize..5)
                .prop_map(|(node, since, size)| Step::Push { node, since, size }),
            8 => (any::<usize>(), any::<bool>()).prop_map(|(pick, again)| Step::Deliver { pick, again }),
            1 => node.prop_map(|node| Step::Forget { node }),
        ],
        0..80,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_index_becomes_what_the_nodes_have_whatever_happens_to_their_pages(steps in steps()) {
        let peers: Vec<PeerId> = (0..NODES).map(|_| PeerId::random()).collect();
        let (mut index, mut models) = (Index::default(), vec![Model::default(); NODES]);
        let mut under_way: Vec<(usize, Page)> = Vec::new();
        for step in steps {
            match step {
                Step::Set { node, item } => models[node].set(item),
                Step::Remove { node, pick } => {
                    let keys: Vec<Key> = models[node].items.keys().copied().collect();
                    if !keys.is_empty() {
                        models[node].remove(keys[pick % keys.len()]);
                    }
                }
                Step::Restart { node } => models[node].restart(),
                Step::Ask { node, size } => {
                    under_way.push((node, models[node].answer(index.wanted(&peers[node]), size)));
                }
                Step::Push { node, since, size } => {
                    let model = &models[node];
                    let since = since.filter(|since| *since <= model.revision);
                    let since = since.map(|revision| Position { epoch: model.epoch, revision });
                    under_way.push((node, model.answer(Wanted { since, after: None }, size)));
                }
                Step::Deliver { pick, again } => {
                    if under_way.is_empty() {
                        continue;
                    }
                    let pick = pick % under_way.len();
                    let (node, page) =
                        if again { under_way[pick].clone() } else { under_way.swap_remove(pick) };
                    let outcome = index.apply(peers[node], page);
                    prop_assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
                }
                Step::Forget { node } => index.remove(&peers[node]),
            }
            assert_consistent(&index, &peers);
        }
        for (peer, model) in peers.iter().zip(&models) {
            let settled = (0..60).any(|_| {
                let outcome = index.apply(*peer, model.answer(index.wanted(peer), 2));
                outcome == Outcome::Stands { position: model.position(), verified: true }
            });
            prop_assert!(settled);
            let list = index.list_of(peer, None, usize::MAX);
            prop_assert_eq!(list, model.items.values().cloned().collect::<Vec<_>>());
        }
        assert_consistent(&index, &peers);
        for peer in &peers {
            index.remove(peer);
        }
        prop_assert_eq!(index.stats(), Stats::default());
        prop_assert_eq!((index.claims.len(), index.claims.contents()), (0, 0));
    }
}
