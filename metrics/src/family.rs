//! Counters, gauges and histograms whose labels are typed.
//!
//! A label is an enum, so a misspelt value does not compile and the set of values is closed. Because it is
//! closed, every combination of values is exposed from the start, at zero: `rate()` sees the first event, and
//! an alert tells "none so far" from "no such series".

use std::{fmt, marker::PhantomData, time::Duration};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, exponential_buckets,
};

use crate::registry::{RegisterError, Registry};

/// One label with a closed set of values.
pub trait Label: Copy + fmt::Debug + Send + Sync + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];
    /// The value as the exposition shows it.
    fn value(self) -> &'static str;
}

/// The labels of a family: one [`Label`], or a pair or triple of them.
pub trait Labels: Copy + fmt::Debug + Send + Sync + 'static {
    /// The labels' names, in the order of their values.
    const NAMES: &'static [&'static str];
    /// The label values of one series.
    type Values: AsRef<[&'static str]>;
    /// Every combination of values.
    fn all() -> Vec<Self>;
    /// The values as the exposition shows them.
    fn values(self) -> Self::Values;
}

impl<A: Label> Labels for A {
    const NAMES: &'static [&'static str] = &[A::NAME];
    type Values = [&'static str; 1];

    fn all() -> Vec<Self> {
        A::ALL.to_vec()
    }

    fn values(self) -> Self::Values {
        [self.value()]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME];
    type Values = [&'static str; 2];

    fn all() -> Vec<Self> {
        A::ALL.iter().flat_map(|&a| B::ALL.iter().map(move |&b| (a, b))).collect()
    }

    fn values(self) -> Self::Values {
        [self.0.value(), self.1.value()]
    }
}

impl<A: Label, B: Label, C: Label> Labels for (A, B, C) {
    const NAMES: &'static [&'static str] = &[A::NAME, B::NAME, C::NAME];
    type Values = [&'static str; 3];

    fn all() -> Vec<Self> {
        <(A, B)>::all().into_iter().flat_map(|(a, b)| C::ALL.iter().map(move |&c| (a, b, c))).collect()
    }

    fn values(self) -> Self::Values {
        [self.0.value(), self.1.value(), self.2.value()]
    }
}

/// Declares an enum as a [`Label`]: its name in the exposition, and a value for each variant.
macro_rules! label {
    (
        $(#[$doc:meta])*
        $name:ident as $label:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $crate::family::Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
        }
    };
}
pub(crate) use label;

/// A monotonic count without labels.
#[derive(Clone, Debug)]
pub struct Counter(IntCounter);

impl Counter {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        registry.register(IntCounter::new(registry.name(name), help)?).map(Self)
    }

    /// Counts one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Counts `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

/// A monotonic count for each combination of labels.
#[derive(Clone, Debug)]
pub struct CounterBy<L> {
    series: IntCounterVec,
    labels: PhantomData<L>,
}

impl<L: Labels> CounterBy<L> {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        let series =
            registry.register(IntCounterVec::new(Opts::new(registry.name(name), help), L::NAMES)?)?;
        for labels in L::all() {
            series.with_label_values(labels.values().as_ref());
        }
        Ok(Self { series, labels: PhantomData })
    }

    /// Counts one.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts `n`.
    pub fn add(&self, labels: L, n: u64) {
        self.series.with_label_values(labels.values().as_ref()).inc_by(n);
    }

    /// The count so far.
    pub fn get(&self, labels: L) -> u64 {
        self.series.with_label_values(labels.values().as_ref()).get()
    }
}

/// A level that goes up and down, without labels.
#[derive(Clone, Debug)]
pub struct Gauge(IntGauge);

impl Gauge {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        registry.register(IntGauge::new(registry.name(name), help)?).map(Self)
    }

    /// Sets the level; one beyond `i64::MAX` is shown as `i64::MAX`.
    pub fn set(&self, level: impl TryInto<i64>) {
        self.0.set(saturated(level));
    }

    /// The level now.
    pub fn get(&self) -> i64 {
        self.0.get()
    }
}

/// A level that goes up and down, for each combination of labels.
#[derive(Clone, Debug)]
pub struct GaugeBy<L> {
    series: IntGaugeVec,
    labels: PhantomData<L>,
}

impl<L: Labels> GaugeBy<L> {
    pub(crate) fn register(registry: &Registry, name: &str, help: &str) -> Result<Self, RegisterError> {
        let series = registry.register(IntGaugeVec::new(Opts::new(registry.name(name), help), L::NAMES)?)?;
        for labels in L::all() {
            series.with_label_values(labels.values().as_ref());
        }
        Ok(Self { series, labels: PhantomData })
    }

    /// Sets the level; one beyond `i64::MAX` is shown as `i64::MAX`.
    pub fn set(&self, labels: L, level: impl TryInto<i64>) {
        self.series.with_label_values(labels.values().as_ref()).set(saturated(level));
    }

    /// Raises the level by one.
    pub fn inc(&self, labels: L) {
        self.series.with_label_values(labels.values().as_ref()).inc();
    }

