//! The routes. Everything but health is behind the listener's token (see `quarta_daemon::http`).

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::{Stream, stream};
use quarta_daemon::http::{Caller, Paging, Problem, cursor, exposition};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::model::{
    AddEvent, AddRequest, FetchEvent, File, FilePage, Member, Status, SuperpeerStatus, Transfer,
    TransferState,
};
use crate::service::{
    Shared, adding,
    fetching::{self, BeginError},
    listing::FindError,
};

/// Results of an add that wait for a slow client.
const EVENTS_WAITING: usize = 16;
/// Paths of one request.
const PATHS_MAX: usize = 10_000;

type Service = State<Arc<Shared>>;

/// All routes over the running service.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/members", get(members))
        .route("/api/v1/transfers", get(transfers))
        .route("/api/v1/files", get(files))
        .route("/api/v1/files/{file}", get(file))
        .route("/api/v1/files/{file}/fetch", post(fetch))
        .route("/api/v1/local/add", post(add))
        .route("/api/v1/verify", post(super::verifying::verify))
        .with_state(shared)
}

/// Ready once a super-peer has this node's list.
async fn ready(State(shared): Service) -> Result<&'static str, Problem> {
    if shared.superpeers.overview().iter().any(|superpeer| superpeer.registered) {
        Ok("ready\n")
    } else {
        Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE, "not registered with a super-peer yet"))
    }
}

async fn metrics(State(shared): Service) -> Response {
    shared.refresh_metrics();
    exposition(&shared.metrics.registry)
}

async fn status(State(shared): Service) -> Json<Status> {
    let overview = shared.superpeers.overview();
    let free_bytes = shared.free_bytes();
    let membership = &shared.identity.membership;
    let problems = shared.problems().await;
    let (files, stored_bytes) = shared.holdings();
    let load = shared.load();
    Json(Status {
        name: membership.name.to_string(),
        peer_id: membership.peer.to_string(),
        network: shared.identity.trust.network.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        healthy: problems.is_empty(),
        problems,
        superpeers: overview
            .into_iter()
            .map(|superpeer| SuperpeerStatus {
                name: superpeer.name.map_or_else(|| superpeer.peer.to_string(), |name| name.to_string()),
                peer_id: superpeer.peer.to_string(),
                connected: superpeer.connected,
                registered: superpeer.registered,
            })
            .collect(),
        files,
        stored_bytes,
        free_bytes,
        active_uploads: load.active_uploads,
        active_downloads: load.active_downloads,
        served_bytes: load.served_bytes,
        listen: shared.addresses().iter().map(ToString::to_string).collect(),
        credential_expires: membership.expires.0,
        pid: std::process::id(),
    })
}

async fn members(State(shared): Service) -> Result<Json<Vec<Member>>, Problem> {
    let members = shared.superpeers.members(&shared).await.map_err(|e| unanswered(&e))?;
    Ok(Json(members.into_iter().map(Member::from).collect()))
}

async fn transfers(State(shared): Service) -> Result<Json<Vec<Transfer>>, Problem> {
    Ok(Json(shared.transfers().await.map_err(problem)?))
}

async fn files(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<FilePage>, Problem> {
    let query = paging.query()?.to_owned();
    let after = paging.after()?;
    let (files, next, stale) = shared.list(query, after).await.map_err(problem)?;
    let next = next.as_ref().map(cursor);
    Ok(Json(FilePage { files, next, stale }))
}

async fn file(State(shared): Service, Path(reference): Path<String>) -> Result<Json<File>, Problem> {
    let found = shared.find(&reference).await.map_err(problem)?;
    Ok(Json(shared.show_found(found).await.map_err(problem)?))
}

async fn fetch(State(shared): Service, Path(reference): Path<String>) -> Result<Response, Problem> {
    let found = shared.find(&reference).await.map_err(problem)?;
    let watched =
        fetching::begin(&shared, found.record, found.owner_name).await.map_err(|error| match error {
            BeginError::NotReadable => Problem::new(
                StatusCode::FORBIDDEN,
                "not-readable",
                error.to_string(),
                "ask its owner for access",
            ),
            BeginError::Deleted => Problem::new(
                StatusCode::NOT_FOUND,
                "deleted",
                error.to_string(),
                "run `quarta ls` to see what there is",
            ),
            BeginError::Busy => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                error.to_string(),
                "wait until one of them has ended; `quarta transfers` shows them",
            ),
            BeginError::Database(_) => broken(&error),
        })?;
    Ok(lines(fetch_events(watched)))
}

