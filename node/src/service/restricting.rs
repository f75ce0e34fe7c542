//! Who may not see an own file: hiding it from members, showing it to them again, and listing those.
//!
//! One change of an own record at a time ([`Shared::changes_of_own`]), in this order: where the change takes the file from
//! anybody, its plaintext is sealed under a fresh key where it lies; copy, manifest and the signed record stand in the
//! database in one step; from then on this node serves the old content to nobody; the keys are published, then the
//! record. An owner that goes away half-way has either changed nothing or goes on where it was: what no super-peer has
//! acknowledged is published at the next connection.

use std::{collections::HashMap, sync::Arc};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{AccessSecret, RULE_MEMBERS_MAX, Rule},
    credentials::Role,
    ids::FileId,
    messages::{index::ListedMember, inventory::Completeness},
    names::MemberName,
    records::{Access, Body, Entry, Record, State},
};
use serde_bytes::ByteBuf;

use super::{
    COPIES_AT_A_TIME, Shared,
    keyring::{Readers, listed_sha256},
    updating::OwnError,
    wall_ms,
};
use crate::{
    api::model::{Blacklist, Listed},
    audiences::{Change, loses_readers},
    database::{DatabaseError, LibraryCopy, Provenance},
    library::Defect,
    sealing::{ResealError, fresh_key, reseal},
};

/// What somebody wants of a file's list, with members as they were typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Hide it from these too.
    Hide(Vec<String>),
    /// Let these read it again.
    Show(Vec<String>),
    /// Hide it from exactly these; none lets everybody read it.
    EveryoneBut(Vec<String>),
    /// Let exactly these read it.
    Only(Vec<String>),
}

/// Why a list is not as it was wished. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestrictError {
    /// There is no own file of that name to be changed.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// Nobody is called so.
    #[error("no member is called {0:?}")]
    UnknownMember(String),
    /// Super-peers are not readers.
    #[error("{0} is a super-peer, which sees all names and can open no restricted file")]
    Superpeer(MemberName),
    /// The owner reads what is its own.
    #[error("{0} owns the file")]
    Owner(MemberName),
    /// More members than a list can name.
    #[error("a list names {RULE_MEMBERS_MAX} members at most")]
    TooMany,
    /// The owner's own copy is gone, and cannot be sealed anew.
    #[error("no whole copy of the file is on this machine, and it has to be sealed anew")]
    NotHere,
    /// The owner's copy is not what was shared.
    #[error("the copy on this machine is {}, and cannot be sealed anew", .0.as_str())]
    Defective(Defect),
    /// Nothing is wrong with the copy, and it cannot be opened now.
    #[error("the copy on this machine cannot be opened now: {0}")]
    NotNow(String),
    /// The file's list is not in this node's database.
    #[error("the list of this file is not on this machine: its database is from an older backup")]
    ListLost,
    /// What would be signed is not a valid record.
    #[error("the record would not be valid: {0}")]
    Invalid(String),
    /// The database failed.
    #[error("the database could not be read or written: {0}")]
    Database(String),
}

impl From<DatabaseError> for RestrictError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error.to_string())
    }
}

/// Changes a file's list, and shows how it is then.
pub(crate) async fn restrict(
    shared: &Arc<Shared>,
    reference: &str,
    wish: Wish,
) -> Result<Blacklist, RestrictError> {
    let file = shared.find_own(reference).await?.record.file();
    let change = shared.change_of(wish).await?;
    let blocking = shared.clone();
    let changed = in_blocking(move || blocking.change_list(file, change)).await?;
    if let Some(record) = changed.record {
        shared.publish_owed_keys().await;
        super::adding::publish(shared, vec![(file, record.signed().clone())]).await;
    }
    Ok(Blacklist { announced: !shared.superpeers.owes(&file), ..changed.blacklist })
}

/// Who is to read files that are yet to be added; their keys are on their way then.
pub(crate) async fn readers(shared: &Arc<Shared>, wish: Option<Wish>) -> Result<Readers, RestrictError> {
    let Some(wish) = wish else { return Ok(Readers::Everybody) };
    let change = shared.change_of(wish).await?;
    let blocking = shared.clone();
    let readers = in_blocking(move || blocking.readers_after(change)).await?;
    shared.publish_owed_keys().await;
    Ok(readers)
}

/// A file's list.
pub(crate) async fn list_of(shared: &Arc<Shared>, reference: &str) -> Result<Blacklist, RestrictError> {
    let file = shared.find_own(reference).await?.record.file();
    let blocking = shared.clone();
    in_blocking(move || {
        let (record, _) = blocking.own_record(&file)?;
        blocking.show_list(&record)
    })
    .await
}

