//! A super-peer in the simulation: the catalog and the admission that run in production, over a database file of its own.
//!
//! It decides nothing by itself. What production's shell does around the cores, it does in the same order: who has not
//! shown a valid credential is turned away at the gate, whoever appears is met, what is new is pushed to all others, and
//! catalogs are compared. The file lies in memory, so that a commit costs no disk; a crash leaves what was committed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use quarta_protocols::{
    credentials::{CLOCK_SKEW, Credential, Membership},
    limits::SYNC_PAGE_ENTRIES,
    messages::{
        admission, index,
        sync::{self, Entry, Place},
    },
};
use quarta_superpeer::{
    admission::{self as door, Authority, Redemption, Terms},
    catalog::{Catalog, Reader},
};

use super::{
    cast::{Who, cast},
    clock::{Clock, Moment},
    network::{Answer, Ask},
    sabotage::Sabotage,
};

/// The database's file in a super-peer's folder.
const CATALOG_FILE: &str = "catalog.db";
/// SQLite's files beside it.
const FILES: [&str; 3] = [CATALOG_FILE, "catalog.db-wal", "catalog.db-shm"];

/// A super-peer's machine.
pub struct Superpeer {
    who: Who,
    folder: PathBuf,
    /// Its clock.
    pub clock: Clock,
    running: Option<Running>,
    sabotage: Option<Sabotage>,
    calls: u64,
    /// What credentials say that were verified; verifying once more after a crash would say the same.
    verified: HashMap<(Who, Credential), Option<Membership>>,
}

/// What is lost with the process.
struct Running {
    catalog: Catalog,
    reader: Reader,
    authority: Authority,
    /// Whom it has met with which credential.
    met: HashSet<(Who, Credential)>,
    awaited: BTreeMap<u64, Awaited>,
    /// What the built-in bug has acknowledged and not stored.
    unstored: Vec<(Membership, Vec<quarta_protocols::records::SignedRecord>)>,
}

/// An answer that another super-peer owes.
#[derive(Debug, Clone, Copy)]
enum Awaited {
    Digest(Who),
    Page(Who),
}

/// What a super-peer sends by itself.
#[derive(Debug)]
pub struct Question {
    /// To whom.
    pub to: Who,
    /// Its number.
    pub call: u64,
    /// The question.
    pub ask: Ask,
}

/// What came of a question that a super-peer was asked.
#[derive(Debug)]
pub struct Handled {
    /// Its answer.
    pub answer: Answer,
    /// What it has to tell others because of it.
    pub questions: Vec<Question>,
}

impl Superpeer {
    /// A machine with a catalog in this folder, not running yet.
    pub fn new(who: Who, folder: PathBuf, sabotage: Option<Sabotage>) -> Self {
        Self {
            who,
            folder,
            clock: Clock::default(),
            running: None,
            sabotage,
            calls: 0,
            verified: HashMap::new(),
        }
    }

    /// Whether its process runs.
    pub const fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// The database's file.
    pub fn catalog_file(&self) -> PathBuf {
        self.folder.join(CATALOG_FILE)
    }

    /// Starts the process.
    pub fn start(&mut self, now: Moment) {
        let identity = self.who.identity();
        let credential = identity.credential.clone().expect("super-peers have credentials");
        let mut catalog = Catalog::open(&self.catalog_file(), cast().trust.clone(), identity.key.clone())
            .expect("a catalog that was committed opens");
        catalog
            .meet(identity.enrolment(credential.clone()), self.clock.wall_ms(now))
            .expect("a super-peer knows itself");
        let reader = catalog.reader().expect("an open catalog can be read");
        // The first super-peer's machine holds the root key.
        let root = (self.who == Who::superpeer(0)).then(|| cast().root.clone());
        let authority = Authority::new(identity.key.clone(), credential, root);
        self.running = Some(Running {
            catalog,
            reader,
            authority,
            met: HashSet::new(),
            awaited: BTreeMap::new(),
            unstored: Vec::new(),
        });
    }

    /// The process dies.
    pub fn crash(&mut self, now: Moment) {
        self.running = None;
        if self.sabotage == Some(Sabotage::ForgetsInviteUses) {
            self.forget_invite_uses(now);
        }
    }

    /// Copies the database to another folder. The process must not run.
    pub fn copy_disk_to(&self, folder: &Path) {
        copy_files(&self.folder, folder);
    }

    /// Puts a copy in the place of the database. The process must not run.
    pub fn copy_disk_from(&self, folder: &Path) {
        copy_files(folder, &self.folder);
    }

