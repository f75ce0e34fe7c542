//! The limits that hold now, for whom they hold, and what people leave to replication.
//!
//! What was decided ([`Plan`]) lies in `settings.toml` and can be changed while the node runs ([`Shared::set_limits`]).
//! Which limit counts is looked up when something is to be sent or was received, at most once a second, so that a
//! timetable needs no task of its own and an idle node does nothing.
//!
//! Uploads are limited where they leave, downloads where they arrive: a chunk that has arrived is held back until it may
//! count, and since a body is bounded by a few frames the sender then waits too.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{Zoned, civil::Weekday};
use libp2p::{Multiaddr, PeerId};
use quarta_daemon::settings::{self, SettingsError};
use quarta_protocols::messages::chunk::Purpose;

use super::Shared;
use crate::{
    settings::Settings,
    throttle::{
        Throttle,
        courtesy::Courtesy,
        near::{Subnet, is_near, own_subnets},
        timetable::{Day, Moment, Plan, Rates, TimetableError, fed_at_once},
    },
};

/// How long what the clock said counts.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long what the system said of its interfaces counts.
const SUBNETS_FOR: Duration = Duration::from_secs(30);
/// How long a replica's chunk waits for what people leave to it: far less than silence that would be held against whoever
/// sends it.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it looks.
const PATIENCE_STEP: Duration = Duration::from_millis(50);
/// How many times as much a byte costs a check of the disk while people fetch.
const SCRUB_BESIDE_PEOPLE: usize = 10;
/// Downloads that are limited, at once, where the limit feeds as many: more than four fetches have under way.
const DOWNLOADS_MAX: u32 = 256;

/// The limits, as they are now.
pub(crate) struct Limits {
    now: Mutex<Now>,
    upload: Throttle<PeerId>,
    download: Throttle<PeerId>,
    /// Requests under way that a download limit holds for.
    downloads: Mutex<u32>,
    near: Mutex<Near>,
    courtesy: Mutex<Courtesy>,
    /// Held while the settings are changed, so that no change is lost.
    changing: tokio::sync::Mutex<()>,
}

struct Now {
    plan: Plan,
    looked: Option<Instant>,
    rates: Rates,
}

#[derive(Default)]
struct Near {
    subnets: Option<(Instant, Vec<Subnet>)>,
    /// By connected peer, as its latest connection is.
    peers: HashMap<PeerId, bool>,
}

