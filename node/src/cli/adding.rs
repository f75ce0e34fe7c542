//! `quarta add`: what became of each path, and progress meanwhile.

use std::path::{Path, PathBuf};

use futures::StreamExt;
use indicatif::ProgressBar;
use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output, size},
};
use serde_json::json;

use super::usage;
use crate::api::model::{AddEvent, AddRequest};

pub(super) async fn add(
    common: &Common,
    output: &mut Output,
    paths: Vec<PathBuf>,
    request: AddRequest,
) -> Result<ExitCode, Failure> {
    if request.name.is_some() && paths.len() > 1 {
        return Err(usage("cannot share several paths under one name", "add them one by one"));
    }
    let (mut added, mut failed) = (0u32, 0u32);
    let mut absolute = Vec::with_capacity(paths.len());
    for path in paths {
        let shown = path.display().to_string();
        let text = std::path::absolute(&path).map_err(|e| e.to_string()).and_then(|path| {
            path.into_os_string().into_string().map_err(|_| "its path is not valid UTF-8".to_owned())
        });
        match text {
            Ok(text) => absolute.push(text),
            Err(why) => {
                failed += 1;
                let next = "rename it, or add it from a folder whose path is plain text";
                Failure::new(format!("cannot add {shown}"), why, next).report(common.json);
            }
        }
    }
    if absolute.is_empty() {
        return Ok(ExitCode::Failure);
    }
    let request = AddRequest { paths: absolute, ..request };
    let mut events = common
        .client(Role::Node)?
        .post_lines::<AddEvent>("/api/v1/local/add", &request)
        .await
        .during("cannot add files")?;
    let mut bar: Option<(String, ProgressBar)> = None;
    while let Some(event) = events.next().await {
        match event.during("cannot add files")? {
            AddEvent::Progress { path, done_bytes, size_bytes } => {
                if bar.as_ref().is_none_or(|(shown, _)| *shown != path) {
                    let label =
                        Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
                    bar = Some((path, cli::progress(common.json, &label, size_bytes)));
                }
                if let Some((_, bar)) = &bar {
                    bar.set_position(done_bytes);
                }
            }
            AddEvent::Added { path, file } => {
                clear(&mut bar);
                added += 1;
                let line = format!(
                    "{}  {}  {}",
                    file.id.chars().take(12).collect::<String>(),
                    file.name,
                    size(file.size_bytes)
                );
                output.line(&json!({"path": path, "file": file}), &line)?;
            }
            AddEvent::Failed { path, why, next_step } => {
                clear(&mut bar);
                failed += 1;
                Failure::new(format!("cannot add {path}"), why, next_step).report(common.json);
            }
        }
    }
    match (added, failed) {
        (_, 0) => Ok(ExitCode::Success),
        (0, _) => Ok(ExitCode::Failure),
        _ => Ok(ExitCode::PartlyDone),
    }
}

fn clear(bar: &mut Option<(String, ProgressBar)>) {
    if let Some((_, bar)) = bar.take() {
        bar.finish_and_clear();
    }
}
