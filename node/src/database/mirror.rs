//! What this node hears in a super-peer's feed, and how far it has followed each: written in one step, so that a cursor
//! never says more than what is here.
//!
//! Once a super-peer is revoked that has hidden files from this node, these may be shown again, and the others' feeds are
//! read from their beginning: what they said while its word stood was not taken in. See [`crate::following::hiding`].

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::Ordering,
};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::Wrap,
    cbor,
    credentials::Trust,
    endings::{Departure, Ended, RevocationNotice},
    ids::{AudienceId, FileId, ID_BYTES},
    members::Enrolment,
    messages::{
        changes::{Change, Cursor},
        index::ListedMember,
        sync::Kind,
    },
    signing::Signed,
};
use rusqlite::{OptionalExtension, Transaction};
use serde_bytes::ByteArray;

use super::{Database, DatabaseError, audiences, endings, hidden, integer, members, peer, records, unsigned};
use crate::following::page::News;

/// A verified page of the feed.
#[derive(Debug, Clone)]
pub struct Page {
    /// Whose feed it is.
    pub superpeer: PeerId,
    /// In which reading of all feeds it was asked for: how often they had been begun anew since the database was opened.
    pub reading: u64,
    /// Where it ends.
    pub cursor: Cursor,
    /// What has changed, in order.
    pub news: Vec<News>,
    /// Members whose condition has changed.
    pub members: Vec<ListedMember>,
}

/// What was new of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Files that are new, changed, deleted or hidden.
    pub files: Vec<FileId>,
    /// Members that are new or have a newer credential.
    pub enrolled: usize,
    /// Members whose state is another than before.
    pub moved: Vec<ListedMember>,
    /// Those of them that are hidden from this node from now on.
    pub hidden: Vec<FileId>,
    /// Audiences of which this node has keys that it had not before.
    pub keys: Vec<AudienceId>,
    /// Members whose membership has ended.
    pub ended: Vec<(PeerId, Ended)>,
    /// Whether all feeds are to be read from their beginning: no cursor is left.
    pub anew: bool,
}

impl Database {
    /// How far each super-peer was followed.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn cursors(&self) -> Result<HashMap<PeerId, Cursor>, DatabaseError> {
        let damaged = |_| DatabaseError::Damaged("how far a super-peer was followed");
        let connection = self.connection();
        let mut rows =
            connection.prepare_cached("SELECT superpeer, store, run, sequence, condition FROM cursors")?;
        let rows = rows.query_map([], |row| {
            let (superpeer, store, run) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok::<(Vec<u8>, Vec<u8>, Vec<u8>, i64, i64), _>((superpeer, store, run, row.get(3)?, row.get(4)?))
        })?;
        rows.map(|row| {
            let (superpeer, store, run, sequence, condition) = row?;
            let store: [u8; 16] = store.try_into().map_err(damaged)?;
            let cursor = Cursor {
                store: ByteArray::new(store),
                run: u64::from_be_bytes(run.try_into().map_err(damaged)?),
                sequence: unsigned(sequence, "how far a super-peer was followed")?,
                condition: unsigned(condition, "how far a super-peer was followed")?,
            };
            Ok((peer(&superpeer, "a super-peer's id")?, cursor))
        })
        .collect()
    }

    /// Those of the changes that are not here to the byte already: most are after a change of super-peer, and need no
    /// second verification.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn unknown(&self, changes: Vec<Change>) -> Result<Vec<Change>, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let mut unknown = Vec::with_capacity(changes.len());
        for change in changes {
            let known = match &change {
                Change::Put { kind, id, payload } => {
                    stored(&transaction, *kind, id, payload)?.is_some_and(|stored| stored == **payload)
                }
                Change::Forget { .. } => false,
            };
            if !known {
                unknown.push(change);
            }
        }
        Ok(unknown)
    }

    /// Takes in a page of the feed with its cursor, in one step. `own` is this node. A page of an
    /// earlier reading moves no cursor: what was asked for before the cursors were dropped must not bring one back.
    ///
    /// # Errors
    /// [`DatabaseError`]; then nothing of it is here, and the cursor is where it was.
    pub fn take_page(
        &self,
        page: &Page,
        own: &PeerId,
        trust: &Trust,
        now_ms: u64,
    ) -> Result<Taken, DatabaseError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        let mut taken = Taken::default();
        // What was under way when it was revoked is of no use either.
        if endings::ended_of(&transaction, &page.superpeer)? == Some(Ended::Revoked) {
            return Ok(taken);
        }
        let mut touched = BTreeSet::new();
        for news in &page.news {
            match news {
                News::File(record) => {
                    if records::remember(&transaction, record, trust, now_ms)? {
                        taken.files.push(record.file());
                    }
                }
                News::Member(enrolled) => {
                    if members::enrol(&transaction, enrolled, trust, now_ms)? {
                        taken.enrolled += 1;
                        touched.insert(enrolled.membership.peer);
                    }
                }
                News::Departure(member, signed) => {
                    if endings::depart(&transaction, member, signed)? {
                        touched.insert(*member);
                    }
                }
                News::Revocation(revoked) => {
                    if endings::revoke(&transaction, revoked, trust)? {
                        touched.insert(revoked.member);
                    }
                }
                News::Wrap(wrap) => {
                    if audiences::put(&transaction, wrap, None)? {
                        taken.keys.push(wrap.statement().audience);
                    }
                }
                News::ForgetFile(hiding) => {
                    if hidden::hide(&transaction, hiding, &page.superpeer, own, trust)? {
                        taken.files.push(hiding.file);
                        taken.hidden.push(hiding.file);
                    }
                }
                News::ForgetMember(id) => members::forget(&transaction, id)?,
            }
        }
        for member in &page.members {
            let before = members::list(&transaction, member, now_ms)?;
            if before.is_none_or(|before| before != member.state.to_string()) {
                taken.moved.push(member.clone());
            }
        }
        for member in touched {
            let ended = endings::ended_of(&transaction, &member)?;
            if ended == Some(Ended::Revoked) && hidden::disbelieve(&transaction, &member)? > 0 {
                taken.anew = true;
            }
            taken.ended.extend(ended.map(|ended| (member, ended)));
        }
        hidden::trim(&transaction)?;
        if taken.anew {
            transaction.prepare_cached("DELETE FROM cursors")?.execute([])?;
        } else if page.reading == self.readings.load(Ordering::Relaxed) {
            move_cursor(&transaction, page)?;
        }
        transaction.commit()?;
        // Nobody looks at it who does not hold the connection.
        self.readings.fetch_add(u64::from(taken.anew), Ordering::Relaxed);
        Ok(taken)
    }
}

