//! A node that has not joined a network yet and can be told to over its HTTP API.
//!
//! It holds the draft of its data folder the whole time: the API's token lies there, and becomes the node's. Joining that
//! fails changes nothing, and can be tried again with another invite; a stop removes what was begun, unless an invite may
//! have been redeemed for the keys in it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use axum::http::StatusCode;
use libp2p::Multiaddr;
use quarta_daemon::{
    cli::{ExitCode, Failure},
    data_dir::Draft,
    http::{Config as HttpConfig, Listener, Problem},
    shutdown,
};
use quarta_protocols::{invites::Invite, names::MemberName};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    setup::{self, Joined, Reach},
};

/// What the API's handler needs in order to join.
#[derive(Clone)]
pub(crate) struct Joining {
    /// None once it is committed. One attempt at a time.
    draft: Arc<Mutex<Option<Draft>>>,
    http: SocketAddr,
    done: CancellationToken,
}

/// Serves the API of a node that has not joined, in a data folder in the making at `path`, until it has or is told to stop.
/// Says whether it has.
///
/// # Errors
/// A [`Failure`] where the folder cannot be made or the API not be served.
pub(super) async fn wait_for_invite(
    path: &Path,
    http: SocketAddr,
    stop: &CancellationToken,
) -> Result<bool, Failure> {
    let draft = Draft::begin(path)?;
    let config = HttpConfig { tcp: Some(http), ..HttpConfig::default() };
    let listener = Listener::bind_draft(&draft, config).await?;
    let bound = listener.tcp_address().unwrap_or(http);
    tracing::info!(http = %bound, "this node has not joined a network: register it with an invite");
    // A child: a stop ends it too.
    let done = stop.child_token();
    let draft = Arc::new(Mutex::new(Some(draft)));
    let joining = Joining { draft: draft.clone(), http, done: done.clone() };
    shutdown::notify_ready();
    listener.serve(api::unjoined(joining), done).await;
    // Requests that outlasted the listener's grace were cut off, so nobody holds it any more.
    Ok(draft.lock().await.is_none())
}

impl Joining {
    /// Redeems an invite and makes the draft a data folder.
    ///
    /// # Errors
    /// A problem with cause and next step; the draft is as it was, or kept for the next try.
    pub(crate) async fn join(
        &self,
        invite: &str,
        via: Option<&Multiaddr>,
        name: &MemberName,
        listen: Vec<Multiaddr>,
        external: Vec<Multiaddr>,
    ) -> Result<Joined, Problem> {
        let invite = Invite::parse(invite).map_err(|why| {
            let (detail, next) = (why.to_string(), "copy it again, whole");
            Problem::new(StatusCode::BAD_REQUEST, "bad-invite", detail, next)
        })?;
        let mut held = self.draft.lock().await;
        let Some(draft) = held.as_mut() else {
            let detail = "this node has just joined a network";
            let next = "use its API as that of a member";
            return Err(Problem::new(StatusCode::CONFLICT, "already-member", detail, next));
        };
        let reach = Reach { listen, external, http: self.http };
        let joined =
            setup::fill(draft, &invite, via, name, reach).await.map_err(|failure| unjoined(&failure))?;
        if let Some(draft) = held.take() {
            draft.commit(joined.marker()).map_err(|error| unjoined(&error.into()))?;
        }
        self.done.cancel();
        Ok(joined)
    }
}

fn unjoined(failure: &Failure) -> Problem {
    let (status, code) = match failure.exit_code() {
        ExitCode::Usage => (StatusCode::BAD_REQUEST, "bad-invite"),
        ExitCode::NotPermitted => (StatusCode::FORBIDDEN, "not-admitted"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "not-joined"),
    };
    Problem::new(status, code, failure.why(), failure.next_step())
}
