//! The catalog: every file of the network that is not deleted.

use axum::{
    Json,
    extract::{Query, State},
};
use quarta_daemon::http::{Paging, Problem, Search, cursor};
use quarta_protocols::{
    ids::Sha256,
    messages::index::Cursor,
    records::{Access, State as RecordState},
};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    model::{File, FilePage},
};
use crate::catalog::Viewer;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list))
}

/// List and search the catalog
///
/// In name order, without regard to case and accents; restricted files too, of which super-peers cannot read the content.
#[utoipa::path(get, path = "/api/v1/files", tag = "files", operation_id = "list_files", params(Search, Paging), responses(
    (status = 200, description = "a page of files", body = FilePage),
    (status = 400, description = "`query-too-long`, `bad-cursor`, `bad-limit`: see the parameters"),
    (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
))]
async fn list(
    State(shared): Service,
    Query(search): Query<Search>,
    Query(paging): Query<Paging>,
) -> Result<Json<FilePage>, Problem> {
    let query = search.query()?.to_owned();
    let after: Option<Cursor> = paging.after()?;
    let limit = u32::try_from(paging.limit()?.get()).unwrap_or(u32::MAX);
    let (page, gone) = shared
        .store
        .read(move |reader| {
            let page = reader.search(Viewer::Administrator, &query, None, after.as_ref(), limit)?;
            let gone = reader.gone(page.files.iter().map(|file| file.owner))?;
            Ok((page, gone))
        })
        .await
        .map_err(|e| broken(&e))?;
    let state = shared.state();
    let file = |stored: crate::catalog::StoredFile| {
        let body = stored.record.peek().ok()?;
        let RecordState::Present(entry) = body.state else { return None };
        let sha256: Option<Sha256> = match &entry.access {
            Access::Open { sha256, .. } => Some(*sha256),
            Access::Restricted { .. } => None,
        };
        Some(File {
            id: stored.file.to_string(),
            name: stored.name.to_string(),
            owner: stored.owner_name.to_string(),
            orphaned: gone.contains(&stored.owner),
            size_bytes: entry.size_bytes,
            restricted: sha256.is_none(),
            sha256: sha256.map(|sum| sum.to_string()),
            holders: state.available_holders(&entry.content).map(|peer| state.name_of(&peer)).collect(),
        })
    };
    let next = page.next.as_ref().map(cursor);
    Ok(Json(FilePage { files: page.files.into_iter().filter_map(file).collect(), next }))
}
