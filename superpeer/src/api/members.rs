//! The network's members, and what they hold.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use data_encoding::HEXLOWER;
use libp2p::PeerId;
use quarta_daemon::http::{Member, MemberPage, Paging, Problem, cursor};
use quarta_protocols::{
    cbor,
    credentials::Trust,
    endings::{ENDING_MAX_BYTES, RevocationNotice},
    messages::inventory::{Completeness, Item, Key},
    names::MemberName,
};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    model::{Held, HeldPage, RevocationRequest},
    needs_root,
};
use crate::{
    catalog::{self, EndError},
    service::{Shared, wall_ms},
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(held))
        .routes(routes!(revoke))
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

/// Show a member
#[utoipa::path(get, path = "/api/v1/members/{member}", tag = "members", operation_id = "get_member",
    params(("member" = String, Path, description = "Its name, its peer id, or the beginning of that", example = "filial-recife")),
    responses(
        (status = 200, description = "the member", body = Member),
        (status = 404, description = "`unknown-member`: nobody is called so"),
        (status = 409, description = "`ambiguous-member`: several are meant; give the whole peer id"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn show(State(shared): Service, Path(member): Path<String>) -> Result<Json<Member>, Problem> {
    Ok(Json(shared.describe(meant(&shared, &member).await?).into()))
}

/// Revoke a member
///
/// For good: its connections close wherever the revocation arrives, and nobody lets its keys in again. A super-peer is
/// revoked by the root only: with the root key of this machine, or with a notice that was signed where it lies.
#[utoipa::path(post, path = "/api/v1/members/{member}/revocation", tag = "members", operation_id = "revoke_member",
    params(("member" = String, Path, description = "Its name, its peer id, or the beginning of that", example = "filial-recife")),
    request_body = RevocationRequest,
    responses(
        (status = 200, description = "it is a member no more", body = Member),
        (status = 400, description = "`bad-notice`: what was signed is not a revocation of this member by the root"),
        (status = 403, description = "`not-the-root`: a super-peer is revoked with the root key only"),
        (status = 404, description = "`unknown-member`: nobody is called so"),
        (status = 409, description = "`ambiguous-member`: several are meant; `own-membership`: it is this super-peer \
            itself; `membership-ended`: it has left or was revoked already"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn revoke(
    State(shared): Service,
    Path(member): Path<String>,
    Json(request): Json<RevocationRequest>,
) -> Result<Json<Member>, Problem> {
    let member = meant(&shared, &member).await?;
    let (peer, name) = (member.peer, member.name.clone());
    if peer == shared.identity.keys.peer() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "own-membership",
            "a super-peer does not revoke itself",
            "run the command on another super-peer",
        ));
    }
    if !member.standing.is_member() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "membership-ended",
            format!("{name} is no member any more ({})", member.standing),
            "nothing is left to do; see `quarta-superpeer log`",
        ));
    }
    let trust = &shared.identity.trust;
    let notice = match &request.signed {
        Some(signed) => read_notice(signed, peer, trust)?,
        None => shared
            .door
            .authority
            .revocation(peer, member.role, trust)
            .map_err(|_| needs_root("only the root key can revoke a super-peer"))?,
    };
    let ended = shared
        .store
        .write(move |catalog| catalog.revoke(notice, wall_ms()))
        .await
        .map_err(|e| broken(&e))?
        .map_err(|error| match error {
            EndError::NotAllowed => needs_root("only the root key can revoke a super-peer"),
            error => broken(&error),
        })?;
    tracing::warn!(member = %name, %peer, "a member was revoked");
    shared.push(&ended.entries);
    shared.end(peer, ended.standing).await;
    Ok(Json(shared.describe(catalog::Member { standing: ended.standing, ..member }).into()))
}

/// Reads a notice that the root signed elsewhere.
fn read_notice(signed: &str, peer: PeerId, trust: &Trust) -> Result<RevocationNotice, Problem> {
    let bad = |why: &str| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad-notice",
            why,
            "sign it with this network's root key, as `quarta-superpeer revoke --root-key` does",
        )
    };
    let bytes = HEXLOWER.decode(signed.as_bytes()).map_err(|_| bad("the notice is not hexadecimal text"))?;
    let notice: RevocationNotice =
        cbor::from_slice_within(&bytes, ENDING_MAX_BYTES).map_err(|_| bad("the notice is not complete"))?;
    let revoked = notice.verify(trust).map_err(|error| bad(&error.to_string()))?;
    if revoked.member != peer || revoked.by.is_some() {
        return Err(bad("the notice is not the root's about this member"));
    }
    Ok(revoked.notice().clone())
}

/// The one member that a reference means.
pub(super) async fn meant(shared: &Shared, reference: &str) -> Result<catalog::Member, Problem> {
    let asked = reference.to_owned();
    let mut found =
        shared.store.read(move |reader| reader.resolve_member(&asked)).await.map_err(|e| broken(&e))?;
    match (found.pop(), found.is_empty()) {
        (Some(member), true) => Ok(member),
        (Some(_), false) => Err(Problem::new(
            StatusCode::CONFLICT,
            "ambiguous-member",
            format!("several members can be meant by {reference}"),
            "give the whole peer id, which `quarta-superpeer members --json` shows",
        )),
        (None, _) => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-member",
            format!("no member is called {reference}"),
            "see `quarta-superpeer members`",
        )),
    }
}

/// List what a member holds
///
/// The list that it was polled for last, whether it is available now or not, in order of id.
#[utoipa::path(get, path = "/api/v1/members/{member}/files", tag = "members", operation_id = "list_held",
    params(
        ("member" = String, Path, description = "Its name, its peer id, or the beginning of that", example = "filial-recife"),
        Paging,
    ),
    responses(
        (status = 200, description = "a page of its list", body = HeldPage),
        (status = 400, description = "`bad-cursor`, `bad-limit`: see the parameters"),
        (status = 404, description = "`unknown-member`: nobody is called so"),
        (status = 409, description = "`ambiguous-member`: several are meant; give the whole peer id"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn held(
    State(shared): Service,
    Path(member): Path<String>,
    Query(paging): Query<Paging>,
) -> Result<Json<HeldPage>, Problem> {
    let (after, limit) = (paging.after::<Key>()?, paging.limit()?.get());
    let peer = meant(&shared, &member).await?.peer;
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
