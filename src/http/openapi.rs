//! The OpenAPI document of the API: made from the code, served at `/openapi.json`, and committed as
//! `docs/openapi.json`, so that a change of the API is seen in a review.
//!
//! What a route takes and answers stands above its handler, in `#[utoipa::path(..)]`, and the
//! handler in the list of [`Annotated`]. What holds for many routes is added here: the role and
//! what refuses a request come from the table of routes, names in the path from the path. A response
//! of 400 and above that is annotated without a body is a problem.

use std::sync::LazyLock;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use mapsmith_core::access::Role;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::declared::Prune;
use super::etag::EntityTag;
use super::handlers::{self, access};
use super::registrations::Missing;
use super::routes::{Needs, ROUTES, Route};
use super::{
    commands, declared, events, history, map, members, nodes, overrides, problems, registrations,
    rollback, rollout, servers, stats,
};
use crate::api::types::{OverrideKind, Problem};

/// Every handler.
#[derive(OpenApi)]
#[openapi(
    paths(
        openapi,
        access::about,
        access::audit,
        access::create_token,
        access::log_in,
        access::log_out,
        access::revoke_token,
        access::rotate_token,
        access::tokens,
        commands::commands,
        commands::run,
        declared::check_config,
        declared::config,
        declared::delete_backend,
        declared::delete_frontend,
        declared::frontend,
        declared::frontends,
        declared::haproxy_config,
        declared::patch_backend,
        declared::patch_frontend,
        declared::put_backend,
        declared::put_config,
        declared::put_frontend,
        declared::put_rules,
        declared::rules,
        events::activity,
        events::events,
        handlers::approve,
        handlers::attention,
        handlers::certificates,
        handlers::explain,
        handlers::healthz,
        handlers::held,
        handlers::learned,
        handlers::master,
        handlers::metrics,
        handlers::own,
        handlers::readyz,
        handlers::reload,
        handlers::renew,
        handlers::status,
        history::diff,
        history::map,
        history::revision,
        history::revisions,
        map::map,
        members::all,
        members::of_name,
        members::of_version,
        members::register,
        members::switch,
        members::unregister,
        members::versions,
        nodes::nodes,
        overrides::drain,
        overrides::drain_of,
        overrides::end_override,
        overrides::node_override,
        overrides::overrides,
        overrides::set_override,
        overrides::undrain,
        problems::problem,
        registrations::register,
        registrations::register_many,
        registrations::unregister,
        registrations::unregister_many,
        rollback::approve,
        rollback::hold,
        rollback::reject,
        rollback::resume,
        rollback::roll_back,
        rollback::unreject,
        rollout::abort,
        rollout::promote,
        rollout::rollout,
        rollout::rollouts,
        servers::backend,
        servers::backends,
        servers::ordered,
        servers::reset,
        servers::set,
        stats::stats,
        stats::stream,
    ),
    components(schemas(Missing, OverrideKind, Problem, Prune))
)]
struct Annotated;

/// The document, and its text.
static DOCUMENT: LazyLock<(Value, String, EntityTag)> = LazyLock::new(|| {
    let document = document();
    let text = format!("{document:#}\n");
    let tag = EntityTag::of(text.as_bytes());
    (document, text, tag)
});

const ABOUT: &str = "What can be asked of a running Mapsmith, and what it can be told to do. \
    docs/api.md explains it, with examples. The role that a request needs is its `x-role`; a \
    request without a `security` of its own needs a token, a session or a certificate, but where \
    the API is open to every program of its machine.";

/// What a name in a path stands for.
const NAMES: &[(&str, &str)] = &[
    ("backend", "A backend."),
    ("frontend", "A frontend."),
    ("host", "A member's address or host name."),
    ("id", "An id."),
    ("kind", "A kind of problem: the last part of its `type`."),
    ("master", "A master, by HAProxy's name."),
    ("name", "A name."),
    ("node", "A node."),
    ("number", "A revision."),
    ("port", "A member's port, 1 to 65535."),
    ("server", "A server."),
    ("version", "A version of what is registered."),
];

