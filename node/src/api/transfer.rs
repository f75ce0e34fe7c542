//! One transfer: looking at it, pausing, resuming and cancelling it.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use quarta_daemon::http::Problem;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::{Routes, Service, model::Transfer, problems::unbegun};
use crate::service::fetching::control::{self, ControlError};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(show, cancel)).routes(routes!(pause)).routes(routes!(resume))
}

/// Which transfer.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct Reference {
    /// Its number, or a file (the beginning of an id, a full name, `owner:name`) for that file's latest transfer;
    /// percent-encoded as one segment
    #[param(example = "17")]
    transfer: String,
}

/// Show a transfer
#[utoipa::path(
    get,
    path = "/api/v1/transfers/{transfer}",
    tag = "transfers",
    operation_id = "show_transfer",
    params(Reference),
    responses(
        (status = 200, description = "the transfer", body = Transfer),
        (status = 404, description = "`unknown-transfer`: there is none of that number or file"),
        (status = 409, description = "`ambiguous-transfer`: several files are called so"),
        (status = 503, description = "`database-unavailable`: this node's disk fails"),
    )
)]
async fn show(
    State(shared): Service,
    Path(Reference { transfer }): Path<Reference>,
) -> Result<Json<Transfer>, Problem> {
    let id = control::find(&shared, &transfer).await.map_err(unsteered)?;
    Ok(Json(control::show(&shared, id).await.map_err(unsteered)?))
}

/// Pause a transfer
///
/// It keeps what has arrived, also over a restart of the node, until it is resumed.
#[utoipa::path(
    post,
    path = "/api/v1/transfers/{transfer}/pause",
    tag = "transfers",
    operation_id = "pause_transfer",
    params(Reference),
    responses(
        (status = 200, description = "the transfer, paused", body = Transfer),
        (status = 404, description = "`unknown-transfer`: there is none of that number or file"),
        (status = 409, description = "`ambiguous-transfer`: several files are called so; `transfer-state`: it is in no state for that"),
        (status = 503, description = "`database-unavailable`: this node's disk fails"),
    )
)]
async fn pause(
    State(shared): Service,
    Path(Reference { transfer }): Path<Reference>,
) -> Result<Json<Transfer>, Problem> {
    let id = control::find(&shared, &transfer).await.map_err(unsteered)?;
    Ok(Json(control::pause(&shared, id).await.map_err(unsteered)?))
}

/// Resume a transfer
///
/// One that is paused or has failed goes on; one that waits for sources looks for them now.
#[utoipa::path(
    post,
    path = "/api/v1/transfers/{transfer}/resume",
    tag = "transfers",
    operation_id = "resume_transfer",
    params(Reference),
    responses(
        (status = 200, description = "the transfer, under way", body = Transfer),
        (status = 404, description = "`unknown-transfer`: there is none of that number or file"),
        (status = 409, description = "`ambiguous-transfer`: several files are called so; `transfer-state`: it is in no state for that"),
        (status = 503, description = "`database-unavailable`: this node's disk fails; `busy`: 10 000 fetches are under way"),
    )
)]
async fn resume(
    State(shared): Service,
    Path(Reference { transfer }): Path<Reference>,
) -> Result<Json<Transfer>, Problem> {
    let id = control::find(&shared, &transfer).await.map_err(unsteered)?;
    Ok(Json(control::resume(&shared, id).await.map_err(unsteered)?))
}

/// Cancel a transfer
///
/// It ends for good, and what has arrived is removed; of one that has failed too.
#[utoipa::path(
    delete,
    path = "/api/v1/transfers/{transfer}",
    tag = "transfers",
    operation_id = "cancel_transfer",
    params(Reference),
    responses(
        (status = 200, description = "the transfer, cancelled", body = Transfer),
        (status = 404, description = "`unknown-transfer`: there is none of that number or file"),
        (status = 409, description = "`ambiguous-transfer`: several files are called so; `transfer-state`: it is in no state for that"),
        (status = 503, description = "`database-unavailable`: this node's disk fails"),
    )
)]
async fn cancel(
    State(shared): Service,
    Path(Reference { transfer }): Path<Reference>,
) -> Result<Json<Transfer>, Problem> {
    let id = control::find(&shared, &transfer).await.map_err(unsteered)?;
    Ok(Json(control::cancel(&shared, id).await.map_err(unsteered)?))
}

fn unsteered(error: ControlError) -> Problem {
    match error {
        ControlError::Unknown(_) => Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-transfer",
            error.to_string(),
            "run `quarta transfers` to see which there are",
        ),
        ControlError::Ambiguous { .. } => Problem::new(
            StatusCode::CONFLICT,
            "ambiguous-transfer",
            error.to_string(),
            "name one by its number",
        ),
        ControlError::State { why, next_step } => {
            Problem::new(StatusCode::CONFLICT, "transfer-state", why, next_step)
        }
        ControlError::Begin(error) => unbegun(error),
    }
}
