//! The owner's side of a hand-over: it offers the file and asks until the next owner has it, or there is no use in asking.
//!
//! - *Taken* and a final refusal end it. *Busy*, *unavailable* and no answer do not: they pass.
//! - While the next owner fetches the file, every byte that it gains proves that it is at work, so that a large file over a
//!   slow line takes as long as it takes. Only standing still uses up the patience.

use std::time::{Duration, Instant};

use quarta_protocols::messages::handover::Refusal;

/// How soon is asked again at first.
pub const ASK_AGAIN_MIN: Duration = Duration::from_millis(250);
/// The longest pause while the next owner answers.
pub const ASK_AGAIN_MAX: Duration = Duration::from_secs(2);
/// The longest pause while it cannot be reached: it may be off until Monday.
pub const UNREACHED_MAX: Duration = Duration::from_secs(30);

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It has signed.
    Taken,
    /// It fetches the file, and has so much of it.
    Fetching {
        /// Verified bytes.
        have_bytes: u64,
    },
    /// It does not take the file.
    Refused(Refusal),
    /// It could not be reached, or did not answer.
    Unreached,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask again after this pause.
    Ask(Duration),
    /// The file is handed over.
    Done,
    /// It will not take the file, however often it is asked.
    Refused(Refusal),
    /// Nothing has moved for as long as the patience lasts.
    Stalled,
}

/// One file's way to its next owner.
#[derive(Debug, Clone)]
pub struct Asking {
    patience: Option<Duration>,
    moved: Instant,
    have_bytes: Option<u64>,
    reached: bool,
    pause: Duration,
}

impl Asking {
    /// Begins to ask. Without `patience` it never stalls.
    pub const fn new(now: Instant, patience: Option<Duration>) -> Self {
        Self { patience, moved: now, have_bytes: None, reached: true, pause: ASK_AGAIN_MIN }
    }

    /// Takes note of an answer and says what to do.
    pub fn heard(&mut self, now: Instant, heard: Heard) -> Next {
        let longest = match heard {
            Heard::Taken => return Next::Done,
            Heard::Refused(refusal) if is_final(refusal) => return Next::Refused(refusal),
            Heard::Refused(_) => ASK_AGAIN_MAX,
            Heard::Fetching { have_bytes } => {
                if self.have_bytes.is_none_or(|had| have_bytes > had) {
                    self.moved = now;
                    self.pause = ASK_AGAIN_MIN;
                }
                // Fewer than before is a fresh beginning, from which it has to move on.
                self.have_bytes = Some(have_bytes);
                ASK_AGAIN_MAX
            }
            Heard::Unreached => UNREACHED_MAX,
        };
        let reached = heard != Heard::Unreached;
        if reached && !self.reached {
            self.pause = ASK_AGAIN_MIN;
        }
        self.reached = reached;
        if self.patience.is_some_and(|patience| now.duration_since(self.moved) >= patience) {
            return Next::Stalled;
        }
        let pause = self.pause.min(longest);
        self.pause = (self.pause * 2).min(longest);
        Next::Ask(pause)
    }

    /// Verified bytes that the next owner has, as far as it has told.
    pub const fn have_bytes(&self) -> u64 {
        match self.have_bytes {
            Some(bytes) => bytes,
            None => 0,
        }
    }

    /// Whether it was reached the last time.
    pub const fn is_reached(&self) -> bool {
        self.reached
    }
}

/// Whether asking again cannot change a refusal.
const fn is_final(refusal: Refusal) -> bool {
    match refusal {
        Refusal::Invalid
        | Refusal::Outdated
        | Refusal::MayNotRead
        | Refusal::Leaving
        | Refusal::NoRoom
        | Refusal::Declined => true,
        Refusal::Busy | Refusal::Unavailable => false,
    }
}
