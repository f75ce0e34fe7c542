//! What a node tells: its library, and what it fetches from and serves to others.

use std::time::Duration;

use crate::{
    family::{Counter, CounterBy, Gauge, GaugeBy, HistogramBy, buckets, label},
    members::{MemberCounter, MemberCounterBy},
    network::Transport,
    registry::{RegisterError, Registry},
};

label! {
    /// How adding a file ended.
    AddOutcome as "outcome" {
        /// The file is in the library and its record is signed.
        Added = "added",
        /// Refused before anything was read: its name, kind or permission.
        Refused = "refused",
        /// The file could not be read, sealed or stored, or changed meanwhile.
        Failed = "failed",
    }
}

label! {
    /// How a fetch ended.
    FetchOutcome as "outcome" {
        /// Whole and verified.
        Completed = "completed",
        /// Not completed: no source left, or a local error.
        Failed = "failed",
        /// Given up by the person who wanted it.
        Cancelled = "cancelled",
    }
}

label! {
    /// Which way a transfer's bytes flow.
    Flow as "direction" {
        /// To this node.
        Download = "download",
        /// From this node.
        Upload = "upload",
    }
}

label! {
    /// Why a chunk was refused.
    ChunkRefusal as "reason" {
        /// Its hash is not the manifest's.
        WrongHash = "wrong_hash",
        /// Shorter or longer than the manifest says.
        WrongLength = "wrong_length",
        /// It was not asked for.
        Unrequested = "unrequested",
        /// Its hash is right and it does not open under the content's key.
        Unopenable = "unopenable",
    }
}

label! {
    /// Why a source is used no more for a fetch.
    SourceDropped as "reason" {
        /// It could not be reached.
        Unreachable = "unreachable",
        /// It sent bytes that are not the content's.
        WrongBytes = "wrong_bytes",
        /// It sent nothing, or next to nothing, for too long.
        Stalled = "stalled",
        /// It does not hold what it was listed for.
        NotHeld = "not_held",
        /// It broke off.
        BrokeOff = "broke_off",
    }
}

label! {
    /// What is wrong with a copy on disk.
    CopyDefect as "defect" {
        /// It is another file than was shared or fetched.
        Changed = "changed",
        /// It is not there any more.
        Missing = "missing",
        /// It cannot be read.
        Unreadable = "unreadable",
        /// Its disk has lost some of its bytes.
        Damaged = "damaged",
    }
}

label! {
    /// What a check of a copy found.
    CopyChecked as "result" {
        /// It is what it should be.
        Sound = "sound",
        /// It is another file.
        Changed = "changed",
        /// It is not there.
        Missing = "missing",
        /// It cannot be read.
        Unreadable = "unreadable",
        /// Its disk has lost some of its bytes.
        Damaged = "damaged",
    }
}

/// The node's families.
#[derive(Clone, Debug)]
pub struct Node {
    /// Files in the library.
    pub library_files: Gauge,
    /// Bytes in the library.
    pub library_bytes: Gauge,
    /// Attempts to add a file.
    pub adds: CounterBy<AddOutcome>,
    /// Bytes of the files added.
    pub added_bytes: Counter,
    /// Fetches that ended.
    pub fetches: CounterBy<FetchOutcome>,
    /// Bytes of verified chunks, by the member that sent them and what carried them.
    pub fetched_bytes: MemberCounterBy<Transport>,
    /// Bytes that were here already, verified, when a transfer went on.
    pub resumed_bytes: Counter,
    /// Bytes of chunks sent, by the member that received them.
    pub served_bytes: MemberCounter,
    /// Transfers under way; see [`GaugeBy::hold`].
    pub active_transfers: GaugeBy<Flow>,
    /// The limit that holds now, in bytes a second; 0 for none.
    pub rate_limit: GaugeBy<Flow>,
    /// Requests for chunks that were told that this node is busy.
    pub busy_answers: Counter,
    /// How long transfers took. Changed by [`transfer_ended`](Self::transfer_ended).
    pub transfer_duration: HistogramBy<Flow>,
    /// How fast transfers were. Changed by [`transfer_ended`](Self::transfer_ended).
    pub transfer_rate: HistogramBy<Flow>,
    /// Chunks received and verified.
    pub chunks_verified: Counter,
    /// Chunks received and refused.
    pub chunks_refused: CounterBy<ChunkRefusal>,
    /// Sources that a fetch gave up on.
    pub sources_dropped: CounterBy<SourceDropped>,
    /// Freshly sealed chunks that differ from their manifest: the file changed on disk, and nothing was sent.
    pub seal_mismatches: Counter,
    /// Copies known not to be what they should be; they are offered to nobody.
    pub defective_copies: GaugeBy<CopyDefect>,
    /// Copies that `verify` has read to their end, or could not.
    pub copies_checked: CounterBy<CopyChecked>,
    /// Whole replicas in the vault.
    pub vault_replicas: Gauge,
    /// Sealed bytes of the whole replicas in the vault.
    pub vault_bytes: Gauge,
    /// Replicas that are being fetched or repaired, or wait for that.
    pub vault_wanted: Gauge,
    /// Replicas whose fetch or repair has ended.
    pub vault_fetches: CounterBy<FetchOutcome>,
    /// Bytes fetched for the vault, verified.
    pub vault_fetched_bytes: Counter,
    /// Bytes of the vault that its check has read and found sound.
    pub vault_scrubbed_bytes: Counter,
    /// Replicas found damaged or gone.
    pub vault_damaged: Counter,
    /// Super-peers this node is connected to and admitted by.
    pub superpeers_connected: Gauge,
    /// The revision of this node's inventory in its current epoch.
    pub inventory_revision: Gauge,
}

