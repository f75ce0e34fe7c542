//! Which super-peer this node follows, from where, and when it goes over to another one. Pure.
//!
//! The node asks one super-peer at a time what came after its [`Cursor`], and the super-peer answers as soon as there is
//! something. What is guaranteed, with [`Follower::handle`] called at [`Follower::next_wakeup`]:
//!
//! - **No gaps.** There is a cursor for each super-peer, and it moves only once what came before it stands in the node's
//!   own database. Each super-peer numbers by itself, so after a change of super-peer the new one's feed is read from where
//!   *it* was left. What was heard before from another one comes again, which is harmless, since records only move forward.
//!   The other way, one cursor carried from one super-peer to the next, would need a common order, and there is none.
//! - **One question at a time**, so a slow node is asked to take in no more than it can.
//! - **The next one at once.** A super-peer that is lost, answers nothing for [`ANSWER_GRACE`] longer than it was to wait,
//!   or says that it cannot answer, rests for a while, and the next in the node's order of preference is asked. The
//!   preferred one is gone back to when it is there again, so that the load stays spread.
//! - **From the beginning where that is needed.** A super-peer whose word has hidden files from this node may turn out to be
//!   none ([`hiding`]). Then all cursors are dropped ([`Input::Anew`]).
//! - **A restored super-peer gets back what only others know.** One that does not know the cursor begins its feed anew
//!   ([`Effect::Return`]): it was restored from a backup or made anew, and may lack endings of memberships.

pub mod hiding;
pub mod page;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::messages::changes::Cursor;

/// How long a super-peer is to keep a question open. Below the most that it would: one that falls silent with its
/// connection open, as over QUIC also a killed one does, is noticed after this and [`ANSWER_GRACE`]; and an exchange of
/// nearly empty messages every other second is little.
pub const WAIT: Duration = Duration::from_secs(2);
/// How much later than its wait an answer may come at first.
pub const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// How much later it may come in the end: each answer that is overdue doubles the grace of that connection, so that a
/// page gets through a line that is too slow for the first.
pub const ANSWER_GRACE_MAX: Duration = Duration::from_secs(20);
/// How long a super-peer rests after its first failure; each further one doubles it.
pub const REST_MIN: Duration = Duration::from_millis(500);
/// The longest rest.
pub const REST_MAX: Duration = Duration::from_secs(15);

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// These super-peers can be asked, the preferred one first.
    Askable(Vec<PeerId>),
    /// A page has come as the answer to this question; it is not in the database yet.
    Arrived(u64),
    /// The page is in the database, together with its cursor.
    Stored {
        /// Which question it answers.
        question: u64,
        /// Where the page ends.
        cursor: Cursor,
        /// Whether the super-peer did not know the cursor that it was asked with.
        restart: bool,
        /// Whether more is there already.
        more: bool,
    },
    /// What super-peers have said counts no more as it did: the database holds no cursors, and all feeds are read anew.
    Anew,
    /// There was no usable answer, or it could not be stored.
    Failed(u64),
    /// Nothing but time.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask what came after a cursor. An answer to an earlier question is of no use any more.
    Ask {
        /// Names the question.
        question: u64,
        /// Whom.
        peer: PeerId,
        /// From where; none for everything.
        since: Option<Cursor>,
        /// How often [`Input::Anew`] had come by then.
        reading: u64,
        /// How long it may wait for news.
        wait: Duration,
    },
    /// An answer of this super-peer is overdue: it should not be among the askable ones again before it gives a sign of
    /// life, unless there is no other, or each try would be a time without news.
    Overdue(PeerId),
    /// Tell a super-peer of what it may have lost.
    Return(PeerId),
}

/// A question under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    question: u64,
    peer: PeerId,
    /// None once the page is here and is being stored: that is in nobody's hands but our own.
    until: Option<Instant>,
}

/// How a connected super-peer has done.
#[derive(Debug, Clone, Copy)]
struct Conduct {
    /// Until when it rests; none while it does well.
    rests_until: Option<Instant>,
    next_rest: Duration,
    grace: Duration,
}

impl Default for Conduct {
    fn default() -> Self {
        Self { rests_until: None, next_rest: REST_MIN, grace: ANSWER_GRACE }
    }
}

/// Follows.
#[derive(Debug)]
pub struct Follower {
    cursors: HashMap<PeerId, Cursor>,
    askable: Vec<PeerId>,
    conducts: HashMap<PeerId, Conduct>,
    asked: Option<Asked>,
    questions: u64,
    readings: u64,
    /// Whether more is known to be there already.
    hurry: bool,
    /// Who has answered on the present connection.
    heard: Option<PeerId>,
}

