//! Who holds a file.

use axum::{
    Json,
    extract::{Path, State},
};
use quarta_daemon::http::Problem;
use utoipa_axum::routes;

use super::{Routes, Service, model::Replication, problems::unfound};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list))
}

/// Show who holds a file
///
/// Its present content: in libraries and, sealed, in vaults; and how many copies there should be.
#[utoipa::path(get, path = "/api/v1/files/{file}/holders", tag = "files", operation_id = "list_holders",
    params(("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
        description = "As in `GET /api/v1/files/{file}`")),
    responses(
        (status = 200, description = "the holders", body = Replication),
        (status = 404, description = "`unknown-file`: nothing is called so"),
        (status = 409, description = "`ambiguous-file`: several are"),
        (status = 503, description = "`no-superpeer`: none answered; `database-unavailable`: this node's disk fails"),
    )
)]
async fn list(State(shared): Service, Path(reference): Path<String>) -> Result<Json<Replication>, Problem> {
    let found = shared.find(&reference).await.map_err(unfound)?;
    Ok(Json(shared.holders(&found).await.map_err(unfound)?))
}
