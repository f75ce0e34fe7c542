//! CBOR as Quarta uses it: every input has a size cap, is consumed to its last byte, and holds bounded sequences.
//!
//! `cbor4ii` on its own ignores bytes that follow a value and grows sequences as long as input lasts; signed and hashed
//! data must have one reading only, and a small message must not become a large allocation.

use std::{fmt, marker::PhantomData};

use cbor4ii::{
    core::utils::{BufWriter, SliceReader},
    serde::{Deserializer, Serializer},
};
use serde::{Deserialize, Serialize, de};

/// Why bytes are not the expected value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message is larger than its kind may be.
    #[error("message of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Bytes received.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Bytes follow the value.
    #[error("{0} bytes follow the value")]
    TrailingBytes(usize),
    /// The bytes are not CBOR of the expected shape.
    #[error("malformed CBOR: {0}")]
    Malformed(String),
}

/// Encodes a value.
///
/// # Panics
/// Never for the types of this crate: encoding into memory fails only for values whose own `Serialize` fails.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut serializer = Serializer::new(BufWriter::new(Vec::new()));
    value.serialize(&mut serializer).expect("encoding into memory cannot fail");
    serializer.into_inner().into_inner()
}

/// Decodes a value that fills `bytes` exactly.
///
/// # Errors
/// [`DecodeError`] where the bytes are not one such value and nothing else.
pub fn from_slice<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let mut deserializer = Deserializer::new(SliceReader::new(bytes));
    let value = T::deserialize(&mut deserializer).map_err(|e| DecodeError::Malformed(e.to_string()))?;
    let mut rest = deserializer.into_inner();
    let left = cbor4ii::core::dec::Read::fill(&mut rest, 1).map_or(0, |unread| unread.as_ref().len());
    if left == 0 { Ok(value) } else { Err(DecodeError::TrailingBytes(left)) }
}

/// Like [`from_slice`], refusing inputs above `limit` bytes before reading them.
///
/// # Errors
/// [`DecodeError`] as for [`from_slice`], and [`DecodeError::TooLarge`].
pub fn from_slice_within<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { size: bytes.len(), limit });
    }
    from_slice(bytes)
}

/// Deserializes a sequence of at most `MAX` elements: `#[serde(deserialize_with = "cbor::at_most::<MAX, _, _>")]`.
///
/// # Errors
/// The deserializer's own, and one that names the bound where it is exceeded.
pub fn at_most<'de, const MAX: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: de::Deserializer<'de>,
{
    struct Visitor<const MAX: usize, T>(PhantomData<T>);

    impl<'de, const MAX: usize, T: Deserialize<'de>> de::Visitor<'de> for Visitor<MAX, T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            // The announced length is the sender's claim: reserve no more than a page for it.
            let mut elements = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX).min(64));
            while let Some(element) = seq.next_element()? {
                if elements.len() == MAX {
                    return Err(de::Error::invalid_length(MAX + 1, &self));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(Visitor::<MAX, T>(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Few {
        #[serde(deserialize_with = "at_most::<3, _, _>")]
        names: Vec<String>,
    }

    #[test]
    fn bytes_after_a_value_are_refused() {
        let mut bytes = to_vec(&7u32);
        assert_eq!(from_slice::<u32>(&bytes), Ok(7));
        bytes.push(0);
        assert_eq!(from_slice::<u32>(&bytes), Err(DecodeError::TrailingBytes(1)));
    }

    #[test]
    fn a_sequence_longer_than_its_bound_is_refused() {
        let few = Few { names: vec!["a".into(); 3] };
        assert_eq!(from_slice::<Few>(&to_vec(&few)), Ok(few));
        let many = to_vec(&Few { names: vec![String::new(); 4] });
        assert!(matches!(from_slice::<Few>(&many), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn a_message_above_its_limit_is_refused_unread() {
        assert_eq!(from_slice_within::<u32>(&[0xff; 9], 8), Err(DecodeError::TooLarge { size: 9, limit: 8 }));
    }

    #[test]
    fn a_false_announced_length_and_deep_nesting_end_in_an_error_not_in_memory() {
        // An array that announces 2^32 - 1 elements and ends.
        assert!(from_slice::<Vec<u8>>(&[0x9a, 0xff, 0xff, 0xff, 0xff]).is_err());
        // A map {"names": [[[[…]]]]} nested 100 000 deep.
        let mut nested = vec![0xa1, 0x65];
        nested.extend_from_slice(b"names");
        nested.extend(std::iter::repeat_n(0x81, 100_000));
        nested.push(0x80);
        assert!(from_slice::<Few>(&nested).is_err());
        // The same below an unknown key, which is skipped rather than read.
        let mut unknown = vec![0xa2, 0x61, b'x'];
        unknown.extend(std::iter::repeat_n(0x81, 100_000));
        unknown.push(0x80);
        assert!(from_slice::<Few>(&unknown).is_err());
    }
}
