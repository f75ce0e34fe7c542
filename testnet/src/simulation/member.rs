//! A node in the simulation: it publishes, joins, renews, leaves, and follows super-peers into its own database with the
//! follower that runs in production.
//!
//! What it has signed and nobody has acknowledged yet outlasts a crash, as it does in a node's database; which questions
//! are under way does not.

mod following;
mod restricting;

use std::{collections::BTreeMap, path::PathBuf, sync::LazyLock};

use quarta_node::{database::Database, following::Follower};
use quarta_protocols::{
    credentials::Credential,
    endings::Departure,
    ids::{ContentId, FileId, RecordHash},
    messages::{admission, changes::Cursor, index},
    names::MemberName,
    records::{Access, Body, Link, Record, State},
    signing::Signed,
};
use rand::{RngExt, rngs::SmallRng, seq::IteratorRandom};
use serde_bytes::ByteArray;

pub use self::restricting::List;
use self::restricting::Lists;
pub(in crate::simulation) use self::restricting::wrap;
use super::{
    cast::{Who, cast, new_file},
    clock::{Clock, Moment},
    network::{Answer, Ask},
    sabotage::Sabotage,
    superpeer::Question,
};

/// Records that wait for an acknowledgement; a node with more adds nothing new before.
const OUTBOX_MAX: usize = 8;
/// Files given away so often that their records grow are given no more.
const LINKS_MAX: usize = 3;
/// Files in a listing: more than a schedule makes.
const LISTED_MAX: u32 = 256;

/// A node's machine.
pub struct Member {
    who: Who,
    folder: PathBuf,
    /// Its clock.
    pub clock: Clock,
    running: Option<Running>,
    sabotage: Option<Sabotage>,
    credential: Option<Credential>,
    standing: Standing,
    /// An invite that it was given: the issuer and the secret.
    invite: Option<(Who, [u8; 16])>,
    /// Its files as of its latest records.
    files: BTreeMap<FileId, Body>,
    /// Its latest records.
    records: BTreeMap<FileId, Record>,
    outbox: Vec<Record>,
    /// From whom it hides files.
    lists: Lists,
    /// Whether a gate has closed on it since it got its credential.
    turned_away: bool,
    /// For [`Sabotage::OneCursorForAll`].
    cursor: Option<Cursor>,
    calls: u64,
}

/// What is lost with the process.
struct Running {
    database: Database,
    follower: Follower,
    awaited: BTreeMap<u64, Awaited>,
}

/// What a node thinks of its own membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Staying,
    Leaving,
    Gone,
}

/// An answer that a super-peer owes.
enum Awaited {
    /// To these records, by their hashes.
    Publication(Vec<RecordHash>),
    /// To a question after all files: the watcher hears it.
    Listing,
    Joining,
    Renewing,
    Leaving,
    /// To the follower's question.
    Page {
        question: u64,
        from: Who,
        reading: u64,
    },
}

/// What a node does to its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Add one.
    Add,
    /// Change one.
    Update,
    /// Delete one.
    Delete,
    /// Hide one from somebody, show it to somebody alone, or show it to all again.
    Restrict,
    /// Add one that is hidden from the first revision on.
    AddHidden,
}

/// What came of an answer.
#[derive(Debug, Default)]
pub struct Learned {
    /// What it asks next.
    pub questions: Vec<Question>,
    /// Whether its database may have changed.
    pub read: bool,
}

impl Member {
    /// A node's machine with its database in this folder, not running yet.
    pub fn new(who: Who, folder: PathBuf, sabotage: Option<Sabotage>) -> Self {
        Self {
            who,
            folder,
            clock: Clock::default(),
            running: None,
            sabotage,
            credential: who.identity().credential.clone(),
            standing: Standing::Staying,
            invite: None,
            files: BTreeMap::new(),
            records: BTreeMap::new(),
            outbox: Vec::new(),
            lists: Lists::default(),
            turned_away: false,
            cursor: None,
            calls: 0,
        }
    }

    /// Whether its process runs.
    pub const fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Its database's file.
    pub fn database_file(&self) -> PathBuf {
        self.folder.join(quarta_node::database::FILE_NAME)
    }

    /// Its credential, if it is a member.
    pub const fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Whether it is a member as far as it knows.
    pub fn is_member(&self) -> bool {
        self.credential.is_some() && self.standing == Standing::Staying
    }

    /// Whether everything that it said was acknowledged.
    pub fn is_content(&self) -> bool {
        self.outbox.is_empty() && self.standing != Standing::Leaving
    }

