//! Sessions between two catalogs that are sets in memory, over a wire that loses, repeats, breaks and lies.

use std::collections::BTreeMap;

use libp2p::{PeerId, identity::Keypair};
use proptest::prelude::*;
use quarta_protocols::{
    cbor,
    clock::HybridTime,
    ids::{ID_BYTES, NetworkId, RecordHash},
    limits::PAGE_MESSAGE_BYTES,
    messages::sync::{Stamp, item_hash},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};

use super::*;
use crate::reconciliation::answer;

type Key = (Kind, [u8; ID_BYTES]);

/// A kind whose entries are valid only where they are no longer than this.
const VALID_MAX_BYTES: usize = 100;
/// A kind that is taken only where the member it names is known: stands for stamps of unknown super-peers.
const VOUCHED: Kind = Kind(900);

/// A catalog: of two payloads of one thing the greater one stays.
#[derive(Debug, Clone, Default)]
struct Model {
    entries: BTreeMap<Key, Vec<u8>>,
    /// Where the entries stand, so that large ones are read in good time.
    places: BTreeMap<Position, Vec<Key>>,
    digest: Digest,
    trie: Trie,
}

impl Model {
    fn of(entries: impl IntoIterator<Item = (Key, Vec<u8>)>) -> Self {
        let mut model = Self::default();
        for (key, payload) in entries {
            if model.entries.get(&key).is_none_or(|old| *old < payload) {
                model.put(key, payload);
            }
        }
        model
    }

    fn put(&mut self, key: Key, payload: Vec<u8>) {
        if let Some(old) = self.entries.get(&key).cloned() {
            self.toggle(&key, &old, false);
        } else {
            self.places.entry(Position::of(key.0, &key.1)).or_default().push(key);
        }
        self.toggle(&key, &payload, true);
        self.entries.insert(key, payload);
    }

    fn toggle(&mut self, key: &Key, payload: &[u8], came: bool) {
        self.digest.toggle(key.0, &key.1, payload, came);
        self.trie.toggle(Item::of(key.0, &key.1, payload), came);
    }

    fn take(&mut self, entries: Vec<Entry>) -> (Taken, Response) {
        let (mut taken, mut known) = (Taken::default(), 0);
        for entry in entries {
            let key = (entry.kind, *entry.id);
            let vouched = entry.kind != VOUCHED || self.entries.contains_key(&(Kind::MEMBER, key.1));
            match self.entries.get(&key) {
                _ if entry.payload.len() > VALID_MAX_BYTES => taken.invalid += 1,
                Some(old) if *old == *entry.payload => known += 1,
                Some(old) if *old > *entry.payload => {
                    taken.superseded.push(Place { kind: entry.kind, id: entry.id });
                    known += 1;
                }
                _ if !vouched => {}
                _ => {
                    self.put(key, entry.payload.into_vec());
                    taken.stored += 1;
                }
            }
        }
        let response = Response::Taken { stored: taken.stored, known, invalid: taken.invalid };
        (taken, response)
    }

    fn items(&self, stretch: &Stretch, limit: usize) -> Items {
        let mut found = Items::default();
        for (from, to) in stretch.ranges() {
            for (position, keys) in self.places.range(from..=to) {
                if found.items.len() >= limit {
                    found.unread = Some(*position);
                    return found;
                }
                let mut tags: Vec<u64> =
                    keys.iter().map(|key| Item::tag(&item_hash(key.0, &key.1, &self.entries[key]))).collect();
                tags.sort_unstable();
                found.items.extend(tags.into_iter().map(|tag| Item { position: *position, tag }));
            }
        }
        found
    }

    /// Fewer at a time than a catalog reads, so that more is done in parts.
    fn read(&self, positions: &[Position]) -> (Vec<Entry>, u32) {
        let read = positions.len().min(7);
        let keys = positions[..read].iter().filter_map(|position| self.places.get(position)).flatten();
        (keys.map(|key| entry(*key, &self.entries[key])).collect(), u32::try_from(read).unwrap())
    }

    fn page(&self, after: Option<Place>) -> Response {
        let mut places: Vec<Key> = self.entries.keys().copied().collect();
        places.sort_by_key(|(kind, id)| rank(&Place { kind: *kind, id: ByteArray::new(*id) }));
        let left = places.into_iter().filter(|(kind, id)| {
            after.is_none_or(|after| rank(&Place { kind: *kind, id: ByteArray::new(*id) }) > rank(&after))
        });
        let mut page: Vec<Entry> = left.take(101).map(|key| entry(key, &self.entries[&key])).collect();
        let more = page.len() > 100;
        page.truncate(100);
        let next = page.last().filter(|_| more).map(|last| Place { kind: last.kind, id: last.id });
        Response::Page { entries: page, next }
    }

