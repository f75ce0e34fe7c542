//! How a transfer is shown, stored and counted.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_daemon::observer::carrier;
use quarta_metrics::{
    network::Transport as Carrier,
    node::{FetchOutcome, Flow, SourceDropped},
};
use quarta_protocols::{
    messages::index::{Fault, SourceOutcome},
    names::MemberName,
    network::Transport,
};

use super::Wanted;
use crate::service::{Shared, wall_ms};
use crate::{
    api::model::{self, TransferState},
    database::{Direction, Share, Transfer, TransferId, TransferState as StoredState},
    download::fetch::report::{FetchProgress, RowState},
};

pub(super) fn rate(bytes: u64, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 }
}

pub(super) fn shown(wanted: &Wanted, id: TransferId, state: TransferState) -> model::Transfer {
    model::Transfer {
        id: u64::try_from(id.0).unwrap_or(0),
        file: wanted.file.to_string(),
        name: wanted.name.to_string(),
        owner: wanted.owner_name.to_string(),
        state,
        size_bytes: wanted.size_bytes,
        done_bytes: 0,
        bytes_per_second: 0.0,
        started_ms: wall_ms(),
        ended_ms: None,
        path: None,
        sha256: None,
        error: None,
        next_step: None,
        sources: Vec::new(),
    }
}

pub(super) fn show_progress(transfer: &mut model::Transfer, now: &FetchProgress, started: Instant) {
    transfer.done_bytes = now.bytes_done;
    transfer.bytes_per_second = rate(now.bytes_done, started.elapsed());
    transfer.sources = now
        .sources
        .iter()
        .map(|row| model::TransferSource {
            name: row.name.to_string(),
            peer_id: row.peer.to_string(),
            transport: row.transport.map(str::to_owned),
            bytes: row.bytes,
            busy_ms: 0,
            fault: match row.state {
                RowState::Dropped(fault) => Some(fault.as_str().to_owned()),
                RowState::Connecting | RowState::Active | RowState::Spare => None,
            },
        })
        .collect();
}

pub(super) fn merge_outcomes(
    transfer: &mut model::Transfer,
    outcomes: &[SourceOutcome],
    carried: &HashMap<PeerId, Transport>,
) {
    for source in &mut transfer.sources {
        if let Some(outcome) = outcomes.iter().find(|outcome| outcome.peer.to_string() == source.peer_id) {
            source.bytes = outcome.bytes;
            source.busy_ms = outcome.busy_ms;
            source.fault = outcome.fault.map(|fault| fault.as_str().to_owned());
            // A fetch that ends with a run's last chunk does not wait to hear how the run went.
            if source.transport.is_none() && outcome.bytes > 0 {
                source.transport = carried.get(&outcome.peer).map(ToString::to_string);
            }
        }
    }
}

pub(super) fn stored(wanted: &Wanted, state: StoredState) -> Transfer {
    Transfer {
        file: wanted.file,
        name: wanted.name.clone(),
        direction: Direction::Download,
        state,
        problem: None,
        size_bytes: wanted.size_bytes,
        bytes: 0,
        started_ms: wall_ms(),
        ended_ms: None,
        sha256: None,
        shares: Vec::new(),
    }
}

pub(super) async fn store_end(shared: &Shared, wanted: &Wanted, id: TransferId, ended: &model::Transfer) {
    let state = match ended.state {
        TransferState::Active => StoredState::Running,
        TransferState::Completed => StoredState::Done,
        TransferState::Failed => StoredState::Failed,
        TransferState::Cancelled => StoredState::Cancelled,
    };
    let share = |source: &model::TransferSource| {
        Some(Share {
            peer: source.peer_id.parse().ok()?,
            name: MemberName::new(&source.name).ok(),
            transport: source.transport.clone(),
            bytes: source.bytes,
            busy_ms: source.busy_ms,
            dropped: source.fault.clone(),
        })
    };
    let row = Transfer {
        problem: ended.error.clone(),
        bytes: ended.done_bytes,
        ended_ms: ended.ended_ms,
        sha256: (state == StoredState::Done).then_some(wanted.sha256),
        shares: ended.sources.iter().filter_map(share).collect(),
        ..stored(wanted, state)
    };
    let database = shared.database.clone();
    let written = tokio::task::spawn_blocking(move || database.update_transfer(id, &row)).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::error!("the end of a transfer could not be noted");
    }
}

pub(super) fn record_metrics(
    shared: &Shared,
    ended: &model::Transfer,
    outcomes: &[SourceOutcome],
    carried: &Mutex<HashMap<PeerId, Transport>>,
    took: Duration,
) {
    let metrics = &shared.metrics.node;
    metrics.fetches.inc(match ended.state {
        TransferState::Completed => FetchOutcome::Completed,
        TransferState::Cancelled => FetchOutcome::Cancelled,
        TransferState::Failed | TransferState::Active => FetchOutcome::Failed,
    });
    metrics.transfer_ended(Flow::Download, ended.done_bytes, took);
    let carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
    for outcome in outcomes {
        let peer = outcome.peer.to_string();
        let name =
            ended.sources.iter().find(|source| source.peer_id == peer).map(|source| source.name.as_str());
        if outcome.bytes > 0 {
            let transport = carried.get(&outcome.peer).map_or(Carrier::Tcp, |transport| carrier(*transport));
            metrics.fetched_bytes.add(name.unwrap_or("other"), transport, outcome.bytes);
        }
        if let Some(fault) = outcome.fault {
            metrics.sources_dropped.inc(match fault {
                Fault::Unreachable => SourceDropped::Unreachable,
                Fault::WrongBytes => SourceDropped::WrongBytes,
                Fault::Stalled => SourceDropped::Stalled,
                Fault::NotHeld => SourceDropped::NotHeld,
                Fault::BrokeOff => SourceDropped::BrokeOff,
            });
        }
    }
}
