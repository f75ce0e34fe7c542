//! Keeping enough copies of every file: what each node is told to keep and to drop.
//!
//! [`Planner`] compares what should be ([`crate::placement`], the records) with what nodes report, and says what to ask of
//! them. What is guaranteed:
//!
//! - **Floors first.** No file gets a copy above its floor while another one that can be helped is below.
//! - **No more is moved than is missing.** A copy under way counts, and so does a copy on a node that is away for less
//!   than the grace period. Copies that are in another place than they should be are moved only when nothing is missing.
//! - **No panic.** Nothing is repaired before the lists are back after a start, nor when over a third of the nodes vanish
//!   together ([`Hold`]).
//! - **Nothing needed is dropped.** A copy too many is dropped only after as many others as the floor have confirmed
//!   theirs, on their disks, a moment ago; also when two super-peers do so at once (see `trimming`). An old content
//!   goes when enough copies of the new one are complete, or at once where it was restricted or its file is deleted.
//!   A content that no known file has goes only when this super-peer can be sure to know all files.
//! - **Bounded and repeatable.** Copies under way are bounded for each node, over all, and in bytes a second. What is told
//!   may be lost or come twice: the lists show what became of it, and what is still missing is told again.
//!
//! Each content has one planning super-peer, drawn among those that see each other, so that two do not make the same
//! copy. Every super-peer looks at every content, to know how the network is, and plans for its own.
//!
//! Contents are looked at when something about them changes, and all of them in rounds: at least every [`ROUND_EVERY`],
//! and when a node comes or goes. A step looks at a bounded number and takes milliseconds.

mod bill;
mod book;
mod errands;
mod looking;
mod presence;
#[cfg(test)]
mod tests;
mod trimming;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{
    ids::{ContentId, FileId},
    messages::vault::{ASSIGNMENTS_MAX, Assignment, DropReason, Outcome},
};

use crate::placement::{Candidate, Copies, Weight, planner};
use book::Book;
use errands::Errands;
use presence::{Counts, Presence};
use trimming::Trims;

pub use self::{
    bill::Bill,
    book::{Present, Told},
    errands::{ERRANDS_MAX, ERRANDS_PER_NODE},
    presence::{Hold, Node, OUTAGE_HOLD, SETTLING},
    trimming::{CONFIRM_WITHIN, REST},
};

/// How often all contents are looked at, where nothing happens: what a lost message left undone is done by then.
pub const ROUND_EVERY: Duration = Duration::from_secs(15);
/// How much longer than a round the pause after it is at least.
const ROUND_PAUSE: u32 = 4;
/// Contents that a step looks at: some milliseconds.
pub const LOOKED_AT_MAX: usize = 1024;
/// How long a content that no file has is left alone: records come by many ways, and some are slower than lists.
pub const UNNAMED_FOR: Duration = Duration::from_mins(10);
/// How soon a drop that a node has not carried out is told again.
const DROP_AGAIN: Duration = Duration::from_secs(30);
/// Drops that are told in a step.
const DROPS_MAX: usize = 4096;
/// Contents that a node is asked to confirm at once: it reads from each, within the seconds that it has for an answer.
pub const CONFIRMED_AT_ONCE: usize = 64;
/// Contents without a file that are remembered.
const UNNAMED_MAX: usize = 100_000;

/// How copies are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How many copies there are.
    pub copies: Copies,
    /// How long a node may be away before its copies are made anew, and copies too many may stand.
    pub grace: Duration,
    /// How many bytes a second are copied over the whole network; none for no bound.
    pub rate_bytes_per_second: Option<u64>,
}

/// One node's part of a content, as its list says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The node.
    pub peer: PeerId,
    /// Whether all of it is in the library.
    pub library: bool,
    /// Whether any of it is in the vault, and whether that is all.
    pub vault: Option<bool>,
}

impl Held {
    /// Whether the node holds all of it.
    pub const fn whole(&self) -> bool {
        self.library || matches!(self.vault, Some(true))
    }
}

