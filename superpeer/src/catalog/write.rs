//! One transaction on the catalog: entries are merged into the tables, or nothing is.
//!
//! Every entry that is new or replaced gets the next number (`sequence`), so that "what came after *n*" is all that has
//! changed since, in the order in which it changed.

use std::{cmp::Ordering, collections::BTreeMap};

use libp2p::PeerId;
use quarta_protocols::{
    cbor,
    clock::HybridTime,
    credentials::{Role, Trust},
    ids::ID_BYTES,
    members::{Enrolled, Enrolment},
    messages::sync::{Digest, Item, Kind, Position, Stamp, item_hash},
    names::MemberName,
    signing::Signed,
};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{
    CatalogError,
    payload::{Key, Payload, Verified, is_known},
    positions, projection, schema,
    standing::{STANDING, Standing},
};
use crate::reconciliation::Trie;

/// Kinds of entries that this version does not know: more than versions of one network ever differ by.
const UNKNOWN_KINDS_MAX: usize = 16;
/// Entries of one unknown kind: bounds what a super-peer gone bad can make others store.
pub(super) const UNKNOWN_ENTRIES_MAX: u64 = 100_000;
/// Departures, and revocations, of all time: far more than an organisation has machines. Anybody can sign departures of
/// keys it made up, so that a super-peer gone bad could send any number of them.
pub(super) const ENDINGS_MAX: u64 = 1_000_000;
/// Events of the audit trail: some 20 GB. A catalog that is full of them still takes changes, and tells no more of them.
pub(super) const EVENTS_MAX: u64 = 50_000_000;

/// What the catalog comes to; replaced as a whole when a transaction commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) digest: Digest,
    pub(super) trie: Trie,
    pub(super) kinds: BTreeMap<Kind, u64>,
    /// The last number given out.
    pub(super) sequence: u64,
}

impl Totals {
    /// Counts everything anew.
    pub(super) fn of(conn: &Connection) -> Result<Self, CatalogError> {
        let mut totals = Self::default();
        let mut entries = conn.prepare("SELECT kind, id, payload, sequence FROM entries")?;
        let mut rows = entries.query([])?;
        while let Some(row) = rows.next()? {
            let payload = row.get_ref(2)?.as_blob().map_err(CatalogError::damaged)?;
            totals.toggle(Kind(row.get(0)?), &row.get(1)?, payload, true);
            *totals.kinds.entry(Kind(row.get(0)?)).or_default() += 1;
            let sequence = u64::try_from(row.get::<_, i64>(3)?).map_err(CatalogError::damaged)?;
            totals.sequence = totals.sequence.max(sequence);
        }
        Ok(totals)
    }

    /// Accounts for an entry that came or went.
    fn toggle(&mut self, kind: Kind, id: &[u8; ID_BYTES], payload: &[u8], came: bool) {
        let hash = item_hash(kind, id, payload);
        self.digest.toggle_hash(&hash, came);
        self.trie.toggle(Item { position: Position::of(kind, id), tag: Item::tag(&hash) }, came);
    }

    pub(super) fn has_room_for(&self, kind: Kind) -> bool {
        let entries = self.kinds.get(&kind).copied();
        match kind {
            // Bounded by their owners and issuers.
            Kind::FILE | Kind::MEMBER | Kind::AUDIENCE | Kind::WRAP => true,
            Kind::DEPARTURE | Kind::REVOCATION => entries.unwrap_or(0) < ENDINGS_MAX,
            Kind::EVENT => entries.unwrap_or(0) < EVENTS_MAX,
            _ => match entries {
                Some(entries) => entries < UNKNOWN_ENTRIES_MAX,
                None => self.kinds.keys().filter(|kind| !is_known(**kind)).count() < UNKNOWN_KINDS_MAX,
            },
        }
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merged {
    /// It stands in the catalog now.
    Stored,
    /// The very same was there.
    Known,
    /// What is there takes precedence.
    Superseded,
    /// There are as many of its kind as may be.
    NoRoom,
}

/// A transaction under way. Dropped without [`Self::commit`], it leaves nothing.
pub(crate) struct Write<'c> {
    tx: Transaction<'c>,
    totals: Totals,
    changed: bool,
}

impl<'c> Write<'c> {
    pub(super) fn begin(conn: &'c mut Connection, totals: &Totals) -> Result<Self, CatalogError> {
        // Immediate: a write that must wait for a lock waits here, where nothing has been read yet.
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Self { tx, totals: totals.clone(), changed: false })
    }

