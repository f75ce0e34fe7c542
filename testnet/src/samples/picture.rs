//! Pictures: a canvas with a few shapes, the two stills drawn on it, and their encodings as PNG and JPEG.
//!
//! Everything is integer arithmetic, so that a picture has the same pixels on every machine; film grain from a
//! [`Stream`] keeps the files as large as photographs are, where flat colour would compress to nothing.

use std::io;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::stream::Stream;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// Colours of bunting, as hung for São João.
const BUNTING: [Rgb; 5] = [[230, 57, 70], [255, 183, 3], [42, 157, 143], [33, 158, 188], [251, 133, 0]];
/// A low sun.
pub(super) const SUN: Rgb = [255, 236, 179];

/// Quality of the photograph, of 100: what cameras write.
const PHOTO_QUALITY: u8 = 94;

/// An encoded JPEG with its size in pixels, which whoever embeds it has to state.
pub(super) struct Photo {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) bytes: Vec<u8>,
}

/// A picture in the making: rows from the top, three bytes a pixel. What is drawn outside of it is cut off.
pub(super) struct Canvas {
    width: u16,
    height: u16,
    rgb: Vec<u8>,
}

impl Canvas {
    /// A vertical gradient between two colours.
    fn gradient(width: u16, height: u16, top: Rgb, bottom: Rgb) -> Self {
        let mut rgb = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
        for y in 0..height {
            rgb.extend_from_slice(&mix(top, bottom, y, height).repeat(usize::from(width)));
        }
        Self { width, height, rgb }
    }

    /// Colours the pixels `from..to` of row `y`.
    pub(super) fn span(&mut self, y: usize, from: usize, to: usize, colour: Rgb) {
        let width = usize::from(self.width);
        let (from, to) = (from.min(width), to.min(width));
        if y < usize::from(self.height) && from < to {
            let pixels = &mut self.rgb[(y * width + from) * 3..(y * width + to) * 3];
            pixels.copy_from_slice(&colour.repeat(to - from));
        }
    }

    /// A filled circle.
    pub(super) fn disc(&mut self, centre_x: usize, centre_y: usize, radius: usize, colour: Rgb) {
        for dy in 0..=radius {
            let half = (radius * radius - dy * dy).isqrt();
            let (from, to) = (centre_x.saturating_sub(half), centre_x + half + 1);
            self.span(centre_y + dy, from, to, colour);
            if let Some(above) = centre_y.checked_sub(dy) {
                self.span(above, from, to, colour);
            }
        }
    }

    /// A triangle that hangs from `(x, y)`, `width` wide at the top.
    fn pennant(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Rgb) {
        for dy in 0..height {
            let inset = dy * width / 2 / height;
            self.span(y + dy, x + inset, x + width - inset, colour);
        }
    }

    /// Hills from `foot` rows above the lower edge up to `rise` rows more, one every `period` pixels. Where `period`
    /// divides the width, the picture's left and right edges fit together.
    fn hills(&mut self, foot: usize, rise: usize, period: usize, colour: Rgb) {
        let (width, height) = (usize::from(self.width), usize::from(self.height));
        for up in 0..(foot + rise).min(height) {
            let y = height - 1 - up;
            if up < foot {
                self.span(y, 0, width, colour);
                continue;
            }
            // A hill is the parabola 4·rise·u·(period − u)/period²: solved for the row, it is one span per hill.
            let reach = period * ((rise - (up - foot)) * rise).isqrt() / rise / 2;
            for middle in (period / 2..width).step_by(period) {
                self.span(y, middle.saturating_sub(reach), middle + reach, colour);
            }
        }
    }

    /// Adds noise of this many levels, 2 to 128, to every byte.
    fn grain(&mut self, name: &str, levels: u8) {
        let mut noise = vec![0; self.rgb.len()];
        Stream::named(name).fill(&mut noise);
        for (byte, noise) in self.rgb.iter_mut().zip(noise) {
            *byte = byte.saturating_add(noise % levels).saturating_sub(levels / 2);
        }
    }

    /// The same picture moved to the left by `by` pixels, at most its width; what leaves there enters on the right.
    pub(super) fn scrolled(&self, by: usize) -> Self {
        let mut rgb = Vec::with_capacity(self.rgb.len());
        for row in self.rgb.chunks_exact(usize::from(self.width) * 3) {
            let (left, right) = row.split_at(by * 3);
            rgb.extend_from_slice(right);
            rgb.extend_from_slice(left);
        }
        Self { rgb, ..*self }
    }

