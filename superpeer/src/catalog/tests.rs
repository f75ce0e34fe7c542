//! The catalog as its users see it.

use std::collections::BTreeMap;

use libp2p::PeerId;
use proptest::prelude::*;
use quarta_protocols::{
    audit::{Action, Event},
    cbor,
    clock::HybridTime,
    credentials::UnixSeconds,
    ids::{ContentId, FileId, ID_BYTES, RecordHash},
    limits::FILES_PER_MEMBER_MAX,
    members::Enrolment,
    messages::{
        index::{Cursor, Publication},
        sync::{Entry, Place, Stamp},
    },
    names::FileName,
    records::{Record, SignedRecord, State},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};
use tempfile::TempDir;

use super::{
    fixtures::{
        START, START_MS, body, catalog, departure, empty_catalog, enrolment, handed_over, key, membership,
        name, network, node_enrolment, peer, present, record, revocation, trust,
    },
    payload::{Key, Payload, Verified},
    write::Merged,
    *,
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn publish(catalog: &mut Catalog, owner: u8, record: &Record) -> Published {
    catalog.publish(&membership(owner), vec![record.signed().clone()], START_MS).unwrap().remove(0)
}

fn add(catalog: &mut Catalog, owner: u8, nth: u16, name: &str) -> Record {
    let record = record(owner, nth, 1, present(name));
    assert_eq!(publish(catalog, owner, &record).outcome, Publication::Stored);
    record
}

fn found(reader: &Reader, query: &str) -> Vec<String> {
    let page = reader.search(Viewer::Administrator, query, None, None, 100).unwrap();
    page.files.iter().map(|file| file.name.as_str().to_owned()).collect()
}

/// Every entry of a catalog, by pages.
fn all_entries(catalog: &Catalog) -> Vec<Entry> {
    let (reader, mut entries, mut after) = (catalog.reader().unwrap(), Vec::new(), None);
    loop {
        let (page, next) = reader.page(after.as_ref()).unwrap();
        entries.extend(page);
        match next {
            Some(next) => after = Some(next),
            None => return entries,
        }
    }
}

fn entry(kind: u16, id: u8, payload: &[u8], stamped_by: u8, millis: u64) -> Entry {
    let stamp = Stamp {
        superpeer: peer(stamped_by),
        payload: RecordHash::of(payload),
        time: HybridTime { millis, counter: 0 },
    };
    Entry {
        kind: Kind(kind),
        id: ByteArray::new([id; ID_BYTES]),
        payload: ByteBuf::from(payload),
        stamp: Signed::new(&stamp, &network(), &key(stamped_by)),
    }
}

fn file_entry(record: &Record, stamped_by: u8) -> Entry {
    let payload = cbor::to_vec(record.signed());
    Entry { id: ByteArray::new(*record.file().as_bytes()), ..entry(1, 0, &payload, stamped_by, START_MS) }
}

#[test]
fn a_catalog_can_be_moved_to_a_thread_of_its_own() {
    fn sendable<T: Send>() {}
    sendable::<Catalog>();
    sendable::<Reader>();
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = folder();
    let mut before = catalog(dir.path(), 101);
    let kept = add(&mut before, 1, 1, "plano.csv");
    let digest = before.digest();
    // No clean close: the process is gone.
    std::mem::forget(before);
    let after = empty_catalog(dir.path(), 101);
    assert_eq!(after.digest(), digest);
    assert_eq!((after.count(Kind::FILE), after.count(Kind::MEMBER)), (1, 6));
    assert_eq!(after.reader().unwrap().record(&kept.file()).unwrap().as_ref(), Some(kept.signed()));
}

#[test]
fn stamps_move_forward_across_restarts_though_the_wall_clock_goes_back() {
    let dir = folder();
    let time = |published: Published| published.entries[0].stamp.peek().unwrap().time;
    let first = {
        let mut catalog = catalog(dir.path(), 101);
        time(publish(&mut catalog, 1, &record(1, 1, 1, present("a"))))
    };
    let mut catalog = empty_catalog(dir.path(), 101);
    let later = record(1, 1, 2, present("a"));
    let published =
        catalog.publish(&membership(1), vec![later.signed().clone()], START_MS - 60_000).unwrap().remove(0);
    assert!(time(published) > first);
}

#[test]
fn an_older_or_repeated_record_changes_nothing() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let (old, new) = (record(1, 1, 1, present("old.txt")), record(1, 1, 2, present("new.txt")));
    let stored = publish(&mut catalog, 1, &new);
    assert_eq!(stored.outcome, Publication::Stored);
    let digest = catalog.digest();
    for (record, outcome) in [(&new, Publication::Known), (&old, Publication::Superseded)] {
        let published = publish(&mut catalog, 1, record);
        assert_eq!((published.outcome, published.entries), (outcome, Vec::new()));
    }
    assert_eq!(catalog.digest(), digest);
    assert_eq!(found(&catalog.reader().unwrap(), ""), ["new.txt"]);
    let stamp = &stored.entries[0].stamp;
    let key = key(101).public().try_into_ed25519().unwrap();
    assert_eq!(stamp.verify(&network(), &key).unwrap().superpeer, peer(101));
}

