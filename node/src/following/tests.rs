use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_bytes::ByteArray;

use super::*;

fn peers(count: usize) -> Vec<PeerId> {
    (0..count)
        .map(|seed| {
            let seed = [u8::try_from(seed + 1).unwrap(); 32];
            libp2p::identity::Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id()
        })
        .collect()
}

fn cursor(sequence: u64) -> Cursor {
    Cursor { store: ByteArray::new([1; 16]), run: 1, sequence, condition: 0 }
}

/// The one question in the effects.
fn asked(effects: &[Effect]) -> (u64, PeerId, Option<Cursor>, Duration) {
    let mut questions = effects.iter().filter_map(|effect| match effect {
        Effect::Ask { question, peer, since, wait, .. } => Some((*question, *peer, *since, *wait)),
        Effect::Overdue(_) | Effect::Return(_) => None,
    });
    let first = questions.next().expect("a question");
    assert!(questions.next().is_none(), "one question at a time");
    first
}

fn stored(question: u64, sequence: u64, more: bool) -> Input {
    Input::Stored { question, cursor: cursor(sequence), restart: false, more }
}

#[test]
fn pages_follow_each_other_and_the_cursor_moves_only_with_what_is_stored() {
    let (now, all) = (Instant::now(), peers(1));
    let mut follower = Follower::new([(all[0], cursor(7))]);
    let (question, peer, since, wait) = asked(&follower.handle(now, Input::Askable(all.clone())));
    assert_eq!((peer, since, wait), (all[0], Some(cursor(7)), Duration::ZERO));
    assert_eq!(follower.handle(now, Input::Arrived(question)), []);
    // However long storing takes, nothing else is asked.
    assert_eq!(follower.handle(now + Duration::from_hours(1), Input::Tick), []);
    let now = now + Duration::from_hours(1);
    let (next, _, since, wait) = asked(&follower.handle(now, stored(question, 9, true)));
    assert_eq!((since, wait), (Some(cursor(9)), Duration::ZERO));
    assert_eq!(follower.handle(now, Input::Failed(next)), []);
    let (_, _, since, _) = asked(&follower.handle(now + REST_MIN, Input::Tick));
    assert_eq!(since, Some(cursor(9)), "what was not stored is asked for again");
}

#[test]
fn whoever_has_just_connected_says_at_once_where_it_stands_and_then_waits_for_news() {
    let (now, all) = (Instant::now(), peers(1));
    let mut follower = Follower::new([(all[0], cursor(7))]);
    let wait = |effects: &[Effect]| asked(effects).3;
    let (first, ..) = asked(&follower.handle(now, Input::Askable(all.clone())));
    let next = follower.handle(now, stored(first, 7, false));
    assert_eq!(wait(&next), WAIT);
    assert_eq!(follower.handle(now, Input::Askable(Vec::new())), [], "it is lost");
    assert_eq!(wait(&follower.handle(now, Input::Askable(all))), Duration::ZERO, "and back");
}

#[test]
fn a_lost_super_peer_gives_way_to_the_next_at_once_and_is_gone_back_to() {
    let (now, all) = (Instant::now(), peers(2));
    let mut follower = Follower::new([]);
    let (first, peer, ..) = asked(&follower.handle(now, Input::Askable(all.clone())));
    assert_eq!(peer, all[0]);
    let (second, peer, ..) = asked(&follower.handle(now, Input::Askable(vec![all[1]])));
    assert_eq!(peer, all[1]);
    // The answer of the lost one comes after all: it is of no use any more.
    assert_eq!(follower.handle(now, stored(first, 3, false)), []);
    // It is back: the question under way is left to its end.
    assert_eq!(follower.handle(now, Input::Askable(all.clone())), []);
    let (_, peer, since, _) = asked(&follower.handle(now, stored(second, 5, false)));
    assert_eq!((peer, since), (all[0], None), "from where that one was left");
}

#[test]
fn a_super_peer_that_does_not_answer_gives_way_when_its_answer_is_overdue() {
    let (now, all) = (Instant::now(), peers(2));
    let mut follower = Follower::new([]);
    asked(&follower.handle(now, Input::Askable(all.clone())));
    assert_eq!(follower.next_wakeup(), Some(now + ANSWER_GRACE));
    let late = now + ANSWER_GRACE;
    assert_eq!(follower.handle(now + ANSWER_GRACE / 2, Input::Tick), []);
    let effects = follower.handle(late, Input::Tick);
    assert!(effects.contains(&Effect::Overdue(all[0])));
    assert_eq!(asked(&effects).1, all[1]);
}

