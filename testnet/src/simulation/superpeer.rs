//! A super-peer in the simulation: the catalog, admission, reconciliation and feed that run in production, over a
//! database file of its own.
//!
//! It decides nothing by itself. What production's shells do around these parts, it does in the same order: who shows no
//! valid credential, or is known to be no member any more, is turned away at the gate; whoever appears is met; what is
//! new is pushed to all others; catalogs are compared. The file lies in memory, so that a commit costs no disk; a crash
//! leaves what was committed.

mod answering;
mod reconciling;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use libp2p::PeerId;
use quarta_protocols::{
    credentials::{CLOCK_SKEW, Credential, Membership, Role},
    endings::RevocationNotice,
    limits::SYNC_PAGE_ENTRIES,
    messages::sync::{self, Entry},
    records::SignedRecord,
};
use quarta_superpeer::{
    admission::{Authority, InviteId, Terms, withdraw},
    catalog::{Applied, Catalog, Reader},
    feed::{Beginning, Head, Source, Waiting},
    reconciliation::{Agreement, Session, Turns, session::Taken},
};

use super::{
    cast::{Who, cast},
    clock::{Clock, Moment},
    network::{Answer, Ask},
    sabotage::Sabotage,
};

/// The database's file in a super-peer's folder.
const CATALOG_FILE: &str = "catalog.db";
/// The file and its log. The third file that SQLite keeps beside them is made anew from these.
const FILES: [&str; 2] = [CATALOG_FILE, "catalog.db-wal"];
const INDEX_FILE: &str = "catalog.db-shm";
/// How long an invite can be redeemed.
const INVITE_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// A super-peer's machine.
pub struct Superpeer {
    who: Who,
    folder: PathBuf,
    /// Its clock.
    pub clock: Clock,
    running: Option<Running>,
    /// A connection that only reads outlasts the process here: it keeps nothing that a crash could take.
    reader: Option<Reader>,
    sabotage: Option<Sabotage>,
    calls: u64,
    /// What credentials say that were verified; verifying once more after a crash would say the same.
    verified: HashMap<(Who, Credential), Option<Membership>>,
    /// For [`Sabotage::ForgetsInviteUses`].
    invites: Vec<([u8; 16], u32)>,
}

/// What is lost with the process.
struct Running {
    catalog: Catalog,
    reader: Reader,
    authority: Authority,
    /// Whom it has met with which credential.
    met: HashSet<(Who, Credential)>,
    /// Whom the gate turns away.
    ended: HashSet<PeerId>,
    /// Whom it turns away that shows a node's credential.
    ended_as_nodes: HashSet<PeerId>,
    source: Source,
    waiting: Waiting,
    /// What became due while a question was taken.
    due: Vec<quarta_superpeer::feed::Effect>,
    /// Questions of followers that are not answered yet.
    open: BTreeMap<u64, (Who, u64, Beginning)>,
    questions: u64,
    turns: Turns,
    agreement: Agreement,
    session: Option<Conversation>,
    /// For [`Sabotage::AcknowledgesBeforeStoring`].
    unstored: Vec<(Membership, Vec<SignedRecord>)>,
}

/// A reconciliation under way.
struct Conversation {
    with: Who,
    session: Session,
    /// What was merged while the question is under way, where something was.
    taken: Option<Taken>,
    /// The question under way, and when it was asked.
    call: u64,
    asked: Moment,
}

/// A question that a machine asks.
#[derive(Debug)]
pub struct Question {
    /// To whom.
    pub to: Who,
    /// Its number.
    pub call: u64,
    /// The question.
    pub ask: Ask,
}

/// An answer that a super-peer gives.
#[derive(Debug)]
pub struct Reply {
    /// To whom.
    pub to: Who,
    /// To which question.
    pub call: u64,
    /// The answer.
    pub answer: Answer,
}

/// What a super-peer sends.
#[derive(Debug, Default)]
pub struct Sent {
    /// Its answers, also to earlier questions.
    pub replies: Vec<Reply>,
    /// What it asks or tells others.
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
            reader: None,
            sabotage,
            calls: 0,
            verified: HashMap::new(),
            invites: Vec::new(),
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

    /// Starts the process; `run` is random.
    pub fn start(&mut self, now: Moment, run: u64) {
        let identity = self.who.identity();
        let credential = identity.credential.clone().expect("super-peers have credentials");
        let key = identity.key.clone();
        let mut catalog = Catalog::open(&self.catalog_file(), cast().trust.clone(), key.clone())
            .expect("a catalog that was committed opens");
        catalog.begin_run(run).expect("a run can be noted");
        let own = identity.enrolment(credential.clone());
        catalog.meet(own, self.clock.wall_ms(now)).expect("a super-peer knows itself");
        let reader =
            self.reader.take().unwrap_or_else(|| catalog.reader().expect("an open catalog can be read"));
        let ended = reader.ended().expect("an open catalog can be read");
        let source = Source { store: catalog.store(), run };
        let before = catalog.last_comparison().expect("an open catalog can be read");
        let mut waiting = Waiting::default();
        let head = Head { sequence: catalog.sequence(), condition: 0 };
        waiting.handle(now.instant(), quarta_superpeer::feed::Input::Moved(head));
        let mut running = Running {
            catalog,
            reader,
            authority: Authority::new(key, credential, None),
            met: HashSet::new(),
            ended: HashSet::new(),
            ended_as_nodes: HashSet::new(),
            source,
            waiting,
            due: Vec::new(),
            open: BTreeMap::new(),
            questions: 0,
            turns: Turns::default(),
            agreement: Agreement::started(before),
            session: None,
            unstored: Vec::new(),
        };
        running.apply(&ended);
        self.running = Some(running);
    }

