//! Finding files and showing them: at a super-peer where one answers, else from what this node has heard.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc};

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    ids::FileId,
    lately::Mark,
    messages::index::{Cursor, ListedFile, ListedMember, Request, Response},
    names::{FILE_NAME_MAX_BYTES, FileName, MEMBER_NAME_MAX_BYTES, MemberName},
    records::{Access, Record, SignedRecord},
};

use super::{Shared, superpeers::AskError, wall_ms};
use crate::{
    api::model::{self, File},
    database::{
        Database, DatabaseError, KnownFile, KnownMember, LibraryCopy, Listing, Transfer, TransferId,
        TransferState as StoredState,
    },
};

/// Matches of one reference that are told apart for the person.
const MATCHES_SHOWN: usize = 5;
/// Longest `owner:name`: nothing longer names a file, and no super-peer is asked for it.
const REFERENCE_MAX_BYTES: usize = MEMBER_NAME_MAX_BYTES + 1 + FILE_NAME_MAX_BYTES;
/// How much of a longer one is repeated to the person.
const REFERENCE_SHOWN_CHARS: usize = 64;

/// Why a reference names no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    /// Nothing is called so.
    #[error("no file is called {0:?}")]
    NotFound(String),
    /// Several are.
    #[error("{reference:?} names several files: {matches}")]
    Ambiguous {
        /// What was typed.
        reference: String,
        /// Some of them.
        matches: String,
    },
    /// The file is known and there is no copy of it.
    #[error("no whole copy of {0:?} is on this machine")]
    NotHere(String),
    /// It cannot be found out.
    #[error("{0}")]
    Unanswered(AskError),
    /// The database failed.
    #[error("the database could not be read: {0}")]
    Database(String),
}

/// A file that a reference names.
pub(crate) struct FoundFile {
    pub(crate) record: Record,
    pub(crate) owner_name: MemberName,
    pub(crate) holders: Option<u32>,
}

impl From<DatabaseError> for FindError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error.to_string())
    }
}

impl Shared {
    /// The one file that a reference names.
    pub(crate) async fn find(self: &Arc<Self>, reference: &str) -> Result<FoundFile, FindError> {
        if reference.len() > REFERENCE_MAX_BYTES {
            let begins: String = reference.chars().take(REFERENCE_SHOWN_CHARS).collect();
            return Err(FindError::NotFound(format!("{begins}…")));
        }
        let request = Request::Resolve { reference: reference.to_owned() };
        let found = match self.superpeers.ask(self, request).await {
            Ok(Response::Files { files, .. }) => self.verified(files).await,
            Ok(_) => {
                return Err(FindError::Unanswered(AskError::Unanswered("it answered something else".into())));
            }
            Err(error) => {
                let local = self.find_known(reference.to_owned()).await?;
                if local.is_empty() {
                    return Err(FindError::Unanswered(error));
                }
                local
            }
        };
        one_of(reference, found)
    }

    /// Keeps those records that are genuine, and remembers them.
    async fn verified(self: &Arc<Self>, files: Vec<ListedFile>) -> Vec<FoundFile> {
        let shared = self.clone();
        let verified = tokio::task::spawn_blocking(move || {
            let mut found = Vec::with_capacity(files.len());
            let mut fresh = Vec::new();
            for file in files {
                let mark = Mark::of(&cbor::to_vec(&file.record));
                let record = match shared.verified.get(&mark) {
                    Some(record) => record,
                    None => match Record::verify(file.record, &shared.identity.trust) {
                        Ok(record) => {
                            fresh.push((mark, record.clone()));
                            record
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a super-peer listed a record that is not genuine");
                            continue;
                        }
                    },
                };
                found.push(FoundFile { record, owner_name: file.owner, holders: Some(file.holders) });
            }
            let records = fresh.iter().map(|(_, record)| record);
            let kept = shared.database.remember_records(records, &shared.identity.trust, wall_ms());
            match shared.noted(kept) {
                Ok(kept) => {
                    shared.upkeep.changed(kept);
                    shared.verified.keep(fresh);
                }
                // Not kept, so that the next listing tries again.
                Err(error) => tracing::error!(%error, "records could not be remembered"),
            }
            found
        });
        verified.await.unwrap_or_default()
    }

