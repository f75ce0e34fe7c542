//! Files whose owner is gone: who owned them, and assigning them to another branch.
//!
//! Only the root can sign a hand-over for somebody else, and here it does so for members that are gone only. The super-peer
//! passes the link on to the next owner, which takes the file over as from any owner: it fetches a whole copy, signs, and
//! publishes. Nothing is kept here: what was offered is in the next owner's database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use data_encoding::HEXLOWER;
use libp2p::PeerId;
use quarta_daemon::http::Problem;
use quarta_protocols::{
    audiences::{Rule, inherited},
    cbor,
    credentials::Role,
    messages::handover::{Handover, Refusal, Request, Response},
    records::{Access, Link, Record},
    signing::{SIGNATURE_BYTES, Signed, Statement},
};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    members::meant,
    model::{AssignRequest, Assigned, Ownership},
    needs_root,
};
use crate::{
    catalog::{self, Viewer},
    service::Shared,
};

/// How long the next owner is asked before the answer says how far it is. It goes on by itself.
const ASSIGN_WAIT: Duration = Duration::from_secs(5);
/// The pause between two questions.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(300);
/// The largest link as it travels, in bytes, with room for the frame around body and signature.
const LINK_MAX_BYTES: usize = Link::MAX_BYTES + SIGNATURE_BYTES + 64;

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(show, assign))
}

/// Show who owns a file
///
/// With what a link to its next owner has to say, for whoever signs one where the root key lies.
#[utoipa::path(get, path = "/api/v1/files/{file}/owner", tag = "files", operation_id = "show_owner",
    params(("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
        description = "An id, the beginning of one (4 digits or more), a full name, or `owner:name`; percent-encoded as \
            one segment")),
    responses(
        (status = 200, description = "its owner", body = Ownership),
        (status = 404, description = "`unknown-file`: nothing is called so"),
        (status = 409, description = "`ambiguous-file`: several are"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn show(State(shared): Service, Path(file): Path<String>) -> Result<Json<Ownership>, Problem> {
    let owned = Owned::find(&shared, &file).await?;
    let links = owned.record.links();
    Ok(Json(Ownership {
        id: owned.record.file().to_string(),
        name: owned.name.clone(),
        owner: owned.owner_name,
        owner_id: owned.record.owner().to_string(),
        orphaned: owned.orphaned,
        links: u32::try_from(links.len()).unwrap_or(u32::MAX),
        last_link: links.last().map(|(_, hash)| hash.to_string()),
    }))
}

/// Assign a file whose owner is gone
///
/// The next owner fetches the file where it has no copy, reads it to its last byte and signs for it. Repeatable: asked
/// again, it tells how far that is. It takes the root key, here or where the link is signed.
#[utoipa::path(post, path = "/api/v1/files/{file}/owner", tag = "files", operation_id = "assign_file",
    params(("file" = String, Path, example = "filial-recife:fotos/praia.jpg",
        description = "An id, the beginning of one (4 digits or more), a full name, or `owner:name`; percent-encoded as \
            one segment")),
    request_body = AssignRequest,
    responses(
        (status = 200, description = "it is the new owner's", body = Assigned),
        (status = 202, description = "the next owner fetches it, and takes it over by itself", body = Assigned),
        (status = 400, description = "`bad-link`: what was signed is not the root's link to this member"),
        (status = 403, description = "`not-the-root`: the root key is needed"),
        (status = 404, description = "`unknown-file`, `unknown-member`: nothing, or nobody, is called so"),
        (status = 409, description = "`ambiguous-file`, `ambiguous-member`: several are; `owner-present`: its owner is a \
            member, and hands it over itself; `not-an-owner`: the member is a super-peer, or its membership has ended; \
            `may-not-read`: the \
            file is hidden from it; `member-offline`: it is not connected; `not-taken`: it does not take the file over"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn assign(
    State(shared): Service,
    Path(file): Path<String>,
    Json(request): Json<AssignRequest>,
) -> Result<(StatusCode, Json<Assigned>), Problem> {
    let owned = Owned::find(&shared, &file).await?;
    let to = meant(&shared, &request.member).await?;
    let assigned = |taken, have_bytes| Assigned {
        id: owned.record.file().to_string(),
        name: owned.name.clone(),
        owner: to.name.to_string(),
        taken,
        have_bytes,
    };
    // Asked again after it was done.
    if owned.record.owner() == to.peer && owned.record.links().last().is_some_and(|(link, _)| link.by_root) {
        return Ok((StatusCode::OK, Json(assigned(true, 0))));
    }
    check(&owned, &to)?;
    let link = signed_link(&shared, &owned.record, to.peer, request.signed.as_deref())?;
    let rule = rule(&shared, &owned, &to).await?;
    let offer = Request { record: owned.record.signed().clone(), link, rule };
    match ask(&shared, to.peer, &offer).await {
        Asked::Taken => {
            tracing::warn!(file = %owned.name, owner = %to.name, "a file whose owner is gone was assigned");
            Ok((StatusCode::OK, Json(assigned(true, 0))))
        }
        Asked::Fetching(have_bytes) => Ok((StatusCode::ACCEPTED, Json(assigned(false, have_bytes)))),
        Asked::Refused(refusal) => Err(Problem::new(
            StatusCode::CONFLICT,
            "not-taken",
            format!("{} does not take it over: {refusal}", to.name),
            "see to what it says, and assign the file again, or to another branch",
        )),
        Asked::Unreached => Err(Problem::new(
            StatusCode::CONFLICT,
            "member-offline",
            format!("{} is not connected", to.name),
            "assign it to a branch that is online, which `quarta-superpeer members` shows",
        )),
    }
}

/// A file and what is known of its owner.
struct Owned {
    record: Record,
    name: String,
    owner_name: String,
    orphaned: bool,
}

impl Owned {
    async fn find(shared: &Shared, reference: &str) -> Result<Self, Problem> {
        let asked = reference.to_owned();
        let found = shared.store.read(move |reader| {
            let files = reader.resolve(Viewer::Administrator, &asked)?;
            let gone = reader.gone(files.iter().map(|file| file.owner))?;
            Ok((files, gone))
        });
        let (mut files, gone) = found.await.map_err(|e| broken(&e))?;
        let problem = |status, code, detail, next| Err(Problem::new(status, code, detail, next));
        let file = match (files.pop(), files.is_empty()) {
            (Some(file), true) => file,
            (Some(_), false) => {
                let detail = format!("several files can be meant by {reference}");
                let next = "name one as owner:name or by its id";
                return problem(StatusCode::CONFLICT, "ambiguous-file", detail, next);
            }
            (None, _) => {
                let detail = format!("no file is called {reference}");
                return problem(
                    StatusCode::NOT_FOUND,
                    "unknown-file",
                    detail,
                    "see `quarta-superpeer files`",
                );
            }
        };
        let record = Record::verify(file.record, &shared.identity.trust).map_err(|e| broken(&e))?;
        Ok(Self {
            record,
            name: file.name.to_string(),
            owner_name: file.owner_name.to_string(),
            orphaned: gone.contains(&file.owner),
        })
    }
}

fn check(owned: &Owned, to: &catalog::Member) -> Result<(), Problem> {
    if !owned.orphaned {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "owner-present",
            format!("its owner, {}, is a member", owned.owner_name),
            format!("have {} hand it over with `quarta give`", owned.owner_name),
        ));
    }
    if to.role == Role::Superpeer || !to.standing.is_member() {
        let why = if to.role == Role::Superpeer {
            "is a super-peer, which owns no files"
        } else {
            "is a member no more"
        };
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "not-an-owner",
            format!("{} {why}", to.name),
            "name another branch, which `quarta-superpeer members` shows",
        ));
    }
    Ok(())
}

