//! What is read rather than looked at: checks, fetches, members, files, metrics, logs, the machine.

use super::LogEnd;
use super::markup::Markup;
use crate::record::folder::LOGS;
use crate::record::markdown::{BESIDE, same_bytes, sources, whole};
use crate::record::{MetricChange, Record, SharedFile, TransferRow};
use quarta_daemon::cli::size;
use std::collections::BTreeMap;

/// More fetches than these are folded away.
const TRANSFERS_SHOWN: usize = 12;

/// A cell of text, or of a number when its class says so.
fn cell(page: &mut Markup, class: &str, text: impl std::fmt::Display) {
    page.words("td", &[("class", &class)], text);
}

/// A column's head over numbers.
pub(super) fn number_head(page: &mut Markup, text: &str) {
    page.words("th", &[("scope", &"col"), ("class", &"n")], text);
}

/// An amount for people, with the exact one for programs and when pointed at.
pub(super) fn bytes(page: &mut Markup, amount: u64) {
    page.words("data", &[("value", &amount), ("title", &format!("{amount} bytes"))], size(amount));
}

fn bytes_cell(page: &mut Markup, amount: u64) {
    page.element("td", &[("class", &"n")], |page| bytes(page, amount));
}

fn section(page: &mut Markup, id: &'static str, title: &str, inside: impl FnOnce(&mut Markup)) {
    page.line();
    page.element("section", &[("id", &id)], |page| {
        page.words("h2", &[], title);
        inside(page);
    });
}

/// A table with a row for each item; heads that begin with `#` stand over numbers.
fn table<T>(
    page: &mut Markup,
    heads: &[&str],
    items: impl IntoIterator<Item = T>,
    cells: impl Fn(&mut Markup, T),
) {
    page.element("div", &[("class", &"scroll")], |page| {
        page.element("table", &[], |page| {
            page.element("thead", &[], |page| {
                page.element("tr", &[], |page| {
                    for head in heads {
                        match head.strip_prefix('#') {
                            Some(head) => number_head(page, head),
                            None => page.words("th", &[("scope", &"col")], head),
                        }
                    }
                });
            });
            page.element("tbody", &[], |page| {
                for item in items {
                    page.element("tr", &[], |page| cells(page, item));
                    page.line();
                }
            });
        });
    });
}

pub(super) fn checks(page: &mut Markup, record: &Record) {
    if record.checks.is_empty() {
        return;
    }
    section(page, "checks", "What was checked?", |page| {
        table(page, &["What must hold", "Result", "What was found", "#At"], &record.checks, |page, check| {
            cell(page, "long", &check.what);
            let (class, result) = if check.passed { ("yes", "✓ held") } else { ("no", "✗ FAILED") };
            cell(page, class, result);
            cell(page, "long", &check.found);
            cell(page, "n", format!("{:.1} s", check.at_seconds));
        });
    });
}

pub(super) fn transfers(page: &mut Markup, record: &Record) {
    if record.transfers.is_empty() {
        return;
    }
    section(page, "transfers", "Every fetch", |page| {
        let heads = [
            "File",
            "To",
            "#Size",
            "From, over",
            "#Began",
            "#Took",
            "#Rate",
            "SHA-256 of what arrived",
            "Same bytes",
        ];
        let mut rows: Vec<&TransferRow> = record.transfers.iter().collect();
        // What took long is what one looks for.
        rows.sort_by(|one, other| {
            other.size_bytes.cmp(&one.size_bytes).then(one.at_seconds.total_cmp(&other.at_seconds))
        });
        let (shown, folded) = rows.split_at(rows.len().min(TRANSFERS_SHOWN));
        table(page, &heads, shown, |page, row| transfer(page, row));
        if !folded.is_empty() {
            page.element("details", &[], |page| {
                page.words("summary", &[], format!("{} more fetches of smaller files", folded.len()));
                table(page, &heads, folded, |page, row| transfer(page, row));
            });
        }
    });
}

