//! What this super-peer sees for itself, into the log: members that vanish and return, peers that are refused.
//!
//! Observations are collected and written together, at most every [`WRITE_EVERY`], so that strangers who knock all day
//! cost one write a second. A peer that is refused again and again, as a revoked machine that goes on dialling is, is
//! noted once in [`REPEATED_AFTER`]. What does not fit the queue is not noted; the daemon's own log has it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use tokio::sync::mpsc;

use super::{Shared, wall_ms};
use crate::catalog::{Observation, Observed};

/// Observations waiting to be written; more are not noted.
const QUEUE_MAX: usize = 256;
/// How often observations are written at most.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// After how long the same refusal of the same peer is noted again.
const REPEATED_AFTER: Duration = Duration::from_hours(1);
/// Refused peers that are remembered; beyond that repetitions are noted.
const REMEMBERED_MAX: usize = 4096;

/// Where observations go.
#[derive(Debug, Clone)]
pub(super) struct Observer(mpsc::Sender<Observation>);

/// What waits to be written.
#[derive(Debug)]
pub(super) struct Observations(mpsc::Receiver<Observation>);

/// Whose refusals were noted of late, and with which reason.
#[derive(Debug, Default)]
struct Noted(HashMap<PeerId, (String, Instant)>);

impl Noted {
    /// Whether an observation is worth noting again.
    fn is_news(&mut self, seen: &Observation, now: Instant) -> bool {
        if seen.what != Observed::Refused {
            return true;
        }
        let same = self.0.get(&seen.peer).is_some_and(|(detail, at)| {
            *detail == seen.detail && now.saturating_duration_since(*at) < REPEATED_AFTER
        });
        if !same {
            if self.0.len() >= REMEMBERED_MAX {
                self.0.retain(|_, (_, at)| now.saturating_duration_since(*at) < REPEATED_AFTER);
            }
            if self.0.len() < REMEMBERED_MAX || self.0.contains_key(&seen.peer) {
                self.0.insert(seen.peer, (seen.detail.clone(), now));
            }
        }
        !same
    }
}

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
        let (mut seen, mut noted) = (Vec::new(), Noted::default());
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
                    write(&shared, &mut noted, std::mem::take(&mut seen)).await;
                    return;
                }
            }
            write(&shared, &mut noted, std::mem::take(&mut seen)).await;
            tokio::select! {
                () = tokio::time::sleep(WRITE_EVERY) => {}
                () = shared.stop.cancelled() => {}
            }
        }
    })
}

async fn write(shared: &Shared, noted: &mut Noted, mut seen: Vec<Observation>) {
    seen.retain(|seen| noted.is_news(seen, Instant::now()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_repeats_is_news_again_after_an_hour_or_for_another_reason() {
        let (mut noted, now) = (Noted::default(), Instant::now());
        let seen = |what, peer, detail: &str| Observation {
            millis: 0,
            what,
            peer,
            name: String::new(),
            detail: detail.to_owned(),
        };
        let (one, other) = (PeerId::random(), PeerId::random());
        let refused = seen(Observed::Refused, one, "revoked");
        assert!(noted.is_news(&refused, now) && !noted.is_news(&refused, now + REPEATED_AFTER / 2));
        assert!(noted.is_news(&seen(Observed::Refused, other, "revoked"), now));
        assert!(noted.is_news(&seen(Observed::Refused, one, "expired"), now));
        assert!(noted.is_news(&seen(Observed::Refused, one, "expired"), now + REPEATED_AFTER));
        for _ in 0..3 {
            assert!(noted.is_news(&seen(Observed::Removed, one, "gone"), now), "every removal counts");
        }
        for _ in 0..2 * REMEMBERED_MAX {
            assert!(noted.is_news(&seen(Observed::Refused, PeerId::random(), "no member"), now));
        }
        assert!(noted.0.len() <= REMEMBERED_MAX);
    }
}
