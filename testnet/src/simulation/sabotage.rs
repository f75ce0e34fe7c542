//! Bugs built in on purpose, to see that the simulation finds such bugs.
//!
//! Each is a plausible mistake, made where the actors touch the code under test; that code itself is as it runs in
//! production. A test for each (`tests/simulation.rs`) shows that it is found within a few seeds.

/// A bug that a schedule can be run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sabotage {
    /// A super-peer says that records are stored, and stores them later.
    AcknowledgesBeforeStoring,
    /// A member has one cursor for all super-peers, and these take it for their own.
    OneCursorForAll,
    /// A super-peer forgets who used its invites when it crashes.
    ForgetsInviteUses,
    /// Reconciliation leaves one branch of sixteen out.
    SkipsABranch,
    /// A member keeps the record that arrived last, not the one that supersedes.
    LastArrivalWins,
    /// A super-peer believes whoever pushes to it that it is a super-peer.
    BelievesEverySender,
    /// A super-peer still answers members of whose end it knows.
    AnswersTheEnded,
    /// A super-peer admits before it has compared its catalog with another's.
    AdmitsBeforeReconciling,
    /// A super-peer shows restricted files to all who follow it.
    ShowsTheHidden,
    /// A super-peer lists restricted files for all.
    ListsTheHidden,
    /// A member that is to forget a file keeps it.
    KeepsTheHidden,
}