/// The lists of own restricted files after a file, in the order of their ids, at most `limit`; and after which the next
/// page begins.
pub(crate) async fn lists(
    shared: &Arc<Shared>,
    after: Option<FileId>,
    limit: usize,
) -> Result<(Vec<Blacklist>, Option<FileId>), RestrictError> {
    let blocking = shared.clone();
    in_blocking(move || {
        let (mut lists, mut after) = (Vec::new(), after);
        loop {
            let copies = blocking.database.copies(after.as_ref(), COPIES_AT_A_TIME)?;
            if copies.is_empty() {
                return Ok((lists, None));
            }
            for copy in copies {
                after = Some(copy.file);
                if copy.provenance != Provenance::Own {
                    continue;
                }
                let Ok(record) = Record::verify(copy.record, &blocking.identity.trust) else { continue };
                let restricted = |entry: &Entry| matches!(entry.access, Access::Restricted { .. });
                if record.entry().is_some_and(restricted) {
                    lists.push(blocking.show_list(&record)?);
                }
                if lists.len() == limit {
                    return Ok((lists, after));
                }
            }
        }
    })
    .await
}

async fn in_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestrictError> + Send + 'static,
) -> Result<T, RestrictError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| RestrictError::Database(e.to_string()))?
}

/// What became of a list.
struct Changed {
    blacklist: Blacklist,
    /// The new record; none where the list was like that already.
    record: Option<Record>,
}

impl Shared {
    /// Finds out who was meant, before anything is changed.
    pub(crate) async fn change_of(self: &Arc<Self>, wish: Wish) -> Result<Change, RestrictError> {
        Ok(match wish {
            Wish::Hide(names) => Change::Hide(self.members_named(names).await?),
            Wish::Show(names) => Change::Show(self.members_named(names).await?),
            Wish::EveryoneBut(names) => Change::Replace(Rule::EveryoneBut(self.members_named(names).await?)),
            Wish::Only(names) => Change::Replace(Rule::Only(self.members_named(names).await?)),
        })
    }

    /// The nodes that are meant by names or peer ids. A name stands for all who have it: a branch that got a new machine,
    /// and the member that it was before.
    async fn members_named(self: &Arc<Self>, texts: Vec<String>) -> Result<Vec<PeerId>, RestrictError> {
        let blocking = self.clone();
        let mut known: Vec<ListedMember> = in_blocking(move || {
            Ok(blocking.database.members()?.into_iter().map(|known| known.listed).collect())
        })
        .await?;
        let me = self.identity.keys.peer();
        let mut asked = false;
        let mut named = Vec::new();
        for text in texts {
            let meant = loop {
                let meant = meant(&known, &text);
                if !meant.is_empty() || asked {
                    break meant;
                }
                // One that joined a moment ago a super-peer may know.
                asked = true;
                if let Ok((members, _)) = self.members().await {
                    known = members;
                }
            };
            if meant.is_empty() && text == self.identity.membership.name.as_str() {
                return Err(RestrictError::Owner(self.identity.membership.name.clone()));
            }
            if meant.is_empty() {
                return Err(RestrictError::UnknownMember(text));
            }
            for member in meant {
                if member.role == Role::Superpeer {
                    return Err(RestrictError::Superpeer(member.name));
                }
                if member.peer == me {
                    return Err(RestrictError::Owner(member.name));
                }
                named.push(member.peer);
            }
        }
        Ok(named)
    }

    /// Who reads a file of that list. Blocks on the disk.
    fn readers_after(&self, change: Change) -> Result<Readers, RestrictError> {
        let _turn = self.changes_of_own();
        match change.apply(None) {
            None => Ok(Readers::Everybody),
            Some(rule) if rule.members().len() > RULE_MEMBERS_MAX => Err(RestrictError::TooMany),
            Some(rule) => Ok(Readers::Audience(self.audience_with(rule)?)),
        }
    }

    /// The rule of an own restricted file.
    pub(super) fn rule_of(&self, access: &Access) -> Result<Option<Rule>, RestrictError> {
        match access {
            Access::Open { .. } => Ok(None),
            Access::Restricted { audience, .. } => {
                let own = self.database.own_audience(audience)?.ok_or(RestrictError::ListLost)?;
                Ok(Some(own.audience.rule))
            }
        }
    }

