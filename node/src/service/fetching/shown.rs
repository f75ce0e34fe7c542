//! How a transfer is shown, stored and counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use libp2p::PeerId;
use quarta_daemon::observer::carrier;
use quarta_metrics::{
    network::Transport as Carrier,
    node::{Flow, SourceDropped},
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
    download::fetch::report::{FetchProgress, Phase, RowState},
};

pub(super) fn rate(bytes: u64, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 }
}

/// A transfer that is about to begin or to go on.
pub(super) fn shown(wanted: &Wanted, id: TransferId, state: TransferState) -> model::Transfer {
    model::Transfer {
        id: u64::try_from(id.0).unwrap_or(0),
        file: wanted.file.to_string(),
        name: wanted.name.to_string(),
        owner: wanted.owner_name.to_string(),
        state,
        size_bytes: wanted.size_bytes,
        done_bytes: 0,
        resumed_bytes: 0,
        bytes_per_second: 0.0,
        started_ms: wall_ms(),
        ended_ms: None,
        path: None,
        sha256: None,
        revision: Some(wanted.record.body().revision),
        notice: None,
        error: None,
        next_step: None,
        sources: Vec::new(),
    }
}

pub(super) fn show_progress(transfer: &mut model::Transfer, now: &FetchProgress, started: Instant) {
    // Before that it is not known what is here.
    if now.phase != Phase::Locating {
        transfer.done_bytes = now.bytes_done;
        transfer.resumed_bytes = now.bytes_resumed;
        transfer.bytes_per_second = rate(now.bytes_done - now.bytes_resumed, started.elapsed());
    }
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

/// A transfer's row, as it begins.
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
        owner: Some(wanted.owner_name.clone()),
        content: Some(wanted.content),
        resumed_bytes: 0,
    }
}

/// Stores how a transfer stands, and whether it `keeps` partial data. Says whether that succeeded.
pub(super) async fn store(
    shared: &Arc<Shared>,
    wanted: &Wanted,
    id: TransferId,
    now: &model::Transfer,
    keeps: bool,
) -> bool {
    let state = match now.state {
        TransferState::Queued | TransferState::Active => StoredState::Running,
        TransferState::Waiting => StoredState::Waiting,
        TransferState::Paused => StoredState::Paused,
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
        problem: now.error.clone().filter(|_| matches!(state, StoredState::Failed | StoredState::Waiting)),
        bytes: now.done_bytes,
        ended_ms: now.ended_ms,
        sha256: (state == StoredState::Done).then_some(wanted.sha256),
        shares: now.sources.iter().filter_map(share).collect(),
        content: keeps.then_some(wanted.content),
        resumed_bytes: now.resumed_bytes,
        ..stored(wanted, state)
    };
    let blocking = shared.clone();
    let noting = move || blocking.noted(blocking.database.update_transfer(id, &row));
    let written = tokio::task::spawn_blocking(noting).await;
    let noted = matches!(written, Ok(Ok(())));
    if !noted {
        // It stays noted as under way: the next start goes on with it, or finds the file here.
        tracing::error!(transfer = id.0, "how a transfer stands could not be noted");
    }
    noted
}

/// Counts an attempt.
pub(super) fn count(
    shared: &Shared,
    now: &model::Transfer,
    outcomes: &[SourceOutcome],
    carried: &Mutex<HashMap<PeerId, Transport>>,
    took: Duration,
) {
    let metrics = &shared.metrics.node;
    metrics.resumed_bytes.add(now.resumed_bytes);
    metrics.transfer_ended(Flow::Download, now.done_bytes.saturating_sub(now.resumed_bytes), took);
    let carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
    let own = shared.identity.keys.peer();
    for outcome in outcomes.iter().filter(|outcome| outcome.peer != own) {
        let peer = outcome.peer.to_string();
        let name =
            now.sources.iter().find(|source| source.peer_id == peer).map(|source| source.name.as_str());
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
