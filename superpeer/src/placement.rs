//! Where copies belong: how many there should be of each content, on which nodes, and which super-peer sees to it.
//!
//! Nodes are ranked for each content by weighted rendezvous hashing: every node draws a number from the hash of itself
//! and the content, scaled by its weight, and the highest come first. What that gives, and a ring or a table would not:
//!
//! - **No state.** Any super-peer computes the same ranking from the same nodes, before it has talked to any other.
//! - **Nothing moves that need not.** A node that comes or goes changes its own places in the rankings only: what it
//!   takes over is its fair share, and what it leaves is what it had.
//! - **Fair by capacity.** A node of twice the weight is first for twice as many contents.
//!
//! Ranking costs a hash and a logarithm for each node: some microseconds for a network of a hundred.

use libp2p::PeerId;
use quarta_protocols::ids::ContentId;

/// How much of the network's copies a node takes on, relative to the others: a power of two.
///
/// Rounded as much as that because what a node has room for changes with every file on its disk, and no copy should
/// move on account of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// What a node weighs that says nothing of its room.
    pub const UNKNOWN: Self = Self(0);

    /// The weight for so much room, in bytes. `before` is kept unless the room has changed by more than half of it.
    pub fn of_room(room_bytes: u64, before: Option<Self>) -> Self {
        let exact = |weight: Self| 2_f64.powi(i32::try_from(weight.0).unwrap_or(i32::MAX));
        if let Some(before) = before.filter(|before| before.0 > 0) {
            let times = room_bytes as f64 / exact(before);
            // Its own range is 1 to 2; beyond that by half on either side, it is kept.
            if (2.0 / 3.0..3.0).contains(&times) {
                return before;
            }
        }
        Self(room_bytes.max(1).ilog2())
    }

    fn factor(self) -> f64 {
        2_f64.powi(i32::try_from(self.0).unwrap_or(i32::MAX))
    }
}

/// A node that can be ranked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The node.
    pub peer: PeerId,
    seed: [u64; 2],
    factor: f64,
}

impl Candidate {
    /// A node of this weight.
    pub fn new(peer: PeerId, weight: Weight) -> Self {
        Self { peer, seed: seed_of(&peer), factor: weight.factor() }
    }

    fn drawn(&self, content: [u64; 2]) -> u64 {
        mix(mix(self.seed[0] ^ content[0]) ^ self.seed[1].wrapping_add(content[1]))
    }

    /// How well the node suits a content; higher is better, and above zero.
    fn score(&self, content: [u64; 2]) -> f64 {
        // In the middle of one of 2^53 equal parts of (0, 1): neither end, so that the logarithm is finite and not zero.
        let uniform = ((self.drawn(content) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -self.factor / uniform.ln()
    }
}

/// The nodes in the order in which they should hold a content, best first.
pub fn rank(content: &ContentId, candidates: impl IntoIterator<Item = Candidate>) -> Vec<PeerId> {
    let content = words(content);
    let mut scored: Vec<(f64, PeerId)> =
        candidates.into_iter().map(|candidate| (candidate.score(content), candidate.peer)).collect();
    scored.sort_unstable_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
    scored.into_iter().map(|(_, peer)| peer).collect()
}

/// Which of these super-peers plans for a content; none of none.
///
/// Each asks with those that it sees. Those that see each other agree; those that do not may plan for one content both,
/// which costs copies that are trimmed later and loses none (see [`crate::replication`]).
pub fn planner(content: &ContentId, superpeers: impl IntoIterator<Item = Candidate>) -> Option<PeerId> {
    let content = words(content);
    let drawn = superpeers.into_iter().map(|superpeer| (superpeer.drawn(content), superpeer.peer));
    drawn.max().map(|(_, peer)| peer)
}

/// How many copies there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    nodes_per_copy: u32,
    floor: u32,
    ceiling: u32,
}

/// Numbers of copies that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCopies {
    /// No nodes for a copy.
    #[error("nodes_per_copy is 0, and at least 1 is possible")]
    NoNodes,
    /// No copy at all.
    #[error("floor is 0, and there is at least the owner's own copy")]
    NoFloor,
    /// A floor above the ceiling.
    #[error("floor is {floor}, above a ceiling of {ceiling}")]
    FloorAboveCeiling {
        /// The floor.
        floor: u32,
        /// The ceiling.
        ceiling: u32,
    },
}

/// One copy for that many nodes: what the design gives as a third.
pub const NODES_PER_COPY: u32 = 3;
/// Below that many copies a file is in danger: of two, one dies and the other turns out to be damaged.
pub const FLOOR: u32 = 3;
/// More copies than that make no file safer, and a file that everybody wants is spread by those who fetch it.
pub const CEILING: u32 = 32;

