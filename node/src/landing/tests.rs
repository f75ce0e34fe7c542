use std::{collections::BTreeSet, path::PathBuf};

use proptest::prelude::*;
use quarta_protocols::{
    content::{CHUNK_MAX_BYTES, FILE_MAX_BYTES, Geometry, chunk_hash},
    ids::FileId,
};
use tempfile::TempDir;

use super::*;
use crate::library::Place;

/// A sealed file and where it is to arrive.
struct Delivery {
    base: TempDir,
    library: Library,
    plain: Vec<u8>,
    sealed: Vec<Vec<u8>>,
    manifest: Manifest,
    key: ContentKey,
}

impl Delivery {
    fn new(size: usize) -> Self {
        let base = tempfile::tempdir().unwrap();
        let library = Library::open(base.path()).unwrap();
        let plain: Vec<u8> = (0..253).cycle().take(size).collect();
        let key = ContentKey::from_bytes([3; 32]);
        let geometry = Geometry::for_size(size as u64).unwrap();
        let cipher = key.cipher();
        let seal = |index| {
            let start = usize::try_from(geometry.offset(index)).unwrap();
            let mut chunk = plain[start..start + geometry.plain_len(index)].to_vec();
            cipher.seal(index, &mut chunk);
            chunk
        };
        let sealed: Vec<_> = (0..geometry.chunks()).map(seal).collect();
        let manifest = Manifest::new(geometry, sealed.iter().map(|c| chunk_hash(c)).collect()).unwrap();
        Self { base, library, plain, sealed, manifest, key }
    }

    fn sum(&self) -> Sha256 {
        Sha256::from_bytes(sha2::Sha256::digest(&self.plain).into())
    }

    fn name(&self) -> PartialName {
        PartialName { file: FileId::from_bytes([1; 32]), content: self.manifest.id() }
    }

    fn begin(&self, key: &ContentKey, sum: Sha256) -> Result<Landing, LandingError> {
        Landing::begin(&self.library, self.name(), self.manifest.clone(), key, sum, || true)
    }

    fn landing(&self) -> Landing {
        self.begin(&self.key, self.sum()).unwrap()
    }

    fn place(&self, landing: &mut Landing) -> Result<Landed, LandingError> {
        let (owner, name) = (MemberName::new("recife").unwrap(), FileName::new("plano.csv").unwrap());
        landing.finish(&self.library, &owner, &name)
    }

    fn finish(&self, mut landing: Landing) -> Result<Landed, LandingError> {
        let landed = self.place(&mut landing)?;
        landing.settle(&self.library);
        Ok(landed)
    }

    fn partial(&self, suffix: &str) -> PathBuf {
        self.base.path().join("partial").join(format!("{}.{suffix}", self.name()))
    }

    /// Writes these chunks.
    fn bring(&self, landing: &Landing, chunks: impl IntoIterator<Item = u32>) {
        for index in chunks {
            landing.write(index, self.sealed[index as usize].clone()).unwrap();
        }
    }

    /// Fetches what a landing lacks, finishes it, and compares the file with the original.
    fn complete(&self, landing: Landing) {
        let missing = landing.verified().complement();
        self.bring(&landing, missing.iter());
        let landed = self.finish(landing).unwrap();
        assert!(self.arrived(&landed) == self.plain);
        assert_eq!(self.in_library(), ["plano.csv"]);
        assert!(self.partial_is_empty());
    }