    /// What this node has heard of that the reference could name.
    pub(super) async fn find_known(self: &Arc<Self>, reference: String) -> Result<Vec<FoundFile>, FindError> {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            let names = member_names(&shared.database)?;
            let mut files: Vec<FileId> = Vec::new();
            let limit = u32::try_from(MATCHES_SHOWN + 1).unwrap_or(u32::MAX);
            let (owner, name) = match reference.split_once(':') {
                Some((owner, name)) => {
                    (names.iter().find(|(_, n)| n.as_str() == owner).map(|(peer, _)| *peer), name)
                }
                None => (None, reference.as_str()),
            };
            if let Ok(name) = FileName::normalised(name) {
                files.extend(
                    shared.database.files_named(&name, owner.as_ref(), limit)?.iter().map(|f| f.file),
                );
            }
            if files.is_empty() && reference.len() >= 4 {
                files.extend(shared.database.files_by_prefix(&reference, limit)?.iter().map(|f| f.file));
            }
            let mut found = Vec::new();
            for file in files {
                let Some(signed) = shared.database.record(&file)? else { continue };
                let Ok(record) = Record::verify(signed, &shared.identity.trust) else { continue };
                let owner_name = shared.name_of(&names, &record.owner());
                if let Some(owner_name) = owner_name.filter(|_| record.entry().is_some()) {
                    found.push(FoundFile { record, owner_name, holders: None });
                }
            }
            Ok(found)
        })
        .await
        .map_err(|e| FindError::Database(e.to_string()))?
    }

    /// The name of a record's owner, as far as it is known. Blocks on the disk.
    pub(super) fn owner_name(&self, record: &Record) -> Result<Option<MemberName>, DatabaseError> {
        if record.owner() == self.identity.keys.peer() {
            return Ok(Some(self.identity.membership.name.clone()));
        }
        Ok(self.database.member(&record.owner())?.map(|member| member.listed.name))
    }

    fn name_of(&self, names: &HashMap<PeerId, MemberName>, peer: &PeerId) -> Option<MemberName> {
        if *peer == self.identity.keys.peer() {
            return Some(self.identity.membership.name.clone());
        }
        names.get(peer).cloned()
    }

    /// A page of the network's files.
    pub(crate) async fn list(
        self: &Arc<Self>,
        query: String,
        after: Option<Cursor>,
        limit: NonZeroUsize,
    ) -> Result<(Vec<File>, Option<Cursor>, bool), FindError> {
        let limit = rows(limit);
        let request = Request::Search { query: query.clone(), owner: None, after: after.clone(), limit };
        match self.superpeers.ask(self, request).await {
            Ok(Response::Files { files, next }) => {
                let found = self.verified(files).await;
                Ok((self.show_all(found).await?, next, false))
            }
            Ok(_) => {
                Err(FindError::Unanswered(AskError::Unanswered("it answered something else".to_owned())))
            }
            Err(error) => {
                tracing::info!(%error, "listing what this node has heard of");
                self.list_known(query, after, limit).await
            }
        }
    }

    async fn list_known(
        self: &Arc<Self>,
        query: String,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<(Vec<File>, Option<Cursor>, bool), FindError> {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            let names = member_names(&shared.database)?;
            let listing = Listing {
                query: Some(query).filter(|query| !query.is_empty()),
                owner: None,
                after: after.map(|cursor| (cursor.name, cursor.file)),
            };
            let known = shared.database.list_files(&listing, limit)?;
            let full = known.len() == limit as usize;
            let next = known.last().filter(|_| full).map(cursor_of);
            let mut files = Vec::with_capacity(known.len());
            for known in known {
                let Some(signed) = shared.database.record(&known.file)? else { continue };
                let Ok(record) = Record::verify(signed, &shared.identity.trust) else { continue };
                let Some(owner_name) = shared.name_of(&names, &record.owner()) else { continue };
                let found = FoundFile { record, owner_name, holders: None };
                files.extend(shared.show(&found, shared.database.copy(&known.file)?.as_ref()));
            }
            Ok((files, next, true))
        })
        .await
        .map_err(|e| FindError::Database(e.to_string()))?
    }

    async fn show_all(self: &Arc<Self>, found: Vec<FoundFile>) -> Result<Vec<File>, FindError> {
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut files = Vec::with_capacity(found.len());
            for file in found {
                let copy = shared.database.copy(&file.record.file())?;
                files.extend(shared.show(&file, copy.as_ref()));
            }
            Ok(files)
        })
        .await
        .map_err(|e| FindError::Database(e.to_string()))?
    }

    /// One file as people see it.
    pub(crate) async fn show_found(self: &Arc<Self>, found: FoundFile) -> Result<File, FindError> {
        let reference = found.record.file().to_string();
        self.show_all(vec![found]).await?.pop().ok_or(FindError::NotFound(reference))
    }

    /// An own file that has just been added, as people see it.
    pub(crate) fn show_copy(&self, copy: &LibraryCopy) -> Option<File> {
        let record = Record::verify(copy.record.clone(), &self.identity.trust).ok()?;
        let found = FoundFile { record, owner_name: copy.owner_name.clone(), holders: None };
        self.show(&found, Some(copy))
    }

    /// A file as people see it; none for a deleted one.
    fn show(&self, found: &FoundFile, copy: Option<&LibraryCopy>) -> Option<File> {
        let entry = found.record.entry()?;
        let secret = self.secret_of(&found.record);
        let (sha256, media_type) =
            secret.map(|secret| (secret.sha256.to_string(), secret.media_type.clone())).unzip();
        let copy = copy.filter(|copy| copy.content == entry.content);
        let (orphaned, offered_to) = self.ownership_of(&found.record);
        Some(File {
            orphaned,
            offered_to,
            id: found.record.file().to_string(),
            name: entry.name.to_string(),
            owner: found.owner_name.to_string(),
            owner_id: found.record.owner().to_string(),
            size_bytes: entry.size_bytes,
            sha256,
            media_type: media_type.flatten(),
            restricted: matches!(entry.access, Access::Restricted { .. }),
            content: entry.content.to_string(),
            revision: found.record.body().revision,
            holders: found.holders,
            path: copy.map(|copy| self.library.path_of(&copy.place).display().to_string()),
            defect: copy.and_then(|copy| self.defects.get(&copy.file)).map(|found| found.defect),
        })
    }

    /// All members, and whether that is what this node has heard of because no super-peer answers.
    pub(crate) async fn members(self: &Arc<Self>) -> Result<(Vec<ListedMember>, bool), FindError> {
        let error = match self.superpeers.members(self).await {
            Ok(members) => return Ok((members, false)),
            Err(error) => error,
        };
        let shared = self.clone();
        let known = tokio::task::spawn_blocking(move || shared.database.members())
            .await
            .map_err(|e| FindError::Database(e.to_string()))??;
        if known.is_empty() {
            return Err(FindError::Unanswered(error));
        }
        tracing::info!(%error, "listing the members that this node has heard of");
        Ok((known.into_iter().map(|known| known.listed).collect(), true))
    }

    /// This node's fetches, the latest first, and before which the next page begins.
    pub(crate) async fn transfers(
        self: &Arc<Self>,
        before: Option<TransferId>,
        limit: NonZeroUsize,
    ) -> Result<(Vec<model::Transfer>, Option<TransferId>), FindError> {
        let running = self.fetches.now();
        let shared = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut transfers = Vec::new();
            // One more than asked for tells whether another page follows.
            let mut page = shared.database.transfers(before, rows(limit).saturating_add(1))?;
            let more = page.len() > limit.get();
            page.truncate(limit.get());
            let next = page.last().filter(|_| more).map(|(id, _)| *id);
            for (id, stored) in page {
                match u64::try_from(id.0).ok().and_then(|id| running.get(&id)) {
                    Some(running) => transfers.push(running.clone()),
                    None => transfers.push(shared.show_stored(id, &stored)?),
                }
            }
            Ok((transfers, next))
        })
        .await
        .map_err(|e| FindError::Database(e.to_string()))?
    }

    /// A transfer as it is stored.
    pub(crate) fn show_stored(
        &self,
        id: TransferId,
        stored: &Transfer,
    ) -> Result<model::Transfer, DatabaseError> {
        let mut owner = stored.owner.clone();
        if owner.is_none() {
            let record: Option<SignedRecord> = self.database.record(&stored.file)?;
            if let Some(record) = record.and_then(|signed| Record::verify(signed, &self.identity.trust).ok())
            {
                owner = self.database.member(&record.owner())?.map(|member| member.listed.name);
            }
        }
        let copy = self.database.copy(&stored.file)?;
        let path = copy.map(|copy| self.library.path_of(&copy.place));
        Ok(show_transfer(u64::try_from(id.0).unwrap_or(0), stored, owner, path))
    }
}

