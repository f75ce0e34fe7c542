//! What a running fetch shows, and what it tells at its end.

use std::collections::BTreeMap;

use quarta_protocols::messages::index::SourceOutcome;

use super::{Driver, now};
use crate::download::{
    fetch::{
        candidates::State,
        ports::Sink,
        report::{FetchProgress, Phase, RowState, SourceRow},
    },
    schedule::SourceState,
};

impl<S, P, K: Sink> Driver<S, P, K> {
    pub(super) fn publish(&mut self) {
        let now = now();
        let done = self.schedule.as_ref().map_or(0, |schedule| schedule.progress().bytes);
        let scheduled: BTreeMap<_, _> = match &self.schedule {
            Some(schedule) => schedule.sources(now).map(|source| (source.source, source)).collect(),
            None => BTreeMap::new(),
        };
        let mut rows: Vec<SourceRow> = Vec::new();
        for (id, candidate) in self.candidates.iter() {
            let known = scheduled.get(&id);
            let row = SourceRow {
                peer: candidate.source.peer,
                name: candidate.source.name.clone(),
                transport: candidate.transport,
                bytes: known.map_or(0, |source| source.bytes),
                rate_bytes_per_second: known.map_or(0, |source| source.rate_bytes_per_second),
                state: match (candidate.state, known.map(|source| source.state)) {
                    (State::Dropped(fault, _), _) => RowState::Dropped(fault),
                    (State::Connecting, _) => RowState::Connecting,
                    (State::Connected, Some(SourceState::Spare)) => RowState::Spare,
                    (State::Connected, _) => RowState::Active,
                },
            };
            // A peer that came back is one source to whoever looks.
            match rows.iter_mut().find(|other| other.peer == row.peer) {
                Some(before) => {
                    *before = SourceRow {
                        bytes: before.bytes + row.bytes,
                        transport: row.transport.or(before.transport),
                        ..row
                    }
                }
                None => rows.push(row),
            }
        }
        let progress = FetchProgress {
            phase: self.phase,
            bytes_done: done,
            bytes_resumed: self.resumed,
            bytes_total: self.job.size_bytes,
            rate_bytes_per_second: 0,
            sources: rows,
        };
        // Until the manifest is there, nothing is known of an earlier attempt: its bytes are no rate.
        let rate = if self.schedule.is_some() { self.meter.rate(now, done) } else { 0 };
        self.progress.send_replace(FetchProgress { rate_bytes_per_second: rate, ..progress });
    }

    pub(in crate::download::fetch) fn checking(&mut self) {
        self.phase = Phase::Checking;
        self.publish();
    }

    /// Ends all tasks and says what each peer did.
    pub(in crate::download::fetch) fn close(&mut self) -> Vec<SourceOutcome> {
        self.tasks.abort_all();
        self.publish();
        let now = now();
        let mut outcomes: Vec<SourceOutcome> = Vec::new();
        for (id, candidate) in self.candidates.iter() {
            let source = self.schedule.iter().flat_map(|s| s.sources(now)).find(|source| source.source == id);
            let fault = match candidate.state {
                State::Dropped(fault, _) => Some(fault),
                State::Connecting | State::Connected => None,
            };
            let bytes = source.map_or(0, |source| source.bytes);
            let busy = source.map_or(0, |source| u64::try_from(source.busy.as_millis()).unwrap_or(u64::MAX));
            match outcomes.iter_mut().find(|outcome| outcome.peer == candidate.source.peer) {
                Some(outcome) => {
                    outcome.bytes += bytes;
                    outcome.busy_ms += busy;
                    // One that came back after a fault has made up for it only where it then did something.
                    if fault.is_some() || bytes > 0 {
                        outcome.fault = fault;
                    }
                }
                None => {
                    outcomes.push(SourceOutcome { peer: candidate.source.peer, bytes, busy_ms: busy, fault });
                }
            }
        }
        outcomes
    }
}
