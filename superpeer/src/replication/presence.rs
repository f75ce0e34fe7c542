//! Which nodes count, and whether it is a time to repair at all.
//!
//! A copy counts while its node is there, and for the grace period after: most that go come back. Two situations look
//! like many lost copies and are none, and repairs wait in both ([`Hold`]):
//!
//! - **This super-peer has just started** and has not heard every node's list yet. It waits for all of them, and for the
//!   grace period at most.
//! - **Over a third of the nodes vanished within [`OUTAGE_HOLD`].** Then a building has no power, or this super-peer is
//!   the one that is cut off; the rest of the network would be filled with copies that nobody needs once it is over.
//!
//! In both, files that are newer than the situation are copied all the same: nobody who is away can hold them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

use crate::placement::{Candidate, Weight};

/// How long a mass outage is waited out before its copies are made anew: a morning without power passes by itself, and
/// what remains of the network can carry one for as long.
pub const OUTAGE_HOLD: Duration = Duration::from_hours(1);
/// For how long nothing is repaired after a start while lists are missing, not even for new files: what others accepted
/// in the meantime arrives within that time, and is not new.
pub const SETTLING: Duration = Duration::from_mins(1);

/// A node as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// The node.
    pub peer: PeerId,
    /// Whether it answers and its list is known.
    pub there: bool,
    /// How many bytes it may take in all, if it said so.
    pub room_bytes: Option<u64>,
}

/// Why repairs wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    /// Not all lists have come since the start.
    Starting,
    /// Over a third of the nodes vanished.
    Outage,
}

impl Hold {
    /// A word for metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Outage => "outage",
        }
    }
}

/// How much a node counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counts {
    /// It is gone, or nothing is known of it.
    Gone,
    /// It is away for less than the grace period: what it holds counts.
    Away,
    /// It is there: it can also be given more.
    There,
}

#[derive(Debug)]
struct Known {
    counts: Counts,
    /// When it was last there; the start where that was before.
    last: Instant,
    /// Whether it was there since the start.
    heard: bool,
    weight: Option<Weight>,
    candidate: Candidate,
}

/// All nodes that are members.
#[derive(Debug)]
pub(super) struct Presence {
    grace: Duration,
    started: Instant,
    nodes: HashMap<PeerId, Known>,
    hold: Option<(Hold, Instant)>,
    there: u32,
}

impl Presence {
    pub(super) fn new(grace: Duration, started: Instant) -> Self {
        Self { grace, started, nodes: HashMap::new(), hold: None, there: 0 }
    }

    /// Takes in how all nodes are; those that are not named are members no more. Whether any counts otherwise than before.
    pub(super) fn see(&mut self, now: Instant, seen: &[Node]) -> bool {
        let before = (self.nodes.len(), self.there, self.hold.map(|(hold, _)| hold));
        let mut changed = false;
        let mut nodes = HashMap::with_capacity(seen.len());
        for node in seen {
            let weight_of = |before| node.room_bytes.map(|room| Weight::of_room(room, before)).or(before);
            let mut known = match self.nodes.remove(&node.peer) {
                Some(known) => known,
                None => Known {
                    counts: Counts::Gone,
                    last: self.started,
                    heard: false,
                    weight: None,
                    candidate: Candidate::new(node.peer, Weight::UNKNOWN),
                },
            };
            let weight = weight_of(known.weight);
            if weight != known.weight {
                known.weight = weight;
                known.candidate = Candidate::new(node.peer, weight.unwrap_or(Weight::UNKNOWN));
                changed = true;
            }
            if node.there {
                known.last = now;
                known.heard = true;
            }
            let counts = if node.there {
                Counts::There
            } else if known.heard && now.saturating_duration_since(known.last) <= self.grace {
                Counts::Away
            } else {
                Counts::Gone
            };
            changed |= counts != known.counts;
            known.counts = counts;
            nodes.insert(node.peer, known);
        }
        self.nodes = nodes;
        self.there = count(self.nodes.values().filter(|known| known.counts == Counts::There));
        self.look(now);
        changed || before != (self.nodes.len(), self.there, self.hold.map(|(hold, _)| hold))
    }

    fn look(&mut self, now: Instant) {
        let away = |known: &&Known| known.counts != Counts::There;
        let vanished = count(
            self.nodes
                .values()
                .filter(away)
                .filter(|known| now.saturating_duration_since(known.last) <= OUTAGE_HOLD),
        );
        let unheard = self.nodes.values().any(|known| !known.heard);
        let age = now.saturating_duration_since(self.started);
        let hold = if unheard && age <= self.grace {
            Some(Hold::Starting)
        } else if vanished > 1 && 3 * vanished > self.there + vanished {
            Some(Hold::Outage)
        } else {
            None
        };
        self.hold = match (hold, self.hold) {
            (Some(hold), Some((before, since))) if hold == before => Some((hold, since)),
            (Some(Hold::Starting), _) => Some((Hold::Starting, self.started + SETTLING.min(self.grace))),
            (Some(Hold::Outage), _) => Some((Hold::Outage, now)),
            (None, _) => None,
        };
    }

