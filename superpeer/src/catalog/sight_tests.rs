//! Who is shown what of the catalog, as members and super-peers see it.

use proptest::prelude::*;
use quarta_protocols::{
    audiences::{Audience, Rule, Stated, Wrap},
    cbor,
    clock::HybridTime,
    ids::{ContentId, RecordHash},
    messages::{
        changes::Change as Told,
        index::Publication,
        sync::{Entry, Stamp},
    },
    records::{Record, State},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};
use tempfile::TempDir;

use super::{
    fixtures::{
        START_MS, audience, body, but, catalog, departure, handed_over, key, membership, network, only, peer,
        present, record, restricted, revocation, wrap,
    },
    payload::Key,
    *,
};
use crate::feed::told;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn publish(catalog: &mut Catalog, owner: u8, record: &Record) -> Published {
    catalog.publish(&membership(owner), vec![record.signed().clone()], START_MS).unwrap().remove(0)
}

fn stored(catalog: &mut Catalog, owner: u8, record: &Record) -> Option<Applied> {
    let published = publish(catalog, owner, record);
    assert_eq!(published.outcome, Publication::Stored);
    published.applied
}

/// Publishes an audience with the keys of these members.
fn keys(catalog: &mut Catalog, owner: u8, of: &Stated<Audience>, members: &[u8]) -> Vec<Publication> {
    let wraps = members.iter().map(|member| wrap(of, owner, *member).signed().clone()).collect();
    let published =
        catalog.publish_keys(&membership(owner), vec![of.signed().clone()], wraps, START_MS).unwrap();
    published.into_iter().map(|item| item.outcome).collect()
}

fn names(reader: &Reader, viewer: u8, query: &str) -> Vec<String> {
    let page = reader.search(Viewer::Member(peer(viewer)), query, None, None, 100).unwrap();
    page.files.iter().map(|file| file.name.as_str().to_owned()).collect()
}

/// What a member that has seen everything up to a number is told.
fn news(catalog: &Catalog, viewer: u8, since: u64) -> Vec<(&'static str, Kind)> {
    let page = catalog.reader().unwrap().since(since, usize::MAX, usize::MAX).unwrap();
    let word = |change| match change {
        Told::Put { kind, .. } => ("put", kind),
        Told::Forget { kind, .. } => ("forget", kind),
    };
    page.changes.iter().filter_map(|change| told(change, &peer(viewer))).map(word).collect()
}

fn stamped(kind: Kind, id: [u8; 32], payload: Vec<u8>, by: u8) -> Entry {
    let stamp = Stamp {
        superpeer: peer(by),
        payload: RecordHash::of(&payload),
        time: HybridTime { millis: START_MS, counter: 0 },
    };
    Entry {
        kind,
        id: ByteArray::new(id),
        payload: ByteBuf::from(payload),
        stamp: Signed::new(&stamp, &network(), &key(by)),
    }
}

fn file_entry(record: &Record) -> Entry {
    stamped(Kind::FILE, *record.file().as_bytes(), cbor::to_vec(record.signed()), 102)
}

fn audience_entry(audience: &Stated<Audience>) -> Entry {
    let id = Key::of_audience(audience.statement()).id;
    stamped(Kind::AUDIENCE, id, cbor::to_vec(audience.signed()), 102)
}

fn wrap_entry(wrap: &Stated<Wrap>) -> Entry {
    stamped(Kind::WRAP, Key::of_wrap(wrap.statement()).id, cbor::to_vec(wrap.signed()), 102)
}

