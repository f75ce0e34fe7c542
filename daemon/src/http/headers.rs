//! Headers that every answer carries, so that a browser does nothing with it that was not meant.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::Response;

/// What an answer says unless its handler says otherwise: it is of the type that it names, may be shown in no other
/// site's page, runs nothing, tells no other site where the reader came from, and is not kept.
const DEFAULTS: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// `router` with these headers on whatever it answers, its refusals included.
pub(super) fn on_all(router: Router) -> Router {
    // A router of its own: a layer on `router` would miss its fallback.
    Router::new().fallback_service(router).layer(middleware::map_response(complete))
}

async fn complete(mut response: Response) -> Response {
    for (name, value) in DEFAULTS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    #[tokio::test]
    async fn an_answer_has_the_headers_unless_it_has_its_own() {
        let own = ([(header::CACHE_CONTROL, "private")], "x").into_response();
        let response = complete(own).await;
        assert_eq!(response.headers()[header::CACHE_CONTROL], "private");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert!(response.headers().contains_key("cross-origin-resource-policy"));
    }
}
