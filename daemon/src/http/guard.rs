//! Who may ask over TCP.
//!
//! The decision is pure: `Guard::check` sees a request's head and says yes or why not. The order is Host,
//! Origin, token or session, so that a web page in a browser learns nothing, not even whether it guessed a token.
//!
//! A browser adds a session's cookie to whatever any page has it send to this host, on any port. So with a session
//! alone, a request that changes something must come from this API's own pages, which only the browser can say
//! (`Origin`, `Sec-Fetch-Site`), and one that a page of another origin caused is refused whatever it wants.

use super::Token;
use super::browser::Browsers;
use super::problem::Problem;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// By which way a request came; every request carries one as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Over the Unix socket: the user who runs the daemon.
    Local,
    /// Over TCP, with the token wherever one is needed.
    Remote,
}

impl Caller {
    /// Refuses what is not asked over the socket; `why` is the rule, as a sentence.
    ///
    /// # Errors
    /// A problem with the code `local-only`.
    pub fn require_local(self, why: &str) -> Result<(), Problem> {
        match self {
            Self::Local => Ok(()),
            Self::Remote => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "local-only",
                why,
                "use the command line on the machine itself",
            )),
        }
    }
}

/// Answered without a token, so that supervisors need none; they say "ok" or "not ready" and no more.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];
/// Answered without a token too, but only to who shows a code in the query.
const LOGIN_PATH: &str = "/login";
const METRICS_PATH: &str = "/metrics";
const CHALLENGE: &str = "Bearer realm=\"quarta\"";

#[derive(Debug)]
pub(super) struct Guard {
    token: Token,
    bound: IpAddr,
    names: Vec<String>,
    open_metrics: bool,
    browsers: Browsers,
}

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// No Host, several, or one that is none.
    BadHost,
    /// A Host that is not this API's.
    ForeignHost,
    /// An Origin other than the Host.
    ForeignOrigin,
    /// No token.
    NoToken,
    /// Not the right token.
    WrongToken,
}

impl Guard {
    pub(super) fn new(
        token: Token,
        bound: IpAddr,
        names: Vec<String>,
        open_metrics: bool,
        browsers: Browsers,
    ) -> Self {
        Self { token, bound, names, open_metrics, browsers }
    }

    /// `router` behind this guard. Nothing reaches it, its fallbacks included, that [`Guard::check`] refuses.
    pub(super) fn before(self, router: Router) -> Router {
        // A router of its own: layers on `router` would run after its routing.
        Router::new().fallback_service(router).layer(middleware::from_fn_with_state(Arc::new(self), admit))
    }

    fn check(&self, now: Instant, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = host(uri, headers).ok_or(Refusal::BadHost)?;
        if !self.is_ours(host.host()) {
            return Err(Refusal::ForeignHost);
        }
        if headers.get_all(header::ORIGIN).iter().any(|origin| !is_same(origin, &host)) {
            return Err(Refusal::ForeignOrigin);
        }
        let path = uri.path();
        if OPEN_PATHS.contains(&path) || self.open_metrics && path == METRICS_PATH {
            return Ok(());
        }
        if path == LOGIN_PATH && uri.query().is_some() {
            return Ok(());
        }
        match headers.get(header::AUTHORIZATION) {
            Some(given) => match bearer(given) {
                Some(given) if self.token.matches(given) => Ok(()),
                _ => Err(Refusal::WrongToken),
            },
            None => self.check_session(now, method, headers),
        }
    }

    /// Whether the request's cookie lets it in. That its `Origin`, if any, is ours has been checked.
    fn check_session(&self, now: Instant, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let session = session_in(headers, &self.browsers.cookie_name()).ok_or(Refusal::NoToken)?;
        if !self.browsers.sessions().is_open(now, session) {
            return Err(Refusal::NoToken);
        }
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let own_page = site == Some(b"same-origin") || site.is_none() && headers.contains_key(header::ORIGIN);
        // "none": typed or pasted by the person.
        let caused_here = own_page || site.is_none() || site == Some(b"none");
        if if method.is_safe() { caused_here } else { own_page } {
            Ok(())
        } else {
            Err(Refusal::ForeignOrigin)
        }
    }

    /// Ports are not compared: forwarding changes them, and what a rebound DNS name cannot fake is the name.
    fn is_ours(&self, host: &str) -> bool {
        if self.names.iter().any(|name| name.eq_ignore_ascii_case(host))
            || host.eq_ignore_ascii_case("localhost")
        {
            return true;
        }
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // Bound to every address of the machine: any literal will do, for a literal is not resolved by
            // DNS.
            Ok(ip) => {
                ip == self.bound
                    || self.bound.is_unspecified()
                    || ip.is_loopback() && self.bound.is_loopback()
            }
            Err(_) => false,
        }
    }
}

