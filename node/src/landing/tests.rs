use proptest::prelude::*;
use quarta_protocols::content::{CHUNK_MAX_BYTES, FILE_MAX_BYTES, Geometry, chunk_hash};
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
        let plain: Vec<u8> = (0..size).map(|i| (i % 253) as u8).collect();
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

    fn landing(&self) -> Landing {
        Landing::create(&self.library, self.manifest.clone(), &self.key, self.sum()).unwrap()
    }

    fn finish(&self, landing: Landing) -> Result<Landed, LandingError> {
        let (owner, name) = (MemberName::new("recife").unwrap(), FileName::new("plano.csv").unwrap());
        landing.finish(&self.library, &owner, &name, &FileId::from_bytes([1; 32]))
    }

    fn arrived(&self, landed: &Landed) -> Vec<u8> {
        std::fs::read(self.library.path_of(&Place::Library(landed.path.clone()))).unwrap()
    }

    /// Nothing in the library, nothing in the making.
    fn nothing_is_left(&self) -> bool {
        ["library", "partial"]
            .iter()
            .all(|folder| std::fs::read_dir(self.base.path().join(folder)).unwrap().next().is_none())
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
    assert!(landing.verified().is_complete());
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
    assert!(delivery.nothing_is_left());
}

#[test]
fn a_file_with_another_checksum_or_key_than_its_record_says_is_not_kept() {
    let delivery = Delivery::new(CHUNK + 9);
    let other = Sha256::from_bytes([0; 32]);
    let landing =
        Landing::create(&delivery.library, delivery.manifest.clone(), &delivery.key, other).unwrap();
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
    let landing =
        Landing::create(&delivery.library, delivery.manifest.clone(), &wrong, delivery.sum()).unwrap();
    assert!(matches!(landing.write(0, delivery.sealed[0].clone()), Err(LandingError::WrongKey)));
    drop(landing);
    assert!(delivery.nothing_is_left());
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
    match Landing::create(&delivery.library, manifest, &delivery.key, delivery.sum()) {
        Err(LandingError::Library(LibraryError::DiskFull { needed_bytes, .. })) => {
            assert_eq!(needed_bytes, FILE_MAX_BYTES);
        }
        unexpected => panic!("{unexpected:?}"),
    }
    assert!(delivery.nothing_is_left());
}

#[test]
fn the_partial_file_goes_with_its_landing() {
    let delivery = Delivery::new(CHUNK);
    let landing = delivery.landing();
    landing.write(0, delivery.sealed[0].clone()).unwrap();
    assert_eq!(std::fs::read_dir(delivery.base.path().join("partial")).unwrap().count(), 1);
    drop(landing);
    assert!(delivery.nothing_is_left());
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
}
