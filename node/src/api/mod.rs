//! The node's HTTP API: one file for each resource.
//!
//! Every handler stands below its own description, and the router is made of both (`routes!`), so that none is served
//! undescribed. What holds for all routes, who is let in and how errors look, is `quarta_daemon::http`'s.
//!
//! A new resource is a file here with a `pub(super) fn routes()`, merged in `router`.

mod adding;
mod blacklist;
mod content;
mod events;
mod files;
mod giving;
mod holders;
mod limits;
mod lines;
mod members;
mod membership;
pub mod model;
mod problems;
mod receiving;
mod registering;
mod status;
mod transfer;
mod transfers;
mod trash;
mod updating;
mod verifying;

use std::sync::Arc;

use axum::{Router, extract::State};
use quarta_daemon::http::documented;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::service::Shared;

type Service = State<Arc<Shared>>;
type Routes = OpenApiRouter<Arc<Shared>>;

/// What the description says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quarta node",
        description = "A branch's node: the network's files, adding and fetching them, members and transfers.\n\n\
            Errors are `application/problem+json` (RFC 9457) with a `code` for programs, a `detail` and a `next_step` \
            for people. Sizes are in bytes, times in seconds or, ending in `_ms`, in milliseconds since 1970 UTC. A \
            field may be added in any version.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(model::NodeEvent)),
    tags(
        (name = "status", description = "How this node is"),
        (name = "files", description = "The network's files"),
        (name = "trash", description = "Files that were replaced or deleted, kept for a while"),
        (name = "transfers", description = "Fetches, under way and ended"),
        (name = "limits", description = "What transfers may take of the line, and when"),
        (name = "members", description = "The network's members"),
        (name = "membership", description = "This branch as a member: signing off and on, leaving for good"),
        (name = "events", description = "What happens, as it happens"),
        (name = "local", description = "For commands on this machine, over the socket in the data folder"),
        (name = "browser", description = "How a browser gets in"),
        (name = "api", description = "The API itself"),
    ),
)]
struct Description;

pub use registering::RegisterRequest;
pub(crate) use registering::unjoined;

/// All routes over the running service.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = Routes::with_openapi(Description::openapi())
        .merge(status::routes())
        .merge(files::routes())
        .merge(giving::routes())
        .merge(holders::routes())
        .merge(limits::routes())
        .merge(receiving::routes())
        .merge(content::routes())
        .merge(blacklist::routes())
        .merge(adding::routes())
        .merge(verifying::routes())
        .merge(updating::routes())
        .merge(trash::routes())
        .merge(transfers::routes())
        .merge(transfer::routes())
        .merge(members::routes())
        .merge(membership::routes())
        .merge(events::routes());
    documented(routes.with_state(shared))
}
