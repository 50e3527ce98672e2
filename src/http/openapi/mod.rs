//! The OpenAPI document, made from the table of routes, and the page that shows it (section 2).

mod payloads;

use super::auth::Auth;
use super::routes::{Parameter as Query, Route, SchemaOf, table};
use super::{Edge, Problem, request, signed};
use crate::security::rates::TooMany;
use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Serialize;
use std::sync::{Arc, LazyLock};
use utoipa::ToSchema;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    Components, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder,
    ResponsesBuilder, Schema,
};
use utoipa_swagger_ui::Config;

/// What every refusal says. On `/v1.0/*` and `/integration/*` the text is called `error_message`; a refusal of
/// `thread_control/request` has `success: false` and a `reason` besides.
#[derive(Serialize, ToSchema)]
#[schema(as = Error)]
struct ErrorBody {
    /// For a person.
    #[schema(example = "sprinkle does not hold this thread; iva does")]
    error: String,
    /// For a program.
    #[schema(example = "not_active")]
    code: String,
    /// As in `X-Request-Id`.
    request_id: String,
    /// Who holds the thread, where that is why.
    active: Option<String>,
    /// The present fencing token, where the holder is why.
    control_epoch: Option<u64>,
}

/// The whole document.
pub fn document() -> OpenApi {
    let mut schemas = Schemas::default();
    schemas.add(SchemaOf::of::<ErrorBody>());
    let mut paths = PathsBuilder::new();
    for route in table() {
        for path in route.paths() {
            paths = paths.path(path, PathItem::new(method(&route), operation(&route, path, &mut schemas)));
        }
    }
    let mut webhooks = PathsBuilder::new();
    for hook in payloads::webhooks() {
        let answers = ResponsesBuilder::new().response("2XX", ResponseBuilder::new().description("Received.")).build();
        let operation = OperationBuilder::new()
            .operation_id(Some(hook.name.replace('.', "_")))
            .tag("webhooks")
            .summary(Some(hook.summary))
            .description(Some(payloads::DELIVERY))
            .request_body(Some(schemas.body(Some(hook.payload), JSON_TYPE)))
            .responses(answers);
        webhooks = webhooks.path(hook.name, PathItem::new(HttpMethod::Post, operation));
    }
    let mut components = Components::new();
    components.schemas.extend(schemas.0);
    for (name, scheme) in schemes() {
        components.add_security_scheme(name, scheme);
    }
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("TRACT")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(include_str!("about.md"))),
        )
        .paths(paths)
        .webhooks(Some(webhooks))
        .components(Some(components))
        .build()
}

fn method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

const JSON_TYPE: &str = "application/json";

#[derive(Default)]
struct Schemas(Vec<(String, RefOr<Schema>)>);

impl Schemas {
    /// Takes a type's schemas over; what stands for it in a body is a reference to its own.
    fn add(&mut self, of: SchemaOf) -> RefOr<Schema> {
        (of.others)(&mut self.0);
        match (of.own)() {
            Some((name, schema)) => {
                let reference = Ref::from_schema_name(&name);
                self.0.push((name, schema));
                RefOr::Ref(reference)
            }
            None => ObjectBuilder::new().build().into(),
        }
    }
    fn body(&mut self, of: Option<SchemaOf>, content_type: &str) -> utoipa::openapi::request_body::RequestBody {
        let body = RequestBodyBuilder::new();
        match of {
            Some(of) => {
                let content = ContentBuilder::new().schema(Some(self.add(of))).build();
                body.content(content_type, content).required(Some(Required::True)).build()
            }
            None => body.build(),
        }
    }
}

