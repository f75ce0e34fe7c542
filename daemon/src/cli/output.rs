//! What a command prints: tables and lines for people, one JSON object a line for programs.

use super::Failure;
use crate::escape::{Escaped, EscapedJson};
use crate::http::Member;
use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quarta_protocols::credentials::UnixSeconds;
use serde::Serialize;
use std::io::{self, IsTerminal, Stdout, Write};

/// A command's result, on its way to a person or a program.
#[derive(Debug)]
pub struct Output<W = Stdout> {
    json: bool,
    to: W,
}

impl Output {
    /// Output on stdout; with `json` as one object a line.
    pub fn stdout(json: bool) -> Self {
        Self { json, to: io::stdout() }
    }
}

impl<W: Write> Output<W> {
    /// Output to something else than stdout.
    pub fn new(json: bool, to: W) -> Self {
        Self { json, to }
    }

    /// Prints one line: `text` for people, `object` for programs.
    ///
    /// # Errors
    /// When the output cannot be written; a closed pipe makes a quiet failure.
    pub fn line(&mut self, object: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            return self.object(object);
        }
        self.print(&Escaped(text).to_string())
    }

    /// Prints labelled values below each other: `fields` for people, `object` for programs.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn fields(&mut self, object: &impl Serialize, fields: &[(&str, String)]) -> Result<(), Failure> {
        if self.json {
            return self.object(object);
        }
        let mut table = plain_table();
        for (label, value) in fields {
            table.add_row([Escaped(label).to_string(), Escaped(value).to_string()]);
        }
        self.print(&trimmed(&table))
    }

    /// Prints items as a table with one row each for people, as one object each for programs.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn table<T: Serialize>(
        &mut self,
        header: &[&str],
        items: &[T],
        row: impl Fn(&T) -> Vec<String>,
    ) -> Result<(), Failure> {
        if self.json {
            return items.iter().try_for_each(|item| self.object(item));
        }
        let mut table = plain_table();
        table.set_header(header.iter().copied());
        for item in items {
            table.add_row(row(item).iter().map(|cell| Escaped(cell).to_string()));
        }
        self.print(&trimmed(&table))
    }

    /// Prints members.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn members(&mut self, members: &[Member]) -> Result<(), Failure> {
        let now = UnixSeconds::now().0;
        let header = ["NAME", "ROLE", "STATE", "VIA", "SEEN", "FILES", "STORED", "FREE", "VERSION"];
        self.table(&header, members, |member| {
            vec![
                member.name.clone(),
                member.role.clone(),
                member.state.clone(),
                via(member).to_owned(),
                member.last_seen.map_or_else(|| "-".to_owned(), |seen| ago(seen, now)),
                member.files.to_string(),
                size(member.stored_bytes),
                size(member.free_bytes),
                member.version.clone(),
            ]
        })
    }

    fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(object).map_err(|error| {
            Failure::new("cannot print the result", error.to_string(), "please report this as a bug")
        })?;
        self.print(&EscapedJson(&text).to_string())
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.to, "{text}").and_then(|()| self.to.flush()).map_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                Failure::broken_pipe()
            } else {
                Failure::new("cannot print the result", error.to_string(), "check where the output goes to")
            }
        })
    }
}

/// How a member that is there is connected.
fn via(member: &Member) -> &'static str {
    match (member.state.as_str(), member.relayed) {
        ("online" | "suspect", true) => "relay",
        ("online" | "suspect", false) => "direct",
        _ => "-",
    }
}

/// No borders and no wrapping, so that columns can be cut with the usual tools.
fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The table without the style's margin of one space and without trailing spaces.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> =
        table.lines().map(|line| line.trim_end().get(1..).unwrap_or_default().to_owned()).collect();
    lines.join("\n")
}

/// A count of bytes for people, in binary units: `512 B`, `1.5 GiB`.
pub fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// The first lines of a status: whether all is well, and if not, what is wrong, the most fundamental first.
pub fn health(problems: &[String]) -> Vec<String> {
    let Some((first, others)) = problems.split_first() else { return vec!["healthy".to_owned()] };
    let others = others.iter().map(|problem| format!("and: {problem}"));
    std::iter::once(format!("not healthy: {first}")).chain(others).collect()
}

/// Says something in passing, on stderr, to people.
pub fn note(text: &str) {
    // Without stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", Escaped(text));
}

/// How long ago a moment was, for people: `5 s ago`. Both in seconds since 1970.
fn ago(moment: u64, now: u64) -> String {
    let passed = now.saturating_sub(moment);
    match passed {
        0..60 => format!("{passed} s ago"),
        60..3600 => format!("{} min ago", passed / 60),
        3600..86_400 => format!("{} h ago", passed / 3600),
        _ => format!("{} d ago", passed / 86_400),
    }
}

/// A progress bar over `total_bytes` on stderr; invisible when stderr is no terminal or `json` is asked for.
pub fn progress(json: bool, label: &str, total_bytes: u64) -> ProgressBar {
    if json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total_bytes), ProgressDrawTarget::stderr());
    let template = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(Escaped(label).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ExitCode;

    #[derive(Serialize)]
    struct File {
        name: &'static str,
        bytes: u64,
    }

    #[test]
    fn a_moment_is_told_in_its_largest_unit_and_the_future_as_now() {
        assert_eq!(ago(95, 100), "5 s ago");
        assert_eq!(ago(0, 7200), "2 h ago");
        assert_eq!(ago(0, 200_000), "2 d ago");
        assert_eq!(ago(101, 100), "0 s ago");
    }

    const FILES: [File; 2] =
        [File { name: "plan.csv", bytes: 1536 }, File { name: "a\nb\u{202e}", bytes: 0 }];

    fn printed(json: bool) -> String {
        let mut bytes = Vec::new();
        let mut output = Output::new(json, &mut bytes);
        output.table(&["NAME", "SIZE"], &FILES, |file| vec![file.name.into(), size(file.bytes)]).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_table_has_one_line_a_row_whatever_the_names_are() {
        assert_eq!(printed(false), "NAME          SIZE\nplan.csv      1.5 KiB\na\\nb\\u{202e}  0 B\n");
    }

    #[test]
    fn json_has_one_object_a_line_that_reads_back() {
        let text = printed(true);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["name"], "a\nb\u{202e}");
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn labelled_values_and_lines_are_escaped() {
        let mut bytes = Vec::new();
        let mut output = Output::new(false, &mut bytes);
        output.fields(&(), &[("name", "x\x1b".into()), ("state", "online".into())]).unwrap();
        output.line(&(), "added a\nb").unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), "name   x\\u{1b}\nstate  online\nadded a\\nb\n");
    }

    #[test]
    fn a_reader_that_left_ends_the_command_quietly() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let failure = Output::new(true, writer).line(&(), "x").unwrap_err();
        assert_eq!(failure, Failure::broken_pipe());
        assert_eq!(failure.exit_code(), ExitCode::Success);
    }
}
