//! Feeds of several super-peers, of which some lag behind and some lie.

use libp2p::{PeerId, identity::Keypair};
use proptest::prelude::*;
use quarta_protocols::{
    content::{ContentKey, Geometry, Manifest},
    credentials::{Credential, Grant, Role, Trust, UnixSeconds},
    endings::RevocationNotice,
    ids::{FileId, RecordHash, Sha256},
    keys::SealingSecret,
    members::Enrolment,
    messages::{changes::Cursor, inventory::Completeness},
    names::{FileName, MemberName},
    records::{Access, Body, Entry, Link, Origin, Record, State},
    signing::Signed,
};
use serde_bytes::ByteArray;
use tempfile::TempDir;

use crate::{
    database::{Database, FILE_NAME, LibraryCopy, Page, Provenance, Taken},
    following::{hiding::Hiding, page::News},
    library::{LibraryPath, Place, Stamp},
};

const ME: u8 = 1;
const OWNER: u8 = 2;
const ROOT: u8 = 200;

fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

fn peer(seed: u8) -> PeerId {
    key(seed).public().to_peer_id()
}

fn trust() -> Trust {
    Trust::in_root(key(ROOT).public().try_into_ed25519().unwrap())
}

/// Super-peers have the seeds 101 and 102.
struct Node {
    _base: TempDir,
    database: Database,
    pages: u64,
    /// How often it was to begin anew.
    readings: u64,
}

impl Node {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let database = Database::open(&base.path().join(FILE_NAME)).unwrap();
        // No test cuts the power.
        database.connection().pragma_update(None, "synchronous", "OFF").unwrap();
        Self { _base: base, database, pages: 0, readings: 0 }
    }

    fn hears(&mut self, superpeer: u8, news: Vec<News>) -> Taken {
        self.pages += 1;
        let cursor =
            Cursor { store: ByteArray::new([superpeer; 16]), run: 1, sequence: self.pages, condition: 0 };
        let page =
            Page { superpeer: peer(superpeer), reading: self.readings, cursor, news, members: Vec::new() };
        let taken = self.database.take_page(&page, &peer(ME), &trust(), 1).unwrap();
        self.readings += u64::from(taken.anew);
        taken
    }

    fn knows(&self, file: &FileId) -> Option<Record> {
        let signed = self.database.record(file).unwrap()?;
        Some(Record::verify(signed, &trust()).unwrap())
    }

    /// A copy of the file as this record has it, which ends up here without a word to the feed.
    fn holds(&self, record: &Record, provenance: Provenance) {
        let manifest = manifest();
        let copy = LibraryCopy {
            file: record.file(),
            owner: record.owner(),
            owner_name: MemberName::new("recife").unwrap(),
            name: FileName::new("a").unwrap(),
            provenance,
            place: Place::Library(LibraryPath::parse("a").unwrap()),
            stamp: Stamp { size_bytes: 300_000, mtime_ns: 0 },
            sha256: None,
            content: manifest.id(),
            completeness: Completeness::Complete,
            record: record.signed().clone(),
        };
        self.database.keep_copy(&copy, &manifest, record, &trust(), 1).unwrap();
    }
}

fn manifest() -> Manifest {
    Manifest::new(Geometry::for_size(300_000).unwrap(), vec![[5; 32]; 2]).unwrap()
}

/// The file of `first` after hand-overs to these, each signed by the owner before it or by the root.
fn record(first: u8, hand_overs: &[(u8, bool)], revision: u64) -> Record {
    let network = trust().network;
    let origin = Origin { owner: peer(first), nonce: ByteArray::new([3; 16]) };
    let state = State::Present(Entry {
        name: FileName::new("a").unwrap(),
        size_bytes: 300_000,
        content: manifest().id(),
        manifest: None,
        access: Access::Open {
            key: ContentKey::from_bytes([9; 32]),
            sha256: Sha256::from_bytes([1; 32]),
            media_type: None,
        },
    });
    let mut body = Body { file: origin.file_id(&network), origin, links: Vec::new(), revision, state };
    let mut owner = first;
    for (place, (to, by_root)) in (0..).zip(hand_overs) {
        let previous = body.links.last().map(|link| RecordHash::of(link.body()));
        let (from, to_peer, candidates) = (peer(owner), peer(*to), Vec::new());
        let link =
            Link { file: body.file, place, from, to: to_peer, previous, by_root: *by_root, candidates };
        body.links.push(Signed::new(&link, &network, &key(if *by_root { ROOT } else { owner })));
        owner = *to;
    }
    Record::sign(&body, &trust(), &key(owner)).unwrap()
}

fn shown(record: &Record) -> News {
    News::File(Box::new(record.clone()))
}

/// As a super-peer says it that has this record.
fn hidden(record: &Record) -> News {
    let mine = |link: &&Signed<Link>| link.peek().unwrap().from == peer(ME);
    News::ForgetFile(Box::new(Hiding {
        file: record.file(),
        place: Some(record.precedence()),
        handed_over: record.body().links.iter().filter(mine).cloned().collect(),
    }))
}

