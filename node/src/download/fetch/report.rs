//! What a fetch shows of itself while it runs.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_protocols::{messages::index::Fault, names::MemberName};

use super::{TICK, ports::TransportLabel};

/// Over which time the shown rate is a mean.
const RATE_OVER: Duration = Duration::from_secs(3);

/// How a fetch stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchProgress {
    /// What it does.
    pub phase: Phase,
    /// Verified plaintext bytes, those of an earlier attempt among them.
    pub bytes_done: u64,
    /// Those of an earlier attempt, in bytes; known once the phase is not [`Phase::Locating`].
    pub bytes_resumed: u64,
    /// The file's size, in bytes.
    pub bytes_total: u64,
    /// Verified plaintext bytes a second, a mean of the last seconds.
    pub rate_bytes_per_second: u64,
    /// Each source that was tried, in the order in which they were.
    pub sources: Vec<SourceRow>,
}

/// What a fetch does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// Looks for sources and the manifest.
    #[default]
    Locating,
    /// Chunks are under way.
    Fetching,
    /// The whole file's checksum is computed.
    Checking,
}

/// One source of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Who.
    pub peer: PeerId,
    /// Its name.
    pub name: MemberName,
    /// What carried its last run; none before its first has ended.
    pub transport: Option<TransportLabel>,
    /// Verified plaintext bytes it carried.
    pub bytes: u64,
    /// Its rate lately, in bytes a second.
    pub rate_bytes_per_second: u64,
    /// How it stands.
    pub state: RowState,
}

/// How a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowState {
    /// Being connected.
    Connecting,
    /// In use.
    Active,
    /// Kept for when others fail.
    Spare,
    /// Used no more.
    Dropped(Fault),
}

/// The mean rate of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Meter(VecDeque<(Instant, u64)>);

impl Meter {
    /// Takes note of the total and gives bytes a second.
    pub(super) fn rate(&mut self, now: Instant, bytes: u64) -> u64 {
        let kept = RATE_OVER.as_millis() / TICK.as_millis();
        self.0.push_back((now, bytes));
        while self.0.len() as u128 > kept {
            self.0.pop_front();
        }
        let Some((since, before)) = self.0.front() else { return 0 };
        let millis = u64::try_from(now.saturating_duration_since(*since).as_millis()).unwrap_or(u64::MAX);
        (bytes - before).saturating_mul(1000).checked_div(millis).unwrap_or(0)
    }
}
