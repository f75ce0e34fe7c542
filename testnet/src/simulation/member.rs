//! A node in the simulation: it publishes, joins, renews, leaves and follows.
//!
//! What it has signed and nobody has acknowledged yet outlasts a crash, as it does in a node's database; which questions
//! are under way does not.

use std::collections::BTreeMap;

use libp2p::PeerId;
use quarta_protocols::{
    content::ContentKey,
    credentials::Credential,
    ids::{ContentId, FileId, RecordHash, Sha256},
    messages::{admission, index},
    names::{FileName, MemberName},
    records::{Access, Body, Entry, Link, Origin, Record, State},
    signing::Signed,
};
use rand::{RngExt, rngs::SmallRng, seq::IteratorRandom};
use serde_bytes::ByteArray;

use super::{
    cast::{Who, cast},
    clock::Clock,
    network::{Answer, Ask},
    superpeer::Question,
};

/// Records that wait for an acknowledgement; a node with more adds nothing new before.
const OUTBOX_MAX: usize = 8;

/// A node's machine.
pub struct Member {
    who: Who,
    /// Its clock.
    pub clock: Clock,
    runs: bool,
    credential: Option<Credential>,
    /// An invite that it was given: the issuer and the secret.
    invite: Option<(Who, [u8; 16])>,
    files: BTreeMap<FileId, Body>,
    outbox: Vec<Record>,
    awaited: BTreeMap<u64, Awaited>,
    calls: u64,
}

/// An answer that a super-peer owes.
enum Awaited {
    /// To these records, by their hashes.
    Publication(Vec<RecordHash>),
    Joining,
}

/// What a node does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Add a file.
    Add,
    /// Change one.
    Update,
    /// Delete one.
    Delete,
    /// Nothing new; tell what was not acknowledged yet.
    Tell,
}

impl Member {
    /// A node that runs.
    pub fn new(who: Who) -> Self {
        let credential = who.identity().credential.clone();
        Self {
            who,
            clock: Clock::default(),
            runs: true,
            credential,
            invite: None,
            files: BTreeMap::new(),
            outbox: Vec::new(),
            awaited: BTreeMap::new(),
            calls: 0,
        }
    }

    /// Whether its process runs.
    pub const fn runs(&self) -> bool {
        self.runs
    }

    /// Its credential, if it is a member.
    pub const fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Whether everything that it said was acknowledged.
    pub fn is_content(&self) -> bool {
        self.outbox.is_empty()
    }

    /// The process dies.
    pub fn crash(&mut self) {
        self.runs = false;
        self.awaited.clear();
    }

    /// And starts again.
    pub fn start(&mut self) {
        self.runs = true;
    }

    /// Somebody gives it an invite.
    pub fn hear_of_invite(&mut self, issuer: Who, secret: [u8; 16]) {
        if self.credential.is_none() {
            self.invite = Some((issuer, secret));
        }
    }

    /// Signs something new, if it has a file to do it to. The record waits until it is told.
    pub fn sign(&mut self, wish: Wish, rng: &mut SmallRng) -> Option<Record> {
        if self.credential.is_none() || self.outbox.len() >= OUTBOX_MAX {
            return None;
        }
        let body = match wish {
            Wish::Tell => return None,
            Wish::Add => self.new_file(rng),
            Wish::Update | Wish::Delete => {
                let file = *self.files.keys().choose(rng)?;
                let mut body = self.files.remove(&file)?;
                body.revision += 1;
                if wish == Wish::Delete {
                    body.state = State::Deleted;
                } else if let State::Present(entry) = &mut body.state {
                    entry.size_bytes += 1;
                    entry.content = ContentId::from_bytes(rng.random());
                }
                body
            }
        };
        self.sign_body(body)
    }

