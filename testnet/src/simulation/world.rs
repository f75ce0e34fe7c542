//! All machines, the network between them, and a schedule's course: what happens in a step, and how it ends.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use quarta_protocols::{endings::RevocationNotice, messages::changes};
use quarta_superpeer::catalog::Catalog;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};
use tempfile::TempDir;

use super::{
    Outcome, Schedule,
    adversary::{Adversary, Attempt, Verdict},
    cast::{Part, START, START_MS, SUPERPEERS, Who, cast},
    checks::{Backup, Cause, Rule, Truth},
    clock::Moment,
    faults::{Counts, Fault, Weather},
    member::{Member, Wish},
    network::{Answer, Ask, Body, Letter, Network},
    story::Story,
    superpeer::{Question, Reply, Sent, Superpeer},
};

/// The longest step, in milliseconds: a letter that is under way for some ten steps is not given up yet.
const STEP_MAX_MS: u64 = 400;
/// Backups kept of one super-peer.
const BACKUPS_MAX: usize = 2;
/// Rounds of quiet time in which all must have come to agree.
const QUIET_ROUNDS: usize = 12;
/// What passes between two things that happen in quiet time: longer than anybody waits for an answer.
const QUIET_PAUSE: Duration = Duration::from_secs(21);
/// Letters in one round of quiet time: more would be a conversation that does not end.
const QUIET_LETTERS_MAX: usize = 20_000;

/// Everything.
pub struct World {
    schedule: Schedule,
    rng: SmallRng,
    weather: Weather,
    now: Moment,
    network: Network,
    superpeers: Vec<Superpeer>,
    backups: Vec<Vec<(PathBuf, Backup)>>,
    members: Vec<Member>,
    adversary: Adversary,
    truth: Truth,
    counts: Counts,
    story: Story,
    folder: TempDir,
}

/// What a step does, and how often.
const DEEDS: [(Deed, u32); 9] = [
    (Deed::Deliver, 120),
    (Deed::Sign, 24),
    (Deed::Wait, 12),
    (Deed::Stay, 8),
    (Deed::Compare, 20),
    (Deed::Restart, 10),
    (Deed::Heal, 6),
    (Deed::Invite, 4),
    (Deed::End, 1),
];

/// A question that a super-peer was asked.
struct Asked {
    from: Who,
    call: u64,
    ask: Ask,
    verdict: Option<Verdict>,
    /// Of whom the super-peer knew before that their membership has ended.
    ended: Vec<Who>,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    /// A letter arrives.
    Deliver,
    /// A member changes something, or tells again what it has changed.
    Sign,
    /// Time passes for a member that follows.
    Wait,
    /// A member joins, renews or leaves.
    Stay,
    /// A super-peer compares its catalog with another's.
    Compare,
    /// Somebody who is down comes back.
    Restart,
    /// The network is whole again.
    Heal,
    /// An invite is issued.
    Invite,
    /// A member leaves or is revoked.
    End,
}

impl World {
    /// Everything as it is at the beginning.
    pub fn new(schedule: Schedule, story: Story) -> Self {
        let mut rng = SmallRng::seed_from_u64(schedule.seed);
        let weather = Weather::draw(&mut rng);
        let folder = folder();
        let mut truth = Truth::default();
        for who in Who::all() {
            let identity = who.identity();
            if let Some(credential) = &identity.credential {
                truth.enrolled(identity.enrolment(credential.clone()));
            }
        }
        let superpeers = Who::superpeers()
            .map(|who| {
                let place = folder.path().join(who.to_string());
                std::fs::create_dir(&place).expect("an empty folder takes another");
                let superpeer = Superpeer::new(who, place, schedule.sabotage);
                std::fs::write(superpeer.catalog_file(), template(who))
                    .expect("a file in memory can be written");
                superpeer
            })
            .collect();
        let members = Who::members()
            .map(|who| {
                let place = folder.path().join(who.to_string());
                std::fs::create_dir(&place).expect("an empty folder takes another");
                Member::new(who, place, schedule.sabotage)
            })
            .collect();
        let mut world = Self {
            schedule,
            rng,
            weather,
            now: Moment::START,
            network: Network::default(),
            superpeers,
            backups: (0..SUPERPEERS).map(|_| Vec::new()).collect(),
            members,
            adversary: Adversary::default(),
            truth,
            counts: Counts::default(),
            story,
            folder,
        };
        for who in Who::all() {
            world.restart(who);
        }
        world
    }

