//! Uploads.

use std::{io, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{Stream, StreamExt, TryStreamExt};
use quarta_daemon::http::Problem;
use quarta_protocols::names::FileName;
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::IntoParams;
use utoipa_axum::{router::UtoipaMethodRouterExt, routes};

use super::{
    Routes, Service,
    blacklist::readers,
    model::{File, Uploaded},
    problems::broken,
};
use crate::{
    library::LibraryError,
    sealing::AddError,
    service::{
        Shared,
        keyring::Readers,
        receiving::{self, Piece, Receipt, ReceiveError},
    },
};

/// Files of one form: each is answered for, and the answer has a bound.
const FILES_MAX: usize = 1000;

pub(super) fn routes() -> Routes {
    // The only bodies without a bound but the disk's: they are not held in memory.
    let unbounded = axum::extract::DefaultBodyLimit::disable();
    Routes::default().routes(routes!(upload).layer(unbounded))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Naming {
    /// The file's name, with folders if it is to lie in some. Needed for a raw body; in a form it stands for the file's
    /// own name where there is one file only.
    #[param(max_length = 1024, example = "campanha/plano.csv")]
    name: Option<String>,
    /// Names of members that are not to see it, separated by commas.
    #[param(max_length = 65536, example = "filial-recife,filial-natal")]
    hide_from: Option<String>,
    /// Names of the only members that are to see it, separated by commas; nobody but this branch where empty. Not together
    /// with `hide_from`.
    #[param(max_length = 65536)]
    only: Option<String>,
}

/// A form's fields.
#[derive(Debug, utoipa::ToSchema)]
#[expect(dead_code, reason = "described only: a form is read piece by piece")]
struct Form {
    /// The file, with its name. There may be several of these fields, under any field name.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<Vec<u8>>,
}

/// Upload a file
///
/// The file as the body, of any media type but a form's, or a form with one or several files. It is streamed to the disk,
/// its size need not be known, and it is shared when the answer comes. Of a form's files, those before one that fails are
/// shared; the answer then tells of the one that failed. A body that breaks off leaves nothing.
#[utoipa::path(post, path = "/api/v1/files", tag = "files", operation_id = "upload_file", params(Naming),
    request_body(
        description = "The file's bytes, or a form with files",
        content((Vec<u8> = "application/octet-stream"), (Form = "multipart/form-data")),
    ),
    responses(
        (status = 201, description = "the file; for a form, its files", body = Uploaded, headers(
            ("Location" = String, description = "the file, where it is one"),
        )),
        (status = 400, description = "`bad-name`: a name is missing or cannot be shared; `bad-form`: the form is malformed \
            or has no file; `broken-off`: the body ended early; `two-lists`, `super-peer`, `owner`, `too-many-members`: see \
            the blacklist's routes"),
        (status = 404, description = "`unknown-member`: nobody is called like one that is to see it or not"),
        (status = 409, description = "`name-taken`: this branch has a file of that name, or of one that is the same on \
            systems that ignore case"),
        (status = 413, description = "`too-large`: the file is above 1 TiB"),
        (status = 503, description = "`busy`: 16 uploads are under way; `library-unavailable`: the library's disk fails"),
        (status = 507, description = "`disk-full`: there is not enough room"),
    )
)]
async fn upload(
    State(shared): Service,
    Query(naming): Query<Naming>,
    request: Request,
) -> Result<Response, Problem> {
    let hidden = naming.hide_from.as_deref().map(names).unwrap_or_default();
    let readers = readers(&shared, hidden, naming.only.as_deref().map(names)).await?;
    if is_form(request.headers()) {
        return form(&shared, naming.name, readers, request).await;
    }
    let name = file_name(naming.name.as_deref().unwrap_or_default())?;
    let size_bytes = content_length(request.headers());
    let file = one(&shared, name, readers, size_bytes, body(request.into_body())).await?;
    let location = HeaderValue::try_from(format!("/api/v1/files/{}", file.id)).map_err(|_| unnoted())?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(Uploaded::One(file))).into_response())
}

async fn form(
    shared: &Arc<Shared>,
    mut named: Option<String>,
    readers: Readers,
    request: Request,
) -> Result<Response, Problem> {
    let bad = |detail: String| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-form",
            detail,
            "send multipart/form-data with a file field",
        )
    };
    // Above every file's size, so that a disk that is too small is told before anything is sent.
    if content_length(request.headers()).is_some_and(|size| size > shared.free_bytes()) {
        return Err(disk_full("the disk has less room than the form has bytes".to_owned()));
    }
    let mut form = Multipart::from_request(request, &()).await.map_err(|e| bad(e.body_text()))?;
    let mut files: Vec<File> = Vec::new();
    loop {
        let field = form.next_field().await.map_err(|e| bad(e.body_text()));
        let Some(field) = told_of(&files, field)? else { break };
        let Some(own) = field.file_name().map(str::to_owned) else { continue };
        if files.len() == FILES_MAX {
            return told_of(&files, Err(bad(format!("a form has at most {FILES_MAX} files"))));
        }
        let name = told_of(&files, file_name(&named.take().unwrap_or(own)))?;
        let pieces = field.map_err(|e| io::Error::other(e.body_text()));
        files.push(told_of(&files, one(shared, name, readers, None, pieces).await)?);
    }
    if files.is_empty() {
        return Err(bad("the form has no file".to_owned()));
    }
    Ok((StatusCode::CREATED, Json(Uploaded::Several { files })).into_response())
}

