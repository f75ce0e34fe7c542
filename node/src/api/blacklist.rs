//! Who may not see a file.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use quarta_daemon::http::{Paging, Problem, cursor};
use quarta_protocols::{audiences::RULE_MEMBERS_MAX, ids::FileId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{Blacklist, BlacklistPage, BlacklistRequest, HideRequest},
    problems::broken,
    updating::unchanged,
};
use crate::service::{
    Shared,
    keyring::Readers,
    restricting::{self, RestrictError, Wish},
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(all, hide)).routes(routes!(one, replace, clear))
}

/// List the restricted files of this branch
///
/// Only a file's owner sees who is on its list. To a member on it, the file does not exist.
#[utoipa::path(get, path = "/api/v1/files/blacklist", tag = "files", operation_id = "list_blacklists", params(Paging),
    responses(
        (status = 200, description = "a page of lists", body = BlacklistPage),
        (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
        (status = 503, description = "`database-unavailable`: this node's disk fails"),
    )
)]
async fn all(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<BlacklistPage>, Problem> {
    let after: Option<FileId> = paging.after()?;
    let limit = paging.limit()?.get();
    let (blacklists, next) = restricting::lists(&shared, after, limit).await.map_err(unrestricted)?;
    Ok(Json(BlacklistPage { blacklists, next: next.as_ref().map(cursor) }))
}

/// Hide a file from further members
///
/// They see nothing of it any more within a moment, and their copies are withdrawn. On a list of the only readers, they are
/// taken off it.
#[utoipa::path(post, path = "/api/v1/files/blacklist", tag = "files", operation_id = "hide_file",
    request_body = HideRequest, responses(
        (status = 200, description = "the list as it is now", body = Blacklist),
        (status = 400, description = "`super-peer`: super-peers are no readers; `owner`: this branch owns the file; \
            `too-many-members`: more than 1024, or none"),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`: nothing is called so; `unknown-member`: nobody is"),
        (status = 409, description = "`ambiguous-file`: several files are called so; `not-here`, `defective-copy`: there is \
            no sound copy of it on this machine to seal anew; `list-lost`: the list is not on this machine any more"),
        (status = 503, description = "`no-superpeer`: none answered; `database-unavailable`, `library-unavailable`: this \
            node's disk fails"),
    )
)]
async fn hide(State(shared): Service, Json(request): Json<HideRequest>) -> Result<Json<Blacklist>, Problem> {
    if request.members.is_empty() {
        return Err(too_many("no member is named"));
    }
    change(&shared, &request.file, Wish::Hide(bounded(request.members)?)).await
}

/// Show a file's list
#[utoipa::path(get, path = "/api/v1/files/blacklist/{file}", tag = "files", operation_id = "show_blacklist",
    params(("file" = String, Path, example = "fotos/praia.jpg", description = "As elsewhere; percent-encoded as one segment")),
    responses(
        (status = 200, description = "the list", body = Blacklist),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`: nothing is called so"),
        (status = 409, description = "`ambiguous-file`: several are; `list-lost`: it is not on this machine any more"),
        (status = 503, description = "`no-superpeer`: none answered; `database-unavailable`: this node's disk fails"),
    )
)]
async fn one(State(shared): Service, Path(reference): Path<String>) -> Result<Json<Blacklist>, Problem> {
    restricting::list_of(&shared, &reference).await.map(Json).map_err(unrestricted)
}