#[test]
fn a_page_gets_through_a_line_that_is_slower_than_the_first_grace() {
    let (mut now, all) = (Instant::now(), peers(1));
    let mut follower = Follower::new([]);
    let mut effects = follower.handle(now, Input::Askable(all));
    let needs = Duration::from_secs(15);
    for _ in 0..20 {
        if let Some(Effect::Ask { wait, question, .. }) = effects.last() {
            let until = follower.next_wakeup().unwrap();
            if until >= now + *wait + needs {
                assert!(follower.awaits(*question));
                return;
            }
        }
        now = follower.next_wakeup().unwrap();
        effects = follower.handle(now, Input::Tick);
    }
    panic!("it never gets the time that it needs");
}

#[test]
fn failures_in_a_row_are_tried_ever_more_rarely_and_a_success_forgets_them() {
    let (mut now, all) = (Instant::now(), peers(1));
    let mut follower = Follower::new([]);
    let (mut question, ..) = asked(&follower.handle(now, Input::Askable(all)));
    let mut rests = Vec::new();
    for _ in 0..8 {
        assert_eq!(follower.handle(now, Input::Failed(question)), []);
        let next = follower.next_wakeup().unwrap();
        rests.push(next - now);
        now = next;
        (question, ..) = asked(&follower.handle(now, Input::Tick));
    }
    assert_eq!((rests[0], rests[7]), (REST_MIN, REST_MAX));
    let (question, ..) = asked(&follower.handle(now, stored(question, 1, false)));
    follower.handle(now, Input::Failed(question));
    assert_eq!(follower.next_wakeup(), Some(now + REST_MIN));
}

#[test]
fn a_super_peer_that_has_lost_the_cursor_gets_back_what_others_know() {
    let (now, all) = (Instant::now(), peers(1));
    let mut follower = Follower::new([(all[0], cursor(900))]);
    let (question, ..) = asked(&follower.handle(now, Input::Askable(all.clone())));
    let page = Input::Stored { question, cursor: cursor(4), restart: true, more: false };
    let effects = follower.handle(now, page);
    assert!(effects.contains(&Effect::Return(all[0])));
    assert_eq!(asked(&effects).2, Some(cursor(4)));
}

/// A super-peer's store as far as the feed goes: what stands in it, numbered.
#[derive(Debug, Clone, Default)]
struct Store {
    id: u8,
    /// Each run's id, with the sequence at its start.
    runs: Vec<(u64, u64)>,
    entries: Vec<(u64, u32)>,
    sequence: u64,
}

/// What comes with one page.
#[derive(Debug, Clone)]
struct Page {
    cursor: Cursor,
    restart: bool,
    entries: Vec<u32>,
    more: bool,
}

const PAGE: usize = 3;

impl Store {
    fn insert(&mut self, entry: u32) {
        if self.entries.iter().all(|(_, known)| *known != entry) {
            self.sequence += 1;
            self.entries.push((self.sequence, entry));
        }
    }

    fn run(&mut self, run: u64) {
        self.runs.push((run, self.sequence));
    }

    fn knows(&self, cursor: &Cursor) -> bool {
        let Some(at) = self.runs.iter().position(|(run, _)| *run == cursor.run) else { return false };
        let ended_at = self.runs.get(at + 1).map_or(self.sequence, |(_, sequence)| *sequence);
        cursor.store == ByteArray::new([self.id; 16]) && cursor.sequence <= ended_at
    }

