//! Who is let in, over which transport, and what the others get.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use libp2p::identity::Keypair;
use quarta_protocols::{
    cbor,
    credentials::{CLOCK_SKEW, Role, UnixSeconds},
    endings::Ended,
    ids::ContentId,
    messages::{admission, admission::Admission, chunk, index::Index, poll::Poll, sync, sync::Sync},
    network::{CallError, ConnectError, Event, Refusal, Transport},
};

use crate::world::{BOTH, Over, POLL, World, search, within};

#[tokio::test]
async fn two_members_admit_each_other_over_either_transport() {
    let world = World::new();
    for over in BOTH {
        let mut superpeer = world.member(Role::Superpeer, over).await;
        let mut node = world.member(Role::Node, over).await;
        let admitted = node.network.connect(superpeer.peer, superpeer.addresses().await).await.unwrap();
        assert_eq!(admitted.membership().role, Role::Superpeer);
        assert_eq!(admitted.transport, if over == Over::Tcp { Transport::Tcp } else { Transport::Quic });
        assert!(!admitted.inbound);
        node.until_admitted(superpeer.peer).await;
        let (node_peer, first) = superpeer
            .until(|event| match event {
                Event::Admitted { admitted, first } => Some((admitted.peer, first)),
                _ => None,
            })
            .await;
        assert_eq!((node_peer, first), (node.peer, true));
        // Connected already: at once, and over the same connection.
        let again = node.network.connect(superpeer.peer, Vec::new()).await.unwrap();
        assert_eq!(again.connection, admitted.connection);
        node.network.shutdown().await;
        superpeer.until_departed(node.peer).await;
    }
}

#[tokio::test]
async fn concurrent_calls_to_connect_share_one_connection() {
    let world = World::new();
    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let node = world.member(Role::Node, Over::Tcp).await;
    let addresses = superpeer.addresses().await;
    let calls = (0..8).map(|_| node.network.connect(superpeer.peer, addresses.clone()));
    let admitted = futures::future::try_join_all(calls).await.unwrap();
    assert!(admitted.iter().all(|one| one.connection == admitted[0].connection));
    assert_eq!(node.network.connections(Some(superpeer.peer)).await.len(), 1);
}

/// Every bad credential, each with what the one that presents it is told.
pub(crate) fn intruders(
    world: &World,
    key: &Keypair,
) -> Vec<(Option<quarta_protocols::members::Enrolment>, Refusal)> {
    let now = UnixSeconds::now();
    let long_ago = UnixSeconds(now.0 - 15 * 24 * 3600);
    let mut stolen = world.enrol(&Keypair::generate_ed25519(), Role::Node, now);
    let own = world.enrol(key, Role::Node, now);
    let mut borrowed = own.clone();
    borrowed.credential = stolen.credential.clone();
    let mut others_key = own.clone();
    others_key.sealing_key = stolen.sealing_key.clone();
    stolen.peer = key.public().to_peer_id();
    let foreign = World::new().enrol(key, Role::Node, now);
    let early = world.enrol(key, Role::Node, now.plus(CLOCK_SKEW + Duration::from_mins(1)));
    vec![
        (Some(stolen), Refusal::OtherPeer),
        (Some(borrowed), Refusal::OtherPeer),
        (Some(others_key), Refusal::Malformed),
        (Some(world.enrol(key, Role::Node, long_ago)), Refusal::Expired),
        (Some(early), Refusal::NotYetValid),
        (Some(foreign), Refusal::NotIssuedHere),
        (Some(world.issued_by_a_node(key)), Refusal::NotIssuedHere),
        (Some(promoted(own)), Refusal::NotIssuedHere),
    ]
}

