//! How much of the line this node takes, and who gets it.
//!
//! 1. [`timetable`]: which limits hold at which minute of the week.
//! 2. [`bucket`], [`turns`], [`mod@line`]: a limited line, within five per cent over ten seconds, shared equally by the peers
//!    that want something, however many requests each has.
//! 3. [`slots`]: how many requests are served at once, and whose is next.
//! 4. [`courtesy`]: a tenth for replication while people fetch.
//! 5. [`near`]: who is on the own network, where nothing is limited.
//!
//! All of these are pure. [`Throttle`] is the shell around a [`line::Line`]: it waits on the runtime's timer.
//!
//! What is counted are sealed chunks as they are handed to the network, or come from it; TLS, TCP and IP add three to five
//! per cent on the line itself. A chunk goes as a whole, so a line is as even as a chunk is small beside the rate: for the
//! promised five per cent a usual chunk (256 KiB) wants half a MiB a second.

pub mod bucket;
pub mod courtesy;
pub mod line;
pub mod near;
pub mod slots;
pub mod timetable;
pub mod turns;

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use bucket::Bucket;
use tokio::sync::oneshot;

use line::Line;
use turns::Ticket;

/// How soon those who wait notice that the limit has changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One direction of this machine's line. Pieces wait for as long as callers wait, who bound their number.
#[derive(Debug)]
pub struct Throttle<K>(Mutex<State<K>>);

#[derive(Debug)]
struct State<K> {
    line: Line<K>,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self(Mutex::new(State { line: Line::default(), waiting: HashMap::new() }))
    }
}

impl<K: Copy + Eq + Hash + Send> Throttle<K> {
    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go what may go now, at the rate that holds now. Says in how long there may be more.
    fn advance(&self, rate: Option<u64>) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.state();
        let State { line, waiting } = &mut *state;
        line.set_rate(now, rate);
        line.advance(now, |ticket| {
            // Who has given up needs no word.
            let _ = waiting.remove(&ticket).map(|waiting| waiting.send(()));
        })
    }

    /// Returns when `bytes` of a peer may go, at the `rate` that holds then, in bytes a second.
    ///
    /// Cancel-safe: who gives up leaves its turn to the others.
    pub async fn pass(&self, peer: K, bytes: usize, rate: impl Fn() -> Option<u64> + Send + Sync) {
        if rate().is_none() {
            return;
        }
        let (sender, mut turn) = oneshot::channel();
        let ticket = {
            let mut state = self.state();
            let ticket = state.line.ask(peer, bytes);
            state.waiting.insert(ticket, sender);
            ticket
        };
        let _waiter = Waiter { throttle: self, ticket };
        loop {
            let next = self.advance(rate());
            tokio::select! {
                biased;
                _ = &mut turn => return,
                () = tokio::time::sleep(next.unwrap_or_default().min(LOOK_EVERY)) => {}
            }
        }
    }
}

/// Who waits, until it has gone or given up.
struct Waiter<'a, K: Copy + Eq + Hash + Send> {
    throttle: &'a Throttle<K>,
    ticket: Ticket,
}

impl<K: Copy + Eq + Hash + Send> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        let mut state = self.throttle.state();
        state.line.give_up(self.ticket);
        state.waiting.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn who_gives_up_blocks_nobody_and_a_lifted_limit_lets_all_go() {
        let (throttle, rate) = (Arc::new(Throttle::default()), Arc::new(AtomicU64::new(100_000)));
        let now = {
            let rate = rate.clone();
            move || Some(rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
        };
        let gone = tokio::time::timeout(Duration::from_millis(20), throttle.pass(1, 1_000_000, now.clone()));
        assert!(gone.await.is_err(), "it takes ten seconds");
        let waiting = throttle.pass(2, 1_000_000, now.clone());
        let lifting = async { rate.store(0, Ordering::Relaxed) };
        let both = async { tokio::join!(waiting, lifting) };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("the limit is lifted");
        assert!(throttle.state().waiting.is_empty());
    }

    #[tokio::test]
    async fn pieces_of_two_peers_go_at_the_rate() {
        let throttle = Throttle::default();
        let rate = || Some(1_000_000);
        let begun = Instant::now();
        let send = async |peer: u32| {
            for _ in 0..4 {
                throttle.pass(peer, 50_000, rate).await;
            }
        };
        tokio::join!(send(1), send(2));
        // 400 kB, less what may go at once.
        assert!(begun.elapsed() >= Duration::from_millis(299), "{:?}", begun.elapsed());
    }
}
