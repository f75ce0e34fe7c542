//! A small network to test with: a root, three super-peers, a few nodes, all from fixed seeds.

use std::sync::LazyLock;

use libp2p::{PeerId, identity::Keypair};
use quarta_protocols::{
    audiences::{Audience, EpochKey, Keys, Rule, Stated, Wrap},
    content::ContentKey,
    credentials::{Credential, Grant, Membership, Role, Trust, UnixSeconds},
    endings::{Departure, RevocationNotice},
    ids::{AudienceId, ContentId, NetworkId, RecordHash, Sha256},
    keys::{SealingKey, SealingSecret},
    members::Enrolment,
    names::{FileName, MemberName},
    records::{Access, Body, Entry, Link, Origin, Record, State},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};
use tempfile::TempDir;

use super::Catalog;

/// When the network begins, in seconds and milliseconds since 1970.
pub(crate) const START: UnixSeconds = UnixSeconds(1_800_000_000);
pub(crate) const START_MS: u64 = START.0 * 1000;

pub(crate) fn key(seed: u8) -> Keypair {
    Keypair::ed25519_from_bytes([seed; 32]).unwrap()
}

pub(crate) fn peer(seed: u8) -> PeerId {
    key(seed).public().to_peer_id()
}

/// Super-peers have the seeds 101 to 103, nodes those below 100; the root has 200.
pub(crate) fn trust() -> Trust {
    Trust::in_root(key(200).public().try_into_ed25519().unwrap())
}

pub(crate) fn network() -> NetworkId {
    trust().network
}

pub(crate) fn name(name: &str) -> MemberName {
    MemberName::new(name).unwrap()
}

pub(crate) fn superpeer_credential(seed: u8) -> Credential {
    let name = name(&format!("sp{}", seed - 100));
    let grant =
        Grant { peer: peer(seed), name: &name, role: Role::Superpeer, now: START, token_id: [seed; 16] };
    Credential::issue_by_root(&key(200), &network(), &grant)
}

/// The enrolment of a node as `sp1` issues it.
pub(crate) fn node_enrolment(seed: u8, called: &str, issued: UnixSeconds) -> Enrolment {
    let name = name(called);
    let grant = Grant { peer: peer(seed), name: &name, role: Role::Node, now: issued, token_id: [seed; 16] };
    let credential =
        Credential::issue_by_superpeer(&key(101), &superpeer_credential(101), &network(), &grant);
    enrolment_with(seed, credential)
}

pub(crate) fn enrolment(seed: u8) -> Enrolment {
    if seed > 100 {
        enrolment_with(seed, superpeer_credential(seed))
    } else {
        node_enrolment(seed, &format!("filial-{seed}"), START)
    }
}

fn enrolment_with(seed: u8, credential: Credential) -> Enrolment {
    let sealing_key = SealingSecret::from_bytes([seed; 32]).statement(&network(), &key(seed));
    Enrolment { peer: peer(seed), credential, sealing_key }
}

pub(crate) fn membership(seed: u8) -> Membership {
    enrolment(seed).verify(&trust()).unwrap().membership
}

/// A catalog of a super-peer in a folder, with two super-peers and the nodes 1 to 4 enrolled by the first.
///
/// A copy of one made once: syncing each enrolment to the disk for every test would take most of their time.
pub(crate) fn catalog(dir: &std::path::Path, superpeer: u8) -> Catalog {
    static TEMPLATES: LazyLock<TempDir> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut first = empty_catalog(dir.path(), 101);
        for seed in [101, 102, 1, 2, 3, 4] {
            first.enrol(enrolment(seed), START_MS).unwrap();
        }
        let (all, _) = first.reader().unwrap().page(None).unwrap();
        empty_catalog(dir.path(), 102).take(&membership(101), all, START_MS).unwrap();
        dir
    });
    let file = format!("{superpeer}.db");
    std::fs::copy(TEMPLATES.path().join(&file), dir.join(&file)).unwrap();
    let catalog = empty_catalog(dir, superpeer);
    // No test cuts the power.
    catalog.conn.pragma_update(None, "synchronous", "OFF").unwrap();
    catalog
}

