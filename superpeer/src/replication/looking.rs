//! The look at one content: how many copies there are, and what to do about it.

use std::{collections::HashSet, time::Instant};

use libp2p::PeerId;
use quarta_protocols::{
    ids::ContentId,
    messages::vault::{Assignment, DropReason},
};

use super::{Counts, Held, Lists, Planner, UNNAMED_FOR, UNNAMED_MAX, Urgency};
use crate::placement::rank;

/// Contents in the queue that a step tries to help: those before it may wait for busy nodes.
const TRIED_MAX: usize = 1024;

/// How a content that is to be kept stands.
#[derive(Debug)]
struct Standing {
    held: Vec<Held>,
    /// Whole copies that count.
    counted: u32,
    /// Copies under way.
    coming: HashSet<PeerId>,
}

impl Standing {
    fn copies(&self) -> u32 {
        self.counted.saturating_add(u32::try_from(self.coming.len()).unwrap_or(u32::MAX))
    }

    fn holds(&self, peer: &PeerId) -> bool {
        self.held.iter().any(|held| held.peer == *peer && held.whole())
    }
}

impl Planner {
    /// Looks at a content, whether it is to be kept or not.
    pub(super) fn look(&mut self, now: Instant, content: ContentId, lists: &impl Lists) {
        if self.book.kept(&content).is_none() {
            self.dequeue(&content);
            self.trims.settled(&content);
            self.look_at_stray(now, content, lists);
            return;
        }
        self.unnamed.remove(&content);
        let standing = self.standing(now, content, lists.copies(&content));
        if let Some(kept) = self.book.kept_mut(&content) {
            kept.copies = Some(standing.counted);
        }
        if !self.is_mine(&content) {
            self.dequeue(&content);
            self.trims.settled(&content);
            return;
        }
        match self.urgency(content, &standing) {
            Some(urgency) => self.enqueue(content, urgency),
            None => self.dequeue(&content),
        }
        self.trim(now, content, &standing);
    }

    fn standing(&mut self, now: Instant, content: ContentId, held: Vec<Held>) -> Standing {
        let counts = |held: &&Held| self.presence.counts(&held.peer) > Counts::Gone;
        let counted = held.iter().filter(counts).filter(|held| held.whole()).count();
        for held in held.iter().filter(|held| held.whole()) {
            self.errands.end(now, &content, &held.peer);
        }
        // What another super-peer told counts too, as soon as there is something of it.
        let begun = held.iter().filter(counts).filter(|held| held.vault == Some(false) && !held.library);
        let mut coming: HashSet<PeerId> =
            begun.map(|held| held.peer).filter(|peer| !self.errands.is_unfit(&content, peer)).collect();
        coming.extend(self.errands.of(&content));
        Standing { held, counted: u32::try_from(counted).unwrap_or(u32::MAX), coming }
    }

    fn urgency(&self, content: ContentId, standing: &Standing) -> Option<Urgency> {
        let (target, floor) = self.wanted();
        let copies = standing.copies();
        // From whom, if nobody who is there has it all?
        let there = |held: &Held| held.whole() && self.presence.counts(&held.peer) == Counts::There;
        if !standing.held.iter().any(there) {
            return None;
        }
        if copies < floor {
            Some(Urgency::Danger(copies))
        } else if copies < target {
            Some(Urgency::Wanting(copies))
        } else if standing.coming.is_empty() && !self.displaced(content, standing).is_empty() {
            Some(Urgency::Misplaced)
        } else {
            None
        }
    }

