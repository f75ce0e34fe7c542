//! The peers that a fetch has tried, from being named to being dropped.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use libp2p::PeerId;
use quarta_protocols::{
    limits::SOURCES_MAX,
    messages::index::{Fault, Source},
};

use super::{
    OFFERS_EVERY, OFFERS_EVERY_MAX, RETRY_AFTER, RETRY_AFTER_MAX, SOURCES_TRIED_MAX, ports::TransportLabel,
};
use crate::download::schedule::SourceId;

/// One attempt with one peer.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) source: Source,
    pub(super) state: State,
    pub(super) transport: Option<TransportLabel>,
    /// The bitmap it gave last; none where it has everything.
    pub(super) offers: Option<Bytes>,
    /// When it is asked again what it offers, and the pause before that.
    pub(super) ask_at: Instant,
    pub(super) ask_pause: Duration,
    /// Whether it is being asked what it offers by now.
    pub(super) refreshing: bool,
    pub(super) asked_for_manifest: bool,
    admitted: Instant,
    /// For how long it is left alone when it is dropped.
    rest: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Connected,
    Dropped(Fault, Instant),
}

impl Candidate {
    pub(super) const fn is_living(&self) -> bool {
        !matches!(self.state, State::Dropped(..))
    }

    /// It has said what it offers. Whoever has something new is asked again soon, others later each time.
    pub(super) fn has_answered(&mut self, now: Instant, offers: &Bytes) {
        let news = self.offers.as_ref() != Some(offers);
        self.refreshing = false;
        self.ask_pause = if news { OFFERS_EVERY } else { (self.ask_pause * 2).min(OFFERS_EVERY_MAX) };
        self.ask_at = now + self.ask_pause;
        self.offers = Some(offers.clone());
    }

    /// Whether the peer may be tried anew: a line or a daemon can come back, a lie is not forgotten.
    fn may_return(&self, now: Instant) -> bool {
        match self.state {
            State::Connecting | State::Connected | State::Dropped(Fault::WrongBytes | Fault::NotHeld, _) => {
                false
            }
            State::Dropped(_, at) => now.saturating_duration_since(at) >= self.rest,
        }
    }

    /// For how long the same peer is left alone when it is dropped again: each time twice as long, so that one that
    /// comes back only to fail is not tried for ever; anew after it did well for as long as the longest rest.
    fn next_rest(&self) -> Duration {
        match self.state {
            State::Dropped(_, at) if at.saturating_duration_since(self.admitted) < RETRY_AFTER_MAX => {
                (self.rest * 2).min(RETRY_AFTER_MAX)
            }
            _ => RETRY_AFTER,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Candidates(BTreeMap<SourceId, Candidate>);

impl Candidates {
    /// Takes in what a search has found, and gives those to connect to.
    pub(super) fn admit(&mut self, now: Instant, found: Vec<Source>) -> Vec<(SourceId, Source)> {
        let mut admitted = Vec::new();
        for source in found.into_iter().take(SOURCES_MAX) {
            let known =
                self.0.values().any(|other| other.source.peer == source.peer && !other.may_return(now));
            let next = u32::try_from(self.0.len()).unwrap_or(SOURCES_TRIED_MAX);
            let twice = admitted.iter().any(|(_, other): &(_, Source)| other.peer == source.peer);
            if known || twice || next >= SOURCES_TRIED_MAX {
                continue;
            }
            let id = SourceId(next);
            let before = self.0.values().rfind(|other| other.source.peer == source.peer);
            let rest = before.map_or(RETRY_AFTER, Candidate::next_rest);
            let candidate = Candidate {
                source: source.clone(),
                state: State::Connecting,
                transport: None,
                offers: None,
                ask_at: now,
                ask_pause: OFFERS_EVERY,
                refreshing: false,
                asked_for_manifest: false,
                admitted: now,
                rest,
            };
            self.0.insert(id, candidate);
            admitted.push((id, source));
        }
        admitted
    }

    /// Whom a search should not name, the latest first where they are too many.
    pub(super) fn except(&self, now: Instant) -> Vec<PeerId> {
        let mut peers = Vec::new();
        for candidate in self.0.values().rev().filter(|candidate| !candidate.may_return(now)) {
            if !peers.contains(&candidate.source.peer) && peers.len() < SOURCES_MAX {
                peers.push(candidate.source.peer);
            }
        }
        peers
    }

    pub(super) fn get_mut(&mut self, id: SourceId) -> Option<&mut Candidate> {
        self.0.get_mut(&id)
    }

    /// The first that is so.
    pub(super) fn find_mut(
        &mut self,
        so: impl Fn(&&mut Candidate) -> bool,
    ) -> Option<(SourceId, &mut Candidate)> {
        self.0.iter_mut().map(|(id, candidate)| (*id, candidate)).find(|(_, candidate)| so(candidate))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SourceId, &Candidate)> {
        self.0.iter().map(|(id, candidate)| (*id, candidate))
    }

    pub(super) fn living(&self) -> usize {
        self.0.values().filter(|candidate| candidate.is_living()).count()
    }

    /// Says whether it was living.
    pub(super) fn drop_one(&mut self, id: SourceId, fault: Fault, now: Instant) -> bool {
        let candidate = self.0.get_mut(&id).filter(|candidate| candidate.is_living());
        candidate.is_some_and(|candidate| {
            candidate.state = State::Dropped(fault, now);
            true
        })
    }

    /// How each peer that failed did so last.
    pub(super) fn faults(&self) -> Vec<(PeerId, Fault)> {
        let mut faults: Vec<(PeerId, Fault)> = Vec::new();
        for candidate in self.0.values() {
            let State::Dropped(fault, _) = candidate.state else { continue };
            match faults.iter_mut().find(|(peer, _)| *peer == candidate.source.peer) {
                Some(known) => known.1 = fault,
                None => faults.push((candidate.source.peer, fault)),
            }
        }
        faults
    }
}
