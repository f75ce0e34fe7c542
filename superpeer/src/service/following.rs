//! Answers members that follow this super-peer's feed, around the pure parts of [`crate::feed`].
//!
//! One task keeps the members' condition up to date and wakes those who wait; each answer is read and sent in a task of
//! its own. Members that wait at the same place, as all do that are up to date, share one reading, of which each is told
//! its part.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_daemon::timer;
use quarta_protocols::{
    messages::{
        changes::{Changes, Cursor, Request, Response, WAIT_MAX},
        index::ListedMember,
    },
    network::{Asked, Responder},
};
use tokio::sync::{Notify, watch};

use super::{Shared, wall_ms};
use crate::{
    catalog,
    feed::{Beginning, Conditions, Effect, Head, Input, PAGE_BYTES, PAGE_ENTRIES, Source, Waiting, told},
    health,
};

/// The feed and those who follow it.
pub(crate) struct Following {
    source: Source,
    /// The latest number of the catalog.
    sequence: watch::Receiver<u64>,
    state: Mutex<State>,
    touched: Mutex<HashSet<PeerId>>,
    /// Wakes the task.
    news: Notify,
}

#[derive(Default)]
struct State {
    conditions: Conditions,
    waiting: Waiting,
    open: HashMap<u64, Open>,
    questions: u64,
}

/// A question that is not answered yet.
struct Open {
    peer: PeerId,
    beginning: Beginning,
    responder: Responder<Changes>,
}

impl Following {
    /// A feed that nobody follows yet. `sequence` tells how far the catalog is.
    pub(super) fn new(source: Source, sequence: watch::Receiver<u64>) -> Self {
        Self { source, sequence, state: Mutex::default(), touched: Mutex::default(), news: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may have changed about how a member is.
    pub(super) fn touch(&self, peer: PeerId) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        self.news.notify_one();
    }

    fn touched(&self) -> Vec<PeerId> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }
}

/// Answers a member, at once or when there is something to tell.
pub(super) fn answer(shared: &Arc<Shared>, asked: Asked<Changes>) {
    let Some(membership) = asked.membership else { return };
    let (shared, responder) = (shared.clone(), asked.responder);
    tokio::spawn(async move {
        match asked.request {
            Request::Follow { since, wait_ms } => {
                let Some(known) = knows(&shared, since.as_ref()).await else {
                    responder.respond(Response::Unavailable);
                    return;
                };
                let wait = Duration::from_millis(wait_ms).min(WAIT_MAX);
                let beginning = shared.following.source.begin(since.as_ref(), known);
                follow(&shared, membership.peer, beginning, wait, responder);
            }
            Request::Return { departures, revocations } => {
                let taken = shared
                    .store
                    .write(move |catalog| catalog.take_back(&departures, revocations, wall_ms()))
                    .await;
                match taken {
                    Ok(Ok(taken)) => {
                        shared.push(&taken.entries);
                        shared.apply(&taken.applied).await;
                        responder.respond(Response::Noted);
                    }
                    Ok(Err(error)) => unavailable(&error, responder),
                    Err(error) => unavailable(&error, responder),
                }
            }
        }
    });
}

fn unavailable(error: &dyn std::error::Error, responder: Responder<Changes>) {
    tracing::error!(%error, "a member could not be told of changes");
    responder.respond(Response::Unavailable);
}

/// Whether a cursor is one of this store's; none where that cannot be found out.
async fn knows(shared: &Shared, since: Option<&Cursor>) -> Option<bool> {
    let following = &shared.following;
    let Some(cursor) = since.copied() else { return Some(false) };
    // What almost everybody asks after needs no look into the database.
    if cursor.run == following.source.run && cursor.sequence <= *following.sequence.borrow() {
        return Some(true);
    }
    let known = shared.store.read(move |reader| reader.knows_run(cursor.run, cursor.sequence)).await;
    known.inspect_err(|error| tracing::error!(%error, "a member's place in the feed could not be found")).ok()
}

fn follow(
    shared: &Arc<Shared>,
    peer: PeerId,
    beginning: Beginning,
    wait: Duration,
    responder: Responder<Changes>,
) {
    let effects = {
        let mut state = shared.following.state();
        state.questions += 1;
        let question = state.questions;
        state.open.insert(question, Open { peer, beginning, responder });
        // A member whose place is lost must be told so at once.
        let wait = if beginning.restart { Duration::ZERO } else { wait };
        let asked = Input::Asked { peer, question, seen: beginning.seen, wait };
        state.waiting.handle(Instant::now(), asked)
    };
    perform(shared, effects);
    // The task's timer may be due earlier now.
    shared.following.news.notify_one();
}