impl Follower {
    /// Goes on from the cursors of the database.
    pub fn new(cursors: impl IntoIterator<Item = (PeerId, Cursor)>) -> Self {
        Self {
            cursors: cursors.into_iter().collect(),
            askable: Vec::new(),
            conducts: HashMap::new(),
            asked: None,
            questions: 0,
            readings: 0,
            hurry: false,
            heard: None,
        }
    }

    /// The super-peer that is being asked.
    pub fn followed(&self) -> Option<PeerId> {
        self.asked.map(|asked| asked.peer)
    }

    /// Whether this is the question under way.
    pub fn awaits(&self, question: u64) -> bool {
        self.asked.is_some_and(|asked| asked.question == question)
    }

    /// When [`Input::Tick`] is next needed.
    pub fn next_wakeup(&self) -> Option<Instant> {
        match self.asked {
            Some(asked) => asked.until,
            None => self.askable.iter().filter_map(|peer| self.conducts.get(peer)?.rests_until).min(),
        }
    }

    /// Takes note of what happened and says what to do.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Askable(peers) => {
                // Whoever comes back may be asked at once.
                self.conducts.retain(|peer, _| peers.contains(peer));
                self.askable = peers;
                self.heard = self.heard.filter(|heard| self.askable.contains(heard));
                let lost = |asked: &Asked| asked.until.is_some() && !self.askable.contains(&asked.peer);
                if self.asked.as_ref().is_some_and(lost) {
                    self.asked = None;
                }
            }
            Input::Arrived(question) => {
                if let Some(asked) = self.asked.as_mut().filter(|asked| asked.question == question) {
                    asked.until = None;
                }
            }
            Input::Stored { question, cursor, restart, more } => {
                if let Some(asked) = self.asked.take_if(|asked| asked.question == question) {
                    self.cursors.insert(asked.peer, cursor);
                    self.heard = Some(asked.peer);
                    if let Some(conduct) = self.conducts.get_mut(&asked.peer) {
                        *conduct = Conduct { grace: conduct.grace, ..Conduct::default() };
                    }
                    self.hurry = more;
                    if restart {
                        effects.push(Effect::Return(asked.peer));
                    }
                }
            }
            Input::Anew => {
                self.cursors.clear();
                self.readings += 1;
                // Also what is being answered was asked for with a cursor that holds no more.
                self.asked = None;
                self.hurry = true;
            }
            Input::Failed(question) => {
                if let Some(asked) = self.asked.take_if(|asked| asked.question == question) {
                    self.rests(now, asked.peer);
                }
            }
            Input::Tick => {}
        }
        let overdue = |asked: &mut Asked| asked.until.is_some_and(|until| now >= until);
        if let Some(asked) = self.asked.take_if(overdue) {
            self.rests(now, asked.peer);
            if let Some(conduct) = self.conducts.get_mut(&asked.peer) {
                conduct.grace = (conduct.grace * 2).min(ANSWER_GRACE_MAX);
            }
            effects.push(Effect::Overdue(asked.peer));
        }
        self.ask(now, &mut effects);
        effects
    }

    fn rests(&mut self, now: Instant, peer: PeerId) {
        self.hurry = false;
        let conduct = self.conducts.entry(peer).or_default();
        conduct.rests_until = Some(now + conduct.next_rest);
        conduct.next_rest = (conduct.next_rest * 2).min(REST_MAX);
    }

    fn ask(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        if self.asked.is_some() {
            return;
        }
        let conduct = |peer: &PeerId| self.conducts.get(peer).copied().unwrap_or_default();
        let rested = |peer: &&PeerId| conduct(peer).rests_until.is_none_or(|until| now >= until);
        let Some(peer) = self.askable.iter().find(rested).copied() else { return };
        // Whoever has just connected says at once where it stands, so that this node soon knows that it has missed nothing.
        let wait = if self.hurry || self.heard != Some(peer) { Duration::ZERO } else { WAIT };
        self.questions += 1;
        let question = self.questions;
        self.asked = Some(Asked { question, peer, until: Some(now + wait + conduct(&peer).grace) });
        let (since, reading) = (self.cursors.get(&peer).copied(), self.readings);
        effects.push(Effect::Ask { question, peer, since, reading, wait });
    }
}
