//! Frontends, backends and all of HAProxy's configuration, as they are declared.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::ExtensionRejection;
use axum::extract::{Extension, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mapsmith_core::access::Identity;
use mapsmith_core::objects::{ObjectKey, ObjectKind, Spec};

use super::body::Room;
use super::error::{HttpError, status_of};
use super::etag::{EntityTag, number_condition};
use super::handlers::json;
use super::request::{Author, BackendName, NoQuery, Parameters};
use super::serve::{Begun, Outliving};
use crate::api::declared::{
    ConfigAnswer, ConfigOrder, ConfigRequest, Secrets, document_of, object_of, patch_of,
};
use crate::api::types::{
    ConfigBody, ConfigChangeReport, ConfigReport, ObjectReport, ObjectsReport, ReloadOutcome,
    RulesBody,
};
use crate::api::{Api, NumberCondition, requests};
use crate::store::AuditTicket;

mod query;

pub(super) use query::Prune;
use query::{CandidateQuery, CheckQuery, ConfigQuery, DeclareQuery, FrontendName, UndeclareQuery};

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;

/// Whoever asks for a change.
#[derive(Clone)]
pub(in crate::http) struct Asker {
    pub(in crate::http) ticket: Arc<AuditTicket>,
    pub(in crate::http) by: Option<String>,
    /// What they have seen.
    condition: NumberCondition,
    /// The answer may come after all tasks have begun anew.
    _stays: Option<Arc<Begun>>,
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = ExtensionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let Extension(ticket) = Ticket::from_request_parts(parts, state).await?;
        let by = parts.extensions.get::<Author>().cloned().and_then(|Author(by)| by);
        let condition = number_condition(&parts.headers);
        let _stays = parts.extensions.get::<Outliving>().map(|it| Arc::new(it.begin()));
        Ok(Self { ticket, by, condition, _stays })
    }
}

const FRONTEND: &str = "the keys of [[frontend]], like {\"bind\": [\":80\"], \
    \"default_backend\": \"app\"}";
const BACKEND: &str = "the keys of [[backend]], like {\"servers\": [{\"name\": \"a\", \
    \"address\": \"10.0.0.1:80\"}]}";

/// The frontends of the settings file and of the API.
#[utoipa::path(get, path = "/v1/frontends", responses((status = 200, body = ObjectsReport)))]
pub(in crate::http) async fn frontends(
    State(api): Shared,
    Extension(identity): Extension<Identity>,
    _: Parameters<NoQuery>,
) -> Json<ObjectsReport> {
    Json(api.frontends(Secrets::for_whom(&identity)))
}

/// A frontend, as it is declared.
#[utoipa::path(
    get,
    path = "/v1/frontends/{frontend}",
    responses(
        (status = 200, body = ObjectReport, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
    )
)]
pub(in crate::http) async fn frontend(
    State(api): Shared,
    FrontendName(name): FrontendName,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let key = ObjectKey::new(ObjectKind::Frontend, name);
    let secrets = Secrets::for_whom(&identity);
    // Taken first: what changes meanwhile is never answered under the tag of a later state.
    let number = api.object_number(&key);
    let report = api.object(&key, secrets)?;
    // How it stands changes without it.
    let tag = match number {
        Some(number) => EntityTag::declared(number, secrets),
        None => EntityTag::of_resource(&report.keys)?,
    };
    Ok(tag.answer_unkept(&headers, || Json(report)))
}

/// Declares a frontend, or another one in its place.
#[utoipa::path(
    put,
    path = "/v1/frontends/{frontend}",
    params(DeclareQuery),
    request_body = inline(Object),
    responses(
        (status = 200, body = ConfigChangeReport, headers(("ETag" = String))),
        (status = 201, body = ConfigChangeReport, description = "there was none"),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422, description = "it has no sense, or HAProxy refuses it: nothing is stored"),
        (status = 500),
    )
)]
pub(in crate::http) async fn put_frontend(
    state: Shared,
    asker: Asker,
    FrontendName(name): FrontendName,
    query: Parameters<DeclareQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let (key, spec, owner) =
        object_of(ObjectKind::Frontend, Some(&name), json::<Spec>(&body, FRONTEND)?)?;
    let request = ConfigRequest::Put { key, spec, owner };
    declare(state, asker, query, request).await
}