#[test]
fn nobody_but_the_owner_who_is_a_member_publishes() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let (own, foreign) = (record(1, 1, 1, present("a")), record(2, 1, 1, present("b")));
    let digest = catalog.digest();
    let batch = vec![foreign.signed().clone(), own.signed().clone(), own.signed().clone()];
    let outcomes = catalog.publish(&membership(1), batch, START_MS).unwrap();
    assert!(matches!(&outcomes[0].outcome, Publication::Invalid(why) if why.contains("owner")));
    assert_eq!(outcomes[1].outcome, Publication::Stored);
    assert_eq!(outcomes[2].outcome, Publication::Known);
    assert_ne!(catalog.digest(), digest);

    let stranger = publish(&mut catalog, 5, &record(5, 1, 1, present("c")));
    assert!(matches!(&stranger.outcome, Publication::Invalid(why) if why.contains("member")));

    let mut forged = cbor::to_vec(own.signed());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = cbor::from_slice(&forged).unwrap();
    let outcome = catalog.publish(&membership(1), vec![forged], START_MS).unwrap().remove(0).outcome;
    assert!(matches!(outcome, Publication::Invalid(_)));
}

#[test]
fn a_file_handed_over_is_the_new_owners_to_change() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    add(&mut catalog, 1, 1, "a");
    let given = handed_over(body(1, 1, 2, present("a")), 1, 2);
    assert_eq!(publish(&mut catalog, 2, &given).outcome, Publication::Stored);
    let late = record(1, 1, 9, present("mine again"));
    assert_eq!(publish(&mut catalog, 1, &late).outcome, Publication::Superseded);
    let reader = catalog.reader().unwrap();
    assert_eq!(
        reader.file(Viewer::Administrator, &given.file()).unwrap().unwrap().owner_name,
        name("filial-2")
    );
    assert!(reader.search(Viewer::Administrator, "", Some(peer(1)), None, 10).unwrap().files.is_empty());
    assert_eq!(reader.search(Viewer::Administrator, "", Some(peer(2)), None, 10).unwrap().files.len(), 1);
}

#[test]
fn a_deleted_file_shows_nowhere_and_stays_deleted() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let file = add(&mut catalog, 1, 1, "secret plan.txt").file();
    assert_eq!(publish(&mut catalog, 1, &record(1, 1, 2, State::Deleted)).outcome, Publication::Stored);
    let again = record(1, 1, 3, present("secret plan.txt"));
    assert_eq!(publish(&mut catalog, 1, &again).outcome, Publication::Superseded);
    let reader = catalog.reader().unwrap();
    for query in ["", "se", "plan", "secret plan.txt"] {
        assert!(found(&reader, query).is_empty(), "{query}");
    }
    for reference in ["secret plan.txt", "filial-1:secret plan.txt", &file.to_string(), &file.short()] {
        assert!(reader.resolve(Viewer::Administrator, reference).unwrap().is_empty(), "{reference}");
    }
    assert_eq!(reader.file(Viewer::Administrator, &file).unwrap(), None);
    assert!(reader.content_files(&ContentId::from_bytes([9; 32]), 10).unwrap().is_empty());
    assert!(reader.record(&file).unwrap().is_some(), "the deletion itself is kept");
}

#[test]
fn a_flooding_member_is_stopped_and_can_still_delete() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    add(&mut catalog, 1, 1, "a");
    let full = i64::try_from(FILES_PER_MEMBER_MAX).unwrap();
    catalog.conn.execute("UPDATE owners SET files = ?1", [full]).unwrap();
    assert_eq!(publish(&mut catalog, 1, &record(1, 2, 1, present("b"))).outcome, Publication::TooMany);
    assert_eq!(publish(&mut catalog, 2, &record(2, 1, 1, present("b"))).outcome, Publication::Stored);
    assert_eq!(publish(&mut catalog, 1, &record(1, 1, 2, State::Deleted)).outcome, Publication::Stored);
}

