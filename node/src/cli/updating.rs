//! `quarta update` and `quarta rm`: changing own files.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use axum::http::Method;
use futures::{Stream, StreamExt, stream};
use indicatif::ProgressBar;
use quarta_daemon::{
    Role,
    cause::{self, Plain},
    cli::{self, Common, During, ExitCode, Failure, Output, size},
    client::{Client, Target},
};
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::api::model::{File, Removed, Status};

/// What is read of a file at a time, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Gives a file a new content: of the file at `path`, or its own as it lies on this machine now.
pub(super) async fn update(
    common: &Common,
    output: &mut Output,
    reference: &str,
    path: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let what = format!("cannot update {reference}");
    let client = common.client(Role::Node)?;
    let target = Target::new("/api/v1/files").segment(reference);
    let before: File = client.get(target.clone()).await.during(&*what)?;
    own(&client, &before, &what).await?;
    let target = Target::new("/api/v1/files").segment(&before.id);
    let here = path.as_deref().and_then(|path| path.canonicalize().ok());
    let lies = before.path.as_deref().and_then(|path| Path::new(path).canonicalize().ok());
    let after: File = match path {
        Some(path) if here.is_none() || here != lies => client
            .upload(Method::PUT, target, pieces(common.json, &what, &path).await?)
            .await
            .during(&*what)?,
        _ => client.post(target.segment("adopt"), &json!({})).await.during(&*what)?,
    };
    let line = if after.revision == before.revision {
        format!("{} has this content already, as revision {}", after.name, after.revision)
    } else {
        format!(
            "{}  {}  {}, revision {}",
            after.id.chars().take(12).collect::<String>(),
            after.name,
            size(after.size_bytes),
            after.revision
        )
    };
    output.line(&after, &line)?;
    Ok(ExitCode::Success)
}

/// Says that a file is another branch's before anything of it is sent. The daemon and every other member say so too.
async fn own(client: &Client, file: &File, what: &str) -> Result<(), Failure> {
    let status: Status = client.get("/api/v1/status").await.during(what)?;
    if status.peer_id == file.owner_id {
        return Ok(());
    }
    let why = format!("the file belongs to {}, and only its owner changes it", file.owner);
    let next = format!("ask {} to do it, or to hand the file over", file.owner);
    Err(Failure::new(what, why, next).code(ExitCode::NotPermitted))
}

/// The bytes of a file; they break off where it changes meanwhile.
async fn pieces(
    json: bool,
    what: &str,
    path: &Path,
) -> Result<impl Stream<Item = io::Result<axum::body::Bytes>> + Send + 'static, Failure> {
    let unreadable = |error: &io::Error| {
        Failure::new(
            what,
            format!("{} cannot be read: {}", path.display(), Plain(error)),
            cause::next_step(error),
        )
    };
    let file = tokio::fs::File::open(path).await.map_err(|e| unreadable(&e))?;
    let meta = file.metadata().await.map_err(|e| unreadable(&e))?;
    if !meta.is_file() {
        let why = format!("{} is no regular file", path.display());
        return Err(Failure::new(what, why, "name a regular file"));
    }
    let began = stamp(&meta);
    let bar: ProgressBar =
        cli::progress(json, &path.file_name().unwrap_or_default().to_string_lossy(), meta.len());
    let watched = file.try_clone().await.map_err(|e| unreadable(&e))?;
    let counted = ReaderStream::with_capacity(file, PIECE_BYTES).inspect(move |piece| match piece {
        Ok(bytes) => bar.inc(bytes.len() as u64),
        Err(_) => bar.abandon(),
    });
    let unchanged = stream::once(async move {
        match watched.metadata().await {
            Ok(now) if stamp(&now) == began => None,
            Ok(_) => Some(Err(io::Error::other("the file changed while it was read"))),
            Err(error) => Some(Err(error)),
        }
    });
    Ok(counted.chain(unchanged.filter_map(std::future::ready)).boxed())
}

fn stamp(meta: &std::fs::Metadata) -> (u64, Option<SystemTime>) {
    (meta.len(), meta.modified().ok())
}

/// Deletes files, everywhere and for ever.
pub(super) async fn remove(
    common: &Common,
    output: &mut Output,
    files: Vec<String>,
) -> Result<ExitCode, Failure> {
    let several = files.len() > 1;
    let client = common.client(Role::Node)?;
    let (mut done, mut last_failure) = (0u32, None);
    for file in files {
        let target = Target::new("/api/v1/files").segment(&file);
        match client.delete::<Removed>(target).await.during(format!("cannot delete {file}")) {
            Ok(removed) => {
                done += 1;
                let told = if removed.announced {
                    "deleted everywhere"
                } else {
                    "deleted here, and everywhere as soon as a super-peer answers"
                };
                output.line(&removed, &format!("{}  {told}", removed.name))?;
            }
            Err(failure) if several => last_failure = Some(failure.report(common.json)),
            Err(failure) => return Err(failure),
        }
    }
    Ok(match last_failure {
        None => ExitCode::Success,
        Some(code) if done == 0 => code,
        Some(_) => ExitCode::PartlyDone,
    })
}
