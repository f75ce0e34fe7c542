//! A content: one sealed form of a file's bytes, named by the hash of its manifest.
//!
//! The plaintext is cut into chunks of one size (the last may be shorter; an empty file has one empty chunk). Each is
//! sealed with AES-256-GCM under the content's own random key with its index as the nonce, so sealing is deterministic:
//! whoever has the key and the plaintext makes the very bytes that a vault stores. The manifest lists the BLAKE3 hash
//! of every *sealed* chunk, so a holder without the key can check what it keeps and a reader checks each chunk before
//! it opens it.
//!
//! ```text
//! sealed chunk i = AES-256-GCM(key, nonce = 0⁴ ‖ i as u64 big endian, aad = ∅, plaintext chunk i) ‖ tag (16 bytes)
//!
//! manifest       = 0x01                          version
//!                ‖ log2(chunk size)              1 byte, 18 (256 KiB) … 24 (16 MiB)
//!                ‖ plaintext size                u64 big endian
//!                ‖ BLAKE3(sealed chunk 0) ‖ …    32 bytes each, one per chunk
//!
//! content id     = BLAKE3-derive-key("quarta 2026 content id v1", manifest)
//! ```
//!
//! A key must never seal two plaintexts at one index. Whoever seals again from a file on disk compares the result with
//! the manifest before a byte leaves the machine ([`Manifest::check`]), so an edited file cannot leak two plaintexts
//! under one nonce.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ids::{ContentId, ID_BYTES};

/// The usual chunk size: fits the second-level cache with room for its sealed copy.
pub const CHUNK_MIN_BYTES: u64 = 1 << CHUNK_MIN_LOG2;
/// The largest chunk size.
pub const CHUNK_MAX_BYTES: u64 = 1 << CHUNK_MAX_LOG2;
/// What sealing adds to a chunk: the authentication tag.
pub const TAG_BYTES: usize = 16;
/// The largest sealed chunk.
#[allow(clippy::cast_possible_truncation, reason = "16 MiB fits every usize this runs on")]
pub const SEALED_CHUNK_MAX_BYTES: usize = CHUNK_MAX_BYTES as usize + TAG_BYTES;
/// Chunks grow with the file so that a manifest stays below 1 MiB (at the largest chunk size: below 2 MiB).
pub const CHUNKS_PREFERRED: u64 = 32_768;
/// Most chunks of any file.
pub const CHUNKS_MAX: u64 = 65_536;
/// The largest file: 1 TiB.
pub const FILE_MAX_BYTES: u64 = CHUNKS_MAX * CHUNK_MAX_BYTES;
/// The largest encoded manifest.
#[allow(clippy::cast_possible_truncation, reason = "2 MiB fits every usize this runs on")]
pub const MANIFEST_MAX_BYTES: usize = HEADER_BYTES + CHUNKS_MAX as usize * ID_BYTES;

const CHUNK_MIN_LOG2: u8 = 18;
const CHUNK_MAX_LOG2: u8 = 24;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 10;

/// How a file of some size is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    size_bytes: u64,
    chunk_log2: u8,
}

/// A file is larger than [`FILE_MAX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a file of {0} bytes is larger than the largest of {FILE_MAX_BYTES} bytes")]
pub struct TooLarge(pub u64);

impl Geometry {
    /// The geometry of new contents of this size: the smallest chunks that keep the manifest small.
    ///
    /// # Errors
    /// [`TooLarge`] above [`FILE_MAX_BYTES`].
    pub fn for_size(size_bytes: u64) -> Result<Self, TooLarge> {
        let fits = |log2: &u8| {
            let chunks = size_bytes.div_ceil(1 << log2);
            chunks <= CHUNKS_PREFERRED || (*log2 == CHUNK_MAX_LOG2 && chunks <= CHUNKS_MAX)
        };
        (CHUNK_MIN_LOG2..=CHUNK_MAX_LOG2)
            .find(fits)
            .map(|chunk_log2| Self { size_bytes, chunk_log2 })
            .ok_or(TooLarge(size_bytes))
    }

    /// The plaintext's size, in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The plaintext size of every chunk but the last, in bytes.
    pub const fn chunk_bytes(&self) -> u64 {
        1 << self.chunk_log2
    }

