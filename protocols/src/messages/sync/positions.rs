//! Where an entry stands among all entries, and how such places travel.
//!
//! ```text
//! position (48 bits) = ‖ leaf: 4 hexadecimal digits ‖ place in the leaf: 32 bits ‖
//! item (14 bytes)    = ‖ position (6) ‖ tag (8) ‖          tag = the first 8 bytes of the entry's item hash
//! ```
//!
//! A position follows from kind and id alone, so that the versions of one thing share it; hashed, so that entries spread
//! over the leaves whatever their ids look like. Two things may come to share a position (in a million entries, with a
//! chance of one in 500, or because somebody wanted it so): then both are exchanged, only later.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Kind;
use crate::ids::ID_BYTES;

/// Branches below each place of the tree: one for each hexadecimal digit.
pub const BRANCHES: usize = 16;
/// Levels of branches below the root; those of the last level are the leaves.
pub const LEVELS: u8 = 4;
/// Leaves: about one entry each in a network of 100 000 files, and lists of a few dozen in one of millions.
pub const LEAVES: usize = BRANCHES.pow(LEVELS as u32);
/// Length of a position as it travels, in bytes.
pub const POSITION_BYTES: usize = 6;
/// Length of an item as it travels, in bytes.
pub const ITEM_BYTES: usize = POSITION_BYTES + 8;
/// Length of what a branch comes to, in bytes.
pub const SUM_BYTES: usize = 8;

/// The hash of an entry's kind, id and payload: what digests and trees are made of.
pub fn item_hash(kind: Kind, id: &[u8; ID_BYTES], payload: &[u8]) -> [u8; ID_BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 catalog digest v1");
    hasher.update(&kind.0.to_be_bytes());
    hasher.update(id);
    hasher.update(payload);
    *hasher.finalize().as_bytes()
}

/// Where the entries of one kind and id stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Position(u64);

impl Position {
    const LAST: u64 = (1 << (8 * POSITION_BYTES)) - 1;

    /// Of a kind and id.
    pub fn of(kind: Kind, id: &[u8; ID_BYTES]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("quarta 2026 catalog position v1");
        hasher.update(&kind.0.to_be_bytes());
        hasher.update(id);
        let mut bytes = [0; POSITION_BYTES];
        hasher.finalize_xof().fill(&mut bytes);
        Self::read(&bytes)
    }

    /// The place of a leaf.
    pub const fn at(leaf: u16, place: u32) -> Self {
        Self((leaf as u64) << 32 | place as u64)
    }

    /// The leaf.
    #[expect(clippy::cast_possible_truncation, reason = "a position has 48 bits")]
    pub const fn leaf(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The place in it.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub const fn place(self) -> u32 {
        self.0 as u32
    }

    /// The next one; none after the last.
    pub const fn next(self) -> Option<Self> {
        if self.0 == Self::LAST { None } else { Some(Self(self.0 + 1)) }
    }
}

impl From<Position> for u64 {
    fn from(position: Position) -> Self {
        position.0
    }
}

impl TryFrom<u64> for Position {
    type Error = &'static str;

    fn try_from(number: u64) -> Result<Self, Self::Error> {
        if number <= Self::LAST { Ok(Self(number)) } else { Err("a position has 48 bits") }
    }
}

/// An entry in short: where it stands, and what tells it from other versions of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Where.
    pub position: Position,
    /// The beginning of its [`item_hash`].
    pub tag: u64,
}

impl Item {
    /// Of an entry.
    pub fn of(kind: Kind, id: &[u8; ID_BYTES], payload: &[u8]) -> Self {
        Self { position: Position::of(kind, id), tag: Self::tag(&item_hash(kind, id, payload)) }
    }

    /// The tag in an item hash.
    pub fn tag(hash: &[u8; ID_BYTES]) -> u64 {
        u64::read(&hash[..SUM_BYTES])
    }
}

