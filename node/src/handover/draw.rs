//! The draw: which branch a file goes to whose owner leaves.
//!
//! Every candidate has a *ticket* for every file, a hash that nobody can choose, and the lowest one is drawn. The link lists
//! the candidates, so that everybody who sees the record can repeat the draw ([`is_fair`]); a leaving branch cannot favour
//! one of them, and a branch that many files are drawn to was not picked for them. That the tickets of different files are
//! unrelated spreads a leaver's files evenly over the candidates, and that a candidate's ticket does not depend on who else
//! is there means that another draw among fewer gives the same branch, unless it is that one which dropped out.

use libp2p::PeerId;
use quarta_protocols::{
    ids::FileId,
    records::{CANDIDATES_MAX, Link},
};

/// A branch as the draw sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch {
    /// Who.
    pub peer: PeerId,
    /// Whether it answers now.
    pub online: bool,
    /// Whether it holds the whole file.
    pub holds: bool,
    /// Whether it may read the file.
    pub may_read: bool,
}

/// Among whom a file is drawn: those online that may read it and hold it; where nobody does, all online that may read it,
/// since one of them can fetch it first. At most [`CANDIDATES_MAX`], the lowest tickets first; empty where the file would
/// be lost. `except` have refused it or do not answer.
pub fn candidates(file: &FileId, place: u32, branches: &[Branch], except: &[PeerId]) -> Vec<PeerId> {
    let eligible = |branch: &&Branch| branch.online && branch.may_read && !except.contains(&branch.peer);
    let pick = |holds: bool| -> Vec<PeerId> {
        let picked = branches.iter().filter(eligible).filter(|branch| branch.holds || !holds);
        picked.map(|branch| branch.peer).collect()
    };
    let mut peers = pick(true);
    if peers.is_empty() {
        peers = pick(false);
    }
    peers.sort_by_cached_key(|peer| (ticket(file, place, peer), peer.to_bytes()));
    peers.dedup();
    peers.truncate(CANDIDATES_MAX);
    peers
}

/// Who is drawn for the hand-over of a file at `place` among its links; none where there are no candidates. Their order
/// does not matter.
pub fn draw(file: &FileId, place: u32, candidates: &[PeerId]) -> Option<PeerId> {
    candidates.iter().copied().min_by_key(|peer| (ticket(file, place, peer), peer.to_bytes()))
}

/// Whether a link goes to whom it should: a gift to anybody, else to the one drawn among those that it lists.
pub fn is_fair(link: &Link) -> bool {
    link.candidates.is_empty() || draw(&link.file, link.place, &link.candidates) == Some(link.to)
}

fn ticket(file: &FileId, place: u32, peer: &PeerId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 hand-over draw v1");
    hasher.update(file.as_bytes());
    hasher.update(&place.to_be_bytes());
    hasher.update(&peer.to_bytes());
    *hasher.finalize().as_bytes()
}