    fn in_library(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.base.path().join("library/recife")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn partial_is_empty(&self) -> bool {
        std::fs::read_dir(self.base.path().join("partial")).unwrap().next().is_none()
    }

    fn arrived(&self, landed: &Landed) -> Vec<u8> {
        std::fs::read(self.library.path_of(&Place::Library(landed.path.clone()))).unwrap()
    }

    fn library_is_empty(&self) -> bool {
        std::fs::read_dir(self.base.path().join("library")).unwrap().next().is_none()
    }
}

const CHUNK: usize = 256 * 1024;

#[test]
fn files_of_every_size_arrive_whole_in_any_order() {
    for size in [0, 1, CHUNK, CHUNK + 1, 11 * CHUNK + 77] {
        for backwards in [false, true] {
            let delivery = Delivery::new(size);
            let landing = delivery.landing();
            let mut chunks: Vec<_> = (0u32..).zip(delivery.sealed.clone()).collect();
            if backwards {
                chunks.reverse();
            }
            for (index, chunk) in chunks {
                assert_eq!(landing.write(index, chunk.clone()).unwrap(), Wrote::New);
                assert_eq!(landing.write(index, chunk).unwrap(), Wrote::Known);
            }
            let landed = delivery.finish(landing).unwrap();
            assert_eq!(landed.path.as_str(), "recife/plano.csv");
            assert_eq!(landed.stamp.size_bytes, size as u64);
            assert!(delivery.arrived(&landed) == delivery.plain, "{size} bytes, backwards: {backwards}");
        }
    }
}

#[test]
fn several_threads_write_at_once() {
    let delivery = Delivery::new(40 * CHUNK + 5);
    let landing = delivery.landing();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (landing, delivery) = (&landing, &delivery);
            scope.spawn(move || {
                // Each begins elsewhere and all overlap.
                for at in 0..delivery.sealed.len() {
                    let index = (at * 7 + worker * 11) % delivery.sealed.len();
                    landing.write(u32::try_from(index).unwrap(), delivery.sealed[index].clone()).unwrap();
                }
            });
        }
    });
    assert!(landing.verified().is_full());
    let landed = delivery.finish(landing).unwrap();
    assert!(delivery.arrived(&landed) == delivery.plain);
}

#[test]
fn the_follower_keeps_up_with_chunks_in_order_and_reads_nothing_back() {
    let delivery = Delivery::new(20 * CHUNK);
    let landing = delivery.landing();
    for (index, chunk) in (0u32..).zip(&delivery.sealed) {
        landing.write(index, chunk.clone()).unwrap();
        let follower = landing.follower.lock().unwrap();
        assert_eq!((follower.next, follower.buffer.capacity()), (index + 1, 0));
    }
}

#[test]
fn a_bad_chunk_is_found_and_not_kept() {
    let delivery = Delivery::new(2 * CHUNK);
    let landing = delivery.landing();
    let mut bad = delivery.sealed[1].clone();
    bad[7] ^= 1;
    assert!(matches!(landing.write(1, bad), Err(LandingError::BadChunk(1))));
    assert!(matches!(landing.write(1, delivery.sealed[0].clone()), Err(LandingError::BadChunk(1))));
    assert!(matches!(landing.write(1, Vec::new()), Err(LandingError::BadChunk(1))));
    assert!(matches!(landing.write(2, delivery.sealed[1].clone()), Err(LandingError::NoSuchChunk(2))));
    assert_eq!(landing.verified().count(), 0);
    landing.write(0, delivery.sealed[0].clone()).unwrap();
    assert!(matches!(delivery.finish(landing), Err(LandingError::Incomplete(1))));
    assert!(delivery.library_is_empty());
}

#[test]
fn a_file_with_another_checksum_or_key_than_its_record_says_is_not_kept() {
    let delivery = Delivery::new(CHUNK + 9);
    let other = Sha256::from_bytes([0; 32]);
    let landing = delivery.begin(&delivery.key, other).unwrap();
    for (index, chunk) in (0u32..).zip(&delivery.sealed) {
        landing.write(index, chunk.clone()).unwrap();
    }
    match delivery.finish(landing) {
        Err(LandingError::OtherChecksum { expected, found }) => {
            assert_eq!((expected, found), (other, delivery.sum()));
        }
        unexpected => panic!("{unexpected:?}"),
    }
    let wrong = ContentKey::from_bytes([4; 32]);
    delivery.library.discard_partial(&delivery.name());
    let landing = delivery.begin(&wrong, delivery.sum()).unwrap();
    assert!(matches!(landing.write(0, delivery.sealed[0].clone()), Err(LandingError::WrongKey)));
    drop(landing);
    assert!(delivery.library_is_empty());
}

