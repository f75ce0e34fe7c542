//! How the node is: for supervisors, scrapers and people.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use quarta_daemon::http::{Problem, exposition};
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{Status, SuperpeerStatus, VaultStatus},
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(ready)).routes(routes!(metrics)).routes(routes!(status))
}

/// Whether the node is ready
///
/// Once a super-peer has this node's list.
#[utoipa::path(get, path = "/readyz", tag = "status", security(()), responses(
    (status = 200, description = "it is", content_type = "text/plain", body = String, example = "ready\n"),
    (status = 503, description = "`unavailable`: not yet"),
))]
async fn ready(State(shared): Service) -> Result<&'static str, Problem> {
    if shared.superpeers.overview().iter().any(|superpeer| superpeer.registered) {
        Ok("ready\n")
    } else {
        Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE, "not registered with a super-peer yet"))
    }
}

/// Metrics
///
/// In Prometheus' text format. Without the token where `open_metrics` is set.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "all families", content_type = "text/plain", body = String),
))]
async fn metrics(State(shared): Service) -> Response {
    shared.refresh_metrics();
    exposition(&shared.metrics.registry)
}

/// How this node is
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses(
    (status = 200, description = "the status", body = Status),
))]
async fn status(State(shared): Service) -> Json<Status> {
    let overview = shared.superpeers.overview();
    let free_bytes = shared.free_bytes();
    let membership = shared.own.membership();
    let problems = shared.problems().await;
    let files = shared.holdings().files;
    let (vault, bounds) = (shared.keeping.totals(), shared.keeping.bounds());
    let load = shared.load();
    Json(Status {
        name: membership.name.to_string(),
        peer_id: membership.peer.to_string(),
        network: shared.identity.trust.network.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        healthy: problems.is_empty(),
        problems,
        superpeers: overview
            .into_iter()
            .map(|superpeer| SuperpeerStatus {
                name: superpeer.name.map_or_else(|| superpeer.peer.to_string(), |name| name.to_string()),
                peer_id: superpeer.peer.to_string(),
                connected: superpeer.connected,
                registered: superpeer.registered,
            })
            .collect(),
        files,
        stored_bytes: shared.stored_bytes(),
        vault: VaultStatus {
            replicas: vault.whole,
            bytes: vault.whole_bytes,
            wanted: vault.wanted,
            quota_bytes: bounds.quota_bytes,
        },
        free_bytes,
        active_uploads: load.active_uploads,
        active_downloads: load.active_downloads,
        served_bytes: load.served_bytes,
        listen: shared.addresses().iter().map(ToString::to_string).collect(),
        credential_expires: membership.expires.0,
        signed_off: shared.own.is_signed_off(),
        pid: std::process::id(),
    })
}
