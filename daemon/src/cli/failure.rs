//! How a command fails: what, why, what to do next, and with which exit code.

use crate::client::ClientError;
use crate::data_dir::{DataDirError, FolderError, LockError};
use crate::escape::{Escaped, EscapedJson};
use crate::http::{BindError, TokenError};
use crate::log::LogError;
use crate::settings::SettingsError;
use std::fmt;
use std::io::{self, Write};

/// The exit codes of all commands; part of the outside contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All that was asked is done.
    Success = 0,
    /// Anything that no other code says.
    Failure = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The daemon is not running.
    NotRunning = 3,
    /// Whoever asks may not do this.
    NotPermitted = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// Some of several things were done, others not.
    PartlyDone = 6,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A command's failure. Displays as the one line that a person reads, `error: what: why; next step`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    what: String,
    why: String,
    next: String,
    exit_code: ExitCode,
    /// The problem's code, where an API gave one.
    problem: Option<String>,
    /// Whether there is nobody left to tell.
    quiet: bool,
}

impl Failure {
    /// A failure with [`ExitCode::Failure`]: what failed, why, and what to do next, none with a full stop.
    pub fn new(what: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
            next: next.into(),
            exit_code: ExitCode::Failure,
            problem: None,
            quiet: false,
        }
    }

    /// A failure from an error whose text is made as "what: why; next step", as this crate's errors are.
    pub fn told(error: &impl fmt::Display) -> Self {
        let text = error.to_string();
        let (rest, next) = text.rsplit_once("; ").unwrap_or((&text, ""));
        let (what, why) = rest.split_once(": ").unwrap_or((rest, ""));
        Self::new(what, why, next)
    }

    /// The same failure with another exit code.
    #[must_use]
    pub fn code(self, exit_code: ExitCode) -> Self {
        Self { exit_code, ..self }
    }

    /// Why it failed.
    pub fn why(&self) -> &str {
        if self.why.is_empty() { &self.what } else { &self.why }
    }

    /// What to do next.
    pub fn next_step(&self) -> &str {
        &self.next
    }

    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        self.exit_code
    }

    /// What a broken pipe comes to: whoever read the output has seen enough.
    pub(super) fn broken_pipe() -> Self {
        Self { quiet: true, ..Self::new("", "", "").code(ExitCode::Success) }
    }

    /// Prints the failure on stderr, as one line, and returns the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if !self.quiet {
            let line = if json { self.to_json() } else { self.to_string() };
            // Without stderr the exit code still tells.
            let _ = writeln!(io::stderr(), "{line}");
        }
        self.exit_code
    }

    /// The failure as one JSON object: `error`, `why`, `next_step`, `exit_code`, and `code` where the API
    /// gave one.
    pub fn to_json(&self) -> String {
        let object = serde_json::json!({
            "error": self.what,
            "why": self.why,
            "next_step": self.next,
            "exit_code": self.exit_code as u8,
            "code": self.problem,
        });
        EscapedJson(&object.to_string()).to_string()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", Escaped(&self.what))?;
        if !self.why.is_empty() {
            write!(f, ": {}", Escaped(&self.why))?;
        }
        if !self.next.is_empty() {
            write!(f, "; {}", Escaped(&self.next))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// Says what a command was doing when its request failed.
pub trait During<T> {
    /// Makes a [`Failure`] of the error; `what` is as in "cannot list the files".
    ///
    /// # Errors
    /// The failure, with the exit code that fits the error.
    fn during(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T> During<T> for Result<T, ClientError> {
    fn during(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| {
            let exit_code = match &error {
                ClientError::NotRunning { .. } => ExitCode::NotRunning,
                ClientError::NotPermitted { .. } => ExitCode::NotPermitted,
                ClientError::Problem(problem) => problem.exit_code(),
                ClientError::Broken { .. } | ClientError::Unexpected { .. } => ExitCode::Failure,
            };
            if let ClientError::Problem(problem) = error {
                let failure = Failure::new(what, problem.to_string(), problem.next_step).code(exit_code);
                return Failure { problem: Some(problem.code).filter(|code| !code.is_empty()), ..failure };
            }
            let text = error.to_string();
            let (why, next) = text.rsplit_once("; ").unwrap_or((&text, ""));
            Failure::new(what, why, next).code(exit_code)
        })
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        let denied = matches!(&error,
            FolderError::Io { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied);
        let failure = Self::told(&error);
        if denied { failure.code(ExitCode::NotPermitted) } else { failure }
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Folder(error) => error.into(),
            LockError::InUse { .. } => Self::told(&error),
        }
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Folder(error) => error.into(),
            DataDirError::Lock(error) => error.into(),
            error => Self::told(&error),
        }
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Folder(error) => error.into(),
            error => Self::told(&error),
        }
    }
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Folder(error) => error.into(),
            error => Self::told(&error),
        }
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        match error {
            BindError::Token(error) => error.into(),
            error => Self::told(&error),
        }
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        let code = if matches!(error, LogError::Filter { .. }) { ExitCode::Usage } else { ExitCode::Failure };
        Self::told(&error).code(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Problem;
    use axum::http::StatusCode;

    fn during(error: ClientError) -> Failure {
        Err::<(), _>(error).during("cannot list the files").unwrap_err()
    }

    #[test]
    fn a_daemon_that_is_not_running_exits_with_3_and_says_how_to_start_it() {
        let failure = during(ClientError::NotRunning { data: "/d".into() });
        assert_eq!(failure.exit_code() as u8, 3);
        assert_eq!(
            failure.to_string(),
            "error: cannot list the files: the daemon of /d is not running; start it with `serve`"
        );
    }

    #[test]
    fn a_problem_keeps_its_code_cause_and_next_step() {
        let problem = Problem::new(StatusCode::NOT_FOUND, "unknown-file", "no such file", "run `quarta ls`");
        let failure = during(ClientError::Problem(Box::new(problem)));
        assert_eq!(failure.exit_code(), ExitCode::NotFound);
        assert_eq!(failure.to_string(), "error: cannot list the files: no such file; run `quarta ls`");
        let json: serde_json::Value = serde_json::from_str(&failure.to_json()).unwrap();
        assert_eq!(json["code"], "unknown-file");
        assert_eq!(json["exit_code"], 5);
    }

    #[test]
    fn a_hostile_name_in_a_failure_stays_on_its_line() {
        let failure = Failure::new("cannot get a\nerror: b", "\x1b[2J", "\u{202e}try again");
        assert_eq!(failure.to_string(), r"error: cannot get a\nerror: b: \u{1b}[2J; \u{202e}try again");
        assert!(!failure.to_json().chars().any(crate::escape::is_deceptive));
    }

    #[test]
    fn this_crates_errors_come_apart_into_their_three_parts() {
        let failure = Failure::from(BindError::PortInUse { address: ([127, 0, 0, 1], 80).into() });
        assert_eq!(failure.what, "cannot serve the API on 127.0.0.1:80");
        assert_eq!(failure.why, "the port is in use by another program");
    }
}
