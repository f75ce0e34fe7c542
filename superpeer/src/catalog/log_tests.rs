//! The audit trail, observations, and following by numbers, as their readers see them.

use quarta_protocols::{
    audit::{Action, Event},
    cbor,
    clock::HybridTime,
    ids::RecordHash,
    messages::sync::{Entry, Kind},
    records::{Record, State},
};
use rusqlite::Connection;
use serde_bytes::ByteBuf;
use tempfile::TempDir;

use super::{
    fixtures::{
        START_MS, body, catalog, departure, empty_catalog, enrolment, handed_over, key, membership, name,
        network, peer, present, record, revocation, trust,
    },
    *,
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn publish(catalog: &mut Catalog, owner: u8, record: &Record) -> Published {
    catalog.publish(&membership(owner), vec![record.signed().clone()], START_MS).unwrap().remove(0)
}

fn log(catalog: &Catalog) -> Vec<Logged> {
    catalog.reader().unwrap().log(None, 1000, None).unwrap()
}

#[test]
fn everything_accepted_is_told_with_who_did_it_and_what_it_was_called() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let first = record(1, 1, 1, present("plan.csv"));
    publish(&mut catalog, 1, &first);
    publish(&mut catalog, 1, &record(1, 1, 2, present("plan 2.csv")));
    publish(&mut catalog, 2, &handed_over(body(1, 1, 3, present("plan 2.csv")), 1, 2));
    publish(&mut catalog, 3, &record(3, 1, 1, present("old.csv")));
    publish(&mut catalog, 3, &record(3, 1, 2, State::Deleted));
    // What changes nothing is no event.
    publish(&mut catalog, 1, &first);
    publish(&mut catalog, 3, &record(3, 1, 1, present("old.csv")));
    catalog.depart(&departure(3), START_MS).unwrap();

    let told: Vec<_> = log(&catalog)
        .into_iter()
        .map(|logged| {
            assert_eq!(logged.superpeer_name, Some(name("sp1")));
            let Event { action, name, revision, .. } = logged.event;
            (action, logged.actor_name.unwrap().to_string(), name, revision)
        })
        .take(6)
        .collect();
    let row = |action, actor: &str, subject: &str, revision| {
        (action, actor.to_owned(), subject.to_owned(), revision)
    };
    assert_eq!(
        told,
        [
            row(Action::Left, "filial-3", "filial-3", 0),
            row(Action::Deleted, "filial-3", "old.csv", 2),
            row(Action::Added, "filial-3", "old.csv", 1),
            row(Action::HandedOver, "filial-2", "plan 2.csv", 3),
            row(Action::Updated, "filial-1", "plan 2.csv", 2),
            row(Action::Added, "filial-1", "plan.csv", 1),
        ]
    );
}

#[test]
fn a_change_and_its_event_stand_under_one_moment_of_their_super_peer() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let published = publish(&mut catalog, 1, &record(1, 1, 1, present("plan.csv")));
    let [change, told] = published.entries.as_slice() else { panic!("a change and its event") };
    let key = key(101).public().try_into_ed25519().unwrap();
    let (stamp, of_event) =
        (change.stamp.verify(&network(), &key).unwrap(), told.stamp.verify(&network(), &key).unwrap());
    let event: Event = cbor::from_slice(&told.payload).unwrap();
    assert_eq!((event.time, event.superpeer), (stamp.time, stamp.superpeer));
    assert_eq!((of_event.time, of_event.payload), (stamp.time, RecordHash::of(&told.payload)));
    assert_eq!((event.payload, event.subject), (stamp.payload, change.id));
    assert_eq!(told.kind, Kind::EVENT);
}

#[test]
fn one_change_accepted_twice_is_shown_once_as_it_was_first_and_both_events_stay() {
    let dir = folder();
    let (mut one, mut other) = (catalog(dir.path(), 101), catalog(dir.path(), 102));
    let record = record(1, 1, 1, present("plan.csv"));
    let late = publish(&mut one, 1, &record).entries;
    // The other super-peer's clock is a little behind.
    let records = vec![record.signed().clone()];
    let early = other.publish(&membership(1), records, START_MS - 1000).unwrap().remove(0).entries;
    one.take(&membership(102), early, START_MS).unwrap();
    other.take(&membership(101), late, START_MS).unwrap();
    assert_eq!(log(&one), log(&other));
    let added: Vec<_> = log(&one).into_iter().filter(|logged| logged.event.action == Action::Added).collect();
    assert_eq!(added.len(), 1);
    assert_eq!(one.count(Kind::EVENT), 8, "six members joined, and two events tell of the file");
    assert_eq!(one.digest(), other.digest());
}