pub(crate) fn empty_catalog(dir: &std::path::Path, superpeer: u8) -> Catalog {
    Catalog::open(&dir.join(format!("{superpeer}.db")), trust(), key(superpeer)).unwrap()
}

pub(crate) fn departure(seed: u8) -> Signed<Departure> {
    Signed::new(&Departure { member: peer(seed) }, &network(), &key(seed))
}

/// A revocation by a super-peer, or by the root (200).
pub(crate) fn revocation(of: u8, by: u8) -> RevocationNotice {
    match by {
        200 => RevocationNotice::by_root(peer(of), &key(200), &trust()),
        _ => RevocationNotice::by_superpeer(peer(of), &key(by), superpeer_credential(by), &trust()),
    }
}

pub(crate) fn present(name: &str) -> State {
    State::Present(Entry {
        name: FileName::new(name).unwrap(),
        size_bytes: 3,
        content: ContentId::from_bytes([9; 32]),
        manifest: None,
        access: Access::Open {
            key: ContentKey::from_bytes([1; 32]),
            sha256: Sha256::from_bytes([2; 32]),
            media_type: None,
        },
    })
}

/// What `owner` says of its `nth` file.
pub(crate) fn body(owner: u8, nth: u16, revision: u64, state: State) -> Body {
    let mut nonce = [0; 16];
    nonce[..2].copy_from_slice(&nth.to_be_bytes());
    let origin = Origin { owner: peer(owner), nonce: ByteArray::new(nonce) };
    Body { file: origin.file_id(&network()), origin, links: Vec::new(), revision, state }
}

pub(crate) fn record(owner: u8, nth: u16, revision: u64, state: State) -> Record {
    Record::sign(&body(owner, nth, revision, state), &trust(), &key(owner)).unwrap()
}

/// The record after a hand-over from its first owner.
pub(crate) fn handed_over(mut body: Body, from: u8, to: u8) -> Record {
    let link = Link {
        file: body.file,
        place: 0,
        from: peer(from),
        to: peer(to),
        previous: body.links.last().map(|link| RecordHash::of(link.body())),
        by_root: false,
        candidates: Vec::new(),
    };
    body.links.push(Signed::new(&link, &network(), &key(from)));
    Record::sign(&body, &trust(), &key(to)).unwrap()
}

/// The `nth` audience of `owner`.
pub(crate) fn audience(owner: u8, nth: u8, rule: Rule, epoch: u64) -> Stated<Audience> {
    let origin = Origin { owner: peer(owner), nonce: ByteArray::new([nth; 16]) };
    Audience::new(origin, rule, epoch, &network()).sign(&trust(), &key(owner)).unwrap()
}

/// Everybody but these.
pub(crate) fn but(members: &[u8]) -> Rule {
    Rule::EveryoneBut(members.iter().map(|seed| peer(*seed)).collect())
}

/// These only.
pub(crate) fn only(members: &[u8]) -> Rule {
    Rule::Only(members.iter().map(|seed| peer(*seed)).collect())
}

/// A member's keys of an audience, signed by its owner.
pub(crate) fn wrap(audience: &Stated<Audience>, owner: u8, member: u8) -> Stated<Wrap> {
    let audience = audience.statement();
    let keys = Keys((1..=audience.epoch).map(|epoch| (epoch, EpochKey::from_bytes([7; 32]))).collect());
    let secret = SealingSecret::from_bytes([member; 32]);
    let sealing_key =
        SealingKey::verify(&secret.statement(&network(), &key(member)), &network(), &peer(member)).unwrap();
    Wrap::seal(audience, &keys, &sealing_key, &trust(), &key(owner)).unwrap()
}

/// A file that only an audience may read, with a content of its own.
pub(crate) fn restricted(name: &str, content: u8, audience: AudienceId, epoch: u64) -> State {
    State::Present(Entry {
        name: FileName::new(name).unwrap(),
        size_bytes: 3,
        content: ContentId::from_bytes([content; 32]),
        manifest: None,
        access: Access::Restricted { audience, epoch, sealed: ByteBuf::from(vec![content; 60]) },
    })
}
