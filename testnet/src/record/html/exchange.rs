//! Who sent how much to whom, and whether the work was spread.

use super::chart::{self, bar};
use super::markup::Markup;
use super::scale::{Axis, Percent};
use super::tables::{bytes, number_head};
use crate::record::Record;
use quarta_daemon::cli::size;
use std::collections::{BTreeMap, BTreeSet};

/// Shades of a cell, from nothing to the most.
const SHADES: [&str; 6] = ["n h0", "n h1", "n h2", "n h3", "n h4", "n h5"];
const BAR_HEIGHT: u32 = 26;

/// Whether there is something to show.
pub(super) fn shown(record: &Record) -> bool {
    record.load.holders.iter().any(|holder| holder.served_bytes > 0)
}

/// Verified bytes by who sent and who received them.
fn exchanged(record: &Record) -> BTreeMap<(&str, &str), u64> {
    let mut exchanged = BTreeMap::new();
    for transfer in &record.transfers {
        for source in &transfer.sources {
            *exchanged.entry((source.name.as_str(), transfer.to.as_str())).or_default() += source.bytes;
        }
    }
    exchanged
}

pub(super) fn matrix(page: &mut Markup, record: &Record) {
    if !shown(record) {
        return;
    }
    let exchanged = exchanged(record);
    let senders: BTreeSet<&str> = record.load.holders.iter().map(|holder| holder.name.as_str()).collect();
    let receivers: BTreeSet<&str> = record.transfers.iter().map(|transfer| transfer.to.as_str()).collect();
    let most = exchanged.values().copied().max().unwrap_or_default();
    let largest = exchanged.iter().max_by_key(|(_, bytes)| **bytes);
    let answer = largest.map_or_else(String::new, |((from, to), bytes)| {
        format!(
            "Each row is a sender, each column a receiver; a stronger colour is more. The most between two of them is {}, from \
             {from} to {to}. Files went straight from node to node.",
            size(*bytes)
        )
    });
    chart::figure(page, "exchange", "Who sent how much to whom?", &answer, |page| {
        page.element("div", &[("class", &"scroll")], |page| {
            page.element("table", &[("class", &"heat")], |page| {
                page.element("thead", &[], |page| {
                    page.element("tr", &[], |page| {
                        page.words("th", &[("scope", &"col")], "from ↓ to →");
                        for receiver in &receivers {
                            number_head(page, receiver);
                        }
                        number_head(page, "sent");
                    });
                });
                page.element("tbody", &[], |page| {
                    for sender in &senders {
                        let sent = |receiver: &&str| {
                            exchanged.get(&(*sender, *receiver)).copied().unwrap_or_default()
                        };
                        page.element("tr", &[], |page| {
                            page.words("th", &[("scope", &"row")], sender);
                            for receiver in &receivers {
                                let class =
                                    if sender == receiver { "n self" } else { shade(sent(receiver), most) };
                                page.element("td", &[("class", &class)], |page| match sent(receiver) {
                                    0 => page.text("–"),
                                    amount => bytes(page, amount),
                                });
                            }
                            page.element("td", &[("class", &"n")], |page| {
                                bytes(page, receivers.iter().map(sent).sum());
                            });
                        });
                        page.line();
                    }
                });
            });
        });
    });
}

/// The darker, the more: nothing has no shade, and anything has one.
fn shade(amount: u64, most: u64) -> &'static str {
    let steps = SHADES.len() as u64 - 1;
    let step = if amount == 0 {
        0
    } else {
        (u128::from(amount) * u128::from(steps)).div_ceil(u128::from(most.max(1)))
    };
    SHADES[usize::try_from(step).unwrap_or_default().min(SHADES.len() - 1)]
}

pub(super) fn spread(page: &mut Markup, record: &Record) {
    if !shown(record) {
        return;
    }
    let load = &record.load;
    let all: u64 = load.holders.iter().map(|holder| holder.served_bytes).sum();
    let most = load.holders.iter().map(|holder| holder.served_bytes).max().unwrap_or_default();
    let fair = all as f64 / load.holders.len().max(1) as f64;
    let answer = format!(
        "Bytes that each node sent and others verified, {} in all. An even share would be {}; Jain's fairness index is \
         {:.3}, where 1 is even and {:.3} is one for all. A file's owner serves alone until others have its chunks.",
        size(all),
        size(crate::record::markdown::whole(fair)),
        load.fairness,
        1.0 / load.holders.len().max(1) as f64
    );
    chart::figure(page, "spread", "Was the work spread?", &answer, |page| {
        let axis = Axis::bytes((most as f64).max(fair), "");
        chart::legend(page, &[("served", "bytes served"), ("key-fair", "dashed: an even share")]);
        page.element("div", &[("class", &"rows valued")], |page| {
            chart::axis(page, &axis, "node");
            page.words("div", &[("class", &"value muted")], "bytes · share");
            for holder in &load.holders {
                let amount = size(holder.served_bytes);
                let said = format!(
                    "{}: {amount}, {:.1} % of all, in {} fetches; named as a source {} times",
                    holder.name,
                    holder.share * 100.0,
                    holder.fetches,
                    holder.offered
                );
                chart::row(page, &holder.name, &said, BAR_HEIGHT, &axis, |page| {
                    bar(
                        page,
                        "served",
                        Percent(0.0),
                        axis.at(holder.served_bytes as f64),
                        5,
                        BAR_HEIGHT - 10,
                        &said,
                    );
                    let x = axis.at(fair);
                    page.empty(
                        "line",
                        &[("class", &"fair"), ("x1", &x), ("x2", &x), ("y1", &0), ("y2", &BAR_HEIGHT)],
                    );
                });
                page.words(
                    "div",
                    &[("class", &"value")],
                    format!("{amount} · {:.1} %", holder.share * 100.0),
                );
            }
        });
        page.element("details", &[], |page| {
            page.words("summary", &[], "Exact figures");
            page.element("div", &[("class", &"scroll")], |page| {
                page.element("table", &[], |page| {
                    page.element("thead", &[], |page| {
                        page.element("tr", &[], |page| {
                            page.words("th", &[("scope", &"col")], "Node");
                            for head in ["Bytes served", "Share", "Fetches served", "Named as a source"] {
                                number_head(page, head);
                            }
                        });
                    });
                    page.element("tbody", &[], |page| {
                        for holder in &load.holders {
                            page.element("tr", &[], |page| {
                                page.words("th", &[("scope", &"row")], &holder.name);
                                page.words("td", &[("class", &"n")], holder.served_bytes);
                                page.words(
                                    "td",
                                    &[("class", &"n")],
                                    format!("{:.2} %", holder.share * 100.0),
                                );
                                page.words("td", &[("class", &"n")], holder.fetches);
                                page.words("td", &[("class", &"n")], holder.offered);
                            });
                        }
                    });
                });
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_shade_and_anything_has_one() {
        assert_eq!(
            [shade(0, 10), shade(1, u64::MAX), shade(6, 10), shade(10, 10)],
            ["n h0", "n h1", "n h3", "n h5"]
        );
        assert_eq!(shade(0, 0), "n h0");
    }
}