#[test]
fn a_listed_member_finds_a_file_by_nothing_that_it_can_ask() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let hidden_from_3 = audience(1, 1, but(&[3]), 1);
    assert_eq!(keys(&mut catalog, 1, &hidden_from_3, &[2]), [Publication::Stored, Publication::Stored]);
    stored(&mut catalog, 1, &record(1, 1, 1, present("plano aberto.csv")));
    let hidden = record(1, 2, 1, restricted("plano secreto.csv", 8, hidden_from_3.statement().audience, 1));
    stored(&mut catalog, 1, &hidden);
    let reader = catalog.reader().unwrap();
    for query in ["", "p", "plano", "secreto"] {
        let open = usize::from(query != "secreto");
        assert_eq!(names(&reader, 3, query).len(), open, "{query:?}");
        assert_eq!(names(&reader, 2, query).len(), open + 1, "{query:?}");
        assert_eq!(names(&reader, 1, query).len(), open + 1, "the owner always: {query:?}");
    }
    let id = hidden.file().to_string();
    for reference in [&id, &id[..8], "plano secreto.csv", "filial-1:plano secreto.csv"] {
        let found = |viewer| reader.resolve(viewer, reference).unwrap().len();
        assert_eq!(found(Viewer::Member(peer(3))), 0, "{reference}");
        assert_eq!(found(Viewer::Member(peer(2))), 1, "{reference}");
        assert_eq!(found(Viewer::Administrator), 1, "{reference}");
    }
    assert_eq!(reader.file(Viewer::Member(peer(3)), &hidden.file()).unwrap(), None);
    let of_owner = reader.search(Viewer::Member(peer(3)), "", Some(peer(1)), None, 9).unwrap();
    assert_eq!(of_owner.files.len(), 1);
}

#[test]
fn a_page_neither_ends_nor_goes_on_at_a_hidden_file() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let hidden_from_3 = audience(1, 1, but(&[3]), 1);
    keys(&mut catalog, 1, &hidden_from_3, &[]);
    let hide = hidden_from_3.statement().audience;
    for nth in 0..12 {
        let name = format!("foto {nth:02}.png");
        let state = if nth % 3 == 1 { present(&name) } else { restricted(&name, 8, hide, 1) };
        stored(&mut catalog, 1, &record(1, nth, 1, state));
    }
    let reader = catalog.reader().unwrap();
    for query in ["", "f", "foto"] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = reader.search(Viewer::Member(peer(3)), query, None, after.as_ref(), 3).unwrap();
            seen.extend(page.files.iter().map(|file| file.name.as_str().to_owned()));
            let Some(next) = page.next else { break };
            assert!(seen.iter().any(|name| name == next.name.as_str()), "{next:?} was not shown");
            after = Some(next);
        }
        assert_eq!(seen, ["foto 01.png", "foto 04.png", "foto 07.png", "foto 10.png"], "{query:?}");
    }
}

#[test]
fn whoever_joins_later_sees_what_is_hidden_from_some_and_nothing_of_what_is_for_some() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let (from_3, for_2) = (audience(1, 1, but(&[3]), 1), audience(1, 2, only(&[2]), 1));
    keys(&mut catalog, 1, &from_3, &[2]);
    keys(&mut catalog, 1, &for_2, &[2]);
    stored(&mut catalog, 1, &record(1, 1, 1, restricted("but.txt", 8, from_3.statement().audience, 1)));
    stored(&mut catalog, 1, &record(1, 2, 1, restricted("only.txt", 9, for_2.statement().audience, 1)));
    catalog.enrol(fixtures::enrolment(9), START_MS).unwrap();
    let reader = catalog.reader().unwrap();
    assert_eq!(names(&reader, 9, ""), ["but.txt"]);
    assert_eq!(names(&reader, 2, ""), ["but.txt", "only.txt"]);
    assert_eq!(names(&reader, 3, ""), Vec::<String>::new());
    let files = news(&catalog, 9, 0).into_iter().filter(|(_, kind)| *kind == Kind::FILE).count();
    assert_eq!(files, 1);
    // And the owner can give it the keys now.
    assert_eq!(keys(&mut catalog, 1, &from_3, &[9]), [Publication::Known, Publication::Stored]);
}

