use std::os::unix::fs::PermissionsExt;

use libp2p::{PeerId, identity::Keypair};
use quarta_protocols::{
    audiences::{Audience, EpochKey, Keys, Rule, Wrap},
    cbor,
    content::{ContentKey, Geometry, Manifest},
    credentials::{Credential, Grant, Role, Trust, UnixSeconds},
    endings::{Departure, Ended, RevocationNotice},
    ids::{FileId, Sha256},
    keys::{SealingKey, SealingSecret},
    members::{Enrolled, Enrolment},
    messages::{
        changes::{Change, Cursor},
        handover::Request,
        index::{ListedMember, MemberState},
        inventory::{Completeness, Position},
        sync::Kind,
    },
    names::{FileName, MemberName},
    records::{Access, Body, Entry, Origin, Record, State},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};
use tempfile::TempDir;

use super::*;
use crate::{
    audiences::Held,
    following::{hiding::Hiding, page::News},
    library::{LibraryPath, Place, Stamp},
};

/// A database, and a member that owns files.
struct World {
    base: TempDir,
    database: Database,
    owner: Keypair,
    trust: Trust,
}

impl World {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let database = Database::open(&base.path().join(FILE_NAME)).unwrap();
        let owner = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let root = Keypair::ed25519_from_bytes([2; 32]).unwrap();
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        Self { base, database, owner, trust }
    }

    fn reopened(self) -> Self {
        drop(self.database);
        let database = Database::open(&self.base.path().join(FILE_NAME)).unwrap();
        Self { database, ..self }
    }

    fn peer(&self) -> PeerId {
        self.owner.public().to_peer_id()
    }

    fn record(&self, nonce: u8, revision: u64, name: Option<&str>) -> Record {
        let origin = Origin { owner: self.peer(), nonce: [nonce; 16].into() };
        let entry = |name| Entry {
            name: FileName::new(name).unwrap(),
            size_bytes: 300_000,
            content: manifest(nonce).id(),
            manifest: None,
            access: Access::Open {
                key: ContentKey::from_bytes([9; 32]),
                sha256: Sha256::from_bytes([nonce; 32]),
                media_type: None,
            },
        };
        let state = name.map_or(State::Deleted, |name| State::Present(entry(name)));
        let body =
            Body { file: origin.file_id(&self.trust.network), origin, links: Vec::new(), revision, state };
        Record::sign(&body, &self.trust, &self.owner).unwrap()
    }

    fn copy(&self, nonce: u8, name: &str, provenance: Provenance) -> LibraryCopy {
        let record = self.record(nonce, 1, Some(name));
        LibraryCopy {
            file: record.file(),
            owner: self.peer(),
            owner_name: MemberName::new("recife").unwrap(),
            name: FileName::new(name).unwrap(),
            provenance,
            place: Place::Library(LibraryPath::parse(name).unwrap()),
            stamp: Stamp { size_bytes: 300_000, mtime_ns: -5 },
            sha256: Some(Sha256::from_bytes([nonce; 32])),
            content: manifest(nonce).id(),
            completeness: Completeness::Complete,
            record: record.signed().clone(),
        }
    }
}

fn manifest(seed: u8) -> Manifest {
    Manifest::new(Geometry::for_size(300_000).unwrap(), vec![[seed; 32]; 2]).unwrap()
}