/// Answers those that are to be answered, together where they are at the same place.
fn perform(shared: &Arc<Shared>, effects: Vec<Effect>) {
    let mut places: HashMap<Beginning, Vec<(PeerId, Responder<Changes>)>> = HashMap::new();
    {
        let mut state = shared.following.state();
        for effect in effects {
            let (Effect::Answer(question) | Effect::Refuse(question)) = effect;
            let Some(Open { peer, beginning, responder }) = state.open.remove(&question) else { continue };
            // Whose membership has ended is shown nothing; its connections close at the same time.
            if state.conditions.has_ended(&peer) {
                continue;
            }
            match effect {
                Effect::Answer(_) => places.entry(beginning).or_default().push((peer, responder)),
                Effect::Refuse(_) => responder.respond(Response::Unavailable),
            }
        }
    }
    for (beginning, responders) in places {
        let shared = shared.clone();
        tokio::spawn(async move {
            let news = read(&shared, beginning).await;
            for (peer, responder) in responders {
                responder.respond(match &news {
                    Some(news) => news.page(&shared.following.source, beginning.restart, &peer),
                    None => Response::Unavailable,
                });
            }
        });
    }
}

/// What there is after a place, for all that wait there.
struct News {
    changes: Vec<catalog::Change>,
    members: Vec<ListedMember>,
    head: Head,
    more: bool,
}

impl News {
    /// The part of it that a member may see.
    fn page(&self, source: &Source, restart: bool, member: &PeerId) -> Response {
        Response::Page {
            cursor: source.cursor(self.head),
            restart,
            changes: self.changes.iter().filter_map(|change| told(change, member)).collect(),
            members: self.members.clone(),
            more: self.more,
        }
    }
}

/// Reads what there is after a place; none where the database fails.
async fn read(shared: &Shared, beginning: Beginning) -> Option<News> {
    let following = &shared.following;
    // Before the reading, which sees everything up to it.
    let head = *following.sequence.borrow();
    let seen = beginning.seen;
    let read = if head > seen.sequence {
        shared.store.read(move |reader| reader.since(seen.sequence, PAGE_ENTRIES, PAGE_BYTES)).await
    } else {
        Ok(catalog::ChangePage::default())
    };
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(%error, "what has changed could not be read");
            return None;
        }
    };
    let last = read.changes.last().map_or(seen.sequence, |change| change.sequence);
    let sequence = if read.more { last } else { last.max(head) };
    let (members, condition, all_members) = {
        let state = following.state();
        let (members, condition) = state.conditions.after(seen.condition);
        (members, condition, condition == state.conditions.number())
    };
    let head = Head { sequence, condition };
    Some(News { changes: read.changes, members, head, more: read.more || !all_members })
}

/// Keeps the feed up to date, until the super-peer stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let following = &shared.following;
    let mut sequence = following.sequence.clone();
    loop {
        let members = describe(&shared, following.touched()).await;
        let (effects, wakeup) = {
            let now = Instant::now();
            let mut state = following.state();
            for member in members {
                state.conditions.note(now, member);
            }
            state.conditions.tick(now);
            let head = Head { sequence: *sequence.borrow_and_update(), condition: state.conditions.number() };
            let effects = state.waiting.handle(now, Input::Moved(head));
            let wakeup = state.waiting.next_wakeup().into_iter().chain(state.conditions.next_wakeup()).min();
            (effects, wakeup)
        };
        perform(&shared, effects);
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = following.news.notified() => {}
            _ = sequence.changed() => {}
            () = timer::until(wakeup) => {}
        }
    }
}

/// Whose condition something that happened may have changed.
pub(super) const fn told_of(input: &health::Input) -> Option<PeerId> {
    match input {
        health::Input::Known(peer, _)
        | health::Input::Connected(peer, _)
        | health::Input::ConnectionClosed(peer)
        | health::Input::PollAnswered(peer)
        | health::Input::Registered(peer)
        | health::Input::PingMissed(peer)
        | health::Input::ReportedUnreachable(peer)
        | health::Input::SignedOff(peer)
        | health::Input::SignedOn(peer)
        | health::Input::Forgotten(peer) => Some(*peer),
        health::Input::Tick => None,
    }
}

/// Whose condition has changed, or is about to.
pub(super) const fn about(effect: &health::Effect) -> PeerId {
    match effect {
        health::Effect::Poll(peer)
        | health::Effect::Dial(peer)
        | health::Effect::Close(peer)
        | health::Effect::Arrived(peer)
        | health::Effect::Suspected(peer)
        | health::Effect::Cleared(peer)
        | health::Effect::Removed(peer, _)
        | health::Effect::Returned(peer)
        | health::Effect::SignedOff(peer) => *peer,
    }
}

/// How members are now, as they are listed.
async fn describe(shared: &Arc<Shared>, touched: Vec<PeerId>) -> Vec<ListedMember> {
    if touched.is_empty() {
        return Vec::new();
    }
    let again = touched.clone();
    let read = shared
        .store
        .read(move |reader| touched.iter().map(|peer| reader.member(peer)).collect::<Result<Vec<_>, _>>());
    match read.await {
        Ok(members) => members.into_iter().flatten().map(|member| shared.describe(member)).collect(),
        Err(error) => {
            tracing::error!(%error, "how members are could not be read");
            // They are looked at again with the next change.
            shared.following.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(again);
            Vec::new()
        }
    }
}
