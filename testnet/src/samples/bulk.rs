//! The big file: as many pseudo-random bytes as wanted, made faster than a disk takes them.

use std::io::{self, Write};

use super::stream::Stream;

/// Bytes made and written at a time. 1 MiB stays in the second-level cache and makes system calls rare.
const BLOCK_BYTES: u64 = 1 << 20;

/// Writes `size_bytes` bytes that neither compress nor repeat, and answers `size_bytes`. Those of one name are always the
/// same, and a shorter file is the beginning of a longer one.
///
/// # Errors
///
/// What `out` answers.
pub(super) fn write(out: &mut impl Write, name: &str, size_bytes: u64) -> io::Result<u64> {
    let mut stream = Stream::named(name);
    let mut block = vec![0; usize::try_from(BLOCK_BYTES.min(size_bytes)).expect("at most 1 MiB")];
    let mut left_bytes = size_bytes;
    while left_bytes > 0 {
        let length = usize::try_from(left_bytes.min(BLOCK_BYTES)).expect("at most 1 MiB");
        stream.fill(&mut block[..length]);
        out.write_all(&block[..length])?;
        left_bytes -= length as u64;
    }
    Ok(size_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn bulk(size_bytes: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert_eq!(write(&mut bytes, "bulk", size_bytes).unwrap(), size_bytes);
        bytes
    }

    #[test]
    fn any_size_is_met_exactly_and_is_the_beginning_of_a_longer_one() {
        let longest = bulk(2 * BLOCK_BYTES + 1);
        for size in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES] {
            let bytes = bulk(size);
            assert_eq!(bytes.len() as u64, size);
            assert!(longest.starts_with(&bytes), "{size} bytes");
        }
    }

    #[test]
    fn it_does_not_compress() {
        let bytes = bulk(3 * BLOCK_BYTES);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&bytes).unwrap();
        assert!(encoder.finish().unwrap().len() >= bytes.len());
    }
}
