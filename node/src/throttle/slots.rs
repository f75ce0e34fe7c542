//! Which requests are served at once, and whose is next when one ends.
//!
//! A request waits a moment for a slot rather than being told at once that this node is busy: a peer that is told so
//! rests before it asks again, and would find the slots taken by those that ask without a pause. A free slot goes
//! to a person's request before a replica's; among equals to the peer that has the fewest, then to the one whose last turn
//! is longest ago. So peers are served in turn however many requests each has, and a peer that has no slot waits for no more
//! than one of each other peer's.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use quarta_protocols::messages::chunk::Purpose;

/// Requests of one peer that wait at once: as many as a fetch has under way from one source.
pub const WAITING_PER_PEER: usize = 2;
/// Requests that wait at once, of all peers: half of the largest networks' nodes ask at the same time.
pub const WAITING_MAX: usize = 256;
/// Of the slots, replicas get one in so many at most: a person's request then finds one free or soon free.
pub const REPLICAS_SHARE: u32 = 4;

/// A request that waits for a slot. Ordered by when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Requests that are served and that wait, by peer `K`.
#[derive(Debug)]
pub struct Slots<K> {
    served: HashMap<K, u32>,
    replicas: u32,
    people: u32,
    waiting: BTreeMap<Ticket, Waiting<K>>,
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Waiting<K> {
    peer: K,
    purpose: Purpose,
    /// Its place in line: a peer that has had its turn goes to the end with what waits still.
    place: u64,
}

impl<K> Default for Slots<K> {
    fn default() -> Self {
        Self { served: HashMap::new(), replicas: 0, people: 0, waiting: BTreeMap::new(), number: 0 }
    }
}

impl<K: Copy + Eq + Hash> Slots<K> {
    /// Puts a request in line; none where as many as may wait already, for its peer or in all.
    pub fn ask(&mut self, peer: K, purpose: Purpose) -> Option<Ticket> {
        let of_peer = self.waiting.values().filter(|waiting| waiting.peer == peer).count();
        if of_peer >= WAITING_PER_PEER || self.waiting.len() >= WAITING_MAX {
            return None;
        }
        let ticket = Ticket(self.number);
        self.number += 1;
        self.waiting.insert(ticket, Waiting { peer, purpose, place: self.number });
        Some(ticket)
    }

    /// Gives the next free slot of `all` to the request whose turn it is; to be asked until there is none.
    pub fn grant(&mut self, all: u32) -> Option<Ticket> {
        if self.active() >= all {
            return None;
        }
        let replicas_may = self.replicas < (all / REPLICAS_SHARE).max(1);
        let may = |purpose: Purpose| purpose == Purpose::Person || replicas_may;
        let rank = |waiting: &Waiting<K>| {
            let served = self.served.get(&waiting.peer).copied().unwrap_or(0);
            (waiting.purpose == Purpose::Replica, served, waiting.place)
        };
        let candidates = self.waiting.iter().filter(|(_, waiting)| may(waiting.purpose));
        let ticket = *candidates.min_by_key(|(_, waiting)| rank(waiting))?.0;
        let Waiting { peer, purpose, .. } = self.waiting.remove(&ticket)?;
        self.number += 1;
        for waiting in self.waiting.values_mut().filter(|waiting| waiting.peer == peer) {
            waiting.place = self.number;
        }
        *self.served.entry(peer).or_default() += 1;
        match purpose {
            Purpose::Person => self.people += 1,
            Purpose::Replica => self.replicas += 1,
        }
        Some(ticket)
    }

