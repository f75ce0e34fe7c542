//! What happened when: whose process ran, who was seen to be away, what was fetched and checked.

use super::chart::{self, bar, row};
use super::markup::Markup;
use super::scale::{Axis, Percent};
use crate::record::{Life, Record, TransferRow};
use quarta_daemon::cli::size;
use std::collections::BTreeMap;

/// Lanes for fetches that go on at once in a member's row; further ones share the last.
const LANES: usize = 3;
const LANE_HEIGHT: u32 = 6;
const LIFE_HEIGHT: u32 = 9;
const EVENTS_HEIGHT: u32 = 22;
/// Narrowest bar, as a share of the time: what took an instant can still be seen.
const BAR_MIN: f64 = 0.002;
/// Most moments listed beneath the chart before the rest is folded away.
const MOMENTS_SHOWN: usize = 25;

pub(super) fn section(page: &mut Markup, record: &Record) {
    chart::figure(page, "timeline", "What happened when?", &answer(record), |page| {
        let axis = Axis::seconds(record.seconds);
        chart::legend(
            page,
            &[
                ("life", "process runs"),
                ("away", "seen as suspect or offline by a super-peer"),
                ("fetch", "fetches a file"),
                ("broken", "ended by a signal, or a check that failed"),
                ("held", "a check that held"),
            ],
        );
        page.element("div", &[("class", &"rows")], |page| {
            chart::axis(page, &axis, "since the start");
            events(page, record, &axis);
            for (member, lives) in members(record) {
                member_row(page, record, &axis, member, &lives);
            }
        });
        moments(page, record);
    });
}

fn answer(record: &Record) -> String {
    let killed: Vec<String> = record
        .lives
        .iter()
        .filter(|life| by_signal(life))
        .filter_map(|life| Some(format!("{} at {:.1} s", life.member, life.to_seconds?)))
        .collect();
    let fetches = record.transfers.len();
    let losses = if killed.is_empty() {
        "no process was killed".to_owned()
    } else {
        format!("killed: {}", killed.join(", "))
    };
    format!(
        "{:.1} s from the start to the end, {} members, {fetches} fetches; {losses}.",
        record.seconds,
        members(record).len()
    )
}

/// The members whose processes ran, in the order in which they were first started, each with its lives.
fn members(record: &Record) -> Vec<(&str, Vec<&Life>)> {
    let mut members: Vec<(&str, Vec<&Life>)> = Vec::new();
    for life in &record.lives {
        match members.iter_mut().find(|(member, _)| *member == life.member) {
            Some((_, lives)) => lives.push(life),
            None => members.push((&life.member, vec![life])),
        }
    }
    members
}

pub(super) fn by_signal(life: &Life) -> bool {
    life.end.as_deref().is_some_and(|end| end.starts_with("signal"))
}

fn events(page: &mut Markup, record: &Record, axis: &Axis) {
    let said = format!("{} moments, {} checks", record.timeline.len(), record.checks.len());
    row(page, "run", &said, EVENTS_HEIGHT, axis, |page| {
        for moment in &record.timeline {
            let at = axis.at(moment.at_seconds);
            page.element(
                "line",
                &[("class", &"event"), ("x1", &at), ("x2", &at), ("y1", &2), ("y2", &(EVENTS_HEIGHT - 8))],
                |page| page.words("title", &[], format!("{:.1} s: {}", moment.at_seconds, moment.what)),
            );
        }
        for check in &record.checks {
            let (class, mark) = if check.passed { ("held", "held") } else { ("broken", "FAILED") };
            page.element(
                "circle",
                &[
                    ("class", &class),
                    ("cx", &axis.at(check.at_seconds)),
                    ("cy", &(EVENTS_HEIGHT - 5)),
                    ("r", &4),
                ],
                |page| page.words("title", &[], format!("{:.1} s: {mark}: {}", check.at_seconds, check.what)),
            );
        }
    });
}

