//! Who holds a file, and how many should: what a member is told of a file that it may see.

use std::{cmp::Reverse, time::Instant};

use quarta_metrics::superpeer::Query;
use quarta_protocols::{
    ids::FileId,
    messages::index::{HOLDERS_MAX, Holder, MemberState, Response},
};

use super::{Shared, content_of, requests::unavailable};
use crate::catalog::Viewer;

/// Answers *holders*. A file that the viewer may not see has none, like one that does not exist.
pub(super) async fn of_file(shared: &Shared, viewer: Viewer, file: FileId, started: Instant) -> Response {
    let found = match shared.store.read(move |reader| reader.file(viewer, &file)).await {
        Ok(found) => found,
        Err(error) => return unavailable("reading a file's record", &error),
    };
    let content = found.and_then(|file| file.record.peek().ok()).and_then(|body| content_of(&body));
    let Some(content) = content else {
        shared.queried(Query::Locate, started, 0);
        return Response::Holders { holders: Vec::new(), target: 0, floor: 0 };
    };
    let state = shared.state();
    let mut holders: Vec<Holder> = state
        .index
        .held(&content)
        .filter_map(|held| {
            Some(Holder {
                peer: held.peer,
                name: state.known_name(&held.peer)?.clone(),
                state: state.health.state(&held.peer),
                vault: held.vault,
                complete: held.complete,
            })
        })
        .collect();
    drop(state);
    // Those that count most come first, should there be more than one answer takes.
    holders.sort_by_cached_key(|holder| {
        (Reverse(holder.complete), holder.state != MemberState::Online, holder.vault, holder.name.clone())
    });
    holders.truncate(HOLDERS_MAX);
    shared.queried(Query::Locate, started, holders.len());
    let (target, floor) = shared.replication.wanted();
    Response::Holders { holders, target, floor }
}
