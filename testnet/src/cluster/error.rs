//! What can go wrong with a cluster. Each text says what failed, why, and what to do next.

use crate::wait::Late;
use quarta_daemon::cli;
use quarta_daemon::client::ClientError;
use std::io;
use std::path::PathBuf;

/// Why a cluster, or one of its members, does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The disk is too full. Nothing was written.
    #[error(
        "cannot start a cluster in {}: it needs {} of disk and {} are free; free some, or name a folder on another disk",
        path.display(), cli::size(*need_bytes), cli::size(*have_bytes)
    )]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// What it takes.
        need_bytes: u64,
        /// What is there.
        have_bytes: u64,
    },
    /// The members' sockets would have longer paths than the system takes. Nothing was written.
    #[error(
        "cannot start a cluster in {}: the path of a member's socket would have {length} bytes and the system takes \
         {max}; name a folder with a shorter path",
        path.display()
    )]
    PathTooLong {
        /// The folder.
        path: PathBuf,
        /// The longest path's length, in bytes.
        length: usize,
        /// The longest that is possible.
        max: usize,
    },
    /// The folder belongs to something else. Nothing was written.
    #[error("cannot start a cluster in {}: the folder is not empty; name a new one", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// All ports of the range are in use.
    #[error("cannot start a cluster: no port between 20000 and 32000 is free; stop what uses them")]
    NoPort,
    /// The operating system refused something.
    #[error("cannot {what}: {cause}; check the folder, its permissions and the limits on processes")]
    System {
        /// What was attempted.
        what: String,
        /// What the system said.
        cause: io::Error,
    },
    /// A member's command failed.
    #[error("`{command}` failed at {member}: {said}; see the message itself")]
    Command {
        /// The member's name.
        member: String,
        /// The command's first words.
        command: String,
        /// What it printed on stderr, or how it ended.
        said: String,
    },
    /// A member ended by itself.
    #[error("{member} ended unexpectedly ({status}): {log}; see {}", path.display())]
    Ended {
        /// The member's name.
        member: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
        /// Its log.
        path: PathBuf,
    },
    /// A member did not become ready in time.
    #[error("{member} is not ready: {late}; see {}", path.display())]
    NotReady {
        /// The member's name.
        member: String,
        /// What was missing.
        late: Late,
        /// Its log.
        path: PathBuf,
    },
    /// The members did not find each other in time.
    #[error("the members did not find each other: {0}; see their logs")]
    Apart(Late),
    /// A member's daemon refused a request or could not be asked.
    #[error("{member}: {cause}")]
    Request {
        /// The member's name.
        member: String,
        /// What it said.
        cause: ClientError,
    },
    /// A request to a member's TCP address brought nothing usable.
    #[error("cannot read {path} of {member}: {why}; see whether it is running")]
    Http {
        /// The member's name.
        member: String,
        /// The path asked for.
        path: &'static str,
        /// What happened.
        why: String,
    },
    /// A member said that it could not do its work.
    #[error("{member} {what}: {why}; {next_step}")]
    Refused {
        /// The member's name.
        member: String,
        /// What it could not do, as in "cannot fetch a.txt".
        what: String,
        /// Why, in its words.
        why: String,
        /// What to do next, in its words.
        next_step: String,
    },
    /// The launcher asked for a member that the cluster does not have.
    #[error("no member of the cluster is called {0}; see its table of members")]
    Unknown(String),
}

impl ClusterError {
    /// For `map_err` on what the system was asked for.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::System { what, cause }
    }
}
