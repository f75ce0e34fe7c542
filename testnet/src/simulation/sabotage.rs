//! Bugs built in on purpose, to see that the simulation finds such bugs.

/// A bug that a schedule can be run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sabotage {
    /// A super-peer says that a record is stored, and stores it later.
    AcknowledgesBeforeStoring,
    /// An invite's uses are forgotten when its super-peer crashes.
    ForgetsInviteUses,
    /// Reconciliation leaves out every entry whose id begins with a certain digit.
    SkipsABranch,
    /// A member keeps the record that arrived last, not the one that supersedes.
    LastArrivalWins,
    /// A super-peer believes whoever pushes to it that it is a super-peer.
    TrustsTheSendersClaim,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::AcknowledgesBeforeStoring,
        Self::ForgetsInviteUses,
        Self::SkipsABranch,
        Self::LastArrivalWins,
        Self::TrustsTheSendersClaim,
    ];
}