    /// Runs the schedule to its end, or to the first rule that is broken.
    pub fn run(mut self) -> Outcome {
        for step in 0..self.schedule.steps {
            self.story.step(step);
            self.now = self.now.plus(Duration::from_millis(self.rng.random_range(0..STEP_MAX_MS)));
            self.strike();
            self.act();
            if self.truth.broken().is_some() {
                break;
            }
        }
        if self.truth.broken().is_none() {
            self.story.step(self.schedule.steps);
            self.settle();
        }
        let violation = self.truth.broken().cloned();
        if let Some(violation) = &violation {
            self.story.tell(self.now, || format!("BROKEN  {violation}"));
        }
        Outcome { counts: self.counts, violation, story: self.story.into_lines() }
    }

    fn superpeer(&mut self, who: Who) -> &mut Superpeer {
        &mut self.superpeers[who.index()]
    }

    fn member(&mut self, who: Who) -> &mut Member {
        &mut self.members[who.index() - SUPERPEERS]
    }

    fn any_superpeer(&mut self) -> Who {
        Who::superpeer(self.rng.random_range(0..SUPERPEERS))
    }

    fn any_member(&mut self) -> Who {
        Who::members().choose(&mut self.rng).expect("there are members")
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        self.story.tell(self.now, line);
    }

    fn struck(&mut self, fault: Fault, line: impl FnOnce() -> String) {
        self.counts.count(fault);
        self.story.tell(self.now, || format!("{fault:?}: {}", line()));
    }

    // ---- what people and machines do

    fn act(&mut self) {
        let mut draw = self.rng.random_range(0..DEEDS.iter().map(|(_, weight)| weight).sum());
        let deed = DEEDS.iter().find(|(_, weight)| match draw.checked_sub(*weight) {
            Some(rest) => {
                draw = rest;
                false
            }
            None => true,
        });
        match deed.map_or(Deed::Deliver, |(deed, _)| *deed) {
            Deed::Deliver => self.deliver(),
            Deed::Sign => self.member_signs(),
            Deed::Wait => {
                let who = self.any_member();
                let now = self.now;
                let questions = self.member(who).tick(now);
                self.ask_all(who, questions);
            }
            Deed::Stay => self.member_stays(),
            Deed::Compare => {
                let (who, other) = (self.any_superpeer(), self.any_superpeer());
                if who != other {
                    self.superpeer_ticks(who, other);
                }
            }
            Deed::Restart => self.restart_somebody(),
            Deed::Invite => self.invite(),
            Deed::End => self.end_a_membership(),
            Deed::Heal => {
                if !self.network.is_whole() {
                    self.network.heal();
                    self.tell(|| "the network is whole again".to_owned());
                }
            }
        }
    }

    fn member_signs(&mut self) {
        let who = self.any_member();
        if !self.member(who).runs() {
            return;
        }
        let mut rng = self.fork();
        let record = match rng.random_range(0..10) {
            0..4 => self.member(who).sign(Wish::Add, &mut rng),
            4..6 => self.member(who).sign(Wish::Update, &mut rng),
            6 => self.member(who).sign(Wish::Delete, &mut rng),
            7 => self.give(who, &mut rng),
            // Nothing new.
            _ => None,
        };
        // What is new is told alone; what is told again is told with all that waits.
        let at_most = if record.is_some() { 1 } else { usize::MAX };
        let teller = record.as_ref().and_then(|record| Who::of_peer(&record.owner())).unwrap_or(who);
        if let Some(record) = record {
            self.truth.signed_record(&record);
            self.tell(|| {
                let (file, body) = (record.file().short(), record.body());
                format!("{teller} signs {file} revision {}", body.revision)
            });
        }
        let superpeer = self.any_superpeer();
        let question = self.member(teller).tell(superpeer, at_most);
        self.ask_all(teller, question);
    }

