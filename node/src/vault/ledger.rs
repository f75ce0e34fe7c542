//! What the vault keeps, wants and has room for. Pure: a moment and an input give an answer.
//!
//! - **Room is counted before anything is fetched**: a replica is accepted only where the quota and the disk's reserve
//!   have room for it and for all that was accepted before. So a vault never grows over its quota, and an answer of
//!   [`Outcome::NoRoom`] lets the planner choose somebody else at once.
//! - **Repairs go first**: they were counted on already. Else the order is that of the assignments.
//! - **Nothing is tried for ever**: after [`ATTEMPTS_MAX`] attempts a replica is given up and its space is free. A planner
//!   that still wants it sees in the inventory that it is not there, and tells again.
//! - **A job that was dropped changes nothing any more**, also where the same content was assigned again meanwhile: each
//!   entry has its own [`Ticket`].

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use quarta_protocols::{
    content::Geometry,
    ids::ContentId,
    messages::vault::{CONFIRMED_FOR, Outcome},
};

use super::Found;

/// Replicas that are fetched at once: more of them share the same line, and each holds buffers.
pub const FILLS_AT_ONCE: usize = 2;
/// Replicas that wait for their turn, repairs aside: twice what one request assigns.
pub const WAITING_MAX: usize = 1024;
/// Attempts before a replica is given up: with the pauses between them some eight minutes.
pub const ATTEMPTS_MAX: u32 = 8;
/// The pause after the first attempt; each further one is twice as long.
pub const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_mins(2);

/// How much the vault may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// All replicas together, in sealed bytes; none for as much as the disk has.
    pub quota_bytes: Option<u64>,
    /// What the vault leaves free on its disk, in bytes.
    pub reserve_bytes: u64,
}

/// Tells an entry from an earlier or later one of the same content. In the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A replica to fetch or repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// The content.
    pub content: ContentId,
    /// The plaintext's size, in bytes.
    pub size_bytes: u64,
    /// To be given back with the result.
    pub ticket: Ticket,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, later.
    Again,
    /// It is given up: what has arrived is of no use.
    GivenUp,
    /// Nothing: it had been dropped already.
    Nothing,
}

/// What the vault has, for showing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Whole replicas.
    pub whole: u64,
    /// Their sealed bytes.
    pub whole_bytes: u64,
    /// Replicas that are being fetched, repaired, or wait for that.
    pub wanted: u64,
    /// Sealed bytes of all, whole or not: what counts against the quota.
    pub claimed_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Waiting { not_before: Option<Instant>, attempts: u32, repair: bool },
    Filling { attempts: u32, repair: bool },
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    size_bytes: u64,
    sealed_bytes: u64,
    ticket: Ticket,
    state: State,
    /// When it was last confirmed to a super-peer.
    confirmed: Option<Instant>,
}

/// What the vault keeps and wants.
#[derive(Debug)]
pub struct Ledger {
    bounds: Bounds,
    entries: BTreeMap<ContentId, Entry>,
    /// Those that wait, in the order of their turns: repairs first.
    waiting: BTreeMap<(bool, Ticket), ContentId>,
    filling: usize,
    claimed_bytes: u64,
    /// Sealed bytes of those that wait: the disk has not given them yet.
    promised_bytes: u64,
    next: u64,
}

impl Ledger {
    /// With what lies in the vault at a start. What was in the making goes on.
    pub fn new(bounds: Bounds, found: &[Found]) -> Self {
        let mut ledger = Self {
            bounds,
            entries: BTreeMap::new(),
            waiting: BTreeMap::new(),
            filling: 0,
            claimed_bytes: 0,
            promised_bytes: 0,
            next: 0,
        };
        for found in found {
            let waiting = State::Waiting { not_before: None, attempts: 0, repair: false };
            let state = if found.whole { State::Whole } else { waiting };
            if let Some(sealed_bytes) = sealed_bytes(found.size_bytes) {
                ledger.insert(found.content, found.size_bytes, sealed_bytes, state);
            }
        }
        ledger
    }

    fn insert(&mut self, content: ContentId, size_bytes: u64, sealed_bytes: u64, state: State) {
        self.next += 1;
        let entry = Entry { size_bytes, sealed_bytes, ticket: Ticket(self.next), state, confirmed: None };
        self.enter(content, &entry);
        self.entries.insert(content, entry);
    }

    /// Accounts for an entry's state.
    fn enter(&mut self, content: ContentId, entry: &Entry) {
        self.claimed_bytes += entry.sealed_bytes;
        match entry.state {
            State::Whole => {}
            State::Waiting { repair, .. } => {
                self.promised_bytes += entry.sealed_bytes;
                self.waiting.insert((!repair, entry.ticket), content);
            }
            State::Filling { .. } => self.filling += 1,
        }
    }

