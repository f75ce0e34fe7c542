//! `POST /api/v1/verify`: checks copies on this machine, line by line.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::stream;
use quarta_daemon::http::Problem;
use tokio::sync::mpsc;

use super::{
    model::{VerifyEvent, VerifyRequest},
    routes::{lines, problem},
};
use crate::service::{Shared, verifying};

/// Lines that wait for a slow reader; the checking waits with them.
const EVENTS_WAITING: usize = 16;
/// Files of one request.
const FILES_MAX: usize = 10_000;

/// Checks copies on this machine against what was shared. A line of [`VerifyEvent`] for each, the last is the summary.
pub(super) async fn verify(
    State(shared): State<Arc<Shared>>,
    Json(request): Json<VerifyRequest>,
) -> Result<Response, Problem> {
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
    let scope = verifying::scope(&shared, &request.files).await.map_err(problem)?;
    let (events, mut received) = mpsc::channel::<VerifyEvent>(EVENTS_WAITING);
    tokio::task::spawn_blocking(move || {
        verifying::run(&shared, scope, &events);
        drop(turn);
    });
    Ok(lines(stream::poll_fn(move |context| received.poll_recv(context))).into_response())
}
