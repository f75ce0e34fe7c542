//! Swagger UI at `/docs/`, from files in this program: nothing is loaded from elsewhere.

use super::description::DESCRIPTION_PATH;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use std::sync::Arc;
use utoipa_swagger_ui::Config;

/// What the pages may load and do: their own scripts, styles and requests. Swagger UI sets styles in its elements and
/// has its pictures in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages' routes.
pub(super) fn routes() -> Router {
    // No validator: it would tell an outside service the API's address.
    let config = Config::from(DESCRIPTION_PATH)
        .validator_url("none")
        .display_request_duration(true)
        .persist_authorization(false);
    Router::new()
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(async |config| page(None, config)))
        .route("/docs/{*file}", get(async |file, config| page(Some(file), config)))
        .layer(Extension(Arc::new(config)))
}

fn page(file: Option<Path<String>>, Extension(config): Extension<Arc<Config<'static>>>) -> Response {
    let name = file.map(|Path(name)| name).unwrap_or_default();
    match utoipa_swagger_ui::serve(&name, config) {
        Ok(Some(file)) => {
            let Ok(media_type) = HeaderValue::try_from(file.content_type) else {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            };
            let headers = [
                (header::CONTENT_TYPE, media_type),
                (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            ];
            let mut response = (headers, file.bytes).into_response();
            if file.gzpipped {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::error!(%error, "a page of the documentation could not be made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
