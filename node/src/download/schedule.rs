//! Which chunks to ask from whom: every chunk once, from all sources at their own pace, to the end without waiting for
//! the slowest.
//!
//! Sources *pull*: whoever has room gets missing chunks that it can serve, as a run of consecutive ones that is
//! worth about [`RUN_TARGET`] at its measured rate. So shares follow rates without anybody planning them, the file's
//! beginning is complete early, and a run is long enough to hide a round trip: two are under way per source, the first
//! half as long as the second, so that one ends in the middle of the other.
//!
//! Runs shrink as the missing chunks run out. When none is left, a source with room *hedges*: it asks again for the
//! chunk that would come last, and for those before it in the same run, as long as it would bring them clearly sooner.
//! A chunk is asked from two sources at most; whichever copy verifies first counts, and a run that has nothing of use
//! left is cancelled.
//!
//! A source is dropped when a chunk of its is wrong, when it breaks off, and when nothing arrives for
//! [`STALLED_AFTER`] and the time that a chunk takes it. The last one that can serve what is missing is given more time
//! ([`LAST_RESORT_RATE`]): slow is better than nothing until another source comes. Chunks that wait for verification
//! are our delay, not the source's, and stop its clock.
//!
//! Guarantees, for any order of inputs: each chunk is handed to verification again only after it was refused, and never
//! once verified; what is asked for and not yet verified stays within [`IN_FLIGHT_MAX_BYTES`]; as long as a source that
//! has all chunks sends right ones, the fetch ends.
//!
//! Effects are returned, never performed: the caller brings the time and carries them out in order.

mod choice;
mod plan;
mod source;
#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use quarta_protocols::{
    content::{CHUNK_MAX_BYTES, Geometry, TAG_BYTES},
    limits::RUN_MAX_CHUNKS,
    messages::index::Fault,
};
use source::Source;
pub use words::{Effect, Input, Progress, RunId, SourceId, SourceProgress, SourceState};

use super::chunk_set::ChunkSet;

/// What a run should be worth at its source's rate. Two of them cover round trips of up to a second, and hardly more
/// than this is ever waiting behind a source that turns slow.
pub const RUN_TARGET: Duration = Duration::from_millis(500);
/// What a run should be worth in a crowd: what is under way to one receiver is not known to the others, who may ask for
/// the same.
pub const CROWD_RUN_TARGET: Duration = Duration::from_millis(200);
/// A run's sealed bytes, at most (one chunk always fits): enough for 1 Gbit/s at 100 ms when two are under way.
pub const RUN_MAX_BYTES: u64 = 16 << 20;
/// Chunks in a source's first run, at most; its weight decides how many.
pub const FIRST_RUN_MAX_CHUNKS: u32 = 4;
/// Runs under way from one source.
pub const RUNS_PER_SOURCE: usize = 2;
/// Sealed bytes asked for and not yet verified, over all sources: bounds memory where the disk is slower than the
/// network.
pub const IN_FLIGHT_MAX_BYTES: u64 = 64 << 20;
/// Nothing arrives for this long, beside the time that a chunk takes: the source stalls.
pub const STALLED_AFTER: Duration = Duration::from_secs(3);
/// The least rate that a source whose rate is unknown is waited for, in bytes a second.
pub const PATIENT_RATE: f64 = 128.0 * 1024.0;
/// The least rate that the last source is waited for, in bytes a second: 1 GiB in three days.
pub const LAST_RESORT_RATE: f64 = 4.0 * 1024.0;
/// How long a source that was busy is left alone.
pub const BUSY_REST: Duration = Duration::from_secs(1);
/// A used source is silent for this long, beside the time that a chunk takes: a spare joins in.
pub const SPARE_AFTER: Duration = Duration::from_secs(1);
/// How often more sources are asked for, at most.
pub const WANT_EVERY: Duration = Duration::from_millis(500);
/// With so many living sources no more are looked for only because some chunk is rare.
pub const SOURCES_PLENTY: usize = 16;

const _: () = assert!(IN_FLIGHT_MAX_BYTES >= CHUNK_MAX_BYTES + TAG_BYTES as u64, "one chunk always fits");

#[derive(Debug)]
struct Run {
    source: SourceId,
    /// When it was asked for; none once its first chunk has come.
    asked: Option<Instant>,
    /// The chunk that comes next.
    next: u32,
    end: u32,
}

/// A chunk that is asked for or being verified.
#[derive(Debug, Default)]
struct UnderWay {
    /// The runs that will still bring it: at most two.
    claims: Vec<RunId>,
    /// Whose copy is being verified.
    verifying: Option<SourceId>,
}

