//! Streamed bodies.

use std::time::Duration;

use bytes::Bytes;
use quarta_protocols::{
    credentials::Role,
    ids::ContentId,
    messages::chunk::{Abort, Head, Purpose, Refusal, Request},
    network::{BodyError, CallError, ChunkAsked, Event, Inbound, Transport},
};

use crate::world::{BOTH, Member, Over, World, within};

const FRAME: usize = 256 * 1024;

fn run() -> Request {
    Request::Run { content: ContentId::from_bytes([1; 32]), first: 0, count: 256, purpose: Purpose::Person }
}

async fn nodes(world: &World, over: Over) -> (Member, Member) {
    let mut holder = world.member(Role::Node, over).await;
    let fetcher = world.member(Role::Node, over).await;
    fetcher.network.connect(holder.peer, holder.addresses().await).await.unwrap();
    holder.until_admitted(fetcher.peer).await;
    (holder, fetcher)
}

async fn asked(holder: &mut Member) -> ChunkAsked {
    holder
        .until(|event| match event {
            Event::Request(Inbound::Chunk(asked)) => Some(asked),
            _ => None,
        })
        .await
}

fn frame(number: u32) -> Bytes {
    let mut bytes = vec![0; FRAME];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_64_mib_arrives_in_order_and_the_sender_is_never_far_ahead() {
    let world = World::new();
    for over in BOTH {
        let (mut holder, fetcher) = nodes(&world, over).await;
        let peer = holder.peer;
        let (progress, mut sent) = tokio::sync::watch::channel(0u32);
        let serving = tokio::spawn(async move {
            let asked = asked(&mut holder).await;
            assert_eq!(asked.request, run());
            let body = asked.responder.stream(Head::Run);
            for number in 0..256 {
                body.send(frame(number)).await.unwrap();
                progress.send_replace(number);
            }
            body.finish().await.unwrap();
            holder
        });
        let mut incoming = within(fetcher.network.fetch(peer, run(), FRAME)).await.unwrap();
        assert_eq!(incoming.head, Head::Run);
        assert_eq!(incoming.transport, if over == Over::Tcp { Transport::Tcp } else { Transport::Quic });
        // While nobody reads, the sender stops: what is under way fits the channels and the stream's window.
        while tokio::time::timeout(Duration::from_millis(300), sent.changed()).await.is_ok() {}
        assert!(*sent.borrow() < 128, "{} of 256 frames went nowhere", *sent.borrow());
        for number in 0..256u32 {
            let received = within(incoming.body.next()).await.unwrap().unwrap();
            assert_eq!(received, frame(number));
        }
        assert_eq!(within(incoming.body.next()).await, Ok(None));
        assert_eq!(within(incoming.body.next()).await, Ok(None));
        within(serving).await.unwrap();
    }
}

#[tokio::test]
async fn dropping_the_body_stops_the_sender() {
    let world = World::new();
    for over in BOTH {
        let (mut holder, fetcher) = nodes(&world, over).await;
        let peer = holder.peer;
        let serving = async {
            let body = asked(&mut holder).await.responder.stream(Head::Run);
            let mut sent = 0u32;
            while body.send(frame(sent)).await.is_ok() {
                sent += 1;
            }
            sent
        };
        let fetching = async {
            let mut incoming = fetcher.network.fetch(peer, run(), FRAME).await.unwrap();
            incoming.body.next().await.unwrap();
        };
        let (sent, ()) = within(async { tokio::join!(serving, fetching) }).await;
        assert!(sent < 128, "{sent}");
        // The connection is still good.
        let serving = async { asked(&mut holder).await.responder.respond(Head::Refused(Refusal::Busy)) };
        let (incoming, ()) = tokio::join!(fetcher.network.fetch(peer, run(), FRAME), serving);
        let mut incoming = incoming.unwrap();
        assert_eq!(incoming.head, Head::Refused(Refusal::Busy));
        assert_eq!(within(incoming.body.next()).await, Ok(None));
    }
}

#[tokio::test]
async fn a_sender_that_gives_up_or_declines_is_noticed_at_once() {
    let world = World::new();
    let (mut holder, fetcher) = nodes(&world, Over::Tcp).await;
    let peer = holder.peer;
    let serving = async {
        let body = asked(&mut holder).await.responder.stream(Head::Run);
        body.send(frame(0)).await.unwrap();
        body.abort(Abort::Changed).await.unwrap();
        drop(asked(&mut holder).await);
    };
    let fetching = async {
        let mut incoming = fetcher.network.fetch(peer, run(), FRAME).await.unwrap();
        assert_eq!(incoming.body.next().await, Ok(Some(frame(0))));
        assert_eq!(incoming.body.next().await, Err(BodyError::Aborted(Abort::Changed)));
        assert_eq!(fetcher.network.fetch(peer, run(), FRAME).await.unwrap_err(), CallError::Unanswered);
    };
    within(async { tokio::join!(serving, fetching) }).await;
}

#[tokio::test]
async fn a_holder_that_goes_away_ends_the_body_with_an_error() {
    let world = World::new();
    for over in BOTH {
        let (mut holder, mut fetcher) = nodes(&world, over).await;
        let peer = holder.peer;
        let fetching = fetcher.network.fetch(peer, run(), FRAME);
        let serving = async { asked(&mut holder).await.responder.stream(Head::Run) };
        let (incoming, body) = within(async { tokio::join!(fetching, serving) }).await;
        body.send(frame(0)).await.unwrap();
        let mut incoming = incoming.unwrap();
        assert_eq!(within(incoming.body.next()).await, Ok(Some(frame(0))));
        holder.network.shutdown().await;
        assert!(matches!(
            within(incoming.body.next()).await,
            Err(BodyError::Broken(_) | BodyError::Aborted(_))
        ));
        fetcher.until_departed(peer).await;
        assert_eq!(fetcher.network.fetch(peer, run(), FRAME).await.unwrap_err(), CallError::NotConnected);
    }
}
