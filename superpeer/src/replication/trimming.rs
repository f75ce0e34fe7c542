//! Dropping copies that are too many, without ever dropping one that is needed.
//!
//! ```text
//!  too many ──▶ for as long as a grace period ──▶ as many others as the floor are asked whether they hold it, on
//!  their disks, now ──▶ all do ──▶ one copy is dropped ──▶ rest ──▶ …
//! ```
//!
//! Two super-peers that do not see each other may both do this at once, with other copies in mind. So a node that has
//! confirmed a copy drops it on nobody's request for [`CONFIRMED_FOR`], and a drop is sent only while the confirmations
//! it rests on are younger than that by far: whatever two planners do, as many copies as the floor remain.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{ids::ContentId, limits::QUICK_TIMEOUT, messages::vault::CONFIRMED_FOR};

/// Within which time all that are asked must have confirmed.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(20);
/// For how long a content is left alone after a copy was dropped, or could not be: its nodes still refuse to drop what
/// they have confirmed.
pub const REST: Duration = CONFIRMED_FOR;
/// Contents of which a copy is being dropped at a time.
const ASKED_MAX: usize = 512;

// The drop is on its way for at most the time of a call, and arrives while all confirmations hold.
const _: () = assert!(CONFIRM_WITHIN.as_secs() + QUICK_TIMEOUT.as_secs() < CONFIRMED_FOR.as_secs());

#[derive(Debug)]
enum Trim {
    /// There are too many copies.
    Excess { since: Instant },
    /// Others were asked.
    Asked { victim: PeerId, waited_for: Vec<PeerId>, until: Instant },
    /// A copy was dropped, or could not be.
    Resting { until: Instant },
}

/// Contents with too many copies.
#[derive(Debug, Default)]
pub(super) struct Trims {
    trims: HashMap<ContentId, Trim>,
    asked: usize,
}

impl Trims {
    /// There are too many copies of a content; whether it has been so for long enough to do something about it.
    pub(super) fn excess(&mut self, now: Instant, content: ContentId, patience: Duration) -> bool {
        let trim = self.trims.entry(content).or_insert(Trim::Excess { since: now });
        matches!(trim, Trim::Excess { since } if now.saturating_duration_since(*since) >= patience)
            && self.asked < ASKED_MAX
    }

    /// There are not too many copies of a content.
    pub(super) fn settled(&mut self, content: &ContentId) {
        if matches!(self.trims.get(content), Some(Trim::Excess { .. })) {
            self.trims.remove(content);
        }
    }

    /// Others are asked whether they hold a content that `victim` is to drop. At least one.
    pub(super) fn ask(&mut self, now: Instant, content: ContentId, victim: PeerId, others: Vec<PeerId>) {
        let asked = Trim::Asked { victim, waited_for: others, until: now + CONFIRM_WITHIN };
        self.asked += 1;
        self.trims.insert(content, asked);
    }

    /// A node that was asked has answered; gives who is to drop the content now.
    pub(super) fn confirmed(
        &mut self,
        now: Instant,
        content: ContentId,
        by: &PeerId,
        held: bool,
    ) -> Option<PeerId> {
        let Some(Trim::Asked { victim, waited_for, until }) = self.trims.get_mut(&content) else {
            return None;
        };
        let at = waited_for.iter().position(|peer| peer == by)?;
        let victim = *victim;
        if held && now < *until {
            waited_for.swap_remove(at);
            if !waited_for.is_empty() {
                return None;
            }
        }
        let all = waited_for.is_empty();
        self.rest(now, content);
        all.then_some(victim)
    }

    fn rest(&mut self, now: Instant, content: ContentId) {
        let before = self.trims.insert(content, Trim::Resting { until: now + REST });
        self.asked -= usize::from(matches!(before, Some(Trim::Asked { .. })));
    }

    /// Lets time pass; gives the contents to look at again.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<ContentId> {
        let mut late = Vec::new();
        let mut again = Vec::new();
        for (content, trim) in &self.trims {
            match trim {
                Trim::Asked { until, .. } if *until <= now => late.push(*content),
                Trim::Resting { until } if *until <= now => again.push(*content),
                _ => {}
            }
        }
        for content in late {
            self.rest(now, content);
        }
        for content in &again {
            self.trims.remove(content);
        }
        again
    }

    /// Contents whose excess has stood for so long.
    pub(super) fn ripe(&self, now: Instant, patience: Duration) -> Vec<ContentId> {
        let ripe = |trim: &Trim| matches!(trim, Trim::Excess { since } if now.saturating_duration_since(*since) >= patience);
        self.trims
            .iter()
            .filter(|(_, trim)| ripe(trim))
            .map(|(content, _)| *content)
            .take(ASKED_MAX)
            .collect()
    }

    /// How many contents have too many copies, or had until a moment ago.
    pub(super) fn len(&self) -> usize {
        self.trims.len()
    }
}
