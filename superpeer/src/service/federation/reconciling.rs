//! The side of a reconciliation that begins it: does what the session wants, and tells how it went.

use std::{sync::Arc, time::Instant};

use libp2p::PeerId;
use quarta_metrics::superpeer::{Reconciliation, Way};
use quarta_protocols::{
    cbor,
    credentials::Membership,
    limits::SYNC_ITEMS_MAX,
    messages::sync::{Request, Response, Sync},
};
use tokio::time::sleep_until;

use super::Plan;
use crate::{
    reconciliation::{
        Session,
        session::{Effect, Ending, Input, Tally},
    },
    service::{Shared, federation::Federation},
};

/// Reconciles with one other super-peer whenever it is due.
pub(super) async fn run(shared: Arc<Shared>, peer: PeerId, plan: Arc<Plan>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = plan.changed.notified() => continue,
            () = sleep_until(plan.due().into()) => {}
        }
        // Where it is not connected there is nothing to be done: the next connection brings the next one forward.
        plan.begun();
        let Some(membership) = shared.superpeer_membership(&peer).await else { continue };
        let Some(turn) = Turn::take(&shared.federation) else {
            plan.change(|agenda| agenda.ended(Ending::Busy, Instant::now(), rand::random()));
            continue;
        };
        let mut run = Run { shared: &shared, peer, membership, sent_bytes: 0, received_bytes: 0 };
        let begun = Instant::now();
        let (ending, tally) = run.session().await;
        drop(turn);
        run.tell(&ending, tally, begun);
        match ending {
            Ok(ending) => {
                if matches!(ending, Ending::Equal | Ending::Settled) {
                    shared.compared().await;
                }
                plan.change(|agenda| agenda.ended(ending, Instant::now(), rand::random()));
            }
            Err(_) => plan.change(|agenda| agenda.broke_off(Instant::now())),
        }
    }
}

/// The turn of an own session; ended when dropped.
struct Turn<'a>(&'a Federation);

impl<'a> Turn<'a> {
    fn take(federation: &'a Federation) -> Option<Self> {
        let begun = federation.turns().begin(Instant::now());
        // Not made before: dropping one ends a turn.
        begun.then(|| Self(federation))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.turns().ended();
    }
}

struct Run<'a> {
    shared: &'a Arc<Shared>,
    peer: PeerId,
    membership: Membership,
    sent_bytes: u64,
    received_bytes: u64,
}

impl Run<'_> {
    async fn session(&mut self) -> (Result<Ending, String>, Tally) {
        let (mut session, mut effect) = Session::begin();
        loop {
            if let Effect::End(ending) = effect {
                return (Ok(ending), session.tally());
            }
            match self.perform(effect).await {
                Ok(input) => effect = session.handle(input),
                Err(why) => return (Err(why), session.tally()),
            }
        }
    }

    async fn perform(&mut self, effect: Effect) -> Result<Input, String> {
        let store = &self.shared.store;
        Ok(match effect {
            Effect::Look => {
                let (digest, trie) =
                    store.write(|catalog| (catalog.digest(), catalog.trie())).await.map_err(text)?;
                Input::Own(digest, trie)
            }
            Effect::Compare(digest) => {
                let addresses = self.shared.advertised().await;
                Input::Answer(self.ask(Request::Compare { digest, addresses }).await?)
            }
            Effect::Ask(request) => Input::Answer(self.ask(request).await?),
            Effect::List(stretch) => {
                let read = store.read(move |reader| reader.items(&stretch, SYNC_ITEMS_MAX));
                Input::Items(read.await.map_err(text)?)
            }
            Effect::Take(entries) => {
                Input::Taken(self.shared.take_entries(self.membership.clone(), entries).await?.into())
            }
            Effect::TakeBeside(entries, request) => {
                let taking = self.shared.take_entries(self.membership.clone(), entries);
                // To its end, also where the other does not answer.
                let (taken, answer) = tokio::join!(taking, self.ask(request));
                Input::TakenBeside(taken?.into(), answer?)
            }
            Effect::Read(positions) => {
                let read = store.read(move |reader| reader.entries_at(&positions)).await;
                let (entries, read) = read.map_err(text)?;
                Input::Entries(entries, read)
            }
            Effect::End(_) => return Err("it is over".to_owned()),
        })
    }

    async fn ask(&mut self, request: Request) -> Result<Response, String> {
        self.sent_bytes += bytes(&request);
        let response = self.shared.network.call::<Sync>(self.peer, request).await.map_err(text)?;
        self.received_bytes += bytes(&response);
        match response {
            Response::Unavailable => Err("its database failed".to_owned()),
            response => Ok(response),
        }
    }

    fn tell(&self, ending: &Result<Ending, String>, tally: Tally, begun: Instant) {
        let peer = self.peer;
        let label = match ending {
            Ok(Ending::Equal) => Reconciliation::Equal,
            Ok(Ending::Settled) => Reconciliation::Settled,
            Ok(Ending::Unfinished) => Reconciliation::Unfinished,
            Ok(Ending::Busy) => Reconciliation::Busy,
            Ok(Ending::Faulty(_)) => Reconciliation::Faulty,
            Err(_) => Reconciliation::BrokenOff,
        };
        let metrics = &self.shared.metrics.superpeer;
        metrics.reconciliations.inc(label);
        metrics.reconciled_entries.add(Way::Received, tally.received);
        metrics.reconciled_entries.add(Way::Sent, tally.sent);
        metrics.reconciled_bytes.add(Way::Received, self.received_bytes);
        metrics.reconciled_bytes.add(Way::Sent, self.sent_bytes);
        let moved = tally.received > 0 || tally.sent > 0;
        if moved {
            metrics.reconciliation_duration.observe(begun.elapsed());
        }
        match ending {
            Ok(Ending::Faulty(fault)) => {
                tracing::warn!(%peer, %fault, "another super-peer does not keep to the protocol; see that it is sound");
            }
            Ok(ending @ (Ending::Settled | Ending::Unfinished)) => {
                tracing::info!(%peer, ?ending, ?tally, "catalogs were compared and differ still");
            }
            Ok(_) if moved => {
                let (milliseconds, bytes) =
                    (begun.elapsed().as_millis(), self.sent_bytes + self.received_bytes);
                tracing::info!(%peer, ?tally, bytes, milliseconds, "catalogs differed and were reconciled");
            }
            Ok(ending) => tracing::debug!(%peer, ?ending, "catalogs were compared"),
            Err(why) => tracing::info!(%peer, why, "a reconciliation broke off; it goes on later"),
        }
    }
}

/// The size of a message on the wire.
fn bytes<T: serde::Serialize>(message: &T) -> u64 {
    cbor::to_vec(message).len() as u64
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