    /// Undoes [`Self::enter`].
    fn leave(&mut self, entry: &Entry) {
        self.claimed_bytes -= entry.sealed_bytes;
        match entry.state {
            State::Whole => {}
            State::Waiting { repair, .. } => {
                self.promised_bytes -= entry.sealed_bytes;
                self.waiting.remove(&(!repair, entry.ticket));
            }
            State::Filling { .. } => self.filling -= 1,
        }
    }

    fn change(&mut self, content: &ContentId, state: State) {
        let Some(before) = self.entries.get(content).copied() else { return };
        let after = Entry { state, ..before };
        self.leave(&before);
        self.enter(*content, &after);
        self.entries.insert(*content, after);
    }

    /// Whether to keep a content; `free_bytes` is what the disk has now. One that is kept or wanted already is accepted
    /// again.
    pub fn keep(&mut self, content: ContentId, size_bytes: u64, free_bytes: u64) -> Outcome {
        if self.entries.contains_key(&content) {
            return Outcome::Accepted;
        }
        // A larger one cannot be.
        let Some(sealed_bytes) = sealed_bytes(size_bytes) else { return Outcome::NoRoom };
        let quota = self.bounds.quota_bytes.unwrap_or(u64::MAX);
        let on_disk =
            self.promised_bytes.saturating_add(sealed_bytes).saturating_add(self.bounds.reserve_bytes);
        if self.claimed_bytes.saturating_add(sealed_bytes) > quota || on_disk > free_bytes {
            return Outcome::NoRoom;
        }
        if self.waiting.len() >= WAITING_MAX {
            return Outcome::Busy;
        }
        self.insert(
            content,
            size_bytes,
            sealed_bytes,
            State::Waiting { not_before: None, attempts: 0, repair: false },
        );
        Outcome::Accepted
    }

    /// Forgets a content; `false` where it was not there.
    pub fn drop_content(&mut self, content: &ContentId) -> bool {
        let Some(entry) = self.entries.remove(content) else { return false };
        self.leave(&entry);
        true
    }

    /// A super-peer is about to be told that this content is here: it stays for [`CONFIRMED_FOR`], unless its file has no
    /// use for it any more.
    pub fn confirm(&mut self, content: &ContentId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(content) {
            entry.confirmed = Some(now);
        }
    }

    /// Whether a super-peer counts on this content, so that it does not go as one copy too many.
    pub fn is_confirmed(&self, content: &ContentId, now: Instant) -> bool {
        let confirmed = self.entries.get(content).and_then(|entry| entry.confirmed);
        confirmed.is_some_and(|at| now.saturating_duration_since(at) < CONFIRMED_FOR)
    }

    /// The next replica to fetch, which is under way from now on; none where enough are, or none is due.
    pub fn begin_next(&mut self, now: Instant) -> Option<Job> {
        if self.filling >= FILLS_AT_ONCE {
            return None;
        }
        let due = |content: &ContentId| match self.entries.get(content)?.state {
            State::Waiting { not_before, attempts, repair } if not_before.is_none_or(|at| at <= now) => {
                Some((*content, State::Filling { attempts: attempts + 1, repair }))
            }
            _ => None,
        };
        let (content, state) = self.waiting.values().find_map(due)?;
        self.change(&content, state);
        let entry = self.entries.get(&content)?;
        Some(Job { content, size_bytes: entry.size_bytes, ticket: entry.ticket })
    }

    /// When the next replica is due that is not yet; none where none waits for time to pass.
    pub fn next_due(&self) -> Option<Instant> {
        if self.filling >= FILLS_AT_ONCE {
            return None;
        }
        let pause = |content: &ContentId| match self.entries.get(content)?.state {
            State::Waiting { not_before, .. } => not_before,
            _ => None,
        };
        self.waiting.values().filter_map(pause).min()
    }

    /// Whether a job is still one.
    pub fn is_wanted(&self, job: &Job) -> bool {
        self.entries.get(&job.content).is_some_and(|entry| entry.ticket == job.ticket)
    }

    /// A job has brought a whole replica; `false` where it was dropped meanwhile.
    pub fn filled(&mut self, job: &Job) -> bool {
        let wanted = self.is_wanted(job);
        if wanted {
            self.change(&job.content, State::Whole);
        }
        wanted
    }

