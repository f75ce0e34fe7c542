//! The tables that derive from entries: what searches, lists and the log read. Written in the entry's own transaction.

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Rule, Wrap},
    audit::Event,
    cbor,
    credentials::{Role, Trust},
    endings::Revoked,
    ids::AudienceId,
    members::Enrolled,
    messages::sync::{Kind, Stamp},
    records::{Access, Entry, Record, State},
    signing::Signed,
};
use rusqlite::{OptionalExtension, Transaction, params};

use super::{
    CatalogError,
    fold::fold,
    payload::{Key, Payload, Verified},
};

/// Brings the tables that derive from an entry up to date; `old` is what stood in its row before.
pub(super) fn project(
    tx: &Transaction<'_>,
    row: i64,
    old: Option<&Payload>,
    new: &Verified,
) -> Result<(), CatalogError> {
    match &new.payload {
        Payload::File(record) => {
            let old = old.and_then(|old| match old {
                Payload::File(record) => Some(record.as_ref()),
                _ => None,
            });
            count_owner(tx, old, record)?;
            restrict_file(tx, row, old, record)?;
            list_file(tx, row, old, record)
        }
        Payload::Member(enrolled) => list_member(tx, row, enrolled),
        Payload::Departure(member) => note_departure(tx, row, member),
        Payload::Revocation(revoked) => note_revocation(tx, row, revoked),
        Payload::Event(event) => log_event(tx, row, &new.key, event),
        Payload::Audience(audience) => list_audience(tx, row, audience.statement()),
        Payload::Wrap(wrap) => count_wrap(tx, row, wrap.statement()),
        Payload::Unknown => Ok(()),
    }
}

/// Gives entries of kinds that format 1 did not know the tables that they have now. What does not verify goes: format 1
/// kept whatever a super-peer sent.
pub(super) fn read_what_was_kept_unread(tx: &Transaction<'_>, trust: &Trust) -> Result<(), CatalogError> {
    let mut unread =
        tx.prepare("SELECT row, kind, id, payload, stamp FROM entries WHERE kind IN (?1, ?2, ?3)")?;
    let kinds = [Kind::DEPARTURE, Kind::REVOCATION, Kind::EVENT].map(|kind| kind.0);
    let mut rows = unread.query(kinds)?;
    let mut invalid = Vec::new();
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        let key = Key { kind: Kind(row.get(1)?), id: row.get(2)? };
        let bytes = row.get_ref(3)?.as_blob().map_err(CatalogError::damaged)?;
        let stamp: Signed<Stamp> =
            cbor::from_slice(&row.get::<_, Vec<u8>>(4)?).map_err(CatalogError::damaged)?;
        let stamp = stamp.peek().map_err(CatalogError::damaged)?;
        match Payload::verify(&key, bytes, trust) {
            Ok(payload) if !payload.fits(&stamp) => invalid.push(at),
            Ok(Payload::Departure(member)) => note_departure(tx, at, &member)?,
            Ok(Payload::Revocation(revoked)) => note_revocation(tx, at, &revoked)?,
            Ok(Payload::Event(event)) => log_event(tx, at, &key, &event)?,
            Ok(_) => {}
            Err(_) => invalid.push(at),
        }
    }
    for row in invalid {
        tx.execute("DELETE FROM entries WHERE row = ?1", [row])?;
    }
    Ok(())
}