fn operation(route: &Route, path: &str, schemas: &mut Schemas) -> Operation {
    let alias = if path == route.path { "" } else { "Alias. " };
    let id: Vec<_> = path.split(['/', '{', '}', '.']).filter(|part| !part.is_empty()).collect();
    let mut operation = OperationBuilder::new()
        .operation_id(Some(format!("{}_{}", route.method.as_str().to_lowercase(), id.join("_"))))
        .tag(tag(route))
        .summary(Some(route.summary));
    if !route.about.is_empty() || !alias.is_empty() {
        operation = operation.description(Some(format!("{alias}{}", route.about)));
    }
    for name in path.split(['{', '}']).skip(1).step_by(2) {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        operation = operation.parameter(parameter.schema(Some(schema(name == "business_id"))));
    }
    for Query { name, about, required, integer } in route.query {
        let required = if *required { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query).required(required);
        operation = operation.parameter(parameter.description(Some(*about)).schema(Some(schema(*integer))));
    }
    if route.idempotent {
        let about = "1 to 128 visible ASCII characters. The same key and body within 24 hours gets the first answer \
                     again, with `Idempotent-Replayed: true`; another body gets 422.";
        let parameter = ParameterBuilder::new().name("Idempotency-Key").parameter_in(ParameterIn::Header);
        operation = operation.parameter(parameter.description(Some(about)).schema(Some(schema(false))));
    }
    if route.takes.is_some() {
        operation = operation.request_body(Some(
            schemas.body(route.takes, if route.is_form { "multipart/form-data" } else { JSON_TYPE }),
        ));
    }
    if let Some(security) = security(route.auth) {
        operation = operation.security(security);
    }
    operation.responses(responses(route, path, schemas)).build()
}

fn schema(integer: bool) -> Schema {
    if integer {
        let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).format(Some(format)).build().into()
    } else {
        ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).build().into()
    }
}

fn responses(route: &Route, path: &str, schemas: &mut Schemas) -> ResponsesBuilder {
    let done = ResponseBuilder::new().description("Done.");
    let done = match route.gives {
        Some(of) => {
            let content = ContentBuilder::new().schema(Some(schemas.add(of))).build();
            done.content("application/json", content)
        }
        None => done.content(route.gives_as, ContentBuilder::new().schema(Some(schema(false))).build()),
    };
    let mut refusals = vec![("503", "Overloaded, or the store is not available; nothing was done.")];
    if route.auth != Auth::Open {
        refusals.push(("400", "Malformed or invalid; the text names the field."));
    }
    if !matches!(route.auth, Auth::Open | Auth::Signed) {
        refusals.push(("401", "No or bad credentials."));
    }
    if route.is_form {
        refusals.push(("408", "The body took too long to arrive."));
        refusals.push(("413", "The file is larger than 10 MiB."));
        refusals.push(("415", "The body is not a form."));
    } else if route.takes.is_some() {
        refusals.push(("413", "The body is larger than 256 KiB."));
        refusals.push(("415", "The body is not JSON."));
    }
    if matches!(route.auth, Auth::Receiver | Auth::Channel | Auth::Integration) {
        refusals.push(("403", "Not allowed to this caller."));
        refusals.push(("429", "This token is used too often; Retry-After says when to go on."));
    }
    if !matches!(route.auth, Auth::Open | Auth::Signed) || path.contains('{') {
        refusals.push(("404", "Unknown."));
    }
    if route.idempotent || route.method == axum::http::Method::DELETE {
        refusals.push(("409", "It conflicts with the present state."));
    }
    if route.idempotent {
        refusals.push(("422", "This Idempotency-Key was used for another body."));
        refusals.push(("504", "The outcome is unknown; repeat with the same Idempotency-Key."));
    }
    refusals.sort_unstable();
    let mut responses = ResponsesBuilder::new().response(route.success.as_str(), done);
    for (status, about) in refusals {
        let reference = RefOr::Ref(Ref::from_schema_name("Error"));
        let content = ContentBuilder::new().schema(Some(reference)).example(Some(example(status, path))).build();
        responses =
            responses.response(status, ResponseBuilder::new().description(about).content("application/json", content));
    }
    responses
}

/// What a refusal looks like on this path.
fn example(status: &str, path: &str) -> serde_json::Value {
    let problem = match status {
        "400" => Problem::invalid("user_id", "is missing"),
        "401" => Problem::unauthorized("token_missing", "send Authorization: Bearer <token>"),
        "403" => Problem::new(StatusCode::FORBIDDEN, "not_permitted", "sprinkle may not take"),
        "404" => Problem::unknown_user(),
        "408" => Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", "the body took too long to arrive"),
        "409" => Problem::new(StatusCode::CONFLICT, "invalid_state", "not possible while the conversation is complete"),
        "413" => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body must be at most {} bytes long", request::MAX_BODY),
        ),
        "415" => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body must be JSON: send Content-Type: application/json",
        ),
        "422" => Problem::key_reused(),
        "429" => TooMany { retry_after_s: 1 }.into(),
        "504" => Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "the store did not answer in time"),
        _ => Problem::unavailable("overloaded", "too many requests are in flight; nothing was done"),
    };
    problem.body(super::Shape::of(path), "0199f5a0-5b7c-7c3e-9d7e-2f1b6a1c9e11")
}

