//! Whether a member is still one. Computed, never stored: a departure, a revocation and the member's own entry may
//! arrive in any order.

use std::fmt;

/// The standing of a row of `members`, in SQL: see [`Standing`]. A super-peer's membership is ended by the root alone.
pub(super) const STANDING: &str = "(CASE
    WHEN EXISTS (SELECT 1 FROM revocations
                 WHERE revocations.peer = members.peer AND (by_root OR NOT members.superpeer)) THEN 2
    WHEN EXISTS (SELECT 1 FROM departures WHERE departures.peer = members.peer) THEN 1
    ELSE 0 END)";

/// Whether a member is still one. An ended membership is never taken up again; the machine joins anew, with other keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It is.
    Member,
    /// It has left, by its own word.
    Left,
    /// It was revoked, whether or not it had left before.
    Revoked,
}

impl Standing {
    pub(super) const fn from_sql(value: u8) -> Self {
        match value {
            0 => Self::Member,
            1 => Self::Left,
            _ => Self::Revoked,
        }
    }

    /// What follows from what is known of a peer.
    pub(super) const fn of(left: bool, revoked: bool) -> Self {
        match (revoked, left) {
            (true, _) => Self::Revoked,
            (false, true) => Self::Left,
            (false, false) => Self::Member,
        }
    }

    /// Whether the membership has not ended.
    pub const fn is_member(self) -> bool {
        matches!(self, Self::Member)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Member => "member",
            Self::Left => "left",
            Self::Revoked => "revoked",
        })
    }
}
