//! The network's members, as a super-peer sees them.

use axum::{
    Json,
    extract::{Query, State},
};
use quarta_daemon::http::{Paging, Problem};
use utoipa_axum::routes;

use super::{
    Routes, Service,
    model::{Member, MemberPage},
    problems::unfound,
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list))
}

/// List the members
///
/// In name order, as a super-peer that answers sees them; where none does, as this node last heard of them (`stale`).
#[utoipa::path(get, path = "/api/v1/members", tag = "members", operation_id = "list_members", params(Paging), responses(
    (status = 200, description = "a page of members", body = MemberPage),
    (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
    (status = 503, description = "`no-superpeer`: none answered, and this node has heard of nobody yet; \
        `database-unavailable`: this node's disk fails"),
))]
async fn list(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<MemberPage>, Problem> {
    let (members, stale) = shared.members().await.map_err(unfound)?;
    let mut members: Vec<Member> = members.into_iter().map(Member::from).collect();
    let place = |member: &Member| (member.name.clone(), member.peer_id.clone());
    members.sort_by_cached_key(place);
    let (members, next) = paging.cut(members, place)?;
    Ok(Json(MemberPage { members, next, stale }))
}
