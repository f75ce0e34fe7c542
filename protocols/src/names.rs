//! Names of members and files, validated once: holding a [`MemberName`] or a [`FileName`] is the proof.
//!
//! A file name must mean the same on every branch's machine and stay inside its library folder, so it is the
//! intersection of what Linux, macOS and Windows accept, in Unicode normalisation form C, without characters that
//! hide or reorder text. What is refused is refused at its source (`add`) with the reason, and again by everybody who
//! receives it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark, is_nfc};

/// Longest member name, in bytes: a DNS label, so that it can be a host name or metric label as it is.
pub const MEMBER_NAME_MAX_BYTES: usize = 63;
/// Longest file name with its folders, in bytes.
pub const FILE_NAME_MAX_BYTES: usize = 1024;
/// Longest single component, in bytes; leaves room for `<owner>/` and a temporary suffix within common limits.
pub const COMPONENT_MAX_BYTES: usize = 200;
/// Deepest nesting of folders in a file name.
pub const FILE_NAME_MAX_DEPTH: usize = 32;
/// Most combining marks on one letter: living scripts need up to four, and a flood of them paints over other lines.
pub const COMBINING_MARKS_MAX: usize = 8;

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
    /// Windows drops such an ending, so two names would become one; other spaces at an end are not seen.
    #[error("a part of it ends with a dot or begins or ends with a space")]
    Ending,
    /// Marks that would stand on what is shown before the name, or paint over other lines.
    #[error(
        "a part of it begins with a combining mark, or has more than {COMBINING_MARKS_MAX} on one letter"
    )]
    Marks,
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

    /// Equal for names that some file system or reader takes for one, see [`fold`].
    pub fn folded(&self) -> String {
        fold(&self.0)
    }
}

/// The form in which *twins* are equal: names that differ by case, by normalisation, or by what chooses between two
/// pictures of one letter.
///
/// Systems fold case each in its own way: `ß` is `SS` to some, `ς` and `σ`, `ı` and `i` are one to others. This is the
/// coarsest of them, so that no two names which any of them takes for one are apart here; the price is that a few that
/// a system would keep apart count as twins.
pub fn fold(name: &str) -> String {
    let chosen = |c: &char| matches!(c, '\u{fe00}'..='\u{fe0f}');
    // By way of lower case, since `ẞ` is an upper case to nothing else.
    let upper = name.nfd().filter(|c| !chosen(c)).flat_map(char::to_lowercase).flat_map(char::to_uppercase);
    // Decomposed, so that the dot of `İ` is a mark of its own; on an `i` it is not seen.
    let lower: Vec<char> = upper.flat_map(char::to_lowercase).nfd().collect();
    let dots = |place: usize| place > 0 && lower[place] == '\u{307}' && lower[place - 1] == 'i';
    (0..lower.len()).filter(|place| !dots(*place)).map(|place| lower[place]).nfc().collect()
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
    if component.ends_with('.')
        || component.ends_with(char::is_whitespace)
        || component.starts_with(char::is_whitespace)
    {
        return Err(NameError::Ending);
    }
    // A component begins at an empty letter that takes no mark.
    let mut room = 0;
    for c in component.chars() {
        room = match (is_combining_mark(c), room) {
            (false, _) => COMBINING_MARKS_MAX,
            (true, 0) => return Err(NameError::Marks),
            (true, left) => left - 1,
        };
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
            | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
        // Private use and non-characters have no agreed appearance.
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{f0000}'..)
        || u32::from(c) & 0xfffe == 0xfffe
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
            "a\u{a0}",
            "\u{3000}a",
            "\u{301}a",
            "a/\u{338}b",
            "zalgo\u{334}\u{335}\u{336}\u{337}\u{338}\u{321}\u{322}\u{327}\u{328}.txt",
            "blank\u{2800}",
            "plane\u{1fffe}",
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
    fn twins_by_any_systems_rule_fold_to_one_and_others_do_not() {
        for (one, other) in [
            ("straße", "STRASSE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("ISTANBUL", "ıstanbul"),
            ("İstanbul", "istanbul"),
            ("ﬁle", "FILE"),
            ("ſecret", "SECRET"),
            ("❤\u{fe0f}.png", "❤.png"),
            ("vera\u{303}o", "VERÃO"),
            ("\u{1e9e}", "ss"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("ä", "a"), ("ж", "x"), ("1", "l"), ("ö", "o")] {
            assert_ne!(fold(one), fold(other));
        }
    }

    #[test]
    fn a_decomposed_name_is_composed_at_its_source() {
        assert_eq!(FileName::normalised("vera\u{303}o.txt").unwrap().as_str(), "verão.txt");
    }

    /// Any text, and texts of what is special.
    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "\\PC{0,40}",
            "[a./\\\\ ]{0,20}",
            "[A-Za-zÄßİıſς\u{300}-\u{303}\u{fe0f}]{0,12}",
            "(con|NUL|com1|lpt9|\\.\\.|a)[. /]{0,3}[a-z]{0,3}",
        ]
    }

    proptest! {
        #[test]
        fn an_accepted_name_joins_to_a_path_below_its_folder(name in any_name()) {
            if let Ok(name) = FileName::new(&name) {
                let path = std::path::Path::new("/library").join(name.as_str());
                prop_assert!(path.starts_with("/library"));
                prop_assert!(path.components().skip(2).all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), 2 + name.components().count());
            }
        }

        #[test]
        fn what_is_normalised_is_accepted_as_it_is_and_normalising_again_changes_nothing(name in any_name()) {
            if let Ok(normal) = FileName::normalised(&name) {
                prop_assert_eq!(FileName::new(normal.as_str()), Ok(normal.clone()));
                prop_assert_eq!(FileName::normalised(normal.as_str()), Ok(normal));
            }
        }

        #[test]
        fn an_accepted_name_survives_the_wire_and_a_refused_one_cannot_be_sent(name in any_name()) {
            let sent = crate::cbor::to_vec(name.as_str());
            match FileName::new(&name) {
                Ok(accepted) => {
                    prop_assert_eq!(&crate::cbor::to_vec(&accepted), &sent);
                    prop_assert_eq!(crate::cbor::from_slice::<FileName>(&sent), Ok(accepted));
                }
                Err(_) => prop_assert!(crate::cbor::from_slice::<FileName>(&sent).is_err()),
            }
        }

        #[test]
        fn an_accepted_name_is_one_line_within_its_bounds_and_its_parts_are_names_too(name in any_name()) {
            if let Ok(name) = FileName::new(&name) {
                prop_assert!(name.as_str().len() <= FILE_NAME_MAX_BYTES);
                prop_assert!(!name.as_str().chars().any(is_hostile));
                prop_assert_eq!(name.as_str().lines().count(), 1);
                for part in name.components() {
                    prop_assert!(FileName::new(part).is_ok_and(|name| name.leaf() == part), "{:?}", part);
                }
            }
        }

        #[test]
        fn folding_is_idempotent_and_blind_to_case_and_normalisation(name in any_name()) {
            let folded = fold(&name);
            prop_assert_eq!(fold(&folded), folded.clone());
            prop_assert_eq!(fold(&name.nfd().collect::<String>()), folded.clone());
            // Of the decomposed name: an upper case that turns a mark into a letter leaves the marks behind it apart.
            let upper = name.nfd().collect::<String>().to_uppercase();
            prop_assert_eq!(fold(&upper), folded);
        }
    }
}
