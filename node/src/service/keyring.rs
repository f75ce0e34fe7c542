//! The keys of audiences: opening what a record says of its content, and sealing it for readers.
//!
//! Everything that reads a file goes through [`Shared::secret_of`], which opens open and restricted records alike, so
//! that no path can forget that there are restricted ones. Keys come from this node's own audiences and from the wraps
//! that owners sealed for it; opening a wrap costs a Diffie-Hellman, so the keys are kept in memory, bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{AccessPlace, AccessSecret, Keys, Wrap},
    ids::{AudienceId, ContentId, FileId, Sha256},
    records::{Access, Record},
};

use super::Shared;
use crate::{audiences, database::DatabaseError};

/// Audiences whose keys are kept in memory: far more than a branch reads files of in an hour.
const KEPT_MAX: usize = 4096;

/// Opened keys, each with the audience's owner.
#[derive(Debug, Default)]
pub(crate) struct Keyring(Mutex<HashMap<AudienceId, (PeerId, Keys)>>);

impl Keyring {
    fn kept(&self) -> MutexGuard<'_, HashMap<AudienceId, (PeerId, Keys)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The audience has other keys than before.
    pub(super) fn forget(&self, audience: &AudienceId) {
        self.kept().remove(audience);
    }
}

/// Who is to read a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Everybody who may hold the record.
    Everybody,
    /// An audience of this node's own.
    Audience(AudienceId),
}

impl Readers {
    /// Those of a record: for another one that is to be for the same.
    pub(crate) const fn of(access: &Access) -> Self {
        match access {
            Access::Open { .. } => Self::Everybody,
            Access::Restricted { audience, .. } => Self::Audience(*audience),
        }
    }

    /// What a record says so that these, and only these, can open a content. Blocks on the disk: an audience's keys change
    /// when a reader's membership ends, and what is sealed now is sealed under the latest.
    ///
    /// # Errors
    /// [`DatabaseError`], also where the audience is not this node's.
    pub(crate) fn access(
        &self,
        shared: &Shared,
        file: &FileId,
        content: &ContentId,
        secret: AccessSecret,
    ) -> Result<Access, DatabaseError> {
        Ok(match self {
            Self::Everybody => {
                let AccessSecret { key, sha256, media_type } = secret;
                Access::Open { key, sha256, media_type }
            }
            Self::Audience(audience) => {
                let network = &shared.identity.trust.network;
                let missing = DatabaseError::Damaged("an audience of this branch");
                let own = shared.database.own_audience(audience)?;
                let Some((epoch, key)) = own.as_ref().and_then(|own| own.keys.0.last_key_value()) else {
                    return Err(missing);
                };
                let sealed =
                    key.seal(&secret, &AccessPlace { network, file, content, audience, epoch: *epoch });
                Access::Restricted { audience: *audience, epoch: *epoch, sealed }
            }
        })
    }
}

impl Shared {
    /// What opens a file's content, with its checksum and type. None for a deleted file, and where this node may not
    /// read it or has not got the keys yet. May block on the disk.
    pub(crate) fn secret_of(&self, record: &Record) -> Option<AccessSecret> {
        let audience = match &record.entry()?.access {
            Access::Open { key, sha256, media_type } => {
                let (key, sha256, media_type) = (key.clone(), *sha256, media_type.clone());
                return Some(AccessSecret { key, sha256, media_type });
            }
            Access::Restricted { audience, .. } => *audience,
        };
        let network = &self.identity.trust.network;
        let opens = |(owner, keys): &(PeerId, Keys)| {
            // Another's audience says nothing about this owner's files.
            (*owner == record.owner()).then(|| audiences::open(record, keys, network)).flatten()
        };
        if let Some(secret) = self.keyring.kept().get(&audience).and_then(opens) {
            return Some(secret);
        }
        let read = match self.read_keys(&audience) {
            Ok(read) => read?,
            Err(error) => {
                tracing::error!(%error, "an audience's keys could not be read");
                return None;
            }
        };
        let secret = opens(&read);
        let mut kept = self.keyring.kept();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(audience, read);
        secret
    }

    fn read_keys(&self, audience: &AudienceId) -> Result<Option<(PeerId, Keys)>, DatabaseError> {
        if let Some(own) = self.database.own_audience(audience)? {
            return Ok(Some((own.audience.origin.owner, own.keys)));
        }
        let Some(signed) = self.database.wrap(audience, &self.identity.keys.peer())? else { return Ok(None) };
        let opened = Wrap::verify(signed, &self.identity.trust).and_then(|wrap| {
            let keys = wrap.statement().open(&self.identity.keys.sealing, &self.identity.trust.network)?;
            Ok((wrap.statement().origin.owner, keys))
        });
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => {
                tracing::warn!(%audience, %error, "the keys of an audience cannot be opened");
                Ok(None)
            }
        }
    }
}

/// The checksum as others may see it in a list: none where it is sealed.
pub(crate) fn listed_sha256(access: &Access) -> Option<Sha256> {
    match access {
        Access::Open { sha256, .. } => Some(*sha256),
        Access::Restricted { .. } => None,
    }
}
