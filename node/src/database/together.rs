//! Commits of several threads that reach the disk by one flush.
//!
//! Thousands of small files are fetched, or added, by as many short transactions, and a disk flushes some hundred times a
//! second. So these transactions are committed without a flush of their own, and whoever made one waits, outside of the
//! connection's lock, until a flush that began after its commit has ended: the first that comes flushes for all that have
//! committed by then, and while it does others commit. What a method acknowledges lasts as long as before.
//!
//! It is the write-ahead log that is flushed; `SQLite` itself flushes it before it moves anything from there. A flush that
//! fails is told to everybody who waits for it and to all later ones, because nobody knows what of the log has reached
//! the disk; the next start reads it and finds out.

use std::{
    fs::File,
    io,
    path::PathBuf,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use rusqlite::Connection;

use super::{Database, DatabaseError};

/// How far the log is on the disk.
#[derive(Debug)]
pub(super) struct Flushes {
    log: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Open once the first commit has been made.
    file: Option<File>,
    committed: u64,
    flushed: u64,
    flushing: bool,
    failed: Option<io::ErrorKind>,
}

/// A commit that is not on the disk yet.
#[derive(Debug, Clone, Copy)]
#[must_use = "what is acknowledged must be on the disk"]
pub struct Commit(u64);

impl Flushes {
    /// Of the log at this path.
    pub(super) fn new(log: PathBuf) -> Self {
        Self { log, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit was made.
    fn committed(&self) -> Commit {
        let mut state = self.state();
        state.committed += 1;
        Commit(state.committed)
    }

    /// Waits until a commit is on the disk.
    fn wait(&self, commit: Commit) -> io::Result<()> {
        let mut state = self.state();
        loop {
            if let Some(kind) = state.failed {
                return Err(kind.into());
            }
            if state.flushed >= commit.0 {
                return Ok(());
            }
            if state.flushing {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.flushing = true;
            let (file, until) = (state.file.take(), state.committed);
            drop(state);
            let flushed = file.map_or_else(|| File::open(&self.log), Ok).and_then(|file| {
                file.sync_data()?;
                Ok(file)
            });
            state = self.state();
            state.flushing = false;
            match flushed {
                Ok(file) => (state.file, state.flushed) = (Some(file), until),
                Err(error) => state.failed = Some(error.kind()),
            }
            self.changed.notify_all();
        }
    }
}

impl Database {
    /// Carries out a write; what it committed is on the disk only once [`Database::flush`] has returned.
    ///
    /// # Errors
    /// As the write.
    pub(super) fn write_unflushed<T>(
        &self,
        write: impl FnOnce(&mut Connection) -> Result<T, DatabaseError>,
    ) -> Result<(T, Commit), DatabaseError> {
        let mut connection = self.connection();
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        let written = write(&mut connection);
        // All other methods' commits are flushed by SQLite.
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok((written?, self.flushes.committed()))
    }

    /// Carries out a write, and returns when it is on the disk, by one flush for all that wait for one.
    ///
    /// # Errors
    /// As the write, and as [`Database::flush`].
    pub(super) fn write_together<T>(
        &self,
        write: impl FnOnce(&mut Connection) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let (written, commit) = self.write_unflushed(write)?;
        self.flush(commit)?;
        Ok(written)
    }

    /// Waits until a commit is on the disk.
    ///
    /// # Errors
    /// [`DatabaseError::Flush`]: whether it will be there after a power loss is not known.
    pub fn flush(&self, commit: Commit) -> Result<(), DatabaseError> {
        self.flushes.wait(commit).map_err(DatabaseError::Flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_commit_that_was_flushed_waits_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "x").unwrap();
        let flushes = Flushes::new(path.clone());
        let (first, second) = (flushes.committed(), flushes.committed());
        flushes.wait(second).unwrap();
        assert_eq!(flushes.state().flushed, 2, "one flush for both");
        flushes.state().file = None;
        std::fs::remove_file(path).unwrap();
        flushes.wait(first).unwrap();
    }

    #[test]
    fn a_flush_that_fails_fails_for_everybody_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let flushes = Flushes::new(path.clone());
        let first = flushes.committed();
        assert_eq!(flushes.wait(first).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(path, "x").unwrap();
        let second = flushes.committed();
        flushes.wait(second).unwrap_err();
        flushes.wait(first).unwrap_err();
    }

    #[test]
    fn all_threads_see_their_commits_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "x").unwrap();
        let flushes = Flushes::new(path);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let commit = flushes.committed();
                        flushes.wait(commit).unwrap();
                        assert!(flushes.state().flushed >= commit.0);
                    }
                });
            }
        });
        assert_eq!(flushes.state().flushed, 160);
    }
}
