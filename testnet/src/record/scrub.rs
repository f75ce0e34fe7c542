//! What must not stand in a record is replaced by a word: folders of this machine, API tokens, invites.
//!
//! Members log no secret in the first place, which `tests/secrets.rs` shows on their raw output. This is for what else
//! ends up in a folder that is copied and committed: a person's folder, and whatever a later change might let slip.

use quarta_protocols::invites::INVITE_PREFIX;
use std::path::Path;

/// Stands for an invite.
const INVITE: &str = "INVITE";
/// A shorter text after the prefix is a word that happens to begin like an invite.
const INVITE_MIN_CHARS: usize = 20;

/// What is to be replaced by what.
#[derive(Debug, Clone, Default)]
pub struct Scrub(Vec<(String, &'static str)>);

impl Scrub {
    /// Also replaces the path of a folder by `word`.
    #[must_use]
    pub fn folder(self, path: &Path, word: &'static str) -> Self {
        self.secret(&path.to_string_lossy(), word)
    }

    /// Also replaces a text by `word`. An empty text is none.
    #[must_use]
    pub fn secret(mut self, text: &str, word: &'static str) -> Self {
        if !text.is_empty() {
            self.0.push((text.to_owned(), word));
        }
        self
    }

    /// The text without what must not stand in it.
    pub fn clean(&self, text: &str) -> String {
        let text = self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from.as_str(), to));
        without_invites(&text)
    }
}

fn without_invites(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(INVITE_PREFIX) {
        let (before, from) = rest.split_at(at);
        clean.push_str(before);
        let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
        clean.push_str(if end < INVITE_PREFIX.len() + INVITE_MIN_CHARS { &from[..end] } else { INVITE });
        rest = &from[end..];
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_tokens_and_invites_are_replaced_and_the_rest_is_kept() {
        let scrub = Scrub::default()
            .folder(Path::new("/tmp/q1"), "DEMO")
            .secret("0f0f", "TOKEN")
            .secret("", "NOTHING");
        assert_eq!(scrub.clean("/tmp/q1/a said 0f0f, twice 0f0f"), "DEMO/a said TOKEN, twice TOKEN");
        let invite = format!("{INVITE_PREFIX}{}", "uzshe33pormcbcui4pox".repeat(3));
        assert_eq!(
            scrub.clean(&format!("join {invite}: {invite}, quarta1.bin")),
            "join INVITE: INVITE, quarta1.bin"
        );
    }
}
