//! What all charts are made of.
//!
//! Positions along an axis are in per cent of the drawing's width and sizes of text in pixels, so that a chart takes
//! whatever width there is and stays legible on a phone. Curves, which SVG does not take in per cent, stand in a nested
//! drawing that is stretched. A chart's figures stand in a table too; hovering shows them in place.

use super::markup::Markup;
use super::scale::{Axis, Percent};
use std::fmt::Write;

/// The width of a nested drawing in its own units, before it is stretched.
const UNITS: f64 = 1000.0;

/// A chart: a heading that asks, the drawing, and a caption that answers.
pub(super) fn figure(
    page: &mut Markup,
    id: &'static str,
    question: &str,
    answer: &str,
    drawing: impl FnOnce(&mut Markup),
) {
    page.line();
    page.element("section", &[("id", &id)], |page| {
        page.words("h2", &[], question);
        page.element("figure", &[], |page| {
            page.words("figcaption", &[], answer);
            drawing(page);
        });
    });
}

/// What the marks mean.
pub(super) fn legend(page: &mut Markup, keys: &[(&'static str, &'static str)]) {
    page.element("ul", &[("class", &"legend")], |page| {
        for (class, meaning) in keys {
            page.element("li", &[], |page| {
                page.element(
                    "svg",
                    &[("width", &"16"), ("height", &"10"), ("aria-hidden", &"true")],
                    |page| {
                        page.empty("rect", &[("class", class), ("width", &"16"), ("height", &"10")]);
                    },
                );
                page.text(meaning);
            });
        }
    });
}

/// A row of a chart: a label and a drawing `height` pixels high that is read out as `said`.
pub(super) fn row(
    page: &mut Markup,
    label: &str,
    said: &str,
    height: u32,
    axis: &Axis,
    marks: impl FnOnce(&mut Markup),
) {
    page.words("div", &[("class", &"label"), ("title", &label)], label);
    drawing(page, said, height, |page| {
        for tick in &axis.ticks {
            let grid: &str = "grid";
            page.empty(
                "line",
                &[("class", &grid), ("x1", &tick.at), ("x2", &tick.at), ("y1", &"0"), ("y2", &height)],
            );
        }
        marks(page);
    });
}

/// A drawing as wide as there is room.
pub(super) fn drawing(page: &mut Markup, said: &str, height: u32, marks: impl FnOnce(&mut Markup)) {
    page.element(
        "svg",
        &[
            ("class", &"plot"),
            ("width", &"100%"),
            ("height", &height),
            ("role", &"img"),
            ("aria-label", &said),
        ],
        marks,
    );
    page.line();
}

/// The labels of an axis from left to right, in a row of a chart.
pub(super) fn axis(page: &mut Markup, axis: &Axis, what: &str) {
    page.words("div", &[("class", &"label muted")], what);
    labels(page, axis);
}

/// The labels of an axis from left to right. On a phone every second one is left out.
pub(super) fn labels(page: &mut Markup, axis: &Axis) {
    let drawing: [super::markup::Attribute<'_>; 4] =
        [("class", &"axis"), ("width", &"100%"), ("height", &18), ("aria-hidden", &"true")];
    page.element("svg", &drawing, |page| {
        for (index, tick) in axis.ticks.iter().enumerate() {
            let anchor = match tick.at {
                Percent(at) if at < 0.02 => "start",
                Percent(at) if at > 0.96 => "end",
                _ => "middle",
            };
            let class = if index % 2 == 1 { "odd" } else { "even" };
            let at: [super::markup::Attribute<'_>; 4] =
                [("class", &class), ("x", &tick.at), ("y", &13), ("text-anchor", &anchor)];
            page.words("text", &at, &tick.label);
        }
    });
    page.line();
}

/// A bar from one place to another that shows `said` when pointed at.
pub(super) fn bar(
    page: &mut Markup,
    class: &str,
    from: Percent,
    to: Percent,
    top: u32,
    height: u32,
    said: &str,
) {
    let width = Percent((to.0.min(1.0) - from.0.max(0.0)).max(0.0));
    let at: [super::markup::Attribute<'_>; 5] =
        [("class", &class), ("x", &from), ("y", &top), ("width", &width), ("height", &height)];
    page.element("rect", &at, |page| page.words("title", &[], said));
}

/// Lines across at an axis' ticks, labelled at the left above them, in a drawing `height` pixels high.
pub(super) fn levels(page: &mut Markup, axis: &Axis, height: u32) {
    for tick in &axis.ticks {
        let y = format!("{:.1}", f64::from(height) * (1.0 - tick.at.0));
        page.empty("line", &[("class", &"grid"), ("x1", &"0"), ("x2", &"100%"), ("y1", &y), ("y2", &y)]);
        if tick.at.0 > 0.0 {
            let below = format!("{:.1}", f64::from(height) * (1.0 - tick.at.0) + 13.0);
            page.words("text", &[("x", &4), ("y", &below)], &tick.label);
        }
    }
}

/// A curve with the area beneath it, with gaps where there is no value.
pub(super) fn curve(page: &mut Markup, across: &Axis, up: &Axis, height: u32, points: &[(f64, Option<f64>)]) {
    let view = format!("0 0 {UNITS} {height}");
    let stretched: [super::markup::Attribute<'_>; 4] =
        [("width", &"100%"), ("height", &height), ("viewBox", &view), ("preserveAspectRatio", &"none")];
    page.element("svg", &stretched, |page| {
        for run in points.split(|(_, value)| value.is_none()) {
            let place = |at: f64, value: f64| {
                (at / across.max * UNITS, f64::from(height) * (1.0 - (value / up.max).clamp(0.0, 1.0)))
            };
            let places: Vec<(f64, f64)> =
                run.iter().filter_map(|(at, value)| value.map(|value| place(*at, value))).collect();
            let (Some((first, _)), Some((last, _))) = (places.first(), places.last()) else { continue };
            let mut line = String::new();
            for (index, (x, y)) in places.iter().enumerate() {
                let _ = write!(line, "{}{x:.1} {y:.1}", if index == 0 { "M" } else { "L" });
            }
            let area = format!("{line}L{last:.1} {height}L{first:.1} {height}Z");
            page.empty("path", &[("class", &"area"), ("d", &area)]);
            page.empty("path", &[("class", &"curve"), ("d", &line)]);
        }
    });
}