/// Changes some keys of a frontend: those that the body has, and `null` ends one (RFC 7396).
#[utoipa::path(
    patch,
    path = "/v1/frontends/{frontend}",
    params(DeclareQuery),
    request_body(
        content(
            (inline(Object) = "application/merge-patch+json"),
            (inline(Object) = "application/json"),
        ),
    ),
    responses(
        (status = 200, body = ConfigChangeReport, headers(("ETag" = String))),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 404),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422, description = "it has no sense, or HAProxy refuses it: nothing is stored"),
        (status = 500),
    )
)]
pub(in crate::http) async fn patch_frontend(
    state: Shared,
    asker: Asker,
    FrontendName(name): FrontendName,
    query: Parameters<DeclareQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let (key, patch, owner) =
        patch_of(ObjectKind::Frontend, Some(&name), json::<Spec>(&body, FRONTEND)?)?;
    declare(state, asker, query, ConfigRequest::Merge { key, patch, owner }).await
}

/// Changes some keys of a backend, likewise.
#[utoipa::path(
    patch,
    path = "/v1/backends/{backend}",
    params(DeclareQuery),
    request_body(
        content(
            (inline(Object) = "application/merge-patch+json"),
            (inline(Object) = "application/json"),
        ),
    ),
    responses(
        (status = 200, body = ConfigChangeReport, headers(("ETag" = String))),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 404),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422, description = "it has no sense, or HAProxy refuses it: nothing is stored"),
        (status = 500),
    )
)]
pub(in crate::http) async fn patch_backend(
    state: Shared,
    asker: Asker,
    BackendName(name): BackendName,
    query: Parameters<DeclareQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let (key, patch, owner) =
        patch_of(ObjectKind::Backend, Some(&name), json::<Spec>(&body, BACKEND)?)?;
    declare(state, asker, query, ConfigRequest::Merge { key, patch, owner }).await
}

/// Declares a backend, or another one in its place.
#[utoipa::path(
    put,
    path = "/v1/backends/{backend}",
    params(DeclareQuery),
    request_body = inline(Object),
    responses(
        (status = 200, body = ConfigChangeReport, headers(("ETag" = String))),
        (status = 201, body = ConfigChangeReport, description = "there was none"),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422, description = "it has no sense, or HAProxy refuses it: nothing is stored"),
        (status = 500),
    )
)]
pub(in crate::http) async fn put_backend(
    state: Shared,
    asker: Asker,
    BackendName(name): BackendName,
    query: Parameters<DeclareQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let (key, spec, owner) =
        object_of(ObjectKind::Backend, Some(&name), json::<Spec>(&body, BACKEND)?)?;
    let request = ConfigRequest::Put { key, spec, owner };
    declare(state, asker, query, request).await
}

/// The rules of a frontend, in their order.
#[utoipa::path(
    get,
    path = "/v1/frontends/{frontend}/rules",
    responses(
        (status = 200, body = RulesBody, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
    )
)]
pub(in crate::http) async fn rules(
    State(api): Shared,
    FrontendName(name): FrontendName,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let key = ObjectKey::new(ObjectKind::Frontend, name);
    let secrets = Secrets::for_whom(&identity);
    let number = api.object_number(&key);
    let mut report = api.object(&key, secrets)?;
    let rules = match report.keys.remove("rules") {
        Some(serde_json::Value::Array(rules)) => rules,
        Some(alone) => vec![alone],
        None => Vec::new(),
    };
    let body = RulesBody { rules };
    let tag = match number {
        Some(number) => EntityTag::declared(number, secrets),
        None => EntityTag::of_resource(&body)?,
    };
    Ok(tag.answer_unkept(&headers, || Json(body)))
}

