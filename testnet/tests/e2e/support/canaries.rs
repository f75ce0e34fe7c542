//! Secrets as they might show, and the search for them.
//!
//! A secret is seldom printed as its raw bytes: it shows as hex, base64, base32 or base58, in the middle of something
//! larger, or as a list of numbers, which is how Rust prints bytes. Base64 and base32 of a secret depend on where in the
//! larger thing it begins, so all alignments are searched for.

use aho_corasick::AhoCorasick;
use data_encoding::{BASE32_NOPAD, BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Bytes of a secret that are looked for in a list of numbers: the chance that they occur otherwise is 2⁻⁸⁰.
const LISTED_BYTES: usize = 10;
/// The shortest text worth searching for; a shorter one occurs by chance.
const NEEDLE_MIN_BYTES: usize = 12;

/// What must not be found.
#[derive(Default)]
pub struct Canaries {
    needles: Vec<(String, Vec<u8>)>,
}

impl Canaries {
    /// A secret text, such as a token.
    pub fn text(&mut self, name: impl Into<String>, text: &str) {
        self.needle(name.into(), text.as_bytes().to_vec());
    }

    /// Secret bytes, in every form in which they might be written.
    pub fn bytes(&mut self, name: impl Into<String>, bytes: &[u8]) {
        let name = name.into();
        self.needle(format!("{name}, raw"), bytes.to_vec());
        self.needle(format!("{name}, base58"), bs58::encode(bytes).into_vec());
        for (encoding, what) in [(&HEXLOWER, "hex"), (&HEXUPPER, "hex")] {
            self.needle(format!("{name}, {what}"), encoding.encode(bytes).into_bytes());
        }
        for (encoding, what) in
            [(&BASE64_NOPAD, "base64"), (&BASE64URL_NOPAD, "base64"), (&BASE32_NOPAD, "base32")]
        {
            for text in alignments(encoding, bytes) {
                self.needle(format!("{name}, {what}"), text.to_ascii_lowercase().into_bytes());
                self.needle(format!("{name}, {what}"), text.into_bytes());
            }
        }
        let listed = &bytes[..bytes.len().min(LISTED_BYTES)];
        let list = |write: fn(&mut String, u8)| {
            let mut list = String::new();
            for byte in listed {
                write(&mut list, *byte);
            }
            list.trim_end_matches(", ").to_owned()
        };
        let lists = [
            list(|list, byte| write!(list, "{byte}, ").unwrap()),
            list(|list, byte| write!(list, "{byte:02x}, ").unwrap()),
            list(|list, byte| write!(list, "0x{byte:02x}, ").unwrap()),
            // As in `b"…"`.
            list(|list, byte| write!(list, "{}", std::ascii::escape_default(byte)).unwrap()),
        ];
        for list in lists {
            self.needle(format!("{name}, as a list"), list.into_bytes());
        }
    }

    fn needle(&mut self, name: String, needle: Vec<u8>) {
        if needle.len() >= NEEDLE_MIN_BYTES && !self.needles.iter().any(|(_, other)| *other == needle) {
            self.needles.push((name, needle));
        }
    }

    /// What finds them.
    pub fn search(&self) -> Search<'_> {
        let finder = AhoCorasick::new(self.needles.iter().map(|(_, needle)| needle)).unwrap();
        Search { canaries: self, finder, searched_bytes: 0, found: Vec::new() }
    }
}

/// A secret's encodings at every place in a larger thing, without the characters that its neighbours share.
fn alignments(encoding: &Encoding, bytes: &[u8]) -> Vec<String> {
    let bits = encoding.bit_width();
    (0..5)
        .map(|before| {
            let shifted = [vec![0; before], bytes.to_vec()].concat();
            let from = (before * 8).div_ceil(bits);
            let to = shifted.len() * 8 / bits;
            encoding.encode(&shifted)[from..to].to_owned()
        })
        .collect()
}

/// A search for canaries over many things.
pub struct Search<'c> {
    canaries: &'c Canaries,
    finder: AhoCorasick,
    /// How much was looked at.
    pub searched_bytes: u64,
    /// What was found where.
    pub found: Vec<String>,
}

impl Search<'_> {
    /// Looks into `bytes`, told as `place`.
    pub fn look(&mut self, place: &str, bytes: &[u8]) {
        self.searched_bytes += bytes.len() as u64;
        for found in self.finder.find_iter(bytes) {
            let (name, _) = &self.canaries.needles[found.pattern().as_usize()];
            let line = format!("{name} in {place}");
            if !self.found.contains(&line) {
                self.found.push(line);
            }
        }
    }

    /// Looks into all files of a folder.
    pub fn folder(&mut self, folder: &Path) {
        for path in files_in(folder) {
            let bytes = std::fs::read(&path).unwrap();
            self.look(&path.display().to_string(), &bytes);
        }
    }
}

/// All regular files beneath a folder.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files
}
