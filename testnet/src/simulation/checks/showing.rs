//! Who is shown what: every answer of a super-peer is held against the lists on its own disk.
//!
//! A super-peer cannot hide what it has not heard is to be hidden, so what counts is what it knows when it answers. The
//! watcher reads that from the disk and judges by itself, past the tables and queries of the code under test.

use std::collections::{BTreeMap, BTreeSet};

use libp2p::PeerId;
use quarta_protocols::{
    audiences::{Audience, Rule, Stated, Wrap},
    cbor,
    ids::{AudienceId, ID_BYTES},
    messages::{changes, index, sync::Kind},
    records::{Access, Record},
    signing::Signed,
};

use super::{
    Disk, Genuine, Promise, Rule as Promised, Truth,
    disks::{Contents, Payload, Stored, hash},
};
use crate::simulation::{adversary::Verdict, cast::Who, network::Answer};

/// Deleted files and the audience that each had before, where that could be seen.
pub(super) type Veils = BTreeMap<[u8; ID_BYTES], AudienceId>;

/// All that owners ever stated.
#[derive(Default)]
pub(super) struct Lists {
    /// The rules of each audience: one, unless its owner breaks its own word.
    rules: BTreeMap<AudienceId, (PeerId, Vec<Rule>)>,
    /// The audiences that each file ever had, and by which of its owners.
    files: BTreeMap<[u8; ID_BYTES], BTreeSet<(PeerId, AudienceId)>>,
}

impl Lists {
    /// A member signed a record.
    pub(super) fn note_record(&mut self, record: &Record) {
        if let Some(audience) = audience_of(record) {
            self.files.entry(*record.file().as_bytes()).or_default().insert((record.owner(), audience));
        }
    }

    fn note_audience(&mut self, audience: &Audience) {
        let owner = audience.origin.owner;
        let (_, rules) = self.rules.entry(audience.audience).or_insert_with(|| (owner, Vec::new()));
        if !rules.contains(&audience.rule) {
            rules.push(audience.rule.clone());
        }
    }

    /// Whether some statement of an owner's audience lets a member read, and whether some statement does not.
    fn verdicts(&self, owner: &PeerId, audience: &AudienceId, member: &PeerId) -> (bool, bool) {
        match self.rules.get(audience) {
            Some((of, rules)) if of == owner => {
                let permits = |rule: &Rule| rule.permits(member);
                (rules.iter().any(permits), !rules.iter().all(permits))
            }
            _ => (false, true),
        }
    }

    /// Whether a file was ever hidden from a member.
    pub(super) fn was_hidden(&self, file: &[u8; ID_BYTES], member: Who) -> bool {
        let hides = |(owner, audience): &(PeerId, AudienceId)| {
            *owner != member.peer() && self.verdicts(owner, audience, &member.peer()).1
        };
        self.files.get(file).is_some_and(|audiences| audiences.iter().any(hides))
    }

    /// Whether a member may have been shown a record by somebody at some time.
    pub(super) fn was_open(&self, record: &Record, member: Who) -> bool {
        audience_of(record).is_none_or(|audience| {
            let owner = record.owner();
            owner == member.peer() || self.verdicts(&owner, &audience, &member.peer()).0
        })
    }

    /// Whether the owner's own statements contradict each other about a member.
    pub(super) fn is_contradictory(&self, record: &Record, member: Who) -> bool {
        audience_of(record)
            .is_some_and(|audience| self.verdicts(&record.owner(), &audience, &member.peer()) == (true, true))
    }
}

impl Truth {
    /// A member signed an audience.
    pub fn signed_audience(&mut self, stated: Stated<Audience>) {
        self.lists.note_audience(stated.statement());
        let payload = hash(Kind::AUDIENCE, &cbor::to_vec(stated.signed()));
        self.genuine.insert(payload, Genuine::Audience(Box::new(stated)));
    }

    /// A member signed a reader's keys.
    pub fn signed_wrap(&mut self, stated: Stated<Wrap>) {
        let payload = hash(Kind::WRAP, &cbor::to_vec(stated.signed()));
        self.genuine.insert(payload, Genuine::Wrap(Box::new(stated)));
    }

    /// A super-peer has answered a member that told it its lists.
    pub(super) fn hears_of_lists(
        &mut self,
        by: Who,
        audiences: &[Signed<Audience>],
        wraps: &[Signed<Wrap>],
        outcomes: &[index::Publication],
        verdict: Option<Verdict>,
    ) {
        let audiences = audiences.iter().map(|signed| {
            let payload = hash(Kind::AUDIENCE, &cbor::to_vec(signed));
            signed.peek().ok().map(|audience| ((Kind::AUDIENCE, *audience.audience.as_bytes()), payload))
        });
        let wraps = wraps.iter().map(|signed| {
            let payload = hash(Kind::WRAP, &cbor::to_vec(signed));
            let id = |wrap: Wrap| Wrap::id_of(&wrap.audience, &wrap.member);
            signed.peek().ok().map(|wrap| ((Kind::WRAP, id(wrap)), payload))
        });
        let taken: Vec<_> = audiences
            .chain(wraps)
            .zip(outcomes)
            .filter(|(_, outcome)| matches!(outcome, index::Publication::Stored | index::Publication::Known))
            .filter_map(|(told, _)| told)
            .collect();
        if verdict == Some(Verdict::Refused) && !taken.is_empty() {
            self.violated(Promised::NothingInvalid, || format!("{by} took an adversary's list"));
        }
        for (key, payload) in taken {
            self.promised(Promise { by, key, payload: Some(payload) });
        }
    }

