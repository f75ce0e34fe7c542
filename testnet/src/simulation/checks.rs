//! What must hold, checked by somebody who sees everything and trusts nothing.
//!
//! [`Truth`] knows what was really signed, promised and used up. It reads the super-peers' databases by itself, past the
//! code under test, after everything that could have changed them; it hears every answer before the one who asked does.
//! So a promise is compared with what lies on the disk, and not with what a super-peer says of itself.

mod disks;
mod mirrors;
mod showing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Stated, Wrap},
    audit::Event,
    cbor,
    endings::{Departure, RevocationNotice, Revoked},
    members::{Enrolled, Enrolment},
    messages::{admission, changes, index, sync::Kind},
    records::{Record, SignedRecord},
    signing::Signed,
};
use rusqlite::Connection;

use self::{
    disks::{Contents, Key, Payload, Stored, changed, hash, open, short, version},
    mirrors::Mirror,
    showing::{Lists, Veils},
};
use super::{
    adversary::Verdict,
    cast::{Part, SUPERPEERS, Who, cast},
    network::{Answer, Ask},
};

/// What was promised, and is not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// All super-peers, and all members that follow them, end with the same.
    Converge,
    /// What nobody signed who may is nowhere accepted.
    NothingInvalid,
    /// What stands in a catalog is only ever replaced by what supersedes it.
    OnlyForward,
    /// What was acknowledged is on the disk, and stays while a super-peer that took it keeps its disk.
    NothingLost,
    /// An invite admits as many peers as it has uses.
    InvitesAreUsedUp,
    /// Whose membership has ended is shown nothing, admitted nowhere and renewed nowhere by who knows of it.
    NoneOfTheEnded,
    /// From whom a file is hidden, that one is not shown it.
    NoneOfTheListed,
    /// A super-peer that has started admits nobody before it has what another one had by then.
    ReconciledFirst,
}

/// A rule that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// How.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Something that was really signed by who may sign it.
#[derive(Debug)]
enum Genuine {
    File(Arc<Record>),
    Member(Box<Enrolled>),
    Revocation(Box<Revoked>),
    Audience(Box<Stated<Audience>>),
    Wrap(Box<Stated<Wrap>>),
    /// Of a kind where nothing supersedes anything, or nothing that matters.
    Other,
}

/// A super-peer's disk.
#[derive(Default)]
struct Disk {
    conn: Option<Connection>,
    contents: Contents,
    /// Deleted files that were hidden as far as could be seen here.
    veils: Veils,
    /// The number of the last change that was looked at.
    sequence: i64,
    /// What SQLite said when it was looked at last: another number when somebody has written since.
    version: i64,
    /// What each other super-peer had when this one's process started, but for what was lost with disks since.
    others_at_start: Vec<(Who, Contents)>,
}

#[derive(Debug)]
struct Promise {
    by: Who,
    key: Key,
    /// What was promised to stand there, or what supersedes it; none where anything does.
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Invite {
    uses: usize,
    admitted: BTreeSet<PeerId>,
}

/// What may have changed a super-peer's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Something that every honest machine does.
    Honest,
    /// A peer asked to be admitted or renewed.
    Admission(Who),
    /// Something that must not change anything.
    Refused,
}

/// Sees everything.
#[derive(Default)]
pub struct Truth {
    genuine: HashMap<Payload, Genuine>,
    disks: BTreeMap<Who, Disk>,
    mirrors: BTreeMap<Who, Mirror>,
    /// What all super-peers have lost with their disks. Members may still have it.
    forgotten: HashSet<Payload>,
    promises: Vec<Promise>,
    invites: BTreeMap<[u8; 16], Invite>,
    /// From whom files are hidden, and were.
    lists: Lists,
    broken: Option<Violation>,
}

/// What a backup holds, and the number of its last change.
#[derive(Default)]
pub struct Backup(Contents, Veils, i64);

impl Truth {
    /// The first rule that was broken.
    pub fn broken(&self) -> Option<&Violation> {
        self.broken.as_ref()
    }

    /// Notes that a rule is broken. Only the first counts: the others follow from it.
    pub fn violated(&mut self, rule: Rule, what: impl FnOnce() -> String) {
        self.broken.get_or_insert_with(|| Violation { rule, what: what() });
    }