/// Gives audiences, wraps and restricted files the tables that format 3 did not have. Formats up to 3 kept audiences and
/// wraps unread; what does not verify goes.
pub(super) fn read_who_may_see_what(tx: &Transaction<'_>, trust: &Trust) -> Result<(), CatalogError> {
    let mut unread = tx.prepare("SELECT row, kind, id, payload FROM entries WHERE kind IN (?1, ?2, ?3)")?;
    let mut rows = unread.query([Kind::FILE, Kind::AUDIENCE, Kind::WRAP].map(|kind| kind.0))?;
    let mut invalid = Vec::new();
    while let Some(row) = rows.next()? {
        let at: i64 = row.get(0)?;
        let key = Key { kind: Kind(row.get(1)?), id: row.get(2)? };
        let bytes = row.get_ref(3)?.as_blob().map_err(CatalogError::damaged)?;
        match Payload::verify(&key, bytes, trust) {
            Ok(Payload::File(record)) => {
                restrict_file(tx, at, None, &record)?;
                set_apart(tx, at, &record)?;
            }
            Ok(Payload::Audience(audience)) => list_audience(tx, at, audience.statement())?,
            Ok(Payload::Wrap(wrap)) => count_wrap(tx, at, wrap.statement())?,
            Err(_) if key.kind != Kind::FILE => invalid.push(at),
            // A damaged record is told of when it is read.
            Ok(_) | Err(_) => {}
        }
    }
    for row in invalid {
        tx.execute("DELETE FROM entries WHERE row = ?1", [row])?;
    }
    Ok(())
}

/// Moves a restricted file from among the open ones, where format 3 had all.
fn set_apart(tx: &Transaction<'_>, row: i64, record: &Record) -> Result<(), CatalogError> {
    let Some((audience, entry)) = record.entry().and_then(|entry| Some((audience(entry)?, entry))) else {
        return Ok(());
    };
    tx.execute("UPDATE files SET audience = ?2 WHERE row = ?1", params![row, audience.as_bytes()])?;
    tx.execute("DELETE FROM file_names WHERE rowid = ?1", [row])?;
    let folded = fold(entry.name.as_str());
    tx.execute("INSERT INTO restricted_names (rowid, folded) VALUES (?1, ?2)", params![row, folded])?;
    Ok(())
}

/// A file's audience; none for an open one.
const fn audience(entry: &Entry) -> Option<&AudienceId> {
    match &entry.access {
        Access::Open { .. } => None,
        Access::Restricted { audience, .. } => Some(audience),
    }
}

