//! A ZIP archive of files in memory.

use std::io::{self, Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// The archive of these `(name, bytes)` pairs in their order, deflated, each with ZIP's earliest time stamp
/// (1980-01-01), since the clock must not show in the bytes.
///
/// # Errors
///
/// Two entries of one name.
pub(super) fn zip(entries: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, options)?;
        writer.write_all(bytes)?;
    }
    Ok(writer.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use zip::ZipArchive;

    use super::*;

    #[test]
    fn entries_come_back_by_their_accented_names_with_matching_checksums() {
        let long = "são joão ".repeat(10_000);
        let packed = zip(&[("Peça 1.txt", long.as_bytes()), ("vazio.txt", b"")]).unwrap();
        assert!(packed.len() < long.len() / 10, "deflated");

        let mut archive = ZipArchive::new(Cursor::new(packed)).unwrap();
        let names: Vec<_> = archive.file_names().map(Result::unwrap).collect();
        assert_eq!(names, ["Peça 1.txt", "vazio.txt"]);
        let mut text = String::new();
        // Reading to the end is what checks the CRC.
        archive.by_name("Peça 1.txt").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, long);
        assert_eq!(archive.by_name("vazio.txt").unwrap().size(), 0);
    }

    #[test]
    fn two_entries_of_one_name_are_refused() {
        assert!(zip(&[("a", b"1"), ("a", b"2")]).is_err());
    }
}
