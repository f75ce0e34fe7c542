//! Bytes that sources were chosen for and have not been reported yet, and how many they were lately chosen for.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::ids::ContentId;

/// Leases of all members together: at the longest search rate in mind (5 000 a second, 2 s each) there are 10 000; what
/// is above the bound ends early.
const LEASES_MAX: usize = 100_000;
/// The shortest lease: a small fetch takes a connection and a few round trips.
const LEASE_MIN: Duration = Duration::from_secs(2);
/// The longest lease: a fetch that takes longer asks or reports in between.
pub(super) const LEASE_MAX: Duration = Duration::from_mins(5);
/// In which time recently assigned bytes count half.
const RECENT_HALF_LIFE: Duration = Duration::from_mins(1);

/// Who fetches what from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LeaseKey {
    pub(super) asker: PeerId,
    pub(super) content: ContentId,
    pub(super) source: PeerId,
}

#[derive(Debug, Clone, Copy)]
struct Lease {
    bytes: u64,
    /// How many leases its source had when it was made, with this one.
    beside: u32,
    expiry: (Instant, u64),
}

/// What a source has to send under leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Outstanding {
    pub(super) bytes: u64,
    pub(super) leases: u32,
}

/// All leases that have not run out.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_key: HashMap<LeaseKey, Lease>,
    expiries: BTreeMap<(Instant, u64), LeaseKey>,
    by_source: HashMap<PeerId, Outstanding>,
    serial: u64,
}

impl Leases {
    /// Ends what has run out.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((expiry, key)) = self.expiries.first_key_value().map(|(expiry, key)| (*expiry, *key))
            && (expiry.0 <= now || self.by_key.len() > LEASES_MAX)
        {
            self.remove(&key);
        }
    }

    /// Adds to what an asker fetches of a content from a source, for twice as long as that is expected to take.
    pub(super) fn add(&mut self, now: Instant, key: LeaseKey, bytes: u64, expected: Duration) {
        let before = self.remove(&key).map_or(0, |lease| lease.bytes);
        let bytes = before.saturating_add(bytes);
        self.serial += 1;
        let expiry = (now + expected.saturating_mul(2).clamp(LEASE_MIN, LEASE_MAX), self.serial);
        let outstanding = self.by_source.entry(key.source).or_default();
        outstanding.bytes = outstanding.bytes.saturating_add(bytes);
        outstanding.leases += 1;
        self.by_key.insert(key, Lease { bytes, beside: outstanding.leases, expiry });
        self.expiries.insert(expiry, key);
        self.expire(now);
    }

    /// Ends a lease and gives how many fetches, itself among them, its source was busy with: the most that is known of.
    pub(super) fn end(&mut self, key: &LeaseKey) -> u32 {
        let now_beside = self.outstanding(&key.source).leases;
        self.remove(key).map_or(1, |lease| lease.beside.max(now_beside))
    }

    fn remove(&mut self, key: &LeaseKey) -> Option<Lease> {
        let lease = self.by_key.remove(key)?;
        self.expiries.remove(&lease.expiry);
        if let Some(outstanding) = self.by_source.get_mut(&key.source) {
            outstanding.bytes = outstanding.bytes.saturating_sub(lease.bytes);
            outstanding.leases -= 1;
            if outstanding.leases == 0 {
                self.by_source.remove(&key.source);
            }
        }
        Some(lease)
    }

    pub(super) fn outstanding(&self, source: &PeerId) -> Outstanding {
        self.by_source.get(source).copied().unwrap_or_default()
    }

    /// Ends all that a member fetches or sends.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        let of_peer = |key: &&LeaseKey| key.asker == *peer || key.source == *peer;
        for key in self.by_key.keys().filter(of_peer).copied().collect::<Vec<_>>() {
            self.remove(&key);
        }
    }
}

/// Bytes that weigh less the longer ago they were assigned.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    bytes: f64,
    at: Option<Instant>,
}

impl Recent {
    pub(super) fn at(&self, now: Instant) -> f64 {
        let age = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.bytes * (-age.as_secs_f64() / RECENT_HALF_LIFE.as_secs_f64()).exp2()
    }

    pub(super) fn add(&mut self, now: Instant, bytes: u64) {
        *self = Self { bytes: self.at(now) + bytes as f64, at: Some(now) };
    }
}
