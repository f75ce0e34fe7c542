//! The network between the machines: letters under way, and what happens to them.
//!
//! A letter is delivered when the schedule says so, in any order, once, twice or never. Its sender is who the transport
//! says it is: that nobody can forge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quarta_protocols::{
    credentials::Credential,
    messages::{admission, changes, index, sync},
};
use rand::{RngExt, rngs::SmallRng};

use super::{adversary::Verdict, cast::Who};

/// Letters under way; more and the oldest get lost, as in a full queue.
const UNDER_WAY_MAX: usize = 96;

/// A message between two machines.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Who sent it; proved by the transport.
    pub from: Who,
    /// To whom.
    pub to: Who,
    /// To which run of its process: a connection ends with the process, and what is under way on it is lost.
    pub run: u32,
    /// The question that it is or answers, counted by its asker.
    pub call: u64,
    /// What it says.
    pub body: Body,
    /// What must become of it, where an adversary sent it.
    pub verdict: Option<Verdict>,
}

/// What a letter says.
#[derive(Debug, Clone)]
pub enum Body {
    /// A question, and the credential that the asker has shown on the connection.
    Ask(Option<Credential>, Box<Ask>),
    /// The answer to one.
    Answer(Box<Answer>),
}

/// A question, in the protocols' own words.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A node asks a super-peer.
    Index(index::Request),
    /// Anybody asks to become or stay a member.
    Admission(admission::Request),
    /// A super-peer tells or asks another.
    Sync(sync::Request),
    /// A node follows a super-peer.
    Changes(changes::Request),
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Ask::Index`].
    Index(index::Response),
    /// To [`Ask::Admission`].
    Admission(admission::Response),
    /// To [`Ask::Sync`].
    Sync(sync::Response),
    /// To [`Ask::Changes`].
    Changes(changes::Response),
    /// The connection was closed at the gate.
    Closed,
}

/// Letters under way and links cut.
#[derive(Debug, Default)]
pub struct Network {
    under_way: VecDeque<Letter>,
    /// How often each process has started.
    runs: BTreeMap<Who, u32>,
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(Who, Who)>,
}

impl Network {
    /// A process starts; connections to it are new ones.
    pub fn starts(&mut self, who: Who) {
        *self.runs.entry(who).or_default() += 1;
    }

    /// Which run of a machine's process is the present or last one.
    pub fn run_of(&self, who: Who) -> u32 {
        self.runs.get(&who).copied().unwrap_or_default()
    }

    /// Sends a letter. Gives one that got lost for it, where too many are under way.
    pub fn send(&mut self, letter: Letter) -> Option<Letter> {
        self.under_way.push_back(letter);
        if self.under_way.len() > UNDER_WAY_MAX { self.under_way.pop_front() } else { None }
    }

    /// Takes out the letter that has been under way for longest.
    pub fn take_oldest(&mut self) -> Option<Letter> {
        self.under_way.pop_front()
    }

    /// Takes out any letter, and says whether it overtook another.
    pub fn take_any(&mut self, rng: &mut SmallRng) -> Option<(Letter, bool)> {
        if self.under_way.is_empty() {
            return None;
        }
        let at = rng.random_range(0..self.under_way.len());
        self.under_way.remove(at).map(|letter| (letter, at > 0))
    }

    /// Whether a letter gets through.
    pub fn passes(&self, letter: &Letter) -> bool {
        !self.cut.contains(&(letter.from, letter.to)) && self.run_of(letter.to) == letter.run
    }

    /// Whether anything is cut.
    pub fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }

    /// Splits everybody into two halves that do not hear each other.
    pub fn split(&mut self, rng: &mut SmallRng) -> Vec<Who> {
        let half: Vec<Who> = Who::all().filter(|_| rng.random_bool(0.5)).collect();
        for one in Who::all() {
            for other in Who::all().filter(|other| half.contains(&one) != half.contains(other)) {
                self.cut.insert((one, other));
            }
        }
        half
    }

    /// Nothing that one says reaches the other any more; what the other says still does.
    pub fn deafen(&mut self, from: Who, to: Who) {
        self.cut.insert((from, to));
    }

    /// Everybody hears everybody again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }
}
