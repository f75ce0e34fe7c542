//! How fast a source can send: what it says, and what fetchers saw.
//!
//! A fetcher sees its part of what the source can do while others fetch too, so a measurement counts times the number
//! of fetches that the source was busy with; and the best that was seen lately counts. That also makes it useless to
//! talk a source down: an honest report outweighs any number of low ones.
//!
//! Measurements differ by a factor of two among equals (a busy processor, a shared line, a short sample), so capacities
//! within [`ALIKE`] of the middle one count as equal. Without that, noise would decide who serves, and the fastest
//! sample of the day would draw everybody to one node.

use std::time::{Duration, Instant};

use libp2p::PeerId;

/// What a source is taken for of which nothing is known: an office line of 100 Mbit/s, in bytes a second.
pub(super) const DEFAULT: f64 = 12_500_000.0;
/// Capacities that differ by less than this factor from the middle one count as equal to it.
const ALIKE: f64 = 2.5;
/// How far one other member's measurement alone can move a source from the middle one, either way.
const LONE_WORD: f64 = 4.0;
/// How far the best measurement counts above the second best, which is another member's.
const ABOVE_SECOND: f64 = 2.0;
/// Measurements are forgotten after this, so that a source that was slow once is tried again.
const FORGET: Duration = Duration::from_mins(5);
/// Members whose measurements of one source are kept; the oldest gives way.
const REPORTERS_MAX: usize = 8;
/// How much a measurement counts against that member's former ones where it is higher, and where it is lower.
const NEW_SHARE: (f64, f64) = (0.7, 0.3);
/// Less than this tells nothing, in bytes.
const SAMPLE_MIN_BYTES: u64 = 64 * 1024;
/// A shorter sample tells only that the source is at least so fast.
const SAMPLE_MIN: Duration = Duration::from_millis(10);
/// Nobody is believed to be faster, in bytes a second.
const MAX: f64 = 10e9;

/// What fetchers saw of one source, in bytes a second.
#[derive(Debug, Clone, Default)]
pub(super) struct Goodput(Vec<Measured>);

#[derive(Debug, Clone, Copy)]
struct Measured {
    reporter: PeerId,
    rate: f64,
    at: Instant,
}

impl Goodput {
    /// Takes in that `bytes` came in `busy`, while the source had that many `fetches` to serve.
    pub(super) fn add(&mut self, now: Instant, reporter: PeerId, bytes: u64, busy: Duration, fetches: u32) {
        self.0.retain(|measured| now.saturating_duration_since(measured.at) < FORGET);
        if bytes < SAMPLE_MIN_BYTES {
            return;
        }
        let busy = busy / fetches.max(1);
        let rate = (bytes as f64 / busy.max(SAMPLE_MIN).as_secs_f64()).min(MAX);
        let place = self.0.iter().position(|measured| measured.reporter == reporter);
        let rate = match place.map(|place| self.0.remove(place)) {
            Some(before) if busy < SAMPLE_MIN && before.rate >= rate => before.rate,
            Some(before) => {
                let share = if rate > before.rate { NEW_SHARE.0 } else { NEW_SHARE.1 };
                before.rate + share * (rate - before.rate)
            }
            None if busy < SAMPLE_MIN => return,
            None => rate,
        };
        if self.0.len() == REPORTERS_MAX {
            self.0.remove(0);
        }
        self.0.push(Measured { reporter, rate, at: now });
    }

    /// The best that was seen lately.
    fn seen(&self, now: Instant, asker: &PeerId) -> Option<Seen> {
        let mut fresh: Vec<&Measured> =
            self.0.iter().filter(|measured| now.saturating_duration_since(measured.at) < FORGET).collect();
        fresh.sort_unstable_by(|a, b| b.rate.total_cmp(&a.rate));
        match fresh.as_slice() {
            [] => None,
            [only] => Some(Seen { rate: only.rate, lone: only.reporter != *asker }),
            [best, second, ..] => Some(Seen { rate: best.rate.min(second.rate * ABOVE_SECOND), lone: false }),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    rate: f64,
    /// One other member's word.
    lone: bool,
}

/// The capacities of sources as an asker should see them, in bytes a second, none below 1.
pub(super) fn capacities<'a>(
    now: Instant,
    asker: &PeerId,
    sources: impl Iterator<Item = Option<(Option<u64>, &'a Goodput)>>,
) -> Vec<f64> {
    let known: Vec<(Option<f64>, Option<Seen>)> = sources
        .map(|source| {
            source.map_or((None, None), |(reported, goodput)| {
                (reported.map(|rate| rate as f64), goodput.seen(now, asker))
            })
        })
        .collect();
    let lesser = |reported: Option<f64>, seen: Option<f64>| match (reported, seen) {
        (Some(reported), Some(seen)) => Some(reported.min(seen)),
        (reported, seen) => reported.or(seen),
    };
    let taken = known.iter().filter_map(|(reported, seen)| lesser(*reported, seen.map(|seen| seen.rate)));
    let reference = middle(taken.collect()).unwrap_or(DEFAULT);
    let believed: Vec<Option<f64>> = known
        .iter()
        .map(|(reported, seen)| {
            let seen = seen.map(|seen| match seen.lone {
                true => seen.rate.clamp(reference / LONE_WORD, reference * LONE_WORD),
                false => seen.rate,
            });
            lesser(*reported, seen).map(|rate| rate.max(1.0))
        })
        .collect();
    // Hope for the best of what is unknown: a first fetch then tells.
    let unknown = believed.iter().flatten().copied().fold(DEFAULT, f64::max);
    let rates: Vec<f64> = believed.into_iter().map(|rate| rate.unwrap_or(unknown)).collect();
    let Some(middle) = middle(rates.clone()) else { return rates };
    let alike = |rate: &f64| *rate > middle / ALIKE && *rate < middle * ALIKE;
    rates.into_iter().map(|rate| if alike(&rate) { middle } else { rate }).collect()
}

/// The middle value, the upper one of two.
fn middle(mut rates: Vec<f64>) -> Option<f64> {
    let middle = rates.len() / 2;
    (!rates.is_empty()).then(|| *rates.select_nth_unstable_by(middle, f64::total_cmp).1)
}