    /// How many chunks there are; at least one.
    #[allow(clippy::cast_possible_truncation, reason = "at most CHUNKS_MAX by construction")]
    pub const fn chunks(&self) -> u32 {
        let chunks = self.size_bytes.div_ceil(self.chunk_bytes()) as u32;
        if chunks == 0 { 1 } else { chunks }
    }

    /// Where chunk `index` begins in the plaintext, in bytes.
    pub const fn offset(&self, index: u32) -> u64 {
        index as u64 * self.chunk_bytes()
    }

    /// The plaintext length of chunk `index`, in bytes; 0 beyond the end.
    #[allow(clippy::cast_possible_truncation, reason = "at most CHUNK_MAX_BYTES")]
    pub fn plain_len(&self, index: u32) -> usize {
        self.size_bytes.saturating_sub(self.offset(index)).min(self.chunk_bytes()) as usize
    }

    /// The sealed length of chunk `index`, in bytes.
    pub fn sealed_len(&self, index: u32) -> usize {
        self.plain_len(index) + TAG_BYTES
    }

    /// The size of all sealed chunks together, in bytes.
    pub fn sealed_bytes(&self) -> u64 {
        self.size_bytes + u64::from(self.chunks()) * TAG_BYTES as u64
    }
}

/// The BLAKE3 hash of one sealed chunk.
pub type ChunkHash = [u8; ID_BYTES];

/// The hash that a manifest lists for a sealed chunk.
pub fn chunk_hash(sealed: &[u8]) -> ChunkHash {
    *blake3::hash(sealed).as_bytes()
}

/// Why a manifest or a chunk is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Not a manifest of this version and a possible geometry.
    #[error("the manifest is malformed")]
    MalformedManifest,
    /// A manifest other than the one its content id names.
    #[error("the manifest is not the one of this content")]
    OtherManifest,
    /// No such chunk.
    #[error("the content has no chunk {0}")]
    NoSuchChunk(u32),
    /// A sealed chunk's bytes are not those of the manifest.
    #[error("chunk {0} differs from the manifest")]
    OtherChunk(u32),
    /// The key does not open a chunk that is as the manifest says: the record names a wrong key.
    #[error("the key does not open chunk {0}")]
    WrongKey(u32),
}

/// The chunk size, the file's size, and the hash of every sealed chunk.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    geometry: Geometry,
    hashes: Vec<ChunkHash>,
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manifest({:?}, {} chunks)", self.geometry, self.hashes.len())
    }
}

impl Manifest {
    /// The manifest of chunks that have just been sealed, in order.
    ///
    /// # Errors
    /// [`ContentError::MalformedManifest`] where the hashes are not as many as the geometry has chunks.
    pub fn new(geometry: Geometry, hashes: Vec<ChunkHash>) -> Result<Self, ContentError> {
        if hashes.len() != geometry.chunks() as usize {
            return Err(ContentError::MalformedManifest);
        }
        Ok(Self { geometry, hashes })
    }

    /// Reads a manifest and checks that it is the one that `id` names.
    ///
    /// # Errors
    /// [`ContentError::OtherManifest`], or [`ContentError::MalformedManifest`] where whoever made the id made nonsense.
    pub fn verify(bytes: &[u8], id: &ContentId) -> Result<Self, ContentError> {
        if id_of(bytes) != *id {
            return Err(ContentError::OtherManifest);
        }
        let malformed = ContentError::MalformedManifest;
        let (header, hashes) = bytes.split_at_checked(HEADER_BYTES).ok_or(malformed)?;
        let [version, chunk_log2, size @ ..] = header else { return Err(malformed) };
        let size_bytes = u64::from_be_bytes(size.try_into().map_err(|_| malformed)?);
        if *version != VERSION || !(CHUNK_MIN_LOG2..=CHUNK_MAX_LOG2).contains(chunk_log2) {
            return Err(malformed);
        }
        if size_bytes.div_ceil(1 << chunk_log2) > CHUNKS_MAX {
            return Err(malformed);
        }
        let (hashes, []) = hashes.as_chunks::<ID_BYTES>() else { return Err(malformed) };
        Self::new(Geometry { size_bytes, chunk_log2: *chunk_log2 }, hashes.to_vec())
    }

