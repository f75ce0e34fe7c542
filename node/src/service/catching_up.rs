//! Serving nothing before the news are read: the shell around [`Freshness`].

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::freshness::Freshness;

/// How long a request for chunks is held back for the news, which mostly take a moment; then the asker is told to come again.
const HELD_MAX: Duration = Duration::from_millis(1500);

/// Whether this node may serve what lies here.
#[derive(Debug)]
pub(crate) struct CatchingUp {
    freshness: Mutex<Freshness>,
    changed: Notify,
}

impl CatchingUp {
    /// A node that starts now.
    pub(super) fn new() -> Self {
        Self { freshness: Mutex::new(Freshness::started(Instant::now())), changed: Notify::new() }
    }

    fn freshness(&self) -> MutexGuard<'_, Freshness> {
        self.freshness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A super-peer is connected.
    pub(super) fn connected(&self) {
        self.freshness().connected(Instant::now());
    }

    /// No super-peer is connected any more.
    pub(super) fn alone(&self) {
        self.freshness().alone(Instant::now());
    }

    /// A super-peer's feed was read to its end, and what follows from it is done.
    pub(super) fn caught_up(&self) {
        self.freshness().caught_up();
        self.changed.notify_waiters();
    }

    /// Waits until this node may serve; `false` where that takes too long. Cancel-safe.
    pub(super) async fn may_serve(&self) -> bool {
        let until = tokio::time::Instant::now() + HELD_MAX;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no notice is missed.
            changed.as_mut().enable();
            let Some(left) = self.freshness().waits(Instant::now()) else { return true };
            let wake = until.min(tokio::time::Instant::now() + left);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {
                    if wake == until {
                        return self.freshness().waits(Instant::now()).is_none();
                    }
                }
            }
        }
    }
}
