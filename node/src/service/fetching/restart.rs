//! What is left of an earlier run: transfers that go on, and partial data that nobody needs any more.

use std::{collections::HashSet, sync::Arc, time::Duration};

use quarta_protocols::{names::MemberName, records::Record};

use super::{
    BeginError, FAILED_DATA_KEPT, FETCHES_MAX, Wanted, course::Beginning, is_whole, shown::shown, spawn,
};
use crate::{
    api::model::TransferState,
    database::{Database, DatabaseError, Transfer, TransferId, TransferState as StoredState},
    library::PartialName,
    service::{Shared, wall_ms},
};

/// How often the partial data of failed transfers is looked through for what has been kept long enough.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);

/// The partial data that transfers may go on with. All other is swept away before any of them does.
pub(in crate::service) fn kept_data(database: &Database) -> Result<HashSet<PartialName>, DatabaseError> {
    database.expire_partials(expired_before())?;
    Ok(database.partial_names()?.into_iter().collect())
}

fn expired_before() -> u64 {
    wall_ms().saturating_sub(u64::try_from(FAILED_DATA_KEPT.as_millis()).unwrap_or(u64::MAX))
}

/// Gives up the partial data of failed transfers once it has been kept for [`FAILED_DATA_KEPT`], until the node stops.
pub(in crate::service) async fn expire_failed(shared: Arc<Shared>) {
    while shared.stop.run_until_cancelled(tokio::time::sleep(EXPIRE_EVERY)).await.is_some() {
        let _changing = shared.fetches.changing.lock().await;
        let blocking = shared.clone();
        let expiring = move || {
            for name in blocking.database.expire_partials(expired_before())? {
                // A later transfer of the file may be at work on it.
                if blocking.fetches.slot(&name.file).is_none() {
                    blocking.library.discard_partial(&name);
                }
            }
            Ok::<_, DatabaseError>(())
        };
        if let Ok(Err(error)) = tokio::task::spawn_blocking(expiring).await {
            tracing::error!(%error, "old partial data could not be looked for; the next time is in an hour");
        }
    }
}

/// Goes on with the transfers that were under way when the last run ended. Does not wait for any.
pub(in crate::service) async fn go_on(shared: Arc<Shared>) {
    let _changing = shared.fetches.changing.lock().await;
    let blocking = shared.clone();
    let reading = move || {
        let limit = u32::try_from(FETCHES_MAX).unwrap_or(u32::MAX);
        let unfinished = blocking.database.unfinished_downloads(limit)?;
        let look = |(id, row): (TransferId, Transfer)| resumable(&blocking, id, row).transpose();
        unfinished.into_iter().filter_map(look).collect::<Result<Vec<_>, DatabaseError>>()
    };
    let going_on = match tokio::task::spawn_blocking(reading).await {
        Ok(Ok(going_on)) => going_on,
        Ok(Err(error)) => {
            tracing::error!(%error, "the transfers of the last run could not be read; ask for their files again");
            return;
        }
        Err(_) => return,
    };
    for (id, wanted, row) in going_on {
        if shared.fetches.slot(&wanted.file).is_none() {
            let mut first = shown(&wanted, id, TransferState::Queued);
            (first.started_ms, first.done_bytes) = (row.started_ms, row.bytes);
            tracing::info!(file = %wanted.file, "a transfer of the last run goes on");
            spawn(&shared, wanted, id, first, Beginning::AfterStart);
        }
    }
}

/// What a transfer of the last run wants; none where it has ended after all, which is noted.
fn resumable(
    shared: &Arc<Shared>,
    id: TransferId,
    row: Transfer,
) -> Result<Option<(TransferId, Wanted, Transfer)>, DatabaseError> {
    let end = |state, problem: Option<String>| {
        let bytes = if state == StoredState::Done { row.size_bytes } else { 0 };
        let ended_ms = Some(wall_ms());
        let ended = Transfer { state, problem, bytes, ended_ms, content: None, ..row.clone() };
        if let Some(partial) = row.partial() {
            shared.library.discard_partial(&partial);
        }
        shared.database.update_transfer(id, &ended)
    };
    let wanted = match wanted(shared, &row)? {
        Ok(wanted) => wanted,
        Err(why) => {
            end(StoredState::Failed, Some(why))?;
            return Ok(None);
        }
    };
    // The daemon may have ended between noting the copy and noting the transfer's end.
    let here = shared.database.copy(&row.file)?.is_some_and(|copy| is_whole(shared, &copy, &wanted));
    if here {
        end(StoredState::Done, None)?;
        return Ok(None);
    }
    if let Some(other) = row.partial().filter(|partial| partial.content != wanted.content) {
        shared.library.discard_partial(&other);
    }
    Ok(Some((id, wanted, row)))
}

/// What is known of the file of a transfer by now, or why it cannot be fetched.
pub(super) fn wanted(shared: &Shared, row: &Transfer) -> Result<Result<Wanted, String>, DatabaseError> {
    let known = shared.database.record(&row.file)?;
    let record = known.and_then(|signed| Record::verify(signed, &shared.identity.trust).ok());
    let Some(record) = record else { return Ok(Err("nothing is known of the file any more".to_owned())) };
    let owner_name = match &row.owner {
        Some(name) => Some(name.clone()),
        None => shared.database.member(&record.owner())?.map(|member| member.listed.name),
    };
    let Some(owner_name): Option<MemberName> = owner_name else {
        return Ok(Err("nothing is known of the file's owner any more".to_owned()));
    };
    Ok(Wanted::of(shared, record, owner_name).map_err(|error: BeginError| error.to_string()))
}
