//! The schedule against simulated sources: a simulated clock, lines of given rates and latencies, and every way to fail.

#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_for_each,
    reason = "small numbers and short loops"
)]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
};

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const TICK: Duration = Duration::from_millis(100);
const VERIFYING_TAKES: Duration = Duration::from_millis(3);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Nature {
    Honest,
    /// Sends nothing any more after so many chunks.
    StallsAfter(u32),
    /// Its connection breaks after so many chunks.
    DiesAfter(u32),
    /// Sends wrong bytes after so many chunks.
    LiesAfter(u32),
    /// Ends its runs early after so many chunks.
    FallsShortAfter(u32),
    /// Has no upload slot for every other run.
    OftenBusy,
    /// Never has one.
    AlwaysBusy,
}

#[derive(Debug, Clone)]
struct Peer {
    rate: u64,
    latency: Duration,
    joins: Duration,
    weight: u32,
    nature: Nature,
    /// Offers only chunks whose index leaves this remainder by three.
    only: Option<u32>,
}

fn peer(rate: u64) -> Peer {
    Peer {
        rate,
        latency: Duration::from_millis(10),
        joins: Duration::ZERO,
        weight: 300,
        nature: Nature::Honest,
        only: None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Joins(SourceId),
    Asked(SourceId, RunId, u32, u32),
    Sent(SourceId, RunId, u32),
    Cancelled(SourceId, RunId),
    Arrives(SourceId, RunId, u32, bool),
    Ends(RunId),
    Busy(RunId),
    Breaks(SourceId),
    Checked(u32, bool),
    Tick,
}

/// What a peer does: serves its runs in turn, a chunk each, over one line.
#[derive(Debug, Default)]
struct Line {
    runs: VecDeque<(RunId, u32, u32)>,
    sending: bool,
    sent: u32,
    asked: u32,
}

struct Simulation {
    geometry: Geometry,
    schedule: Schedule,
    peers: Vec<Peer>,
    lines: Vec<Line>,
    start: Instant,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    sequence: u64,
    right: BTreeMap<u32, u32>,
    verifying: BTreeSet<u32>,
    arrived: u64,
    dropped: Vec<(SourceId, Fault, Duration)>,
    wanted: Vec<Duration>,
    asked: BTreeSet<SourceId>,
}

#[derive(Debug)]
struct Report {
    took: Duration,
    bytes: Vec<u64>,
    arrived: u64,
    dropped: Vec<(SourceId, Fault, Duration)>,
    wanted: Vec<Duration>,
    asked: BTreeSet<SourceId>,
}

impl Simulation {
    fn new(size_bytes: u64, peers: Vec<Peer>) -> Self {
        let geometry = Geometry::for_size(size_bytes).unwrap();
        let mut simulation = Self {
            geometry,
            schedule: Schedule::new(geometry, ChunkSet::none(geometry.chunks()), 7),
            lines: peers.iter().map(|_| Line::default()).collect(),
            peers,
            start: Instant::now(),
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            sequence: 0,
            right: BTreeMap::new(),
            verifying: BTreeSet::new(),
            arrived: 0,
            dropped: Vec::new(),
            wanted: Vec::new(),
            asked: BTreeSet::new(),
        };
        for id in 0..simulation.peers.len() {
            let joins = simulation.peers[id].joins;
            simulation.at(joins, Event::Joins(SourceId(id as u32)));
        }
        simulation.at(TICK, Event::Tick);
        simulation
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((self.now + after, self.sequence, event)));
    }

    fn run(mut self, limit: Duration) -> Report {
        loop {
            let Reverse((now, _, event)) = self.events.pop().unwrap();
            self.now = now;
            assert!(now <= limit, "not done after {limit:?}: {:?}", self.schedule);
            if self.step(event) {
                break;
            }
        }
        assert!(self.right.values().all(|times| *times == 1), "verified once");
        assert_eq!(self.right.len(), self.geometry.chunks() as usize);
        assert!(self.schedule.handle(self.start + self.now, Input::Tick).is_empty(), "done is done");
        assert_eq!(self.schedule.progress().bytes, self.geometry.size_bytes());
        let bytes: Vec<u64> =
            self.schedule.sources(self.start + self.now).map(|source| source.bytes).collect();
        assert_eq!(bytes.iter().sum::<u64>(), self.geometry.size_bytes());
        Report {
            took: self.now,
            bytes,
            arrived: self.arrived,
            dropped: self.dropped,
            wanted: self.wanted,
            asked: self.asked,
        }
    }

    /// Carries out one event; true when the fetch is done.
    fn step(&mut self, event: Event) -> bool {
        let input = match event {
            Event::Joins(source) => {
                let peer = &self.peers[source.0 as usize];
                let mut offers = ChunkSet::all(self.geometry.chunks());
                if let Some(remainder) = peer.only {
                    (0..self.geometry.chunks()).filter(|index| index % 3 != remainder).for_each(|index| {
                        offers.remove(index);
                    });
                }
                Input::SourceAdded { source, weight: peer.weight, offers }
            }
            Event::Asked(source, run, first, end) => {
                let line = &mut self.lines[source.0 as usize];
                line.asked += 1;
                let busy = match self.peers[source.0 as usize].nature {
                    Nature::AlwaysBusy => true,
                    Nature::OftenBusy => line.asked.is_multiple_of(2),
                    _ => false,
                };
                if busy {
                    let latency = self.peers[source.0 as usize].latency;
                    self.at(latency, Event::Busy(run));
                } else {
                    line.runs.push_back((run, first, end));
                    self.send_next(source);
                }
                return false;
            }
            Event::Sent(source, run, index) => {
                self.sent(source, run, index);
                return false;
            }
            Event::Cancelled(source, run) => {
                self.lines[source.0 as usize].runs.retain(|(other, ..)| *other != run);
                return false;
            }
            Event::Arrives(_, run, index, right) => {
                self.arrived += self.geometry.sealed_len(index) as u64;
                let effects = self.schedule.handle(self.start + self.now, Input::Received { run });
                return self.perform(effects, Some((index, right)));
            }
            Event::Ends(run) => Input::RunEnded { run },
            Event::Busy(run) => Input::Busy { run },
            Event::Breaks(source) => Input::SourceFailed { source, fault: Fault::BrokeOff },
            Event::Checked(index, right) => {
                self.verifying.remove(&index);
                if right {
                    *self.right.entry(index).or_default() += 1;
                    Input::Verified { index }
                } else {
                    Input::Refused { index }
                }
            }
            Event::Tick => {
                self.at(TICK, Event::Tick);
                Input::Tick
            }
        };
        let effects = self.schedule.handle(self.start + self.now, input);
        self.perform(effects, None)
    }

    fn send_next(&mut self, source: SourceId) {
        let (line, peer) = (&mut self.lines[source.0 as usize], &self.peers[source.0 as usize]);
        let stalled = matches!(peer.nature, Nature::StallsAfter(after) if line.sent >= after);
        let Some((run, first, _)) = line.runs.front().copied().filter(|_| !line.sending && !stalled) else {
            return;
        };
        line.sending = true;
        let takes = self.geometry.sealed_len(first) as f64 / peer.rate as f64;
        self.at(Duration::from_secs_f64(takes), Event::Sent(source, run, first));
    }

    fn sent(&mut self, source: SourceId, run: RunId, index: u32) {
        let (line, peer) = (&mut self.lines[source.0 as usize], &self.peers[source.0 as usize]);
        line.sending = false;
        let (latency, nature) = (peer.latency, peer.nature);
        if let Some((_, _, end)) = line.runs.pop_front_if(|(front, ..)| *front == run) {
            let after = |limit| line.sent >= limit;
            if matches!(nature, Nature::DiesAfter(limit) if after(limit)) {
                line.runs.clear();
                return self.at(latency, Event::Breaks(source));
            }
            if matches!(nature, Nature::FallsShortAfter(limit) if after(limit)) {
                self.at(latency, Event::Ends(run));
            } else {
                let right = !matches!(nature, Nature::LiesAfter(limit) if after(limit));
                line.sent += 1;
                if index + 1 < end {
                    line.runs.push_back((run, index + 1, end));
                }
                self.at(latency, Event::Arrives(source, run, index, right));
                if index + 1 == end {
                    self.at(latency, Event::Ends(run));
                }
            }
        }
        self.send_next(source);
    }

    fn perform(&mut self, effects: Vec<Effect>, arrived: Option<(u32, bool)>) -> bool {
        for effect in effects {
            match effect {
                Effect::Request { source, run, first, count } => {
                    assert!((1..=RUN_MAX_CHUNKS).contains(&count));
                    let sealed: u64 =
                        (first..first + count).map(|i| self.geometry.sealed_len(i) as u64).sum();
                    assert!(sealed <= RUN_MAX_BYTES.max(self.geometry.sealed_len(first) as u64));
                    self.asked.insert(source);
                    let latency = self.peers[source.0 as usize].latency;
                    self.at(latency, Event::Asked(source, run, first, first + count));
                }
                Effect::Cancel { run } => {
                    for source in 0..self.peers.len() {
                        let latency = self.peers[source].latency;
                        self.at(latency, Event::Cancelled(SourceId(source as u32), run));
                    }
                }
                Effect::Verify { index, .. } => {
                    let (expected, right) = arrived.unwrap();
                    assert_eq!(index, expected);
                    assert!(!self.right.contains_key(&index), "already verified");
                    assert!(self.verifying.insert(index), "already being verified");
                    self.at(VERIFYING_TAKES, Event::Checked(index, right));
                }
                Effect::Drop { source, fault } => self.dropped.push((source, fault, self.now)),
                Effect::WantSources => self.wanted.push(self.now),
                Effect::Done => return true,
            }
        }
        // Counting everything after every step would take most of the time with large files.
        if self.sequence.is_multiple_of(u64::from(self.geometry.chunks().div_ceil(64))) {
            self.check();
        }
        false
    }

    /// Every chunk is in one state, and the counters are what they count.
    fn check(&self) {
        let schedule = &self.schedule;
        assert!(schedule.in_flight <= IN_FLIGHT_MAX_BYTES);
        assert_eq!(schedule.missing.count(), schedule.missing_chunks);
        let sum = schedule.missing.count() + schedule.verified.count() + schedule.under_way.len() as u32;
        assert_eq!(sum, self.geometry.chunks());
        let owed = schedule.runs.values().flat_map(|run| run.next..run.end);
        let verified =
            schedule.under_way.iter().filter(|(_, chunk)| chunk.verifying.is_some()).map(|(i, _)| *i);
        let bytes: u64 = owed.chain(verified).map(|index| self.geometry.sealed_len(index) as u64).sum();
        assert_eq!(schedule.in_flight, bytes);
        assert!(schedule.under_way.values().all(|chunk| chunk.claims.len() <= 2));
        for (id, source) in &schedule.sources {
            assert!(
                source.runs.len() <= RUNS_PER_SOURCE && (source.is_living() || source.runs.is_empty()),
                "{id:?}"
            );
        }
    }
}

