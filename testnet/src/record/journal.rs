//! Writing a [`Record`] while the run goes on, and telling the person in front of it at the same time.

use super::load::Distribution;
use super::machine::Machine;
use super::{
    Check, Command, FORMAT, Life, MOMENTS_MAX, MemberList, MemberRow, Moment, Outcome, Parameters, Record,
    SharedFile, SourceRow, TRANSFERS_MAX, TransferRow,
};
use crate::cluster::Lives;
use crate::sampling::Observed;
use crate::snapshot::Snapshot;
use quarta_daemon::escape::Escaped;
use quarta_node::api::model as node;
use std::fmt;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Instant;

/// A check that did not hold. The run ends with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {found}")]
pub struct CheckFailed {
    /// What had to hold.
    pub what: String,
    /// What was found instead.
    pub found: String,
}

/// A record in the making.
pub struct Journal {
    started: Instant,
    started_unix_ms: i64,
    record: Record,
    told: Box<dyn Write + Send>,
}

impl Journal {
    /// Begins a record of a run that starts now; `told` gets a line for each moment and check.
    pub fn begin(command: Command, parameters: Parameters, told: impl Write + Send + 'static) -> Self {
        let now = jiff::Timestamp::now();
        let record = Record {
            format: FORMAT,
            command,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            seconds: 0.0,
            // What a record says that was never finished.
            outcome: Outcome::Interrupted,
            parameters,
            machine: Machine::this(),
            files: Vec::new(),
            timeline: Vec::new(),
            lives: Vec::new(),
            sightings: Vec::new(),
            member_lists: Vec::new(),
            transfers: Vec::new(),
            load: Distribution::default(),
            checks: Vec::new(),
            samples: super::samples::Samples::default(),
            metrics: Vec::new(),
            polls: Vec::new(),
        };
        let started_unix_ms = now.as_millisecond();
        Self { started: Instant::now(), started_unix_ms, record, told: Box::new(told) }
    }

    /// The moment from which the record's times are counted.
    pub fn clock(&self) -> Instant {
        self.started
    }

    /// What is recorded so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Records that something happened.
    pub fn note(&mut self, what: impl Into<String>) {
        let moment = Moment { at_seconds: self.seconds(), what: what.into() };
        self.tell(moment.at_seconds, &moment.what);
        if self.record.timeline.len() < MOMENTS_MAX {
            self.record.timeline.push(moment);
        }
    }

    /// Records what was found where something had to hold.
    ///
    /// # Errors
    /// [`CheckFailed`] when it did not.
    pub fn check(
        &mut self,
        what: impl Into<String>,
        found: Result<impl Into<String>, impl Into<String>>,
    ) -> Result<(), CheckFailed> {
        let (passed, found) = match found {
            Ok(found) => (true, found.into()),
            Err(found) => (false, found.into()),
        };
        let at_seconds = self.seconds();
        let check = Check { at_seconds, what: what.into(), passed, found };
        let mark = if passed { "checked" } else { "FAILED" };
        self.tell(at_seconds, &format!("{mark}: {} ({})", check.what, check.found));
        let failed = CheckFailed { what: check.what.clone(), found: check.found.clone() };
        self.record.checks.push(check);
        if passed { Ok(()) } else { Err(failed) }
    }

    /// Records who was there.
    pub fn members(&mut self, when: &str, seen_by: &str, members: Vec<MemberRow>) {
        let at_seconds = self.seconds();
        self.record.member_lists.push(MemberList {
            at_seconds,
            when: when.to_owned(),
            seen_by: seen_by.to_owned(),
            members,
        });
    }

    /// Records a file that was shared.
    pub fn shared(&mut self, file: SharedFile) {
        self.record.files.push(file);
    }

    /// Records a fetch by `to`; `identical` says whether what arrived was compared with the original and is the same.
    pub fn transfer(&mut self, to: &str, transfer: node::Transfer, identical: Option<bool>) -> TransferRow {
        let row = self.row(to, transfer, identical);
        if self.record.transfers.len() >= TRANSFERS_MAX {
            self.record.transfers.remove(0);
        }
        self.record.transfers.push(row.clone());
        row
    }