#[test]
fn an_event_under_anothers_stamp_or_with_another_time_is_refused() {
    let dir = folder();
    let (mut one, mut other) = (catalog(dir.path(), 101), catalog(dir.path(), 102));
    let entries = publish(&mut other, 1, &record(1, 1, 1, present("plan.csv"))).entries;
    let genuine: Event = cbor::from_slice(&entries[1].payload).unwrap();
    let now = genuine.time;
    let restamped = |event: Event| {
        let bytes = cbor::to_vec(&event);
        let context = Context { trust: &trust(), own: &key(102), now };
        let payload = payload::Payload::Event(Box::new(event));
        payload::Verified::stamped(payload::Key::of_event(&bytes), payload, bytes, &context).to_entry()
    };
    let another = Event { superpeer: peer(101), ..genuine.clone() };
    let backdated =
        Event { time: HybridTime { millis: genuine.time.millis - 1, counter: 0 }, ..genuine.clone() };
    let endless = Event { name: "x".repeat(2000), ..genuine.clone() };
    for forged in [another, backdated, endless] {
        let taken = one.take(&membership(102), vec![restamped(forged)], START_MS).unwrap();
        assert_eq!((taken.stored, taken.invalid), (0, 1));
    }
    let taken = one.take(&membership(102), vec![restamped(genuine)], START_MS).unwrap();
    assert_eq!((taken.stored, taken.invalid), (1, 0));
}

#[test]
fn the_log_is_read_page_by_page_whole_or_about_one_member() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    for nth in 0..10 {
        publish(
            &mut catalog,
            1 + u8::from(nth % 3 == 0),
            &record(1 + u8::from(nth % 3 == 0), nth, 1, present("a")),
        );
    }
    catalog.revoke(revocation(1, 101), START_MS).unwrap();
    let reader = catalog.reader().unwrap();
    for about in [None, Some(peer(1)), Some(peer(4)), Some(peer(9))] {
        let whole = reader.log(None, 1000, about.as_ref()).unwrap();
        for limit in [1, 3, 7] {
            let (mut paged, mut before) = (Vec::new(), None);
            loop {
                let page = reader.log(before.as_ref(), limit, about.as_ref()).unwrap();
                assert!(page.len() <= limit);
                match page.last() {
                    Some(last) => before = Some(last.place),
                    None => break,
                }
                paged.extend(page);
            }
            assert_eq!(paged, whole);
        }
    }
    assert_eq!(reader.log(None, 1000, None).unwrap().len(), 17);
    assert_eq!(reader.log(None, 1000, Some(&peer(1))).unwrap().len(), 8, "joined, six files, revoked");
    assert_eq!(reader.log(None, 1000, Some(&peer(9))).unwrap(), []);
}

#[test]
fn every_way_to_read_the_log_and_the_changes_uses_the_index_it_was_made_for() {
    let dir = folder();
    let catalog = catalog(dir.path(), 101);
    let statements = [
        (log::events("events_by_time", "TRUE"), "events USING INDEX events_by_time"),
        (log::events("events_by_actor", "events.actor = :about"), "events_by_actor (actor=? AND"),
        (log::events("events_by_subject", "events.subject = :about"), "events_by_subject (subject=? AND"),
        (changes::SINCE.to_owned(), "entries_followed (sequence>?)"),
    ];
    for (sql, index) in statements {
        let mut explain = catalog.conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        for at in 1..=explain.parameter_count() {
            explain.raw_bind_parameter(at, rusqlite::types::Null).unwrap();
        }
        let steps: Vec<String> = explain.raw_query().mapped(|row| row.get(3)).map(Result::unwrap).collect();
        let text = steps.join("\n");
        assert!(text.contains(index) && !text.contains("TEMP B-TREE"), "{text}");
    }
}

