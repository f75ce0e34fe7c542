//! Running a program so that it cannot outlive the one that started it.
//!
//! A launcher that is killed cannot clean up after itself. `quarta-testnet __attached PARENT PROGRAM ARGS…` asks the
//! kernel for SIGKILL when the parent dies and then becomes PROGRAM, which keeps the process id and the wish. That
//! works for any program, so the real binaries need no switch that only tests would use.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The hidden command of `quarta-testnet`.
pub(crate) const COMMAND: &str = "__attached";

/// A command that runs `program` attached to this process, through the `quarta-testnet` at `launcher`.
pub(crate) fn command(launcher: &Path, program: &OsStr) -> Command {
    let mut command = Command::new(launcher);
    command.arg(COMMAND).arg(std::process::id().to_string()).arg(program);
    // A terminal sends Ctrl-C to the whole foreground group; members are to hear of it from the launcher, once.
    command.process_group(0);
    command
}

/// Becomes the program in `args` (parent's process id, program, its arguments). Returns only when that fails.
pub(crate) fn become_program(args: impl IntoIterator<Item = OsString>) -> io::Error {
    let mut args = args.into_iter();
    let Some((parent, program)) =
        args.next().and_then(|parent| parent.to_str()?.parse().ok().and_then(Pid::from_raw)).zip(args.next())
    else {
        return io::Error::new(io::ErrorKind::InvalidInput, "expected PARENT PROGRAM [ARGS]…");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have died before the wish was made.
    if getppid() != Some(parent) {
        return io::Error::other("the process that started this one is gone");
    }
    Command::new(program).args(args).exec()
}
