//! What a browser logs in and out with; see `sessions` for the rules.

use super::guard::{Caller, session_in};
use super::problem::Problem;
use super::sessions::{CODE_LIFE, SESSION_LIFE, Sessions};
use super::token::random_text;
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Where a link leads.
const LOGIN_PATH: &str = "/login";

/// What browsers are let in with, shared by the routes and the guard.
#[derive(Debug, Clone, Default)]
pub(super) struct Browsers {
    /// Where browsers reach the API; none where it is served on the socket only.
    pub(super) address: Option<SocketAddr>,
    sessions: Arc<Mutex<Sessions>>,
}

impl Browsers {
    pub(super) fn at(address: SocketAddr) -> Self {
        Self { address: Some(address), sessions: Arc::default() }
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session's cookie. Cookies do not tell ports apart, and a machine may well run a super-peer and a node.
    pub(super) fn cookie_name(&self) -> String {
        format!("quarta-session-{}", self.address.map_or(0, |address| address.port()))
    }
}

/// A link that lets one browser in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginLink {
    /// The link. Whoever opens it first is let in.
    #[schema(example = "http://127.0.0.1:7480/login?code=wqS6…")]
    pub url: String,
    /// How long it can be followed, in seconds.
    #[schema(example = 300)]
    pub expires_in_seconds: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Login {
    /// The link's code.
    code: String,
}

pub(super) fn routes() -> OpenApiRouter {
    OpenApiRouter::default().routes(routes!(make_link)).routes(routes!(login)).routes(routes!(logout))
}

/// Make a one-time link for a browser
///
/// Over the local socket only. The link works once, within five minutes, and opens a session of twelve hours.
#[utoipa::path(post, path = "/api/v1/local/login", tag = "browser", responses(
    (status = 200, description = "the link", body = LoginLink),
    (status = 403, description = "`local-only`: not over the socket"),
    (status = 409, description = "`no-address`: the API is served on the socket only"),
))]
async fn make_link(
    Extension(caller): Extension<Caller>,
    Extension(browsers): Extension<Browsers>,
) -> Result<Json<LoginLink>, Problem> {
    caller.require_local("a link for a browser is made for this machine's user only")?;
    let address = browsers.address.ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "no-address",
            "the API is not served on a TCP address",
            "set http in settings.toml, or start the daemon with --http, and start it again",
        )
    })?;
    let code = random_text().ok_or_else(no_randomness)?;
    browsers.sessions().add_code(Instant::now(), &code);
    let url = format!("http://{}{LOGIN_PATH}?code={}", from_here(address), *code);
    Ok(Json(LoginLink { url, expires_in_seconds: CODE_LIFE.as_secs() }))
}

/// Log a browser in
///
/// Sets the session's cookie and goes on to the documentation. The page leads there itself, instead of a redirect:
/// a browser sends a `SameSite=Strict` cookie on to a page that is reached from a page of the same site only.
#[utoipa::path(get, path = "/login", tag = "browser", params(Login), security(("login_code" = [])), responses(
    (status = 200, description = "a page that goes on to the documentation", content_type = "text/html",
        body = String, headers(("Set-Cookie" = String, description = "the session"))),
    (status = 401, description = "`used-link`: the link was used, has expired, or is none"),
    (status = 405, description = "`method-not-allowed`: only GET logs in"),
))]
async fn login(
    method: Method,
    Extension(browsers): Extension<Browsers>,
    Query(Login { code }): Query<Login>,
) -> Result<Response, Problem> {
    // What looks at a link before a person does must not use it up.
    if method != Method::GET {
        return Err(Problem::of_status(StatusCode::METHOD_NOT_ALLOWED, "only GET logs in"));
    }
    let session = random_text().ok_or_else(no_randomness)?;
    if !browsers.sessions().redeem(Instant::now(), &code, &session) {
        return Err(Problem::new(
            StatusCode::UNAUTHORIZED,
            "used-link",
            "the link was used, has expired, or is none of this daemon's",
            "have a new one made with the command `browse`",
        ));
    }
    let cookie = format!(
        "{}={}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict",
        browsers.cookie_name(),
        *session,
        SESSION_LIFE.as_secs()
    );
    let mut cookie = HeaderValue::try_from(cookie).map_err(|_| no_randomness())?;
    cookie.set_sensitive(true);
    let page = "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=\"0; url=/docs/\">\
        <title>Quarta</title><p>You are logged in. <a href=\"/docs/\">Go on</a>";
    Ok(([(header::SET_COOKIE, cookie)], Html(page)).into_response())
}

/// Log a browser out
///
/// Ends the session of the request's cookie.
#[utoipa::path(post, path = "/logout", tag = "browser", responses((status = 204, description = "logged out")))]
async fn logout(Extension(browsers): Extension<Browsers>, headers: HeaderMap) -> Response {
    let name = browsers.cookie_name();
    if let Some(session) = session_in(&headers, &name) {
        browsers.sessions().close(Instant::now(), session);
    }
    let gone = HeaderValue::try_from(format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"));
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(gone) = gone {
        response.headers_mut().insert(header::SET_COOKIE, gone);
    }
    response
}

fn no_randomness() -> Problem {
    Problem::of_status(StatusCode::INTERNAL_SERVER_ERROR, "the system gave no random bytes")
}

/// The address that a browser on this machine uses: one bound to every address is reached at the loopback one.
fn from_here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
