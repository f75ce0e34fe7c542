//! Connections that die, and what takes their place.

use std::time::Duration;

use libp2p::{Multiaddr, identity::Keypair, multiaddr::Protocol};
use quarta_protocols::{
    credentials::{Role, UnixSeconds},
    messages::index::Index,
    network::{Event, Pings},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::world::{Over, World, search, within};

/// A cable between a dialler and a TCP address: whatever is laid while it is whole goes dead, both ways and without
/// a word, once it is cut.
async fn cable(to: &Multiaddr) -> (Multiaddr, watch::Sender<bool>) {
    let port =
        to.iter().find_map(|part| if let Protocol::Tcp(port) = part { Some(port) } else { None }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port()).parse().unwrap();
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = cut_off(&mut is_cut) => std::future::pending().await,
                }
            });
        }
    });
    (here, cut)
}

async fn cut_off(is_cut: &mut watch::Receiver<bool>) {
    // A cable whose owner has gone stays as it is.
    if is_cut.wait_for(|cut| *cut).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_fresh_connection_takes_the_place_of_a_dead_one_at_once() {
    let world = World::new();
    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let node = world.member(Role::Node, Over::Tcp).await;
    let (peer, addresses) = (superpeer.peer, superpeer.addresses().await);
    let (_network, _asked) = superpeer.answer_all();
    let (through, cut) = cable(&addresses[0]).await;
    let dead = node.network.connect(peer, vec![through]).await.unwrap();
    node.network.call::<Index>(peer, search()).await.unwrap();
    cut.send_replace(true);
    let fresh = node.network.connect_fresh(peer, addresses).await.unwrap();
    assert_ne!(fresh.connection, dead.connection);
    for _ in 0..8 {
        tokio::time::timeout(Duration::from_secs(1), node.network.call::<Index>(peer, search()))
            .await
            .unwrap()
            .unwrap();
    }
    let connections = node.network.connections(Some(peer)).await;
    assert_eq!(connections.iter().map(|one| one.connection).collect::<Vec<_>>(), [fresh.connection]);
}

#[tokio::test]
async fn a_connection_whose_pings_go_unanswered_is_closed() {
    let world = World::new();
    let superpeer = world.member(Role::Superpeer, Over::Tcp).await;
    let key = Keypair::generate_ed25519();
    let enrolment = world.enrol(&key, Role::Node, UnixSeconds::now());
    let pings = Pings { interval: Duration::from_millis(100), timeout: Duration::from_millis(200) };
    let mut node = world.start_with(key, Role::Node, Some(enrolment), Over::Tcp, pings).await;
    let (through, cut) = cable(&superpeer.addresses().await[0]).await;
    node.network.connect(superpeer.peer, vec![through]).await.unwrap();
    node.until(|event| matches!(event, Event::Ping { .. }).then_some(())).await;
    cut.send_replace(true);
    let missed = node
        .until(|event| match event {
            Event::PingMissed { consecutive, .. } => Some(consecutive),
            _ => None,
        })
        .await;
    assert_eq!(missed, 2, "the first goes unreported");
    node.until_departed(superpeer.peer).await;
    assert!(within(node.network.connections(None)).await.is_empty());
}

#[tokio::test]
async fn members_that_dial_each_other_at_the_same_time_both_end_up_connected() {
    let world = World::new();
    for _ in 0..5 {
        let one = world.member(Role::Superpeer, Over::Tcp).await;
        let other = world.member(Role::Superpeer, Over::Tcp).await;
        let (one_at, other_at) = (one.addresses().await, other.addresses().await);
        let (there, back) =
            tokio::join!(one.network.connect(other.peer, other_at), other.network.connect(one.peer, one_at));
        there.unwrap();
        back.unwrap();
        let (one_peer, other_peer) = (one.peer, other.peer);
        let ((one, _), (other, _)) = (one.answer_all(), other.answer_all());
        for _ in 0..4 {
            one.call::<Index>(other_peer, search()).await.unwrap();
            other.call::<Index>(one_peer, search()).await.unwrap();
        }
    }
}
