use std::{
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
};

use proptest::prelude::*;
use quarta_protocols::{
    ids::{ContentId, FileId},
    names::MemberName,
};
use rustix::fs::FileType;
use tempfile::TempDir;

use super::{
    walk::{Folder, Found, Skip},
    *,
};

/// A data folder and what lies beside it.
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

    fn staged(&self, content: &str) -> Staged {
        let staged = self.library.stage().unwrap();
        staged.file().write_all(content.as_bytes()).unwrap();
        staged
    }

    fn own(&self, name: &str, content: &str) -> Result<LibraryPath, LibraryError> {
        self.library.place_own(self.staged(content), &FileName::new(name).unwrap())
    }

    fn fetched(&self, name: &str, id: u8, content: &str) -> Result<LibraryPath, LibraryError> {
        let owner = MemberName::new("recife").unwrap();
        let (name, file) = (FileName::new(name).unwrap(), FileId::from_bytes([id; 32]));
        self.library.place_fetched(&mut self.staged(content), &owner, &name, &file)
    }

    fn in_library(&self, path: &str) -> PathBuf {
        self.library.folder().join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.in_library(path)).unwrap()
    }

    fn partial_is_empty(&self) -> bool {
        std::fs::read_dir(self.base.path().join("data/partial")).unwrap().next().is_none()
    }

    /// Every path below the base folder, for comparing.
    fn everything(&self) -> Vec<PathBuf> {
        fn below(folder: &Path, all: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                all.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    below(&entry.path(), all);
                }
            }
        }
        let mut all = Vec::new();
        below(self.base.path(), &mut all);
        all.sort();
        all
    }
}