#[test]
fn a_full_disk_acknowledges_nothing_and_passes() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    add(&mut catalog, 1, 1, "before");
    let (digest, pages): (_, u32) =
        (catalog.digest(), catalog.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap());
    let limit = |catalog: &Catalog, pages: u32| {
        catalog.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    limit(&catalog, pages);
    let batch: Vec<SignedRecord> =
        (10..300).map(|nth| record(1, nth, 1, present(&format!("file {nth}"))).signed().clone()).collect();
    let error = catalog.publish(&membership(1), batch.clone(), START_MS).unwrap_err();
    assert!(matches!(&error, CatalogError::Unavailable(_)) && error.to_string().contains("full"), "{error}");
    assert_eq!((catalog.digest(), catalog.count(Kind::FILE)), (digest, 1));
    assert_eq!(found(&catalog.reader().unwrap(), ""), ["before"]);
    assert_eq!(Totals::of(&catalog.conn).unwrap(), catalog.totals);

    limit(&catalog, u32::MAX - 1);
    let outcomes = catalog.publish(&membership(1), batch, START_MS).unwrap();
    assert!(outcomes.iter().all(|published| published.outcome == Publication::Stored));
    assert_eq!(Totals::of(&catalog.conn).unwrap(), catalog.totals);
}

#[test]
fn a_damaged_entry_is_told_from_a_failing_disk() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    add(&mut catalog, 1, 1, "a");
    catalog.conn.execute("UPDATE entries SET payload = x'00' WHERE kind = 1", []).unwrap();
    let next = record(1, 1, 2, present("b"));
    let error = catalog.publish(&membership(1), vec![next.signed().clone()], START_MS).unwrap_err();
    assert!(matches!(error, CatalogError::Damaged(_)), "{error}");
    assert!(matches!(
        catalog.reader().unwrap().search(Viewer::Administrator, "", None, None, 9),
        Err(CatalogError::Damaged(_))
    ));
}

#[test]
fn odd_names_are_found_by_their_letters_and_harmless() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let names = [
        "100% done.txt",
        "100x done.txt",
        "a_b.txt",
        "axb.txt",
        "it's 'quoted'.txt",
        "festa 🎉.png",
        "日本語 報告.pdf",
        "Campanha Verão/AÇÃO.png",
        "NOT OR AND NEAR(x y).txt",
        "name^2 -col {a} (b) + c.txt",
        "select; drop table files--.sql",
    ];
    for (nth, name) in (1..).zip(names) {
        add(&mut catalog, 1, nth, name);
    }
    let reader = catalog.reader().unwrap();
    for name in names {
        assert_eq!(found(&reader, name), [name], "the whole name");
        assert_eq!(reader.resolve(Viewer::Administrator, name).unwrap().len(), 1, "{name}");
    }
    assert_eq!(found(&reader, "0% d"), ["100% done.txt"]);
    assert_eq!(found(&reader, "a_"), ["a_b.txt"]);
    assert_eq!(found(&reader, "🎉"), ["festa 🎉.png"]);
    assert_eq!(found(&reader, "報告"), ["日本語 報告.pdf"]);
    assert_eq!(found(&reader, "ACAO"), ["Campanha Verão/AÇÃO.png"]);
    assert_eq!(found(&reader, "verão"), ["Campanha Verão/AÇÃO.png"]);
    assert_eq!(found(&reader, "not or"), ["NOT OR AND NEAR(x y).txt"]);
    for nothing in
        ["%%%", "___", "***", "\"", "\"\"\"", "folded:abc", "abc*", "a\0c", "' OR 1=1 --", "NEAR(a b, 2)"]
    {
        assert!(found(&reader, nothing).is_empty(), "{nothing:?}");
    }
    assert_eq!(found(&reader, "").len(), names.len());
}

#[test]
fn no_text_breaks_a_search() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    add(&mut catalog, 1, 1, "plano.csv");
    let reader = catalog.reader().unwrap();
    proptest!(|(query in "\\PC{0,12}|[\"'*%_:(){}^+\\-\u{0}]{0,8}")| {
        prop_assert!(reader.search(Viewer::Administrator, &query, None, None, 10).is_ok());
        prop_assert!(reader.resolve(Viewer::Administrator, &query).is_ok());
    });
}

