//! Invites: how machines become members.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use quarta_daemon::http::{Paging, Problem};
use quarta_protocols::{
    credentials::{Role, UnixSeconds},
    names::MemberName,
};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    model::{Invite, InvitePage, InviteRequest, IssuedInvite},
};
use crate::{
    admission::{self, AdmissionError, Issued, Terms},
    catalog::ID_PREFIX_MIN_DIGITS,
    service::Shared,
};

/// Machines that one invite may admit.
const USES_MAX: u32 = 1000;
/// Longest time that an invite may be open, in seconds: 30 days.
const OPEN_MAX_SECONDS: u64 = 30 * 24 * 3600;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(issue, list)).routes(routes!(withdraw))
}

/// Issue an invite
///
/// Whoever holds it can join, so it is shown this once: only a hash of its secret is kept. A super-peer's invite that is
/// issued where the root key does not lie admits nobody by itself: see the candidates.
#[utoipa::path(post, path = "/api/v1/invites", tag = "invites", operation_id = "issue_invite",
    request_body = InviteRequest,
    responses(
        (status = 200, description = "the invite", body = Invite),
        (status = 400, description = "`bad-invite`: role, uses or time are out of bounds"),
        (status = 409, description = "`no-address`: this super-peer has no address that others could reach; \
            `not-departed`: nobody who is gone was called so, or somebody has the name"),
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
    let replaces = match &request.replaces {
        None => None,
        Some(_) if request.uses != 1 => {
            return Err(refuse("an invite that replaces a member has one use", "leave uses at 1"));
        }
        Some(name) => Some(MemberName::new(name).map_err(|error| {
            refuse(
                &error.to_string(),
                "give the departed member's name as `quarta-superpeer members` shows it",
            )
        })?),
    };
    let now = UnixSeconds::now();
    let terms = Terms {
        role,
        uses: request.uses,
        expires: now.plus(Duration::from_secs(request.expires_in_seconds)),
        replaces,
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
            AdmissionError::NotDeparted(_) => Problem::new(
                StatusCode::CONFLICT,
                "not-departed",
                error.to_string(),
                "see `quarta-superpeer members`; a name in use is free once its member has left or was revoked",
            ),
            error => broken(&error),
        })?;
    Ok(Json(Invite {
        invite: issued.to_text(),
        role: role.to_string(),
        uses: request.uses,
        expires: issued.expires.0,
        awaits_approval: role == Role::Superpeer && !shared.door.authority.holds_root(),
    }))
}

/// List the invites
///
/// Those that this super-peer issued, the newest first, until 30 days after their end.
#[utoipa::path(get, path = "/api/v1/invites", tag = "invites", operation_id = "list_invites", params(Paging), responses(
    (status = 200, description = "a page of invites", body = InvitePage),
    (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
    (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
))]
async fn list(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<InvitePage>, Problem> {
    let all = issued(&shared).await?;
    let newest_first = |invite: &Issued| (u64::MAX - invite.created.0, invite.id.to_string());
    let (page, next) = paging.cut(all, newest_first)?;
    let now = UnixSeconds::now();
    let invites = page.into_iter().map(|invite| IssuedInvite {
        state: state_of(&invite, now).to_owned(),
        id: invite.id.to_string(),
        role: invite.role.to_string(),
        uses: invite.uses,
        uses_left: invite.uses_left,
        created: invite.created.0,
        expires: invite.expires.0,
        replaces: invite.replaces.map(|name| name.to_string()),
    });
    Ok(Json(InvitePage { invites: invites.collect(), next }))
}

const fn state_of(invite: &Issued, now: UnixSeconds) -> &'static str {
    if invite.uses_left == 0 {
        "used"
    } else if invite.expires.0 <= now.0 {
        "expired"
    } else {
        "open"
    }
}

/// Withdraw an invite
///
/// Nobody can redeem it any more. Whom it admitted stays a member; a super-peer that waits for approval with it waits no
/// more.
#[utoipa::path(delete, path = "/api/v1/invites/{invite}", tag = "invites", operation_id = "withdraw_invite",
    params(("invite" = String, Path, description = "Its id, or the beginning of that", example = "5f0c21ab")),
    responses(
        (status = 204, description = "it is withdrawn"),
        (status = 404, description = "`unknown-invite`: this super-peer has no such invite"),
        (status = 409, description = "`ambiguous-invite`: several begin so; give more digits"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn withdraw(State(shared): Service, Path(invite): Path<String>) -> Result<StatusCode, Problem> {
    let unknown = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-invite",
            format!("this super-peer has no invite {invite}"),
            "see `quarta-superpeer invites`; an invite is withdrawn where it was issued",
        )
    };
    let digits = invite.to_ascii_lowercase();
    let mut meant = issued(&shared).await?;
    meant.retain(|issued| digits.len() >= ID_PREFIX_MIN_DIGITS && issued.id.to_string().starts_with(&digits));
    let id = match meant.as_slice() {
        [one] => one.id,
        [] => return Err(unknown()),
        _ => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "ambiguous-invite",
                format!("several invites begin with {invite}"),
                "give more digits of the id",
            ));
        }
    };
    let withdrawn = shared
        .store
        .write(move |catalog| admission::withdraw(catalog, &id))
        .await
        .map_err(|e| broken(&e))?
        .map_err(|e| broken(&e))?;
    if withdrawn { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}

async fn issued(shared: &Shared) -> Result<Vec<Issued>, Problem> {
    shared
        .store
        .write(|catalog| admission::list(catalog))
        .await
        .map_err(|e| broken(&e))?
        .map_err(|e| broken(&e))
}
