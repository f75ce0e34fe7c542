//! Super-peers that wait for the holder of the root key.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use data_encoding::HEXLOWER;
use quarta_daemon::http::Problem;
use quarta_protocols::{
    cbor,
    credentials::{Credential, TOKEN_MAX_BYTES, UnixSeconds},
    messages::admission::Refusal,
    names::MemberName,
};
use utoipa_axum::routes;

use super::{
    Routes, Service, broken,
    model::{Approval, Approved, Candidate, CandidateList},
    needs_root,
};
use crate::admission::{self, AdmissionError, Wants};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list)).routes(routes!(approve))
}

/// List who waits for approval
///
/// Super-peers that showed an invite which was issued without the root key, and super-peers whose credential ends soon.
#[utoipa::path(get, path = "/api/v1/candidates", tag = "candidates", operation_id = "list_candidates", responses(
    (status = 200, description = "all of them", body = CandidateList),
    (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
))]
async fn list(State(shared): Service) -> Result<Json<CandidateList>, Problem> {
    let waiting = shared
        .store
        .write(|catalog| admission::candidates(catalog, UnixSeconds::now()))
        .await
        .map_err(|e| broken(&e))?
        .map_err(|e| broken(&e))?;
    let candidates = waiting.into_iter().map(|candidate| {
        let (wants, asked, expires) = match candidate.wants {
            Wants::Admission(asked) => ("admission", Some(asked.0), None),
            Wants::Renewal(expires) => ("renewal", None, Some(expires.0)),
        };
        Candidate {
            name: candidate.name.to_string(),
            peer_id: candidate.peer.to_string(),
            wants: wants.to_owned(),
            asked,
            expires,
        }
    });
    Ok(Json(CandidateList { candidates: candidates.collect() }))
}

/// Approve a super-peer
///
/// With the root key of this machine, or with a credential that was signed where it lies. The super-peer gets its
/// credential when it asks the next time.
#[utoipa::path(post, path = "/api/v1/candidates/{name}/approval", tag = "candidates", operation_id = "approve_candidate",
    params(("name" = String, Path, description = "The name under which it waits", example = "sp2")),
    request_body = Approval,
    responses(
        (status = 200, description = "it is approved", body = Approved),
        (status = 400, description = "`bad-credential`: what was signed is not this super-peer's credential by the root"),
        (status = 403, description = "`not-the-root`: the root key is needed"),
        (status = 404, description = "`unknown-candidate`: nobody waits under this name"),
        (status = 409, description = "`not-admitted`: its name is taken, or its membership has ended"),
        (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
    )
)]
async fn approve(
    State(shared): Service,
    Path(name): Path<String>,
    Json(request): Json<Approval>,
) -> Result<Json<Approved>, Problem> {
    let unknown = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "unknown-candidate",
            format!("no super-peer called {name} waits for approval here"),
            "see `quarta-superpeer approve` without a name; a super-peer waits where its invite was issued",
        )
    };
    let candidate = MemberName::new(&name).map_err(|_| unknown())?;
    let signed = request.signed.as_deref().map(read_credential).transpose()?;
    let authority = shared.door.authority.clone();
    let approved = shared
        .store
        .write(move |catalog| {
            authority.approve(catalog, &candidate, signed, rand::random(), UnixSeconds::now())
        })
        .await
        .map_err(|e| broken(&e))?
        .map_err(|error| match error {
            AdmissionError::NobodyWaits(_) => unknown(),
            AdmissionError::BadCredential(_) | AdmissionError::OtherGrant => bad(&error.to_string()),
            AdmissionError::Refused(Refusal::NotTheRoot) => {
                needs_root("only the root key can approve a super-peer")
            }
            AdmissionError::Refused(refusal) => Problem::new(
                StatusCode::CONFLICT,
                "not-admitted",
                refusal.to_string(),
                "let it join again under another name, or with a new data folder",
            ),
            error => broken(&error),
        })?;
    let member = approved.membership;
    tracing::info!(member = %member.name, peer = %member.peer, "a super-peer was approved");
    shared.state().meet(&member, String::new());
    shared.push(&approved.entries);
    Ok(Json(Approved {
        name: member.name.to_string(),
        peer_id: member.peer.to_string(),
        expires: member.expires.0,
    }))
}

fn bad(why: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-credential",
        why,
        "sign it with this network's root key, as `quarta-superpeer approve --root-key` does",
    )
}

fn read_credential(signed: &str) -> Result<Credential, Problem> {
    let bytes =
        HEXLOWER.decode(signed.as_bytes()).map_err(|_| bad("the credential is not hexadecimal text"))?;
    cbor::from_slice_within(&bytes, 2 * TOKEN_MAX_BYTES).map_err(|_| bad("the credential is not complete"))
}
