//! The clip: a ride along the hills while the sun goes down.

use std::io;

use super::avi::{self, Format};
use super::picture::{SUN, landscape};

/// A quarter of high definition: several MiB in four seconds of Motion JPEG.
const FORMAT: Format = Format { width: 640, height: 360, frames_per_second: 25 };
/// Pictures that are drawn: one second. Drawing and encoding them is most of what all samples together cost.
const DRAWN_COUNT: usize = 25;
/// How often they are shown: four seconds.
const ROUNDS: usize = 4;
/// Quality of each frame, of 100.
const FRAME_QUALITY: u8 = 90;

/// The clip as an AVI file. In each round the ground passes by once, so that the last picture leads to the first;
/// a bar along the lower edge grows from left to right, so that a viewer sees that no frame is missing.
///
/// # Errors
///
/// None that writing to memory can cause; the encoder's signature has them.
pub(super) fn clip() -> io::Result<Vec<u8>> {
    let (width, height) = (usize::from(FORMAT.width), usize::from(FORMAT.height));
    let ground = landscape(FORMAT.width, FORMAT.height);
    let drawn = (0..DRAWN_COUNT)
        .map(|frame| {
            let mut canvas = ground.scrolled(frame * width / DRAWN_COUNT);
            canvas.disc(width / 2, height / 6 + frame * height / 3 / DRAWN_COUNT, height / 12, SUN);
            for y in height - 8..height {
                canvas.span(y, 0, (frame + 1) * width / DRAWN_COUNT, SUN);
            }
            canvas.jpeg(FRAME_QUALITY)
        })
        .collect::<io::Result<Vec<_>>>()?;
    let round: Vec<&[u8]> = drawn.iter().map(Vec::as_slice).collect();
    avi::mux(FORMAT, &round.repeat(ROUNDS))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use zune_jpeg::JpegDecoder;

    use super::*;

    #[test]
    fn every_frame_in_the_file_decodes_and_the_bar_grows() {
        let bytes = clip().unwrap();
        assert!((2 << 20..16 << 20).contains(&bytes.len()), "{} bytes", bytes.len());

        let index_at = bytes.len() - 16 * DRAWN_COUNT * ROUNDS;
        assert_eq!(&bytes[index_at - 8..index_at - 4], b"idx1");
        let movi_at = bytes.windows(4).position(|word| word == b"movi").unwrap();
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        for frame in [0, DRAWN_COUNT - 1, DRAWN_COUNT, DRAWN_COUNT * ROUNDS - 1] {
            let entry_at = index_at + 16 * frame;
            let jpeg_at = movi_at + number(entry_at + 8) + 8;
            let jpeg = &bytes[jpeg_at..jpeg_at + number(entry_at + 12)];
            let mut decoder = JpegDecoder::new(Cursor::new(jpeg));
            let pixels = decoder.decode().unwrap();
            assert_eq!(decoder.dimensions(), Some((640, 360)));

            let last_row = &pixels[359 * 640 * 3..];
            let bright = last_row.chunks_exact(3).filter(|pixel| pixel[0] > 200).count();
            let drawn = (frame % DRAWN_COUNT + 1) * 640 / DRAWN_COUNT;
            assert!(bright.abs_diff(drawn) <= 8, "frame {frame}: {bright} of {drawn} pixels");
        }
    }
}
