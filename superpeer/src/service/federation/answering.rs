//! The side of a reconciliation that answers, and takes what is pushed.

use std::{sync::Arc, time::Instant};

use libp2p::{Multiaddr, PeerId};
use quarta_protocols::{
    credentials::Membership,
    limits::{SYNC_ITEMS_MAX, SYNC_PAGE_ENTRIES},
    messages::sync::{Digest, Request, Response, Sync},
    network::Asked,
};

use crate::{
    reconciliation::answer::{self, Stretch},
    service::Shared,
};

/// Answers another super-peer. What is not a possible question is not answered.
pub(in crate::service) fn answer(shared: &Arc<Shared>, asked: Asked<Sync>) {
    let Some(membership) = asked.membership else { return };
    let shared = shared.clone();
    tokio::spawn(async move {
        let response = match to(&shared, membership, asked.request).await {
            Ok(Some(response)) => response,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error, "answering another super-peer failed");
                Response::Unavailable
            }
        };
        asked.responder.respond(response);
    });
}

async fn to(
    shared: &Arc<Shared>,
    membership: Membership,
    request: Request,
) -> Result<Option<Response>, String> {
    let peer = membership.peer;
    let walks = matches!(request, Request::Branches { .. } | Request::Leaves { .. } | Request::Entries(_));
    if walks {
        if !shared.federation.turns().asked(peer, Instant::now()) {
            return Ok(Some(Response::Busy));
        }
        shared.link(peer).left_to_other();
    }
    let response = match request {
        Request::Push(entries) => {
            // Entries that are put off count as none of these: they come again with the next comparison.
            let taken = shared.take_entries(membership, entries).await?;
            Response::Taken { stored: taken.stored, known: taken.known, invalid: taken.invalid }
        }
        Request::Digest { addresses } => Response::Digest(digest(shared, peer, addresses).await?),
        Request::Compare { digest: theirs, addresses } => {
            let own = digest(shared, peer, addresses).await?;
            shared.federation.turns().compared(peer);
            if own == theirs {
                shared.link(peer).left_to_other();
                shared.compared().await;
            }
            Response::Digest(own)
        }
        Request::Page { after } => {
            let page = shared.store.read(move |reader| reader.page(after.as_ref())).await.map_err(text)?;
            Response::Page { entries: page.0, next: page.1 }
        }
        Request::Branches { level, prefixes } => {
            let trie = shared.store.write(|catalog| catalog.trie()).await.map_err(text)?;
            return Ok(answer::branches(&trie, level, &prefixes.0));
        }
        Request::Leaves { leaves, from, to, items } => {
            let stretch = Stretch::new(leaves.0, from, to);
            let asked = items.0;
            let Some(stretch) = stretch.filter(|_| asked.is_sorted() && asked.len() <= 2 * SYNC_ITEMS_MAX)
            else {
                return Ok(None);
            };
            let limit = answer::items_to_read(asked.len());
            let own = shared.store.read(move |reader| reader.items(&stretch, limit)).await.map_err(text)?;
            answer::leaves(&asked, &own)
        }
        Request::Entries(positions) => {
            if positions.0.is_empty() || positions.0.len() > SYNC_PAGE_ENTRIES {
                return Ok(None);
            }
            let read =
                shared.store.read(move |reader| reader.entries_at(&positions.0)).await.map_err(text)?;
            Response::Entries { entries: read.0, answered: read.1 }
        }
    };
    Ok(Some(response))
}

async fn digest(shared: &Arc<Shared>, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<Digest, String> {
    shared.hear_addresses(peer, addresses);
    shared.store.write(|catalog| catalog.digest()).await.map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
