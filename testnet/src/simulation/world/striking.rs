//! What goes wrong, and how.

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};

use super::World;
use crate::simulation::{
    adversary::Attempt,
    cast::{Part, Who},
    faults::Fault,
    network::Body,
};

/// Backups kept of one super-peer.
const BACKUPS_MAX: usize = 2;

impl World {
    pub(super) fn strike(&mut self) {
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

    pub(super) fn befall(&mut self, fault: Fault) {
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
    pub(super) fn fork(&mut self) -> SmallRng {
        SmallRng::seed_from_u64(self.rng.next_u64())
    }

    pub(super) fn back_up(&mut self) {
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

    pub(super) fn restore(&mut self) {
        let who = self.any_superpeer();
        if self.backups[who.index()].is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.backups[who.index()].len());
        self.crash_superpeer(who);
        self.truth.loses_disk(who);
        let (place, backup) = &self.backups[who.index()][at];
        self.superpeers[who.index()].copy_disk_from(place);
        self.truth.restored(who, backup);
        self.struck(Fault::RestoredBackup, || who.to_string());
        self.restart(who);
    }
}
