//! Backends, their servers, and what is ordered of one.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::Note;
use mapsmith_core::access::Identity;
use mapsmith_core::objects::{ObjectKey, ObjectKind};
use mapsmith_core::overrides::{ServerEdit, ServerOverride};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{HttpError, status_of};
use super::etag::{EntityTag, precondition};
use super::handlers::json;
use super::request::{
    Author, BackendName, NoQuery, Parameters, QueryParameters, Reason, ServerName,
};
use crate::api::declared::Secrets;
use crate::api::types::{BackendReport, BackendsReport, ServerChangeReport, ServerRequest};
use crate::api::{Api, ServerChange, requests};
use crate::store::AuditTicket;

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;

/// What a change of a server may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ServerQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// The last server that is ready may go, too.
    #[serde(default)]
    pub(super) force: bool,
    /// It is only said what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for ServerQuery {
    const KNOWN: &str = "the parameters are wait, force, dry_run and reason";
}

/// The declared backends.
#[utoipa::path(
    get,
    path = "/v1/backends",
    responses(
        (status = 200, body = BackendsReport),
    )
)]
pub(super) async fn backends(State(api): Shared, _: Parameters<NoQuery>) -> Json<BackendsReport> {
    Json(api.backends())
}

/// A backend's servers: as they are listed, as they are ordered, and as each instance has them.
#[utoipa::path(
    get,
    path = "/v1/backends/{backend}",
    responses(
        (status = 200, body = BackendReport, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
    )
)]
pub(super) async fn backend(
    State(api): Shared,
    headers: HeaderMap,
    BackendName(backend): BackendName,
    Extension(identity): Extension<Identity>,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    // Taken first: a declaration that changes meanwhile is never answered under the tag of a
    // later one.
    let number = api.object_number(&ObjectKey::new(ObjectKind::Backend, backend.clone()));
    let secrets = Secrets::for_whom(&identity);
    let report = api.backend(&backend, secrets).await?;
    let Some(number) = number else { return Ok(Json(report).into_response()) };
    // It is of what is declared. Servers come and go without it, so nobody on the way keeps them.
    Ok(EntityTag::declared(number, secrets).answer_unkept(&headers, || Json(report)))
}

/// What is ordered of a server.
#[utoipa::path(
    get,
    path = "/v1/backends/{backend}/servers/{server}",
    operation_id = "server_override",
    responses(
        (status = 200, body = ServerOverride, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
        (status = 409),
    )
)]
pub(super) async fn ordered(
    State(api): Shared,
    headers: HeaderMap,
    ServerName(place): ServerName,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let found = api.server_override(place).await?;
    Ok(EntityTag::of_resource(&found)?.answer(&headers, || Json(found)))
}

/// Orders a server's state or weight.
#[utoipa::path(
    put,
    path = "/v1/backends/{backend}/servers/{server}",
    operation_id = "set_server",
    params(
        ServerQuery,
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the client has"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is none"),
    ),
    request_body = ServerRequest,
    responses(
        (status = 200, body = ServerChangeReport, description = "every instance has it so"),
        (status = 202, body = ServerChangeReport, description = "accepted: in force later"),
        (status = 404),
        (
            status = 409,
            description = "it is the last one that is ready, or there is no store",
        ),
        (status = 412),
        (status = 500),
    )
)]
pub(super) async fn set(
    State(api): Shared,
    Extension(ticket): Ticket,
    headers: HeaderMap,
    ServerName(place): ServerName,
    Parameters(query): Parameters<ServerQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let help = "{\"state\": \"ready\", \"drain\" or \"maint\"}, {\"weight\": 10}, or both, with \
        \"for\": \"2h\" for an override that ends by itself; null takes away what is set";
    let mut request: ServerRequest = json(&body, help)?;
    request.reason = ticket.reason().or(request.reason);
    let (edit, note) = requests::server(request, by, Timestamp::now())?;
    answer(
        api.change_server(place, change(query, edit, note)?, ticket, precondition(&headers))
            .await?,
    )
}

/// Ends a server's override: it is as its list says again.
#[utoipa::path(
    delete,
    path = "/v1/backends/{backend}/servers/{server}",
    operation_id = "reset_server",
    params(
        ServerQuery,
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the client has"),
    ),
    responses(
        (status = 200, body = ServerChangeReport, description = "every instance has it so"),
        (status = 202, body = ServerChangeReport, description = "accepted: in force later"),
        (status = 404),
        (
            status = 409,
            description = "it is the last one that is ready, or there is no store",
        ),
        (status = 412),
        (status = 500),
    )
)]
pub(super) async fn reset(
    State(api): Shared,
    Extension(ticket): Ticket,
    headers: HeaderMap,
    ServerName(place): ServerName,
    Parameters(query): Parameters<ServerQuery>,
    Author(by): Author,
) -> Result<Response, HttpError> {
    let edit = ServerEdit { state: Some(None), weight: Some(None), until: Some(None) };
    let note = Note { reason: ticket.reason(), by };
    answer(
        api.change_server(place, change(query, edit, note)?, ticket, precondition(&headers))
            .await?,
    )
}

fn change(query: ServerQuery, edit: ServerEdit, note: Note) -> Result<ServerChange, HttpError> {
    let ServerQuery { wait, force, dry_run, .. } = query;
    Ok(ServerChange { edit, note, force, dry_run, wait: requests::wait(wait.as_deref())? })
}

fn answer(report: ServerChangeReport) -> Result<Response, HttpError> {
    let status = report.outcome.map_or(StatusCode::OK, status_of);
    Ok((status, Json(report)).into_response())
}
