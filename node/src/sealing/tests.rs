use std::{
    io::Write,
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode as FileMode, mknodat};
use sha2::Digest;
use tempfile::TempDir;

use super::*;
use crate::library::walk::{Folder, Found};

struct Branch {
    base: TempDir,
    library: Library,
}

impl Branch {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("data")).unwrap();
        let library = Library::open(&base.path().join("data")).unwrap();
        Self { base, library }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.base.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn source(&self, path: &Path) -> Result<Source, SourceError> {
        Source::named(path, &self.library)
    }

    fn nothing_is_left(&self) -> bool {
        let empty = |folder: &str| std::fs::read_dir(self.base.path().join(folder)).unwrap().next().is_none();
        empty("data/library") && empty("data/partial")
    }
}

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn bytes(size: usize) -> Vec<u8> {
    (0..249).cycle().take(size).collect()
}

/// The manifest says what sealing these bytes makes.
fn agrees(added: &Added, plain: &[u8]) -> bool {
    let (geometry, cipher) = (added.manifest.geometry(), added.key.cipher());
    let chunk = |index| {
        let start = usize::try_from(geometry.offset(index)).unwrap();
        let mut chunk = plain[start..start + geometry.plain_len(index)].to_vec();
        cipher.seal(index, &mut chunk);
        added.manifest.check(index, &chunk).is_ok()
    };
    geometry.size_bytes() == plain.len() as u64
        && added.stamp.size_bytes == plain.len() as u64
        && added.sha256.as_bytes() == &<[u8; 32]>::from(sha2::Sha256::digest(plain))
        && (0..geometry.chunks()).all(chunk)
}

const CHUNK: usize = 256 * 1024;

#[test]
fn files_of_every_size_are_sealed_as_copies_in_place_and_from_streams() {
    for size in [0, 1, CHUNK, CHUNK + 1, 9 * CHUNK + 123] {
        let branch = Branch::new();
        let plain = bytes(size);
        let path = branch.write("source.csv", &plain);
        let copy = add(
            &branch.library,
            branch.source(&path).unwrap(),
            &name("a/plano.csv"),
            Mode::Copy,
            &mut |_| (),
        )
        .unwrap();
        assert!(agrees(&copy, &plain), "{size}");
        assert_eq!(std::fs::read(branch.library.path_of(&copy.place)).unwrap(), plain);
        assert_eq!(copy.media_type.as_deref(), Some("text/csv"));
        let in_place =
            add(&branch.library, branch.source(&path).unwrap(), &name("b"), Mode::InPlace, &mut |_| ())
                .unwrap();
        assert!(agrees(&in_place, &plain));
        assert_eq!(in_place.place, Place::InPlace(path.canonicalize().unwrap()));
        let streamed =
            add_stream(&branch.library, &mut &plain[..], &name("c.unknown-thing"), Some(plain.len() as u64))
                .unwrap();
        assert!(agrees(&streamed, &plain));
        assert_eq!(streamed.media_type, None);
        assert_ne!(copy.key, streamed.key, "one key never seals two contents");
    }
}

#[test]
fn a_stamp_taken_when_adding_is_that_of_the_file_in_the_library() {
    let branch = Branch::new();
    let path = branch.write("x", b"abc");
    let added =
        add(&branch.library, branch.source(&path).unwrap(), &name("x"), Mode::Copy, &mut |_| ()).unwrap();
    let file = branch.library.open_file(&added.place).unwrap();
    assert_eq!(Stamp::of(&file).unwrap(), added.stamp);
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let branch = Branch::new();
    let pipe = branch.base.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, FileMode::RUSR | FileMode::WUSR, 0).unwrap();
    let socket = branch.base.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [&pipe, &socket, Path::new("/dev/zero"), branch.base.path()] {
        let refused = branch.source(path).unwrap_err();
        assert!(matches!(refused, SourceError::Irregular { .. }), "{refused}");
    }
    let missing = branch.source(&branch.base.path().join("missing")).unwrap_err();
    assert!(matches!(missing, SourceError::Unreadable { .. }), "{missing}");
}

