//! The super-peer's HTTP API: one file for each resource.
//!
//! Every handler stands below its own description, and the router is made of both (`routes!`), so that none is served
//! undescribed. What holds for all routes, who is let in and how errors look, is `quarta_daemon::http`'s.

mod assigning;
mod candidates;
mod files;
mod invites;
mod log;
mod members;
pub mod model;
mod status;

use std::sync::Arc;

use axum::{Router, extract::State, http::StatusCode};
use quarta_daemon::http::{Problem, documented};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::service::Shared;

type Service = State<Arc<Shared>>;
type Routes = OpenApiRouter<Arc<Shared>>;

/// What the description says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quarta super-peer",
        description = "A super-peer: the network's members and their health, the catalog, who holds what, and \
            invites.\n\nErrors are `application/problem+json` (RFC 9457) with a `code` for programs, a `detail` and a \
            `next_step` for people. Sizes are in bytes, times in seconds or, ending in `_ms`, in milliseconds since 1970 \
            UTC. A field may be added in any version.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "status", description = "How this super-peer is"),
        (name = "members", description = "The network's members, and what they hold"),
        (name = "files", description = "The catalog"),
        (name = "invites", description = "How machines become members"),
        (name = "candidates", description = "Super-peers that wait for the holder of the root key"),
        (name = "log", description = "Who did what when"),
        (name = "browser", description = "How a browser gets in"),
        (name = "api", description = "The API itself"),
    ),
)]
struct Description;

/// All routes over the running service.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let routes = Routes::with_openapi(Description::openapi())
        .merge(status::routes())
        .merge(members::routes())
        .merge(files::routes())
        .merge(assigning::routes())
        .merge(invites::routes())
        .merge(candidates::routes())
        .merge(log::routes());
    documented(routes.with_state(shared))
}

/// What only the root's holder can do.
fn needs_root(detail: &str) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "not-the-root",
        detail,
        "run the command on the super-peer that holds the root key, or name the key with --root-key FILE",
    )
}

fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "the catalog failed");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "catalog-unavailable",
        "the super-peer could not read or write its catalog",
        "see the super-peer's log and check its disk",
    )
}
