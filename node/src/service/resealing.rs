//! Sealing a copy anew where only its key has changed, as it does when a file is restricted: whoever may still read the
//! file has the plaintext already, so nothing need be fetched, and nothing is copied.
//!
//! Sealing is deterministic, so the manifest that comes out is the record's, or the copy is another file than was meant:
//! then it is fetched like any new content.

use std::sync::Arc;

use quarta_protocols::{messages::inventory::Completeness, records::Record};

use super::{Shared, keyring::listed_sha256};
use crate::{
    database::{DatabaseError, LibraryCopy},
    sealing::{ResealError, reseal},
};

impl Shared {
    /// Makes the copy of a file one of its present content, if it is the same plaintext; whether that is so. Blocks for as
    /// long as reading and hashing the copy takes.
    ///
    /// # Errors
    /// [`DatabaseError`]; the copy is as it was then.
    pub(super) fn reseal_copy(self: &Arc<Self>, record: &Record) -> Result<bool, DatabaseError> {
        let (Some(entry), Some(copy)) = (record.entry(), self.database.copy(&record.file())?) else {
            return Ok(false);
        };
        if copy.content == entry.content || copy.completeness != Completeness::Complete {
            return Ok(false);
        }
        let before = Record::verify(copy.record.clone(), &self.identity.trust).ok();
        let before = before.and_then(|before| self.secret_of(&before));
        let Some((before, secret)) = before.zip(self.secret_of(record)) else { return Ok(false) };
        if before.sha256 != secret.sha256 {
            return Ok(false);
        }
        let manifest = match reseal(&self.library, &copy.place, &secret.key, &secret.sha256) {
            Ok(manifest) => manifest,
            Err(ResealError::Defective(defect)) => {
                self.lost(&copy, defect);
                return Ok(false);
            }
            Err(error @ ResealError::NotNow(_)) => {
                tracing::warn!(file = %copy.file, %error, "a copy could not be sealed anew, and is fetched");
                return Ok(false);
            }
        };
        if manifest.id() != entry.content {
            return Ok(false);
        }
        let old = copy.content;
        let copy = LibraryCopy {
            name: entry.name.clone(),
            content: entry.content,
            sha256: listed_sha256(&entry.access),
            record: record.signed().clone(),
            ..copy
        };
        self.noted(self.database.put_copy(&copy, &manifest))?;
        self.uploads.forget(&old);
        self.offer(&copy);
        tracing::info!(file = %copy.file, "a copy was sealed anew for those who may read the file now");
        Ok(true)
    }
}
