//! Figures: what was measured, in each run, beside what is to be reached.
//!
//! The value of a figure is the median of its runs: one run on a machine that did something else meanwhile changes
//! nothing.

use quarta_daemon::cli::{ExitCode, Failure, Output};
use serde::Serialize;
use std::fmt;

/// What a figure is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {}", digits(*least)),
            Self::AtMost(most) => write!(f, "≤ {}", digits(*most)),
        }
    }
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured, in words.
    pub figure: String,
    /// The median of its runs.
    pub value: f64,
    /// What it counts, e.g. `MiB/s`; empty for a ratio.
    pub unit: &'static str,
    /// What is to be reached; none for a figure that explains another.
    pub to_reach: Option<Target>,
    /// Whether it is; none where nothing is to be.
    pub reached: Option<bool>,
    /// Each run's value, in the order in which they ran.
    pub runs: Vec<f64>,
}

impl Figure {
    /// A figure of these runs' values; 0 where there was none.
    pub fn of(figure: impl Into<String>, unit: &'static str, runs: Vec<f64>) -> Self {
        let value = median(&runs);
        Self { figure: figure.into(), value, unit, to_reach: None, reached: None, runs }
    }

    /// The same with something to reach.
    #[must_use]
    pub fn to_reach(self, target: Target) -> Self {
        let reached = Some(!self.runs.is_empty() && target.is_reached(self.value));
        Self { to_reach: Some(target), reached, ..self }
    }
}

/// The value in the middle; the mean of the two there where their number is even.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

/// Three digits that count, and all of an integer.
fn digits(value: f64) -> String {
    let decimals = match value.abs() {
        0.0..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Prints a benchmark's figures. Success only where everything is reached.
///
/// # Errors
/// A [`Failure`] where the output cannot be written.
pub fn print(figures: &[Figure], json: bool) -> Result<ExitCode, Failure> {
    let header = ["FIGURE", "MEDIAN", "UNIT", "TO REACH", "", "RUNS"];
    Output::stdout(json).table(&header, figures, |figure| {
        let reached = match figure.reached {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "",
        };
        vec![
            figure.figure.clone(),
            digits(figure.value),
            figure.unit.to_owned(),
            figure.to_reach.map(|target| target.to_string()).unwrap_or_default(),
            reached.to_owned(),
            figure.runs.iter().map(|value| digits(*value)).collect::<Vec<_>>().join(" "),
        ]
    })?;
    let missed = figures.iter().any(|figure| figure.reached == Some(false));
    Ok(if missed { ExitCode::Failure } else { ExitCode::Success })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disturbed_run_does_not_move_the_median() {
        assert!((median(&[3.0, 1.0, 900.0]) - 3.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 900.0]) - 3.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_figure_without_a_run_reaches_nothing() {
        assert_eq!(Figure::of("x", "s", vec![]).to_reach(Target::AtMost(1.0)).reached, Some(false));
        assert_eq!(Figure::of("x", "s", vec![1.0]).to_reach(Target::AtMost(1.0)).reached, Some(true));
        assert_eq!(Figure::of("x", "s", vec![0.9]).to_reach(Target::AtLeast(1.0)).reached, Some(false));
    }

    #[test]
    fn numbers_are_shown_with_the_digits_that_count() {
        let shown = [0.5, 0.123_45, 1.25, 12.34, 785.4, 300_000.0, 10.0].map(digits);
        assert_eq!(shown, ["0.5", "0.123", "1.25", "12.3", "785", "300000", "10"]);
    }
}
