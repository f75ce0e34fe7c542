//! What a super-peer tells: who is there, what the index holds, and how the load is spread.
//!
//! Offered, leased and served stand side by side, each by member, so that one look at a dashboard shows whether
//! holders are picked evenly and whether they then carry what they were picked for.

use crate::{
    fairness::jain,
    family::{Counter, CounterBy, Gauge, GaugeBy, Histogram, HistogramBy, Ratio, buckets, label},
    members::{MemberCounter, MemberGauge},
    registry::{RegisterError, Registry},
    replication::Replication,
};

label! {
    /// A member's role in the network.
    Role as "role" {
        /// Keeps index and health.
        SuperPeer = "superpeer",
        /// Holds files.
        Node = "node",
    }
}

label! {
    /// A member's health as this super-peer sees it.
    MemberState as "state" {
        /// Connected and answering.
        Online = "online",
        /// Missed a poll or a ping; offered no more.
        Suspect = "suspect",
        /// Removed from the available list.
        Offline = "offline",
    }
}

label! {
    /// How a poll of a node's list ended.
    PollOutcome as "outcome" {
        /// Answered in time with a valid list.
        Answered = "answered",
        /// No answer in time.
        Missed = "missed",
        /// Answered with a list that was wrong or impossible.
        Refused = "refused",
    }
}

label! {
    /// Why a node was taken off the available list.
    RemovalCause as "cause" {
        /// Its last connection closed.
        ConnectionClosed = "connection_closed",
        /// It missed too many polls in a row.
        PollsMissed = "polls_missed",
    }
}

label! {
    /// How much of its inventory a node registered.
    InventoryKind as "kind" {
        /// All of it.
        Full = "full",
        /// What changed since a revision.
        Delta = "delta",
    }
}

label! {
    /// Why an inventory entry did not enter the index.
    EntryRefusal as "reason" {
        /// It could not be parsed, or a field is out of bounds.
        Malformed = "malformed",
        /// No record of such a file.
        UnknownFile = "unknown_file",
        /// Another size, checksum or content than the file's record has.
        Mismatch = "mismatch",
        /// The same entry twice.
        Duplicate = "duplicate",
        /// More entries than one member may have.
        OverQuota = "over_quota",
    }
}

label! {
    /// What a catalog record is about.
    RecordKind as "kind" {
        /// A file that exists.
        File = "file",
        /// A file that was deleted.
        Tombstone = "tombstone",
        /// A member.
        Member = "member",
    }
}

label! {
    /// What became of a record that a member published.
    PublicationOutcome as "outcome" {
        /// Stored: new, or newer than what was known.
        Stored = "stored",
        /// Known already.
        Known = "known",
        /// Older than what is known.
        Superseded = "superseded",
        /// Wrong signature, owner, bounds or quota.
        Refused = "refused",
    }
}

label! {
    /// A question to the index.
    Query as "query" {
        /// Files, or members, in order.
        List = "list",
        /// Files by name.
        Search = "search",
        /// Sources for a content.
        Locate = "locate",
    }
}

label! {
    /// How a question to the index ended.
    QueryOutcome as "outcome" {
        /// With at least one result.
        Found = "found",
        /// With none.
        Empty = "empty",
        /// Not permitted, malformed, or over a limit.
        Refused = "refused",
    }
}

label! {
    /// How a push of records to another super-peer ended.
    PushOutcome as "outcome" {
        /// The other took them.
        Delivered = "delivered",
        /// The other refused some.
        Refused = "refused",
        /// The other could not be reached, or did not answer.
        Failed = "failed",
    }
}

label! {
    /// How a comparison of catalogs that this super-peer began with another one ended.
    Reconciliation as "outcome" {
        /// Both agree.
        Equal = "equal",
        /// What differs still is what one of them does not take.
        Settled = "settled",
        /// It goes on with the next one.
        Unfinished = "unfinished",
        /// The other was comparing with somebody else.
        Busy = "busy",
        /// The other did not answer as it should.
        Faulty = "faulty",
        /// The connection or a disk failed.
        BrokenOff = "broken_off",
    }
}

label! {
    /// Which way something went.
    Way as "direction" {
        /// Towards this super-peer.
        Received = "received",
        /// Away from it.
        Sent = "sent",
    }
}

/// The super-peer's families.
#[derive(Clone, Debug)]
pub struct SuperPeer {
    /// Members known, by role and state.
    pub members: GaugeBy<(Role, MemberState)>,
    /// Polls by outcome.
    pub polls: CounterBy<PollOutcome>,
    /// How long answered polls took.
    pub poll_duration: Histogram,
    /// Nodes taken off the available list.
    pub removals: CounterBy<RemovalCause>,
    /// Nodes back on the available list.
    pub returns: Counter,
    /// Inventories that entered the index.
    pub inventories_registered: CounterBy<InventoryKind>,
    /// Inventory entries that did not.
    pub inventory_entries_refused: CounterBy<EntryRefusal>,
    /// Inventory entries in the index, over all members.
    pub index_entries: Gauge,
    /// Distinct files in the index.
    pub index_files: Gauge,
    /// Distinct contents in the index.
    pub index_contents: Gauge,
    /// Records in the catalog.
    pub catalog_records: GaugeBy<RecordKind>,
    /// Records that members published.
    pub publications: CounterBy<PublicationOutcome>,
    /// Questions to the index.
    pub queries: CounterBy<(Query, QueryOutcome)>,
    /// How long questions to the index took inside the super-peer.
    pub query_duration: HistogramBy<Query>,
    /// How often a member was named as a source.
    pub sources_offered: MemberCounter,
    /// Bytes that members are expected to serve under leases that have not run out.
    pub leased_bytes: MemberGauge,
    /// Bytes that members reported to have served.
    pub served_bytes: MemberCounter,
    /// Jain's index of the bytes served. Set by [`fairness_of`](Self::fairness_of).
    pub served_fairness: Ratio,
    /// How often a member was reported as a bad source.
    pub bad_sources_reported: MemberCounter,
    /// Pushes of records to other super-peers.
    pub sync_pushes: CounterBy<PushOutcome>,
    /// Comparisons of catalogs that this super-peer began.
    pub reconciliations: CounterBy<Reconciliation>,
    /// Entries that they moved: received ones that were stored, sent ones whether needed or not.
    pub reconciled_entries: CounterBy<Way>,
    /// Bytes of their messages.
    pub reconciled_bytes: CounterBy<Way>,
    /// How long those took that moved entries.
    pub reconciliation_duration: Histogram,
    /// Copies of files.
    pub replication: Replication,
}

