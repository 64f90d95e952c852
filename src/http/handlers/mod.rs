//! One function a route: take the request apart, ask [`Api`], answer.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::certificate::CertificateStatus;
use mapsmith_core::{HeldChange, Note, OverrideChange};
use serde::de::DeserializeOwned;

use super::body::LARGEST;
use super::error::{HttpError, status_of};
use super::request::{
    Author, ChangeQuery, Id, Master, NoQuery, Node, OrderQuery, OverrideEndQuery, Parameters,
    ReasonQuery, UndrainQuery,
};
use crate::api::types::{
    ApproveRequest, DrainRequest, ExplainReport, LearnedReport, MasterReport, NodeOverride,
    OverrideKind, OverrideRequest, OverridesReport, OwnRequest, ReloadReport, StatusReport,
};
use crate::api::{Api, requests};
use crate::store::AuditTicket;

pub(in crate::http) mod access;

type Shared = State<Arc<Api>>;
/// What the audit has of the request.
type Ticket = Extension<Arc<AuditTicket>>;

/// A body as JSON; `help` says what to send.
pub(super) fn json<T: DeserializeOwned>(body: &Bytes, help: &str) -> Result<T, HttpError> {
    serde_json::from_slice(body)
        .map_err(|error| HttpError::BadRequest(format!("send {help}: {error}")))
}

pub(in crate::http) async fn status(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<StatusReport> {
    Json(api.status())
}

pub(in crate::http) async fn reload(
    State(api): Shared,
    Parameters(query): Parameters<ChangeQuery>,
) -> Result<Response, HttpError> {
    answer(api.reload(requests::wait(query.wait.as_deref())?).await)
}

fn answer(report: ReloadReport) -> Result<Response, HttpError> {
    let status = status_of(report.outcome);
    if status.is_success() {
        Ok((status, Json(report)).into_response())
    } else {
        Err(HttpError::Reload(Box::new(report)))
    }
}

pub(in crate::http) async fn explain(
    State(api): Shared,
    Node(node): Node,
    _: Parameters<NoQuery>,
) -> Json<ExplainReport> {
    Json(api.explain(&node).await)
}

pub(in crate::http) async fn learned(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<Vec<LearnedReport>> {
    Json(api.learned())
}

pub(in crate::http) async fn held(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<Vec<HeldChange>> {
    Json(api.held())
}

pub(in crate::http) async fn approve(
    State(api): Shared,
    _: Parameters<ReasonQuery>,
    body: Bytes,
) -> Result<Json<HeldChange>, HttpError> {
    let help = "{\"id\": \"...\"} with the id of the held change";
    let request: ApproveRequest = json(&body, help)?;
    Ok(Json(api.approve(&request.id).await?))
}

pub(in crate::http) async fn overrides(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Result<Json<OverridesReport>, HttpError> {
    let overrides = api.overrides()?;
    Ok(Json(OverridesReport {
        number: overrides.number(),
        pins: overrides.pins().cloned().collect(),
        blocked: overrides.blocked().cloned().collect(),
        drained: overrides.drained().cloned().collect(),
    }))
}

pub(in crate::http) async fn node_override(
    State(api): Shared,
    Node(node): Node,
    _: Parameters<NoQuery>,
) -> Result<Json<NodeOverride>, HttpError> {
    Ok(Json(api.node_override(&node)?))
}

pub(in crate::http) async fn set_override(
    State(api): Shared,
    Extension(ticket): Ticket,
    Node(node): Node,
    Parameters(query): Parameters<OrderQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"master\": \"...\"}, or {\"absent\": true} for no entry in the map, with \
        \"for\": \"2h\" for an override that ends by itself";
    let mut request: OverrideRequest = json(&body, help)?;
    request.reason = ticket.reason().or(request.reason);
    let change = requests::node_override(node, request, by, Timestamp::now())?;
    answer(api.change_override(change, query.force, wait, ticket).await?)
}

pub(in crate::http) async fn end_override(
    State(api): Shared,
    Extension(ticket): Ticket,
    Node(node): Node,
    Parameters(query): Parameters<OverrideEndQuery>,
    Author(by): Author,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let kind = match query.kind {
        Some(kind) => kind,
        None => api.override_kind(&node)?,
    };
    let (now, note) = (Timestamp::now(), Note { reason: ticket.reason(), by });
    let change = match kind {
        OverrideKind::Pin => OverrideChange::Unpin { node, now, note },
        OverrideKind::Absent => OverrideChange::Unblock { node, now, note },
    };
    answer(api.change_override(change, false, wait, ticket).await?)
}

pub(in crate::http) async fn master(
    State(api): Shared,
    Master(master): Master,
    _: Parameters<NoQuery>,
) -> Result<Json<MasterReport>, HttpError> {
    Ok(Json(api.master(&master).await?))
}

pub(in crate::http) async fn drain(
    State(api): Shared,
    Extension(ticket): Ticket,
    Master(master): Master,
    Parameters(query): Parameters<OrderQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"to\": \"...\"} with the master that gets the nodes, or nothing to spread them";
    let mut request = if body.is_empty() { DrainRequest::default() } else { json(&body, help)? };
    request.reason = ticket.reason().or(request.reason);
    let change = requests::drain(master, request, by, Timestamp::now())?;
    answer(api.change_override(change, query.force, wait, ticket).await?)
}

pub(in crate::http) async fn undrain(
    State(api): Shared,
    Extension(ticket): Ticket,
    Master(master): Master,
    Parameters(query): Parameters<UndrainQuery>,
    Author(by): Author,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let (now, note) = (Timestamp::now(), Note { reason: ticket.reason(), by });
    let change = OverrideChange::Undrain { master, stay: query.stay, now, note };
    answer(api.change_override(change, false, wait, ticket).await?)
}

pub(in crate::http) async fn own(
    State(api): Shared,
    Node(node): Node,
    Parameters(query): Parameters<OrderQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let OwnRequest { master } = json(&body, "{\"master\": \"...\"} with the node's owner")?;
    answer(api.own(&node, requests::master(master)?, query.force, wait).await?)
}

pub(in crate::http) async fn certificates(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<Vec<CertificateStatus>> {
    Json(api.certificates())
}

pub(in crate::http) async fn renew(
    State(api): Shared,
    Id(name): Id,
    _: Parameters<ReasonQuery>,
) -> Result<Response, HttpError> {
    Ok((StatusCode::ACCEPTED, Json(api.renew(&name).await?)).into_response())
}

pub(in crate::http) async fn metrics(State(api): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics())
        .into_response()
}

pub(in crate::http) async fn healthz(State(api): Shared) -> (StatusCode, String) {
    match api.stands_still() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}

pub(in crate::http) async fn readyz(State(api): Shared) -> Response {
    let readiness = api.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

pub(in crate::http) async fn not_found(uri: Uri) -> HttpError {
    HttpError::NotFound(uri.path().to_owned())
}

pub(in crate::http) async fn method_not_allowed() -> HttpError {
    HttpError::MethodNotAllowed
}
