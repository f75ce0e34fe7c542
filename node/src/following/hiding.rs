//! What follows for this node from a super-peer's word that a file is hidden from it. Pure.
//!
//! Super-peers hear of a file's changes at different times, and a node follows now the one, now the other. Suppose that one
//! says "forget the file", and the next, which lags behind, shows the record from before: were it taken, nobody would ever
//! say "forget" again, as both are read on from where they were left. So what a node knows of a file is *how far it has come*:
//!
//! ```text
//! place            where the file's latest record stands among all of them (Precedence), shown or not
//! what stands there    that record, or that it is hidden
//! ```
//!
//! News only ever raise the place, and at one place *hidden* wins: a maximum, so that any news in any order, twice or late,
//! come to the same. What is hidden is remembered for that (`database/hidden.rs`), also of files that this node never saw.
//!
//! **An owner's file is its own** until another signature says otherwise: its own, or the root's, on a hand-over. That a file
//! is hidden is a super-peer's word, and must not make it vanish where it belongs; a former owner that was away when the root
//! assigned the file to somebody else, who hides it now, is shown that hand-over.
//!
//! What remains to a lying super-peer is to hide others' files from a node for good, by a place that no honest record will
//! ever reach. It can withhold records from those who follow it anyway; but this outlasts its being followed. Therefore
//! who said so is remembered too: once that super-peer is revoked, its word counts no more, and everybody else's feed is read
//! anew. What remains to a lying owner that hands one file to two members is that the loser, from whom the winner hides the
//! file, keeps what it was given: nothing that this node has seen proves the other hand-over.

use libp2p::PeerId;
use quarta_protocols::{
    credentials::Trust,
    ids::FileId,
    records::{Link, Precedence, Record},
    signing::Signed,
};

/// A super-peer's word that a file is hidden from this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hiding {
    /// The file.
    pub file: FileId,
    /// Records up to here are hidden. None where an earlier version says it: then it is the record that is here.
    pub place: Option<Precedence>,
    /// Hand-overs by which this node, or the root in its place, gave the file away; not verified.
    pub handed_over: Vec<Signed<Link>>,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is of a time before the record that is here, and says nothing of that.
    Older,
    /// The file is this node's own, and stays.
    Own,
    /// The file is hidden: its record goes, and none up to the place is taken.
    Hidden {
        /// Who owns it instead of this node; none where this node is not known to have owned it.
        handed_to: Option<PeerId>,
    },
}

impl Hiding {
    /// Decides. `known` is the record that is here, `own` this node.
    pub fn verdict(&self, known: Option<&Record>, own: &PeerId, trust: &Trust) -> Verdict {
        let Some(known) = known else { return Verdict::Hidden { handed_to: None } };
        if self.place.as_ref().is_some_and(|place| *place < known.precedence()) {
            return Verdict::Older;
        }
        if known.owner() != *own {
            return Verdict::Hidden { handed_to: None };
        }
        match self.handed_over.iter().find_map(|link| known.handed_on_by(link, trust)) {
            Some(to) if to != *own => Verdict::Hidden { handed_to: Some(to) },
            _ => Verdict::Own,
        }
    }
}
