//! A line whose rate is limited and that peers share fairly: [`Bucket`] says when, [`Turns`] says who. Pure.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use super::{
    bucket::{Bucket, Due},
    turns::{Ticket, Turns},
};

/// One direction of this machine's line, shared by peers `K`.
#[derive(Debug)]
pub struct Line<K> {
    /// None where it is not limited.
    bucket: Option<(u64, Bucket)>,
    turns: Turns<K>,
    /// The piece whose turn it is, and when it is paid for.
    paying: Option<(Ticket, Due)>,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self { bucket: None, turns: Turns::default(), paying: None }
    }
}

impl<K: Copy + Eq + Hash> Line<K> {
    /// From now on this rate, in bytes a second; unlimited without one. Cheap where it is the present one.
    pub fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        match (&mut self.bucket, rate) {
            (Some((present, _)), Some(rate)) if *present == rate => {}
            (Some((present, bucket)), Some(rate)) => {
                bucket.set_rate(now, rate);
                *present = rate;
            }
            (bucket, rate) => *bucket = rate.map(|rate| (rate, Bucket::new(now, rate))),
        }
    }

    /// Puts a piece of a peer in line.
    pub fn ask(&mut self, peer: K, bytes: usize) -> Ticket {
        self.turns.ask(peer, bytes)
    }

    /// A piece that is not wanted any more. Once its turn has come it is paid for all the same.
    pub fn give_up(&mut self, ticket: Ticket) {
        self.turns.give_up(ticket);
    }

    /// Hands every piece that may go now to `go`, in order. Says in how long the next may; none where nobody waits.
    pub fn advance(&mut self, now: Instant, mut go: impl FnMut(Ticket)) -> Option<Duration> {
        loop {
            if let Some((ticket, due)) = self.paying {
                let wait = self.bucket.as_ref().map_or(Duration::ZERO, |(_, bucket)| bucket.wait(now, due));
                if !wait.is_zero() {
                    return Some(wait);
                }
                self.paying = None;
                go(ticket);
            }
            let (ticket, bytes) = self.turns.pop()?;
            match &mut self.bucket {
                Some((_, bucket)) => self.paying = Some((ticket, bucket.charge(now, bytes))),
                None => go(ticket),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// Lets `requests` by peer go on asking until `until`: what went, when, and whose it was.
    fn run(
        line: &mut Line<usize>,
        start: Instant,
        until: Instant,
        requests: &[usize],
        mut size: impl FnMut() -> usize,
    ) -> Vec<(Instant, usize, usize)> {
        let (mut now, mut gone, mut owners) = (start, Vec::new(), HashMap::new());
        for (peer, count) in requests.iter().enumerate() {
            for _ in 0..*count {
                let bytes = size();
                owners.insert(line.ask(peer, bytes), (peer, bytes));
            }
        }
        while now <= until {
            let mut went = Vec::new();
            let wait = line.advance(now, |ticket| went.push(ticket));
            for ticket in went {
                let (peer, bytes) = owners.remove(&ticket).unwrap();
                gone.push((now, peer, bytes));
                let bytes = size();
                owners.insert(line.ask(peer, bytes), (peer, bytes));
            }
            now += wait.unwrap_or_default();
        }
        gone.retain(|(at, ..)| *at <= until);
        gone
    }

    #[test]
    fn a_limit_that_is_lifted_lets_all_go_at_once_and_a_changed_one_holds_at_once() {
        let start = Instant::now();
        let mut line = Line::default();
        line.set_rate(start, Some(1000));
        let tickets: Vec<Ticket> = (0..3).map(|_| line.ask(1, 100_000)).collect();
        assert!(line.advance(start, |_| panic!("nothing is paid for")).unwrap() > Duration::from_secs(99));
        line.set_rate(start, Some(100_000));
        let next = line.advance(start, |_| panic!("nothing is paid for")).unwrap();
        assert!(next <= Duration::from_secs(1), "{next:?}");
        line.set_rate(start, None);
        let mut went = Vec::new();
        assert_eq!(line.advance(start, |ticket| went.push(ticket)), None);
        assert_eq!(went, tickets);
    }

    #[test]
    fn who_gives_up_leaves_its_turn_to_the_others() {
        let start = Instant::now();
        let mut line = Line::default();
        line.set_rate(start, Some(1000));
        let (paying, waiting, last) = (line.ask(1, 600), line.ask(2, 600), line.ask(3, 500));
        line.advance(start, |_| panic!("a burst is not as much"));
        line.give_up(waiting);
        line.give_up(paying);
        let mut went = Vec::new();
        line.advance(start + Duration::from_millis(500), |ticket| went.push(ticket));
        assert_eq!(went, [paying], "what is charged is paid for");
        line.advance(start + Duration::from_secs(1), |ticket| went.push(ticket));
        assert_eq!(went, [paying, last]);
    }

    proptest! {
        // Each case is seconds of traffic.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_ten_seconds_carry_the_rate_within_five_per_cent_whatever_the_order_of_sizes(
            rate in 700_000u64..200_000_000,
            requests in prop::collection::vec(1usize..6, 1..5),
            sizes in prop::collection::vec(prop_oneof![1usize..2_000, 100_000usize..=262_160], 1..40),
            skipped_ms in 0u64..5_000,
        ) {
            // Tiny pieces at a high rate only take time.
            let smallest = usize::try_from(rate / 2_000).unwrap();
            let mut sizes = sizes.into_iter().cycle().map(|size| size.max(smallest));
            let start = Instant::now();
            let mut line = Line::default();
            line.set_rate(start, Some(rate));
            let from = start + Duration::from_millis(skipped_ms);
            let gone = run(&mut line, start, from + WINDOW, &requests, || sizes.next().unwrap());
            let sent: usize = gone.iter().filter(|(at, ..)| *at >= from).map(|(_, _, bytes)| bytes).sum();
            let ideal = rate * 10;
            prop_assert!((sent as u64).abs_diff(ideal) * 100 <= ideal * 5, "{sent} of {ideal}");
        }

        #[test]
        fn a_limited_line_is_shared_equally_by_peers_that_always_want_something(
            requests in prop::collection::vec(2usize..12, 2..5),
            sizes in prop::collection::vec(20_000usize..262_160, 1..40),
        ) {
            let mut sizes = sizes.into_iter().cycle();
            let start = Instant::now();
            let mut line = Line::default();
            line.set_rate(start, Some(4_000_000));
            let gone = run(&mut line, start, start + WINDOW, &requests, || sizes.next().unwrap());
            let share = |peer| gone.iter().filter(|went| went.1 == peer).map(|went| went.2).sum::<usize>();
            let shares: Vec<usize> = (0..requests.len()).map(share).collect();
            let (most, least) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
            prop_assert!(most - least <= 2 * 262_160, "{shares:?}");
        }
    }
}
