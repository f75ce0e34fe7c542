//! Keeping this node's own database up to date from a super-peer's feed, around the pure [`Follower`].
//!
//! A page is verified and written on blocking threads, and written together with its cursor in one transaction. So
//! whatever happens meanwhile, what the cursor says is here *is* here, and at worst a page comes twice.

use std::{collections::HashMap, sync::Arc, time::Instant};

use futures::future::join_all;
use libp2p::PeerId;
use quarta_daemon::timer;
use quarta_protocols::{
    cbor,
    messages::{
        changes::{Change, Changes, Cursor, RETURNED_MAX, Request, Response},
        index::{ListedMember, MemberState},
    },
    rpc::Protocol,
};
use tokio::sync::mpsc;

use super::{Shared, wall_ms};
use crate::{
    api::model::NodeEvent,
    database::{DatabaseError, Endings, Page, Taken},
    following::{
        Effect, Follower, Input,
        page::{News, verify},
    },
};

/// Changes verified by one blocking thread at a time: some milliseconds of signatures, so that a full page is spread over
/// the machine's cores and a small one needs no second thread.
const VERIFIED_TOGETHER: usize = 64;
/// Answers waiting for the follower: it has one question under way, and a few that it has given up on.
const ANSWERS_WAITING: usize = 8;
/// What one return fills at most, in bytes: leaves room for one more ending and the message around it.
const RETURN_FILL_BYTES: usize = Changes::MAX_REQUEST_BYTES - 16 * 1024;
/// How often a return is tried. The super-peer may be overwhelmed by everybody's at once, and others return the same.
const RETURN_ATTEMPTS: u32 = 5;
/// The pause between two attempts.
const RETURN_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(2);

/// Follows until the node stops.
pub(super) async fn follow(shared: Arc<Shared>, cursors: HashMap<PeerId, Cursor>) {
    let mut follower = Follower::new(cursors);
    let (answers, mut answered) = mpsc::channel(ANSWERS_WAITING);
    let mut effects = follower.handle(Instant::now(), Input::Askable(shared.superpeers.askable()));
    loop {
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask { question, peer, since, reading, wait } => {
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    let request = Request::Follow { since, wait_ms };
                    let (shared, answers) = (shared.clone(), answers.clone());
                    let asked = Asked { question, peer, reading };
                    tokio::spawn(async move { ask(&shared, asked, request, &answers).await });
                }
                Effect::Overdue(peer) => shared.superpeers.silent(peer),
                Effect::Return(peer) => {
                    tracing::warn!(%peer, "a super-peer has lost what it told this node before, and is told of it");
                    let shared = shared.clone();
                    tokio::spawn(async move { give_back(&shared, peer).await });
                }
            }
        }
        let wakeup = follower.next_wakeup();
        let input = tokio::select! {
            () = shared.stop.cancelled() => return,
            Some(input) = answered.recv() => input,
            () = shared.superpeers.changed() => Input::Askable(shared.superpeers.askable()),
            () = timer::until(wakeup) => Input::Tick,
        };
        effects = follower.handle(Instant::now(), input);
    }
}

/// A question of the follower's.
#[derive(Clone, Copy)]
struct Asked {
    question: u64,
    peer: PeerId,
    reading: u64,
}

/// Asks for a page and takes it in. The follower hears how it went unless the node stops.
async fn ask(shared: &Arc<Shared>, asked: Asked, request: Request, answers: &mpsc::Sender<Input>) {
    let Asked { question, peer, .. } = asked;
    let input = match shared.network.call::<Changes>(peer, request).await {
        Ok(Response::Page { cursor, restart, changes, members, more }) => {
            shared.superpeers.heard(&peer);
            let _ = answers.send(Input::Arrived(question)).await;
            match take(shared, asked, cursor, changes, members).await {
                Ok(anew) => {
                    if anew {
                        let _ = answers.send(Input::Anew).await;
                    } else if !more {
                        shared.catching_up.caught_up();
                    }
                    Input::Stored { question, cursor, restart, more }
                }
                Err(error) => {
                    tracing::error!(%error, "what a super-peer told could not be noted; it is asked again");
                    Input::Failed(question)
                }
            }
        }
        Ok(Response::Unavailable | Response::Noted) => {
            tracing::debug!(%peer, "a super-peer cannot be followed now");
            Input::Failed(question)
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "a super-peer did not say what has changed");
            Input::Failed(question)
        }
    };
    let _ = answers.send(input).await;
}

