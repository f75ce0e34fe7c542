//! The budget: an XLSX workbook with formulas.

use std::io;

use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, Formula, Workbook, XlsxError};

use super::media_plan::{BRANCHES, CHANNELS};
use super::stream::Stream;

/// The workbook: a sheet with one row per branch, one column per channel, and sums of both that the spreadsheet
/// program computes; their values are stored too, for previews that do not.
///
/// # Errors
///
/// None that memory could cause; the writer's signature has them.
pub(super) fn xlsx() -> io::Result<Vec<u8>> {
    budget().map_err(io::Error::other)
}

fn budget() -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    // Without this the writer stamps the time of the run.
    let created = ExcelDateTime::from_ymd(2026, 5, 4)?;
    workbook.set_properties(
        &DocProperties::new()
            .set_title("Orçamento por filial")
            .set_author("Conceição Araújo")
            .set_creation_datetime(&created),
    );

    let bold = Format::new().set_bold();
    let reais = Format::new().set_num_format("\"R$\" #,##0.00");
    let sheet = workbook.add_worksheet().set_name("Orçamento")?;
    sheet.set_column_width(0, 18)?;
    sheet.write_with_format(0, 0, "Filial", &bold)?;
    let total_column = column(CHANNELS.len() + 1);
    for (index, channel) in CHANNELS.iter().enumerate() {
        sheet.write_with_format(0, column(index + 1), *channel, &bold)?;
    }
    sheet.write_with_format(0, total_column, "Total", &bold)?;

    let mut stream = Stream::named("budget");
    let mut channel_sums = [0; CHANNELS.len()];
    for (index, branch) in BRANCHES.iter().enumerate() {
        let row = row(index + 1);
        sheet.write(row, 0, *branch)?;
        let mut branch_sum = 0;
        for (channel, channel_sum) in channel_sums.iter_mut().enumerate() {
            let amount = 500 * (4 + stream.below(80));
            sheet.write_with_format(row, column(channel + 1), amount, &reais)?;
            branch_sum += amount;
            *channel_sum += amount;
        }
        let line = row + 1;
        let sum = Formula::new(format!("=SUM(B{line}:{}{line})", letter(CHANNELS.len())));
        sheet.write_formula_with_format(row, total_column, sum.set_result(branch_sum.to_string()), &reais)?;
    }

    let bottom = row(BRANCHES.len() + 1);
    sheet.write_with_format(bottom, 0, "Total", &bold)?;
    let grand_sum = channel_sums.iter().sum();
    for (index, value) in channel_sums.iter().chain([&grand_sum]).enumerate() {
        let sum = Formula::new(format!("=SUM({0}2:{0}{1})", letter(index + 1), bottom));
        sheet.write_formula_with_format(
            bottom,
            column(index + 1),
            sum.set_result(value.to_string()),
            &reais,
        )?;
    }
    sheet.set_freeze_panes(1, 1)?;
    workbook.save_to_buffer()
}

/// A row number as the writer wants it.
fn row(index: usize) -> u32 {
    u32::try_from(index).expect("a dozen rows")
}

/// A column number as the writer wants it.
fn column(index: usize) -> u16 {
    u16::try_from(index).expect("a handful of columns")
}

/// A column's letter in formulas; the sheet has fewer than 26.
fn letter(index: usize) -> char {
    char::from(b'A' + u8::try_from(index).expect("a handful of columns"))
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