/// The state of one fetch. Every chunk is verified, missing, or under way.
#[derive(Debug)]
pub struct Schedule {
    geometry: Geometry,
    verified: ChunkSet,
    verified_bytes: u64,
    missing: ChunkSet,
    missing_chunks: u32,
    under_way: BTreeMap<u32, UnderWay>,
    runs: BTreeMap<RunId, Run>,
    sources: BTreeMap<SourceId, Source>,
    next_run: u64,
    /// Sealed bytes asked for and not received, and received and not verified.
    in_flight: u64,
    /// Spares that have been taken into use, ever.
    promoted: usize,
    /// Some missing chunk is offered by nobody.
    uncovered: bool,
    /// Some missing chunk is offered by one source only, and there are few sources.
    thin: bool,
    want_again_at: Option<Instant>,
    done: bool,
    /// Draws where in the file this receiver begins, so that no two of a crowd begin at the same place.
    seed: u64,
}

impl Schedule {
    /// A fetch of what `verified` lacks. The first [`Input::Tick`] ends it at once where that is nothing. `seed` is to
    /// differ from receiver to receiver.
    pub fn new(geometry: Geometry, verified: ChunkSet, seed: u64) -> Self {
        let missing = verified.complement();
        Self {
            geometry,
            verified_bytes: verified.iter().map(|index| geometry.plain_len(index) as u64).sum(),
            verified,
            missing_chunks: missing.count(),
            missing,
            under_way: BTreeMap::new(),
            runs: BTreeMap::new(),
            sources: BTreeMap::new(),
            next_run: 0,
            in_flight: 0,
            promoted: 0,
            uncovered: false,
            thin: false,
            want_again_at: None,
            done: false,
            seed,
        }
    }

