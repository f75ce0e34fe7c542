//! What an entry holds, verified, and which of two entries about one thing stays. Pure.

use std::cmp::Ordering;

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{AUDIENCE_MAX_BYTES, Audience, Stated, Wrap},
    audit::{EVENT_MAX_BYTES, Event},
    cbor,
    clock::HybridTime,
    credentials::Trust,
    endings::{Departure, ENDING_MAX_BYTES, RevocationNotice, Revoked},
    ids::{ID_BYTES, RecordHash, public_key_of},
    members::{ENROLMENT_MAX_BYTES, Enrolled, Enrolment},
    messages::sync::{Entry, Kind, Stamp},
    names::FILE_NAME_MAX_BYTES,
    records::{RECORD_MAX_BYTES, Record, SignedRecord},
    signing::Signed,
};
use serde_bytes::{ByteArray, ByteBuf};

use super::Context;

/// What the envelope around a record's body adds at most, in bytes.
const ENVELOPE_MAX_BYTES: usize = 256;
/// The largest payload of an unknown kind: a page between super-peers has room for one more after it is full.
pub(super) const UNKNOWN_MAX_BYTES: usize = 64 * 1024;

/// An entry's place: its kind, and its id within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) id: [u8; ID_BYTES],
}

/// What an entry says.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    File(Box<Record>),
    Member(Box<Enrolled>),
    /// This member has left.
    Departure(PeerId),
    Revocation(Box<Revoked>),
    Event(Box<Event>),
    Audience(Box<Stated<Audience>>),
    Wrap(Box<Stated<Wrap>>),
    /// Of a kind that this version does not know: kept and passed on as it is.
    Unknown,
}

/// A verified entry: what it says, the bytes that say so, and its verified stamp.
#[derive(Debug, Clone)]
pub(super) struct Verified {
    pub(super) key: Key,
    pub(super) payload: Payload,
    pub(super) bytes: Vec<u8>,
    pub(super) stamp: Signed<Stamp>,
    pub(super) time: HybridTime,
}

impl Key {
    pub(super) const fn of_file(record: &Record) -> Self {
        Self { kind: Kind::FILE, id: *record.file().as_bytes() }
    }

    pub(super) fn of_member(enrolled: &Enrolled) -> Self {
        Self { kind: Kind::MEMBER, id: Enrolment::id_of(&enrolled.membership.peer) }
    }

    pub(super) fn of_departure(member: &PeerId) -> Self {
        Self { kind: Kind::DEPARTURE, id: Enrolment::id_of(member) }
    }

    pub(super) fn of_revocation(member: &PeerId) -> Self {
        Self { kind: Kind::REVOCATION, id: Enrolment::id_of(member) }
    }

    pub(super) fn of_event(encoded: &[u8]) -> Self {
        Self { kind: Kind::EVENT, id: Event::id_of(encoded) }
    }

    pub(super) const fn of_audience(audience: &Audience) -> Self {
        Self { kind: Kind::AUDIENCE, id: *audience.audience.as_bytes() }
    }

    pub(super) fn of_wrap(wrap: &Wrap) -> Self {
        Self { kind: Kind::WRAP, id: Wrap::id_of(&wrap.audience, &wrap.member) }
    }

    /// Whether an entry that is here in these very bytes need not be looked at again. Of an unknown kind the stamp
    /// counts too.
    pub(super) const fn is_decided_by_payload(&self) -> bool {
        is_known(self.kind)
    }
}

/// Whether this version knows the kind.
pub(super) const fn is_known(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::FILE
            | Kind::MEMBER
            | Kind::DEPARTURE
            | Kind::REVOCATION
            | Kind::EVENT
            | Kind::AUDIENCE
            | Kind::WRAP
    )
}