    fn answer(&self, since: Option<Cursor>) -> Page {
        let restart = since.is_some_and(|cursor| !self.knows(&cursor));
        let from = since.filter(|_| !restart).map_or(0, |cursor| cursor.sequence);
        let mut after: Vec<(u64, u32)> =
            self.entries.iter().copied().filter(|(sequence, _)| *sequence > from).collect();
        let more = after.len() > PAGE;
        after.truncate(PAGE);
        let sequence = after.last().map_or(self.sequence, |(sequence, _)| *sequence);
        let run = self.runs.last().unwrap().0;
        let cursor = Cursor { store: ByteArray::new([self.id; 16]), run, sequence, condition: 0 };
        Page { cursor, restart, entries: after.into_iter().map(|(_, entry)| entry).collect(), more }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Reconcile(usize, usize),
    Backup(usize),
    Restore(usize),
    Rerun(usize),
    Connect(usize, bool),
    /// The answer to a question comes, as the store was when it was asked or as it is now; twice.
    Answer {
        late: bool,
        twice: bool,
    },
    Lose,
    Fail,
    NodeRestarts,
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let at = 0..STORES;
    prop_oneof![
        4 => at.clone().prop_map(Step::Write),
        2 => (at.clone(), at.clone()).prop_map(|(from, to)| Step::Reconcile(from, to)),
        1 => at.clone().prop_map(Step::Backup),
        1 => at.clone().prop_map(Step::Restore),
        1 => at.clone().prop_map(Step::Rerun),
        3 => (at, any::<bool>()).prop_map(|(at, on)| Step::Connect(at, on)),
        6 => (any::<bool>(), any::<bool>()).prop_map(|(late, twice)| Step::Answer { late, twice }),
        1 => Just(Step::Lose),
        1 => Just(Step::Fail),
        1 => Just(Step::NodeRestarts),
        2 => (0_u64..9000).prop_map(Step::Wait),
    ]
}

const STORES: usize = 3;

/// A node and the super-peers it may follow.
struct World {
    now: Instant,
    peers: Vec<PeerId>,
    stores: Vec<Store>,
    backups: Vec<Store>,
    connected: Vec<bool>,
    follower: Follower,
    /// The node's database.
    seen: BTreeSet<u32>,
    cursors: HashMap<PeerId, Cursor>,
    /// The question under way, with what the store would have answered then.
    pending: Option<(u64, PeerId, Option<Cursor>, Page)>,
    numbers: u32,
}

impl World {
    fn new() -> Self {
        let stores: Vec<Store> = (0..STORES)
            .map(|at| {
                let id = u8::try_from(at).unwrap();
                Store { id, runs: vec![(at as u64, 0)], ..Store::default() }
            })
            .collect();
        Self {
            now: Instant::now(),
            peers: peers(STORES),
            backups: stores.clone(),
            stores,
            connected: vec![false; STORES],
            follower: Follower::new([]),
            seen: BTreeSet::new(),
            cursors: HashMap::new(),
            pending: None,
            numbers: 100,
        }
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn store_of(&self, peer: &PeerId) -> &Store {
        &self.stores[self.peers.iter().position(|known| known == peer).unwrap()]
    }

    fn feed(&mut self, input: Input) {
        let effects = self.follower.handle(self.now, input);
        for effect in effects {
            if let Effect::Ask { question, peer, since, .. } = effect {
                let page = self.store_of(&peer).answer(since);
                self.pending = Some((question, peer, since, page));
            }
        }
    }

    fn askable(&mut self) {
        let askable = self.peers.iter().zip(&self.connected).filter(|(_, on)| **on);
        let askable = askable.map(|(peer, _)| *peer).collect();
        self.feed(Input::Askable(askable));
    }

    fn take(&mut self, late: bool) {
        let Some((question, peer, since, page)) = self.pending.take() else { return };
        let page = if late { self.store_of(&peer).answer(since) } else { page };
        if !self.follower.awaits(question) {
            return;
        }
        self.feed(Input::Arrived(question));
        // One transaction.
        self.seen.extend(&page.entries);
        self.cursors.insert(peer, page.cursor);
        let Page { cursor, restart, more, .. } = page;
        self.feed(Input::Stored { question, cursor, restart, more });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(at) => {
                let entry = self.number();
                self.stores[at].insert(entry);
            }
            Step::Reconcile(from, to) => {
                for (_, entry) in self.stores[from].entries.clone() {
                    self.stores[to].insert(entry);
                }
            }
            Step::Backup(at) => self.backups[at] = self.stores[at].clone(),
            Step::Restore(at) => {
                self.stores[at] = self.backups[at].clone();
                let run = u64::from(self.number());
                self.stores[at].run(run);
                self.connected[at] = false;
                self.askable();
            }
            Step::Rerun(at) => {
                let run = u64::from(self.number());
                self.stores[at].run(run);
                self.connected[at] = false;
                self.askable();
            }
            Step::Connect(at, on) => {
                self.connected[at] = on;
                self.askable();
            }
            Step::Answer { late, twice } => {
                let again = self.pending.clone();
                self.take(late);
                if let (true, Some((question, _, _, page))) = (twice, again) {
                    let Page { cursor, restart, more, .. } = page;
                    self.feed(Input::Stored { question, cursor, restart, more });
                }
            }
            Step::Lose => self.pending = None,
            Step::Fail => {
                if let Some((question, ..)) = self.pending.take() {
                    self.feed(Input::Failed(question));
                }
            }
            Step::NodeRestarts => {
                self.follower = Follower::new(self.cursors.clone());
                self.pending = None;
                self.askable();
            }
            Step::Wait(ms) => {
                self.now += Duration::from_millis(ms);
                self.feed(Input::Tick);
            }
        }
    }
}

proptest! {
    /// Whatever sequence of changes of super-peer, losses, duplicates, restarts and restored backups there was.
    #[test]
    fn in_the_end_everything_that_stands_in_the_stores_has_been_seen(
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        // The super-peers converge, one at least is reachable, and messages arrive.
        for _ in 0..2 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
                world.step(Step::Reconcile(from, to));
            }
        }
        world.step(Step::Connect(1, true));
        let all: BTreeSet<u32> =
            world.stores.iter().flat_map(|store| &store.entries).map(|(_, entry)| *entry).collect();
        for _ in 0..2000 {
            if all.is_subset(&world.seen) {
                break;
            }
            world.step(Step::Answer { late: true, twice: false });
            if let Some(at) = world.follower.next_wakeup().filter(|_| world.pending.is_none()) {
                world.now = world.now.max(at);
                world.feed(Input::Tick);
            }
        }
        prop_assert!(all.is_subset(&world.seen), "{:?} of {:?}", world.seen, world.stores);
    }
}