    /// The encoded form, as drawn above.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.hashes.len() * ID_BYTES);
        bytes.push(VERSION);
        bytes.push(self.geometry.chunk_log2);
        bytes.extend_from_slice(&self.geometry.size_bytes.to_be_bytes());
        bytes.extend_from_slice(self.hashes.as_flattened());
        bytes
    }

    /// The content's id.
    pub fn id(&self) -> ContentId {
        id_of(&self.to_bytes())
    }

    /// How the file is cut.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Checks that sealed bytes are chunk `index` of this content.
    ///
    /// # Errors
    /// [`ContentError::NoSuchChunk`] or [`ContentError::OtherChunk`].
    pub fn check(&self, index: u32, sealed: &[u8]) -> Result<(), ContentError> {
        let expected = self.hashes.get(index as usize).ok_or(ContentError::NoSuchChunk(index))?;
        let same = sealed.len() == self.geometry.sealed_len(index) && chunk_hash(sealed) == *expected;
        same.then_some(()).ok_or(ContentError::OtherChunk(index))
    }
}

fn id_of(manifest: &[u8]) -> ContentId {
    ContentId::from_bytes(blake3::derive_key("quarta 2026 content id v1", manifest))
}

/// The key of one content. Prints as nothing and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct ContentKey(#[serde(with = "key_bytes")] [u8; 32]);

impl ContentKey {
    /// A key from 32 random bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The sealing and opening half for this content.
    pub fn cipher(&self) -> Cipher {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("AES-256 takes any 32 bytes");
        Cipher(LessSafeKey::new(key))
    }
}

impl fmt::Debug for ContentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContentKey(…)")
    }
}

mod key_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{ByteArray, HEXLOWER};

    pub(super) fn serialize<S: Serializer>(key: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&HEXLOWER.encode(key))
        } else {
            serializer.serialize_bytes(key)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        ByteArray::<32>::deserialize(deserializer).map(ByteArray::into_array)
    }
}

/// Seals and opens the chunks of one content.
#[derive(Debug)]
pub struct Cipher(LessSafeKey);

impl Cipher {
    /// Seals a chunk in place: the plaintext becomes ciphertext and the tag is appended.
    ///
    /// # Panics
    /// Never: AES-GCM fails only above 64 GiB, and a chunk is at most 16 MiB.
    pub fn seal(&self, index: u32, chunk: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(nonce(index), Aad::empty(), chunk)
            .expect("a chunk is far below what AES-GCM can seal");
    }

    /// Opens a sealed chunk in place and gives the plaintext.
    ///
    /// # Errors
    /// [`ContentError::WrongKey`] where key and chunk do not belong together; the buffer's content is then undefined.
    pub fn open<'a>(&self, index: u32, sealed: &'a mut [u8]) -> Result<&'a mut [u8], ContentError> {
        self.0.open_in_place(nonce(index), Aad::empty(), sealed).map_err(|_| ContentError::WrongKey(index))
    }
}

