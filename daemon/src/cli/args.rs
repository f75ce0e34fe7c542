//! Arguments that every command takes, and what happens to those that make no sense.

use super::{ExitCode, Failure};
use crate::client::Client;
use crate::data_dir::{DataDir, DataDirError, Role};
use clap::error::ErrorKind;
use clap::{Args, Parser};
use quarta_protocols::names::MemberName;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Arguments of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Data folder of this member
    #[arg(long, env = "QUARTA_DATA", global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
}

impl Common {
    /// The data folder.
    ///
    /// # Errors
    /// A usage failure when none was named.
    pub fn data_path(&self) -> Result<&Path, Failure> {
        self.data.as_deref().filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            Failure::new(
                "cannot tell which member is meant",
                "no data folder was named",
                "give --data DIR or set QUARTA_DATA",
            )
            .code(ExitCode::Usage)
        })
    }

    /// A client for the daemon of the data folder, which must not be of another role.
    ///
    /// # Errors
    /// As [`Common::data_path`], and where the folder is another role's. Whether there is a daemon shows later.
    pub fn client(&self, role: Role) -> Result<Client, Failure> {
        let path = self.data_path()?;
        match DataDir::open(path, role) {
            Err(error @ (DataDirError::OtherRole { .. } | DataDirError::Left { .. })) => Err(error.into()),
            _ => Ok(Client::new(path)),
        }
    }
}

/// Reads a member's name from an argument: clap's `value_parser`.
///
/// # Errors
/// What is wrong with it.
pub fn member_name(text: &str) -> Result<MemberName, String> {
    MemberName::new(text).map_err(|error| error.to_string())
}

/// Parses this process's arguments. Help, version and usage errors are printed here; the code is what to exit
/// with.
///
/// # Errors
/// [`ExitCode::Success`] after help and version, [`ExitCode::Usage`] after a usage error.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    parse_from(std::env::args_os())
}

/// As [`parse`], with the given arguments, of which the first is the program's name.
///
/// # Errors
/// As [`parse`].
pub fn parse_from<T: Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    // The arguments could not be parsed, so whether JSON was wanted has to be seen without.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    T::try_parse_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that closed the pipe has read enough.
            let _ = error.print();
            ExitCode::Success
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            let _ = error.print();
            ExitCode::Usage
        }
        _ => usage(&error).report(json),
    })
}

/// Makes one line of clap's several: its first paragraph, and its usage as what to do next.
fn usage(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let (first, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let why = first.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let next = rest
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "))
        .map_or_else(|| "see --help".to_owned(), |usage| format!("use `{}`, or see --help", usage.trim()));
    Failure::new("cannot understand the command", why, next).code(ExitCode::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "quarta", version)]
    struct Quarta {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Command {
        Get { files: Vec<String> },
    }

    fn parse(line: &str) -> Result<Quarta, ExitCode> {
        parse_from(line.split(' ').map(OsString::from))
    }

    #[test]
    fn common_arguments_stand_before_and_after_the_command() {
        for line in ["quarta --data /d --json get x", "quarta get x --json --data /d"] {
            let Quarta { common, command: Command::Get { files } } = parse(line).unwrap();
            assert_eq!(common.data_path().unwrap(), Path::new("/d"));
            assert!(common.json);
            assert_eq!(files, ["x"]);
        }
    }

    #[test]
    fn senseless_arguments_exit_as_usage_and_help_as_success() {
        assert_eq!(parse("quarta get --colour").unwrap_err(), ExitCode::Usage);
        assert_eq!(parse("quarta --json").unwrap_err(), ExitCode::Usage);
        assert_eq!(parse("quarta --help").unwrap_err(), ExitCode::Success);
        assert_eq!(parse("quarta --version").unwrap_err(), ExitCode::Success);
    }

    #[test]
    fn a_usage_error_is_one_line_with_a_way_out() {
        let error = Quarta::try_parse_from(["quarta", "get", "--colour"]).unwrap_err();
        let line = usage(&error).to_string();
        assert_eq!(
            line,
            "error: cannot understand the command: unexpected argument '--colour' found; \
             use `quarta get [OPTIONS] [FILES]...`, or see --help"
        );
    }

    #[test]
    fn a_missing_data_folder_is_a_usage_failure() {
        for data in [None, Some(PathBuf::new())] {
            let failure = Common { data, json: false }.data_path().unwrap_err();
            assert_eq!(failure.exit_code(), ExitCode::Usage);
        }
    }
}
