//! How names are compared in a search: without regard to case and accents. Pure.
//!
//! Folding happens here and not in SQLite's tokenizer, so that beginnings, substrings and the order of the list all
//! follow one rule.

use unicode_normalization::UnicodeNormalization;

/// A text as searched: lower case, without the accents of Latin, Greek and Cyrillic letters, in form C.
///
/// Other scripts' marks carry meaning (`が` is not `か`) and stay.
pub(super) fn fold(text: &str) -> String {
    let accent = |c: &char| matches!(c, '\u{300}'..='\u{36f}');
    let plain: String = text.chars().flat_map(char::to_lowercase).nfd().filter(|c| !accent(c)).collect();
    plain.nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_and_accents_do_not_count_and_meaning_does() {
        assert_eq!(fold("Campanha VERÃO/Ação.PNG"), "campanha verao/acao.png");
        assert_eq!(fold("İstanbul"), fold("istanbul"));
        assert_eq!(fold("Ёлка"), "елка");
        assert_ne!(fold("が"), fold("か"));
        assert_eq!(fold("한국"), "한국");
    }

    proptest! {
        #[test]
        fn what_is_folded_stays_as_it_is(text in "\\PC{0,40}") {
            prop_assert_eq!(fold(&fold(&text)), fold(&text));
        }
    }
}