    /// A member signed a record.
    pub fn signed_record(&mut self, record: &Record) {
        self.lists.note_record(record);
        let payload = hash(Kind::FILE, &cbor::to_vec(record.signed()));
        self.genuine.insert(payload, Genuine::File(Arc::new(record.clone())));
    }

    /// A member was admitted, or was one from the beginning.
    pub fn enrolled(&mut self, enrolment: Enrolment) {
        let bytes = cbor::to_vec(&enrolment);
        if self.genuine.contains_key(&hash(Kind::MEMBER, &bytes)) {
            return;
        }
        if let Ok(enrolled) = enrolment.verify(&cast().trust) {
            self.genuine.insert(hash(Kind::MEMBER, &bytes), Genuine::Member(Box::new(enrolled)));
        }
    }

    /// A member decided to leave.
    pub fn signed_departure(&mut self, departure: &Signed<Departure>) {
        self.signed(Kind::DEPARTURE, &cbor::to_vec(departure));
    }

    /// Somebody who may revoked somebody.
    pub fn signed_revocation(&mut self, notice: &RevocationNotice) {
        if let Ok(revoked) = notice.clone().verify(&cast().trust) {
            let payload = hash(Kind::REVOCATION, &cbor::to_vec(notice));
            self.genuine.insert(payload, Genuine::Revocation(Box::new(revoked)));
        }
    }

    /// Somebody who may signed something else.
    pub fn signed(&mut self, kind: Kind, payload: &[u8]) {
        self.genuine.insert(hash(kind, payload), Genuine::Other);
    }

    /// An invite was issued.
    pub fn issued(&mut self, secret: [u8; 16], uses: u32) {
        let uses = uses as usize;
        self.invites.insert(secret, Invite { uses, admitted: BTreeSet::new() });
    }

    /// A super-peer's process has started over a database.
    pub fn started(&mut self, superpeer: Who, database: &Path) {
        let others = self
            .disks
            .iter()
            .filter(|(other, _)| **other != superpeer)
            .map(|(other, disk)| (*other, disk.contents.clone()))
            .collect();
        let disk = self.disks.entry(superpeer).or_default();
        disk.conn.get_or_insert_with(|| open(database).expect("a catalog in use can be read"));
        // The first look at a process's work is never left out.
        disk.version = 0;
        disk.others_at_start = others;
        self.look(superpeer, Cause::Honest);
    }

    /// A super-peer's disk is about to be replaced. A process that dies leaves its log as it is, since the watcher goes on
    /// reading: what is cleared up when the last connection closes is not cleared up by a crash.
    pub fn loses_disk(&mut self, superpeer: Who) {
        if let Some(disk) = self.disks.get_mut(&superpeer) {
            disk.conn = None;
        }
    }

    /// What a backup holds that is made now.
    pub fn backup(&self, superpeer: Who) -> Backup {
        let disk = self.disks.get(&superpeer);
        disk.map(|disk| Backup(disk.contents.clone(), disk.veils.clone(), disk.sequence)).unwrap_or_default()
    }

    /// A super-peer's disk was lost and replaced by a backup. What no other super-peer has is lost, and nobody's fault.
    pub fn restored(&mut self, superpeer: Who, backup: &Backup) {
        let mut before = Contents::new();
        if let Some(disk) = self.disks.get_mut(&superpeer) {
            before = std::mem::replace(&mut disk.contents, backup.0.clone());
            disk.veils = backup.1.clone();
            disk.sequence = backup.2;
        }
        let (disks, genuine) = (&self.disks, &self.genuine);
        self.promises.retain(|promise| disks.values().any(|disk| covers(genuine, &disk.contents, promise)));
        let lost = before.into_iter().filter(|(key, payload)| {
            let promise = Promise { by: superpeer, key: *key, payload: Some(*payload) };
            !disks.values().any(|disk| covers(genuine, &disk.contents, &promise))
        });
        self.forgotten.extend(lost.map(|(_, payload)| payload));
        let held: Vec<Contents> = disks.values().map(|disk| disk.contents.clone()).collect();
        for disk in self.disks.values_mut() {
            for (other, contents) in &mut disk.others_at_start {
                contents.retain(|key, payload| {
                    let promise = Promise { by: superpeer, key: *key, payload: Some(*payload) };
                    // From the restored one nobody can hear any more of what its backup lacks.
                    let told = *other != superpeer || covers(&self.genuine, &backup.0, &promise);
                    told && held.iter().any(|contents| covers(&self.genuine, contents, &promise))
                });
            }
        }
        let disks = &self.disks;
        for invite in self.invites.values_mut() {
            invite.admitted.retain(|peer| {
                let key = (Kind::MEMBER, Enrolment::id_of(peer));
                disks.values().any(|disk| disk.contents.contains_key(&key))
            });
        }
    }

