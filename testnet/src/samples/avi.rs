//! The AVI container around Motion JPEG: a video that every player opens and that needs no video encoder, since each
//! frame is a JPEG picture of its own.
//!
//! Layout (AVI 1.0: the RIFF chunks of Microsoft's AVI RIFF File Reference). All integers are little-endian; `size` counts
//! what follows it; a chunk of odd size is followed by one zero byte that its own size does not count.
//!
//! ```text
//! RIFF size 'AVI '
//! ├─ LIST size 'hdrl'
//! │  ├─ avih 56   microseconds per frame, peak bytes/s, 0, flags, frames, 0, streams,
//! │  │            largest chunk, width, height, 4 × 0
//! │  └─ LIST size 'strl'
//! │     ├─ strh 56   'vids' 'MJPG', flags, priority+language, 0, scale, rate, start, frames,
//! │     │            largest chunk, quality, 0, frame rectangle (4 × u16)
//! │     └─ strf 40   BITMAPINFOHEADER: 40, width, height, planes (u16), bits (u16), 'MJPG',
//! │                  bytes of a decoded frame, 4 × 0
//! ├─ LIST size 'movi'
//! │  ├─ 00dc size   JPEG of frame 0
//! │  └─ 00dc …
//! └─ idx1 16 × frames   '00dc', flags, offset counted from the word 'movi', size
//! ```
//!
//! The index is optional in the format, but players cannot seek without it.

use std::io;

/// Largest file written. Sizes are 32-bit and some readers take them as signed; AVI 1.0 players stop at 1 GiB.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Bytes of a file without frames: the headers and an empty index, as the drawing adds up.
const EMPTY_FILE_BYTES: u64 = 232;
/// Bytes that a frame costs besides its JPEG: chunk header, padding, index entry.
const MAX_FRAME_OVERHEAD_BYTES: u64 = 8 + 1 + 16;

/// `avih` flag: an `idx1` chunk follows.
const HAS_INDEX: u32 = 0x10;
/// `idx1` flag: the frame decodes alone, which holds for every JPEG.
const KEY_FRAME: u32 = 0x10;
/// `strh` quality: the driver's default.
const DEFAULT_QUALITY: u32 = u32::MAX;
/// Bits of a pixel in a decoded frame.
const BITS_PER_PIXEL: u16 = 24;

/// What all frames of a clip have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// Pixels, 1 or more.
    pub(super) width: u16,
    /// Pixels, 1 or more.
    pub(super) height: u16,
    /// Frames shown in a second, 1 or more.
    pub(super) frames_per_second: u32,
}

/// The file that shows these JPEG pictures, each of the size that `format` names, one after another.
///
/// # Errors
///
/// `InvalidInput` where the file would exceed 1 GiB.
pub(super) fn mux(format: Format, frames: &[&[u8]]) -> io::Result<Vec<u8>> {
    let total_bytes: u64 = frames.iter().map(|frame| frame.len() as u64 + MAX_FRAME_OVERHEAD_BYTES).sum();
    if EMPTY_FILE_BYTES + total_bytes > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an AVI file holds at most 1 GiB; use fewer frames",
        ));
    }

    let mut riff = Riff::default();
    let file = riff.open_list(*b"RIFF", *b"AVI ");
    write_headers(&mut riff, format, frames);

    let movi = riff.open_list(*b"LIST", *b"movi");
    // The word `movi`, from which the index counts, is the last four bytes written.
    let origin = riff.bytes.len() - 4;
    let mut index = Vec::with_capacity(frames.len());
    for frame in frames {
        index.push((size_u32(riff.bytes.len() - origin), size_u32(frame.len())));
        let chunk = riff.open(*b"00dc");
        riff.bytes.extend_from_slice(frame);
        riff.close(chunk);
    }
    riff.close(movi);

    let idx1 = riff.open(*b"idx1");
    for (offset, size) in index {
        riff.word(*b"00dc");
        riff.u32s(&[KEY_FRAME, offset, size]);
    }
    riff.close(idx1);
    riff.close(file);
    Ok(riff.bytes)
}

/// The `hdrl` list.
fn write_headers(riff: &mut Riff, format: Format, frames: &[&[u8]]) {
    let frame_count = size_u32(frames.len());
    let largest = size_u32(frames.iter().map(|frame| frame.len()).max().unwrap_or(0));
    let (width, height) = (u32::from(format.width), u32::from(format.height));
    let peak_bytes_per_second = largest.saturating_mul(format.frames_per_second);

    let hdrl = riff.open_list(*b"LIST", *b"hdrl");
    let avih = riff.open(*b"avih");
    riff.u32s(&[1_000_000 / format.frames_per_second, peak_bytes_per_second, 0, HAS_INDEX]);
    riff.u32s(&[frame_count, 0, 1, largest, width, height, 0, 0, 0, 0]);
    riff.close(avih);

    let stream_list = riff.open_list(*b"LIST", *b"strl");
    let header = riff.open(*b"strh");
    riff.word(*b"vids");
    riff.word(*b"MJPG");
    riff.u32s(&[0, 0, 0, 1, format.frames_per_second, 0, frame_count, largest, DEFAULT_QUALITY, 0]);
    riff.u16s(&[0, 0, format.width, format.height]);
    riff.close(header);

    let picture = riff.open(*b"strf");
    riff.u32s(&[40, width, height]);
    riff.u16s(&[1, BITS_PER_PIXEL]);
    riff.word(*b"MJPG");
    riff.u32s(&[width.saturating_mul(height).saturating_mul(u32::from(BITS_PER_PIXEL / 8)), 0, 0, 0, 0]);
    riff.close(picture);
    riff.close(stream_list);
    riff.close(hdrl);
}

