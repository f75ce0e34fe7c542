//! Those who try: strangers, members and super-peers gone bad.
//!
//! Each attempt goes over the network as a letter from a machine of the cast, since the transport proves who sends. What
//! must become of it goes with it: [`Verdict`].

use quarta_protocols::{
    clock::HybridTime,
    content::ContentKey,
    credentials::{Credential, Grant, Role},
    ids::{ContentId, RecordHash, Sha256},
    messages::{
        admission, index,
        sync::{self, Entry, Kind, Stamp},
    },
    names::{FileName, MemberName},
    records::{self, Access, Body, Origin, SignedRecord, State},
    signing::Signed,
};
use rand::{
    RngExt,
    rngs::SmallRng,
    seq::{IndexedRandom, IteratorRandom},
};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    cast::{START, Who, cast, key},
    network::Ask,
};

/// What must become of an adversary's letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changes anywhere because of it.
    Refused,
    /// It is genuine, so taking it is no harm, but nothing may go back because of it.
    Harmless,
}

/// An attempt.
#[derive(Debug)]
pub struct Attempt {
    /// Who sends it.
    pub from: Who,
    /// To whom.
    pub to: Who,
    /// The credential that it shows.
    pub credential: Option<Credential>,
    /// What it asks.
    pub ask: Ask,
    /// What must become of it.
    pub verdict: Verdict,
    /// What it is, for the story.
    pub what: &'static str,
}

/// Remembers what went over the wire, to send it again.
#[derive(Debug, Default)]
pub struct Adversary {
    records: Vec<SignedRecord>,
    entries: Vec<Entry>,
}

/// What is remembered of each kind.
const REMEMBERED_MAX: usize = 64;

impl Adversary {
    /// Listens to a question that somebody asks.
    pub fn overhears(&mut self, ask: &Ask) {
        match ask {
            Ask::Index(index::Request::Publish(records)) if self.records.len() < REMEMBERED_MAX => {
                self.records.extend(records.iter().cloned());
            }
            Ask::Sync(sync::Request::Push(entries)) if self.entries.len() < REMEMBERED_MAX => {
                self.entries.extend(entries.iter().cloned());
            }
            _ => {}
        }
    }

    /// Sends something again that was true once.
    pub fn replay(&self, rng: &mut SmallRng) -> Option<Attempt> {
        let to = Who::superpeer(rng.random_range(0..3));
        if rng.random_bool(0.5) {
            // A super-peer that spreads old entries.
            let from = Who::superpeers().filter(|from| *from != to).choose(rng)?;
            let entries =
                (0..rng.random_range(1..4)).filter_map(|_| self.entries.choose(rng).cloned()).collect();
            let ask = Ask::Sync(sync::Request::Push(entries));
            let credential = from.identity().credential.clone();
            let what = "a super-peer pushes old entries";
            return Some(Attempt { from, to, credential, ask, verdict: Verdict::Harmless, what });
        }
        // A member that publishes old records: its own count as known or superseded, others' are refused.
        let from = Who::member(rng.random_range(0..3));
        let record = self.records.choose(rng)?.clone();
        let ask = Ask::Index(index::Request::Publish(vec![record]));
        let credential = from.identity().credential.clone();
        let what = "a member publishes an old record";
        Some(Attempt { from, to, credential, ask, verdict: Verdict::Harmless, what })
    }

