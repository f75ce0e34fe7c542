//! Whole fetches over sources that live in memory.

#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_for_each,
    reason = "small numbers and short loops"
)]

use std::sync::{
    Mutex,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

use quarta_protocols::{
    content::{ContentKey, Geometry, Manifest, chunk_hash},
    messages::index::Source,
    names::MemberName,
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    ports::{RunError, TransportLabel, Written},
    report::{Phase, RowState},
    *,
};
use crate::download::chunk_set::ChunkSet;

const CHUNKS: u32 = 40;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Nature {
    Honest,
    Lies,
    LiesAboutManifest,
    Stalls,
    Dies,
    Unreachable,
    SendsTooMuch,
    HasHalf,
    BusyOnce,
}

struct World {
    manifest: Bytes,
    content: ContentId,
    sealed: Vec<Bytes>,
    natures: Vec<(PeerId, Nature)>,
    /// Peers that only a later search names.
    late: usize,
    searches: AtomicU32,
    sent: AtomicU32,
    busy: AtomicU32,
}

impl World {
    fn new(natures: &[Nature]) -> Self {
        let size = (u64::from(CHUNKS) << 18) - 7;
        let geometry = Geometry::for_size(size).unwrap();
        let cipher = ContentKey::from_bytes([7; 32]).cipher();
        let sealed: Vec<Bytes> = (0..CHUNKS)
            .map(|index| {
                let mut chunk = vec![u8::try_from(index).unwrap(); geometry.plain_len(index)];
                cipher.seal(index, &mut chunk);
                chunk.into()
            })
            .collect();
        let manifest =
            Manifest::new(geometry, sealed.iter().map(|chunk| chunk_hash(chunk)).collect()).unwrap();
        Self {
            content: manifest.id(),
            manifest: manifest.to_bytes().into(),
            sealed,
            natures: natures.iter().map(|nature| (PeerId::random(), *nature)).collect(),
            late: 0,
            searches: AtomicU32::new(0),
            sent: AtomicU32::new(0),
            busy: AtomicU32::new(0),
        }
    }

    fn nature(&self, peer: PeerId) -> Nature {
        self.natures.iter().find(|(other, _)| *other == peer).unwrap().1
    }

    fn job(&self) -> Job {
        Job { content: self.content, size_bytes: (u64::from(CHUNKS) << 18) - 7, manifest: None }
    }
}

impl Sources for World {
    async fn locate(&self, except: Vec<PeerId>) -> Vec<Source> {
        let first = self.searches.fetch_add(1, Ordering::Relaxed) == 0;
        let shown = if first { self.natures.len() - self.late } else { self.natures.len() };
        let named = self.natures[..shown].iter().filter(|(peer, _)| !except.contains(peer));
        named
            .map(|(peer, nature)| Source {
                peer: *peer,
                name: MemberName::new("filial").unwrap(),
                addresses: Vec::new(),
                weight: 300,
                complete: *nature != Nature::HasHalf,
            })
            .collect()
    }
}

impl Peers for World {
    async fn connect(&self, source: &Source) -> Result<(), Fault> {
        if self.nature(source.peer) == Nature::Unreachable { Err(Fault::Unreachable) } else { Ok(()) }
    }

    async fn manifest(&self, peer: PeerId, _: ContentId) -> Result<Bytes, Fault> {
        match self.nature(peer) {
            Nature::LiesAboutManifest => Ok(self.manifest.slice(1..)),
            _ => Ok(self.manifest.clone()),
        }
    }

    async fn availability(&self, _: PeerId, _: ContentId) -> Result<Bytes, Fault> {
        let mut half = ChunkSet::none(CHUNKS);
        (0..CHUNKS / 2).for_each(|index| {
            half.insert(index);
        });
        Ok(half.to_wire().into())
    }

    async fn run(
        &self,
        peer: PeerId,
        _: ContentId,
        first: u32,
        count: u32,
        chunk_max_bytes: usize,
        sink: mpsc::Sender<Bytes>,
    ) -> Result<TransportLabel, RunError> {
        assert_eq!(chunk_max_bytes, self.sealed[0].len(), "no more is taken in than a chunk has");
        let nature = self.nature(peer);
        if nature == Nature::BusyOnce && self.busy.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(RunError::Busy);
        }
        for index in first..first + count {
            sleep(Duration::from_millis(5)).await;
            let chunk = self.sealed[index as usize].clone();
            let chunk = match nature {
                Nature::Stalls => std::future::pending().await,
                Nature::Dies if index > 3 => return Err(RunError::Fault(Fault::BrokeOff)),
                Nature::Lies if index % 2 == 1 => chunk.slice(1..),
                Nature::HasHalf => {
                    assert!(index < CHUNKS / 2, "asked for what it does not offer");
                    chunk
                }
                _ => chunk,
            };
            self.sent.fetch_add(1, Ordering::Relaxed);
            if sink.send(chunk).await.is_err() {
                return Err(RunError::Fault(Fault::BrokeOff));
            }
        }
        if nature == Nature::SendsTooMuch {
            let _ = sink.send(self.sealed[0].clone()).await;
        }
        Ok("tcp")
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct DiskFull;

/// A store in memory.
struct Store {
    manifest: Mutex<Option<Manifest>>,
    there: ChunkSet,
    written: Mutex<ChunkSet>,
    room: u32,
    right: bool,
    at_once: AtomicUsize,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            manifest: Mutex::default(),
            there: ChunkSet::none(CHUNKS),
            written: Mutex::new(ChunkSet::none(CHUNKS)),
            room: CHUNKS,
            right: true,
            at_once: AtomicUsize::new(0),
        }
    }
}