#[test]
fn pages_follow_each_other_in_name_order_whatever_answers_them() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let mut names: Vec<String> =
        (0..40).map(|nth| format!("{}oto {:02}.jpg", ["f", "F"][nth % 2], nth / 3)).collect();
    let records: Vec<_> =
        (0..40).map(|nth| record(1, nth, 1, present(&names[usize::from(nth)])).signed().clone()).collect();
    catalog.publish(&membership(1), records, START_MS).unwrap();
    add(&mut catalog, 2, 1, "other.txt");
    names.sort_by_key(|name| fold::fold(name));
    let folded = |names: &[String]| names.iter().map(|name| fold::fold(name)).collect::<Vec<_>>();
    let reader = catalog.reader().unwrap();
    // All and one owner's; by range, by letters, and by walking.
    for (query, owner) in [("f", None), ("", Some(peer(1))), ("oto", None), ("OTO", Some(peer(1)))] {
        let (mut seen, mut ids, mut after) = (Vec::new(), std::collections::BTreeSet::new(), None);
        loop {
            let page = reader.search(Viewer::Administrator, query, owner, after.as_ref(), 7).unwrap();
            assert!(page.files.len() <= 7);
            seen.extend(page.files.iter().map(|file| file.name.as_str().to_owned()));
            ids.extend(page.files.iter().map(|file| file.file));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!((folded(&seen), ids.len()), (folded(&names), 40), "{query:?} {owner:?}");
    }
    let elsewhere = Cursor { name: FileName::new("zzz").unwrap(), file: FileId::from_bytes([0; 32]) };
    assert_eq!(
        reader.search(Viewer::Administrator, "foto", None, Some(&elsewhere), 7).unwrap(),
        FilePage::default()
    );
}

#[test]
fn every_way_to_search_reads_the_index_it_was_made_for() {
    let dir = folder();
    let catalog = catalog(dir.path(), 101);
    let parts = [search::Part::All, search::Part::Open, search::Part::Restricted];
    for plan in [search::Plan::Range, search::Plan::Walk, search::Plan::Sorted] {
        for (part, of_one_owner) in parts.into_iter().flat_map(|part| [(part, false), (part, true)]) {
            let index = match (part, of_one_owner) {
                (search::Part::All, false) => "files_by_name ((folded,file)>",
                (search::Part::All | search::Part::Open, true) => {
                    "files_by_owner (owner=? AND (folded,file)>"
                }
                (search::Part::Open, false) => "files_open_by_name ((folded,file)>",
                (search::Part::Restricted, _) => {
                    "files_restricted (owner=? AND audience=? AND (folded,file)>"
                }
            };
            if part == search::Part::Restricted && !of_one_owner && plan != search::Plan::Sorted {
                // An audience is always somebody's.
                continue;
            }
            let sql = format!("EXPLAIN QUERY PLAN {}", plan.rows(part, of_one_owner, false));
            let mut explain = catalog.conn.prepare(&sql).unwrap();
            for at in 1..=explain.parameter_count() {
                explain.raw_bind_parameter(at, rusqlite::types::Null).unwrap();
            }
            let steps: Vec<String> =
                explain.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
            let text = steps.join("\n");
            if plan == search::Plan::Sorted {
                assert!(text.contains("VIRTUAL TABLE"), "{text}");
            } else {
                assert!(text.contains(index) && !text.contains("TEMP B-TREE"), "{text}");
            }
        }
    }
}

#[test]
fn a_reference_means_an_id_its_beginning_a_name_or_an_owners_name() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let first = add(&mut catalog, 1, 1, "plano.csv");
    let twin = add(&mut catalog, 2, 1, "plano.csv");
    let reader = catalog.reader().unwrap();
    let ids = |reference: &str| -> Vec<FileId> {
        reader.resolve(Viewer::Administrator, reference).unwrap().iter().map(|file| file.file).collect()
    };
    assert_eq!(ids(&first.file().to_string()), [first.file()]);
    assert_eq!(ids(&first.file().short().to_uppercase()), [first.file()]);
    assert_eq!(ids("filial-2:plano.csv"), [twin.file()]);
    assert_eq!(ids("plano.csv").len(), 2);
    for nothing in
        ["", "plano", "PLANO.CSV", "abc", "nobody:plano.csv", "Filial-1:plano.csv", ":", "filial-1:", "../x"]
    {
        assert!(ids(nothing).is_empty(), "{nothing}");
    }
    // A file named like another's id makes that beginning ambiguous instead of taking its place.
    let decoy = add(&mut catalog, 3, 1, &first.file().short());
    assert_eq!(ids(&first.file().short()), [decoy.file(), first.file()]);
    for nth in 10..30 {
        add(&mut catalog, 4, nth, "many");
    }
    assert_eq!(ids("many").len(), reader::MATCHES_MAX);
}