/// The lists of all nodes.
pub trait Lists {
    /// Who holds any of a content, each node once.
    fn copies(&self, content: &ContentId) -> Vec<Held>;
    /// At most `limit` contents of a node's vault after this one, in order.
    fn vault_of(&self, peer: &PeerId, after: Option<ContentId>, limit: usize) -> Vec<ContentId>;
}

/// How the network is now.
#[derive(Debug)]
pub struct World<'a> {
    /// All nodes that are members.
    pub nodes: &'a [Node],
    /// The other super-peers that this one sees.
    pub superpeers: &'a [PeerId],
    /// Whether it sees all that there are.
    pub sees_all: bool,
}

/// What to ask of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// To keep and to drop these; at most [`ASSIGNMENTS_MAX`]. To be followed by [`Planner::assigned`].
    Assign(PeerId, Vec<Assignment>),
    /// Whether it holds these; at most [`CONFIRMED_AT_ONCE`]. To be followed by [`Planner::confirmed`].
    Confirm(PeerId, Vec<ContentId>),
}

/// How much a content needs a copy: the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// It has so many, below the floor.
    Danger(u32),
    /// It has so many, below the target.
    Wanting(u32),
    /// It has enough, one of them in another place than it should be.
    Misplaced,
}

impl Urgency {
    /// What must be served before what.
    const fn level(self) -> u8 {
        match self {
            Self::Danger(_) => 0,
            Self::Wanting(_) => 1,
            Self::Misplaced => 2,
        }
    }
}

/// Plans for one super-peer. Pure: it is told the time, and asks nobody.
#[derive(Debug)]
pub struct Planner {
    own: Candidate,
    config: Config,
    book: Book,
    presence: Presence,
    errands: Errands,
    trims: Trims,
    /// Those that plan, this one included.
    planners: Vec<Candidate>,
    sees_all: bool,
    /// What needs copies, and where it stands in `queue`.
    queued: HashMap<ContentId, Urgency>,
    queue: BTreeSet<(Urgency, ContentId)>,
    /// What is to be looked at first.
    touched: HashSet<ContentId>,
    round: Option<Round>,
    /// Whether something happened since the round began that concerns all contents.
    again: bool,
    /// Whether the round is because something happened.
    urgent: bool,
    round_began: Instant,
    next_round: Instant,
    unnamed: HashMap<ContentId, Instant>,
    dropped: HashMap<(ContentId, PeerId), Instant>,
    /// What this step asks of whom.
    assigning: BTreeMap<PeerId, Vec<Assignment>>,
    asking: BTreeMap<PeerId, Vec<ContentId>>,
}

/// How far a look at everything has got.
#[derive(Debug)]
enum Round {
    /// Kept contents after this one.
    Kept(Option<ContentId>),
    /// The vaults of these nodes, the last one's after this content.
    Vaults(Vec<PeerId>, Option<ContentId>),
}

impl Planner {
    /// Plans for the super-peer `own` from `now` on.
    pub fn new(own: PeerId, config: Config, now: Instant) -> Self {
        let own = Candidate::new(own, Weight::UNKNOWN);
        Self {
            own,
            config,
            book: Book::default(),
            presence: Presence::new(config.grace, now),
            errands: Errands::new(config.rate_bytes_per_second, now),
            trims: Trims::default(),
            planners: vec![own],
            sees_all: false,
            queued: HashMap::new(),
            queue: BTreeSet::new(),
            touched: HashSet::new(),
            round: None,
            again: true,
            urgent: false,
            round_began: now,
            next_round: now,
            unnamed: HashMap::new(),
            dropped: HashMap::new(),
            assigning: BTreeMap::new(),
            asking: BTreeMap::new(),
        }
    }

    /// How many copies of each file there should be, and how many before any gets more: of the nodes that are members.
    pub fn wanted(&self) -> (u32, u32) {
        let nodes = self.presence.members();
        (self.config.copies.target(nodes), self.config.copies.floor(nodes))
    }

