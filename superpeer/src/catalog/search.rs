//! How a search is carried out: which index answers which text. Pure but for [`Plan::rows`]' SQL text.
//!
//! Results come in name order, page by page, so each page must cost about as much as it shows, with a million files:
//!
//! - all files, and texts of one or two letters (as beginnings of names): the index in name order, from the place where
//!   the last page ended;
//! - longer texts that few names contain: the letter index (FTS5 trigrams), then sorted;
//! - longer texts that very many names contain, and short ones in scripts where one sign is a word: the index in name
//!   order, looking into each name. Sorting all the matches for every page would take longer than reading past the
//!   few names between two of them.
//!
//! A page is merged from the parts that a viewer may see: the open files, and those of each audience that permits it.

use quarta_protocols::messages::index::Cursor;

use super::{fold::fold, sight::shown_to};

/// Letters in a trigram, the least that the letter index can find.
const TRIGRAM: usize = 3;
/// Up to that many matches are sorted for a page.
pub(super) const SORTED_MAX: u32 = 5_000;

/// What a person looks for, folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Names that begin with this; all where empty.
    Beginning(String),
    /// Names that contain this short text of few names' script.
    Sign(String),
    /// Names that contain this, which the letter index can find.
    Letters(String),
    /// No name can contain it.
    Nothing,
}

impl Wanted {
    pub(super) fn new(query: &str) -> Self {
        let folded = fold(query.trim());
        if folded.chars().any(char::is_control) {
            return Self::Nothing;
        }
        if folded.chars().count() >= TRIGRAM {
            Self::Letters(folded)
        } else if folded.is_ascii() {
            Self::Beginning(folded)
        } else {
            Self::Sign(folded)
        }
    }
}

/// The letter index's query for a text taken literally: FTS5 reads everything between double quotes as text, and two
/// double quotes as one.
pub(super) fn phrase(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Which rows are read, in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// In name order between two bounds.
    Range,
    /// In name order, keeping the names that contain `:text`.
    Walk,
    /// Those that the letter index finds, sorted.
    Sorted,
}

/// Which files a statement looks at.
///
/// What is hidden from a member must cost it nothing, or whoever made a million hidden files would make everybody's
/// lists slow. So restricted files stand apart, by owner and audience, and only those that a member may see are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All, for an administrator.
    All,
    /// Those that every member may see.
    Open,
    /// The restricted ones.
    Restricted,
}

impl Plan {
    /// The statement that gives row, folded name and id of `:limit` files of a part after (`:low`, `:low_file`), in name
    /// order. Of [`Part::Restricted`] in name order those of `:owner` and `:audience`; of those that the letter index finds
    /// those that `:viewer` may see, where there is one.
    ///
    /// `INDEXED BY` makes a plan that would no longer be the intended one an error that tests see, not a slow query.
    pub(super) fn rows(self, part: Part, of_one_owner: bool, to_a_member: bool) -> String {
        let owner = if of_one_owner { "owner = :owner AND" } else { "" };
        let (names, index, of_part) = match part {
            Part::All if of_one_owner => ("file_names", "files_by_owner", ""),
            Part::All => ("file_names", "files_by_name", ""),
            Part::Open if of_one_owner => ("file_names", "files_by_owner", "audience = x'' AND"),
            Part::Open => ("file_names", "files_open_by_name", "audience = x'' AND"),
            Part::Restricted => {
                ("restricted_names", "files_restricted", "audience <> x'' AND audience = :audience AND")
            }
        };
        let in_order = |kept: &str| format!("files INDEXED BY {index} WHERE {owner} {of_part} {kept} AND");
        let chosen = match self {
            Self::Range => in_order("folded < :high"),
            Self::Walk => in_order("instr(folded, :text) > 0"),
            Self::Sorted => {
                let shown = if to_a_member { format!("{} AND", shown_to(":viewer")) } else { String::new() };
                format!(
                    "{names} CROSS JOIN files ON files.row = {names}.rowid
                     WHERE {names} MATCH :phrase AND {owner} {shown}"
                )
            }
        };
        format!(
            "SELECT files.row, files.folded, file FROM {chosen} (files.folded, file) > (:low, :low_file)
             ORDER BY files.folded, file LIMIT :limit"
        )
    }
}

/// The bounds of names that begin with a text, in byte order: no name holds U+10FFFF, so nothing lies above the second.
pub(super) fn bounds(beginning: &str, after: Option<&Cursor>) -> ((String, Vec<u8>), String) {
    let high = format!("{beginning}\u{10ffff}");
    let start = (beginning.to_owned(), Vec::new());
    let after = after.map(|cursor| (fold(cursor.name.as_str()), cursor.file.as_bytes().to_vec()));
    (after.unwrap_or_else(|| start.clone()).max(start), high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_looked_up_by_the_index_that_can_find_it() {
        assert_eq!(Wanted::new(""), Wanted::Beginning(String::new()));
        assert_eq!(Wanted::new(" Fo "), Wanted::Beginning("fo".into()));
        assert_eq!(Wanted::new("Ç"), Wanted::Beginning("c".into()));
        assert_eq!(Wanted::new("日本"), Wanted::Sign("日本".into()));
        assert_eq!(Wanted::new("VERÃO"), Wanted::Letters("verao".into()));
        assert_eq!(Wanted::new("a\0bc"), Wanted::Nothing);
    }

    #[test]
    fn a_phrase_is_text_whatever_it_contains() {
        assert_eq!(phrase("a\" OR \"b"), "\"a\"\" OR \"\"b\"");
    }
}