#[test]
fn whoever_saw_a_file_that_is_hidden_now_is_told_to_forget_it_also_when_it_was_away() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    stored(&mut catalog, 1, &record(1, 1, 1, present("salarios.xlsx")));
    let seen = catalog.sequence();
    let hidden_from_3 = audience(1, 1, but(&[3]), 1);
    keys(&mut catalog, 1, &hidden_from_3, &[2]);
    let hide = hidden_from_3.statement().audience;
    let applied = stored(&mut catalog, 1, &record(1, 1, 2, restricted("salarios.xlsx", 8, hide, 1)));
    let (before, now) = (ContentId::from_bytes([9; 32]), ContentId::from_bytes([8; 32]));
    assert!(matches!(
        applied,
        Some(Applied::File { before: Some(b), content: Some(c), withdrawn: true, .. }) if b == before && c == now
    ));
    assert_eq!(news(&catalog, 3, seen), [("forget", Kind::FILE)]);
    assert_eq!(news(&catalog, 2, seen), [("put", Kind::WRAP), ("put", Kind::FILE)]);
    assert_eq!(
        news(&catalog, 1, seen),
        [("put", Kind::AUDIENCE), ("put", Kind::WRAP), ("put", Kind::FILE)],
        "the owner sees its list and whom it gave keys"
    );
    let reader = catalog.reader().unwrap();
    assert!(reader.is_current(&now).unwrap() && !reader.is_current(&before).unwrap());
    // Off the list again: it moves to another audience.
    let seen = catalog.sequence();
    let nobody = audience(1, 2, but(&[]), 1);
    keys(&mut catalog, 1, &nobody, &[2, 3]);
    stored(&mut catalog, 1, &record(1, 1, 3, restricted("salarios.xlsx", 7, nobody.statement().audience, 1)));
    assert_eq!(news(&catalog, 3, seen), [("put", Kind::WRAP), ("put", Kind::FILE)]);
    assert_eq!(names(&catalog.reader().unwrap(), 3, ""), ["salarios.xlsx"]);
}

#[test]
fn whoever_saw_a_file_that_another_rule_of_its_audience_hides_is_told_to_forget_it() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let anybody = audience(1, 1, but(&[]), 1);
    keys(&mut catalog, 1, &anybody, &[2, 3]);
    stored(&mut catalog, 1, &record(1, 1, 1, restricted("a", 8, anybody.statement().audience, 1)));
    let seen = catalog.sequence();
    // No owner may do this; one that does it all the same, at another super-peer, shows nobody more than it must.
    let only_2 = audience_entry(&audience(1, 1, only(&[2]), 2));
    catalog.take(&membership(102), vec![only_2], START_MS).unwrap();
    assert_eq!(news(&catalog, 3, seen), [("forget", Kind::FILE)]);
    assert_eq!(news(&catalog, 2, seen), [("put", Kind::FILE)]);
}

#[test]
fn whoever_never_saw_a_file_hears_nothing_of_it_not_even_that_it_changed_or_is_deleted() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let seen = catalog.sequence();
    let hidden_from_3 = audience(1, 1, but(&[3]), 1);
    keys(&mut catalog, 1, &hidden_from_3, &[2]);
    let hide = hidden_from_3.statement().audience;
    let states = [restricted("a", 8, hide, 1), restricted("b", 7, hide, 1), State::Deleted];
    for (revision, state) in (1..).zip(states) {
        let applied = stored(&mut catalog, 1, &record(1, 1, revision, state));
        assert!(matches!(applied, Some(Applied::File { withdrawn: false, .. })), "{applied:?}");
        assert_eq!(news(&catalog, 3, seen), []);
        assert_eq!(news(&catalog, 2, seen).last(), Some(&("put", Kind::FILE)));
    }
}

#[test]
fn a_file_that_was_hidden_and_is_deleted_is_forgotten_by_who_had_seen_it_before() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    stored(&mut catalog, 1, &record(1, 1, 1, present("a")));
    let seen = catalog.sequence();
    let for_2 = audience(1, 1, only(&[2]), 1);
    keys(&mut catalog, 1, &for_2, &[]);
    stored(&mut catalog, 1, &record(1, 1, 2, restricted("a", 8, for_2.statement().audience, 1)));
    stored(&mut catalog, 1, &record(1, 1, 3, State::Deleted));
    assert_eq!(news(&catalog, 3, seen), [("forget", Kind::FILE)]);
    assert_eq!(news(&catalog, 2, seen), [("put", Kind::FILE)]);
}

