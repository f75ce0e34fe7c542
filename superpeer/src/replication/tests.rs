//! Planners over a network of nodes that fetch, keep, confirm and drop as they are told.

use std::collections::{BTreeMap, btree_map::Entry};

use libp2p::identity::Keypair;
use proptest::prelude::*;
use quarta_protocols::{ids::AudienceId, messages::vault::CONFIRMED_FOR};

use super::*;

const MIB: u64 = 1 << 20;
const GRACE: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(250);

fn peer(number: u8) -> PeerId {
    Keypair::ed25519_from_bytes([number; 32]).unwrap().public().to_peer_id()
}

fn content(number: u32) -> ContentId {
    ContentId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn file(number: u32) -> FileId {
    FileId::from_bytes(*blake3::hash(&[&b"file"[..], &number.to_le_bytes()].concat()).as_bytes())
}

fn told(file_number: u32, content_number: u32, audience: Option<u8>) -> Told {
    let audience = audience.map(|id| AudienceId::from_bytes([id; 32]));
    Told {
        file: file(file_number),
        present: Some(Present { content: content(content_number), size_bytes: MIB, audience }),
    }
}

const fn config() -> Config {
    Config {
        copies: match Copies::new(3, 3, 32) {
            Ok(copies) => copies,
            Err(_) => panic!("the default"),
        },
        grace: GRACE,
        rate_bytes_per_second: None,
    }
}

/// A node.
#[derive(Debug, Clone, Default)]
struct Branch {
    alive: bool,
    library: BTreeSet<ContentId>,
    /// Contents of the vault, and when they are complete.
    vault: BTreeMap<ContentId, Instant>,
    confirmed: BTreeMap<ContentId, Instant>,
    full: bool,
}

/// Nodes, and what was done to them.
struct Net {
    now: Instant,
    branches: BTreeMap<PeerId, Branch>,
    /// How long a copy takes.
    takes: Duration,
    /// Copies told to be made.
    made: Vec<(ContentId, PeerId)>,
    dropped: Vec<(ContentId, PeerId, DropReason)>,
}

impl Net {
    fn new(nodes: u8) -> Self {
        let branch = Branch { alive: true, ..Branch::default() };
        let branches = (1..=nodes).map(|number| (peer(number), branch.clone())).collect();
        Self {
            now: Instant::now(),
            branches,
            takes: Duration::from_millis(100),
            made: Vec::new(),
            dropped: Vec::new(),
        }
    }

    fn add(&mut self, owner: u8, number: u32) -> Told {
        self.branches.get_mut(&peer(owner)).unwrap().library.insert(content(number));
        told(number, number, None)
    }

    fn set_alive(&mut self, numbers: impl IntoIterator<Item = u8>, alive: bool) {
        for number in numbers {
            self.branches.get_mut(&peer(number)).unwrap().alive = alive;
        }
    }

    fn nodes(&self) -> Vec<Node> {
        let node = |(peer, branch): (&PeerId, &Branch)| Node {
            peer: *peer,
            there: branch.alive,
            room_bytes: Some(1 << 40),
        };
        self.branches.iter().map(node).collect()
    }

    fn whole(&self, peer: &PeerId, content: &ContentId) -> bool {
        let branch = &self.branches[peer];
        branch.library.contains(content) || branch.vault.get(content).is_some_and(|at| *at <= self.now)
    }

    /// Whole copies on nodes that are alive.
    fn copies(&self, content: &ContentId) -> usize {
        self.branches.iter().filter(|(peer, branch)| branch.alive && self.whole(peer, content)).count()
    }

    /// Does what a planner asks, and tells it what became of it.
    fn perform(&mut self, planner: &mut Planner, mut effects: Vec<Effect>) {
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Assign(peer, assignments) => {
                    let outcomes = self.assign(peer, &assignments);
                    planner.assigned(self.now, peer, &assignments, outcomes.as_deref());
                }
                Effect::Confirm(peer, contents) => {
                    let held = self.confirm(peer, &contents);
                    effects.extend(planner.confirmed(self.now, peer, &contents, held.as_deref()));
                }
            }
        }
    }

    fn confirm(&mut self, peer: PeerId, contents: &[ContentId]) -> Option<Vec<bool>> {
        self.branches[&peer].alive.then_some(())?;
        let held: Vec<bool> = contents.iter().map(|content| self.whole(&peer, content)).collect();
        let branch = self.branches.get_mut(&peer).unwrap();
        for (content, held) in contents.iter().zip(&held) {
            if *held {
                branch.confirmed.insert(*content, self.now);
            }
        }
        Some(held)
    }

    fn assign(&mut self, peer: PeerId, assignments: &[Assignment]) -> Option<Vec<Outcome>> {
        self.branches[&peer].alive.then_some(())?;
        Some(assignments.iter().map(|assignment| self.assign_one(peer, assignment)).collect())
    }

    fn assign_one(&mut self, peer: PeerId, assignment: &Assignment) -> Outcome {
        let content = assignment.content();
        let source = self.copies(&content) > 0;
        let branch = self.branches.get_mut(&peer).unwrap();
        match assignment {
            Assignment::Keep { .. } if branch.full => return Outcome::NoRoom,
            Assignment::Keep { .. } => {
                assert!(source, "there is nobody to fetch from");
                if let Entry::Vacant(vacant) = branch.vault.entry(content) {
                    self.made.push((content, peer));
                    vacant.insert(self.now + self.takes);
                }
            }
            Assignment::Drop { reason, .. } => {
                let confirmed = branch.confirmed.get(&content);
                let bound = confirmed.is_some_and(|at| self.now.duration_since(*at) < CONFIRMED_FOR);
                if *reason == DropReason::Excess && bound {
                    return Outcome::Busy;
                }
                branch.vault.remove(&content);
                self.dropped.push((content, peer, *reason));
            }
        }
        Outcome::Accepted
    }

    /// The lists tell of what was completed in this tick and the one before.
    fn tell_lists(&self, planner: &mut Planner) {
        for (content, at) in self.branches.values().flat_map(|branch| &branch.vault) {
            if *at <= self.now && *at + 2 * TICK > self.now {
                planner.touch(*content);
            }
        }
    }

    fn step(&mut self, planner: &mut Planner, superpeers: &[PeerId]) {
        let nodes = self.nodes();
        self.tell_lists(planner);
        let world = World { nodes: &nodes, superpeers, sees_all: true };
        let effects = planner.step(self.now, &world, &*self);
        self.perform(planner, effects);
    }

    fn run(&mut self, planner: &mut Planner, time: Duration) {
        let end = self.now + time;
        let tick = if time > Duration::from_mins(1) { 8 * TICK } else { TICK };
        while self.now < end {
            self.now += tick;
            self.step(planner, &[]);
        }
    }
}

