//! The media plan: which advertisement runs when, where and for how much. It feeds the CSV file, and its vocabulary
//! the other documents.

use std::io;

use jiff::ToSpan;
use jiff::civil::{Date, date};

use super::stream::Stream;

/// The branches of the agency.
pub(super) const BRANCHES: [&str; 12] = [
    "Belém",
    "Belo Horizonte",
    "Brasília",
    "Curitiba",
    "Florianópolis",
    "Fortaleza",
    "João Pessoa",
    "Maceió",
    "Recife",
    "Salvador",
    "São Luís",
    "São Paulo",
];

/// Where advertisements run.
pub(super) const CHANNELS: [&str; 6] =
    ["Televisão", "Rádio", "Mídia exterior", "Redes sociais", "Busca", "Jornal"];

/// Formats of advertisements; one holds a comma and one quotation marks, which a CSV reader must get right.
const FORMATS: [&str; 5] =
    ["Vinheta de 30 s", "Spot, 15 s", "Painel 9 × 3 m", "Carrossel", "Página \"dupla\""];

/// Rows of the plan: a quarter of a branch network's bookings, about 300 KiB of CSV.
const ROW_COUNT: u32 = 4000;
/// The first day on which anything runs.
const FIRST_DAY: Date = date(2026, 4, 1);
/// Days over which the rows are spread, in order.
const DAY_COUNT: u32 = 91;

/// The columns of the CSV file.
const HEADER: [&str; 8] =
    ["data", "filial", "canal", "formato", "inserções", "impressões", "custo_reais", "observação"];

/// One booking.
struct Booking {
    day: Date,
    branch: &'static str,
    channel: &'static str,
    format: &'static str,
    insertions: u32,
    impressions: u32,
    cost_centavos: u32,
}

/// All bookings, by day.
fn bookings() -> impl Iterator<Item = Booking> {
    let mut stream = Stream::named("media plan");
    (0..ROW_COUNT).map(move |row| {
        let insertions = 1 + stream.below(20);
        Booking {
            day: FIRST_DAY + i64::from(row * DAY_COUNT / ROW_COUNT).days(),
            branch: stream.pick(&BRANCHES),
            channel: stream.pick(&CHANNELS),
            format: stream.pick(&FORMATS),
            insertions,
            impressions: insertions * (500 + stream.below(40_000)),
            cost_centavos: insertions * (8_000 + stream.below(250_000)),
        }
    })
}

/// The plan as RFC 4180 has it, in UTF-8: a header row, fields between commas and quoted where needed, amounts with a decimal point.
///
/// # Errors
///
/// None that writing to memory can cause; the writer's signature has them.
pub(super) fn csv() -> io::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER)?;
    for booking in bookings() {
        let cost = format!("{}.{:02}", booking.cost_centavos / 100, booking.cost_centavos % 100);
        let note = if booking.insertions > 15 { "negociar desconto, confirmar até sexta" } else { "" };
        writer.write_record([
            booking.day.to_string().as_str(),
            booking.branch,
            booking.channel,
            booking.format,
            booking.insertions.to_string().as_str(),
            booking.impressions.to_string().as_str(),
            cost.as_str(),
            note,
        ])?;
    }
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_all_columns_and_quoted_fields_come_back_whole() {
        let bytes = csv().unwrap();
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        assert_eq!(reader.headers().unwrap(), HEADER.as_slice());

        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(rows.len(), ROW_COUNT as usize);
        assert!(rows.is_sorted_by_key(|row| row[0].to_string()), "by day");
        assert_eq!((&rows[0][0], &rows[rows.len() - 1][0]), ("2026-04-01", "2026-06-30"));
        for row in &rows {
            assert!(BRANCHES.contains(&&row[1]) && CHANNELS.contains(&&row[2]) && FORMATS.contains(&&row[3]));
            assert!(row[4].parse::<u32>().unwrap() <= 20 && row[5].parse::<u32>().unwrap() > 0);
            assert!(row[6].parse::<f64>().unwrap() >= 80.0);
        }
    }
}
