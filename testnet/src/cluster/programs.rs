//! Which programs the members of a cluster are: this one under other names, or the installed binaries.

use crate::attached;
use quarta_daemon::Role;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The hidden command under which `quarta-testnet` is a super-peer.
pub(crate) const SUPERPEER_COMMAND: &str = "__superpeer";
/// The hidden command under which `quarta-testnet` is a node.
pub(crate) const NODE_COMMAND: &str = "__node";

/// Where the programs lie.
#[derive(Debug, Clone)]
pub struct Programs {
    launcher: PathBuf,
    binaries: Option<Binaries>,
}

#[derive(Debug, Clone)]
struct Binaries {
    superpeer: PathBuf,
    node: PathBuf,
}

/// A binary that a test needs is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot start a cluster: {} is not built; build it with `cargo build --workspace`", path.display())]
pub struct NotBuilt {
    /// Where it should be.
    pub path: PathBuf,
}

impl Programs {
    /// Members are this executable itself, which must be `quarta-testnet`: one build makes all that a cluster needs.
    ///
    /// # Errors
    /// What the system answered when asked for this executable's path.
    pub fn this_executable() -> io::Result<Self> {
        Ok(Self { launcher: std::env::current_exe()?, binaries: None })
    }

    /// Members are the binaries `quarta` and `quarta-superpeer` in the folder of `launcher`, which is a
    /// `quarta-testnet`.
    ///
    /// # Errors
    /// [`NotBuilt`] when one of them is missing.
    pub fn beside(launcher: impl Into<PathBuf>) -> Result<Self, NotBuilt> {
        let launcher = launcher.into();
        let folder = launcher.parent().unwrap_or(Path::new("/"));
        let built = |name| {
            let path = folder.join(name);
            if path.is_file() { Ok(path) } else { Err(NotBuilt { path }) }
        };
        let binaries = Binaries { superpeer: built("quarta-superpeer")?, node: built("quarta")? };
        Ok(Self { launcher, binaries: Some(binaries) })
    }

    /// The `quarta-testnet` through which all are started.
    pub(crate) fn launcher(&self) -> &Path {
        &self.launcher
    }

    /// The program of a role and the arguments that make it that.
    fn of(&self, role: Role) -> (&OsStr, Option<&'static str>) {
        match (&self.binaries, role) {
            (Some(binaries), Role::Superpeer) => (binaries.superpeer.as_os_str(), None),
            (Some(binaries), Role::Node) => (binaries.node.as_os_str(), None),
            (None, Role::Superpeer) => (self.launcher.as_os_str(), Some(SUPERPEER_COMMAND)),
            (None, Role::Node) => (self.launcher.as_os_str(), Some(NODE_COMMAND)),
        }
    }

    /// A command of a role's program that dies with this process. `through` is a program with arguments that becomes
    /// the one named after it, such as `nsenter --net=FILE`; empty for none.
    pub(crate) fn command(&self, role: Role, through: &[OsString]) -> Command {
        let (program, name) = self.of(role);
        let mut line = through.iter().map(OsString::as_os_str).chain([program]).chain(name.map(OsStr::new));
        let mut command = attached::command(&self.launcher, line.next().unwrap_or(program));
        command.args(line);
        // A developer's own settings must not reach a cluster's members.
        command.env_remove("QUARTA_DATA").env_remove("QUARTA_LOG");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let text = Programs::beside(folder.path().join("quarta-testnet")).unwrap_err().to_string();
        assert!(text.contains("quarta-superpeer is not built; build it with `cargo build"), "{text}");
    }

    #[test]
    fn a_member_in_a_namespace_is_entered_through_it() {
        let programs = Programs { launcher: "/t".into(), binaries: None };
        let through = ["ip", "netns", "exec", "a"].map(OsString::from);
        let command = programs.command(Role::Node, &through);
        let line: Vec<_> = command.get_args().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!(line[2..], ["ip", "netns", "exec", "a", "/t", "__node"]);
    }
}