impl Lists for Net {
    fn copies(&self, content: &ContentId) -> Vec<Held> {
        let held = |(peer, branch): (&PeerId, &Branch)| {
            let held = Held {
                peer: *peer,
                library: branch.library.contains(content),
                vault: branch.vault.get(content).map(|at| *at <= self.now),
            };
            (held.library || held.vault.is_some()).then_some(held)
        };
        self.branches.iter().filter_map(held).collect()
    }

    fn vault_of(&self, peer: &PeerId, after: Option<ContentId>, limit: usize) -> Vec<ContentId> {
        let vault = self.branches[peer].vault.keys();
        vault.filter(|content| after.is_none_or(|after| **content > after)).take(limit).copied().collect()
    }
}

/// A network of `nodes` whose first planner has brought `files` to their target.
fn settled(nodes: u8, files: u32) -> (Net, Planner) {
    let mut net = Net::new(nodes);
    let mut planner = Planner::new(peer(200), config(), net.now);
    for number in 0..files {
        let owner = u8::try_from(number % u32::from(nodes)).unwrap() + 1;
        let told = net.add(owner, number);
        planner.tell(net.now, &told);
    }
    net.run(&mut planner, Duration::from_secs(20));
    let target = planner.wanted().0 as usize;
    assert!((0..files).all(|number| net.copies(&content(number)) == target));
    net.made.clear();
    (net, planner)
}