fn observation(millis: u64, what: Observed, seed: u8) -> Observation {
    Observation { millis, what, peer: peer(seed), name: format!("filial-{seed}"), detail: "why".to_owned() }
}

#[test]
fn observations_are_kept_in_order_and_strangers_push_out_none_but_their_own() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let (removed, returned) = (observation(5, Observed::Removed, 1), observation(9, Observed::Returned, 1));
    // The clock went back in between.
    catalog.observe(&[removed.clone(), returned.clone(), observation(7, Observed::Removed, 2)]).unwrap();
    let knocks: Vec<_> = (0..u64::from(OBSERVATIONS_MAX) + 10)
        .map(|millis| observation(1000 + millis, Observed::Refused, 50))
        .collect();
    catalog.observe(&knocks).unwrap();
    let reader = catalog.reader().unwrap();
    let all = |about: Option<u8>| {
        let about = about.map(peer);
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let page = reader.observations(before.as_ref(), 5000, about.as_ref()).unwrap();
            match page.last() {
                Some((last, _)) => before = Some(*last),
                None => return all,
            }
            all.extend(page.into_iter().map(|(_, seen)| seen));
        }
    };
    assert_eq!(all(Some(1)), [returned, removed]);
    let everything = all(None);
    assert_eq!(everything.len(), 3 + OBSERVATIONS_MAX as usize);
    assert!(everything.is_sorted_by_key(|seen| std::cmp::Reverse(seen.millis)));
    assert_eq!(everything[0], knocks[knocks.len() - 1], "the newest stay");
}

#[test]
fn numbers_grow_with_every_change_and_with_nothing_else() {
    let dir = folder();
    let mut catalog = catalog(dir.path(), 101);
    let reader = catalog.reader().unwrap();
    let before = catalog.sequence();
    publish(&mut catalog, 1, &record(1, 1, 1, present("plan.csv")));
    let first = reader.since(before, 10, usize::MAX).unwrap();
    assert_eq!(first.changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [Kind::FILE]);
    assert!(catalog.sequence() > before && !first.more);
    let stands = catalog.sequence();
    publish(&mut catalog, 1, &record(1, 1, 1, present("plan.csv")));
    catalog.meet(enrolment(1), START_MS).unwrap();
    assert_eq!(catalog.sequence(), stands, "nothing changed");
    publish(&mut catalog, 1, &record(1, 1, 2, present("plan.csv")));
    catalog.depart(&departure(2), START_MS).unwrap();
    let second = reader.since(stands, 10, usize::MAX).unwrap();
    assert_eq!(
        second.changes.iter().map(|change| change.kind).collect::<Vec<_>>(),
        [Kind::FILE, Kind::DEPARTURE]
    );
    assert!(reader.since(stands, 10, 1).unwrap().more, "one entry reaches the limit of bytes");
    assert_eq!(empty_catalog(dir.path(), 101).sequence(), catalog.sequence(), "also after a restart");
}

#[test]
fn a_restored_backup_knows_which_numbers_it_has_lost() {
    let dir = folder();
    let path = dir.path().join("101.db");
    let mut catalog = catalog(dir.path(), 101);
    catalog.begin_run(1).unwrap();
    publish(&mut catalog, 1, &record(1, 1, 1, present("plan.csv")));
    let (store, saved) = (catalog.store(), catalog.sequence());
    drop(catalog);
    let backup = std::fs::read(&path).unwrap();

    let mut catalog = empty_catalog(dir.path(), 101);
    publish(&mut catalog, 1, &record(1, 2, 1, present("lost.csv")));
    let lost = catalog.sequence();
    catalog.begin_run(u64::MAX).unwrap();
    assert!(catalog.reader().unwrap().knows_run(1, lost).unwrap());
    assert!(catalog.reader().unwrap().knows_run(u64::MAX, lost).unwrap());
    assert!(!catalog.reader().unwrap().knows_run(2, 0).unwrap());
    drop(catalog);

    std::fs::write(&path, backup).unwrap();
    let mut catalog = empty_catalog(dir.path(), 101);
    assert_eq!(catalog.store(), store);
    catalog.begin_run(3).unwrap();
    for nth in 3..9 {
        publish(&mut catalog, 1, &record(1, nth, 1, present("new.csv")));
    }
    assert!(catalog.sequence() > lost);
    let reader = catalog.reader().unwrap();
    assert!(reader.knows_run(1, saved).unwrap(), "up to the backup its past is its own");
    assert!(!reader.knows_run(1, lost).unwrap(), "and no further");
    assert!(!reader.knows_run(u64::MAX, lost).unwrap(), "the later run is lost");
}

