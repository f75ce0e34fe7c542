//! How the super-peer is: for supervisors, scrapers and people.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use quarta_daemon::http::{Problem, exposition};
use quarta_protocols::{credentials::Role, messages::index::MemberState};
use utoipa_axum::routes;

use super::{Routes, Service, broken, model::Status};
use crate::catalog::Reader;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(ready)).routes(routes!(metrics)).routes(routes!(status))
}

/// Whether the super-peer is ready
///
/// Once members can connect.
#[utoipa::path(get, path = "/readyz", tag = "status", security(()), responses(
    (status = 200, description = "it is", content_type = "text/plain", body = String, example = "ready\n"),
    (status = 503, description = "`unavailable`: not yet"),
))]
async fn ready(State(shared): Service) -> Result<&'static str, Problem> {
    if shared.network.listen_addresses().await.is_empty() {
        return Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE, "not listening for members yet"));
    }
    Ok("ready\n")
}

/// Metrics
///
/// In Prometheus' text format. Without the token where `open_metrics` is set.
#[utoipa::path(get, path = "/metrics", tag = "status", responses(
    (status = 200, description = "all families", content_type = "text/plain", body = String),
))]
async fn metrics(State(shared): Service) -> Response {
    shared.refresh_metrics().await;
    exposition(&shared.metrics.registry)
}

/// How this super-peer is
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses(
    (status = 200, description = "the status", body = Status),
    (status = 503, description = "`catalog-unavailable`: its disk fails"),
))]
async fn status(State(shared): Service) -> Result<Json<Status>, Problem> {
    let own = shared.identity.keys.peer();
    let files = shared.store.read(Reader::count_files).await.map_err(|e| broken(&e))?;
    let digest = shared.store.write(|catalog| catalog.digest()).await.map_err(|e| broken(&e))?;
    let listen = shared.advertised().await;
    let count = |role: Role, online: bool| {
        let state = shared.state();
        let counted = state.health.iter().filter(|seen| {
            seen.role == role && seen.peer != own && (!online || seen.state == MemberState::Online)
        });
        u64::try_from(counted.count()).unwrap_or(u64::MAX)
    };
    let (superpeers, connected) = (count(Role::Superpeer, false), count(Role::Superpeer, true));
    let problems = shared.problems(superpeers, connected).await;
    let (nodes, nodes_online) = (count(Role::Node, false), count(Role::Node, true));
    // Before the state is locked: the planner looks at the state.
    let bill = shared.replication.bill();
    let state = shared.state();
    Ok(Json(Status {
        name: shared.identity.membership.name.to_string(),
        peer_id: own.to_string(),
        network: shared.identity.trust.network.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        healthy: problems.is_empty(),
        problems,
        holds_root_key: shared.door.authority.holds_root(),
        nodes_online,
        nodes,
        superpeers_connected: connected,
        superpeers,
        files,
        replication: bill.into(),
        catalog_entries: digest.count,
        catalog_digest: data_encoding::HEXLOWER.encode(digest.hash.as_slice()),
        index_entries: u64::try_from(state.index.stats().entries).unwrap_or(u64::MAX),
        poll_interval_ms: u64::try_from(state.interval.get().as_millis()).unwrap_or(u64::MAX),
        listen: listen.iter().map(ToString::to_string).collect(),
        credential_expires: shared.keeper.membership().expires.0,
        pid: std::process::id(),
    }))
}