fn tag(route: &Route) -> &'static str {
    match route.auth {
        Auth::Receiver | Auth::Signed => "agent tools",
        Auth::Channel => "channel",
        Auth::Integration => "bot",
        Auth::Admin => "admin",
        Auth::Open => "operations",
    }
}

fn security(auth: Auth) -> Option<SecurityRequirement> {
    let nothing: [&str; 0] = [];
    match auth {
        Auth::Open => None,
        Auth::Signed => Some(SecurityRequirement::new("signature", nothing)),
        Auth::Receiver => Some(SecurityRequirement::new("receiver", nothing)),
        Auth::Admin => Some(SecurityRequirement::new("admin", nothing)),
        Auth::Channel | Auth::Integration => {
            Some(SecurityRequirement::new("api_token", nothing).add("client_id", nothing))
        }
    }
}

fn schemes() -> [(&'static str, SecurityScheme); 5] {
    let bearer = |about: &str| HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about));
    let client_id = ApiKeyValue::with_description("client-id", "The client's id, beside its API token.");
    let signature = ApiKeyValue::with_description(
        signed::SIGNATURE,
        "Base64 of the signature over the bytes of the body: RSA PKCS#1 v1.5 or ECDSA (DER), with SHA-1, or with SHA-256 when \
         `Signature-Algorithm: sha256` is sent. Beside it either `SignatureCertUUID` or `SignatureCertChainUrl`.",
    );
    [
        ("signature", SecurityScheme::ApiKey(ApiKey::Header(signature))),
        ("receiver", bearer("A receiver's token.").bearer_format("JWT").build().into_scheme()),
        ("api_token", bearer("A client's API token.").build().into_scheme()),
        ("client_id", SecurityScheme::ApiKey(ApiKey::Header(client_id))),
        ("admin", bearer("The operator's token.").build().into_scheme()),
    ]
}

trait IntoScheme {
    fn into_scheme(self) -> SecurityScheme;
}
impl IntoScheme for utoipa::openapi::security::Http {
    fn into_scheme(self) -> SecurityScheme {
        SecurityScheme::Http(self)
    }
}

static JSON: LazyLock<Bytes> = LazyLock::new(|| document().to_json().unwrap_or_default().into());

/// Adds `/openapi.json` and `/docs`.
pub(super) fn with_pages(router: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    router
        .route("/openapi.json", get(json))
        .route("/openapi.json/", get(json))
        .route("/docs", get(|| async { Redirect::permanent("/docs/") }))
        .route("/docs/", get(|| page(String::new())))
        .route("/docs/{*file}", get(|Path(file): Path<String>| page(file)))
}

async fn json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], JSON.clone()).into_response()
}

async fn page(file: String) -> Response {
    let config = Arc::new(Config::from("/openapi.json"));
    match utoipa_swagger_ui::serve(&file, config) {
        Ok(Some(file)) => ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response(),
        Ok(None) => Problem::of_status(StatusCode::NOT_FOUND).into_response(),
        Err(error) => {
            tracing::error!(%error, "the documentation page cannot be shown");
            Problem::internal().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn document() -> Value {
        serde_json::to_value(super::document()).unwrap()
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
                let responses = operation["responses"].as_object().unwrap();
                let done: Vec<_> = responses.iter().filter(|(status, _)| status.starts_with('2')).collect();
                assert!(matches!(&done[..], [(_, told)] if told["description"].is_string()), "{method} {path}");
                assert_eq!(
                    method == "post" || method == "put",
                    operation["requestBody"].is_object(),
                    "{method} {path}"
                );
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let routed: BTreeSet<_> =
            table().iter().flat_map(|r| r.paths().map(|p| (r.method.to_string(), p.to_owned()))).collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let ids: Vec<_> = text.split("\"operationId\":\"").skip(1).filter_map(|p| p.split('"').next()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "operation ids are unique");
    }

    #[test]
    fn guarded_routes_say_so() {
        let document = document();
        for route in table() {
            let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
            assert_eq!(operation["security"].is_array(), route.auth != Auth::Open, "{}", route.path);
        }
    }

    #[test]
    fn the_payloads_of_webhooks_are_described() {
        let document = document();
        let names: BTreeSet<_> = document["webhooks"].as_object().unwrap().keys().cloned().collect();
        for name in ["message.receive", "conversation_state", "aeu_events", "user_events.create_user", "thread_control"]
        {
            assert!(names.contains(name), "{name}");
        }
    }
}
