//! How fast a source can send: what it says, and what fetchers saw.
//!
//! A fetcher sees its part of what a source can do while others fetch too, at once or in turn. So what counts is what
//! the source sent to all in the time in which it was busy without a break; within what the fetcher's own measurement
//! allows, so that nobody's word gets into another's. Of these, the best that was seen lately is taken: an honest report
//! outweighs any number of low ones.
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
/// A source is taken at its word unless it was seen to fall short of it by this factor.
const SHORTFALL: f64 = 2.0;
/// How far one other member's measurement alone can move a source from the middle one, either way.
const LONE_WORD: f64 = 4.0;
/// How far the best measurement counts above the second best, which is another member's.
const ABOVE_SECOND: f64 = 1.5;
/// Measurements are forgotten after this, so that a source that was slow once is tried again.
const FORGET: Duration = Duration::from_mins(5);
/// Members whose measurements of one source are kept; the oldest gives way.
const REPORTERS_MAX: usize = 8;
/// How much a measurement counts against that member's former ones where it is higher, and where it is lower.
const NEW_SHARE: (f64, f64) = (0.7, 0.2);
/// Less than this tells nothing, in bytes.
const SAMPLE_MIN_BYTES: u64 = 64 * 1024;
/// A shorter busy time tells only that the source is at least so fast.
const SAMPLE_MIN: Duration = Duration::from_millis(10);
/// Nobody is believed to be faster, in bytes a second.
const MAX: f64 = 10e9;

/// A busy time is cut here, so that what a source can do is seen to change.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// What fetchers saw of one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Goodput {
    measured: Vec<Measured>,
    busy: Option<Busy>,
}

/// A time in which the source was busy for one fetcher or another.
#[derive(Debug, Clone, Copy)]
struct Busy {
    start: Instant,
    end: Instant,
    bytes: u64,
}

impl Busy {
    fn length(&self) -> Duration {
        self.end.saturating_duration_since(self.start)
    }

    /// In bytes a second.
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.length().max(SAMPLE_MIN).as_secs_f64()
    }
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    reporter: PeerId,
    /// In bytes a second.
    rate: f64,
    at: Instant,
}

impl Goodput {
    /// Takes in that `bytes` came in `busy`, while the source had that many `fetches` to serve.
    pub(super) fn add(&mut self, now: Instant, reporter: PeerId, bytes: u64, busy: Duration, fetches: u32) {
        self.measured.retain(|measured| now.saturating_duration_since(measured.at) < FORGET);
        if bytes < SAMPLE_MIN_BYTES {
            return;
        }
        let all = self.busy_until(now, bytes, busy);
        let short = all.length() < SAMPLE_MIN;
        let own = bytes as f64 / busy.max(SAMPLE_MIN).as_secs_f64();
        let rate = all.rate().clamp(own, own * f64::from(fetches.max(1))).min(MAX);
        let place = self.measured.iter().position(|measured| measured.reporter == reporter);
        let rate = match place.map(|place| self.measured.remove(place)) {
            Some(before) if short && before.rate >= rate => before.rate,
            Some(before) => {
                let share = if rate > before.rate { NEW_SHARE.0 } else { NEW_SHARE.1 };
                before.rate + share * (rate - before.rate)
            }
            None if short => return,
            None => rate,
        };
        if self.measured.len() == REPORTERS_MAX {
            self.measured.remove(0);
        }
        self.measured.push(Measured { reporter, rate, at: now });
    }

    /// The time without a break in which the source has been busy until now, for this fetcher and those before.
    fn busy_until(&mut self, now: Instant, bytes: u64, busy: Duration) -> Busy {
        let start = now.checked_sub(busy.min(BUSY_MAX)).unwrap_or(now);
        let mut all = Busy { start, end: now, bytes };
        if let Some(before) = self.busy
            && start < before.end
            && now.saturating_duration_since(before.start) <= BUSY_MAX
        {
            all.start = all.start.min(before.start);
            all.bytes = all.bytes.saturating_add(before.bytes);
        }
        self.busy = Some(all);
        all
    }

    /// The best that was seen lately.
    fn seen(&self, now: Instant, asker: &PeerId) -> Option<Seen> {
        let mut fresh: Vec<&Measured> = self
            .measured
            .iter()
            .filter(|measured| now.saturating_duration_since(measured.at) < FORGET)
            .collect();
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
    let either = |reported: Option<f64>, seen: Option<f64>| match (reported, seen) {
        (Some(reported), Some(seen)) if seen * SHORTFALL < reported => Some(seen),
        (reported, seen) => reported.or(seen),
    };
    let taken = known.iter().filter_map(|(reported, seen)| either(*reported, seen.map(|seen| seen.rate)));
    let reference = middle(taken.collect()).unwrap_or(DEFAULT);
    let believed: Vec<Option<f64>> = known
        .iter()
        .map(|(reported, seen)| {
            let bounded = |rate: f64| rate.clamp(reference / LONE_WORD, reference * LONE_WORD);
            let seen = seen.map(|seen| if seen.lone { bounded(seen.rate) } else { seen.rate });
            either(*reported, seen).map(|rate| rate.max(1.0))
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