    /// The process starts.
    pub fn start(&mut self, now: Moment) -> Vec<Question> {
        let path = self.database_file();
        if !path.exists() {
            std::fs::write(&path, first_database()).expect("a file in memory can be written");
        }
        let database = Database::open(&path).expect("a database that was committed opens");
        let follower = Follower::new(database.cursors().expect("an open database can be read"));
        self.running = Some(Running { database, follower, awaited: BTreeMap::new() });
        self.look_around(now)
    }

    /// The process dies.
    pub fn crash(&mut self) {
        self.running = None;
    }

    /// Somebody gives it an invite.
    pub fn hear_of_invite(&mut self, issuer: Who, secret: [u8; 16]) {
        if self.credential.is_none() {
            self.invite = Some((issuer, secret));
        }
    }

    /// Signs something new, if it has a file to do it to. The record waits until it is told.
    pub fn sign(&mut self, wish: Wish, rng: &mut SmallRng) -> Option<Record> {
        if !self.is_member() || self.outbox.len() >= OUTBOX_MAX {
            return None;
        }
        let body = match wish {
            Wish::Add => self.new_file(rng),
            Wish::AddHidden => {
                let mut body = self.new_file(rng);
                if let State::Present(entry) = &mut body.state {
                    entry.access = self.another_access(rng);
                }
                body
            }
            Wish::Update | Wish::Delete | Wish::Restrict => {
                let file = *self.files.keys().choose(rng)?;
                let access = (wish == Wish::Restrict).then(|| self.another_access(rng));
                let mut body = self.files.remove(&file)?;
                body.revision += 1;
                if wish == Wish::Delete {
                    body.state = State::Deleted;
                } else if let State::Present(entry) = &mut body.state {
                    entry.size_bytes += 1;
                    entry.content = ContentId::from_bytes(rng.random());
                    if let Some(access) = access {
                        entry.access = access;
                    }
                }
                body
            }
        };
        self.sign_body(body)
    }

    /// Gives a file away. Now and then it forgets that it has, so that two owners speak for the file.
    pub fn give(&mut self, to: &mut Self, rng: &mut SmallRng) -> Option<Record> {
        if !self.is_member() || !to.is_member() || to.outbox.len() >= OUTBOX_MAX {
            return None;
        }
        let file = *self.files.iter().filter(|(_, body)| body.links.len() < LINKS_MAX).choose(rng)?.0;
        let forgets = rng.random_bool(0.3);
        let mut body = if forgets { self.files.get(&file)?.clone() } else { self.files.remove(&file)? };
        let link = Link {
            file,
            place: u32::try_from(body.links.len()).ok()?,
            from: self.who.peer(),
            to: to.who.peer(),
            previous: body.links.last().map(|link| RecordHash::of(link.body())),
            by_root: false,
            candidates: Vec::new(),
        };
        if let State::Present(entry) = &mut body.state {
            entry.access = self.access_for_next_owner(&entry.access, to, rng);
        }
        body.links.push(Signed::new(&link, &cast().trust.network, &self.who.identity().key));
        body.revision += 1;
        to.sign_body(body)
    }

    fn new_file(&self, rng: &mut SmallRng) -> Body {
        let nonce = rng.random();
        let name = format!("file-{}", rng.random_range(0..10));
        new_file(self.who, nonce, &name, ContentId::from_bytes(rng.random()))
    }

    fn sign_body(&mut self, body: Body) -> Option<Record> {
        // None where a file is not its own any more: such records are the adversary's business.
        let record = Record::sign(&body, &cast().trust, &self.who.identity().key).ok()?;
        if record.entry().is_some() {
            self.files.insert(body.file, body);
        }
        self.records.insert(record.file(), record.clone());
        self.outbox.push(record.clone());
        Some(record)
    }

    /// Tells a super-peer its latest records, as many as these, that nobody has acknowledged; after its lists, where a
    /// record needs one.
    pub fn tell(&mut self, superpeer: Who, at_most: usize) -> Vec<Question> {
        let restricts = |record: &Record| {
            record.entry().is_some_and(|entry| matches!(entry.access, Access::Restricted { .. }))
        };
        let from = self.outbox.len().saturating_sub(at_most);
        let lists = if self.outbox[from..].iter().any(restricts) { self.tell_lists(superpeer) } else { None };
        lists.into_iter().chain(self.tell_records(superpeer, from)).collect()
    }

    fn tell_records(&mut self, superpeer: Who, from: usize) -> Option<Question> {
        self.credential.as_ref()?;
        let latest = &self.outbox[from..];
        if latest.is_empty() {
            return None;
        }
        let hashes = latest.iter().map(Record::hash).collect();
        let records = latest.iter().map(|record| record.signed().clone()).collect();
        let ask = Ask::Index(index::Request::Publish(records));
        self.question(superpeer, Awaited::Publication(hashes), ask)
    }