/// The one authority that a request is for; a request target with another one than its Host is for none.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host: Authority = hosts.next()?.to_str().ok()?.parse().ok()?;
    let alone = hosts.next().is_none() && !host.as_str().contains('@');
    let agrees = uri.authority().is_none_or(|target| *target == host);
    (alone && agrees).then_some(host)
}

/// Browsers leave a scheme's default port out of Host and Origin alike, so equal authorities are the same
/// origin.
fn is_same(origin: &HeaderValue, host: &Authority) -> bool {
    let authority = origin
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of a session's cookie.
pub(super) fn session_in<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(Instant::now(), request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) if refusal.wants_login() && wants_page(request.headers()) => login_page(),
        Err(refusal) => refusal.into_response(),
    }
}

/// Whether a person looks at the answer in a browser.
fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"))
}

/// What a person without a session sees: how to get in.
fn login_page() -> Response {
    let page = "<!doctype html><html lang=en><meta charset=utf-8><title>Quarta: please log in</title>\
        <h1>Please log in</h1><p>This page is for people who may use this machine's Quarta. On that machine, run\
        <pre>quarta browse --data DIR</pre><p>or, for a super-peer,<pre>quarta-superpeer browse --data DIR</pre>\
        <p>and open the link that it prints. It works once, within five minutes.\
        <p>Programs send <code>Authorization: Bearer</code> and the content of the file <code>api-token</code> in the \
        data folder.</html>";
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, CHALLENGE)], Html(page)).into_response()
}

