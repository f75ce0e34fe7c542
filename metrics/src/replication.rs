//! What a super-peer tells of the copies that it sees to: whether files are safe, and what that costs.

use crate::{
    family::{Counter, CounterBy, Gauge, GaugeBy, label},
    registry::{RegisterError, Registry},
};

label! {
    /// How many copies of a content count.
    Safety as "state" {
        /// As many as there should be, or more.
        AtTarget = "at_target",
        /// Fewer than there should be, and not fewer than the floor.
        BelowTarget = "below_target",
        /// Fewer than the floor, and at least one.
        BelowFloor = "below_floor",
        /// None: every node that holds one is gone.
        WithoutCopy = "without_copy",
        /// Not counted yet since the start.
        Unseen = "unseen",
    }
}

label! {
    /// Why repairs wait.
    Waits as "reason" {
        /// Not all lists have come since the start.
        Starting = "starting",
        /// Over a third of the nodes vanished together.
        Outage = "outage",
    }
}

label! {
    /// What a node answered to an assignment.
    AssignmentOutcome as "outcome" {
        /// It does it.
        Accepted = "accepted",
        /// It has no room.
        NoRoom = "no_room",
        /// Not now.
        Busy = "busy",
        /// No answer, or none that makes sense.
        Failed = "failed",
    }
}

/// The families on copies.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Contents that are to be kept, by how many copies count.
    pub contents: GaugeBy<Safety>,
    /// What the copies that count take.
    pub stored_bytes: Gauge,
    /// What they would take if each content had its target.
    pub wanted_bytes: Gauge,
    /// Copies that nodes were told to make and have not yet.
    pub under_way: Gauge,
    /// Contents of which there are too many copies.
    pub in_excess: Gauge,
    /// 1 for the reason for which repairs wait, if they do.
    pub held: GaugeBy<Waits>,
    /// Assignments to keep a replica.
    pub assigned: CounterBy<AssignmentOutcome>,
    /// Bytes of those that were accepted.
    pub assigned_bytes: Counter,
    /// Assignments to drop one.
    pub dropped: CounterBy<AssignmentOutcome>,
}

impl Replication {
    /// Registers the families.
    pub(crate) fn register(registry: &Registry) -> Result<Self, RegisterError> {
        Ok(Self {
            contents: GaugeBy::register(
                registry,
                "replication_contents",
                "Contents that are to be kept, by how many copies of them count.",
            )?,
            stored_bytes: Gauge::register(
                registry,
                "replication_stored_bytes",
                "Bytes that all copies that count take: files of owners and readers, and sealed replicas.",
            )?,
            wanted_bytes: Gauge::register(
                registry,
                "replication_wanted_bytes",
                "Bytes that copies would take if every content had exactly its target of copies.",
            )?,
            under_way: Gauge::register(
                registry,
                "replication_under_way",
                "Replicas that nodes were told to make by this super-peer and have not made yet.",
            )?,
            in_excess: Gauge::register(
                registry,
                "replication_in_excess",
                "Contents with too many copies of which this super-peer has one dropped.",
            )?,
            held: GaugeBy::register(
                registry,
                "replication_held",
                "1 while repairs wait, by reason: a start, or an outage of over a third of the nodes.",
            )?,
            assigned: CounterBy::register(
                registry,
                "replicas_assigned_total",
                "Assignments to keep a replica, by the node's answer.",
            )?,
            assigned_bytes: Counter::register(
                registry,
                "replicas_assigned_bytes_total",
                "Bytes of the replicas that nodes accepted to keep.",
            )?,
            dropped: CounterBy::register(
                registry,
                "replicas_dropped_total",
                "Assignments to drop a replica, by the node's answer.",
            )?,
        })
    }
}
