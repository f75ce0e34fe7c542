//! Who did what when: the signed trail of all super-peers, and what this one observed.

use axum::{
    Json,
    extract::{Query, State},
    http::StatusCode,
};
use data_encoding::HEXLOWER;
use quarta_daemon::http::{Paging, Problem, cursor};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::routes;

use super::{
    Routes, Service, broken, members,
    model::{LogEntry, LogPage},
};
use crate::{
    catalog::{LogPlace, Logged, Observation, ObservedPlace},
    service::Shared,
};

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(list))
}

/// What of the log is asked for.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only what this member did, or what was done to its membership: its name, its peer id, or the beginning of that.
    #[param(example = "filial-recife")]
    member: Option<String>,
    /// Only this kind: `signed`, what all super-peers agree on, or `observed`, what this one saw.
    #[param(pattern = "^(signed|observed)$")]
    kind: Option<String>,
}

/// A place in both halves of the log.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Place {
    signed: Option<LogPlace>,
    observed: Option<ObservedPlace>,
}

/// List who did what when
///
/// The newest first. Signed entries are the same on every super-peer once they have heard of each other's; observations
/// are this super-peer's own.
#[utoipa::path(get, path = "/api/v1/log", tag = "log", operation_id = "list_log", params(Wanted, Paging), responses(
    (status = 200, description = "a page of the log", body = LogPage),
    (status = 400, description = "`bad-kind`: neither `signed` nor `observed`; `bad-cursor`, `bad-limit`: see the parameters"),
    (status = 404, description = "`unknown-member`: nobody is called so"),
    (status = 409, description = "`ambiguous-member`: several are meant; give the whole peer id"),
    (status = 503, description = "`catalog-unavailable`: the super-peer's disk fails"),
))]
async fn list(
    State(shared): Service,
    Query(wanted): Query<Wanted>,
    Query(paging): Query<Paging>,
) -> Result<Json<LogPage>, Problem> {
    let (signed, observed) = match wanted.kind.as_deref() {
        None => (true, true),
        Some("signed") => (true, false),
        Some("observed") => (false, true),
        Some(other) => {
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-kind",
                format!("the log has no kind {other}"),
                "ask for signed or observed, or leave it out",
            ));
        }
    };
    let about = match &wanted.member {
        Some(member) => Some(members::meant(&shared, member).await?.peer),
        None => None,
    };
    let (from, limit) = (paging.after::<Place>()?.unwrap_or_default(), paging.limit()?.get());
    // One more than is shown tells whether another page follows.
    let found = shared.store.read(move |reader| {
        let events =
            if signed { reader.log(from.signed.as_ref(), limit + 1, about.as_ref())? } else { Vec::new() };
        let seen = if observed {
            reader.observations(from.observed.as_ref(), limit + 1, about.as_ref())?
        } else {
            Vec::new()
        };
        Ok((events, seen))
    });
    let (events, seen) = found.await.map_err(|e| broken(&e))?;
    let (entries, next) = merged(&shared, events, seen, from, limit);
    Ok(Json(LogPage { entries, next: next.as_ref().map(cursor) }))
}

/// The newest of both, and where the rest begins if there is any.
fn merged(
    shared: &Shared,
    events: Vec<Logged>,
    seen: Vec<(ObservedPlace, Observation)>,
    from: Place,
    limit: usize,
) -> (Vec<LogEntry>, Option<Place>) {
    let (mut events, mut seen) = (events.into_iter().peekable(), seen.into_iter().peekable());
    let (mut entries, mut place) = (Vec::new(), from);
    while entries.len() < limit {
        let newer = match (events.peek(), seen.peek()) {
            (None, None) => return (entries, None),
            (Some(event), Some((_, seen))) => event.place.time.millis >= seen.millis,
            (event, _) => event.is_some(),
        };
        if newer && let Some(event) = events.next() {
            place.signed = Some(event.place);
            entries.push(signed_entry(event));
        } else if let Some((at, observation)) = seen.next() {
            place.observed = Some(at);
            entries.push(observed_entry(shared, observation));
        }
    }
    let more = events.peek().is_some() || seen.peek().is_some();
    (entries, more.then_some(place))
}

fn signed_entry(logged: Logged) -> LogEntry {
    let Logged { event, superpeer_name, actor_name, .. } = logged;
    let named = |name: Option<quarta_protocols::names::MemberName>, peer: &libp2p::PeerId| {
        name.map_or_else(|| peer.to_string(), |name| name.to_string())
    };
    LogEntry {
        kind: "signed".to_owned(),
        time_ms: event.time.millis,
        by: named(superpeer_name, &event.superpeer),
        action: event.action.as_str().to_owned(),
        actor: event.actor.map_or_else(|| "root".to_owned(), |actor| named(actor_name, &actor)),
        actor_id: event.actor.map(|actor| actor.to_string()),
        subject: event.name,
        subject_id: Some(HEXLOWER.encode(event.subject.as_slice())),
        revision: (event.revision > 0).then_some(event.revision),
        detail: None,
    }
}

fn observed_entry(shared: &Shared, seen: Observation) -> LogEntry {
    let peer = seen.peer.to_string();
    let subject = if seen.name.is_empty() { peer.clone() } else { seen.name };
    LogEntry {
        kind: "observed".to_owned(),
        time_ms: seen.millis,
        by: shared.identity.membership.name.to_string(),
        action: seen.what.as_str().to_owned(),
        actor: subject.clone(),
        actor_id: Some(peer),
        subject,
        subject_id: None,
        revision: None,
        detail: Some(seen.detail),
    }
}