impl Refusal {
    fn wants_login(self) -> bool {
        matches!(self, Self::NoToken | Self::WrongToken)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let token_step =
            "send `Authorization: Bearer` with the content of the file api-token in the data folder";
        let problem = match self {
            Self::BadHost => Problem::new(
                StatusCode::BAD_REQUEST,
                "bad-host",
                "the request does not say with exactly one Host header whom it is for",
                "send the address that you connect to as Host",
            ),
            Self::ForeignHost => Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "foreign-host",
                "the request's Host is not an address or name of this API",
                "use the address that the daemon serves, or add the name to the API's names in settings.toml",
            ),
            Self::ForeignOrigin => Problem::new(
                StatusCode::FORBIDDEN,
                "foreign-origin",
                "the request was sent by a page of another site",
                "use the API from its own pages, or from a program that sends no Origin",
            ),
            Self::NoToken => {
                Problem::new(StatusCode::UNAUTHORIZED, "no-token", "the request carries no token", token_step)
            }
            Self::WrongToken => Problem::new(
                StatusCode::UNAUTHORIZED,
                "wrong-token",
                "the request's token is not this daemon's",
                token_step,
            ),
        };
        let mut response = problem.into_response();
        if self.wants_login() {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn guard(bound: &str) -> Guard {
        let names = vec!["quarta.example.org".to_owned()];
        let bound: IpAddr = bound.parse().unwrap();
        let browsers = Browsers::at((bound, 7480).into());
        Guard::new(Token::parse(TOKEN).unwrap(), bound, names, false, browsers)
    }

    fn ask(guard: &Guard, target: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        request(guard, &Method::GET, target, headers)
    }

    fn request(
        guard: &Guard,
        method: &Method,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        guard.check(Instant::now(), method, &target.parse().unwrap(), &map)
    }

    fn host_is(bound: &str, host: &str) -> Result<(), Refusal> {
        ask(&guard(bound), "/healthz", &[("host", host)])
    }

    #[test]
    fn only_the_apis_own_hosts_are_answered() {
        for host in
            ["127.0.0.1:7480", "127.0.0.1", "localhost:7480", "LocalHost", "[::1]:7480", "quarta.example.org"]
        {
            assert_eq!(host_is("127.0.0.1", host), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1:7480", "127.0.0.1.evil.example"] {
            assert_eq!(host_is("127.0.0.1", host), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(host_is("10.0.0.1", "10.0.0.1:7480"), Ok(()));
        assert_eq!(host_is("10.0.0.1", "127.0.0.1:7480"), Err(Refusal::ForeignHost));
        assert_eq!(host_is("0.0.0.0", "192.168.7.7:80"), Ok(()));
        assert_eq!(host_is("0.0.0.0", "evil.example"), Err(Refusal::ForeignHost));
    }

    #[test]
    fn a_request_for_no_or_for_two_hosts_is_refused() {
        let guard = guard("127.0.0.1");
        assert_eq!(ask(&guard, "/healthz", &[]), Err(Refusal::BadHost));
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(ask(&guard, "/healthz", &two), Err(Refusal::BadHost));
        assert_eq!(ask(&guard, "http://evil.example/healthz", &two[..1]), Err(Refusal::BadHost));
        assert_eq!(ask(&guard, "/healthz", &[("host", "evil@localhost")]), Err(Refusal::BadHost));
        assert_eq!(ask(&guard, "http://localhost/healthz", &two[..1]), Ok(()));
    }

    #[test]
    fn a_page_of_another_site_is_refused_even_with_the_token() {
        let guard = guard("127.0.0.1");
        let authorization = format!("Bearer {TOKEN}");
        let ask = |origin| {
            let headers = [("host", "localhost:7480"), ("origin", origin), ("authorization", &authorization)];
            ask(&guard, "/api/v1/files", &headers)
        };
        assert_eq!(ask("http://localhost:7480"), Ok(()));
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:3000",
            "http://localhost",
            "file://localhost:7480",
        ] {
            assert_eq!(ask(origin), Err(Refusal::ForeignOrigin), "{origin}");
        }
    }

    #[test]
    fn the_token_is_asked_for_everywhere_but_where_supervisors_look() {
        let guard = guard("127.0.0.1");
        let with = |target, authorization: &str| {
            ask(&guard, target, &[("host", "localhost"), ("authorization", authorization)])
        };
        let without = |target| ask(&guard, target, &[("host", "localhost")]);
        assert_eq!(without("/healthz"), Ok(()));
        assert_eq!(without("/readyz?verbose"), Ok(()));
        for target in
            ["/", "/metrics", "/api/v1/files", "/healthz/", "//healthz", "/healthz/../api", "/%68ealthz"]
        {
            assert_eq!(without(target), Err(Refusal::NoToken), "{target}");
        }
        assert_eq!(with("/api/v1/files", &format!("bearer {TOKEN}")), Ok(()));
        for wrong in ["Bearer ", "Bearer x", TOKEN, &format!("Basic {TOKEN}"), &format!("Bearer {TOKEN}0")] {
            assert_eq!(with("/api/v1/files", wrong), Err(Refusal::WrongToken), "{wrong}");
        }
    }

    #[test]
    fn metrics_are_open_where_the_operator_opened_them() {
        let guard = Guard { open_metrics: true, ..guard("127.0.0.1") };
        assert_eq!(ask(&guard, "/metrics", &[("host", "localhost")]), Ok(()));
        assert_eq!(ask(&guard, "/metrics/x", &[("host", "localhost")]), Err(Refusal::NoToken));
    }

    #[test]
    fn a_session_reads_from_anywhere_of_ours_and_changes_from_our_own_pages_only() {
        let guard = guard("127.0.0.1");
        let now = Instant::now();
        guard.browsers.sessions().add_code(now, "code");
        assert!(guard.browsers.sessions().redeem(now, "code", "open"));
        let with = |method: &Method, cookie: &str, more: &[(&'static str, &str)]| {
            let mut headers = vec![("host", "localhost:7480"), ("cookie", cookie)];
            headers.extend_from_slice(more);
            request(&guard, method, "/api/v1/files", &headers)
        };
        let open = "a=b; quarta-session-7480=open";
        let site = |value| [("sec-fetch-site", value)];
        assert_eq!(with(&Method::GET, open, &[]), Ok(()));
        assert_eq!(with(&Method::GET, open, &site("none")), Ok(()));
        assert_eq!(with(&Method::GET, open, &site("same-origin")), Ok(()));
        for caused in ["same-site", "cross-site", ""] {
            assert_eq!(with(&Method::GET, open, &site(caused)), Err(Refusal::ForeignOrigin), "{caused}");
        }
        let own = [("origin", "http://localhost:7480")];
        assert_eq!(with(&Method::POST, open, &own), Ok(()));
        assert_eq!(with(&Method::POST, open, &site("same-origin")), Ok(()));
        assert_eq!(with(&Method::POST, open, &[]), Err(Refusal::ForeignOrigin));
        assert_eq!(with(&Method::POST, open, &site("none")), Err(Refusal::ForeignOrigin));
        assert_eq!(with(&Method::DELETE, open, &[own[0], site("same-site")[0]]), Err(Refusal::ForeignOrigin));
        for closed in ["", "quarta-session-7480=", "quarta-session-7480=other", "quarta-session-7490=open"] {
            assert_eq!(with(&Method::GET, closed, &[]), Err(Refusal::NoToken), "{closed}");
        }
    }

    #[test]
    fn a_login_needs_a_code_and_no_token() {
        let guard = guard("127.0.0.1");
        assert_eq!(ask(&guard, "/login?code=x", &[("host", "localhost")]), Ok(()));
        assert_eq!(ask(&guard, "/login", &[("host", "localhost")]), Err(Refusal::NoToken));
        assert_eq!(ask(&guard, "/login/?code=x", &[("host", "localhost")]), Err(Refusal::NoToken));
    }
}
