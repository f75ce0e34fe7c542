//! Those who try: strangers, members and super-peers gone bad.
//!
//! Each attempt goes over the network as a letter from a machine of the cast, since the transport proves who sends. What
//! must become of it goes with it: [`Verdict`].

mod lists;

use quarta_protocols::{
    audiences::Audience,
    audit::{Action, Event},
    clock::HybridTime,
    credentials::{Credential, Grant, Role},
    endings::{Departure, RevocationNotice},
    ids::{ContentId, RecordHash},
    members::Enrolment,
    messages::{
        admission, index,
        sync::{self, Entry, Kind, Stamp},
    },
    names::MemberName,
    records::{Body, SignedRecord},
    signing::Signed,
};
use rand::{
    RngExt,
    rngs::SmallRng,
    seq::{IndexedRandom, IteratorRandom},
};
use serde_bytes::{ByteArray, ByteBuf};

use super::{
    cast::{NODES, START, STRANGERS, SUPERPEERS, Who, cast, key, new_file},
    network::Ask,
};

/// When adversaries say that things happened.
const FORGED_AT: HybridTime = HybridTime { millis: START.0 * 1000, counter: 7 };

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
    audiences: Vec<Signed<Audience>>,
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
            Ask::Index(index::Request::PublishKeys { audiences, .. })
                if self.audiences.len() < REMEMBERED_MAX =>
            {
                self.audiences.extend(audiences.iter().cloned());
            }
            Ask::Sync(sync::Request::Push(entries)) if self.entries.len() < REMEMBERED_MAX => {
                self.entries.extend(entries.iter().cloned());
            }
            _ => {}
        }
    }

    /// Sends something again that was true once.
    pub fn replay(&self, rng: &mut SmallRng) -> Option<Attempt> {
        let to = Who::superpeer(rng.random_range(0..SUPERPEERS));
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
        if rng.random_bool(0.2) {
            // A member that states an old list: its own counts as known or superseded, others' are refused.
            let from = Who::member(rng.random_range(0..NODES));
            let audiences = vec![self.audiences.choose(rng)?.clone()];
            let ask = Ask::Index(index::Request::PublishKeys { audiences, wraps: Vec::new() });
            let credential = from.identity().credential.clone();
            let what = "a member states an old list";
            return Some(Attempt { from, to, credential, ask, verdict: Verdict::Harmless, what });
        }
        // A member that publishes old records: its own count as known or superseded, others' are refused.
        let from = Who::member(rng.random_range(0..NODES));
        let record = self.records.choose(rng)?.clone();
        let ask = Ask::Index(index::Request::Publish(vec![record]));
        let credential = from.identity().credential.clone();
        let what = "a member publishes an old record";
        Some(Attempt { from, to, credential, ask, verdict: Verdict::Harmless, what })
    }

    /// Makes something up.
    pub fn forge(&self, rng: &mut SmallRng) -> Option<Attempt> {
        let to = Who::superpeer(rng.random_range(0..SUPERPEERS));
        let node = Who::member(rng.random_range(0..NODES));
        let stranger = Who::member(rng.random_range(NODES..NODES + STRANGERS));
        let refused = |from: Who, credential, ask, what| {
            Some(Attempt { from, to, credential, ask, verdict: Verdict::Refused, what })
        };
        let own = node.identity().credential.clone();
        let bad = Who::superpeers().filter(|from| *from != to).choose(rng)?;
        let superpeers_own = bad.identity().credential.clone();
        let publish = |record| Ask::Index(index::Request::Publish(vec![record]));
        let push = |entry| Ask::Sync(sync::Request::Push(vec![entry]));
        match rng.random_range(0..21) {
            17 => {
                let entry = lists::tampered(node, bad, rng);
                refused(
                    bad,
                    superpeers_own,
                    push(entry),
                    "a super-peer pushes a list that is not its owner's",
                )
            }
            18 => {
                let ask = lists::anothers(&self.audiences, node, rng)?;
                refused(node, own, ask, "a member states another's list")
            }
            19 => {
                let ask = lists::keys_of_anothers(&self.audiences, node, rng)?;
                refused(node, own, ask, "a member gives itself the keys of another's list")
            }
            20 => {
                let (owner, ask) = lists::keys_for_a_superpeer(&self.audiences, to, rng)?;
                let own = owner.identity().credential.clone();
                refused(owner, own, ask, "an owner gives a super-peer keys")
            }
            10 => {
                let ask = Ask::Admission(admission::Request::Leave(departure_by(node, stranger)));
                refused(stranger, None, ask, "a stranger says that a member leaves")
            }
            11 => {
                let entry = ending(bad, Kind::DEPARTURE, node, cbor(&departure_by(node, bad)));
                refused(bad, superpeers_own, push(entry), "a super-peer says that a member has left")
            }
            12 => {
                let victim = Who::member(node.index() + 1 - SUPERPEERS);
                let notice = revocation_by_node(node, victim);
                let entry = ending(bad, Kind::REVOCATION, victim, cbor(&notice));
                refused(
                    bad,
                    superpeers_own,
                    push(entry),
                    "a super-peer pushes a node's revocation of another",
                )
            }
            13 => {
                let credential = Who::member(node.index() + 1 - SUPERPEERS).identity().credential.clone()?;
                let sealing_key = node.identity().sealing_key.clone();
                let ask = Ask::Admission(admission::Request::Renew { credential, sealing_key });
                refused(node, None, ask, "a member renews with another's credential")
            }
            14 => {
                let credential = foreign_credential(stranger);
                let sealing_key = stranger.identity().sealing_key.clone();
                let ask = Ask::Admission(admission::Request::Renew { credential, sealing_key });
                refused(stranger, None, ask, "another network's member renews here")
            }
            15 => {
                let event = event_of(to, node);
                let entry = stamped(bad, Kind::EVENT, Event::id_of(&event), event);
                refused(
                    bad,
                    superpeers_own,
                    push(entry),
                    "a super-peer tells of what another is to have done",
                )
            }
            16 => {
                let event = event_of(bad, node);
                let entry = stamped(node, Kind::EVENT, Event::id_of(&event), event);
                refused(bad, superpeers_own, push(entry), "a super-peer pushes an event under a node's stamp")
            }
            0 => {
                let record = tampered(node, rng);
                refused(node, own, publish(record), "a member publishes a record under a broken signature")
            }
            1 => {
                let victim = Who::member(node.index() + 1 - SUPERPEERS);
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
                let entry = stamped(node, Kind::FILE, record_id(&record), cbor(&record));
                refused(node, own, push(entry), "a node pushes as if it were a super-peer")
            }
            6 => {
                let record = tampered(node, rng);
                let entry = stamped(bad, Kind::FILE, record_id(&record), cbor(&record));
                refused(bad, superpeers_own, push(entry), "a super-peer pushes a forged record")
            }
            7 => {
                let mut entry = self.entries.choose(rng)?.clone();
                entry.id[5] ^= 1;
                if !matches!(entry.kind, Kind::FILE | Kind::MEMBER | Kind::AUDIENCE | Kind::WRAP) {
                    return None;
                }
                refused(bad, superpeers_own, push(entry), "a super-peer pushes an entry under another's id")
            }
            8 => {
                let enrolment = stranger.identity().enrolment(foreign_credential(stranger));
                let id = Enrolment::id_of(&stranger.peer());
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
    let stamp = Stamp { superpeer: by.peer(), payload: RecordHash::of(&payload), time: FORGED_AT };
    let stamp = Signed::new(&stamp, &cast().trust.network, &by.identity().key);
    Entry { kind, id: ByteArray::new(id), payload: ByteBuf::from(payload), stamp }
}

/// An entry about the end of somebody's membership.
fn ending(by: Who, kind: Kind, of: Who, payload: Vec<u8>) -> Entry {
    stamped(by, kind, Enrolment::id_of(&of.peer()), payload)
}

fn departure_by(member: Who, signer: Who) -> Signed<Departure> {
    Signed::new(&Departure { member: member.peer() }, &cast().trust.network, &signer.identity().key)
}

fn revocation_by_node(node: Who, victim: Who) -> RevocationNotice {
    let identity = node.identity();
    let credential = identity.credential.clone().expect("the nodes of the cast are members");
    RevocationNotice::by_superpeer(victim.peer(), &identity.key, credential, &cast().trust)
}

fn event_of(superpeer: Who, actor: Who) -> Vec<u8> {
    cbor(&Event {
        superpeer: superpeer.peer(),
        time: FORGED_AT,
        action: Action::Deleted,
        actor: Some(actor.peer()),
        subject: ByteArray::new([3; 32]),
        payload: RecordHash::of(b"nothing"),
        name: "budget.xlsx".to_owned(),
        revision: 9,
    })
}

fn body_of(owner: Who, rng: &mut SmallRng) -> Body {
    let nonce = rng.random();
    new_file(owner, nonce, "forged", ContentId::from_bytes(rng.random()))
}

fn record_of(owner: Who, rng: &mut SmallRng) -> SignedRecord {
    SignedRecord::new(&body_of(owner, rng), &cast().trust.network, &owner.identity().key)
}

fn record_id(record: &SignedRecord) -> [u8; 32] {
    record.peek().map_or([0; 32], |body| *body.file.as_bytes())
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