/// Verifies a page, writes it, and does what follows from it; whether all feeds are to be read anew.
async fn take(
    shared: &Arc<Shared>,
    asked: Asked,
    cursor: Cursor,
    changes: Vec<Change>,
    members: Vec<ListedMember>,
) -> Result<bool, String> {
    let Asked { peer: superpeer, reading, .. } = asked;
    let known = shared.clone();
    let unknown = in_database(move || known.database.unknown(changes)).await?;
    let mut news = verified(shared, superpeer, unknown).await?;
    // Owners are told of the wraps that they made themselves.
    let me = shared.identity.keys.peer();
    news.retain(|news| !matches!(news, News::Wrap(wrap) if wrap.statement().member != me));
    shared.superpeers.hear(shared, &members);
    let (writing, page) = (shared.clone(), Page { superpeer, reading, cursor, news, members });
    let taken = in_database(move || {
        let trust = &writing.identity.trust;
        let own = writing.identity.keys.peer();
        writing.noted(writing.database.take_page(&page, &own, trust, wall_ms()))
    })
    .await?;
    let anew = taken.anew;
    act_on(shared, taken).await;
    Ok(anew)
}

async fn verified(
    shared: &Arc<Shared>,
    superpeer: PeerId,
    mut changes: Vec<Change>,
) -> Result<Vec<News>, String> {
    let mut batches = Vec::with_capacity(changes.len().div_ceil(VERIFIED_TOGETHER));
    while !changes.is_empty() {
        let batch: Vec<Change> = changes.drain(..changes.len().min(VERIFIED_TOGETHER)).collect();
        let shared = shared.clone();
        batches.push(tokio::task::spawn_blocking(move || {
            let trust = &shared.identity.trust;
            batch.into_iter().map(|change| verify(change, trust)).collect::<Vec<_>>()
        }));
    }
    let mut news = Vec::new();
    for batch in join_all(batches).await {
        for change in batch.map_err(|e| e.to_string())? {
            match change {
                Ok(change) => news.extend(change),
                Err(why) => {
                    tracing::warn!(%superpeer, why, "a super-peer told of something that is not genuine");
                }
            }
        }
    }
    Ok(news)
}

/// What follows from what was new.
async fn act_on(shared: &Arc<Shared>, taken: Taken) {
    if taken.enrolled > 0 || !taken.ended.is_empty() {
        shared.tending.wake();
    }
    for audience in &taken.keys {
        shared.keyring.forget(audience);
    }
    if !taken.keys.is_empty() {
        shared.upkeep.look_at_all();
    }
    for file in &taken.hidden {
        super::hiding::forget_traces(shared, *file);
    }
    for (peer, ended) in taken.ended {
        if peer == shared.identity.keys.peer() {
            tracing::error!("this branch's membership has ended; ask who runs the network");
            continue;
        }
        tracing::warn!(%peer, "a membership has ended; nothing is exchanged with that member any more");
        shared.network.end(peer, ended).await;
        shared.issuer_may_be_gone(peer);
        shared.superpeers.forget(shared, &peer);
        let known = shared.clone();
        let ended = in_database(move || known.database.member(&peer)).await;
        if let Ok(Some(known)) = ended {
            member_changed(shared, &known.listed);
        }
    }
    for member in taken.moved {
        // Whose membership has ended was told of above.
        if !matches!(member.state, MemberState::Left | MemberState::Revoked) {
            member_changed(shared, &member);
        }
    }
    if !taken.files.is_empty() {
        shared.events.publish(NodeEvent::FilesChanged { files: taken.files.len() });
        shared.upkeep.changed(taken.files);
    }
}

