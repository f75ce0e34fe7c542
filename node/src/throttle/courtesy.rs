//! People first: what replication may move while people fetch.
//!
//! Counted in bytes and not in time: for each nine bytes that people move, a replica may move one. That is a tenth of the
//! line whatever the line is, limited, slow or shared with others, and nobody has to measure it. Where people's bytes do
//! not move, a replica's do not either, which lasts no longer than what is under way for people.

/// Bytes that people move for each byte of a replica.
const PEOPLE_PER_REPLICA: u64 = 9;
/// What replicas may have saved up, in bytes: not worth a chunk, so that saving up gives no burst.
const SAVED_MAX: u64 = 128 * 1024;

/// What replication may move beside people.
#[derive(Debug, Clone, Copy, Default)]
pub struct Courtesy {
    /// Bytes of replicas that people's bytes have paid for.
    saved: u64,
    /// People's bytes that are not worth a byte yet.
    rest: u64,
    /// Bytes of replicas that are still to be paid for.
    owed: u64,
}

impl Courtesy {
    /// People have moved so much.
    pub fn people_moved(&mut self, bytes: u64) {
        let all = self.rest.saturating_add(bytes);
        self.rest = all % PEOPLE_PER_REPLICA;
        let earned = all / PEOPLE_PER_REPLICA;
        let pays = earned.min(self.owed);
        self.owed -= pays;
        self.saved = self.saved.saturating_add(earned - pays).min(SAVED_MAX);
    }

    /// Whether a replica may move its next chunk. It may be larger than what is saved; the next one then waits longer.
    pub const fn may_replicate(&self) -> bool {
        self.owed == 0 && self.saved > 0
    }

    /// A replica has moved so much while people were there.
    pub fn replica_moved(&mut self, bytes: u64) {
        let pays = bytes.min(self.saved);
        self.saved -= pays;
        self.owed = self.owed.saturating_add(bytes - pays);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_replica_moves_nothing_before_people_have_moved_something() {
        let mut courtesy = Courtesy::default();
        assert!(!courtesy.may_replicate());
        courtesy.people_moved(8);
        assert!(!courtesy.may_replicate());
        courtesy.people_moved(1);
        assert!(courtesy.may_replicate());
        courtesy.replica_moved(1001);
        courtesy.people_moved(8999);
        assert!(!courtesy.may_replicate());
        courtesy.people_moved(10);
        assert!(courtesy.may_replicate());
    }

    proptest! {
        #[test]
        fn replicas_get_a_tenth_at_most_and_never_starve_while_people_move(
            steps in prop::collection::vec((1u64..300_000, 1u64..300_000), 50..400),
        ) {
            let mut courtesy = Courtesy::default();
            let (mut people, mut replicas, mut largest) = (0u64, 0u64, 0u64);
            for (person, chunk) in steps {
                courtesy.people_moved(person);
                people += person;
                if courtesy.may_replicate() {
                    courtesy.replica_moved(chunk);
                    replicas += chunk;
                    largest = largest.max(chunk);
                }
                prop_assert!(replicas <= people / 9 + largest, "{replicas} beside {people}");
                // What they do not get is at most what may not be saved, and one chunk that is to be paid for.
                prop_assert!(replicas + SAVED_MAX + largest >= people / 9, "{replicas} beside {people}");
            }
        }
    }
}
