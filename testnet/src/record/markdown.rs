//! A record as a page for people: Markdown, as one reads it in a repository.

use super::{MemberList, Outcome, Record, SourceRow, TransferRow};
use quarta_daemon::cli::size;
use quarta_daemon::escape::Escaped;
use std::fmt::{self, Write};

/// The page's name in its folder: what a repository shows when one opens the folder.
pub const PAGE_FILE: &str = "README.md";

/// Shown of a checksum in tables whose reader compares rows; the full one stands in the table of files.
const SHORT_CHECKSUM_CHARS: usize = 16;

/// The page of a record.
pub fn render(record: &Record) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, record);
    page
}

fn write(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "# Execution record of `quarta-testnet {}`\n", record.command.as_str())?;
    let outcome = match &record.outcome {
        Outcome::Passed => format!("**Passed**: all {} checks held.", record.checks.len()),
        Outcome::Failed { why } => format!("**Failed**: {}", text(why)),
        Outcome::Interrupted => "**Interrupted** before its end; what follows is incomplete.".to_owned(),
        Outcome::Ended => "**Ended** by the person who started it.".to_owned(),
    };
    writeln!(page, "{outcome}\n")?;
    writeln!(page, "[With charts](index.html): the same figures, to be opened in a browser.\n")?;
    parameters(page, record)?;
    checks(page, record)?;
    timeline(page, record)?;
    lives(page, record)?;
    member_lists(page, &record.member_lists)?;
    files(page, record)?;
    transfers(page, &record.transfers)?;
    load(page, record)?;
    polls(page, record)?;
    metrics(page, record)?;
    writeln!(page, "## Files beside this page\n")?;
    for (file, what) in BESIDE {
        writeln!(page, "- `{file}`: {what}")?;
    }
    Ok(())
}

/// What lies in a record's folder beside its pages, and what it is.
pub(super) const BESIDE: [(&str, &str); 4] = [
    ("record.json", "this record for programs, with the samples behind the charts"),
    ("metrics-before/", "what every member told Prometheus when all were ready"),
    ("metrics-after/", "what every member told Prometheus at the end"),
    ("logs/", "every member's log; DEMO stands for the run's folder, SHARED for the shared one"),
];

fn parameters(page: &mut String, record: &Record) -> fmt::Result {
    let (parameters, machine) = (&record.parameters, &record.machine);
    let memory = machine.memory_bytes.map_or_else(|| "unknown".to_owned(), size);
    let bulk = parameters.big_size_bytes.map_or_else(|| "none".to_owned(), size);
    let rows = [
        ("Started", record.started.clone()),
        ("Duration", format!("{:.1} s", record.seconds)),
        ("Quarta", format!("{} ({} build)", record.version, machine.build)),
        ("Machine", format!("{} cores, {memory} of memory, {}", machine.cores, machine.architecture)),
        ("Kernel", machine.kernel.clone()),
        ("Super-peers", parameters.superpeers.to_string()),
        ("Nodes", parameters.nodes.to_string()),
        ("Poll interval", format!("{:.1} s", parameters.poll_interval_ms as f64 / 1e3)),
        ("Shared", format!("{}; bulk file: {bulk}", parameters.shared)),
        ("Disk required", size(parameters.disk_bytes)),
    ];
    writeln!(page, "## Run\n")?;
    table(page, &["", ""], rows.map(|(label, value)| vec![label.to_owned(), value]))
}

fn checks(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## Checks\n")?;
    let rows = record.checks.iter().map(|check| {
        let result = if check.passed { "held" } else { "**FAILED**" };
        vec![check.what.clone(), result.to_owned(), check.found.clone(), format!("{:.1}", check.at_seconds)]
    });
    table(page, &["What", "Result", "Found", "Seconds"], rows)
}

fn timeline(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## Timeline\n")?;
    let rows =
        record.timeline.iter().map(|moment| vec![format!("{:.3}", moment.at_seconds), moment.what.clone()]);
    table(page, &["Seconds", "What"], rows)
}

fn lives(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## Processes, and how members were seen\n")?;
    let rows = record.lives.iter().map(|life| {
        let to = life.to_seconds.map_or_else(String::new, |at| format!("{at:.3}"));
        vec![
            life.member.clone(),
            format!("{:.3}", life.from_seconds),
            to,
            life.end.clone().unwrap_or_default(),
        ]
    });
    table(page, &["Member", "From second", "To second", "Ended"], rows)?;
    let rows = record.sightings.iter().map(|seen| {
        vec![format!("{:.3}", seen.at_seconds), seen.member.clone(), seen.state.clone(), seen.seen_by.clone()]
    });
    table(page, &["Seconds", "Member", "Is now", "Says"], rows)
}

fn polls(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## Polls\n")?;
    let rows = record.polls.iter().map(|polls| {
        let mean = polls.mean_seconds.map_or_else(String::new, |mean| format!("{:.2} ms", mean * 1e3));
        vec![polls.superpeer.clone(), polls.answered.to_string(), polls.missed.to_string(), mean]
    });
    table(page, &["Super-peer", "Answered", "Missed", "Mean round trip"], rows)
}

fn metrics(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## Metrics that changed\n")?;
    let value = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let rows = record.metrics.iter().map(|change| {
        vec![change.member.clone(), format!("`{}`", change.family), value(change.before), value(change.after)]
    });
    table(page, &["Member", "Family", "Before", "After"], rows)
}