#[test]
fn a_full_disk_shows_before_the_first_chunk() {
    let delivery = Delivery::new(1);
    let geometry = Geometry::for_size(FILE_MAX_BYTES).unwrap();
    assert_eq!(geometry.chunk_bytes(), CHUNK_MAX_BYTES);
    let disk = rustix::fs::statvfs(delivery.base.path()).unwrap();
    assert!(
        disk.f_bavail.saturating_mul(disk.f_frsize) < FILE_MAX_BYTES,
        "this test needs a disk with less than 1 TiB free; point TMPDIR to one"
    );
    let manifest = Manifest::new(geometry, vec![[0; 32]; geometry.chunks() as usize]).unwrap();
    let name = PartialName { content: manifest.id(), ..delivery.name() };
    match Landing::begin(&delivery.library, name, manifest, &delivery.key, delivery.sum(), || true) {
        Err(LandingError::Library(LibraryError::DiskFull { needed_bytes, .. })) => {
            assert_eq!(needed_bytes, FILE_MAX_BYTES);
        }
        unexpected => panic!("{unexpected:?}"),
    }
    assert!(delivery.library_is_empty());
}

#[test]
fn what_has_arrived_is_there_the_next_time_and_the_checksum_goes_on() {
    let delivery = Delivery::new(9 * CHUNK + 7);
    let landing = delivery.landing();
    delivery.bring(&landing, [0, 1, 2, 5, 9]);
    drop(landing);
    assert_eq!(delivery.library.partial_manifest(&delivery.name()).as_ref(), Some(&delivery.manifest));
    let landing = delivery.landing();
    assert_eq!(landing.verified().iter().collect::<Vec<_>>(), [0, 1, 2, 5, 9]);
    assert_eq!(landing.follower.lock().unwrap().next, 3, "hashed while it was read back");
    delivery.complete(landing);
}

#[test]
fn one_at_a_time_has_the_data_and_a_stop_ends_the_reading_back() {
    let delivery = Delivery::new(4 * CHUNK);
    let landing = delivery.landing();
    delivery.bring(&landing, [0, 1]);
    std::thread::scope(|scope| {
        let second = scope.spawn(|| delivery.landing().verified().count());
        delivery.bring(&landing, [2]);
        assert!(!second.is_finished());
        drop(landing);
        assert_eq!(second.join().unwrap(), 3);
    });
    let stopped = Landing::begin(
        &delivery.library,
        delivery.name(),
        delivery.manifest.clone(),
        &delivery.key,
        delivery.sum(),
        || false,
    );
    assert!(matches!(stopped, Err(LandingError::Stopped)));
    assert_eq!(delivery.landing().verified().count(), 3);
}

#[test]
fn a_file_that_was_placed_and_not_noted_is_found_and_not_placed_twice() {
    for size in [CHUNK - 1, 3 * CHUNK] {
        let delivery = Delivery::new(size);
        let mut landing = delivery.landing();
        delivery.bring(&landing, landing.verified().complement().iter());
        let first = delivery.place(&mut landing).unwrap();
        // Killed before the database knew.
        drop(landing);
        let mut landing = delivery.landing();
        assert!(landing.verified().is_full());
        let again = delivery.place(&mut landing).unwrap();
        assert_eq!(again, first);
        // The database would not take it: out of the library again, and all of it is still here.
        delivery.library.remove(&again.path).unwrap();
        drop(landing);
        if size > CHUNK {
            assert!(delivery.landing().verified().is_full());
        }
        delivery.complete(delivery.landing());
    }
}

#[test]
fn a_placed_file_that_its_user_changed_is_left_alone() {
    let delivery = Delivery::new(3 * CHUNK);
    let mut landing = delivery.landing();
    delivery.bring(&landing, 0..3);
    let landed = delivery.place(&mut landing).unwrap();
    drop(landing);
    let path = delivery.library.path_of(&Place::Library(landed.path));
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"my own words", 0).unwrap();
    let landing = delivery.landing();
    assert!(landing.verified().is_empty());
    delivery.bring(&landing, 0..3);
    let second = delivery.finish(landing).unwrap();
    assert!(delivery.arrived(&second) == delivery.plain);
    assert!(std::fs::read(path).unwrap().starts_with(b"my own words"));
}