    fn change_list(self: &Arc<Self>, file: FileId, change: Change) -> Result<Changed, RestrictError> {
        let _turn = self.changes_of_own();
        let (record, entry) = self.own_record(&file)?;
        let copy = self.database.copy(&file)?;
        let before = self.rule_of(&entry.access)?;
        let after = change.apply(before.clone());
        if after == before {
            return Ok(Changed { blacklist: self.show_list(&record)?, record: None });
        }
        if after.as_ref().is_some_and(|rule| rule.members().len() > RULE_MEMBERS_MAX) {
            return Err(RestrictError::TooMany);
        }
        let whole =
            |copy: &LibraryCopy| copy.content == entry.content && copy.completeness == Completeness::Complete;
        let copy = copy.filter(whole);
        let secret = self.secret_of(&record).ok_or(RestrictError::ListLost)?;
        let fresh = if loses_readers(before.as_ref(), after.as_ref()) {
            let copy = copy.as_ref().ok_or(RestrictError::NotHere)?;
            let key = fresh_key();
            let sealed = reseal(&self.library, &copy.place, &key, &secret.sha256);
            let manifest = sealed.map_err(|error| match error {
                ResealError::Defective(defect) => {
                    self.lost(copy, defect);
                    RestrictError::Defective(defect)
                }
                ResealError::NotNow(_) => RestrictError::NotNow(error.to_string()),
            })?;
            Some((key, manifest))
        } else {
            None
        };
        let readers = match after {
            None => Readers::Everybody,
            Some(rule) => Readers::Audience(self.audience_with(rule)?),
        };
        let (content, inline, secret) = match &fresh {
            Some((key, manifest)) => {
                let single = manifest.geometry().chunks() == 1;
                let inline = single.then(|| ByteBuf::from(manifest.to_bytes()));
                (manifest.id(), inline, AccessSecret { key: key.clone(), ..secret })
            }
            None => (entry.content, entry.manifest.clone(), secret),
        };
        let access = readers.access(self, &file, &content, secret)?;
        let body = Body {
            revision: record.body().revision.saturating_add(1),
            state: State::Present(Entry { content, manifest: inline, access, ..entry }),
            ..record.body().clone()
        };
        let (trust, keys) = (&self.identity.trust, &self.identity.keys);
        let record =
            Record::sign(&body, trust, &keys.identity).map_err(|e| RestrictError::Invalid(e.to_string()))?;
        let sha256 = record.entry().and_then(|entry| listed_sha256(&entry.access));
        match copy {
            Some(copy) => {
                let manifest = match fresh {
                    Some((_, manifest)) => manifest,
                    None => self.database.manifest(&copy.content)?.ok_or(RestrictError::NotHere)?,
                };
                let old = copy.content;
                let copy = LibraryCopy { content, sha256, record: record.signed().clone(), ..copy };
                let kept = self.database.keep_copy(&copy, &manifest, &record, trust, wall_ms());
                self.noted(kept)?;
                if old != content {
                    self.uploads.forget(&old);
                }
                self.offer(&copy);
            }
            // Nobody loses the file, so its content stays, wherever it lies.
            None => {
                self.noted(self.database.remember_record(&record, trust, wall_ms()))?;
            }
        }
        Ok(Changed { blacklist: self.show_list(&record)?, record: Some(record) })
    }

    /// A list as its owner sees it.
    fn show_list(&self, record: &Record) -> Result<Blacklist, RestrictError> {
        let entry = record.entry();
        let rule = entry.map(|entry| self.rule_of(&entry.access)).transpose()?.flatten();
        let (only, members) = match rule {
            None => (false, Vec::new()),
            Some(Rule::EveryoneBut(members)) => (false, members),
            Some(Rule::Only(members)) => (true, members),
        };
        let names: HashMap<PeerId, MemberName> = self
            .database
            .members()?
            .into_iter()
            .map(|known| (known.listed.peer, known.listed.name))
            .collect();
        let mut members: Vec<Listed> = members
            .into_iter()
            .map(|peer| Listed {
                name: names.get(&peer).map_or_else(|| peer.to_string(), MemberName::to_string),
                peer_id: peer.to_string(),
            })
            .collect();
        members.sort_unstable_by(|a, b| (&a.name, &a.peer_id).cmp(&(&b.name, &b.peer_id)));
        Ok(Blacklist {
            file: record.file().to_string(),
            name: entry.map(|entry| entry.name.to_string()).unwrap_or_default(),
            revision: record.body().revision,
            only,
            members,
            announced: !self.superpeers.owes(&record.file()),
        })
    }
}

/// Those that a name or a peer id stands for.
fn meant(known: &[ListedMember], text: &str) -> Vec<ListedMember> {
    let peer = text.parse::<PeerId>().ok();
    let is_meant = |member: &&ListedMember| member.name.as_str() == text || Some(member.peer) == peer;
    known.iter().filter(is_meant).cloned().collect()
}
