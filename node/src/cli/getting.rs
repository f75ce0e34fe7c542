//! `quarta get`: fetches files, and copies them to where the person wants them.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use indicatif::ProgressBar;
use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output, size},
    client::{Client, Target},
};
use serde_json::json;

use super::{
    transfers::{percent, rounded, senders},
    usage,
};
use crate::api::model::{FetchEvent, Transfer};

pub(super) async fn get(
    common: &Common,
    output: &mut Output,
    files: Vec<String>,
    to: Option<PathBuf>,
) -> Result<ExitCode, Failure> {
    let several = files.len() > 1;
    if let Some(to) = to.as_deref().filter(|to| several && !to.is_dir()) {
        return Err(usage(
            &format!("cannot put several files at {}", to.display()),
            "give -o an existing folder",
        ));
    }
    let client = common.client(Role::Node)?;
    let (mut done, mut last_failure) = (0u32, None);
    for file in files {
        match get_one(common, &client, &file, to.as_deref()).await {
            Ok(transfer) => {
                done += 1;
                let line = format!(
                    "{}  {}  {}/s from {}",
                    transfer.path.as_deref().unwrap_or_default(),
                    size(transfer.size_bytes),
                    size(rounded(transfer.bytes_per_second)),
                    senders(&transfer),
                );
                output.line(&transfer, &line)?;
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

async fn get_one(
    common: &Common,
    client: &Client,
    file: &str,
    to: Option<&Path>,
) -> Result<Transfer, Failure> {
    let what = || format!("cannot get {file}");
    let target = Target::new("/api/v1/files").segment(file).segment("fetch");
    let mut events = client.post_lines::<FetchEvent>(target, &json!({})).await.during(what())?;
    let mut bar: Option<ProgressBar> = None;
    let mut resumed = false;
    while let Some(event) = events.next().await {
        let event = event.during(what())?;
        if let FetchEvent::Progress(transfer) | FetchEvent::Done(transfer) = &event
            && transfer.resumed_bytes > 0
            && !std::mem::replace(&mut resumed, true)
            && !common.json
        {
            let at = percent(transfer.resumed_bytes, transfer.size_bytes);
            cli::note(&format!("resuming {} at {at}", transfer.name));
        }
        match event {
            FetchEvent::Progress(transfer) => {
                let bar = bar
                    .get_or_insert_with(|| cli::progress(common.json, &transfer.name, transfer.size_bytes));
                bar.set_length(transfer.size_bytes);
                bar.set_position(transfer.done_bytes);
            }
            FetchEvent::Done(mut transfer) => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                if let Some(notice) = transfer.notice.as_deref().filter(|_| !common.json) {
                    cli::note(&format!("{}: {notice}", transfer.name));
                }
                if let Some(to) = to {
                    let copied = export(&transfer, to).await?;
                    transfer.path = Some(copied.display().to_string());
                }
                return Ok(transfer);
            }
            FetchEvent::Failed { why, next_step, .. } => {
                if let Some(bar) = bar {
                    bar.abandon();
                }
                return Err(Failure::new(what(), why, next_step));
            }
        }
    }
    Err(Failure::new(
        what(),
        "the daemon ended the transfer without a result",
        "see the daemon's log and try again",
    ))
}

/// Copies a fetched file to where the person asked for it, whole or not at all.
async fn export(transfer: &Transfer, to: &Path) -> Result<PathBuf, Failure> {
    let from = PathBuf::from(transfer.path.as_deref().unwrap_or_default());
    copied_to(&from, &transfer.name, to).await
}

/// Copies a file of the library to a path, or into a folder under the last part of its name; whole or not at all.
pub(super) async fn copied_to(from: &Path, name: &str, to: &Path) -> Result<PathBuf, Failure> {
    let leaf = name.rsplit('/').next().unwrap_or_default();
    let to = if to.is_dir() { to.join(leaf) } else { to.to_owned() };
    let (source, to_move) = (from.to_owned(), to.clone());
    let copied = tokio::task::spawn_blocking(move || {
        let folder = to_move.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut source = std::fs::File::open(&source)?;
        let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
        std::io::copy(&mut source, temporary.as_file_mut())?;
        temporary.as_file().sync_all()?;
        // A temporary file is private; what a person asked for gets the usual mode.
        temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        temporary.persist(&to_move).map_err(|e| e.error)?;
        Ok::<(), std::io::Error>(())
    })
    .await;
    match copied {
        Ok(Ok(())) => Ok(to),
        Ok(Err(cause)) => Err(Failure::new(
            format!("cannot copy the file to {}", to.display()),
            cause.to_string(),
            format!("it is in the library: {}", from.display()),
        )),
        Err(cause) => {
            Err(Failure::new("cannot copy the file", cause.to_string(), "please report this as a bug"))
        }
    }
}
