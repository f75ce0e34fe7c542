//! What other super-peers bring: verified like everything else, under the stamps that it has.

use libp2p::PeerId;
use quarta_protocols::{
    credentials::{Membership, Role},
    ids::{ContentId, FileId},
    messages::sync::{Entry, Kind, Place},
    records::{Access, Record},
};
use serde_bytes::ByteArray;

use super::{
    Catalog, CatalogError, Standing,
    payload::{Key, Payload, Verified},
    verifying::verify_all,
    write::{Merged, Write},
};
use crate::reconciliation::session;

/// What became of another super-peer's entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Stored.
    pub stored: u32,
    /// Not needed: the same or a superseding one is here.
    pub known: u32,
    /// Refused: not valid by themselves, too many of their kind, or from a super-peer whose membership has ended.
    pub invalid: u32,
    /// Not taken yet: stamped by a super-peer that this catalog does not know. They come again with the next
    /// reconciliation, which sends members first.
    pub deferred: u32,
    /// Of those that were not needed: where something else stands here that takes precedence, and the other super-peer
    /// has to be told.
    pub superseded: Vec<Place>,
    /// Whether some of it can only have been made by this super-peer itself, which has lost it: it was restored from a
    /// backup. Its invites are used up then, since who used them since is lost too.
    pub restored: bool,
    /// What changed here, in order.
    pub applied: Vec<Applied>,
}

/// What a session has to know of it.
impl From<Taken> for session::Taken {
    fn from(taken: Taken) -> Self {
        Self { stored: taken.stored, invalid: taken.invalid, superseded: taken.superseded }
    }
}

/// A change of the catalog that came from another super-peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// A file is new or another than before.
    File {
        /// The file.
        file: FileId,
        /// Its present owner.
        owner: PeerId,
        /// Its content before; none where it is new here, or was deleted.
        before: Option<ContentId>,
        /// Its present content; none where it is deleted.
        content: Option<ContentId>,
        /// Whether `before` is to be served to nobody from now on: others may read the file than before.
        withdrawn: bool,
    },
    /// A member is new or has a newer credential.
    Member(Membership),
    /// A membership has ended, or an ended member's own entry is new. May be told more than once, and before anything
    /// else is known of the member.
    Ended {
        /// Whose.
        peer: PeerId,
        /// How: never [`Standing::Member`].
        standing: Standing,
    },
    /// A super-peer has revoked a peer of which nothing else is known yet. That ends a node's membership, and no
    /// super-peer's.
    EndedAsNode(PeerId),
    /// Something of a kind that this version does not know.
    Unknown(Kind),
}

impl Applied {
    /// What a file's new record changes, after what stood before.
    pub(super) fn of_file(old: Option<&Payload>, new: &Record) -> Self {
        let old = old.and_then(|old| match old {
            Payload::File(old) => old.entry(),
            _ => None,
        });
        let audience = |access: &Access| match access {
            Access::Open { .. } => None,
            Access::Restricted { audience, .. } => Some(*audience),
        };
        let withdrawn = match (old, new.entry()) {
            (Some(old), Some(now)) => {
                audience(&now.access).is_some_and(|now| audience(&old.access) != Some(now))
            }
            _ => false,
        };
        Self::File {
            file: new.file(),
            owner: new.owner(),
            before: old.map(|entry| entry.content),
            content: new.entry().map(|entry| entry.content),
            withdrawn,
        }
    }
}