#[test]
fn a_deletion_by_a_later_owner_reaches_whom_the_former_one_let_read() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let of_1 = audience(1, 1, but(&[3]), 1);
    keys(&mut catalog, 1, &of_1, &[2, 4]);
    stored(&mut catalog, 1, &record(1, 1, 1, restricted("a", 8, of_1.statement().audience, 1)));
    let seen = catalog.sequence();
    // The record by which member 2 took the file over never came here.
    let deleted = handed_over(body(1, 1, 3, State::Deleted), 1, 2);
    catalog.take(&membership(102), vec![file_entry(&deleted)], START_MS).unwrap();
    for (viewer, told) in [(1, "put"), (2, "put"), (4, "put"), (3, "forget")] {
        assert_eq!(news(&catalog, viewer, seen), [(told, Kind::FILE)], "{viewer}");
    }
}

#[test]
fn who_is_to_forget_a_file_is_told_how_far_it_had_come_and_how_it_gave_it_away() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    stored(&mut catalog, 1, &record(1, 1, 1, present("a")));
    let of_2 = audience(2, 1, only(&[4]), 1);
    keys(&mut catalog, 2, &of_2, &[4]);
    let given = handed_over(body(1, 1, 2, restricted("a", 8, of_2.statement().audience, 1)), 1, 2);
    stored(&mut catalog, 2, &given);
    let page = catalog.reader().unwrap().since(0, usize::MAX, usize::MAX).unwrap();
    for (viewer, links) in [(1, given.body().links.clone()), (3, Vec::new())] {
        let told: Vec<_> = page.changes.iter().filter_map(|change| told(change, &peer(viewer))).collect();
        let forget = Told::Forget {
            kind: Kind::FILE,
            id: ByteArray::new(*given.file().as_bytes()),
            place: Some(given.precedence()),
            handed_over: links,
        };
        assert!(told.contains(&forget), "{viewer}");
    }
}

#[test]
fn a_file_is_told_again_when_its_audience_arrives_after_it() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    stored(&mut catalog, 1, &record(1, 1, 1, present("a")));
    let seen = catalog.sequence();
    let from_3 = audience(1, 1, but(&[3]), 1);
    let hidden = record(1, 1, 2, restricted("a", 8, from_3.statement().audience, 1));
    let taken = catalog.take(&membership(102), vec![file_entry(&hidden)], START_MS).unwrap();
    assert!(matches!(taken.applied[..], [Applied::File { withdrawn: true, .. }]));
    for (viewer, shown) in [(1, 1), (2, 0), (3, 0)] {
        assert_eq!(news(&catalog, viewer, seen).len(), shown, "{viewer}");
        assert_eq!(names(&catalog.reader().unwrap(), viewer, "").len(), shown, "{viewer}");
    }
    let before = catalog.sequence();
    catalog.take(&membership(102), vec![audience_entry(&from_3)], START_MS).unwrap();
    assert_eq!(news(&catalog, 2, before), [("put", Kind::FILE)]);
    assert_eq!(news(&catalog, 3, before), [("forget", Kind::FILE)]);
    // A later epoch of the same rule tells nobody anything anew.
    let before = catalog.sequence();
    let later = audience(1, 1, but(&[3]), 2);
    catalog.take(&membership(102), vec![audience_entry(&later)], START_MS).unwrap();
    assert_eq!(news(&catalog, 2, before), []);
}

#[test]
fn an_audience_hides_and_shows_its_own_owners_files_only() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let of_1 = audience(1, 1, only(&[2]), 1);
    keys(&mut catalog, 1, &of_1, &[]);
    let probe = record(3, 1, 1, restricted("probe", 8, of_1.statement().audience, 1));
    let outcome = publish(&mut catalog, 3, &probe).outcome;
    assert!(matches!(&outcome, Publication::Invalid(why) if why.contains("not its owner's")), "{outcome:?}");
    // Whatever another super-peer let pass, nobody learns from it who is on the list.
    catalog.take(&membership(102), vec![file_entry(&probe)], START_MS).unwrap();
    let reader = catalog.reader().unwrap();
    assert_eq!(names(&reader, 3, ""), ["probe"]);
    assert_eq!(names(&reader, 2, ""), Vec::<String>::new());
    assert_eq!(news(&catalog, 2, catalog.sequence() - 1), []);
}