    /// A job's attempt has failed. `for_good`: another attempt would fail too.
    pub fn failed(&mut self, job: &Job, now: Instant, for_good: bool) -> Next {
        let Some(entry) = self.entries.get(&job.content).filter(|entry| entry.ticket == job.ticket) else {
            return Next::Nothing;
        };
        let State::Filling { attempts, repair } = entry.state else { return Next::Nothing };
        if for_good || attempts >= ATTEMPTS_MAX {
            self.drop_content(&job.content);
            return Next::GivenUp;
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << (attempts.saturating_sub(1)).min(16));
        let not_before = now.checked_add(doubled.min(PAUSE_MAX));
        self.change(&job.content, State::Waiting { not_before, attempts, repair });
        Next::Again
    }

    /// A whole replica was found damaged: it is none until it is repaired. `false` where it was none.
    pub fn damaged(&mut self, content: &ContentId) -> bool {
        let was_whole = self.is_whole(content);
        if was_whole {
            self.change(content, State::Waiting { not_before: None, attempts: 0, repair: true });
        }
        was_whole
    }

    /// Whether there is a whole replica.
    pub fn is_whole(&self, content: &ContentId) -> bool {
        self.entries.get(content).is_some_and(|entry| entry.state == State::Whole)
    }

    /// The first whole replica after `after`, in the order of the ids.
    pub fn whole_after(&self, after: Option<&ContentId>) -> Option<ContentId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.entries.range((from, Unbounded));
        rest.find(|(_, entry)| entry.state == State::Whole).map(|(content, _)| *content)
    }

    /// What there is.
    pub fn totals(&self) -> Totals {
        let whole = self.entries.values().filter(|entry| entry.state == State::Whole);
        let (whole, whole_bytes) =
            whole.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.sealed_bytes));
        let wanted = self.entries.len() as u64 - whole;
        Totals { whole, whole_bytes, wanted, claimed_bytes: self.claimed_bytes }
    }

    /// How much it may take.
    pub const fn bounds(&self) -> Bounds {
        self.bounds
    }
}

