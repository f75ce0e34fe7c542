//! How the members are, numbered: each change that is worth telling gets the next number, and only the latest is kept.
//!
//! What matters at once is told at once: the state, the name and role, the addresses, the version, whether a relay is in between.
//! What changes all the time, files and bytes and the last sign of life, is told at most every [`TELL_AGAIN_AFTER`], and
//! only where it differs by a sensible amount from what was told last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::messages::index::{ListedMember, MemberState};

use super::PAGE_MEMBERS;

/// How long after a member was told of its files and bytes are told again.
pub const TELL_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// By how much the last sign of life of a member must differ to be told for its own sake. That a member is online says
/// that it was seen just now; the exact moment comes with the change of its state.
const SEEN_DIFFERS_SECONDS: u64 = 300;
/// Bytes differ where it is by this part of what was told …
const BYTES_DIFFER_PART: u64 = 64;
/// … and by this much: a disk fills and empties by itself.
const BYTES_DIFFER: u64 = 64 << 20;

/// What was told of the members.
#[derive(Debug, Default)]
pub struct Conditions {
    number: u64,
    members: HashMap<PeerId, Told>,
    order: BTreeMap<u64, PeerId>,
    /// When what is held back is told.
    due: BTreeSet<(Instant, PeerId)>,
}

#[derive(Debug)]
struct Told {
    number: u64,
    member: ListedMember,
    at: Instant,
    /// What has changed since and is not told yet, and when it will be.
    held_back: Option<(Instant, ListedMember)>,
}

/// How a member differs from what was told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    None,
    /// Worth telling when its time has come.
    Later,
    AtOnce,
}

impl Conditions {
    /// The latest number.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Takes note of how a member is now.
    pub fn note(&mut self, now: Instant, member: ListedMember) {
        let peer = member.peer;
        let Some(told) = self.members.get_mut(&peer) else { return self.tell(now, member) };
        match difference(&told.member, &member) {
            Difference::AtOnce => self.tell(now, member),
            Difference::Later if now >= told.at + TELL_AGAIN_AFTER => self.tell(now, member),
            Difference::Later => {
                let at = told.at + TELL_AGAIN_AFTER;
                told.held_back = Some((at, member));
                self.due.insert((at, peer));
            }
            Difference::None => {
                if let Some((at, _)) = told.held_back.take() {
                    self.due.remove(&(at, peer));
                }
            }
        }
    }

    /// Tells what was held back long enough.
    pub fn tick(&mut self, now: Instant) {
        while let Some((at, peer)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, peer));
            let held_back = self.members.get_mut(&peer).and_then(|told| told.held_back.take());
            if let Some((_, member)) = held_back {
                self.tell(now, member);
            }
        }
    }

    /// When [`Self::tick`] is next needed.
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether a member is known to be one no more.
    pub fn has_ended(&self, peer: &PeerId) -> bool {
        let ended = |told: &Told| matches!(told.member.state, MemberState::Left | MemberState::Revoked);
        self.members.get(peer).is_some_and(ended)
    }

    /// The members whose condition was numbered after `seen`, at most [`PAGE_MEMBERS`], and the number up to which that
    /// is all.
    pub fn after(&self, seen: u64) -> (Vec<ListedMember>, u64) {
        let beyond = (std::ops::Bound::Excluded(seen), std::ops::Bound::Unbounded);
        let mut members = Vec::new();
        for (number, peer) in self.order.range(beyond) {
            if members.len() == PAGE_MEMBERS {
                return (members, number - 1);
            }
            members.extend(self.members.get(peer).map(|told| told.member.clone()));
        }
        (members, self.number)
    }

    fn tell(&mut self, now: Instant, member: ListedMember) {
        let peer = member.peer;
        self.number += 1;
        let told = Told { number: self.number, member, at: now, held_back: None };
        self.order.insert(self.number, peer);
        if let Some(before) = self.members.insert(peer, told) {
            self.order.remove(&before.number);
            if let Some((at, _)) = before.held_back {
                self.due.remove(&(at, peer));
            }
        }
    }
}