    /// Reads a super-peer's disk, and whether what changed was allowed to.
    pub fn look(&mut self, superpeer: Who, cause: Cause) {
        let Some(mut disk) = self.disks.remove(&superpeer) else { return };
        if let Some(conn) = &disk.conn
            && let version = version(conn).expect("a catalog can be read at any time")
            && version != disk.version
        {
            disk.version = version;
            let (changed, sequence) =
                changed(conn, disk.sequence).expect("a catalog can be read at any time");
            disk.sequence = sequence;
            for entry in changed {
                self.check(superpeer, cause, &entry, disk.contents.get(&entry.key));
                self.veil(&mut disk, &entry);
                disk.contents.insert(entry.key, entry.payload);
            }
        }
        self.disks.insert(superpeer, disk);
    }

    fn check(&mut self, superpeer: Who, cause: Cause, entry: &Stored, before: Option<&Payload>) {
        let (kind, id) = entry.key;
        if cause == Cause::Refused {
            self.violated(Rule::NothingInvalid, || {
                format!("{superpeer} stored {kind:?} {} of an adversary", short(&id))
            });
        }
        self.note_what_came_into_being(superpeer, cause, entry);
        if !self.genuine.contains_key(&entry.payload) {
            self.violated(Rule::NothingInvalid, || {
                format!("{superpeer} holds {kind:?} {}, which nobody signed who may", short(&id))
            });
        }
        if entry.stamped_by.is_none_or(|by| by.part() != Part::Superpeer) {
            self.violated(Rule::NothingInvalid, || {
                format!("{superpeer} holds {kind:?} {} under no super-peer's stamp", short(&id))
            });
        }
        // What is numbered anew, because others may see it now, is still the same.
        if let Some(before) = before
            && *before != entry.payload
            && !self.supersedes(&entry.payload, before)
        {
            self.violated(Rule::OnlyForward, || {
                format!("at {superpeer}, {kind:?} {} went back to what it was before", short(&id))
            });
        }
    }

    /// Credentials and events are made by super-peers themselves, for their own acts only.
    fn note_what_came_into_being(&mut self, superpeer: Who, cause: Cause, entry: &Stored) {
        if self.genuine.contains_key(&entry.payload) || entry.stamped_by != Some(superpeer) {
            return;
        }
        match (entry.key.0, cause) {
            (Kind::MEMBER, Cause::Admission(peer)) => {
                let enrolment: Option<Enrolment> = cbor::from_slice(&entry.bytes).ok();
                if let Some(enrolment) = enrolment.filter(|enrolment| enrolment.peer == peer.peer()) {
                    self.enrolled(enrolment);
                }
            }
            (Kind::EVENT, Cause::Honest | Cause::Admission(_)) => {
                let event: Option<Event> = cbor::from_slice(&entry.bytes).ok();
                if event.is_some_and(|event| event.superpeer == superpeer.peer()) {
                    self.signed(Kind::EVENT, &entry.bytes);
                }
            }
            _ => {}
        }
    }

    fn supersedes(&self, new: &Payload, old: &Payload) -> bool {
        supersedes(&self.genuine, new, old)
    }

    /// Whether a super-peer knows that a node's membership has ended.
    pub fn knows_end(&self, superpeer: Who, of: Who) -> bool {
        let id = of.identity().entry;
        self.disks.get(&superpeer).is_some_and(|disk| {
            [Kind::DEPARTURE, Kind::REVOCATION].iter().any(|kind| disk.contents.contains_key(&(*kind, id)))
        })
    }

    /// Whether some super-peer's disk has a member. One whose admission was lost with a disk comes back by its credential,
    /// but not before that is valid: a clock that was ahead when it was issued makes it wait.
    pub fn is_known(&self, member: Who) -> bool {
        let key = (Kind::MEMBER, member.identity().entry);
        self.disks.values().any(|disk| disk.contents.contains_key(&key))
    }

