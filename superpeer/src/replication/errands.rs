//! Copies under way: who was told to fetch what, how much more may be told now, and who is spared for a while.
//!
//! Three bounds keep repairs from starving people's transfers, beside the low priority that nodes give them: contents
//! that one node fetches at a time, contents that the network does, and bytes a second over all.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::ids::ContentId;

/// Contents that one node is told to fetch at a time: enough that it never idles between two small ones.
pub const ERRANDS_PER_NODE: usize = 16;
/// Contents that the network is told to fetch at a time: bounds what is remembered of them.
pub const ERRANDS_MAX: usize = 4096;
/// How long a copy may take beside its bytes, until its node is told once more.
const PATIENCE: Duration = Duration::from_secs(30);
/// How fast a copy comes at least, in bytes a second: a file over a domestic line that others use too.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 * 1024;
/// How often a node is told before another one is.
const TELLINGS: u8 = 3;
/// After how long without a move a node with its hands full is taken to be slow.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// For how long a node is spared a content that it did not fetch.
const AVOIDED_FOR: Duration = Duration::from_mins(10);
/// For how long a node is given nothing that said that it has no room.
const FULL_FOR: Duration = Duration::from_mins(10);
/// For how long a node is given nothing that was busy, or did not answer.
const BUSY_FOR: Duration = Duration::from_secs(5);
/// Savings of the rate: what may be told at once after a pause.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Errand {
    peer: PeerId,
    size_bytes: u64,
    until: Instant,
    tellings: u8,
}

/// What one node has to do.
#[derive(Debug, Clone, Copy)]
struct Hands {
    errands: usize,
    /// When it was last given something, or was done with something.
    moved: Instant,
}

/// All copies under way.
#[derive(Debug)]
pub(super) struct Errands {
    under_way: HashMap<ContentId, Vec<Errand>>,
    count: usize,
    per_node: HashMap<PeerId, Hands>,
    avoided: HashMap<(ContentId, PeerId), Instant>,
    full: HashMap<PeerId, Instant>,
    busy: HashMap<PeerId, Instant>,
    /// Bytes a second over all; none without a bound.
    rate: Option<u64>,
    /// Bytes that may be told now; below zero after a large file.
    budget: f64,
    filled: Instant,
}

impl Errands {
    /// `rate`: bytes a second; none for no bound.
    pub(super) fn new(rate: Option<u64>, now: Instant) -> Self {
        Self {
            under_way: HashMap::new(),
            count: 0,
            per_node: HashMap::new(),
            avoided: HashMap::new(),
            full: HashMap::new(),
            busy: HashMap::new(),
            rate,
            budget: rate.unwrap_or(0) as f64,
            filled: now,
        }
    }

    /// Lets time pass; the rate is shared by so many super-peers. Gives what has to be told once more.
    pub(super) fn pass(&mut self, now: Instant, sharers: usize) -> Vec<(PeerId, ContentId, u64)> {
        if let Some(rate) = self.rate {
            let own = rate as f64 / sharers.max(1) as f64;
            let passed = now.saturating_duration_since(self.filled).as_secs_f64();
            self.budget = (self.budget + own * passed).min(own * BURST.as_secs_f64());
        }
        self.filled = now;
        self.avoided.retain(|_, until| *until > now);
        self.full.retain(|_, until| *until > now);
        self.busy.retain(|_, until| *until > now);
        let mut again = Vec::new();
        let mut given_up = Vec::new();
        for (content, errands) in &mut self.under_way {
            for errand in errands.iter_mut().filter(|errand| errand.until <= now) {
                if errand.tellings < TELLINGS {
                    errand.tellings += 1;
                    errand.until = now + patience(errand.size_bytes);
                    again.push((errand.peer, *content, errand.size_bytes));
                } else {
                    given_up.push((*content, errand.peer));
                }
            }
        }
        for (content, peer) in given_up {
            self.end(now, &content, &peer);
            self.avoided.insert((content, peer), now + AVOIDED_FOR);
        }
        again
    }

    /// Whether anything at all may be told now.
    pub(super) fn has_budget(&self) -> bool {
        self.count < ERRANDS_MAX && (self.rate.is_none() || self.budget > 0.0)
    }

    /// Whether this node can take one more now.
    pub(super) fn has_hands(&self, peer: &PeerId) -> bool {
        self.per_node.get(peer).is_none_or(|hands| hands.errands < ERRANDS_PER_NODE)
    }

    /// Whether this node has all hands full and does not get on, so that a content in danger does not wait for it.
    pub(super) fn is_stuck(&self, now: Instant, peer: &PeerId) -> bool {
        let stuck = |hands: &Hands| now.saturating_duration_since(hands.moved) >= STUCK_AFTER;
        !self.has_hands(peer) && self.per_node.get(peer).is_some_and(stuck)
    }

    /// Whether this node is not to be given this content for now.
    pub(super) fn is_spared(&self, content: &ContentId, peer: &PeerId) -> bool {
        self.busy.contains_key(peer) || self.is_unfit(content, peer)
    }

    /// Whether another node should have this content: this one has no room for it, or does not get it.
    pub(super) fn is_unfit(&self, content: &ContentId, peer: &PeerId) -> bool {
        self.full.contains_key(peer) || self.avoided.contains_key(&(*content, *peer))
    }

