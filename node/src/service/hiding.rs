//! What a node forgets of a file that is hidden from it, beside record and copy: its transfers and what was told of them.
//!
//! The branch has fetched the file, so lists of its own transfers and events name it; from now on nothing does.

use std::sync::Arc;

use quarta_protocols::ids::FileId;

use super::{Shared, fetching};

/// Forgets transfers and events of a file, once the one that is under way has ended. Does not wait for that.
pub(super) fn forget_traces(shared: &Arc<Shared>, file: FileId) {
    let shared = shared.clone();
    tokio::spawn(async move {
        let ended = fetching::ended(&shared, &file);
        if shared.stop.run_until_cancelled(ended).await.is_none() {
            return;
        }
        shared.events.forget(&file);
        let blocking = shared.clone();
        let forgetting = move || blocking.noted(blocking.database.forget_transfers(&file));
        match tokio::task::spawn_blocking(forgetting).await {
            Ok(Ok(_)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, %file, "the transfers of a hidden file could not be forgotten");
            }
        }
    });
}
