//! `DATA/settings.toml`: what an operator decided for this member, typed by the service that reads it.
//!
//! A missing file reads as an empty one, so a service's defaults live in one place, its type. An unknown key
//! is an error that names the line: a misspelt quota must not silently be no quota. For that the type must
//! carry `#[serde(deny_unknown_fields)]`, on nested tables too.

use crate::data_dir::{Folder, FolderError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

const SETTINGS_FILE: &str = "settings.toml";

/// Why settings could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The text is not what the service expects.
    #[error("cannot use {}: line {line}: {why}; correct that line and start again", path.display())]
    Unusable {
        /// The settings file.
        path: PathBuf,
        /// The line at fault, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The settings cannot be expressed in TOML, which is a fault of the service's type.
    #[error("cannot write {}: {cause}; please report this as a bug", path.display())]
    Inexpressible {
        /// The settings file.
        path: PathBuf,
        /// What TOML lacks.
        cause: toml::ser::Error,
    },
    /// The file system refused.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// Reads the settings; a missing file gives the type's defaults.
///
/// # Errors
/// [`SettingsError::Unusable`] with the line, or what the file system said.
pub fn load<T: DeserializeOwned>(folder: &Folder) -> Result<T, SettingsError> {
    let path = folder.path().join(SETTINGS_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(cause) => return Err(FolderError::new("read", &path, cause).into()),
    };
    toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        SettingsError::Unusable { path, line, why: error.message().to_owned() }
    })
}

/// Writes the settings, replacing the file whole.
///
/// # Errors
/// What the file system said; the old settings stand then.
pub fn save<T: Serialize>(folder: &Folder, settings: &T) -> Result<(), SettingsError> {
    let text = toml::to_string_pretty(settings)
        .map_err(|cause| SettingsError::Inexpressible { path: folder.path().join(SETTINGS_FILE), cause })?;
    folder.write_private(SETTINGS_FILE, text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_dir::{DataDir, Marker, Role};
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        http: String,
        poll_seconds: u32,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { http: "127.0.0.1:7480".into(), poll_seconds: 15 }
        }
    }

    fn dir() -> (tempfile::TempDir, DataDir) {
        let place = tempfile::tempdir().unwrap();
        let marker = Marker { role: Role::Node, network: "00".into(), name: "n".into() };
        let dir = DataDir::create(place.path(), marker).unwrap();
        (place, dir)
    }

    fn refusal(text: &str) -> String {
        let (_place, dir) = dir();
        dir.write_private(SETTINGS_FILE, text.as_bytes()).unwrap();
        load::<Settings>(dir.folder()).unwrap_err().to_string()
    }

    #[test]
    fn settings_read_back_as_they_were_saved() {
        let (_place, dir) = dir();
        assert_eq!(load::<Settings>(dir.folder()).unwrap(), Settings::default());
        let changed = Settings { http: "[::1]:0".into(), poll_seconds: 1 };
        save(dir.folder(), &changed).unwrap();
        assert_eq!(load::<Settings>(dir.folder()).unwrap(), changed);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let text = refusal("# ours\nhttp = \"x\"\npol_seconds = 3\n");
        assert!(text.contains("line 3: unknown field `pol_seconds`"), "{text}");
        assert!(text.ends_with("correct that line and start again"), "{text}");
    }

    #[test]
    fn a_wrong_type_and_broken_syntax_name_their_line() {
        assert!(refusal("\npoll_seconds = \"often\"\n").contains("line 2: "));
        assert!(refusal("http = \"x\"\npoll_seconds = \n").contains("line 2: "));
    }
}