    fn member_stays(&mut self) {
        let (who, superpeer) = (self.any_member(), self.any_superpeer());
        let name = self.any_member().identity().name.clone();
        let renews = self.rng.random_bool(0.4);
        let member = self.member(who);
        let question = member.join(name).or_else(|| member.leave(superpeer));
        let question = question.or_else(|| renews.then(|| member.renew(superpeer)).flatten());
        self.ask_all(who, question);
    }

    fn end_a_membership(&mut self) {
        let (who, superpeer) = (self.any_member(), self.any_superpeer());
        if self.rng.random_bool(0.5) {
            if let Some(departure) = self.member(who).decide_to_leave() {
                self.truth.signed_departure(&departure);
                self.tell(|| format!("{who} decides to leave for good"));
            }
            return;
        }
        if self.member(who).credential().is_none() || !self.superpeer(superpeer).runs() {
            return;
        }
        let trust = &cast().trust;
        let notice = if self.rng.random_bool(0.3) {
            RevocationNotice::by_root(who.peer(), &cast().root, trust)
        } else {
            let identity = superpeer.identity();
            let credential = identity.credential.clone().expect("super-peers have credentials");
            RevocationNotice::by_superpeer(who.peer(), &identity.key, credential, trust)
        };
        self.truth.signed_revocation(&notice);
        let now = self.now;
        let sent = self.superpeer(superpeer).revoke(now, notice);
        self.truth.look(superpeer, Cause::Honest);
        self.tell(|| format!("{superpeer} revokes {who}"));
        self.dispatch(superpeer, sent, None);
    }

    fn give(&mut self, from: Who, rng: &mut SmallRng) -> Option<quarta_protocols::records::Record> {
        let to = Who::members().filter(|to| *to != from).choose(rng)?;
        let (low, high) = (from.min(to).index() - SUPERPEERS, from.max(to).index() - SUPERPEERS);
        let (left, right) = self.members.split_at_mut(high);
        let (low, high) = (&mut left[low], &mut right[0]);
        if from < to { low.give(high, rng) } else { high.give(low, rng) }
    }

    fn invite(&mut self) {
        let issuer = self.any_superpeer();
        let secret: [u8; 16] = self.rng.random();
        let uses = 1;
        let now = self.now;
        if !self.superpeer(issuer).runs() || !self.superpeer(issuer).invite(now, secret, uses) {
            return;
        }
        self.truth.issued(secret, uses);
        self.truth.look(issuer, Cause::Honest);
        let strangers: Vec<Who> = Who::members().filter(|who| who.part() == Part::Stranger).collect();
        for stranger in &strangers {
            self.member(*stranger).hear_of_invite(issuer, secret);
        }
        self.tell(|| format!("{issuer} issues an invite for {uses}, and all strangers hear of it"));
    }

    fn superpeer_ticks(&mut self, who: Who, other: Who) {
        if !self.superpeer(who).runs() {
            return;
        }
        let now = self.now;
        let sent = self.superpeer(who).tick(now, other);
        self.truth.look(who, Cause::Honest);
        self.dispatch(who, sent, None);
    }

    fn restart_somebody(&mut self) {
        let dead: Vec<Who> = Who::all().filter(|who| !self.runs(*who)).collect();
        let Some(who) = dead.into_iter().choose(&mut self.rng) else { return };
        self.restart(who);
    }

    fn runs(&self, who: Who) -> bool {
        match who.part() {
            Part::Superpeer => self.superpeers[who.index()].runs(),
            _ => self.members[who.index() - SUPERPEERS].runs(),
        }
    }

