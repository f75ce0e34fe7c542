//! Error bodies: RFC 9457 `application/problem+json`, with a code for programs and a next step for people.

use crate::cli::ExitCode;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The most of a plain error text, in bytes, that is taken over into a problem.
const MAX_PLAIN_TEXT_BYTES: usize = 4096;

/// An error as the API tells it.
///
/// ```json
/// {"type":"urn:quarta:problem:unknown-file","title":"Not Found","status":404,
///  "detail":"no file is called x.png","next_step":"run `quarta ls`","code":"unknown-file"}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: `urn:quarta:problem:` and the code.
    #[serde(rename = "type", default)]
    #[schema(example = "urn:quarta:problem:unknown-file")]
    pub kind: String,
    /// The status in words.
    #[serde(default)]
    #[schema(example = "Not Found")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    /// What failed and why, in one sentence without a full stop.
    #[serde(default)]
    #[schema(example = "no file is called x.png")]
    pub detail: String,
    /// What to do next, as an instruction.
    #[serde(default)]
    #[schema(example = "run `quarta ls` to see what there is")]
    pub next_step: String,
    /// The kind of problem for programs: lower-case words with hyphens, stable over versions.
    #[serde(default)]
    #[schema(example = "unknown-file")]
    pub code: String,
}

impl Problem {
    /// A problem of the given `code`, which is stable over versions; see the fields.
    pub fn new(
        status: StatusCode,
        code: impl Into<String>,
        detail: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        let code = code.into();
        Self {
            kind: format!("urn:quarta:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            next_step: next_step.into(),
            code,
        }
    }

    /// The problem of a status that came without one, as from a router's fallback; `detail` may be empty.
    pub fn of_status(status: StatusCode, detail: &str) -> Self {
        let (code, usual, next_step) = match status {
            StatusCode::NOT_FOUND => {
                ("not-found", "there is nothing at this path", "see the API's description")
            }
            StatusCode::METHOD_NOT_ALLOWED => (
                "method-not-allowed",
                "this path does not take this method",
                "use a method that the Allow header lists",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => {
                ("too-large", "the request's body is too large", "send less at once")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => (
                "unsupported-media-type",
                "the body's media type is not taken here",
                "send the documented Content-Type",
            ),
            StatusCode::REQUEST_TIMEOUT => ("timeout", "the request took too long", "try again"),
            StatusCode::SERVICE_UNAVAILABLE => {
                ("unavailable", "the daemon cannot do this now", "try again in a moment")
            }
            status if status.is_client_error() => {
                ("bad-request", "the request is not valid", "correct the request and try again")
            }
            _ => ("internal", "the daemon failed to do this", "see the daemon's log, and try again"),
        };
        Self::new(status, code, if detail.is_empty() { usual } else { detail }, next_step)
    }

    /// What a command that met this problem exits with.
    pub fn exit_code(&self) -> ExitCode {
        match (self.code.as_str(), self.status) {
            ("partly-done", _) => ExitCode::PartlyDone,
            (_, 400 | 405 | 413 | 415 | 422) => ExitCode::Usage,
            (_, 401 | 403 | 421) => ExitCode::NotPermitted,
            (_, 404 | 410) => ExitCode::NotFound,
            _ => ExitCode::Failure,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = if self.detail.is_empty() { &self.title } else { &self.detail };
        f.write_str(why)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status)
            .ok()
            .filter(|status| status.is_client_error() || status.is_server_error())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON)),
            // An error says what is so now; no cache may keep it.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (status, headers, body).into_response()
    }
}

/// Makes problems of the error responses that axum's routing and extractors give as plain text or without a
/// body.
///
/// Done once for all routes, so that no router has to remember it. Bodies of other media types are left
/// alone.
pub(super) async fn unify(response: Response) -> Response {
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let plain = content_type.is_none_or(|value| value.as_bytes().starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = plain_text(body).await;
    let mut unified = Problem::of_status(status, &text).into_response();
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CACHE_CONTROL] {
        parts.headers.remove(name);
    }
    unified.headers_mut().extend(parts.headers);
    *unified.extensions_mut() = parts.extensions;
    unified
}

async fn plain_text(body: Body) -> String {
    match Limited::new(body, MAX_PLAIN_TEXT_BYTES).collect().await {
        Ok(collected) => String::from_utf8_lossy(&collected.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problems_json_stays_what_it_is() {
        let problem =
            Problem::new(StatusCode::NOT_FOUND, "unknown-file", "no file is called x.png", "run `quarta ls`");
        let json = concat!(
            r#"{"type":"urn:quarta:problem:unknown-file","title":"Not Found","status":404,"#,
            r#""detail":"no file is called x.png","next_step":"run `quarta ls`","code":"unknown-file"}"#
        );
        assert_eq!(serde_json::to_string(&problem).unwrap(), json);
        assert_eq!(serde_json::from_str::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn a_problem_of_another_version_is_read_with_what_it_has() {
        let problem: Problem = serde_json::from_str(r#"{"status":404,"hue":"red"}"#).unwrap();
        assert_eq!(problem.exit_code(), ExitCode::NotFound);
    }

    #[test]
    fn each_kind_of_problem_has_its_exit_code() {
        let exit = |status, code: &str| Problem::new(status, code, "", "").exit_code();
        assert_eq!(exit(StatusCode::BAD_REQUEST, "x"), ExitCode::Usage);
        assert_eq!(exit(StatusCode::UNAUTHORIZED, "x"), ExitCode::NotPermitted);
        assert_eq!(exit(StatusCode::FORBIDDEN, "x"), ExitCode::NotPermitted);
        assert_eq!(exit(StatusCode::NOT_FOUND, "x"), ExitCode::NotFound);
        assert_eq!(exit(StatusCode::CONFLICT, "partly-done"), ExitCode::PartlyDone);
        assert_eq!(exit(StatusCode::CONFLICT, "x"), ExitCode::Failure);
        assert_eq!(exit(StatusCode::BAD_GATEWAY, "x"), ExitCode::Failure);
    }

    #[tokio::test]
    async fn an_error_page_of_the_routes_own_is_left_alone() {
        let page = (StatusCode::NOT_FOUND, axum::response::Html("<p>gone")).into_response();
        assert!(unify(page).await.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    }
}
