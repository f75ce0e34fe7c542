//! Letters: how they are sent, and what comes of their arrival.

use quarta_protocols::credentials::Credential;
use rand::RngExt;

use super::{
    Asked, World,
    words::{brief, describe},
};
use crate::simulation::{
    adversary::Verdict,
    cast::{Part, Who},
    checks::Cause,
    faults::Fault,
    network::{Answer, Ask, Body, Letter},
    superpeer::{Question, Reply, Sent},
};

impl World {
    pub(super) fn ask_all(&mut self, from: Who, questions: impl IntoIterator<Item = Question>) {
        for question in questions {
            self.ask(from, question);
        }
    }

    /// Sends what a super-peer has to say. `asked` is the question that led to it, and whether its asker's membership
    /// was known to have ended before.
    pub(super) fn dispatch(&mut self, from: Who, sent: Sent, asked: Option<&Asked>) {
        for Reply { to, call, answer } in sent.replies {
            if let Some(asked) = asked.filter(|asked| (asked.from, asked.call) == (to, call)) {
                self.truth.hears(from, to, &asked.ask, &answer, asked.verdict);
            }
            self.truth.hears_what_is_shown(from, to, &answer);
            let ended = match asked {
                Some(asked) => asked.ended.contains(&to),
                None => self.truth.knows_end(from, to),
            };
            if ended {
                self.truth.hears_what_the_ended_are_told(from, to, &answer);
            }
            self.tell(|| format!("{from} answers {to}: {}", brief(&answer)));
            self.send(from, to, call, Body::Answer(Box::new(answer)), None);
        }
        self.ask_all(from, sent.questions);
    }

    pub(super) fn ask(&mut self, from: Who, question: Question) {
        self.adversary.overhears(&question.ask);
        let credential = match from.part() {
            Part::Superpeer => from.identity().credential.clone(),
            _ => self.member(from).credential().cloned(),
        };
        let Question { to, call, ask } = question;
        self.send(from, to, call, Body::Ask(credential, Box::new(ask)), None);
    }

    pub(super) fn send(&mut self, from: Who, to: Who, call: u64, body: Body, verdict: Option<Verdict>) {
        let run = self.network.run_of(to);
        self.put_under_way(Letter { from, to, run, call, body, verdict });
    }

    pub(super) fn put_under_way(&mut self, letter: Letter) {
        if self.network.send(letter).is_some() {
            self.struck(Fault::Lost, || "the oldest letter, in a full queue".to_owned());
        }
    }

    pub(super) fn deliver(&mut self) {
        let Some((letter, overtakes)) = self.network.take_any(&mut self.rng) else { return };
        if overtakes {
            self.counts.count(Fault::Reordered);
        }
        if self.weather.strikes(Fault::Lost, &mut self.rng) {
            self.struck(Fault::Lost, || describe(&letter));
            return;
        }
        if self.weather.strikes(Fault::Duplicated, &mut self.rng) {
            self.struck(Fault::Duplicated, || describe(&letter));
            self.put_under_way(letter.clone());
        }
        self.arrive(letter);
    }

    pub(super) fn arrive(&mut self, letter: Letter) {
        if !self.network.passes(&letter) || !self.runs(letter.to) {
            self.tell(|| format!("does not arrive: {}", describe(&letter)));
            return;
        }
        self.tell(|| format!("arrives: {}", describe(&letter)));
        let Letter { from, to, call, body, verdict, .. } = letter;
        match body {
            Body::Answer(answer) => self.take_answer(from, to, call, *answer),
            Body::Ask(credential, ask) => {
                if to.part() == Part::Superpeer {
                    self.superpeer_answers(from, to, call, credential.as_ref(), *ask, verdict);
                }
            }
        }
    }

    pub(super) fn superpeer_answers(
        &mut self,
        from: Who,
        to: Who,
        call: u64,
        credential: Option<&Credential>,
        ask: Ask,
        verdict: Option<Verdict>,
    ) {
        let (now, fresh) = (self.now, self.rng.random());
        let cause = match (&ask, verdict) {
            (_, Some(Verdict::Refused)) => Cause::Refused,
            (Ask::Admission(_), _) => Cause::Admission(from),
            _ => Cause::Honest,
        };
        let ended = Who::members().filter(|who| self.truth.knows_end(to, *who)).collect();
        let asked = Asked { from, call, ask, verdict, ended };
        let sent = self.superpeer(to).handle(now, (from, call), credential, asked.ask.clone(), fresh);
        self.truth.look(to, cause);
        if self.weather.strikes(Fault::CrashBeforeAnswer, &mut self.rng) {
            self.struck(Fault::CrashBeforeAnswer, || to.to_string());
            self.crash_superpeer(to);
            return;
        }
        self.dispatch(to, sent, Some(&asked));
    }

    pub(super) fn take_answer(&mut self, from: Who, to: Who, call: u64, answer: Answer) {
        let now = self.now;
        if to.part() == Part::Superpeer {
            let sent = self.superpeer(to).answered(now, from, call, answer);
            self.truth.look(to, Cause::Honest);
            self.dispatch(to, sent, None);
        } else {
            let learned = self.member(to).answered(now, call, answer);
            if learned.read {
                let database = self.member(to).database_file();
                self.truth.look_at_mirror(to, &database);
            }
            self.ask_all(to, learned.questions);
        }
    }
}