    fn row(&self, to: &str, transfer: node::Transfer, identical: Option<bool>) -> TransferRow {
        let source = |source: node::TransferSource| SourceRow {
            name: source.name,
            transport: source.transport,
            bytes: source.bytes,
            fault: source.fault,
        };
        let took_ms = transfer.ended_ms.unwrap_or(transfer.started_ms).saturating_sub(transfer.started_ms);
        // The wall clock is the only one that the node and this program share.
        let after_ms =
            i64::try_from(transfer.started_ms).unwrap_or(i64::MAX).saturating_sub(self.started_unix_ms);
        TransferRow {
            file: transfer.name,
            to: to.to_owned(),
            at_seconds: after_ms.max(0) as f64 / 1e3,
            state: state(transfer.state),
            size_bytes: transfer.size_bytes,
            seconds: took_ms as f64 / 1e3,
            bytes_per_second: transfer.bytes_per_second,
            sha256: transfer.sha256.unwrap_or_default(),
            identical,
            sources: transfer.sources.into_iter().map(source).collect(),
        }
    }

    /// Records what was seen of the members over time.
    pub fn observed(&mut self, observed: Observed) {
        self.record.samples = observed.samples;
        self.record.sightings = observed.sightings;
    }

    /// Records what members told Prometheus at the beginning and at the end.
    pub fn snapshots(&mut self, before: &Snapshot, after: &Snapshot) {
        self.record.metrics = Snapshot::changes(before, after);
        self.record.polls = after.polls();
    }

    /// Records when whose process ran, as it is known now.
    pub fn lives(&mut self, lives: &Lives) {
        let life = |life: crate::cluster::Life| {
            let ended = life.ending.get();
            Life {
                member: life.member,
                role: life.role.as_str().to_owned(),
                from_seconds: self.at(life.began),
                to_seconds: ended.map(|(_, at)| self.at(at)),
                end: ended.map(|(status, _)| end(status)),
            }
        };
        self.record.lives = lives.all().into_iter().map(life).collect();
    }

    /// Records how the work was spread.
    pub fn load(&mut self, load: Distribution) {
        self.record.load = load;
    }

    /// Ends the record.
    pub fn finish(mut self, outcome: Outcome) -> Record {
        self.record.seconds = self.seconds();
        self.record.outcome = outcome;
        self.record
    }

    /// Seconds since the start, to the millisecond.
    fn seconds(&self) -> f64 {
        self.at(Instant::now())
    }

    fn at(&self, moment: Instant) -> f64 {
        (moment.saturating_duration_since(self.started).as_secs_f64() * 1e3).round() / 1e3
    }

    fn tell(&mut self, at: f64, line: &str) {
        // Names come from other people's files. A reader that left has seen enough; the record goes on.
        let _ = writeln!(self.told, "[{at:6.1} s] {}", Escaped(line)).and_then(|()| self.told.flush());
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("record", &self.record).finish_non_exhaustive()
    }
}

/// The word that the API uses.
fn state(state: node::TransferState) -> String {
    serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn end(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(0)) => "in order".to_owned(),
        (None, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parameters() -> Parameters {
        Parameters {
            superpeers: 2,
            nodes: 6,
            shared: "samples".to_owned(),
            big_size_bytes: Some(1 << 20),
            poll_interval_ms: 15_000,
            disk_bytes: 1 << 30,
        }
    }

    #[test]
    fn a_check_that_fails_is_recorded_and_ends_the_run() {
        let mut journal = Journal::begin(Command::Demo, parameters(), std::io::sink());
        journal.check("two are two", Ok::<_, &str>("they are")).unwrap();
        let failed = journal.check("two are three", Err::<&str, _>("they are not")).unwrap_err();
        assert_eq!(failed.to_string(), "two are three: they are not");
        let passed: Vec<_> = journal.record().checks.iter().map(|check| check.passed).collect();
        assert_eq!(passed, [true, false]);
    }

    #[test]
    fn a_record_that_was_never_finished_does_not_say_that_it_passed() {
        assert_eq!(
            Journal::begin(Command::Demo, parameters(), std::io::sink()).record().outcome,
            Outcome::Interrupted
        );
    }
}