fn sealed_bytes(size_bytes: u64) -> Option<u64> {
    Geometry::for_size(size_bytes).ok().map(|geometry| geometry.sealed_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: u64 = 16;
    const ROOMY: Bounds = Bounds { quota_bytes: None, reserve_bytes: 0 };
    const DISK: u64 = 1 << 40;

    fn content(n: u8) -> ContentId {
        ContentId::from_bytes([n; 32])
    }

    fn bounded(quota_bytes: u64) -> Ledger {
        Ledger::new(Bounds { quota_bytes: Some(quota_bytes), ..ROOMY }, &[])
    }

    #[test]
    fn a_vault_takes_what_its_quota_allows_and_not_a_byte_more() {
        let mut ledger = bounded(2 * (100 + TAG));
        assert_eq!(ledger.keep(content(1), 100, DISK), Outcome::Accepted);
        assert_eq!(ledger.keep(content(1), 100, DISK), Outcome::Accepted, "told twice");
        assert_eq!(ledger.keep(content(2), 101, DISK), Outcome::NoRoom);
        assert_eq!(ledger.keep(content(3), 100, DISK), Outcome::Accepted);
        assert_eq!(ledger.keep(content(4), 0, DISK), Outcome::NoRoom, "an empty file has a tag too");
        assert!(ledger.drop_content(&content(1)) && !ledger.drop_content(&content(1)));
        assert_eq!(ledger.keep(content(4), 0, DISK), Outcome::Accepted);
    }

    #[test]
    fn what_was_promised_counts_as_taken_before_the_disk_has_given_it() {
        let mut ledger = Ledger::new(Bounds { quota_bytes: None, reserve_bytes: 1000 }, &[]);
        assert_eq!(ledger.keep(content(1), 100, 1000 + 100 + TAG), Outcome::Accepted);
        assert_eq!(ledger.keep(content(2), 0, 1000 + 100 + TAG), Outcome::NoRoom);
        assert_eq!(ledger.keep(content(2), 0, 1000 + 100 + 2 * TAG), Outcome::Accepted);
        assert_eq!(ledger.keep(content(3), u64::MAX, u64::MAX), Outcome::NoRoom, "no such content can be");
    }

    #[test]
    fn what_was_confirmed_a_moment_ago_is_counted_on() {
        let now = Instant::now();
        let mut ledger = Ledger::new(ROOMY, &[Found { content: content(1), size_bytes: 1, whole: true }]);
        assert!(!ledger.is_confirmed(&content(1), now));
        ledger.confirm(&content(1), now);
        ledger.confirm(&content(2), now);
        let almost = now + CONFIRMED_FOR.saturating_sub(Duration::from_secs(1));
        assert!(ledger.is_confirmed(&content(1), almost) && !ledger.is_confirmed(&content(2), now));
        assert!(!ledger.is_confirmed(&content(1), now + CONFIRMED_FOR));
        ledger.confirm(&content(1), almost);
        assert!(
            ledger.is_confirmed(&content(1), now + CONFIRMED_FOR),
            "each confirmation counts from its own moment"
        );
        assert!(ledger.drop_content(&content(1)) && !ledger.is_confirmed(&content(1), almost));
    }

    #[test]
    fn a_full_queue_is_told_as_such() {
        let mut ledger = Ledger::new(ROOMY, &[]);
        for n in 0..WAITING_MAX {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            assert_eq!(ledger.keep(ContentId::from_bytes(id), 1, DISK), Outcome::Accepted);
        }
        assert_eq!(ledger.keep(content(0xff), 1, DISK), Outcome::Busy);
        ledger.begin_next(Instant::now()).unwrap();
        assert_eq!(ledger.keep(content(0xff), 1, DISK), Outcome::Accepted);
    }

    #[test]
    fn repairs_go_before_new_replicas_and_those_in_the_order_of_their_assignment() {
        let now = Instant::now();
        let found = Found { content: content(9), size_bytes: 1, whole: true };
        let mut ledger = Ledger::new(ROOMY, &[found]);
        ledger.keep(content(5), 1, DISK);
        ledger.keep(content(4), 1, DISK);
        assert!(ledger.damaged(&content(9)) && !ledger.damaged(&content(9)));
        let order = [ledger.begin_next(now), ledger.begin_next(now), ledger.begin_next(now)];
        let order = order.map(|job| job.map(|job| job.content));
        assert_eq!(order, [Some(content(9)), Some(content(5)), None], "two at once");
    }

    #[test]
    fn a_failing_replica_is_tried_with_growing_pauses_and_then_given_up() {
        let mut now = Instant::now();
        let mut ledger = Ledger::new(ROOMY, &[]);
        ledger.keep(content(1), 100, DISK);
        let mut pauses = Vec::new();
        loop {
            let job = ledger.begin_next(now).unwrap();
            if ledger.failed(&job, now, false) == Next::GivenUp {
                break;
            }
            assert_eq!(ledger.begin_next(now), None, "not before its pause");
            let due = ledger.next_due().unwrap();
            pauses.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 120]);
        assert_eq!(ledger.totals(), Totals::default());
    }

    #[test]
    fn a_job_that_was_dropped_changes_nothing_even_if_the_content_is_wanted_anew() {
        let now = Instant::now();
        let mut ledger = Ledger::new(ROOMY, &[]);
        ledger.keep(content(1), 100, DISK);
        let old = ledger.begin_next(now).unwrap();
        ledger.drop_content(&content(1));
        ledger.keep(content(1), 100, DISK);
        assert!(!ledger.is_wanted(&old) && !ledger.filled(&old));
        assert_eq!(ledger.failed(&old, now, true), Next::Nothing);
        let new = ledger.begin_next(now).unwrap();
        assert!(ledger.filled(&new) && ledger.is_whole(&content(1)));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_sums_are_those_of_the_entries_and_the_quota_holds(
            steps in prop::collection::vec((0u8..5, 0u8..12, 0u64..600_000), 0..200),
        ) {
            let quota = 3_000_000;
            let mut ledger = bounded(quota);
            let mut now = Instant::now();
            let mut jobs: Vec<Job> = Vec::new();
            for (what, n, size) in steps {
                match what {
                    0 => { ledger.keep(content(n), size, DISK); }
                    1 => { ledger.drop_content(&content(n)); }
                    2 => jobs.extend(ledger.begin_next(now)),
                    3 => if let Some(job) = jobs.pop() {
                        if n % 2 == 0 { ledger.filled(&job); } else { ledger.failed(&job, now, n == 1); }
                    },
                    _ => { ledger.damaged(&content(n)); }
                }
                now += Duration::from_secs(1);
                let of = |entry: &Entry| entry.sealed_bytes;
                let waits = |entry: &&Entry| matches!(entry.state, State::Waiting { .. });
                let fills = |entry: &&Entry| matches!(entry.state, State::Filling { .. });
                let entries = ledger.entries.values();
                prop_assert_eq!(ledger.claimed_bytes, entries.clone().map(of).sum::<u64>());
                prop_assert!(ledger.claimed_bytes <= quota);
                prop_assert_eq!(ledger.promised_bytes, entries.clone().filter(waits).map(of).sum::<u64>());
                prop_assert_eq!(ledger.waiting.len(), entries.clone().filter(waits).count());
                prop_assert_eq!(ledger.filling, entries.filter(fills).count());
                prop_assert!(ledger.filling <= FILLS_AT_ONCE);
            }
        }
    }
}