/// Declares the rules of a frontend, all of them.
#[utoipa::path(
    put,
    path = "/v1/frontends/{frontend}/rules",
    params(DeclareQuery),
    request_body = RulesBody,
    responses(
        (status = 200, body = ConfigChangeReport, headers(("ETag" = String))),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 404),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422, description = "it has no sense, or HAProxy refuses it: nothing is stored"),
        (status = 500),
    )
)]
pub(in crate::http) async fn put_rules(
    state: Shared,
    asker: Asker,
    FrontendName(name): FrontendName,
    query: Parameters<DeclareQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let help = "{\"rules\": [..]}, with all rules in their order";
    let RulesBody { rules } = json(&body, help)?;
    let frontend = ObjectKey::new(ObjectKind::Frontend, name);
    let request = ConfigRequest::Rules { frontend, rules };
    declare(state, asker, query, request).await
}

async fn declare(
    State(api): Shared,
    Asker { ticket, by, condition, _stays }: Asker,
    Parameters(query): Parameters<DeclareQuery>,
    request: ConfigRequest,
) -> Result<Response, HttpError> {
    let DeclareQuery { wait, dry_run, force, .. } = query;
    let wait = requests::wait(wait.as_deref())?;
    let order = ConfigOrder { condition, dry_run, force, wait, by, ..ConfigOrder::default() };
    respond(api.change_config(request, order, ticket).await?)
}

/// Ends the declaration of a frontend.
#[utoipa::path(
    delete,
    path = "/v1/frontends/{frontend}",
    params(UndeclareQuery),
    responses(
        (status = 200, body = ConfigChangeReport, description = "a dry run"),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 204, description = "it is declared no more"),
        (status = 404),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422),
        (status = 500),
    )
)]
pub(in crate::http) async fn delete_frontend(
    state: Shared,
    asker: Asker,
    FrontendName(name): FrontendName,
    query: Parameters<UndeclareQuery>,
) -> Result<Response, HttpError> {
    let key = ObjectKey::new(ObjectKind::Frontend, name);
    undeclare(state, asker, query, key).await
}

/// Ends the declaration of a backend.
#[utoipa::path(
    delete,
    path = "/v1/backends/{backend}",
    params(UndeclareQuery),
    responses(
        (status = 200, body = ConfigChangeReport, description = "a dry run"),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 204, description = "it is declared no more"),
        (status = 404),
        (status = 409, description = "a frontend needs it, or it is the settings file's"),
        (status = 412),
        (status = 422),
        (status = 500),
    )
)]
pub(in crate::http) async fn delete_backend(
    state: Shared,
    asker: Asker,
    BackendName(name): BackendName,
    query: Parameters<UndeclareQuery>,
) -> Result<Response, HttpError> {
    let key = ObjectKey::new(ObjectKind::Backend, name);
    undeclare(state, asker, query, key).await
}

async fn undeclare(
    State(api): Shared,
    Asker { ticket, by, condition, _stays }: Asker,
    Parameters(query): Parameters<UndeclareQuery>,
    key: ObjectKey,
) -> Result<Response, HttpError> {
    let UndeclareQuery { wait, dry_run, force, missing, .. } = query;
    let wait = requests::wait(wait.as_deref())?;
    let is_there = api.object(&key, Secrets::Hidden).is_ok();
    if missing.is_some() && !is_there {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let order = ConfigOrder { condition, dry_run, force, wait, by, ..ConfigOrder::default() };
    let answer = api.change_config(ConfigRequest::Delete { key }, order, ticket).await?;
    match answer.report.outcome {
        // There is nothing left to show.
        Some(ReloadOutcome::Requested | ReloadOutcome::InSync) => {
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        _ => respond(answer),
    }
}

/// All that is declared through the API, and how it stands.
#[utoipa::path(
    get,
    path = "/v1/config",
    responses((status = 200, body = ConfigReport, headers(("ETag" = String))), (status = 304))
)]
pub(in crate::http) async fn config(
    State(api): Shared,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    _: Parameters<NoQuery>,
) -> Response {
    let secrets = Secrets::for_whom(&identity);
    let tag = EntityTag::declared(api.config_number(), secrets);
    tag.answer_unkept(&headers, || Json(api.config(secrets)))
}