/// Who may read a restricted file, which its next owner must.
async fn rule(shared: &Shared, owned: &Owned, to: &catalog::Member) -> Result<Option<Rule>, Problem> {
    let owner = owned.record.owner();
    let audience = match owned.record.entry().map(|entry| &entry.access) {
        Some(Access::Restricted { audience, .. }) => *audience,
        Some(Access::Open { .. }) | None => return Ok(None),
    };
    let found = shared.store.read(move |reader| reader.rule_of(&owner, &audience)).await;
    let rule = found.map_err(|e| broken(&e))?.filter(|rule| rule.permits(&to.peer));
    rule.map(|rule| Some(inherited(rule, &owner, &to.peer, false))).ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "may-not-read",
            format!("{} may not read the file, and has no key to it", to.name),
            "assign it to a branch that could read it",
        )
    })
}

/// The root's link to a member: signed here, or elsewhere.
fn signed_link(
    shared: &Shared,
    record: &Record,
    to: PeerId,
    signed: Option<&str>,
) -> Result<Signed<Link>, Problem> {
    let trust = &shared.identity.trust;
    let link = record.link_to(to, true, Vec::new());
    let Some(signed) = signed else {
        let signed = shared.door.authority.sign_link(&link, trust);
        return signed.ok_or_else(|| needs_root("only the root key can assign a file"));
    };
    let bad = |why: &str| {
        let next = "sign it with this network's root key, as `quarta-superpeer assign --root-key` does";
        Problem::new(StatusCode::BAD_REQUEST, "bad-link", why, next)
    };
    let bytes = HEXLOWER.decode(signed.as_bytes()).map_err(|_| bad("the link is not hexadecimal text"))?;
    let signed: Signed<Link> =
        cbor::from_slice_within(&bytes, LINK_MAX_BYTES).map_err(|_| bad("the link is not complete"))?;
    let stated = signed.verify(&trust.network, &trust.root).map_err(|e| bad(&e.to_string()))?;
    if stated == link { Ok(signed) } else { Err(bad("the link is not of this file to this member")) }
}

/// What came of asking the next owner.
enum Asked {
    Taken,
    Fetching(u64),
    Refused(Refusal),
    Unreached,
}

async fn ask(shared: &Arc<Shared>, to: PeerId, offer: &Request) -> Asked {
    let until = Instant::now() + ASSIGN_WAIT;
    loop {
        let heard = match shared.network.call::<Handover>(to, offer.clone()).await {
            Ok(Response::Taken(signed)) => {
                let genuine = Record::verify(signed, &shared.identity.trust);
                let taken = genuine.is_ok_and(|record| record.carries(&offer.link));
                return if taken { Asked::Taken } else { Asked::Refused(Refusal::Unavailable) };
            }
            Ok(Response::Fetching { have_bytes }) => Asked::Fetching(have_bytes),
            Ok(Response::Refused(refusal @ (Refusal::Busy | Refusal::Unavailable))) => {
                Asked::Refused(refusal)
            }
            Ok(Response::Refused(refusal)) => return Asked::Refused(refusal),
            Err(error) => {
                tracing::debug!(%to, %error, "the next owner of a file did not answer");
                Asked::Unreached
            }
        };
        if Instant::now() + ASK_AGAIN_AFTER >= until {
            return heard;
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}