/// The OpenAPI document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    responses(
        (status = 200, body = inline(Object), description = "this document"),
        (status = 304)
    )
)]
pub(super) async fn openapi(headers: HeaderMap) -> Response {
    let (_, text, tag) = &*DOCUMENT;
    tag.answer(&headers, || ([(header::CONTENT_TYPE, "application/json")], text.as_str()))
}

/// The media types that the body of a route may have.
pub(super) fn bodies(route: &Route) -> Vec<&'static str> {
    let content = operation(&DOCUMENT.0, route).and_then(|it| it.pointer("/requestBody/content"));
    let kinds = content.and_then(Value::as_object).into_iter().flat_map(Map::keys);
    kinds.map(String::as_str).collect()
}

fn operation<'a>(document: &'a Value, route: &Route) -> Option<&'a Value> {
    document.get("paths")?.get(route.path)?.get(route.method.as_str().to_ascii_lowercase())
}

fn document() -> Value {
    // What is made of constants can be written.
    let mut document = serde_json::to_value(Annotated::openapi()).unwrap_or_default();
    document["info"] = json!({
        "title": "Mapsmith",
        "version": env!("CARGO_PKG_VERSION"),
        "description": ABOUT,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    });
    // Wherever this document is read from, also behind a proxy that puts a path before it.
    document["servers"] = json!([{"url": ".", "description": "where this document is"}]);
    document["security"] = json!([{"token": []}, {"session": []}, {"certificate": []}]);
    document["components"]["securitySchemes"] = json!({
        "token": {"type": "http", "scheme": "bearer"},
        "session": {
            "type": "apiKey", "in": "cookie", "name": "__Host-mapsmith",
            "description": "`POST /v1/session` sets it; without TLS it is called `mapsmith`",
        },
        "certificate": {"type": "mutualTLS"},
    });
    document["components"]["headers"] = json!({
        "X-Request-Id": {
            "description": "the request's own, or a new one", "schema": {"type": "string"},
        },
        "Mapsmith-Revision": {
            "description": "the map in force", "schema": {"type": "integer", "minimum": 0},
        },
        "ETag": {
            "description": "of the resource, strong", "schema": {"type": "string"},
        },
    });
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let operations = document["paths"].get_mut(route.path);
        let operation = operations.and_then(|it| it.get_mut(method)).and_then(Value::as_object_mut);
        if let Some(operation) = operation {
            complete(operation, route);
        }
    }
    plain(&mut document);
    document
}

/// Adds what the table of routes says.
fn complete(operation: &mut Map<String, Value>, route: &Route) {
    match route.needs {
        Needs::Role(role) | Needs::NodeGrant(role) | Needs::MemberGrant(role) => {
            drop(operation.insert("x-role".to_owned(), json!(role.name())))
        }
        Needs::CommandGrant => {
            operation.insert("x-role".to_owned(), json!(Role::None.name()));
            operation.insert("x-grant".to_owned(), json!("commands"));
        }
        Needs::Nothing | Needs::Probe | Needs::Login => {
            operation.insert("security".to_owned(), json!([]));
        }
    }
    // Sorted by what they are of.
    let tag = route.path.trim_start_matches("/v1/").trim_start_matches('/').split('/').next();
    operation.insert("tags".to_owned(), json!([tag.unwrap_or_default()]));
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let names: Vec<_> = names.map(name).collect();
    if !names.is_empty() {
        let given = operation.entry("parameters").or_insert_with(|| json!([]));
        given
            .as_array_mut()
            .into_iter()
            .for_each(|it| it.splice(0..0, names.clone()).for_each(drop));
    }
    if route.is_conditional {
        add_conditions(operation);
    }
    // What may be left out is left out, and not `null`.
    let optional = operation.get_mut("requestBody").and_then(|it| it.pointer_mut(OPTIONAL_BODY));
    if let Some(schema) = optional.and_then(|it| it.as_array_mut()).and_then(of_some) {
        operation["requestBody"]["content"]["application/json"]["schema"] = schema;
    }
    let has_body = operation.contains_key("requestBody");
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    let may_be_refused: &[u16] = match route.needs {
        Needs::Role(_)
        | Needs::NodeGrant(_)
        | Needs::MemberGrant(_)
        | Needs::CommandGrant
        | Needs::Login => &[400, 401, 403, 429, 503],
        Needs::Probe => &[403],
        Needs::Nothing => &[],
    };
    let of_a_body: &[u16] = if has_body { &[408, 413, 415] } else { &[] };
    let of_a_condition: &[u16] = if route.is_conditional { &[412, 428] } else { &[] };
    for status in may_be_refused.iter().chain(of_a_body).chain(of_a_condition) {
        responses.entry(status.to_string()).or_insert_with(|| json!({"description": ""}));
    }
    let is_role = route.needs.somebody();
    for (status, response) in responses {
        if let (Ok(status), Some(response)) = (status.parse(), response.as_object_mut()) {
            answer(response, status, is_role);
        }
    }
}