    /// The nodes that should keep a content in their vaults: the first in its ranking after those in whose libraries it
    /// is anyway.
    fn rightful(&self, content: ContentId, standing: &Standing) -> Vec<PeerId> {
        let in_library: HashSet<PeerId> = standing
            .held
            .iter()
            .filter(|held| held.library && self.presence.counts(&held.peer) > Counts::Gone)
            .map(|held| held.peer)
            .collect();
        let places = (self.wanted().0 as usize).saturating_sub(in_library.len());
        let may = |peer: &PeerId| standing.holds(peer) || !self.errands.is_unfit(&content, peer);
        let candidates = self
            .presence
            .candidates(Counts::Away)
            .filter(|candidate| !in_library.contains(&candidate.peer) && may(&candidate.peer));
        rank(&content, candidates).into_iter().take(places).collect()
    }

    /// The nodes that are there, should keep a content, and do not.
    fn displaced(&self, content: ContentId, standing: &Standing) -> Vec<PeerId> {
        let mut rightful = self.rightful(content, standing);
        rightful.retain(|peer| {
            !standing.holds(peer)
                && self.presence.counts(peer) == Counts::There
                && !self.errands.is_spared(&content, peer)
        });
        rightful
    }

    /// Tells nodes to fetch what needs copies most, as far as they and the network can take it.
    pub(super) fn dispatch(&mut self, now: Instant, lists: &impl Lists) {
        let first: Vec<(Urgency, ContentId)> = self.queue.iter().take(TRIED_MAX).copied().collect();
        let mut waiting = false;
        let mut level = None;
        for (urgency, content) in first {
            if !self.errands.has_budget() {
                return;
            }
            // More than the floor is for when no content is below it, and moving for when nothing is missing.
            let rises = level.replace(urgency.level()).is_some_and(|before| before < urgency.level());
            let unknown = urgency.level() > 0 && self.is_behind();
            let held = urgency == Urgency::Misplaced && self.presence.hold().is_some();
            if unknown || held || (rises && waiting) {
                return;
            }
            waiting |= self.help(now, content, lists);
        }
    }

    /// Tells nodes to fetch a content; whether some of it waits for nodes that are busy.
    fn help(&mut self, now: Instant, content: ContentId, lists: &impl Lists) -> bool {
        let Some(kept) = self.book.kept(&content).copied() else {
            self.dequeue(&content);
            return false;
        };
        if !self.presence.may_repair(kept.since) {
            // Looked at again when the hold ends, which begins a round.
            self.dequeue(&content);
            return false;
        }
        let standing = self.standing(now, content, lists.copies(&content));
        let Some(urgency) = self.urgency(content, &standing) else {
            self.dequeue(&content);
            return false;
        };
        let (target, floor) = self.wanted();
        let (peers, lacking) = match urgency {
            Urgency::Danger(copies) => {
                let mut able = self.able(content, &standing);
                able.retain(|peer| !self.errands.is_stuck(now, peer));
                (able, floor - copies)
            }
            Urgency::Wanting(copies) => (self.able(content, &standing), target - copies),
            Urgency::Misplaced => (self.displaced(content, &standing), 1),
        };
        let (mut told, mut waits) = (0, false);
        for peer in peers.into_iter().take(lacking as usize) {
            if self.errands.has_budget() && self.errands.has_hands(&peer) {
                self.errands.begin(now, content, peer, kept.size_bytes);
                let keep = Assignment::Keep { content, size_bytes: kept.size_bytes };
                self.assigning.entry(peer).or_default().push(keep);
                told += 1;
            } else {
                waits = true;
            }
        }
        match urgency {
            // What is above the floor is for later, when no other content is below its own.
            Urgency::Danger(_) if told == lacking => {
                let copies = standing.copies() + told;
                if copies < target {
                    self.enqueue(content, Urgency::Wanting(copies));
                } else {
                    self.dequeue(&content);
                }
            }
            _ if waits => {}
            // Either all is told, or there are no more nodes that could: the next round looks at it again.
            _ => self.dequeue(&content),
        }
        waits
    }

    /// The nodes that can be given a content, in the order of its ranking.
    fn able(&self, content: ContentId, standing: &Standing) -> Vec<PeerId> {
        let able = |peer: &PeerId| {
            !standing.coming.contains(peer)
                && !standing.holds(peer)
                && !self.errands.is_spared(&content, peer)
        };
        let candidates = self.presence.candidates(Counts::There).filter(|node| able(&node.peer));
        rank(&content, candidates)
    }