    fn answer(&mut self, request: Request) -> Response {
        match request {
            Request::Push(entries) => self.take(entries).1,
            Request::Page { after } => self.page(after),
            Request::Branches { level, prefixes } => {
                answer::branches(&self.trie, level, &prefixes.0).unwrap()
            }
            Request::Leaves { leaves, from, to, items } => {
                let stretch = Stretch::new(leaves.0, from, to).unwrap();
                let own = self.items(&stretch, answer::items_to_read(items.0.len()));
                answer::leaves(&items.0, &own)
            }
            Request::Entries(positions) => {
                let (entries, answered) = self.read(&positions.0);
                Response::Entries { entries, answered }
            }
            Request::Digest { .. } | Request::Compare { .. } => Response::Digest(self.digest),
        }
    }
}

fn entry(key: Key, payload: &[u8]) -> Entry {
    static STAMP: std::sync::LazyLock<Signed<Stamp>> = std::sync::LazyLock::new(|| {
        let stamp = Stamp {
            superpeer: PeerId::from_bytes(
                &Keypair::ed25519_from_bytes([1; 32]).unwrap().public().to_peer_id().to_bytes(),
            )
            .unwrap(),
            payload: RecordHash::of(b""),
            time: HybridTime { millis: 1_790_000_000_123, counter: 2 },
        };
        let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        Signed::new(&stamp, &NetworkId::from_bytes([0; 32]), &key)
    });
    Entry { kind: key.0, id: ByteArray::new(key.1), payload: ByteBuf::from(payload), stamp: STAMP.clone() }
}

/// A session over a wire: `carry` is given each request and what the other answers, and gives what arrives; none breaks
/// the connection. Gives how it ended and what was moved over the wire, in bytes.
struct Run {
    ending: Option<Ending>,
    tally: Tally,
    wire_bytes: usize,
}

fn run(
    own: &mut Model,
    other: &mut Model,
    mut carry: impl FnMut(&Request, Response, u32) -> Option<Response>,
) -> Run {
    run_beside(own, other, |_, request, answer, requests| carry(request, answer, requests))
}

/// As [`run`], with something that is done to the other catalog after each request.
fn run_beside(
    own: &mut Model,
    other: &mut Model,
    mut carry: impl FnMut(&mut Model, &Request, Response, u32) -> Option<Response>,
) -> Run {
    let (mut session, mut effect) = Session::begin();
    let mut wire_bytes = 0;
    loop {
        let input = match effect {
            Effect::Look => Input::Own(own.digest, own.trie.clone()),
            Effect::Compare(_) | Effect::Ask(_) | Effect::TakeBeside(..) => {
                let (request, taken) = match effect {
                    Effect::Compare(digest) => (Request::Compare { digest, addresses: Vec::new() }, None),
                    Effect::Ask(request) => (request, None),
                    Effect::TakeBeside(entries, request) => (request, Some(own.take(entries).0)),
                    _ => unreachable!(),
                };
                let asked_bytes = cbor::to_vec(&request).len();
                let honest = other.answer(request.clone());
                let Some(answer) = carry(other, &request, honest, session.tally().requests) else {
                    return Run { ending: None, tally: session.tally(), wire_bytes };
                };
                let answer_bytes = cbor::to_vec(&answer).len();
                assert!(asked_bytes.max(answer_bytes) <= PAGE_MESSAGE_BYTES, "{request:?}");
                wire_bytes += asked_bytes + answer_bytes;
                match taken {
                    None => Input::Answer(answer),
                    Some(taken) => Input::TakenBeside(taken, answer),
                }
            }
            Effect::List(stretch) => Input::Items(own.items(&stretch, SYNC_ITEMS_MAX)),
            Effect::Take(entries) => Input::Taken(own.take(entries).0),
            Effect::Read(positions) => {
                let (entries, read) = own.read(&positions);
                Input::Entries(entries, read)
            }
            Effect::End(ending) => {
                return Run { ending: Some(ending), tally: session.tally(), wire_bytes };
            }
        };
        effect = session.handle(input);
    }
}

