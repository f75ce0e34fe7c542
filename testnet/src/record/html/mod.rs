//! A record as one page for a browser: charts that answer questions, and tables with the exact figures.
//!
//! **What is guaranteed.** The page needs nothing but itself: no script, and no style, picture or font from elsewhere; its
//! content security policy allows the one style sheet in it by its hash and nothing more, so that even text that became
//! markup could load or run nothing. It is well-formed by construction (`markup`). It works in light and dark, on a
//! phone and on paper, and for readers who hear it: every drawing is described in words, and no figure stands in a
//! drawing only.
//!
//! In reading order: `markup` and `scale`, then `chart`, what charts are made of; then a file for each group of
//! charts, and `tables`.

mod chart;
mod exchange;
mod markup;
mod polls;
mod rates;
mod scale;
mod tables;
mod timeline;
mod usage;

use super::{Outcome, Record};
use data_encoding::BASE64;
use markup::Markup;
use quarta_daemon::cli::size;
use sha2::{Digest, Sha256};

/// The page's name in its folder: what a web server shows when one opens the folder.
pub const PAGE_FILE: &str = "index.html";

const STYLE: &str = include_str!("style.css");

/// The last lines of a member's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// Whose log it is; the whole of it lies in the folder of logs under this name.
    pub member: String,
    /// The lines.
    pub lines: Vec<String>,
}

/// The page of a record.
pub fn render(record: &Record, logs: &[LogEnd]) -> String {
    let mut page = Markup::default();
    page.own("<!DOCTYPE html>\n");
    page.element("html", &[("lang", &"en")], |page| {
        page.element("head", &[], |page| head(page, record));
        page.line();
        page.element("body", &[], |page| {
            page.element("header", &[], |page| header(page, record));
            page.element("main", &[], |page| {
                tables::checks(page, record);
                timeline::section(page, record);
                rates::section(page, record);
                exchange::matrix(page, record);
                exchange::spread(page, record);
                usage::section(page, record);
                polls::section(page, record);
                tables::transfers(page, record);
                tables::members(page, record);
                tables::files(page, record);
                tables::metrics(page, record);
                tables::logs(page, logs);
                tables::run(page, record);
                page.words(
                    "footer",
                    &[],
                    format!("Quarta {} · record format {}", record.version, record.format),
                );
            });
        });
    });
    page.line();
    page.finish()
}

/// What links to the sections say, where they have something to show.
fn contents(record: &Record) -> Vec<(&'static str, &'static str)> {
    [
        (!record.checks.is_empty(), "checks", "Checks"),
        (true, "timeline", "Timeline"),
        (rates::shown(record), "rate", "Rate"),
        (exchange::shown(record), "exchange", "Who sent to whom"),
        (exchange::shown(record), "spread", "Spread of work"),
        (usage::shown(record), "usage", "Memory and processor"),
        (polls::shown(record), "polls", "Polls"),
        (!record.transfers.is_empty(), "transfers", "Transfers"),
        (!record.member_lists.is_empty(), "members", "Members"),
        (!record.files.is_empty(), "files", "Files"),
        (!record.metrics.is_empty(), "metrics", "Metrics"),
        (true, "run", "Run and logs"),
    ]
    .into_iter()
    .filter_map(|(shown, id, title)| shown.then_some((id, title)))
    .collect()
}

fn head(page: &mut Markup, record: &Record) {
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        BASE64.encode(&Sha256::digest(STYLE.as_bytes()))
    );
    page.empty("meta", &[("charset", &"utf-8")]);
    page.empty("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &policy)]);
    page.empty("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")]);
    page.empty("meta", &[("name", &"color-scheme"), ("content", &"light dark")]);
    page.words("title", &[], title(record));
    page.element("style", &[], |page| page.own(STYLE));
}

fn title(record: &Record) -> String {
    format!("Execution record: quarta-testnet {}, {}", record.command.as_str(), record.started)
}

fn header(page: &mut Markup, record: &Record) {
    page.element("h1", &[], |page| {
        page.text("Execution record of ");
        page.words("code", &[], format!("quarta-testnet {}", record.command.as_str()));
    });
    let parameters = &record.parameters;
    page.words(
        "p",
        &[("class", &"muted")],
        format!(
            "{} · {} super-peers and {} nodes on one machine, each its own process",
            record.started, parameters.superpeers, parameters.nodes
        ),
    );
    let held = record.checks.iter().filter(|check| check.passed).count();
    let (class, outcome) = match &record.outcome {
        Outcome::Passed => ("outcome good", format!("✓ Passed: all {held} checks held")),
        Outcome::Failed { why } => ("outcome bad", format!("✗ Failed: {why}")),
        Outcome::Interrupted => {
            ("outcome warn", "Interrupted before its end; what follows is incomplete".to_owned())
        }
        Outcome::Ended => ("outcome good", "Ended by the person who started it".to_owned()),
    };
    page.words("p", &[("class", &class)], outcome);
    tiles(page, record);
    page.element("nav", &[("aria-label", &"Contents")], |page| {
        page.element("ul", &[], |page| {
            for (id, title) in contents(record) {
                page.element("li", &[], |page| page.words("a", &[("href", &format!("#{id}"))], title));
            }
        });
    });
}

/// The run in a few figures.
fn tiles(page: &mut Markup, record: &Record) {
    let moved: u64 = record.transfers.iter().flat_map(|row| &row.sources).map(|source| source.bytes).sum();
    let completed = record.transfers.iter().filter(|row| row.state == "completed").count();
    let compared = record.transfers.iter().filter(|row| row.identical == Some(true)).count();
    let mut tiles = vec![("Duration", format!("{:.1} s", record.seconds))];
    if !record.transfers.is_empty() {
        tiles.push(("Fetches completed", format!("{completed} of {}", record.transfers.len())));
        tiles.push(("Moved between nodes", size(moved)));
        if compared > 0 {
            tiles.push(("Same bytes as the original", format!("{compared} of {}", record.transfers.len())));
        }
    }
    if let Some((_, rate)) = rates::peak(record) {
        tiles.push(("Highest rate of all nodes", format!("{}/s", size(super::markdown::whole(rate)))));
    }
    page.element("dl", &[("class", &"tiles")], |page| {
        for (what, value) in tiles {
            page.element("div", &[], |page| {
                page.words("dt", &[], what);
                page.words("dd", &[], value);
            });
        }
    });
}

#[cfg(test)]
mod tests;
