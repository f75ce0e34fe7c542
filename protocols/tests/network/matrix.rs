//! Every protocol × transport × whatever is presented: nobody is heard on what it may not use.
//!
//! "Not heard" means that the stream is not negotiated: the victim does not offer the protocol on that connection, so
//! there is no decoder that could read a byte. The attacker opens its streams itself, without a gate of its own, and
//! its bytes are well formed: on a connection where the protocol is offered they are read, and the last test shows it.

use libp2p::{Multiaddr, PeerId, identity::Keypair, request_response::OutboundFailure};
use quarta_protocols::{
    cbor,
    credentials::{Role, UnixSeconds},
    endings::Ended,
    members::Enrolment,
    messages::{changes, handover, sync, vault},
    network::Network,
    records::{Body, Link, Origin, State},
    signing::Signed,
};
use serde_bytes::ByteArray;

use crate::{
    attacker::{attack, hello, well_formed},
    gate::intruders,
    world::{BOTH, Over, POLL, World},
};

/// Quarta's own protocols but *hello* and *admission*, which strangers may speak.
const GATED: [&str; 7] = ["index", "changes", "poll", "sync", "chunk", "vault", "handover"];
/// libp2p's.
const FOREIGN: [&str; 1] = ["/ipfs/ping/1.0.0"];

/// A victim and what attackers need to know of it.
struct Victim {
    address: Multiaddr,
    tag: String,
    asked: std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>,
    network: Network,
}

impl Victim {
    async fn start(world: &World, role: Role, over: Over) -> Self {
        let member = world.member(role, over).await;
        let address = member.addresses().await.remove(0);
        let tag = world.trust.network.protocol_tag();
        let (network, asked) = member.answer_all();
        Self { address, tag, asked, network }
    }

    fn name(&self, protocol: &str) -> String {
        format!("/quarta/{}/{protocol}/1", self.tag)
    }

    fn names(&self) -> Vec<String> {
        let own = GATED.into_iter().chain(["identify"]).map(|protocol| self.name(protocol));
        own.chain(FOREIGN.map(str::to_owned)).collect()
    }

    /// Whether the victim refuses to negotiate `target` with a peer that presents this.
    async fn does_not_offer(&self, target: &str, key: &Keypair, presented: Option<&Enrolment>) -> bool {
        let greeting = presented.cloned().map(hello);
        let names = [self.name("hello"), target.to_owned()];
        let outcome = attack(key, &self.address, names, greeting, &well_formed()).await;
        matches!(outcome, Err(OutboundFailure::UnsupportedProtocols))
    }
}

fn peer_of(key: &Keypair) -> PeerId {
    key.public().to_peer_id()
}