fn honestly(own: &mut Model, other: &mut Model) -> Run {
    run(own, other, |_, answer, _| Some(answer))
}

fn key(kind: u16, number: u32) -> Key {
    let mut id = [0; ID_BYTES];
    id[..4].copy_from_slice(&number.to_be_bytes());
    (Kind(kind), id)
}

fn with(entries: Vec<(Key, Vec<u8>)>, more: &[(Key, Vec<u8>)]) -> Model {
    Model::of(entries.into_iter().chain(more.iter().cloned()))
}

fn union(a: &Model, b: &Model) -> BTreeMap<Key, Vec<u8>> {
    let mut all = a.entries.clone();
    for (key, payload) in &b.entries {
        let mine = all.entry(*key).or_default();
        *mine = mine.clone().max(payload.clone());
    }
    all
}

fn wire_bytes_of(entries: &[(Key, Vec<u8>)]) -> usize {
    entries.iter().map(|(key, payload)| cbor::to_vec(&entry(*key, payload)).len()).sum()
}

/// Files that both have, and some that only one of them has, of 60 bytes each.
fn apart(common: u32, only_own: u32, only_other: u32) -> (Model, Model, usize) {
    let file = |number: u32| (key(1, number), vec![u8::try_from(number % 251).unwrap(); 60]);
    let common: Vec<_> = (0..common).map(file).collect();
    let only_own: Vec<_> = (1_000_000..1_000_000 + only_own).map(file).collect();
    let only_other: Vec<_> = (2_000_000..2_000_000 + only_other).map(file).collect();
    let bytes = wire_bytes_of(&only_own) + wire_bytes_of(&only_other);
    let model = |own: &[_]| Model::of(common.iter().chain(own).cloned());
    (model(&only_own), model(&only_other), bytes)
}