fn nonce(index: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal_all(plain: &[u8], key: &ContentKey) -> (Manifest, Vec<Vec<u8>>) {
        let geometry = Geometry::for_size(plain.len() as u64).unwrap();
        let cipher = key.cipher();
        let sealed: Vec<Vec<u8>> = (0..geometry.chunks())
            .map(|index| {
                let start = usize::try_from(geometry.offset(index)).unwrap();
                let mut chunk = plain[start..start + geometry.plain_len(index)].to_vec();
                cipher.seal(index, &mut chunk);
                chunk
            })
            .collect();
        let hashes = sealed.iter().map(|chunk| chunk_hash(chunk)).collect();
        (Manifest::new(geometry, hashes).unwrap(), sealed)
    }

    #[test]
    fn chunks_stay_small_and_manifests_too() {
        let chunk = |size| Geometry::for_size(size).unwrap().chunk_bytes();
        assert_eq!(chunk(0), 256 << 10);
        assert_eq!(chunk(8 << 30), 256 << 10);
        assert_eq!(chunk((8 << 30) + 1), 512 << 10);
        assert_eq!(chunk(FILE_MAX_BYTES), CHUNK_MAX_BYTES);
        assert_eq!(Geometry::for_size(FILE_MAX_BYTES + 1), Err(TooLarge(FILE_MAX_BYTES + 1)));
        assert_eq!(Geometry::for_size(FILE_MAX_BYTES).unwrap().chunks(), 65_536);
    }

    #[test]
    fn an_empty_file_has_one_empty_chunk_and_its_own_content() {
        let (one, sealed) = seal_all(b"", &ContentKey::from_bytes([1; 32]));
        let (two, _) = seal_all(b"", &ContentKey::from_bytes([2; 32]));
        assert_eq!(sealed, vec![sealed[0].clone()]);
        assert_eq!(sealed[0].len(), TAG_BYTES);
        assert_ne!(one.id(), two.id());
    }

    #[test]
    fn sealed_bytes_and_ids_are_held_still() {
        let plain: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
        let (manifest, sealed) = seal_all(&plain, &ContentKey::from_bytes([7; 32]));
        assert_eq!(manifest.geometry().chunks(), 3);
        assert_eq!(HEXLOWER.encode(&chunk_hash(&sealed[2])), GOLDEN_CHUNK_2);
        assert_eq!(HEXLOWER.encode(&manifest.to_bytes()[..10]), "011200000000000927c0");
        assert_eq!(manifest.id().to_string(), GOLDEN_ID);
    }
    const GOLDEN_CHUNK_2: &str = "4b8c36155a6df62077a01468df884ab37658930544dc940dcadaa7795608b769";
    const GOLDEN_ID: &str = "5ef6dcaabf021e440b9c151779489ea55c6e010ec869a68ea82cec3719a476ff";

    #[test]
    fn every_flipped_bit_of_a_chunk_and_every_wrong_index_is_found() {
        let (manifest, sealed) = seal_all(&[5; 1000], &ContentKey::from_bytes([7; 32]));
        assert_eq!(manifest.check(0, &sealed[0]), Ok(()));
        for bit in (0..sealed[0].len() * 8).step_by(7) {
            let mut changed = sealed[0].clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(manifest.check(0, &changed), Err(ContentError::OtherChunk(0)));
        }
        assert_eq!(manifest.check(0, &sealed[0][1..]), Err(ContentError::OtherChunk(0)));
        assert_eq!(manifest.check(1, &sealed[0]), Err(ContentError::NoSuchChunk(1)));
    }

    #[test]
    fn another_key_opens_nothing() {
        let (_, mut sealed) = seal_all(b"confidential", &ContentKey::from_bytes([7; 32]));
        let other = ContentKey::from_bytes([8; 32]).cipher();
        assert_eq!(other.open(0, &mut sealed[0]), Err(ContentError::WrongKey(0)));
    }

    #[test]
    fn malformed_manifests_are_refused_even_under_their_own_hash() {
        let good = seal_all(&[5; 1000], &ContentKey::from_bytes([7; 32])).0.to_bytes();
        let mut cases =
            vec![vec![], good[..9].to_vec(), good[..good.len() - 1].to_vec(), [&good[..], &[0; 32]].concat()];
        for (at, value) in [(0, 2), (1, 17), (1, 25), (1, 255), (2, 255)] {
            let mut changed = good.clone();
            changed[at] = value;
            cases.push(changed);
        }
        for bytes in cases {
            assert_eq!(
                Manifest::verify(&bytes, &id_of(&bytes)),
                Err(ContentError::MalformedManifest),
                "{bytes:02x?}"
            );
        }
        assert_eq!(
            Manifest::verify(&good, &ContentId::from_bytes([0; 32])),
            Err(ContentError::OtherManifest)
        );
    }

    #[test]
    fn a_key_never_prints() {
        assert!(!format!("{:?}", ContentKey::from_bytes([0xab; 32])).contains("ab"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_was_sealed_opens_to_the_same_bytes(size in 0usize..700_000, seed: u8) {
            let plain: Vec<u8> = (0..size).map(|i| (i % 256).to_le_bytes()[0].wrapping_mul(seed | 1)).collect();
            let key = ContentKey::from_bytes([seed; 32]);
            let (manifest, sealed) = seal_all(&plain, &key);
            let read = Manifest::verify(&manifest.to_bytes(), &manifest.id()).unwrap();
            prop_assert_eq!(&read, &manifest);
            let cipher = key.cipher();
            let mut opened = Vec::new();
            for (index, mut chunk) in (0u32..).zip(sealed) {
                prop_assert_eq!(read.check(index, &chunk), Ok(()));
                opened.extend_from_slice(cipher.open(index, &mut chunk).unwrap());
            }
            prop_assert_eq!(opened, plain);
        }
    }
}
