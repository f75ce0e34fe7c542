//! Writing a [`Record`] while the run goes on, and telling the person in front of it at the same time.

use super::load::Distribution;
use super::machine::Machine;
use super::{
    Check, FORMAT, MemberList, MemberRow, Moment, Outcome, Parameters, Record, SharedFile, TransferRow,
};
use quarta_daemon::escape::Escaped;
use std::fmt;
use std::io::Write;
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
    record: Record,
    told: Box<dyn Write + Send>,
}

impl Journal {
    /// Begins a record of a run that starts now; `told` gets a line for each moment and check.
    pub fn begin(parameters: Parameters, told: impl Write + Send + 'static) -> Self {
        let record = Record {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            seconds: 0.0,
            // What a record says that was never finished.
            outcome: Outcome::Interrupted,
            parameters,
            machine: Machine::this(),
            files: Vec::new(),
            timeline: Vec::new(),
            member_lists: Vec::new(),
            transfers: Vec::new(),
            load: Distribution::default(),
            checks: Vec::new(),
        };
        Self { started: Instant::now(), record, told: Box::new(told) }
    }

    /// What is recorded so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Records that something happened.
    pub fn note(&mut self, what: impl Into<String>) {
        let moment = Moment { at_seconds: self.seconds(), what: what.into() };
        self.tell(moment.at_seconds, &moment.what);
        self.record.timeline.push(moment);
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
        let check = Check { what: what.into(), passed, found };
        let mark = if passed { "checked" } else { "FAILED" };
        let at = self.seconds();
        self.tell(at, &format!("{mark}: {} ({})", check.what, check.found));
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

    /// Records a fetch.
    pub fn transfer(&mut self, transfer: TransferRow) {
        self.record.transfers.push(transfer);
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
        (self.started.elapsed().as_secs_f64() * 1e3).round() / 1e3
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
        let mut journal = Journal::begin(parameters(), std::io::sink());
        journal.check("two are two", Ok::<_, &str>("they are")).unwrap();
        let failed = journal.check("two are three", Err::<&str, _>("they are not")).unwrap_err();
        assert_eq!(failed.to_string(), "two are three: they are not");
        let passed: Vec<_> = journal.record().checks.iter().map(|check| check.passed).collect();
        assert_eq!(passed, [true, false]);
    }

    #[test]
    fn a_record_that_was_never_finished_does_not_say_that_it_passed() {
        assert_eq!(Journal::begin(parameters(), std::io::sink()).record().outcome, Outcome::Interrupted);
    }
}