#[test]
fn nobody_states_anothers_audience_or_gives_its_keys() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let of_1 = audience(1, 1, but(&[3]), 1);
    let invalid = |outcome: &Publication| matches!(outcome, Publication::Invalid(_));
    // Member 2 brings what member 1 signed, before and after it is known.
    let bring = |catalog: &mut Catalog| {
        let wraps = vec![wrap(&of_1, 1, 2).signed().clone()];
        let published = catalog.publish_keys(&membership(2), vec![of_1.signed().clone()], wraps, START_MS);
        published.unwrap().into_iter().map(|item| item.outcome).collect::<Vec<_>>()
    };
    let digest = catalog.digest();
    assert!(bring(&mut catalog).iter().all(invalid));
    assert_eq!(catalog.digest(), digest);
    keys(&mut catalog, 1, &of_1, &[2]);
    assert!(bring(&mut catalog).iter().all(invalid));
    // A super-peer, which holds no member's key, brings what it signed itself under the owner's id.
    let forged = Signed::new(of_1.statement(), &network(), &key(102));
    let id = Key::of_audience(of_1.statement()).id;
    let entry = stamped(Kind::AUDIENCE, id, cbor::to_vec(&forged), 102);
    let elsewhere = stamped(Kind::AUDIENCE, [5; 32], cbor::to_vec(of_1.signed()), 102);
    let taken = catalog.take(&membership(102), vec![entry, elsewhere], START_MS).unwrap();
    assert_eq!((taken.invalid, taken.stored), (2, 0));
}

#[test]
fn an_owner_is_held_to_its_rule_and_to_those_whom_it_permits() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let first = audience(1, 1, but(&[3]), 1);
    keys(&mut catalog, 1, &first, &[]);
    let why = |outcome: &Publication| match outcome {
        Publication::Invalid(why) => why.clone(),
        other => format!("{other:?}"),
    };
    let other_rule = keys(&mut catalog, 1, &audience(1, 1, but(&[2]), 2), &[]);
    assert!(why(&other_rule[0]).contains("never changes"), "{other_rule:?}");
    let refused = keys(&mut catalog, 1, &first, &[3, 101, 99]);
    assert!(why(&refused[1]).contains("does not permit"), "{refused:?}");
    assert!(why(&refused[2]).contains("super-peer is given no keys"), "{refused:?}");
    assert!(why(&refused[3]).contains("does not know whom"), "{refused:?}");
    let early = wrap(&audience(1, 1, but(&[3]), 2), 1, 2).signed().clone();
    let early = catalog.publish_keys(&membership(1), Vec::new(), vec![early], START_MS).unwrap();
    assert!(why(&early[0].outcome).contains("epoch"), "{early:?}");
    let unknown = wrap(&audience(1, 9, but(&[3]), 1), 1, 2).signed().clone();
    let unknown = catalog.publish_keys(&membership(1), Vec::new(), vec![unknown], START_MS).unwrap();
    assert!(why(&unknown[0].outcome).contains("publish it first"), "{unknown:?}");
    let files = [
        restricted("a", 8, audience(1, 9, but(&[3]), 1).statement().audience, 1),
        restricted("a", 8, first.statement().audience, 2),
    ];
    for file in files {
        let outcome = publish(&mut catalog, 1, &record(1, 1, 1, file)).outcome;
        assert!(why(&outcome).contains("publish it first"), "{outcome:?}");
    }
    // Whose membership has ended is given no new keys, and publishes none.
    catalog.revoke(revocation(2, 101), START_MS).unwrap();
    assert!(why(&keys(&mut catalog, 1, &first, &[2])[1]).contains("has ended"));
    catalog.depart(&departure(1), START_MS).unwrap();
    assert!(why(&keys(&mut catalog, 1, &audience(1, 2, but(&[]), 1), &[])[0]).contains("has ended"));
}