    /// Takes in a record as it stands now. Known ones may be told again.
    pub fn tell(&mut self, now: Instant, told: &Told) {
        if let Some((retired, _)) = self.book.tell(now, told) {
            self.touched.insert(retired);
            self.dequeue(&retired);
        }
        self.touched.extend(told.present.map(|present| present.content));
    }

    /// Something changed about who holds a content.
    pub fn touch(&mut self, content: ContentId) {
        self.touched.insert(content);
    }

    /// Something changed about who holds a file.
    pub fn touch_file(&mut self, file: &FileId) {
        self.touched.extend(self.book.content_of(file));
    }

    /// Something changed about who holds contents that are not named: all are looked at.
    pub const fn touch_all(&mut self) {
        self.again = true;
    }

    /// Whether there is anything to do but to wait for time to pass.
    pub fn is_busy(&self) -> bool {
        !self.touched.is_empty() || self.round.is_some() || !self.queue.is_empty() || self.errands.len() > 0
    }

    /// Looks at how things are, and says what to ask of whom.
    pub fn step(&mut self, now: Instant, world: &World<'_>, lists: &impl Lists) -> Vec<Effect> {
        self.see(now, world);
        for (peer, content, size_bytes) in self.errands.pass(now, self.planners.len()) {
            self.assigning.entry(peer).or_default().push(Assignment::Keep { content, size_bytes });
        }
        self.touched.extend(self.trims.pass(now));
        self.touched.extend(self.trims.ripe(now, self.config.grace));
        self.dropped.retain(|_, at| now.saturating_duration_since(*at) < DROP_AGAIN);

        let mut left = LOOKED_AT_MAX;
        let first: Vec<ContentId> = self.touched.iter().take(left).copied().collect();
        left -= first.len();
        for content in first {
            self.touched.remove(&content);
            self.look(now, content, lists);
        }
        self.go_round(now, left, lists);
        self.dispatch(now, lists);
        self.effects()
    }

    fn see(&mut self, now: Instant, world: &World<'_>) {
        let planners: Vec<Candidate> = std::iter::once(self.own)
            .chain(world.superpeers.iter().map(|peer| Candidate::new(*peer, Weight::UNKNOWN)))
            .collect();
        let moved = self.presence.see(now, world.nodes);
        if moved {
            let presence = &self.presence;
            self.errands.keep_to(now, |peer| presence.counts(peer) > Counts::Gone);
        }
        self.again |= moved || planners != self.planners || world.sees_all != self.sees_all;
        self.planners = planners;
        self.sees_all = world.sees_all;
        if self.round.is_none() && (self.again || self.next_round <= now) {
            self.urgent = std::mem::take(&mut self.again);
            self.round_began = now;
            self.round = Some(Round::Kept(None));
            self.book.forget_old(now);
        }
    }

    /// Whether there may be contents below their floor that are not known to be.
    fn is_behind(&self) -> bool {
        let looking = self.urgent && matches!(self.round, Some(Round::Kept(_)));
        self.again || looking || !self.touched.is_empty()
    }

    /// Goes on with the look at everything.
    fn go_round(&mut self, now: Instant, mut left: usize, lists: &impl Lists) {
        while left > 0 {
            match self.round.take() {
                None => return,
                Some(Round::Kept(after)) => {
                    let contents = self.book.after(after, left);
                    left -= contents.len();
                    self.round = Some(match contents.last() {
                        Some(last) => Round::Kept(Some(*last)),
                        None => Round::Vaults(self.presence.there().collect(), None),
                    });
                    for content in contents {
                        self.look(now, content, lists);
                    }
                }
                Some(Round::Vaults(mut peers, after)) => {
                    let Some(peer) = peers.last() else {
                        // Looking takes a small part of the time, however many contents there are.
                        let took = now.saturating_duration_since(self.round_began);
                        self.next_round = now + ROUND_EVERY.max(took * ROUND_PAUSE);
                        return;
                    };
                    let contents = lists.vault_of(peer, after, left);
                    left -= contents.len().min(left);
                    let last = contents.last().copied();
                    if last.is_none() {
                        peers.pop();
                        // A node whose vault is empty costs something too.
                        left -= 1;
                    }
                    self.round = Some(Round::Vaults(peers, last));
                    for content in contents {
                        if self.book.kept(&content).is_none() {
                            self.look(now, content, lists);
                        }
                    }
                }
            }
        }
    }