fn transfer(page: &mut Markup, row: &TransferRow) {
    cell(page, "long", &row.file);
    cell(page, "", &row.to);
    bytes_cell(page, row.size_bytes);
    cell(page, "long", sources(&row.sources));
    cell(page, "n", format!("{:.1} s", row.at_seconds));
    cell(page, "n", format!("{:.3} s", row.seconds));
    cell(page, "n", format!("{}/s", size(whole(row.bytes_per_second))));
    cell(page, "hash mono", &row.sha256);
    let class = match row.identical {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    cell(page, class, same_bytes(row));
}

pub(super) fn members(page: &mut Markup, record: &Record) {
    if record.member_lists.is_empty() {
        return;
    }
    section(page, "members", "Who was there?", |page| {
        for list in &record.member_lists {
            let title = format!("{} ({:.1} s, as {} sees it)", list.when, list.at_seconds, list.seen_by);
            page.words("h3", &[], title);
            table(page, &["Name", "Role", "State", "#Files", "#Stored"], &list.members, |page, member| {
                page.words("th", &[("scope", &"row")], &member.name);
                cell(page, "", &member.role);
                cell(page, if member.state == "online" { "" } else { "no" }, &member.state);
                cell(page, "n", member.files);
                bytes_cell(page, member.stored_bytes);
            });
        }
        page.words("h3", &[], "Processes");
        table(page, &["Member", "#From", "#To", "Ended"], &record.lives, |page, life| {
            page.words("th", &[("scope", &"row")], &life.member);
            cell(page, "n", format!("{:.3} s", life.from_seconds));
            cell(page, "n", life.to_seconds.map_or_else(|| "–".to_owned(), |at| format!("{at:.3} s")));
            cell(page, "", life.end.as_deref().unwrap_or("still ran"));
        });
    });
}

pub(super) fn files(page: &mut Markup, record: &Record) {
    if record.files.is_empty() {
        return;
    }
    section(page, "files", "Files shared", |page| {
        let file = |page: &mut Markup, file: &SharedFile| {
            cell(page, "long", &file.name);
            cell(page, "", &file.owner);
            bytes_cell(page, file.size_bytes);
            cell(page, "hash mono", &file.sha256);
        };
        table(page, &["Name", "Owner", "#Size", "SHA-256 of the original"], &record.files, file);
    });
}

pub(super) fn metrics(page: &mut Markup, record: &Record) {
    if record.metrics.is_empty() {
        return;
    }
    section(page, "metrics", "What changed in the metrics?", |page| {
        page.words(
            "p",
            &[("class", &"muted")],
            "By how much each family changed from the first snapshot to the last, summed over its labels; pointing at a \
             figure shows both. A process that was started again counts from there, so that a counter may have fallen.",
        );
        for (service, prefix) in [("Super-peers", "quarta_superpeer_"), ("Nodes", "quarta_node_")] {
            let changes: Vec<_> =
                record.metrics.iter().filter(|change| change.family.starts_with(prefix)).collect();
            let mut members: Vec<&str> = changes.iter().map(|change| change.member.as_str()).collect();
            members.sort_unstable();
            members.dedup();
            let mut families: BTreeMap<&str, BTreeMap<&str, &MetricChange>> = BTreeMap::new();
            for change in changes {
                families.entry(&change.family).or_default().insert(&change.member, change);
            }
            let heads: Vec<String> = members.iter().map(|member| format!("#{member}")).collect();
            let heads: Vec<&str> = ["Family"].into_iter().chain(heads.iter().map(String::as_str)).collect();
            page.element("details", &[], |page| {
                page.words("summary", &[], format!("{service}: {} families", families.len()));
                table(page, &heads, &families, |page, (family, changes)| {
                    page.words("th", &[("scope", &"row"), ("class", &"mono")], family);
                    for member in &members {
                        page.element("td", &[("class", &"n")], |page| match changes.get(member) {
                            Some(change) => changed(page, change),
                            None => page.text("–"),
                        });
                    }
                });
            });
        }
    });
}

fn changed(page: &mut Markup, change: &MetricChange) {
    let told = |value: Option<f64>| value.map_or_else(|| "not there".to_owned(), |value| value.to_string());
    let gained = change.after.unwrap_or_default() - change.before.unwrap_or_default();
    let title = format!("{} → {}", told(change.before), told(change.after));
    let text = if gained.fract() == 0.0 { format!("{gained:+}") } else { format!("{gained:+.3}") };
    page.words("data", &[("value", &gained), ("title", &title)], text);
}

pub(super) fn logs(page: &mut Markup, logs: &[LogEnd]) {
    if logs.is_empty() {
        return;
    }
    section(page, "logs", "Logs", |page| {
        page.words(
            "p",
            &[("class", &"muted")],
            "The last lines of each; the link leads to the log beside this page.",
        );
        for log in logs {
            page.element("details", &[], |page| {
                page.element("summary", &[], |page| {
                    page.text(format!("{} ", log.member));
                    let link = format!("{LOGS}/{}.log", segment(&log.member));
                    page.words("a", &[("href", &link)], "whole log");
                });
                page.element("pre", &[], |page| {
                    for line in &log.lines {
                        page.text(line);
                        page.line();
                    }
                });
            });
        }
    });
}

/// A name as a segment of a relative address.
fn segment(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

pub(super) fn run(page: &mut Markup, record: &Record) {
    section(page, "run", "The run", |page| {
        let (parameters, machine) = (&record.parameters, &record.machine);
        let memory = machine.memory_bytes.map_or_else(|| "unknown".to_owned(), size);
        let rows = [
            ("Started", record.started.clone()),
            ("Duration", format!("{:.3} s", record.seconds)),
            ("Quarta", format!("{} ({} build)", record.version, machine.build)),
            (
                "Machine",
                format!("{} processors, {memory} of memory, {}", machine.cores, machine.architecture),
            ),
            ("Kernel", machine.kernel.clone()),
            ("Super-peers", parameters.superpeers.to_string()),
            ("Nodes", parameters.nodes.to_string()),
            ("Poll interval", format!("{} s", parameters.poll_interval_ms as f64 / 1e3)),
            ("Shared", parameters.shared.clone()),
            ("Bulk file", parameters.big_size_bytes.map_or_else(|| "none".to_owned(), size)),
            ("Disk required", size(parameters.disk_bytes)),
        ];
        table(page, &["What", "Value"], rows, |page, (what, value)| {
            page.words("th", &[("scope", &"row")], what);
            cell(page, "", value);
        });
        page.words("h3", &[], "Beside this page");
        page.element("ul", &[], |page| {
            page.element("li", &[], |page| {
                page.words("a", &[("href", &"README.md")], "README.md");
                page.text(": this record as text");
            });
            for (file, what) in BESIDE {
                page.element("li", &[], |page| {
                    page.words("a", &[("href", &file)], file);
                    page.text(format!(": {what}"));
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_link_to_a_log_cannot_leave_its_folder() {
        assert_eq!(segment("filial-recife_2"), "filial-recife_2");
        assert_eq!(segment("../a b.é"), "%2E%2E%2Fa%20b%2E%C3%A9");
    }
}
