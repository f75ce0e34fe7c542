//! The files that the demo shares: one of each kind that a marketing branch works with, made on the spot.
//!
//! **What is guaranteed.** Every file is what its name says and opens in ordinary programs (a spreadsheet program, an
//! image viewer, a video player); names carry spaces and accents, as real ones do. The same build writes the same bytes
//! each time, whatever the clock, the machine or the folder, so a checksum in one execution record can be compared with
//! that in another. Nothing is downloaded and no binary file stands in the repository.
//!
//! **Why real files and not random bytes under ten names.** The demo's reader can open what a branch received and see
//! that it is the picture that was sent; and type detection, previews and full-text search on names get honest input.
//! The one file that exists for its size alone ([`Kind::Bulk`]) is pseudo-random, so that neither a compressing
//! filesystem nor a sparse copy flatters the rates.
//!
//! In reading order: `stream` is where everything drawn by lot comes from; then comes one module for each kind of
//! document (`video` draws the frames, `avi` packs them). All but the bulk file are made in memory, at most a few MiB each, by functions without side
//! effects; only this file touches the disk.

mod archive;
mod avi;
mod brief;
mod bulk;
mod media_plan;
mod picture;
mod report;
mod stream;
mod video;
mod workbook;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Size of the bulk file in the default demo: 512 MiB, long enough that a holder can die in the middle of its transfer.
pub const DEFAULT_BIG_SIZE_BYTES: u64 = 512 << 20;

/// What a sample is, and so which program opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A campaign brief: UTF-8 text in Portuguese.
    Text,
    /// A media plan: comma-separated values as in RFC 4180, a few thousand rows.
    Csv,
    /// A budget: an XLSX workbook with formulas.
    Workbook,
    /// A poster: a true-colour PNG of 1 to 2 MiB.
    Png,
    /// A photograph's stand-in: a baseline JPEG.
    Jpeg,
    /// A results report: two PDF pages with text, a picture and a chart.
    Pdf,
    /// A clip of four seconds: Motion JPEG in an AVI container.
    Video,
    /// A ZIP archive of some of the others.
    Archive,
    /// A file that exists for its size: pseudo-random bytes, neither sparse nor compressible.
    Bulk,
}

impl Kind {
    /// Every kind once, in the order in which [`write_all`] writes them.
    pub const ALL: [Self; 9] = [
        Self::Text,
        Self::Csv,
        Self::Workbook,
        Self::Png,
        Self::Jpeg,
        Self::Pdf,
        Self::Video,
        Self::Archive,
        Self::Bulk,
    ];

    /// The name under which this kind's sample is written: a single path component in Unicode's composed form (NFC).
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Text => "Briefing Campanha São João.txt",
            Self::Csv => "Plano de mídia 2026.csv",
            Self::Workbook => "Orçamento por filial.xlsx",
            Self::Png => "Cartaz Férias de Verão.png",
            Self::Jpeg => "Vitrine João Pessoa.jpg",
            Self::Pdf => "Relatório de resultados.pdf",
            Self::Video => "Vinheta pôr do sol.avi",
            Self::Archive => "Peças aprovadas.zip",
            Self::Bulk => "Material bruto da gravação.bin",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Text => "text",
            Self::Csv => "CSV",
            Self::Workbook => "XLSX",
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Pdf => "PDF",
            Self::Video => "video",
            Self::Archive => "archive",
            Self::Bulk => "bulk",
        })
    }
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Where it lies: the folder given, joined with [`Kind::file_name`].
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its length.
    pub size_bytes: u64,
}

/// Writes a file of as many pseudo-random bytes, others for each `name`. Blocks for as long as the disk takes.
///
/// # Errors
///
/// What the filesystem answers, with the path in front.
pub fn write_bulk(path: &Path, name: &str, size_bytes: u64) -> io::Result<()> {
    let written = File::create(path).and_then(|mut file| bulk::write(&mut file, name, size_bytes));
    written.map(drop).map_err(|cause| naming("write", path, cause))
}

