//! What fetchers said against a source.
//!
//! A word is not a proof: whoever says it may be lying, or be cut off itself. So one member's word counts for that
//! member, and only where two or more agree for everybody. Words fade.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use quarta_protocols::{ids::ContentId, messages::index::Fault};

/// For how long a word counts.
const FADE: Duration = Duration::from_mins(10);
/// Members that have to agree.
const SEVERAL: usize = 2;
/// Members whose words against one source are kept; the oldest gives way.
const REPORTERS_MAX: usize = 16;
/// Contents of which a source is said not to hold them; the oldest gives way.
const NOT_HELD_MAX: usize = 64;
/// How much slower than expected a source is taken to be right after a fault, by whoever met with it.
const OWN_PENALTY: f64 = 15.0;

/// How a source stands with one asker, best first.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) enum Standing {
    /// Its expected time counts this many times, 1 or more.
    Good(f64),
    /// Several had trouble with it: after all others.
    Last,
    /// Several got wrong bytes, or not what was asked for: only where there is no other.
    LastResort,
    /// The asker itself got wrong bytes, or not what it asked for.
    Excluded,
}

/// The words against one source.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    notes: Vec<Note>,
    not_held: Vec<(ContentId, PeerId, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Note {
    reporter: PeerId,
    at: Instant,
    wrong_bytes: bool,
}

impl Faults {
    pub(super) fn add(&mut self, now: Instant, reporter: PeerId, content: ContentId, fault: Fault) {
        self.fade(now);
        if fault == Fault::NotHeld {
            self.not_held.retain(|(other, by, _)| (*other, *by) != (content, reporter));
            if self.not_held.len() == NOT_HELD_MAX {
                self.not_held.remove(0);
            }
            self.not_held.push((content, reporter, now));
            return;
        }
        let before = self.notes.iter().position(|note| note.reporter == reporter);
        let was_wrong = before.is_some_and(|at| self.notes.remove(at).wrong_bytes);
        if self.notes.len() == REPORTERS_MAX {
            self.notes.remove(0);
        }
        let wrong_bytes = was_wrong || fault == Fault::WrongBytes;
        self.notes.push(Note { reporter, at: now, wrong_bytes });
    }

    /// A fetch went well: the reporter's word is taken back, unless it was about wrong bytes.
    pub(super) fn forgive(&mut self, reporter: PeerId) {
        self.notes.retain(|note| note.reporter != reporter || note.wrong_bytes);
    }

    fn fade(&mut self, now: Instant) {
        self.notes.retain(|note| remaining(note.at, now) > 0.0);
        self.not_held.retain(|(_, _, at)| remaining(*at, now) > 0.0);
    }

    pub(super) fn standing(&self, now: Instant, asker: &PeerId, content: &ContentId) -> Standing {
        let mut by_others = 0;
        for (_, reporter, _) in
            self.not_held.iter().filter(|(other, _, at)| other == content && remaining(*at, now) > 0.0)
        {
            if reporter == asker {
                return Standing::Excluded;
            }
            by_others += 1;
        }
        let notes = || self.notes.iter().filter(|note| remaining(note.at, now) > 0.0);
        let own = notes().find(|note| note.reporter == *asker);
        if own.is_some_and(|note| note.wrong_bytes) {
            return Standing::Excluded;
        }
        if by_others >= SEVERAL || notes().filter(|note| note.wrong_bytes).count() >= SEVERAL {
            return Standing::LastResort;
        }
        if notes().count() >= SEVERAL {
            return Standing::Last;
        }
        Standing::Good(1.0 + own.map_or(0.0, |note| OWN_PENALTY * remaining(note.at, now)))
    }
}

/// How much a word still weighs: from 1 down to 0.
fn remaining(at: Instant, now: Instant) -> f64 {
    1.0 - now.saturating_duration_since(at).as_secs_f64() / FADE.as_secs_f64()
}
