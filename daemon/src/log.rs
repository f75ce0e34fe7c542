//! What a process says on stderr: one event, one line, whatever peers put into it.
//!
//! File and branch names come from other machines and end up in log fields. `tracing-subscriber` escapes ANSI
//! sequences in them but lets newlines and bidirectional controls through, so every finished line passes
//! [`crate::escape`]; doing it for the line and not for each field leaves no field, span or error text out.
//! The price is a log without colours. Secrets are kept out by their types, which print as redacted.

use crate::escape::{Escaped, EscapedJson};
use clap::{Args, ValueEnum};
use std::fmt;
use std::io;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people: time, level, module, message and fields.
    #[default]
    Human,
    /// For machines: one JSON object a line.
    Json,
}

/// The log's arguments, shared by all daemons.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Shape of log lines on stderr
    #[arg(long = "log", value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
    /// What to log: error, warn, info, debug, trace, or directives such as `info,quarta_node=debug`
    #[arg(
        long = "log-level",
        env = "QUARTA_LOG",
        default_value = "info,libp2p_swarm=warn",
        value_name = "FILTER"
    )]
    pub filter: String,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter makes no sense.
    #[error("cannot use the log level `{filter}`: {why}; use error, warn, info, debug or trace")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Logging was started before in this process.
    #[error("cannot start the log: it is running already; this is a bug, please report it")]
    Running,
}

impl LogArgs {
    /// Starts the log as the arguments say; see [`init`].
    ///
    /// # Errors
    /// As [`init`].
    pub fn init(&self) -> Result<(), LogError> {
        init(self.format, &self.filter)
    }
}

/// Starts the process's log on stderr. Once per process.
///
/// # Errors
/// [`LogError`] when the filter makes no sense or a log is running.
pub fn init(format: Format, filter: &str) -> Result<(), LogError> {
    tracing::subscriber::set_global_default(subscriber(format, filter, io::stderr)?)
        .map_err(|_| LogError::Running)
}

fn subscriber<W>(
    format: Format,
    filter: &str,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| LogError::Filter { filter: filter.to_owned(), why: error.to_string() })?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    Ok(match format {
        Format::Human => Box::new(base.map_event_format(|inner| OneLine { inner, json: false }).finish()),
        Format::Json => {
            let json = base.json().flatten_event(true).with_current_span(false);
            Box::new(json.map_event_format(|inner| OneLine { inner, json: true }).finish())
        }
    })
}

/// Escapes whatever another format makes of an event, and ends it with the only newline.
struct OneLine<F> {
    inner: F,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for OneLine<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(ctx, Writer::new(&mut line), event)?;
        let line = line.strip_suffix('\n').unwrap_or(&line);
        if self.json {
            writeln!(writer, "{}", EscapedJson(line))
        } else {
            writeln!(writer, "{}", Escaped(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::is_deceptive;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, event: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = subscriber(format, "info", move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, event);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "a\n2026-01-01T00:00:00Z ERROR forged\r\x1b[2J\u{9b}1m\u{202e}gpj\u{2028}";

    fn hostile_events() {
        let span = tracing::info_span!("peer", member = %HOSTILE);
        let _inside = span.enter();
        let error = io::Error::other(HOSTILE);
        let cause = &error as &dyn std::error::Error;
        tracing::info!(file = %HOSTILE, debug = ?HOSTILE, plain = HOSTILE, cause, "{HOSTILE}");
    }

    #[test]
    fn a_hostile_name_cannot_forge_a_human_log_line() {
        let text = logged(Format::Human, hostile_events);
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(is_deceptive), "{line:?}");
        assert!(line.contains(r"file=a\n2026") && line.contains(r"\u{202e}gpj"), "{line}");
    }

    #[test]
    fn a_hostile_name_cannot_forge_a_json_log_line_and_reads_back_as_it_was() {
        let text = logged(Format::Json, hostile_events);
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.chars().any(is_deceptive), "{line:?}");
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(parsed["file"], HOSTILE);
        assert_eq!(parsed["spans"][0]["member"], HOSTILE);
    }

    #[test]
    fn what_the_filter_leaves_out_is_not_logged() {
        assert_eq!(logged(Format::Human, || tracing::debug!("quiet")), "");
    }

    #[test]
    fn a_senseless_filter_is_refused_with_a_way_out() {
        let text = init(Format::Human, "quarta=loud").unwrap_err().to_string();
        assert!(text.contains("`quarta=loud`") && text.contains("use error, warn"), "{text}");
    }
}
