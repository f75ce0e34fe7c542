//! The budget: an XLSX workbook with formulas.
//!
//! A workbook is a ZIP archive of XML parts (ECMA-376, Office Open XML). One sheet needs six of them, written here in
//! full: the library that writes any workbook takes longer to compile than the rest of this crate's samples together.
//!
//! ```text
//! [Content_Types].xml           what each part is
//! _rels/.rels                   → xl/workbook.xml
//! xl/workbook.xml               names the sheet
//! xl/_rels/workbook.xml.rels    → the sheet and the styles
//! xl/styles.xml                 cell styles by number: 0 plain, 1 bold, 2 an amount in reais
//! xl/worksheets/sheet1.xml      the cells
//! ```

use std::fmt::Write;
use std::io;

use super::archive;
use super::media_plan::{BRANCHES, CHANNELS};
use super::stream::Stream;

const CONTENT_TYPES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="xml" ContentType="application/xml"/>
<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>
<Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/>
<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>
</Types>"#;

const PACKAGE_RELATIONS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/>
</Relationships>"#;

const WORKBOOK: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
<sheets><sheet name="Orçamento" sheetId="1" r:id="rId1"/></sheets>
</workbook>"#;

const WORKBOOK_RELATIONS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/>
<Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/>
</Relationships>"#;

/// Spreadsheet programs insist on two fills and a border, whether or not a cell uses them.
const STYLES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">
<numFmts count="1"><numFmt numFmtId="164" formatCode="&quot;R$&quot; #,##0.00"/></numFmts>
<fonts count="2"><font><sz val="11"/><name val="Calibri"/></font><font><b/><sz val="11"/><name val="Calibri"/></font></fonts>
<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills>
<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>
<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>
<cellXfs count="3">
<xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>
<xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/>
<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>
</cellXfs>
<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles>
</styleSheet>"#;

const SHEET_BEGIN: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">
<sheetViews><sheetView workbookViewId="0"><pane xSplit="1" ySplit="1" topLeftCell="B2" activePane="bottomRight" state="frozen"/></sheetView></sheetViews>
<cols><col min="1" max="8" width="18" customWidth="1"/></cols>
<sheetData>
"#;
const SHEET_END: &str = "</sheetData>\n</worksheet>";

/// Numbers of cell styles in [`STYLES`].
const PLAIN: u32 = 0;
const BOLD: u32 = 1;
const REAIS: u32 = 2;

/// The workbook: a sheet with one row per branch, one column per channel, and sums of both that the spreadsheet
/// program computes; their values are stored too, for previews that do not.
///
/// # Errors
///
/// None that writing to memory can cause; the archive's signature has them.
pub(super) fn xlsx() -> io::Result<Vec<u8>> {
    let sheet = sheet();
    archive::zip(&[
        ("[Content_Types].xml", CONTENT_TYPES.as_bytes()),
        ("_rels/.rels", PACKAGE_RELATIONS.as_bytes()),
        ("xl/workbook.xml", WORKBOOK.as_bytes()),
        ("xl/_rels/workbook.xml.rels", WORKBOOK_RELATIONS.as_bytes()),
        ("xl/styles.xml", STYLES.as_bytes()),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
    ])
}

/// The part with the cells.
fn sheet() -> String {
    let mut rows = vec![Row::new(1)];
    rows[0].text("Filial", BOLD);
    for channel in CHANNELS {
        rows[0].text(channel, BOLD);
    }
    rows[0].text("Total", BOLD);

    let mut stream = Stream::named("budget");
    let mut column_sums = [0; CHANNELS.len() + 1];
    for (branch, line) in BRANCHES.into_iter().zip(2..) {
        let mut row = Row::new(line);
        row.text(branch, PLAIN);
        let amounts = CHANNELS.map(|_| 500 * (4 + stream.below(80)));
        for amount in amounts {
            row.amount(amount);
        }
        let row_sum: u32 = amounts.iter().sum();
        row.formula(&format!("SUM(B{line}:{}{line})", letter(CHANNELS.len())), row_sum);
        for (sum, value) in column_sums.iter_mut().zip(amounts.iter().chain([&row_sum])) {
            *sum += value;
        }
        rows.push(row);
    }

    let last_branch = rows.len();
    let mut bottom = Row::new(last_branch + 1);
    bottom.text("Total", BOLD);
    for (column, sum) in (1..).zip(column_sums) {
        bottom.formula(&format!("SUM({0}2:{0}{last_branch})", letter(column)), sum);
    }
    rows.push(bottom);

    let rows: String = rows.into_iter().map(Row::into_xml).collect();
    [SHEET_BEGIN, &rows, SHEET_END].concat()
}