#[test]
fn a_name_belongs_to_one_member() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let digest = catalog.digest();
    let taken = catalog.enrol(node_enrolment(9, "filial-1", START), START_MS);
    assert!(matches!(taken, Err(EnrolError::NameTaken)));
    assert_eq!(catalog.digest(), digest);
    assert!(catalog.enrol(enrolment(1), START_MS + 5).unwrap().is_empty());
    assert_eq!(catalog.digest(), digest, "the same enrolment again changes nothing");

    let mut foreign = enrolment(5);
    foreign.peer = peer(6);
    assert!(matches!(catalog.enrol(foreign, START_MS), Err(EnrolError::Invalid(_))));
}

#[test]
fn the_newest_credential_of_a_member_stays() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let renewed = node_enrolment(1, "filial-1", UnixSeconds(START.0 + 100));
    assert_eq!(catalog.meet(renewed.clone(), START_MS).unwrap().len(), 2, "the entry and its event");
    assert!(catalog.meet(renewed.clone(), START_MS).unwrap().is_empty());
    assert!(catalog.meet(enrolment(1), START_MS).unwrap().is_empty());
    let reader = catalog.reader().unwrap();
    assert_eq!(reader.enrolment(&peer(1)).unwrap(), Some(renewed));
    assert_eq!(reader.member(&peer(1)).unwrap().unwrap().issued.0, START.0 + 100);
}

#[test]
fn one_name_given_twice_in_a_partition_belongs_to_the_earlier_member_and_lists_both() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    catalog.meet(node_enrolment(9, "filial-1", UnixSeconds(START.0 + 1)), START_MS).unwrap();
    let reader = catalog.reader().unwrap();
    assert_eq!(reader.member_by_name(&name("filial-1")).unwrap().unwrap().peer, peer(1));
    for limit in 1..8 {
        let (mut seen, mut after) = (0, None);
        loop {
            let page = reader.members(after.as_ref(), limit).unwrap();
            assert!(page.members.len() <= limit);
            seen += page.members.len();
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        // One at a time cannot show two of one name.
        assert_eq!(seen, if limit == 1 { 6 } else { 7 }, "limit {limit}");
    }
}

#[test]
fn another_superpeers_entries_are_verified_and_keep_their_stamps() {
    let dir = folder();
    let (mut here, mut there) = (empty_catalog(dir.path(), 102), catalog(dir.path(), 101));
    add(&mut there, 1, 1, "plano.csv");
    let entries = all_entries(&there);
    let taken = here.take(&membership(101), entries.clone(), START_MS).unwrap();
    assert_eq!((taken.stored, taken.known, taken.invalid, taken.deferred), (14, 0, 0, 0));
    assert_eq!(taken.applied.len(), 7);
    assert!(matches!(taken.applied[6], Applied::File { owner, .. } if owner == peer(1)));
    assert_eq!(here.digest(), there.digest());
    assert_eq!(all_entries(&here), entries);
    let again = here.take(&membership(101), entries, START_MS).unwrap();
    assert_eq!((again.stored, again.known), (0, 14));
    assert_eq!(here.digest(), there.digest());
}

#[test]
fn what_does_not_verify_is_refused_and_the_rest_is_taken() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let (a, b) = (record(1, 1, 1, present("a")), record(1, 2, 1, present("b")));
    let good = file_entry(&a, 102);
    let other_id = Entry { id: ByteArray::new(*b.file().as_bytes()), ..good.clone() };
    let other_stamp = Entry { stamp: file_entry(&b, 102).stamp, ..file_entry(&b, 102) };
    let swapped = Entry { stamp: good.stamp.clone(), ..other_stamp };
    let no_record = entry(1, 0, b"not a record", 102, START_MS);
    let as_member = Entry { kind: Kind::MEMBER, ..good.clone() };
    let by_a_node = file_entry(&b, 2);
    let huge = entry(99, 0, &vec![0; payload::UNKNOWN_MAX_BYTES + 1], 102, START_MS);
    let far_future = entry(99, 0, b"x", 102, u64::MAX);
    let all = vec![other_id, swapped, no_record, as_member, by_a_node, huge, far_future, good];
    let taken = catalog.take(&membership(102), all.clone(), START_MS).unwrap();
    assert_eq!((taken.stored, taken.known, taken.invalid, taken.deferred), (1, 0, 6, 1));
    assert_eq!(found(&catalog.reader().unwrap(), ""), ["a"]);
    // Nobody but a super-peer may push at all.
    assert_eq!(catalog.take(&membership(1), all, START_MS).unwrap().invalid, 8);
}

