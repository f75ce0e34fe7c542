//! The audit trail: what was signed, the same on every super-peer, and what this one observed.
//!
//! Signed events come in the order of their stamps' time, which all super-peers agree on once they have converged. One
//! change may have been accepted by two super-peers that did not know of each other; both events are kept, and the
//! earlier one is shown.

use libp2p::PeerId;
use quarta_protocols::{
    audit::Event, cbor, clock::HybridTime, ids::ID_BYTES, members::Enrolment, names::MemberName,
};
use rusqlite::{Row, ToSql, named_params, params};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use super::{
    Catalog, CatalogError, Reader,
    reader::{member_name, peer},
};

/// Observations of one kind that are kept, the newest: strangers who knock must not push out what matters.
pub const OBSERVATIONS_MAX: u32 = 20_000;

/// A place in the trail; what is earlier comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// When.
    pub time: HybridTime,
    /// Which of several at that time.
    pub event: ByteArray<ID_BYTES>,
}

/// A signed event, with what the names are now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The event.
    pub event: Event,
    /// Its place.
    pub place: LogPlace,
    /// The accepting super-peer's name, if known.
    pub superpeer_name: Option<MemberName>,
    /// The actor's name, if known.
    pub actor_name: Option<MemberName>,
}

/// What a super-peer sees for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Observed {
    /// A member did not answer and was taken off the available list.
    Removed,
    /// A removed member is back.
    Returned,
    /// A peer was refused.
    Refused,
}

/// One observation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// When, by this machine's clock, in milliseconds since 1970.
    pub millis: u64,
    /// What.
    pub what: Observed,
    /// Of whom.
    pub peer: PeerId,
    /// Its name, as far as it was known; empty otherwise.
    pub name: String,
    /// Why, in words.
    pub detail: String,
}

/// A place among the observations; what is earlier comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPlace {
    /// When.
    pub millis: u64,
    /// Which of several at that time.
    pub number: u64,
}

impl Observed {
    /// The word in logs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Returned => "returned",
            Self::Refused => "refused",
        }
    }

    const fn to_sql(self) -> u8 {
        match self {
            Self::Removed => 1,
            Self::Returned => 2,
            Self::Refused => 3,
        }
    }

    fn from_sql(value: u8) -> Result<Self, CatalogError> {
        match value {
            1 => Ok(Self::Removed),
            2 => Ok(Self::Returned),
            3 => Ok(Self::Refused),
            other => Err(CatalogError::damaged(format!("an observation of kind {other}"))),
        }
    }
}

impl Catalog {
    /// Notes what this super-peer saw; only the newest [`OBSERVATIONS_MAX`] of each kind stay.
    ///
    /// # Errors
    /// [`CatalogError`]; then none is noted.
    pub fn observe(&mut self, observations: &[Observation]) -> Result<(), CatalogError> {
        let tx = self.conn.transaction()?;
        for seen in observations {
            tx.prepare_cached(
                "INSERT INTO observations (millis, what, peer, name, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                i64::try_from(seen.millis).unwrap_or(i64::MAX),
                seen.what.to_sql(),
                seen.peer.to_bytes(),
                seen.name,
                seen.detail
            ])?;
        }
        for what in [Observed::Removed, Observed::Returned, Observed::Refused] {
            tx.prepare_cached(
                "DELETE FROM observations WHERE what = ?1 AND number <= (
                     SELECT number FROM observations WHERE what = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![what.to_sql(), OBSERVATIONS_MAX])?;
        }
        Ok(tx.commit()?)
    }
}