fn ideal(size_bytes: u64, peers: &[Peer]) -> f64 {
    size_bytes as f64 / peers.iter().map(|peer| peer.rate as f64).sum::<f64>()
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![
        3 => Just(Nature::Honest),
        1 => (0..60u32).prop_map(Nature::StallsAfter),
        1 => (0..60u32).prop_map(Nature::DiesAfter),
        1 => (0..60u32).prop_map(Nature::LiesAfter),
        1 => (0..60u32).prop_map(Nature::FallsShortAfter),
        1 => Just(Nature::OftenBusy),
        1 => Just(Nature::AlwaysBusy),
    ]
}

fn any_peer() -> impl Strategy<Value = Peer> {
    let rate = prop_oneof![1 => Just(1), 1 => 10_000..300_000u64, 5 => 500_000..80_000_000u64];
    let only = prop_oneof![3 => Just(None), 1 => (0..3u32).prop_map(Some)];
    let weight = prop_oneof![1 => Just(0), 3 => 1..1000u32];
    (rate, 0..200u64, 0..5_000u64, weight, nature(), only).prop_map(
        |(rate, latency, joins, weight, nature, only)| Peer {
            rate,
            latency: Duration::from_millis(latency),
            joins: Duration::from_millis(joins),
            weight,
            nature,
            only,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_chunk_arrives_once_whatever_sources_do_while_one_honest_source_has_all(
        size in 0..64 * MIB,
        others in prop::collection::vec(any_peer(), 0..8),
        rate in 1_000_000..20_000_000u64,
        weight in 0..1000u32,
        joins in 0..10_000u64,
    ) {
        let honest = Peer { weight, joins: Duration::from_millis(joins), ..peer(rate) };
        let mut peers = others;
        peers.push(honest);
        // Alone it takes so long; each other source costs a few seconds of patience at most.
        let alone = Duration::from_secs_f64(size as f64 / rate as f64);
        let limit = alone.mul_f64(1.3) + Duration::from_millis(joins) + Duration::from_secs(8) * peers.len() as u32;
        let report = Simulation::new(size, peers.clone()).run(limit);
        let honest = SourceId(peers.len() as u32 - 1);
        prop_assert!(report.dropped.iter().all(|(source, ..)| *source != honest), "{:?}", report.dropped);
        for (source, fault, _) in &report.dropped {
            let peer = &peers[source.0 as usize];
            let slow = peer.rate < 400_000;
            prop_assert!(
                match peer.nature {
                    Nature::LiesAfter(_) => *fault == Fault::WrongBytes || slow,
                    Nature::DiesAfter(_) | Nature::FallsShortAfter(_) => *fault == Fault::BrokeOff || slow,
                    Nature::StallsAfter(_) => *fault == Fault::Stalled,
                    Nature::Honest | Nature::OftenBusy => slow && *fault == Fault::Stalled,
                    Nature::AlwaysBusy => false,
                },
                "{peer:?} was dropped as {fault:?}"
            );
        }
    }

    #[test]
    fn equal_sources_reach_the_sum_of_their_rates_but_for_the_round_trips_of_start_and_end(
        count in 1..9usize,
        rate in 1_000_000..50_000_000u64,
        latency in 0..80u64,
    ) {
        let peers = vec![Peer { latency: Duration::from_millis(latency), ..peer(rate) }; count];
        let size = (rate * count as u64 * 12).min(640 * MIB).max(rate * 12);
        let report = Simulation::new(size, peers.clone()).run(Duration::from_secs(100));
        let round_trips = 10.0 * 2.0 * latency as f64 / 1000.0;
        let bound = ideal(size, &peers) * 1.08 + round_trips;
        prop_assert!(report.took.as_secs_f64() < bound, "{bound}: {report:?}");
        prop_assert!(report.arrived < size + size / 12, "duplicates: {report:?}");
    }

    #[test]
    fn unequal_sources_carry_what_their_rates_allow(
        rates in prop::collection::vec(1_000_000..20_000_000u64, 2..6),
        latency in 0..80u64,
    ) {
        let peers: Vec<Peer> =
            rates.iter().map(|rate| Peer { latency: Duration::from_millis(latency), ..peer(*rate) }).collect();
        let all: u64 = rates.iter().sum();
        let size = all * 15;
        let report = Simulation::new(size, peers.clone()).run(Duration::from_secs(100));
        let ratio = report.took.as_secs_f64() / ideal(size, &peers);
        prop_assert!(ratio < 1.15, "{ratio}: {report:?}");
        for (bytes, rate) in report.bytes.iter().zip(&rates) {
            let share = *bytes as f64 / size as f64 / (*rate as f64 / all as f64);
            prop_assert!((0.8..1.2).contains(&share), "{share}: {report:?}");
        }
    }
}

#[test]
fn four_lines_of_10_to_80_mbit_end_together() {
    let peers: Vec<Peer> = [10, 20, 40, 80].into_iter().map(|mbit| peer(mbit * 125_000)).collect();
    let report = Simulation::new(256 * MIB, peers.clone()).run(Duration::from_secs(100));
    let ratio = ideal(256 * MIB, &peers) / report.took.as_secs_f64();
    assert!(ratio > 0.96, "{ratio}: {report:?}");
}

#[test]
fn a_source_that_stalls_in_the_middle_costs_a_few_seconds_at_most() {
    let peers = vec![
        peer(10_000_000),
        Peer { nature: Nature::StallsAfter(100), ..peer(10_000_000) },
        peer(10_000_000),
    ];
    let report = Simulation::new(256 * MIB, peers.clone()).run(Duration::from_mins(1));
    let [(SourceId(1), Fault::Stalled, at)] = report.dropped[..] else { panic!("{report:?}") };
    let stalled_at = Duration::from_secs_f64(101.0 * 262_144.0 / 10_000_000.0);
    assert!(at < stalled_at + Duration::from_secs(4), "{at:?}");
    let without = ideal(256 * MIB - report.bytes[1], &peers[..2]);
    assert!(report.took.as_secs_f64() < without + 1.0, "{report:?}");
}

#[test]
fn a_source_that_stalls_near_the_end_is_not_waited_for() {
    let peers = vec![peer(10_000_000), Peer { nature: Nature::StallsAfter(36), ..peer(10_000_000) }];
    let report = Simulation::new(20 * MIB, peers.clone()).run(Duration::from_mins(1));
    assert!(report.took.as_secs_f64() < ideal(20 * MIB, &peers) + 1.0, "{report:?}");
}

#[test]
fn a_spare_is_asked_only_when_another_source_fails() {
    let spare = Peer { weight: 0, ..peer(50_000_000) };
    let fine = Simulation::new(64 * MIB, vec![spare.clone(), peer(10_000_000)]).run(Duration::from_mins(1));
    assert_eq!(fine.asked, BTreeSet::from([SourceId(1)]));
    for nature in [Nature::DiesAfter(20), Nature::LiesAfter(20), Nature::StallsAfter(20)] {
        let failing = Peer { nature, ..peer(10_000_000) };
        let report = Simulation::new(64 * MIB, vec![spare.clone(), failing]).run(Duration::from_secs(20));
        assert!(report.bytes[0] > 55 * MIB, "{report:?}");
    }
    let half = Peer { only: Some(0), ..peer(10_000_000) };
    let short = Simulation::new(64 * MIB, vec![spare, half]).run(Duration::from_secs(20));
    assert_eq!(short.dropped, []);
}

#[test]
fn a_spare_does_not_wait_for_a_source_that_is_busy() {
    let busy = Peer { nature: Nature::AlwaysBusy, ..peer(50_000_000) };
    let spare = Peer { weight: 0, ..peer(10_000_000) };
    let report = Simulation::new(8 * MIB, vec![busy.clone(), spare.clone()]).run(Duration::from_mins(1));
    assert!(report.took < Duration::from_secs(2), "{report:?}");
    assert_eq!(report.dropped, [], "being busy is no fault");
    let late = Peer { joins: Duration::from_secs(10), ..spare };
    let alone = Simulation::new(8 * MIB, vec![busy, late]).run(Duration::from_mins(1));
    assert!(alone.wanted.len() > 5, "others are looked for meanwhile");
}

#[test]
fn a_source_of_a_byte_a_second_is_dropped_within_seconds_and_nothing_waits_for_it() {
    let drips = peer(1);
    for others in [1, 3] {
        let peers = [vec![drips.clone()], vec![peer(4_000_000); others]].concat();
        let report = Simulation::new(32 * MIB, peers.clone()).run(Duration::from_mins(1));
        assert!(report.took.as_secs_f64() < ideal(32 * MIB, &peers[1..]) + 1.0, "{report:?}");
        if report.took > Duration::from_secs(6) {
            let [(SourceId(0), Fault::Stalled, at)] = report.dropped[..] else { panic!("{report:?}") };
            assert!(at < Duration::from_millis(5_500), "{at:?}");
        }
    }
}

#[test]
fn a_source_that_trickles_chunk_after_chunk_holds_none_of_them_hostage() {
    // Each chunk comes just before patience would end, so it is never dropped; what it owes is asked from another.
    let trickles = peer(60_000);
    let peers = vec![trickles, peer(4_000_000)];
    let report = Simulation::new(32 * MIB, peers.clone()).run(Duration::from_mins(1));
    assert!(report.took.as_secs_f64() < ideal(32 * MIB, &peers) + 1.0, "{report:?}");
}

#[test]
fn the_last_source_may_be_slow_until_another_one_comes() {
    let slow = peer(20_000);
    let alone = Simulation::new(2 * MIB, vec![slow.clone()]).run(Duration::from_mins(2));
    assert_eq!(alone.dropped, []);
    assert!(alone.wanted.len() > 1, "more sources are asked for");
    let late = Peer { joins: Duration::from_secs(10), ..peer(10_000_000) };
    let relieved = Simulation::new(2 * MIB, vec![slow, late]).run(Duration::from_secs(12));
    assert!(relieved.bytes[1] > MIB);
}

#[test]
fn a_source_that_sends_nothing_is_given_up_even_when_it_is_the_last() {
    let geometry = Geometry::for_size(MIB).unwrap();
    let mut schedule = Schedule::new(geometry, ChunkSet::none(4), 7);
    let start = Instant::now();
    let offers = ChunkSet::all(4);
    schedule.handle(start, Input::SourceAdded { source: SourceId(0), weight: 1000, offers });
    let dropped =
        |effects: &[Effect]| effects.contains(&Effect::Drop { source: SourceId(0), fault: Fault::Stalled });
    assert!(!dropped(&schedule.handle(start + Duration::from_mins(1), Input::Tick)));
    assert!(dropped(&schedule.handle(start + Duration::from_secs(70), Input::Tick)));
}

#[test]
fn a_slow_disk_is_not_held_against_the_source() {
    let geometry = Geometry::for_size(8 * MIB).unwrap();
    let mut schedule = Schedule::new(geometry, ChunkSet::none(32), 7);
    let start = Instant::now();
    for source in [SourceId(0), SourceId(1)] {
        let added = Input::SourceAdded { source, weight: 1000, offers: ChunkSet::all(32) };
        schedule.handle(start, added);
    }
    let verify = schedule.handle(start, Input::Received { run: RunId(0) });
    assert!(verify.contains(&Effect::Verify { source: SourceId(0), index: 0 }));
    let later = start + Duration::from_secs(30);
    let effects = schedule.handle(later, Input::Tick);
    let drops: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Drop { .. })).collect();
    assert_eq!(drops, [&Effect::Drop { source: SourceId(1), fault: Fault::Stalled }]);
}

#[test]
fn nothing_is_asked_where_nothing_is_missing() {
    let geometry = Geometry::for_size(0).unwrap();
    let mut schedule = Schedule::new(geometry, ChunkSet::all(1), 7);
    assert_eq!(schedule.handle(Instant::now(), Input::Tick), [Effect::Done]);
}

#[test]
fn only_what_is_missing_is_asked() {
    let geometry = Geometry::for_size(4 * MIB).unwrap();
    let mut verified = ChunkSet::all(16);
    verified.remove(5);
    let mut schedule = Schedule::new(geometry, verified, 7);
    assert_eq!(schedule.progress(), Progress { chunks: 15, bytes: 15 << 18 });
    let added = Input::SourceAdded { source: SourceId(0), weight: 1000, offers: ChunkSet::all(16) };
    let effects = schedule.handle(Instant::now(), added);
    assert_eq!(effects, [Effect::Request { source: SourceId(0), run: RunId(0), first: 5, count: 1 }]);
}
