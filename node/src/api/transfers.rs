//! Fetching files, and the fetches under way and ended.

use axum::{
    Json,
    extract::{Path, Query, State},
    response::Response,
};
use futures::{Stream, stream};
use quarta_daemon::http::{Paging, Problem, cursor};
use tokio::sync::watch;
use utoipa_axum::routes;

use super::{
    Routes, Service,
    lines::lines,
    model::{FetchEvent, Transfer, TransferPage, TransferState},
    problems::{unbegun, unfound},
};
use crate::service::fetching;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list)).routes(routes!(fetch))
}

/// List this node's fetches
///
/// The latest first.
#[utoipa::path(get, path = "/api/v1/transfers", tag = "transfers", operation_id = "list_transfers", params(Paging),
    responses(
        (status = 200, description = "a page of transfers", body = TransferPage),
        (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
        (status = 503, description = "`database-unavailable`: this node's disk fails"),
    )
)]
async fn list(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<TransferPage>, Problem> {
    let (before, limit) = (paging.after()?, paging.limit()?);
    let (transfers, next) = shared.transfers(before, limit).await.map_err(unfound)?;
    Ok(Json(TransferPage { transfers, next: next.as_ref().map(cursor) }))
}

/// Fetch a file
///
/// Begins to fetch it, or joins the fetch that is under way. Lines are a transfer with `"event":"progress"`, at most one
/// each 100 ms, and at last one with `"event":"done"` or `"event":"failed"`: what fails after the first line is told
/// there. Closing the connection does not stop the fetch.
#[utoipa::path(post, path = "/api/v1/files/{file}/fetch", tag = "transfers", operation_id = "fetch_file",
    params(("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
        description = "An id, the beginning of one (4 digits or more), a full name, or `owner:name`; percent-encoded as \
            one segment")),
    responses(
        (status = 200, description = "one event a line", content_type = "application/x-ndjson", body = FetchEvent),
        (status = 403, description = "`not-readable`: the file's record does not let this branch read it"),
        (status = 404, description = "`unknown-file`: nothing is called so; `deleted`: its owner has deleted it"),
        (status = 409, description = "`ambiguous-file`: several are called so"),
        (status = 503, description = "`no-superpeer`: none answered; `busy`: 10 000 fetches are under way; \
            `database-unavailable`: this node's disk fails"),
    )
)]
async fn fetch(State(shared): Service, Path(reference): Path<String>) -> Result<Response, Problem> {
    let found = shared.find(&reference).await.map_err(unfound)?;
    let watched = fetching::begin(&shared, found.record, found.owner_name).await.map_err(unbegun)?;
    Ok(lines(fetch_events(watched)))
}

/// A line for each change, the last with the result.
fn fetch_events(watched: watch::Receiver<Transfer>) -> impl Stream<Item = FetchEvent> + Send + 'static {
    stream::unfold(Some((watched, true)), |watched| async {
        let (mut watched, first) = watched?;
        // A closed watch has its last value still to be seen.
        let ended = !first && watched.changed().await.is_err();
        let now = watched.borrow_and_update().clone();
        match now.state {
            state if state.is_going_on() && !ended => {
                Some((FetchEvent::Progress(now), Some((watched, false))))
            }
            TransferState::Completed => Some((FetchEvent::Done(now), None)),
            // Whoever asked is told of a wait too: it may be a long one, and goes on without them.
            _ => {
                let why = now.error.clone().unwrap_or_else(|| "it was stopped".to_owned());
                let next_step = now.next_step.clone().unwrap_or_else(|| "run the command again".to_owned());
                Some((FetchEvent::Failed { transfer: now, why, next_step }, None))
            }
        }
    })
}
