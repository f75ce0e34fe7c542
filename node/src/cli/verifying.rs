//! `quarta verify`: which copies are what was shared.

use futures::StreamExt;
use indicatif::ProgressBar;
use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output},
};
use serde_json::json;

use crate::api::model::{Defect, VerifyEvent, VerifyRequest};

/// Tells each copy that is not sound as a failure, and every one with `--json`.
pub(super) async fn verify(
    common: &Common,
    output: &mut Output,
    files: Vec<String>,
) -> Result<ExitCode, Failure> {
    let what = "cannot verify the library";
    let mut events = common
        .client(Role::Node)?
        .post_lines::<VerifyEvent>("/api/v1/verify", &VerifyRequest { files })
        .await
        .during(what)?;
    let mut bar: Option<ProgressBar> = None;
    while let Some(event) = events.next().await {
        match event.during(what)? {
            VerifyEvent::Progress { done_bytes, size_bytes, .. } => {
                let bar = bar.get_or_insert_with(|| cli::progress(common.json, "verifying", size_bytes));
                bar.set_position(done_bytes);
            }
            VerifyEvent::Checked(checked) => {
                let state = checked.defect.map_or("ok", Defect::as_str);
                let why = if checked.why.is_empty() {
                    String::new()
                } else {
                    format!(": {}; {}", checked.why, checked.next_step)
                };
                let line = format!("{state:<10}  {}{why}", checked.path);
                let mut print = || output.line(&checked, &line);
                match &bar {
                    Some(bar) => bar.suspend(print)?,
                    None => print()?,
                }
            }
            VerifyEvent::Summary { sound, defective } => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
                }
                let line = match (sound, defective) {
                    (0, 0) => "there is no copy to verify".to_owned(),
                    (sound, 0) => format!("all {sound} copies are what was shared"),
                    (sound, defective) => {
                        format!("{defective} of {} copies are not what was shared", sound + defective)
                    }
                };
                output.line(&json!({"sound": sound, "defective": defective}), &line)?;
                return Ok(match (sound, defective) {
                    (_, 0) => ExitCode::Success,
                    (0, _) => ExitCode::Failure,
                    _ => ExitCode::PartlyDone,
                });
            }
            VerifyEvent::Failed { why, next_step } => return Err(Failure::new(what, why, next_step)),
        }
    }
    Err(Failure::new(what, "the daemon stopped before the end", "start it and run the command again"))
}