impl Reader {
    /// Signed events before a place, the newest first, at most `limit`; with `about`, only what that member did or what
    /// was done to its membership.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn log(
        &self,
        before: Option<&LogPlace>,
        limit: usize,
        about: Option<&PeerId>,
    ) -> Result<Vec<Logged>, CatalogError> {
        let Some(about) = about else {
            return self.events_where("events_by_time", "TRUE", &[], before, limit);
        };
        let (actor, subject) = (about.to_bytes(), Enrolment::id_of(about));
        let mut found = self.events_where(
            "events_by_actor",
            "events.actor = :about",
            &[(":about", &actor)],
            before,
            limit,
        )?;
        found.extend(self.events_where(
            "events_by_subject",
            "events.subject = :about",
            &[(":about", &subject)],
            before,
            limit,
        )?);
        let order = |logged: &Logged| (logged.place.time, *logged.place.event);
        found.sort_by_key(|logged| std::cmp::Reverse(order(logged)));
        found.dedup_by_key(|logged| order(logged));
        found.truncate(limit);
        Ok(found)
    }

    fn events_where(
        &self,
        index: &str,
        condition: &str,
        values: &[(&str, &dyn ToSql)],
        before: Option<&LogPlace>,
        limit: usize,
    ) -> Result<Vec<Logged>, CatalogError> {
        let mut rows = self.conn.prepare_cached(&events(index, condition))?;
        let latest = LogPlace {
            time: HybridTime { millis: u64::MAX, counter: u32::MAX },
            event: ByteArray::new([0xff; ID_BYTES]),
        };
        let before = before.unwrap_or(&latest);
        let millis = i64::try_from(before.time.millis).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut bound: Vec<(&str, &dyn ToSql)> = vec![
            (":millis", &millis),
            (":counter", &before.time.counter),
            (":event", before.event.as_ref()),
            (":limit", &limit),
        ];
        bound.extend_from_slice(values);
        let mut rows = rows.query(bound.as_slice())?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(logged(row)?);
        }
        Ok(found)
    }

    /// Observations before a place, the newest first, at most `limit`; with `about`, only of that peer.
    ///
    /// # Errors
    /// [`CatalogError`] where the database fails.
    pub fn observations(
        &self,
        before: Option<&ObservedPlace>,
        limit: usize,
        about: Option<&PeerId>,
    ) -> Result<Vec<(ObservedPlace, Observation)>, CatalogError> {
        let (index, condition) = match about {
            Some(_) => ("observations_by_peer", "peer = :about"),
            None => ("observations_by_time", ":about IS NULL"),
        };
        let mut rows = self.conn.prepare_cached(&format!(
            "SELECT millis, number, what, peer, name, detail FROM observations INDEXED BY {index}
             WHERE {condition} AND (millis, number) < (:millis, :number)
             ORDER BY millis DESC, number DESC LIMIT :limit"
        ))?;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let before = before.unwrap_or(&ObservedPlace { millis: u64::MAX, number: u64::MAX });
        let mut rows = rows.query(named_params! {
            ":about": about.map(|peer| peer.to_bytes()),
            ":millis": signed(before.millis),
            ":number": signed(before.number),
            ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        })?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let unsigned = |at: usize| u64::try_from(row.get::<_, i64>(at)?).map_err(CatalogError::damaged);
            let place = ObservedPlace { millis: unsigned(0)?, number: unsigned(1)? };
            let observation = Observation {
                millis: place.millis,
                what: Observed::from_sql(row.get(2)?)?,
                peer: peer(row, 3)?,
                name: row.get(4)?,
                detail: row.get(5)?,
            };
            found.push((place, observation));
        }
        Ok(found)
    }
}

/// The statement that gives events before (`:millis`, `:counter`, `:event`) by one of the indexes in their order. Of the
/// events that tell of one accepted payload only the earliest is given.
pub(super) fn events(index: &str, condition: &str) -> String {
    format!(
        "SELECT entries.payload, events.event, superpeers.name, actors.name
         FROM events INDEXED BY {index}
         CROSS JOIN entries ON entries.row = events.row
         LEFT JOIN members AS actors ON actors.peer = events.actor
         LEFT JOIN members AS superpeers ON superpeers.peer = events.superpeer
         WHERE {condition} AND (events.millis, events.counter, events.event) < (:millis, :counter, :event)
         AND NOT EXISTS (
             SELECT 1 FROM events AS earlier INDEXED BY events_by_payload
             WHERE earlier.payload = events.payload AND earlier.subject = events.subject
             AND (earlier.millis, earlier.counter, earlier.event) < (events.millis, events.counter, events.event))
         ORDER BY events.millis DESC, events.counter DESC, events.event DESC LIMIT :limit"
    )
}

fn logged(row: &Row<'_>) -> Result<Logged, CatalogError> {
    let payload = row.get_ref(0)?.as_blob().map_err(CatalogError::damaged)?;
    let event: Event = cbor::from_slice(payload).map_err(CatalogError::damaged)?;
    let name = |at: usize| row.get::<_, Option<String>>(at)?.map(member_name).transpose();
    Ok(Logged {
        place: LogPlace { time: event.time, event: ByteArray::new(row.get(1)?) },
        superpeer_name: name(2)?,
        actor_name: name(3)?,
        event,
    })
}