/// The headers that say what is to be changed, where the handler says nothing of its own.
fn add_conditions(operation: &mut Map<String, Value>) {
    let given = operation.entry("parameters").or_insert_with(|| json!([]));
    let Some(given) = given.as_array_mut() else { return };
    if given.iter().any(|parameter| parameter["name"] == "If-Match") {
        return;
    }
    for (name, about) in [
        ("If-Match", "the `ETag` that the client has"),
        ("If-None-Match", "`*`: only where there is none"),
    ] {
        let schema = json!({"type": "string"});
        given.push(json!({"name": name, "in": "header", "description": about, "schema": schema}));
    }
}

/// The schemas of a body that may be left out.
const OPTIONAL_BODY: &str = "/content/application~1json/schema/oneOf";

/// The one of them that is not `null`.
fn of_some(schemas: &mut Vec<Value>) -> Option<Value> {
    let position = schemas.iter().position(|schema| schema["type"] != "null")?;
    Some(schemas.swap_remove(position))
}

/// A name in a path.
fn name(name: &str) -> Value {
    let about =
        NAMES.iter().find(|(known, _)| *known == name).map_or("A name.", |(_, about)| about);
    let schema = match name {
        "number" => json!({"type": "integer", "format": "int64", "minimum": 0}),
        _ => json!({"type": "string", "minLength": 1}),
    };
    json!({"name": name, "in": "path", "required": true, "description": about, "schema": schema})
}

/// Adds what every answer has.
fn answer(response: &mut Map<String, Value>, status: u16, is_role: bool) {
    let is_problem = status >= 400 && !response.contains_key("content");
    if response.get("description").is_none_or(|about| about == "") {
        let about = StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason());
        response.insert("description".to_owned(), json!(about.unwrap_or("an answer")));
    }
    if is_problem {
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        let content = json!({"application/problem+json": {"schema": schema}});
        response.insert("content".to_owned(), content);
    }
    let headers = response.entry("headers").or_insert_with(|| json!({}));
    let Some(headers) = headers.as_object_mut() else { return };
    let of_map = (is_role && status < 400).then_some("Mapsmith-Revision");
    for header in of_map.into_iter().chain(["X-Request-Id"]) {
        let reference = json!({"$ref": format!("#/components/headers/{header}")});
        headers.entry(header).or_insert(reference);
    }
    for (name, header) in headers {
        if name == "ETag" {
            *header = json!({"$ref": "#/components/headers/ETag"});
        }
    }
}

/// Takes out of descriptions what is for readers of the code: links from type to type, and lines
/// that end where the code's do.
fn plain(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = without_links(text);
            }
            members.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

