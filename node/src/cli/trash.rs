//! `quarta trash`: what was replaced or deleted, and how to get it back.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use quarta_daemon::{
    Role,
    cli::{Common, During, ExitCode, Failure, Output, size},
    client::Target,
};

use super::{getting::copied_to, usage};
use crate::api::model::{Emptied, Restored, TrashEntry, TrashPage};

/// What to do with the trash.
#[derive(Debug, Subcommand)]
pub(super) enum Trash {
    /// List it, the latest first
    Ls,
    /// Put files back into the library folder, shared with nobody
    Restore {
        /// Their numbers
        #[arg(required = true, value_name = "NUMBER")]
        numbers: Vec<i64>,
        /// Put the file here instead; a folder where several are restored
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Remove files from it for good, all where none is named
    Empty {
        /// Their numbers
        #[arg(value_name = "NUMBER")]
        numbers: Vec<i64>,
    },
}

pub(super) async fn run(common: &Common, output: &mut Output, trash: Trash) -> Result<ExitCode, Failure> {
    match trash {
        Trash::Ls => list(common, output).await,
        Trash::Restore { numbers, output: to } => restore(common, output, numbers, to.as_deref()).await,
        Trash::Empty { numbers } => empty(common, output, numbers).await,
    }
}

async fn list(common: &Common, output: &mut Output) -> Result<ExitCode, Failure> {
    let entries = common
        .client(Role::Node)?
        .get_all("/api/v1/trash", |page: TrashPage| (page.entries, page.next))
        .await
        .during("cannot list the trash")?;
    output.table(
        &["NUMBER", "NAME", "OWNER", "SIZE", "REVISION", "WHY", "UNTIL"],
        &entries,
        |entry: &TrashEntry| {
            vec![
                entry.number.to_string(),
                entry.name.clone(),
                entry.owner.clone(),
                size(entry.size_bytes),
                entry.revision.to_string(),
                entry.reason.clone(),
                day(entry.until_ms),
            ]
        },
    )?;
    Ok(ExitCode::Success)
}

/// A moment as a day, by the clock of the whole world.
fn day(ms: u64) -> String {
    let millis = i64::try_from(ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis)
        .map_or_else(|_| "-".to_owned(), |moment| moment.strftime("%Y-%m-%d").to_string())
}

async fn restore(
    common: &Common,
    output: &mut Output,
    numbers: Vec<i64>,
    to: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let several = numbers.len() > 1;
    if let Some(to) = to.filter(|to| several && !to.is_dir()) {
        let what = format!("cannot put several files at {}", to.display());
        return Err(usage(&what, "give -o an existing folder"));
    }
    each(common, output, numbers, async |common, output, number| {
        let target = Target::new("/api/v1/trash").segment(&number.to_string()).segment("restore");
        let what = format!("cannot restore {number}");
        let mut restored: Restored =
            common.client(Role::Node)?.post(target, &serde_json::json!({})).await.during(what)?;
        if let Some(to) = to {
            let from = PathBuf::from(&restored.path);
            let copied = copied_to(&from, &restored.entry.name, to).await?;
            // It was put there for this only.
            if let Err(error) = std::fs::remove_file(&from) {
                let why = format!("{} cannot be removed: {error}", from.display());
                Failure::new("the file was restored twice", why, "remove it").report(common.json);
            }
            restored.path = copied.display().to_string();
        }
        output.line(&restored, &format!("{}  revision {}", restored.path, restored.entry.revision))
    })
    .await
}

async fn empty(common: &Common, output: &mut Output, numbers: Vec<i64>) -> Result<ExitCode, Failure> {
    if numbers.is_empty() {
        let what = "cannot empty the trash";
        let emptied: Emptied = common.client(Role::Node)?.delete("/api/v1/trash").await.during(what)?;
        output.line(&emptied, &format!("{} files were removed for good", emptied.files))?;
        return Ok(ExitCode::Success);
    }
    each(common, output, numbers, async |common, output, number| {
        let target = Target::new("/api/v1/trash").segment(&number.to_string());
        let what = format!("cannot remove {number}");
        let emptied: Emptied = common.client(Role::Node)?.delete(target).await.during(what)?;
        output.line(&emptied, &format!("{number} was removed for good"))
    })
    .await
}

/// Does something with each, also where it fails for others.
async fn each(
    common: &Common,
    output: &mut Output,
    numbers: Vec<i64>,
    mut act: impl AsyncFnMut(&Common, &mut Output, i64) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let several = numbers.len() > 1;
    let (mut done, mut last_failure) = (0u32, None);
    for number in numbers {
        match act(common, output, number).await {
            Ok(()) => done += 1,
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