impl Catalog {
    /// Takes entries that another super-peer pushed or paged; what is stored is durable on return.
    ///
    /// `from` is the verified credential of the connection that they came over. Duplicates and any order are harmless.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails: then none of the entries is stored.
    pub fn take(
        &mut self,
        from: &Membership,
        mut entries: Vec<Entry>,
        wall_ms: u64,
    ) -> Result<Taken, CatalogError> {
        let own = self.own.public().to_peer_id();
        let mut taken = Taken::default();
        let mut clock = self.clock;
        let mut write = Write::begin(&mut self.conn, &self.totals)?;
        if from.role != Role::Superpeer || !write.standing_as(&from.peer, from.role)?.is_member() {
            taken.invalid = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            return Ok(taken);
        }
        // Members first: the others may be stamped by one of them. Then audiences: they say who may see the files.
        entries.sort_by_key(|entry| (entry.kind != Kind::MEMBER, entry.kind != Kind::AUDIENCE));
        let mut news = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = Key { kind: entry.kind, id: *entry.id };
            if key.is_decided_by_payload()
                && write.bytes(&key)?.is_some_and(|stored| stored == *entry.payload)
            {
                taken.known += 1;
            } else {
                news.push((key, entry));
            }
        }
        let unverified: Vec<&Entry> = news.iter().map(|(_, entry)| entry).collect();
        let verified = verify_all(&unverified, &self.trust);
        for ((key, entry), verified) in news.into_iter().zip(verified) {
            let Some((stamp, payload)) = verified else {
                taken.invalid += 1;
                continue;
            };
            let vouched = stamp.superpeer == from.peer
                || stamp.superpeer == own
                || vouches_for_itself(&payload, &stamp.superpeer)
                || write.role_of(&stamp.superpeer)? == Some(Role::Superpeer);
            if !vouched {
                taken.deferred += 1;
                continue;
            }
            let bytes = entry.payload.into_vec();
            let new = Verified { key, payload, bytes, stamp: entry.stamp, time: stamp.time };
            let stored = write.stored(&new.key, &self.trust)?;
            match write.merge_over(stored.as_ref(), &new)? {
                Merged::Stored => {
                    taken.stored += 1;
                    taken.restored |= is_made_by(&new.payload, &own);
                    clock.observe(stamp.time, wall_ms);
                    taken.applied.extend(applied(
                        &write,
                        stored.as_ref().map(|(_, old)| &old.payload),
                        &new,
                    )?);
                }
                Merged::Known => taken.known += 1,
                Merged::Superseded => {
                    taken.known += 1;
                    taken.superseded.push(Place { kind: new.key.kind, id: ByteArray::new(new.key.id) });
                }
                Merged::NoRoom => taken.invalid += 1,
            }
        }
        if taken.restored {
            write.use_up_invites()?;
        }
        // The tick is later than all that was observed, and makes that outlast a restart.
        self.totals = write.commit(clock.tick(wall_ms))?;
        self.clock = clock;
        Ok(taken)
    }
}

/// Whether this super-peer alone can have made this, and so had it before: each of its acts leaves an event, which
/// nothing supersedes, and nobody else signs credentials with its key.
pub(super) fn is_made_by(payload: &Payload, own: &PeerId) -> bool {
    match payload {
        Payload::Event(event) => event.superpeer == *own,
        Payload::Member(enrolled) => enrolled.membership.issuer == Some(*own),
        _ => false,
    }
}

/// What an entry that was just stored changes here.
fn applied(
    write: &Write<'_>,
    old: Option<&Payload>,
    new: &Verified,
) -> Result<Option<Applied>, CatalogError> {
    let ended = |peer: PeerId| {
        let known = write.standing_of(&peer)?;
        let standing = match known {
            Some(standing) => standing,
            None => write.standing_as(&peer, Role::Superpeer)?,
        };
        Ok::<_, CatalogError>(if !standing.is_member() {
            Some(Applied::Ended { peer, standing })
        } else if known.is_none() && !write.standing_as(&peer, Role::Node)?.is_member() {
            Some(Applied::EndedAsNode(peer))
        } else {
            None
        })
    };
    Ok(match &new.payload {
        Payload::File(record) => Some(Applied::of_file(old, record)),
        Payload::Member(enrolled) => {
            let member = || Applied::Member(enrolled.membership.clone());
            Some(ended(enrolled.membership.peer)?.unwrap_or_else(member))
        }
        Payload::Departure(member) => ended(*member)?,
        Payload::Revocation(revoked) => ended(revoked.member)?,
        Payload::Event(_) | Payload::Audience(_) | Payload::Wrap(_) => None,
        Payload::Unknown => Some(Applied::Unknown(new.key.kind)),
    })
}

/// A super-peer's own enrolment is stamped by itself before anybody knows it; the root's signature in it is enough.
fn vouches_for_itself(payload: &Payload, superpeer: &PeerId) -> bool {
    match payload {
        Payload::Member(enrolled) => {
            enrolled.membership.peer == *superpeer && enrolled.membership.role == Role::Superpeer
        }
        _ => false,
    }
}