#[test]
fn every_file_gets_its_copies_and_not_one_more() {
    let (net, planner) = settled(12, 200);
    assert_eq!(planner.wanted(), (4, 3));
    let bill = planner.bill();
    assert_eq!((bill.contents, bill.copies, bill.below_target, bill.under_way), (200, 800, 0, 0));
    assert_eq!((bill.stored_bytes, bill.wanted_bytes, bill.plain_bytes), (800 * MIB, 800 * MIB, 200 * MIB));
    let kept: Vec<usize> = net.branches.values().map(|branch| branch.vault.len()).collect();
    assert_eq!(kept.iter().sum::<usize>(), 600);
    assert!(kept.iter().all(|kept| (25..75).contains(kept)), "everybody takes part: {kept:?}");
}

#[test]
fn three_dead_of_twelve_are_made_up_for_after_the_grace_period_with_exactly_what_was_lost() {
    let (mut net, mut planner) = settled(12, 200);
    net.set_alive([2, 5, 9], false);
    let missing: usize = (0..200).map(|number| 4 - net.copies(&content(number))).sum();
    net.run(&mut planner, GRACE.saturating_sub(TICK));
    assert_eq!(net.made.len(), 0, "they may come back");
    net.run(&mut planner, Duration::from_secs(20));
    assert!((0..200).all(|number| net.copies(&content(number)) == 4));
    assert_eq!(net.made.len(), missing);

    // Back again, and the copies made in their place go, one after the other.
    net.set_alive([2, 5, 9], true);
    net.run(&mut planner, Duration::from_mins(4));
    assert!((0..200).all(|number| net.copies(&content(number)) == 4));
    assert!(net.dropped.iter().all(|(_, _, reason)| *reason == DropReason::Excess));
    assert_eq!((net.made.len(), net.dropped.len()), (missing, missing));
    assert_eq!(planner.bill().in_excess, 0);
}

#[test]
fn every_file_reaches_its_floor_before_any_gets_more() {
    let mut net = Net::new(15);
    net.takes = Duration::from_secs(1);
    let mut planner = Planner::new(peer(200), config(), net.now);
    for number in 0..300 {
        // All of one owner: what its neighbours can take at a time is the bottleneck.
        let told = net.add(1, number);
        planner.tell(net.now, &told);
    }
    let mut most = 0;
    while (0..300).any(|number| net.copies(&content(number)) < 5) {
        net.run(&mut planner, TICK);
        let counts = || {
            (0..300).map(|number| {
                net.branches
                    .iter()
                    .filter(|(peer, _)| {
                        net.whole(peer, &content(number))
                            || net.branches[peer].vault.contains_key(&content(number))
                    })
                    .count()
            })
        };
        let (least, now_most) = (counts().min().unwrap(), counts().max().unwrap());
        assert!(least >= 3 || now_most <= 3, "one file has {now_most} copies while another has {least}");
        most = most.max(now_most);
        let busiest = net
            .branches
            .values()
            .map(|branch| branch.vault.values().filter(|at| **at > net.now).count())
            .max();
        assert!(busiest <= Some(ERRANDS_PER_NODE));
    }
    assert_eq!(most, 5);
}

