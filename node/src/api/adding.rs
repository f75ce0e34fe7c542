//! Adding files that lie on this machine.

use axum::{Extension, Json, extract::State, http::StatusCode, response::Response};
use futures::stream;
use quarta_daemon::http::{Caller, Problem};
use tokio::sync::mpsc;
use utoipa_axum::routes;

use super::{
    Routes, Service,
    blacklist::readers,
    lines::lines,
    model::{AddEvent, AddRequest},
};
use crate::service::adding;

/// Results of an add that wait for a slow client.
const EVENTS_WAITING: usize = 16;
/// Paths of one request.
const PATHS_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(add))
}

/// Add files and folders of this machine
///
/// Over the local socket only, since paths are read as the daemon's user. Ends with an `added` or `failed` line for each
/// file; the answer is 200 also where all of them failed. Closing the connection does not stop the work.
#[utoipa::path(post, path = "/api/v1/local/add", tag = "local", operation_id = "add_paths", request_body = AddRequest,
    responses(
        (status = 200, description = "one event a line", content_type = "application/x-ndjson", body = AddEvent),
        (status = 400, description = "`bad-paths`: none, too many or relative paths, or one name for several; `two-lists`, \
            `super-peer`, `owner`, `too-many-members`: see the blacklist's routes"),
        (status = 404, description = "`unknown-member`: nobody is called like one that is to see them or not"),
        (status = 403, description = "`local-only`: not over the socket"),
    )
)]
async fn add(
    State(shared): Service,
    Extension(caller): Extension<Caller>,
    Json(request): Json<AddRequest>,
) -> Result<Response, Problem> {
    caller.require_local("paths of this machine are taken from this machine's user only")?;
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
    let readers = readers(&shared, request.hide_from.clone(), request.only.clone()).await?;
    let (events, mut received) = mpsc::channel::<AddEvent>(EVENTS_WAITING);
    tokio::spawn(adding::add_all(shared, request, readers, events));
    let first_to_last = stream::poll_fn(move |context| received.poll_recv(context));
    Ok(lines(first_to_last))
}
