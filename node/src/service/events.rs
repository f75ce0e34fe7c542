//! What happens at this node, for whoever watches: numbered, kept for a while, and read at the watcher's pace.
//!
//! A watcher that was away goes on after the last event that it saw, as long as that one is among the latest
//! [`KEPT_MAX`]; else, or after the node was started anew, it is told so and reads the listings again. Publishing never
//! waits: each watcher reads from the common ring, and one that is slower than the events falls behind to the same
//! notice, at no cost to others.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use quarta_protocols::ids::FileId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Shared;
use crate::api::model::{NodeEvent, Transfer};

/// Events that are kept: some minutes of a busy node.
const KEPT_MAX: usize = 1024;
/// Events that a watcher takes at a time.
const TAKEN_MAX: usize = 64;
/// Watchers at once: each is a connection that stays open.
const WATCHERS_MAX: usize = 64;
/// How often the progress of one transfer is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Names an event: the run of the node, and the event's number in it, from 1. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventId {
    run: u32,
    number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, number) = text.split_once('-').ok_or(())?;
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let id =
            Self { run: u32::from_str_radix(run, 16).map_err(drop)?, number: number.parse().map_err(drop)? };
        // One spelling only: what is not echoed exactly was not given by this API.
        (digits && id.to_string() == text).then_some(id).ok_or(())
    }
}

/// The latest events.
#[derive(Debug)]
struct Ring {
    run: u32,
    last: u64,
    kept: VecDeque<Arc<NodeEvent>>,
}

/// What a watcher gets next.
#[derive(Debug, Clone)]
pub(crate) enum Next {
    /// An event.
    Event(EventId, Arc<NodeEvent>),
    /// Events were missed that are not kept any more; those after this one are still to come.
    Missed(EventId),
}

impl Ring {
    const fn new(run: u32) -> Self {
        Self { run, last: 0, kept: VecDeque::new() }
    }

    const fn now(&self) -> EventId {
        EventId { run: self.run, number: self.last }
    }

    fn push(&mut self, event: NodeEvent) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::new(event));
        self.last += 1;
    }

    /// Leaves in the place of each event of a file that something has changed.
    fn forget(&mut self, file: &str) {
        for kept in self.kept.iter_mut().filter(|kept| kept.names(file)) {
            *kept = Arc::new(NodeEvent::FilesChanged { files: 1 });
        }
    }

    /// What comes after an event, in order and bounded; nothing where it is the last.
    fn after(&self, seen: EventId) -> Vec<Next> {
        let before_kept = self.last - self.kept.len() as u64;
        if seen.run != self.run || seen.number > self.last || seen.number < before_kept {
            return vec![Next::Missed(self.now())];
        }
        let skip = usize::try_from(seen.number - before_kept).unwrap_or(usize::MAX);
        let numbered = (seen.number + 1..).zip(self.kept.iter().skip(skip)).take(TAKEN_MAX);
        let event = |(number, event): (u64, &Arc<NodeEvent>)| {
            Next::Event(EventId { run: self.run, number }, event.clone())
        };
        numbered.map(event).collect()
    }
}

/// The node's events.
pub(crate) struct Events {
    ring: Mutex<Ring>,
    /// Counts along, so that watchers wake.
    told: watch::Sender<u64>,
    watchers: Arc<Semaphore>,
}

/// One who watches.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    seen: EventId,
    waiting: VecDeque<Next>,
    told: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl Events {
    /// No events yet; `run` is to differ from run to run.
    pub(super) fn new(run: u32) -> Self {
        let watchers = Arc::new(Semaphore::new(WATCHERS_MAX));
        Self { ring: Mutex::new(Ring::new(run)), told: watch::Sender::new(0), watchers }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all watchers of an event.
    pub(crate) fn publish(&self, event: NodeEvent) {
        self.ring().push(event);
        self.told.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// What was told of a file is told nobody any more.
    pub(super) fn forget(&self, file: &FileId) {
        self.ring().forget(&file.to_string());
    }

    /// Tells of a transfer until it ends: each change of its state, and now and then how far it is.
    pub(crate) fn follow(shared: &Arc<Shared>, mut transfer: watch::Receiver<Transfer>) {
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut told: Option<(Instant, Transfer)> = None;
            loop {
                let now = transfer.borrow_and_update().clone();
                let due = told.as_ref().is_none_or(|(at, last)| {
                    now.state != last.state || at.elapsed() >= PROGRESS_EVERY && now != *last
                });
                if due {
                    shared.events.publish(NodeEvent::Transfer(Box::new(now.clone())));
                    told = Some((Instant::now(), now));
                }
                if transfer.changed().await.is_err() {
                    break;
                }
            }
            // The last value may have come together with the end.
            let last = transfer.borrow().clone();
            if told.is_none_or(|(_, told)| told != last) {
                shared.events.publish(NodeEvent::Transfer(Box::new(last)));
            }
        });
    }

    /// Begins to watch: after an event that was seen before, or from now on. None where too many watch.
    pub(crate) fn watch(shared: &Arc<Shared>, seen: Option<EventId>) -> Option<Watcher> {
        let events = &shared.events;
        let place = events.watchers.clone().try_acquire_owned().ok()?;
        let told = events.told.subscribe();
        let seen = seen.unwrap_or_else(|| events.ring().now());
        Some(Watcher { shared: shared.clone(), seen, waiting: VecDeque::new(), told, _place: place })
    }

    /// An id that no event of this run has.
    pub(crate) const fn unknown() -> EventId {
        EventId { run: 0, number: u64::MAX }
    }

    /// The most that can watch.
    pub(crate) const fn watchers_max() -> usize {
        WATCHERS_MAX
    }
}

