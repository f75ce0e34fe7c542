//! How far the check of the vault has got: `DATA/vault/scrub`, a line of JSON. Losing it costs a pass.

use std::{fs::File, io::Read, time::Duration};

use quarta_protocols::{credentials::UnixSeconds, ids::ContentId};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Vault, beneath, staged};

/// The file's name. No content is called so.
pub(super) const NAME: &str = "scrub";
/// The longest mark; a longer one is none.
const MARK_MAX_BYTES: u64 = 1024;

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When it began.
    pub began: UnixSeconds,
    /// The last replica that was checked, in the order of the ids; none at the beginning.
    pub after: Option<ContentId>,
    /// Whether it is over.
    pub done: bool,
}

impl Mark {
    /// A pass that begins.
    pub const fn begin(now: UnixSeconds) -> Self {
        Self { began: now, after: None, done: false }
    }

    /// The same pass, over.
    #[must_use]
    pub const fn ended(self) -> Self {
        Self { after: None, done: true, ..self }
    }

    /// How long until the next pass begins, or this one goes on, where passes begin `every` so often. A clock that was
    /// set back makes nobody wait longer than that.
    pub fn wait(&self, now: UnixSeconds, every: Duration) -> Duration {
        if !self.done {
            return Duration::ZERO;
        }
        let since = Duration::from_secs(now.0.saturating_sub(self.began.0));
        every.saturating_sub(since)
    }
}

impl Vault {
    /// The mark; none where there is none that can be read.
    pub fn scrub_mark(&self) -> Option<Mark> {
        let file = beneath::open_file(&*self.folder, NAME.as_ref()).ok()?;
        let mut text = Vec::new();
        file.take(MARK_MAX_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Notes the mark. One that cannot be noted costs a pass, so that is only logged.
    pub fn set_scrub_mark(&self, mark: &Mark) {
        let write = || -> std::io::Result<()> {
            let draft = "scrub.draft";
            staged::remove(&self.folder, draft)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&*self.folder, draft, flags, Mode::RUSR | Mode::WUSR)?;
            serde_json::to_writer(File::from(file), mark)?;
            Ok(rustix::fs::renameat(&*self.folder, draft, &*self.folder, NAME)?)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "how far the check of the vault is could not be noted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_hours(7 * 24);

    #[test]
    fn a_pass_begins_a_week_after_the_one_before_began_and_an_interrupted_one_goes_on_at_once() {
        let mark = Mark::begin(UnixSeconds(1_000_000));
        assert_eq!(mark.wait(UnixSeconds(1_000_010), WEEK), Duration::ZERO);
        let ended = mark.ended();
        assert_eq!(ended.wait(UnixSeconds(1_000_010), WEEK), WEEK.saturating_sub(Duration::from_secs(10)));
        assert_eq!(ended.wait(UnixSeconds(9_000_000), WEEK), Duration::ZERO);
        assert_eq!(ended.wait(UnixSeconds(5), WEEK), WEEK, "the clock was set back");
    }

    #[test]
    fn a_mark_outlasts_a_restart_and_nonsense_is_none() {
        let base = tempfile::tempdir().unwrap();
        let (vault, _) = Vault::open(base.path()).unwrap();
        assert_eq!(vault.scrub_mark(), None);
        let mark = Mark { after: Some(ContentId::from_bytes([3; 32])), ..Mark::begin(UnixSeconds(7)) };
        vault.set_scrub_mark(&mark);
        vault.set_scrub_mark(&mark);
        let (vault, _) = Vault::open(base.path()).unwrap();
        assert_eq!(vault.scrub_mark(), Some(mark));
        std::fs::write(vault.path().join(NAME), "{").unwrap();
        assert_eq!(vault.scrub_mark(), None);
    }
}
