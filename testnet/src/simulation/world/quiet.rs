//! How a schedule ends: everything heals, and all have time to come to agree.

use std::time::Duration;

use super::World;
use crate::simulation::{
    cast::{Part, SUPERPEERS, Who},
    checks::Rule,
    faults::Weather,
};

/// Rounds of quiet time in which all must have come to agree.
const QUIET_ROUNDS: usize = 12;
/// What passes between two things that happen in quiet time: longer than anybody waits for an answer.
const QUIET_PAUSE: Duration = Duration::from_secs(21);
/// Letters in one round of quiet time: more would be a conversation that does not end.
const QUIET_LETTERS_MAX: usize = 20_000;

impl World {
    /// Everything heals, clocks are set right, and all have time to come to agree.
    pub(super) fn settle(&mut self) {
        self.network.heal();
        self.weather = Weather::CALM;
        for who in Who::all() {
            match who.part() {
                Part::Superpeer => self.superpeer(who).clock.correct(),
                _ => self.member(who).clock.correct(),
            }
            if !self.runs(who) {
                self.restart(who);
            }
        }
        self.tell(|| "everything heals".to_owned());
        for round in 0..QUIET_ROUNDS {
            for who in Who::superpeers() {
                for other in Who::superpeers().filter(|other| *other != who) {
                    self.now = self.now.plus(QUIET_PAUSE);
                    self.superpeer_ticks(who, other);
                    self.drain();
                    if self.truth.broken().is_some() {
                        return;
                    }
                }
            }
            for who in Who::members() {
                self.member_comes_to_rest(who, round);
                if self.truth.broken().is_some() {
                    return;
                }
            }
            if self.is_quiet() {
                break;
            }
        }
        let followers = self.followers();
        self.truth.settled(&followers);
    }

    /// Gives a member the time to get a valid credential, say what it has to say, and hear what there is.
    pub(super) fn member_comes_to_rest(&mut self, who: Who, round: usize) {
        self.now = self.now.plus(QUIET_PAUSE);
        let now = self.now;
        let superpeer = Who::superpeer(who.index() + round);
        let member = self.member(who);
        let question = if member.is_turned_away() { member.renew(superpeer) } else { None };
        let question = question.or_else(|| member.leave(superpeer));
        let question = question.or_else(|| member.join(who.identity().name.clone()));
        self.ask_all(who, question);
        self.drain();
        let questions = self.member(who).tell(superpeer, usize::MAX);
        self.ask_all(who, questions);
        self.drain();
        let questions = self.member(who).tick(now);
        self.ask_all(who, questions);
        self.drain();
    }

    /// Members whose databases must have everything in the end.
    pub(super) fn followers(&self) -> Vec<Who> {
        let stays = |who: &Who| {
            let ended = Who::superpeers().any(|superpeer| self.truth.knows_end(superpeer, *who));
            self.members[who.index() - SUPERPEERS].is_member() && !ended && self.truth.is_known(*who)
        };
        Who::members().filter(stays).collect()
    }

    /// Whether all agree, and nobody waits for anything.
    pub(super) fn is_quiet(&self) -> bool {
        let rests =
            |who: Who| self.truth.mirror_agrees(who) && self.members[who.index() - SUPERPEERS].is_content();
        self.truth.superpeers_agree() && self.followers().into_iter().all(rests)
    }

    pub(super) fn drain(&mut self) {
        for _ in 0..QUIET_LETTERS_MAX {
            let Some(letter) = self.network.take_oldest() else { return };
            self.arrive(letter);
            if self.truth.broken().is_some() {
                return;
            }
        }
        self.truth.violated(Rule::Converge, || "the machines do not stop talking".to_owned());
    }
}
