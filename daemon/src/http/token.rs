//! The API's bearer token, `DATA/api-token`.
//!
//! A token never shows in a log, an error or a debug print: its type prints as redacted, and only
//! [`Token::reveal`] gives its text away.

use crate::data_dir::{Folder, FolderError};
use data_encoding::BASE64URL_NOPAD;
use rand::TryRng;
use rand::rngs::SysRng;
use std::fmt;
use zeroize::Zeroizing;

/// The token's file in the data folder.
pub const TOKEN_FILE: &str = "api-token";

/// Random bytes in a new token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// The shortest token that an operator may choose, in characters; 32 of base64 are 192 bits.
const MIN_TOKEN_CHARS: usize = 32;

/// The longest token, in characters, far below the limit on headers.
const MAX_TOKEN_CHARS: usize = 512;

/// A bearer token: 32 to 512 visible ASCII characters. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file holds no token.
    #[error(
        "cannot use the API token in {TOKEN_FILE}: it is not one line of {MIN_TOKEN_CHARS} to \
         {MAX_TOKEN_CHARS} visible ASCII characters; delete the file to have a new one made at the next start"
    )]
    Unusable,
    /// The system gave no random bytes.
    #[error("cannot make an API token: the system gave no random bytes; check the machine and start again")]
    NoRandomness,
    /// The file could not be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl Token {
    /// The token in the data folder; a new one is made, durably, where there is none.
    ///
    /// # Errors
    /// [`TokenError`], also when others may read the file.
    pub fn load_or_create(dir: &Folder) -> Result<Self, TokenError> {
        match dir.read_private(TOKEN_FILE) {
            Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(Self::parse).ok_or(TokenError::Unusable),
            Err(error) if error.is_not_found() => {
                let token = Self::random()?;
                let line = Zeroizing::new(format!("{}\n", token.reveal()));
                dir.write_private(TOKEN_FILE, line.as_bytes())?;
                Ok(token)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn random() -> Result<Self, TokenError> {
        random_text().map(Self).ok_or(TokenError::NoRandomness)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let fits = (MIN_TOKEN_CHARS..=MAX_TOKEN_CHARS).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic()))
            .then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The token's text. Must not be logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether `given` is this token, in a time that does not depend on where they differ.
    ///
    /// BLAKE3 hashes compare in constant time, and hashing first hides the token's length too.
    pub fn matches(&self, given: &str) -> bool {
        blake3::hash(self.0.as_bytes()) == blake3::hash(given.as_bytes())
    }
}

/// A fresh secret of 256 bits as text; none where the system gives no random bytes.
pub(super) fn random_text() -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
    SysRng.try_fill_bytes(&mut *bytes).ok()?;
    Some(Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes)))
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::DataDir;
    use crate::data_dir::{Marker, Role};
    use std::os::unix::fs::PermissionsExt;

    fn dir() -> (tempfile::TempDir, DataDir) {
        let place = tempfile::tempdir().unwrap();
        let marker = Marker { role: Role::Node, network: "00".into(), name: "n".into() };
        let dir = DataDir::create(place.path(), marker).unwrap();
        (place, dir)
    }

    #[test]
    fn a_new_token_has_256_bits_and_stays_the_same() {
        let (_place, dir) = dir();
        let token = Token::load_or_create(dir.folder()).unwrap();
        assert_eq!(BASE64URL_NOPAD.decode(token.reveal().as_bytes()).unwrap().len(), 32);
        assert!(Token::load_or_create(dir.folder()).unwrap().matches(token.reveal()));
        let metadata = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn another_folders_token_does_not_match() {
        let ((_a, one), (_b, two)) = (dir(), dir());
        let token = Token::load_or_create(one.folder()).unwrap();
        assert!(!Token::load_or_create(two.folder()).unwrap().matches(token.reveal()));
    }

    #[test]
    fn a_weak_or_broken_token_is_refused() {
        for text in [
            "",
            "short",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef 0123456789abcdef",
            "ção".repeat(20).as_str(),
        ] {
            let (_place, dir) = dir();
            dir.write_private(TOKEN_FILE, text.as_bytes()).unwrap();
            assert!(matches!(Token::load_or_create(dir.folder()), Err(TokenError::Unusable)), "{text}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let (_place, dir) = dir();
        let token = Token::load_or_create(dir.folder()).unwrap();
        assert_eq!(format!("{token:?}"), "Token(redacted)");
    }
}