#[test]
fn links_and_folders_in_the_place_of_partial_data_are_removed_and_not_followed() {
    let delivery = Delivery::new(2 * CHUNK);
    let outside = delivery.base.path().join("outside");
    for suffix in ["part", "marks"] {
        std::fs::write(&outside, "precious").unwrap();
        std::os::unix::fs::symlink(&outside, delivery.partial(suffix)).unwrap();
        delivery.complete(delivery.landing());
        assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
        std::fs::remove_dir_all(delivery.base.path().join("library/recife")).unwrap();
        std::fs::create_dir(delivery.partial(suffix)).unwrap();
        delivery.complete(delivery.landing());
        std::fs::remove_dir_all(delivery.base.path().join("library/recife")).unwrap();
    }
}

/// What may happen to the files of an earlier attempt.
#[derive(Debug, Clone)]
enum Harm {
    FlipData(prop::sample::Index),
    CutData(prop::sample::Index),
    GrowData,
    FlipMarks(prop::sample::Index),
    CutMarks(prop::sample::Index),
    GrowMarks,
    /// As after a power loss: everything is claimed.
    ClaimAll,
    ForeignMarks,
    NoMarks,
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Harm::FlipData),
        any::<prop::sample::Index>().prop_map(Harm::CutData),
        Just(Harm::GrowData),
        any::<prop::sample::Index>().prop_map(Harm::FlipMarks),
        any::<prop::sample::Index>().prop_map(Harm::CutMarks),
        Just(Harm::GrowMarks),
        Just(Harm::ClaimAll),
        Just(Harm::ForeignMarks),
        Just(Harm::NoMarks),
    ]
}

fn do_harm(delivery: &Delivery, harm: &Harm) {
    let (data, marks) = (delivery.partial("part"), delivery.partial("marks"));
    let change = |path: &PathBuf, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(path).unwrap_or_default();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    };
    let flip = |at: &prop::sample::Index, bytes: &mut Vec<u8>| {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= 0x10;
        }
    };
    match harm {
        Harm::FlipData(at) => change(&data, &|bytes| flip(at, bytes)),
        Harm::CutData(at) => change(&data, &|bytes| bytes.truncate(at.index(bytes.len() + 1))),
        Harm::GrowData => change(&data, &|bytes| bytes.extend_from_slice(&[7; 99])),
        Harm::FlipMarks(at) => change(&marks, &|bytes| flip(at, bytes)),
        Harm::CutMarks(at) => change(&marks, &|bytes| bytes.truncate(at.index(bytes.len() + 1))),
        Harm::GrowMarks => change(&marks, &|bytes| bytes.extend_from_slice(&[0xff; 99])),
        Harm::ClaimAll => change(&marks, &|bytes| {
            let end = bytes.len().saturating_sub(2);
            bytes[end..].fill(0xff);
        }),
        Harm::ForeignMarks => {
            let other = Delivery::new(9 * CHUNK + 5);
            let landing = other.landing();
            other.bring(&landing, 0..10);
            std::fs::copy(other.partial("marks"), marks).unwrap();
        }
        Harm::NoMarks => std::fs::remove_file(marks).unwrap_or_default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn the_checksum_is_right_whatever_the_order(order in Just((0u32..9).collect::<Vec<_>>()).prop_shuffle()) {
        let delivery = Delivery::new(8 * CHUNK + 1);
        let landing = delivery.landing();
        for index in order {
            landing.write(index, delivery.sealed[index as usize].clone()).unwrap();
        }
        prop_assert!(delivery.finish(landing).is_ok());
    }

    /// Whatever somebody does to them, what an earlier attempt left brings no wrong byte in, and what is as it was is
    /// not fetched again where the marks are.
    #[test]
    fn no_harm_to_partial_data_gets_into_the_library(
        brought in prop::collection::btree_set(0u32..10, 0..10),
        harms in prop::collection::vec(harm(), 0..3),
    ) {
        let delivery = Delivery::new(9 * CHUNK + 1);
        let landing = delivery.landing();
        delivery.bring(&landing, brought.iter().copied());
        drop(landing);
        for harm in &harms {
            do_harm(&delivery, harm);
        }
        let landing = delivery.landing();
        let here: BTreeSet<u32> = landing.verified().iter().collect();
        if harms.is_empty() {
            prop_assert_eq!(&here, &brought);
        }
        prop_assert!(here.is_subset(&brought));
        drop(landing);
        let landing = delivery.landing();
        prop_assert_eq!(landing.verified().iter().collect::<BTreeSet<_>>(), here, "a second look sees the same");
        delivery.complete(landing);
    }
}