impl Default for Copies {
    fn default() -> Self {
        Self { nodes_per_copy: NODES_PER_COPY, floor: FLOOR, ceiling: CEILING }
    }
}

impl Copies {
    /// One copy for every `nodes_per_copy` nodes, at least `floor` where there are as many nodes, and at most `ceiling`.
    ///
    /// # Errors
    /// [`NotCopies`].
    pub const fn new(nodes_per_copy: u32, floor: u32, ceiling: u32) -> Result<Self, NotCopies> {
        if nodes_per_copy == 0 {
            return Err(NotCopies::NoNodes);
        }
        if floor == 0 {
            return Err(NotCopies::NoFloor);
        }
        if floor > ceiling {
            return Err(NotCopies::FloorAboveCeiling { floor, ceiling });
        }
        Ok(Self { nodes_per_copy, floor, ceiling })
    }

    /// The same with at most so many copies; 1 leaves every file with its owner and its readers. 0 counts as 1.
    #[must_use]
    pub fn at_most(self, ceiling: u32) -> Self {
        let ceiling = ceiling.max(1);
        Self { ceiling: self.ceiling.min(ceiling), floor: self.floor.min(ceiling), ..self }
    }

    /// How many copies a file has before any file gets more, in a network of so many nodes.
    pub fn floor(&self, nodes: u32) -> u32 {
        self.floor.min(nodes)
    }

    /// How many copies a file should have in a network of so many nodes, its owner's and its readers' included.
    pub fn target(&self, nodes: u32) -> u32 {
        nodes.div_ceil(self.nodes_per_copy).max(self.floor(nodes)).min(self.ceiling)
    }
}

/// What a member's draws begin with: of its own, so that who has many contents in a row is not the one with a low id.
fn seed_of(peer: &PeerId) -> [u64; 2] {
    two_words(&blake3::derive_key("quarta 2026 placement v1", &peer.to_bytes()))
}

fn words(content: &ContentId) -> [u64; 2] {
    two_words(content.as_bytes())
}

fn two_words(bytes: &[u8; 32]) -> [u64; 2] {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    [word(0), word(8)]
}

