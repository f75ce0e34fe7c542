//! A set of chunks of one content, one bit each.
//!
//! The bytes are the form in which availability travels (`quarta_protocols::messages::chunk::Head::Availability`): the
//! first chunk in the highest bit of the first byte, the rest of the last byte zero. The same form can be stored.

/// Which of a content's chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSet {
    bits: Vec<u8>,
    chunks: u32,
    count: u32,
}

impl ChunkSet {
    /// None of a content's chunks.
    pub fn none(chunks: u32) -> Self {
        Self { bits: vec![0; chunks.div_ceil(8) as usize], chunks, count: 0 }
    }

    /// All of a content's chunks.
    pub fn all(chunks: u32) -> Self {
        let mut set = Self::none(chunks);
        for index in 0..chunks {
            set.insert(index);
        }
        set
    }

    /// Reads a set of `chunks` chunks; none where the bytes are not of one.
    pub fn from_bytes(bytes: &[u8], chunks: u32) -> Option<Self> {
        let spare = u64::try_from(bytes.len()).ok()?.checked_mul(8)?.checked_sub(u64::from(chunks))?;
        let last = bytes.last().copied().unwrap_or(0);
        if spare >= 8 || last & ((1u8 << spare) - 1) != 0 {
            return None;
        }
        let count = bytes.iter().map(|byte| byte.count_ones()).sum();
        Some(Self { bits: bytes.to_vec(), chunks, count })
    }

    /// The bytes, as described above.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bits
    }

    /// How many chunks the content has.
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// How many of them are in the set.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether all of them are.
    pub const fn is_complete(&self) -> bool {
        self.count == self.chunks
    }

    /// Whether chunk `index` is in the set; one that the content does not have is not.
    pub fn contains(&self, index: u32) -> bool {
        index < self.chunks && self.bits[index as usize / 8] & mask(index) != 0
    }

    /// Puts chunk `index` into the set; `false` where it was in, or where there is no such chunk.
    pub fn insert(&mut self, index: u32) -> bool {
        if index >= self.chunks || self.contains(index) {
            return false;
        }
        self.bits[index as usize / 8] |= mask(index);
        self.count += 1;
        true
    }
}

const fn mask(index: u32) -> u8 {
    0x80 >> (index % 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_chunk_is_the_highest_bit() {
        let mut set = ChunkSet::none(10);
        assert!(set.insert(0) && set.insert(9) && !set.insert(9) && !set.insert(10));
        assert_eq!(set.as_bytes(), [0x80, 0x40]);
        assert_eq!(ChunkSet::all(10).as_bytes(), [0xff, 0xc0]);
    }

    #[test]
    fn bytes_of_another_length_or_beyond_the_end_are_no_set() {
        assert!(ChunkSet::from_bytes(&[0xff, 0xc0], 10).is_some_and(|set| set.is_complete()));
        for bytes in [&[0xff][..], &[0xff, 0xe0], &[0xff, 0xc0, 0]] {
            assert_eq!(ChunkSet::from_bytes(bytes, 10), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_set_reads_back_and_counts_what_it_has(
            chunks in 1u32..200, wanted in prop::collection::vec(0u32..220, 0..100),
        ) {
            let mut set = ChunkSet::none(chunks);
            let new = wanted.iter().filter(|index| set.insert(**index)).count();
            prop_assert_eq!(set.count() as usize, new);
            prop_assert_eq!((0..300).filter(|i| set.contains(*i)).count(), new);
            prop_assert_eq!(ChunkSet::from_bytes(set.as_bytes(), chunks), Some(set));
        }
    }
}