    /// The transaction, for tables that are not the catalog's own.
    pub(crate) const fn tx(&self) -> &Transaction<'c> {
        &self.tx
    }

    /// Nobody is admitted by the invites that were issued up to now any more, but whoever has used one already.
    pub(super) fn use_up_invites(&self) -> Result<(), CatalogError> {
        self.tx.execute("UPDATE invites SET uses_left = 0 WHERE uses_left > 0", [])?;
        Ok(())
    }

    /// Makes it last. No moment up to `latest` will be given out again. Where nothing changed, as when a member returns
    /// with what is known, the disk is not touched.
    pub(super) fn commit(self, latest: HybridTime) -> Result<Totals, CatalogError> {
        if self.changed {
            schema::keep_moment(&self.tx, latest)?;
        }
        self.tx.commit()?;
        Ok(self.totals)
    }

    /// The bytes that stand under a key.
    pub(super) fn bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT payload FROM entries WHERE kind = ?1 AND id = ?2")?;
        Ok(query.query_row(params![key.kind.0, key.id], |row| row.get(0)).optional()?)
    }

    /// The entry that stands under a key, and its row.
    pub(super) fn stored(&self, key: &Key, trust: &Trust) -> Result<Option<(i64, Verified)>, CatalogError> {
        let mut query =
            self.tx.prepare_cached("SELECT row, payload, stamp FROM entries WHERE kind = ?1 AND id = ?2")?;
        let found: Option<(i64, Vec<u8>, Vec<u8>)> = query
            .query_row(params![key.kind.0, key.id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((row, bytes, stamp)) = found else { return Ok(None) };
        // It was verified before it was stored; that it verifies no more means that the file was changed.
        let payload = Payload::verify(key, &bytes, trust).map_err(CatalogError::Damaged)?;
        let stamp: Signed<Stamp> = cbor::from_slice(&stamp).map_err(CatalogError::damaged)?;
        let time = stamp.peek().map_err(CatalogError::damaged)?.time;
        Ok(Some((row, Verified { key: *key, payload, bytes, stamp, time })))
    }

    /// Puts a verified entry in its place, unless what stands there takes precedence.
    pub(super) fn merge(&mut self, new: &Verified, trust: &Trust) -> Result<Merged, CatalogError> {
        let stored = self.stored(&new.key, trust)?;
        self.merge_over(stored.as_ref(), new)
    }

    /// Like [`Self::merge`], for a caller that has read what stands there.
    pub(super) fn merge_over(
        &mut self,
        stored: Option<&(i64, Verified)>,
        new: &Verified,
    ) -> Result<Merged, CatalogError> {
        let Some((row, old)) = stored else {
            if !self.totals.has_room_for(new.key.kind) {
                return Ok(Merged::NoRoom);
            }
            let row = self.insert(new)?;
            projection::project(&self.tx, row, None, new)?;
            self.tell_files_again(None, &new.payload)?;
            *self.totals.kinds.entry(new.key.kind).or_default() += 1;
            self.totals.toggle(new.key.kind, &new.key.id, &new.bytes, true);
            return Ok(Merged::Stored);
        };
        let same = old.bytes == new.bytes;
        match new.precedence(old) {
            // Only an unknown kind's: its later stamp must stay, or the order of arrival would count.
            Ordering::Greater if same => {
                self.restamp(*row, new)?;
                Ok(Merged::Known)
            }
            Ordering::Greater => {
                self.update(*row, new)?;
                projection::project(&self.tx, *row, Some(&old.payload), new)?;
                self.tell_files_again(Some(&old.payload), &new.payload)?;
                self.totals.toggle(old.key.kind, &old.key.id, &old.bytes, false);
                self.totals.toggle(new.key.kind, &new.key.id, &new.bytes, true);
                Ok(Merged::Stored)
            }
            _ if same => Ok(Merged::Known),
            _ => Ok(Merged::Superseded),
        }
    }

    fn insert(&mut self, new: &Verified) -> Result<i64, CatalogError> {
        let sequence = self.next_number();
        let position = positions::column(Position::of(new.key.kind, &new.key.id));
        let stamp = cbor::to_vec(&new.stamp);
        self.tx
            .prepare_cached(
                "INSERT INTO entries (kind, id, payload, stamp, sequence, position)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![new.key.kind.0, new.key.id, new.bytes, stamp, sequence, position])?;
        Ok(self.tx.last_insert_rowid())
    }

    fn update(&mut self, row: i64, new: &Verified) -> Result<(), CatalogError> {
        let sequence = self.next_number();
        self.tx
            .prepare_cached("UPDATE entries SET payload = ?2, stamp = ?3, sequence = ?4 WHERE row = ?1")?
            .execute(params![row, new.bytes, cbor::to_vec(&new.stamp), sequence])?;
        Ok(())
    }

    fn restamp(&mut self, row: i64, new: &Verified) -> Result<(), CatalogError> {
        self.changed = true;
        self.tx
            .prepare_cached("UPDATE entries SET stamp = ?2 WHERE row = ?1")?
            .execute(params![row, cbor::to_vec(&new.stamp)])?;
        Ok(())
    }

    /// Numbers the files of an audience anew where its rule was not known or was another one: those who follow are told
    /// of them once more, as they may see them now. Whom the other rule permitted has something to forget.
    fn tell_files_again(&mut self, old: Option<&Payload>, new: &Payload) -> Result<(), CatalogError> {
        let Payload::Audience(new) = new else { return Ok(()) };
        if matches!(old, Some(Payload::Audience(old)) if old.statement().rule == new.statement().rule) {
            return Ok(());
        }
        let audience = new.statement().audience;
        if old.is_some() {
            self.tx
                .prepare_cached("UPDATE restrictions SET always = 0 WHERE audience = ?1")?
                .execute([audience.as_bytes()])?;
        }
        let rows: Vec<i64> = self
            .tx
            .prepare_cached("SELECT row FROM restrictions WHERE audience = ?1")?
            .query_map([audience.as_bytes()], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for row in rows {
            let sequence = self.next_number();
            self.tx
                .prepare_cached("UPDATE entries SET sequence = ?2 WHERE row = ?1")?
                .execute(params![row, sequence])?;
        }
        Ok(())
    }

    /// The number of the change that is about to be written.
    fn next_number(&mut self) -> i64 {
        self.changed = true;
        self.totals.sequence += 1;
        i64::try_from(self.totals.sequence).unwrap_or(i64::MAX)
    }

    /// How many file entries a member owns, deleted ones included.
    pub(super) fn owned_by(&self, peer: &PeerId) -> Result<u64, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT files FROM owners WHERE peer = ?1")?;
        let files: Option<i64> = query.query_row([peer.to_bytes()], |row| row.get(0)).optional()?;
        Ok(files.map_or(0, |files| u64::try_from(files).unwrap_or(0)))
    }

    /// How many audiences a member has made.
    pub(super) fn audiences_of(&self, owner: &PeerId) -> Result<u64, CatalogError> {
        self.count("SELECT count(*) FROM audiences WHERE owner = ?1", owner)
    }

    /// How many members' keys a member has made.
    pub(super) fn wraps_of(&self, owner: &PeerId) -> Result<u64, CatalogError> {
        self.count("SELECT count(*) FROM wraps WHERE owner = ?1", owner)
    }

    fn count(&self, query: &str, owner: &PeerId) -> Result<u64, CatalogError> {
        let count: i64 = self.tx.prepare_cached(query)?.query_row([owner.to_bytes()], |row| row.get(0))?;
        u64::try_from(count).map_err(CatalogError::damaged)
    }

    /// A member's role, if it is one.
    pub(super) fn role_of(&self, peer: &PeerId) -> Result<Option<Role>, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT superpeer FROM members WHERE peer = ?1")?;
        let superpeer: Option<bool> = query.query_row([peer.to_bytes()], |row| row.get(0)).optional()?;
        Ok(superpeer.map(|superpeer| if superpeer { Role::Superpeer } else { Role::Node }))
    }

    /// A member's standing; none for a peer that is not in the catalog.
    pub(crate) fn standing_of(&self, peer: &PeerId) -> Result<Option<Standing>, CatalogError> {
        let mut query = self.tx.prepare_cached(&format!("SELECT {STANDING} FROM members WHERE peer = ?1"))?;
        let standing: Option<u8> = query.query_row([peer.to_bytes()], |row| row.get(0)).optional()?;
        Ok(standing.map(Standing::from_sql))
    }

    /// The standing that a peer of this role has or would have as a member.
    pub(crate) fn standing_as(&self, peer: &PeerId, role: Role) -> Result<Standing, CatalogError> {
        let (left, revoked) = self
            .tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM departures WHERE peer = ?1),
                        EXISTS (SELECT 1 FROM revocations WHERE peer = ?1 AND (by_root OR ?2))",
            )?
            .query_row(params![peer.to_bytes(), role == Role::Node], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Standing::of(left, revoked))
    }

    /// Whether this catalog had the member before it had the revocation of `issuer`, by its own order of arrival.
    pub(crate) fn knew_before_the_revocation_of(
        &self,
        member: &PeerId,
        issuer: &PeerId,
    ) -> Result<bool, CatalogError> {
        // Rows are numbered as they come and keep their number when they are replaced.
        let mut query = self.tx.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM members, revocations
                            WHERE members.peer = ?1 AND revocations.peer = ?2 AND members.row < revocations.row)",
        )?;
        Ok(query.query_row(params![member.to_bytes(), issuer.to_bytes()], |row| row.get(0))?)
    }

    /// A member's verified entry.
    pub(crate) fn enrolled(&self, peer: &PeerId, trust: &Trust) -> Result<Option<Enrolled>, CatalogError> {
        let key = Key { kind: Kind::MEMBER, id: Enrolment::id_of(peer) };
        Ok(self.stored(&key, trust)?.and_then(|(_, entry)| match entry.payload {
            Payload::Member(enrolled) => Some(*enrolled),
            _ => None,
        }))
    }

    /// The super-peer of this name; should there be several, the first that was admitted and is still a member.
    pub(crate) fn superpeer_called(&self, name: &MemberName) -> Result<Option<PeerId>, CatalogError> {
        let mut query = self.tx.prepare_cached(&format!(
            "SELECT peer FROM members WHERE name = ?1 AND superpeer ORDER BY {STANDING}, issued, peer LIMIT 1"
        ))?;
        let peer: Option<Vec<u8>> = query.query_row([name.as_str()], |row| row.get(0)).optional()?;
        peer.map(|peer| PeerId::from_bytes(&peer).map_err(CatalogError::damaged)).transpose()
    }

    /// A member's name.
    pub(super) fn name_of(&self, peer: &PeerId) -> Result<Option<MemberName>, CatalogError> {
        let mut query = self.tx.prepare_cached("SELECT name FROM members WHERE peer = ?1")?;
        let name: Option<String> = query.query_row([peer.to_bytes()], |row| row.get(0)).optional()?;
        name.map(|name| MemberName::new(&name).map_err(CatalogError::damaged)).transpose()
    }

    /// The standing of whoever else than this peer is called so; of several, one that is a member.
    pub(crate) fn name_holder(
        &self,
        name: &MemberName,
        other_than: &PeerId,
    ) -> Result<Option<Standing>, CatalogError> {
        let mut query = self
            .tx
            .prepare_cached(&format!("SELECT min({STANDING}) FROM members WHERE name = ?1 AND peer <> ?2"))?;
        let standing: Option<u8> =
            query.query_row(params![name.as_str(), other_than.to_bytes()], |row| row.get(0))?;
        Ok(standing.map(Standing::from_sql))
    }

    /// Departures of peers that were never members here.
    pub(super) fn stray_departures(&self) -> Result<u64, CatalogError> {
        let mut query = self.tx.prepare_cached(
            "SELECT count(*) FROM departures WHERE NOT EXISTS (SELECT 1 FROM members WHERE members.peer = departures.peer)",
        )?;
        let count: i64 = query.query_row([], |row| row.get(0))?;
        u64::try_from(count).map_err(CatalogError::damaged)
    }
}
