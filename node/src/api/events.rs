//! Events as they happen (server-sent events).

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use quarta_daemon::http::Problem;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::{Routes, Service};
use crate::service::events::{EventId, Events, Next, Watcher};

/// An event of the stream.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "described only: events are written as they come")]
struct SentEvent {
    /// `ready`, `reset`, `transfer`, `file_added`, `file_withdrawn`, `files_changed`, `member_changed`,
    /// `superpeer_connected` or `superpeer_lost`.
    #[schema(example = "superpeer_lost")]
    event: String,
    /// Names the event; to be sent as `Last-Event-ID`.
    #[schema(example = "5f0c33a1-17")]
    id: String,
    /// A `NodeEvent` as one line of JSON; `{}` for `ready` and `reset`.
    #[schema(
        example = "{\"name\":\"central-1\",\"peer_id\":\"12D3KooWR7XPVRpun3LgZhyDr4ZkCXy6Q1rNLevZn6SQLRfMT7Zc\"}"
    )]
    data: String,
}

/// How often a silent stream says that it is alive, so that both ends and what lies between notice a dead one.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Routes {
    Routes::default().routes(routes!(events))
}

/// Watch what happens
///
/// Server-sent events: `transfer` (its state has changed, or its progress, at most once a second), `file_added`,
/// `file_withdrawn` (its copy here is offered no more), `files_changed` (of the network, so many), `member_changed` (its
/// state), `superpeer_connected`, `superpeer_lost`; the data is one line of JSON. The stream begins with `ready`. A comment comes after 15 s of silence. After `reset` events were missed: read
/// the listings again. The stream ends when the node stops.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", operation_id = "watch_events",
    params(("Last-Event-ID" = Option<String>, Header, example = "5f0c33a1-17",
        description = "Go on after this event; the latest 1024 are kept")),
    responses(
        (status = 200, description = "events as they happen", content_type = "text/event-stream", body = SentEvent),
        (status = 503, description = "`busy`: 64 streams are open"),
    )
)]
async fn events(State(shared): Service, headers: HeaderMap) -> Result<Response, Problem> {
    // An id that this API never gave leads to a `reset`, like one that is too old.
    let seen = headers
        .get("last-event-id")
        .map(|id| id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(Events::unknown()));
    let watcher = Events::watch(&shared, seen).ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            format!("{} streams of events are open already", Events::watchers_max()),
            "close one of them",
        )
    })?;
    let ready = seen.is_none().then(|| named("ready", watcher.seen(), "{}"));
    let all = stream::iter(ready).chain(from(watcher)).map(Ok::<_, Infallible>);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response())
}

fn from(watcher: Watcher) -> impl Stream<Item = Event> {
    stream::unfold(watcher, |mut watcher| async {
        let event = match watcher.next().await? {
            Next::Event(id, event) => {
                // JSON has no line breaks of its own, and escapes those in names.
                let data = serde_json::to_string(&*event).unwrap_or_default();
                named(event.name(), id, &data)
            }
            Next::Missed(id) => named("reset", id, "{}"),
        };
        Some((event, watcher))
    })
}

fn named(name: &str, id: EventId, data: &str) -> Event {
    Event::default().event(name).id(id.to_string()).data(data)
}