/// Sets of entries over few things, so that the two sides often have versions of one thing.
fn entries() -> impl Strategy<Value = Vec<(Key, Vec<u8>)>> {
    let kind = prop_oneof![Just(1), Just(2), Just(3), Just(VOUCHED.0)];
    let payload = prop::collection::vec(any::<u8>(), 1..4);
    prop::collection::vec(((kind, 0..60_u32).prop_map(|(kind, id)| key(kind, id)), payload), 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_end_with_the_union(own in entries(), other in entries()) {
        let (mut own, mut other) = (Model::of(own), Model::of(other));
        let wanted = Model::of(union(&own, &other));
        // What is vouched for by nobody either side knows of is taken by neither.
        let unvouched = |model: &Model| {
            model.entries.keys().any(|(kind, id)| {
                *kind == VOUCHED && !wanted.entries.contains_key(&(Kind::MEMBER, *id))
            })
        };
        let stays_apart = unvouched(&own) || unvouched(&other);
        let done = honestly(&mut own, &mut other);
        if stays_apart {
            prop_assert!(matches!(done.ending, Some(Ending::Equal | Ending::Settled)), "{:?}", done.ending);
        } else {
            prop_assert_eq!(done.ending, Some(Ending::Equal));
            prop_assert!(own.entries == wanted.entries && other.entries == wanted.entries);
        }
        // Once more costs a comparison.
        prop_assert!(done.ending != Some(Ending::Equal) || honestly(&mut own, &mut other).tally.requests == 1);
    }

    #[test]
    fn a_session_cut_anywhere_and_begun_again_by_either_side_converges(
        own in entries(), other in entries(), cuts in prop::collection::vec((0..30_u32, any::<bool>(), any::<bool>()), 0..8),
    ) {
        let members: Vec<_> = (0..60).map(|id| (key(2, id), vec![255; 4])).collect();
        let (mut own, mut other) = (Model::of(own.into_iter().chain(members)), Model::of(other));
        let wanted = union(&own, &other);
        for (cut, swapped, delivered) in cuts {
            let (a, b) = if swapped { (&mut other, &mut own) } else { (&mut own, &mut other) };
            let before = b.clone();
            let broken = run(a, b, |_, answer, requests| (requests < cut).then_some(answer));
            if broken.ending.is_none() && !delivered && cut == 0 {
                // The very first request never arrived.
                *b = before;
            }
        }
        prop_assert_eq!(honestly(&mut own, &mut other).ending, Some(Ending::Equal));
        prop_assert!(own.entries == wanted && other.entries == wanted);
    }

    #[test]
    fn what_is_pushed_twice_or_written_meanwhile_does_no_harm(own in entries(), other in entries(), late in entries()) {
        let members: Vec<_> = (0..60).map(|id| (key(2, id), vec![255; 4])).collect();
        let (mut own, mut other) = (with(own, &members), with(other, &members));
        let wanted = union(&Model::of(union(&own, &other)), &with(late.clone(), &members));
        let mut late = late.into_iter();
        let done = run_beside(&mut own, &mut other, |other, _, answer, _| {
            if let Some((key, payload)) = late.next() {
                other.take(vec![entry(key, &payload), entry(key, &payload)]);
            }
            Some(answer)
        });
        prop_assert!(done.ending.is_some());
        for (key, payload) in late {
            other.take(vec![entry(key, &payload)]);
        }
        prop_assert_eq!(honestly(&mut own, &mut other).ending, Some(Ending::Equal));
        prop_assert!(own.entries == wanted && other.entries == wanted);
    }

    #[test]
    fn a_super_peer_that_answers_anything_brings_the_session_to_an_end(
        own in entries(), other in entries(), lies in prop::collection::vec((0..40_u32, lie()), 1..6),
    ) {
        let (mut own, mut other) = (Model::of(own), Model::of(other));
        let before = own.clone();
        let done = run(&mut own, &mut other, |_, answer, requests| {
            let told = lies.iter().find(|(at, _)| *at == requests);
            Some(told.map_or(answer, |(_, lie)| lie.clone()))
        });
        prop_assert!(done.ending.is_some());
        // Whatever is said, what was there only moves forward.
        for (key, payload) in &before.entries {
            prop_assert!(own.entries[key] >= *payload);
        }
    }
}

fn lie() -> impl Strategy<Value = Response> {
    let position = || (any::<u16>(), any::<u32>()).prop_map(|(leaf, place)| Position::at(leaf, place));
    let sent = || {
        entries()
            .prop_map(|all| all.into_iter().map(|(key, payload)| entry(key, &payload)).collect::<Vec<_>>())
    };
    let place = || {
        prop::option::of((0..60_u32).prop_map(|id| Place { kind: Kind(1), id: ByteArray::new(key(1, id).1) }))
    };
    prop_oneof![
        (any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(count, hash)| Response::Digest(Digest { count, hash: ByteArray::new(hash) })),
        prop::collection::vec(any::<u64>(), 0..600).prop_map(|sums| Response::Branches(Packed(sums))),
        (
            prop::collection::vec(position(), 0..20),
            prop::collection::vec(any::<u8>(), 0..20),
            prop::option::of(position())
        )
            .prop_map(|(offered, wanted, until)| Response::Leaves {
                offered: Packed(offered),
                wanted,
                until
            }),
        (sent(), any::<u32>()).prop_map(|(entries, answered)| Response::Entries { entries, answered }),
        (sent(), place()).prop_map(|(entries, next)| Response::Page { entries, next }),
        Just(Response::Taken { stored: u32::MAX, known: u32::MAX, invalid: u32::MAX }),
        Just(Response::Unavailable),
        Just(Response::Busy),
    ]
}

#[test]
fn one_difference_among_many_thousands_costs_a_few_kilobytes() {
    let (mut own, mut other, bytes) = apart(20_000, 0, 1);
    let done = honestly(&mut own, &mut other);
    assert_eq!((done.ending, done.tally.received, done.tally.sent), (Some(Ending::Equal), 1, 0));
    assert!(done.wire_bytes < bytes + 4096, "{} bytes for {bytes}", done.wire_bytes);
}

#[test]
fn the_wire_carries_what_differs_and_a_tenth_more() {
    let (mut own, mut other, bytes) = apart(20_000, 400, 400);
    let done = honestly(&mut own, &mut other);
    assert_eq!((done.ending, done.tally.received, done.tally.sent), (Some(Ending::Equal), 400, 400));
    // Entries of the least size, 60 bytes under a stamp of 200: larger ones have relatively less beside them.
    println!("{} bytes on the wire for {bytes} bytes of differing entries", done.wire_bytes);
    assert!(done.wire_bytes < 2 * bytes, "{} bytes for {bytes}", done.wire_bytes);
    assert_eq!(own.digest, other.digest);
}

#[test]
fn an_updated_entry_goes_from_the_side_that_has_the_newer_version() {
    for (own, other, sent) in [(2, 1, 1), (1, 2, 0)] {
        let mut own = Model::of([(key(1, 1), vec![own])]);
        let mut other = Model::of([(key(1, 1), vec![other])]);
        let done = honestly(&mut own, &mut other);
        assert_eq!((done.ending, done.tally.sent), (Some(Ending::Equal), sent));
        assert_eq!((&own.entries[&key(1, 1)], &other.entries[&key(1, 1)]), (&vec![2], &vec![2]));
    }
}

#[test]
fn an_empty_catalog_is_filled_from_pages_and_fills_another() {
    let (mut own, mut other, _) = apart(5000, 0, 0);
    own = Model::of(own.entries.into_iter().take(3));
    let done = honestly(&mut own, &mut other);
    assert_eq!((done.ending, done.tally.received), (Some(Ending::Equal), 4997));
    assert!(done.tally.requests < 60, "{} requests", done.tally.requests);

    let mut empty = Model::default();
    let done = honestly(&mut own, &mut empty);
    assert_eq!((done.ending, done.tally.sent), (Some(Ending::Equal), 5000));
}

#[test]
fn what_only_a_member_to_come_vouches_for_is_taken_in_the_next_round() {
    for (own, other) in [(0, 200), (200, 0)] {
        let side = |count: u32| {
            let vouched = (0..count).map(|id| (key(VOUCHED.0, id), vec![1]));
            Model::of(vouched.chain((0..count).map(|id| (key(2, id), vec![1]))))
        };
        let (mut own, mut other) = (side(own), side(other));
        assert_eq!(honestly(&mut own, &mut other).ending, Some(Ending::Equal));
        assert_eq!((own.entries.len(), other.entries.len()), (400, 400));
    }
}

#[test]
fn entries_that_somebody_crowded_into_one_leaf_are_exchanged_in_parts() {
    // Positions are forced here: in earnest it takes 65 000 tries for each entry.
    let crowd = |numbers: std::ops::Range<u32>| {
        let mut model = Model::default();
        for number in numbers {
            let (key, payload) = (key(1, number), vec![7]);
            let item = Item::of(key.0, &key.1, &payload);
            let position = Position::at(0x1234, item.position.place());
            model.digest.toggle(key.0, &key.1, &payload, true);
            model.trie.toggle(Item { position, ..item }, true);
            model.places.entry(position).or_default().push(key);
            model.entries.insert(key, payload);
        }
        model
    };
    let items = u32::try_from(SYNC_ITEMS_MAX).unwrap();
    let (own, other) = (crowd(0..3 * items), crowd(items..5 * items));
    // Only what is asked and answered is looked at: the entries themselves would say that they belong elsewhere.
    let mut stretches = VecDeque::from([Stretch::new(vec![0x1234], 0, u32::MAX).unwrap()]);
    let (mut offered, mut wanted) = (BTreeSet::new(), 0);
    while let Some(stretch) = stretches.pop_front() {
        let listed = own.items(&stretch, SYNC_ITEMS_MAX);
        let part = match listed.unread {
            Some(unread) => {
                stretches.extend(stretch.from(unread));
                stretch.before(unread).unwrap()
            }
            None => stretch,
        };
        let theirs = other.items(&part, answer::items_to_read(listed.items.len()));
        let Response::Leaves { offered: some, wanted: bits, until } = answer::leaves(&listed.items, &theirs)
        else {
            panic!("leaves are answered with leaves");
        };
        assert!(some.0.len() <= SYNC_ITEMS_MAX);
        stretches.extend(until.and_then(|until| part.from(until)));
        offered.extend(some.0);
        wanted += bits.iter().map(|byte| byte.count_ones()).sum::<u32>();
    }
    assert_eq!(wanted, items, "what only the asker has");
    assert_eq!(offered.len(), 2 * SYNC_ITEMS_MAX, "what only the asked has");
}

/// A lie at one kind of request, told every time.
fn against(lie: impl Fn(&Request, Response) -> Response) -> Run {
    let (mut own, mut other, _) = apart(100, 10, 10);
    run(&mut own, &mut other, |request, answer, _| Some(lie(request, answer)))
}

#[test]
fn pages_without_end_and_parts_that_stand_still_are_seen_through() {
    let (mut own, mut other, _) = apart(3000, 0, 0);
    own = Model::of(own.entries.into_iter().take(1));
    let first = other.page(None);
    let done = run(&mut own, &mut other, |request, answer, _| {
        Some(if matches!(request, Request::Page { .. }) { first.clone() } else { answer })
    });
    assert_eq!(done.ending, Some(Ending::Faulty(Fault::Standstill)));

    let none_answered = against(|_, answer| match answer {
        Response::Entries { .. } => Response::Entries { entries: Vec::new(), answered: 0 },
        answer => answer,
    });
    assert_eq!(none_answered.ending, Some(Ending::Faulty(Fault::Standstill)));

    let never_through = against(|request, answer| match (request, answer) {
        (Request::Leaves { leaves, from, .. }, Response::Leaves { wanted, .. }) => Response::Leaves {
            offered: Packed::default(),
            wanted,
            until: Some(Position::at(leaves.0[0], *from)),
        },
        (_, answer) => answer,
    });
    assert_eq!(never_through.ending, Some(Ending::Faulty(Fault::Standstill)));
}

#[test]
fn a_place_at_a_time_ends_with_the_bound_on_requests() {
    let crawling = against(|request, answer| match (request, answer) {
        (Request::Leaves { leaves, from, .. }, Response::Leaves { wanted, .. }) => Response::Leaves {
            offered: Packed::default(),
            wanted: vec![0; wanted.len()],
            until: Some(Position::at(leaves.0[0], from + 1)),
        },
        (_, answer) => answer,
    });
    assert_eq!(crawling.ending, Some(Ending::Unfinished));
    assert_eq!(crawling.tally.requests, REQUESTS_MAX + 1);
}

#[test]
fn entries_that_were_not_asked_for_are_not_taken() {
    let unasked = against(|_, answer| match answer {
        Response::Entries { mut entries, answered } => {
            entries.push(entry(key(1, 77_777), b"unasked"));
            Response::Entries { entries, answered }
        }
        answer => answer,
    });
    assert_eq!(unasked.ending, Some(Ending::Faulty(Fault::Unasked)));
    assert_eq!(unasked.tally.received, 0);

    let twice = against(|_, answer| match answer {
        Response::Entries { mut entries, answered } => {
            entries.extend(entries.clone());
            Response::Entries { entries, answered }
        }
        answer => answer,
    });
    assert_eq!(twice.ending, Some(Ending::Faulty(Fault::Unasked)));

    let offered_elsewhere = against(|_, answer| match answer {
        Response::Leaves { wanted, until, .. } => Response::Leaves {
            offered: (0..=u16::MAX).map(|leaf| Position::at(leaf, 0)).take(SYNC_ITEMS_MAX).collect(),
            wanted,
            until,
        },
        answer => answer,
    });
    assert_eq!(offered_elsewhere.ending, Some(Ending::Faulty(Fault::Unasked)));
}

#[test]
fn a_catalog_of_invalid_entries_is_left_after_a_thousand() {
    let mut own = Model::default();
    let invalid = (0..50_000).map(|number| (key(1, number), vec![0; VALID_MAX_BYTES + 1]));
    let mut other = Model::of(invalid);
    let done = honestly(&mut own, &mut other);
    assert_eq!(done.ending, Some(Ending::Faulty(Fault::Invalid)));
    assert!(done.tally.invalid < INVALID_MAX + 512);
    assert!(own.entries.is_empty());
}

#[test]
fn roots_that_differ_where_no_branch_does_are_settled_by_reading_pages() {
    let (mut own, mut other, _) = apart(500, 3, 0);
    own = Model::of(own.entries.into_iter().take(450));
    let blank = own.trie.clone();
    let done = run(&mut own, &mut other, |request, answer, _| {
        Some(match request {
            Request::Branches { level, prefixes } => answer::branches(&blank, *level, &prefixes.0).unwrap(),
            _ => answer,
        })
    });
    assert_eq!((done.ending, done.tally.received), (Some(Ending::Equal), 50));
}

#[test]
fn one_that_is_busy_is_left_alone() {
    let busy = against(|_, _| Response::Busy);
    assert_eq!((busy.ending, busy.tally.requests), (Some(Ending::Busy), 1));
}

#[test]
fn a_false_count_ends_in_pages_that_end() {
    let counted = against(|_, answer| match answer {
        Response::Digest(digest) => Response::Digest(Digest { count: u64::MAX, ..digest }),
        answer => answer,
    });
    assert!(matches!(counted.ending, Some(Ending::Settled)), "{:?}", counted.ending);
    assert_eq!((counted.tally.received, counted.tally.sent), (10, 10));
}
