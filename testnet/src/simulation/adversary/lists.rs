//! Attempts on the lists of who may read what.

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Rule},
    messages::{
        index,
        sync::{Entry, Kind},
    },
    records::Origin,
    signing::Signed,
};
use rand::{
    RngExt,
    rngs::SmallRng,
    seq::{IndexedRandom, IteratorRandom},
};
use serde_bytes::ByteArray;

use super::stamped;
use crate::simulation::{
    cast::{Who, cast, key},
    member::wrap,
    network::Ask,
};

/// A member's audience, signed by nobody's key, under a super-peer's stamp.
pub(super) fn tampered(owner: Who, by: Who, rng: &mut SmallRng) -> Entry {
    let origin = Origin { owner: owner.peer(), nonce: ByteArray::new(rng.random()) };
    let audience = Audience::new(origin, Rule::EveryoneBut(Vec::new()), 1, &cast().trust.network);
    let signed = Signed::new(&audience, &cast().trust.network, &key(99));
    stamped(by, Kind::AUDIENCE, *audience.audience.as_bytes(), super::cbor(&signed))
}

/// A later epoch of another's audience, that lets everybody read, as this member says.
pub(super) fn anothers(heard: &[Signed<Audience>], by: Who, rng: &mut SmallRng) -> Option<Ask> {
    let mut audience = not_of(heard, by, rng)?;
    audience.rule = Rule::EveryoneBut(Vec::new());
    audience.epoch += 1;
    let signed = Signed::new(&audience, &cast().trust.network, &by.identity().key);
    Some(Ask::Index(index::Request::PublishKeys { audiences: vec![signed], wraps: Vec::new() }))
}

/// Keys of another's audience, that this member gives itself.
pub(super) fn keys_of_anothers(heard: &[Signed<Audience>], by: Who, rng: &mut SmallRng) -> Option<Ask> {
    let audience = not_of(heard, by, rng)?;
    let wraps = vec![wrap(&audience, by.peer(), by)];
    Some(Ask::Index(index::Request::PublishKeys { audiences: Vec::new(), wraps }))
}

/// Keys that an owner gives a super-peer.
pub(super) fn keys_for_a_superpeer(
    heard: &[Signed<Audience>],
    superpeer: Who,
    rng: &mut SmallRng,
) -> Option<(Who, Ask)> {
    let audience = heard.choose(rng)?.peek().ok()?;
    let owner = Who::of_peer(&audience.origin.owner)?;
    let wraps = vec![wrap(&audience, superpeer.peer(), owner)];
    Some((owner, Ask::Index(index::Request::PublishKeys { audiences: Vec::new(), wraps })))
}

fn not_of(heard: &[Signed<Audience>], member: Who, rng: &mut SmallRng) -> Option<Audience> {
    let me: PeerId = member.peer();
    heard
        .iter()
        .filter_map(|signed| signed.peek().ok())
        .filter(|audience| audience.origin.owner != me)
        .choose(rng)
}
