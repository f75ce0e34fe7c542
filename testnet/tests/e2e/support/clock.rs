//! Wrong clocks: programs that live by another time than the machine.

use super::can;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// A clock that a test sets while a program runs.
pub struct Clock(PathBuf);

impl Clock {
    /// One that is right, kept in a file at `path`; or none after saying so, as [`can`] has it.
    pub fn at(path: PathBuf) -> Option<Self> {
        if !can("libfaketime", Path::new(FAKETIME).exists()) {
            return None;
        }
        let clock = Self(path);
        clock.set("+0");
        Some(clock)
    }

    /// Sets it to an offset from the machine's, such as `-4y`.
    pub fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n")).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    /// What a program runs through to live by this clock; its steady clock stays as it is.
    pub fn through(&self) -> Vec<OsString> {
        [
            "env",
            &format!("LD_PRELOAD={FAKETIME}"),
            &format!("FAKETIME_TIMESTAMP_FILE={}", self.0.display()),
            "FAKETIME_NO_CACHE=1",
            "FAKETIME_DONT_FAKE_MONOTONIC=1",
        ]
        .map(OsString::from)
        .to_vec()
    }
}
