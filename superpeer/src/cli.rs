//! The command line of `quarta-superpeer`: arguments in, lines and exit codes out.
//!
//! `init`, `join` and `serve` work on the data folder; every other command asks the running daemon over its socket.

mod assigning;
mod log;
mod membership;

use std::{ffi::OsString, fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{CommandFactory, Parser, Subcommand};
use libp2p::Multiaddr;
use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output, size},
    client::Target,
    log::LogArgs,
};
use quarta_protocols::names::MemberName;

use crate::{
    api::model::{FilePage, HeldPage, Invite, InviteRequest, Member, MemberPage, Replication, Status},
    root_key, service,
    settings::GRACE_SECONDS,
    setup,
};

/// Shortest and longest interval between polls.
const POLL_INTERVAL_MS: std::ops::RangeInclusive<u128> = 250..=600_000;
/// Longest time an invite may be open: a forgotten one must not admit somebody next year.
const INVITE_MAX: Duration = Duration::from_hours(30 * 24);

/// Quarta's super-peer: keeps the index and the health of an organisation's network.
#[derive(Debug, Parser)]
#[command(name = "quarta-superpeer", version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a network with its first super-peer
    Init {
        /// This super-peer's name, e.g. sp1
        #[arg(long, value_parser = cli::member_name)]
        name: MemberName,
        #[command(flatten)]
        reach: Reach,
    },
    /// Join an existing network as a further super-peer
    Join {
        /// The invite; `-` reads it from standard input, a path from that file
        invite: String,
        /// This super-peer's name, e.g. sp2
        #[arg(long, value_parser = cli::member_name)]
        name: MemberName,
        #[command(flatten)]
        reach: Reach,
    },
    /// Run the super-peer until it is stopped
    Serve {
        /// How often to poll every node's list, e.g. 15s (250ms to 10m)
        #[arg(long, value_parser = poll_interval, value_name = "TIME")]
        poll_interval: Option<Duration>,
        /// How long a node may be away before its copies are made anew, e.g. 15m (1s to 7 days)
        #[arg(long, value_parser = repair_after, value_name = "TIME")]
        repair_after: Option<Duration>,
        /// Keep at most so many copies of a file, its owner's included; 1 for no replicas
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
        max_copies: Option<u32>,
        /// Serve the HTTP API here instead of at the configured address
        #[arg(long, value_name = "ADDR")]
        http: Option<SocketAddr>,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Issue an invite with which machines can join
    Invite {
        /// What the machine will be
        #[arg(long, default_value = "node", value_parser = ["node", "superpeer"])]
        role: String,
        /// How many machines may join with it
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        uses: u32,
        /// For how long, e.g. 24h (at most 30d)
        #[arg(long, default_value = "24h", value_parser = invite_lifetime, value_name = "TIME")]
        expires: Duration,
        /// The machine takes the name of this member, which has left or was revoked
        #[arg(long, value_parser = cli::member_name, value_name = "NAME", conflicts_with = "uses")]
        replaces: Option<MemberName>,
    },
    /// List the invites issued here, or withdraw one
    Invites {
        #[command(subcommand)]
        command: Option<membership::Invites>,
    },
    /// Approve a super-peer that waits for the root key, or list those that do
    Approve {
        /// The name under which it waits
        #[arg(value_parser = cli::member_name)]
        name: Option<MemberName>,
        /// Sign with the root key in this file; needed where it does not lie in the data folder
        #[arg(long, value_name = "FILE", requires = "name")]
        root_key: Option<PathBuf>,
    },
    /// Revoke a member for good, e.g. after its machine was stolen
    Revoke {
        /// Its name, its peer id, or the beginning of that
        member: String,
        /// Sign with the root key in this file; needed for a super-peer where the key does not lie in the data folder
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Give a file whose owner is gone to another branch
    Assign {
        /// The file: an id, the beginning of one, a full name, or owner:name
        file: String,
        /// The next owner: its name, its peer id, or the beginning of that
        member: String,
        /// Sign with the root key in this file; needed where it does not lie in the data folder
        #[arg(long, value_name = "FILE")]
        root_key: Option<PathBuf>,
    },
    /// Keep the network's root key
    Root {
        #[command(subcommand)]
        command: Root,
    },
    /// Show who did what when
    Log(log::Wanted),
    /// List the members and how they are
    Members,
    /// List the files of the network, or what one member holds
    Files {
        /// Letters that occur in the name
        query: Option<String>,
        /// The list that this member was polled for
        #[arg(long, value_name = "MEMBER", conflicts_with = "query")]
        holder: Option<String>,
    },
    /// Show how this super-peer is
    Status,
    /// Print a link that lets a browser in, once
    Browse,
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// What is done with the root key.
#[derive(Debug, Subcommand)]
enum Root {
    /// Move the root key out of the data folder of a super-peer that does not run
    Export {
        /// The file that will hold it, on a disk that is kept offline
        file: PathBuf,
    },
}

/// Where a super-peer is reached.
#[derive(Debug, clap::Args)]
struct Reach {
    /// Listen for members here; may be given several times [default: TCP and QUIC on port 7491]
    #[arg(long, value_name = "MULTIADDR")]
    listen: Vec<Multiaddr>,
    /// Members reach this machine under this address, e.g. behind a port forwarding
    #[arg(long, value_name = "MULTIADDR")]
    external: Vec<Multiaddr>,
    /// Serve the HTTP API here
    #[arg(long, value_name = "ADDR", default_value = crate::settings::DEFAULT_HTTP)]
    http: SocketAddr,
}

impl From<Reach> for setup::Reach {
    fn from(reach: Reach) -> Self {
        Self { listen: reach.listen, external: reach.external, http: reach.http }
    }
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
        Command::Init { name, reach } => {
            let made = setup::init(common.data_path()?, &name, reach.into())?;
            output.line(&made, &made.text("The network is ready"))?;
        }
        Command::Join { invite, name, reach } => {
            let made = setup::join(common.data_path()?, &invite, &name, reach.into()).await?;
            output.line(&made, &made.text("This super-peer is a member"))?;
        }
        Command::Serve { poll_interval, repair_after, max_copies, http, log } => {
            let overrides = service::Overrides { poll_interval, http, repair_after, max_copies };
            service::run(common.data_path()?, overrides, &log).await?;
        }
        Command::Invite { role, uses, expires, replaces } => {
            let replaces = replaces.map(|name| name.to_string());
            let request = InviteRequest { role, uses, expires_in_seconds: expires.as_secs(), replaces };
            let invite: Invite = common
                .client(Role::Superpeer)?
                .post("/api/v1/invites", &request)
                .await
                .during("cannot issue an invite")?;
            output.line(&invite, &invite.invite)?;
            if invite.awaits_approval && !common.json {
                cli::note(
                    "the machine waits until you run `quarta-superpeer approve` here with the root key",
                );
            }
        }
        Command::Invites { command } => membership::invites(&common, &mut output, command).await?,
        Command::Approve { name, root_key } => {
            membership::approve(&common, &mut output, name, root_key).await?;
        }
        Command::Revoke { member, root_key } => {
            membership::revoke(&common, &mut output, &member, root_key).await?;
        }
        Command::Assign { file, member, root_key } => {
            return assigning::assign(&common, &mut output, &file, &member, root_key).await;
        }
        Command::Root { command: Root::Export { file } } => {
            let network = root_key::export(common.data_path()?, &file)?;
            let text = format!(
                "the root key is in {} and no more in the data folder; keep that file offline, and a copy of it",
                file.display()
            );
            output.line(
                &serde_json::json!({ "network": network, "file": file.display().to_string() }),
                &text,
            )?;
        }
        Command::Log(wanted) => log::run(&common, &mut output, &wanted).await?,
        Command::Members => {
            let members: Vec<Member> = common
                .client(Role::Superpeer)?
                .get_all("/api/v1/members", |page: MemberPage| (page.members, page.next))
                .await
                .during("cannot list the members")?;
            output.members(&members)?;
        }
        Command::Files { holder: Some(holder), .. } => held_files(&common, &mut output, &holder).await?,
        Command::Files { query, .. } => {
            catalog_files(&common, &mut output, &query.unwrap_or_default()).await?;
        }
        Command::Status => {
            let status: Status = common
                .client(Role::Superpeer)?
                .get("/api/v1/status")
                .await
                .during("cannot tell the status")?;
            if !common.json {
                cli::health(&status.problems).iter().try_for_each(|line| output.line(&status, line))?;
            }
            output.fields(&status, &status_fields(&status))?;
            if !status.healthy {
                return Ok(ExitCode::Failure);
            }
        }
        Command::Browse => cli::browse(&common.client(Role::Superpeer)?, &mut output).await?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "quarta-superpeer", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::Success)
}

async fn held_files(common: &Common, output: &mut Output, holder: &str) -> Result<(), Failure> {
    let target = Target::new("/api/v1/members").segment(holder).segment("files");
    let entries = common
        .client(Role::Superpeer)?
        .get_all(target, |page: HeldPage| (page.entries, page.next))
        .await
        .during(format!("cannot list the files of {holder}"))?;
    output.table(&["NAME", "SIZE", "SHA-256", "HELD", "ID"], &entries, |e| {
        vec![
            e.name.clone().unwrap_or_else(|| "(sealed copy)".to_owned()),
            size(e.size_bytes),
            e.sha256.clone().unwrap_or_else(|| "-".to_owned()),
            if e.complete { "all".to_owned() } else { "in part".to_owned() },
            e.id.as_deref().unwrap_or(&e.content).chars().take(12).collect(),
        ]
    })
}

async fn catalog_files(common: &Common, output: &mut Output, query: &str) -> Result<(), Failure> {
    let target = Target::new("/api/v1/files").query("query", query);
    let files = common
        .client(Role::Superpeer)?
        .get_all(target, |page: FilePage| (page.files, page.next))
        .await
        .during("cannot list the files")?;
    output.table(&["NAME", "OWNER", "SIZE", "SHA-256", "HOLDERS", "ID"], &files, |f| {
        vec![
            f.name.clone(),
            if f.orphaned { format!("{} (gone)", f.owner) } else { f.owner.clone() },
            size(f.size_bytes),
            f.sha256.clone().unwrap_or_else(|| "restricted".to_owned()),
            f.holders.join(","),
            f.id.chars().take(12).collect(),
        ]
    })
}

fn status_fields(status: &Status) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("Super-peer", format!("{} ({})", status.name, status.peer_id)),
        ("Network", status.network.clone()),
        ("Nodes", format!("{} of {} online", status.nodes_online, status.nodes)),
        ("Super-peers", format!("{} of {} connected", status.superpeers_connected, status.superpeers)),
        ("Files", status.files.to_string()),
        ("Copies", copies(&status.replication)),
        ("Storage", storage(&status.replication)),
        ("Entries", status.index_entries.to_string()),
        ("Polls", format!("every {} ms", status.poll_interval_ms)),
        ("Listens", status.listen.join(" ")),
        ("Version", status.version.clone()),
    ];
    if status.holds_root_key {
        fields.push((
            "Root key",
            "lies on this machine: whoever controls the machine can admit anybody; take it offline with \
             `quarta-superpeer root export`"
                .to_owned(),
        ));
    }
    fields
}

