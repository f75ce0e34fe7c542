//! Polling a node: what changed in its list, page by page, and how busy it is.

use std::{sync::Arc, time::Instant};

use libp2p::PeerId;
use quarta_metrics::superpeer::PollOutcome;
use quarta_protocols::messages::poll::{Poll, Request};

use super::Shared;
use crate::{
    health::{Input, POLL_DEADLINE},
    index::Outcome,
};

/// Pages asked for in one poll: four million entries of the shortest names, and an end for a node that never ends.
const PAGES_MAX: usize = 2000;

/// Polls a node in a task of its own.
pub(super) fn start(shared: Arc<Shared>, peer: PeerId) {
    tokio::spawn(async move { poll(&shared, peer).await });
}

async fn poll(shared: &Arc<Shared>, peer: PeerId) {
    let interval_ms = u64::try_from(shared.poll_interval().as_millis()).unwrap_or(u64::MAX);
    let started = Instant::now();
    for round in 0..PAGES_MAX {
        let wanted = shared.state().index.wanted(&peer);
        let request = Request { since: wanted.since, after: wanted.after, interval_ms };
        let response = match shared.network.call::<Poll>(peer, request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(%peer, %error, "a poll was not answered");
                if round == 0 {
                    shared.metrics.superpeer.polls.inc(PollOutcome::Missed);
                }
                return;
            }
        };
        let took = started.elapsed();
        // The answer itself is the sign of life, however many pages follow.
        shared.feed(Input::PollAnswered(peer));
        let outcome = shared.take_page(peer, response.page, response.load, response.addresses);
        if round == 0 {
            shared.metrics.superpeer.poll_duration.observe(took);
            shared.metrics.superpeer.polls.inc(match outcome {
                Outcome::Refused(_) => PollOutcome::Refused,
                // Counted as missed when its deadline passed; its lateness shows in the duration.
                _ if took > POLL_DEADLINE => PollOutcome::Missed,
                _ => PollOutcome::Answered,
            });
        }
        match outcome {
            // What the node has meanwhile comes with its own registration, or with the next poll.
            Outcome::Stands { verified: true, .. } | Outcome::Elsewhere(_) => return,
            Outcome::Refused(refusal) => {
                tracing::warn!(member = shared.state().name_of(&peer), %refusal, "a node's list is refused");
                return;
            }
            Outcome::Stands { .. } | Outcome::Staged | Outcome::Unusable(_) => {}
        }
    }
    tracing::warn!(
        member = shared.state().name_of(&peer),
        "a node's list has no end; it is asked again later"
    );
}
