//! Control exchanges: answers, refusals, caps and time.

use libp2p::Multiaddr;
use quarta_protocols::{
    credentials::Role,
    messages::{admission, admission::Admission, index, index::Index, poll::Poll},
    network::{CallError, CodecError, Event, Inbound, limits},
};

use crate::world::{BOTH, Member, Over, POLL, World, search, within};

async fn connected(world: &World, over: Over) -> (Member, Member) {
    let mut superpeer = world.member(Role::Superpeer, over).await;
    let node = world.member(Role::Node, over).await;
    node.network.connect(superpeer.peer, superpeer.addresses().await).await.unwrap();
    superpeer.until_admitted(node.peer).await;
    (superpeer, node)
}

#[tokio::test]
async fn a_call_is_answered_by_the_service_and_says_who_asks() {
    let world = World::new();
    for over in BOTH {
        let (mut superpeer, node) = connected(&world, over).await;
        let asking = node.network.call::<Index>(superpeer.peer, search());
        let answering = superpeer.until(|event| match event {
            Event::Request(Inbound::Index(asked)) => {
                assert_eq!(asked.membership.as_ref().unwrap().peer, asked.peer);
                asked.responder.respond(index::Response::Noted);
                Some(asked.peer)
            }
            _ => None,
        });
        let (answer, who) = tokio::join!(asking, answering);
        assert!(matches!(answer.unwrap(), index::Response::Noted));
        assert_eq!(who, node.peer);
    }
}

#[tokio::test]
async fn many_calls_at_once_are_all_answered_without_waiting_for_the_peers_admission() {
    let world = World::new();
    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let (peer, addresses) = (superpeer.peer, superpeer.addresses().await);
    let (_network, asked) = superpeer.answer_all();
    for _ in 0..10 {
        // The first call follows the admission on this side at once: the other side must be ready for it.
        let node = world.member(Role::Node, Over::Tcp).await;
        node.network.connect(peer, addresses.clone()).await.unwrap();
        let calls = (0..8).map(|_| node.network.call::<Index>(peer, search()));
        futures::future::try_join_all(calls).await.unwrap();
    }
    assert_eq!(asked.lock().unwrap().len(), 80);
}

#[tokio::test]
async fn what_is_too_large_is_called_so_on_the_way_out_and_on_the_way_back() {
    let world = World::new();
    let (mut superpeer, node) = connected(&world, Over::Tcp).await;
    let query = "x".repeat(2 * 1024 * 1024);
    let large = index::Request::Search { query, owner: None, after: None, limit: 1 };
    let outcome = node.network.call::<Index>(superpeer.peer, large).await;
    assert!(matches!(outcome, Err(CallError::TooLarge(CodecError::OwnTooLarge { .. }))), "{outcome:?}");

    let peer = superpeer.peer;
    let asking = node.network.call::<Admission>(peer, admission::Request::Discover);
    let answering = superpeer.until(|event| match event {
        Event::Request(Inbound::Admission(asked)) => {
            let address: Multiaddr = format!("/dns/{}/tcp/1", "a".repeat(4096)).parse().unwrap();
            let one = admission::PeerAddresses { peer, addresses: vec![address; 16] };
            asked.responder.respond(admission::Response::Superpeers(vec![one; 4]));
            Some(())
        }
        _ => None,
    });
    // The one that answers finds out, and the one that asked is not left waiting.
    let (outcome, ()) = tokio::join!(asking, answering);
    assert_eq!(outcome.unwrap_err(), CallError::Unanswered);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_costs_the_protocols_time_and_one_that_declines_none() {
    let world = World::new();
    let (mut superpeer, node) = connected(&world, Over::Tcp).await;
    let (peer, started) = (superpeer.peer, std::time::Instant::now());
    let declining = superpeer.until(|event| matches!(event, Event::Request(_)).then_some(()));
    let (outcome, ()) = tokio::join!(node.network.call::<Index>(peer, search()), declining);
    assert_eq!(outcome.unwrap_err(), CallError::Unanswered);
    assert!(started.elapsed().as_secs() < 2);

    let keeping = superpeer.until(|event| match event {
        Event::Request(inbound) => Some(inbound),
        _ => None,
    });
    let (outcome, _kept) =
        tokio::join!(node.network.call::<Admission>(peer, admission::Request::Discover), keeping);
    assert_eq!(outcome.unwrap_err(), CallError::Timeout);
}

#[tokio::test]
async fn a_role_answers_only_what_is_its_to_answer() {
    let world = World::new();
    let mut one = world.member(Role::Node, Over::Tcp).await;
    let other = world.member(Role::Node, Over::Tcp).await;
    other.network.connect(one.peer, one.addresses().await).await.unwrap();
    one.until_admitted(other.peer).await;
    let peer = one.peer;
    let (_network, asked) = one.answer_all();
    assert_eq!(other.network.call::<Index>(peer, search()).await.unwrap_err(), CallError::Unsupported);
    // Between two nodes there is no such lane: neither side offers it to the other.
    assert_eq!(other.network.call::<Poll>(peer, POLL).await.unwrap_err(), CallError::NotConnected);
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_flood_of_requests_is_refused_beyond_the_bound_and_the_loop_stays_responsive() {
    let world = World::new();
    let (superpeer, node) = connected(&world, Over::Tcp).await;
    // Nobody takes the super-peer's events: requests wait, up to the bound.
    let calls = (0..2 * limits::REQUESTS_PER_PEER_MAX).map(|_| {
        let network = node.network.clone();
        let peer = superpeer.peer;
        tokio::spawn(async move { network.call::<Admission>(peer, admission::Request::Discover).await })
    });
    let calls: Vec<_> = calls.collect();
    within(superpeer.network.listen_addresses()).await;
    let mut refused = 0;
    for call in calls {
        refused += usize::from(within(call).await.unwrap().is_err_and(|error| error != CallError::Timeout));
    }
    assert!(refused >= limits::REQUESTS_PER_PEER_MAX, "{refused}");
}