#[test]
fn a_member_that_makes_lists_without_end_is_stopped_and_can_still_change_those_it_has() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let nonce = |nth: u64| {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&nth.to_be_bytes());
        quarta_protocols::records::Origin { owner: peer(1), nonce: ByteArray::new(nonce) }
    };
    let make = |nth: u64, epoch: u64| {
        let audience = Audience::new(nonce(nth), Rule::Only(Vec::new()), epoch, &network());
        Signed::new(&audience, &network(), &key(1))
    };
    let all = (0..AUDIENCES_PER_MEMBER_MAX).map(|nth| make(nth, 1)).collect();
    let published = catalog.publish_keys(&membership(1), all, Vec::new(), START_MS).unwrap();
    assert!(published.iter().all(|item| item.outcome == Publication::Stored));
    let more = vec![make(AUDIENCES_PER_MEMBER_MAX, 1), make(0, 2)];
    let published = catalog.publish_keys(&membership(1), more, Vec::new(), START_MS).unwrap();
    assert_eq!(published[0].outcome, Publication::TooMany);
    assert_eq!(published[1].outcome, Publication::Stored);
    // Another member is not touched by it.
    assert_eq!(keys(&mut catalog, 2, &audience(2, 1, but(&[]), 1), &[]), [Publication::Stored]);
}

#[test]
fn a_hand_over_to_an_audience_of_the_new_owner_hides_the_file_from_the_same_members() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let (of_1, of_2) = (audience(1, 1, but(&[3]), 1), audience(2, 1, but(&[3]), 1));
    keys(&mut catalog, 1, &of_1, &[2, 4]);
    stored(&mut catalog, 1, &record(1, 1, 1, restricted("a", 8, of_1.statement().audience, 1)));
    keys(&mut catalog, 2, &of_2, &[1, 4]);
    let given = handed_over(body(1, 1, 2, restricted("a", 8, of_2.statement().audience, 1)), 1, 2);
    stored(&mut catalog, 2, &given);
    let reader = catalog.reader().unwrap();
    for viewer in [1, 2, 4] {
        assert_eq!(names(&reader, viewer, ""), ["a"], "{viewer}");
    }
    assert_eq!(names(&reader, 3, ""), Vec::<String>::new());
}

#[test]
fn what_an_older_version_kept_unread_is_read_by_this_one() {
    let dir = folder();
    let mut before = catalog(dir.path(), 101);
    let from_3 = audience(1, 1, but(&[3]), 1);
    keys(&mut before, 1, &from_3, &[2]);
    stored(&mut before, 1, &record(1, 1, 1, restricted("segredo", 8, from_3.statement().audience, 1)));
    let digest = before.digest();
    // As format 3 had it: entries and nothing that derives from them.
    before
        .conn
        .execute_batch(
            "INSERT INTO file_names (rowid, folded) SELECT row, folded FROM files WHERE audience <> x'';
             DROP INDEX files_open_by_name; DROP INDEX files_restricted; DROP TABLE restricted_names;
             ALTER TABLE files DROP COLUMN audience",
        )
        .unwrap();
    for table in ["audiences", "audience_members", "wraps", "restrictions"] {
        before.conn.execute(&format!("DROP TABLE {table}"), []).unwrap();
    }
    before.conn.pragma_update(None, "user_version", 3).unwrap();
    drop(before);
    let after = fixtures::empty_catalog(dir.path(), 101);
    assert_eq!(after.digest(), digest);
    let reader = after.reader().unwrap();
    for query in ["", "segredo"] {
        assert_eq!((names(&reader, 2, query).len(), names(&reader, 3, query).len()), (1, 0));
    }
    assert_eq!(news(&after, 3, 0).iter().filter(|(_, kind)| *kind == Kind::FILE).count(), 0);
}

