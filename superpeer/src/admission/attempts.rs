//! How often strangers may try. Pure: token buckets, the time comes from the caller.
//!
//! A peer id costs a stranger nothing, so only the address and the whole can be limited against ill will; the limit per
//! peer keeps one joiner's endless retries off the disk. Only refused attempts count against address and whole: an
//! organisation that rolls out a hundred branches behind one address, all with good invites, waits for nothing.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Attempts of one peer in a minute: more than somebody mistypes.
pub const PER_PEER_PER_MINUTE: u32 = 10;
/// Refused attempts from one address in a minute: several people behind one router mistype.
pub const PER_ADDRESS_PER_MINUTE: u32 = 30;
/// Refused attempts of all in a minute: each costs one look-up, so this is far below what hurts.
pub const OVERALL_PER_MINUTE: u32 = 100;
/// Peers, and addresses, that are remembered at once. Refused ones are bounded by [`OVERALL_PER_MINUTE`] already, and
/// admitted ones by their invites.
const REMEMBERED_MAX: usize = 4096;

const MINUTE: Duration = Duration::from_mins(1);

/// Who tried how often of late.
#[derive(Debug)]
pub struct Attempts {
    peers: Buckets<PeerId>,
    addresses: Buckets<IpAddr>,
    overall: Bucket,
}

impl Attempts {
    /// Nobody has tried.
    pub fn new(now: Instant) -> Self {
        Self {
            peers: Buckets::new(PER_PEER_PER_MINUTE),
            addresses: Buckets::new(PER_ADDRESS_PER_MINUTE),
            overall: Bucket::full(OVERALL_PER_MINUTE, now),
        }
    }

    /// Whether this peer may try now; counts the attempt against it if so. `address` is where it connects from, where
    /// known.
    pub fn admits(&mut self, peer: &PeerId, address: Option<IpAddr>, now: Instant) -> bool {
        self.overall.has_one(OVERALL_PER_MINUTE, now)
            && address.is_none_or(|address| self.addresses.has_one(&block(address), now))
            && self.peers.take(*peer, now)
    }

    /// Counts a refusal against the address and the whole.
    pub fn refused(&mut self, address: Option<IpAddr>, now: Instant) {
        self.overall.take(OVERALL_PER_MINUTE, now);
        if let Some(address) = address {
            self.addresses.take(block(address), now);
        }
    }
}

/// What one customer of a provider has: an IPv4 address, or an IPv6 /64.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A bucket for each key, all of one size, that refills in a minute.
#[derive(Debug)]
struct Buckets<K> {
    size: u32,
    buckets: HashMap<K, Bucket>,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(size: u32) -> Self {
        Self { size, buckets: HashMap::new() }
    }

    fn has_one(&mut self, key: &K, now: Instant) -> bool {
        let size = self.size;
        self.buckets.get_mut(key).is_none_or(|bucket| bucket.has_one(size, now))
    }

    /// Takes one, if there is one. A key that cannot be remembered gets none.
    fn take(&mut self, key: K, now: Instant) -> bool {
        let size = self.size;
        if self.buckets.len() >= REMEMBERED_MAX && !self.buckets.contains_key(&key) {
            // A full bucket is what an unknown key has.
            self.buckets.retain(|_, bucket| !bucket.is_full(size, now));
            if self.buckets.len() >= REMEMBERED_MAX {
                return false;
            }
        }
        self.buckets.entry(key).or_insert_with(|| Bucket::full(size, now)).take(size, now)
    }
}

/// Tokens, in units of which a minute brings `size` × [`Self::UNITS`].
#[derive(Debug, Clone, Copy)]
struct Bucket {
    units: u64,
    at: Instant,
}

impl Bucket {
    /// A token in milliseconds of refilling at one token a minute: exact for every size.
    const UNITS: u64 = 60_000;

    const fn full(size: u32, now: Instant) -> Self {
        Self { units: size as u64 * Self::UNITS, at: now }
    }

    fn refill(&mut self, size: u32, now: Instant) {
        let passed = now.saturating_duration_since(self.at).min(MINUTE);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        if millis > 0 {
            self.units = (self.units + millis * u64::from(size)).min(u64::from(size) * Self::UNITS);
            self.at = now;
        }
    }

    fn is_full(&mut self, size: u32, now: Instant) -> bool {
        self.refill(size, now);
        self.units == u64::from(size) * Self::UNITS
    }

    fn has_one(&mut self, size: u32, now: Instant) -> bool {
        self.refill(size, now);
        self.units >= Self::UNITS
    }

    fn take(&mut self, size: u32, now: Instant) -> bool {
        let has_one = self.has_one(size, now);
        if has_one {
            self.units -= Self::UNITS;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fixtures::peer;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn one_peer_tries_ten_times_a_minute_and_again_after_a_while() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for _ in 0..PER_PEER_PER_MINUTE {
            assert!(attempts.admits(&peer(1), Some(v4(1)), start));
        }
        assert!(!attempts.admits(&peer(1), Some(v4(1)), start));
        assert!(attempts.admits(&peer(2), Some(v4(1)), start), "another peer is not held up");
        let (early, later) = (start + Duration::from_millis(5_999), start + Duration::from_secs(6));
        assert!(!attempts.admits(&peer(1), None, early));
        assert!(attempts.admits(&peer(1), None, later));
        assert!(!attempts.admits(&peer(1), None, later));
    }

    #[test]
    fn a_guesser_with_ever_new_peer_ids_is_stopped_by_its_address() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        let tried = (0..1000)
            .filter(|_| {
                let admitted = attempts.admits(&PeerId::random(), Some(v4(1)), start);
                if admitted {
                    attempts.refused(Some(v4(1)), start);
                }
                admitted
            })
            .count();
        assert_eq!(tried, PER_ADDRESS_PER_MINUTE as usize);
        assert!(attempts.admits(&peer(1), Some(v4(2)), start), "other addresses go on");
        let (one, same_network): (IpAddr, IpAddr) =
            ("2001:db8:0:1::1".parse().unwrap(), "2001:db8:0:1:ffff::9".parse().unwrap());
        assert_eq!(block(one), block(same_network));
    }

    #[test]
    fn many_addresses_together_are_stopped_and_recover() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for last in 0..=255 {
            if attempts.admits(&PeerId::random(), Some(v4(last)), start) {
                attempts.refused(Some(v4(last)), start);
            }
        }
        assert!(!attempts.admits(&peer(1), None, start));
        assert!(attempts.admits(&peer(1), None, start + MINUTE));
    }

    #[test]
    fn a_hundred_branches_with_good_invites_join_from_one_address_at_once() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        assert!((1..=100).all(|seed| attempts.admits(&peer(seed), Some(v4(1)), start)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let start = Instant::now();
        let mut attempts = Attempts::new(start);
        for _ in 0..2 * REMEMBERED_MAX {
            attempts.admits(&PeerId::random(), None, start);
        }
        assert_eq!(attempts.peers.buckets.len(), REMEMBERED_MAX);
        let later = start + MINUTE;
        assert!(attempts.admits(&PeerId::random(), None, later));
        assert_eq!(attempts.peers.buckets.len(), 1);
    }
}