    /// Takes note that a node is told to fetch a content.
    pub(super) fn begin(&mut self, now: Instant, content: ContentId, peer: PeerId, size_bytes: u64) {
        let errands = self.under_way.entry(content).or_default();
        if errands.iter().any(|errand| errand.peer == peer) {
            return;
        }
        errands.push(Errand { peer, size_bytes, until: now + patience(size_bytes), tellings: 1 });
        self.count += 1;
        let hands = self.per_node.entry(peer).or_insert(Hands { errands: 0, moved: now });
        *hands = Hands { errands: hands.errands + 1, moved: now };
        self.budget -= size_bytes as f64;
    }

    /// Takes note that a copy is complete, or not wanted of this node any more.
    pub(super) fn end(&mut self, now: Instant, content: &ContentId, peer: &PeerId) {
        let Some(errands) = self.under_way.get_mut(content) else { return };
        let Some(at) = errands.iter().position(|errand| errand.peer == *peer) else { return };
        errands.swap_remove(at);
        if errands.is_empty() {
            self.under_way.remove(content);
        }
        self.count -= 1;
        if let Some(hands) = self.per_node.get_mut(peer) {
            *hands = Hands { errands: hands.errands - 1, moved: now };
            if hands.errands == 0 {
                self.per_node.remove(peer);
            }
        }
    }

    /// Takes note that a node cannot take a content: it is full, or else busy or silent.
    pub(super) fn refused(&mut self, now: Instant, content: &ContentId, peer: PeerId, full: bool) {
        self.end(now, content, &peer);
        if full {
            self.full.insert(peer, now + FULL_FOR);
        } else {
            self.busy.insert(peer, now + BUSY_FOR);
        }
    }

    /// Gives up what nodes were told that do not count any more. One that is away for a moment goes on with what it has
    /// begun when it is back.
    pub(super) fn keep_to(&mut self, now: Instant, is_there: impl Fn(&PeerId) -> bool) {
        let gone: Vec<(ContentId, PeerId)> = self
            .under_way
            .iter()
            .flat_map(|(content, errands)| errands.iter().map(|errand| (*content, errand.peer)))
            .filter(|(_, peer)| !is_there(peer))
            .collect();
        for (content, peer) in gone {
            self.end(now, &content, &peer);
        }
    }

    /// Who was told to fetch a content.
    pub(super) fn of(&self, content: &ContentId) -> impl Iterator<Item = PeerId> {
        self.under_way.get(content).into_iter().flatten().map(|errand| errand.peer)
    }

    /// How many copies are under way.
    pub(super) const fn len(&self) -> usize {
        self.count
    }
}

fn patience(size_bytes: u64) -> Duration {
    PATIENCE + Duration::from_secs(size_bytes / SLOWEST_BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(number: u8) -> ContentId {
        ContentId::from_bytes([number; 32])
    }

    #[test]
    fn no_more_bytes_are_told_than_the_rate_allows_and_super_peers_share_it() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut errands = Errands::new(Some(1000), start);
        let mut told = 0;
        for tick in 0..100_u64 {
            errands.pass(start + Duration::from_millis(100 * tick), 2);
            while errands.has_budget() {
                errands.begin(start, content(1), peer, 300);
                errands.end(start, &content(1), &peer);
                told += 300;
            }
        }
        assert!((4900..=6400).contains(&told), "{told} bytes in ten seconds");
        errands.begin(start, content(1), peer, 1 << 30);
        errands.pass(start + Duration::from_mins(1), 2);
        assert!(!errands.has_budget(), "a large file is paid for");
    }

    #[test]
    fn a_node_is_told_again_and_then_another_one_is() {
        let (mut now, peer) = (Instant::now(), PeerId::random());
        let mut errands = Errands::new(None, now);
        errands.begin(now, content(1), peer, 1 << 20);
        for _ in 1..TELLINGS {
            now += patience(1 << 20);
            assert_eq!(errands.pass(now, 1), [(peer, content(1), 1 << 20)]);
        }
        now += patience(1 << 20);
        assert_eq!(errands.pass(now, 1), []);
        assert!(errands.len() == 0 && errands.is_spared(&content(1), &peer));
        assert!(!errands.is_spared(&content(2), &peer));
        errands.pass(now + AVOIDED_FOR, 1);
        assert!(!errands.is_spared(&content(1), &peer));
    }

    #[test]
    fn one_node_has_a_bounded_number_of_errands_and_a_full_one_none() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut errands = Errands::new(None, now);
        let mut number = 0;
        while errands.has_hands(&peer) {
            number += 1;
            errands.begin(now, content(number), peer, 1);
        }
        assert_eq!(usize::from(number), ERRANDS_PER_NODE);
        errands.begin(now, content(1), peer, 1);
        assert_eq!(errands.len(), ERRANDS_PER_NODE, "told twice, counted once");
        assert!(!errands.is_stuck(now, &peer) && errands.is_stuck(now + STUCK_AFTER, &peer));
        errands.refused(now, &content(1), peer, true);
        assert!(errands.has_hands(&peer) && errands.is_spared(&content(9), &peer));
        errands.keep_to(now, |_| false);
        assert_eq!((errands.len(), errands.of(&content(2)).count()), (0, 0));
        errands.pass(now + FULL_FOR, 1);
        assert!(!errands.is_spared(&content(9), &peer));
    }
}