fn without_links(text: &str) -> String {
    let mut parts = text.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("`]").unwrap_or((part, ""));
        let target = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let name = name.rsplit("::").next().unwrap_or(name);
        plain.push_str(&format!("`{name}`{}", target.map_or(rest, |(_, rest)| rest)));
    }
    plain.replace('\n', " ").replace("  ", "\n\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn operations() -> impl Iterator<Item = (String, &'static Value)> {
        let paths = DOCUMENT.0["paths"].as_object().unwrap();
        paths.iter().flat_map(|(path, operations)| {
            let operations = operations.as_object().unwrap();
            operations
                .iter()
                .map(move |(method, it)| (format!("{} {path}", method.to_uppercase()), it))
        })
    }

    #[test]
    fn the_openapi_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
        if std::env::var_os("MAPSMITH_BLESS").is_some() {
            std::fs::write(&path, &DOCUMENT.1).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).is_ok_and(|text| text == DOCUMENT.1),
            "docs/openapi.json is not what the code says of the API; write it again by\n  \
             MAPSMITH_BLESS=1 cargo test --lib the_openapi_document_is_what_the_code_says"
        );
    }

    #[test]
    fn every_route_is_in_the_openapi_document_and_nothing_else() {
        let documented: BTreeSet<_> = operations().map(|(operation, _)| operation).collect();
        for route in ROUTES {
            let operation = format!("{} {}", route.method, route.path);
            assert!(
                documented.contains(&operation),
                "{operation} is not in the OpenAPI document: write #[utoipa::path(..)] above its \
                 handler, and the handler into the list of Annotated in src/http/openapi.rs"
            );
        }
        let routes: BTreeSet<_> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        for operation in documented {
            assert!(
                routes.contains(&operation),
                "{operation} is no route: its #[utoipa::path(..)] must have the method and the \
                 path of its row in src/http/routes.rs"
            );
        }
    }

    #[test]
    fn each_operation_says_what_it_is_who_may_use_it_and_what_it_answers() {
        let mut ids = BTreeSet::new();
        for (name, operation) in operations() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{name}: another has the operation_id {id:?}, too");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(!summary.is_empty(), "{name}: its handler has no doc comment");
            let is_open = operation.get("security").is_some();
            assert_ne!(operation.get("x-role").is_some(), is_open, "{name}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{name}");
            if let Some(content) = operation.pointer("/requestBody/content") {
                for (kind, body) in content.as_object().unwrap() {
                    let schema = resolved(&body["schema"]);
                    let schema = schema.get("items").map_or(schema, resolved);
                    // A text has no fields; those of what can be declared are the settings' affair.
                    if schema.get("properties").is_none() {
                        continue;
                    }
                    assert_eq!(
                        schema["additionalProperties"], false,
                        "{name}: unknown fields of a body ({kind}) must be refused: put \
                         #[serde(deny_unknown_fields)] on its type"
                    );
                }
            }
        }
    }

    /// The schema that a reference leads to; of one that may be null, the other.
    fn resolved(schema: &'static Value) -> &'static Value {
        let of_some = schema.get("oneOf").and_then(Value::as_array);
        let schema =
            of_some.and_then(|of| of.iter().find(|it| it["type"] != "null")).unwrap_or(schema);
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => DOCUMENT.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }

    #[test]
    fn every_reference_of_the_openapi_document_leads_somewhere() {
        fn walk(value: &Value, found: &mut usize) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let target = DOCUMENT.0.pointer(reference.trim_start_matches('#'));
                        assert!(target.is_some(), "{reference}");
                        *found += 1;
                    }
                    members.values().for_each(|value| walk(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, found)),
                _ => {}
            }
        }
        let mut found = 0;
        walk(&DOCUMENT.0, &mut found);
        assert!(found > 100, "{found}");
    }

    #[test]
    fn the_keys_of_what_is_declared_may_have_any_value() {
        let report = &DOCUMENT.0["components"]["schemas"]["ObjectReport"];
        let keys = &report["additionalProperties"];
        assert!(keys.is_object(), "generated clients would refuse every key: {report}");
        // There are lists (`bind`), texts, numbers, switches and tables.
        let says = ["type", "items", "properties", "enum", "oneOf", "$ref"];
        assert!(says.iter().all(|word| keys.get(word).is_none()), "some are refused: {keys}");
    }

    #[test]
    fn descriptions_have_no_links_of_the_code() {
        for (text, expected) in [
            ("the first [`NAMED`](a::b) of\nthem", "the first `NAMED` of them"),
            ("see [`A::b`]", "see `b`"),
            ("a\n\nb", "a\n\nb"),
            ("plain [link](x)", "plain [link](x)"),
        ] {
            assert_eq!(without_links(text), expected);
        }
    }
}