    /// Makes something up.
    pub fn forge(&self, rng: &mut SmallRng) -> Option<Attempt> {
        let to = Who::superpeer(rng.random_range(0..3));
        let node = Who::member(rng.random_range(0..3));
        let stranger = Who::member(rng.random_range(3..6));
        let refused = |from: Who, credential, ask, what| {
            Some(Attempt { from, to, credential, ask, verdict: Verdict::Refused, what })
        };
        let own = node.identity().credential.clone();
        let bad = Who::superpeers().filter(|from| *from != to).choose(rng)?;
        let superpeers_own = bad.identity().credential.clone();
        let publish = |record| Ask::Index(index::Request::Publish(vec![record]));
        let push = |entry| Ask::Sync(sync::Request::Push(vec![entry]));
        match rng.random_range(0..10) {
            0 => {
                let record = tampered(node, rng);
                refused(node, own, publish(record), "a member publishes a record under a broken signature")
            }
            1 => {
                let victim = Who::member(node.index() + 1 - 3);
                let record = claimed(victim, node, rng);
                refused(node, own, publish(record), "a member claims another's file")
            }
            2 => {
                let record = record_of(stranger, rng);
                let foreign = foreign_credential(stranger);
                refused(stranger, Some(foreign), publish(record), "another network's member publishes")
            }
            3 => {
                let record = record_of(stranger, rng);
                refused(stranger, own, publish(record), "a stranger shows a stolen credential")
            }
            4 => {
                let issued = issued_by_node(node, stranger);
                let record = record_of(stranger, rng);
                refused(stranger, Some(issued), publish(record), "a stranger shows a credential by a node")
            }
            5 => {
                let record = record_of(node, rng);
                let entry = stamped(node, Kind::FILE, *record_id(&record), cbor(&record));
                refused(node, own, push(entry), "a node pushes as if it were a super-peer")
            }
            6 => {
                let record = tampered(node, rng);
                let entry = stamped(bad, Kind::FILE, *record_id(&record), cbor(&record));
                refused(bad, superpeers_own, push(entry), "a super-peer pushes a forged record")
            }
            7 => {
                let mut entry = self.entries.choose(rng)?.clone();
                entry.id[5] ^= 1;
                if !matches!(entry.kind, Kind::FILE | Kind::MEMBER) {
                    return None;
                }
                refused(bad, superpeers_own, push(entry), "a super-peer pushes an entry under another's id")
            }
            8 => {
                let enrolment = stranger.identity().enrolment(foreign_credential(stranger));
                let id = quarta_protocols::members::Enrolment::id_of(&stranger.peer());
                let entry = stamped(bad, Kind::MEMBER, id, cbor(&enrolment));
                refused(bad, superpeers_own, push(entry), "a super-peer pushes another network's member")
            }
            _ => {
                let ask = Ask::Admission(admission::Request::Redeem {
                    secret: ByteArray::new(rng.random()),
                    name: MemberName::new("guesser").ok()?,
                    sealing_key: stranger.identity().sealing_key.clone(),
                });
                refused(stranger, None, ask, "a stranger guesses an invite")
            }
        }
    }
}

fn cbor<T: serde::Serialize>(value: &T) -> Vec<u8> {
    quarta_protocols::cbor::to_vec(value)
}

/// An entry under a super-peer's, or a would-be super-peer's, own stamp.
fn stamped(by: Who, kind: Kind, id: [u8; 32], payload: Vec<u8>) -> Entry {
    let time = HybridTime { millis: START.0 * 1000, counter: 7 };
    let stamp = Stamp { superpeer: by.peer(), payload: RecordHash::of(&payload), time };
    let stamp = Signed::new(&stamp, &cast().trust.network, &by.identity().key);
    Entry { kind, id: ByteArray::new(id), payload: ByteBuf::from(payload), stamp }
}

fn body_of(owner: Who, rng: &mut SmallRng) -> Body {
    let origin = Origin { owner: owner.peer(), nonce: ByteArray::new(rng.random()) };
    let entry = records::Entry {
        name: FileName::new("forged").expect("a plain name"),
        size_bytes: 3,
        content: ContentId::from_bytes(rng.random()),
        manifest: None,
        access: Access::Open {
            key: ContentKey::from_bytes([1; 32]),
            sha256: Sha256::from_bytes([2; 32]),
            media_type: None,
        },
    };
    let file = origin.file_id(&cast().trust.network);
    Body { file, origin, links: Vec::new(), revision: 1, state: State::Present(entry) }
}

fn record_of(owner: Who, rng: &mut SmallRng) -> SignedRecord {
    SignedRecord::new(&body_of(owner, rng), &cast().trust.network, &owner.identity().key)
}

fn record_id(record: &SignedRecord) -> Box<[u8; 32]> {
    Box::new(record.peek().map_or([0; 32], |body| *body.file.as_bytes()))
}

/// A record signed with a key that is nobody's.
fn tampered(owner: Who, rng: &mut SmallRng) -> SignedRecord {
    SignedRecord::new(&body_of(owner, rng), &cast().trust.network, &key(99))
}

/// A record of the victim's file, signed by the thief.
fn claimed(victim: Who, thief: Who, rng: &mut SmallRng) -> SignedRecord {
    SignedRecord::new(&body_of(victim, rng), &cast().trust.network, &thief.identity().key)
}

fn foreign_credential(who: Who) -> Credential {
    let name = &who.identity().name;
    let grant = Grant { peer: who.peer(), name, role: Role::Superpeer, now: START, token_id: [9; 16] };
    Credential::issue_by_root(&cast().foreign_root, &cast().trust.network, &grant)
}

fn issued_by_node(node: Who, who: Who) -> Credential {
    let identity = node.identity();
    let own = identity.credential.as_ref().expect("the nodes of the cast are members");
    let grant = Grant {
        peer: who.peer(),
        name: &who.identity().name,
        role: Role::Node,
        now: START,
        token_id: [9; 16],
    };
    Credential::issue_by_superpeer(&identity.key, own, &cast().trust.network, &grant)
}
