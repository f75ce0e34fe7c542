//! Whom a node hides its files from: its audiences, and its readers' keys of them.
//!
//! The keys are made of nothing, since nobody opens a file here: what counts is to whom they are shown. Now and then an
//! owner does what no owner may, and states another rule for an audience that it has stated already. A super-peer that
//! knows the first refuses the second; through two super-peers that do not hear each other both get in.

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Rule, Stated, Wrap, inherited},
    messages::index,
    records::{Access, Origin},
    signing::Signed,
};
use rand::{RngExt, rngs::SmallRng, seq::IndexedRandom, seq::IteratorRandom};
use serde_bytes::{ByteArray, ByteBuf};

use super::{Awaited, Member};
use crate::simulation::{
    cast::{NODES, Who, cast, open_access},
    network::Ask,
    superpeer::Question,
};

/// Readers that are given keys of each audience: enough to see that each gets its own only.
const WRAPPED_MAX: usize = 2;
/// Audiences that a node makes; it takes one of those then.
const AUDIENCES_MAX: usize = 4;

/// What a node has signed of its lists, as they stand.
#[derive(Default)]
pub(super) struct Lists {
    audiences: Vec<Stated<Audience>>,
    wraps: Vec<Stated<Wrap>>,
    /// How many of each the watcher has not been told of, from the end.
    news: Vec<List>,
}

/// One statement.
pub enum List {
    /// Who may read.
    Audience(Stated<Audience>),
    /// A reader's keys.
    Wrap(Stated<Wrap>),
}

impl Member {
    /// Open to all, or to an audience of its own, which it makes where it has none of that rule.
    pub(super) fn another_access(&mut self, rng: &mut SmallRng) -> Access {
        let others = Who::members().filter(|who| *who != self.who);
        let Some(named) = others.choose(rng).filter(|_| rng.random_bool(0.7)) else { return open_access() };
        let named = vec![named.peer()];
        let rule = if rng.random_bool(0.3) { Rule::Only(named) } else { Rule::EveryoneBut(named) };
        self.access_under(rule, rng)
    }

    /// How the next owner keeps a file of this node's.
    pub(super) fn access_for_next_owner(&self, access: &Access, to: &mut Self, rng: &mut SmallRng) -> Access {
        let Access::Restricted { audience, .. } = access else { return open_access() };
        let own = self.lists.audiences.iter().map(Stated::statement).find(|own| own.audience == *audience);
        match own {
            Some(own) => {
                let rule = inherited(own.rule.clone(), &self.who.peer(), &to.who.peer(), true);
                to.access_under(rule, rng)
            }
            None => open_access(),
        }
    }

    fn access_under(&mut self, rule: Rule, rng: &mut SmallRng) -> Access {
        let rule = rule.sorted();
        let of_rule = |stated: &&Stated<Audience>| stated.statement().rule == rule;
        let audience = match self.lists.audiences.iter().find(of_rule) {
            Some(stated) => stated.statement().audience,
            None if self.lists.audiences.len() >= AUDIENCES_MAX => self
                .lists
                .audiences
                .choose(rng)
                .map(|stated| stated.statement().audience)
                .expect("there are some"),
            None => {
                let origin = Origin { owner: self.who.peer(), nonce: ByteArray::new(rng.random()) };
                let audience = Audience::new(origin, rule, 1, &cast().trust.network);
                self.state(&audience);
                audience.audience
            }
        };
        // Every statement of the audience has the first epoch. What is sealed is opened by nobody here.
        Access::Restricted { audience, epoch: 1, sealed: ByteBuf::from(vec![1; 24]) }
    }

    /// States one of its lists anew: with a new key, or, as it must not, with another rule. Whether it has any.
    pub fn restate_a_list(&mut self, rng: &mut SmallRng) -> bool {
        let Some(stated) = self.lists.audiences.choose(rng) else { return false };
        let mut audience = stated.statement().clone();
        if rng.random_bool(0.5) {
            audience.epoch += 1;
        }
        if rng.random_bool(0.5)
            && let Some(named) = Who::members().filter(|who| *who != self.who).choose(rng)
        {
            audience.rule = changed(audience.rule, named.peer());
        }
        self.state(&audience);
        true
    }

    fn state(&mut self, audience: &Audience) {
        let key = &self.who.identity().key;
        let stated = audience.sign(&cast().trust, key).expect("an own audience can be signed");
        self.lists.audiences.retain(|before| before.statement().audience != audience.audience);
        self.lists.wraps.retain(|before| before.statement().audience != audience.audience);
        let readers = Who::members().take(NODES).filter(|who| *who != self.who);
        for reader in readers.filter(|who| audience.permits(&who.peer())).take(WRAPPED_MAX) {
            let wrap = wrap(audience, reader.peer(), self.who);
            let wrap = Wrap::verify(wrap, &cast().trust).expect("an own wrap is genuine");
            self.lists.news.push(List::Wrap(wrap.clone()));
            self.lists.wraps.push(wrap);
        }
        self.lists.news.push(List::Audience(stated.clone()));
        self.lists.audiences.push(stated);
    }

    /// What it has signed of its lists since it was asked last.
    pub fn newly_signed(&mut self) -> Vec<List> {
        std::mem::take(&mut self.lists.news)
    }

    /// Tells a super-peer its lists and its readers' keys, of which it may have lost some.
    pub fn tell_lists(&mut self, superpeer: Who) -> Option<Question> {
        self.credential.as_ref()?;
        if self.lists.audiences.is_empty() {
            return None;
        }
        let audiences = self.lists.audiences.iter().map(|stated| stated.signed().clone()).collect();
        let wraps = self.lists.wraps.iter().map(|stated| stated.signed().clone()).collect();
        let ask = Ask::Index(index::Request::PublishKeys { audiences, wraps });
        self.question(superpeer, Awaited::Publication(Vec::new()), ask)
    }
}

/// A rule that names one more, or one less.
fn changed(rule: Rule, member: PeerId) -> Rule {
    let change = |mut members: Vec<PeerId>| {
        if members.contains(&member) {
            members.retain(|named| *named != member);
        } else {
            members.push(member);
        }
        members
    };
    match rule {
        Rule::EveryoneBut(members) => Rule::EveryoneBut(change(members)),
        Rule::Only(members) => Rule::Only(change(members)),
    }
    .sorted()
}

/// A reader's keys of an audience, signed by whoever it is.
pub(in crate::simulation) fn wrap(audience: &Audience, reader: PeerId, signer: Who) -> Signed<Wrap> {
    let wrap = Wrap {
        audience: audience.audience,
        origin: audience.origin.clone(),
        member: reader,
        epoch: audience.epoch,
        encapsulated: ByteArray::new([7; 32]),
        sealed: ByteBuf::from(vec![8; 64]),
    };
    Signed::new(&wrap, &cast().trust.network, &signer.identity().key)
}
