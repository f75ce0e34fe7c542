//! The command line of `quarta`: arguments in, lines and exit codes out.
//!
//! `join` and `serve` work on the data folder; every other command asks the running daemon over its socket.

mod adding;
mod blacklist;
mod files;
mod getting;
mod giving;
mod limits;
mod membership;
mod status;
mod transfers;
mod trash;
mod updating;
mod verifying;

use std::{cell::Cell, ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use libp2p::Multiaddr;
use quarta_daemon::{
    Role,
    cli::{self, Common, During, ExitCode, Failure, Output},
    log::LogArgs,
};
use quarta_protocols::names::MemberName;

use self::transfers::Steer;
use crate::{
    api::model::{AddRequest, Member, MemberPage},
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
        /// Ask any member at this address where the super-peer is that issued the invite, e.g. after it has moved
        #[arg(long, value_name = "MULTIADDR")]
        via: Option<Multiaddr>,
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
        /// Limit transfers with machines on the same local network too
        #[arg(long)]
        limit_lan: bool,
        /// Keep at most this much for other branches in the vault, e.g. 500GiB; 0 keeps nothing
        #[arg(long, value_parser = bytes, value_name = "BYTES")]
        vault_quota: Option<u64>,
        /// Where this branch has not joined yet: serve the HTTP API, and join when it is told of an invite there
        #[arg(long)]
        await_invite: bool,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Show how this node is: healthy or not, and why
    Status,
    /// Bring this branch back onto the network after `disconnect`
    Connect,
    /// Take this branch off the network until `connect`, also across restarts
    Disconnect,
    /// Leave the network for good, after others have taken this branch's files over; it cannot come back as what it was
    Leave {
        /// Yes, this branch is to leave for good
        #[arg(long)]
        yes: bool,
        /// Leave also where nobody takes some of this branch's files over
        #[arg(long)]
        abandon: bool,
    },
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
        /// Hide them from this member, from the first moment; may be given several times
        #[arg(long, value_name = "MEMBER", value_delimiter = ',')]
        hide_from: Vec<String>,
        /// Show them to this member and nobody else, also when others join later; may be given several times
        #[arg(long, value_name = "MEMBER", value_delimiter = ',', conflicts_with = "hide_from")]
        only: Vec<String>,
    },
    /// Hide files of this branch from members, and show who they are hidden from
    Blacklist {
        #[command(subcommand)]
        act: blacklist::Act,
    },
    /// Share a new content of an own file; FILE keeps its id and its name
    Update {
        /// The file
        file: String,
        /// The new content; left out, the file as it was edited where it lies
        path: Option<PathBuf>,
    },
    /// Delete own files, everywhere and for ever
    Rm {
        /// The files
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// See what was replaced or deleted, and get it back
    Trash {
        #[command(subcommand)]
        trash: trash::Trash,
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
    /// Give a file to another branch, which owns it from then on
    Give {
        /// The file
        file: String,
        /// The next owner's name
        member: String,
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
    /// Show what transfers may take of the line, or set it
    Limits {
        #[command(subcommand)]
        act: Option<limits::Act>,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
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
        Command::Join { invite, via, name, listen, external, http } => {
            let reach = setup::Reach { listen, external, http };
            let joined = setup::join(common.data_path()?, &invite, via.as_ref(), &name, reach).await?;
            output.line(&joined, &joined.text())?;
        }
        Command::Serve { http, upload_limit, limit_lan, vault_quota, await_invite, log } => {
            let overrides = service::Overrides {
                http,
                upload_limit_bytes_per_second: upload_limit,
                limit_lan,
                vault_quota_bytes: vault_quota,
                await_invite,
            };
            service::run(common.data_path()?, overrides, &log).await?;
        }
        Command::Status => return status::show(&common, &mut output).await,
        Command::Connect => return membership::connect(&common, &mut output).await,
        Command::Disconnect => return membership::disconnect(&common, &mut output).await,
        Command::Leave { yes, abandon } => {
            return membership::leave(&common, &mut output, yes, abandon).await;
        }
        Command::Add { paths, name, in_place, hide_from, only } => {
            let request = AddRequest {
                paths: Vec::new(),
                name,
                in_place,
                hide_from,
                only: Some(only).filter(|only| !only.is_empty()),
            };
            return adding::add(&common, &mut output, paths, request).await;
        }
        Command::Blacklist { act } => return blacklist::act(&common, &mut output, act).await,
        Command::Update { file, path } => return updating::update(&common, &mut output, &file, path).await,
        Command::Rm { files } => return updating::remove(&common, &mut output, files).await,
        Command::Trash { trash } => return trash::run(&common, &mut output, trash).await,
        Command::Ls { query } => files::list(&common, &mut output, &query.unwrap_or_default()).await?,
        Command::Info { file } => files::info(&common, &mut output, &file).await?,
        Command::Get { files, output: to } => return getting::get(&common, &mut output, files, to).await,
        Command::Give { file, member } => return giving::give(&common, &mut output, &file, &member).await,
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
            files::warn_of(stale.get(), &common);
            output.members(&members)?;
        }
        Command::Transfers { steer: Some(steer) } => {
            return transfers::steer(&common, &mut output, steer).await;
        }
        Command::Limits { act } => limits::run(&common, &mut output, act).await?,
        Command::Transfers { steer: None } => transfers::list(&common, &mut output).await?,
        Command::Browse => cli::browse(&common.client(Role::Node)?, &mut output).await?,
        Command::Verify { files } => return verifying::verify(&common, &mut output, files).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "quarta", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::Success)
}

fn usage(what: &str, next: &str) -> Failure {
    Failure::new(what, "", next).code(ExitCode::Usage)
}

fn rate(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("a limit of 0 would stop all uploads".to_owned()),
        bytes => Ok(bytes),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<bytesize::ByteSize>();
    bytes.map(|bytes| bytes.0).map_err(|_| "expected a size such as 10MiB or 500kB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_rate_is_a_size_and_not_nothing() {
        assert_eq!(rate("10MiB"), Ok(10 << 20));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}