#[test]
fn own_files_lie_under_their_name_and_fetched_ones_under_their_owners() {
    let branch = Branch::new();
    assert_eq!(branch.own("verão/plano.csv", "a").unwrap().as_str(), "verão/plano.csv");
    assert_eq!(branch.fetched("verão/plano.csv", 1, "b").unwrap().as_str(), "recife/verão/plano.csv");
    assert_eq!(
        (branch.text("verão/plano.csv"), branch.text("recife/verão/plano.csv")),
        ("a".into(), "b".into())
    );
    assert!(branch.partial_is_empty());
    let mode = |path: &str| std::fs::metadata(branch.in_library(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("verão"), mode("verão/plano.csv")), (0o700, 0o600));
    assert_eq!(
        std::fs::metadata(branch.base.path().join("data/partial")).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn an_own_file_never_takes_anothers_place_or_its_twins() {
    let branch = Branch::new();
    branch.own("Fotos/Verão.jpg", "first").unwrap();
    std::fs::write(branch.in_library("Fotos/cafe\u{301}.txt"), "by hand").unwrap();
    std::fs::File::open(branch.in_library("Fotos"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    let before = branch.everything();
    for name in ["Fotos/Verão.jpg", "Fotos", "Fotos/Verão.jpg/x"] {
        let name_ = FileName::new(name).unwrap();
        assert!(matches!(branch.library.check_free(&name_), Err(LibraryError::Taken { .. })), "{name}");
        assert!(matches!(branch.own(name, "x"), Err(LibraryError::Taken { .. })), "{name}");
    }
    for name in ["Fotos/VERÃO.JPG", "fotos/other", "Fotos/café.txt", "FOTOS"] {
        let name_ = FileName::new(name).unwrap();
        assert!(matches!(branch.library.check_free(&name_), Err(LibraryError::Twin { .. })), "{name}");
        assert!(matches!(branch.own(name, "x"), Err(LibraryError::Twin { .. })), "{name}");
    }
    assert_eq!(branch.everything(), before, "nothing half-done");
    let refusal = branch.own("fotos/a", "x").unwrap_err().to_string();
    assert!(refusal.contains("Fotos") && refusal.contains("--name"), "{refusal}");
}

#[test]
fn a_refused_name_leaves_no_empty_folders() {
    let branch = Branch::new();
    branch.own("a/b", "x").unwrap();
    let before = branch.everything();
    assert!(branch.own("a/b/c/d", "y").is_err());
    assert_eq!(branch.everything(), before);
}

#[test]
fn a_fetched_file_gives_way_with_a_suffix_from_its_id() {
    let branch = Branch::new();
    let placed = |name, id, content| branch.fetched(name, id, content).unwrap().0;
    assert_eq!(placed("a.csv", 1, "1"), "recife/a.csv");
    assert_eq!(placed("A.csv", 2, "2"), "recife/A (02020202).csv");
    assert_eq!(placed("a.csv", 3, "3"), "recife/a (03030303).csv");
    assert_eq!(placed("a.csv", 3, "4"), "recife/a (03030303-2).csv");
    // A folder's place taken by a file, and by a folder's twin.
    assert_eq!(placed("a.csv/b", 4, "5"), "recife/a (04040404).csv/b");
    branch.fetched("Sub/x", 5, "6").unwrap();
    assert_eq!(placed("sub/.env", 6, "7"), "recife/sub (06060606)/.env");
    assert_eq!((branch.text("recife/a.csv"), branch.text("recife/Sub/x")), ("1".into(), "6".into()));
}

#[test]
fn an_own_file_or_folder_called_like_a_member_clashes_with_nothing() {
    let branch = Branch::new();
    branch.own("recife", "own file").unwrap();
    assert_eq!(branch.fetched("a", 7, "theirs").unwrap().0, "recife (07070707)/a");
    let other = Branch::new();
    other.own("recife/a", "own").unwrap();
    assert_eq!(other.fetched("a", 7, "theirs").unwrap().0, "recife/a (07070707)");
    assert_eq!(other.text("recife/a"), "own");
}

#[test]
fn nothing_is_written_or_read_through_a_link_in_the_library() {
    let branch = Branch::new();
    let outside = branch.base.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, branch.in_library("link")).unwrap();
    symlink(outside.join("secret"), branch.in_library("leaf")).unwrap();
    symlink(&outside, branch.in_library("recife")).unwrap();
    assert!(branch.own("link/file", "x").is_err());
    assert!(branch.own("leaf", "x").is_err());
    assert_eq!(branch.fetched("file", 1, "x").unwrap().0, "recife (01010101)/file");
    for path in ["link/secret", "leaf"] {
        let place = Place::Library(LibraryPath::parse(path).unwrap());
        assert!(branch.library.open_file(&place).is_err(), "{path}");
    }
    assert!(branch.library.remove(&LibraryPath::parse("link/secret").unwrap()).is_err());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "secret");
}

#[test]
fn a_folder_swapped_for_a_link_again_and_again_leads_nothing_out() {
    let branch = Branch::new();
    let outside = branch.base.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let (folder, aside) = (branch.in_library("f"), branch.base.path().join("aside"));
    std::fs::create_dir(&folder).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if std::fs::rename(&folder, &aside).is_ok() {
                    let _ = symlink(&outside, &folder);
                    let _ = std::fs::remove_file(&folder);
                    let _ = std::fs::rename(&aside, &folder);
                }
            }
        });
        for round in 0..200 {
            // May be refused; may not go astray.
            let _ = branch.own(&format!("f/{round}"), "x");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_library_that_is_a_link_is_refused_and_leftovers_are_swept() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("elsewhere")).unwrap();
    symlink(base.path().join("elsewhere"), base.path().join("library")).unwrap();
    assert!(matches!(Library::open(base.path()), Err(LibraryError::Disk { .. })));
    std::fs::remove_file(base.path().join("library")).unwrap();
    std::fs::create_dir_all(base.path().join("partial")).unwrap();
    let partial = base.path().join("partial");
    let kept = PartialName { file: FileId::from_bytes([1; 32]), content: ContentId::from_bytes([2; 32]) };
    let other = PartialName { file: FileId::from_bytes([3; 32]), content: kept.content };
    std::fs::write(base.path().join("outside"), "x").unwrap();
    for name in
        ["old.part".to_owned(), format!("{kept}.part"), format!("{kept}.marks"), format!("{other}.part")]
    {
        std::fs::write(partial.join(name), "x").unwrap();
    }
    std::fs::create_dir(partial.join("folder")).unwrap();
    symlink(base.path().join("outside"), partial.join(format!("{other}.marks"))).unwrap();
    let library = Library::open(base.path()).unwrap();
    library.sweep_partials(&std::collections::HashSet::from([kept])).unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(&partial).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, [format!("{kept}.marks"), format!("{kept}.part")]);
    assert!(base.path().join("outside").exists(), "a link is removed, not followed");
}

#[test]
fn removing_a_file_removes_the_folders_that_it_leaves_empty() {
    let branch = Branch::new();
    let path = branch.own("a/b/c", "x").unwrap();
    branch.own("a/d", "y").unwrap();
    branch.library.remove(&path).unwrap();
    branch.library.remove(&path).unwrap();
    assert!(!branch.in_library("a/b").exists() && branch.in_library("a/d").exists());
}

#[test]
fn what_goes_to_the_trash_comes_back_whole_and_never_in_anothers_place() {
    let branch = Branch::new();
    let path = branch.own("a/b/plan.csv", "one").unwrap();
    let name = FileName::new("a/b/plan.csv").unwrap();
    assert!(branch.library.discard(&path, 1).unwrap());
    assert!(branch.library.is_in_trash(1) && !branch.in_library("a").exists());
    assert!(!branch.library.discard(&path, 2).unwrap(), "there is nothing any more");

    // To the very place it was taken from, or nowhere.
    branch.own("a/b/plan.csv", "two").unwrap();
    assert!(matches!(branch.library.put_back(1, &path, &name), Err(LibraryError::Taken { .. })));
    assert!(branch.library.is_in_trash(1));
    let beside = branch.library.restore(1, &path, &FileId::from_bytes([0xab; 32])).unwrap();
    assert_eq!(beside.as_str(), "a/b/plan (abababab).csv");
    assert_eq!((branch.text("a/b/plan.csv"), branch.text(beside.as_str())), ("two".into(), "one".into()));
    assert!(!branch.library.is_in_trash(1));

    assert!(branch.library.discard(&path, 3).unwrap());
    branch.library.put_back(3, &path, &name).unwrap();
    assert_eq!(branch.text("a/b/plan.csv"), "two");
    assert!(branch.library.discard(&path, 4).unwrap());
    branch.library.erase_trashed(4).unwrap();
    branch.library.erase_trashed(4).unwrap();
    assert!(!branch.library.is_in_trash(4));
}

