//! Text of others, made safe for a terminal or a log.
//!
//! File names, branch names and error texts come from other machines. Written as they are, they can forge log
//! lines (a newline), recolour or rewrite a terminal (ESC), or make a name read backwards (bidirectional
//! controls). What goes through here comes out on one line and shows every such character as an escape;
//! letters of any script pass untouched. Backslashes pass untouched too: this is for reading, not for parsing
//! back.

use std::fmt::{self, Display, Write};

/// Whether a character may deceive a reader or a terminal when it is written as it is.
///
/// These are all control characters (C0 with newline and tab, DEL, C1), line and paragraph separators,
/// bidirectional controls and marks, invisible fillers, and Unicode's tag characters. The joiners U+200C and
/// U+200D are allowed: Persian, Indic scripts and emoji need them.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// Displays text on one line, with deceptive characters written as in a Rust string (`\n`, `\u{1b}`).
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_deceptive(c) {
                Display::fmt(&c.escape_default(), f)?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Displays a JSON document with deceptive characters written as JSON escapes (`\u001b`).
///
/// The document must hold no such character outside its strings, which is so for everything that `serde_json`
/// writes compactly. The result is the same document to a parser.
#[derive(Debug, Clone, Copy)]
pub struct EscapedJson<'a>(pub &'a str);

impl Display for EscapedJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_deceptive(c) {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    write!(f, "\\u{unit:04x}")?;
                }
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_hostile_name_is_shown_on_one_line_without_terminal_codes() {
        assert_eq!(
            Escaped("a\nb\r\t\x1b[2J\u{9b}\u{202e}gpj.exe").to_string(),
            r"a\nb\r\t\u{1b}[2J\u{9b}\u{202e}gpj.exe"
        );
    }

    #[test]
    fn names_in_any_script_pass_untouched() {
        for name in ["relatório final.xlsx", "销售.csv", "می‌خواهم", "👩‍💻.png", r"back\slash"]
        {
            assert_eq!(Escaped(name).to_string(), name);
        }
    }

    proptest! {
        #[test]
        fn nothing_deceptive_remains(text in any::<String>()) {
            prop_assert!(!Escaped(&text).to_string().chars().any(is_deceptive));
        }

        #[test]
        fn json_keeps_its_meaning(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let escaped = EscapedJson(&json).to_string();
            prop_assert!(!escaped.chars().any(is_deceptive));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }
}