impl Watcher {
    /// The last event before those to come.
    pub(crate) const fn seen(&self) -> EventId {
        self.seen
    }

    /// What happens next; none once the node stops.
    pub(crate) async fn next(&mut self) -> Option<Next> {
        loop {
            if let Some(next) = self.waiting.pop_front() {
                let (Next::Event(id, _) | Next::Missed(id)) = &next;
                self.seen = *id;
                return Some(next);
            }
            self.told.mark_unchanged();
            self.waiting = self.shared.events.ring().after(self.seen).into();
            if self.waiting.is_empty() {
                tokio::select! {
                    () = self.shared.stop.cancelled() => return None,
                    told = self.told.changed() => told.ok()?,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> NodeEvent {
        NodeEvent::FileWithdrawn { file: number.to_string() }
    }

    fn ring(events: u64) -> Ring {
        let mut ring = Ring::new(7);
        (1..=events).for_each(|number| ring.push(event(number)));
        ring
    }

    /// All that a watcher reads until it is up to date.
    fn read(ring: &Ring, mut seen: EventId) -> (Vec<u64>, bool) {
        let (mut numbers, mut missed) = (Vec::new(), false);
        loop {
            let taken = ring.after(seen);
            assert!(taken.len() <= TAKEN_MAX);
            for next in &taken {
                match next {
                    Next::Event(id, told) => {
                        assert_eq!(**told, event(id.number));
                        numbers.push(id.number);
                        seen = *id;
                    }
                    Next::Missed(id) => {
                        missed = true;
                        seen = *id;
                    }
                }
            }
            if taken.is_empty() {
                return (numbers, missed);
            }
        }
    }

    #[test]
    fn a_watcher_goes_on_where_it_was() {
        let ring = ring(300);
        let from = |number| read(&ring, EventId { run: 7, number });
        assert_eq!(from(0), ((1..=300).collect(), false));
        assert_eq!(from(299), (vec![300], false));
        assert_eq!(from(300), (vec![], false));
    }

    #[test]
    fn who_missed_more_than_is_kept_is_told_and_up_to_date() {
        let ring = ring(5000);
        let oldest = 5000 - KEPT_MAX as u64;
        assert_eq!(ring.kept.len(), KEPT_MAX);
        assert_eq!(read(&ring, EventId { run: 7, number: oldest - 1 }), (vec![], true));
        assert_eq!(read(&ring, EventId { run: 7, number: oldest }).0.len(), KEPT_MAX);
    }

    #[test]
    fn an_id_of_another_run_or_of_the_future_is_not_gone_on_after() {
        let ring = ring(10);
        for (run, number) in [(8, 5), (7, 11), (0, u64::MAX)] {
            assert_eq!(read(&ring, EventId { run, number }), (vec![], true), "{run}-{number}");
        }
    }

    #[test]
    fn ids_have_one_spelling() {
        let id = EventId { run: 0xab, number: 12 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in [
            "",
            "ab-12",
            "000000AB-12",
            "000000ab-012",
            "000000ab-+1",
            "000000ab-",
            "-1",
            "x-1",
            "000000ab-1-2",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(()), "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_hidden_is_in_no_event_and_the_numbers_stay() {
        let mut ring = ring(3);
        ring.forget("2");
        let told = ring.after(EventId { run: 7, number: 0 });
        let events: Vec<NodeEvent> = told
            .into_iter()
            .map(|next| match next {
                Next::Event(_, event) => (*event).clone(),
                Next::Missed(_) => panic!("nothing was missed"),
            })
            .collect();
        assert_eq!(events, [event(1), NodeEvent::FilesChanged { files: 1 }, event(3)]);
    }
}