    /// Issues an invite, as its operator wishes.
    pub fn invite(&mut self, now: Moment, secret: [u8; 16], uses: u32) -> bool {
        let wall = self.clock.wall(now);
        let Some(Running { catalog, authority, .. }) = &mut self.running else { return false };
        let terms = Terms {
            role: quarta_protocols::credentials::Role::Node,
            uses,
            expires: wall.plus(std::time::Duration::from_hours(30 * 24)),
            replaces: None,
        };
        authority.issue(catalog, terms, secret, Vec::new(), wall).is_ok()
    }

    /// Who the gate lets in: the membership of a credential that is valid by this machine's clock.
    fn at_the_gate(&mut self, now: Moment, from: Who, credential: &Credential) -> Option<(Membership, bool)> {
        let wall = self.clock.wall(now);
        let shown = (from, credential.clone());
        let verified = self
            .verified
            .entry(shown.clone())
            .or_insert_with(|| credential.verify_ignoring_time(&cast().trust, &from.peer()).ok());
        let membership = verified.clone()?;
        let valid = membership.issued <= wall.plus(CLOCK_SKEW) && wall < membership.expires.plus(CLOCK_SKEW);
        let first = valid && self.running.as_mut()?.met.insert(shown);
        valid.then_some((membership, first))
    }

    /// Answers a question. `fresh` are random bits.
    pub fn handle(
        &mut self,
        now: Moment,
        from: Who,
        credential: Option<&Credential>,
        ask: Ask,
        fresh: [u8; 16],
    ) -> Handled {
        let mut told = Vec::new();
        let answer = match ask {
            Ask::Admission(request) => {
                Answer::Admission(self.admission(now, from, request, fresh, &mut told))
            }
            ask => match credential.and_then(|credential| {
                let (membership, first) = self.at_the_gate(now, from, credential)?;
                if first {
                    self.meet(now, from, credential.clone(), &mut told);
                }
                Some(membership)
            }) {
                None => Answer::Closed,
                Some(membership) => self.ask(now, &membership, ask, &mut told),
            },
        };
        let questions = self.push(&told);
        Handled { answer, questions }
    }

    fn meet(&mut self, now: Moment, from: Who, credential: Credential, told: &mut Vec<Entry>) {
        let wall_ms = self.clock.wall_ms(now);
        let Some(running) = &mut self.running else { return };
        // One that is refused is no concern of the connection: the gate has its own opinion.
        if let Ok(entries) = running.catalog.meet(from.identity().enrolment(credential), wall_ms) {
            told.extend(entries);
        }
    }

    fn admission(
        &mut self,
        now: Moment,
        from: Who,
        request: admission::Request,
        fresh: [u8; 16],
        told: &mut Vec<Entry>,
    ) -> admission::Response {
        let wall = self.clock.wall(now);
        let Some(Running { catalog, authority, .. }) = &mut self.running else {
            return admission::Response::Refused(admission::Refusal::Unavailable);
        };
        match request {
            admission::Request::Redeem { secret, name, sealing_key } => {
                let redemption = Redemption { peer: from.peer(), secret: *secret, name, sealing_key };
                match authority.redeem(catalog, redemption, fresh, wall) {
                    Ok(admitted) => {
                        told.extend(admitted.entries);
                        admission::Response::Joined {
                            credential: admitted.credential,
                            superpeers: Vec::new(),
                        }
                    }
                    Err(error) => admission::Response::Refused(error.refusal()),
                }
            }
            _ => admission::Response::Refused(admission::Refusal::Unavailable),
        }
    }

    fn ask(&mut self, now: Moment, from: &Membership, ask: Ask, told: &mut Vec<Entry>) -> Answer {
        let wall_ms = self.clock.wall_ms(now);
        let sabotage = self.sabotage;
        let Some(running) = &mut self.running else { return Answer::Closed };
        match ask {
            Ask::Index(index::Request::Publish(records)) => {
                if sabotage == Some(Sabotage::AcknowledgesBeforeStoring) {
                    let outcomes = records.iter().map(|_| index::Publication::Stored).collect();
                    running.unstored.push((from.clone(), records));
                    return Answer::Index(index::Response::Published(outcomes));
                }
                match running.catalog.publish(from, records, wall_ms) {
                    Ok(published) => {
                        told.extend(published.iter().flat_map(|item| item.entries.clone()));
                        let outcomes = published.into_iter().map(|item| item.outcome).collect();
                        Answer::Index(index::Response::Published(outcomes))
                    }
                    Err(_) => Answer::Index(index::Response::Refused(index::Refusal::Unavailable)),
                }
            }
            Ask::Sync(request) => Answer::Sync(running.sync(from, request, wall_ms, sabotage)),
            _ => Answer::Closed,
        }
    }

