//! Keeps enough copies of every file: the shell around [`crate::replication`].
//!
//! One task follows the catalog and steps the planner, often while there is something to do and now and then otherwise;
//! what the planner asks of nodes is asked in tasks of their own. The planner's lock is held for a step, which takes
//! milliseconds, and by nothing that the event loop does: what changed in lists is left beside it. A step looks at the
//! lists, so the planner is locked before the service's state and never while that is locked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_metrics::replication::AssignmentOutcome;
use quarta_protocols::{
    cbor,
    credentials::Role,
    ids::ContentId,
    messages::{
        index::MemberState,
        inventory::{Coverage, Item, Key, Page},
        sync::Kind,
        vault::{Assignment, Outcome, Request, Response, Vault},
    },
    records::SignedRecord,
};
use tokio::sync::{Notify, watch};

use super::Shared;
use crate::{
    catalog::CatalogError,
    replication::{Bill, Config, Effect, Held, Lists, Node, Planner, Told, World},
};

/// How often the planner steps while there is something to do.
const STEP_BUSY: Duration = Duration::from_millis(250);
/// How often it does otherwise: nodes that come and go are seen that late.
const STEP_IDLE: Duration = Duration::from_secs(1);
/// Entries of the catalog that are read at once.
const READ_ENTRIES: usize = 4096;
/// And how much of them, in bytes.
const READ_BYTES: usize = 4 * 1024 * 1024;
/// For how long a bill counts: it is asked for by everybody who looks at the status, and takes a look at every content.
const BILL_COUNTS: Duration = Duration::from_millis(250);
/// Changes of lists that wait for the planner; beyond that it looks at everything.
const CHANGES_MAX: usize = 65_536;

/// The planner, and what waits for it.
pub(crate) struct Replication {
    planner: Mutex<Planner>,
    /// The last bill, and when it was made.
    bill: Mutex<Option<(Instant, Bill)>>,
    changes: Mutex<Changes>,
    /// How far the catalog is.
    sequence: watch::Receiver<u64>,
    news: Notify,
}

/// What changed in lists since the last step.
#[derive(Debug, Default)]
struct Changes {
    contents: Vec<ContentId>,
    keys: Vec<Key>,
    /// Whether there was more than is named.
    more: bool,
}

impl Replication {
    /// Plans for this super-peer. `sequence` tells how far the catalog is.
    pub(super) fn new(own: PeerId, config: Config, sequence: watch::Receiver<u64>) -> Self {
        Self {
            planner: Mutex::new(Planner::new(own, config, Instant::now())),
            bill: Mutex::default(),
            changes: Mutex::default(),
            sequence,
            news: Notify::new(),
        }
    }

    fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many copies of each file there should be, and how many before any gets more.
    pub(crate) fn wanted(&self) -> (u32, u32) {
        self.planner().wanted()
    }

    /// How the network is, as far as copies are concerned, a moment ago at most.
    pub(crate) fn bill(&self) -> Bill {
        let mut last = self.bill.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((made, bill)) if made.elapsed() < BILL_COUNTS => bill,
            _ => {
                let bill = self.planner().bill();
                *last = Some((Instant::now(), bill));
                bill
            }
        }
    }

    /// Takes note of what a page of a list changes. Full lists come with a node that comes, and that is seen anyway.
    pub(super) fn note(&self, page: &Page) {
        if !matches!(page.coverage, Coverage::Since(_)) || (page.present.is_empty() && page.gone.is_empty()) {
            return;
        }
        let mut changes = self.changes();
        if changes.contents.len() + changes.keys.len() + page.present.len() + page.gone.len() > CHANGES_MAX {
            changes.more = true;
        } else {
            changes.contents.extend(page.present.iter().map(Item::content));
            changes.keys.extend(&page.gone);
        }
        drop(changes);
        self.news.notify_one();
    }
}

impl Lists for Shared {
    fn copies(&self, content: &ContentId) -> Vec<Held> {
        Lists::copies(&self.state().index, content)
    }

    fn vault_of(&self, peer: &PeerId, after: Option<ContentId>, limit: usize) -> Vec<ContentId> {
        self.state().index.vault_of(peer, after, limit)
    }
}

/// Steps the planner until the service stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let replication = &shared.replication;
    let mut sequence = replication.sequence.clone();
    let mut read = 0;
    loop {
        // Everything that is known before the first step: a file that is not known yet is none without a record.
        if !follow(&shared, &mut read).await {
            if !pause(&shared, STEP_IDLE).await {
                return;
            }
            continue;
        }
        step(&shared);
        let until = if replication.planner().is_busy() { STEP_BUSY } else { STEP_IDLE };
        let begun = Instant::now();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(until) => continue,
            () = replication.news.notified() => {}
            moved = sequence.changed() => if moved.is_err() { return },
        }
        // News are gathered, so that a stream of them is not a stream of steps.
        if !pause(&shared, STEP_BUSY.saturating_sub(begun.elapsed())).await {
            return;
        }
    }
}

