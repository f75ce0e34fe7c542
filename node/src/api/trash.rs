//! The trash: files that were replaced or deleted, kept for a while.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use quarta_daemon::http::{Paging, Problem, cursor};
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{Emptied, Restored, TrashEntry, TrashPage},
    problems::broken,
};
use crate::{
    database::{TrashId, Trashed},
    library::{LibraryError, Place},
    service::{Shared, trash::TrashError},
    trash::retained_until,
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list, empty)).routes(routes!(restore)).routes(routes!(erase))
}

/// List the trash
///
/// The latest first.
#[utoipa::path(get, path = "/api/v1/trash", tag = "trash", operation_id = "list_trash", params(Paging), responses(
    (status = 200, description = "a page of the trash", body = TrashPage),
    (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
    (status = 503, description = "`database-unavailable`: this node's disk fails"),
))]
async fn list(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<TrashPage>, Problem> {
    let (before, limit) = (paging.after::<i64>()?.map(TrashId), paging.limit()?.get());
    let page = blocking(&shared, move |shared| {
        // One more than is shown tells whether another page follows.
        let mut found =
            shared.database.trash(before, u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1))?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(id, _)| cursor(&id.0));
        let entries = found.iter().map(|(id, trashed)| shown(shared, *id, trashed)).collect();
        Ok(TrashPage { entries, next })
    });
    Ok(Json(page.await?))
}

/// Empty the trash
///
/// For good: nothing of it can be restored then.
#[utoipa::path(delete, path = "/api/v1/trash", tag = "trash", operation_id = "empty_trash", responses(
    (status = 200, description = "how many files were removed", body = Emptied),
    (status = 503, description = "`library-unavailable`, `database-unavailable`: this node's disk fails"),
))]
async fn empty(State(shared): Service) -> Result<Json<Emptied>, Problem> {
    Ok(Json(Emptied { files: blocking(&shared, Shared::empty_trash).await? }))
}

/// Restore a file
///
/// Into the library folder, under the name it had, with a suffix where that is taken. It is a file like any that a person
/// puts there, and shared with nobody.
#[utoipa::path(post, path = "/api/v1/trash/{number}/restore", tag = "trash", operation_id = "restore_trash",
    params(("number" = i64, Path, description = "The entry's number", example = 3)),
    responses(
        (status = 200, description = "the entry as it was, and where its file lies now", body = Restored),
        (status = 404, description = "`unknown-trash`: nothing of that number is in the trash"),
        (status = 503, description = "`library-unavailable`, `database-unavailable`: this node's disk fails"),
    )
)]
async fn restore(State(shared): Service, Path(number): Path<i64>) -> Result<Json<Restored>, Problem> {
    let restored = blocking(&shared, move |shared| {
        let (trashed, path) = shared.restore_trashed(TrashId(number))?;
        let path = shared.library.path_of(&Place::Library(path)).display().to_string();
        Ok(Restored { entry: shown(shared, TrashId(number), &trashed), path })
    });
    Ok(Json(restored.await?))
}

/// Remove a file from the trash
///
/// For good.
#[utoipa::path(delete, path = "/api/v1/trash/{number}", tag = "trash", operation_id = "erase_trash",
    params(("number" = i64, Path, description = "The entry's number", example = 3)),
    responses(
        (status = 200, description = "it is removed", body = Emptied),
        (status = 404, description = "`unknown-trash`: nothing of that number is in the trash"),
        (status = 503, description = "`library-unavailable`, `database-unavailable`: this node's disk fails"),
    )
)]
async fn erase(State(shared): Service, Path(number): Path<i64>) -> Result<Json<Emptied>, Problem> {
    blocking(&shared, move |shared| shared.erase_trashed(TrashId(number))).await?;
    Ok(Json(Emptied { files: 1 }))
}

fn shown(shared: &Shared, id: TrashId, trashed: &Trashed) -> TrashEntry {
    TrashEntry {
        number: id.0,
        id: trashed.file.to_string(),
        name: trashed.name.to_string(),
        owner: trashed.owner_name.to_string(),
        own: trashed.own,
        path: trashed.path.to_string(),
        size_bytes: trashed.size_bytes,
        sha256: trashed.sha256.map(|sum| sum.to_string()),
        revision: trashed.revision,
        reason: trashed.reason.as_str().to_owned(),
        since_ms: trashed.since_ms,
        until_ms: retained_until(trashed.since_ms, shared.settings.trash_retention_days),
    }
}

async fn blocking<T: Send + 'static>(
    shared: &std::sync::Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, TrashError> + Send + 'static,
) -> Result<T, Problem> {
    let shared = shared.clone();
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    done.map_err(|e| broken(&e))?.map_err(untrashed)
}

/// Why the trash does not do it.
pub(super) fn untrashed(error: TrashError) -> Problem {
    match &error {
        TrashError::Unknown(_) => Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-trash",
            error.to_string(),
            "run `quarta trash ls` to see what there is",
        ),
        TrashError::Library(cause) => unplaced(cause),
        TrashError::Database(_) => broken(&error),
    }
}

fn unplaced(error: &LibraryError) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "library-unavailable", error.why(), error.next_step())
}