#[test]
fn a_link_that_the_user_named_counts_as_its_file_and_one_in_a_folder_does_not() {
    let branch = Branch::new();
    let folder = branch.base.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let target = branch.write("target", b"abc");
    symlink(&target, folder.join("link")).unwrap();
    let named = branch.source(&folder.join("link")).unwrap();
    assert_eq!(named.path(), target.canonicalize().unwrap());
    // Found as a file, then swapped for a link before it is opened.
    std::fs::write(folder.join("swapped"), "harmless").unwrap();
    let walked = Folder::open(&folder, None, &branch.library).unwrap();
    let found =
        walked.walk().any(|found| matches!(found, Found::File { name, .. } if name.as_str() == "swapped"));
    assert!(found);
    std::fs::remove_file(folder.join("swapped")).unwrap();
    symlink(&target, folder.join("swapped")).unwrap();
    let refused = Source::found(&walked, Path::new("swapped"), &branch.library).unwrap_err();
    assert!(matches!(refused, SourceError::Unreadable { .. }), "{refused}");
}

#[test]
fn the_nodes_own_keys_and_database_are_never_a_source() {
    let branch = Branch::new();
    let key = branch.write("data/identity.key", b"secret");
    assert!(matches!(branch.source(&key), Err(SourceError::DataFolder { .. })));
    symlink(&key, branch.base.path().join("innocent")).unwrap();
    let by_link = branch.source(&branch.base.path().join("innocent"));
    assert!(matches!(by_link, Err(SourceError::DataFolder { .. })));
}

#[test]
fn a_source_that_changes_while_it_is_added_is_refused_and_leaves_nothing() {
    for mode in [Mode::Copy, Mode::InPlace] {
        // Each way between being opened and being read.
        let changes: [fn(&Path); 3] = [
            |path| std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap(),
            |path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5).unwrap(),
            |path| {
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(b"other", 0).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            },
        ];
        for change in changes {
            let branch = Branch::new();
            let path = branch.write("source", &bytes(CHUNK + 10));
            let source = branch.source(&path).unwrap();
            change(&path);
            let refused = add(&branch.library, source, &name("a"), mode, &mut |_| ()).unwrap_err();
            assert!(matches!(refused, AddError::Source(SourceError::Changed { .. })), "{refused}");
            assert!(branch.nothing_is_left());
        }
    }
}

#[test]
fn a_source_that_vanishes_after_it_was_opened_is_added_all_the_same() {
    let branch = Branch::new();
    let path = branch.write("source", b"abc");
    let source = branch.source(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let added = add(&branch.library, source, &name("a"), Mode::Copy, &mut |_| ()).unwrap();
    assert!(agrees(&added, b"abc"));
}

#[test]
fn a_name_that_is_taken_is_found_before_anything_is_copied() {
    let branch = Branch::new();
    let path = branch.write("source", b"abc");
    add(&branch.library, branch.source(&path).unwrap(), &name("a"), Mode::Copy, &mut |_| ()).unwrap();
    for taken in ["a", "A"] {
        let refused =
            add(&branch.library, branch.source(&path).unwrap(), &name(taken), Mode::Copy, &mut |_| ());
        assert!(matches!(refused, Err(AddError::Library(_))));
        assert!(matches!(
            add_stream(&branch.library, &mut &b"x"[..], &name(taken), None),
            Err(AddError::Library(_))
        ));
    }
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    struct Broken(usize);
    impl io::Read for Broken {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::ConnectionReset)?;
            into.fill(1);
            Ok(into.len())
        }
    }
    let branch = Branch::new();
    let refused = add_stream(&branch.library, &mut Broken(5), &name("a"), None).unwrap_err();
    assert!(matches!(refused, AddError::Upload { .. }), "{refused}");
    assert!(branch.nothing_is_left());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_manifest_agrees_with_the_file_whatever_its_size(size in 0usize..3_000_000) {
        let branch = Branch::new();
        let plain = bytes(size);
        let path = branch.write("source", &plain);
        let added = add(&branch.library, branch.source(&path).unwrap(), &name("a"), Mode::Copy, &mut |_| ()).unwrap();
        prop_assert!(agrees(&added, &plain));
    }
}