#[test]
fn only_files_go_to_the_trash() {
    let branch = Branch::new();
    let path = branch.own("plan.csv", "one").unwrap();
    let there = branch.in_library("plan.csv");
    std::fs::remove_file(&there).unwrap();
    std::fs::create_dir(&there).unwrap();
    assert!(!branch.library.discard(&path, 1).unwrap());
    std::fs::remove_dir(&there).unwrap();
    symlink("/etc/hostname", &there).unwrap();
    assert!(!branch.library.discard(&path, 2).unwrap());
    assert!(there.is_symlink());
}

#[test]
fn a_walk_finds_every_file_in_order_and_reports_what_it_skips() {
    let branch = Branch::new();
    let shared = branch.base.path().join("shared");
    std::fs::create_dir_all(shared.join("b/deep")).unwrap();
    for file in ["b/deep/2.txt", "b/1.txt", "a.txt", ".hidden", "bad\u{202e}name", "vera\u{303}o.txt"] {
        std::fs::write(shared.join(file), "x").unwrap();
    }
    std::fs::create_dir(shared.join("nul")).unwrap();
    std::fs::write(shared.join("nul/x"), "x").unwrap();
    symlink("/etc", shared.join("etc")).unwrap();
    symlink("/etc/passwd", shared.join("passwd")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, shared.join("pipe"), FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let raw: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(vec![b'x', 0xff]);
    std::fs::write(shared.join(&raw), "x").unwrap();
    let prefix = FileName::new("Campanha").unwrap();
    let folder = Folder::open(&shared, Some(&prefix), &branch.library).unwrap();
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for found in folder.walk() {
        match found {
            Found::File { name, .. } => files.push(name.to_string()),
            Found::Skipped { relative, reason } => skipped.push((relative, reason)),
        }
    }
    assert_eq!(
        files,
        [
            "Campanha/.hidden",
            "Campanha/a.txt",
            "Campanha/b/1.txt",
            "Campanha/b/deep/2.txt",
            "Campanha/verão.txt"
        ]
    );
    let why = |name: &str| &skipped.iter().find(|(path, _)| path == Path::new(name)).unwrap().1;
    assert!(matches!(why("etc"), Skip::Irregular("a symbolic link")));
    assert!(matches!(why("passwd"), Skip::Irregular("a symbolic link")));
    assert!(matches!(why("pipe"), Skip::Irregular("a named pipe")));
    assert!(matches!(why("bad\u{202e}name"), Skip::Name(_)));
    assert!(matches!(why("nul"), Skip::Name(_)));
    assert_eq!(skipped.iter().filter(|(_, reason)| matches!(reason, Skip::NotUnicode)).count(), 1);
    assert_eq!(skipped.len(), 6);
}

#[test]
fn a_walk_does_not_go_into_the_data_folder_or_too_deep() {
    let branch = Branch::new();
    branch.own("mine", "x").unwrap();
    let deep = (0..40).fold(branch.base.path().join("deep"), |path, _| path.join("d"));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("f"), "x").unwrap();
    let folder = Folder::open(branch.base.path(), None, &branch.library).unwrap();
    let found: Vec<_> = folder.walk().collect();
    assert!(
        matches!(
            &found[..],
            [
                Found::Skipped { reason: Skip::DataFolder, .. },
                Found::Skipped { reason: Skip::Name(quarta_protocols::names::NameError::TooDeep), .. },
            ]
        ),
        "{found:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_the_name_nothing_lands_outside_the_library(
        name in "\\PC{0,30}|[a./\\\\ ]{0,20}|(\\.\\./){1,4}[a-z]{1,5}|/?[a-zA-Zéß]{1,6}(/[a-zA-Zéß.]{1,6}){0,3}",
    ) {
        let branch = Branch::new();
        if let Ok(name) = FileName::normalised(&name) {
            for id in 0..2 {
                branch.library.place_own(branch.staged("x"), &name).ok();
                branch.fetched(name.as_str(), id, "y").unwrap();
            }
        }
        let library = branch.library.folder();
        for path in branch.everything() {
            let expected = path.starts_with(&library) || ["data", "data/partial", "data/trash"].iter().any(|p| path == branch.base.path().join(p));
            prop_assert!(expected, "{path:?}");
        }
    }

    #[test]
    fn a_stored_path_that_would_leave_the_library_is_no_path(text in "\\PC{0,20}|[a./]{0,12}") {
        if let Some(path) = LibraryPath::parse(&text) {
            let joined = Path::new("/library").join(path.as_str());
            prop_assert!(joined.starts_with("/library") && joined.components().all(|c| c != std::path::Component::ParentDir));
        }
    }
}
