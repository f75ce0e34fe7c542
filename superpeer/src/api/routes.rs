//! The routes. Everything but health is behind the listener's token (see `quarta_daemon::http`).

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use quarta_daemon::http::{Paging, Problem, cursor, exposition};
use quarta_protocols::{
    credentials::{Role, UnixSeconds},
    ids::Sha256,
    messages::{
        index::{Cursor, MemberState},
        inventory::{Completeness, Item, Key},
    },
    names::MemberName,
    records::{Access, State as RecordState},
};

use super::model::{File, FilePage, Held, HeldPage, Invite, InviteRequest, Member, Status};
use crate::{
    admission::{AdmissionError, Terms},
    catalog::Reader,
    service::Shared,
};

/// Files or entries of a page.
const PAGE: usize = 500;
/// Members read from the database at a time.
const MEMBERS_AT_A_TIME: usize = 1000;
/// Machines that one invite may admit.
const USES_MAX: u32 = 1000;
/// Longest time that an invite may be open, in seconds: 30 days.
const OPEN_MAX_SECONDS: u64 = 30 * 24 * 3600;

type Service = State<Arc<Shared>>;

/// All routes over the running service.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/members", get(members))
        .route("/api/v1/members/{member}/files", get(held))
        .route("/api/v1/files", get(files))
        .route("/api/v1/invites", post(invite))
        .with_state(shared)
}

/// Ready once members can connect.
async fn ready(State(shared): Service) -> Result<&'static str, Problem> {
    if shared.network.listen_addresses().await.is_empty() {
        return Err(Problem::of_status(StatusCode::SERVICE_UNAVAILABLE, "not listening for members yet"));
    }
    Ok("ready\n")
}

async fn metrics(State(shared): Service) -> Response {
    shared.refresh_metrics().await;
    exposition(&shared.metrics.registry)
}

async fn status(State(shared): Service) -> Result<Json<Status>, Problem> {
    let own = shared.identity.keys.peer();
    let files = shared.store.read(Reader::count_files).await.map_err(|e| broken(&e))?;
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
        index_entries: u64::try_from(state.index.stats().entries).unwrap_or(u64::MAX),
        poll_interval_ms: u64::try_from(state.interval.get().as_millis()).unwrap_or(u64::MAX),
        listen: listen.iter().map(ToString::to_string).collect(),
        credential_expires: shared.identity.membership.expires.0,
        pid: std::process::id(),
    }))
}

async fn members(State(shared): Service) -> Result<Json<Vec<Member>>, Problem> {
    let mut members = Vec::new();
    let mut after: Option<MemberName> = None;
    loop {
        let from = after.take();
        let page = shared
            .store
            .read(move |reader| reader.members(from.as_ref(), MEMBERS_AT_A_TIME))
            .await
            .map_err(|e| broken(&e))?;
        members.extend(page.members.into_iter().map(|member| Member::from(shared.describe(member))));
        after = page.next;
        if after.is_none() {
            return Ok(Json(members));
        }
    }
}

/// The list that a member was polled for.
async fn held(
    State(shared): Service,
    Path(member): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<HeldPage>, Problem> {
    let unknown = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-member",
            format!("no member is called {member}"),
            "see `quarta-superpeer members`",
        )
    };
    let after: Option<Key> = paging.after()?;
    let name = MemberName::new(&member).map_err(|_| unknown())?;
    let found =
        shared.store.read(move |reader| reader.member_by_name(&name)).await.map_err(|e| broken(&e))?;
    let peer = found.ok_or_else(unknown)?.peer;
    let items = shared.state().index.list_of(&peer, after, PAGE);
    let next = (items.len() == PAGE).then(|| items.last().map(|item| cursor(&item.key()))).flatten();
    Ok(Json(HeldPage { entries: items.into_iter().map(held_of).collect(), next }))
}

fn held_of(item: Item) -> Held {
    let complete = item.completeness() == Completeness::Complete;
    match item {
        Item::Library { file, name, size_bytes, sha256, content, .. } => Held {
            kind: "library".to_owned(),
            name: Some(name.to_string()),
            id: Some(file.to_string()),
            size_bytes,
            sha256: sha256.map(|sum| sum.to_string()),
            content: content.to_string(),
            complete,
        },
        Item::Vault { content, size_bytes, .. } => Held {
            kind: "vault".to_owned(),
            name: None,
            id: None,
            size_bytes,
            sha256: None,
            content: content.to_string(),
            complete,
        },
    }
}

async fn files(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<FilePage>, Problem> {
    let query = paging.query()?.to_owned();
    let after: Option<Cursor> = paging.after()?;
    let limit = u32::try_from(PAGE).unwrap_or(u32::MAX);
    let page = shared
        .store
        .read(move |reader| reader.search(&query, None, after.as_ref(), limit))
        .await
        .map_err(|e| broken(&e))?;
    let state = shared.state();
    let file = |stored: crate::catalog::StoredFile| {
        let body = stored.record.peek().ok()?;
        let RecordState::Present(entry) = body.state else { return None };
        let sha256: Option<Sha256> = match &entry.access {
            Access::Open { sha256, .. } => Some(*sha256),
            Access::Restricted { .. } => None,
        };
        Some(File {
            id: stored.file.to_string(),
            name: stored.name.to_string(),
            owner: stored.owner_name.to_string(),
            size_bytes: entry.size_bytes,
            sha256: sha256.map(|sum| sum.to_string()),
            holders: state.available_holders(&entry.content).map(|peer| state.name_of(&peer)).collect(),
        })
    };
    let next = page.next.as_ref().map(cursor);
    Ok(Json(FilePage { files: page.files.into_iter().filter_map(file).collect(), next }))
}

async fn invite(State(shared): Service, Json(request): Json<InviteRequest>) -> Result<Json<Invite>, Problem> {
    let refuse = |detail: &str, next: &str| Problem::new(StatusCode::BAD_REQUEST, "bad-invite", detail, next);
    let role = match request.role.as_str() {
        "node" => Role::Node,
        "superpeer" => Role::Superpeer,
        _ => return Err(refuse("an invite is for a node or a superpeer", "give role node or superpeer")),
    };
    if !(1..=USES_MAX).contains(&request.uses) {
        return Err(refuse("an invite has 1 to 1000 uses", "give another number of uses"));
    }
    if !(1..=OPEN_MAX_SECONDS).contains(&request.expires_in_seconds) {
        return Err(refuse("an invite is open for 1 second to 30 days", "give another time"));
    }
    let now = UnixSeconds::now();
    let terms = Terms {
        role,
        uses: request.uses,
        expires: now.plus(Duration::from_secs(request.expires_in_seconds)),
    };
    let addresses = shared.advertised().await;
    if addresses.is_empty() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "no-address",
            "this super-peer has no address that others could reach",
            "set external in settings.toml to the address under which members reach it",
        ));
    }
    let authority = shared.door.authority.clone();
    let issued = shared
        .store
        .write(move |catalog| authority.issue(catalog, terms, rand::random(), addresses, now))
        .await
        .map_err(|e| broken(&e))?
        .map_err(|error| match error {
            AdmissionError::Refused(refusal) => Problem::new(
                StatusCode::FORBIDDEN,
                "not-the-root",
                refusal.to_string(),
                "run the command on the super-peer that holds the root key",
            ),
            error => broken(&error),
        })?;
    Ok(Json(Invite {
        invite: issued.to_text(),
        role: role.to_string(),
        uses: request.uses,
        expires: issued.expires.0,
    }))
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