impl Payload {
    /// Verifies an entry's payload by itself; the reason is for people.
    pub(super) fn verify(key: &Key, bytes: &[u8], trust: &Trust) -> Result<Self, String> {
        let payload = match key.kind {
            Kind::FILE => {
                let signed: SignedRecord =
                    cbor::from_slice_within(bytes, RECORD_MAX_BYTES + ENVELOPE_MAX_BYTES).map_err(text)?;
                let record = Record::verify(signed, trust).map_err(text)?;
                (Key::of_file(&record) == *key).then(|| Self::File(Box::new(record)))
            }
            Kind::MEMBER => {
                let enrolment: Enrolment =
                    cbor::from_slice_within(bytes, ENROLMENT_MAX_BYTES).map_err(text)?;
                let enrolled = enrolment.verify(trust).map_err(text)?;
                (Key::of_member(&enrolled) == *key).then(|| Self::Member(Box::new(enrolled)))
            }
            Kind::DEPARTURE => {
                let signed: Signed<Departure> =
                    cbor::from_slice_within(bytes, ENDING_MAX_BYTES).map_err(text)?;
                let member = Departure::verify(&signed, trust).map_err(text)?;
                (Key::of_departure(&member) == *key).then_some(Self::Departure(member))
            }
            Kind::REVOCATION => {
                let notice: RevocationNotice =
                    cbor::from_slice_within(bytes, ENDING_MAX_BYTES).map_err(text)?;
                let revoked = notice.verify(trust).map_err(text)?;
                (Key::of_revocation(&revoked.member) == *key).then(|| Self::Revocation(Box::new(revoked)))
            }
            Kind::EVENT => {
                let event: Event = cbor::from_slice_within(bytes, EVENT_MAX_BYTES).map_err(text)?;
                (Key::of_event(bytes) == *key && event.name.len() <= FILE_NAME_MAX_BYTES)
                    .then(|| Self::Event(Box::new(event)))
            }
            Kind::AUDIENCE => {
                let signed: Signed<Audience> =
                    cbor::from_slice_within(bytes, AUDIENCE_MAX_BYTES + ENVELOPE_MAX_BYTES).map_err(text)?;
                let audience = Audience::verify(signed, trust).map_err(text)?;
                (Key::of_audience(audience.statement()) == *key).then(|| Self::Audience(Box::new(audience)))
            }
            Kind::WRAP => {
                let signed: Signed<Wrap> =
                    cbor::from_slice_within(bytes, AUDIENCE_MAX_BYTES + ENVELOPE_MAX_BYTES).map_err(text)?;
                let wrap = Wrap::verify(signed, trust).map_err(text)?;
                (Key::of_wrap(wrap.statement()) == *key).then(|| Self::Wrap(Box::new(wrap)))
            }
            _ => (bytes.len() <= UNKNOWN_MAX_BYTES).then_some(Self::Unknown),
        };
        payload.ok_or_else(|| "the entry does not belong under its id, or is too large".to_owned())
    }

    /// Whether a payload may stand under this stamp: an event's stamp is its signature, everything else has its own.
    pub(super) fn fits(&self, stamp: &Stamp) -> bool {
        match self {
            Self::Event(event) => event.superpeer == stamp.superpeer && event.time == stamp.time,
            _ => true,
        }
    }
}

impl Verified {
    /// Stamps what this super-peer accepts first.
    pub(super) fn stamped(key: Key, payload: Payload, bytes: Vec<u8>, context: &Context<'_>) -> Self {
        let superpeer = context.own.public().to_peer_id();
        let stamp = Stamp { superpeer, payload: RecordHash::of(&bytes), time: context.now };
        let stamp = Signed::new(&stamp, &context.trust.network, context.own);
        Self { key, payload, bytes, stamp, time: context.now }
    }

    /// The entry as it travels.
    pub(super) fn to_entry(&self) -> Entry {
        Entry {
            kind: self.key.kind,
            id: ByteArray::new(self.key.id),
            payload: ByteBuf::from(self.bytes.clone()),
            stamp: self.stamp.clone(),
        }
    }

    /// Which of two entries of one key stays: [`Ordering::Greater`] for this one.
    ///
    /// A total order, so that all super-peers end with the same bytes in whatever order they hear of them. Records,
    /// enrolments, revocations, audiences and wraps have their own order; where that is silent (one body under two signatures, a departure
    /// signed twice) the bytes decide. Two events of one id are the same. Of an unknown kind nothing is known but when it
    /// was accepted: the later acceptance is the likelier update.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let by_bytes = self.bytes.cmp(&other.bytes);
        match (&self.payload, &other.payload) {
            (Payload::File(a), Payload::File(b)) => order(a.supersedes(b), b.supersedes(a)).then(by_bytes),
            (Payload::Member(a), Payload::Member(b)) => {
                order(a.supersedes(b), b.supersedes(a)).then(by_bytes)
            }
            (Payload::Revocation(a), Payload::Revocation(b)) => {
                order(a.supersedes(b), b.supersedes(a)).then(by_bytes)
            }
            (Payload::Audience(a), Payload::Audience(b)) => {
                order(a.supersedes(b), b.supersedes(a)).then(by_bytes)
            }
            (Payload::Wrap(a), Payload::Wrap(b)) => order(a.supersedes(b), b.supersedes(a)).then(by_bytes),
            (Payload::Departure(_), Payload::Departure(_)) | (Payload::Event(_), Payload::Event(_)) => {
                by_bytes
            }
            _ => self.time.cmp(&other.time).then(by_bytes),
        }
    }
}

const fn order(greater: bool, less: bool) -> Ordering {
    match (greater, less) {
        (true, _) => Ordering::Greater,
        (_, true) => Ordering::Less,
        _ => Ordering::Equal,
    }
}

/// Checks that a stamp is its super-peer's own, over this payload. Whether that is a super-peer is for the caller.
pub(super) fn verify_stamp(entry: &Entry, trust: &Trust) -> Option<Stamp> {
    let claimed = entry.stamp.peek().ok()?;
    let key = public_key_of(&claimed.superpeer).ok()?;
    let stamp = entry.stamp.verify(&trust.network, &key).ok()?;
    // SQLite counts to 2^63: no real clock comes near.
    let possible = i64::try_from(stamp.time.millis).is_ok();
    (possible && stamp.payload == RecordHash::of(&entry.payload)).then_some(stamp)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
