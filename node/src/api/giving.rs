//! Giving files to other branches.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use quarta_daemon::http::Problem;
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{GiveRequest, Given, GivenState},
    problems::{broken, unfound},
};
use crate::service::handing_over::{self, GiveError};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(give))
}

/// Hand a file over
///
/// The next owner fetches the file, reads it to its last byte and signs for it; from then on it alone updates, restricts
/// and deletes the file, and this branch keeps its copy as a reader. Until then the file is this branch's. Repeatable: asked
/// again, it tells how far the hand-over is. An offer that stands is pursued until the next owner has signed or refused,
/// over restarts of either side.
#[utoipa::path(post, path = "/api/v1/files/{file}/owner", tag = "files", operation_id = "give_file",
    params(("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
        description = "An id, the beginning of one (4 digits or more), a full name, or `owner:name`; percent-encoded as \
            one segment")),
    request_body = GiveRequest,
    responses(
        (status = 200, description = "it is the other branch's", body = Given),
        (status = 202, description = "it is offered, and goes on by itself", body = Given),
        (status = 403, description = "`not-owner`: only its owner hands a file over"),
        (status = 404, description = "`unknown-file`, `unknown-member`: nothing, or nobody, is called so"),
        (status = 409, description = "`ambiguous-file`: several files are called so; `not-an-owner`: the member is a \
            super-peer, has left, was revoked, or is this branch; `may-not-read`: the file is hidden from the member; \
            `under-way`: another branch is taking it over; `not-taken`: the member does not take it over; \
            `too-many-owners`: it was handed over 64 times"),
        (status = 503, description = "`no-superpeer`: none answered; `database-unavailable`: this node's disk fails"),
    )
)]
async fn give(
    State(shared): Service,
    Path(file): Path<String>,
    Json(request): Json<GiveRequest>,
) -> Result<(StatusCode, Json<Given>), Problem> {
    let given = handing_over::give(&shared, &file, &request.member).await.map_err(kept)?;
    let status = match given.state {
        GivenState::HandedOver => StatusCode::OK,
        GivenState::Offered => StatusCode::ACCEPTED,
    };
    Ok((status, Json(given)))
}

fn kept(error: GiveError) -> Problem {
    let text = error.to_string();
    let conflict = |code: &str, next: &str| Problem::new(StatusCode::CONFLICT, code, text.clone(), next);
    match error {
        GiveError::Find(error) => unfound(error),
        GiveError::NotOwner { .. } => {
            let next = "ask its owner to hand it over; a file whose owner is gone is assigned with \
                `quarta-superpeer assign`";
            Problem::new(StatusCode::FORBIDDEN, "not-owner", text, next)
        }
        GiveError::UnknownMember(_) => Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-member",
            text,
            "run `quarta members` to see who there is",
        ),
        GiveError::Superpeer(_) | GiveError::Ended(_) | GiveError::Itself => {
            conflict("not-an-owner", "name another branch; `quarta members` shows them")
        }
        GiveError::MayNotRead(_) => {
            conflict("may-not-read", "let it read the file first, with `quarta blacklist rm`")
        }
        GiveError::UnderWay(_) => conflict("under-way", "wait until that has ended, one way or the other"),
        GiveError::TooManyOwners => conflict("too-many-owners", "add the file anew where it is to go"),
        GiveError::Refused { .. } => {
            conflict("not-taken", "see to what it says, and give the file again, or to another branch")
        }
        GiveError::Database(_) => broken(&error),
    }
}