/// How many files have their copies.
fn copies(bill: &Replication) -> String {
    let mut text = format!("{} of each file", bill.target);
    let lacking = [
        (bill.without_copy, "without any copy"),
        (bill.below_floor.saturating_sub(bill.without_copy), "below the floor"),
        (bill.below_target.saturating_sub(bill.below_floor), "below the target"),
        (bill.unseen, "not counted yet"),
    ];
    for (count, how) in lacking.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(text, ", {count} {how}");
    }
    if bill.under_way > 0 {
        let _ = write!(text, ", {} under way", bill.under_way);
    }
    match bill.held.as_deref() {
        Some("outage") => text.push_str("; repairs wait: over a third of the nodes vanished together"),
        Some(_) => text.push_str("; repairs wait for all lists after the start"),
        None => {}
    }
    text
}

/// What the network stores.
fn storage(bill: &Replication) -> String {
    format!(
        "{} for {} of files, {} when every file has its copies",
        size(bill.stored_bytes),
        size(bill.plain_bytes),
        size(bill.wanted_bytes)
    )
}

/// A moment for people, in UTC; `time_ms` is in milliseconds since 1970.
fn moment(time_ms: u64) -> String {
    i64::try_from(time_ms / 1000)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("{time_ms} ms"), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

fn time(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| "expected a time such as 15s, 24h or 2h30m".to_owned())?;
    Duration::try_from(span).map_err(|_| "a time cannot be negative".to_owned())
}