/// Some statement of a small world of lists: members 1 and 2 own three audiences of several epochs, also with differing
/// rules, and a few files that are open, restricted or deleted.
fn any_entry() -> impl Strategy<Value = Entry> {
    let rule = prop_oneof![Just(but(&[3])), Just(but(&[])), Just(only(&[4])), Just(only(&[3, 4]))];
    let stated = (1u8..3, 0u8..3, rule, 1u64..3);
    let stated = stated.prop_map(|(owner, nth, rule, epoch)| (owner, audience(owner, nth, rule, epoch)));
    let list = stated.clone().prop_map(|(_, audience)| audience_entry(&audience));
    let keys = (stated, 1u8..5).prop_map(|((owner, of), member)| wrap_entry(&wrap(&of, owner, member)));
    let file = (1u8..3, 0u16..3, 1u64..4, 0u8..5).prop_map(|(owner, nth, revision, what)| {
        let state = match what {
            0 => State::Deleted,
            1 => present("open"),
            what => {
                let list = audience(owner, what - 2, but(&[]), 1).statement().audience;
                restricted("hidden", 10 + what, list, 1)
            }
        };
        file_entry(&record(owner, nth, revision, state))
    });
    prop_oneof![3 => file, 2 => list, 1 => keys]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn in_any_order_the_same_lists_come_to_stand_and_the_same_files_are_seen(
        entries in prop::collection::vec(any_entry(), 1..24),
        order in any::<prop::sample::Index>(),
        batch in 1usize..6,
        read_at in any::<prop::sample::Index>(),
    ) {
        let dir = folder();
        let (mut one, mut other) = (catalog(dir.path(), 101), catalog(dir.path(), 102));
        // A follower of the one super-peer: what it knows, by all that it was told up to here.
        let mut followers: Vec<_> = (1u8..5).map(|viewer| (viewer, 0, std::collections::BTreeSet::new())).collect();
        let mut follow = |catalog: &Catalog| {
            for (viewer, seen, knows) in &mut followers {
                let page = catalog.reader().unwrap().since(*seen, usize::MAX, usize::MAX).unwrap();
                for change in &page.changes {
                    match told(change, &peer(*viewer)) {
                        Some(Told::Put { kind: Kind::FILE, id, payload }) => {
                            let signed: quarta_protocols::records::SignedRecord = cbor::from_slice(&payload).unwrap();
                            match signed.peek().unwrap().state {
                                State::Present(_) => knows.insert(*id),
                                State::Deleted => knows.remove(&*id),
                            };
                        }
                        Some(Told::Forget { kind: Kind::FILE, id, .. }) => {
                            knows.remove(&*id);
                        }
                        _ => {}
                    }
                }
                *seen = catalog.sequence();
            }
            followers.clone()
        };
        for (at, entry) in entries.iter().enumerate() {
            one.take(&membership(102), vec![entry.clone()], START_MS).unwrap();
            if at == read_at.index(entries.len()) {
                follow(&one);
            }
        }
        let mut turned = entries.clone();
        turned.rotate_left(order.index(entries.len()));
        turned.reverse();
        for batch in turned.chunks(batch) {
            let taken = other.take(&membership(101), batch.to_vec(), START_MS).unwrap();
            prop_assert_eq!((taken.invalid, taken.deferred), (0, 0));
        }
        prop_assert_eq!(one.digest(), other.digest());
        let (a, b) = (one.reader().unwrap(), other.reader().unwrap());
        for (viewer, _, knows) in follow(&one) {
            let seen = |reader: &Reader| reader.search(Viewer::Member(peer(viewer)), "", None, None, 99).unwrap();
            let page = seen(&a);
            prop_assert_eq!(&page, &seen(&b));
            let shown: std::collections::BTreeSet<_> = page.files.iter().map(|file| *file.file.as_bytes()).collect();
            // Whoever follows knows every file that it may see, and none that is hidden from it: but one whose audience
            // has not arrived, of which it may still know what stood before.
            prop_assert!(shown.is_subset(&knows), "{}", viewer);
            for id in knows.difference(&shown) {
                let waits: bool = one.conn.query_row(
                    "SELECT NOT EXISTS (SELECT 1 FROM restrictions AS r JOIN audiences AS a
                         ON a.audience = r.audience AND a.owner = r.owner
                         JOIN entries AS e ON e.row = r.row WHERE e.kind = 1 AND e.id = ?1)",
                    [id],
                    |row| row.get(0),
                ).unwrap();
                prop_assert!(waits, "{} knows a file that is hidden from it", viewer);
            }
        }
    }
}
