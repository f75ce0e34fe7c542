//! Steps below an open folder that no symbolic link can lead astray.
//!
//! Every step names one component and opens it with `O_NOFOLLOW` relative to the descriptor of the folder before, so
//! that there is no moment between looking at a path and using it: whoever swaps a folder for a link in between makes
//! the step fail. One step at a time rather than `openat2(RESOLVE_BENEATH)`, because twins are looked for at every
//! level anyway, and because it works on every kernel and on other systems.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::FileTypeExt,
        },
    },
    path::{Component, Path},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

/// Folders and files are readable by the daemon's user only.
const FOLDER_MODE: Mode = Mode::RWXU;

/// One name that can be a step: not empty, not `.` or `..`, no `/` or NUL.
fn step(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    let leaves = matches!(bytes, b"" | b"." | b"..") || bytes.iter().any(|b| matches!(b, b'/' | 0));
    if leaves { Err(io::Error::from(io::ErrorKind::InvalidInput)) } else { Ok(name) }
}

/// Opens the folder `name` in `at`.
///
/// # Errors
/// `NotADirectory` for anything else, a symbolic link to a folder included.
pub(crate) fn open_folder(at: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, step(name)?, flags, Mode::empty())?)
}

/// Creates the folder `name` in `at`; `false` where something of that name was there.
pub(crate) fn make_folder(at: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::mkdirat(at, step(name)?, FOLDER_MODE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens the file `name` in `at` for reading.
///
/// A FIFO does not block the caller; whether the file is a regular one is for [`irregular`] to say.
///
/// # Errors
/// `InvalidInput` for a symbolic link.
pub(crate) fn open_file(at: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(at, step(name)?, flags, Mode::empty()) {
        Ok(file) => Ok(File::from(file)),
        Err(Errno::LOOP) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link")),
        Err(error) => Err(error.into()),
    }
}

/// Opens the file at a relative path below `root`, following no link at any component.
///
/// # Errors
/// `InvalidInput` for a path that is absolute or steps upwards; else as the steps fail.
pub(crate) fn open_path(root: impl AsFd, path: &Path) -> io::Result<File> {
    let mut names = Vec::new();
    for component in path.components() {
        let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
        names.push(name);
    }
    let (leaf, folders) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let mut at = root.as_fd().try_clone_to_owned()?;
    for folder in folders {
        at = open_folder(&at, folder)?;
    }
    open_file(&at, leaf)
}

/// What kind of thing stands under `name` in `at`, without following or opening it; none where there is nothing.
pub(crate) fn kind(at: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(at, step(name)?, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names in a folder, in no order.
pub(crate) fn names(folder: impl AsFd) -> io::Result<impl Iterator<Item = io::Result<OsString>>> {
    let entries = Dir::read_from(folder)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        Ok(entry) => Some(Ok(OsString::from_vec(entry.file_name().to_bytes().to_vec()))),
        Err(error) => Some(Err(error.into())),
    }))
}

/// What an open file is, in words for people, unless it is a regular file.
pub(crate) fn irregular(file: &File) -> io::Result<Option<&'static str>> {
    let kind = file.metadata()?.file_type();
    let named = [
        (kind.is_dir(), "a folder"),
        (kind.is_fifo(), "a named pipe"),
        (kind.is_block_device() || kind.is_char_device(), "a device"),
        (kind.is_socket(), "a socket"),
    ];
    let other = (!kind.is_file()).then_some("a special file");
    Ok(named.into_iter().find_map(|(is, what)| is.then_some(what)).or(other))
}

/// What a kind of directory entry is called, unless it is a regular file.
pub(crate) const fn irregular_kind(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile => None,
        FileType::Directory => Some("a folder"),
        FileType::Symlink => Some("a symbolic link"),
        FileType::Fifo => Some("a named pipe"),
        FileType::BlockDevice | FileType::CharacterDevice => Some("a device"),
        FileType::Socket => Some("a socket"),
        FileType::Unknown => Some("a special file"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn open(path: &Path) -> File {
        File::open(path).unwrap()
    }

    #[test]
    fn no_step_leaves_its_folder() {
        let base = tempfile::tempdir().unwrap();
        let root = open(base.path());
        for name in ["", ".", "..", "a/b", "/etc", "a\0b"] {
            assert!(open_folder(&root, name.as_ref()).is_err(), "{name:?}");
            assert!(make_folder(&root, name.as_ref()).is_err(), "{name:?}");
            assert!(open_file(&root, name.as_ref()).is_err(), "{name:?}");
        }
        for path in ["", "/etc/passwd", "../x", "a/../../x"] {
            assert!(open_path(&root, path.as_ref()).is_err(), "{path:?}");
        }
    }

    #[test]
    fn links_are_not_followed_at_any_component() {
        let base = tempfile::tempdir().unwrap();
        let inside = base.path().join("inside");
        std::fs::create_dir_all(inside.join("real")).unwrap();
        std::fs::write(base.path().join("secret"), "x").unwrap();
        std::fs::write(inside.join("real/file"), "y").unwrap();
        symlink(base.path(), inside.join("out")).unwrap();
        symlink(base.path().join("secret"), inside.join("leaf")).unwrap();
        symlink("real", inside.join("alias")).unwrap();
        let root = open(&inside);
        assert!(open_path(&root, "real/file".as_ref()).is_ok());
        for path in ["out/secret", "leaf", "alias/file"] {
            assert!(open_path(&root, path.as_ref()).is_err(), "{path}");
        }
    }
}
