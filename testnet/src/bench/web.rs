//! What people use without encryption and verification: curl from nginx, over the same hosts and disk.
//!
//! nginx runs with a configuration of its own, in the foreground and as one process, on a host of the [`Lan`]; no
//! service of the machine is touched.

use super::OrFailure;
use crate::attached;
use crate::cluster::{ClusterError, Programs};
use crate::netns::Lan;
use crate::process::Process;
use crate::sampling;
use crate::wait::{Look, until};
use quarta_daemon::cli::Failure;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long nginx may take to listen.
const READY_DEADLINE: Duration = Duration::from_secs(10);
/// Folders that nginx makes although nothing here uses them.
const UNUSED_FOLDERS: [&str; 5] = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

/// nginx on a host; gone when dropped.
pub(super) struct WebServer {
    launcher: PathBuf,
    url: String,
    process: Process,
}

/// A download, timed from curl's start to its end.
pub(super) struct Downloaded {
    pub(super) took: Duration,
    /// Processor seconds, user and system, of nginx.
    pub(super) sender_seconds: f64,
    /// The same of curl.
    pub(super) receiver_seconds: f64,
}

impl WebServer {
    /// Serves a file on the host of this name. Answers none, and says why, where nginx or curl is not installed.
    pub(super) async fn start(
        lan: &Lan,
        host: &str,
        file: &Path,
        folder: &Path,
    ) -> Result<Option<Self>, Failure> {
        if !["nginx", "curl"].into_iter().all(is_installed) {
            eprintln!("nginx or curl is missing, so nothing is compared; install nginx-light and curl");
            return Ok(None);
        }
        let unable = |what| ClusterError::system(what);
        let programs = Programs::this_executable().map_err(unable("find this program")).or_failure()?;
        let (root, name) = (file.parent().unwrap_or(Path::new("/")), file.file_name().unwrap_or_default());
        let address = lan.address(host).or_failure()?;
        let work = folder.join("nginx");
        fs::create_dir_all(&work).map_err(unable("make a folder for nginx")).or_failure()?;
        let settings = work.join("nginx.conf");
        fs::write(&settings, configuration(&work, root, &address.to_string()))
            .map_err(unable("write nginx's configuration"))
            .or_failure()?;
        let log = File::create(work.join("log")).map_err(unable("make nginx's log")).or_failure()?;
        let args =
            [OsString::from("-c"), settings.into(), "-e".into(), "stderr".into(), "-p".into(), work.into()];
        let mut command = on_host(programs.launcher(), lan, host, "nginx", &args)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Process::spawn(command).map_err(unable("start nginx")).or_failure()?;
        let url = format!("http://{address}/{}", name.to_string_lossy());
        let server = Self { launcher: programs.launcher().to_owned(), url, process };
        let answers = until(READY_DEADLINE, async || match server.curl(lan, host, &["--head"]).await {
            Ok(()) => Look::Holds(()),
            Err(error) => Look::failed(error),
        });
        let missing = |late| ClusterError::NotReady {
            member: "nginx".to_owned(),
            late,
            path: folder.join("nginx/log"),
        };
        answers.await.map_err(missing).or_failure()?;
        Ok(Some(server))
    }

    /// Downloads the file on the host of this name to `to`, which is removed afterwards.
    pub(super) async fn download(&self, lan: &Lan, host: &str, to: &Path) -> Result<Downloaded, Failure> {
        let served = || sampling::processor_seconds(self.process.id()).unwrap_or_default();
        let (sender, receiver) = (served(), sampling::children_seconds());
        let started = Instant::now();
        self.curl(lan, host, &["--output", &to.to_string_lossy()]).await.or_failure()?;
        let took = started.elapsed();
        let downloaded = Downloaded {
            took,
            sender_seconds: served() - sender,
            receiver_seconds: sampling::children_seconds() - receiver,
        };
        fs::remove_file(to).map_err(ClusterError::system("remove a download")).or_failure()?;
        Ok(downloaded)
    }

    async fn curl(&self, lan: &Lan, host: &str, args: &[&str]) -> Result<(), ClusterError> {
        let unable = || ClusterError::system("download with curl");
        let args: Vec<OsString> = ["--silent", "--fail"]
            .iter()
            .chain(args)
            .map(OsString::from)
            .chain([(&self.url).into()])
            .collect();
        let command = on_host(&self.launcher, lan, host, "curl", &args);
        let mut command = command.map_err(|_| ClusterError::Unknown(host.to_owned()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = Process::spawn(command).map_err(unable())?;
        let status = process.wait().await;
        if status.success() {
            return Ok(());
        }
        Err(unable()(std::io::Error::other(status.to_string())))
    }
}

/// A command of `program` on a host, which dies with this process.
fn on_host(
    launcher: &Path,
    lan: &Lan,
    host: &str,
    program: &str,
    args: &[OsString],
) -> Result<Command, Failure> {
    let mut line = lan.enter(host).or_failure()?.into_iter();
    let mut command = attached::command(launcher, &line.next().unwrap_or_else(|| program.into()));
    command.args(line).arg(program).args(args);
    Ok(command)
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn configuration(work: &Path, root: &Path, address: &str) -> String {
    let (work, root) = (work.display(), root.display());
    let mut text = format!("daemon off;\nmaster_process off;\npid {work}/pid;\nevents {{}}\nhttp {{\n");
    for folder in UNUSED_FOLDERS {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {folder}_temp_path {work}/{folder};");
    }
    let _ = writeln!(text, "  access_log off;\n  sendfile on;\n  tcp_nopush on;");
    let _ = writeln!(text, "  server {{\n    listen {address}:80;\n    root {root};\n  }}\n}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nginx_stays_within_its_folder_and_on_its_address() {
        let text = configuration(Path::new("/w"), Path::new("/files"), "198.51.100.2");
        assert!(text.contains("listen 198.51.100.2:80;") && text.contains("root /files;"), "{text}");
        assert_eq!(text.matches("_temp_path /w/").count(), UNUSED_FOLDERS.len());
        assert_eq!(text.matches('{').count(), text.matches('}').count());
    }
}