impl Node {
    /// Registers the families.
    pub fn register(registry: &Registry) -> Result<Self, RegisterError> {
        Ok(Self {
            library_files: Gauge::register(registry, "library_files", "Files in the library.")?,
            library_bytes: Gauge::register(registry, "library_bytes", "Bytes of the files in the library.")?,
            adds: CounterBy::register(registry, "adds_total", "Attempts to add a file, by outcome.")?,
            added_bytes: Counter::register(registry, "added_bytes_total", "Bytes of the files added.")?,
            fetches: CounterBy::register(registry, "fetches_total", "Fetches that ended, by outcome.")?,
            fetched_bytes: MemberCounterBy::register(
                registry,
                "fetched_bytes_total",
                "Bytes of verified chunks, by the member that sent them and what carried them.",
            )?,
            resumed_bytes: Counter::register(
                registry,
                "resumed_bytes_total",
                "Bytes that were here already, verified, when a transfer went on.",
            )?,
            served_bytes: MemberCounter::register(
                registry,
                "served_bytes_total",
                "Bytes of chunks sent, by the member that received them.",
            )?,
            rate_limit: GaugeBy::register(
                registry,
                "rate_limit_bytes_per_second",
                "What all transfers in a direction may take now, by the limits that are set; 0 for no limit.",
            )?,
            busy_answers: Counter::register(
                registry,
                "busy_answers_total",
                "Requests for chunks that were told that this node is busy.",
            )?,
            active_transfers: GaugeBy::register(
                registry,
                "active_transfers",
                "Transfers under way, by direction.",
            )?,
            transfer_duration: HistogramBy::register(
                registry,
                "transfer_duration_seconds",
                "Time from a transfer's start to its end, by direction.",
                // 5 ms, one chunk nearby, to 1.5 hours.
                buckets(0.005, 4.0, 11)?,
            )?,
            transfer_rate: HistogramBy::register(
                registry,
                "transfer_rate_bytes_per_second",
                "Mean rate of a transfer, by direction.",
                // 16 KiB/s, a bad mobile link, to 4 GiB/s, beyond what one machine seals.
                buckets(16.0 * 1024.0, 4.0, 10)?,
            )?,
            chunks_verified: Counter::register(
                registry,
                "chunks_verified_total",
                "Chunks received whose hash was the manifest's.",
            )?,
            chunks_refused: CounterBy::register(
                registry,
                "chunks_refused_total",
                "Chunks received and refused, by reason.",
            )?,
            sources_dropped: CounterBy::register(
                registry,
                "sources_dropped_total",
                "Sources that a fetch gave up on, by reason.",
            )?,
            seal_mismatches: Counter::register(
                registry,
                "seal_mismatches_total",
                "Freshly sealed chunks that differed from their manifest and were not sent: the file changed on disk.",
            )?,
            defective_copies: GaugeBy::register(
                registry,
                "defective_copies",
                "Copies known to be changed, missing or unreadable on disk, which are offered to nobody.",
            )?,
            copies_checked: CounterBy::register(
                registry,
                "copies_checked_total",
                "Copies that verify has checked, by result.",
            )?,
            vault_replicas: Gauge::register(registry, "vault_replicas", "Whole replicas in the vault.")?,
            vault_bytes: Gauge::register(
                registry,
                "vault_bytes",
                "Sealed bytes of the whole replicas in the vault.",
            )?,
            vault_wanted: Gauge::register(
                registry,
                "vault_wanted",
                "Replicas that are being fetched or repaired, or wait for that.",
            )?,
            vault_fetches: CounterBy::register(
                registry,
                "vault_fetches_total",
                "Replicas whose fetch or repair has ended, by outcome; a dropped one was cancelled.",
            )?,
            vault_fetched_bytes: Counter::register(
                registry,
                "vault_fetched_bytes_total",
                "Bytes fetched for the vault and verified.",
            )?,
            vault_scrubbed_bytes: Counter::register(
                registry,
                "vault_scrubbed_bytes_total",
                "Bytes of the vault that its check has read and found sound.",
            )?,
            vault_damaged: Counter::register(
                registry,
                "vault_damaged_total",
                "Replicas in the vault that were found damaged or gone.",
            )?,
            superpeers_connected: Gauge::register(
                registry,
                "superpeers_connected",
                "Super-peers this node is connected to and admitted by.",
            )?,
            inventory_revision: Gauge::register(
                registry,
                "inventory_revision",
                "Revision of this node's inventory in its current epoch.",
            )?,
        })
    }

    /// Records the end of a transfer that moved `bytes` in `duration`. One that moved nothing has no rate.
    pub fn transfer_ended(&self, flow: Flow, bytes: u64, duration: Duration) {
        self.transfer_duration.observe(flow, duration);
        if bytes > 0 && !duration.is_zero() {
            self.transfer_rate.observe_value(flow, bytes as f64 / duration.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Service;

    #[test]
    fn a_transfer_that_moved_nothing_has_a_duration_and_no_rate() {
        let registry = Registry::new(Service::Node, "1").unwrap();
        let node = Node::register(&registry).unwrap();
        node.transfer_ended(Flow::Download, 1024 * 1024, Duration::from_secs(1));
        node.transfer_ended(Flow::Download, 0, Duration::from_secs(1));
        let text = registry.encode();
        assert!(text.contains("transfer_duration_seconds_count{direction=\"download\"} 2\n"), "{text}");
        assert!(text.contains("transfer_rate_bytes_per_second_count{direction=\"download\"} 1\n"), "{text}");
        assert!(text.contains("{direction=\"download\",le=\"262144\"} 0\n"), "{text}");
        assert!(text.contains("{direction=\"download\",le=\"1048576\"} 1\n"), "{text}");
    }
}