fn move_cursor(transaction: &Transaction<'_>, page: &Page) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO cursors (superpeer, store, run, sequence, condition)
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = rusqlite::params![
        page.superpeer.to_bytes(),
        &page.cursor.store[..],
        &page.cursor.run.to_be_bytes()[..],
        integer(page.cursor.sequence),
        integer(page.cursor.condition),
    ];
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}

/// The bytes that are here under a kind and an id. A member's entry tells by itself whose it is.
fn stored(
    transaction: &Transaction<'_>,
    kind: Kind,
    id: &[u8; ID_BYTES],
    payload: &[u8],
) -> rusqlite::Result<Option<Vec<u8>>> {
    let ending = |member: PeerId| {
        let sql = "SELECT bytes FROM endings WHERE peer = ?1 AND kind = ?2";
        let values = rusqlite::params![member.to_bytes(), kind.0];
        transaction.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()
    };
    match kind {
        Kind::FILE => transaction
            .prepare_cached("SELECT record FROM records WHERE file = ?1")?
            .query_row([&id[..]], |row| row.get(0))
            .optional(),
        Kind::MEMBER => match cbor::from_slice::<Enrolment>(payload) {
            Ok(enrolment) => members::enrolment(transaction, &enrolment.peer.to_bytes()),
            Err(_) => Ok(None),
        },
        Kind::DEPARTURE => match cbor::from_slice::<Signed<Departure>>(payload).map(|signed| signed.peek()) {
            Ok(Ok(departure)) => ending(departure.member),
            _ => Ok(None),
        },
        Kind::REVOCATION => {
            match cbor::from_slice::<RevocationNotice>(payload).map(|notice| notice.revocation.peek()) {
                Ok(Ok(revocation)) => ending(revocation.member),
                _ => Ok(None),
            }
        }
        Kind::WRAP => match cbor::from_slice::<Signed<Wrap>>(payload).map(|signed| signed.peek()) {
            Ok(Ok(wrap)) => audiences::wrap_bytes(transaction, &wrap),
            _ => Ok(None),
        },
        _ => Ok(None),
    }
}