/// Writes one sample of each [`Kind`] into `folder`, which is made if it is missing; files of the same names are
/// replaced. The bulk file gets `big_size_bytes` bytes, the others about 11 MiB together. Answers in the order of
/// [`Kind::ALL`]. Blocks for as long as the disk takes.
///
/// # Errors
///
/// What the filesystem answers, with the path in front. The files written before remain.
pub fn write_all(folder: &Path, big_size_bytes: u64) -> io::Result<Vec<Sample>> {
    fs::create_dir_all(folder).map_err(|cause| naming("make the folder", folder, cause))?;

    let text = brief::text().into_bytes();
    let csv = media_plan::csv()?;
    let photo = picture::photo()?;
    let pdf = report::pdf(&photo);
    let packed = archive::zip(&[
        (Kind::Text.file_name(), text.as_slice()),
        (Kind::Csv.file_name(), csv.as_slice()),
        (Kind::Jpeg.file_name(), photo.bytes.as_slice()),
        (Kind::Pdf.file_name(), pdf.as_slice()),
    ])?;

    Kind::ALL
        .into_iter()
        .map(|kind| {
            let path = folder.join(kind.file_name());
            let written = match kind {
                Kind::Text => write(&path, &text),
                Kind::Csv => write(&path, &csv),
                Kind::Workbook => workbook::xlsx().and_then(|bytes| write(&path, &bytes)),
                Kind::Png => picture::poster().and_then(|bytes| write(&path, &bytes)),
                Kind::Jpeg => write(&path, &photo.bytes),
                Kind::Pdf => write(&path, &pdf),
                Kind::Video => video::clip().and_then(|bytes| write(&path, &bytes)),
                Kind::Archive => write(&path, &packed),
                Kind::Bulk => {
                    File::create(&path).and_then(|mut file| bulk::write(&mut file, "bulk", big_size_bytes))
                }
            };
            let size_bytes = written.map_err(|cause| naming("write", &path, cause))?;
            Ok(Sample { path, kind, size_bytes })
        })
        .collect()
}

/// Replaces the file at `path` and answers its length in bytes.
fn write(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    File::create(path)?.write_all(bytes)?;
    Ok(bytes.len() as u64)
}

/// The same error with what was attempted and where, which `io::Error` leaves out.
fn naming(attempt: &str, path: &Path, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("cannot {attempt} {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL_BULK_BYTES: u64 = 3_000_000;

    #[test]
    fn one_file_of_each_kind_lies_in_the_folder_with_the_size_that_was_answered() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("still missing");
        let samples = write_all(&folder, SMALL_BULK_BYTES).unwrap();

        assert_eq!(samples.iter().map(|sample| sample.kind).collect::<Vec<_>>(), Kind::ALL);
        for sample in &samples {
            assert_eq!(sample.path, folder.join(sample.kind.file_name()));
            assert_eq!(fs::metadata(&sample.path).unwrap().len(), sample.size_bytes, "{}", sample.kind);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), Kind::ALL.len());
        assert_eq!(samples.last().unwrap().size_bytes, SMALL_BULK_BYTES);
    }

    #[test]
    fn two_runs_write_the_same_bytes_also_over_older_files() {
        let home = tempfile::tempdir().unwrap();
        let (first, second) = (home.path().join("first"), home.path().join("second"));
        fs::create_dir(&second).unwrap();
        for kind in Kind::ALL {
            fs::write(second.join(kind.file_name()), vec![b'x'; 20 << 20]).unwrap();
        }

        let samples = write_all(&first, SMALL_BULK_BYTES).unwrap();
        write_all(&second, SMALL_BULK_BYTES).unwrap();
        for sample in samples {
            let again = fs::read(second.join(sample.kind.file_name())).unwrap();
            assert!(fs::read(&sample.path).unwrap() == again, "{} differs between runs", sample.kind);
        }
    }

    #[test]
    fn an_error_names_the_file_that_could_not_be_written() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(Kind::Png.file_name())).unwrap();
        let message = write_all(home.path(), 0).unwrap_err().to_string();
        assert!(message.contains(Kind::Png.file_name()), "{message}");
    }
}
