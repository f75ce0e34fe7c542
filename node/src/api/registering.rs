//! Becoming a member over the API, at a node that has not joined a network yet.
//!
//! Such a node serves nothing but this, its health and the description: [`unjoined`] is a router of its own, and once it
//! has done its work the service of a member takes its place at the same address.

use axum::{Json, Router, extract::State, http::StatusCode};
use libp2p::Multiaddr;
use quarta_daemon::http::{Problem, documented};
use quarta_protocols::{limits::ADDRESSES_MAX, names::MemberName};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{service::unjoined::Joining, setup::Joined};

/// What the description says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quarta node, not a member yet",
        description = "A node that waits for an invite. Once it is registered, the node's API is served here.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "registration", description = "Joining a network"),
        (name = "status", description = "How the node is"),
        (name = "browser", description = "How a browser gets in"),
        (name = "local", description = "For commands on this machine, over the socket in the data folder"),
        (name = "api", description = "The API itself"),
    ),
)]
struct Description;

/// `POST /api/v1/register`: join a network.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The invite, whole, as a super-peer gave it. It is a secret. Also taken as `code`.
    #[serde(alias = "code")]
    #[schema(example = "quarta1…")]
    pub invite: String,
    /// The multiaddress of any member, which is asked where the super-peer is that issued the invite; the invite names
    /// that itself, and need not be right any more.
    #[serde(default)]
    #[schema(example = "/ip4/192.0.2.7/tcp/7481")]
    pub address: Option<String>,
    /// The branch's name in the network.
    #[schema(example = "filial-recife")]
    pub name: String,
    /// Multiaddresses to listen on for members; TCP and QUIC on port 7481 where empty.
    #[serde(default)]
    #[schema(max_items = 16, example = json!(["/ip4/0.0.0.0/tcp/7481", "/ip4/0.0.0.0/udp/7481/quic-v1"]))]
    pub listen: Vec<String>,
    /// Multiaddresses under which members reach this machine besides, e.g. behind a port forwarding.
    #[serde(default)]
    #[schema(max_items = 16, example = json!([]))]
    pub external: Vec<String>,
}

/// All routes of a node that has not joined.
pub(crate) fn unjoined(joining: Joining) -> Router {
    let routes =
        OpenApiRouter::with_openapi(Description::openapi()).routes(routes!(ready)).routes(routes!(register));
    documented(routes.with_state(joining))
}

/// Whether the node is ready
#[utoipa::path(get, path = "/readyz", tag = "status", security(()), responses(
    (status = 503, description = "`unavailable`: it is no member yet"),
))]
async fn ready() -> Problem {
    let detail = "this node has not joined a network yet";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail, "register it with an invite")
}

/// Join a network
///
/// Redeems the invite at the super-peer that issued it. After the answer this node serves as a member, at the same address.
/// Asking again with the same invite does no harm: it is redeemed for this node's key once.
#[utoipa::path(post, path = "/api/v1/register", tag = "registration", operation_id = "register",
    request_body = RegisterRequest, responses(
        (status = 200, description = "this node is a member now", body = Joined),
        (status = 400, description = "`bad-invite`: not a whole invite for a node; `bad-name`: no name for a branch; \
            `bad-address`: no multiaddress"),
        (status = 403, description = "`not-admitted`: the super-peer refuses, and says why"),
        (status = 409, description = "`already-member`: it has just joined"),
        (status = 503, description = "`not-joined`: the super-peer does not answer, or this machine is in the way"),
    )
)]
async fn register(
    State(joining): State<Joining>,
    Json(request): Json<RegisterRequest>,
) -> Result<Json<Joined>, Problem> {
    let name = MemberName::new(&request.name).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-name", error.to_string(), "choose another name")
    })?;
    let (listen, external) = (addresses(&request.listen)?, addresses(&request.external)?);
    let via = addresses(request.address.as_slice())?.pop();
    joining.join(&request.invite, via.as_ref(), &name, listen, external).await.map(Json)
}

fn addresses(given: &[String]) -> Result<Vec<Multiaddr>, Problem> {
    let bad = |detail: String| {
        let next = "give at most 16 multiaddresses, such as /ip4/0.0.0.0/tcp/7481";
        Problem::new(StatusCode::BAD_REQUEST, "bad-address", detail, next)
    };
    if given.len() > ADDRESSES_MAX {
        return Err(bad(format!("there are {} addresses", given.len())));
    }
    given.iter().map(|text| text.parse().map_err(|_| bad(format!("{text:?} is no multiaddress")))).collect()
}