fn member_lists(page: &mut String, lists: &[MemberList]) -> fmt::Result {
    writeln!(page, "## Members\n")?;
    for list in lists {
        writeln!(
            page,
            "### {} ({:.1} s, as {} sees it)\n",
            text(&list.when),
            list.at_seconds,
            text(&list.seen_by)
        )?;
        let rows = list.members.iter().map(|member| {
            vec![
                member.name.clone(),
                member.role.clone(),
                member.state.clone(),
                member.files.to_string(),
                size(member.stored_bytes),
            ]
        });
        table(page, &["Name", "Role", "State", "Files", "Stored"], rows)?;
    }
    Ok(())
}

fn files(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## Files shared\n")?;
    let rows = record.files.iter().map(|file| {
        vec![file.name.clone(), file.owner.clone(), size(file.size_bytes), format!("`{}`", file.sha256)]
    });
    table(page, &["Name", "Owner", "Size", "SHA-256 of the original"], rows)
}

fn transfers(page: &mut String, transfers: &[TransferRow]) -> fmt::Result {
    writeln!(page, "## Who fetched what from whom\n")?;
    table(page, &TRANSFER_HEADER, transfers.iter().map(transfer_cells))
}

/// The columns of [`transfer_cells`].
pub const TRANSFER_HEADER: [&str; 7] = ["File", "To", "Size", "From", "Rate", "SHA-256", "Same bytes"];

/// A fetch as a row for people.
pub fn transfer_cells(transfer: &TransferRow) -> Vec<String> {
    vec![
        transfer.file.clone(),
        transfer.to.clone(),
        size(transfer.size_bytes),
        sources(&transfer.sources),
        format!("{}/s", size(whole(transfer.bytes_per_second))),
        format!("{}…", transfer.sha256.chars().take(SHORT_CHECKSUM_CHARS).collect::<String>()),
        same_bytes(transfer).to_owned(),
    ]
}

/// Whether what arrived is the original; how the fetch stands where nobody compared them.
pub(super) fn same_bytes(transfer: &TransferRow) -> &str {
    match transfer.identical {
        Some(true) => "yes",
        Some(false) => "NO",
        None => &transfer.state,
    }
}

pub(super) fn sources(sources: &[SourceRow]) -> String {
    let parts: Vec<String> = sources
        .iter()
        .filter(|source| source.bytes > 0 || source.fault.is_some())
        .map(|source| {
            let transport =
                source.transport.as_deref().map(|transport| format!(" {transport}")).unwrap_or_default();
            let fault = source.fault.as_deref().map(|fault| format!(" ({fault})")).unwrap_or_default();
            format!("{} {}{transport}{fault}", source.name, size(source.bytes))
        })
        .collect();
    parts.join(", ")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative; `as` saturates"
)]
pub(super) fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

fn load(page: &mut String, record: &Record) -> fmt::Result {
    writeln!(page, "## How the work was spread\n")?;
    let rows = record.load.holders.iter().map(|holder| {
        vec![
            holder.name.clone(),
            holder.offered.to_string(),
            holder.fetches.to_string(),
            size(holder.served_bytes),
            format!("{:.1} %", holder.share * 100.0),
        ]
    });
    table(page, &["Holder", "Offered as source", "Fetches served", "Bytes served", "Share"], rows)?;
    writeln!(page, "Jain's fairness index of the bytes served: {:.3} (1 is even).\n", record.load.fairness)
}

fn table<const N: usize>(
    page: &mut String,
    header: &[&str; N],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> fmt::Result {
    writeln!(page, "| {} |\n|{}", header.join(" | "), "---|".repeat(N))?;
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| text(cell)).collect();
        writeln!(page, "| {} |", cells.join(" | "))?;
    }
    writeln!(page)
}

/// Text of others in a table's cell: on one line, and neither a column nor markup.
fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in Escaped(text).to_string().chars() {
        match character {
            '|' => safe.push_str("\\|"),
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '[' => safe.push_str("\\["),
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::journal::tests::parameters;
    use crate::record::{Command, Journal, SharedFile};

    #[test]
    fn a_hostile_name_stays_in_its_cell() {
        let mut journal = Journal::begin(Command::Demo, parameters(), std::io::sink());
        journal.shared(SharedFile {
            name: "a|b\n# <script>[x](y)\u{202e}".to_owned(),
            owner: "filial-recife".to_owned(),
            size_bytes: 3,
            sha256: "00".to_owned(),
        });
        let page = render(journal.record());
        let row = page.lines().find(|line| line.contains("filial-recife")).unwrap();
        assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
        assert!(!page.contains("<script") && !page.contains("\n# <") && !page.contains('\u{202e}'), "{page}");
    }

    #[test]
    fn a_failed_run_says_so_first() {
        let mut journal = Journal::begin(Command::Demo, parameters(), std::io::sink());
        let failed = journal.check("the copies are equal", Err::<&str, _>("one differs")).unwrap_err();
        let page = render(&journal.finish(Outcome::Failed { why: failed.to_string() }));
        assert!(
            page.lines().nth(2).unwrap().starts_with("**Failed**: the copies are equal: one differs"),
            "{page}"
        );
        assert!(page.contains("| the copies are equal | **FAILED** | one differs | 0."), "{page}");
    }

    #[test]
    fn a_source_that_died_is_told_with_what_came_from_it() {
        let source = |name: &str, bytes, fault: Option<&str>| SourceRow {
            name: name.to_owned(),
            transport: Some("tcp".to_owned()),
            bytes,
            fault: fault.map(str::to_owned),
        };
        let text =
            sources(&[source("a", 1024, None), source("b", 2048, Some("broke_off")), source("c", 0, None)]);
        assert_eq!(text, "a 1.0 KiB tcp, b 2.0 KiB tcp (broke_off)");
    }
}