    /// The process dies.
    pub fn crash(&mut self, now: Moment) {
        let Some(mut running) = self.running.take() else { return };
        if self.sabotage == Some(Sabotage::ForgetsInviteUses) {
            let wall = self.clock.wall(now);
            for (secret, uses) in &self.invites {
                if withdraw(&mut running.catalog, &InviteId::of_secret(secret)).unwrap_or(false) {
                    let _ = running.authority.issue(
                        &mut running.catalog,
                        terms(wall, *uses),
                        *secret,
                        Vec::new(),
                        wall,
                    );
                }
            }
        }
        self.reader = Some(running.reader);
    }

    /// Copies the database to another folder. Nothing may be written meanwhile.
    pub fn copy_disk_to(&self, folder: &Path) {
        copy_files(&self.folder, folder);
    }

    /// Puts a copy in the place of the database. The process must not run.
    pub fn copy_disk_from(&mut self, folder: &Path) {
        self.reader = None;
        copy_files(folder, &self.folder);
        let _ = std::fs::remove_file(self.folder.join(INDEX_FILE));
    }

    /// Issues an invite, as its operator wishes.
    pub fn invite(&mut self, now: Moment, secret: [u8; 16], uses: u32) -> bool {
        let wall = self.clock.wall(now);
        let Some(Running { catalog, authority, .. }) = &mut self.running else { return false };
        self.invites.push((secret, uses));
        authority.issue(catalog, terms(wall, uses), secret, Vec::new(), wall).is_ok()
    }

    /// Revokes a node, as its operator wishes.
    pub fn revoke(&mut self, now: Moment, notice: RevocationNotice) -> Sent {
        let wall_ms = self.clock.wall_ms(now);
        let Some(running) = &mut self.running else { return Sent::default() };
        let Ok(ended) = running.catalog.revoke(notice, wall_ms) else { return Sent::default() };
        if !ended.standing.is_member() {
            running.turn_away(ended.peer);
        }
        let mut sent = Sent { replies: Vec::new(), questions: self.push(&ended.entries) };
        self.tell_followers(now, &mut sent);
        sent
    }

    /// Who the gate lets in: the membership of a credential that is valid by this machine's clock, and whether it is
    /// shown for the first time.
    fn at_the_gate(&mut self, now: Moment, from: Who, credential: &Credential) -> Option<(Membership, bool)> {
        let wall = self.clock.wall(now);
        let shown = (from, credential.clone());
        let verified = self.verified.entry(shown.clone()).or_insert_with(|| from.membership_of(credential));
        let membership = verified.clone()?;
        let running = self.running.as_mut()?;
        let valid = membership.issued <= wall.plus(CLOCK_SKEW) && wall < membership.expires.plus(CLOCK_SKEW);
        let blind = self.sabotage == Some(Sabotage::AnswersTheEnded);
        let ended = running.ended.contains(&membership.peer)
            || (membership.role == Role::Node && running.ended_as_nodes.contains(&membership.peer));
        if !valid || (ended && !blind) {
            return None;
        }
        let first = running.met.insert(shown);
        Some((membership, first))
    }

    /// Tells all other super-peers of new entries.
    fn push(&mut self, entries: &[Entry]) -> Vec<Question> {
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

    /// Some time has passed: what was put off is done, followers are answered, and a comparison begins.
    pub fn tick(&mut self, now: Moment, other: Who) -> Sent {
        let wall_ms = self.clock.wall_ms(now);
        let mut told = Vec::new();
        let Some(running) = &mut self.running else { return Sent::default() };
        for (publisher, records) in std::mem::take(&mut running.unstored) {
            let published = running.catalog.publish(&publisher, records, wall_ms).unwrap_or_default();
            told.extend(published.into_iter().flat_map(|item| item.entries));
        }
        let mut sent = Sent { replies: Vec::new(), questions: self.push(&told) };
        self.begin_session(now, other, &mut sent);
        self.tell_followers(now, &mut sent);
        sent
    }
}

impl Running {
    /// What follows from changes that came from elsewhere, as in production's `Shared::apply`.
    fn apply(&mut self, applied: &[Applied]) {
        for applied in applied {
            match applied {
                Applied::Ended { peer, .. } => self.turn_away(*peer),
                Applied::EndedAsNode(peer) => _ = self.ended_as_nodes.insert(*peer),
                _ => {}
            }
        }
    }

    /// A membership has ended: its connections close, and with them its open questions.
    fn turn_away(&mut self, peer: PeerId) {
        self.ended.insert(peer);
        self.open.retain(|_, (who, _, _)| who.peer() != peer);
    }

    /// Whether no other super-peer is known.
    fn is_alone(&self) -> bool {
        let members = self.reader.members(None, 1000).map(|page| page.members).unwrap_or_default();
        let superpeers =
            members.iter().filter(|member| member.role == Role::Superpeer && member.standing.is_member());
        superpeers.count() <= 1
    }
}

fn terms(wall: quarta_protocols::credentials::UnixSeconds, uses: u32) -> Terms {
    Terms { role: Role::Node, uses, expires: wall.plus(INVITE_LIFETIME), replaces: None }
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