/// Adds to a problem which files of the form are shared all the same.
fn told_of<T>(shared: &[File], result: Result<T, Problem>) -> Result<T, Problem> {
    result.map_err(|mut problem| {
        if let Some(last) = shared.last() {
            problem.detail = format!(
                "{}; {} files before it are shared, up to {}",
                problem.detail,
                shared.len(),
                last.name
            );
        }
        problem
    })
}

/// Receives one file.
async fn one(
    shared: &Arc<Shared>,
    name: FileName,
    readers: Readers,
    size_bytes: Option<u64>,
    pieces: impl Stream<Item = io::Result<axum::body::Bytes>> + Send,
) -> Result<File, Problem> {
    let receipt = receiving::begin(shared, name, readers, size_bytes).map_err(unreceived)?;
    drive(receipt, pieces).await.map_err(|e| broken(&e))?.map_err(unreceived)
}

/// Hands a body on to its end, and gives what came of it.
pub(super) async fn drive<T, E>(
    receipt: Receipt<T, E>,
    pieces: impl Stream<Item = io::Result<axum::body::Bytes>> + Send,
) -> Result<Result<T, E>, tokio::task::JoinError> {
    // Where it ends early, also while the sender pauses, the reason is its result.
    if receipt.welcome.await.is_ok() {
        tokio::select! {
            biased;
            () = receipt.pieces.closed() => {}
            () = hand_over(pieces, &receipt.pieces) => {}
        }
    }
    receipt.ended.await
}

/// Hands a body on to its end.
async fn hand_over(
    pieces: impl Stream<Item = io::Result<axum::body::Bytes>> + Send,
    to: &mpsc::Sender<Piece>,
) {
    let mut pieces = std::pin::pin!(pieces);
    loop {
        let piece = match pieces.next().await {
            Some(Ok(bytes)) => Piece::Bytes(bytes),
            Some(Err(cause)) => Piece::Broken(cause),
            None => Piece::End,
        };
        let last = !matches!(piece, Piece::Bytes(_));
        if to.send(piece).await.is_err() || last {
            return;
        }
    }
}

pub(super) fn body(body: Body) -> impl Stream<Item = io::Result<axum::body::Bytes>> + Send {
    body.into_data_stream().map_err(|cause| io::Error::other(cause.to_string()))
}

/// Names that are separated by commas, which no member's name has.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn is_form(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.trim_start().get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM))
}

const FORM: &str = "multipart/form-data";

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn file_name(name: &str) -> Result<FileName, Problem> {
    FileName::normalised(name).map_err(|error| {
        let detail = if name.is_empty() {
            "the file has no name".to_owned()
        } else {
            format!("the name {name:?} cannot be shared: {error}")
        };
        Problem::new(StatusCode::BAD_REQUEST, "bad-name", detail, "give another one as name= in the query")
    })
}

pub(super) fn unreceived(error: ReceiveError) -> Problem {
    let text = error.to_string();
    match &error {
        ReceiveError::Busy => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            text.as_str(),
            "try again when one has ended",
        ),
        ReceiveError::Unnoted(_) => {
            let detail = text.rsplit_once("; ").map_or(text.as_str(), |(detail, _)| detail);
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "library-unavailable",
                detail,
                "check the disk of the data folder",
            )
        }
        ReceiveError::Add(error) => unadded(error),
    }
}

/// Why a content is not sealed or put into the library.
pub(super) fn unadded(error: &AddError) -> Problem {
    let text = error.to_string();
    let (detail, next_step) = text.rsplit_once("; ").unwrap_or((&text, "see the node's log, and try again"));
    let problem = |status, code, next_step: &str| Problem::new(status, code, detail, next_step);
    match error {
        AddError::Library(LibraryError::Taken { .. } | LibraryError::Twin { .. }) => {
            problem(StatusCode::CONFLICT, "name-taken", "give another name as name= in the query")
        }
        AddError::Library(LibraryError::DiskFull { .. }) => disk_full(detail.to_owned()),
        AddError::Write { cause, .. } | AddError::Library(LibraryError::Disk { source: cause, .. })
            if cause.kind() == io::ErrorKind::StorageFull =>
        {
            disk_full(detail.to_owned())
        }
        AddError::TooLarge { .. } => problem(StatusCode::PAYLOAD_TOO_LARGE, "too-large", next_step),
        AddError::Upload { .. } => problem(StatusCode::BAD_REQUEST, "broken-off", next_step),
        AddError::Source(_) | AddError::Library(_) | AddError::Write { .. } => {
            problem(StatusCode::SERVICE_UNAVAILABLE, "library-unavailable", next_step)
        }
    }
}

fn disk_full(detail: String) -> Problem {
    Problem::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "disk-full",
        detail,
        "make room on the disk of the data folder, and try again",
    )
}

fn unnoted() -> Problem {
    Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR, "")
}