/// Declares many frontends and backends at once, all or none.
#[utoipa::path(
    put,
    path = "/v1/config",
    params(ConfigQuery),
    request_body = ConfigBody,
    responses(
        (status = 200, body = ConfigChangeReport, headers(("ETag" = String))),
        (status = 202, body = ConfigChangeReport, description = "accepted: in force later"),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 412),
        (status = 422, description = "it has no sense, or HAProxy refuses it: nothing is stored"),
        (status = 428),
        (status = 500),
    )
)]
pub(in crate::http) async fn put_config(
    State(api): Shared,
    Asker { ticket, by, condition, _stays }: Asker,
    Extension(room): Extension<Room>,
    Parameters(query): Parameters<ConfigQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    if condition.is.is_none() {
        return Err(HttpError::NoConfigPrecondition);
    }
    let document = document_of(json(&body, DOCUMENT)?, by.as_deref())?;
    drop((body, room));
    let ConfigQuery { prune, dry_run, force, wait, .. } = query;
    let wait = requests::wait(wait.as_deref())?;
    let order = ConfigOrder { condition, dry_run, force, wait, by, ..ConfigOrder::default() };
    let request = ConfigRequest::Document { document, prune: prune.is_some() };
    respond(api.change_config(request, order, ticket).await?)
}

const DOCUMENT: &str = "{\"frontends\": [..], \"backends\": [..]}, each with name and the keys of \
    its section";

/// Says what `PUT /v1/config` would do, and stores nothing.
#[utoipa::path(
    post,
    path = "/v1/config/check",
    params(CheckQuery),
    request_body = ConfigBody,
    responses(
        (status = 200, body = ConfigChangeReport),
        (status = 409, description = "the settings file's, or HAProxy is somebody else's"),
        (status = 422, description = "it has no sense, or HAProxy refuses it"),
        (status = 500),
    )
)]
pub(in crate::http) async fn check_config(
    State(api): Shared,
    Extension(ticket): Ticket,
    Extension(room): Extension<Room>,
    Parameters(CheckQuery { prune, force }): Parameters<CheckQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    ticket.changes_nothing();
    let document = document_of(json(&body, DOCUMENT)?, by.as_deref())?;
    drop((body, room));
    let condition = NumberCondition::default();
    let order = ConfigOrder { condition, dry_run: true, force, by, ..ConfigOrder::default() };
    let request = ConfigRequest::Document { document, prune: prune.is_some() };
    respond(api.change_config(request, order, ticket).await?)
}

/// The text of HAProxy's configuration, without secrets.
#[utoipa::path(
    get,
    path = "/v1/haproxy/config",
    params(CandidateQuery),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = 409, description = "HAProxy's configuration is somebody else's"),
        (status = 503, description = "it is not known yet"),
    )
)]
pub(in crate::http) async fn haproxy_config(
    State(api): Shared,
    Parameters(query): Parameters<CandidateQuery>,
) -> Result<Response, HttpError> {
    let text = api.haproxy_config(query.candidate).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

/// What is stored and not in force yet is accepted; a dry run is plainly answered.
fn respond(ConfigAnswer { report, created }: ConfigAnswer) -> Result<Response, HttpError> {
    let status = match report.outcome {
        None => StatusCode::OK,
        Some(ReloadOutcome::Requested | ReloadOutcome::InSync) if created => StatusCode::CREATED,
        Some(ReloadOutcome::Requested | ReloadOutcome::InSync) => StatusCode::OK,
        Some(outcome) => status_of(outcome),
    };
    let tag = report.stored.then(|| format!("\"{}\"", report.etag));
    let mut response = (status, Json(report)).into_response();
    if let Some(tag) = tag.and_then(|tag| tag.parse().ok()) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}