    /// Why repairs wait now.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.hold.map(|(hold, _)| hold)
    }

    /// Whether a content that was first heard of at `since` may be repaired now.
    pub(super) fn may_repair(&self, since: Instant) -> bool {
        self.hold.is_none_or(|(_, from)| since > from)
    }

    pub(super) fn counts(&self, peer: &PeerId) -> Counts {
        self.nodes.get(peer).map_or(Counts::Gone, |known| known.counts)
    }

    /// Nodes that count at least as much, as they are ranked.
    pub(super) fn candidates(&self, least: Counts) -> impl Iterator<Item = Candidate> {
        self.nodes.values().filter(move |known| known.counts >= least).map(|known| known.candidate)
    }

    /// The nodes that are there.
    pub(super) fn there(&self) -> impl Iterator<Item = PeerId> {
        self.nodes.iter().filter(|(_, known)| known.counts == Counts::There).map(|(peer, _)| *peer)
    }

    /// How many nodes are members, wherever they are.
    pub(super) fn members(&self) -> u32 {
        u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)
    }
}

fn count<'a>(nodes: impl Iterator<Item = &'a Known>) -> u32 {
    u32::try_from(nodes.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_mins(10);

    fn nodes(peers: &[PeerId], away: usize) -> Vec<Node> {
        let node =
            |(at, peer): (usize, &PeerId)| Node { peer: *peer, there: at >= away, room_bytes: Some(1 << 30) };
        peers.iter().enumerate().map(node).collect()
    }

    fn peers(count: usize) -> Vec<PeerId> {
        (0..count).map(|_| PeerId::random()).collect()
    }

    #[test]
    fn a_node_counts_for_the_grace_period_after_it_went_and_again_when_it_is_back() {
        let (peers, start) = (peers(9), Instant::now());
        let mut presence = Presence::new(GRACE, start);
        assert!(presence.see(start, &nodes(&peers, 0)));
        assert!(!presence.see(start, &nodes(&peers, 0)));
        assert!(presence.see(start + Duration::from_secs(1), &nodes(&peers, 1)));
        assert_eq!(presence.counts(&peers[0]), Counts::Away);
        assert!(!presence.see(start + GRACE, &nodes(&peers, 1)));
        assert!(presence.see(start + GRACE + Duration::from_secs(1), &nodes(&peers, 1)));
        assert_eq!((presence.counts(&peers[0]), presence.hold()), (Counts::Gone, None));
        assert_eq!(presence.members(), 9, "it is a member all the same");
        assert!(presence.see(start + 2 * GRACE, &nodes(&peers, 0)));
        assert_eq!(presence.counts(&peers[0]), Counts::There);
        assert!(presence.see(start + 2 * GRACE, &nodes(&peers[1..], 0)));
        assert_eq!(
            (presence.counts(&peers[0]), presence.members()),
            (Counts::Gone, 8),
            "at once when it left"
        );
    }

    #[test]
    fn after_a_start_repairs_wait_for_all_lists_and_for_the_grace_period_at_most() {
        let (peers, start) = (peers(9), Instant::now());
        let mut presence = Presence::new(GRACE, start);
        presence.see(start, &nodes(&peers, 9));
        assert_eq!(presence.hold(), Some(Hold::Starting));
        assert!(!presence.may_repair(start) && !presence.may_repair(start + SETTLING));
        presence.see(start + 2 * SETTLING, &nodes(&peers, 1));
        assert_eq!(presence.hold(), Some(Hold::Starting));
        assert!(presence.may_repair(start + SETTLING + Duration::from_secs(1)), "a new file");
        let mut other = Presence::new(GRACE, start);
        other.see(start + SETTLING, &nodes(&peers, 0));
        assert_eq!(other.hold(), None);
        presence.see(start + GRACE + Duration::from_secs(1), &nodes(&peers, 1));
        assert_eq!(presence.hold(), None);
        assert!(presence.may_repair(start));
    }

    #[test]
    fn when_over_a_third_vanish_together_repairs_wait_until_they_are_back_or_it_has_lasted() {
        let (peers, start) = (peers(12), Instant::now());
        let mut presence = Presence::new(GRACE, start);
        presence.see(start, &nodes(&peers, 0));
        let last = start + 2 * GRACE;
        let late = last + GRACE + Duration::from_secs(1);
        presence.see(last, &nodes(&peers, 0));
        presence.see(late, &nodes(&peers, 4));
        assert_eq!(
            (presence.hold(), presence.counts(&peers[0])),
            (None, Counts::Gone),
            "a third is not over a third"
        );
        presence.see(late, &nodes(&peers, 5));
        assert_eq!(presence.hold(), Some(Hold::Outage));
        assert!(!presence.may_repair(late) && presence.may_repair(late + Duration::from_secs(1)));
        presence.see(late + GRACE, &nodes(&peers, 2));
        assert_eq!(presence.hold(), None);
        presence.see(late + GRACE, &nodes(&peers, 6));
        assert_eq!(presence.hold(), Some(Hold::Outage));
        presence.see(late + GRACE + OUTAGE_HOLD + Duration::from_secs(1), &nodes(&peers, 6));
        assert_eq!(presence.hold(), None, "nobody came back");
    }

    #[test]
    fn after_a_power_cut_the_first_super_peer_to_start_does_not_take_the_others_for_lost() {
        let (peers, start) = (peers(12), Instant::now());
        let mut presence = Presence::new(GRACE, start);
        presence.see(start, &nodes(&peers, 12));
        presence.see(start + GRACE + Duration::from_secs(1), &nodes(&peers, 8));
        assert_eq!(presence.hold(), Some(Hold::Outage));
    }
}
