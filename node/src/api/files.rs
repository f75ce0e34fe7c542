//! The network's files.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use quarta_daemon::http::{Paging, Problem, Search, cursor};
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{File, FilePage},
    problems::unfound,
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list)).routes(routes!(one))
}

/// List and search files
///
/// In name order, without regard to case and accents.
#[utoipa::path(get, path = "/api/v1/files", tag = "files", operation_id = "list_files", params(Search, Paging), responses(
    (status = 200, description = "a page of files", body = FilePage),
    (status = 400, description = "`query-too-long`, `bad-cursor`, `bad-limit`: see the parameters"),
    (status = 503, description = "`no-superpeer`: none answered; `database-unavailable`: this node's disk fails"),
))]
async fn list(
    State(shared): Service,
    Query(search): Query<Search>,
    Query(paging): Query<Paging>,
) -> Result<Json<FilePage>, Problem> {
    let query = search.query()?.to_owned();
    let (after, limit) = (paging.after()?, paging.limit()?);
    let (files, next, stale) = shared.list(query, after, limit).await.map_err(unfound)?;
    let next = next.as_ref().map(cursor);
    Ok(Json(FilePage { files, next, stale }))
}

/// Show a file
#[utoipa::path(get, path = "/api/v1/files/{file}", tag = "files", operation_id = "show_file",
    params(("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
        description = "An id, the beginning of one (4 digits or more), a full name, or `owner:name`; percent-encoded as \
            one segment")),
    responses(
        (status = 200, description = "the file", body = File),
        (status = 404, description = "`unknown-file`: nothing is called so"),
        (status = 409, description = "`ambiguous-file`: several are"),
        (status = 503, description = "`no-superpeer`: none answered; `database-unavailable`: this node's disk fails"),
    )
)]
async fn one(State(shared): Service, Path(reference): Path<String>) -> Result<Json<File>, Problem> {
    let found = shared.find(&reference).await.map_err(unfound)?;
    Ok(Json(shared.show_found(found).await.map_err(unfound)?))
}
