//! The command line of `quarta`: arguments in, lines and exit codes out.
//!
//! `join` and `serve` work on the data folder; every other command asks the running daemon over its socket.

use std::{
    cell::Cell,
    ffi::OsString,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use clap::{CommandFactory, Parser, Subcommand};
use futures::StreamExt;
use indicatif::ProgressBar;
use libp2p::Multiaddr;
use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output, size},
    client::{Client, Target},
    log::LogArgs,
};
use quarta_protocols::names::MemberName;
use serde_json::json;

use crate::{
    api::model::{
        AddEvent, AddRequest, Defect, FetchEvent, File, FilePage, Member, MemberPage, Status, Transfer,
        TransferPage, TransferState, VerifyEvent, VerifyRequest,
    },
    service, setup,
};

/// Quarta: share files directly between an organisation's branches.
#[derive(Debug, Parser)]
#[command(name = "quarta", version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a network with an invite
    Join {
        /// The invite; `-` reads it from standard input, a path from that file
        invite: String,
        /// This branch's name, e.g. filial-recife
        #[arg(long, value_parser = cli::member_name)]
        name: MemberName,
        /// Listen for members here; may be given several times [default: TCP and QUIC on port 7481]
        #[arg(long, value_name = "MULTIADDR")]
        listen: Vec<Multiaddr>,
        /// Members reach this machine under this address, e.g. behind a port forwarding
        #[arg(long, value_name = "MULTIADDR")]
        external: Vec<Multiaddr>,
        /// Serve the HTTP API here
        #[arg(long, value_name = "ADDR", default_value = crate::settings::DEFAULT_HTTP)]
        http: SocketAddr,
    },
    /// Run this branch's node until it is stopped
    Serve {
        /// Serve the HTTP API here instead of at the configured address
        #[arg(long, value_name = "ADDR")]
        http: Option<SocketAddr>,
        /// All uploads together send at most this much a second, e.g. 10MiB
        #[arg(long, value_parser = rate, value_name = "BYTES")]
        upload_limit: Option<u64>,
        /// Where this branch has not joined yet: serve the HTTP API, and join when it is told of an invite there
        #[arg(long)]
        await_invite: bool,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Show how this node is: healthy or not, and why
    Status,
    /// Share files and folders with the network
    Add {
        /// Files and folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Share under this name; a folder's files under this folder
        #[arg(long)]
        name: Option<String>,
        /// Share where it lies instead of copying it into the library
        #[arg(long)]
        in_place: bool,
    },
    /// List the network's files
    Ls {
        /// Letters that occur in the name
        query: Option<String>,
    },
    /// Show a file: FILE is an id, the beginning of one, a full name, or owner:name
    Info {
        /// The file
        file: String,
    },
    /// Fetch files
    Get {
        /// The files
        #[arg(required = true)]
        files: Vec<String>,
        /// Also copy the file here; a folder where several are fetched
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// List the members and how they are
    Members,
    /// Print a link that lets a browser in, once
    Browse,
    /// Check copies on this machine against what was shared
    Verify {
        /// The files; all copies where none is named
        files: Vec<String>,
    },
    /// List this node's fetches, the latest first, or pause, resume and cancel them
    Transfers {
        #[command(subcommand)]
        steer: Option<Steer>,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// What is done with transfers. TRANSFER is a number as `quarta transfers` shows it, or a FILE.
#[derive(Debug, Clone, Subcommand)]
enum Steer {
    /// Stop transfers until they are resumed; they keep what has arrived
    Pause {
        /// Numbers or files
        #[arg(required = true, value_name = "TRANSFER")]
        transfers: Vec<String>,
    },
    /// Go on with transfers that are paused or failed
    Resume {
        /// Numbers or files
        #[arg(required = true, value_name = "TRANSFER")]
        transfers: Vec<String>,
    },
    /// End transfers for good and remove what has arrived
    Cancel {
        /// Numbers or files
        #[arg(required = true, value_name = "TRANSFER")]
        transfers: Vec<String>,
    },
}

/// Runs the command line with the given arguments, the first of which is the program's name.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> std::process::ExitCode {
    match cli::parse_from::<Args>(args) {
        Ok(args) => cli::run(args.common.json, run(args)),
        Err(code) => code.into(),
    }
}

async fn run(args: Args) -> Result<ExitCode, Failure> {
    let common = args.common;
    let mut output = Output::stdout(common.json);
    match args.command {
        Command::Join { invite, name, listen, external, http } => {
            let reach = setup::Reach { listen, external, http };
            let joined = setup::join(common.data_path()?, &invite, &name, reach).await?;
            output.line(&joined, &joined.text())?;
        }
        Command::Serve { http, upload_limit, await_invite, log } => {
            let overrides =
                service::Overrides { http, upload_limit_bytes_per_second: upload_limit, await_invite };
            service::run(common.data_path()?, overrides, &log).await?;
        }
        Command::Status => {
            let status: Status =
                common.client(Role::Node)?.get("/api/v1/status").await.during("cannot tell the status")?;
            if !common.json {
                cli::health(&status.problems).iter().try_for_each(|line| output.line(&status, line))?;
            }
            output.fields(&status, &status_fields(&status))?;
            if !status.healthy {
                return Ok(ExitCode::Failure);
            }
        }
        Command::Add { paths, name, in_place } => {
            return add(&common, &mut output, paths, name, in_place).await;
        }
        Command::Ls { query } => list(&common, &mut output, &query.unwrap_or_default()).await?,
        Command::Info { file } => {
            let target = Target::new("/api/v1/files").segment(&file);
            let found: File =
                common.client(Role::Node)?.get(target).await.during(format!("cannot show {file}"))?;
            output.fields(&found, &file_fields(&found))?;
        }
        Command::Get { files, output: to } => return get(&common, &mut output, files, to).await,
        Command::Members => {
            let stale = Cell::new(false);
            let members: Vec<Member> = common
                .client(Role::Node)?
                .get_all("/api/v1/members", |page: MemberPage| {
                    stale.set(stale.get() || page.stale);
                    (page.members, page.next)
                })
                .await
                .during("cannot list the members")?;
            warn_of(stale.get(), &common);
            output.members(&members)?;
        }
        Command::Transfers { steer: Some(steer) } => return self::steer(&common, &mut output, steer).await,
        Command::Transfers { steer: None } => {
            let transfers: Vec<Transfer> = common
                .client(Role::Node)?
                .get_all("/api/v1/transfers", |page: TransferPage| (page.transfers, page.next))
                .await
                .during("cannot list the transfers")?;
            output.table(
                &["NO", "FILE", "OWNER", "STATE", "DONE", "OF", "SIZE", "RATE", "FROM"],
                &transfers,
                transfer_row,
            )?;
        }
        Command::Browse => cli::browse(&common.client(Role::Node)?, &mut output).await?,
        Command::Verify { files } => return verify(&common, &mut output, files).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "quarta", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::Success)
}

async fn add(
    common: &Common,
    output: &mut Output,
    paths: Vec<PathBuf>,
    name: Option<String>,
    in_place: bool,
) -> Result<ExitCode, Failure> {
    if name.is_some() && paths.len() > 1 {
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
    let request = AddRequest { paths: absolute, name, in_place };
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

/// Tells each copy that is not sound as a failure, and every one with `--json`.
async fn verify(common: &Common, output: &mut Output, files: Vec<String>) -> Result<ExitCode, Failure> {
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

fn clear(bar: &mut Option<(String, ProgressBar)>) {
    if let Some((_, bar)) = bar.take() {
        bar.finish_and_clear();
    }
}

/// Says that a list is what this node has heard of.
fn warn_of(stale: bool, common: &Common) {
    if stale {
        let next = "run `quarta status` to see which super-peers are reachable";
        Failure::new("this list may be out of date", "no super-peer answers", next).report(common.json);
    }
}

async fn list(common: &Common, output: &mut Output, query: &str) -> Result<(), Failure> {
    let target = Target::new("/api/v1/files").query("query", query);
    let stale = Cell::new(false);
    let files = common
        .client(Role::Node)?
        .get_all(target, |page: FilePage| {
            stale.set(stale.get() || page.stale);
            (page.files, page.next)
        })
        .await
        .during("cannot list the files")?;
    warn_of(stale.get(), common);
    output.table(&["NAME", "OWNER", "SIZE", "HOLDERS", "HERE", "ID"], &files, |f| {
        vec![
            f.name.clone(),
            f.owner.clone(),
            size(f.size_bytes),
            f.holders.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            match (&f.path, f.defect) {
                (Some(_), Some(defect)) => defect.as_str().to_owned(),
                (Some(_), None) => "yes".to_owned(),
                (None, _) => "no".to_owned(),
            },
            f.id.chars().take(12).collect(),
        ]
    })
}

async fn get(
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

async fn steer(common: &Common, output: &mut Output, steer: Steer) -> Result<ExitCode, Failure> {
    let (transfers, word) = match &steer {
        Steer::Pause { transfers } => (transfers, "pause"),
        Steer::Resume { transfers } => (transfers, "resume"),
        Steer::Cancel { transfers } => (transfers, "cancel"),
    };
    let client = common.client(Role::Node)?;
    let (mut done, mut last_failure) = (0u32, None);
    for reference in transfers {
        let target = Target::new("/api/v1/transfers").segment(reference);
        let answer: Result<Transfer, _> = match &steer {
            Steer::Pause { .. } | Steer::Resume { .. } => client.post(target.segment(word), &json!({})).await,
            Steer::Cancel { .. } => client.delete(target).await,
        };
        match answer.during(format!("cannot {word} {reference}")) {
            Ok(transfer) => {
                done += 1;
                let at = percent(transfer.done_bytes, transfer.size_bytes);
                let line = format!("{}  {}  {}  {at}", transfer.id, transfer.name, standing(&transfer));
                output.line(&transfer, &line)?;
            }
            Err(failure) if transfers.len() > 1 => last_failure = Some(failure.report(common.json)),
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
                bar.set_position(transfer.done_bytes);
            }
            FetchEvent::Done(mut transfer) => {
                if let Some(bar) = bar {
                    bar.finish_and_clear();
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
    let leaf = transfer.name.rsplit('/').next().unwrap_or_default();
    let to = if to.is_dir() { to.join(leaf) } else { to.to_owned() };
    let to_move = to.clone();
    let copied = tokio::task::spawn_blocking(move || {
        let folder = to_move.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut source = std::fs::File::open(&from)?;
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
            format!("it is in the library: {}", transfer.path.as_deref().unwrap_or_default()),
        )),
        Err(cause) => {
            Err(Failure::new("cannot copy the file", cause.to_string(), "please report this as a bug"))
        }
    }
}

fn senders(transfer: &Transfer) -> String {
    let senders: Vec<String> = transfer
        .sources
        .iter()
        .filter(|source| source.bytes > 0)
        .map(|source| format!("{} ({})", source.name, source.transport.as_deref().unwrap_or("?")))
        .collect();
    if senders.is_empty() { "here".to_owned() } else { senders.join(", ") }
}

fn transfer_row(transfer: &Transfer) -> Vec<String> {
    vec![
        transfer.id.to_string(),
        transfer.name.clone(),
        transfer.owner.clone(),
        standing(transfer),
        size(transfer.done_bytes),
        percent(transfer.done_bytes, transfer.size_bytes),
        size(transfer.size_bytes),
        format!("{}/s", size(rounded(transfer.bytes_per_second))),
        senders(transfer),
    ]
}

/// How a transfer stands, and why where that asks for it.
fn standing(transfer: &Transfer) -> String {
    let state = format!("{:?}", transfer.state).to_lowercase();
    match &transfer.error {
        Some(error) if matches!(transfer.state, TransferState::Failed | TransferState::Waiting) => {
            format!("{state}: {error}")
        }
        _ => state,
    }
}

/// How much of something is done, rounded down: 100 % is all of it.
fn percent(done: u64, all: u64) -> String {
    let percent = u128::from(done) * 100 / u128::from(all.max(1));
    format!("{} %", if all == 0 { 100 } else { percent })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not negative, and `as` saturates"
)]
fn rounded(rate: f64) -> u64 {
    rate.round() as u64
}

fn file_fields(file: &File) -> Vec<(&'static str, String)> {
    vec![
        ("Name", file.name.clone()),
        ("Owner", format!("{} ({})", file.owner, file.owner_id)),
        ("Size", format!("{} ({} bytes)", size(file.size_bytes), file.size_bytes)),
        ("SHA-256", file.sha256.clone().unwrap_or_else(|| "-".to_owned())),
        ("Type", file.media_type.clone().unwrap_or_else(|| "-".to_owned())),
        ("Id", file.id.clone()),
        ("Revision", file.revision.to_string()),
        (
            "Holders",
            file.holders.map_or_else(|| "unknown: no super-peer answers".to_owned(), |n| n.to_string()),
        ),
        (
            "Here",
            match (&file.path, file.defect) {
                (Some(path), Some(defect)) => format!(
                    "{path}, which is {} and offered to nobody; put the right file back and run `quarta verify`, or \
                     fetch it with `quarta get`",
                    defect.as_str()
                ),
                (Some(path), None) => path.clone(),
                (None, _) => "no; fetch it with `quarta get`".to_owned(),
            },
        ),
    ]
}

fn status_fields(status: &Status) -> Vec<(&'static str, String)> {
    let superpeers = status
        .superpeers
        .iter()
        .map(|s| {
            let state = match (s.connected, s.registered) {
                (true, true) => "connected",
                (true, false) => "connected, registering",
                (false, _) => "not reachable",
            };
            format!("{} ({state})", s.name)
        })
        .collect::<Vec<_>>()
        .join(", ");
    vec![
        ("Branch", format!("{} ({})", status.name, status.peer_id)),
        ("Network", status.network.clone()),
        ("Super-peers", superpeers),
        ("Library", format!("{} files, {}", status.files, size(status.stored_bytes))),
        ("Free", size(status.free_bytes)),
        ("Uploads", status.active_uploads.to_string()),
        ("Downloads", status.active_downloads.to_string()),
        ("Listens", status.listen.join(" ")),
        ("Version", status.version.clone()),
    ]
}

fn usage(what: &str, next: &str) -> Failure {
    Failure::new(what, "", next).code(ExitCode::Usage)
}

fn rate(text: &str) -> Result<u64, String> {
    let bytes = text
        .parse::<bytesize::ByteSize>()
        .map_err(|_| "expected a size such as 10MiB or 500kB".to_owned())?;
    if bytes.0 == 0 { Err("a limit of 0 would stop all uploads".to_owned()) } else { Ok(bytes.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn what_is_done_is_rounded_down_so_that_all_of_it_is_all() {
        let shown = [(0, 0), (0, 7), (71, 100), (999, 1000), (7, 7)].map(|(done, all)| percent(done, all));
        assert_eq!(shown, ["100 %", "0 %", "71 %", "99 %", "100 %"]);
    }

    #[test]
    fn a_rate_is_a_size_and_not_nothing() {
        assert_eq!(rate("10MiB"), Ok(10 << 20));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}
