use std::{os::unix::fs::symlink, path::PathBuf};

use quarta_protocols::names::FileName;
use tempfile::TempDir;

use super::*;
use crate::sealing::{self, Added};

const CHUNK: usize = 256 * 1024;

/// A library with one file.
struct Holder {
    _base: TempDir,
    library: Library,
    added: Added,
    plain: Vec<u8>,
}

impl Holder {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let library = Library::open(base.path()).unwrap();
        let plain: Vec<u8> = (0..239).cycle().take(3 * CHUNK + 7).collect();
        let added =
            sealing::add_stream(&library, &mut &plain[..], &FileName::new("a/b").unwrap(), None).unwrap();
        Self { _base: base, library, added, plain }
    }

    fn path(&self) -> PathBuf {
        self.library.path_of(&self.added.place)
    }

    fn against(&self) -> Against {
        Against {
            sha256: Some(self.added.sha256),
            cipher: self.added.key.cipher(),
            manifest: self.added.manifest.clone(),
        }
    }

    fn check(&self) -> Result<Stamp, Unfinished> {
        check(&self.library, &self.added.place, &self.against(), &mut |_| true)
    }

    fn defect(&self) -> (Defect, String) {
        match self.check() {
            Err(Unfinished::Defect(defect, why)) => (defect, why),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_copy_is_sound_also_after_it_was_written_anew_with_the_same_bytes() {
    let holder = Holder::new();
    assert_eq!(holder.check(), Ok(holder.added.stamp));
    std::fs::write(holder.path(), &holder.plain).unwrap();
    let stamp = holder.check().unwrap();
    assert_eq!(stamp, Stamp::of(&std::fs::File::open(holder.path()).unwrap()).unwrap());
}

#[test]
fn one_flipped_bit_anywhere_is_found_even_where_size_and_time_are_as_they_were() {
    for at in [0, CHUNK, 3 * CHUNK + 6] {
        let holder = Holder::new();
        let file = std::fs::OpenOptions::new().write(true).open(holder.path()).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&[holder.plain[at] ^ 1], at as u64).unwrap();
        file.set_modified(modified).unwrap();
        let looked = holder.library.look(&holder.added.place, holder.added.stamp).unwrap();
        assert_eq!(looked, None, "a look is deceived");
        assert_eq!(holder.defect().0, Defect::Changed, "byte {at}");
    }
}

#[test]
fn what_is_wrong_is_told_as_it_is() {
    let holder = Holder::new();
    std::fs::write(holder.path(), "short").unwrap();
    assert_eq!(holder.defect(), (Defect::Changed, "it has 5 bytes and not 786439".to_owned()));
    std::fs::remove_file(holder.path()).unwrap();
    assert_eq!(holder.defect(), (Defect::Missing, "it is not there any more".to_owned()));
    symlink("/etc/passwd", holder.path()).unwrap();
    assert_eq!(holder.defect(), (Defect::Changed, "it is a symbolic link".to_owned()));
}

#[test]
fn a_file_that_is_written_to_meanwhile_is_not_sound() {
    let holder = Holder::new();
    let touch = |_| {
        let file = std::fs::OpenOptions::new().write(true).open(holder.path()).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        true
    };
    let found = check(&holder.library, &holder.added.place, &holder.against(), &mut { touch });
    let why = "it was written to while it was checked".to_owned();
    assert_eq!(found, Err(Unfinished::Defect(Defect::Changed, why)));
}

#[test]
fn nothing_more_is_read_when_nobody_wants_to_know() {
    let holder = Holder::new();
    let mut chunks = 0;
    let mut pass = |_| {
        chunks += 1;
        false
    };
    let found = check(&holder.library, &holder.added.place, &holder.against(), &mut pass);
    assert_eq!((found, chunks), (Err(Unfinished::Stopped), 1));
}
