//! Transfers as people steer them: finding one, pausing, resuming, cancelling.

use std::sync::Arc;

use quarta_protocols::names::FileName;
use tokio::sync::watch;

use super::{
    BeginError,
    course::{Beginning, Order},
    in_database, join,
    restart::wanted,
    start,
};
use crate::{
    api::model::{self, TransferState},
    database::{Transfer, TransferId, TransferState as StoredState},
    service::Shared,
};

/// Files with a matching transfer that are told apart for the person.
const MATCHES_SHOWN: u32 = 5;
/// The shortest beginning of a file's id that names one, as elsewhere.
const ID_PREFIX_MIN: usize = 4;

/// Why a transfer is not as it was wished.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlError {
    /// There is none of that number, nor of such a file.
    #[error("there is no transfer {0:?}")]
    Unknown(String),
    /// Several files are called so.
    #[error("{reference:?} names several files that were fetched: {matches}")]
    Ambiguous {
        /// What was asked for.
        reference: String,
        /// The transfers' numbers and owners.
        matches: String,
    },
    /// It is in a state in which this makes no sense.
    #[error("{why}")]
    State {
        /// Which state.
        why: String,
        /// What to do.
        next_step: String,
    },
    /// It cannot be begun again.
    #[error(transparent)]
    Begin(#[from] BeginError),
}

impl ControlError {
    fn state(why: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self::State { why: why.into(), next_step: next_step.into() }
    }
}

/// The transfer that a reference names: its number, or the latest one of a file.
pub(crate) async fn find(shared: &Arc<Shared>, reference: &str) -> Result<TransferId, ControlError> {
    let blocking = shared.clone();
    let asked = reference.to_owned();
    let mut found = in_database(move || {
        let database = &blocking.database;
        if let Ok(number) = asked.parse()
            && database.transfer(TransferId(number))?.is_some()
        {
            return Ok(vec![(TransferId(number), None)]);
        }
        let (owner, name) = match asked.split_once(':') {
            Some((owner, name)) => (Some(owner), name),
            None => (None, asked.as_str()),
        };
        let named = FileName::normalised(name).map_or_else(|_| name.to_owned(), |name| name.to_string());
        let found = database.transfers_of(owner, &named, MATCHES_SHOWN + 1)?;
        let by_id = |row: &Transfer| row.name.as_str() != named;
        let found = found.into_iter().filter(|(_, row)| !by_id(row) || named.len() >= ID_PREFIX_MIN);
        Ok(found.map(|(id, row)| (id, row.owner)).collect())
    })
    .await?;
    if found.len() > 1 {
        let matches: Vec<String> = found
            .iter()
            .take(MATCHES_SHOWN as usize)
            .map(|(id, owner)| match owner {
                Some(owner) => format!("{} ({owner})", id.0),
                None => id.0.to_string(),
            })
            .collect();
        let matches = matches.join(", ");
        return Err(ControlError::Ambiguous { reference: reference.to_owned(), matches });
    }
    found.pop().map(|(id, _)| id).ok_or_else(|| ControlError::Unknown(reference.to_owned()))
}

/// How a transfer stands.
pub(crate) async fn show(shared: &Arc<Shared>, id: TransferId) -> Result<model::Transfer, ControlError> {
    let number = u64::try_from(id.0).unwrap_or(0);
    if let Some(running) = shared.fetches.now().remove(&number) {
        return Ok(running);
    }
    let blocking = shared.clone();
    let shown = in_database(move || {
        let Some(stored) = blocking.database.transfer(id)? else { return Ok(None) };
        blocking.show_stored(id, &stored).map(Some)
    });
    shown.await?.ok_or_else(|| ControlError::Unknown(id.0.to_string()))
}

/// Stops a transfer until it is resumed.
pub(crate) async fn pause(shared: &Arc<Shared>, id: TransferId) -> Result<model::Transfer, ControlError> {
    let changing = shared.fetches.changing.lock().await;
    if let Some(watched) = order(shared, id, Order::Pause) {
        drop(changing);
        let ended = stopped(watched).await;
        return match ended.state {
            TransferState::Paused => Ok(ended),
            _ => Err(has_ended(&ended)),
        };
    }
    let row = stored(shared, id).await?;
    match row.state {
        StoredState::Running | StoredState::Waiting => {
            update(shared, id, Transfer { state: StoredState::Paused, problem: None, ..row }).await
        }
        StoredState::Paused => {
            let next = format!("resume it with `quarta transfers resume {}`", id.0);
            Err(ControlError::state("it is paused already", next))
        }
        _ => Err(has_ended(&show(shared, id).await?)),
    }
}