/// Replace a file's list
///
/// An empty one lets everybody see it; with `only` and nobody named, nobody but this branch does.
#[utoipa::path(put, path = "/api/v1/files/blacklist/{file}", tag = "files", operation_id = "replace_blacklist",
    params(("file" = String, Path, example = "fotos/praia.jpg", description = "As elsewhere; percent-encoded as one segment")),
    request_body = BlacklistRequest,
    responses(
        (status = 200, description = "the list as it is now", body = Blacklist),
        (status = 400, description = "as for hiding"),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`, `unknown-member`"),
        (status = 409, description = "as for hiding"),
        (status = 503, description = "as for hiding"),
    )
)]
async fn replace(
    State(shared): Service,
    Path(reference): Path<String>,
    Json(request): Json<BlacklistRequest>,
) -> Result<Json<Blacklist>, Problem> {
    let members = bounded(request.members)?;
    let wish = if request.only { Wish::Only(members) } else { Wish::EveryoneBut(members) };
    change(&shared, &reference, wish).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// The name or peer id of the one to let see the file again. Without it the whole list is cleared, and everybody sees
    /// the file.
    #[param(max_length = 128, example = "filial-recife")]
    member: Option<String>,
}

/// Clear a file's list, or take a member off it
///
/// Who is let see the file again sees it as before, and can fetch it. On a list of the only readers, `member` is added.
#[utoipa::path(delete, path = "/api/v1/files/blacklist/{file}", tag = "files", operation_id = "clear_blacklist",
    params(
        ("file" = String, Path, example = "fotos/praia.jpg", description = "As elsewhere; percent-encoded as one segment"),
        Removal,
    ),
    responses(
        (status = 200, description = "the list as it is now", body = Blacklist),
        (status = 400, description = "`super-peer`, `owner`: as for hiding"),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`, `unknown-member`"),
        (status = 409, description = "as for hiding"),
        (status = 503, description = "as for hiding"),
    )
)]
async fn clear(
    State(shared): Service,
    Path(reference): Path<String>,
    Query(removal): Query<Removal>,
) -> Result<Json<Blacklist>, Problem> {
    let wish = match removal.member {
        Some(member) => Wish::Show(vec![member]),
        None => Wish::EveryoneBut(Vec::new()),
    };
    change(&shared, &reference, wish).await
}

async fn change(shared: &Arc<Shared>, reference: &str, wish: Wish) -> Result<Json<Blacklist>, Problem> {
    restricting::restrict(shared, reference, wish).await.map(Json).map_err(unrestricted)
}

/// Who is to read files that are added with these lists.
pub(super) async fn readers(
    shared: &Arc<Shared>,
    hidden: Vec<String>,
    only: Option<Vec<String>>,
) -> Result<Readers, Problem> {
    let wish = match (hidden.is_empty(), only) {
        (true, None) => None,
        (false, None) => Some(Wish::Hide(bounded(hidden)?)),
        (true, Some(only)) => Some(Wish::Only(bounded(only)?)),
        (false, Some(_)) => {
            let detail = "a file cannot both be hidden from some and be shown to some only";
            let next = "name either those that are not to see it, or those that are";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "two-lists", detail, next));
        }
    };
    restricting::readers(shared, wish).await.map_err(unrestricted)
}

fn bounded(members: Vec<String>) -> Result<Vec<String>, Problem> {
    if members.len() > RULE_MEMBERS_MAX {
        return Err(too_many(&RestrictError::TooMany.to_string()));
    }
    Ok(members)
}

fn too_many(detail: &str) -> Problem {
    let next = format!("name 1 to {RULE_MEMBERS_MAX} members");
    Problem::new(StatusCode::BAD_REQUEST, "too-many-members", detail, next)
}

fn unrestricted(error: RestrictError) -> Problem {
    let text = error.to_string();
    let problem = |status, code, next: &str| Problem::new(status, code, text.as_str(), next);
    match error {
        RestrictError::Own(error) => unchanged(error),
        RestrictError::UnknownMember(_) => {
            problem(StatusCode::NOT_FOUND, "unknown-member", "run `quarta members` to see who there is")
        }
        RestrictError::Superpeer(_) => problem(StatusCode::BAD_REQUEST, "super-peer", "name branches only"),
        RestrictError::Owner(_) => {
            problem(StatusCode::BAD_REQUEST, "owner", "leave it out; an owner always reads its own files")
        }
        RestrictError::TooMany => too_many(&text),
        RestrictError::NotHere => {
            problem(StatusCode::CONFLICT, "not-here", "fetch it with `quarta get`, and try again")
        }
        RestrictError::Defective(_) => problem(
            StatusCode::CONFLICT,
            "defective-copy",
            "put the right file back and run `quarta verify`, or fetch it with `quarta get`, and try again",
        ),
        RestrictError::NotNow(_) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "library-unavailable", "try again in a moment")
        }
        RestrictError::ListLost => problem(
            StatusCode::CONFLICT,
            "list-lost",
            "restore the data folder from its latest backup, or add the file again",
        ),
        RestrictError::Invalid(_) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, "invalid-record", "please report this as a bug")
        }
        RestrictError::Database(_) => broken(&error),
    }
}
