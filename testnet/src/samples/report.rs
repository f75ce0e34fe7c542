//! The results report: a PDF of two A4 pages.

use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use super::media_plan::BRANCHES;
use super::picture::Photo;
use super::stream::Stream;

/// A4 in points (1/72 inch).
const A4: Rect = Rect { x1: 0.0, y1: 0.0, x2: 595.0, y2: 842.0 };
/// Where text begins, in points from the left edge.
const MARGIN: f32 = 60.0;

const CATALOG: Ref = Ref::new(1);
const PAGES: Ref = Ref::new(2);
const COVER: Ref = Ref::new(3);
const COVER_CONTENT: Ref = Ref::new(4);
const CHART: Ref = Ref::new(5);
const CHART_CONTENT: Ref = Ref::new(6);
const REGULAR_FONT: Ref = Ref::new(7);
const BOLD_FONT: Ref = Ref::new(8);
const PICTURE: Ref = Ref::new(9);
const INFO: Ref = Ref::new(10);

/// The names under which the pages' drawing instructions know fonts and picture.
const REGULAR: Name<'static> = Name(b"Regular");
const BOLD: Name<'static> = Name(b"Bold");
const PHOTO: Name<'static> = Name(b"Photo");

/// The report: a cover with text and this photograph, and a bar chart of the branches. Its fonts are two of those that
/// every reader has.
pub(super) fn pdf(photo: &Photo) -> Vec<u8> {
    let mut pdf = Pdf::new();
    pdf.catalog(CATALOG).pages(PAGES);
    pdf.pages(PAGES).kids([COVER, CHART]).count(2);
    pdf.document_info(INFO).title(TextStr("Relatório de resultados – São João 2026"));

    for (font, base) in [(REGULAR_FONT, Name(b"Helvetica")), (BOLD_FONT, Name(b"Helvetica-Bold"))] {
        pdf.type1_font(font).base_font(base).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    // A JPEG stands in a PDF as it is.
    let mut picture = pdf.image_xobject(PICTURE, &photo.bytes);
    picture.filter(Filter::DctDecode);
    picture.width(photo.width.into()).height(photo.height.into()).bits_per_component(8);
    picture.color_space().device_rgb();
    picture.finish();

    for (page, content, instructions) in
        [(COVER, COVER_CONTENT, cover(photo)), (CHART, CHART_CONTENT, chart())]
    {
        let mut page = pdf.page(page);
        page.media_box(A4).parent(PAGES).contents(content);
        let mut resources = page.resources();
        resources.fonts().pair(REGULAR, REGULAR_FONT).pair(BOLD, BOLD_FONT);
        resources.x_objects().pair(PHOTO, PICTURE);
        resources.finish();
        page.finish();
        pdf.stream(content, &instructions.finish());
    }
    pdf.finish()
}

/// The first page.
fn cover(photo: &Photo) -> Content {
    let mut page = Content::new();
    text(&mut page, BOLD, 24.0, (MARGIN, 760.0), "Relatório de resultados");
    text(&mut page, REGULAR, 14.0, (MARGIN, 734.0), "Campanha São João 2026 – Café Sertão");
    let paragraph = [
        "A campanha alcançou as doze praças previstas. A lembrança espontânea da marca subiu",
        "em todas elas, com destaque para as capitais fora do Nordeste, onde partiu de uma",
        "base menor. A página seguinte compara as filiais.",
    ];
    for (line, y) in paragraph.into_iter().zip([690.0, 674.0, 658.0]) {
        text(&mut page, REGULAR, 11.0, (MARGIN, y), line);
    }

    let width = A4.x2 - 2.0 * MARGIN;
    let height = width * f32::from(photo.height) / f32::from(photo.width);
    page.save_state();
    // An image is one unit square until it is scaled and moved.
    page.transform([width, 0.0, 0.0, height, MARGIN, 620.0 - height]);
    page.x_object(PHOTO);
    page.restore_state();
    page
}

/// The second page.
fn chart() -> Content {
    let mut page = Content::new();
    text(&mut page, BOLD, 16.0, (MARGIN, 760.0), "Lembrança da marca por filial, em %");
    let mut stream = Stream::named("report");
    let mut y = 700.0;
    for branch in BRANCHES {
        let percent = u16::try_from(20 + stream.below(60)).expect("below 80");
        let bar = f32::from(percent) * 4.0;
        text(&mut page, REGULAR, 11.0, (MARGIN, y + 6.0), branch);
        page.set_fill_rgb(0.16, 0.62, 0.56);
        page.rect(160.0, y, bar, 20.0).fill_nonzero();
        page.set_fill_gray(0.0);
        text(&mut page, REGULAR, 11.0, (168.0 + bar, y + 6.0), &percent.to_string());
        y -= 32.0;
    }
    page
}

/// One line of text of this size, in points, that begins at `(x, y)` from the lower left corner.
fn text(page: &mut Content, font: Name<'_>, size: f32, (x, y): (f32, f32), line: &str) {
    page.begin_text();
    page.set_font(font, size);
    page.next_line(x, y);
    page.show(Str(&win_ansi(line)));
    page.end_text();
}

/// `line` in the fonts' encoding, Windows-1252. What that lacks becomes a question mark; no text of this module needs it.
fn win_ansi(line: &str) -> Vec<u8> {
    line.chars()
        .map(|letter| match letter {
            '–' => 0x96,
            // Windows-1252 has control characters of Latin-1 where it has punctuation of its own.
            '\u{80}'..='\u{9f}' => b'?',
            _ => u8::try_from(letter).unwrap_or(b'?'),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::picture;
    use super::*;

    fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
        haystack.windows(needle.len()).position(|window| window == needle)
    }

    #[test]
    fn every_entry_of_the_cross_reference_table_points_at_its_object() {
        let bytes = pdf(&picture::photo().unwrap());
        assert!(bytes.starts_with(b"%PDF-1."));

        let tail = String::from_utf8_lossy(&bytes[bytes.len() - 40..]).into_owned();
        let table_at: usize =
            tail.split("startxref").nth(1).unwrap().lines().nth(1).unwrap().parse().unwrap();
        assert!(tail.trim_end().ends_with("%%EOF"));

        let table = String::from_utf8_lossy(&bytes[table_at..]).into_owned();
        let mut lines = table.lines();
        assert_eq!((lines.next(), lines.next()), (Some("xref"), Some("0 11")));
        assert!(lines.next().unwrap().ends_with(" 65535 f"), "object 0 heads the free list");
        for number in 1..=10 {
            let entry = lines.next().unwrap();
            let offset: usize = entry[..10].parse().unwrap();
            assert!(entry.trim_end().ends_with(" 00000 n"), "{entry}");
            assert!(bytes[offset..].starts_with(format!("{number} 0 obj").as_bytes()), "object {number}");
        }
        assert_eq!(lines.next(), Some("trailer"));
    }

    #[test]
    fn accents_are_in_the_fonts_encoding_and_the_photograph_is_embedded_as_it_is() {
        let photo = picture::photo().unwrap();
        let bytes = pdf(&photo);
        let title = "<52656C6174F372696F20646520726573756C7461646F73>";
        assert!(
            position(&bytes, title.as_bytes()).is_some(),
            "«Relatório de resultados» in Windows-1252, as hex"
        );
        assert!(position(&bytes, &photo.bytes).is_some());
    }

    #[test]
    fn a_letter_that_the_encoding_lacks_becomes_a_question_mark() {
        assert_eq!(win_ansi("São – ł\u{85}"), b"S\xe3o \x96 ??");
    }
}
