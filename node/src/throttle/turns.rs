//! Whose piece goes next when several peers share a limited line: each peer the same number of bytes, however many
//! requests it has.
//!
//! Start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair Queuing", SIGCOMM 1996): a piece is marked with the
//! amount at which its peer would reach it if all had equal parts, and the lowest mark goes first. It is preferred to a
//! round of queues with deficits because a piece that comes late to an idle peer needs no special case, and because
//! nothing has to be remembered of a peer that is up with the others.
//!
//! Guarantee: of two peers that both wait all the time, neither is ahead of the other by more than one piece of each. A peer
//! with a single request does not wait while its piece is paid for; it gets every other turn at least. Fetches have two under
//! way from each source.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// A piece that waits for its turn. Ordered as they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// What its peer will have got before it, in bytes, counted as for a peer that always wanted something.
    start: u64,
    number: u64,
}

/// The pieces that wait, by peer `K`. As many as callers wait, which they bound.
#[derive(Debug)]
pub struct Turns<K> {
    waiting: BTreeMap<Ticket, (K, usize)>,
    /// Where the next piece of a peer starts, of those that are ahead of [`Self::clock`].
    ahead: HashMap<K, u64>,
    /// Where the latest piece that went started.
    clock: u64,
    number: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), ahead: HashMap::new(), clock: 0, number: 0 }
    }
}

impl<K: Copy + Eq + Hash> Turns<K> {
    /// Puts a piece of a peer in line.
    pub fn ask(&mut self, peer: K, bytes: usize) -> Ticket {
        let start = self.ahead.get(&peer).copied().unwrap_or(0).max(self.clock);
        self.ahead.insert(peer, start.saturating_add(bytes as u64));
        let ticket = Ticket { start, number: self.number };
        self.number += 1;
        self.waiting.insert(ticket, (peer, bytes));
        ticket
    }

    /// The piece that goes next, and its size in bytes.
    pub fn pop(&mut self) -> Option<(Ticket, usize)> {
        let (ticket, (_, bytes)) = self.waiting.pop_first()?;
        self.clock = ticket.start;
        if self.waiting.is_empty() || self.ahead.len() > 2 * self.waiting.len() + 1 {
            let clock = self.clock;
            self.ahead.retain(|_, next| *next > clock);
        }
        Some((ticket, bytes))
    }

    /// A piece that is not wanted any more. It counts as its peer's all the same.
    pub fn give_up(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_peer_with_one_request_gets_as_much_as_one_with_fifteen() {
        let mut turns = Turns::default();
        let mut owners = HashMap::new();
        let mut sent = [0usize; 2];
        for peer in std::iter::repeat_n(0, 15).chain([1]) {
            owners.insert(turns.ask(peer, 1000), peer);
        }
        for _ in 0..200 {
            let (ticket, bytes) = turns.pop().unwrap();
            let peer = owners.remove(&ticket).unwrap();
            sent[peer] += bytes;
            owners.insert(turns.ask(peer, 1000), peer);
        }
        assert!(sent[0].abs_diff(sent[1]) <= 2000, "{sent:?}");
    }

    #[test]
    fn who_comes_back_after_a_pause_has_saved_nothing_up() {
        let mut turns = Turns::default();
        for _ in 0..100 {
            turns.ask('a', 1000);
            turns.pop();
        }
        let late = turns.ask('b', 1000);
        let first = turns.ask('a', 1000);
        let second = turns.ask('b', 1000);
        let order: Vec<Ticket> = std::iter::from_fn(|| turns.pop()).map(|(ticket, _)| ticket).collect();
        assert_eq!(order, [late, first, second]);
    }

    proptest! {
        #[test]
        fn of_peers_that_always_wait_none_is_ahead_by_more_than_a_piece_of_each(
            requests in prop::collection::vec(1usize..20, 2..6),
            sizes in prop::collection::vec(1usize..300_000, 1..50),
            given_up in 0usize..10,
        ) {
            let largest = sizes.iter().copied().max().unwrap();
            let mut sizes = sizes.into_iter().cycle();
            let mut turns = Turns::default();
            let mut owners = HashMap::new();
            let mut sent = vec![0usize; requests.len()];
            for (peer, count) in requests.iter().enumerate() {
                for _ in 0..*count {
                    owners.insert(turns.ask(peer, sizes.next().unwrap()), peer);
                }
            }
            // Somebody who has given up is in nobody's way.
            for _ in 0..given_up {
                let gone = turns.ask(99, 1_000_000);
                turns.give_up(gone);
            }
            for _ in 0..500 {
                let (ticket, bytes) = turns.pop().unwrap();
                let peer = owners.remove(&ticket).unwrap();
                sent[peer] += bytes;
                owners.insert(turns.ask(peer, sizes.next().unwrap()), peer);
                let (most, least) = (sent.iter().max().unwrap(), sent.iter().min().unwrap());
                prop_assert!(most - least <= 2 * largest, "{sent:?}");
            }
            prop_assert!(turns.ahead.len() <= 2 * turns.waiting.len() + 2);
        }
    }
}