/// A row in the making, cell after cell from column A.
struct Row {
    line: usize,
    next_column: usize,
    cells: String,
}

impl Row {
    /// The row of this number; the first is 1.
    fn new(line: usize) -> Self {
        Self { line, next_column: 0, cells: String::new() }
    }

    /// `text` is one of this module's labels, none of which XML would have escaped.
    fn text(&mut self, text: &str, style: u32) {
        self.cell(&format!("t=\"inlineStr\" s=\"{style}\""), &format!("<is><t>{text}</t></is>"));
    }

    fn amount(&mut self, reais: u32) {
        self.cell(&format!("s=\"{REAIS}\""), &format!("<v>{reais}</v>"));
    }

    fn formula(&mut self, formula: &str, value: u32) {
        self.cell(&format!("s=\"{REAIS}\""), &format!("<f>{formula}</f><v>{value}</v>"));
    }

    fn cell(&mut self, attributes: &str, content: &str) {
        let (column, line) = (letter(self.next_column), self.line);
        write!(self.cells, "<c r=\"{column}{line}\" {attributes}>{content}</c>").expect("a String takes all");
        self.next_column += 1;
    }

    fn into_xml(self) -> String {
        format!("<row r=\"{}\">{}</row>\n", self.line, self.cells)
    }
}

/// A column's letter, counted from 0; the sheet has fewer than 26.
fn letter(column: usize) -> char {
    char::from(b'A' + u8::try_from(column).expect("a handful of columns"))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use zip::ZipArchive;

    use super::*;

    fn part(archive: &mut ZipArchive<Cursor<Vec<u8>>>, name: &str) -> String {
        let mut xml = String::new();
        archive.by_name(name).unwrap().read_to_string(&mut xml).unwrap();
        xml
    }

    #[test]
    fn the_package_has_the_parts_a_spreadsheet_program_needs_and_each_is_well_formed() {
        let mut archive = ZipArchive::new(Cursor::new(xlsx().unwrap())).unwrap();
        let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
        for needed in ["[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", "xl/worksheets/sheet1.xml"] {
            assert!(names.iter().any(|name| name == needed), "{needed} is missing from {names:?}");
        }
        for name in names {
            let xml = part(&mut archive, &name);
            assert!(roxmltree::Document::parse(&xml).is_ok(), "{name} is not well formed");
        }
    }

    #[test]
    fn the_stored_sums_are_those_of_the_cells_they_cover() {
        let mut archive = ZipArchive::new(Cursor::new(xlsx().unwrap())).unwrap();
        let xml = part(&mut archive, "xl/worksheets/sheet1.xml");
        let sheet = roxmltree::Document::parse(&xml).unwrap();
        let cells: Vec<_> = sheet.descendants().filter(|node| node.tag_name().name() == "c").collect();
        let value = |reference: &str| -> f64 {
            let cell = cells.iter().find(|cell| cell.attribute("r") == Some(reference)).unwrap();
            let stored = cell.children().find(|node| node.tag_name().name() == "v").unwrap();
            stored.text().unwrap().parse().unwrap()
        };

        let formulas = cells.iter().filter(|cell| cell.children().any(|node| node.tag_name().name() == "f"));
        assert_eq!(formulas.count(), BRANCHES.len() + CHANNELS.len() + 1);
        let first_branch: f64 = ["B2", "C2", "D2", "E2", "F2", "G2"].into_iter().map(value).sum();
        assert_eq!(value("H2").to_bits(), first_branch.to_bits());
        let branches: f64 = (2..=13).map(|line| value(&format!("H{line}"))).sum();
        assert_eq!(value("H14").to_bits(), branches.to_bits());
    }
}