/// A line for each change, the last with the result.
fn fetch_events(watched: watch::Receiver<Transfer>) -> impl Stream<Item = FetchEvent> + Send + 'static {
    stream::unfold(Some(watched), |watched| async {
        let mut watched = watched?;
        let now = watched.borrow_and_update().clone();
        let event = match now.state {
            TransferState::Active => FetchEvent::Progress(now),
            TransferState::Completed => return Some((FetchEvent::Done(now), None)),
            TransferState::Failed | TransferState::Cancelled => {
                let why = now.error.clone().unwrap_or_else(|| "it was stopped".to_owned());
                let next_step = now.next_step.clone().unwrap_or_else(|| "run the command again".to_owned());
                return Some((FetchEvent::Failed { transfer: now, why, next_step }, None));
            }
        };
        // A closed watch has its last value still to be seen, which is never `Active`.
        let _ = watched.changed().await;
        Some((event, Some(watched)))
    })
}

async fn add(
    State(shared): Service,
    Extension(caller): Extension<Caller>,
    Json(request): Json<AddRequest>,
) -> Result<Response, Problem> {
    if caller != Caller::Local {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "local-only",
            "paths of this machine are taken from this machine's user only",
            "use `quarta add` on the machine",
        ));
    }
    let bad = |detail: &str, next: &str| Problem::new(StatusCode::BAD_REQUEST, "bad-paths", detail, next);
    if request.paths.is_empty() || request.paths.len() > PATHS_MAX {
        return Err(bad("give 1 to 10000 paths", "add a folder instead of its files"));
    }
    if request.name.is_some() && request.paths.len() > 1 {
        return Err(bad("several paths cannot share one name", "add them one by one"));
    }
    if let Some(path) = request.paths.iter().find(|path| !std::path::Path::new(path).is_absolute()) {
        return Err(bad(&format!("{path:?} is not an absolute path"), "give absolute paths"));
    }
    let (events, mut received) = mpsc::channel::<AddEvent>(EVENTS_WAITING);
    tokio::spawn(adding::add_all(shared, request, events));
    let first_to_last = stream::poll_fn(move |context| received.poll_recv(context));
    Ok(lines(first_to_last))
}

/// One JSON object a line, each sent as soon as it is there.
pub(super) fn lines<T: Serialize>(items: impl Stream<Item = T> + Send + 'static) -> Response {
    use futures::StreamExt;
    let lines = items.map(|item| {
        let mut line = serde_json::to_vec(&item).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

pub(super) fn problem(error: FindError) -> Problem {
    match &error {
        FindError::NotFound(_) => Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-file",
            error.to_string(),
            "run `quarta ls` to see what there is",
        ),
        FindError::Ambiguous { .. } => Problem::new(
            StatusCode::CONFLICT,
            "ambiguous-file",
            error.to_string(),
            "name one as owner:name or by its id",
        ),
        FindError::NotHere(_) => Problem::new(
            StatusCode::NOT_FOUND,
            "not-here",
            error.to_string(),
            "fetch it with `quarta get`",
        ),
        FindError::Unanswered(error) => unanswered(error),
        FindError::Database(_) => broken(&error),
    }
}

fn unanswered(error: &dyn std::error::Error) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "no-superpeer",
        error.to_string(),
        "run `quarta status` to see which super-peers are reachable, and try again",
    )
}

fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "the database failed");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "database-unavailable",
        error.to_string(),
        "see the node's log and check its disk",
    )
}