    /// Takes note of what happened and says what to do, in order.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.done {
            return effects;
        }
        let tick = input == Input::Tick;
        match input {
            Input::SourceAdded { source, weight, offers } => {
                self.sources.entry(source).or_insert_with(|| Source::new(weight, offers, now));
                self.want_again_at = None;
            }
            Input::Offers { source, offers } => {
                if let Some(source) = self.sources.get_mut(&source) {
                    source.offer(offers);
                }
            }
            Input::Received { run } => self.received(now, run, &mut effects),
            Input::Verified { index } => self.verified(index, now, &mut effects),
            Input::Refused { index } => self.refused(index, now, &mut effects),
            Input::RunEnded { run } => {
                if let Some(source) = self.runs.get(&run).map(|run| run.source) {
                    self.drop_source(now, source, Fault::BrokeOff, &mut effects);
                }
            }
            Input::Busy { run } => {
                let source = self.end_run(now, run);
                if let Some(source) = source.and_then(|source| self.sources.get_mut(&source)) {
                    source.rests_until = Some(now + BUSY_REST);
                }
            }
            Input::SourceFailed { source, fault } => self.drop_source(now, source, fault, &mut effects),
            Input::Tick => {}
        }
        if self.verified.is_full() {
            self.finish(now, &mut effects);
        } else {
            self.plan(now, tick, &mut effects);
        }
        effects
    }

    /// How far the fetch has got.
    pub fn progress(&self) -> Progress {
        Progress { chunks: self.verified.count(), bytes: self.verified_bytes }
    }

    /// What each source has done, dropped ones included, in the order in which they came.
    pub fn sources(&self, now: Instant) -> impl Iterator<Item = SourceProgress> + '_ {
        self.sources.iter().map(move |(id, source)| source.progress(*id, now))
    }

    fn sealed_len(&self, index: u32) -> u64 {
        self.geometry.sealed_len(index) as u64
    }

    fn is_living(&self, source: SourceId) -> bool {
        self.sources.get(&source).is_some_and(Source::is_living)
    }

    fn received(&mut self, now: Instant, id: RunId, effects: &mut Vec<Effect>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (index, owner, asked) = (run.next, run.source, run.asked.take());
        run.next += 1;
        let complete = run.next == run.end;
        let bytes = self.geometry.sealed_len(index) as u64;
        self.in_flight -= bytes;
        if let Some(source) = self.sources.get_mut(&owner) {
            source.received(now, bytes, asked);
        }
        if let Some(chunk) = self.under_way.get_mut(&index) {
            chunk.claims.retain(|claim| *claim != id);
            if chunk.verifying.is_none() {
                chunk.verifying = Some(owner);
                self.in_flight += bytes;
                if let Some(source) = self.sources.get_mut(&owner) {
                    source.verifying += 1;
                }
                effects.push(Effect::Verify { source: owner, index });
            }
        }
        if complete {
            self.end_run(now, id);
        } else {
            self.cancel_if_useless(now, id, effects);
        }
    }

    /// Takes the chunk out of verification.
    fn settle(&mut self, now: Instant, index: u32) -> Option<SourceId> {
        let source = self.under_way.get_mut(&index)?.verifying.take()?;
        self.in_flight -= self.sealed_len(index);
        if let Some(source) = self.sources.get_mut(&source) {
            source.settled(now);
        }
        Some(source)
    }

    fn verified(&mut self, index: u32, now: Instant, effects: &mut Vec<Effect>) {
        let Some(source) = self.settle(now, index) else { return };
        let bytes = self.geometry.plain_len(index) as u64;
        if let Some(source) = self.sources.get_mut(&source) {
            source.bytes += bytes;
        }
        self.verified.insert(index);
        self.verified_bytes += bytes;
        for run in self.under_way.remove(&index).map(|chunk| chunk.claims).unwrap_or_default() {
            self.cancel_if_useless(now, run, effects);
        }
    }

    fn refused(&mut self, index: u32, now: Instant, effects: &mut Vec<Effect>) {
        let Some(source) = self.settle(now, index) else { return };
        self.miss_if_unclaimed(index);
        self.drop_source(now, source, Fault::WrongBytes, effects);
    }

    fn miss_if_unclaimed(&mut self, index: u32) {
        let idle = |chunk: &UnderWay| chunk.claims.is_empty() && chunk.verifying.is_none();
        if self.under_way.get(&index).is_some_and(idle) {
            self.under_way.remove(&index);
            self.missing.insert(index);
            self.missing_chunks += 1;
        }
    }

    fn cancel_if_useless(&mut self, now: Instant, id: RunId, effects: &mut Vec<Effect>) {
        let useless =
            self.runs.get(&id).is_some_and(|run| (run.next..run.end).all(|i| self.verified.contains(i)));
        if useless {
            self.end_run(now, id);
            effects.push(Effect::Cancel { run: id });
        }
    }

    /// Forgets a run; what it has not brought is missing again unless another run brings it. Says whose it was.
    fn end_run(&mut self, now: Instant, id: RunId) -> Option<SourceId> {
        let run = self.runs.remove(&id)?;
        let rest = (run.next..run.end).map(|index| self.sealed_len(index)).sum();
        self.in_flight -= rest;
        if let Some(source) = self.sources.get_mut(&run.source) {
            source.run_ended(now, id, rest);
        }
        for index in run.next..run.end {
            if let Some(chunk) = self.under_way.get_mut(&index) {
                chunk.claims.retain(|claim| *claim != id);
                self.miss_if_unclaimed(index);
            }
        }
        Some(run.source)
    }

    fn drop_source(&mut self, now: Instant, id: SourceId, fault: Fault, effects: &mut Vec<Effect>) {
        let Some(source) = self.sources.get_mut(&id).filter(|source| source.is_living()) else { return };
        source.fault = Some(fault);
        for run in source.runs.clone() {
            self.end_run(now, run);
            effects.push(Effect::Cancel { run });
        }
        effects.push(Effect::Drop { source: id, fault });
    }

    fn finish(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let runs: Vec<RunId> = self.runs.keys().copied().collect();
        for run in runs {
            self.end_run(now, run);
            effects.push(Effect::Cancel { run });
        }
        self.done = true;
        effects.push(Effect::Done);
    }

    /// Asks `source` for `first..end`, all of which it offers and none of which is asked from two others.
    fn start_run(&mut self, now: Instant, id: SourceId, first: u32, end: u32, effects: &mut Vec<Effect>) {
        debug_assert!(first < end && end - first <= RUN_MAX_CHUNKS, "a run that may be asked for");
        let run = RunId(self.next_run);
        self.next_run += 1;
        let mut bytes = 0;
        for index in first..end {
            bytes += self.sealed_len(index);
            if self.missing.remove(index) {
                self.missing_chunks -= 1;
            }
            self.under_way.entry(index).or_default().claims.push(run);
        }
        self.in_flight += bytes;
        self.runs.insert(run, Run { source: id, asked: Some(now), next: first, end });
        if let Some(source) = self.sources.get_mut(&id) {
            source.run_started(now, run, bytes, first..end);
        }
        effects.push(Effect::Request { source: id, run, first, count: end - first });
    }
}