fn rows(limit: NonZeroUsize) -> u32 {
    u32::try_from(limit.get()).unwrap_or(u32::MAX)
}

fn member_names(database: &Database) -> Result<HashMap<PeerId, MemberName>, DatabaseError> {
    let named = |known: KnownMember| (known.listed.peer, known.listed.name);
    Ok(database.members()?.into_iter().map(named).collect())
}

fn cursor_of(known: &KnownFile) -> Cursor {
    Cursor { name: known.name.clone(), file: known.file }
}

pub(super) fn one_of(reference: &str, mut found: Vec<FoundFile>) -> Result<FoundFile, FindError> {
    if found.len() > 1 {
        let describe = |file: &FoundFile| {
            let name = file.record.entry().map(|entry| entry.name.to_string()).unwrap_or_default();
            format!("{}:{name} ({})", file.owner_name, file.record.file().short())
        };
        let mut matches: Vec<String> = found.iter().take(MATCHES_SHOWN).map(describe).collect();
        if found.len() > MATCHES_SHOWN {
            matches.push("…".to_owned());
        }
        return Err(FindError::Ambiguous { reference: reference.to_owned(), matches: matches.join(", ") });
    }
    found.pop().ok_or_else(|| FindError::NotFound(reference.to_owned()))
}

fn show_transfer(
    id: u64,
    stored: &Transfer,
    owner: Option<MemberName>,
    path: Option<std::path::PathBuf>,
) -> model::Transfer {
    let state = match stored.state {
        StoredState::Running => model::TransferState::Queued,
        StoredState::Waiting => model::TransferState::Waiting,
        StoredState::Paused => model::TransferState::Paused,
        StoredState::Done => model::TransferState::Completed,
        StoredState::Failed => model::TransferState::Failed,
        StoredState::Cancelled | StoredState::Interrupted => model::TransferState::Cancelled,
    };
    let took_ms = stored.ended_ms.map_or(0, |ended| ended.saturating_sub(stored.started_ms).max(1));
    let fetched = stored.bytes.saturating_sub(stored.resumed_bytes);
    model::Transfer {
        id,
        file: stored.file.to_string(),
        name: stored.name.to_string(),
        owner: owner.map(|name| name.to_string()).unwrap_or_default(),
        state,
        size_bytes: stored.size_bytes,
        done_bytes: stored.bytes,
        resumed_bytes: stored.resumed_bytes,
        bytes_per_second: if took_ms > 0 { fetched as f64 * 1000.0 / took_ms as f64 } else { 0.0 },
        started_ms: stored.started_ms,
        ended_ms: stored.ended_ms,
        path: path
            .filter(|_| state == model::TransferState::Completed)
            .map(|path| path.display().to_string()),
        sha256: stored.sha256.map(|sum| sum.to_string()),
        revision: None,
        notice: None,
        error: stored.problem.clone(),
        next_step: None,
        sources: stored
            .shares
            .iter()
            .map(|share| model::TransferSource {
                name: share.name.as_ref().map_or_else(|| share.peer.to_string(), MemberName::to_string),
                peer_id: share.peer.to_string(),
                transport: share.transport.clone(),
                bytes: share.bytes,
                busy_ms: share.busy_ms,
                fault: share.dropped.clone(),
            })
            .collect(),
    }
}