    /// Asks which files there are.
    pub fn list(&mut self, superpeer: Who) -> Option<Question> {
        self.credential.as_ref()?;
        let ask =
            index::Request::Search { query: String::new(), owner: None, after: None, limit: LISTED_MAX };
        self.question(superpeer, Awaited::Listing, Ask::Index(ask))
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
        self.question(issuer, Awaited::Joining, ask)
    }

    /// Whether its credential was not good enough for a super-peer.
    pub const fn is_turned_away(&self) -> bool {
        self.turned_away
    }

    /// Asks for a new credential.
    pub fn renew(&mut self, superpeer: Who) -> Option<Question> {
        let credential = self.credential.clone().filter(|_| self.standing == Standing::Staying)?;
        let sealing_key = self.who.identity().sealing_key.clone();
        let ask = Ask::Admission(admission::Request::Renew { credential, sealing_key });
        self.question(superpeer, Awaited::Renewing, ask)
    }

    /// Decides to leave for good; from then on it does nothing but say so. Gives what it signs.
    pub fn decide_to_leave(&mut self) -> Option<Signed<Departure>> {
        if !self.is_member() {
            return None;
        }
        self.standing = Standing::Leaving;
        self.outbox.clear();
        Some(self.departure())
    }

    /// Says that it leaves, where it has decided to and nobody has confirmed it.
    pub fn leave(&mut self, superpeer: Who) -> Option<Question> {
        if self.standing != Standing::Leaving {
            return None;
        }
        let ask = Ask::Admission(admission::Request::Leave(self.departure()));
        self.question(superpeer, Awaited::Leaving, ask)
    }

    fn departure(&self) -> Signed<Departure> {
        let departure = Departure { member: self.who.peer() };
        Signed::new(&departure, &cast().trust.network, &self.who.identity().key)
    }

    fn question(&mut self, to: Who, awaited: Awaited, ask: Ask) -> Option<Question> {
        let running = self.running.as_mut()?;
        self.calls += 1;
        running.awaited.insert(self.calls, awaited);
        Some(Question { to, call: self.calls, ask })
    }

    /// Takes an answer.
    pub fn answered(&mut self, now: Moment, call: u64, answer: Answer) -> Learned {
        let Some(awaited) = self.running.as_mut().and_then(|running| running.awaited.remove(&call)) else {
            return Learned::default();
        };
        self.turned_away |= matches!(answer, Answer::Closed);
        match (awaited, answer) {
            (Awaited::Publication(hashes), Answer::Index(index::Response::Published(outcomes))) => {
                let refused = |outcome: &index::Publication| {
                    matches!(outcome, index::Publication::Invalid(_) | index::Publication::TooMany)
                };
                let asked = hashes.into_iter().zip(&outcomes);
                let done: Vec<RecordHash> =
                    asked.filter(|(_, outcome)| !refused(outcome)).map(|(hash, _)| hash).collect();
                self.outbox.retain(|record| !done.contains(&record.hash()));
            }
            (Awaited::Joining, Answer::Admission(admission::Response::Joined { credential, .. })) => {
                self.credential.get_or_insert(credential);
                self.invite = None;
                return Learned { questions: self.look_around(now), read: false };
            }
            (Awaited::Joining, Answer::Admission(admission::Response::Refused(refusal))) => {
                // Who hears that it has been used tries again all the same: it may be forgotten.
                use admission::Refusal::{InviteExpired, UnknownInvite};
                if matches!(refusal, UnknownInvite | InviteExpired) {
                    self.invite = None;
                }
            }
            (Awaited::Renewing, Answer::Admission(admission::Response::Renewed(credential))) => {
                self.credential = Some(credential);
                self.turned_away = false;
            }
            (Awaited::Leaving, Answer::Admission(admission::Response::Farewell)) => {
                self.standing = Standing::Gone;
            }
            (Awaited::Page { question, from, reading }, Answer::Changes(response)) => {
                return self.page_arrived(now, (question, from, reading), response);
            }
            (Awaited::Page { question, .. }, _) => {
                return Learned { questions: self.page_failed(now, question), read: false };
            }
            _ => {}
        }
        Learned::default()
    }
}

/// An empty database, as its file's bytes.
fn first_database() -> &'static [u8] {
    static FIRST: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let dir = super::world::folder();
        let path = dir.path().join("node.db");
        drop(Database::open(&path).expect("a new database opens"));
        std::fs::read(path).expect("a file in memory can be read")
    });
    &FIRST
}