/// Goes on with a transfer that is paused, failed or waits.
pub(crate) async fn resume(shared: &Arc<Shared>, id: TransferId) -> Result<model::Transfer, ControlError> {
    let _changing = shared.fetches.changing.lock().await;
    let row = stored(shared, id).await?;
    if let Some(running) = shared.fetches.slot(&row.file) {
        if running.id != id {
            let why = format!("the file is fetched by transfer {}", running.id.0);
            return Err(ControlError::state(why, "see `quarta transfers`"));
        }
        if running.sender.borrow().state != TransferState::Waiting {
            return Err(ControlError::state("it is under way", "see `quarta transfers`"));
        }
        return Ok(join(&running).borrow().clone());
    }
    match row.state {
        StoredState::Done | StoredState::Cancelled => Err(has_ended(&show(shared, id).await?)),
        _ => {
            let (blocking, of) = (shared.clone(), row.clone());
            let wanted = in_database(move || wanted(&blocking, &of)).await?;
            let wanted =
                wanted.map_err(|why| ControlError::state(why, "run `quarta ls` to see what there is"))?;
            Ok(start(shared, wanted, Some((id, row)), Beginning::Again).await?.borrow().clone())
        }
    }
}

/// Ends a transfer for good and removes what has arrived.
pub(crate) async fn cancel(shared: &Arc<Shared>, id: TransferId) -> Result<model::Transfer, ControlError> {
    let changing = shared.fetches.changing.lock().await;
    if let Some(watched) = order(shared, id, Order::Cancel) {
        drop(changing);
        let ended = stopped(watched).await;
        return match ended.state {
            TransferState::Cancelled => Ok(ended),
            _ => Err(has_ended(&ended)),
        };
    }
    let row = stored(shared, id).await?;
    let ended = matches!(row.state, StoredState::Done | StoredState::Cancelled);
    if ended || (row.state == StoredState::Failed && row.content.is_none()) {
        return Err(has_ended(&show(shared, id).await?));
    }
    let (blocking, partial) = (shared.clone(), row.partial());
    in_database(move || {
        if let Some(partial) = partial {
            blocking.library.discard_partial(&partial);
        }
        Ok(())
    })
    .await?;
    let ended_ms = row.ended_ms.or(Some(crate::service::wall_ms()));
    let cancelled =
        Transfer { state: StoredState::Cancelled, problem: None, bytes: 0, ended_ms, content: None, ..row };
    update(shared, id, cancelled).await
}

/// Gives an order to a transfer that is under way; none where it is not.
fn order(shared: &Shared, id: TransferId, order: Order) -> Option<watch::Receiver<model::Transfer>> {
    let slot = shared.fetches.running().values().find(|slot| slot.id == id).cloned()?;
    slot.control.order(order);
    Some(slot.sender.subscribe())
}

/// Waits until a transfer has stopped; a file that is being put into its place gets there first.
async fn stopped(mut watched: watch::Receiver<model::Transfer>) -> model::Transfer {
    loop {
        let now = watched.borrow_and_update().clone();
        let goes_on = now.state.is_going_on() || now.state == TransferState::Waiting;
        if !goes_on || watched.changed().await.is_err() {
            return now;
        }
    }
}

async fn stored(shared: &Arc<Shared>, id: TransferId) -> Result<Transfer, ControlError> {
    let blocking = shared.clone();
    let found = in_database(move || blocking.database.transfer(id)).await?;
    found.ok_or_else(|| ControlError::Unknown(id.0.to_string()))
}

async fn update(
    shared: &Arc<Shared>,
    id: TransferId,
    row: Transfer,
) -> Result<model::Transfer, ControlError> {
    let blocking = shared.clone();
    in_database(move || blocking.noted(blocking.database.update_transfer(id, &row))).await?;
    show(shared, id).await
}

fn has_ended(transfer: &model::Transfer) -> ControlError {
    match transfer.state {
        TransferState::Completed => {
            ControlError::state("it is completed", "see `quarta info` for where the file is")
        }
        TransferState::Cancelled => {
            ControlError::state("it was cancelled", "run `quarta get` to fetch the file anew")
        }
        _ => ControlError::state("it has failed", "resume it, or run `quarta get` to fetch the file again"),
    }
}
