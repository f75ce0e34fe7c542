//! Who may read this branch's restricted files, and what follows when that changes. Pure.
//!
//! What is guaranteed:
//!
//! - **Who loses a file gets a new content to lose it to.** Wherever a change takes the file from anybody who could open
//!   it ([`loses_readers`]), it needs a content under a fresh key: a key that was seen once opens nothing that follows.
//!   Where a change only gives access, the content stays, since its key was never anybody else's.
//! - **Keys go to readers only**, and to each as soon as it is a member ([`due`]). A reader whose membership has ended
//!   makes a new epoch, so that what it kept opens nothing that is restricted from then on.
//!
//! A list that names a member also holds for whoever takes over its name: a branch that gets a new machine joins as
//! another member, and is not to see what was hidden from the branch.

use std::collections::BTreeSet;

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{AccessPlace, AccessSecret, Audience, Keys, Rule},
    ids::NetworkId,
    keys::SealingKey,
    names::MemberName,
    records::{Access, Record},
};

/// How somebody wants a file's list to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Hide it from these too.
    Hide(Vec<PeerId>),
    /// Let these read it again.
    Show(Vec<PeerId>),
    /// Let this rule hold instead.
    Replace(Rule),
}

impl Change {
    /// The rule that holds after the change; none where everybody may read.
    ///
    /// Hiding from a member takes it off a list of readers, and showing puts it there: whichever kind of list a file has,
    /// the words mean the same to who types them.
    pub fn apply(self, before: Option<Rule>) -> Option<Rule> {
        let before = before.unwrap_or(Rule::EveryoneBut(Vec::new()));
        let after = match (before, self) {
            (Rule::EveryoneBut(hidden), Self::Hide(more)) => Rule::EveryoneBut([hidden, more].concat()),
            (Rule::Only(readers), Self::Show(more)) => Rule::Only([readers, more].concat()),
            (Rule::EveryoneBut(hidden), Self::Show(gone)) => Rule::EveryoneBut(without(hidden, &gone)),
            (Rule::Only(readers), Self::Hide(gone)) => Rule::Only(without(readers, &gone)),
            (_, Self::Replace(rule)) => rule,
        };
        match after.sorted() {
            Rule::EveryoneBut(hidden) if hidden.is_empty() => None,
            rule => Some(rule),
        }
    }
}

fn without(mut members: Vec<PeerId>, gone: &[PeerId]) -> Vec<PeerId> {
    members.retain(|member| !gone.contains(member));
    members
}

/// Whether anybody who may read under the one rule may not under the other; none is everybody. Members that are yet to
/// join count: who could have read would lose the file.
pub fn loses_readers(before: Option<&Rule>, after: Option<&Rule>) -> bool {
    let Some(after) = after else { return false };
    match (before, after) {
        (None, Rule::EveryoneBut(hidden)) => !hidden.is_empty(),
        (None | Some(Rule::EveryoneBut(_)), Rule::Only(_)) => true,
        (Some(Rule::EveryoneBut(before)), Rule::EveryoneBut(after)) => {
            after.iter().any(|member| !before.contains(member))
        }
        (Some(Rule::Only(before)), after) => before.iter().any(|member| !after.permits(member)),
    }
}

/// Opens what a record says of its content with an audience's keys. None where these are not the keys, or where the
/// record is open, so that there is nothing to open.
pub fn open(record: &Record, keys: &Keys, network: &NetworkId) -> Option<AccessSecret> {
    let entry = record.entry()?;
    let Access::Restricted { audience, epoch, sealed } = &entry.access else { return None };
    let file = record.file();
    let place = AccessPlace { network, file: &file, content: &entry.content, audience, epoch: *epoch };
    keys.0.get(epoch)?.open(sealed, &place).ok()
}

/// A node that could be a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: MemberName,
    /// Its sealing key, verified.
    pub key: SealingKey,
}

/// A member's keys as they were sealed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The member.
    pub member: PeerId,
    /// The latest epoch in it.
    pub epoch: u64,
    /// What they were sealed to.
    pub sealed_to: [u8; 32],
}

/// What an audience's owner has to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Readers that are members no more: their keys end with the present epoch.
    pub gone: Vec<PeerId>,
    /// Those to whom keys are to be sealed: all readers where there is a new epoch, else those that lack theirs.
    pub seal: Vec<SealingKey>,
}

/// Decides what an audience needs. `listed`: the names of those that its rule names, as far as they are known.
pub fn due(
    audience: &Audience,
    listed: &BTreeSet<MemberName>,
    candidates: &[Candidate],
    held: &[Held],
    ended: &BTreeSet<PeerId>,
) -> Due {
    let gone: Vec<PeerId> =
        held.iter().map(|held| held.member).filter(|member| ended.contains(member)).collect();
    let reads = |candidate: &&Candidate| {
        let inherits = matches!(audience.rule, Rule::EveryoneBut(_)) && listed.contains(&candidate.name);
        let owner = candidate.key.peer == audience.origin.owner;
        owner || (!inherits && audience.permits(&candidate.key.peer) && !ended.contains(&candidate.key.peer))
    };
    let lacks = |candidate: &&Candidate| {
        let has = |held: &Held| {
            held.member == candidate.key.peer
                && held.epoch == audience.epoch
                && held.sealed_to == *candidate.key.public
        };
        !gone.is_empty() || !held.iter().any(has)
    };
    let seal = candidates.iter().filter(reads).filter(lacks).map(|candidate| candidate.key.clone()).collect();
    Due { gone, seal }
}

#[cfg(test)]
mod tests;
