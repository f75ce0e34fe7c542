//! The network's members, and what they hold.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use quarta_daemon::http::{Member, MemberPage, Paging, Problem, cursor};
use quarta_protocols::{
    messages::inventory::{Completeness, Item, Key},
    names::MemberName,
};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    model::{Held, HeldPage},
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list)).routes(routes!(held))
}

/// List the members
///
/// In name order, this super-peer included, with their health as it is now.
#[utoipa::path(get, path = "/api/v1/members", tag = "members", operation_id = "list_members", params(Paging), responses(
    (status = 200, description = "a page of members", body = MemberPage),
    (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
    (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
))]
async fn list(State(shared): Service, Query(paging): Query<Paging>) -> Result<Json<MemberPage>, Problem> {
    let (after, limit) = (paging.after::<MemberName>()?, paging.limit()?.get());
    let page = shared
        .store
        .read(move |reader| reader.members(after.as_ref(), limit))
        .await
        .map_err(|e| broken(&e))?;
    let members = page.members.into_iter().map(|member| Member::from(shared.describe(member))).collect();
    Ok(Json(MemberPage { members, next: page.next.as_ref().map(cursor) }))
}

/// List what a member holds
///
/// The list that it was polled for last, whether it is available now or not, in order of id.
#[utoipa::path(get, path = "/api/v1/members/{member}/files", tag = "members", operation_id = "list_held",
    params(("member" = String, Path, description = "Its name", example = "filial-recife"), Paging),
    responses(
        (status = 200, description = "a page of its list", body = HeldPage),
        (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
        (status = 404, description = "`unknown-member`: nobody is called so"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
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
    let (after, limit) = (paging.after::<Key>()?, paging.limit()?.get());
    let name = MemberName::new(&member).map_err(|_| unknown())?;
    let found =
        shared.store.read(move |reader| reader.member_by_name(&name)).await.map_err(|e| broken(&e))?;
    let peer = found.ok_or_else(unknown)?.peer;
    let mut items = shared.state().index.list_of(&peer, after, limit + 1);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|item| cursor(&item.key()));
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
