//! Whom to ask when several could answer: one first, a second one soon, and last whoever has not answered lately. Pure.
//!
//! A super-peer that is frozen, cut off or overloaded looks like one that is about to answer. So a question goes to the
//! preferred one, and after [`HEDGE_AFTER`] without an answer to the next one too; the first good answer counts. The ones that let
//! a question wait so long are remembered in a [`Roster`] and asked last until they give a sign of life, so that only the
//! first question pays for the discovery. Questions are such that two super-peers may take both: what is published twice is known
//! the second time.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// How long an answer is waited for before the next super-peer is asked too: above any round trip and the database's
/// usual time, and well below what a person notices as broken.
pub const HEDGE_AFTER: Duration = Duration::from_millis(500);
/// How long a question may take in all.
pub const GIVE_UP_AFTER: Duration = Duration::from_millis(2500);
/// How long it may take where nobody has answered lately: long enough for one that is there again.
pub const GIVE_UP_ON_THE_SILENT_AFTER: Duration = Duration::from_secs(1);

/// Who has not answered lately.
#[derive(Debug, Default)]
pub struct Roster {
    silent: HashSet<PeerId>,
}

impl Roster {
    /// Takes note that an answer is overdue. Whether that is news.
    pub fn is_silent(&mut self, peer: PeerId) -> bool {
        self.silent.insert(peer)
    }

    /// Takes note of a sign of life, or that the peer is not connected any more. Whether it had been silent.
    pub fn is_heard(&mut self, peer: &PeerId) -> bool {
        self.silent.remove(peer)
    }

    /// In which order to ask: as preferred, the silent ones last.
    pub fn order(&self, mut preferred: Vec<PeerId>) -> Vec<PeerId> {
        // Stable, so that preference decides among equals.
        preferred.sort_by_key(|peer| self.silent.contains(peer));
        preferred
    }

    /// Those of an order that answer; all where none does.
    pub fn answering(&self, preferred: Vec<PeerId>) -> Vec<PeerId> {
        let heard: Vec<PeerId> =
            preferred.iter().copied().filter(|peer| !self.silent.contains(peer)).collect();
        if heard.is_empty() { preferred } else { heard }
    }

    /// How long a question to these may take.
    pub fn patience(&self, order: &[PeerId]) -> Duration {
        if order.iter().all(|peer| self.silent.contains(peer)) {
            GIVE_UP_ON_THE_SILENT_AFTER
        } else {
            GIVE_UP_AFTER
        }
    }
}

/// What to do about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask this one too.
    Ask(PeerId),
    /// This one lets it wait.
    Silent(PeerId),
    /// Nobody answers.
    GiveUp,
}

/// One question on its way, until somebody has answered it.
#[derive(Debug)]
pub struct Question {
    waiting: VecDeque<PeerId>,
    asked: Vec<PeerId>,
    /// When the next one is asked too.
    hedge_at: Instant,
    until: Instant,
}

impl Question {
    /// Begins to ask, in this order.
    pub fn new(now: Instant, order: Vec<PeerId>, patience: Duration) -> (Self, Vec<Effect>) {
        let mut question =
            Self { waiting: order.into(), asked: Vec::new(), hedge_at: now, until: now + patience };
        let mut effects = Vec::new();
        question.ask(now, &mut effects);
        (question, effects)
    }

