//! Changing own files: a new content, or their end.

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{StatusCode, header},
};
use quarta_daemon::http::Problem;
use utoipa_axum::{router::UtoipaMethodRouterExt, routes};

use super::{
    Routes, Service,
    model::{File, Removed},
    problems::{broken, unfound},
    receiving::{body, content_length, drive, unadded, unreceived},
    trash::untrashed,
};
use crate::service::{
    removing,
    updating::{self, OwnError},
};

pub(super) fn routes() -> Routes {
    // Bodies without a bound but the disk's: they are not held in memory.
    let unbounded = axum::extract::DefaultBodyLimit::disable();
    Routes::default().routes(routes!(update).layer(unbounded)).routes(routes!(adopt)).routes(routes!(remove))
}

/// Update a file
///
/// The new content as the body, of any media type; it is streamed to the disk, and its size need not be known. The file
/// keeps its id and name, the content before goes to the trash, and branches that hold it follow. The same content again
/// changes nothing. A body that breaks off changes nothing either.
#[utoipa::path(put, path = "/api/v1/files/{file}", tag = "files", operation_id = "update_file",
    params(("file" = String, Path, description = "As in `GET /api/v1/files/{file}`")),
    request_body(description = "The file's new bytes", content((Vec<u8> = "application/octet-stream"))),
    responses(
        (status = 200, description = "the file as it is now", body = File),
        (status = 400, description = "`broken-off`: the body ended early; `no-body`: there is none, and no media type"),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`: nothing is called so; `deleted`: it was deleted meanwhile"),
        (status = 409, description = "`ambiguous-file`: several are called so; `handing-over`: it is on its way to another \
            owner; `name-taken`: something else lies in its \
            place in the library; `keys-missing`: the keys of those who may read it are not on this machine"),
        (status = 413, description = "`too-large`: the content is above 1 TiB"),
        (status = 503, description = "`busy`: 16 uploads are under way; `library-unavailable`, `database-unavailable`: \
            this node's disk fails; `no-superpeer`: none answered, and the file is not known here"),
        (status = 507, description = "`disk-full`: there is not enough room"),
    )
)]
async fn update(
    State(shared): Service,
    Path(reference): Path<String>,
    request: Request,
) -> Result<Json<File>, Problem> {
    let size_bytes = content_length(request.headers());
    // A client that forgot the body must not empty the file; one that means an empty file names its media type.
    let headers = request.headers();
    let is_empty = size_bytes.unwrap_or(0) == 0 && !headers.contains_key(header::TRANSFER_ENCODING);
    if is_empty && !headers.contains_key(header::CONTENT_TYPE) {
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "no-body",
            "the request has no body",
            "send the new bytes as the body; for an empty file, say so with a Content-Type",
        ));
    }
    let receipt = updating::begin(&shared, &reference, size_bytes).await.map_err(unchanged)?;
    let updated = drive(receipt, body(request.into_body())).await.map_err(|e| broken(&e))?;
    Ok(Json(updated.map_err(unchanged)?))
}

/// Take a file as it lies on this machine as its new content
///
/// For an own file that was edited where it lies, in the library or in place. One that is as it was shared is left as it
/// is.
#[utoipa::path(post, path = "/api/v1/files/{file}/adopt", tag = "files", operation_id = "adopt_file",
    params(("file" = String, Path, description = "As in `GET /api/v1/files/{file}`")),
    responses(
        (status = 200, description = "the file as it is now", body = File),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`: nothing is called so; `not-here`: no copy of it is on this machine; \
            `deleted`: it was deleted meanwhile"),
        (status = 409, description = "`ambiguous-file`: several are called so; `handing-over`: it is on its way to another \
            owner; `keys-missing`: the keys of those who may \
            read it are not on this machine"),
        (status = 503, description = "`library-unavailable`: the file cannot be read, or changes meanwhile; \
            `database-unavailable`: this node's disk fails; `no-superpeer`: none answered, and the file is not known here"),
    )
)]
async fn adopt(State(shared): Service, Path(reference): Path<String>) -> Result<Json<File>, Problem> {
    Ok(Json(updating::adopt(&shared, &reference).await.map_err(unchanged)?))
}

/// Delete a file
///
/// Everywhere and for ever: copies of other branches go to their trash too, also of those that are away now, once they are
/// back. Adding the file again makes a new one.
#[utoipa::path(delete, path = "/api/v1/files/{file}", tag = "files", operation_id = "delete_file",
    params(("file" = String, Path, description = "As in `GET /api/v1/files/{file}`")),
    responses(
        (status = 200, description = "what was deleted", body = Removed),
        (status = 403, description = "`not-owner`: the file is another branch's"),
        (status = 404, description = "`unknown-file`: nothing is called so; `deleted`: it was deleted meanwhile"),
        (status = 409, description = "`ambiguous-file`: several are called so; `handing-over`: it is on its way to another \
            owner"),
        (status = 503, description = "`database-unavailable`: this node's disk fails; `no-superpeer`: none answered, and \
            the file is not known here"),
    )
)]
async fn remove(State(shared): Service, Path(reference): Path<String>) -> Result<Json<Removed>, Problem> {
    let removed = removing::remove(&shared, &reference).await.map_err(unchanged)?;
    Ok(Json(Removed {
        id: removed.file.to_string(),
        name: removed.name.to_string(),
        revision: removed.revision,
        announced: removed.announced,
    }))
}

/// Why an own file is not changed.
pub(super) fn unchanged(error: OwnError) -> Problem {
    let text = error.to_string();
    match error {
        OwnError::Find(error) => unfound(error),
        OwnError::NotOwner { owner } => Problem::new(
            StatusCode::FORBIDDEN,
            "not-owner",
            text,
            format!("ask {owner} to do it, or to hand the file over"),
        ),
        OwnError::HandingOver => Problem::new(
            StatusCode::CONFLICT,
            "handing-over",
            text,
            "wait until that has ended; `quarta info` shows the owner",
        ),
        OwnError::Deleted => {
            Problem::new(StatusCode::NOT_FOUND, "deleted", text, "add it again, as a new file")
        }
        OwnError::Keyless => Problem::new(
            StatusCode::CONFLICT,
            "keys-missing",
            text,
            "update it on the machine that restricted it",
        ),
        OwnError::NotHere => Problem::new(
            StatusCode::NOT_FOUND,
            "not-here",
            text,
            "give the new content's path, or fetch the file",
        ),
        OwnError::Add(error) => unadded(&error),
        OwnError::Receive(error) => unreceived(error),
        OwnError::Trash(error) => untrashed(error),
        OwnError::Unnoted(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database-unavailable",
            text,
            "see the node's log and check its disk",
        ),
    }
}