impl SuperPeer {
    /// Registers the families.
    pub fn register(registry: &Registry) -> Result<Self, RegisterError> {
        Ok(Self {
            members: GaugeBy::register(
                registry,
                "members",
                "Members known to this super-peer, by role and state.",
            )?,
            polls: CounterBy::register(registry, "polls_total", "Polls of nodes' lists, by outcome.")?,
            poll_duration: Histogram::register(
                registry,
                "poll_duration_seconds",
                "Time from a poll to the end of its answer.",
                // 0.5 ms to 16 s: a poll that takes longer than the interval, 15 s by default, is missed.
                buckets(0.0005, 2.0, 16)?,
            )?,
            removals: CounterBy::register(
                registry,
                "removals_total",
                "Nodes taken off the available list, by cause.",
            )?,
            returns: Counter::register(
                registry,
                "returns_total",
                "Nodes that came back onto the available list.",
            )?,
            inventories_registered: CounterBy::register(
                registry,
                "inventories_registered_total",
                "Inventories that nodes registered, full or as a delta.",
            )?,
            inventory_entries_refused: CounterBy::register(
                registry,
                "inventory_entries_refused_total",
                "Inventory entries that were not indexed, by reason.",
            )?,
            index_entries: Gauge::register(
                registry,
                "index_entries",
                "Inventory entries in the index, over all members.",
            )?,
            index_files: Gauge::register(registry, "index_files", "Distinct files in the index.")?,
            index_contents: Gauge::register(registry, "index_contents", "Distinct contents in the index.")?,
            catalog_records: GaugeBy::register(
                registry,
                "catalog_records",
                "Records in the catalog, by what they are about.",
            )?,
            publications: CounterBy::register(
                registry,
                "publications_total",
                "Records that members published, by outcome.",
            )?,
            queries: CounterBy::register(
                registry,
                "queries_total",
                "List, search and locate questions to the index, by outcome.",
            )?,
            query_duration: HistogramBy::register(
                registry,
                "query_duration_seconds",
                "Time that a question to the index took inside the super-peer.",
                // 32 µs to 1 s, with bounds on both sides of what search (20 ms) and locate (2 ms) are meant to take.
                buckets(0.000_032, 2.0, 16)?,
            )?,
            sources_offered: MemberCounter::register(
                registry,
                "sources_offered_total",
                "How often a member was named as a source in the answer to locate.",
            )?,
            leased_bytes: MemberGauge::register(
                registry,
                "leased_bytes",
                "Bytes a member is expected to serve under leases that have not run out.",
            )?,
            served_bytes: MemberCounter::register(
                registry,
                "served_bytes_total",
                "Bytes a member reported to have served to others.",
            )?,
            served_fairness: Ratio::register(
                registry,
                "served_fairness_ratio",
                "Jain's fairness index of the bytes served by the available nodes: 1 is even, 1/n is one for all.",
                1.0,
            )?,
            bad_sources_reported: MemberCounter::register(
                registry,
                "bad_sources_reported_total",
                "How often a member was reported as a bad source.",
            )?,
            sync_pushes: CounterBy::register(
                registry,
                "sync_pushes_total",
                "Pushes of records to other super-peers, by outcome.",
            )?,
            reconciliations: CounterBy::register(
                registry,
                "reconciliations_total",
                "Comparisons of catalogs that this super-peer began with another one, by outcome.",
            )?,
            reconciled_entries: CounterBy::register(
                registry,
                "reconciled_entries_total",
                "Catalog entries moved by comparisons that this super-peer began.",
            )?,
            reconciled_bytes: CounterBy::register(
                registry,
                "reconciled_bytes_total",
                "Bytes of messages of comparisons that this super-peer began.",
            )?,
            reconciliation_duration: Histogram::register(
                registry,
                "reconciliation_duration_seconds",
                "Time that comparisons of catalogs took that moved entries.",
                // 4 ms to 33 s: a healed partition is meant to take less than 5 s.
                buckets(0.004, 2.0, 14)?,
            )?,
            replication: Replication::register(registry)?,
        })
    }

    /// Sets [`served_fairness`](Self::served_fairness) from the bytes that each available node has served.
    pub fn fairness_of(&self, served_bytes: &[f64]) {
        self.served_fairness.set(jain(served_bytes));
    }
}
