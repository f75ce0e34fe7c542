//! Names of members and files, validated once: holding a [`MemberName`] or a [`FileName`] is the proof.
//!
//! A file name must mean the same on every branch's machine and stay inside its library folder, so it is the
//! intersection of what Linux, macOS and Windows accept, in Unicode normalisation form C, without characters that
//! hide or reorder text. What is refused is refused at its source (`add`) with the reason, and again by everybody who
//! receives it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// Longest member name, in bytes: a DNS label, so that it can be a host name or metric label as it is.
pub const MEMBER_NAME_MAX_BYTES: usize = 63;
/// Longest file name with its folders, in bytes.
pub const FILE_NAME_MAX_BYTES: usize = 1024;
/// Longest single component, in bytes; leaves room for `<owner>/` and a temporary suffix within common limits.
pub const COMPONENT_MAX_BYTES: usize = 200;
/// Deepest nesting of folders in a file name.
pub const FILE_NAME_MAX_DEPTH: usize = 32;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing between two slashes.
    #[error("it has an empty part")]
    Empty,
    /// Longer than the bound.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// More folders than allowed.
    #[error("it is nested deeper than {FILE_NAME_MAX_DEPTH} folders")]
    TooDeep,
    /// A character that some system gives a meaning to, or that hides or reorders text.
    #[error("it contains the character {}, which not every system can store", .0.escape_unicode())]
    Character(char),
    /// `.`, `..`, or a device name of Windows.
    #[error("its part {0:?} is reserved")]
    Reserved(String),
    /// Windows drops such an ending, so two names would become one.
    #[error("a part of it ends with a dot or begins or ends with a space")]
    Ending,
    /// Not in Unicode normalisation form C; [`FileName::normalised`] makes it so.
    #[error("it is not in Unicode normalisation form C")]
    NotNormalised,
    /// Not made of lower-case letters, digits, `-`, `_`, `.`, or not beginning with a letter or digit.
    #[error(
        "a branch's name has lower-case letters a-z, digits, '-', '_' and '.', and begins with a letter or digit"
    )]
    MemberCharacters,
}

/// A member's human name, e.g. `filial-recife`.
///
/// 1 to 63 of `a-z 0-9 - _ .`, beginning with a letter or digit: unambiguous when read out, and safe as a folder,
/// host name and metric label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(String);

impl MemberName {
    /// Validates a member name.
    ///
    /// # Errors
    /// [`NameError`] with what is wrong with it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > MEMBER_NAME_MAX_BYTES {
            return Err(NameError::TooLong(MEMBER_NAME_MAX_BYTES));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins_well || !name.chars().all(allowed) {
            return Err(NameError::MemberCharacters);
        }
        // It becomes a folder of fetched files.
        check_component(name)?;
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A file's name within its owner's library: one or more components separated by `/`.
///
/// Relative, without `.` and `..`, in NFC; at most [`FILE_NAME_MAX_BYTES`] bytes and [`FILE_NAME_MAX_DEPTH`] folders.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// Validates a file name as received: nothing is changed, and what is not in form C is refused.
    ///
    /// # Errors
    /// [`NameError`] with what is wrong with it.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.len() > FILE_NAME_MAX_BYTES {
            return Err(NameError::TooLong(FILE_NAME_MAX_BYTES));
        }
        if name.split('/').count() > FILE_NAME_MAX_DEPTH {
            return Err(NameError::TooDeep);
        }
        if let Some(character) = name.chars().find(|c| is_hostile(*c)) {
            return Err(NameError::Character(character));
        }
        name.split('/').try_for_each(check_component)?;
        if !is_nfc(name) {
            return Err(NameError::NotNormalised);
        }
        Ok(Self(name.to_owned()))
    }

    /// Validates a name as a person's system spells it, after bringing it into form C.
    ///
    /// # Errors
    /// [`NameError`] with what is wrong with it.
    pub fn normalised(name: &str) -> Result<Self, NameError> {
        if name.len() > 3 * FILE_NAME_MAX_BYTES {
            return Err(NameError::TooLong(FILE_NAME_MAX_BYTES));
        }
        Self::new(&name.nfc().collect::<String>())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components, outermost folder first.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn leaf(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Equal for names that a case-insensitive file system takes for one.
    pub fn folded(&self) -> String {
        self.0.chars().flat_map(char::to_lowercase).nfc().collect()
    }
}

fn check_component(component: &str) -> Result<(), NameError> {
    if component.is_empty() {
        return Err(NameError::Empty);
    }
    if component.len() > COMPONENT_MAX_BYTES {
        return Err(NameError::TooLong(COMPONENT_MAX_BYTES));
    }
    let stem = component.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            rest.chars().count() == 1
                && rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '¹' | '²' | '³'))
        })
    };
    let device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    if matches!(component, "." | "..") || device || numbered("COM") || numbered("LPT") {
        return Err(NameError::Reserved(component.to_owned()));
    }
    if component.ends_with(['.', ' ']) || component.starts_with(' ') {
        return Err(NameError::Ending);
    }
    Ok(())
}

/// Characters that some system cannot store, or that make a name look like another.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
        // Bidirectional controls, zero-width characters, line and paragraph separators, soft hyphen, invisible fillers.
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        // Private use and non-characters have no agreed appearance.
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}' | '\u{f0000}'..)
}

macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
            }
        }
    };
}

text!(MemberName);
text!(FileName);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everyday_names_are_accepted() {
        for name in [
            "plano.csv",
            "campanha verão/foto nº 1.jpg",
            "日本語.txt",
            "a",
            ".env",
            "con-te.txt",
            "comet.pdf",
        ] {
            assert!(FileName::new(name).is_ok(), "{name}: {:?}", FileName::new(name));
        }
        for name in ["filial-recife", "sp1", "0", "a.b_c"] {
            assert!(MemberName::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_leave_the_library_or_mislead_are_refused() {
        for name in [
            "",
            "/",
            "/etc/passwd",
            "a//b",
            "a/",
            "..",
            "a/../b",
            "./a",
            "a\0b",
            "a\nb",
            "a\\b",
            "C:x",
            "a\u{202e}fdp.exe",
            "nul",
            "NUL.txt",
            "com1.log",
            "LPT¹",
            "aux .c",
            "a.",
            "a ",
            " a",
            "a/ b",
            "zero\u{200b}width",
            "e\u{301}",
            "tag\u{e0041}",
            "\u{feff}bom",
            "x?y",
            "x*",
        ] {
            assert!(FileName::new(name).is_err(), "{name:?} was accepted");
        }
        for name in
            ["", "Filial", "a b", "a/b", "..", ".a", "-a", "ação", "nul", "com1", "a.", &"a".repeat(64)]
        {
            assert!(MemberName::new(name).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn twins_by_case_fold_to_one() {
        let (upper, lower) =
            (FileName::new("Verão/FOTO.jpg").unwrap(), FileName::new("verão/foto.JPG").unwrap());
        assert_eq!(upper.folded(), lower.folded());
    }

    #[test]
    fn a_decomposed_name_is_composed_at_its_source() {
        assert_eq!(FileName::normalised("vera\u{303}o.txt").unwrap().as_str(), "verão.txt");
    }

    proptest! {
        #[test]
        fn an_accepted_name_joins_to_a_path_below_its_folder(name in "\\PC{0,40}|[a./\\\\ ]{0,20}") {
            if let Ok(name) = FileName::new(&name) {
                let path = std::path::Path::new("/library").join(name.as_str());
                prop_assert!(path.starts_with("/library"));
                prop_assert!(path.components().skip(2).all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), 2 + name.components().count());
            }
        }
    }
}