/// A count or an offset inside a file whose size [`mux`] has checked.
fn size_u32(size: usize) -> u32 {
    u32::try_from(size).expect("mux refuses files above 1 GiB")
}

/// Nested RIFF chunks in the making. A chunk's size is patched when it closes.
#[derive(Default)]
struct Riff {
    bytes: Vec<u8>,
}

/// An open chunk: where its size stands. Closing consumes it, so it happens once.
struct Open {
    size_at: usize,
}

impl Riff {
    fn open(&mut self, name: [u8; 4]) -> Open {
        self.word(name);
        let size_at = self.bytes.len();
        self.u32s(&[0]);
        Open { size_at }
    }

    fn open_list(&mut self, name: [u8; 4], form: [u8; 4]) -> Open {
        let open = self.open(name);
        self.word(form);
        open
    }

    fn close(&mut self, open: Open) {
        let body_at = open.size_at + 4;
        let size = size_u32(self.bytes.len() - body_at);
        self.bytes[open.size_at..body_at].copy_from_slice(&size.to_le_bytes());
        if !size.is_multiple_of(2) {
            self.bytes.push(0);
        }
    }

    fn word(&mut self, word: [u8; 4]) {
        self.bytes.extend_from_slice(&word);
    }

    fn u32s(&mut self, values: &[u32]) {
        for value in values {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn u16s(&mut self, values: &[u16]) {
        for value in values {
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORMAT: Format = Format { width: 640, height: 360, frames_per_second: 25 };

    /// A reader written from the format's description alone: the chunks of `bytes` as `(offset, name, body)`.
    fn chunks(bytes: &[u8]) -> Vec<(usize, [u8; 4], &[u8])> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let size = u32_at(bytes, at + 4) as usize;
            found.push((at, bytes[at..at + 4].try_into().unwrap(), &bytes[at + 8..at + 8 + size]));
            at += 8 + size + size % 2;
        }
        assert_eq!(at, bytes.len(), "the last chunk ends with its parent");
        found
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    proptest! {
        #[test]
        fn the_sizes_nest_and_the_index_leads_to_every_frame(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)
        ) {
            let borrowed: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let file = mux(FORMAT, &borrowed).unwrap();

            let outer = chunks(&file);
            prop_assert_eq!(outer.len(), 1);
            prop_assert_eq!((&outer[0].1, &outer[0].2[..4]), (b"RIFF", b"AVI ".as_slice()));
            let parts = chunks(&outer[0].2[4..]);
            let names: Vec<_> = parts.iter().map(|(_, name, _)| name).collect();
            prop_assert_eq!(names, vec![b"LIST", b"LIST", b"idx1"]);
            prop_assert_eq!(&parts[0].2[..4], b"hdrl");
            let (_, _, movi) = parts[1];
            prop_assert_eq!(&movi[..4], b"movi");

            let shown: Vec<_> = chunks(&movi[4..]).into_iter().map(|(_, _, body)| body.to_vec()).collect();
            prop_assert_eq!(&shown, &frames);
            let (_, _, index) = parts[2];
            prop_assert_eq!(index.len(), 16 * frames.len());
            for (entry, frame) in index.chunks(16).zip(&frames) {
                let (offset, size) = (u32_at(entry, 8) as usize, u32_at(entry, 12) as usize);
                prop_assert_eq!(&movi[offset..offset + 4], b"00dc");
                prop_assert_eq!(&movi[offset + 8..offset + 8 + size], &frame[..]);
            }
        }
    }

    #[test]
    fn the_headers_say_how_many_frames_of_which_size_at_which_rate() {
        let file = mux(FORMAT, &[&[1; 10], &[2; 31], &[3; 20]]).unwrap();
        let riff = chunks(&file);
        let parts = chunks(&riff[0].2[4..]);
        let hdrl = chunks(&parts[0].2[4..]);
        let (_, _, avih) = hdrl[0];
        assert_eq!((avih.len(), u32_at(avih, 0), u32_at(avih, 16)), (56, 40_000, 3));
        assert_eq!((u32_at(avih, 28), u32_at(avih, 32), u32_at(avih, 36)), (31, 640, 360));

        let stream = chunks(&hdrl[1].2[4..]);
        let (_, _, header) = stream[0];
        assert_eq!((header.len(), &header[..8]), (56, b"vidsMJPG".as_slice()));
        assert_eq!((u32_at(header, 20), u32_at(header, 24), u32_at(header, 32)), (1, 25, 3));
        let (_, _, picture) = stream[1];
        assert_eq!((picture.len(), u32_at(picture, 0), &picture[16..20]), (40, 40, b"MJPG".as_slice()));
    }

    #[test]
    fn the_headers_are_as_long_as_the_size_check_assumes() {
        assert_eq!(mux(FORMAT, &[]).unwrap().len() as u64, EMPTY_FILE_BYTES);
    }
}