    /// Gives a file away. Now and then it does so and does not take note of it, so that two owners exist for a while.
    pub fn give(&mut self, to: &mut Self, rng: &mut SmallRng) -> Option<Record> {
        if to.credential.is_none() || to.outbox.len() >= OUTBOX_MAX {
            return None;
        }
        let file = *self.files.keys().choose(rng)?;
        let forgetful = rng.random_bool(0.3);
        let mut body = if forgetful { self.files.get(&file)?.clone() } else { self.files.remove(&file)? };
        if body.links.len() >= 3 {
            return None;
        }
        let link = Link {
            file,
            place: u32::try_from(body.links.len()).ok()?,
            from: self.who.peer(),
            to: to.who.peer(),
            previous: body.links.last().map(|link| RecordHash::of(link.body())),
            by_root: false,
            candidates: Vec::new(),
        };
        body.links.push(Signed::new(&link, &cast().trust.network, &self.who.identity().key));
        body.revision += 1;
        to.sign_body(body)
    }

    fn new_file(&self, rng: &mut SmallRng) -> Body {
        let origin = Origin { owner: self.who.peer(), nonce: ByteArray::new(rng.random()) };
        let name = format!("file-{}", rng.random_range(0..10));
        let entry = Entry {
            name: FileName::new(&name).expect("a plain name"),
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

    fn sign_body(&mut self, body: Body) -> Option<Record> {
        // None for somebody who signs what is not its own any more: that is the adversary's business.
        let record = Record::sign(&body, &cast().trust, &self.who.identity().key).ok()?;
        if record.entry().is_some() {
            self.files.insert(body.file, body);
        }
        self.outbox.push(record.clone());
        Some(record)
    }

    /// Tells a super-peer its latest records, as many as these, that nobody has acknowledged.
    pub fn tell(&mut self, superpeer: Who, at_most: usize) -> Option<Question> {
        self.credential.as_ref()?;
        let latest = &self.outbox[self.outbox.len().saturating_sub(at_most)..];
        if latest.is_empty() {
            return None;
        }
        let hashes = latest.iter().map(Record::hash).collect();
        let records = latest.iter().map(|record| record.signed().clone()).collect();
        Some(self.question(
            superpeer,
            Awaited::Publication(hashes),
            Ask::Index(index::Request::Publish(records)),
        ))
    }

    /// Uses its invite.
    pub fn join(&mut self, name: MemberName) -> Option<Question> {
        if self.credential.is_some() {
            return None;
        }
        let (issuer, secret) = self.invite?;
        let ask = Ask::Admission(admission::Request::Redeem {
            secret: ByteArray::new(secret),
            name,
            sealing_key: self.who.identity().sealing_key.clone(),
        });
        Some(self.question(issuer, Awaited::Joining, ask))
    }

    fn question(&mut self, to: Who, awaited: Awaited, ask: Ask) -> Question {
        self.calls += 1;
        self.awaited.insert(self.calls, awaited);
        Question { to, call: self.calls, ask }
    }

    /// Takes an answer.
    pub fn answered(&mut self, call: u64, answer: Answer) {
        let Some(awaited) = self.awaited.remove(&call) else { return };
        match (awaited, answer) {
            (Awaited::Publication(hashes), Answer::Index(index::Response::Published(outcomes))) => {
                let done: Vec<RecordHash> = hashes.into_iter().zip(&outcomes).map(|(hash, _)| hash).collect();
                self.outbox.retain(|record| !done.contains(&record.hash()));
            }
            (Awaited::Joining, Answer::Admission(admission::Response::Joined { credential, .. })) => {
                self.credential = Some(credential);
                self.invite = None;
            }
            (Awaited::Joining, Answer::Admission(admission::Response::Refused(refusal))) => {
                use admission::Refusal;
                if matches!(refusal, Refusal::InviteUsed | Refusal::UnknownInvite | Refusal::InviteExpired) {
                    self.invite = None;
                }
            }
            _ => {}
        }
    }

    /// Its peer id.
    pub fn peer(&self) -> PeerId {
        self.who.peer()
    }
}