/// A value that always travels in as many bytes.
pub trait Fixed: Copy {
    /// How many.
    const BYTES: usize;
    /// Appends it.
    fn write(self, bytes: &mut Vec<u8>);
    /// Reads it from exactly [`Self::BYTES`] bytes; any are one.
    fn read(bytes: &[u8]) -> Self;
}

impl Fixed for u16 {
    const BYTES: usize = 2;

    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        bytes.iter().fold(0, |number, byte| number << 8 | Self::from(*byte))
    }
}

impl Fixed for u64 {
    const BYTES: usize = SUM_BYTES;

    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        bytes.iter().fold(0, |number, byte| number << 8 | Self::from(*byte))
    }
}

impl Fixed for Position {
    const BYTES: usize = POSITION_BYTES;

    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.0.to_be_bytes()[8 - POSITION_BYTES..]);
    }

    fn read(bytes: &[u8]) -> Self {
        Self(u64::read(bytes) & Self::LAST)
    }
}

impl Fixed for Item {
    const BYTES: usize = ITEM_BYTES;

    fn write(self, bytes: &mut Vec<u8>) {
        self.position.write(bytes);
        self.tag.write(bytes);
    }

    fn read(bytes: &[u8]) -> Self {
        let (position, tag) = bytes.split_at(POSITION_BYTES);
        Self { position: Position::read(position), tag: u64::read(tag) }
    }
}

/// Values of fixed width as one byte string, without anything between them: a third of what a CBOR sequence takes.
///
/// Decoded it takes at most a third more memory than the message it came in, whose size is capped.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Packed<T>(pub Vec<T>);

impl<T> Default for Packed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<T> for Packed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl<T> fmt::Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({})", self.0.len())
    }
}

impl<T: Fixed> Serialize for Packed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.len() * T::BYTES);
        for value in &self.0 {
            value.write(&mut bytes);
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de, T: Fixed> Deserialize<'de> for Packed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes: &[u8] = Deserialize::deserialize(deserializer)?;
        let values = bytes.chunks_exact(T::BYTES);
        if !values.remainder().is_empty() {
            return Err(de::Error::custom(format_args!("not a multiple of {} bytes", T::BYTES)));
        }
        Ok(Self(values.map(T::read).collect()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cbor;

    #[test]
    fn a_position_is_a_leaf_and_a_place_in_it() {
        let position = Position::at(0xbeef, 7);
        assert_eq!((position.leaf(), position.place()), (0xbeef, 7));
        assert_eq!(Position::at(1, u32::MAX).next(), Some(Position::at(2, 0)));
        assert_eq!(Position::at(u16::MAX, u32::MAX).next(), None);
        assert!(Position::try_from(1 << 48).is_err());
    }

    #[test]
    fn versions_of_one_thing_share_their_position_and_differ_in_their_tag() {
        let (a, b) = (Item::of(Kind::FILE, &[1; 32], b"a"), Item::of(Kind::FILE, &[1; 32], b"b"));
        assert_eq!(a.position, b.position);
        assert_ne!(a.tag, b.tag);
        assert_ne!(a.position, Position::of(Kind::MEMBER, &[1; 32]));
    }

    #[test]
    fn a_byte_string_of_another_width_is_refused() {
        let bytes = cbor::to_vec(serde_bytes::Bytes::new(&[0; 13]));
        assert!(cbor::from_slice::<Packed<Item>>(&bytes).is_err());
        assert_eq!(
            cbor::from_slice::<Packed<u16>>(&cbor::to_vec(&Packed::<u16>::default())),
            Ok(Packed::default())
        );
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked_and_takes_its_width(values in prop::collection::vec((0..=Position::LAST, any::<u64>()), 0..100)) {
            let items: Packed<Item> =
                values.into_iter().map(|(at, tag)| Item { position: Position(at), tag }).collect();
            let bytes = cbor::to_vec(&items);
            prop_assert!(bytes.len() <= items.0.len() * ITEM_BYTES + 5);
            prop_assert_eq!(cbor::from_slice::<Packed<Item>>(&bytes), Ok(items));
        }
    }
}
