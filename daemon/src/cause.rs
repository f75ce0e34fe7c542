//! What the system refused, in words that a person can act on.
//!
//! `No space left on device (os error 28)` says little to somebody at a branch. The causes that people meet get plain
//! words and a next step; every other keeps the system's own text, without its number.

use rustix::io::Errno;
use std::fmt;
use std::io;

/// A system error in plain words, as the "why" of a failure.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a>(pub &'a io::Error);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match of(self.0) {
            Some(Cause::Gone) => "it is not there",
            Some(Cause::Denied) => "the user that runs this program has no permission",
            Some(Cause::Full) => "the disk is full",
            Some(Cause::ReadOnly) => "the disk is read-only",
            Some(Cause::Failing) => "the disk reports an error",
            Some(Cause::TooManyOpen) => "too many files are open",
            None => return f.write_str(without_number(&self.0.to_string())),
        })
    }
}

/// What to do about a system error, as the last part of a failure.
pub fn next_step(error: &io::Error) -> &'static str {
    match of(error) {
        Some(Cause::Gone) => "check the path and try again",
        Some(Cause::Denied) => "give that user the permission and try again",
        Some(Cause::Full) => "make room on the disk and try again",
        Some(Cause::ReadOnly) => "make the disk writable again and try again",
        Some(Cause::Failing) => "check the disk, it may be failing, and try again",
        Some(Cause::TooManyOpen) => {
            "try again in a moment; if it stays, raise the limit on open files (systemd: LimitNOFILE)"
        }
        None => "check the disk and try again",
    }
}

/// Whether the system is out of file descriptors: nothing is wrong with the file that could not be opened.
pub fn too_many_open(error: &io::Error) -> bool {
    of(error) == Some(Cause::TooManyOpen)
}

/// The causes that people meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Gone,
    Denied,
    Full,
    ReadOnly,
    Failing,
    TooManyOpen,
}

fn of(error: &io::Error) -> Option<Cause> {
    Some(match error.kind() {
        io::ErrorKind::NotFound => Cause::Gone,
        io::ErrorKind::PermissionDenied => Cause::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Cause::Full,
        io::ErrorKind::ReadOnlyFilesystem => Cause::ReadOnly,
        _ => match Errno::from_io_error(error)? {
            Errno::IO => Cause::Failing,
            Errno::MFILE | Errno::NFILE => Cause::TooManyOpen,
            _ => return None,
        },
    })
}

fn without_number(text: &str) -> &str {
    text.split_once(" (os error ").map_or(text, |(words, _)| words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: Errno) -> String {
        let error = io::Error::from(errno);
        format!("{}; {}", Plain(&error), next_step(&error))
    }

    #[test]
    fn what_people_meet_is_told_without_jargon_and_with_a_next_step() {
        assert_eq!(said(Errno::NOSPC), "the disk is full; make room on the disk and try again");
        assert_eq!(
            said(Errno::IO),
            "the disk reports an error; check the disk, it may be failing, and try again"
        );
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::DQUOT] {
            assert!(!said(errno).contains("os error"), "{}", said(errno));
        }
    }

    #[test]
    fn a_rare_cause_keeps_the_systems_words_without_the_number() {
        let error = io::Error::from(Errno::XDEV);
        assert_eq!(Plain(&error).to_string(), "Invalid cross-device link");
        assert_eq!(Plain(&io::Error::other("its own words")).to_string(), "its own words");
    }

    #[test]
    fn only_a_lack_of_descriptors_is_nothing_wrong_with_the_file() {
        assert!(too_many_open(&Errno::MFILE.into()) && too_many_open(&Errno::NFILE.into()));
        assert!(!too_many_open(&Errno::IO.into()) && !too_many_open(&Errno::NOENT.into()));
    }
}
