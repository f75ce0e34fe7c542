//! What it cost: memory and processor time of every member, on one scale so that rows compare.

use super::chart::{self, curve, drawing};
use super::markup::Markup;
use super::scale::Axis;
use crate::record::samples::{Column, rates};
use crate::record::{Record, markdown::whole};
use quarta_daemon::cli::size;

const HEIGHT: u32 = 46;

/// A member's figures: resident bytes, and processors busy, at each sample.
struct Usage<'a> {
    name: &'a str,
    memory: Vec<Option<f64>>,
    processor: Vec<Option<f64>>,
}

/// Whether there is something to show.
pub(super) fn shown(record: &Record) -> bool {
    record.samples.members.iter().any(|member| member.rss_bytes.iter().any(Option::is_some))
}

fn usage<'a>(record: &Record, member: &'a Column) -> Usage<'a> {
    Usage {
        name: &member.name,
        memory: member.rss_bytes.iter().map(|bytes| bytes.map(|bytes| bytes as f64)).collect(),
        processor: rates(&record.samples.at_seconds, &member.cpu_seconds),
    }
}

fn highest(values: &[Option<f64>]) -> f64 {
    values.iter().flatten().copied().fold(0.0, f64::max)
}

pub(super) fn section(page: &mut Markup, record: &Record) {
    if !shown(record) {
        return;
    }
    let members: Vec<Usage<'_>> = record.samples.members.iter().map(|member| usage(record, member)).collect();
    let most = |of: fn(&Usage<'_>) -> f64| {
        members.iter().map(|usage| (of(usage), usage.name)).max_by(|one, other| one.0.total_cmp(&other.0))
    };
    let (memory, memory_of) = most(|usage| highest(&usage.memory)).unwrap_or_default();
    let (processor, processor_of) = most(|usage| highest(&usage.processor)).unwrap_or_default();
    let answer = format!(
        "Resident memory and processors in use of every member's process, all rows on the same scale; a gap is a time \
         when it did not run. The most memory was {} ({memory_of}), the busiest {processor:.2} of {} processors \
         ({processor_of}).",
        size(whole(memory)),
        record.machine.cores
    );
    let across = Axis::seconds(record.seconds);
    let (up_memory, up_processor) = (Axis::bytes(memory, ""), Axis::plain(processor, "processors"));
    let top = |axis: &Axis| axis.ticks.last().map(|tick| tick.label.clone()).unwrap_or_default();
    chart::figure(page, "usage", "What did it cost?", &answer, |page| {
        page.element("div", &[("class", &"rows pairs")], |page| {
            page.words("div", &[], "");
            page.words("div", &[("class", &"label muted")], format!("memory, 0 to {}", top(&up_memory)));
            page.words("div", &[("class", &"label muted")], format!("0 to {}", top(&up_processor)));
            for member in &members {
                page.words("div", &[("class", &"label"), ("title", &member.name)], member.name);
                let peak = size(whole(highest(&member.memory)));
                small(
                    page,
                    record,
                    &across,
                    &up_memory,
                    &member.memory,
                    &format!("{}: memory up to {peak}", member.name),
                    &peak,
                );
                let peak = format!("{:.2}", highest(&member.processor));
                let said = format!("{}: up to {peak} processors", member.name);
                small(page, record, &across, &up_processor, &member.processor, &said, &peak);
            }
            page.words("div", &[], "");
            for _ in 0..2 {
                ends(page, &across);
            }
        });
    });
}

/// A small curve with its highest value.
fn small(
    page: &mut Markup,
    record: &Record,
    across: &Axis,
    up: &Axis,
    values: &[Option<f64>],
    said: &str,
    peak: &str,
) {
    let points: Vec<_> = record.samples.at_seconds.iter().copied().zip(values.iter().copied()).collect();
    drawing(page, said, HEIGHT, |page| {
        for y in [0, HEIGHT] {
            page.empty("line", &[("class", &"grid"), ("x1", &"0"), ("x2", &"100%"), ("y1", &y), ("y2", &y)]);
        }
        curve(page, across, up, HEIGHT, &points);
        page.words(
            "text",
            &[("class", &"peak"), ("x", &"100%"), ("y", &12), ("text-anchor", &"end")],
            format!("max {peak}"),
        );
    });
}

/// The first and last label of an axis, where there is no room for more.
fn ends(page: &mut Markup, axis: &Axis) {
    page.element(
        "svg",
        &[("class", &"axis"), ("width", &"100%"), ("height", &18), ("aria-hidden", &"true")],
        |page| {
            for (tick, anchor) in [(axis.ticks.first(), "start"), (axis.ticks.last(), "end")] {
                if let Some(tick) = tick {
                    page.words("text", &[("x", &tick.at), ("y", &13), ("text-anchor", &anchor)], &tick.label);
                }
            }
        },
    );
}