    /// Of a deleted file, what its last revision says who may know of it: where that stood on this disk just before.
    pub(super) fn veil(&self, disk: &mut Disk, entry: &Stored) {
        if entry.key.0 != Kind::FILE {
            return;
        }
        let before = disk.contents.get(&entry.key).and_then(|payload| self.file(payload));
        let veil = match (before, self.file(&entry.payload)) {
            (Some(before), Some(now)) => audience_of(before).filter(|_| follows(before, now)),
            _ => None,
        };
        match veil {
            Some(audience) => disk.veils.insert(entry.key.1, audience),
            None => disk.veils.remove(&entry.key.1),
        };
    }

    /// What a super-peer answers must be for the asker's eyes.
    pub fn hears_what_is_shown(&mut self, superpeer: Who, to: Who, answer: &Answer) {
        let Some(disk) = self.disks.get(&superpeer) else { return };
        let shown = match answer {
            Answer::Changes(changes::Response::Page { changes, .. }) => {
                changes.iter().find_map(|change| match change {
                    changes::Change::Put { kind, payload, .. } => self.not_for(disk, *kind, payload, to),
                    changes::Change::Forget { .. } => None,
                })
            }
            Answer::Index(index::Response::Files { files, .. }) => files
                .iter()
                .find_map(|listed| self.not_for(disk, Kind::FILE, &cbor::to_vec(&listed.record), to)),
            _ => None,
        };
        if let Some(what) = shown {
            self.violated(Promised::NoneOfTheListed, || format!("{superpeer} shows {to} {what}"));
        }
    }

    /// What an entry is, where it is not for a member.
    fn not_for(&self, disk: &Disk, kind: Kind, payload: &[u8], member: Who) -> Option<String> {
        let me = member.peer();
        let genuine = self.genuine.get(&hash(kind, payload));
        let (mine, what) = match (kind, genuine) {
            (Kind::FILE, Some(Genuine::File(record))) => {
                (self.is_for(&disk.contents, &disk.veils, record, member), format!("{}", record.file()))
            }
            (Kind::AUDIENCE, Some(Genuine::Audience(stated))) => {
                (stated.statement().origin.owner == me, "another's list".to_owned())
            }
            (Kind::WRAP, Some(Genuine::Wrap(stated))) => {
                let wrap = stated.statement();
                (wrap.member == me || wrap.origin.owner == me, "another's keys".to_owned())
            }
            (Kind::MEMBER | Kind::DEPARTURE | Kind::REVOCATION, Some(_)) => return None,
            _ => (false, format!("an entry of {kind:?}")),
        };
        (!mine).then_some(what)
    }

    /// Whether a record is for a member by the lists of a catalog.
    pub(super) fn is_for(&self, contents: &Contents, veils: &Veils, record: &Record, member: Who) -> bool {
        let (owner, me) = (record.owner(), member.peer());
        let audience = match record.entry() {
            Some(_) => audience_of(record),
            None => veils.get(record.file().as_bytes()).copied(),
        };
        let Some(audience) = audience.filter(|_| owner != me) else { return true };
        let stated = contents.get(&(Kind::AUDIENCE, *audience.as_bytes()));
        match stated.and_then(|payload| self.genuine.get(payload)) {
            Some(Genuine::Audience(stated)) => {
                let Audience { origin, rule, .. } = stated.statement();
                origin.owner == owner && rule.permits(&me)
            }
            _ => false,
        }
    }

    pub(super) fn file(&self, payload: &Payload) -> Option<&Record> {
        match self.genuine.get(payload) {
            Some(Genuine::File(record)) => Some(record),
            _ => None,
        }
    }
}

/// Whether one record is the deletion that comes right after another.
fn follows(before: &Record, now: &Record) -> bool {
    let (before_links, now_links) = (before.body().links.len(), now.body().links.len());
    now.entry().is_none()
        && now.owner() == before.owner()
        && now_links == before_links
        && before.body().revision.checked_add(1) == Some(now.body().revision)
}

pub(super) fn audience_of(record: &Record) -> Option<AudienceId> {
    match record.entry().map(|entry| &entry.access) {
        Some(Access::Restricted { audience, .. }) => Some(*audience),
        _ => None,
    }
}
