//! How fast data moved: what all nodes sent in a second, over the run.

use super::chart::{self, curve, drawing, levels};
use super::markup::Markup;
use super::scale::Axis;
use super::timeline::by_signal;
use crate::record::samples::{rates, total};
use crate::record::{Record, markdown::whole};
use quarta_daemon::cli::size;

const HEIGHT: u32 = 200;
/// Room above the curve for names of members that were lost.
const NAMES_HEIGHT: u32 = 18;
/// Names beyond these would lie over each other; hovering shows them.
const NAMES_MAX: usize = 2;

/// Whether there is something to show.
pub(super) fn shown(record: &Record) -> bool {
    peak(record).is_some()
}

/// Sealed bytes that all nodes sent in a second, at each sample.
fn sent(record: &Record) -> Vec<(f64, Option<f64>)> {
    let samples = &record.samples;
    let columns: Vec<_> = samples
        .members
        .iter()
        .map(|member| {
            let bytes: Vec<_> =
                member.sent_bytes.iter().map(|bytes| bytes.map(|bytes| bytes as f64)).collect();
            rates(&samples.at_seconds, &bytes)
        })
        .collect();
    samples.at_seconds.iter().copied().zip(total(&columns)).collect()
}

/// The highest rate and when it was reached; none where nothing moved.
pub(super) fn peak(record: &Record) -> Option<(f64, f64)> {
    let rates = sent(record).into_iter().filter_map(|(at, rate)| Some((at, rate?)));
    rates.filter(|(_, rate)| *rate > 0.0).max_by(|one, other| one.1.total_cmp(&other.1))
}

pub(super) fn section(page: &mut Markup, record: &Record) {
    let Some((at, rate)) = peak(record) else { return };
    let answer = format!(
        "Sealed bytes that all nodes together sent in a second. The highest was {}/s, at {at:.1} s. Measured on \
         one machine, whose processors seal, encrypt and verify for both ends.",
        size(whole(rate))
    );
    chart::figure(page, "rate", "How fast did data move?", &answer, |page| {
        let (across, up) = (Axis::seconds(record.seconds), Axis::bytes(rate, "/s"));
        let said =
            format!("Rate of all nodes over time; the highest is {}/s at {at:.1} s", size(whole(rate)));
        drawing(page, &said, HEIGHT + NAMES_HEIGHT, |page| {
            page.element(
                "svg",
                &[("y", &NAMES_HEIGHT), ("width", &"100%"), ("height", &HEIGHT), ("overflow", &"visible")],
                |page| {
                    curve(page, &across, &up, HEIGHT, &sent(record));
                    levels(page, &up, HEIGHT);
                },
            );
            losses(page, record, &across);
        });
        chart::labels(page, &across);
    });
}

/// When members were killed and started again. Names stand to the left of a loss and to the right of a return.
fn losses(page: &mut Markup, record: &Record, across: &Axis) {
    for (index, life) in record.lives.iter().filter(|life| by_signal(life)).enumerate() {
        let Some(ended) = life.to_seconds else { continue };
        let again = record.lives.iter().find(|next| next.member == life.member && next.from_seconds >= ended);
        let lost = Some((ended, "lost-line", "lost-name", format!("✕ {}", life.member)));
        let back = again.map(|next| (next.from_seconds, "back-line", "back-name", "back".to_owned()));
        for (at, line, class, name) in [lost, back].into_iter().flatten() {
            let x = across.at(at);
            let (top, bottom) = (NAMES_HEIGHT, HEIGHT + NAMES_HEIGHT);
            page.element(
                "line",
                &[("class", &line), ("x1", &x), ("x2", &x), ("y1", &top), ("y2", &bottom)],
                |page| page.words("title", &[], format!("{at:.1} s: {name}")),
            );
            if index < NAMES_MAX {
                let left = x.0 > 0.9 || (x.0 > 0.2 && class == "lost-name");
                let anchor = if left { "end" } else { "start" };
                page.words(
                    "text",
                    &[("class", &class), ("x", &x), ("y", &12), ("text-anchor", &anchor)],
                    &name,
                );
            }
        }
    }
}
