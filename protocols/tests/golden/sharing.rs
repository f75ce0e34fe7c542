//! Who may read what, replicas and hand-overs: one value of each format.

use quarta_protocols::{
    audiences::{AccessPlace, AccessSecret, Audience, EpochKey, Keys, Rule, Wrap},
    cbor,
    content::ContentKey,
    ids::AudienceId,
    keys::SealingSecret,
    messages::{
        handover::{self, Handover},
        index::{self, Holder, Index, MemberState},
        vault::{self, Assignment, DropReason, Outcome, Vault},
    },
    records::{Origin, State},
    rpc::Protocol,
    signing::{Signed, Statement},
};
use serde_bytes::{ByteArray, ByteBuf};

use crate::cases::{
    Cases, World, content, file, name, open_entry, peer, restricted_entry, sha256, statement, verbatim,
};

pub(crate) fn sharing(cases: &mut Cases, world: &World) {
    names(cases, world);
    lists(cases, world);
    secrets(cases);
    questions(cases, world);
    replicas(cases);
    hand_overs(cases, world);
}

fn names(cases: &mut Cases, world: &World) {
    let network = &world.trust.network;
    let tag = network.protocol_tag();
    for (name, version) in [(Vault::NAME, Vault::VERSION), (Handover::NAME, Handover::VERSION)] {
        cases.raw(&format!("protocol.{name}"), format!("/quarta/{tag}/{name}/{version}"), verbatim);
    }
    let audience = AudienceId::derive(network, &peer(&world.node), &[9; 16]);
    cases.raw("id.audience", *audience.as_bytes(), verbatim);
    cases.raw("id.wrap", Wrap::id_of(&audience, &peer(&world.other)), verbatim);
    for domain in [Audience::DOMAIN, Wrap::DOMAIN] {
        cases.raw(&format!("domain.{domain}"), domain, verbatim);
    }
}

fn origin(world: &World) -> Origin {
    Origin { owner: peer(&world.node), nonce: ByteArray::new([9; 16]) }
}

fn wrapped(world: &World) -> Wrap {
    let audience = Audience::new(origin(world), Rule::Only(Vec::new()), 1, &world.trust.network);
    Wrap {
        audience: audience.audience,
        origin: audience.origin,
        member: peer(&world.other),
        epoch: 2,
        encapsulated: ByteArray::new([0xec; 32]),
        sealed: ByteBuf::from(vec![0x5e; 24]),
    }
}

fn lists(cases: &mut Cases, world: &World) {
    let network = &world.trust.network;
    let members = || vec![peer(&world.other), peer(&world.superpeer)];
    for (what, rule) in [
        ("everyone_but", Rule::EveryoneBut(members())),
        ("everyone", Rule::EveryoneBut(Vec::new())),
        ("only", Rule::Only(members())),
    ] {
        let audience = Audience::new(origin(world), rule, 3, network);
        cases.cbor(&format!("statement.audience.{what}"), &audience, statement::<Audience>);
        let signed = audience.sign(&world.trust, &world.node).unwrap();
        cases.cbor(&format!("signed.audience.{what}"), signed.signed(), |bytes| {
            let signed = cbor::from_slice(bytes).map_err(|e| e.to_string())?;
            let stated = Audience::verify(signed, &World::new().trust).map_err(|e| e.to_string())?;
            Ok(cbor::to_vec(stated.signed()))
        });
    }
    let wrap = wrapped(world);
    cases.cbor("statement.wrap", &wrap, statement::<Wrap>);
    cases.cbor("signed.wrap", &Signed::new(&wrap, network, &world.node), |bytes| {
        let signed = cbor::from_slice(bytes).map_err(|e| e.to_string())?;
        let stated = Wrap::verify(signed, &World::new().trust).map_err(|e| e.to_string())?;
        Ok(cbor::to_vec(stated.signed()))
    });
}

/// What a member's wrap sealed when it was made, which must open for ever.
const WRAP: &str = "a66861756469656e636558209b58cf8b1d47e5390ede350958403b94eba8c3169712da0794cd052cc354cc32666f726967696ea2656f776e65725826002408011220ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1656e6f6e63655009090909090909090909090909090909666d656d6265725826002408011220ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c6565706f6368026c656e63617073756c6174656458207fbc5b36fadc38890b26e6b3f98cad9025e4edf40af9054195e9424279fe6f41667365616c65645857671c87da154e5a2defa96292a122bc4b60c558dd0fc1b1e988bfda68ee6728c34efb5db6ab019eacdd406eaefddaaa349781b4fffce60d400adc61c112174885817f2d605026aa003878c5ee9195193ddd62a238d75d25";
/// What a record's access sealed when it was made.
const ACCESS: &str = "60df1b9e0c39762d2a40657333f8116a7a6bd062aebf7cbf92115410728690587061de10b48e8a792db11171f1bebbed51a7f695fbe5a17227f7083cf4d74d51a8320052a371ad1b0a7253f3370fea41dc8624acbacd6d4f57a4d8a825153f39e2bcf499d6f083c30ec80302c068c7adc12f103a2e232fbe7735ec1c8f21c381";