async fn nothing_is_offered_to_whoever_presents_no_good_credential(role: Role, over: Over) {
    let world = World::new();
    let victim = Victim::start(&world, role, over).await;
    let now = UnixSeconds::now();
    let [key, revoked, left, orphan] = std::array::from_fn(|_| Keypair::generate_ed25519());
    victim.network.end(peer_of(&revoked), Ended::Revoked).await;
    victim.network.end(peer_of(&left), Ended::Left).await;
    let stolen_superpeer = Keypair::generate_ed25519();
    victim.network.end(peer_of(&stolen_superpeer), Ended::Revoked).await;
    let mut presented: Vec<(&Keypair, Option<Enrolment>)> = vec![
        (&key, None),
        (&revoked, Some(world.enrol(&revoked, Role::Node, now))),
        (&revoked, Some(world.enrol(&revoked, Role::Superpeer, now))),
        (&left, Some(world.enrol(&left, Role::Node, now))),
        (&orphan, Some(world.issued_by_another(&stolen_superpeer, &orphan))),
    ];
    presented.extend(intruders(&world, &key).into_iter().map(|(enrolment, _)| (&key, enrolment)));
    for target in victim.names() {
        for (case, (key, enrolment)) in presented.iter().enumerate() {
            let refused = victim.does_not_offer(&target, key, enrolment.as_ref()).await;
            assert!(refused, "{target} over {over:?} at a {role}, case {case}");
        }
    }
    assert!(victim.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_super_peer_offers_nothing_over_tcp_to_whoever_presents_no_good_credential() {
    nothing_is_offered_to_whoever_presents_no_good_credential(Role::Superpeer, Over::Tcp).await;
}

#[tokio::test]
async fn a_super_peer_offers_nothing_over_quic_to_whoever_presents_no_good_credential() {
    nothing_is_offered_to_whoever_presents_no_good_credential(Role::Superpeer, Over::Quic).await;
}

#[tokio::test]
async fn a_node_offers_nothing_over_tcp_to_whoever_presents_no_good_credential() {
    nothing_is_offered_to_whoever_presents_no_good_credential(Role::Node, Over::Tcp).await;
}

#[tokio::test]
async fn a_node_offers_nothing_over_quic_to_whoever_presents_no_good_credential() {
    nothing_is_offered_to_whoever_presents_no_good_credential(Role::Node, Over::Quic).await;
}

#[tokio::test]
async fn what_only_super_peers_may_ask_is_not_offered_to_a_node() {
    let world = World::new();
    for over in BOTH {
        for (role, protocol) in [(Role::Superpeer, "sync"), (Role::Node, "poll"), (Role::Node, "vault")] {
            let victim = Victim::start(&world, role, over).await;
            let key = Keypair::generate_ed25519();
            let enrolment = world.enrol(&key, Role::Node, UnixSeconds::now());
            assert!(
                victim.does_not_offer(&victim.name(protocol), &key, Some(&enrolment)).await,
                "{protocol}"
            );
            assert!(victim.asked.lock().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_revoked_machine_is_not_even_offered_admission() {
    let world = World::new();
    for over in BOTH {
        for role in [Role::Superpeer, Role::Node] {
            let victim = Victim::start(&world, role, over).await;
            let key = Keypair::generate_ed25519();
            victim.network.end(peer_of(&key), Ended::Revoked).await;
            assert!(victim.does_not_offer(&victim.name("admission"), &key, None).await);
        }
    }
}

/// A file offered by somebody to somebody.
fn offer(world: &World) -> handover::Request {
    let (owner, next) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let origin = Origin { owner: peer_of(&owner), nonce: ByteArray::new([1; 16]) };
    let file = origin.file_id(&world.trust.network);
    let body = Body { file, origin, links: Vec::new(), revision: 1, state: State::Deleted };
    let link = Link {
        file,
        place: 0,
        from: peer_of(&owner),
        to: peer_of(&next),
        previous: None,
        by_root: false,
        candidates: Vec::new(),
    };
    let network = &world.trust.network;
    handover::Request {
        record: Signed::new(&body, network, &owner),
        link: Signed::new(&link, network, &owner),
        rule: None,
    }
}

#[tokio::test]
async fn the_same_bytes_are_read_where_the_credential_is_good_for_them() {
    let world = World::new();
    let changes = changes::Request::Follow { since: None, wait_ms: 0 };
    let asked = [
        (Role::Superpeer, "index", Role::Node, well_formed()),
        (Role::Superpeer, "changes", Role::Node, cbor::to_vec(&changes)),
        (Role::Superpeer, "sync", Role::Superpeer, cbor::to_vec(&sync::Request::Push(Vec::new()))),
        (Role::Node, "poll", Role::Superpeer, cbor::to_vec(&POLL)),
        (Role::Node, "vault", Role::Superpeer, cbor::to_vec(&vault::Request::Confirm(Vec::new()))),
        (Role::Node, "handover", Role::Node, cbor::to_vec(&offer(&world))),
    ];
    for over in BOTH {
        for (role, protocol, asker, bytes) in &asked {
            let victim = Victim::start(&world, *role, over).await;
            let key = Keypair::generate_ed25519();
            let greeting = hello(world.enrol(&key, *asker, UnixSeconds::now()));
            let names = [victim.name("hello"), victim.name(protocol)];
            // Whether there is an answer is up to the victim; that it was asked is what counts.
            let _ = attack(&key, &victim.address, names, Some(greeting), bytes).await;
            assert_eq!(*victim.asked.lock().unwrap(), [*protocol]);
        }
    }
}
