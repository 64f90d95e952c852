//! Pins, blocked nodes and drains.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::{DrainedMaster, Note, OverrideChange};
use utoipa::ToSchema;

use super::error::HttpError;
use super::etag::{EntityTag, precondition};
use super::handlers::{answer, json};
use super::request::{
    Author, Master, NoQuery, Node, OverrideEndQuery, OverrideQuery, Parameters, UndrainQuery,
};
use crate::api::types::{
    DrainRequest, DryRunReport, NodeOverride, OverrideKind, OverrideRequest, OverridesReport,
    ReloadReport,
};
use crate::api::{Api, requests};
use crate::store::AuditTicket;

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;

/// What a change is answered with that can be tried, for the OpenAPI document.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum ChangeAnswer {
    Done(ReloadReport),
    DryRun(DryRunReport),
}

/// The answer of what was only tried.
pub(super) fn told(report: DryRunReport) -> Result<Response, HttpError> {
    Ok(Json(report).into_response())
}

/// The overrides in force.
#[utoipa::path(
    get,
    path = "/v1/overrides",
    responses(
        (status = 200, body = OverridesReport, headers(("ETag" = String))),
        (status = 304),
        (status = 409),
    )
)]
pub(super) async fn overrides(
    State(api): Shared,
    headers: HeaderMap,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let overrides = api.overrides()?;
    let report = || OverridesReport {
        number: overrides.number(),
        pins: overrides.pins().cloned().collect(),
        blocked: overrides.blocked().cloned().collect(),
        drained: overrides.drained().cloned().collect(),
        servers: overrides.servers().cloned().collect(),
    };
    Ok(EntityTag::of_resource(&report())?.answer(&headers, || Json(report())))
}

/// A node's override.
#[utoipa::path(
    get,
    path = "/v1/overrides/{node}",
    responses(
        (status = 200, body = NodeOverride, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
        (status = 409),
    )
)]
pub(super) async fn node_override(
    State(api): Shared,
    headers: HeaderMap,
    Node(node): Node,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let found = api.node_override(&node)?;
    Ok(EntityTag::of_resource(&found)?.answer(&headers, || Json(found)))
}

/// Pins a node, or keeps it out of the map.
#[utoipa::path(
    put,
    path = "/v1/overrides/{node}",
    params(
        OverrideQuery,
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the client has"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is none"),
    ),
    request_body = OverrideRequest,
    responses(
        (
            status = 200,
            body = inline(ChangeAnswer),
            description = "every instance is in sync; or what would be",
        ),
        (status = 202, body = ReloadReport, description = "accepted: in sync later"),
        (status = 404, description = "there is no node map"),
        (status = 409, description = "the master is unknown, or there is no store"),
        (status = 412),
        (status = 500),
    )
)]
pub(super) async fn set_override(
    State(api): Shared,
    Extension(ticket): Ticket,
    headers: HeaderMap,
    Node(node): Node,
    Parameters(query): Parameters<OverrideQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"master\": \"...\"}, or {\"absent\": true} for no entry in the map, with \
        \"for\": \"2h\" for an override that ends by itself";
    let mut request: OverrideRequest = json(&body, help)?;
    request.reason = ticket.reason().or(request.reason);
    let change = requests::node_override(node, request, by, Timestamp::now())?;
    let condition = precondition(&headers);
    if query.dry_run {
        return told(api.try_override(change, query.force, &condition).await?);
    }
    answer(api.change_override(change, query.force, wait, ticket, condition).await?)
}

/// Ends a node's override.
#[utoipa::path(
    delete,
    path = "/v1/overrides/{node}",
    params(
        OverrideEndQuery,
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the client has"),
    ),
    responses(
        (
            status = 200,
            body = inline(ChangeAnswer),
            description = "every instance is in sync; or what would be",
        ),
        (status = 202, body = ReloadReport, description = "accepted: in sync later"),
        (status = 409, description = "there is no store"),
        (status = 412),
        (status = 500),
        (status = 404),
    )
)]
pub(super) async fn end_override(
    State(api): Shared,
    Extension(ticket): Ticket,
    headers: HeaderMap,
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
    let condition = precondition(&headers);
    if query.dry_run {
        return told(api.try_override(change, false, &condition).await?);
    }
    answer(api.change_override(change, false, wait, ticket, condition).await?)
}

/// The drain of a master.
#[utoipa::path(
    get,
    path = "/v1/masters/{master}/drain",
    operation_id = "drain_of_master",
    responses(
        (status = 200, body = DrainedMaster, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
        (status = 409),
    )
)]
pub(super) async fn drain_of(
    State(api): Shared,
    headers: HeaderMap,
    Master(master): Master,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    let found = api.drain_of(&master)?;
    Ok(EntityTag::of_resource(&found)?.answer(&headers, || Json(found)))
}

/// Drains a master: its nodes go to another one, or are spread.
#[utoipa::path(
    post,
    path = "/v1/masters/{master}/drain",
    params(
        OverrideQuery,
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the client has"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is none"),
    ),
    request_body = Option<DrainRequest>,
    responses(
        (
            status = 200,
            body = inline(ChangeAnswer),
            description = "every instance is in sync; or what would be",
        ),
        (status = 202, body = ReloadReport, description = "accepted: in sync later"),
        (status = 404, description = "there is no node map"),
        (
            status = 409,
            description = "a master is unknown, the drain would move nothing, or there is no store",
        ),
        (status = 412),
        (status = 500),
    )
)]
pub(super) async fn drain(
    State(api): Shared,
    Extension(ticket): Ticket,
    headers: HeaderMap,
    Master(master): Master,
    Parameters(query): Parameters<OverrideQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"to\": \"...\"} with the master that gets the nodes, or nothing to spread them";
    let mut request = if body.is_empty() { DrainRequest::default() } else { json(&body, help)? };
    request.reason = ticket.reason().or(request.reason);
    let change = requests::drain(master, request, by, Timestamp::now())?;
    let condition = precondition(&headers);
    if query.dry_run {
        return told(api.try_override(change, query.force, &condition).await?);
    }
    answer(api.change_override(change, query.force, wait, ticket, condition).await?)
}

/// Ends a drain.
#[utoipa::path(
    delete,
    path = "/v1/masters/{master}/drain",
    params(
        UndrainQuery,
        ("If-Match" = Option<String>, Header, description = "the `ETag` that the client has"),
    ),
    responses(
        (
            status = 200,
            body = inline(ChangeAnswer),
            description = "every instance is in sync; or what would be",
        ),
        (status = 202, body = ReloadReport, description = "accepted: in sync later"),
        (status = 409, description = "there is no store"),
        (status = 412),
        (status = 500),
        (status = 404),
    )
)]
pub(super) async fn undrain(
    State(api): Shared,
    Extension(ticket): Ticket,
    headers: HeaderMap,
    Master(master): Master,
    Parameters(query): Parameters<UndrainQuery>,
    Author(by): Author,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let (now, note) = (Timestamp::now(), Note { reason: ticket.reason(), by });
    let change = OverrideChange::Undrain { master, stay: query.stay, now, note };
    let condition = precondition(&headers);
    if query.dry_run {
        return told(api.try_override(change, false, &condition).await?);
    }
    answer(api.change_override(change, false, wait, ticket, condition).await?)
}