#[test]
fn what_an_unknown_superpeer_stamped_waits_until_that_is_known() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let entry = file_entry(&record(1, 1, 1, present("a")), 103);
    assert_eq!(catalog.take(&membership(102), vec![entry.clone()], START_MS).unwrap().deferred, 1);
    // From the super-peer itself its credential is enough; and in one batch the member comes first.
    let mut third = empty_catalog(dir.path(), 103);
    let own = third.enrol(enrolment(103), START_MS).unwrap();
    let all = [vec![entry], own].concat();
    let taken = catalog.take(&membership(102), all, START_MS).unwrap();
    assert_eq!((taken.stored, taken.deferred), (3, 0));
}

#[test]
fn an_unknown_kind_is_kept_and_passed_on_byte_for_byte() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let unknown = [entry(70, 1, b"\xffnot even CBOR", 102, START_MS), entry(900, 1, b"", 102, START_MS)];
    let taken = catalog.take(&membership(102), unknown.to_vec(), START_MS).unwrap();
    assert_eq!(
        (taken.stored, taken.applied.as_slice()),
        (2, &[Applied::Unknown(Kind(70)), Applied::Unknown(Kind(900))][..])
    );
    drop(catalog);
    let catalog = empty_catalog(dir.path(), 101);
    let entries = all_entries(&catalog);
    assert_eq!(entries[12..], unknown);
    assert!(entries[..6].iter().all(|entry| entry.kind == Kind::MEMBER), "members come first");
}

#[test]
fn unknown_kinds_are_bounded_in_kinds_and_entries() {
    let mut totals = Totals::default();
    for kind in 10..26 {
        assert!(totals.has_room_for(Kind(kind)));
        totals.kinds.insert(Kind(kind), write::UNKNOWN_ENTRIES_MAX - u64::from(kind % 2));
    }
    assert!(!totals.has_room_for(Kind(26)), "a 17th kind");
    assert!(totals.has_room_for(Kind(11)) && !totals.has_room_for(Kind(10)), "one entry of room, and none");
    assert!(totals.has_room_for(Kind::FILE) && totals.has_room_for(Kind::MEMBER));
    for (kind, most) in [
        (Kind::DEPARTURE, write::ENDINGS_MAX),
        (Kind::REVOCATION, write::ENDINGS_MAX),
        (Kind::EVENT, write::EVENTS_MAX),
    ] {
        assert!(totals.has_room_for(kind), "known kinds are not among the sixteen");
        totals.kinds.insert(kind, most);
        assert!(!totals.has_room_for(kind));
    }
}

#[test]
fn a_page_between_superpeers_is_bounded_and_continues_where_it_ended() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let large = vec![7; payload::UNKNOWN_MAX_BYTES];
    let entries: Vec<Entry> = (0..40).map(|id| entry(70, id, &large, 102, START_MS)).collect();
    catalog.take(&membership(102), entries, START_MS).unwrap();
    let reader = catalog.reader().unwrap();
    let (first, next) = reader.page(None).unwrap();
    let bytes = cbor::to_vec(&first).len();
    assert!(bytes < quarta_protocols::limits::PAGE_MESSAGE_BYTES, "{bytes}");
    let last = first.last().unwrap();
    assert_eq!(next, Some(Place { kind: last.kind, id: last.id }));
    assert_eq!(all_entries(&catalog).len(), 52);
}

#[test]
fn searches_do_not_wait_for_a_write_and_see_it_when_it_is_done() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    add(&mut catalog, 1, 1, "before");
    let reader = catalog.reader().unwrap();
    let new = record(1, 2, 1, present("after"));
    catalog
        .transact::<(), CatalogError>(START_MS, |write, context| {
            let bytes = cbor::to_vec(new.signed());
            let key = Key::of_file(&new);
            let new = Verified::stamped(key, Payload::File(Box::new(new.clone())), bytes, context);
            assert_eq!(write.merge(&new, context.trust)?, Merged::Stored);
            assert_eq!(found(&reader, ""), ["before"]);
            Ok(())
        })
        .unwrap();
    assert_eq!(found(&reader, ""), ["after", "before"]);
}