/// A database as format 1 wrote it: an entry of each kind that it knew, and what it kept unread.
fn format_1(path: &std::path::Path, from: &Catalog, unread: &[Entry]) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(include_str!("schema.sql")).unwrap();
    conn.pragma_update(None, "application_id", 0x5163_6174).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    conn.execute("ATTACH ?1 AS newer", [from.path.to_str().unwrap()]).unwrap();
    conn.execute_batch(
        "INSERT INTO catalog SELECT one, network, clock_millis, clock_counter FROM newer.catalog;
         INSERT INTO entries SELECT row, kind, id, payload, stamp FROM newer.entries WHERE kind IN (1, 2);
         INSERT INTO files SELECT row, file, owner, name, folded, content FROM newer.files;
         INSERT INTO file_names (rowid, folded) SELECT row, folded FROM newer.files;
         INSERT INTO owners SELECT * FROM newer.owners;
         INSERT INTO members SELECT * FROM newer.members;
         INSERT INTO invites VALUES (zeroblob(32), 0, 3, 2, 1, 2);",
    )
    .unwrap();
    for entry in unread {
        conn.execute(
            "INSERT INTO entries (kind, id, payload, stamp) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![
                entry.kind.0,
                entry.id.as_slice(),
                entry.payload.as_slice(),
                cbor::to_vec(&entry.stamp)
            ],
        )
        .unwrap();
    }
}

#[test]
fn a_catalog_of_format_1_is_brought_to_format_2_with_all_that_is_in_it() {
    let dir = folder();
    let mut newer = catalog(dir.path(), 101);
    publish(&mut newer, 1, &record(1, 1, 1, present("plan.csv")));
    let ended = newer.depart(&departure(2), START_MS).unwrap();
    let mut unread = ended.entries.clone();
    // Format 1 could not tell that this is no revocation.
    let nonsense = ByteBuf::from(b"nonsense");
    unread.push(Entry { kind: Kind::REVOCATION, payload: nonsense, ..ended.entries[0].clone() });
    let path = dir.path().join("102.db");
    std::fs::remove_file(&path).ok();
    format_1(&path, &newer, &unread);
    drop(newer);

    let mut upgraded = empty_catalog(dir.path(), 102);
    let reader = upgraded.reader().unwrap();
    assert_eq!((upgraded.count(Kind::MEMBER), upgraded.count(Kind::FILE)), (6, 1));
    assert_eq!((upgraded.count(Kind::DEPARTURE), upgraded.count(Kind::REVOCATION)), (1, 0));
    assert_eq!(reader.search(Viewer::Administrator, "plan", None, None, 9).unwrap().files.len(), 1);
    assert_eq!(reader.ended().unwrap(), [Applied::Ended { peer: peer(2), standing: Standing::Left }]);
    assert_eq!(reader.log(None, 9, None).unwrap().len(), 1);
    assert_eq!(crate::admission::list(&upgraded).unwrap()[0].uses_left, 2);
    // Everything has a number of its own, and changes get the next ones.
    let changes = reader.since(0, 100, usize::MAX).unwrap().changes;
    assert_eq!(changes.len(), 8);
    assert!(changes.is_sorted_by(|a, b| a.sequence < b.sequence));
    let before = upgraded.sequence();
    assert!(before >= changes[7].sequence && upgraded.store() != [0; 16]);
    publish(&mut upgraded, 1, &record(1, 2, 1, present("new.csv")));
    assert_eq!(reader.since(before, 9, usize::MAX).unwrap().changes.len(), 1);
    let store = upgraded.store();
    drop(upgraded);
    assert_eq!(empty_catalog(dir.path(), 102).store(), store, "drawn once");
}
