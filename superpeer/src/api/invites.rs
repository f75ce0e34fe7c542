//! Invites: how machines become members.

use std::time::Duration;

use axum::{Json, extract::State, http::StatusCode};
use quarta_daemon::http::Problem;
use quarta_protocols::credentials::{Role, UnixSeconds};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    model::{Invite, InviteRequest},
};
use crate::admission::{AdmissionError, Terms};

/// Machines that one invite may admit.
const USES_MAX: u32 = 1000;
/// Longest time that an invite may be open, in seconds: 30 days.
const OPEN_MAX_SECONDS: u64 = 30 * 24 * 3600;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(issue))
}

/// Issue an invite
///
/// Whoever holds it can join, so it is shown this once: only a hash of its secret is kept.
#[utoipa::path(post, path = "/api/v1/invites", tag = "invites", operation_id = "issue_invite",
    request_body = InviteRequest,
    responses(
        (status = 200, description = "the invite", body = Invite),
        (status = 400, description = "`bad-invite`: role, uses or time are out of bounds"),
        (status = 403, description = "`not-the-root`: super-peers are invited where the root key is"),
        (status = 409, description = "`no-address`: this super-peer has no address that others could reach"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn issue(State(shared): Service, Json(request): Json<InviteRequest>) -> Result<Json<Invite>, Problem> {
    let refuse = |detail: &str, next: &str| Problem::new(StatusCode::BAD_REQUEST, "bad-invite", detail, next);
    let role = match request.role.as_str() {
        "node" => Role::Node,
        "superpeer" => Role::Superpeer,
        _ => return Err(refuse("an invite is for a node or a superpeer", "give role node or superpeer")),
    };
    if !(1..=USES_MAX).contains(&request.uses) {
        return Err(refuse("an invite has 1 to 1000 uses", "give another number of uses"));
    }
    if !(1..=OPEN_MAX_SECONDS).contains(&request.expires_in_seconds) {
        return Err(refuse("an invite is open for 1 second to 30 days", "give another time"));
    }
    let now = UnixSeconds::now();
    let terms = Terms {
        role,
        uses: request.uses,
        expires: now.plus(Duration::from_secs(request.expires_in_seconds)),
        replaces: None,
    };
    let addresses = shared.advertised().await;
    if addresses.is_empty() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "no-address",
            "this super-peer has no address that others could reach",
            "set external in settings.toml to the address under which members reach it",
        ));
    }
    let authority = shared.door.authority.clone();
    let issued = shared
        .store
        .write(move |catalog| authority.issue(catalog, terms, rand::random(), addresses, now))
        .await
        .map_err(|e| broken(&e))?
        .map_err(|error| match error {
            AdmissionError::Refused(refusal) => Problem::new(
                StatusCode::FORBIDDEN,
                "not-the-root",
                refusal.to_string(),
                "run the command on the super-peer that holds the root key",
            ),
            error => broken(&error),
        })?;
    Ok(Json(Invite {
        invite: issued.to_text(),
        role: role.to_string(),
        uses: request.uses,
        expires: issued.expires.0,
    }))
}