fn poll_interval(text: &str) -> Result<Duration, String> {
    let interval = time(text)?;
    if POLL_INTERVAL_MS.contains(&interval.as_millis()) {
        Ok(interval)
    } else {
        Err("nodes are polled every 250ms to 10m".to_owned())
    }
}

fn repair_after(text: &str) -> Result<Duration, String> {
    let grace = time(text)?;
    if GRACE_SECONDS.contains(&grace.as_secs()) {
        Ok(grace)
    } else {
        Err("a node may be away for 1s to 168h".to_owned())
    }
}

fn invite_lifetime(text: &str) -> Result<Duration, String> {
    // jiff's durations end at hours; people think of invites in days too.
    let lifetime = match text.strip_suffix('d').map(str::parse::<u64>) {
        Some(Ok(days)) => Duration::from_secs(days.saturating_mul(86_400)),
        _ => time(text)?,
    };
    if lifetime.is_zero() || lifetime > INVITE_MAX {
        return Err("an invite is open for 1s to 30d".to_owned());
    }
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_are_read_as_people_write_them_and_bounded() {
        assert_eq!(poll_interval("15s"), Ok(Duration::from_secs(15)));
        assert_eq!(poll_interval("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(invite_lifetime("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(invite_lifetime("7d"), Ok(Duration::from_hours(168)));
        for bad in ["", "soon", "-5s", "0s", "31d", "99999999999999999999d"] {
            assert!(invite_lifetime(bad).is_err(), "{bad}");
        }
        assert!(poll_interval("1ms").is_err() && poll_interval("1h").is_err());
    }
}
