//! `POST /api/v1/verify`: checks copies on this machine, line by line.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use futures::stream;
use quarta_daemon::http::Problem;
use tokio::sync::mpsc;
use utoipa_axum::routes;

use super::{
    Routes, Service,
    lines::lines,
    model::{VerifyEvent, VerifyRequest},
    problems::unfound,
};
use crate::service::verifying;

/// Lines that wait for a slow reader; the checking waits with them.
const EVENTS_WAITING: usize = 16;
/// Files of one request.
const FILES_MAX: usize = 10_000;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(verify))
}

/// Check copies on this machine
///
/// Reads every copy named, all where none is, and compares it with what was shared. Damaged copies stop being sources at
/// once, restored ones become sources again. A `checked` line for each; the last line is the summary.
#[utoipa::path(post, path = "/api/v1/verify", tag = "files", request_body = VerifyRequest, responses(
    (status = 200, description = "one event a line", content_type = "application/x-ndjson", body = VerifyEvent),
    (status = 400, description = "`too-many-files`: more than 10000"),
    (status = 404, description = "`unknown-file`, or `not-here`: there is no copy of it on this machine"),
    (status = 409, description = "`ambiguous-file`: a name is of several files"),
    (status = 503, description = "`busy`: a verification is under way"),
))]
async fn verify(State(shared): Service, Json(request): Json<VerifyRequest>) -> Result<Response, Problem> {
    if request.files.len() > FILES_MAX {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "too-many-files",
            "at most 10000 files are named at once",
            "name none to verify all of them",
        ));
    }
    let turn = shared.verifications.turn().ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "a verification is under way",
            "wait until it has ended",
        )
    })?;
    let scope = verifying::scope(&shared, &request.files).await.map_err(unfound)?;
    let (events, mut received) = mpsc::channel::<VerifyEvent>(EVENTS_WAITING);
    tokio::task::spawn_blocking(move || {
        verifying::run(&shared, scope, &events);
        drop(turn);
    });
    Ok(lines(stream::poll_fn(move |context| received.poll_recv(context))))
}