    /// Sees to it that a copy too many goes.
    fn trim(&mut self, now: Instant, content: ContentId, standing: &Standing) {
        let (target, floor) = self.wanted();
        let there: Vec<&Held> = standing
            .held
            .iter()
            .filter(|held| held.whole() && self.presence.counts(&held.peer) == Counts::There)
            .collect();
        // Counted without those that are away: they may not come back.
        if there.len() <= target as usize || self.presence.hold().is_some() {
            self.trims.settled(&content);
            return;
        }
        let rightful = self.rightful(content, standing);
        let vaults = there.iter().filter(|held| held.vault == Some(true));
        let excess: Vec<PeerId> =
            vaults.map(|held| held.peer).filter(|peer| !rightful.contains(peer)).collect();
        let candidates = self.presence.candidates(Counts::There);
        let last = |among: &[PeerId]| {
            let ranked = rank(&content, candidates.filter(|node| among.contains(&node.peer)));
            ranked.last().copied()
        };
        let Some(victim) = last(&excess) else {
            self.trims.settled(&content);
            return;
        };
        if !self.trims.excess(now, content, self.config.grace) {
            return;
        }
        // Those that should keep it first, so that two super-peers with the same view ask the same nodes.
        let (mut others, later): (Vec<PeerId>, Vec<PeerId>) = there
            .iter()
            .map(|held| held.peer)
            .filter(|peer| *peer != victim)
            .partition(|peer| !excess.contains(peer));
        others.extend(later);
        others.truncate(floor.max(1) as usize);
        for peer in &others {
            self.asking.entry(*peer).or_default().push(content);
        }
        self.trims.ask(now, content, victim, others);
    }

    /// Looks at a content that is in vaults and that no file has.
    fn look_at_stray(&mut self, now: Instant, content: ContentId, lists: &impl Lists) {
        let held = lists.copies(&content);
        let in_vaults: Vec<PeerId> = held
            .iter()
            .filter(|held| held.vault.is_some() && self.presence.counts(&held.peer) == Counts::There)
            .map(|held| held.peer)
            .collect();
        if in_vaults.is_empty() {
            self.unnamed.remove(&content);
            return;
        }
        let reason = match self.book.retired(&content) {
            Some(retired) => {
                let enough = retired.successor.is_none_or(|new| self.has_taken_over(new, &held, lists));
                enough.then_some(retired.reason)
            }
            None => self.is_surely_unnamed(now, content).then_some(DropReason::Replaced),
        };
        if let Some(reason) = reason {
            for peer in in_vaults {
                self.drop_copy(now, peer, content, reason);
            }
        }
    }

    /// Whether there are enough copies of a new content for the old one to go: the floor, or as many as there are of the
    /// old one.
    fn has_taken_over(&self, new: ContentId, old: &[Held], lists: &impl Lists) -> bool {
        let count = |held: &[Held]| {
            let counts = |held: &&Held| held.whole() && self.presence.counts(&held.peer) > Counts::Gone;
            held.iter().filter(counts).count()
        };
        // One that is itself replaced or gone is waited for no more.
        self.book.kept(&new).is_none()
            || count(&lists.copies(&new)) >= count(old).min(self.wanted().1 as usize).max(1)
    }

    fn is_surely_unnamed(&mut self, now: Instant, content: ContentId) -> bool {
        if !self.sees_all || self.presence.hold().is_some() {
            self.unnamed.remove(&content);
            return false;
        }
        if self.unnamed.len() >= UNNAMED_MAX && !self.unnamed.contains_key(&content) {
            return false;
        }
        let since = *self.unnamed.entry(content).or_insert(now);
        now.saturating_duration_since(since) >= UNNAMED_FOR && self.is_mine(&content)
    }
}