/// A good node's enrolment whose token was edited to say that it is a super-peer.
fn promoted(mut enrolment: quarta_protocols::members::Enrolment) -> quarta_protocols::members::Enrolment {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Tokens {
        token: String,
        issuer: Option<String>,
    }
    let mut tokens: Tokens = cbor::from_slice(&cbor::to_vec(&enrolment.credential)).unwrap();
    let mut parts: Vec<String> = tokens.token.split('.').map(str::to_owned).collect();
    let claims = String::from_utf8(BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap()).unwrap();
    assert!(claims.contains(r#""role":"node""#));
    parts[1] = BASE64URL_NOPAD.encode(claims.replace(r#""role":"node""#, r#""role":"superpeer""#).as_bytes());
    tokens.token = parts.join(".");
    enrolment.credential = cbor::from_slice(&cbor::to_vec(&tokens)).unwrap();
    enrolment
}

#[tokio::test]
async fn a_bad_credential_is_refused_with_its_reason_and_nothing_it_asks_is_read() {
    let world = World::new();
    for over in BOTH {
        let superpeer = world.member(Role::Superpeer, over).await;
        let (peer, addresses) = (superpeer.peer, superpeer.addresses().await);
        let (_network, asked) = superpeer.answer_all();
        let key = Keypair::generate_ed25519();
        for (enrolment, reason) in intruders(&world, &key) {
            let mut intruder = world.start(key.clone(), Role::Node, enrolment, over).await;
            let refused = intruder.network.connect(peer, addresses.clone()).await;
            assert_eq!(refused.unwrap_err(), ConnectError::Refused(reason));
            let told = intruder
                .until(|event| match event {
                    Event::Refused { refusal, by_us: false, .. } => Some(refusal),
                    _ => None,
                })
                .await;
            assert_eq!(told, reason);
            assert_eq!(
                intruder.network.call::<Index>(peer, search()).await.unwrap_err(),
                CallError::NotConnected
            );
        }
        assert!(asked.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_stranger_is_offered_admission_and_nothing_else() {
    let world = World::new();
    for over in BOTH {
        for role in [Role::Superpeer, Role::Node] {
            let member = world.member(role, over).await;
            let (peer, address) = (member.peer, member.addresses().await.remove(0));
            let (_network, asked) = member.answer_all();
            let joiner = world.start(Keypair::generate_ed25519(), Role::Node, None, over).await;
            let expected = address.clone().with_p2p(peer).unwrap();
            assert_eq!(
                joiner.network.connect(peer, vec![address]).await.unwrap_err(),
                ConnectError::NotAMember
            );
            assert_eq!(joiner.network.connect_stranger(expected).await.unwrap(), peer);
            let calls = async {
                assert!(joiner.network.call::<Admission>(peer, admission::Request::Discover).await.is_ok());
                assert!(joiner.network.call::<Index>(peer, search()).await.is_err());
                assert!(joiner.network.call::<Poll>(peer, POLL).await.is_err());
                assert!(joiner.network.call::<Sync>(peer, sync_request()).await.is_err());
                let wanted = chunk::Request::Manifest { content: ContentId::from_bytes([1; 32]) };
                assert!(joiner.network.fetch(peer, wanted, 1024).await.is_err());
            };
            within(calls).await;
            assert_eq!(*asked.lock().unwrap(), ["admission"]);
        }
    }
}

fn sync_request() -> sync::Request {
    sync::Request::Push(Vec::new())
}

#[tokio::test]
async fn a_joiner_becomes_a_member_on_the_connection_it_joined_over() {
    let world = World::new();
    let mut superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let key = Keypair::generate_ed25519();
    let mut joiner = world.start(key.clone(), Role::Node, None, Over::Tcp).await;
    let peer = joiner.network.connect_stranger(superpeer.addresses().await.remove(0)).await.unwrap();
    assert_eq!(peer, superpeer.peer);
    joiner.network.present(world.enrol(&key, Role::Node, UnixSeconds::now())).await;
    joiner.until_admitted(peer).await;
    superpeer.until_admitted(joiner.peer).await;
    let (_network, asked) = superpeer.answer_all();
    joiner.network.call::<Index>(peer, search()).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), ["index"]);
}

#[tokio::test]
async fn a_revoked_member_is_cut_off_and_not_let_in_again() {
    let world = World::new();
    for over in BOTH {
        let mut superpeer = world.member(Role::Superpeer, over).await;
        let (peer, addresses) = (superpeer.peer, superpeer.addresses().await);
        let mut node = world.member(Role::Node, over).await;
        node.network.connect(peer, addresses.clone()).await.unwrap();
        superpeer.until_admitted(node.peer).await;
        superpeer.network.end(node.peer, Ended::Revoked).await;
        node.until_departed(peer).await;
        superpeer.until_departed(node.peer).await;
        let again = node.network.connect(peer, addresses.clone()).await;
        assert_eq!(again.unwrap_err(), ConnectError::Refused(Refusal::Revoked));
        let back = superpeer.network.connect(node.peer, node.addresses().await).await;
        assert_eq!(back.unwrap_err(), ConnectError::Refused(Refusal::Revoked));
        // Not as a stranger either.
        node.network.connect_stranger(addresses[0].clone()).await.unwrap();
        assert!(node.network.call::<Admission>(peer, admission::Request::Discover).await.is_err());
    }
}

#[tokio::test]
async fn a_member_that_has_left_is_cut_off_and_may_ask_for_admission_still() {
    let world = World::new();
    let mut superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let (peer, addresses) = (superpeer.peer, superpeer.addresses().await);
    let mut node = world.member(Role::Node, Over::Tcp).await;
    node.network.connect(peer, addresses.clone()).await.unwrap();
    superpeer.until_admitted(node.peer).await;
    superpeer.network.end(node.peer, Ended::Left).await;
    node.until_departed(peer).await;
    superpeer.until_departed(node.peer).await;
    let again = node.network.connect(peer, addresses.clone()).await;
    assert_eq!(again.unwrap_err(), ConnectError::Refused(Refusal::Left));
    let (network, _) = superpeer.answer_all();
    node.network.connect_stranger(addresses[0].clone()).await.unwrap();
    assert!(node.network.call::<Admission>(peer, admission::Request::Discover).await.is_ok());
    // Who has left can be revoked, and not the other way round.
    network.end(node.peer, Ended::Revoked).await;
    network.end(node.peer, Ended::Left).await;
    let again = node.network.connect(peer, addresses).await;
    assert_eq!(again.unwrap_err(), ConnectError::Refused(Refusal::Revoked));
}

#[tokio::test]
async fn the_members_of_a_revoked_issuer_are_cut_off_until_another_super_peer_has_renewed_them() {
    let world = World::new();
    for over in BOTH {
        let mut verifier = world.member(Role::Superpeer, over).await;
        let addresses = verifier.addresses().await;
        let key = Keypair::generate_ed25519();
        let by_first = world.enrol(&key, Role::Node, UnixSeconds::now());
        let mut node = world.start(key.clone(), Role::Node, Some(by_first), over).await;
        node.network.connect(verifier.peer, addresses.clone()).await.unwrap();
        verifier.until_admitted(node.peer).await;
        verifier.network.end(world.issuer(), Ended::Revoked).await;
        node.until_departed(verifier.peer).await;
        verifier.until_departed(node.peer).await;
        let refused = node.network.connect(verifier.peer, addresses.clone()).await;
        assert_eq!(refused.unwrap_err(), ConnectError::Refused(Refusal::IssuerRevoked));
        let second = Keypair::generate_ed25519();
        node.network.present(world.issued_by_another(&second, &key)).await;
        node.network.connect(verifier.peer, addresses).await.unwrap();
    }
}

#[tokio::test]
async fn a_member_that_has_signed_off_dials_nobody_and_lets_nobody_in_until_it_signs_on() {
    let world = World::new();
    for over in BOTH {
        let mut superpeer = world.member(Role::Superpeer, over).await;
        let mut node = world.member(Role::Node, over).await;
        node.network.connect(superpeer.peer, superpeer.addresses().await).await.unwrap();
        superpeer.until_admitted(node.peer).await;
        node.network.sign_off(true).await;
        node.until_departed(superpeer.peer).await;
        superpeer.until_departed(node.peer).await;
        let out = node.network.connect(superpeer.peer, superpeer.addresses().await).await;
        assert_eq!(out.unwrap_err(), ConnectError::SignedOff);
        let stranger = node.network.connect_stranger(superpeer.addresses().await.remove(0)).await;
        assert_eq!(stranger.unwrap_err(), ConnectError::SignedOff);
        assert!(superpeer.network.connect(node.peer, node.addresses().await).await.is_err());
        assert!(node.network.connections(None).await.is_empty());
        node.network.sign_off(false).await;
        superpeer.network.connect(node.peer, node.addresses().await).await.unwrap();
    }
}

#[tokio::test]
async fn a_credential_that_runs_out_ends_the_connection_and_a_new_one_keeps_it() {
    let world = World::new();
    let mut superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let addresses = superpeer.addresses().await;
    // Two seconds of validity are left, the tolerated skew included.
    let issued = UnixSeconds(UnixSeconds::now().0 - 14 * 24 * 3600 - CLOCK_SKEW.as_secs() + 2);
    let (ends, renews) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut members = Vec::new();
    for key in [&ends, &renews] {
        let enrolment = world.enrol(key, Role::Node, issued);
        let member = world.start(key.clone(), Role::Node, Some(enrolment), Over::Tcp).await;
        member.network.connect(superpeer.peer, addresses.clone()).await.unwrap();
        members.push(member);
    }
    let (ending, renewing) = (members.remove(0), members.remove(0));
    renewing.network.present(world.enrol(&renews, Role::Node, UnixSeconds::now())).await;
    superpeer.until_departed(ending.peer).await;
    assert_eq!(superpeer.network.connections(None).await.len(), 1);
    let connection = &superpeer.network.connections(Some(renewing.peer)).await[0];
    assert!(connection.membership().issued > issued);
}

#[tokio::test]
async fn another_network_and_another_peer_at_the_address_are_told_apart_from_silence() {
    let (world, other_world) = (World::new(), World::new());
    let node = world.member(Role::Node, Over::Tcp).await;
    let foreign = other_world.member(Role::Superpeer, Over::Tcp).await;
    let addresses = foreign.addresses().await;
    let refused = node.network.connect(foreign.peer, addresses.clone()).await;
    assert_eq!(refused.unwrap_err(), ConnectError::Refused(Refusal::OtherNetwork));

    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let wrong = node.network.connect(superpeer.peer, addresses.clone()).await;
    assert_eq!(wrong.unwrap_err(), ConnectError::WrongPeer { obtained: foreign.peer });
    // One wrong address does not spoil the right one.
    let mixed = addresses.into_iter().chain(superpeer.addresses().await).collect();
    node.network.connect(superpeer.peer, mixed).await.unwrap();

    let gone = world.member(Role::Node, Over::Tcp).await;
    let nowhere = gone.addresses().await;
    gone.network.shutdown().await;
    let unreachable = node.network.connect(gone.peer, nowhere).await;
    assert!(matches!(unreachable.unwrap_err(), ConnectError::Unreachable(_)));
    assert_eq!(node.network.connect(gone.peer, Vec::new()).await.unwrap_err(), ConnectError::NoAddress);
}

#[tokio::test]
async fn strangers_that_only_wait_cannot_keep_a_member_out() {
    use quarta_protocols::network::limits::STRANGERS_MAX;
    const PER_PEER: usize = 8;

    let world = World::new();
    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let address = superpeer.addresses().await.remove(0);
    // They connect, more than are kept, and say nothing.
    let mut crowd = Vec::new();
    for _ in 0..=STRANGERS_MAX / PER_PEER {
        let stranger = world.start(Keypair::generate_ed25519(), Role::Node, None, Over::Tcp).await;
        for _ in 0..PER_PEER {
            assert_eq!(stranger.network.connect_stranger(address.clone()).await.unwrap(), superpeer.peer);
        }
        crowd.push(stranger);
    }
    let node = world.member(Role::Node, Over::Tcp).await;
    within(node.network.connect(superpeer.peer, vec![address])).await.unwrap();
}
