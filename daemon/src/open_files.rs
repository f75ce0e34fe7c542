//! How many files and connections this process may have open.
//!
//! Many systems start a process with a soft limit of 1024 and allow it far more; the soft limit exists for programs
//! that use `select`, which these are not. So a daemon raises it to the hard one before anything else. Connections are
//! bounded to shares of it, members' and the API's on each of its ways, so that whoever connects cannot take the
//! descriptors that files and the database need, nor those by which the operator asks what is wrong.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// With fewer descriptors than this a daemon may fail in normal use: 256 connections of the API on each way, as many
/// members, and the files being served.
pub const NEEDED: u64 = 1024;

/// The part of all descriptors that each way to the API may take.
const HTTP_SHARE: u64 = 8;
/// The part of them that connections with members may take.
const MEMBERS_SHARE: u64 = 2;

/// What this process may have open, after raising it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    limit: u64,
}

impl OpenFiles {
    /// Raises the soft limit to the hard one and says in the log where that is too low.
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        // Where this is refused, the limit stays as it was.
        let raised =
            current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
        let open_files = Self { limit: if raised { maximum } else { current }.unwrap_or(u64::MAX) };
        if let Some(problem) = open_files.problem() {
            tracing::warn!("{problem}");
        } else if raised {
            tracing::debug!(limit = open_files.limit, "the limit on open files was raised");
        }
        open_files
    }

    /// In words, what is wrong with the limit and what to do about it, if anything is.
    pub fn problem(self) -> Option<String> {
        (self.limit < NEEDED).then(|| {
            format!(
                "only {} files and connections may be open, and {NEEDED} are needed; raise the limit (systemd: \
                 LimitNOFILE, shell: ulimit -n) and restart",
                self.limit
            )
        })
    }

    /// In words, that nearly all are in use, if they are. Looks at the system.
    pub fn shortage(self) -> Option<String> {
        // Counting them takes one itself, so failing to is an answer too.
        let open = std::fs::read_dir("/proc/self/fd").map_or(u64::MAX, |open| open.count() as u64);
        (open.saturating_mul(10) > self.limit.saturating_mul(9)).then(|| {
            format!(
                "nearly all of the {} files and connections that may be open are in use; raise the limit (systemd: \
                 LimitNOFILE, shell: ulimit -n) and restart",
                self.limit
            )
        })
    }

    /// How many connections there may be with members and strangers at once: at most `wanted`.
    pub fn member_connections(self, wanted: u32) -> u32 {
        wanted.min(u32::try_from((self.limit / MEMBERS_SHARE).max(1)).unwrap_or(u32::MAX))
    }

    /// How many connections each way to the API may have at once: at most `wanted`.
    pub fn http_connections(self, wanted: usize) -> usize {
        wanted.min(usize::try_from((self.limit / HTTP_SHARE).max(1)).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_is_told_with_what_to_do() {
        assert_eq!(OpenFiles { limit: NEEDED }.problem(), None);
        let problem = OpenFiles { limit: 64 }.problem().unwrap();
        assert!(problem.contains("only 64") && problem.contains("LimitNOFILE"), "{problem}");
    }

    #[test]
    fn connections_take_shares_of_the_descriptors_and_never_all() {
        let few = OpenFiles { limit: 64 };
        assert!(u64::from(few.member_connections(4096)) + 2 * few.http_connections(256) as u64 <= 48);
        assert_eq!(OpenFiles { limit: 1 << 20 }.member_connections(4096), 4096);
        assert_eq!(OpenFiles { limit: 64 }.http_connections(256), 8);
        assert_eq!(OpenFiles { limit: 4 }.http_connections(256), 1);
        assert_eq!(OpenFiles { limit: 1 << 20 }.http_connections(256), 256);
    }

    #[test]
    fn with_most_descriptors_in_use_it_is_short_and_otherwise_not() {
        assert!(OpenFiles { limit: 1 }.shortage().is_some());
        assert_eq!(OpenFiles { limit: 1 << 30 }.shortage(), None);
    }
}