/// `SplitMix64`'s finaliser: every bit of the input changes half of the output's.
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use libp2p::identity::Keypair;
    use proptest::prelude::*;

    use super::*;

    fn peer(number: usize) -> PeerId {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id()
    }

    fn content(number: u64) -> ContentId {
        ContentId::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    /// Nodes with room for 2^20 to 2^23 bytes.
    fn nodes(rooms: &[u8]) -> Vec<Candidate> {
        let node = |(number, room): (usize, &u8)| {
            Candidate::new(peer(number), Weight::of_room(1 << (20 + u32::from(*room)), None))
        };
        rooms.iter().enumerate().map(node).collect()
    }

    /// Who holds each of `contents`, with so many copies each.
    fn places(nodes: &[Candidate], copies: usize, contents: u64) -> Vec<HashSet<PeerId>> {
        let of = |number| {
            rank(&content(number), nodes.iter().copied()).into_iter().take(copies).collect::<HashSet<_>>()
        };
        (0..contents).map(of).collect()
    }

    fn moved(before: &[HashSet<PeerId>], after: &[HashSet<PeerId>]) -> usize {
        before.iter().zip(after).map(|(before, after)| after.difference(before).count()).sum()
    }

    /// The share of all contents that a node holds where copies are shared by weight, and nobody holds one twice.
    fn fair_share(nodes: &[Candidate], of: &Candidate, copies: usize) -> f64 {
        let mut by_weight: Vec<f64> = nodes.iter().map(|node| node.factor).collect();
        by_weight.sort_unstable_by(|one, other| other.total_cmp(one));
        let (mut left, mut weight) = (copies as f64, by_weight.iter().sum::<f64>());
        for full in by_weight {
            if full * left / weight <= 1.0 {
                break;
            }
            (left, weight) = (left - 1.0, weight - full);
        }
        (of.factor * left / weight).min(1.0)
    }

    /// So many that the share of a small node among large ones is some hundred copies, and chance far below the bound.
    const CONTENTS: u64 = 6000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_node_that_goes_moves_exactly_the_copies_it_had(
            rooms in prop::collection::vec(0_u8..4, 5..20), gone in any::<prop::sample::Index>(), copies in 1_usize..5
        ) {
            let before = nodes(&rooms);
            let mut after = before.clone();
            let gone = after.remove(gone.index(before.len())).peer;
            let (was, is) = (places(&before, copies, CONTENTS), places(&after, copies, CONTENTS));
            let had = was.iter().filter(|holders| holders.contains(&gone)).count();
            prop_assert_eq!(moved(&was, &is), had);
        }

        #[test]
        fn a_node_that_joins_moves_at_most_half_more_than_its_fair_share(
            rooms in prop::collection::vec(0_u8..4, 6..20), copies in 1_usize..4
        ) {
            let after = nodes(&rooms);
            let before = &after[..after.len() - 1];
            let (was, is) = (places(before, copies, CONTENTS), places(&after, copies, CONTENTS));
            let moved = moved(&was, &is);
            let newcomer = after.last().unwrap();
            prop_assert!(is.iter().filter(|holders| holders.contains(&newcomer.peer)).count() == moved,
                "nothing moves but to the newcomer");
            // What is unavoidable is what it takes until the newcomer has its share by weight.
            let fair = fair_share(&after, newcomer, copies) * CONTENTS as f64;
            prop_assert!(moved as f64 <= 1.5 * fair, "{moved} moved, {fair} are fair");
        }

        #[test]
        fn a_target_that_grows_or_shrinks_keeps_the_copies_that_stay(
            rooms in prop::collection::vec(0_u8..4, 4..20), copies in 1_usize..4, number in any::<u64>()
        ) {
            let nodes = nodes(&rooms);
            let ranked = rank(&content(number), nodes.iter().copied());
            prop_assert_eq!(ranked.len(), nodes.len());
            let mut backwards = nodes.clone();
            backwards.reverse();
            prop_assert_eq!(&rank(&content(number), backwards), &ranked, "whatever the order of the nodes");
            prop_assert!(ranked[..copies].iter().all(|peer| ranked[..=copies].contains(peer)));
        }
    }

    #[test]
    fn a_third_of_the_nodes_keep_a_file_and_never_too_few_or_too_many() {
        let nodes = [0, 1, 2, 3, 9, 12, 70, 96, 10_000];
        let expected = [(0, 0), (1, 1), (2, 2), (3, 3), (3, 3), (3, 4), (3, 24), (3, 32), (3, 32)];
        let copies = Copies::default();
        assert_eq!(copies.at_most(1).target(70), 1);
        assert_eq!(nodes.map(|nodes| (copies.floor(nodes), copies.target(nodes))), expected);
    }

    #[test]
    fn copies_are_shared_by_weight() {
        let nodes = nodes(&[0, 0, 1, 2, 3]);
        let places = places(&nodes, 1, 20_000);
        for node in &nodes {
            let share = node.factor / nodes.iter().map(|node| node.factor).sum::<f64>();
            let held = places.iter().filter(|holders| holders.contains(&node.peer)).count() as f64 / 20_000.0;
            assert!((held / share - 1.0).abs() < 0.1, "{held} instead of {share}");
        }
    }

    #[test]
    fn every_content_has_one_planner_among_those_who_see_each_other_and_they_share_the_work() {
        let superpeers: Vec<Candidate> =
            (100..103).map(|number| Candidate::new(peer(number), Weight::UNKNOWN)).collect();
        let mut planned = [0; 3];
        for number in 0..3000 {
            let planner = |from: &[Candidate]| planner(&content(number), from.iter().copied()).unwrap();
            let chosen = planner(&superpeers);
            let mut backwards = superpeers.clone();
            backwards.reverse();
            assert_eq!(planner(&backwards), chosen);
            planned[superpeers.iter().position(|one| one.peer == chosen).unwrap()] += 1;
            let kept = chosen == superpeers[0].peer || planner(&superpeers[1..]) == chosen;
            assert!(kept, "only the lost one's work changes hands");
        }
        assert!(planned.iter().all(|count| (800..1200).contains(count)), "{planned:?}");
        assert_eq!(super::planner(&content(1), []), None);
    }

    #[test]
    fn a_weight_stays_while_room_wavers_and_follows_when_it_really_changes() {
        let weight = Weight::of_room(1 << 30, None);
        for room in [(1 << 30) - (1 << 28), (1 << 31) + (1 << 28), 1 << 30] {
            assert_eq!(Weight::of_room(room, Some(weight)), weight);
        }
        assert_eq!(Weight::of_room(1 << 32, Some(weight)), Weight(32));
        assert_eq!(Weight::of_room(1 << 28, Some(weight)), Weight(28));
        assert_eq!(Weight::of_room(0, None), Weight::UNKNOWN);
    }

    #[test]
    fn numbers_of_copies_that_contradict_each_other_are_refused() {
        assert_eq!(Copies::new(0, 1, 1), Err(NotCopies::NoNodes));
        assert_eq!(Copies::new(3, 0, 1), Err(NotCopies::NoFloor));
        assert_eq!(Copies::new(3, 4, 3), Err(NotCopies::FloorAboveCeiling { floor: 4, ceiling: 3 }));
        assert_eq!(Copies::new(3, 3, 32), Ok(Copies::default()));
    }
}