    /// Tells all other super-peers of new entries.
    fn push(&mut self, entries: &[Entry]) -> Vec<Question> {
        if entries.is_empty() {
            return Vec::new();
        }
        let mut questions = Vec::new();
        for to in Who::superpeers().filter(|other| *other != self.who) {
            for page in entries.chunks(SYNC_PAGE_ENTRIES) {
                self.calls += 1;
                let ask = Ask::Sync(sync::Request::Push(page.to_vec()));
                questions.push(Question { to, call: self.calls, ask });
            }
        }
        questions
    }

    /// Some time has passed: what was put off is done, and a catalog compared.
    pub fn tick(&mut self, now: Moment, other: Who) -> Vec<Question> {
        let wall_ms = self.clock.wall_ms(now);
        let mut told = Vec::new();
        let Some(running) = &mut self.running else { return Vec::new() };
        for (publisher, records) in std::mem::take(&mut running.unstored) {
            let published = running.catalog.publish(&publisher, records, wall_ms).unwrap_or_default();
            told.extend(published.into_iter().flat_map(|item| item.entries));
        }
        let mut questions = self.push(&told);
        questions
            .extend(self.question(Awaited::Digest(other), sync::Request::Digest { addresses: Vec::new() }));
        questions
    }

    fn question(&mut self, awaited: Awaited, request: sync::Request) -> Option<Question> {
        self.calls += 1;
        let (Awaited::Digest(to) | Awaited::Page(to)) = awaited;
        self.running.as_mut()?.awaited.insert(self.calls, awaited);
        Some(Question { to, call: self.calls, ask: Ask::Sync(request) })
    }

    /// Takes an answer of another super-peer.
    pub fn answered(&mut self, now: Moment, from: Who, call: u64, answer: Answer) -> Vec<Question> {
        let wall_ms = self.clock.wall_ms(now);
        let sabotage = self.sabotage;
        let Some(running) = &mut self.running else { return Vec::new() };
        let Some(awaited) = running.awaited.remove(&call) else { return Vec::new() };
        let next = match (awaited, answer) {
            (Awaited::Digest(_), Answer::Sync(sync::Response::Digest(theirs))) => {
                (theirs != running.catalog.digest()).then_some(None)
            }
            (Awaited::Page(_), Answer::Sync(sync::Response::Page { mut entries, next })) => {
                if sabotage == Some(Sabotage::SkipsABranch) {
                    entries.retain(|entry| entry.id[0] >> 4 != 0x7);
                }
                let from = from.identity();
                let membership = from
                    .credential
                    .as_ref()
                    .and_then(|credential| credential.verify_ignoring_time(&cast().trust, &from.peer).ok());
                if let Some(membership) = membership {
                    let _ = running.catalog.take(&membership, entries, wall_ms);
                }
                next.map(Some)
            }
            _ => None,
        };
        let Some(after) = next else { return Vec::new() };
        self.question(Awaited::Page(from), sync::Request::Page { after }).into_iter().collect()
    }

    fn forget_invite_uses(&mut self, now: Moment) {
        let identity = self.who.identity();
        let trust = cast().trust.clone();
        let Ok(mut catalog) = Catalog::open(&self.catalog_file(), trust, identity.key.clone()) else {
            return;
        };
        let _ = door::list(&catalog);
        let _ = (&mut catalog, now);
    }
}

impl Running {
    fn sync(
        &mut self,
        from: &Membership,
        request: sync::Request,
        wall_ms: u64,
        sabotage: Option<Sabotage>,
    ) -> sync::Response {
        match request {
            sync::Request::Push(entries) => {
                let mut from = from.clone();
                if sabotage == Some(Sabotage::TrustsTheSendersClaim) {
                    from.role = quarta_protocols::credentials::Role::Superpeer;
                }
                match self.catalog.take(&from, entries, wall_ms) {
                    Ok(taken) => sync::Response::Taken {
                        stored: taken.stored,
                        known: taken.known,
                        invalid: taken.invalid,
                    },
                    Err(_) => sync::Response::Unavailable,
                }
            }
            sync::Request::Digest { .. } => sync::Response::Digest(self.catalog.digest()),
            sync::Request::Page { after } => self.page(after),
            _ => sync::Response::Unavailable,
        }
    }

    fn page(&self, after: Option<Place>) -> sync::Response {
        match self.reader.page(after.as_ref()) {
            Ok((entries, next)) => sync::Response::Page { entries, next },
            Err(_) => sync::Response::Unavailable,
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for file in FILES {
        let (from, to) = (from.join(file), to.join(file));
        if from.exists() {
            std::fs::copy(from, to).expect("files in memory can be copied");
        } else {
            let _ = std::fs::remove_file(to);
        }
    }
}
