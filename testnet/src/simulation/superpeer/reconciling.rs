//! The side of a reconciliation that begins it, as production's `federation/reconciling.rs`: it does what the session
//! wants and tells how it went.

use std::time::Duration;

use quarta_protocols::{
    credentials::UnixSeconds,
    limits::SYNC_ITEMS_MAX,
    messages::sync::{Entry, Item, Request, Response},
};
use quarta_superpeer::reconciliation::{
    Session,
    session::{Effect, Ending, Input, Taken},
};

use super::{Conversation, Question, Running, Sent, Superpeer};
use crate::simulation::{
    cast::Who,
    clock::Moment,
    network::{Answer, Ask},
    sabotage::Sabotage,
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// The branch that [`Sabotage::SkipsABranch`] leaves out: positions that begin with this digit.
const SKIPPED: u16 = 0x7;

impl Superpeer {
    /// Begins to compare catalogs, unless that is under way.
    pub(super) fn begin_session(&mut self, now: Moment, other: Who, sent: &mut Sent) {
        let Some(running) = &mut self.running else { return };
        if running.session.as_ref().is_some_and(|session| now >= session.asked.plus(PATIENCE)) {
            running.session = None;
            running.turns.ended();
        }
        if running.session.is_some() || !running.turns.begin(now.instant()) {
            return;
        }
        let (session, effect) = Session::begin();
        running.session = Some(Conversation { with: other, session, taken: None, call: 0, asked: now });
        self.go_on(now, effect, sent);
    }

    /// Takes an answer of another super-peer.
    pub fn answered(&mut self, now: Moment, from: Who, call: u64, answer: Answer) -> Sent {
        let mut sent = Sent::default();
        let Some(running) = &mut self.running else { return sent };
        let Some(conversation) = &mut running.session else { return sent };
        if (conversation.with, conversation.call) != (from, call) {
            return sent;
        }
        match answer {
            Answer::Sync(response) if !matches!(response, Response::Unavailable) => {
                let effect = conversation.session.handle(match conversation.taken.take() {
                    None => Input::Answer(response),
                    Some(taken) => Input::TakenBeside(taken, response),
                });
                self.go_on(now, effect, &mut sent);
            }
            _ => {
                running.session = None;
                running.turns.ended();
            }
        }
        self.tell_followers(now, &mut sent);
        sent
    }

    /// Does what the session wants, until it wants to ask or is over.
    fn go_on(&mut self, now: Moment, mut effect: Effect, sent: &mut Sent) {
        let (wall, wall_ms, sabotage) = (self.clock.wall(now), self.clock.wall_ms(now), self.sabotage);
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(Conversation { with, .. }) = running.session else { return };
            let request = match effect {
                Effect::Compare(digest) => Request::Compare { digest, addresses: Vec::new() },
                Effect::Ask(request) => request,
                Effect::TakeBeside(entries, request) => {
                    let taken = running.take(entries, with, wall_ms);
                    if let Some(conversation) = &mut running.session {
                        conversation.taken = Some(taken);
                    }
                    request
                }
                Effect::End(ending) => {
                    running.session = None;
                    running.turns.ended();
                    if matches!(ending, Ending::Equal | Ending::Settled) {
                        running.compared(now, wall);
                    }
                    return;
                }
                here => {
                    let input = running.perform_here(here, with, wall_ms, sabotage);
                    let Some(conversation) = &mut running.session else { return };
                    effect = conversation.session.handle(input);
                    continue;
                }
            };
            self.calls += 1;
            let call = self.calls;
            if let Some(conversation) = &mut running.session {
                conversation.call = call;
                conversation.asked = now;
            }
            sent.questions.push(Question { to: with, call, ask: Ask::Sync(request) });
            return;
        }
    }
}

impl Running {
    /// Catalogs were compared and agree as far as they can.
    pub(super) fn compared(&mut self, now: Moment, wall: UnixSeconds) {
        self.agreement.compared(now.instant(), wall);
        self.catalog.keep_comparison(wall).expect("the moment of a comparison can be stored");
    }

    fn perform_here(&mut self, effect: Effect, with: Who, wall_ms: u64, sabotage: Option<Sabotage>) -> Input {
        match effect {
            Effect::Look => Input::Own(self.catalog.digest(), self.catalog.trie()),
            Effect::List(stretch) => {
                let mut items =
                    self.reader.items(&stretch, SYNC_ITEMS_MAX).expect("an open catalog can be read");
                if sabotage == Some(Sabotage::SkipsABranch) {
                    skip_a_branch(&mut items.items);
                }
                Input::Items(items)
            }
            Effect::Take(entries) => Input::Taken(self.take(entries, with, wall_ms)),
            Effect::Read(positions) => {
                let (entries, read) =
                    self.reader.entries_at(&positions).expect("an open catalog can be read");
                Input::Entries(entries, read)
            }
            Effect::Compare(_) | Effect::Ask(_) | Effect::TakeBeside(..) | Effect::End(_) => {
                unreachable!("these are not done here")
            }
        }
    }

    fn take(&mut self, entries: Vec<Entry>, with: Who, wall_ms: u64) -> Taken {
        let membership = with.identity().membership.as_ref().expect("super-peers are members");
        let taken = self.catalog.take(membership, entries, wall_ms).expect("an open catalog takes entries");
        self.apply(&taken.applied);
        taken.into()
    }
}

/// Leaves out what stands in one branch of the tree.
pub(super) fn skip_a_branch(items: &mut Vec<Item>) {
    items.retain(|item| item.position.leaf() >> 12 != SKIPPED);
}