fn member_row(page: &mut Markup, record: &Record, axis: &Axis, member: &str, lives: &[&Life]) {
    let fetches = in_lanes(record.transfers.iter().filter(|row| row.to == member));
    let lanes = fetches.iter().map(|(lane, _)| lane + 1).max().unwrap_or_default();
    let lanes_height = LANE_HEIGHT * u32::try_from(lanes).unwrap_or_default();
    let runs: Vec<String> = lives.iter().map(|life| said(life, record.seconds)).collect();
    let described = format!("{member}: {}; {} fetches", runs.join(", "), fetches.len());
    row(page, member, &described, 4 + LIFE_HEIGHT + 3 + lanes_height + 3, axis, |page| {
        for life in lives {
            let to = axis.at(life.to_seconds.unwrap_or(record.seconds));
            bar(page, "life", axis.at(life.from_seconds), to, 4, LIFE_HEIGHT, &said(life, record.seconds));
        }
        for (from, to, state) in absences(record, member) {
            let said = format!("{state} from {from:.1} s to {to:.1} s, as a super-peer sees it");
            bar(page, "away", axis.at(from), at_least(axis.at(from), axis.at(to)), 4, LIFE_HEIGHT, &said);
        }
        for life in lives.iter().filter(|life| by_signal(life)) {
            let to = axis.at(life.to_seconds.unwrap_or(record.seconds));
            page.element("svg", &[("x", &to), ("y", &3), ("overflow", &"visible")], |page| {
                page.element("path", &[("class", &"lost"), ("d", &"M-5 0L5 11M5 0L-5 11")], |page| {
                    page.words("title", &[], said(life, record.seconds));
                });
            });
        }
        for (lane, transfer) in &fetches {
            let (from, to) = (transfer.at_seconds, transfer.at_seconds + transfer.seconds);
            let top = 4 + LIFE_HEIGHT + 3 + LANE_HEIGHT * u32::try_from(*lane).unwrap_or_default();
            let said = format!(
                "{}, {}: {from:.1} s to {to:.1} s, from {}",
                transfer.file,
                size(transfer.size_bytes),
                crate::record::markdown::sources(&transfer.sources)
            );
            let from = axis.at(from);
            bar(page, "fetch", from, at_least(from, axis.at(to)), top, LANE_HEIGHT - 2, &said);
        }
    });
}

fn at_least(from: Percent, to: Percent) -> Percent {
    Percent(to.0.max(from.0 + BAR_MIN))
}

fn said(life: &Life, end: f64) -> String {
    let to = life.to_seconds.unwrap_or(end);
    let how = life.end.as_deref().map(|end| format!(" ({end})")).unwrap_or_default();
    format!("ran from {:.1} s to {to:.1} s{how}", life.from_seconds)
}

/// When a member was seen as anything but online.
fn absences<'a>(record: &'a Record, member: &str) -> Vec<(f64, f64, &'a str)> {
    let seen: Vec<_> = record.sightings.iter().filter(|seen| seen.member == member).collect();
    let next = |index: usize| seen.get(index + 1).map_or(record.seconds, |next| next.at_seconds);
    let absence = |(index, seen): (usize, &&'a crate::record::Sighting)| {
        (seen.state != "online").then(|| (seen.at_seconds, next(index), seen.state.as_str()))
    };
    seen.iter().enumerate().filter_map(absence).collect()
}

/// Puts what goes on at once into lanes, each fetch into the first that is free.
fn in_lanes<'a>(transfers: impl Iterator<Item = &'a TransferRow>) -> Vec<(usize, &'a TransferRow)> {
    let mut transfers: Vec<&TransferRow> = transfers.collect();
    transfers.sort_by(|one, other| one.at_seconds.total_cmp(&other.at_seconds));
    let mut free_from: BTreeMap<usize, f64> = BTreeMap::new();
    let mut placed = Vec::with_capacity(transfers.len());
    for transfer in transfers {
        let free = |lane: &usize| free_from.get(lane).is_none_or(|from| *from <= transfer.at_seconds);
        let lane = (0..LANES).find(free).unwrap_or(LANES - 1);
        let end = transfer.at_seconds + transfer.seconds;
        free_from.entry(lane).and_modify(|from| *from = from.max(end)).or_insert(end);
        placed.push((lane, transfer));
    }
    placed
}

fn moments(page: &mut Markup, record: &Record) {
    let list = |page: &mut Markup, moments: &[crate::record::Moment]| {
        page.element("ol", &[("class", &"moments")], |page| {
            for moment in moments {
                page.element("li", &[], |page| {
                    page.words("span", &[], format!("{:.1} s", moment.at_seconds));
                    page.words("div", &[], &moment.what);
                });
            }
        });
    };
    let (shown, folded) = record.timeline.split_at(record.timeline.len().min(MOMENTS_SHOWN));
    list(page, shown);
    if !folded.is_empty() {
        page.element("details", &[], |page| {
            page.words("summary", &[], format!("{} more moments", folded.len()));
            list(page, folded);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn transfer(at_seconds: f64, seconds: f64) -> TransferRow {
        TransferRow {
            file: String::new(),
            to: String::new(),
            at_seconds,
            state: "completed".to_owned(),
            size_bytes: 0,
            seconds,
            bytes_per_second: 0.0,
            sha256: String::new(),
            identical: None,
            sources: Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn fetches_in_a_lane_do_not_overlap_unless_there_are_too_many(
            spans in prop::collection::vec((0_u32..100, 0_u32..30), 0..12)
        ) {
            let rows: Vec<_> = spans.iter().map(|(at, took)| transfer(f64::from(*at), f64::from(*took))).collect();
            let placed = in_lanes(rows.iter());
            prop_assert_eq!(placed.len(), rows.len());
            for (index, (lane, one)) in placed.iter().enumerate() {
                prop_assert!(*lane < LANES);
                for (_, other) in placed[index + 1..].iter().filter(|(other, _)| other == lane && *lane < LANES - 1) {
                    prop_assert!(other.at_seconds >= one.at_seconds + one.seconds);
                }
            }
        }
    }
}
