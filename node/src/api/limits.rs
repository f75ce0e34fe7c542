//! What transfers may take of the line, and when.

use axum::{Json, extract::State, http::StatusCode};
use quarta_daemon::http::Problem;
use utoipa_axum::routes;

use super::{Routes, Service, model::Limits};
use crate::{
    service::limits::LimitsError,
    throttle::timetable::{PERIODS_MAX, Plan, RATE_MIN},
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(show, set))
}

/// Show the limits
///
/// What is set, and what of it holds at this minute by this machine's local time.
#[utoipa::path(get, path = "/api/v1/limits", tag = "limits", operation_id = "show_limits", responses(
    (status = 200, description = "the limits", body = Limits),
))]
async fn show(State(shared): Service) -> Json<Limits> {
    Json(Limits { set: shared.limits.plan(), now: shared.limits.rates() })
}

/// Set the limits
///
/// Replaces all of them, for transfers under way too, and for later starts. Machines on the same local network are not
/// limited unless `limit_lan` is set: those whose address is this machine's own, or private or link-local and in a subnet
/// of one of this machine's interfaces (tunnels do not count).
#[utoipa::path(put, path = "/api/v1/limits", tag = "limits", operation_id = "set_limits", request_body = Plan, responses(
    (status = 200, description = "they hold", body = Limits),
    (status = 422, description = "`bad-limits`: a limit is above 0 and below 32 KiB a second, or the timetable has more \
        than 28 periods"),
    (status = 503, description = "`data-folder`: the data folder cannot be written; the former limits hold"),
))]
async fn set(State(shared): Service, Json(plan): Json<Plan>) -> Result<Json<Limits>, Problem> {
    shared.set_limits(plan).await.map_err(|error| {
        let detail = format!("the limits are not changed: {error}");
        match error {
            LimitsError::Wrong(_) => {
                let next = format!(
                    "send limits of 0 for none or of {RATE_MIN} bytes a second or more, and {PERIODS_MAX} periods at most"
                );
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-limits", detail, next)
            }
            LimitsError::Unwritable(_) => {
                tracing::error!(%error, "the settings cannot be written");
                let next = "check the disk of the data folder and settings.toml in it, and try again";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "data-folder", detail, next)
            }
        }
    })?;
    Ok(Json(Limits { set: shared.limits.plan(), now: shared.limits.rates() }))
}
