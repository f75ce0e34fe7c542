//! All machines, the network between them, and a schedule's course: what happens in a step, and how it ends.

mod beginning;
mod delivering;
mod quiet;
mod striking;
mod words;

pub(super) use self::beginning::folder;

use std::{path::PathBuf, time::Duration};

use quarta_protocols::endings::RevocationNotice;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};
use tempfile::TempDir;

use self::beginning::template;
use super::{
    Outcome, Schedule,
    adversary::{Adversary, Verdict},
    cast::{Part, SUPERPEERS, Who, cast},
    checks::{Backup, Cause, Truth},
    clock::Moment,
    faults::{Counts, Fault, Weather},
    member::{List, Member, Wish},
    network::{Ask, Network},
    story::Story,
    superpeer::Superpeer,
};

/// The longest step, in milliseconds: a letter that is under way for some ten steps is not given up yet.
const STEP_MAX_MS: u64 = 400;

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
        let mut asks = None;
        let record = match rng.random_range(0..12) {
            0..4 => self.member(who).sign(Wish::Add, &mut rng),
            4..6 => self.member(who).sign(Wish::Update, &mut rng),
            6 => self.member(who).sign(Wish::Delete, &mut rng),
            7 => self.give(who, &mut rng),
            8 => self.member(who).sign(Wish::Restrict, &mut rng),
            9 => self.member(who).sign(Wish::AddHidden, &mut rng),
            10 => {
                let told = self.member(who).restate_a_list(&mut rng);
                if told {
                    asks = self.member(who).tell_lists(Who::superpeer(rng.random_range(0..SUPERPEERS)));
                }
                None
            }
            // Nothing new.
            _ => {
                asks = self.member(who).list(Who::superpeer(rng.random_range(0..SUPERPEERS)));
                None
            }
        };
        self.note_lists(who);
        // What is new is told alone; what is told again is told with all that waits.
        let at_most = if record.is_some() { 1 } else { usize::MAX };
        let teller = record.as_ref().and_then(|record| Who::of_peer(&record.owner())).unwrap_or(who);
        if let Some(record) = record {
            self.note_lists(teller);
            self.truth.signed_record(&record);
            self.tell(|| {
                let (file, body) = (record.file().short(), record.body());
                format!("{teller} signs {file} revision {}", body.revision)
            });
        }
        let superpeer = self.any_superpeer();
        let questions = self.member(teller).tell(superpeer, at_most);
        self.ask_all(teller, asks.into_iter().chain(questions));
    }

    /// Tells the watcher what a member has signed of its lists.
    fn note_lists(&mut self, who: Who) {
        for list in self.members[who.index() - SUPERPEERS].newly_signed() {
            match list {
                List::Audience(audience) => self.truth.signed_audience(audience),
                List::Wrap(wrap) => self.truth.signed_wrap(wrap),
            }
        }
    }

    fn member_stays(&mut self) {
        // Strangers more than others: they compete for the same invites.
        let strangers = Who::members().filter(|who| who.part() == Part::Stranger);
        let who = if self.rng.random_bool(0.5) {
            strangers.choose(&mut self.rng).expect("there are strangers")
        } else {
            self.any_member()
        };
        let superpeer = self.any_superpeer();
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
        let now = self.now;
        self.superpeer(who).crash(now);
    }
}
