//! Who holds a file, and how many should: what a member is told of a file that it may see.

use std::{cmp::Reverse, time::Instant};

use quarta_metrics::superpeer::Query;
use quarta_protocols::{
    credentials::Role,
    ids::FileId,
    messages::index::{HOLDERS_MAX, Holder, MemberState, Response},
};

use super::{Shared, content_of, requests::unavailable};
use crate::catalog::Viewer;

/// Nodes for which there is one copy of each file.
const NODES_PER_COPY: u32 = 3;
/// Copies of each file before any file gets more, where there are as many nodes.
const FLOOR: u32 = 3;
/// Most copies of a file: a network of a hundred nodes has its third.
const CEILING: u32 = 32;

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
    let nodes = state.health.iter().filter(|seen| seen.role == Role::Node).count();
    drop(state);
    // Those that count most come first, should there be more than one answer takes.
    holders.sort_by_cached_key(|holder| {
        (Reverse(holder.complete), holder.state != MemberState::Online, holder.vault, holder.name.clone())
    });
    holders.truncate(HOLDERS_MAX);
    shared.queried(Query::Locate, started, holders.len());
    let (floor, target) = copies(u32::try_from(nodes).unwrap_or(u32::MAX));
    Response::Holders { holders, target, floor }
}

/// How many whole copies of a file there should be at least and altogether, with so many nodes.
fn copies(nodes: u32) -> (u32, u32) {
    let floor = FLOOR.min(nodes);
    (floor, nodes.div_ceil(NODES_PER_COPY).clamp(floor, CEILING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_nodes_keep_a_file_and_never_too_few_or_too_many() {
        let nodes = [0, 1, 2, 3, 9, 12, 70, 96, 10_000];
        let expected = [(0, 0), (1, 1), (2, 2), (3, 3), (3, 3), (3, 4), (3, 24), (3, 32), (3, 32)];
        assert_eq!(nodes.map(copies), expected);
    }
}