#[test]
fn the_file_is_private_and_durable() {
    let world = World::new();
    let mode = std::fs::metadata(world.base.path().join(FILE_NAME)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let connection = world.database.connection();
    let pragma = |name| {
        connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
    };
    assert_eq!(pragma("journal_mode"), rusqlite::types::Value::Text("wal".into()));
    assert_eq!(pragma("synchronous"), rusqlite::types::Value::Integer(2));
}

#[test]
fn a_statement_is_planned_once_for_all_values() {
    let world = World::new();
    let connection = world.database.connection();
    let mut statement = connection.prepare("SELECT 1 FROM records WHERE folded LIKE ?1").unwrap();
    for value in ["a%", "b%", "c%"] {
        assert!(!statement.exists([value]).unwrap());
    }
    assert_eq!(statement.get_status(rusqlite::StatementStatus::RePrepare), 0);
}

#[test]
fn another_programs_file_and_another_version_are_refused_untouched() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("db");
    std::fs::write(
        &path,
        "this is a text file that is long enough to be taken for a database header, is it not? ".repeat(9),
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Database::open(&path), Err(DatabaseError::Foreign(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let path = base.path().join("foreign");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    assert!(matches!(Database::open(&path), Err(DatabaseError::Foreign(_))));

    let path = base.path().join("newer");
    drop(Database::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", FORMAT + 1).unwrap();
    match Database::open(&path) {
        Err(DatabaseError::Format { found, .. }) => assert_eq!(found, FORMAT + 1),
        unexpected => panic!("{unexpected:?}"),
    }
}

/// Data folders outlive versions: a changed table needs a new format number and a migration.
#[test]
fn the_tables_are_held_still() {
    let hash =
        blake3::hash([SCHEMA, migration::SCHEMA_4, migration::SCHEMA_5].concat().as_bytes()).to_string();
    assert_eq!(hash, GOLDEN_SCHEMA, "raise FORMAT and migrate");
}
const GOLDEN_SCHEMA: &str = "78b657090ba5c6d27beb6212bbcba498c64dc64f6af5d20ef93a3f603fdf25f6";

#[test]
fn a_copy_reads_back_as_it_was_put_after_a_restart() {
    let world = World::new();
    let own = world.copy(1, "a/b", Provenance::Own);
    let elsewhere: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(b"/srv/\xff/x".to_vec());
    let in_place = LibraryCopy {
        place: Place::InPlace(elsewhere.into()),
        completeness: Completeness::Partial(1),
        sha256: None,
        ..world.copy(2, "c", Provenance::Fetched)
    };
    world.database.put_copy(&own, &manifest(1)).unwrap();
    world.database.put_copy(&in_place, &manifest(2)).unwrap();
    let world = world.reopened();
    assert_eq!(world.database.copy(&own.file).unwrap().as_ref(), Some(&own));
    assert_eq!(world.database.copy_of_content(&in_place.content).unwrap().as_ref(), Some(&in_place));
    assert_eq!(world.database.manifest(&own.content).unwrap(), Some(manifest(1)));
    let prefix = &own.file.to_string()[..10];
    assert_eq!(world.database.copies_by_prefix(prefix, 2).unwrap(), std::slice::from_ref(&own));
    assert_eq!(world.database.copies_by_prefix("xyz", 2).unwrap(), []);
    let pages = [None, world.database.copies(None, 1).unwrap().first().map(|copy| copy.file)];
    let mut all: Vec<LibraryCopy> =
        pages.iter().flat_map(|after| world.database.copies(after.as_ref(), 1).unwrap()).collect();
    all.sort_by_key(|copy| copy.name.clone());
    assert_eq!(all, [own, in_place]);
}

#[test]
fn a_manifest_goes_with_the_last_copy_that_needs_it() {
    let world = World::new();
    let copy = world.copy(1, "a", Provenance::Fetched);
    world.database.put_copy(&copy, &manifest(1)).unwrap();
    let updated = LibraryCopy { content: manifest(2).id(), ..copy.clone() };
    world.database.put_copy(&updated, &manifest(2)).unwrap();
    assert_eq!(world.database.manifest(&copy.content).unwrap(), None);
    assert!(world.database.manifest(&updated.content).unwrap().is_some());
    assert!(world.database.remove_copy(&copy.file).unwrap());
    assert!(!world.database.remove_copy(&copy.file).unwrap());
    assert_eq!(world.database.manifest(&updated.content).unwrap(), None);
}

#[test]
fn own_names_are_unique_but_for_case_and_fetched_ones_need_not_be() {
    let world = World::new();
    let first = world.copy(1, "Foto.jpg", Provenance::Own);
    world.database.put_copy(&first, &manifest(1)).unwrap();
    assert!(world.database.put_copy(&world.copy(2, "foto.JPG", Provenance::Own), &manifest(2)).is_err());
    assert_eq!(world.database.manifest(&manifest(2).id()).unwrap(), None, "all or nothing");
    world.database.put_copy(&world.copy(3, "foto.jpg", Provenance::Fetched), &manifest(3)).unwrap();
    assert_eq!(world.database.own_named(&FileName::new("FOTO.jpg").unwrap()).unwrap(), Some(first));
    assert_eq!(world.database.own_named(&FileName::new("other").unwrap()).unwrap(), None);
}

#[test]
fn records_only_move_forward() {
    let world = World::new();
    let remember = |record: &Record| world.database.remember_record(record, &world.trust, 7).unwrap();
    let (old, new) = (world.record(1, 1, Some("a")), world.record(1, 2, Some("b")));
    assert!(remember(&new));
    assert!(!remember(&old) && !remember(&new));
    let stored = world.database.record(&new.file()).unwrap().unwrap();
    assert_eq!(Record::verify(stored, &world.trust).unwrap(), new);
    let gone = world.record(1, 3, None);
    assert!(remember(&gone) && !remember(&world.record(1, 9, Some("a"))));
    assert_eq!(world.database.list_files(&Listing::default(), 10).unwrap(), []);
    assert!(world.database.record(&gone.file()).unwrap().is_some(), "a deletion is remembered");
}

#[test]
fn a_damaged_record_gives_way_to_a_genuine_one() {
    let world = World::new();
    let record = world.record(1, 5, Some("a"));
    world.database.remember_record(&record, &world.trust, 7).unwrap();
    world.database.connection().execute("UPDATE records SET record = x'00'", []).unwrap();
    assert!(matches!(world.database.record(&record.file()), Err(DatabaseError::Damaged(_))));
    assert!(world.database.remember_record(&record, &world.trust, 8).unwrap());
    assert!(world.database.record(&record.file()).unwrap().is_some());
}

#[test]
fn files_are_found_by_part_of_a_name_by_name_by_id_and_in_pages() {
    let world = World::new();
    for (nonce, name) in [(1, "Verão/Foto 1.jpg"), (2, "verba.csv"), (3, "100%.txt"), (4, "plano_a.txt")] {
        world.database.remember_record(&world.record(nonce, 1, Some(name)), &world.trust, 7).unwrap();
    }
    let names = |listing: &Listing| -> Vec<String> {
        let listed = world.database.list_files(listing, 10).unwrap();
        listed.into_iter().map(|known| known.name.to_string()).collect()
    };
    let query = |text: &str| names(&Listing { query: Some(text.into()), ..Listing::default() });
    assert_eq!(
        query("VER"),
        ["Verão/Foto 1.jpg".to_owned(), "verba.csv".into()].iter().rev().cloned().collect::<Vec<_>>()
    );
    assert_eq!(query("vera\u{303}O"), ["Verão/Foto 1.jpg"]);
    assert_eq!(query("0%"), ["100%.txt"]);
    assert_eq!(query("o_"), ["plano_a.txt"]);
    assert_eq!(query("'; DROP TABLE records; --"), [""; 0]);
    assert_eq!(names(&Listing { owner: Some(PeerId::random()), ..Listing::default() }), [""; 0]);
    let mut listing = Listing::default();
    let mut paged = Vec::new();
    while let Some(known) = world.database.list_files(&listing, 1).unwrap().pop() {
        listing.after = Some((known.name.clone(), known.file));
        paged.push(known.name.to_string());
    }
    assert_eq!(paged, names(&Listing::default()));
    assert_eq!(paged.len(), 4);
    let verba = FileName::new("verba.csv").unwrap();
    let found = world.database.files_named(&verba, Some(&world.peer()), 2).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(world.database.files_named(&FileName::new("VERBA.csv").unwrap(), None, 2).unwrap(), []);
    assert_eq!(world.database.files_by_prefix(&found[0].file.short(), 2).unwrap(), found);
}

#[test]
fn a_run_that_did_not_end_cleanly_cannot_be_continued() {
    let world = World::new();
    assert_eq!(world.database.begin_run().unwrap(), None);
    let position = Position { epoch: u64::MAX - 3, revision: 17 };
    world.database.end_run(position).unwrap();
    let world = world.reopened();
    assert_eq!(world.database.begin_run().unwrap(), Some(position));
    // Killed now.
    let world = world.reopened();
    assert_eq!(world.database.begin_run().unwrap(), None);
}

fn listed(peer: PeerId, addresses: &[&str], state: MemberState) -> ListedMember {
    ListedMember {
        peer,
        name: MemberName::new("recife").unwrap(),
        role: Role::Node,
        state,
        last_seen: Some(UnixSeconds(99)),
        version: "0.1".into(),
        files: 3,
        stored_bytes: 4,
        free_bytes: 5,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        relayed: true,
    }
}

#[test]
fn a_members_addresses_stay_until_newer_ones_come() {
    let world = World::new();
    let seen = |addresses: &[&str]| listed(world.peer(), addresses, MemberState::Online);
    world.database.remember_member(&seen(&["/ip4/10.0.0.1/tcp/1"]), 5).unwrap();
    world.database.remember_member(&seen(&[]), 4).unwrap();
    let known = |addresses, heard_ms| KnownMember { listed: seen(addresses), heard_ms };
    assert_eq!(world.database.members().unwrap(), [known(&["/ip4/10.0.0.1/tcp/1"], 5)]);
    world.database.remember_member(&seen(&["/ip4/10.0.0.2/tcp/1"]), 6).unwrap();
    assert_eq!(world.database.member(&world.peer()).unwrap(), Some(known(&["/ip4/10.0.0.2/tcp/1"], 6)));
}

/// A page of a super-peer's feed.
fn page(news: Vec<News>, members: Vec<ListedMember>, sequence: u64) -> Page {
    let superpeer = Keypair::ed25519_from_bytes([3; 32]).unwrap().public().to_peer_id();
    let cursor =
        Cursor { store: ByteArray::new([7; 16]), run: u64::MAX - 1, sequence, condition: sequence / 2 };
    Page { superpeer, reading: 0, cursor, news, members }
}

/// Who keeps the database, and owns none of the files.
fn me() -> PeerId {
    Keypair::ed25519_from_bytes([4; 32]).unwrap().public().to_peer_id()
}

/// That this record is hidden, and all before it.
fn hidden(record: &Record) -> News {
    let (file, place) = (record.file(), Some(record.precedence()));
    News::ForgetFile(Box::new(Hiding { file, place, handed_over: Vec::new() }))
}

/// What the feed says of a record.
fn file(record: Record) -> News {
    News::File(Box::new(record))
}

#[test]
fn a_page_and_its_cursor_are_here_together_after_a_restart_and_a_second_time_changes_nothing() {
    let world = World::new();
    let record = world.record(1, 1, Some("a"));
    let first = page(vec![file(record.clone())], vec![listed(world.peer(), &[], MemberState::Online)], 8);
    let taken = world.database.take_page(&first, &me(), &world.trust, 1).unwrap();
    assert_eq!((taken.files.len(), taken.moved.len(), taken.ended.len()), (1, 1, 0));
    let world = world.reopened();
    assert_eq!(world.database.cursors().unwrap(), [(first.superpeer, first.cursor)].into());
    assert!(world.database.record(&record.file()).unwrap().is_some());
    assert_eq!(world.database.take_page(&first, &me(), &world.trust, 2).unwrap(), Taken::default());

    let put = Change::Put {
        kind: Kind::FILE,
        id: ByteArray::new(*record.file().as_bytes()),
        payload: ByteBuf::from(cbor::to_vec(record.signed())),
    };
    assert_eq!(world.database.unknown(vec![put]).unwrap(), []);
    let gone = page(vec![hidden(&record)], Vec::new(), 9);
    assert_eq!(world.database.take_page(&gone, &me(), &world.trust, 3).unwrap().files.len(), 1);
    assert_eq!(world.database.record(&record.file()).unwrap(), None, "hidden is as if never known");
}

#[test]
fn a_page_that_cannot_be_written_moves_no_cursor() {
    let world = World::new();
    world.database.connection().execute_batch("DROP TABLE cursors").unwrap();
    let broken = page(vec![file(world.record(1, 1, Some("a")))], Vec::new(), 8);
    assert!(world.database.take_page(&broken, &me(), &world.trust, 1).is_err());
    assert_eq!(world.database.list_files(&Listing::default(), 10).unwrap(), []);
}

/// A member with its credential, by the root's hand or by a super-peer's.
fn enrolled(world: &World, key: &Keypair, role: Role) -> Enrolled {
    let root = Keypair::ed25519_from_bytes([2; 32]).unwrap();
    let superpeer = Keypair::ed25519_from_bytes([3; 32]).unwrap();
    let name = MemberName::new("recife").unwrap();
    let grant =
        |peer, name, role| Grant { peer, name, role, now: UnixSeconds(1_800_000_000), token_id: [0; 16] };
    let network = &world.trust.network;
    let central = MemberName::new("central").unwrap();
    let issuer = Credential::issue_by_root(
        &root,
        network,
        &grant(superpeer.public().to_peer_id(), &central, Role::Superpeer),
    );
    let granted = grant(key.public().to_peer_id(), &name, role);
    let credential = match role {
        Role::Superpeer => Credential::issue_by_root(&root, network, &granted),
        Role::Node => Credential::issue_by_superpeer(&superpeer, &issuer, network, &granted),
    };
    let sealing_key = SealingSecret::from_bytes([4; 32]).statement(network, key);
    Enrolment { peer: key.public().to_peer_id(), credential, sealing_key }.verify(&world.trust).unwrap()
}

#[test]
fn a_super_peers_revocation_ends_a_node_as_soon_as_it_is_known_to_be_one_and_never_a_super_peer() {
    let world = World::new();
    let root = Keypair::ed25519_from_bytes([2; 32]).unwrap();
    let superpeer = Keypair::ed25519_from_bytes([3; 32]).unwrap();
    let keys = [5, 6].map(|seed| Keypair::ed25519_from_bytes([seed; 32]).unwrap());
    let [node, central] = [&keys[0], &keys[1]].map(|key| key.public().to_peer_id());
    let issuer = enrolled(&world, &superpeer, Role::Superpeer).enrolment().credential.clone();
    let revoked = |member| {
        let notice = RevocationNotice::by_superpeer(member, &superpeer, issuer.clone(), &world.trust);
        News::Revocation(Box::new(notice.verify(&world.trust).unwrap()))
    };
    let take =
        |news| world.database.take_page(&page(news, Vec::new(), 1), &me(), &world.trust, 1).unwrap().ended;
    let mut unknown = take(vec![revoked(node), revoked(central)]);
    unknown.sort_by_key(|(peer, _)| *peer != node);
    assert_eq!(
        unknown,
        [(node, Ended::RevokedNode), (central, Ended::RevokedNode)],
        "who they are is not known"
    );
    let enrolments = vec![
        News::Member(Box::new(enrolled(&world, &keys[0], Role::Node))),
        News::Member(Box::new(enrolled(&world, &keys[1], Role::Superpeer))),
    ];
    assert_eq!(take(enrolments), [(node, Ended::Revoked)]);
    assert_eq!(take(vec![revoked(node)]), [], "known");
    let by_root = RevocationNotice::by_root(central, &root, &world.trust).verify(&world.trust).unwrap();
    assert_eq!(take(vec![News::Revocation(Box::new(by_root))]), [(central, Ended::Revoked)]);
    let world = world.reopened();
    let mut ended = world.database.ended().unwrap();
    ended.sort_by_key(|(peer, _)| *peer != node);
    assert_eq!(ended, [(node, Ended::Revoked), (central, Ended::Revoked)]);
    // Whatever a super-peer says of them.
    world.database.remember_member(&listed(node, &[], MemberState::Online), 5).unwrap();
    assert_eq!(world.database.member(&node).unwrap().unwrap().listed.state, MemberState::Revoked);
    assert_eq!(world.database.endings().unwrap().revocations.len(), 2);
}

#[test]
fn a_departure_is_final_and_a_super_peers_word_renames_nobody() {
    let world = World::new();
    let key = Keypair::ed25519_from_bytes([5; 32]).unwrap();
    let member = key.public().to_peer_id();
    let left = Signed::new(&Departure { member }, &world.trust.network, &key);
    let news = vec![
        News::Member(Box::new(enrolled(&world, &key, Role::Node))),
        News::Departure(member, left.clone()),
    ];
    let renamed = ListedMember {
        name: MemberName::new("natal").unwrap(),
        role: Role::Superpeer,
        ..listed(member, &["/ip4/10.0.0.1/tcp/1"], MemberState::Online)
    };
    let taken = world.database.take_page(&page(news, vec![renamed], 1), &me(), &world.trust, 1).unwrap();
    assert_eq!((taken.enrolled, taken.ended), (1, vec![(member, Ended::Left)]));
    let known = world.database.member(&member).unwrap().unwrap().listed;
    assert_eq!((known.name.as_str(), known.role, known.state), ("recife", Role::Node, MemberState::Left));
    assert_eq!(world.database.endings().unwrap().departures, [left]);
    let forget = vec![News::ForgetMember(Enrolment::id_of(&member))];
    world.database.take_page(&page(forget, Vec::new(), 2), &me(), &world.trust, 1).unwrap();
    assert_eq!(world.database.member(&member).unwrap(), None);
    assert_eq!(
        world.database.ended().unwrap(),
        [(member, Ended::Left)],
        "the end of a membership is never forgotten"
    );
}

#[test]
fn the_latest_sources_of_a_content_are_given_first_and_the_oldest_of_all_forgotten() {
    let world = World::new();
    let content = manifest(1).id();
    let peers: Vec<PeerId> = std::iter::repeat_with(PeerId::random).take(3).collect();
    let hour = 3_600_000;
    world.database.remember_sources(&content, &peers[..2], hour).unwrap();
    world.database.remember_sources(&content, &peers[2..], hour + 1).unwrap();
    // Known from a moment ago, and from long ago.
    world.database.remember_sources(&content, &peers[..1], hour + 2).unwrap();
    assert_eq!(world.database.sources(&content).unwrap(), [peers[2], peers[1], peers[0]]);
    world.database.remember_sources(&content, &peers[..1], 3 * hour).unwrap();
    assert_eq!(world.database.sources(&content).unwrap(), [peers[0], peers[2], peers[1]]);
    assert_eq!(world.database.sources(&manifest(2).id()).unwrap(), []);

    let sql = "UPDATE sources SET id = id + ?1 WHERE peer = ?2";
    world.database.connection().execute(sql, (SOURCES_KEPT, peers[0].to_bytes())).unwrap();
    world.database.remember_sources(&manifest(2).id(), &peers[1..2], 4 * hour).unwrap();
    assert_eq!(world.database.sources(&content).unwrap(), [peers[0]]);
}

#[test]
fn transfers_read_back_newest_first_and_those_under_way_are_found_after_a_restart() {
    let world = World::new();
    let mut transfer = Transfer {
        file: FileId::from_bytes([1; 32]),
        name: FileName::new("a").unwrap(),
        direction: Direction::Download,
        state: TransferState::Running,
        problem: None,
        size_bytes: 10,
        bytes: 0,
        started_ms: 1,
        ended_ms: None,
        sha256: None,
        shares: Vec::new(),
        owner: Some(MemberName::new("recife").unwrap()),
        content: Some(manifest(1).id()),
        resumed_bytes: 0,
    };
    let first = world.database.begin_transfer(&transfer).unwrap();
    let second = world.database.begin_transfer(&transfer).unwrap();
    transfer.state = TransferState::Done;
    transfer.bytes = 10;
    transfer.resumed_bytes = 7;
    transfer.content = None;
    transfer.ended_ms = Some(9);
    transfer.sha256 = Some(Sha256::from_bytes([3; 32]));
    transfer.shares = vec![Share {
        peer: world.peer(),
        name: Some(MemberName::new("recife").unwrap()),
        transport: Some("quic".into()),
        bytes: 10,
        busy_ms: 1,
        dropped: None,
    }];
    world.database.update_transfer(first, &transfer).unwrap();
    let world = world.reopened();
    assert_eq!(world.database.transfer(first).unwrap(), Some(transfer));
    let unfinished = world.database.unfinished_downloads(10).unwrap();
    assert_eq!(unfinished.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [second]);
    let listed = world.database.transfers(None, 10).unwrap();
    assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [second, first]);
    assert_eq!((listed[0].1.state, listed[0].1.ended_ms), (TransferState::Running, None));
    assert_eq!(world.database.transfers(Some(second), 10).unwrap().len(), 1);
}

fn a_transfer(file: u8, name: &str, state: TransferState) -> Transfer {
    Transfer {
        file: FileId::from_bytes([file; 32]),
        name: FileName::new(name).unwrap(),
        direction: Direction::Download,
        state,
        problem: None,
        size_bytes: 10,
        bytes: 5,
        started_ms: 1,
        ended_ms: Some(100),
        sha256: None,
        shares: Vec::new(),
        owner: Some(MemberName::new("recife").unwrap()),
        content: Some(manifest(file).id()),
        resumed_bytes: 0,
    }
}

#[test]
fn partial_data_is_known_until_its_transfer_gives_it_up() {
    let world = World::new();
    let states =
        [TransferState::Failed, TransferState::Paused, TransferState::Waiting, TransferState::Failed];
    let transfers: Vec<_> = (1..).zip(states).map(|(file, state)| a_transfer(file, "a", state)).collect();
    for transfer in &transfers {
        world.database.begin_transfer(transfer).unwrap();
    }
    let later = Transfer { ended_ms: Some(200), ..transfers[3].clone() };
    world.database.update_transfer(TransferId(4), &later).unwrap();
    let of = |transfer: &Transfer| transfer.partial().unwrap();
    // Of those that failed, the one that did long ago.
    assert_eq!(world.database.expire_partials(100).unwrap(), []);
    assert_eq!(world.database.expire_partials(150).unwrap(), [of(&transfers[0])]);
    let mut left = world.database.partial_names().unwrap();
    left.sort_by_key(|name| name.file);
    assert_eq!(left, transfers[1..].iter().map(of).collect::<Vec<_>>());
    assert_eq!(world.database.transfer_with_data(&transfers[0].file).unwrap(), None);
    let (id, found) = world.database.transfer_with_data(&transfers[1].file).unwrap().unwrap();
    assert_eq!((id, &found), (TransferId(2), &transfers[1]));
}

#[test]
fn a_transfer_is_found_by_its_files_name_owner_and_id() {
    let world = World::new();
    for (file, name) in [(0x11, "a"), (0x22, "a"), (0x11, "a"), (0x33, "b"), (0x12, "1111")] {
        world.database.begin_transfer(&a_transfer(file, name, TransferState::Done)).unwrap();
    }
    let found = |owner, reference| -> Vec<i64> {
        let found = world.database.transfers_of(owner, reference, 10).unwrap();
        found.into_iter().map(|(id, _)| id.0).collect()
    };
    assert_eq!(found(None, "a"), [3, 2], "the latest of each file");
    assert_eq!((found(Some("recife"), "b"), found(Some("natal"), "b")), (vec![4], vec![]));
    assert_eq!((found(None, "3333"), found(None, "1111")), (vec![4], vec![5]), "names go first");
    assert_eq!(found(None, "x'; --"), [0; 0]);
}

/// What a database of format 1 held is there after its migration, and the tables are those of a new one.
#[test]
fn a_database_of_format_1_is_brought_to_this_one_with_all_that_it_holds() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join(FILE_NAME);
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("schema_1.sql")).unwrap();
    old.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    let share = r#"[{"peer":"12D3KooWLZuszRKoLGfuHB4YiG9pHdq5Qkc1AW2iDvKbpDnLCb6J","name":"recife","transport":"tcp","bytes":10,"busy_ms":3}]"#;
    let insert =
        "INSERT INTO transfers (file, name, direction, state, problem, size_bytes, bytes, started_ms,
        ended_ms, sha256, shares) VALUES (zeroblob(32), ?1, 'download', ?2, ?3, 10, ?4, 1, ?5, NULL, ?6)";
    old.execute(insert, ("a", "done", None::<&str>, 10, Some(9), share)).unwrap();
    old.execute(insert, ("b", "interrupted", Some("why"), 3, Some(9), "[]")).unwrap();
    old.execute(insert, ("c", "running", None::<&str>, 0, None::<i64>, "[]")).unwrap();
    let world = World::new();
    let member =
        "INSERT INTO members (peer, name, role, addresses, seen_ms) VALUES (?1, 'recife', 'node', '[]', 8)";
    old.execute(member, [world.peer().to_bytes()]).unwrap();
    let copy = world.copy(7, "x", Provenance::Fetched);
    world.database.put_copy(&copy, &manifest(7)).unwrap();
    let rows =
        "INSERT INTO manifests SELECT * FROM new.manifests; INSERT INTO copies SELECT * FROM new.copies;";
    old.execute("ATTACH ?1 AS new", [world.base.path().join(FILE_NAME).to_str().unwrap()]).unwrap();
    old.execute_batch(rows).unwrap();
    drop(old);

    let database = Database::open(&path).unwrap();
    let transfers = database.transfers(None, 10).unwrap();
    let states: Vec<_> = transfers.iter().map(|(id, row)| (id.0, row.name.as_str(), row.state)).collect();
    assert_eq!(
        states,
        [
            (3, "c", TransferState::Running),
            (2, "b", TransferState::Interrupted),
            (1, "a", TransferState::Done)
        ]
    );
    assert_eq!((transfers[2].1.shares.len(), transfers[2].1.bytes), (1, 10));
    assert_eq!(transfers[1].1.problem.as_deref(), Some("why"));
    assert!(transfers.iter().all(|(_, row)| row.owner.is_none() && row.content.is_none()));
    assert_eq!(database.copy(&copy.file).unwrap(), Some(copy));
    let member = database.member(&world.peer()).unwrap().unwrap();
    assert_eq!(
        (member.listed.state, member.listed.last_seen, member.heard_ms),
        (MemberState::Offline, None, 8)
    );
    // Only what was under way goes on; what an older version had given up does not come to life again.
    let unfinished = database.unfinished_downloads(10).unwrap();
    assert_eq!(unfinished.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [3]);

    let columns = |database: &Database| -> Vec<(String, String, String, bool)> {
        let sql =
            "SELECT m.name, c.name, c.type, c.[notnull] FROM sqlite_schema m, pragma_table_info(m.name) c
            WHERE m.type = 'table' ORDER BY 1, c.cid";
        let connection = database.connection();
        let mut rows = connection.prepare(sql).unwrap();
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    let indices = |database: &Database| -> Vec<String> {
        let connection = database.connection();
        let mut rows =
            connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY 1").unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(columns(&database), columns(&world.database));
    assert_eq!(indices(&database), indices(&world.database));
    drop(database);
    Database::open(&path).unwrap();
}

#[test]
fn the_oldest_transfers_are_forgotten() {
    let world = World::new();
    let sql = "INSERT INTO transfers (file, name, direction, state, size_bytes, bytes, started_ms, shares)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        SELECT zeroblob(32), 'a', 'download', 'done', 1, 1, i, '[]' FROM n";
    world.database.connection().execute(sql, [TRANSFERS_KEPT]).unwrap();
    let oldest = world.database.transfer(TransferId(1)).unwrap().unwrap();
    let paused = Transfer { state: TransferState::Paused, ..oldest.clone() };
    world.database.update_transfer(TransferId(2), &paused).unwrap();
    world.database.begin_transfer(&oldest).unwrap();
    world.database.begin_transfer(&oldest).unwrap();
    assert_eq!(world.database.transfer(TransferId(1)).unwrap(), None);
    assert!(world.database.transfer(TransferId(2)).unwrap().is_some(), "a paused one is not history");
    assert_eq!(world.database.transfers(None, u32::MAX).unwrap().len(), TRANSFERS_KEPT as usize + 1);
}

#[test]
fn a_copy_and_its_record_are_kept_together_or_not_at_all() {
    let world = World::new();
    let (copy, record) = (world.copy(1, "a", Provenance::Own), world.record(1, 1, Some("a")));
    world.database.keep_copy(&copy, &manifest(1), &record, &world.trust, 5).unwrap();
    assert_eq!(world.database.copy(&copy.file).unwrap(), Some(copy.clone()));
    assert_eq!(world.database.record(&copy.file).unwrap().as_ref(), Some(record.signed()));
    // A second own file of that name cannot be, and leaves no record either.
    let (twin, record) = (world.copy(2, "A", Provenance::Own), world.record(2, 1, Some("A")));
    assert!(world.database.keep_copy(&twin, &manifest(2), &record, &world.trust, 5).is_err());
    assert_eq!(world.database.record(&twin.file).unwrap(), None);
}

#[test]
fn a_doubted_copy_stays_doubted_over_a_restart_until_it_is_found_sound() {
    let world = World::new();
    let copy = world.copy(1, "a", Provenance::Own);
    world.database.put_copy(&copy, &manifest(1)).unwrap();
    assert!(world.database.set_stamp(&copy, copy.stamp.doubted()).unwrap());
    let world = world.reopened();
    let doubted = world.database.copy(&copy.file).unwrap().unwrap();
    assert!(doubted.stamp.is_doubted() && doubted.stamp.size_bytes == copy.stamp.size_bytes);
    assert!(world.database.set_stamp(&doubted, copy.stamp).unwrap());
    assert_eq!(world.database.copy(&copy.file).unwrap(), Some(copy.clone()));
    // One that lies elsewhere by now is another copy.
    let moved = LibraryCopy { place: Place::Library(LibraryPath::parse("b").unwrap()), ..copy };
    assert!(!world.database.set_stamp(&moved, moved.stamp.doubted()).unwrap());
}

#[test]
fn a_probe_writes_and_changes_nothing() {
    let world = World::new();
    world.database.probe().unwrap();
    let world = world.reopened();
    assert_eq!(world.database.copies(None, 1).unwrap(), []);
}

/// The file of [`World::copy`], handed over by its owner to the member with this seed.
fn handed_over(world: &World, before: &Record, to: u8) -> (Record, Request) {
    let next = Keypair::ed25519_from_bytes([to; 32]).unwrap();
    let link = before.link_to(next.public().to_peer_id(), false, Vec::new());
    let link = Signed::new(&link, &world.trust.network, &world.owner);
    let offer = Request { record: before.signed().clone(), link: link.clone(), rule: None };
    let body = Body { links: vec![link], revision: before.body().revision + 1, ..before.body().clone() };
    (Record::sign(&body, &world.trust, &next).unwrap(), offer)
}

#[test]
fn an_own_copy_follows_its_file_to_another_owner_whichever_way_the_record_comes() {
    let world = World::new();
    for (nonce, listed) in [(1, true), (2, false)] {
        let name = format!("f{nonce}");
        let (copy, record) = (world.copy(nonce, &name, Provenance::Own), world.record(nonce, 1, Some(&name)));
        world.database.keep_copy(&copy, &manifest(nonce), &record, &world.trust, 1).unwrap();
        let (after, offer) = handed_over(&world, &record, 7);
        let handover = Handover { taking: false, offer };
        world.database.put_handover(&copy.file, &handover, 1).unwrap();
        assert_eq!(world.database.handover(&copy.file).unwrap().as_ref(), Some(&handover));
        if listed {
            world.database.remember_records([&after], &world.trust, 2).unwrap();
        } else {
            world.database.handed_over(&after, &world.trust, 2).unwrap();
            assert_eq!(world.database.handover(&copy.file).unwrap(), None);
        }
        let now = world.database.copy(&copy.file).unwrap().unwrap();
        assert_eq!((now.provenance, now.owner), (Provenance::Fetched, after.owner()));
        assert_eq!((&now.record, &now.place), (&copy.record, &copy.place), "it can be opened still");
        assert!(world.database.outdated_copy(&copy.file).unwrap().is_some(), "and is to be brought up");
        assert!(world.database.own_named(&copy.name).unwrap().is_none());
    }
    assert!(world.database.owned_by(&world.peer(), None, 10).unwrap().is_empty());
}

#[test]
fn a_file_is_taken_over_with_its_copy_or_not_at_all() {
    let world = World::new();
    let before = world.record(1, 1, Some("a"));
    let fetched = world.copy(1, "a", Provenance::Fetched);
    let (after, offer) = handed_over(&world, &before, 7);
    let mine = LibraryCopy {
        owner: after.owner(),
        owner_name: MemberName::new("natal").unwrap(),
        provenance: Provenance::Own,
        record: after.signed().clone(),
        ..fetched.clone()
    };
    let take = |copy: &LibraryCopy, record: &Record| world.database.take_over(copy, record, &world.trust, 2);
    world.database.put_handover(&fetched.file, &Handover { taking: true, offer }, 1).unwrap();
    assert!(!take(&mine, &after).unwrap(), "no copy is here");
    assert!(world.database.record(&fetched.file).unwrap().is_none(), "nothing was kept");
    world.database.put_copy(&fetched, &manifest(1)).unwrap();

    // A twin of an own file is refused by the tables, and that too leaves all as it was.
    let twin = world.copy(2, "A", Provenance::Own);
    world.database.put_copy(&twin, &manifest(2)).unwrap();
    assert!(take(&mine, &after).is_err());
    assert_eq!(world.database.copy(&fetched.file).unwrap().as_ref(), Some(&fetched));
    assert_eq!(world.database.handovers().unwrap().len(), 1);

    world.database.remove_copy(&twin.file).unwrap();
    assert!(take(&mine, &after).unwrap());
    assert_eq!(world.database.copy(&fetched.file).unwrap(), Some(mine.clone()));
    assert_eq!(world.database.owned_by(&after.owner(), None, 10).unwrap(), [fetched.file]);
    assert!(world.database.outdated_copy(&fetched.file).unwrap().is_none());
    assert!(world.database.handovers().unwrap().is_empty());
    assert!(!take(&mine, &after).unwrap(), "what is superseded or known is not taken again");
}

#[test]
fn an_own_audience_is_found_by_its_rule_and_keeps_whose_keys_were_sealed() {
    let world = World::new();
    let peer = |seed| Keypair::ed25519_from_bytes([seed; 32]).unwrap().public().to_peer_id();
    let origin = Origin { owner: world.peer(), nonce: [5; 16].into() };
    let rule = Rule::EveryoneBut(vec![peer(7), peer(8)]);
    let own = OwnAudience {
        audience: Audience::new(origin, rule.clone(), 1, &world.trust.network),
        keys: Keys([(1, EpochKey::from_bytes([6; 32]))].into()),
    };
    let reader = Keypair::ed25519_from_bytes([9; 32]).unwrap();
    let secret = SealingSecret::generate();
    let stated = secret.statement(&world.trust.network, &reader);
    let key = SealingKey::verify(&stated, &world.trust.network, &peer(9)).unwrap();
    let wrap = Wrap::seal(&own.audience, &own.keys, &key, &world.trust, &world.owner).unwrap();
    world.database.keep_audience(&own, &[(key.clone(), wrap.clone())], &[]).unwrap();

    let Rule::EveryoneBut(members) = rule else { unreachable!() };
    let reversed = Rule::EveryoneBut(members.into_iter().rev().collect());
    assert_eq!(world.database.own_audiences_of(&reversed).unwrap(), std::slice::from_ref(&own));
    let id = own.audience.audience;
    assert_eq!(world.database.own_audience(&id).unwrap(), Some(own.clone()));
    let held = world.database.held_wraps(&id).unwrap();
    assert_eq!(held, [Held { member: peer(9), epoch: 1, sealed_to: *key.public }]);
    assert_eq!(world.database.wrap(&id, &peer(9)).unwrap().as_ref(), Some(wrap.signed()));

    world.database.keep_audience(&own, &[], &[peer(9)]).unwrap();
    assert_eq!(world.database.held_wraps(&id).unwrap(), []);
    assert_eq!(world.database.wrap(&id, &peer(9)).unwrap(), None);
}

#[test]
fn a_copy_is_outdated_from_the_moment_another_record_is_known_until_it_is_of_that_one() {
    let world = World::new();
    let trust = &world.trust;
    let copy = world.copy(1, "a", Provenance::Fetched);
    let first = world.record(1, 1, Some("a"));
    world.database.keep_copy(&copy, &manifest(1), &first, trust, 1).unwrap();
    assert_eq!(world.database.outdated(None, 10).unwrap(), []);

    // By whatever way the newer record comes, and over a restart.
    let second = world.record(1, 2, Some("a"));
    assert!(world.database.remember_record(&second, trust, 2).unwrap());
    let world = world.reopened();
    let outdated = world.database.outdated(None, 10).unwrap();
    assert_eq!(outdated, [Outdated { copy: copy.clone(), now: Some(second.signed().clone()) }]);
    assert_eq!(world.database.outdated(Some(&copy.file), 10).unwrap(), []);

    // A fetch of the old content that ends now leaves it so; the new one settles it.
    world.database.keep_copy(&copy, &manifest(1), &first, &world.trust, 3).unwrap();
    assert!(world.database.outdated_copy(&copy.file).unwrap().is_some());
    let newer = LibraryCopy { record: second.signed().clone(), ..copy.clone() };
    world.database.keep_copy(&newer, &manifest(1), &second, &world.trust, 4).unwrap();
    assert_eq!(world.database.outdated_copy(&copy.file).unwrap(), None);

    // Hidden, and shown again by its next record.
    let hidden = page(vec![hidden(&second)], Vec::new(), 1);
    assert_eq!(world.database.take_page(&hidden, &me(), &world.trust, 5).unwrap().files, [copy.file]);
    assert_eq!(world.database.outdated_copy(&copy.file).unwrap().unwrap().now, None);
    let third = world.record(1, 3, Some("a"));
    let shown = page(vec![file(third.clone())], Vec::new(), 2);
    world.database.take_page(&shown, &me(), &world.trust, 6).unwrap();
    let now = world.database.outdated_copy(&copy.file).unwrap().unwrap().now;
    assert_eq!(now.as_ref(), Some(third.signed()));

    // Deleted, and the copy gone.
    let deleted = world.record(1, 4, None);
    world.database.remember_record(&deleted, &world.trust, 7).unwrap();
    assert_eq!(
        world.database.outdated_copy(&copy.file).unwrap().unwrap().now.as_ref(),
        Some(deleted.signed())
    );
    world.database.remove_copy(&copy.file).unwrap();
    assert_eq!(world.database.outdated(None, 10).unwrap(), []);
    let own = world.database.records_of_owner(&world.peer()).unwrap();
    assert_eq!(own, [(copy.file, deleted.signed().clone())], "a deletion is published anew too");
}

#[test]
fn what_is_planned_for_the_trash_is_found_after_a_crash_and_not_shown_before_its_end() {
    let world = World::new();
    let copy = world.copy(1, "a", Provenance::Fetched);
    world.database.put_copy(&copy, &manifest(1)).unwrap();
    let trashed = Trashed {
        file: copy.file,
        owner_name: copy.owner_name.clone(),
        name: copy.name.clone(),
        own: false,
        path: LibraryPath::parse("recife/a").unwrap(),
        size_bytes: 300_000,
        sha256: copy.sha256,
        revision: 1,
        reason: TrashReason::Deleted,
        since_ms: 50,
    };
    let id = world.database.plan_trash(&trashed).unwrap();
    assert_eq!(world.database.trash(None, 10).unwrap(), []);
    assert_eq!(world.database.trash_before(u64::MAX, 10).unwrap(), []);
    let world = world.reopened();
    assert_eq!(world.database.planned_trash().unwrap(), [(id, trashed.clone())]);

    world.database.trash_copy(id, &copy.file).unwrap();
    assert_eq!(world.database.copy(&copy.file).unwrap(), None);
    assert_eq!(world.database.planned_trash().unwrap(), []);
    assert_eq!(world.database.trash(None, 10).unwrap(), [(id, trashed.clone())]);
    assert_eq!(world.database.trash(Some(id), 10).unwrap(), []);
    assert_eq!(world.database.trash_of(&copy.file).unwrap(), [id]);
    assert_eq!(world.database.trash_before(50, 10).unwrap(), []);
    assert_eq!(world.database.trash_before(51, 10).unwrap(), [id]);
    assert!(world.database.forget_trash(id).unwrap() && !world.database.forget_trash(id).unwrap());
    // A number is never used again: a file of that name may lie there still.
    assert!(world.database.plan_trash(&trashed).unwrap() > id);
}

#[test]
fn how_far_the_library_was_read_is_known_after_a_restart() {
    let world = World::new();
    assert_eq!(world.database.library_scrub().unwrap(), None);
    let begun = crate::scrub::Round { after: None, began_ms: 5, ended_ms: None };
    let further =
        crate::scrub::Round { after: Some(FileId::from_bytes([7; 32])), ended_ms: Some(9), ..begun };
    for round in [begun, further] {
        world.database.set_library_scrub(&round).unwrap();
        assert_eq!(world.database.library_scrub().unwrap(), Some(round));
    }
    assert_eq!(world.reopened().database.library_scrub().unwrap(), Some(further));
}
