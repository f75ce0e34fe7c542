//! How long nodes took to answer super-peers' polls of their lists.

use super::chart::{self, bar};
use super::markup::Markup;
use super::scale::{Axis, Percent};
use super::tables::number_head;
use crate::record::{Bucket, Record};

const BAR_HEIGHT: u32 = 22;

/// Whether there is something to show.
pub(super) fn shown(record: &Record) -> bool {
    record.polls.iter().any(|polls| polls.answered > 0)
}

/// All super-peers' polls by how long they took, from the first bucket with one to the last.
fn buckets(record: &Record) -> Vec<Bucket> {
    let mut all: Vec<Bucket> = Vec::new();
    for bucket in record.polls.iter().flat_map(|polls| &polls.buckets) {
        match all.iter_mut().find(|other| other.up_to_seconds == bucket.up_to_seconds) {
            Some(other) => other.count += bucket.count,
            None => all.push(*bucket),
        }
    }
    all.sort_by(|one, other| bound(one).total_cmp(&bound(other)));
    let used = |bucket: &Bucket| bucket.count > 0;
    let from = all.iter().position(used).unwrap_or_default();
    let to = all.iter().rposition(used).map_or(from, |last| last + 1);
    all.drain(..from);
    all.truncate(to - from);
    all
}

fn bound(bucket: &Bucket) -> f64 {
    bucket.up_to_seconds.unwrap_or(f64::INFINITY)
}

fn milliseconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{} ms", (seconds * 1e6).round() / 1e3) } else { format!("{seconds} s") }
}

pub(super) fn section(page: &mut Markup, record: &Record) {
    if !shown(record) {
        return;
    }
    let (answered, missed) = record
        .polls
        .iter()
        .fold((0, 0), |(answered, missed), polls| (answered + polls.answered, missed + polls.missed));
    let interval = record.parameters.poll_interval_ms as f64 / 1e3;
    let answer = format!(
        "Super-peers asked every node for its list every {interval} s: {answered} polls were answered and {missed} \
         missed. A node that misses two is off the lists. Until a snapshot at the end; a process that was started again \
         counts from there.",
    );
    chart::figure(page, "polls", "How soon do nodes answer polls?", &answer, |page| {
        let buckets = buckets(record);
        let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or_default();
        let axis = Axis::plain(most as f64, "");
        page.element("div", &[("class", &"rows valued")], |page| {
            chart::axis(page, &axis, "round trip");
            page.words("div", &[("class", &"value muted")], "polls");
            let mut above: Option<f64> = None;
            for bucket in &buckets {
                let label = match bucket.up_to_seconds {
                    Some(bound) => format!("≤ {}", milliseconds(bound)),
                    None => {
                        above.map_or_else(|| "any".to_owned(), |above| format!("> {}", milliseconds(above)))
                    }
                };
                above = bucket.up_to_seconds;
                let said = format!("{label}: {} polls", bucket.count);
                chart::row(page, &label, &said, BAR_HEIGHT, &axis, |page| {
                    bar(page, "bar", Percent(0.0), axis.at(bucket.count as f64), 4, BAR_HEIGHT - 8, &said);
                });
                page.words("div", &[("class", &"value")], bucket.count);
            }
        });
        page.element("div", &[("class", &"scroll")], |page| {
            page.element("table", &[], |page| {
                page.element("thead", &[], |page| {
                    page.element("tr", &[], |page| {
                        page.words("th", &[("scope", &"col")], "Super-peer");
                        for head in ["Answered", "Missed", "Mean round trip"] {
                            number_head(page, head);
                        }
                    });
                });
                page.element("tbody", &[], |page| {
                    for polls in &record.polls {
                        let mean = polls
                            .mean_seconds
                            .map_or_else(|| "–".to_owned(), |mean| format!("{:.2} ms", mean * 1e3));
                        page.element("tr", &[], |page| {
                            page.words("th", &[("scope", &"row")], &polls.superpeer);
                            page.words("td", &[("class", &"n")], polls.answered);
                            page.words("td", &[("class", &"n")], polls.missed);
                            page.words("td", &[("class", &"n")], mean);
                        });
                    }
                });
            });
        });
    });
}