impl Sink for Store {
    type Error = DiskFull;

    fn begin(&self, manifest: &Manifest) -> Result<ChunkSet, DiskFull> {
        *self.manifest.lock().unwrap() = Some(manifest.clone());
        *self.written.lock().unwrap() = self.there.clone();
        Ok(self.there.clone())
    }

    fn write(&self, index: u32, sealed: Bytes) -> Result<Written, DiskFull> {
        assert!(self.at_once.fetch_add(1, Ordering::SeqCst) < VERIFIERS);
        std::thread::sleep(Duration::from_millis(1));
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let manifest = self.manifest.lock().unwrap().clone().unwrap();
        if manifest.check(index, &sealed).is_err() {
            return Ok(Written::Refused);
        }
        let mut written = self.written.lock().unwrap();
        if written.count() >= self.room {
            return Err(DiskFull);
        }
        assert!(written.insert(index), "chunk {index} is written once");
        Ok(Written::Verified)
    }

    fn finish(&self) -> Result<(), FinishError<DiskFull>> {
        assert!(self.written.lock().unwrap().is_full());
        if self.right { Ok(()) } else { Err(FinishError::WrongChecksum) }
    }
}

struct Run {
    outcome: Outcome<DiskFull>,
    progress: FetchProgress,
    world: Arc<World>,
}

async fn run_with(world: World, store: Store, job: Job, cancel: CancellationToken) -> Run {
    let world = Arc::new(world);
    let (sender, progress) = watch::channel(FetchProgress::default());
    let fetch = fetch(job, Arc::clone(&world), Arc::clone(&world), Arc::new(store), sender, cancel);
    let outcome = tokio::time::timeout(Duration::from_secs(40), fetch).await.expect("it ends");
    Run { outcome, progress: progress.borrow().clone(), world }
}

async fn run(world: World) -> Run {
    let job = world.job();
    run_with(world, Store::default(), job, CancellationToken::new()).await
}

/// Every natured source beside an honest one: the file arrives, and the fault is told.
async fn beside_an_honest_one(nature: Nature, fault: Option<Fault>) {
    let Run { outcome, progress, world } = run(World::new(&[nature, Nature::Honest])).await;
    outcome.result.unwrap();
    let job = world.job();
    assert_eq!((progress.phase, progress.bytes_done), (Phase::Checking, job.size_bytes));
    assert_eq!(outcome.sources.iter().map(|source| source.bytes).sum::<u64>(), job.size_bytes);
    assert_eq!(outcome.sources[0].fault, fault, "{nature:?}");
    assert_eq!(outcome.sources[1].fault, None);
    assert!(outcome.sources[1].busy_ms > 0);
    assert_eq!(progress.sources[1].state, RowState::Active);
    assert_eq!(progress.sources[1].transport, Some("tcp"));
}

#[tokio::test]
async fn two_honest_sources_share_the_work() {
    let Run { outcome, .. } = run(World::new(&[Nature::Honest, Nature::Honest])).await;
    outcome.result.unwrap();
    assert!(outcome.sources.iter().all(|source| source.bytes > 0));
}

#[tokio::test]
async fn a_lying_source_is_dropped() {
    beside_an_honest_one(Nature::Lies, Some(Fault::WrongBytes)).await;
    beside_an_honest_one(Nature::LiesAboutManifest, Some(Fault::WrongBytes)).await;
    beside_an_honest_one(Nature::SendsTooMuch, Some(Fault::WrongBytes)).await;
}

