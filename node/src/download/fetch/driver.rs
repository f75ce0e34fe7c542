//! The loop of one fetch: waits for an event, lets the schedule decide, starts what it asks for.

mod account;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use quarta_protocols::{
    content::{ContentError, Manifest},
    messages::index::{Fault, Source},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::MissedTickBehavior,
};

use super::{
    ANSWER_WITHIN, FetchError, GIVE_UP_AFTER, Job, LOCATE_AGAIN_MAX, LOCATE_AGAIN_MIN, MANIFEST_HEDGE_AFTER,
    MANIFEST_WITHIN, TICK, VERIFIERS,
    candidates::{Candidates, State},
    events::{self, Event, RunOrder},
    ports::{Peers, RunError, Sink, Sources, Written},
    report::{FetchProgress, Meter, Phase},
};
use crate::download::{
    chunk_set::ChunkSet,
    schedule::{Effect, Input, RunId, Schedule, SourceId},
};

/// Events that wait for the loop. Chunks among them are bounded by the schedule as well.
const EVENTS: usize = 64;

pub(super) struct Driver<S, P, K: Sink> {
    job: Job,
    sources: Arc<S>,
    peers: Arc<P>,
    sink: Arc<K>,
    progress: watch::Sender<FetchProgress>,
    phase: Phase,
    meter: Meter,
    candidates: Candidates,
    /// None until the manifest is there.
    schedule: Option<Schedule>,
    chunks: u32,
    chunk_max_bytes: usize,
    /// Verified bytes of an earlier attempt.
    resumed: u64,
    done: bool,
    events: mpsc::Receiver<Event<K::Error>>,
    events_in: mpsc::Sender<Event<K::Error>>,
    tasks: JoinSet<()>,
    runs: BTreeMap<RunId, (SourceId, AbortHandle)>,
    to_verify: VecDeque<(u32, Bytes)>,
    verifying: usize,
    manifest_asked: Option<Instant>,
    locating: bool,
    locate_at: Instant,
    locate_pause: std::time::Duration,
    alone_since: Option<Instant>,
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Carries out what blocks; a panic there goes on here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl<S: Sources, P: Peers, K: Sink> Driver<S, P, K> {
    pub(super) fn new(
        job: Job,
        sources: Arc<S>,
        peers: Arc<P>,
        sink: Arc<K>,
        progress: watch::Sender<FetchProgress>,
    ) -> Self {
        let (events_in, events) = mpsc::channel(EVENTS);
        let now = now();
        Self {
            job,
            sources,
            peers,
            sink,
            progress,
            phase: Phase::Locating,
            meter: Meter::default(),
            candidates: Candidates::default(),
            schedule: None,
            chunks: 0,
            chunk_max_bytes: 0,
            resumed: 0,
            done: false,
            events,
            events_in,
            tasks: JoinSet::new(),
            runs: BTreeMap::new(),
            to_verify: VecDeque::new(),
            verifying: 0,
            manifest_asked: None,
            locating: false,
            locate_at: now,
            locate_pause: LOCATE_AGAIN_MIN,
            alone_since: None,
        }
    }

    pub(super) async fn run(&mut self) -> Result<(), FetchError<K::Error>> {
        if let Some(bytes) = self.job.manifest.take() {
            let manifest =
                Manifest::verify(&bytes, &self.job.content).map_err(|_| FetchError::WrongRecord)?;
            self.begin(manifest).await?;
        }
        if self.done {
            return Ok(());
        }
        let found = self.sources.locate(Vec::new()).await;
        if found.is_empty() {
            return Err(FetchError::NoSources);
        }
        self.locate_at = now() + self.locate_pause;
        self.admit(found);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.done {
            // Events before ticks: what has arrived must not count as silence.
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.take(event).await?,
                Some(task) = self.tasks.join_next() => {
                    if let Err(error) = task && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
                _ = ticks.tick() => self.tick()?,
            }
        }
        Ok(())
    }

    async fn begin(&mut self, manifest: Manifest) -> Result<(), FetchError<K::Error>> {
        let geometry = manifest.geometry();
        if geometry.size_bytes() != self.job.size_bytes {
            return Err(FetchError::WrongRecord);
        }
        let sink = Arc::clone(&self.sink);
        let verified = blocking(move || sink.begin(&manifest)).await.map_err(FetchError::Store)?;
        self.chunks = geometry.chunks();
        self.chunk_max_bytes = geometry.sealed_len(0);
        self.done = verified.is_full();
        let schedule = Schedule::new(geometry, verified, rand::random());
        self.resumed = schedule.progress().bytes;
        self.schedule = Some(schedule);
        self.phase = Phase::Fetching;
        // Told before any source answers.
        self.publish();
        Ok(())
    }

    async fn take(&mut self, event: Event<K::Error>) -> Result<(), FetchError<K::Error>> {
        match event {
            Event::Located(found) => {
                self.locating = false;
                self.admit(found);
            }
            Event::Connected(source, Ok(offers)) => self.connected(source, offers),
            Event::Connected(source, Err(fault)) | Event::Manifest(source, Err(fault)) => {
                self.fail(source, fault);
            }
            Event::Manifest(source, Ok(bytes)) if self.schedule.is_none() => {
                match Manifest::verify(&bytes, &self.job.content) {
                    Ok(manifest) => {
                        self.begin(manifest).await?;
                        self.offer_all();
                    }
                    Err(ContentError::OtherManifest) => self.fail(source, Fault::WrongBytes),
                    // Its hash is the content's id: whoever made the record made this.
                    Err(_) => return Err(FetchError::WrongRecord),
                }
            }
            Event::Manifest(_, Ok(_)) => {}
            Event::Offers(source, result) => self.offers(source, result),
            Event::Chunk(run, chunk) => self.input(Input::Received { run }, Some(chunk)),
            Event::RunOver(run, result) => self.run_over(run, result),
            Event::Written(index, result) => {
                self.verifying -= 1;
                match result.map_err(FetchError::Store)? {
                    Written::Verified => self.input(Input::Verified { index }, None),
                    Written::Refused => self.input(Input::Refused { index }, None),
                }
                self.verify_more();
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), FetchError<K::Error>> {
        let now = now();
        if self.candidates.living() > 0 {
            self.alone_since = None;
        } else {
            self.want_sources();
            let since = *self.alone_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= GIVE_UP_AFTER {
                return Err(FetchError::SourcesExhausted { faults: self.candidates.faults() });
            }
        }
        if self.schedule.is_some() {
            self.refresh_offers(now);
            self.input(Input::Tick, None);
        } else {
            self.ask_manifest();
        }
        self.publish();
        Ok(())
    }

    /// Gives the schedule an input and does what it says.
    fn input(&mut self, input: Input, mut chunk: Option<Bytes>) {
        let Some(schedule) = &mut self.schedule else { return };
        for effect in schedule.handle(now(), input) {
            match effect {
                Effect::Request { source, run, first, count } => self.start_run(source, run, first, count),
                Effect::Cancel { run } => {
                    if let Some((_, task)) = self.runs.remove(&run) {
                        task.abort();
                    }
                }
                Effect::Verify { index, .. } => {
                    self.to_verify.extend(chunk.take().map(|chunk| (index, chunk)));
                }
                Effect::Drop { source, fault } => {
                    self.candidates.drop_one(source, fault, now());
                }
                Effect::WantSources => self.want_sources(),
                Effect::Done => self.done = true,
            }
        }
        self.verify_more();
    }

    fn verify_more(&mut self) {
        while self.verifying < VERIFIERS
            && let Some((index, chunk)) = self.to_verify.pop_front()
        {
            self.verifying += 1;
            let (sink, events) = (Arc::clone(&self.sink), self.events_in.clone());
            self.tasks.spawn_blocking(move || {
                // A loop that is gone needs no answer.
                let _ = events.blocking_send(Event::Written(index, sink.write(index, chunk)));
            });
        }
    }

    fn start_run(&mut self, source: SourceId, run: RunId, first: u32, count: u32) {
        let Some(candidate) = self.candidates.get_mut(source) else { return };
        let (peer, content, chunk_max_bytes) =
            (candidate.source.peer, self.job.content, self.chunk_max_bytes);
        let order = RunOrder { run, peer, content, first, count, chunk_max_bytes };
        let (peers, events) = (Arc::clone(&self.peers), self.events_in.clone());
        let task = self.tasks.spawn(async move { events::run(&*peers, order, events).await });
        self.runs.insert(run, (source, task));
    }

    fn run_over(&mut self, run: RunId, result: Result<&'static str, RunError>) {
        let Some((source, _)) = self.runs.remove(&run) else { return };
        match result {
            Ok(transport) => {
                if let Some(candidate) = self.candidates.get_mut(source) {
                    candidate.transport = Some(transport);
                }
                self.input(Input::RunEnded { run }, None);
            }
            Err(RunError::Busy) => self.input(Input::Busy { run }, None),
            Err(RunError::Fault(fault)) => self.fail(source, fault),
        }
    }

    /// Drops a source, with or without a schedule.
    fn fail(&mut self, source: SourceId, fault: Fault) {
        if self.candidates.drop_one(source, fault, now()) {
            self.input(Input::SourceFailed { source, fault }, None);
            self.ask_manifest();
        }
    }

    fn admit(&mut self, found: Vec<Source>) {
        for (id, source) in self.candidates.admit(now(), found) {
            let (peers, events, content) =
                (Arc::clone(&self.peers), self.events_in.clone(), self.job.content);
            self.tasks.spawn(async move {
                let result = events::connect(&*peers, &source, content).await;
                let _ = events.send(Event::Connected(id, result)).await;
            });
        }
    }

    fn connected(&mut self, source: SourceId, offers: Option<Bytes>) {
        self.locate_pause = LOCATE_AGAIN_MIN;
        if let Some(candidate) = self.candidates.get_mut(source) {
            candidate.state = State::Connected;
            candidate.offers = offers;
        }
        if self.schedule.is_some() {
            self.offer(source);
        } else {
            self.ask_manifest();
        }
    }

    /// Brings the sources that connected before the manifest came to the schedule.
    fn offer_all(&mut self) {
        let connected = self.candidates.iter().filter(|(_, candidate)| candidate.state == State::Connected);
        for source in connected.map(|(id, _)| id).collect::<Vec<_>>() {
            self.offer(source);
        }
    }

    fn offer(&mut self, source: SourceId) {
        let Some(candidate) = self.candidates.get_mut(source) else { return };
        let weight = candidate.source.weight;
        let offers = match &candidate.offers {
            None => Ok(ChunkSet::all(self.chunks)),
            Some(bitmap) => ChunkSet::from_wire(bitmap, self.chunks),
        };
        match offers {
            Ok(offers) => self.input(Input::SourceAdded { source, weight, offers }, None),
            Err(_) => self.fail(source, Fault::WrongBytes),
        }
    }

    /// Asks a connected source for the manifest, and another one when the first takes its time.
    fn ask_manifest(&mut self) {
        let now = now();
        let waiting = self
            .candidates
            .iter()
            .any(|(_, candidate)| candidate.is_living() && candidate.asked_for_manifest);
        let patient =
            self.manifest_asked.is_some_and(|at| now.saturating_duration_since(at) < MANIFEST_HEDGE_AFTER);
        if self.schedule.is_some() || (waiting && patient) {
            return;
        }
        let ready = |candidate: &&mut super::candidates::Candidate| {
            candidate.state == State::Connected && !candidate.asked_for_manifest
        };
        let Some((id, candidate)) = self.candidates.find_mut(ready) else { return };
        candidate.asked_for_manifest = true;
        self.manifest_asked = Some(now);
        let (peer, content) = (candidate.source.peer, self.job.content);
        let (peers, events) = (Arc::clone(&self.peers), self.events_in.clone());
        self.tasks.spawn(async move {
            let result = events::within(MANIFEST_WITHIN, Fault::Stalled, peers.manifest(peer, content)).await;
            let _ = events.send(Event::Manifest(id, result)).await;
        });
    }

    /// A partial source has said what it has by now.
    fn offers(&mut self, source: SourceId, result: Result<Bytes, Fault>) {
        let offered = match result {
            Ok(bitmap) => ChunkSet::from_wire(&bitmap, self.chunks).map(|offers| (bitmap, offers)),
            // Its own fetch was ended, which is nothing to hold against it for ever.
            Err(Fault::NotHeld) => return self.fail(source, Fault::BrokeOff),
            Err(fault) => return self.fail(source, fault),
        };
        let Ok((bitmap, offers)) = offered else { return self.fail(source, Fault::WrongBytes) };
        let Some(candidate) = self.candidates.get_mut(source).filter(|candidate| candidate.is_living())
        else {
            return;
        };
        candidate.has_answered(now(), &bitmap);
        candidate.source.complete = offers.is_full();
        self.input(Input::Offers { source, offers }, None);
    }

    /// Asks the partial sources whose turn it is what they have by now.
    fn refresh_offers(&mut self, now: Instant) {
        let partial = |candidate: &&mut super::candidates::Candidate| {
            candidate.state == State::Connected
                && !candidate.source.complete
                && !candidate.refreshing
                && now >= candidate.ask_at
        };
        while let Some((id, candidate)) = self.candidates.find_mut(partial) {
            candidate.refreshing = true;
            let (peer, content) = (candidate.source.peer, self.job.content);
            let (peers, events) = (Arc::clone(&self.peers), self.events_in.clone());
            self.tasks.spawn(async move {
                let result =
                    events::within(ANSWER_WITHIN, Fault::Stalled, peers.availability(peer, content)).await;
                let _ = events.send(Event::Offers(id, result)).await;
            });
        }
    }

    /// Looks for more sources, unless it does already or has only just done so.
    fn want_sources(&mut self) {
        let now = now();
        if self.locating || now < self.locate_at {
            return;
        }
        self.locating = true;
        self.locate_at = now + self.locate_pause;
        self.locate_pause = (self.locate_pause * 2).min(LOCATE_AGAIN_MAX);
        let (sources, events) = (Arc::clone(&self.sources), self.events_in.clone());
        let except = self.candidates.except(now);
        self.tasks.spawn(async move {
            let found = sources.locate(except).await;
            let _ = events.send(Event::Located(found)).await;
        });
    }
}