/// Some entry of a small world: few files and owners, so that they collide, with hand-overs, deletions, members of several
/// credentials and how they end, events, and unknown kinds.
fn any_entry() -> impl Strategy<Value = Entry> {
    let stamped_by = prop_oneof![Just(101u8), Just(102u8)];
    let file = (1u8..4, 0u16..3, 1u64..4, 0u8..4, any::<bool>(), stamped_by.clone()).prop_map(
        |(owner, nth, revision, what, given, stamped_by)| {
            let state = if what == 0 { State::Deleted } else { present(&format!("file {what}")) };
            let body = body(owner, nth, revision, state);
            let record = if given {
                handed_over(body, owner, owner % 4 + 1)
            } else {
                Record::sign(&body, &trust(), &key(owner)).unwrap()
            };
            file_entry(&record, stamped_by)
        },
    );
    let member = (1u8..7, 0u64..3, stamped_by.clone()).prop_map(|(seed, later, stamped_by)| {
        let enrolment = node_enrolment(seed, &format!("filial-{}", seed % 3), UnixSeconds(START.0 + later));
        about(2, seed, &cbor::to_vec(&enrolment), stamped_by)
    });
    let left = (1u8..8, stamped_by.clone())
        .prop_map(|(seed, stamped_by)| about(3, seed, &cbor::to_vec(&departure(seed)), stamped_by));
    let revoked = (
        prop_oneof![1u8..8, Just(102)],
        prop_oneof![Just(101u8), Just(102), Just(103), Just(200)],
        stamped_by.clone(),
    )
        .prop_map(|(seed, by, stamped_by)| about(4, seed, &cbor::to_vec(&revocation(seed, by)), stamped_by));
    let event = (0u8..4, 0u64..3, stamped_by.clone())
        .prop_map(|(payload, later, stamped_by)| event_entry(payload, stamped_by, START_MS + later));
    let unknown = (0u8..3, 0u8..3, 0u64..3, stamped_by)
        .prop_map(|(id, payload, later, stamped_by)| entry(70, id, &[payload], stamped_by, START_MS + later));
    prop_oneof![3 => file, 2 => member, 1 => left, 1 => revoked, 1 => event, 1 => unknown]
}

/// An entry about a member.
fn about(kind: u16, seed: u8, payload: &[u8], stamped_by: u8) -> Entry {
    Entry {
        id: ByteArray::new(Enrolment::id_of(&peer(seed))),
        ..entry(kind, 0, payload, stamped_by, START_MS)
    }
}

