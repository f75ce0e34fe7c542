//! Who may hold a content when no super-peer can be asked: those who were its sources lately, its owner, then everybody
//! else who was there lately. Pure.
//!
//! Each is asked directly what it has, [`ASKED_AT_ONCE`] at a time, so that no index is needed; the search ends soon
//! after the first one is found, since a fetch begins with one source and looks for more by itself.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::messages::index::MemberState;

/// Members that are asked at a time: each may be a dial that gets no answer.
pub const ASKED_AT_ONCE: usize = 8;
/// Members that one search asks at most: beyond that a file is not there, for all that can be found out.
pub const ASKED_MAX: usize = 128;
/// Sources that are enough.
pub const ENOUGH: usize = 8;
/// How long a search goes on after its first find.
pub const AFTER_THE_FIRST: Duration = Duration::from_millis(200);
/// How long a search without a find may take.
pub const SEARCH_WITHIN: Duration = Duration::from_secs(3);

/// A member that could be asked, as it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// How it was.
    pub state: MemberState,
    /// When it last answered, in seconds since 1970.
    pub last_seen: Option<u64>,
}

/// In which order members are asked for a content: `remembered` sources, the latest first, then the owner where it is known, then those
/// that were online, then the others by when they were last there. Nobody twice, and nobody whose membership has ended.
pub fn order(remembered: &[PeerId], owner: Option<PeerId>, members: &[Candidate]) -> Vec<PeerId> {
    let ended = |state| matches!(state, MemberState::Left | MemberState::Revoked);
    let living: Vec<&Candidate> = members.iter().filter(|member| !ended(member.state)).collect();
    let mut others = living.clone();
    others.sort_by_key(|member| (member.state != MemberState::Online, std::cmp::Reverse(member.last_seen)));
    let known: HashSet<PeerId> = living.iter().map(|member| member.peer).collect();
    let mut named = HashSet::new();
    remembered
        .iter()
        .copied()
        .chain(owner)
        .filter(|peer| known.contains(peer))
        .chain(others.iter().map(|member| member.peer))
        .filter(|peer| named.insert(*peer))
        .collect()
}

/// A search under way.
#[derive(Debug)]
pub struct Search {
    queue: VecDeque<PeerId>,
    asking: usize,
    found: usize,
    until: Instant,
}

impl Search {
    /// Begins to search among these, in this order.
    pub fn new(now: Instant, order: impl IntoIterator<Item = PeerId>) -> Self {
        let queue = order.into_iter().take(ASKED_MAX).collect();
        Self { queue, asking: 0, found: 0, until: now + SEARCH_WITHIN }
    }

    /// Whom to ask now; none where enough are being asked, or nobody is left.
    pub fn next_to_ask(&mut self) -> Option<PeerId> {
        let free = self.asking < ASKED_AT_ONCE && self.found < ENOUGH;
        let next = if free { self.queue.pop_front() } else { None };
        self.asking += usize::from(next.is_some());
        next
    }

    /// One has answered or could not be reached; `holds` something of the content.
    pub fn answered(&mut self, now: Instant, holds: bool) {
        self.asking = self.asking.saturating_sub(1);
        self.found += usize::from(holds);
        if holds {
            self.until = self.until.min(now + AFTER_THE_FIRST);
        }
    }

    /// When to end with what there is.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Whether nothing more can come.
    pub fn is_over(&self) -> bool {
        self.asking == 0 && (self.queue.is_empty() || self.found >= ENOUGH)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(state: MemberState, last_seen: Option<u64>) -> Candidate {
        Candidate { peer: PeerId::random(), state, last_seen }
    }

    #[test]
    fn known_sources_go_first_then_the_owner_then_whoever_was_there_latest() {
        let owner = candidate(MemberState::Offline, Some(1));
        let source = candidate(MemberState::Suspect, Some(2));
        let online = candidate(MemberState::Online, Some(3));
        let lately = candidate(MemberState::Offline, Some(9));
        let never = candidate(MemberState::Offline, None);
        let members = [never, lately, owner, online, source];
        let order = order(&[source.peer, owner.peer], Some(owner.peer), &members);
        assert_eq!(order, [source, owner, online, lately, never].map(|member| member.peer));
    }

    #[test]
    fn nobody_whose_membership_has_ended_is_asked_even_as_owner_or_source() {
        let (left, revoked) = (candidate(MemberState::Left, None), candidate(MemberState::Revoked, None));
        assert_eq!(order(&[left.peer], Some(revoked.peer), &[left, revoked]), []);
    }

    #[test]
    fn a_search_ends_soon_after_its_first_find() {
        let now = Instant::now();
        let mut search = Search::new(now, [PeerId::random(), PeerId::random()]);
        assert!(
            search.next_to_ask().is_some()
                && search.next_to_ask().is_some()
                && search.next_to_ask().is_none()
        );
        search.answered(now, true);
        assert_eq!(search.until(), now + AFTER_THE_FIRST);
        assert!(!search.is_over());
        search.answered(now, false);
        assert!(search.is_over());
    }

    proptest! {
        #[test]
        fn as_many_are_asked_as_may_be_and_each_once(answers in prop::collection::vec(any::<bool>(), 0..300)) {
            let now = Instant::now();
            let peers: Vec<PeerId> = std::iter::repeat_with(PeerId::random).take(answers.len()).collect();
            let mut search = Search::new(now, peers.iter().copied());
            let (mut asked, mut under_way, mut found) = (HashSet::new(), 0, 0);
            for holds in answers {
                while let Some(peer) = search.next_to_ask() {
                    prop_assert!(asked.insert(peer));
                    under_way += 1;
                    prop_assert!(under_way <= ASKED_AT_ONCE);
                }
                if under_way == 0 {
                    break;
                }
                under_way -= 1;
                found += usize::from(holds);
                search.answered(now, holds);
            }
            prop_assert!(asked.len() <= ASKED_MAX && found < ENOUGH + ASKED_AT_ONCE);
        }
    }
}