#[test]
fn after_a_restart_nothing_is_copied_while_the_lists_come_back() {
    let (mut net, _) = settled(12, 200);
    let mut restarted =
        Planner::new(peer(200), Config { grace: Duration::from_mins(10), ..config() }, net.now);
    for number in 0..200 {
        restarted.tell(net.now, &told(number, number, None));
    }
    // One after the other, and one is dead for longer than this super-peer is up.
    for number in 1..12 {
        net.set_alive(1..=12, false);
        net.set_alive(1..=number, true);
        net.run(&mut restarted, Duration::from_secs(10));
    }
    assert_eq!((net.made.len(), net.dropped.len()), (0, 0));
    assert_eq!(restarted.bill().hold, Some(Hold::Starting));
    let new = net.add(3, 900);
    restarted.tell(net.now, &new);
    net.run(&mut restarted, Duration::from_secs(2));
    assert_eq!(net.copies(&content(900)), 4, "a file that nobody who is missing can have");
    assert_eq!(net.made.len(), 3);
    net.run(&mut restarted, Duration::from_mins(10));
    assert_eq!((restarted.bill().hold, restarted.bill().below_target), (None, 0));
}

#[test]
fn when_nearly_half_of_the_nodes_vanish_nothing_is_copied_but_new_files() {
    let (mut net, mut planner) = settled(12, 100);
    net.set_alive(1..=5, false);
    net.run(&mut planner, 10 * GRACE);
    assert_eq!((net.made.len(), planner.bill().hold), (0, Some(Hold::Outage)));
    assert!(planner.bill().below_target > 0, "it is told all the same");
    let new = net.add(7, 900);
    planner.tell(net.now, &new);
    net.run(&mut planner, GRACE);
    assert_eq!((net.made.len(), net.copies(&content(900))), (3, 4));
    net.set_alive(1..=5, true);
    net.run(&mut planner, Duration::from_mins(5));
    assert!(net.made.len() <= 6, "the new file's copies may move to where they belong, and no others do");
    assert!(net.made.iter().all(|(made, _)| *made == content(900)));
    assert_eq!((planner.bill().below_target, planner.bill().hold), (0, None));
}

#[test]
fn two_super_peers_that_see_each_other_make_each_copy_once() {
    let mut net = Net::new(12);
    let superpeers = [peer(200), peer(201)];
    let mut planners = superpeers.map(|own| Planner::new(own, config(), net.now));
    for number in 0..200 {
        let told = net.add(1, number);
        for planner in &mut planners {
            planner.tell(net.now, &told);
        }
    }
    for _ in 0..100 {
        net.now += TICK;
        net.step(&mut planners[0], &[superpeers[1]]);
        net.step(&mut planners[1], &[superpeers[0]]);
    }
    assert_eq!(net.made.len(), 600);
    assert!(planners.iter().all(|planner| planner.bill().below_target == 0));
}

#[test]
fn a_withdrawn_or_deleted_content_is_dropped_at_once_also_by_a_node_that_was_away() {
    let (mut net, mut planner) = settled(9, 3);
    let holders =
        |net: &Net, number| net.branches.values().filter(|b| b.vault.contains_key(&content(number))).count();
    let away = *net.branches.iter().find(|(_, b)| b.vault.contains_key(&content(0))).unwrap().0;
    net.branches.get_mut(&away).unwrap().alive = false;
    planner.tell(net.now, &told(0, 100, Some(1)));
    planner.tell(net.now, &Told { file: file(1), present: None });
    net.run(&mut planner, TICK);
    assert_eq!((holders(&net, 0), holders(&net, 1), holders(&net, 2)), (1, 0, 2));
    assert!(net.dropped.contains(&(
        content(1),
        net.dropped.iter().find(|d| d.0 == content(1)).unwrap().1,
        DropReason::Replaced
    )));
    net.branches.get_mut(&away).unwrap().alive = true;
    net.run(&mut planner, 2 * TICK);
    assert_eq!(holders(&net, 0), 0);
    assert!(net.dropped.contains(&(content(0), away, DropReason::Withdrawn)));
}

#[test]
fn an_old_content_stays_until_enough_copies_of_the_new_one_are_complete() {
    let (mut net, mut planner) = settled(9, 1);
    net.takes = Duration::from_secs(3);
    net.branches.get_mut(&peer(1)).unwrap().library.clear();
    net.branches.get_mut(&peer(1)).unwrap().library.insert(content(100));
    planner.tell(net.now, &told(0, 100, None));
    net.run(&mut planner, Duration::from_secs(3));
    assert_eq!((net.copies(&content(0)), net.copies(&content(100))), (2, 1));
    net.run(&mut planner, Duration::from_secs(1) + ROUND_EVERY);
    assert_eq!((net.copies(&content(0)), net.copies(&content(100))), (0, 3));
}