fn difference(told: &ListedMember, now: &ListedMember) -> Difference {
    let weighty = |member: &ListedMember| (member.state, member.role, member.relayed);
    if weighty(told) != weighty(now)
        || told.name != now.name
        || told.version != now.version
        || told.addresses != now.addresses
    {
        return Difference::AtOnce;
    }
    let bytes_differ = |told: u64, now: u64| {
        let difference = told.abs_diff(now);
        difference >= BYTES_DIFFER && difference >= told / BYTES_DIFFER_PART
    };
    let seen_differs = match (told.last_seen, now.last_seen) {
        (Some(told), Some(now)) => told.0.abs_diff(now.0) >= SEEN_DIFFERS_SECONDS,
        (told, now) => told.is_some() != now.is_some(),
    };
    if told.files != now.files
        || bytes_differ(told.stored_bytes, now.stored_bytes)
        || bytes_differ(told.free_bytes, now.free_bytes)
        || seen_differs
    {
        return Difference::Later;
    }
    Difference::None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use quarta_protocols::{
        credentials::{Role, UnixSeconds},
        names::MemberName,
    };

    use super::*;

    fn member(seed: u8) -> ListedMember {
        let key = libp2p::identity::Keypair::ed25519_from_bytes([seed + 1; 32]).unwrap();
        ListedMember {
            peer: key.public().to_peer_id(),
            name: MemberName::new(&format!("filial-{seed}")).unwrap(),
            role: Role::Node,
            state: MemberState::Online,
            last_seen: Some(UnixSeconds(1_000_000)),
            version: "1".into(),
            files: 10,
            stored_bytes: 1 << 30,
            free_bytes: 1 << 34,
            addresses: Vec::new(),
            relayed: false,
        }
    }

    #[test]
    fn a_change_of_state_is_told_at_once_with_everything_that_was_held_back() {
        let now = Instant::now();
        let mut conditions = Conditions::default();
        conditions.note(now, member(0));
        conditions.note(now, ListedMember { files: 11, ..member(0) });
        assert_eq!(conditions.number(), 1);
        let offline = ListedMember { files: 11, state: MemberState::Offline, ..member(0) };
        conditions.note(now, offline.clone());
        assert_eq!(conditions.after(1), (vec![offline], 2));
        assert_eq!(conditions.next_wakeup(), None);
    }

    #[test]
    fn who_has_left_is_known_to_have_ended() {
        let now = Instant::now();
        let mut conditions = Conditions::default();
        conditions.note(now, member(0));
        conditions.note(now, ListedMember { state: MemberState::Left, ..member(1) });
        assert!(!conditions.has_ended(&member(0).peer) && conditions.has_ended(&member(1).peer));
    }

    #[test]
    fn files_are_told_at_most_every_five_seconds_and_to_the_last() {
        let now = Instant::now();
        let mut conditions = Conditions::default();
        conditions.note(now, member(0));
        for files in 11..100 {
            conditions.note(now, ListedMember { files, ..member(0) });
        }
        assert_eq!(conditions.number(), 1);
        let due = conditions.next_wakeup().unwrap();
        assert_eq!(due, now + TELL_AGAIN_AFTER);
        conditions.tick(due);
        assert_eq!(conditions.after(1), (vec![ListedMember { files: 99, ..member(0) }], 2));
        assert_eq!(conditions.next_wakeup(), None);
    }

    #[test]
    fn an_idle_network_says_nothing() {
        let start = Instant::now();
        let mut conditions = Conditions::default();
        for second in 0..300_u64 {
            for seed in 0..72 {
                let idle = member(seed);
                let seen = idle.last_seen.map(|seen| UnixSeconds(seen.0 + second % SEEN_DIFFERS_SECONDS));
                // Logs grow, and are rotated.
                let free_bytes = idle.free_bytes - (second % 60) * (1 << 20);
                conditions.note(
                    start + Duration::from_secs(second),
                    ListedMember { last_seen: seen, free_bytes, ..idle },
                );
            }
            conditions.tick(start + Duration::from_secs(second));
        }
        assert_eq!(conditions.number(), 72);
    }

    proptest! {
        #[test]
        fn whoever_reads_on_from_where_it_was_ends_with_the_latest_of_everybody(
            notes in prop::collection::vec((0_u8..100, 0_u64..5, 0_u8..3, 0_u64..4000, any::<bool>()), 1..300),
        ) {
            let mut now = Instant::now();
            let mut conditions = Conditions::default();
            let (mut latest, mut heard) = (HashMap::new(), HashMap::new());
            let mut seen = 0;
            for (seed, files, state, wait, reads) in notes {
                now += Duration::from_millis(wait);
                let state = [MemberState::Online, MemberState::Suspect, MemberState::Offline][usize::from(state)];
                let noted = ListedMember { files, state, ..member(seed) };
                latest.insert(noted.peer, noted.clone());
                conditions.note(now, noted);
                conditions.tick(now);
                if reads {
                    let (members, number) = conditions.after(seen);
                    prop_assert!(members.len() <= PAGE_MEMBERS && number >= seen);
                    heard.extend(members.into_iter().map(|member| (member.peer, member)));
                    seen = number;
                }
            }
            conditions.tick(now + TELL_AGAIN_AFTER);
            while seen < conditions.number() {
                let (members, number) = conditions.after(seen);
                heard.extend(members.into_iter().map(|member| (member.peer, member)));
                prop_assert!(number > seen);
                seen = number;
            }
            prop_assert_eq!(heard, latest);
        }
    }
}
