//! Sessions between real catalogs.

use std::path::Path;

use proptest::prelude::*;
use quarta_protocols::{
    credentials::Membership,
    limits::SYNC_ITEMS_MAX,
    messages::sync::{Digest, Entry, Kind, Request, Response},
    records::State,
};
use tempfile::TempDir;

use super::{
    Session,
    answer::{self, Stretch},
    session::{Effect, Ending, Input},
};
use crate::catalog::{
    Catalog, Reader, Viewer,
    fixtures::{
        START_MS, catalog, departure, empty_catalog, enrolment, membership, present, record, revocation,
    },
};

/// A super-peer with its catalog in a folder.
struct Side {
    catalog: Catalog,
    reader: Reader,
    membership: Membership,
    _dir: TempDir,
}

impl Side {
    fn new(seed: u8, open: impl Fn(&Path, u8) -> Catalog) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = open(dir.path(), seed);
        let reader = catalog.reader().unwrap();
        Self { catalog, reader, membership: membership(seed), _dir: dir }
    }

    /// With two super-peers and four nodes enrolled.
    fn with_members(seed: u8) -> Self {
        Self::new(seed, catalog)
    }

    /// As it was when its folder was copied.
    fn restored(seed: u8, backup: &Path) -> Self {
        Self::new(seed, |dir, seed| {
            let file = format!("{seed}.db");
            std::fs::copy(backup.join(&file), dir.join(&file)).unwrap();
            empty_catalog(dir, seed)
        })
    }

    fn backup(&self, seed: u8) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{seed}.db"));
        let sql = format!("VACUUM INTO '{}'", path.display());
        self.catalog.connection().execute_batch(&sql).unwrap();
        dir
    }

    fn publish(&mut self, owner: u8, nth: u16, revision: u64, state: State) {
        let record = record(owner, nth, revision, state);
        self.catalog.publish(&membership(owner), vec![record.signed().clone()], START_MS).unwrap();
    }

    fn take(&mut self, from: &Membership, entries: Vec<Entry>) -> crate::catalog::Taken {
        self.catalog.take(from, entries, START_MS).unwrap()
    }

    fn answer(&mut self, from: &Membership, request: Request) -> Response {
        match request {
            Request::Push(entries) => {
                let taken = self.take(from, entries);
                Response::Taken { stored: taken.stored, known: taken.known, invalid: taken.invalid }
            }
            Request::Page { after } => {
                let (entries, next) = self.reader.page(after.as_ref()).unwrap();
                Response::Page { entries, next }
            }
            Request::Branches { level, prefixes } => {
                answer::branches(&self.catalog.trie(), level, &prefixes.0).unwrap()
            }
            Request::Leaves { leaves, from, to, items } => {
                let stretch = Stretch::new(leaves.0, from, to).unwrap();
                let own = self.reader.items(&stretch, answer::items_to_read(items.0.len())).unwrap();
                answer::leaves(&items.0, &own)
            }
            Request::Entries(positions) => {
                let (entries, answered) = self.reader.entries_at(&positions.0).unwrap();
                Response::Entries { entries, answered }
            }
            Request::Digest { .. } | Request::Compare { .. } => Response::Digest(self.catalog.digest()),
        }
    }

    fn digest(&self) -> Digest {
        self.catalog.digest()
    }
}

fn reconcile(own: &mut Side, other: &mut Side) -> Ending {
    let (mut session, mut effect) = Session::begin();
    loop {
        let input = match effect {
            Effect::Look => Input::Own(own.catalog.digest(), own.catalog.trie()),
            Effect::Compare(digest) => {
                let request = Request::Compare { digest, addresses: Vec::new() };
                Input::Answer(other.answer(&own.membership, request))
            }
            Effect::Ask(request) => Input::Answer(other.answer(&own.membership, request)),
            Effect::List(stretch) => Input::Items(own.reader.items(&stretch, SYNC_ITEMS_MAX).unwrap()),
            Effect::Take(entries) => Input::Taken(own.take(&other.membership, entries).into()),
            Effect::TakeBeside(entries, request) => {
                let answer = other.answer(&own.membership, request);
                Input::TakenBeside(own.take(&other.membership, entries).into(), answer)
            }
            Effect::Read(positions) => {
                let (entries, read) = own.reader.entries_at(&positions).unwrap();
                Input::Entries(entries, read)
            }
            Effect::End(ending) => return ending,
        };
        effect = session.handle(input);
    }
}

#[test]
fn catalogs_that_took_writes_apart_agree() {
    let (mut one, mut two) = (Side::with_members(101), Side::with_members(102));
    for nth in 0..40 {
        one.publish(1, nth, 1, present(&format!("um {nth}")));
        two.publish(2, nth, 1, present(&format!("dois {nth}")));
    }
    two.publish(1, 3, 2, present("newer there"));
    one.publish(2, 4, 2, State::Deleted);
    assert_eq!(reconcile(&mut one, &mut two), Ending::Equal);
    assert_eq!(one.digest(), two.digest());
    assert_eq!(one.catalog.trie(), two.catalog.trie());
    assert_eq!(one.reader.count_files().unwrap(), 79);
}