/// Why limits are not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LimitsError {
    /// They are none.
    #[error(transparent)]
    Wrong(#[from] TimetableError),
    /// They cannot be kept.
    #[error(transparent)]
    Unwritable(#[from] SettingsError),
}

/// The minute of the week, as this machine's clocks show it.
fn moment() -> Moment {
    let now = Zoned::now();
    let day = match now.weekday() {
        Weekday::Monday => Day::Mon,
        Weekday::Tuesday => Day::Tue,
        Weekday::Wednesday => Day::Wed,
        Weekday::Thursday => Day::Thu,
        Weekday::Friday => Day::Fri,
        Weekday::Saturday => Day::Sat,
        Weekday::Sunday => Day::Sun,
    };
    let minute = i32::from(now.hour()) * 60 + i32::from(now.minute());
    Moment { day, minute: u16::try_from(minute).unwrap_or_default() }
}

impl Limits {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            now: Mutex::new(Now { plan, looked: None, rates: Rates::default() }),
            upload: Throttle::default(),
            download: Throttle::default(),
            downloads: Mutex::new(0),
            near: Mutex::default(),
            courtesy: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn near(&self) -> MutexGuard<'_, Near> {
        self.near.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn courtesy(&self) -> MutexGuard<'_, Courtesy> {
        self.courtesy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is set.
    pub(crate) fn plan(&self) -> Plan {
        self.now().plan.clone()
    }

    /// What holds now.
    pub(crate) fn rates(&self) -> Rates {
        let mut now = self.now();
        if now.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            now.looked = Some(Instant::now());
            now.rates = now.plan.at(moment());
        }
        now.rates
    }

    fn apply(&self, plan: Plan) {
        let mut now = self.now();
        now.plan = plan;
        now.looked = None;
    }

    /// A member is connected, over a connection with this address at its other end.
    pub(super) fn connected(&self, peer: PeerId, remote: &Multiaddr) {
        let mut near = self.near();
        if near.subnets.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= SUBNETS_FOR) {
            near.subnets = Some((Instant::now(), own_subnets()));
        }
        let is_near = near.subnets.as_ref().is_some_and(|(_, own)| is_near(remote, own));
        near.peers.insert(peer, is_near);
    }

    /// A member is connected no more.
    pub(super) fn departed(&self, peer: &PeerId) {
        self.near().peers.remove(peer);
    }

    /// Whether no limit holds for transfers with this peer, because it is on the own network.
    pub(super) fn spares(&self, peer: &PeerId) -> bool {
        !self.now().plan.limit_lan && self.near().peers.get(peer).copied().unwrap_or(false)
    }

    /// Returns when so much may be sent to a peer. Cancel-safe.
    pub(super) async fn send(&self, peer: PeerId, bytes: usize) {
        if !self.spares(&peer) {
            self.upload.pass(peer, bytes, || self.rates().upload_bytes_per_second).await;
        }
    }

    /// Returns when so much may have been received from a peer. Cancel-safe.
    pub(super) async fn receive(&self, peer: PeerId, bytes: usize) {
        if !self.spares(&peer) {
            self.download.pass(peer, bytes, || self.rates().download_bytes_per_second).await;
        }
    }

    /// How many uploads the limit feeds at once, of `all` at most.
    pub(super) fn uploads_fed(&self, all: u32) -> u32 {
        fed_at_once(self.rates().upload_bytes_per_second, all)
    }

    /// A request to a peer begins, which ends when this is dropped. None where the limit feeds no more of them: it would
    /// only take the peer's slot, and its silence be held against it.
    pub(super) fn begin_download(&self, peer: &PeerId) -> Option<Downloading<'_>> {
        let Some(rate) = self.rates().download_bytes_per_second.filter(|_| !self.spares(peer)) else {
            return Some(Downloading(None));
        };
        let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        if *downloads >= fed_at_once(Some(rate), DOWNLOADS_MAX) {
            return None;
        }
        *downloads += 1;
        Some(Downloading(Some(self)))
    }

    /// Something was moved over the line. Replicas were counted when they were let ([`Shared::may_replicate`]).
    pub(super) fn moved(&self, purpose: Purpose, bytes: usize) {
        if purpose.is_person() {
            self.courtesy().people_moved(bytes as u64);
        }
    }
}

/// A request that a download limit may hold for.
pub(super) struct Downloading<'a>(Option<&'a Limits>);

impl Drop for Downloading<'_> {
    fn drop(&mut self) {
        if let Some(limits) = self.0 {
            let mut downloads = limits.downloads.lock().unwrap_or_else(PoisonError::into_inner);
            *downloads = downloads.saturating_sub(1);
        }
    }
}

impl Shared {
    /// Sets the limits, now and for later starts.
    ///
    /// # Errors
    /// [`LimitsError`]; the former ones then hold.
    pub(crate) async fn set_limits(self: &Arc<Self>, plan: Plan) -> Result<(), LimitsError> {
        plan.check()?;
        let _changing = self.limits.changing.lock().await;
        let (shared, kept) = (self.clone(), plan.clone());
        let saving = tokio::task::spawn_blocking(move || {
            // What the command line decided for this run stays out of the file.
            let mut settings: Settings = settings::load(shared.dir.folder())?;
            settings.set_limits(kept);
            settings::save(shared.dir.folder(), &settings)
        });
        if let Ok(saved) = saving.await {
            saved?;
        }
        self.limits.apply(plan);
        Ok(())
    }

    /// Whether people fetch here, or from here.
    pub(super) fn people_are_active(&self) -> bool {
        self.fetches.active() > 0 || self.uploads.serves_people()
    }

    /// What reading so much counts as for a check of the disk: people's reads go before it.
    pub(super) fn scrub_cost(&self, bytes: usize) -> usize {
        if self.people_are_active() { bytes.saturating_mul(SCRUB_BESIDE_PEOPLE) } else { bytes }
    }

    /// Whether a replica's chunk could go now.
    pub(super) fn has_room_for_replicas(&self) -> bool {
        !self.people_are_active() || self.limits.courtesy().may_replicate()
    }

    /// Returns when a replica's chunk of so many bytes may go; `false` where people need the line for longer than a peer
    /// can be let wait.
    pub(super) async fn may_replicate(&self, bytes: usize) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            if !self.people_are_active() {
                return true;
            }
            {
                let mut courtesy = self.limits.courtesy();
                if courtesy.may_replicate() {
                    courtesy.replica_moved(bytes as u64);
                    return true;
                }
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(PATIENCE_STEP).await;
        }
    }
}