fn revoked(superpeer: u8) -> Vec<News> {
    let network = trust().network;
    let name = MemberName::new("sp").unwrap();
    let (role, now) = (Role::Superpeer, UnixSeconds(1_800_000_000));
    let grant = Grant { peer: peer(superpeer), name: &name, role, now, token_id: [1; 16] };
    let enrolment = Enrolment {
        peer: peer(superpeer),
        credential: Credential::issue_by_root(&key(ROOT), &network, &grant),
        sealing_key: SealingSecret::from_bytes([1; 32]).statement(&network, &key(superpeer)),
    };
    let notice = RevocationNotice::by_root(peer(superpeer), &key(ROOT), &trust());
    vec![
        News::Member(Box::new(enrolment.verify(&trust()).unwrap())),
        News::Revocation(Box::new(notice.verify(&trust()).unwrap())),
    ]
}

#[test]
fn what_one_super_peer_hides_another_that_lags_behind_does_not_bring_back() {
    let mut node = Node::new();
    let (before, now, later) = (record(OWNER, &[], 1), record(OWNER, &[], 2), record(OWNER, &[], 3));
    node.hears(101, vec![shown(&before)]);
    assert_eq!(node.hears(101, vec![hidden(&now)]).hidden, [before.file()]);
    assert_eq!(node.hears(102, vec![shown(&before)]), Taken::default());
    let listed = node.database.remember_records([&before], &trust(), 1).unwrap();
    assert_eq!(listed, [], "nor does a listing");
    assert_eq!(node.knows(&before.file()), None);
    // Given access again, and told of the past once more.
    node.hears(101, vec![shown(&later)]);
    assert_eq!(node.hears(102, vec![hidden(&now)]), Taken::default());
    assert_eq!(node.knows(&before.file()), Some(later));
}

#[test]
fn a_file_that_was_never_seen_stays_hidden_all_the_same() {
    let mut node = Node::new();
    let (before, now) = (record(OWNER, &[], 1), record(OWNER, &[], 2));
    assert_eq!(node.hears(101, vec![hidden(&now)]), Taken::default());
    node.hears(102, vec![shown(&before)]);
    assert_eq!(node.knows(&before.file()), None);
}

#[test]
fn a_copy_that_is_whole_when_its_file_is_hidden_already_is_taken_away_again() {
    let mut node = Node::new();
    let (before, now) = (record(OWNER, &[], 1), record(OWNER, &[], 2));
    node.hears(101, vec![shown(&before)]);
    node.hears(101, vec![hidden(&now)]);
    node.holds(&before, Provenance::Fetched);
    assert_eq!(node.knows(&before.file()), None);
    let outdated = node.database.outdated_copy(&before.file()).unwrap();
    assert_eq!(outdated.map(|outdated| outdated.now), Some(None));
}

#[test]
fn a_super_peer_of_an_earlier_version_hides_what_is_here_and_nothing_more() {
    let mut node = Node::new();
    let first = record(OWNER, &[], 1);
    let hiding = Hiding { file: first.file(), place: None, handed_over: Vec::new() };
    let hiding = || News::ForgetFile(Box::new(hiding.clone()));
    node.hears(101, vec![shown(&first), hiding()]);
    assert_eq!(node.knows(&first.file()), None);
    node.hears(102, vec![shown(&first)]);
    assert_eq!(node.knows(&first.file()), Some(first));
}

#[test]
fn an_own_file_is_given_up_for_a_hand_over_only() {
    let mut node = Node::new();
    let own = record(ME, &[], 1);
    node.hears(101, vec![shown(&own)]);
    node.holds(&own, Provenance::Own);
    // A lie, one about a file that was really handed over, by somebody else, and what an earlier version says.
    let later = record(ME, &[], u64::MAX);
    let others = record(OWNER, &[(ME, false), (3, true)], 9);
    let place = Some(later.precedence());
    for handed_over in [Vec::new(), others.body().links.clone()] {
        let hiding = Hiding { file: own.file(), place: place.clone(), handed_over };
        assert_eq!(node.hears(101, vec![News::ForgetFile(Box::new(hiding))]), Taken::default());
    }
    let earlier = Hiding { file: own.file(), place: None, handed_over: Vec::new() };
    node.hears(101, vec![News::ForgetFile(Box::new(earlier))]);
    assert_eq!(node.knows(&own.file()), Some(own.clone()));
    assert_eq!(node.database.copy(&own.file()).unwrap().unwrap().provenance, Provenance::Own);
    // While it was away the root gave the file to another, who hides it.
    let assigned = record(ME, &[(3, true)], 2);
    assert_eq!(node.hears(101, vec![hidden(&assigned)]).hidden, [own.file()]);
    assert_eq!(node.knows(&own.file()), None);
    let copy = node.database.outdated_copy(&own.file()).unwrap().unwrap().copy;
    assert_eq!((copy.provenance, copy.owner), (Provenance::Fetched, peer(3)));
    node.hears(102, vec![shown(&own)]);
    assert_eq!(node.knows(&own.file()), None, "a super-peer that lags behind");
}