    /// A super-peer has answered. What it said must be true, and for the asker's ears.
    pub fn hears(&mut self, superpeer: Who, to: Who, ask: &Ask, answer: &Answer, verdict: Option<Verdict>) {
        match (ask, answer) {
            (
                Ask::Index(index::Request::Publish(records)),
                Answer::Index(index::Response::Published(outcomes)),
            ) => {
                for (record, outcome) in records.iter().zip(outcomes) {
                    if matches!(outcome, index::Publication::Stored | index::Publication::Known) {
                        self.promised_record(superpeer, record, verdict);
                    }
                }
            }
            (
                Ask::Index(index::Request::PublishKeys { audiences, wraps }),
                Answer::Index(index::Response::Published(outcomes)),
            ) => self.hears_of_lists(superpeer, audiences, wraps, outcomes, verdict),
            (
                Ask::Admission(admission::Request::Redeem { secret, .. }),
                Answer::Admission(admission::Response::Joined { .. }),
            ) => {
                self.admitted(superpeer, to, secret);
                let key = (Kind::MEMBER, Enrolment::id_of(&to.peer()));
                self.promised(Promise { by: superpeer, key, payload: None });
            }
            (
                Ask::Admission(admission::Request::Leave(_)),
                Answer::Admission(admission::Response::Farewell),
            ) => {
                // Of whom was revoked before, nothing more is noted.
                let id = Enrolment::id_of(&to.peer());
                let revoked = self
                    .disks
                    .get(&superpeer)
                    .is_some_and(|disk| disk.contents.contains_key(&(Kind::REVOCATION, id)));
                let kind = if revoked { Kind::REVOCATION } else { Kind::DEPARTURE };
                self.promised(Promise { by: superpeer, key: (kind, id), payload: None });
            }
            _ => {}
        }
        if let Answer::Admission(
            admission::Response::Joined { credential, .. } | admission::Response::Renewed(credential),
        ) = answer
        {
            if verdict == Some(Verdict::Refused) {
                self.violated(Rule::NothingInvalid, || format!("{superpeer} admitted an adversary"));
                return;
            }
            // Where a newer one stands in the catalog, this one does not, and is genuine all the same.
            self.enrolled(to.identity().enrolment(credential.clone()));
            self.check_reconciled(superpeer, to);
        }
    }

    /// What a super-peer tells somebody whose end it knew before it was asked.
    pub fn hears_what_the_ended_are_told(&mut self, superpeer: Who, to: Who, answer: &Answer) {
        let shown = match answer {
            Answer::Index(index::Response::Published(outcomes)) => {
                outcomes.iter().any(|outcome| !matches!(outcome, index::Publication::Invalid(_)))
            }
            Answer::Admission(response) => {
                matches!(response, admission::Response::Joined { .. } | admission::Response::Renewed(_))
            }
            Answer::Changes(response) => matches!(response, changes::Response::Page { .. }),
            Answer::Index(_) => true,
            Answer::Sync(_) | Answer::Closed => false,
        };
        if shown {
            self.violated(Rule::NoneOfTheEnded, || {
                format!("{superpeer} knows that the membership of {to} has ended, and answers it")
            });
        }
    }

    fn promised(&mut self, promise: Promise) {
        let kept =
            self.disks.get(&promise.by).is_some_and(|disk| covers(&self.genuine, &disk.contents, &promise));
        if !kept {
            self.violated(Rule::NothingLost, || {
                let (kind, id) = promise.key;
                format!("{} acknowledged {kind:?} {}, which is not on its disk", promise.by, short(&id))
            });
        }
        self.promises.push(promise);
    }

    fn promised_record(&mut self, by: Who, record: &SignedRecord, verdict: Option<Verdict>) {
        let Ok(body) = record.peek() else { return };
        if verdict == Some(Verdict::Refused) {
            self.violated(Rule::NothingInvalid, || format!("{by} took an adversary's record"));
        }
        let payload = hash(Kind::FILE, &cbor::to_vec(record));
        self.promised(Promise { by, key: (Kind::FILE, *body.file.as_bytes()), payload: Some(payload) });
    }