/// Waits; whether the service goes on.
async fn pause(shared: &Shared, time: Duration) -> bool {
    tokio::select! {
        () = shared.stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

/// Tells the planner of all records that it does not know yet; whether that worked.
async fn follow(shared: &Shared, read: &mut u64) -> bool {
    while *read < *shared.replication.sequence.borrow() {
        let since = *read;
        let page = shared.store.read(move |reader| {
            let page = reader.since(since, READ_ENTRIES, READ_BYTES)?;
            let records = page.changes.iter().filter(|change| change.kind == Kind::FILE);
            let told = records
                .map(|change| {
                    let record: SignedRecord =
                        cbor::from_slice(&change.payload).map_err(CatalogError::damaged)?;
                    Ok(Told::from(&record.peek().map_err(CatalogError::damaged)?))
                })
                .collect::<Result<Vec<_>, CatalogError>>()?;
            Ok((told, page.changes.last().map(|change| change.sequence), page.more))
        });
        match page.await {
            Ok((told, last, more)) => {
                let now = Instant::now();
                let mut planner = shared.replication.planner();
                for told in &told {
                    planner.tell(now, told);
                }
                match last {
                    Some(last) => *read = last,
                    // Only events of the audit trail, which are left out.
                    None => return true,
                }
                if !more {
                    return true;
                }
            }
            Err(error) => {
                tracing::error!(%error, "records could not be read; copies are not planned");
                return false;
            }
        }
    }
    true
}

fn step(shared: &Arc<Shared>) {
    let (now, own) = (Instant::now(), shared.identity.keys.peer());
    let (nodes, others) = {
        let state = shared.state();
        let of = |role| state.health.iter().filter(move |seen| seen.role == role && seen.peer != own);
        let node = |peer: PeerId| Node {
            peer,
            there: state.health.is_offered(&peer) && state.index.position_of(&peer).is_some(),
            room_bytes: state.room_of(&peer),
        };
        let nodes: Vec<Node> = of(Role::Node).map(|seen| node(seen.peer)).collect();
        let others: Vec<(PeerId, bool)> =
            of(Role::Superpeer).map(|seen| (seen.peer, seen.state == MemberState::Online)).collect();
        (nodes, others)
    };
    let superpeers: Vec<PeerId> =
        others.iter().filter(|(_, online)| *online).map(|(peer, _)| *peer).collect();
    let world = World { nodes: &nodes, superpeers: &superpeers, sees_all: superpeers.len() == others.len() };
    let changes = std::mem::take(&mut *shared.replication.changes());
    let effects = {
        let mut planner = shared.replication.planner();
        changes.contents.into_iter().for_each(|content| planner.touch(content));
        for key in changes.keys {
            match key {
                Key::Vault(content) => planner.touch(content),
                Key::Library(file) => planner.touch_file(&file),
            }
        }
        if changes.more {
            planner.touch_all();
        }
        planner.step(now, &world, &**shared)
    };
    perform(shared, effects);
}

fn perform(shared: &Arc<Shared>, effects: Vec<Effect>) {
    for effect in effects {
        let shared = shared.clone();
        match effect {
            Effect::Assign(peer, assignments) => {
                tokio::spawn(async move { assign(&shared, peer, &assignments).await });
            }
            Effect::Confirm(peer, contents) => {
                tokio::spawn(async move { confirm(&shared, peer, contents).await });
            }
        }
    }
}

async fn assign(shared: &Shared, peer: PeerId, assignments: &[Assignment]) {
    let answer = shared.network.call::<Vault>(peer, Request::Assign(assignments.to_vec())).await;
    let outcomes = match answer {
        Ok(Response::Assigned(outcomes)) if outcomes.len() == assignments.len() => Some(outcomes),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%peer, %error, "a node could not be told what to keep; it is told again");
            None
        }
    };
    let metrics = &shared.metrics.superpeer.replication;
    for (at, assignment) in assignments.iter().enumerate() {
        let outcome = outcomes.as_ref().and_then(|outcomes| outcomes.get(at));
        let label = match outcome {
            Some(Outcome::Accepted) => AssignmentOutcome::Accepted,
            Some(Outcome::NoRoom) => AssignmentOutcome::NoRoom,
            Some(Outcome::Busy) => AssignmentOutcome::Busy,
            None => AssignmentOutcome::Failed,
        };
        match assignment {
            Assignment::Keep { size_bytes, .. } => {
                metrics.assigned.inc(label);
                if outcome == Some(&Outcome::Accepted) {
                    metrics.assigned_bytes.add(*size_bytes);
                }
            }
            Assignment::Drop { .. } => metrics.dropped.inc(label),
        }
    }
    shared.replication.planner().assigned(Instant::now(), peer, assignments, outcomes.as_deref());
}

async fn confirm(shared: &Arc<Shared>, peer: PeerId, contents: Vec<ContentId>) {
    let answer = shared.network.call::<Vault>(peer, Request::Confirm(contents.clone())).await;
    let held = match answer {
        Ok(Response::Confirmed(held)) if held.len() == contents.len() => Some(held),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%peer, %error, "a node could not be asked for what it keeps");
            None
        }
    };
    let effects = shared.replication.planner().confirmed(Instant::now(), peer, &contents, held.as_deref());
    perform(shared, effects);
}
