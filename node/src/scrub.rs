//! When the library is read through again, decided without a clock.
//!
//! A *round* reads every copy once. It is slow on purpose, so it outlasts runs of the node: how far it is is noted, and
//! the next run goes on from there. Between two rounds there is a pause.

use std::time::Duration;

use quarta_protocols::ids::FileId;

/// The shortest pause between two rounds: a library of nothing is not read for ever.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);

/// How far the reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// The last file that was read, in the order of ids; none at the beginning.
    pub after: Option<FileId>,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// When it ended; none while it is under way.
    pub ended_ms: Option<u64>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// This round goes on or begins.
    Read(Round),
    /// Nothing for so long.
    Rest(Duration),
}

/// Decides, given the last round and how often one is to begin.
pub fn due(last: Option<Round>, now_ms: u64, every: Duration) -> Due {
    let fresh = Round { after: None, began_ms: now_ms, ended_ms: None };
    let Some(last) = last else { return Due::Read(fresh) };
    let Some(ended_ms) = last.ended_ms else { return Due::Read(last) };
    // A clock that was set back must not put it off for years.
    let since_began = Duration::from_millis(now_ms.saturating_sub(last.began_ms.min(now_ms)));
    let since_ended = Duration::from_millis(now_ms.saturating_sub(ended_ms.min(now_ms)));
    let rest = every.saturating_sub(since_began).max(PAUSE_MIN.saturating_sub(since_ended));
    if rest.is_zero() { Due::Read(fresh) } else { Due::Rest(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_hours(7 * 24);

    fn ms(duration: Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap()
    }

    #[test]
    fn a_round_that_a_stop_cut_off_goes_on_where_it_was() {
        let cut = Round { after: Some(FileId::from_bytes([4; 32])), began_ms: 5, ended_ms: None };
        assert_eq!(due(Some(cut), 1_000_000, WEEK), Due::Read(cut));
        let fresh = Round { after: None, began_ms: 7, ended_ms: None };
        assert_eq!(due(None, 7, WEEK), Due::Read(fresh));
    }

    #[test]
    fn the_next_round_begins_when_it_is_time_and_never_without_a_pause() {
        let ended = |began_ms, ended_ms| Some(Round { after: None, began_ms, ended_ms: Some(ended_ms) });
        let day = ms(Duration::from_hours(24));
        assert_eq!(due(ended(0, day), 2 * day, WEEK), Due::Rest(Duration::from_hours(5 * 24)));
        assert!(matches!(due(ended(0, day), 7 * day, WEEK), Due::Read(Round { after: None, .. })));
        // It took longer than the pause.
        assert_eq!(due(ended(0, 9 * day), 9 * day, WEEK), Due::Rest(PAUSE_MIN));
        assert_eq!(due(ended(0, 10), 500, Duration::ZERO), Due::Rest(Duration::from_millis(510)));
        // The clock was set back.
        assert_eq!(due(ended(9 * day, 9 * day), day, WEEK), Due::Rest(WEEK));
    }
}
