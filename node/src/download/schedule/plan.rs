//! The decisions of each step: whom to give up, which spare to take into use, what to ask next, whether to look for
//! more sources.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use quarta_protocols::{limits::RUN_MAX_CHUNKS, messages::index::Fault};

use super::{
    CROWD_RUN_TARGET, Effect, IN_FLIGHT_MAX_BYTES, RUN_MAX_BYTES, RUN_TARGET, RUNS_PER_SOURCE, RunId,
    SOURCES_PLENTY, SPARE_AFTER, Schedule, SourceId, WANT_EVERY, source::Source,
};
use crate::download::rate::between;

/// A hedge must promise to be this much sooner, in proportion and at least: rates are estimates, and a duplicate costs
/// the sender's line.
const HEDGE_FACTOR: f64 = 1.25;
const HEDGE_GAIN_SECONDS: f64 = 0.02;
/// A run may be this many times as long as the one before: a burst that flatters the rate does little harm.
const RUN_GROWTH: u32 = 4;
/// With fewer sources than this left after a loss, more are wanted.
const COMFORTABLE_SOURCES: usize = 2;

impl Schedule {
    pub(super) fn plan(&mut self, now: Instant, tick: bool, effects: &mut Vec<Effect>) {
        if tick {
            self.drop_late(now, effects);
            self.thin = self.living().count() < SOURCES_PLENTY && self.is_thin();
            self.uncovered = !self.missing.covered_by(self.living().map(|(_, source)| &source.offers));
        }
        self.promote_spares(now, tick);
        self.fill(now, effects);
        self.want_sources(now, effects);
    }

    pub(super) fn living(&self) -> impl Iterator<Item = (SourceId, &Source)> + Clone {
        self.sources.iter().filter(|(_, source)| source.is_living()).map(|(id, source)| (*id, source))
    }

    fn chunk_bytes(&self) -> u64 {
        self.sealed_len(0)
    }

    fn drop_late(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let chunk = self.chunk_bytes();
        let late: Vec<SourceId> =
            self.living().filter(|(_, source)| source.is_late(now, chunk)).map(|(id, _)| id).collect();
        for id in late {
            let Some(source) = self.sources.get(&id) else { continue };
            if source.is_hopeless(now, chunk) || self.is_replaceable(now, source) {
                self.drop_source(now, id, Fault::Stalled, effects);
            }
        }
    }

    /// Whether everything that is asked from a source could come from others that answer.
    fn is_replaceable(&self, now: Instant, source: &Source) -> bool {
        let chunk = self.chunk_bytes();
        let offered = |index| {
            self.living().any(|(_, other)| !other.is_late(now, chunk) && other.offers.contains(index))
        };
        let runs = source.runs.iter().filter_map(|run| self.runs.get(run));
        runs.flat_map(|run| run.next..run.end).all(|index| self.verified.contains(index) || offered(index))
    }

    /// A spare takes the place of each active source that is gone, silent or busy, and of what no active source offers.
    fn promote_spares(&mut self, now: Instant, tick: bool) {
        if !self.living().any(|(_, source)| source.spare) {
            return;
        }
        let chunk = self.chunk_bytes();
        let silent = |source: &Source| {
            source.silence(now).is_some_and(|silence| silence > SPARE_AFTER + source.chunk_time(chunk))
        };
        let used = self.sources.values().filter(|source| !source.spare);
        let lost = used.filter(|source| !source.is_living() || silent(source) || source.rests(now)).count();
        // At the start the others may only need a moment longer to connect.
        let waits = |source: &Source| between(source.added, now) > SPARE_AFTER;
        let left_alone = self.living().all(|(_, source)| source.spare && waits(source));
        let wanted = lost.saturating_sub(self.promoted).max(usize::from(left_alone));
        let spares = self.sources.values_mut().filter(|source| source.is_living() && source.spare);
        for spare in spares.take(wanted) {
            spare.spare = false;
            self.promoted += 1;
        }
        let active = self.living().filter(|(_, source)| source.is_active());
        if tick && !self.missing.covered_by(active.map(|(_, source)| &source.offers)) {
            let missing = &self.missing;
            let helps = |source: &&mut Source| {
                source.is_living() && source.spare && source.offers.first_in_both(missing).is_some()
            };
            if let Some(spare) = self.sources.values_mut().find(helps) {
                spare.spare = false;
                self.promoted += 1;
            }
        }
    }

    /// Gives runs to sources with room, the one that will run dry first before the others.
    fn fill(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut passed_over = BTreeSet::new();
        let crowd = self.crowd();
        while let Some(id) = self.next_with_room(now, &passed_over) {
            let Some(source) = self.sources.get(&id) else { return };
            let chunks = self.run_chunks(now, source);
            let room = IN_FLIGHT_MAX_BYTES.saturating_sub(self.in_flight) / self.chunk_bytes();
            let affordable = u32::try_from(room).unwrap_or(u32::MAX).min(chunks);
            // A run cut short by the common bound is only worth its request where the source would else be idle.
            let worthwhile = affordable > 0 && (affordable >= chunks / 2 || source.outstanding == 0);
            let found = worthwhile.then(|| {
                let missing = self.missing_run(source, affordable, crowd.as_ref());
                // In a crowd a line that has nothing for us has something for others, until only our end is waited for.
                let hedges = missing.is_none() && (crowd.is_none() || self.missing_chunks == 0);
                missing.or_else(|| hedges.then(|| self.hedge(now, id, source, affordable)).flatten())
            });
            match found.flatten() {
                Some((first, end)) => self.start_run(now, id, first, end, effects),
                None => {
                    passed_over.insert(id);
                }
            }
        }
    }

