//! Axes: round ticks that a person would choose, with their labels.

use std::fmt;

/// About how many steps an axis is to have: enough to read a value off it, few enough for labels on a phone.
const STEPS: f64 = 4.0;
/// No axis has more, whatever its steps.
const TICKS_MAX: u32 = 20;
/// Steps of time in seconds that people count in; below and above these, powers of ten.
const TIMES: [f64; 19] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0,
    21_600.0, 43_200.0, 86_400.0, 172_800.0,
];

/// A share of a whole, written in per cent as SVG and CSS take it. Always between 0 and 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = if self.0.is_finite() { self.0.clamp(0.0, 1.0) } else { 0.0 };
        write!(f, "{:.3}%", share * 100.0)
    }
}

/// From zero to a highest value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// The highest value; above zero.
    pub(super) max: f64,
    /// Round values from zero on.
    pub(super) ticks: Vec<Tick>,
}

/// A round value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    /// Where it stands.
    pub(super) at: Percent,
    /// How it is written, with its unit.
    pub(super) label: String,
}

impl Axis {
    /// An axis of time that ends where the time does.
    pub(super) fn seconds(max: f64) -> Self {
        let max = positive(max);
        let raw = max / (STEPS + 1.0);
        let step = TIMES.into_iter().find(|step| raw >= 1.0 && *step >= raw).unwrap_or_else(|| round(raw));
        Self::new(max, step, |value| match step {
            step if step >= 3600.0 => format!("{} h", short(value / 3600.0)),
            step if step >= 60.0 => format!("{} min", short(value / 60.0)),
            _ => format!("{} s", short(value)),
        })
    }

    /// An axis of bytes, or of bytes a second with `suffix` `/s`, that ends at a tick.
    pub(super) fn bytes(max: f64, suffix: &str) -> Self {
        let max = positive(max);
        let (unit, name) = [(1.0, "B"), (1024.0, "KiB"), (1_048_576.0, "MiB"), (1_073_741_824.0, "GiB")]
            .into_iter()
            .rev()
            .find(|(unit, _)| *unit <= max)
            .unwrap_or((1.0, "B"));
        let step = round(max / unit / STEPS) * unit;
        Self::to_tick(max, step, |value| format!("{} {name}{suffix}", short(value / unit)))
    }

    /// An axis of plain numbers with a unit, that ends at a tick.
    pub(super) fn plain(max: f64, unit: &str) -> Self {
        let max = positive(max);
        Self::to_tick(max, round(max / STEPS), |value| {
            format!("{} {unit}", short(value)).trim_end().to_owned()
        })
    }

    /// Where a value stands.
    pub(super) fn at(&self, value: f64) -> Percent {
        Percent(value / self.max)
    }

    fn to_tick(max: f64, step: f64, label: impl Fn(f64) -> String) -> Self {
        Self::new((max / step).ceil() * step, step, label)
    }

    fn new(max: f64, step: f64, label: impl Fn(f64) -> String) -> Self {
        let ticks = (0..TICKS_MAX)
            .map(|index| f64::from(index) * step)
            // Sums of steps are not exact.
            .take_while(|value| *value <= max * (1.0 + 1e-9))
            .map(|value| Tick { at: Percent(value / max), label: label(value) })
            .collect();
        Self { max, ticks }
    }
}

/// A highest value that something can be divided by.
fn positive(max: f64) -> f64 {
    if max.is_finite() && max > 0.0 { max } else { 1.0 }
}

/// The next 1, 2 or 5 times a power of ten.
fn round(raw: f64) -> f64 {
    let power = 10_f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|digit| digit * power)
        .find(|step| *step >= raw * 0.999)
        .unwrap_or(raw)
}

/// A number without zeros at its end.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_those_that_a_person_would_choose() {
        assert_eq!(labels(&Axis::seconds(38.1)), ["0 s", "10 s", "20 s", "30 s"]);
        assert_eq!(labels(&Axis::seconds(4000.0)), ["0 min", "30 min", "60 min"]);
        assert_eq!(
            labels(&Axis::bytes(300.0 * 1_048_576.0, "/s")),
            ["0 MiB/s", "100 MiB/s", "200 MiB/s", "300 MiB/s"]
        );
        assert_eq!(
            labels(&Axis::plain(0.7, "cores")),
            ["0 cores", "0.2 cores", "0.4 cores", "0.6 cores", "0.8 cores"]
        );
    }

    proptest! {
        #[test]
        fn an_axis_of_anything_has_few_ticks_and_holds_its_highest_value(max in any::<f64>()) {
            for axis in [Axis::seconds(max), Axis::bytes(max, ""), Axis::plain(max, "")] {
                prop_assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis);
                prop_assert!(axis.max > 0.0);
                prop_assert!(!(max.is_finite() && max > 0.0) || axis.max >= max * 0.999);
            }
        }
    }
}
