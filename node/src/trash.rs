//! What is to be done about the trash, decided without a clock or a disk.
//!
//! A file is planned into the trash, moves there, and what follows from it is noted together with the plan's end. Where a
//! node ended in the middle, [`settle`] says how the next start makes it good: nothing is lost in any case, and an update
//! or a deletion that was not acknowledged may be found undone.

use crate::database::Trashed;

/// The longest that something is kept: ten years. Longer says "for ever", which a trash is not for.
pub const RETENTION_DAYS_MAX: u32 = 3650;
/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Before which moment what is in the trash is to go, in milliseconds since 1970.
pub fn expired_before(now_ms: u64, retention_days: u32) -> u64 {
    now_ms.saturating_sub(u64::from(retention_days.min(RETENTION_DAYS_MAX)) * DAY_MS)
}

/// Until when something that is in the trash since a moment is kept, likewise.
pub fn retained_until(since_ms: u64, retention_days: u32) -> u64 {
    since_ms.saturating_add(u64::from(retention_days.min(RETENTION_DAYS_MAX)) * DAY_MS)
}

/// What a start does about a plan that was not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The file never moved: the plan is forgotten.
    Forget,
    /// It moved and its place is free: it goes back, as if nothing had begun.
    PutBack,
    /// It moved and stays in the trash; the copy that it was is none any more.
    Keep,
}

/// Decides. `moved`: the file lies in the trash; `place_free`: nothing lies where it came from.
///
/// An own file goes back, since nobody else brings it again. A reader's copy stays away: it was replaced or deleted by its
/// owner, and the fetch that replaces it goes on by itself.
pub const fn settle(trashed: &Trashed, moved: bool, place_free: bool) -> Settlement {
    match (moved, trashed.own && place_free) {
        (false, _) => Settlement::Forget,
        (true, true) => Settlement::PutBack,
        (true, false) => Settlement::Keep,
    }
}

#[cfg(test)]
mod tests {
    use quarta_protocols::{
        ids::FileId,
        names::{FileName, MemberName},
    };

    use super::*;
    use crate::{database::TrashReason, library::LibraryPath};

    fn trashed(own: bool) -> Trashed {
        Trashed {
            file: FileId::from_bytes([1; 32]),
            owner_name: MemberName::new("recife").unwrap(),
            name: FileName::new("plano.csv").unwrap(),
            own,
            path: LibraryPath::parse("plano.csv").unwrap(),
            size_bytes: 3,
            sha256: None,
            revision: 1,
            reason: TrashReason::Replaced,
            since_ms: 0,
        }
    }

    #[test]
    fn an_update_that_was_cut_off_leaves_the_owner_its_file() {
        assert_eq!(settle(&trashed(true), false, false), Settlement::Forget);
        assert_eq!(settle(&trashed(true), true, true), Settlement::PutBack);
        // The new version lies there and was not noted: both are kept.
        assert_eq!(settle(&trashed(true), true, false), Settlement::Keep);
    }

    #[test]
    fn a_readers_replaced_copy_stays_in_the_trash_and_its_fetch_goes_on() {
        assert_eq!(settle(&trashed(false), true, true), Settlement::Keep);
        assert_eq!(settle(&trashed(false), false, false), Settlement::Forget);
    }

    #[test]
    fn what_is_kept_goes_after_its_days_and_at_once_where_they_are_none() {
        assert_eq!(expired_before(40 * DAY_MS, 30), 10 * DAY_MS);
        assert_eq!(expired_before(40 * DAY_MS, 0), 40 * DAY_MS);
        assert_eq!(expired_before(5, 30), 0);
        assert_eq!(expired_before(u64::MAX, u32::MAX), u64::MAX - 3650 * DAY_MS);
    }
}
