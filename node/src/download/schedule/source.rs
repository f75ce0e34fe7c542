//! What is known of one source, and its clocks.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use quarta_protocols::messages::index::Fault;

use super::{
    FIRST_RUN_MAX_CHUNKS, LAST_RESORT_RATE, PATIENT_RATE, RunId, STALLED_AFTER, SourceId, SourceProgress,
    SourceState,
};
use crate::download::{
    chunk_set::ChunkSet,
    rate::{Rate, between},
};

/// What a source is taken to do before its first chunk, in bytes a second.
const ASSUMED_RATE: f64 = 1024.0 * 1024.0;
/// What a round trip is taken to last before it was seen: a far one.
const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(200);
/// All weights of one *locate* together.
const WEIGHTS_SUM: u32 = 1000;

#[derive(Debug)]
pub(super) struct Source {
    pub(super) added: Instant,
    pub(super) weight: u32,
    pub(super) spare: bool,
    pub(super) offers: ChunkSet,
    /// Whether it lacks chunks: another receiver, most likely.
    pub(super) partial: bool,
    pub(super) fault: Option<Fault>,
    pub(super) rests_until: Option<Instant>,
    /// Its runs under way, oldest first.
    pub(super) runs: Vec<RunId>,
    /// Sealed bytes asked for and not received.
    pub(super) outstanding: u64,
    /// Chunks received and not verified.
    pub(super) verifying: u32,
    /// Verified plaintext bytes.
    pub(super) bytes: u64,
    /// Whether a chunk has ever arrived.
    pub(super) measured: bool,
    /// From asking to the first chunk, at its shortest.
    pub(super) round_trip: Duration,
    /// Chunks of its last run: limits the length of the next.
    pub(super) last_run_chunks: u32,
    /// The chunk after its last run: where the next one goes on, if it can.
    pub(super) goes_on_at: Option<u32>,
    rate: Rate,
    /// The last arrival, or since when something is outstanding.
    heard: Instant,
    /// The last arrival or the end of our own delay: from here its patience is counted.
    waited_since: Instant,
    busy: Duration,
    busy_since: Option<Instant>,
}

impl Source {
    pub(super) fn new(weight: u32, offers: ChunkSet, now: Instant) -> Self {
        Self {
            added: now,
            weight,
            spare: weight == 0 && offers.is_full(),
            partial: !offers.is_full(),
            offers,
            fault: None,
            rests_until: None,
            runs: Vec::new(),
            outstanding: 0,
            verifying: 0,
            bytes: 0,
            measured: false,
            round_trip: ASSUMED_ROUND_TRIP,
            last_run_chunks: 0,
            goes_on_at: None,
            rate: Rate::guess(ASSUMED_RATE),
            heard: now,
            waited_since: now,
            busy: Duration::ZERO,
            busy_since: None,
        }
    }

    pub(super) const fn is_living(&self) -> bool {
        self.fault.is_none()
    }

    /// Living, and not kept as a spare.
    pub(super) const fn is_active(&self) -> bool {
        self.is_living() && !self.spare
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    /// It offers these chunks now.
    pub(super) fn offer(&mut self, offers: ChunkSet) {
        self.partial = !offers.is_full();
        self.offers = offers;
    }

    pub(super) fn run_started(&mut self, now: Instant, run: RunId, bytes: u64, chunks: Range<u32>) {
        if self.outstanding == 0 {
            (self.heard, self.waited_since) = (now, now);
            self.busy_since = Some(now);
        }
        self.runs.push(run);
        self.outstanding += bytes;
        self.last_run_chunks = chunks.end - chunks.start;
        self.goes_on_at = Some(chunks.end);
    }

    /// A chunk came; `asked` says when, where it is the first of its run.
    pub(super) fn received(&mut self, now: Instant, bytes: u64, asked: Option<Instant>) {
        if let Some(asked) = asked {
            self.round_trip = self.round_trip.min(between(asked, now));
        }
        self.rate.measured(bytes, between(self.heard, now));
        (self.heard, self.waited_since) = (now, now);
        self.measured = true;
        self.released(now, bytes);
    }

    pub(super) fn settled(&mut self, now: Instant) {
        self.verifying = self.verifying.saturating_sub(1);
        self.waited_since = now;
    }

    pub(super) fn run_ended(&mut self, now: Instant, run: RunId, rest: u64) {
        self.runs.retain(|other| *other != run);
        self.released(now, rest);
    }

    fn released(&mut self, now: Instant, bytes: u64) {
        self.outstanding -= bytes;
        if self.outstanding == 0
            && let Some(since) = self.busy_since.take()
        {
            self.busy += between(since, now);
        }
    }

    /// Its rate now, in bytes a second: falls while it owes something and is silent.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        let silence = if self.outstanding > 0 { between(self.heard, now) } else { Duration::ZERO };
        self.rate.after(silence)
    }

    /// For how long it has owed something in silence; none while the delay may be ours.
    pub(super) fn silence(&self, now: Instant) -> Option<Duration> {
        (self.outstanding > 0 && self.verifying == 0).then(|| between(self.waited_since, now))
    }

    /// How long a chunk of so many bytes may take it at its usual rate, with as much again beside it.
    pub(super) fn chunk_time(&self, chunk_bytes: u64) -> Duration {
        let seconds = if self.measured {
            2.0 * chunk_bytes as f64 / self.rate.after(Duration::ZERO)
        } else {
            chunk_bytes as f64 / PATIENT_RATE
        };
        Duration::from_secs_f64(seconds.min(chunk_bytes as f64 / LAST_RESORT_RATE))
    }

    /// Whether it has been silent for longer than one waits where there is a choice.
    pub(super) fn is_late(&self, now: Instant, chunk_bytes: u64) -> bool {
        self.silence(now).is_some_and(|silence| silence > STALLED_AFTER + self.chunk_time(chunk_bytes))
    }

    /// Whether it has been silent for longer than one waits for anybody.
    pub(super) fn is_hopeless(&self, now: Instant, chunk_bytes: u64) -> bool {
        let patience = STALLED_AFTER + Duration::from_secs_f64(chunk_bytes as f64 / LAST_RESORT_RATE);
        self.silence(now).is_some_and(|silence| silence > patience)
    }

    /// How many chunks its very first run has: the more, the greater the share that *locate* gave it.
    pub(super) fn first_run_chunks(&self) -> u32 {
        let share = self.weight.min(WEIGHTS_SUM) * (FIRST_RUN_MAX_CHUNKS - 1) / WEIGHTS_SUM;
        1 + share
    }

    pub(super) fn progress(&self, source: SourceId, now: Instant) -> SourceProgress {
        let running = self.busy_since.map_or(Duration::ZERO, |since| between(since, now));
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is positive"
        )]
        let rate = if self.measured { self.rate(now) as u64 } else { 0 };
        SourceProgress {
            source,
            bytes: self.bytes,
            busy: self.busy + running,
            rate_bytes_per_second: rate,
            state: match self.fault {
                Some(fault) => SourceState::Dropped(fault),
                None if self.spare => SourceState::Spare,
                None => SourceState::Active,
            },
        }
    }
}
