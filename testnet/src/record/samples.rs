//! What members used and moved over time: one time axis, and for each member a column of every figure.
//!
//! However long a run is, at most [`SAMPLES_MAX`] moments are kept: when they are full, every second one goes and only
//! every second new one is taken from then on, so that they stay evenly spread over the whole run.

use serde::{Deserialize, Serialize};

/// Most moments kept: more than a chart has room for pixels' worth of change.
pub const SAMPLES_MAX: usize = 240;

/// All moments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// When it was looked, in seconds since the start.
    pub at_seconds: Vec<f64>,
    /// What was seen of each member; every column has as many entries as there are moments.
    pub members: Vec<Column>,
    /// Of how many looks one is kept: a power of two.
    #[serde(default)]
    pub one_of: u64,
    /// Looks so far.
    #[serde(default)]
    pub looks: u64,
}

/// What was seen of one member.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Resident memory, in bytes; none while it did not run.
    pub rss_bytes: Vec<Option<u64>>,
    /// Processor time since its process started, in seconds.
    pub cpu_seconds: Vec<Option<f64>>,
    /// Sealed bytes sent to others since its process started; none where it did not answer.
    pub sent_bytes: Vec<Option<u64>>,
}

/// What one look at a member brought.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Look {
    /// As [`Column::rss_bytes`].
    pub rss_bytes: Option<u64>,
    /// As [`Column::cpu_seconds`].
    pub cpu_seconds: Option<f64>,
    /// As [`Column::sent_bytes`].
    pub sent_bytes: Option<u64>,
}

impl Samples {
    /// Adds a moment. Members are those of the first one; others are passed over.
    pub fn push(&mut self, at_seconds: f64, looks: Vec<(String, Look)>) {
        if self.members.is_empty() {
            self.one_of = 1;
            let column = |(name, _): &(String, Look)| Column { name: name.clone(), ..Column::default() };
            self.members = looks.iter().map(column).collect();
        }
        let due = self.looks.is_multiple_of(self.one_of);
        self.looks += 1;
        if !due {
            return;
        }
        self.at_seconds.push((at_seconds * 1e3).round() / 1e3);
        for column in &mut self.members {
            let look = looks.iter().find(|(name, _)| *name == column.name).map(|(_, look)| *look);
            column.push(look.unwrap_or_default());
        }
        if self.at_seconds.len() >= SAMPLES_MAX {
            self.one_of *= 2;
            halve(&mut self.at_seconds);
            self.members.iter_mut().for_each(Column::halve);
        }
    }

    /// A member's column.
    pub fn member(&self, name: &str) -> Option<&Column> {
        self.members.iter().find(|column| column.name == name)
    }
}

impl Column {
    fn push(&mut self, look: Look) {
        self.rss_bytes.push(look.rss_bytes);
        self.cpu_seconds.push(look.cpu_seconds);
        self.sent_bytes.push(look.sent_bytes);
    }

    fn halve(&mut self) {
        halve(&mut self.rss_bytes);
        halve(&mut self.cpu_seconds);
        halve(&mut self.sent_bytes);
    }
}

/// Keeps the first, third, fifth… entry, which are those that a wider spacing would have taken.
fn halve<T>(entries: &mut Vec<T>) {
    let mut keep = false;
    entries.retain(|_| {
        keep = !keep;
        keep
    });
}

/// What a counter gained in each second up to a moment, in its unit a second. None where either end is missing. A counter
/// that fell belongs to a process that was started again and counts from zero.
pub fn rates(at_seconds: &[f64], counter: &[Option<f64>]) -> Vec<Option<f64>> {
    let rate = |index: usize| {
        let before = index.checked_sub(1)?;
        let passed = at_seconds.get(index)? - at_seconds.get(before)?;
        let (now, then) = ((*counter.get(index)?)?, (*counter.get(before)?)?);
        let gained = if now < then { now } else { now - then };
        (passed > 0.0).then(|| gained / passed)
    };
    (0..at_seconds.len()).map(rate).collect()
}

/// The sum of several columns at each moment; a gap counts as nothing unless all of them have one.
pub fn total(columns: &[Vec<Option<f64>>]) -> Vec<Option<f64>> {
    let moments = columns.iter().map(Vec::len).max().unwrap_or_default();
    let at = |index: usize| {
        columns
            .iter()
            .filter_map(|column| column.get(index).copied().flatten())
            .reduce(|sum, value| sum + value)
    };
    (0..moments).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counter_of_a_process_that_was_started_again_counts_from_zero() {
        let counter = [Some(10.0), Some(30.0), None, Some(5.0), Some(4.0)];
        let found = rates(&[0.0, 2.0, 4.0, 6.0, 8.0], &counter);
        assert_eq!(found, [None, Some(10.0), None, None, Some(2.0)]);
    }

    #[test]
    fn a_gap_of_one_member_is_no_gap_of_all() {
        let found = total(&[vec![Some(1.0), None, None], vec![Some(2.0), Some(3.0), None]]);
        assert_eq!(found, [Some(3.0), Some(3.0), None]);
    }

    proptest! {
        #[test]
        fn a_run_of_any_length_stays_bounded_and_evenly_spread(looks in 1_u32..5000) {
            let mut samples = Samples::default();
            for look in 0..looks {
                let seen = Look { rss_bytes: Some(u64::from(look)), ..Look::default() };
                samples.push(f64::from(look), vec![("a".to_owned(), seen)]);
            }
            prop_assert!(samples.at_seconds.len() < SAMPLES_MAX);
            prop_assert_eq!(samples.members[0].rss_bytes.len(), samples.at_seconds.len());
            let spacing = samples.one_of as f64;
            for (index, at) in samples.at_seconds.iter().enumerate() {
                prop_assert!((at - index as f64 * spacing).abs() < 1e-9);
            }
            // What is kept reaches the end.
            prop_assert!(f64::from(looks - 1) - samples.at_seconds.last().unwrap() < spacing + 1e-9);
        }
    }
}