#[test]
fn a_file_that_came_back_is_not_given_up_for_the_hand_over_that_took_it_away() {
    let mut node = Node::new();
    let back = record(ME, &[(3, false), (ME, false)], 3);
    node.hears(101, vec![shown(&back)]);
    let lie = record(ME, &[(3, false), (ME, false)], 9);
    assert_eq!(node.hears(101, vec![hidden(&lie)]), Taken::default());
    assert_eq!(node.knows(&back.file()), Some(back));
}

#[test]
fn a_revoked_super_peer_hides_nothing_and_all_feeds_are_read_anew() {
    let mut node = Node::new();
    let (first, second) = (record(OWNER, &[], 1), record(OWNER, &[], 2));
    node.hears(102, vec![shown(&first)]);
    node.hears(101, vec![hidden(&record(OWNER, &[], u64::MAX))]);
    node.hears(102, vec![shown(&second)]);
    assert_eq!(node.knows(&first.file()), None);
    let under_way = node.readings;
    let taken = node.hears(102, revoked(101));
    assert!(taken.anew);
    assert!(node.database.cursors().unwrap().is_empty());
    // What was asked for before moves no cursor, and what the revoked one still says is nothing.
    node.readings = under_way;
    node.hears(102, Vec::new());
    assert!(node.database.cursors().unwrap().is_empty());
    node.readings += 1;
    assert_eq!(node.hears(101, vec![hidden(&second)]), Taken::default());
    node.hears(102, vec![shown(&second)]);
    assert_eq!(node.knows(&first.file()), Some(second));
    assert_eq!(node.database.cursors().unwrap().len(), 1);
    assert!(!node.hears(102, revoked(101)).anew, "once is enough");
}

#[test]
fn ids_that_a_super_peer_invents_without_end_push_the_oldest_out() {
    let mut node = Node::new();
    let place = quarta_protocols::cbor::to_vec(&record(OWNER, &[], 1).precedence());
    let sql = "INSERT INTO hidden (file, place, told_by)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        SELECT CAST(i AS BLOB), ?2, x'01' FROM n";
    node.database.connection().execute(sql, (super::HIDDEN_KEPT, place)).unwrap();
    node.hears(101, vec![hidden(&record(OWNER, &[], 1))]);
    let bounds: (i64, i64, i64) = node
        .database
        .connection()
        .query_row("SELECT count(*), min(id), max(id) FROM hidden", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    let kept = i64::from(super::HIDDEN_KEPT);
    assert_eq!(bounds, (kept, 2, kept + 1));
}

/// A file's life: each record, and whether this node may see it. Some are of branches that lost.
fn any_life() -> impl Strategy<Value = Vec<(Record, bool)>> {
    let step = (prop::collection::vec((2u8..5, any::<bool>()), 0..3), 1u64..4, any::<bool>());
    prop::collection::vec(step, 1..7).prop_map(|steps| {
        let mut life: Vec<(Record, bool)> = Vec::new();
        for (hand_overs, revision, visible) in steps {
            let mut owner = OWNER;
            let real: Vec<(u8, bool)> =
                hand_overs.into_iter().filter(|(to, _)| std::mem::replace(&mut owner, *to) != *to).collect();
            let record = record(OWNER, &real, revision);
            if life.iter().all(|(known, _)| *known != record) {
                life.push((record, visible));
            }
        }
        life.sort_by_key(|(record, _)| record.precedence());
        life
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A super-peer hears of some of a file's records in their order, and of the last for sure; what it has it tells.
    #[test]
    fn however_the_feeds_of_two_super_peers_are_mixed_the_end_is_what_the_last_record_says(
        life in any_life(),
        heard in prop::array::uniform2(prop::collection::vec(any::<bool>(), 7)),
        order in prop::collection::vec(0usize..2, 0..16),
    ) {
        let last = life.len() - 1;
        let told: Vec<Vec<News>> = heard
            .iter()
            .map(|heard| {
                let of = |(at, (record, visible)): (usize, &(Record, bool))| {
                    let news = if *visible { shown(record) } else { hidden(record) };
                    (at == last || heard[at]).then_some(news)
                };
                life.iter().enumerate().filter_map(of).collect()
            })
            .collect();
        let mut left: Vec<_> = told.into_iter().map(Vec::into_iter).collect();
        let mut node = Node::new();
        for feed in order.into_iter().chain([0; 7]).chain([1; 7]) {
            if let Some(news) = left[feed].next() {
                node.hears(if feed == 0 { 101 } else { 102 }, vec![news]);
            }
        }
        let (record, visible) = &life[last];
        prop_assert_eq!(node.knows(&record.file()), visible.then(|| record.clone()));
    }
}