fn member_changed(shared: &Shared, member: &ListedMember) {
    shared.events.publish(NodeEvent::MemberChanged {
        name: member.name.to_string(),
        peer_id: member.peer.to_string(),
        state: member.state.to_string(),
    });
}

/// Gives back to a super-peer what it may have lost and this node knows: the ends of memberships, and own records.
async fn give_back(shared: &Arc<Shared>, peer: PeerId) {
    let reading = shared.clone();
    let endings = match in_database(move || reading.database.endings()).await {
        Ok(endings) => endings,
        Err(error) => {
            tracing::error!(error, "the ends of memberships could not be read");
            return;
        }
    };
    for page in pages(endings) {
        for _ in 0..RETURN_ATTEMPTS {
            let request = Request::Return {
                departures: page.departures.clone(),
                revocations: page.revocations.clone(),
            };
            match shared.network.call::<Changes>(peer, request).await {
                Ok(Response::Noted) => break,
                Ok(_) => tracing::debug!(%peer, "a super-peer could not take back the ends of memberships"),
                Err(error) => {
                    tracing::debug!(%peer, %error, "a super-peer could not take back the ends of memberships");
                }
            }
            tokio::time::sleep(RETURN_AGAIN_AFTER).await;
        }
    }
    shared.superpeers.publish_again(shared, peer).await;
}

/// Splits endings into messages that fit.
fn pages(endings: Endings) -> Vec<Endings> {
    let mut pages = vec![Endings::default()];
    let mut bytes = 0;
    let mut place = |size: usize, pages: &mut Vec<Endings>| {
        let full = pages.last().is_none_or(|page| {
            bytes + size > RETURN_FILL_BYTES
                || page.departures.len().max(page.revocations.len()) == RETURNED_MAX
        });
        if full {
            pages.push(Endings::default());
            bytes = 0;
        }
        bytes += size;
    };
    for departure in endings.departures {
        place(cbor::to_vec(&departure).len(), &mut pages);
        pages.last_mut().into_iter().for_each(|page| page.departures.push(departure.clone()));
    }
    for revocation in endings.revocations {
        place(cbor::to_vec(&revocation).len(), &mut pages);
        pages.last_mut().into_iter().for_each(|page| page.revocations.push(revocation.clone()));
    }
    pages.retain(|page| *page != Endings::default());
    pages
}

async fn in_database<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DatabaseError> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;
    use quarta_protocols::{
        credentials::Trust,
        endings::{Departure, RevocationNotice},
        signing::Signed,
    };

    use super::*;

    #[test]
    fn endings_are_split_into_messages_that_fit_and_nothing_is_left_out() {
        let root = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let trust = Trust::in_root(root.public().try_into_ed25519().unwrap());
        let departure = |seed: u8| {
            let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
            let member = key.public().to_peer_id();
            Signed::new(&Departure { member }, &trust.network, &key)
        };
        let all = Endings {
            departures: (1..200).map(departure).collect(),
            revocations: (0..200)
                .map(|_| RevocationNotice::by_root(PeerId::random(), &root, &trust))
                .collect(),
        };
        let pages = pages(all.clone());
        let mut again = Endings::default();
        for page in pages {
            let request = Request::Return {
                departures: page.departures.clone(),
                revocations: page.revocations.clone(),
            };
            assert!(cbor::to_vec(&request).len() <= Changes::MAX_REQUEST_BYTES);
            assert!(page.departures.len().max(page.revocations.len()) <= RETURNED_MAX);
            again.departures.extend(page.departures);
            again.revocations.extend(page.revocations);
        }
        assert_eq!(again, all);
        assert_eq!(super::pages(Endings::default()), []);
    }
}