#[test]
fn a_content_without_a_file_goes_only_after_a_while_and_not_while_super_peers_are_missing() {
    let (mut net, mut planner) = settled(9, 1);
    let keeper = peer(4);
    net.branches.get_mut(&keeper).unwrap().vault.insert(content(77), net.now);
    let mut step = |net: &mut Net, sees_all| {
        net.now += Duration::from_mins(1);
        let nodes = net.nodes();
        let effects = planner.step(net.now, &World { nodes: &nodes, superpeers: &[], sees_all }, &*net);
        net.perform(&mut planner, effects);
    };
    (0..60).for_each(|_| step(&mut net, false));
    assert!(net.dropped.is_empty());
    (0..8).for_each(|_| step(&mut net, true));
    assert!(net.dropped.is_empty());
    (0..8).for_each(|_| step(&mut net, true));
    assert_eq!(net.dropped, [(content(77), keeper, DropReason::Replaced)]);
}

#[test]
fn a_node_without_room_is_passed_over_and_one_that_does_not_answer_too() {
    let mut net = Net::new(6);
    let mut planner = Planner::new(peer(200), config(), net.now);
    net.branches.get_mut(&peer(2)).unwrap().full = true;
    for number in 0..50 {
        let told = net.add(1, number);
        planner.tell(net.now, &told);
    }
    net.run(&mut planner, Duration::from_secs(30));
    assert!((0..50).all(|number| net.copies(&content(number)) == 3));
    assert!(net.branches[&peer(2)].vault.is_empty());
    assert_eq!(net.made.len(), 100);
}

#[test]
fn a_copy_in_a_readers_library_counts_and_is_never_told_to_go() {
    let (mut net, mut planner) = settled(9, 10);
    for number in 4..=9 {
        let library: Vec<ContentId> = (0..10).map(content).collect();
        net.branches.get_mut(&peer(number)).unwrap().library.extend(library);
    }
    net.run(&mut planner, Duration::from_mins(30));
    assert!(net.made.is_empty());
    assert!(net.branches.values().all(|branch| branch.vault.is_empty()), "readers hold enough");
    assert!((0..10).all(|number| net.copies(&content(number)) >= 6));
}

#[test]
fn a_newcomer_takes_over_its_share_when_nothing_is_missing() {
    let (mut net, mut planner) = settled(11, 200);
    net.branches.insert(peer(12), Branch { alive: true, ..Branch::default() });
    net.run(&mut planner, Duration::from_mins(5));
    let kept = net.branches[&peer(12)].vault.len();
    assert!((25..75).contains(&kept), "{kept} of a fair share of 50");
    assert!(net.made.len() * 2 <= kept * 3, "{} moved for {kept}", net.made.len());
    assert!((0..200).all(|number| net.copies(&content(number)) == 4));
}