    /// A request waits no more. Says whether it had waited until now, and was not granted.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// A request that was granted has ended.
    pub fn end(&mut self, peer: K, purpose: Purpose) {
        if let Some(count) = self.served.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.served.remove(&peer);
            }
            match purpose {
                Purpose::Person => self.people = self.people.saturating_sub(1),
                Purpose::Replica => self.replicas = self.replicas.saturating_sub(1),
            }
        }
    }

    /// Requests that are served.
    pub fn active(&self) -> u32 {
        self.people + self.replicas
    }

    /// Requests of people that are served or wait.
    pub fn people(&self) -> u32 {
        let waiting = self.waiting.values().filter(|waiting| waiting.purpose == Purpose::Person).count();
        self.people.saturating_add(u32::try_from(waiting).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Peers that ask again as soon as one of their requests has ended.
    struct Crowd {
        slots: Slots<usize>,
        all: u32,
        owners: HashMap<Ticket, usize>,
        running: VecDeque<usize>,
        granted: Vec<u32>,
    }

    impl Crowd {
        fn new(peers: usize, all: u32) -> Self {
            let (slots, owners) = (Slots::default(), HashMap::new());
            Self { slots, all, owners, running: VecDeque::new(), granted: vec![0; peers] }
        }

        fn ask(&mut self, peer: usize) {
            if let Some(ticket) = self.slots.ask(peer, Purpose::Person) {
                self.owners.insert(ticket, peer);
            }
        }

        fn grant(&mut self) {
            while let Some(ticket) = self.slots.grant(self.all) {
                let peer = self.owners.remove(&ticket).unwrap();
                self.granted[peer] += 1;
                self.running.push_back(peer);
            }
        }
    }

    #[test]
    fn a_late_peer_with_one_request_is_served_before_a_further_one_of_who_has_many() {
        let mut crowd = Crowd::new(2, 2);
        for _ in 0..2 {
            crowd.ask(0);
            crowd.ask(0);
            crowd.grant();
        }
        crowd.ask(1);
        let done = crowd.running.pop_front().unwrap();
        crowd.slots.end(done, Purpose::Person);
        crowd.grant();
        assert_eq!(crowd.running.back(), Some(&1));
    }

    #[test]
    fn who_has_as_many_waiting_as_may_is_busy_and_gets_in_again_after_giving_up() {
        let mut slots = Slots::default();
        let first = slots.ask('a', Purpose::Person).unwrap();
        assert!(slots.ask('a', Purpose::Person).is_some());
        assert_eq!(slots.ask('a', Purpose::Person), None);
        assert!(slots.ask('b', Purpose::Person).is_some());
        assert!(slots.give_up(first));
        assert!(!slots.give_up(first));
        assert!(slots.ask('a', Purpose::Person).is_some());
    }

    #[test]
    fn replicas_come_after_people_and_hold_a_quarter_of_the_slots_at_most() {
        let mut slots = Slots::default();
        let replicas: Vec<Ticket> = (0..6).map(|peer| slots.ask(peer, Purpose::Replica).unwrap()).collect();
        let person = slots.ask(9, Purpose::Person).unwrap();
        assert_eq!(slots.grant(8), Some(person));
        assert_eq!(slots.grant(8), Some(replicas[0]));
        assert_eq!(slots.grant(8), Some(replicas[1]));
        assert_eq!(slots.grant(8), None, "the others are kept for people");
        assert_eq!((slots.active(), slots.people()), (3, 1));
        slots.end(0, Purpose::Replica);
        assert_eq!(slots.grant(8), Some(replicas[2]));
    }

    #[test]
    fn a_single_slot_serves_a_replica_where_no_person_waits() {
        let mut slots = Slots::default();
        let replica = slots.ask('a', Purpose::Replica);
        assert!(replica.is_some());
        assert_eq!(slots.grant(1), replica);
    }

    proptest! {
        // Each case is hundreds of requests.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn of_peers_that_always_want_more_none_is_served_much_more_often(
            requests in prop::collection::vec(1usize..20, 2..12),
            all in 1u32..20,
            ends in prop::collection::vec(any::<prop::sample::Index>(), 300),
        ) {
            let mut crowd = Crowd::new(requests.len(), all);
            let mut longest_wait = vec![0usize; requests.len()];
            for end in ends {
                for (peer, count) in requests.iter().enumerate() {
                    let running = crowd.running.iter().filter(|other| **other == peer).count();
                    (running..*count).for_each(|_| crowd.ask(peer));
                }
                let before = crowd.granted.clone();
                crowd.grant();
                prop_assert!(crowd.slots.active() <= all);
                for (peer, wait) in longest_wait.iter_mut().enumerate() {
                    let served = crowd.running.contains(&peer) || crowd.granted[peer] > before[peer];
                    *wait = if served { 0 } else { *wait + 1 };
                    // One ends in each round, and none of the others gets a second one first.
                    prop_assert!(*wait <= requests.len(), "peer {peer} starves");
                }
                let wants = |peer: usize| {
                    let running = crowd.running.iter().filter(|other| **other == peer).count();
                    (running, running < requests[peer])
                };
                prop_assert!(crowd.slots.active() == all || (0..requests.len()).all(|peer| !wants(peer).1
                    || wants(peer).0 >= WAITING_PER_PEER));
                if let Some(place) = (!crowd.running.is_empty()).then(|| end.index(crowd.running.len())) {
                    let peer = crowd.running.remove(place).unwrap();
                    crowd.slots.end(peer, Purpose::Person);
                }
            }
        }

        #[test]
        fn whatever_happens_no_more_are_served_than_there_are_slots(
            steps in prop::collection::vec((0u8..4, 0usize..5, any::<bool>(), 0u32..6), 0..300),
        ) {
            let mut slots = Slots::default();
            let (mut tickets, mut running) = (Vec::new(), Vec::new());
            for (what, peer, replica, all) in steps {
                let purpose = if replica { Purpose::Replica } else { Purpose::Person };
                match what {
                    0 => tickets.extend(slots.ask(peer, purpose).map(|ticket| (ticket, peer, purpose))),
                    1 => if let Some((ticket, ..)) = tickets.pop() {
                        prop_assert!(slots.give_up(ticket));
                    },
                    2 => if let Some((peer, purpose)) = running.pop() {
                        slots.end(peer, purpose);
                    },
                    _ => while let Some(granted) = slots.grant(all) {
                        let place = tickets.iter().position(|(ticket, ..)| *ticket == granted).unwrap();
                        let (_, peer, purpose) = tickets.remove(place);
                        running.push((peer, purpose));
                        prop_assert!(slots.active() <= all);
                    },
                }
                prop_assert_eq!(slots.active() as usize, running.len());
            }
        }
    }
}
