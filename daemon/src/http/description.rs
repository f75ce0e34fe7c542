//! The API's description, and the pages that show it.
//!
//! Handlers describe themselves (`#[utoipa::path]`), and the router is made of the same descriptions, so a route
//! cannot be served without being described. What holds for every route alike, who is let in and how it fails, is
//! added here once: an error answer of a handler needs a status and a sentence, and gets the [`Problem`] body.

use super::{PROBLEM_JSON, Problem, browser, swagger};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response as Answer;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Where the description is served.
pub const DESCRIPTION_PATH: &str = "/api/openapi.json";

/// The token in the `Authorization` header.
const BEARER: &str = "bearer";

/// The code of a one-time link in the query; for the login page alone.
pub(super) const LOGIN_CODE: &str = "login_code";

/// The description as text; made once, at the start.
#[derive(Clone)]
struct Text(Bytes);

/// The router with its description completed and served: `/api/openapi.json`, Swagger UI at `/docs`, what browsers log
/// in with, and `/healthz`.
pub fn documented(router: OpenApiRouter) -> Router {
    let (router, mut description) =
        router.routes(routes!(alive)).routes(routes!(describe)).merge(browser::routes()).split_for_parts();
    complete(&mut description);
    // Cannot fail: a description has no maps with other keys than strings.
    let text = Text(serde_json::to_vec(&description).unwrap_or_default().into());
    router.layer(Extension(text)).merge(swagger::routes())
}

/// Whether the daemon answers
#[utoipa::path(get, path = "/healthz", tag = "status", security(()), responses(
    (status = 200, description = "it does", content_type = "text/plain", body = String, example = "alive\n"),
))]
async fn alive() -> &'static str {
    "alive\n"
}

/// This description
///
/// Of every route, in version 3.1 of the description language. Swagger UI at `/docs/` shows it.
#[utoipa::path(get, path = "/api/openapi.json", tag = "api", responses(
    (status = 200, description = "the description", content_type = "application/json", body = Object)
))]
async fn describe(Extension(Text(text)): Extension<Text>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

/// Adds what holds for every route.
fn complete(description: &mut OpenApi) {
    let components = description.components.get_or_insert_default();
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The content of the file `api-token` in the data folder."))
        .build();
    components.security_schemes.insert(BEARER.to_owned(), SecurityScheme::Http(bearer).into());
    let code = ApiKeyValue::with_description(
        "code",
        "The code of a one-time link, from the command `browse`; for `/login` alone.",
    );
    components
        .security_schemes
        .insert(LOGIN_CODE.to_owned(), SecurityScheme::ApiKey(ApiKey::Query(code)).into());
    for item in description.paths.paths.values_mut() {
        for operation in operations(item) {
            complete_operation(operation);
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch, &mut item.head]
        .into_iter()
        .flatten()
}

fn complete_operation(operation: &mut Operation) {
    let open =
        operation.security.as_ref().is_some_and(|needed| needed.contains(&SecurityRequirement::default()));
    if operation.security.is_none() {
        operation.security = Some(vec![SecurityRequirement::new(BEARER, [""; 0])]);
    }
    let mut add = |status: StatusCode, why: &str| {
        let all = &mut operation.responses.responses;
        let answer = all.entry(status.as_u16().to_string()).or_insert_with(|| Answer::new("").into());
        if let RefOr::T(answer) = answer {
            if !answer.description.is_empty() {
                answer.description.push_str("; ");
            }
            answer.description.push_str(why);
        }
    };
    add(
        StatusCode::BAD_REQUEST,
        "`bad-request`: the request is malformed; `bad-host`: it has no usable `Host`",
    );
    if !open {
        add(StatusCode::UNAUTHORIZED, "`no-token`, `wrong-token`: the request does not say who asks");
    }
    add(StatusCode::FORBIDDEN, "`foreign-origin`: the request was sent by a page of another site");
    add(StatusCode::MISDIRECTED_REQUEST, "`foreign-host`: the `Host` is not an address or name of this API");
    add(StatusCode::INTERNAL_SERVER_ERROR, "`internal`: the daemon failed; its log says why");
    if let Some(RefOr::T(body)) = &operation.request_body {
        let json = body.content.contains_key("application/json");
        add(StatusCode::REQUEST_TIMEOUT, "`timeout`: the body stalled");
        if json {
            add(StatusCode::PAYLOAD_TOO_LARGE, "`too-large`: the body is above 1 MiB");
            add(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "`unsupported-media-type`: the body is not `application/json`",
            );
            add(
                StatusCode::UNPROCESSABLE_ENTITY,
                "`bad-request`: the body is JSON, but a field is unknown, missing or of another type",
            );
        }
    }
    for (status, answer) in &mut operation.responses.responses {
        let RefOr::T(answer) = answer else { continue };
        if status.starts_with(['4', '5']) && answer.content.is_empty() {
            let schema = Ref::from_schema_name(Problem::name());
            answer.content.insert(
                PROBLEM_JSON.to_owned(),
                RefOr::T(ContentBuilder::new().schema(Some(schema)).build()),
            );
        }
        if status == StatusCode::UNAUTHORIZED.as_str() {
            let challenge = HeaderBuilder::new()
                .schema(Some(Schema::from(Object::with_type(Type::String))))
                .description(Some("`Bearer realm=\"quarta\"`"))
                .build();
            answer.headers.insert("WWW-Authenticate".to_owned(), challenge.into());
        }
    }
    // Sent by the connection itself, before there is a request, and without a body.
    operation.responses.responses.insert(
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16().to_string(),
        Answer::new("the headers are above 16 KiB or 64 fields; without a body").into(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thing
    #[utoipa::path(post, path = "/thing", request_body = String, responses(
        (status = 200, description = "done"),
        (status = 404, description = "`gone`: it is gone"),
    ))]
    async fn thing() {}

    /// A check
    #[utoipa::path(get, path = "/check", security(()), responses((status = 200, description = "alive")))]
    async fn check() {}

    fn description() -> OpenApi {
        let (_, mut description) =
            OpenApiRouter::<()>::default().routes(routes!(thing)).routes(routes!(check)).split_for_parts();
        complete(&mut description);
        description
    }

    #[test]
    fn every_error_answer_is_a_problem() {
        let value = serde_json::to_value(description()).unwrap();
        let answers = &value["paths"]["/thing"]["post"]["responses"];
        for status in ["400", "401", "403", "404", "408", "421", "500"] {
            let schema = &answers[status]["content"][PROBLEM_JSON]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{status}: {answers}");
        }
        assert!(answers["401"]["headers"]["WWW-Authenticate"].is_object());
        assert!(value["components"]["schemas"]["Problem"]["properties"]["next_step"].is_object());
    }

    #[test]
    fn a_route_needs_the_token_unless_it_says_otherwise() {
        let value = serde_json::to_value(description()).unwrap();
        assert_eq!(value["paths"]["/thing"]["post"]["security"], serde_json::json!([{"bearer": []}]));
        assert_eq!(value["paths"]["/check"]["get"]["security"], serde_json::json!([{}]));
        assert!(value["paths"]["/check"]["get"]["responses"].get("401").is_none());
        assert_eq!(value["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    }
}