#[test]
fn a_file_shared_in_place_that_is_replaced_while_it_is_read_is_refused() {
    let branch = Branch::new();
    let path = branch.write("plano", &bytes(2 * CHUNK));
    let new = branch.write("new", &bytes(2 * CHUNK));
    let source = branch.source(&path).unwrap();
    let refused = add(&branch.library, source, &name("a"), Mode::InPlace, &mut |_| {
        let _ = std::fs::rename(&new, &path);
    });
    assert!(matches!(refused, Err(AddError::Source(SourceError::Changed { .. }))), "{refused:?}");
    assert!(branch.nothing_is_left());
}

#[test]
fn a_file_of_the_system_that_claims_to_be_empty_is_not_added_as_that() {
    let branch = Branch::new();
    let source = branch.source(Path::new("/proc/version")).unwrap();
    let refused = add(&branch.library, source, &name("a"), Mode::Copy, &mut |_| ());
    assert!(matches!(refused, Err(AddError::Source(SourceError::Changed { .. }))), "{refused:?}");
    assert!(branch.nothing_is_left());
}

#[test]
fn progress_is_told_after_each_chunk_up_to_the_whole_file() {
    let branch = Branch::new();
    let source = branch.source(&branch.write("plano", &bytes(2 * CHUNK + 5))).unwrap();
    let mut told = Vec::new();
    add(&branch.library, source, &name("a"), Mode::Copy, &mut |bytes| told.push(bytes)).unwrap();
    assert_eq!(told, [CHUNK as u64, 2 * CHUNK as u64, 2 * CHUNK as u64 + 5]);
}

#[test]
fn every_failure_says_why_and_what_to_do_without_jargon() {
    let branch = Branch::new();
    let folder = branch.base.path().join("a; b: c");
    let missing = branch.source(&folder.join("none")).unwrap_err();
    assert_eq!(missing.why(), "it cannot be read: it is not there");
    assert_eq!(missing.next_step(), "check the path and try again");
    let full = AddError::Write { name: name("a"), cause: rustix::io::Errno::NOSPC.into() };
    assert_eq!(
        full.to_string(),
        "cannot add a: the library cannot be written: the disk is full; make room on the disk and try again"
    );
}

#[test]
fn a_copy_is_sealed_anew_as_every_reader_would_and_an_edited_one_is_not() {
    let branch = Branch::new();
    let plain = bytes(3 * CHUNK + 5);
    let path = branch.write("source.csv", &plain);
    let source = branch.source(&path).unwrap();
    let added = add(&branch.library, source, &name("plano.csv"), Mode::Copy, &mut |_| ()).unwrap();
    let key = fresh_key();
    let anew = reseal(&branch.library, &added.place, &key, &added.sha256).unwrap();
    assert_ne!(anew.id(), added.manifest.id(), "a fresh key makes another content");
    let same = Added { manifest: anew, key: key.clone(), ..added };
    assert!(agrees(&same, &plain));
    let again = reseal(&branch.library, &same.place, &key, &same.sha256).unwrap();
    assert_eq!(again.id(), same.manifest.id(), "whoever has the plaintext and the key");

    let lies = branch.library.path_of(&same.place);
    std::fs::write(&lies, bytes(3 * CHUNK + 4)).unwrap();
    let edited = reseal(&branch.library, &same.place, &key, &same.sha256);
    assert!(matches!(edited, Err(ResealError::Defective(Defect::Changed))), "{edited:?}");
    std::fs::remove_file(&lies).unwrap();
    let gone = reseal(&branch.library, &same.place, &key, &same.sha256);
    assert!(matches!(gone, Err(ResealError::Defective(Defect::Missing))), "{gone:?}");
}