    fn admitted(&mut self, by: Who, peer: Who, secret: &[u8; 16]) {
        let Some(invite) = self.invites.get_mut(secret) else {
            self.violated(Rule::InvitesAreUsedUp, || format!("{by} admitted {peer} without an invite"));
            return;
        };
        invite.admitted.insert(peer.peer());
        let (admitted, uses) = (invite.admitted.len(), invite.uses);
        if admitted > uses {
            self.violated(Rule::InvitesAreUsedUp, || {
                format!("{by} admitted {peer}, the {admitted}th peer by an invite for {uses}")
            });
        }
    }

    fn check_reconciled(&mut self, superpeer: Who, peer: Who) {
        let Some(disk) = self.disks.get(&superpeer) else { return };
        let has_all = |other: &Contents| {
            other.iter().all(|(key, payload)| {
                let promise = Promise { by: superpeer, key: *key, payload: Some(*payload) };
                covers(&self.genuine, &disk.contents, &promise)
            })
        };
        // At the very first start not all others had been looked at.
        let known = disk.others_at_start.len() == SUPERPEERS - 1;
        if known && !disk.others_at_start.iter().any(|(_, contents)| has_all(contents)) {
            self.violated(Rule::ReconciledFirst, || {
                format!(
                    "{superpeer} gave {peer} a credential, and lacks what every other one had at its start"
                )
            });
        }
    }

    /// Whether all super-peers hold the same.
    pub fn superpeers_agree(&self) -> bool {
        let mut disks = self.disks.values();
        disks.next().is_none_or(|first| disks.all(|disk| disk.contents == first.contents))
    }

    /// At the end, after quiet time: all super-peers have the same, and so have these members, and nothing that was
    /// promised is missing.
    pub fn settled(&mut self, followers: &[Who]) {
        let mut disks = self.disks.iter();
        let Some((first, reference)) = disks.next() else { return };
        let different = disks.find(|(_, disk)| disk.contents != reference.contents);
        if let Some((other, disk)) = different {
            let differing = differing(&reference.contents, &disk.contents);
            let what = format!("{first} and {other} differ in {differing}");
            self.violated(Rule::Converge, || what);
            return;
        }
        let lost = self.promises.iter().find(|promise| !covers(&self.genuine, &reference.contents, promise));
        if let Some(Promise { by, key, .. }) = lost {
            let what = format!("{:?} {}, which {by} acknowledged, is nowhere", key.0, short(&key.1));
            self.violated(Rule::NothingLost, || what);
        }
        let behind = followers.iter().find_map(|member| Some((member, self.mirror_difference(*member)?)));
        if let Some((member, differing)) = behind {
            let what = format!("{member} and the super-peers differ in {differing}");
            self.violated(Rule::Converge, || what);
        }
    }
}

/// Whether a catalog holds what was promised, or what supersedes it.
fn covers(genuine: &HashMap<Payload, Genuine>, contents: &Contents, promise: &Promise) -> bool {
    contents.get(&promise.key).is_some_and(|here| match &promise.payload {
        None => true,
        Some(promised) => here == promised || supersedes(genuine, here, promised),
    })
}

fn supersedes(genuine: &HashMap<Payload, Genuine>, new: &Payload, old: &Payload) -> bool {
    match (genuine.get(new), genuine.get(old)) {
        (Some(Genuine::File(new)), Some(Genuine::File(old))) => new.supersedes(old),
        (Some(Genuine::Member(new)), Some(Genuine::Member(old))) => new.supersedes(old),
        (Some(Genuine::Revocation(new)), Some(Genuine::Revocation(old))) => new.supersedes(old),
        (Some(Genuine::Audience(new)), Some(Genuine::Audience(old))) => new.supersedes(old),
        (Some(Genuine::Wrap(new)), Some(Genuine::Wrap(old))) => new.supersedes(old),
        (Some(Genuine::Other), Some(Genuine::Other)) => true,
        _ => false,
    }
}

fn differing(one: &Contents, other: &Contents) -> String {
    let keys: BTreeSet<&Key> = one.keys().chain(other.keys()).collect();
    let differing: Vec<String> = keys
        .into_iter()
        .filter(|key| one.get(key) != other.get(key))
        .map(|(kind, id)| format!("{kind:?} {}", short(id)))
        .collect();
    format!("{} entries: {}", differing.len(), differing[..differing.len().min(5)].join(", "))
}