    fn restart(&mut self, who: Who) {
        self.network.starts(who);
        if who.part() == Part::Superpeer {
            self.start_superpeer(who);
            return;
        }
        let now = self.now;
        let questions = self.member(who).start(now);
        self.tell(|| format!("{who} starts"));
        self.ask_all(who, questions);
    }

    fn start_superpeer(&mut self, who: Who) {
        let (now, run) = (self.now, self.rng.random());
        self.superpeer(who).start(now, run);
        let database = self.superpeer(who).catalog_file();
        self.truth.started(who, &database);
        self.tell(|| format!("{who} starts"));
    }

    fn crash_superpeer(&mut self, who: Who) {
        self.truth.died(who);
        let now = self.now;
        self.superpeer(who).crash(now);
    }

    // ---- letters

    fn ask_all(&mut self, from: Who, questions: impl IntoIterator<Item = Question>) {
        for question in questions {
            self.ask(from, question);
        }
    }

    /// Sends what a super-peer has to say. `asked` is the question that led to it, and whether its asker's membership
    /// was known to have ended before.
    fn dispatch(&mut self, from: Who, sent: Sent, asked: Option<&Asked>) {
        for Reply { to, call, answer } in sent.replies {
            if let Some(asked) = asked.filter(|asked| (asked.from, asked.call) == (to, call)) {
                self.truth.hears(from, to, &asked.ask, &answer, asked.verdict);
            }
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

    fn ask(&mut self, from: Who, question: Question) {
        self.adversary.overhears(&question.ask);
        let credential = match from.part() {
            Part::Superpeer => from.identity().credential.clone(),
            _ => self.member(from).credential().cloned(),
        };
        let Question { to, call, ask } = question;
        self.send(from, to, call, Body::Ask(credential, Box::new(ask)), None);
    }

    fn send(&mut self, from: Who, to: Who, call: u64, body: Body, verdict: Option<Verdict>) {
        let run = self.network.run_of(to);
        self.put_under_way(Letter { from, to, run, call, body, verdict });
    }

    fn put_under_way(&mut self, letter: Letter) {
        if self.network.send(letter).is_some() {
            self.struck(Fault::Lost, || "the oldest letter, in a full queue".to_owned());
        }
    }

    fn deliver(&mut self) {
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

    fn arrive(&mut self, letter: Letter) {
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

    fn superpeer_answers(
        &mut self,
        from: Who,
        to: Who,
        call: u64,
        credential: Option<&quarta_protocols::credentials::Credential>,
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

    fn take_answer(&mut self, from: Who, to: Who, call: u64, answer: Answer) {
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

    // ---- what goes wrong

    fn strike(&mut self) {
        for fault in Fault::ALL {
            let of_letters = matches!(
                fault,
                Fault::Lost | Fault::Duplicated | Fault::Reordered | Fault::CrashBeforeAnswer
            );
            if !of_letters && self.weather.strikes(fault, &mut self.rng) {
                self.befall(fault);
            }
        }
        // What can be restored later.
        if self.rng.random_bool(0.02) {
            self.back_up();
        }
    }

    fn befall(&mut self, fault: Fault) {
        let mut rng = self.fork();
        match fault {
            Fault::Partition => {
                let half = self.network.split(&mut rng);
                self.struck(fault, || half.iter().map(Who::to_string).collect::<Vec<_>>().join(" "));
            }
            Fault::OneWayCut => {
                let (from, to) = (self.any_superpeer(), self.any_superpeer());
                if from != to {
                    self.network.deafen(from, to);
                    self.struck(fault, || format!("{to} does not hear {from}"));
                }
            }
            Fault::SuperpeerCrash => {
                let who = self.any_superpeer();
                if self.runs(who) {
                    self.struck(fault, || who.to_string());
                    self.crash_superpeer(who);
                }
            }
            Fault::MemberCrash => {
                let who = self.any_member();
                if self.runs(who) {
                    self.struck(fault, || who.to_string());
                    self.truth.member_died(who);
                    self.member(who).crash();
                }
            }
            Fault::RestoredBackup => self.restore(),
            Fault::ClockJump | Fault::ClockYearsOff => {
                let who = Who::all().choose(&mut rng).expect("there is somebody");
                let clock = match who.part() {
                    Part::Superpeer => &mut self.superpeer(who).clock,
                    _ => &mut self.member(who).clock,
                };
                let off =
                    if fault == Fault::ClockJump { clock.jump(&mut rng) } else { clock.fall_out(&mut rng) };
                self.struck(fault, || format!("the clock of {who} is {} days off", off.as_secs() / 86_400));
            }
            Fault::LongSilence => {
                let days = rng.random_range(1..8);
                self.now = self.now.plus(Duration::from_hours(24 * days));
                self.struck(fault, || format!("{days} days"));
            }
            Fault::Replay | Fault::Forgery => {
                let attempt = if fault == Fault::Replay {
                    self.adversary.replay(&mut rng)
                } else {
                    self.adversary.forge(&mut rng)
                };
                if let Some(Attempt { from, to, credential, ask, verdict, what }) = attempt {
                    self.struck(fault, || format!("{what}, {from} to {to}"));
                    let body = Body::Ask(credential, Box::new(ask));
                    self.send(from, to, 0, body, Some(verdict));
                }
            }
            Fault::Lost | Fault::Duplicated | Fault::Reordered | Fault::CrashBeforeAnswer => {}
        }
    }

    /// A generator of its own for what needs the world at the same time.
    fn fork(&mut self) -> SmallRng {
        SmallRng::seed_from_u64(self.rng.next_u64())
    }

    fn back_up(&mut self) {
        let who = self.any_superpeer();
        let number = self.rng.random::<u32>();
        let place = self.folder.path().join(format!("backup-{who}-{number}"));
        std::fs::create_dir(&place).expect("an empty folder takes another");
        self.superpeer(who).copy_disk_to(&place);
        let backup = self.truth.backup(who);
        let backups = &mut self.backups[who.index()];
        if backups.len() == BACKUPS_MAX {
            backups.remove(0);
        }
        backups.push((place, backup));
        self.tell(|| format!("a backup is made of {who}"));
    }

    fn restore(&mut self) {
        let who = self.any_superpeer();
        if self.backups[who.index()].is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.backups[who.index()].len());
        self.crash_superpeer(who);
        let (place, backup) = &self.backups[who.index()][at];
        self.superpeers[who.index()].copy_disk_from(place);
        self.truth.restored(who, backup);
        self.struck(Fault::RestoredBackup, || who.to_string());
        self.restart(who);
    }

    // ---- and how it ends

    /// Everything heals, clocks are set right, and all have time to come to agree.
    fn settle(&mut self) {
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
    fn member_comes_to_rest(&mut self, who: Who, round: usize) {
        self.now = self.now.plus(QUIET_PAUSE);
        let now = self.now;
        let superpeer = Who::superpeer(who.index() + round);
        let member = self.member(who);
        let question = if member.is_turned_away() { member.renew(superpeer) } else { None };
        let question = question.or_else(|| member.leave(superpeer));
        let question = question.or_else(|| member.join(who.identity().name.clone()));
        self.ask_all(who, question);
        self.drain();
        let question = self.member(who).tell(superpeer, usize::MAX);
        self.ask_all(who, question);
        self.drain();
        let questions = self.member(who).tick(now);
        self.ask_all(who, questions);
        self.drain();
    }

    /// Members whose databases must have everything in the end.
    fn followers(&self) -> Vec<Who> {
        let stays = |who: &Who| {
            let ended = Who::superpeers().any(|superpeer| self.truth.knows_end(superpeer, *who));
            self.members[who.index() - SUPERPEERS].is_member() && !ended
        };
        Who::members().filter(stays).collect()
    }

    /// Whether all agree, and nobody waits for anything.
    fn is_quiet(&self) -> bool {
        let rests =
            |who: Who| self.truth.mirror_agrees(who) && self.members[who.index() - SUPERPEERS].is_content();
        self.truth.superpeers_agree() && self.followers().into_iter().all(rests)
    }

    fn drain(&mut self) {
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

fn describe(letter: &Letter) -> String {
    let Letter { from, to, call, body, .. } = letter;
    match body {
        Body::Ask(_, ask) => format!("{from} to {to}, question {call}: {}", question(ask)),
        Body::Answer(answer) => format!("{from} to {to}, answer {call}: {}", brief(answer)),
    }
}

fn question(ask: &Ask) -> String {
    shortened(match ask {
        Ask::Index(request) => format!("{request:?}"),
        Ask::Admission(request) => format!("{request:?}"),
        Ask::Sync(request) => format!("{request:?}"),
        Ask::Changes(changes::Request::Follow { since: None, .. }) => "Follow from the beginning".to_owned(),
        Ask::Changes(changes::Request::Follow { since: Some(cursor), .. }) => {
            format!("Follow after {} of run {:04x}", cursor.sequence, cursor.run >> 48)
        }
        Ask::Changes(request) => format!("{request:?}"),
    })
}

fn brief(answer: &Answer) -> String {
    shortened(match answer {
        Answer::Index(response) => format!("{response:?}"),
        Answer::Admission(response) => format!("{response:?}"),
        Answer::Sync(response) => format!("{response:?}"),
        Answer::Changes(changes::Response::Page { cursor, restart, changes, .. }) => format!(
            "Page of {} up to {} of run {:04x}{}",
            changes.len(),
            cursor.sequence,
            cursor.run >> 48,
            if *restart { ", from the beginning" } else { "" }
        ),
        Answer::Changes(response) => format!("{response:?}"),
        Answer::Closed => "closed at the gate".to_owned(),
    })
}

fn shortened(text: String) -> String {
    const CHARS: usize = 100;
    if text.chars().count() <= CHARS { text } else { text.chars().take(CHARS).chain(['…']).collect() }
}

/// A folder in memory, where there is one: a commit is synced, and nobody cuts the power of a simulation.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
        .expect("a temporary folder can be made")
}

/// The catalog of a super-peer at the beginning, as its file's bytes: all super-peers and nodes are members.
fn template(who: Who) -> &'static [u8] {
    static TEMPLATES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(first_catalogs);
    &TEMPLATES[who.index()]
}

/// The first super-peer admits everybody, the others hear of it: each has a database of its own.
fn first_catalogs() -> Vec<Vec<u8>> {
    let dir = folder();
    let open = |who: Who| {
        let (path, key) = (dir.path().join(who.to_string()), who.identity().key.clone());
        Catalog::open(&path, cast().trust.clone(), key).expect("a new catalog opens")
    };
    let mut catalogs: Vec<Catalog> = Who::superpeers().map(open).collect();
    let (first, others) = catalogs.split_first_mut().expect("there are super-peers");
    let mut entries = Vec::new();
    for member in Who::all() {
        let identity = member.identity();
        if let Some(credential) = &identity.credential {
            let enrolment = identity.enrolment(credential.clone());
            let told = first.enrol(enrolment, START_MS).expect("the cast's members can be enrolled");
            entries.extend(told);
        }
    }
    let identity = Who::superpeer(0).identity();
    let credential = identity.credential.as_ref().expect("super-peers have credentials");
    let from = credential.verify(&cast().trust, &identity.peer, START).expect("it is valid at the beginning");
    for other in others {
        // Twice: what is stamped by a super-peer that comes later in the list is put off at first.
        for _ in 0..2 {
            other.take(&from, entries.clone(), START_MS).expect("a new catalog takes entries");
        }
    }
    // Closing them brings their logs into the files.
    drop(catalogs);
    let read = |who: Who| std::fs::read(dir.path().join(who.to_string())).expect("a file can be read");
    Who::superpeers().map(read).collect()
}
