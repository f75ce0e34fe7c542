//! This branch as a member: signing off and on, and leaving for good.

use axum::{Json, extract::State, http::StatusCode};
use quarta_daemon::{data_dir::FolderError, http::Problem};
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{NewOwner, Presence, UnregisterRequest, Unregistered},
    problems::broken,
};
use crate::service::membership::{LeaveError, counted};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(connect)).routes(routes!(disconnect)).routes(routes!(unregister))
}

/// Sign on
///
/// Brings this branch back onto the network after it has signed off. Harmless where it is there already.
#[utoipa::path(post, path = "/api/v1/connect", tag = "membership", operation_id = "connect", responses(
    (status = 200, description = "it comes back now", body = Presence),
    (status = 503, description = "`data-folder`: the data folder cannot be written"),
))]
async fn connect(State(shared): Service) -> Result<Json<Presence>, Problem> {
    shared.sign_on().await.map_err(|error| unwritable(&error))?;
    Ok(Json(Presence { name: shared.identity.membership.name.to_string(), signed_off: false }))
}

/// Sign off
///
/// Takes this branch off the network until it signs on, also across restarts: all members see it as offline at once, it
/// connects to nobody and lets nobody in.
#[utoipa::path(post, path = "/api/v1/disconnect", tag = "membership", operation_id = "disconnect", responses(
    (status = 200, description = "it is off", body = Presence),
    (status = 503, description = "`data-folder`: the data folder cannot be written"),
))]
async fn disconnect(State(shared): Service) -> Result<Json<Presence>, Problem> {
    shared.sign_off().await.map_err(|error| unwritable(&error))?;
    Ok(Json(Presence { name: shared.identity.membership.name.to_string(), signed_off: true }))
}

/// Leave for good
///
/// Ends this branch's membership: nobody lets it in any more, its daemon stops, and its data folder serves no more. Before
/// that each file that it owns goes to another branch that may read it, drawn among those online that hold it, or else
/// among all online, which fetches it first; the answer comes when all is done. The files in its library stay on this
/// machine. Only the branch itself can do this, and must name itself.
#[utoipa::path(post, path = "/api/v1/unregister", tag = "membership", operation_id = "unregister",
    request_body = UnregisterRequest, responses(
        (status = 200, description = "it has left", body = Unregistered),
        (status = 409, description = "`not-confirmed`: `name` is not this branch's; `abandons-files`: nobody takes over \
            files that it owns, and `abandon` is not set; `signed-off`: it has to sign on first, to be able to tell anybody"),
        (status = 403, description = "`refused`: the super-peers do not take the departure, and say why"),
        (status = 503, description = "`no-superpeer`: none has taken the departure, and nothing has changed; \
            `database-unavailable`, `data-folder`: the disk fails"),
    )
)]
async fn unregister(
    State(shared): Service,
    Json(request): Json<UnregisterRequest>,
) -> Result<Json<Unregistered>, Problem> {
    let name = shared.identity.membership.name.to_string();
    if request.name != name {
        let files = shared.own_files().await.map_err(|error| broken(&error))?;
        let files = counted(files);
        let detail = format!("it is not confirmed that {name} is to leave for good, and hand over {files}");
        let next = format!("run `quarta leave --yes` at {name}, or send its name");
        return Err(Problem::new(StatusCode::CONFLICT, "not-confirmed", detail, next));
    }
    let parted = shared.leave(request.abandon).await.map_err(stayed)?;
    let abandoned_files = parted.abandoned();
    let new_owners = parted.new_owners.into_iter();
    let new_owners = new_owners.map(|(name, files)| NewOwner { name: name.to_string(), files }).collect();
    Ok(Json(Unregistered { name, abandoned_files, new_owners }))
}

fn stayed(error: LeaveError) -> Problem {
    let text = error.to_string();
    match error {
        LeaveError::Abandons { .. } => {
            let next = "try again when more branches are online, or run `quarta leave --yes --abandon` if nobody needs \
                them any more";
            Problem::new(StatusCode::CONFLICT, "abandons-files", text, next)
        }
        LeaveError::SignedOff => {
            Problem::new(StatusCode::CONFLICT, "signed-off", text, "run `quarta connect` first")
        }
        LeaveError::Untold(quarta_daemon::renewing::Unrenewed::Refused(_)) => {
            Problem::new(StatusCode::FORBIDDEN, "refused", text, "ask who runs the network")
        }
        LeaveError::Untold(_) => {
            let next = "run `quarta status` to see which super-peers are reachable, and try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-superpeer", text, next)
        }
        LeaveError::Database(error) => broken(&error),
        LeaveError::Unmarked(error) => unwritable(&error),
    }
}

fn unwritable(error: &FolderError) -> Problem {
    tracing::error!(%error, "the data folder cannot be written");
    let (detail, next) = (error.to_string(), "check the disk of the data folder, and try again");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "data-folder", detail, next)
}