    /// This one cannot answer: the next one is asked at once.
    pub fn failed(&mut self, now: Instant, peer: &PeerId) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.asked.retain(|asked| asked != peer);
        self.ask(now, &mut effects);
        effects
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now >= self.until {
            effects.extend(self.asked.drain(..).map(Effect::Silent));
            self.waiting.clear();
            effects.push(Effect::GiveUp);
        } else if now >= self.hedge_at {
            effects.extend(self.asked.iter().copied().map(Effect::Silent));
            if self.waiting.is_empty() {
                self.hedge_at = self.until;
            } else {
                self.ask(now, &mut effects);
            }
        }
        effects
    }

    /// When [`Self::tick`] is next needed.
    pub fn next_wakeup(&self) -> Instant {
        self.hedge_at.min(self.until)
    }

    fn ask(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        match self.waiting.pop_front() {
            Some(peer) => {
                self.asked.push(peer);
                self.hedge_at = now + HEDGE_AFTER;
                effects.push(Effect::Ask(peer));
            }
            None if self.asked.is_empty() => effects.push(Effect::GiveUp),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peers(count: usize) -> Vec<PeerId> {
        std::iter::repeat_with(PeerId::random).take(count).collect()
    }

    #[test]
    fn the_next_one_is_asked_after_half_a_second_and_the_silent_one_last_from_then_on() {
        let (now, all) = (Instant::now(), peers(2));
        let mut roster = Roster::default();
        let (mut question, effects) = Question::new(now, roster.order(all.clone()), GIVE_UP_AFTER);
        assert_eq!(effects, [Effect::Ask(all[0])]);
        assert_eq!(question.next_wakeup(), now + HEDGE_AFTER);
        assert_eq!(question.tick(now + HEDGE_AFTER), [Effect::Silent(all[0]), Effect::Ask(all[1])]);
        assert!(roster.is_silent(all[0]) && !roster.is_silent(all[0]));
        assert_eq!(roster.order(all.clone()), [all[1], all[0]]);
        assert_eq!(roster.answering(all.clone()), [all[1]]);
        assert!(roster.is_heard(&all[0]) && !roster.is_heard(&all[0]));
        assert_eq!(roster.order(all.clone()), all);
    }

    #[test]
    fn one_that_cannot_answer_costs_no_wait() {
        let (now, all) = (Instant::now(), peers(3));
        let (mut question, _) = Question::new(now, all.clone(), GIVE_UP_AFTER);
        assert_eq!(question.failed(now, &all[0]), [Effect::Ask(all[1])]);
        assert_eq!(question.failed(now, &all[1]), [Effect::Ask(all[2])]);
        assert_eq!(question.failed(now, &all[2]), [Effect::GiveUp]);
    }

    #[test]
    fn where_nobody_has_answered_lately_the_wait_is_short() {
        let all = peers(2);
        let mut roster = Roster::default();
        roster.is_silent(all[0]);
        assert_eq!(roster.patience(&all), GIVE_UP_AFTER);
        roster.is_silent(all[1]);
        assert_eq!(roster.patience(&all), GIVE_UP_ON_THE_SILENT_AFTER);
        assert_eq!(roster.answering(all.clone()), all, "better than nobody");
    }

    proptest! {
        #[test]
        fn a_question_ends_in_time_and_asks_each_once(
            count in 0_usize..6, fails in prop::collection::vec((0_usize..6, 0_u64..900), 0..12),
        ) {
            let (start, all) = (Instant::now(), peers(count));
            let (mut question, mut effects) = Question::new(start, all.clone(), GIVE_UP_AFTER);
            let (mut now, mut asked, mut over) = (start, Vec::new(), false);
            let mut fails = fails.into_iter();
            while !over {
                for effect in effects.drain(..) {
                    match effect {
                        Effect::Ask(peer) => {
                            prop_assert!(!asked.contains(&peer));
                            asked.push(peer);
                        }
                        Effect::Silent(peer) => prop_assert!(asked.contains(&peer)),
                        Effect::GiveUp => over = true,
                    }
                }
                if over {
                    break;
                }
                let due = question.next_wakeup();
                match fails.next() {
                    Some((at, wait)) if now + Duration::from_millis(wait) < due => {
                        now += Duration::from_millis(wait);
                        if let Some(peer) = asked.get(at).copied() {
                            effects = question.failed(now, &peer);
                        }
                    }
                    _ => {
                        now = due;
                        effects = question.tick(now);
                    }
                }
                prop_assert!(now <= start + GIVE_UP_AFTER);
            }
        }
    }
}