    /// The picture as baseline JPEG of this quality, 1 to 100.
    ///
    /// # Errors
    ///
    /// None that writing to memory can cause; the encoder's signature has them.
    pub(super) fn jpeg(&self, quality: u8) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, quality);
        // What cameras write and every video player takes; the encoder's own choice changes with the quality.
        encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
        encoder.encode(&self.rgb, self.width, self.height, ColorType::Rgb).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// The picture as PNG, 8 bits in each of three channels.
    ///
    /// # Errors
    ///
    /// None that writing to memory can cause; the encoder's signature has them.
    fn png(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width.into(), self.height.into());
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()?;
        Ok(bytes)
    }
}

/// The colour `part`/`whole` of the way from one to the other; `part` is at most `whole`.
fn mix(from: Rgb, to: Rgb, part: u16, whole: u16) -> Rgb {
    let (part, whole) = (u32::from(part), u32::from(whole));
    [0, 1, 2].map(|channel| {
        let sum = u32::from(from[channel]) * (whole - part) + u32::from(to[channel]) * part;
        u8::try_from(sum / whole).expect("between two bytes")
    })
}

/// Hills under an evening sky, whose left and right edges fit together where ten divides the width.
pub(super) fn landscape(width: u16, height: u16) -> Canvas {
    let (across, down) = (usize::from(width), usize::from(height));
    let mut canvas = Canvas::gradient(width, height, [29, 53, 87], [255, 140, 66]);
    canvas.hills(down / 6, down / 5, across / 2, [109, 76, 65]);
    canvas.hills(down / 10, down / 8, across / 5, [62, 39, 35]);
    canvas.hills(0, down / 9, across / 10, [27, 38, 20]);
    canvas.grain("landscape", 24);
    canvas
}

/// The photograph: the landscape with the sun above it.
pub(super) fn photo() -> io::Result<Photo> {
    let (width, height) = (1280, 854);
    let mut canvas = landscape(width, height);
    canvas.disc(400, 300, 90, SUN);
    Ok(Photo { width, height, bytes: canvas.jpeg(PHOTO_QUALITY)? })
}

/// The poster, as PNG: bunting under a night sky.
pub(super) fn poster() -> io::Result<Vec<u8>> {
    let mut canvas = Canvas::gradient(1000, 1250, [13, 27, 62], [190, 74, 47]);
    canvas.disc(720, 330, 120, [250, 250, 235]);
    for (line, y) in [60, 480, 900].into_iter().enumerate() {
        for (index, x) in (20..980).step_by(96).enumerate() {
            canvas.pennant(x, y, 80, 110, BUNTING[(index + line) % BUNTING.len()]);
        }
    }
    canvas.hills(90, 60, 250, [40, 26, 20]);
    canvas.grain("poster", 8);
    canvas.png()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use zune_jpeg::JpegDecoder;

    use super::*;

    #[test]
    fn the_poster_decodes_to_the_true_colour_pixels_that_were_drawn() {
        let bytes = poster().unwrap();
        let mib = 1 << 20;
        assert!((mib..2 * mib).contains(&bytes.len()), "{} bytes", bytes.len());

        let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (1000, 1250));
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        let moon = &pixels[(330 * 1000 + 720) * 3..][..3];
        assert!(moon.iter().all(|channel| *channel > 225), "{moon:?}");
        let sky = &pixels[..3];
        assert!(sky[2] > sky[0], "{sky:?}");
    }

    #[test]
    fn the_photograph_decodes_as_a_baseline_jpeg_of_its_size() {
        let photo = photo().unwrap();
        let baseline_frame = [0xFF, 0xC0];
        assert!(photo.bytes.windows(2).any(|marker| marker == baseline_frame));

        let mut decoder = JpegDecoder::new(Cursor::new(&photo.bytes));
        let pixels = decoder.decode().unwrap();
        assert_eq!(decoder.dimensions(), Some((usize::from(photo.width), usize::from(photo.height))));
        let at = |x: usize, y: usize| &pixels[(y * usize::from(photo.width) + x) * 3..][..3];
        for (seen, drawn) in at(400, 300).iter().zip(SUN) {
            assert!(seen.abs_diff(drawn) < 8, "the sun is {:?}", at(400, 300));
        }
        assert!(at(700, 850).iter().all(|channel| *channel < 60), "the foreground is {:?}", at(700, 850));
    }

    #[test]
    fn shapes_beyond_the_edges_are_cut_off() {
        let mut canvas = Canvas::gradient(10, 10, [0; 3], [0; 3]);
        canvas.disc(0, 0, 4, [9; 3]);
        canvas.disc(9, 9, 40, [7; 3]);
        canvas.span(11, 0, 5, [1; 3]);
        canvas.span(5, 12, 15, [1; 3]);
        assert!(canvas.rgb.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn scrolling_by_the_whole_width_changes_nothing() {
        let canvas = landscape(100, 60);
        assert!(canvas.scrolled(100).rgb == canvas.rgb);
        assert!(canvas.scrolled(30).scrolled(70).rgb == canvas.rgb);
        assert!(canvas.scrolled(30).rgb != canvas.rgb);
    }
}