/// An event that tells of the acceptance of some payload.
fn event_entry(payload: u8, superpeer: u8, millis: u64) -> Entry {
    let event = Event {
        superpeer: peer(superpeer),
        time: HybridTime { millis, counter: 0 },
        action: Action::Updated,
        actor: Some(peer(1)),
        subject: ByteArray::new([1; ID_BYTES]),
        payload: RecordHash::of(&[payload]),
        name: "plan.csv".to_owned(),
        revision: 1,
    };
    let bytes = cbor::to_vec(&event);
    Entry { id: ByteArray::new(Event::id_of(&bytes)), ..entry(5, 0, &bytes, superpeer, millis) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn two_catalogs_converge_in_any_order_with_any_duplicates(
        entries in prop::collection::vec(any_entry(), 1..24),
        order in any::<prop::sample::Index>(),
        batch in 1usize..6,
        split in any::<prop::sample::Index>(),
    ) {
        let dir = folder();
        let (mut one, mut other) = (catalog(dir.path(), 101), catalog(dir.path(), 102));
        let mut told = BTreeMap::new();
        for entry in &entries {
            // A third super-peer brings them: one of the two may end on the way.
            let taken = one.take(&membership(103), vec![entry.clone()], START_MS).unwrap();
            note_endings(&mut told, &taken);
        }
        // The other hears them turned round, in batches, and partly twice.
        let mut turned = entries.clone();
        turned.rotate_left(order.index(entries.len()));
        turned.reverse();
        turned.extend_from_slice(&entries[split.index(entries.len())..]);
        let mut told_other = BTreeMap::new();
        for batch in turned.chunks(batch) {
            let taken = other.take(&membership(103), batch.to_vec(), START_MS).unwrap();
            prop_assert_eq!((taken.invalid, taken.deferred), (0, 0));
            note_endings(&mut told_other, &taken);
        }
        prop_assert_eq!(one.digest(), other.digest());
        prop_assert_eq!(&Totals::of(&one.conn).unwrap(), &one.totals);
        let payloads = |catalog: &Catalog| all_entries(catalog).into_iter().map(|e| (e.id, e.payload)).collect::<Vec<_>>();
        prop_assert_eq!(payloads(&one), payloads(&other));
        // What searches, lists and the log read follows from the entries.
        let (a, b) = (one.reader().unwrap(), other.reader().unwrap());
        prop_assert_eq!(a.search(Viewer::Administrator, "", None, None, 99).unwrap(), b.search(Viewer::Administrator, "", None, None, 99).unwrap());
        prop_assert_eq!(found(&a, "file").len(), found(&a, "").len());
        prop_assert_eq!(a.members(None, 99).unwrap(), b.members(None, 99).unwrap());
        prop_assert_eq!(a.log(None, 99, None).unwrap(), b.log(None, 99, None).unwrap());
        // Whose membership has ended was told, in whichever order its entries came.
        let ended = |reader: &Reader| {
            let mut ended = BTreeMap::new();
            note_endings(&mut ended, &Taken { applied: reader.ended().unwrap(), ..Taken::default() });
            ended
        };
        prop_assert_eq!(&ended(&a), &told);
        prop_assert_eq!(&ended(&b), &told_other);
        // What follows by numbers sees everything but events, once, as it stands.
        let followed = all_changes(&a).into_iter().map(|change| (change.kind, change.id, change.payload));
        let mut followed: Vec<_> = followed.collect();
        let stands = all_entries(&one).into_iter().filter(|entry| entry.kind != Kind::EVENT);
        let mut stands: Vec<_> = stands.map(|e| (e.kind, *e.id, e.payload.into_vec())).collect();
        followed.sort();
        stands.sort();
        prop_assert_eq!(followed, stands);
        // The initial catalogs' own members differ in stamps at most: exchanging all of it adds nothing.
        let exchanged = one.take(&membership(103), all_entries(&other), START_MS).unwrap();
        prop_assert_eq!((exchanged.stored, exchanged.invalid), (0, 0));
    }

    #[test]
    fn catalogs_filled_apart_are_equal_after_one_exchange(
        here in prop::collection::vec(any_entry(), 0..12),
        there in prop::collection::vec(any_entry(), 0..12),
    ) {
        let dir = folder();
        let (mut one, mut other) = (catalog(dir.path(), 101), catalog(dir.path(), 102));
        one.take(&membership(103), here, START_MS).unwrap();
        other.take(&membership(103), there, START_MS).unwrap();
        let (from_one, from_other) = (all_entries(&one), all_entries(&other));
        one.take(&membership(103), from_other, START_MS).unwrap();
        other.take(&membership(103), from_one, START_MS).unwrap();
        prop_assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn of_any_two_entries_of_one_key_exactly_one_stays(entries in prop::collection::vec(any_entry(), 2..12)) {
        let verified = |entry: &Entry| {
            let key = Key { kind: entry.kind, id: *entry.id };
            let payload = Payload::verify(&key, &entry.payload, &trust()).unwrap();
            let time = entry.stamp.peek().unwrap().time;
            Verified { key, payload, bytes: entry.payload.to_vec(), stamp: entry.stamp.clone(), time }
        };
        let entries: Vec<_> = entries.iter().map(verified).collect();
        for a in &entries {
            for b in entries.iter().filter(|b| b.key == a.key) {
                prop_assert_eq!(a.precedence(b), b.precedence(a).reverse());
                if a.key.is_decided_by_payload() {
                    prop_assert_eq!(a.precedence(b).is_eq(), a.bytes == b.bytes);
                }
                for c in entries.iter().filter(|c| c.key == a.key) {
                    if a.precedence(b).is_gt() && b.precedence(c).is_gt() {
                        prop_assert!(a.precedence(c).is_gt());
                    }
                }
            }
        }
    }
}

/// Notes which memberships ended by what was taken. Whoever turns out to be a super-peer is none that a super-peer ended.
fn note_endings(ended: &mut BTreeMap<PeerId, Applied>, taken: &Taken) {
    for applied in &taken.applied {
        match applied {
            Applied::Ended { peer, .. } | Applied::EndedAsNode(peer) => {
                ended.insert(*peer, applied.clone());
            }
            Applied::Member(membership) => {
                ended.remove(&membership.peer);
            }
            Applied::File { .. } | Applied::Unknown(_) => {}
        }
    }
}

/// Every change of a catalog, by small pages.
fn all_changes(reader: &Reader) -> Vec<Change> {
    let (mut changes, mut after) = (Vec::<Change>::new(), 0);
    loop {
        let page = reader.since(after, 3, usize::MAX).unwrap();
        assert!(page.changes.len() <= 3 && page.changes.is_sorted_by_key(|change| change.sequence));
        changes.extend(page.changes);
        match changes.last().filter(|_| page.more) {
            Some(last) => after = last.sequence,
            None => return changes,
        }
    }
}