    fn next_with_room(&self, now: Instant, passed_over: &BTreeSet<SourceId>) -> Option<SourceId> {
        // Until its first chunk has come, nothing is known of a source, so one run must do.
        let has_room = |source: &Source| {
            let runs = if source.measured { RUNS_PER_SOURCE } else { 1 };
            source.is_active() && !source.rests(now) && source.runs.len() < runs
        };
        let dry_in = |source: &Source| source.outstanding as f64 / source.rate(now);
        self.sources
            .iter()
            .filter(|(id, source)| has_room(source) && !passed_over.contains(*id))
            .min_by(|(_, a), (_, b)| dry_in(a).total_cmp(&dry_in(b)).then(b.weight.cmp(&a.weight)))
            .map(|(id, _)| *id)
    }

    /// How many chunks the source's next run should have.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to small positive numbers"
    )]
    fn run_chunks(&self, now: Instant, source: &Source) -> u32 {
        let chunk = self.chunk_bytes() as f64;
        if !source.measured {
            return source.first_run_chunks();
        }
        let rate = source.rate(now);
        let all: f64 =
            self.living().filter(|(_, other)| other.is_active()).map(|(_, other)| other.rate(now)).sum();
        let target = if self.is_crowd() { CROWD_RUN_TARGET } else { RUN_TARGET };
        let by_rate = rate * target.as_secs_f64() / chunk;
        // Towards the end, half of the source's share of what is missing, so that all end together; but never less
        // than keeps its line busy for a round trip.
        let by_share = (f64::from(self.missing_chunks) * rate / all / 2.0)
            .max(rate * source.round_trip.as_secs_f64() / chunk);
        let most = (RUN_MAX_BYTES as f64 / chunk).min(f64::from(RUN_MAX_CHUNKS));
        let grown = f64::from(source.last_run_chunks.saturating_mul(RUN_GROWTH));
        let wanted = by_rate.min(most).min(grown);
        // Two runs that end together leave the line idle for a round trip, so this one should end well before or well
        // after what is left of the other when this one begins.
        let owed: u32 =
            source.runs.iter().filter_map(|run| self.runs.get(run)).map(|run| run.end - run.next).sum();
        let other = f64::from(owed) - rate * source.round_trip.as_secs_f64() / chunk;
        let halved = source.runs.is_empty() || (wanted - other).abs() < (wanted / 2.0 - other).abs();
        let apart = if halved { wanted / 2.0 } else { wanted };
        if self.missing_chunks == 0 { apart.max(1.0) as u32 } else { apart.min(by_share).max(1.0) as u32 }
    }

    /// The chunks asked from somebody else that would come last, as far as this source brings them clearly sooner.
    fn hedge(&self, now: Instant, id: SourceId, source: &Source, chunks: u32) -> Option<(u32, u32)> {
        let chunk = self.chunk_bytes() as f64;
        let rate = source.rate(now);
        let begins_in = (source.outstanding as f64 / rate).max(source.round_trip.as_secs_f64());
        let ours = |count: u32| begins_in + f64::from(count) * chunk / rate;
        let sooner = |count: u32, theirs: f64| theirs > ours(count) * HEDGE_FACTOR + HEDGE_GAIN_SECONDS;
        let open = |index: u32| {
            let single = |chunk: &super::UnderWay| chunk.verifying.is_none() && chunk.claims.len() == 1;
            source.offers.contains(index) && self.under_way.get(&index).is_some_and(single)
        };
        let runs = self.runs.iter().filter(|(_, run)| run.source != id && self.is_living(run.source));
        let lasts = runs.filter_map(|(run_id, run)| {
            let last = (run.next..run.end).rev().find(|index| open(*index))?;
            Some((*run_id, last, self.arrives_in(now, *run_id, last)?.as_secs_f64()))
        });
        let (run, last, theirs) = lasts.max_by(|(_, _, a), (_, _, b)| a.total_cmp(b))?;
        if !sooner(1, theirs) {
            return None;
        }
        let next = self.runs.get(&run)?.next;
        let worth = |index: &u32| {
            let count = last - index + 1;
            let theirs = self.arrives_in(now, run, *index).map_or(0.0, |time| time.as_secs_f64());
            count <= chunks && open(*index) && sooner(count, theirs)
        };
        let first = (next..last).rev().take_while(worth).last().unwrap_or(last);
        Some((first, last + 1))
    }

    /// When a chunk of a run is to be expected: what its source owes before it, at the source's rate. Who is overdue is
    /// expected to stay so for as long again.
    fn arrives_in(&self, now: Instant, id: RunId, index: u32) -> Option<Duration> {
        let run = self.runs.get(&id)?;
        let source = self.sources.get(&run.source)?;
        let before =
            source.runs.iter().take_while(|other| **other != id).filter_map(|other| self.runs.get(other));
        let chunks = before.map(|run| run.end - run.next).sum::<u32>() + (index + 1).saturating_sub(run.next);
        let bytes = f64::from(chunks) * self.chunk_bytes() as f64;
        let overdue =
            source.silence(now).unwrap_or_default().saturating_sub(source.chunk_time(self.chunk_bytes()));
        Duration::try_from_secs_f64(bytes / source.rate(now)).ok()?.checked_add(overdue)
    }

    fn want_sources(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let chunk = self.chunk_bytes();
        let healthy =
            self.living().filter(|(_, source)| !source.is_late(now, chunk) && !source.rests(now)).count();
        let lost = self.living().count() < self.sources.len();
        let short = healthy == 0 || self.uncovered || self.thin || (lost && healthy < COMFORTABLE_SOURCES);
        if short && self.want_again_at.is_none_or(|at| now >= at) {
            self.want_again_at = Some(now + WANT_EVERY);
            effects.push(Effect::WantSources);
        }
    }
}
