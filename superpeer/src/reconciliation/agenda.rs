//! When to compare catalogs with another super-peer.
//!
//! Both compare every [`COMPARE_EVERY`] while nothing suggests a difference, each to tell its addresses too. On a new
//! connection only one of the two begins, or they would exchange everything twice: the one with the lower peer id. The
//! other one waits for [`FOLLOW_AFTER`], in case that one does not.

use std::time::{Duration, Instant};

use super::session::Ending;

/// How often catalogs are compared while nothing suggests a difference.
pub const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// How long the one with the higher peer id waits on a new connection, and after any sign that the other is at it.
pub const FOLLOW_AFTER: Duration = Duration::from_secs(5);
/// How soon a push that did not arrive or a session that broke off is made up for: some more may fail with it.
pub const MAKE_UP_AFTER: Duration = Duration::from_secs(1);
/// How long to wait for one that is busy, and as much again at random: some round trips.
pub const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// How long to leave one alone that does not answer as it should: it is broken or worse, and its operator told.
pub const FAULTY_PAUSE: Duration = Duration::from_mins(10);

/// The moment of the next comparison with one super-peer.
#[derive(Debug, Clone, Copy)]
pub struct Agenda {
    begins: bool,
    due: Instant,
    /// Nothing brings the next comparison forward before this.
    not_before: Instant,
}

impl Agenda {
    /// With another super-peer as of now; `begins` for the one of the two that begins on a new connection.
    pub fn new(begins: bool, now: Instant) -> Self {
        Self { begins, due: now + COMPARE_EVERY, not_before: now }
    }

    /// When to begin.
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// There is a new connection.
    pub fn connected(&mut self, now: Instant) {
        self.bring_forward(now, if self.begins { Duration::ZERO } else { FOLLOW_AFTER });
    }

    /// A push did not arrive, or could not be queued.
    pub fn missed(&mut self, now: Instant) {
        self.bring_forward(now, MAKE_UP_AFTER);
    }

    /// The other began a comparison and is at it, or has just ended one.
    pub fn left_to_other(&mut self, now: Instant) {
        self.due = self.due.max(now + FOLLOW_AFTER);
    }

    /// An own session begins. What asks for the next one from here on is not forgotten when it ends.
    pub fn begun(&mut self, now: Instant) {
        self.due = now + COMPARE_EVERY;
    }

    /// An own session ended so; `random` is any number, and spreads those that wait for the same one.
    pub fn ended(&mut self, ending: Ending, now: Instant, random: u32) {
        let pause = match ending {
            Ending::Equal | Ending::Settled => COMPARE_EVERY,
            Ending::Unfinished => Duration::ZERO,
            Ending::Busy => BUSY_PAUSE + BUSY_PAUSE * (random % 256) / 256,
            Ending::Faulty(_) => {
                self.not_before = now + FAULTY_PAUSE;
                FAULTY_PAUSE
            }
        };
        self.bring_forward(now, pause);
    }

    /// An own session broke off, with its connection or a disk: it is tried once more soon. The other one need not have
    /// lost more than one of two connections, so that no new one would bring it forward.
    pub fn broke_off(&mut self, now: Instant) {
        self.bring_forward(now, MAKE_UP_AFTER);
    }

    fn bring_forward(&mut self, now: Instant, pause: Duration) {
        self.due = self.due.min(now + pause).max(self.not_before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconciliation::session::Fault;

    fn agendas() -> (Agenda, Agenda, Instant) {
        let now = Instant::now();
        (Agenda::new(true, now), Agenda::new(false, now), now)
    }

    #[test]
    fn one_begins_on_a_new_connection_and_the_other_only_if_that_one_does_not() {
        let (mut first, mut second, now) = agendas();
        first.connected(now);
        second.connected(now);
        assert_eq!((first.due(), second.due()), (now, now + FOLLOW_AFTER));
        let later = now + Duration::from_secs(3);
        second.left_to_other(later);
        assert_eq!(second.due(), later + FOLLOW_AFTER, "it is still at it");
    }

    #[test]
    fn an_interruption_is_made_up_for_by_the_one_that_waits() {
        let (_, mut second, now) = agendas();
        second.connected(now);
        second.left_to_other(now);
        assert!(second.due() <= now + FOLLOW_AFTER);
    }

    #[test]
    fn a_missed_push_brings_the_comparison_forward_and_never_puts_it_off() {
        let (mut first, _, now) = agendas();
        first.missed(now);
        assert_eq!(first.due(), now + MAKE_UP_AFTER);
        first.connected(now);
        first.missed(now);
        assert_eq!(first.due(), now);
    }

    #[test]
    fn what_happens_during_a_session_is_not_forgotten_when_it_ends() {
        let (mut first, _, now) = agendas();
        first.connected(now);
        first.begun(now);
        assert_eq!(first.due(), now + COMPARE_EVERY);
        let meanwhile = now + Duration::from_secs(2);
        first.connected(meanwhile);
        first.broke_off(meanwhile + Duration::from_secs(1));
        assert_eq!(first.due(), meanwhile, "the old connection went, the new one is there");
        first.begun(meanwhile);
        first.missed(meanwhile);
        first.ended(Ending::Equal, meanwhile, 0);
        assert_eq!(first.due(), meanwhile + MAKE_UP_AFTER);
    }

    #[test]
    fn a_session_that_broke_off_is_tried_again_soon() {
        let (mut first, _, now) = agendas();
        first.begun(now);
        first.broke_off(now);
        assert_eq!(first.due(), now + MAKE_UP_AFTER);
    }

    #[test]
    fn those_that_wait_for_a_busy_one_do_not_come_all_at_once() {
        let (mut first, mut second, now) = agendas();
        first.ended(Ending::Busy, now, 0);
        second.ended(Ending::Busy, now, u32::MAX);
        assert_eq!(first.due(), now + BUSY_PAUSE);
        assert!(second.due() > first.due() && second.due() < now + 2 * BUSY_PAUSE);
    }

    #[test]
    fn a_faulty_one_is_left_alone_for_a_while_however_often_it_connects() {
        let (mut first, _, now) = agendas();
        first.ended(Ending::Faulty(Fault::Unasked), now, 0);
        first.connected(now + Duration::from_secs(1));
        first.missed(now + Duration::from_secs(1));
        assert_eq!(first.due(), now + FAULTY_PAUSE);
    }
}