    /// Whether this super-peer plans for a content.
    fn is_mine(&self, content: &ContentId) -> bool {
        planner(content, self.planners.iter().copied()) == Some(self.own.peer)
    }

    fn enqueue(&mut self, content: ContentId, urgency: Urgency) {
        if let Some(before) = self.queued.insert(content, urgency) {
            self.queue.remove(&(before, content));
        }
        self.queue.insert((urgency, content));
    }

    fn dequeue(&mut self, content: &ContentId) {
        if let Some(before) = self.queued.remove(content) {
            self.queue.remove(&(before, *content));
        }
    }

    fn drop_copy(&mut self, now: Instant, peer: PeerId, content: ContentId, reason: DropReason) {
        if self.dropped.len() < DROPS_MAX && self.dropped.insert((content, peer), now).is_none() {
            self.errands.end(now, &content, &peer);
            self.assigning.entry(peer).or_default().push(Assignment::Drop { content, reason });
        }
    }

    /// What was gathered in this step, in messages.
    fn effects(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for (peer, assignments) in std::mem::take(&mut self.assigning) {
            effects
                .extend(assignments.chunks(ASSIGNMENTS_MAX).map(|part| Effect::Assign(peer, part.to_vec())));
        }
        for (peer, contents) in std::mem::take(&mut self.asking) {
            effects
                .extend(contents.chunks(CONFIRMED_AT_ONCE).map(|part| Effect::Confirm(peer, part.to_vec())));
        }
        effects
    }

    /// Takes in a node's answer to assignments, in their order; none where there was none.
    pub fn assigned(
        &mut self,
        now: Instant,
        peer: PeerId,
        assignments: &[Assignment],
        outcomes: Option<&[Outcome]>,
    ) {
        for (at, assignment) in assignments.iter().enumerate() {
            let outcome = outcomes.and_then(|outcomes| outcomes.get(at)).copied();
            let content = assignment.content();
            match (assignment, outcome) {
                (_, Some(Outcome::Accepted)) => continue,
                (Assignment::Keep { .. }, outcome) => {
                    self.errands.refused(now, &content, peer, outcome == Some(Outcome::NoRoom));
                }
                // Told again when it is looked at and the pause is over.
                (Assignment::Drop { .. }, _) => {}
            }
            self.touched.insert(content);
        }
    }

    /// Takes in a node's answer to what it was asked to confirm, in its order; none where there was none. Gives what is to
    /// be asked next: at once, because confirmations hold for a short time.
    pub fn confirmed(
        &mut self,
        now: Instant,
        peer: PeerId,
        contents: &[ContentId],
        held: Option<&[bool]>,
    ) -> Vec<Effect> {
        for (at, content) in contents.iter().enumerate() {
            let held = held.and_then(|held| held.get(at)).copied().unwrap_or(false);
            if let Some(victim) = self.trims.confirmed(now, *content, &peer, held)
                && self.book.kept(content).is_some()
            {
                self.drop_copy(now, victim, *content, DropReason::Excess);
            }
        }
        self.effects()
    }

    /// How the network is, as far as copies are concerned. Takes a look at every content: milliseconds.
    pub fn bill(&self) -> Bill {
        let (target, floor) = self.wanted();
        Bill::of(&self.book, target, floor, self.errands.len(), self.trims.len(), self.presence.hold())
    }
}
