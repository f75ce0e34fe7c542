//! What this super-peer sees for itself, into the log: members that vanish and return, peers that are refused.
//!
//! Observations are collected and written together, at most every [`WRITE_EVERY`], so that strangers who knock all day
//! cost one write a second. What does not fit the queue is not noted; the daemon's own log has it.

use std::{sync::Arc, time::Duration};

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::{Shared, wall_ms};
use crate::catalog::{Observation, Observed};

/// Observations waiting to be written; more are not noted.
const QUEUE_MAX: usize = 256;
/// How often observations are written at most.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Where observations go.
#[derive(Debug, Clone)]
pub(super) struct Observer(mpsc::Sender<Observation>);

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Observations(mpsc::Receiver<Observation>);

impl Observer {
    pub(super) fn new() -> (Self, Observations) {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        (Self(sender), Observations(receiver))
    }
}

impl Shared {
    /// Notes what was just seen. Does not wait.
    pub(super) fn observe(&self, what: Observed, peer: PeerId, detail: String) {
        let name = self.state().known_name(&peer).map(ToString::to_string).unwrap_or_default();
        let seen = Observation { millis: wall_ms(), what, peer, name, detail };
        if self.observer.0.try_send(seen).is_err() {
            tracing::debug!(%peer, what = what.as_str(), "an observation was not noted: too many at once");
        }
    }
}

/// Writes observations until the service stops, those that wait then included.
pub(super) fn start(shared: Arc<Shared>, mut waiting: Observations) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            tokio::select! {
                received = waiting.0.recv_many(&mut seen, QUEUE_MAX) => {
                    if received == 0 {
                        return;
                    }
                }
                () = shared.stop.cancelled() => {
                    while let Ok(last) = waiting.0.try_recv() {
                        seen.push(last);
                    }
                    write(&shared, std::mem::take(&mut seen)).await;
                    return;
                }
            }
            write(&shared, std::mem::take(&mut seen)).await;
            tokio::select! {
                () = tokio::time::sleep(WRITE_EVERY) => {}
                () = shared.stop.cancelled() => {}
            }
        }
    })
}

async fn write(shared: &Shared, seen: Vec<Observation>) {
    if seen.is_empty() {
        return;
    }
    let written = shared.store.write(move |catalog| catalog.observe(&seen)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "what was observed could not be stored"),
        Err(error) => tracing::error!(%error, "what was observed could not be stored"),
    }
}
