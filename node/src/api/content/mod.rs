//! A file's bytes, as far as they are on this machine.
//!
//! **No byte that was not shared is sent**: each chunk is compared with the manifest before anything of it leaves, as for
//! other members, so an edited copy answers 409, or breaks the answer off where it is found out only then. One chunk or
//! 2 MiB of a file is held at a time, however large the file and the range.
//!
//! A file that is not here is not fetched by reading it: that could take hours and fill the disk, while a reader sees
//! nothing. The answer says how to fetch it.

mod headers;
mod range;

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use quarta_daemon::http::Problem;
use quarta_protocols::messages::chunk::Abort;
use utoipa_axum::routes;

use self::range::{Wanted, wanted};
use super::{
    Routes, Service,
    problems::{broken, unfound},
};
use crate::{
    library::Defect,
    service::reading::{OpenError, Reading},
};

/// What a page of another branch that is opened all the same may do: nothing.
const POLICY: &str = "default-src 'none'; sandbox";

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(content))
}

/// Read a file's bytes
///
/// Of a file that is on this machine, complete and as it was shared. A part can be asked for with `Range`, also from the
/// end (`bytes=-500`); several parts at once are answered with the whole. The type is the file's where browsers run
/// nothing of that type, else `application/octet-stream`.
#[utoipa::path(get, path = "/api/v1/files/{file}/content", tag = "files", operation_id = "read_file",
    params(
        ("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
            description = "An id, the beginning of one (4 digits or more), a full name, or `owner:name`; percent-encoded \
                as one segment"),
        ("Range" = Option<String>, Header, description = "A part: `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-COUNT`",
            example = "bytes=0-1023"),
        ("If-Range" = Option<String>, Header, description = "The tag of the content that the part is of; the whole \
            answers where it is another"),
        ("If-None-Match" = Option<String>, Header, description = "Tags of contents that the reader has"),
        ("If-Match" = Option<String>, Header, description = "Tags of the contents that the reader means"),
    ),
    responses(
        (status = 200, description = "all of it", content_type = "*/*", body = Vec<u8>, headers(
            ("ETag" = String, description = "the SHA-256 in quotes"),
            ("Accept-Ranges" = String, description = "`bytes`"),
            ("Content-Disposition" = String, description = "`attachment` with the file's name (RFC 6266)"),
        )),
        (status = 206, description = "the part", content_type = "*/*", body = Vec<u8>, headers(
            ("ETag" = String, description = "the SHA-256 in quotes"),
            ("Accept-Ranges" = String, description = "`bytes`"),
            ("Content-Disposition" = String, description = "`attachment` with the file's name (RFC 6266)"),
            ("Content-Range" = String, description = "which part of how many bytes: `bytes 0-1023/146515`"),
        )),
        (status = 304, description = "the reader has it", headers(
            ("ETag" = String, description = "the SHA-256 in quotes"),
        )),
        (status = 404, description = "`unknown-file`: nothing is called so"),
        (status = 409, description = "`not-here`: it is not on this machine; `changed-on-disk`: it is not what was \
            shared any more; `ambiguous-file`: several are called so"),
        (status = 412, description = "`other-content`: its content is none that `If-Match` names"),
        (status = 416, description = "`beyond-end`: it has no such bytes", headers(
            ("Content-Range" = String, description = "how many it has: `bytes */146515`"),
        )),
        (status = 503, description = "`no-superpeer`: none answered; `busy`: 32 files are being read; \
            `database-unavailable`: this node's disk fails"),
    )
)]
async fn content(
    State(shared): Service,
    Path(reference): Path<String>,
    method: Method,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let found = shared.find(&reference).await.map_err(unfound)?;
    let file = Reading::open(&shared, &found.record).await.map_err(unopened)?;
    let size = file.size_bytes();
    let etag = format!("\"{}\"", file.tag());
    let (first, last) = match wanted(&asked, size, &etag) {
        Wanted::PreconditionFailed => {
            return Err(Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "other-content",
                "the file's content is none of those that If-Match names",
                "read it again without If-Match",
            ));
        }
        Wanted::NotModified => return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response()),
        Wanted::Beyond if method == Method::GET => return Ok(beyond(size)),
        // Ranges are for GET alone.
        Wanted::Part { first, last } if method == Method::GET => (first, Some(last)),
        Wanted::Whole | Wanted::Part { .. } | Wanted::Beyond => (0, None),
    };
    let count = last.map_or(size, |last| last - first + 1);
    let body = if method == Method::HEAD { Body::empty() } else { body(file.clone(), first, count).await? };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(count));
    headers.insert(header::CONTENT_TYPE, headers::content_type(file.media_type()));
    headers.insert(header::CONTENT_DISPOSITION, headers::disposition(file.name()));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // May be kept by who may read it, but only used after asking whether it is still the content.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(header::ETAG, etag);
    }
    if let Some(last) = last {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(range) = HeaderValue::try_from(format!("bytes {first}-{last}/{size}")) {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
    }
    Ok(response)
}

/// `count` bytes from `first`. The first piece is read before the answer begins, so that most of what can be wrong with
/// a copy is still told with a status.
async fn body(file: Arc<Reading>, first: u64, count: u64) -> Result<Body, Problem> {
    let mut pieces = Box::pin(file.pieces(first, count));
    let head = pieces.next().await.transpose().map_err(unread)?;
    Ok(Body::from_stream(stream::iter(head.map(Ok)).chain(aborting(pieces))))
}

fn aborting(pieces: impl Stream<Item = Result<Bytes, Abort>>) -> impl Stream<Item = io::Result<Bytes>> {
    pieces.map_err(|abort| io::Error::other(abort.to_string()))
}

fn beyond(size_bytes: u64) -> Response {
    let problem = Problem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "beyond-end",
        format!("the file has {size_bytes} bytes"),
        "ask for a part within them",
    );
    ([(header::CONTENT_RANGE, format!("bytes */{size_bytes}"))], problem).into_response()
}

fn unopened(error: OpenError) -> Problem {
    match error {
        OpenError::NotHere => Problem::new(
            StatusCode::CONFLICT,
            "not-here",
            error.to_string(),
            "fetch it first: POST to the file's fetch, or run `quarta get`",
        ),
        OpenError::Busy => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            error.to_string(),
            "try again when one of them has been read",
        ),
        OpenError::Defective(Defect::Changed | Defect::Damaged) => unread(Abort::Changed),
        OpenError::Defective(Defect::Unreadable) => unread(Abort::Unreadable),
        OpenError::Defective(Defect::Missing) => Problem::new(
            StatusCode::CONFLICT,
            "not-here",
            "the file was on this machine and is gone".to_owned(),
            "fetch it again: POST /api/v1/files/{file}/fetch",
        ),
        OpenError::NotNow(_) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string(), "try again in a moment")
        }
        OpenError::Database(_) => broken(&error),
    }
}

fn unread(abort: Abort) -> Problem {
    match abort {
        Abort::Changed => Problem::new(
            StatusCode::CONFLICT,
            "changed-on-disk",
            "the copy on this machine is not what was shared any more",
            "fetch the file again, or put the shared one back in its place",
        ),
        Abort::Unreadable | Abort::Stopping | Abort::MakesWay => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unreadable",
            format!("the copy on this machine cannot be read: {abort}"),
            "see the node's log and check its disk",
        ),
    }
}