#[tokio::test]
async fn a_dying_and_an_unreachable_source_are_replaced() {
    beside_an_honest_one(Nature::Dies, Some(Fault::BrokeOff)).await;
    beside_an_honest_one(Nature::Unreachable, Some(Fault::Unreachable)).await;
}

#[tokio::test]
async fn a_partial_source_is_asked_for_what_it_has_and_a_busy_one_again_later() {
    beside_an_honest_one(Nature::HasHalf, None).await;
    beside_an_honest_one(Nature::BusyOnce, None).await;
}

#[tokio::test]
async fn a_stalling_source_does_not_hold_up_the_end() {
    let start = std::time::Instant::now();
    beside_an_honest_one(Nature::Stalls, None).await;
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_source_that_appears_late_finishes_what_another_began() {
    let world = World { late: 1, ..World::new(&[Nature::Dies, Nature::Honest]) };
    let Run { outcome, world, .. } = run(world).await;
    outcome.result.unwrap();
    assert!(outcome.sources[1].bytes > 0);
    assert!(world.searches.load(Ordering::Relaxed) > 1);
}

#[tokio::test]
async fn without_any_source_it_ends_at_once_and_with_bad_ones_only_after_looking_for_others() {
    let none = run(World::new(&[])).await;
    assert!(matches!(none.outcome.result, Err(FetchError::NoSources)));
    let bad = run(World::new(&[Nature::Lies])).await;
    let Err(FetchError::SourcesExhausted { faults }) = bad.outcome.result else {
        panic!("{:?}", bad.outcome)
    };
    assert_eq!(faults, [(bad.world.natures[0].0, Fault::WrongBytes)]);
}

#[tokio::test]
async fn a_source_that_fails_again_and_again_rests_longer_each_time() {
    let mut candidates = super::candidates::Candidates::default();
    let world = World::new(&[Nature::Stalls]);
    let start = std::time::Instant::now();
    let mut rests = Vec::new();
    let mut now = start;
    for _ in 0..8 {
        let found = world.locate(Vec::new()).await;
        let [(id, _)] = candidates.admit(now, found)[..] else { panic!("it may return") };
        let dropped = now + Duration::from_secs(5);
        assert!(candidates.drop_one(id, Fault::Stalled, dropped));
        now = dropped;
        while !candidates.except(now).is_empty() {
            now += Duration::from_secs(1);
        }
        rests.push((now - dropped).as_secs());
    }
    assert_eq!(rests, [2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(candidates.faults(), [(world.natures[0].0, Fault::Stalled)]);
}

#[tokio::test]
async fn a_resumed_fetch_moves_only_what_is_missing_and_a_complete_one_nothing() {
    for missing in [3, 0] {
        let mut there = ChunkSet::all(CHUNKS);
        (0..missing).for_each(|index| {
            there.remove(index);
        });
        let world = World::new(&[Nature::Honest]);
        let job = Job { manifest: Some(world.manifest.clone()), ..world.job() };
        let store = Store { there, ..Store::default() };
        let Run { outcome, world, progress } = run_with(world, store, job, CancellationToken::new()).await;
        outcome.result.unwrap();
        assert_eq!(world.sent.load(Ordering::Relaxed), missing);
        let fetched: u64 = outcome.sources.iter().map(|source| source.bytes).sum();
        assert_eq!(progress.bytes_resumed + fetched, progress.bytes_total);
        assert_eq!(world.searches.load(Ordering::Relaxed), u32::from(missing > 0));
    }
}

#[tokio::test]
async fn a_full_disk_a_wrong_checksum_a_wrong_record_and_a_cancellation_are_told_apart() {
    let world = || World::new(&[Nature::Honest]);
    let job = world().job();
    let full =
        run_with(world(), Store { room: 5, ..Store::default() }, job.clone(), CancellationToken::new()).await;
    assert!(matches!(full.outcome.result, Err(FetchError::Store(DiskFull))));
    let wrong =
        run_with(world(), Store { right: false, ..Store::default() }, job.clone(), CancellationToken::new())
            .await;
    assert!(matches!(wrong.outcome.result, Err(FetchError::WrongChecksum)));
    let other =
        run_with(world(), Store::default(), Job { size_bytes: 1, ..job.clone() }, CancellationToken::new())
            .await;
    assert!(matches!(other.outcome.result, Err(FetchError::WrongRecord)));
    let cancel = CancellationToken::new();
    cancel.cancel();
    let cancelled = run_with(world(), Store::default(), job, cancel).await;
    assert!(matches!(cancelled.outcome.result, Err(FetchError::Cancelled)));
}
