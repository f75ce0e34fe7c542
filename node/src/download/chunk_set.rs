//! Which chunks of a content: those verified, those a holder offers, those still to fetch.

use quarta_protocols::content::CHUNKS_MAX;

/// A set of chunk indices below a fixed count.
///
/// 64 chunks to a word, so that "the first chunk that I miss and you have" costs some hundred operations for the
/// largest content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSet {
    words: Vec<u64>,
    chunks: u32,
}

/// A bitmap is not one of a content with so many chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bitmap of {bytes} bytes does not describe {chunks} chunks")]
pub struct WrongBitmap {
    /// The bitmap's length, in bytes.
    pub bytes: usize,
    /// The content's chunks.
    pub chunks: u32,
}

impl ChunkSet {
    /// None of so many chunks.
    pub fn none(chunks: u32) -> Self {
        debug_assert!(u64::from(chunks) <= CHUNKS_MAX, "no content has more");
        Self { words: vec![0; chunks.div_ceil(64) as usize], chunks }
    }

    /// All of so many chunks.
    pub fn all(chunks: u32) -> Self {
        let mut set = Self::none(chunks);
        set.words.fill(u64::MAX);
        set.clear_beyond_end();
        set
    }

    /// Reads the bitmap of [`quarta_protocols::messages::chunk::Head::Availability`]: the first chunk in the highest
    /// bit of the first byte. Bits beyond the last chunk mean nothing.
    ///
    /// # Errors
    /// [`WrongBitmap`] where the length is not that of `chunks` bits.
    pub fn from_wire(bytes: &[u8], chunks: u32) -> Result<Self, WrongBitmap> {
        if bytes.len() != chunks.div_ceil(8) as usize {
            return Err(WrongBitmap { bytes: bytes.len(), chunks });
        }
        let mut set = Self::none(chunks);
        for (word, eight) in set.words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..eight.len()].copy_from_slice(eight);
            *word = u64::from_be_bytes(padded).reverse_bits();
        }
        set.clear_beyond_end();
        Ok(set)
    }

    /// The bitmap that [`Self::from_wire`] reads.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            self.words.iter().flat_map(|word| word.reverse_bits().to_be_bytes()).collect();
        bytes.truncate(self.chunks.div_ceil(8) as usize);
        bytes
    }

    /// The byte `at` of [`Self::to_wire`]; 0 beyond its end.
    pub fn wire_byte(&self, at: u32) -> u8 {
        let word = self.words.get(at as usize / 8).copied().unwrap_or(0);
        word.reverse_bits().to_be_bytes()[at as usize % 8]
    }

    fn clear_beyond_end(&mut self) {
        if let (Some(last), used @ 1..) = (self.words.last_mut(), self.chunks % 64) {
            *last &= (1 << used) - 1;
        }
    }

    /// Of how many chunks this is a set.
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Whether the chunk is in the set.
    pub fn contains(&self, index: u32) -> bool {
        index < self.chunks && self.words[index as usize / 64] & (1 << (index % 64)) != 0
    }

    /// Puts a chunk in; an index beyond the end is ignored. Says whether it is new.
    pub fn insert(&mut self, index: u32) -> bool {
        let new = index < self.chunks && !self.contains(index);
        if new {
            self.words[index as usize / 64] |= 1 << (index % 64);
        }
        new
    }

    /// Takes a chunk out. Says whether it was there.
    pub fn remove(&mut self, index: u32) -> bool {
        let there = self.contains(index);
        if there {
            self.words[index as usize / 64] &= !(1 << (index % 64));
        }
        there
    }

    /// How many chunks are in the set.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether the set has no chunk.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether the set has every chunk.
    pub fn is_full(&self) -> bool {
        self.count() == self.chunks
    }

    /// The chunks, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.chunks).filter(|index| self.contains(*index))
    }

    /// The chunks that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut set = Self { words: self.words.iter().map(|word| !word).collect(), chunks: self.chunks };
        set.clear_beyond_end();
        set
    }

    /// The lowest chunk that is in both sets.
    pub fn first_in_both(&self, other: &Self) -> Option<u32> {
        let both = self.words.iter().zip(&other.words).map(|(a, b)| a & b);
        (0..)
            .zip(both)
            .find(|(_, word)| *word != 0)
            .map(|(at, word): (u32, u64)| at * 64 + word.trailing_zeros())
    }

    /// The chunks that are in both sets.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        self.each_word(other, |word, other| word & other)
    }

    /// The chunks that are not in the other set.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.each_word(other, |word, other| word & !other)
    }

    /// The chunks that are in either set.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        self.each_word(other, |word, other| word | other)
    }

    fn each_word(&self, other: &Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        debug_assert_eq!(self.chunks, other.chunks, "of one content");
        let words = self.words.iter().zip(&other.words).map(|(word, other)| operation(*word, *other));
        Self { words: words.collect(), chunks: self.chunks }
    }

    /// The lowest chunk of the set that is not below `from`.
    pub fn next_from(&self, from: u32) -> Option<u32> {
        let at = from as usize / 64;
        let first = self.words.get(at)? & (u64::MAX << (from % 64));
        let words = std::iter::once(first).chain(self.words[at + 1..].iter().copied());
        (from / 64..)
            .zip(words)
            .find(|(_, word)| *word != 0)
            .map(|(at, word)| at * 64 + word.trailing_zeros())
    }

    /// The chunk of the set that so many others of it are below.
    pub fn nth(&self, mut below: u32) -> Option<u32> {
        let holds = |(_, word): &(u32, u64)| {
            let here = word.count_ones();
            let found = below < here;
            below -= if found { 0 } else { here };
            found
        };
        let (at, word) = (0..).zip(self.words.iter().copied()).find(holds)?;
        // Without the lowest ones before it.
        let rest = (0..below).fold(word, |rest, _| rest & (rest - 1));
        Some(at * 64 + rest.trailing_zeros())
    }

    /// Whether every chunk of this set is in one of the others.
    pub fn covered_by<'a>(&self, others: impl Iterator<Item = &'a Self> + Clone) -> bool {
        let offered =
            |at: usize| others.clone().fold(0, |word, other| word | other.words.get(at).unwrap_or(&0));
        self.words.iter().enumerate().all(|(at, word)| *word == 0 || word & !offered(at) == 0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::cast_possible_truncation,
        clippy::needless_for_each,
        reason = "small numbers and short loops"
    )]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_behaves_as_a_set_and_survives_the_wire(
            chunks in 1..200u32,
            members in prop::collection::btree_set(0..200u32, 0..80),
            others in prop::collection::btree_set(0..200u32, 0..80),
        ) {
            let build = |members: &BTreeSet<u32>| {
                let mut set = ChunkSet::none(chunks);
                members.iter().for_each(|index| assert_eq!(set.insert(*index), *index < chunks));
                set
            };
            let (set, other) = (build(&members), build(&others));
            let within: BTreeSet<u32> = members.into_iter().filter(|index| *index < chunks).collect();
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), within.clone());
            prop_assert_eq!(set.count() as usize, within.len());
            prop_assert_eq!(ChunkSet::from_wire(&set.to_wire(), chunks).unwrap(), set.clone());
            let wire = set.to_wire();
            prop_assert!(wire.iter().enumerate().all(|(at, byte)| set.wire_byte(at as u32) == *byte));
            prop_assert_eq!(set.first_in_both(&other), within.intersection(&others).next().copied());
            prop_assert_eq!(set.complement().complement(), set.clone());
            prop_assert!(set.complement().first_in_both(&set).is_none());
            prop_assert_eq!(set.covered_by([&other].into_iter()), within.is_subset(&others));
            prop_assert!(ChunkSet::all(chunks).covered_by([&set, &set.complement()].into_iter()));
            let other_within = || others.iter().copied().filter(|index| *index < chunks).collect::<BTreeSet<_>>();
            prop_assert_eq!(set.and(&other).iter().collect::<BTreeSet<_>>(), &within & &other_within());
            prop_assert_eq!(set.or(&other).iter().collect::<BTreeSet<_>>(), &within | &other_within());
            prop_assert_eq!(set.without(&other).iter().collect::<BTreeSet<_>>(), &within - &other_within());
            for from in 0..chunks + 70 {
                prop_assert_eq!(set.next_from(from), within.range(from..).next().copied());
            }
            for below in 0..chunks {
                prop_assert_eq!(set.nth(below), within.iter().nth(below as usize).copied());
            }
        }
    }

    #[test]
    fn the_first_chunk_is_the_highest_bit_of_the_first_byte() {
        let mut set = ChunkSet::none(70);
        [0, 9, 69].into_iter().for_each(|index| {
            set.insert(index);
        });
        assert_eq!(set.to_wire(), [0b1000_0000, 0b0100_0000, 0, 0, 0, 0, 0, 0, 0b0000_0100]);
    }

    #[test]
    fn a_bitmap_of_another_length_is_refused_and_bits_beyond_the_end_are_ignored() {
        assert_eq!(ChunkSet::from_wire(&[0xff; 2], 17), Err(WrongBitmap { bytes: 2, chunks: 17 }));
        assert_eq!(ChunkSet::from_wire(&[0xff; 3], 17).unwrap(), ChunkSet::all(17));
    }
}