fn epoch_key() -> EpochKey {
    EpochKey::from_bytes([0xe9; 32])
}

fn secret() -> AccessSecret {
    AccessSecret {
        key: ContentKey::from_bytes([0xee; 32]),
        sha256: sha256(),
        media_type: Some("text/csv".to_owned()),
    }
}

fn secrets(cases: &mut Cases) {
    let unhex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    cases.raw("sealed.wrap", unhex(WRAP), |bytes| {
        let secret = SealingSecret::from_bytes([3; 32]);
        let wrap: Wrap = cbor::from_slice(bytes).map_err(|e| e.to_string())?;
        let keys = wrap.open(&secret, &World::new().trust.network).map_err(|e| e.to_string())?;
        let expected = Keys((1..=2).map(|epoch| (epoch, epoch_key())).collect());
        if keys == expected { Ok(bytes.to_vec()) } else { Err("other keys".to_owned()) }
    });
    cases.raw("sealed.access", unhex(ACCESS), |bytes| {
        let (network, audience) = (World::new().trust.network, AudienceId::from_bytes([0xad; 32]));
        let place = AccessPlace {
            network: &network,
            file: &file(),
            content: &content(),
            audience: &audience,
            epoch: 4,
        };
        let opened = epoch_key().open(bytes, &place).map_err(|e| e.to_string())?;
        if opened == secret() { Ok(bytes.to_vec()) } else { Err("another secret".to_owned()) }
    });
}

fn questions(cases: &mut Cases, world: &World) {
    let network = &world.trust.network;
    let audience = Audience::new(origin(world), Rule::EveryoneBut(vec![peer(&world.other)]), 1, network);
    let publish = index::Request::PublishKeys {
        audiences: vec![audience.sign(&world.trust, &world.node).unwrap().signed().clone()],
        wraps: vec![Signed::new(&wrapped(world), network, &world.node)],
    };
    cases.request::<Index>("publish_keys", &publish);
    cases.request::<Index>("holders", &index::Request::Holders { file: file() });
    let holder = |state, vault, complete| Holder {
        peer: peer(&world.other),
        name: name("filial-natal"),
        state,
        vault,
        complete,
    };
    let holders = vec![holder(MemberState::Online, false, true), holder(MemberState::Offline, true, false)];
    cases.response::<Index>("holders", &index::Response::Holders { holders, target: 24, floor: 3 });
    let none = index::Response::Holders { holders: Vec::new(), target: 0, floor: 0 };
    cases.response::<Index>("holders.none", &none);
}

fn replicas(cases: &mut Cases) {
    use vault::{Request, Response};
    let drop = |reason| Assignment::Drop { content: content(), reason };
    let assignments = vec![
        Assignment::Keep { content: content(), size_bytes: 5_000_000_000 },
        drop(DropReason::Excess),
        drop(DropReason::Replaced),
        drop(DropReason::Withdrawn),
    ];
    cases.request::<Vault>("assign", &Request::Assign(assignments));
    cases.request::<Vault>("confirm", &Request::Confirm(vec![content()]));
    let outcomes = vec![Outcome::Accepted, Outcome::NoRoom, Outcome::Busy];
    cases.response::<Vault>("assigned", &Response::Assigned(outcomes));
    cases.response::<Vault>("confirmed", &Response::Confirmed(vec![true, false]));
    cases.response::<Vault>("unavailable", &Response::Unavailable);
}

fn hand_overs(cases: &mut Cases, world: &World) {
    use handover::{Refusal, Request, Response};
    let signed = |entry| world.signed(&world.body(State::Present(entry)), &world.node);
    let link = |by_root: bool| {
        let signer = if by_root { &world.root } else { &world.node };
        Signed::new(&world.link(by_root), &world.trust.network, signer)
    };
    let gift = Request { record: signed(open_entry()), link: link(false), rule: None };
    cases.request::<Handover>("open", &gift);
    let rule = Some(Rule::EveryoneBut(vec![peer(&world.superpeer)]));
    let assigned = Request { record: signed(restricted_entry()), link: link(true), rule };
    cases.request::<Handover>("restricted", &assigned);
    cases.response::<Handover>("taken", &Response::Taken(signed(open_entry())));
    cases.response::<Handover>("fetching", &Response::Fetching { have_bytes: 1 << 33 });
    for refusal in [
        Refusal::Invalid,
        Refusal::Outdated,
        Refusal::MayNotRead,
        Refusal::Leaving,
        Refusal::NoRoom,
        Refusal::Busy,
        Refusal::Unavailable,
    ] {
        cases.response::<Handover>(&format!("refused.{refusal:?}"), &Response::Refused(refusal));
    }
}