/// What happens to a network whose two super-peers do not see each other.
#[derive(Debug, Clone)]
enum Happening {
    /// A planner takes a step, with lists as old as its last look.
    Step(usize),
    /// A planner gets fresh lists.
    Look(usize),
    /// The oldest message of a planner arrives.
    Arrive(usize),
    /// The newest one does.
    ArriveLast(usize),
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0_usize..2).prop_map(Happening::Step),
        2 => (0_usize..2).prop_map(Happening::Look),
        12 => (0_usize..2).prop_map(Happening::Arrive),
        4 => (0_usize..2).prop_map(Happening::ArriveLast),
        1 => (1_u64..8).prop_map(Happening::Wait),
        1 => (10_u64..70).prop_map(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn two_planners_that_trim_at_once_leave_as_many_copies_as_the_floor(
        holders in prop::collection::btree_set(1_u8..10, 4..6),
        rooms in prop::collection::vec((0_u32..6, 0_u32..6), 10),
        happenings in prop::collection::vec(happening(), 20..100),
    ) {
        let mut net = Net::new(9);
        for holder in &holders {
            net.branches.get_mut(&peer(*holder)).unwrap().vault.insert(content(0), net.now);
        }
        let planner = |number| Planner::new(peer(number), config(), net.now);
        let mut planners = [planner(200), planner(201)];
        for planner in &mut planners {
            planner.tell(net.now, &told(0, 0, None));
        }
        let snapshot = |net: &Net| Net {
            branches: net.branches.clone(), made: Vec::new(), dropped: Vec::new(), ..*net
        };
        let mut seen = [snapshot(&net), snapshot(&net)];
        let mut messages: [Vec<(Instant, Effect)>; 2] = Default::default();
        // Both have seen for long enough that there are too many, and begin to ask.
        let begun = [0, 1].map(Happening::Step).into_iter();
        let begun = begun.clone().chain([Happening::Wait(6)]).chain(begun);
        for happening in begun.chain(happenings) {
            match happening {
                Happening::Wait(seconds) => net.now += Duration::from_secs(seconds),
                Happening::Look(at) => seen[at] = snapshot(&net),
                Happening::Step(at) => {
                    // Each believes other things of how much room there is, and so of where copies belong.
                    let mut nodes = net.nodes();
                    for (node, room) in nodes.iter_mut().zip(&rooms) {
                        node.room_bytes = Some(1 << (30 + if at == 0 { room.0 } else { room.1 }));
                    }
                    let world = World { nodes: &nodes, superpeers: &[], sees_all: false };
                    let effects = planners[at].step(net.now, &world, &seen[at]);
                    messages[at].extend(effects.into_iter().map(|effect| (net.now, effect)));
                }
                Happening::Arrive(at) | Happening::ArriveLast(at) => {
                    let last = matches!(happening, Happening::ArriveLast(_));
                    let Some(place) = messages[at].len().checked_sub(1) else { continue };
                    let (sent, effect) = messages[at].remove(if last { place } else { 0 });
                    let in_time = net.now.duration_since(sent) <= quarta_protocols::limits::QUICK_TIMEOUT;
                    let more = match effect {
                        Effect::Assign(peer, assignments) => {
                            let outcomes = in_time.then(|| net.assign(peer, &assignments)).flatten();
                            planners[at].assigned(net.now, peer, &assignments, outcomes.as_deref());
                            Vec::new()
                        }
                        Effect::Confirm(peer, contents) => {
                            let held = in_time.then(|| net.confirm(peer, &contents)).flatten();
                            planners[at].confirmed(net.now, peer, &contents, held.as_deref())
                        }
                    };
                    messages[at].extend(more.into_iter().map(|effect| (net.now, effect)));
                }
            }
            prop_assert!(net.copies(&content(0)) >= 3, "{} copies left", net.copies(&content(0)));
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whatever_comes_and_goes_every_file_is_at_its_target_once_it_is_quiet(
        outages in prop::collection::vec((1_u8..13, 1_u64..40), 0..12)
    ) {
        let (mut net, mut planner) = settled(12, 40);
        for (node, seconds) in outages {
            let alive = net.branches[&peer(node)].alive;
            // Never so many that it is an outage, or that a file has no copy left.
            if alive && net.branches.values().filter(|branch| !branch.alive).count() >= 2 {
                continue;
            }
            net.set_alive([node], !alive);
            net.run(&mut planner, Duration::from_secs(seconds));
        }
        net.run(&mut planner, Duration::from_secs(30));
        for number in 0..40 {
            prop_assert!(net.copies(&content(number)) >= 4);
        }
        net.set_alive(1..=12, true);
        net.run(&mut planner, Duration::from_mins(15));
        for number in 0..40 {
            prop_assert_eq!(net.copies(&content(number)), 4);
        }
    }
}