#[test]
fn a_new_super_peer_takes_over_everything() {
    let (mut one, mut new) = (Side::with_members(101), Side::new(103, empty_catalog));
    for nth in 0..1500 {
        one.publish(1, nth, 1, present(&format!("um {nth}")));
    }
    one.catalog.enrol(enrolment(103), START_MS).unwrap();
    new.catalog.enrol(enrolment(103), START_MS).unwrap();
    assert_eq!(reconcile(&mut new, &mut one), Ending::Equal);
    assert_eq!(new.digest(), one.digest());

    let mut late = Side::new(102, empty_catalog);
    late.catalog.enrol(enrolment(102), START_MS).unwrap();
    assert_eq!(reconcile(&mut one, &mut late), Ending::Equal, "also when the other one begins");
    assert_eq!(late.digest(), one.digest());
}

#[test]
fn one_restored_from_an_old_backup_spreads_nothing_old_and_is_overtaken() {
    let (mut one, mut two) = (Side::with_members(101), Side::with_members(102));
    for nth in 0..60 {
        one.publish(1, nth, 1, present(&format!("um {nth}")));
    }
    one.publish(3, 1, 1, present("of one that will leave"));
    assert_eq!(reconcile(&mut one, &mut two), Ending::Equal);
    let backup = one.backup(101);

    for nth in 0..20 {
        two.publish(1, nth, 2, present(&format!("changed {nth}")));
        two.publish(1, 20 + nth, 2, State::Deleted);
    }
    two.catalog.depart(&departure(3), START_MS).unwrap();
    two.catalog.revoke(revocation(4, 102), START_MS).unwrap();
    let wanted = two.digest();

    for restored_begins in [true, false] {
        let mut restored = Side::restored(101, backup.path());
        assert_ne!(restored.digest(), wanted);
        // All that it has, as an honest or a broken super-peer would push it.
        let mut after = None;
        loop {
            let (entries, next) = restored.reader.page(after.as_ref()).unwrap();
            let Response::Taken { stored, invalid, .. } =
                two.answer(&restored.membership, Request::Push(entries))
            else {
                panic!("a push is answered with what was taken");
            };
            assert_eq!((stored, invalid), (0, 0));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(two.digest(), wanted);
        let ending = if restored_begins {
            reconcile(&mut restored, &mut two)
        } else {
            reconcile(&mut two, &mut restored)
        };
        assert_eq!(ending, Ending::Equal);
        assert_eq!((restored.digest(), two.digest()), (wanted, wanted));
        assert_eq!(restored.reader.ended().unwrap().len(), 2, "it knows who is gone");
    }
}

#[test]
fn what_a_restored_one_took_before_it_was_overtaken_is_not_lost() {
    let (mut one, mut two) = (Side::with_members(101), Side::with_members(102));
    one.publish(1, 1, 1, present("um"));
    assert_eq!(reconcile(&mut one, &mut two), Ending::Equal);
    let backup = one.backup(101);
    two.publish(1, 1, 2, present("dois"));
    let mut restored = Side::restored(101, backup.path());
    restored.publish(1, 2, 1, present("novo"));
    assert_eq!(reconcile(&mut two, &mut restored), Ending::Equal);
    for side in [&two, &restored] {
        let files = side.reader.search(Viewer::Administrator, "", None, None, 10).unwrap().files;
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["dois", "novo"]);
    }
}

#[test]
fn a_page_is_as_full_as_a_message_may_be_and_the_rest_is_told_to_be_left() {
    let mut one = Side::with_members(101);
    for nth in 0..300 {
        one.publish(1, nth, 1, present(&format!("um {nth}")));
    }
    let everything = Stretch::new((0..=u16::MAX).collect(), 0, u32::MAX).unwrap();
    let all = one.reader.items(&everything, usize::MAX).unwrap();
    assert_eq!(u64::try_from(all.items.len()).unwrap(), one.digest().count);
    assert!(all.items.is_sorted() && all.unread.is_none());
    let some = one.reader.items(&everything, 100).unwrap();
    assert_eq!(some.items, all.items[..100]);
    assert_eq!(some.unread, Some(all.items[100].position));

    let positions: Vec<_> = all.items.iter().map(|item| item.position).collect();
    let (entries, answered) = one.reader.entries_at(&positions).unwrap();
    let answered = usize::try_from(answered).unwrap();
    assert!(answered == entries.len() && answered <= quarta_protocols::limits::SYNC_PAGE_ENTRIES);
    let message = quarta_protocols::cbor::to_vec(&Response::Entries { entries, answered: 0 });
    assert!(message.len() <= quarta_protocols::limits::PAGE_MESSAGE_BYTES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_was_written_where_both_end_with_the_same(
        writes in prop::collection::vec((any::<bool>(), 1..4_u8, 0..6_u16, 1..4_u64, any::<bool>()), 0..40),
        first_begins in any::<bool>(),
    ) {
        let (mut one, mut two) = (Side::with_members(101), Side::with_members(102));
        for (at_first, owner, nth, revision, deleted) in writes {
            let side = if at_first { &mut one } else { &mut two };
            let state = if deleted { State::Deleted } else { present(&format!("{nth} {revision}")) };
            side.publish(owner, nth, revision, state);
        }
        let ending =
            if first_begins { reconcile(&mut one, &mut two) } else { reconcile(&mut two, &mut one) };
        prop_assert_eq!(ending, Ending::Equal);
        prop_assert_eq!(one.digest(), two.digest());
        prop_assert_eq!(one.catalog.count(Kind::FILE), two.catalog.count(Kind::FILE));
    }
}
