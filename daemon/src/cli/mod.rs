//! What all commands share: arguments, output, failures and exit codes.
//!
//! A command prints its result on stdout and everything else on stderr. With `--json`, each line of either is
//! one JSON object. It ends with a documented [`ExitCode`], and a failure is one line that says what failed,
//! why, and what to do next. Text of others is escaped on all of these ways.
//!
//! ```no_run
//! use quarta_daemon::Role;
//! use quarta_daemon::cli::{self, Common, During, ExitCode, Failure, Output};
//!
//! #[derive(clap::Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     common: Common,
//! }
//!
//! async fn members(args: Args) -> Result<ExitCode, Failure> {
//!     let members: Vec<String> =
//!         args.common.client(Role::Node)?.get("/api/v1/members").await.during("cannot list the members")?;
//!     Output::stdout(args.common.json).table(&["NAME"], &members, |name| vec![name.clone()])?;
//!     Ok(ExitCode::Success)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     match cli::parse::<Args>() {
//!         Ok(args) => cli::run(args.common.json, members(args)),
//!         Err(code) => code.into(),
//!     }
//! }
//! ```

mod args;
mod browse;
mod failure;
mod output;

pub use args::{Common, member_name, parse, parse_from};
pub use browse::browse;
pub use failure::{During, ExitCode, Failure};
pub use output::{Output, health, note, progress, size};

use std::time::Duration;

/// How long work on blocking threads may still take after a command's end, such as a database closing.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Runs a command to its end: gives it a tokio runtime, prints its failure, and returns its exit code.
pub fn run(json: bool, main: impl Future<Output = Result<ExitCode, Failure>>) -> std::process::ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            let failure =
                Failure::new("cannot start", cause.to_string(), "check the limits on threads and open files");
            return failure.report(json).into();
        }
    };
    let code = match runtime.block_on(main) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    };
    runtime.shutdown_timeout(LAST_WORK);
    code.into()
}