    /// Lowers the level by one.
    pub fn dec(&self, labels: L) {
        self.series.with_label_values(labels.values().as_ref()).dec();
    }

    /// Raises the level by one until the returned value is dropped, so that no way out of a task, be it an
    /// error or its cancellation, leaves the level wrong.
    #[must_use = "the level falls again when this is dropped"]
    pub fn hold(&self, labels: L) -> Held {
        let gauge = self.series.with_label_values(labels.values().as_ref());
        gauge.inc();
        Held(gauge)
    }

    /// The level now.
    pub fn get(&self, labels: L) -> i64 {
        self.series.with_label_values(labels.values().as_ref()).get()
    }
}

/// One unit of a [`GaugeBy`], given back when dropped.
#[derive(Debug)]
pub struct Held(IntGauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A share between 0 and 1.
#[derive(Clone, Debug)]
pub struct Ratio(prometheus::Gauge);

impl Ratio {
    /// Registers the share with its value before the first [`set`](Self::set).
    pub(crate) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        initially: f64,
    ) -> Result<Self, RegisterError> {
        let gauge = registry.register(prometheus::Gauge::new(registry.name(name), help)?)?;
        gauge.set(initially);
        Ok(Self(gauge))
    }

    /// Sets the share.
    pub fn set(&self, share: f64) {
        self.0.set(share);
    }

    /// The share now.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// How many observations fell into which range, without labels.
#[derive(Clone, Debug)]
pub struct Histogram(prometheus::Histogram);

impl Histogram {
    pub(crate) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> Result<Self, RegisterError> {
        let opts = HistogramOpts::new(registry.name(name), help).buckets(buckets);
        registry.register(prometheus::Histogram::with_opts(opts)?).map(Self)
    }

    /// Records a duration, in a family measured in seconds.
    pub fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }
}

/// How many observations fell into which range, for each combination of labels.
#[derive(Clone, Debug)]
pub struct HistogramBy<L> {
    series: HistogramVec,
    labels: PhantomData<L>,
}

impl<L: Labels> HistogramBy<L> {
    pub(crate) fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
    ) -> Result<Self, RegisterError> {
        let opts = HistogramOpts::new(registry.name(name), help).buckets(buckets);
        let series = registry.register(HistogramVec::new(opts, L::NAMES)?)?;
        for labels in L::all() {
            series.with_label_values(labels.values().as_ref());
        }
        Ok(Self { series, labels: PhantomData })
    }

    /// Records a duration, in a family measured in seconds.
    pub fn observe(&self, labels: L, duration: Duration) {
        self.observe_value(labels, duration.as_secs_f64());
    }

    /// Records a value in the family's own unit.
    pub fn observe_value(&self, labels: L, value: f64) {
        self.series.with_label_values(labels.values().as_ref()).observe(value);
    }
}

/// Bucket bounds from `start`, each `factor` times the one before.
pub(crate) fn buckets(start: f64, factor: f64, count: usize) -> Result<Vec<f64>, RegisterError> {
    Ok(exponential_buckets(start, factor, count)?)
}

/// A gauge's value for a level of any integer type: no integer is below `i64::MIN` here, so what does not fit is
/// too large.
pub(crate) fn saturated(level: impl TryInto<i64>) -> i64 {
    level.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        network::{Direction, Transport},
        registry::Service,
    };

    fn registry() -> Registry {
        Registry::new(Service::Node, "1").unwrap()
    }

    #[test]
    fn every_combination_is_exposed_before_the_first_event() {
        let registry = registry();
        let events =
            CounterBy::<(Transport, Direction)>::register(&registry, "events_total", "Events.").unwrap();
        events.inc((Transport::Quic, Direction::Inbound));
        let text = registry.encode();
        assert!(
            text.contains(r#"quarta_node_events_total{direction="inbound",transport="tcp"} 0"#),
            "{text}"
        );
        assert!(
            text.contains(r#"quarta_node_events_total{direction="inbound",transport="quic"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn a_held_unit_is_given_back_when_its_holder_is_dropped() {
        let level = GaugeBy::<Transport>::register(&registry(), "level", "Level.").unwrap();
        let first = level.hold(Transport::Tcp);
        let second = level.hold(Transport::Tcp);
        assert_eq!(level.get(Transport::Tcp), 2);
        drop(first);
        assert_eq!(level.get(Transport::Tcp), 1);
        drop(second);
        assert_eq!((level.get(Transport::Tcp), level.get(Transport::Quic)), (0, 0));
    }

    #[test]
    fn a_level_too_large_for_the_exposition_is_shown_as_the_largest() {
        let level = Gauge::register(&registry(), "level", "Level.").unwrap();
        level.set(u64::MAX);
        assert_eq!(level.get(), i64::MAX);
        level.set(7_usize);
        assert_eq!(level.get(), 7);
    }

    #[test]
    fn clones_count_into_the_same_series() {
        let events = Counter::register(&registry(), "events_total", "Events.").unwrap();
        events.clone().add(3);
        events.inc();
        assert_eq!(events.get(), 4);
    }
}