/// Notes who may see a file, where that is not everybody. A deleted file stays hidden from whom it was hidden: under the
/// audience that it had, and that audience's owner, who need not be the one who deleted it, where what came between them was
/// never here.
fn restrict_file(
    tx: &Transaction<'_>,
    row: i64,
    old: Option<&Record>,
    new: &Record,
) -> Result<(), CatalogError> {
    let before: Option<(Vec<u8>, Vec<u8>, bool)> = tx
        .prepare_cached("SELECT audience, owner, always FROM restrictions WHERE row = ?1")?
        .query_row([row], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let restriction = match &new.body().state {
        State::Present(entry) => {
            audience(entry).map(|audience| (audience.as_bytes().to_vec(), new.owner().to_bytes()))
        }
        State::Deleted => before.as_ref().map(|(audience, owner, _)| (audience.clone(), owner.clone())),
    };
    let Some((audience, owner)) = restriction else {
        tx.prepare_cached("DELETE FROM restrictions WHERE row = ?1")?.execute([row])?;
        return Ok(());
    };
    let (revision, links) = (new.body().revision, new.body().links.len());
    let always = match (old, before) {
        (None, _) => revision == 1 && links == 0,
        // A revision that never came here may have been seen by others elsewhere.
        (Some(old), Some((hidden_as, _, always))) => {
            let next =
                old.body().revision.checked_add(1) == Some(revision) && old.body().links.len() == links;
            always && next && hidden_as == audience
        }
        (Some(_), None) => false,
    };
    tx.prepare_cached("INSERT OR REPLACE INTO restrictions VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![row, audience, owner, always])?;
    Ok(())
}

fn list_audience(tx: &Transaction<'_>, row: i64, audience: &Audience) -> Result<(), CatalogError> {
    let id = audience.audience.as_bytes();
    tx.prepare_cached("INSERT OR REPLACE INTO audiences VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        row,
        id,
        audience.origin.owner.to_bytes(),
        matches!(audience.rule, Rule::Only(_)),
        i64::try_from(audience.epoch).unwrap_or(i64::MAX),
    ])?;
    tx.prepare_cached("DELETE FROM audience_members WHERE audience = ?1")?.execute([id])?;
    let mut insert = tx.prepare_cached("INSERT INTO audience_members VALUES (?1, ?2)")?;
    for member in audience.rule.members() {
        insert.execute(params![id, member.to_bytes()])?;
    }
    Ok(())
}

fn count_wrap(tx: &Transaction<'_>, row: i64, wrap: &Wrap) -> Result<(), CatalogError> {
    tx.prepare_cached("INSERT OR REPLACE INTO wraps VALUES (?1, ?2)")?
        .execute(params![row, wrap.origin.owner.to_bytes()])?;
    Ok(())
}

fn count_owner(tx: &Transaction<'_>, old: Option<&Record>, new: &Record) -> Result<(), CatalogError> {
    let (before, now) = (old.map(Record::owner), new.owner());
    if before == Some(now) {
        return Ok(());
    }
    if let Some(before) = before {
        tx.prepare_cached("UPDATE owners SET files = files - 1 WHERE peer = ?1")?
            .execute([before.to_bytes()])?;
    }
    tx.prepare_cached(
        "INSERT INTO owners VALUES (?1, 1) ON CONFLICT (peer) DO UPDATE SET files = files + 1",
    )?
    .execute([now.to_bytes()])?;
    Ok(())
}

fn list_file(tx: &Transaction<'_>, row: i64, old: Option<&Record>, new: &Record) -> Result<(), CatalogError> {
    let names = |record: &Record| {
        let entry = record.entry()?;
        let table = if audience(entry).is_some() { "restricted_names" } else { "file_names" };
        Some((table, fold(entry.name.as_str())))
    };
    let (before, now) = (old.and_then(names), names(new));
    if before != now {
        if let Some((table, _)) = before {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE rowid = ?1"))?.execute([row])?;
        }
        if let Some((table, folded)) = &now {
            tx.prepare_cached(&format!("INSERT INTO {table} (rowid, folded) VALUES (?1, ?2)"))?
                .execute(params![row, folded])?;
        }
    }
    let Some(entry) = new.entry() else {
        tx.prepare_cached("DELETE FROM files WHERE row = ?1")?.execute([row])?;
        return Ok(());
    };
    tx.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
        params![
            row,
            new.file().as_bytes(),
            new.owner().to_bytes(),
            entry.name.as_str(),
            now.map(|(_, folded)| folded),
            entry.content.as_bytes(),
            audience(entry).map_or(&[][..], |audience| audience.as_bytes()),
        ],
    )?;
    Ok(())
}

fn list_member(tx: &Transaction<'_>, row: i64, enrolled: &Enrolled) -> Result<(), CatalogError> {
    let member = &enrolled.membership;
    let seconds = |s: u64| i64::try_from(s).unwrap_or(i64::MAX);
    tx.prepare_cached("INSERT OR REPLACE INTO members VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?.execute(params![
        row,
        member.peer.to_bytes(),
        member.name.as_str(),
        member.role == Role::Superpeer,
        seconds(member.issued.0),
        seconds(member.expires.0),
    ])?;
    Ok(())
}

fn note_departure(tx: &Transaction<'_>, row: i64, member: &PeerId) -> Result<(), CatalogError> {
    tx.prepare_cached("INSERT OR REPLACE INTO departures VALUES (?1, ?2)")?
        .execute(params![row, member.to_bytes()])?;
    Ok(())
}

fn note_revocation(tx: &Transaction<'_>, row: i64, revoked: &Revoked) -> Result<(), CatalogError> {
    tx.prepare_cached("INSERT OR REPLACE INTO revocations VALUES (?1, ?2, ?3)")?.execute(params![
        row,
        revoked.member.to_bytes(),
        revoked.by.is_none()
    ])?;
    Ok(())
}

fn log_event(tx: &Transaction<'_>, row: i64, key: &Key, event: &Event) -> Result<(), CatalogError> {
    let millis = i64::try_from(event.time.millis).map_err(CatalogError::damaged)?;
    tx.prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
        params![
            row,
            key.id,
            millis,
            event.time.counter,
            event.superpeer.to_bytes(),
            event.actor.map(PeerId::to_bytes),
            event.subject.as_slice(),
            event.payload.as_bytes(),
        ],
    )?;
    Ok(())
}
