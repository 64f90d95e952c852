//! Rollouts: a revision that goes to a few instances first.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error::{HttpError, status_of};
use super::etag::{EntityTag, expected_number};
use super::request::{Author, DryRunQuery, Id, NoQuery, Parameters};
use super::rollback::optional;
use crate::api::types::{
    RolloutChangeReport, RolloutReport, RolloutRequest, RolloutsReport, VerdictRequest,
};
use crate::api::{Api, requests};
use crate::store::AuditTicket;

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;

/// The rollout of this moment and the last few, the newest first.
#[utoipa::path(get, path = "/v1/rollouts", responses((status = 200, body = RolloutsReport)))]
pub(super) async fn rollouts(State(api): Shared, _: Parameters<NoQuery>) -> Json<RolloutsReport> {
    Json(api.rollouts())
}

/// A rollout; its `ETag` promotes or aborts it.
#[utoipa::path(
    get,
    path = "/v1/rollouts/{id}",
    responses(
        (status = 200, body = RolloutReport, headers(("ETag" = String))),
        (status = 304),
        (status = 404),
    )
)]
pub(super) async fn rollout(
    State(api): Shared,
    Id(id): Id,
    _: Parameters<NoQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let report = api.rollout(&id)?;
    Ok(EntityTag::numbered(report.rollout.version).answer(&headers, || Json(report)))
}

/// Has a rollout go everywhere. One that is stuck on its way there ends.
#[utoipa::path(
    post,
    path = "/v1/rollouts/{id}/promote",
    operation_id = "promote_rollout",
    params(DryRunQuery,
        ("If-Match" = String, Header, description = "the `ETag` of the rollout")),
    request_body = Option<RolloutRequest>,
    responses(
        (status = 200, body = RolloutChangeReport),
        (status = 202, body = RolloutChangeReport, description = "accepted: in sync later"),
        (status = 404),
        (status = 409, description = "it is over"),
        (status = 412),
        (status = 428),
        (status = 500),
    )
)]
pub(super) async fn promote(
    api: Shared,
    ticket: Ticket,
    id: Id,
    query: Parameters<DryRunQuery>,
    author: Author,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    decide(api, ticket, (id, true), query, author, (headers, body)).await
}

/// Brings what was before a rollout back everywhere.
#[utoipa::path(
    post,
    path = "/v1/rollouts/{id}/abort",
    operation_id = "abort_rollout",
    params(DryRunQuery,
        ("If-Match" = String, Header, description = "the `ETag` of the rollout")),
    request_body = Option<RolloutRequest>,
    responses(
        (status = 200, body = RolloutChangeReport),
        (status = 202, body = RolloutChangeReport, description = "accepted: in sync later"),
        (status = 404),
        (status = 409, description = "it is over"),
        (status = 412),
        (status = 428),
        (status = 500),
    )
)]
pub(super) async fn abort(
    api: Shared,
    ticket: Ticket,
    id: Id,
    query: Parameters<DryRunQuery>,
    author: Author,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    decide(api, ticket, (id, false), query, author, (headers, body)).await
}

async fn decide(
    State(api): Shared,
    Extension(ticket): Ticket,
    (Id(id), promote): (Id, bool),
    Parameters(query): Parameters<DryRunQuery>,
    Author(by): Author,
    (headers, body): (HeaderMap, Bytes),
) -> Result<Response, HttpError> {
    let version = expected_number(&headers)?.ok_or(HttpError::NoPrecondition)?;
    let wait = requests::wait(query.wait.as_deref())?;
    let RolloutRequest { reason } = optional(&body, "{\"reason\": \"...\"}, or nothing")?;
    let reason = ticket.reason().or(reason);
    let note = requests::verdict(VerdictRequest { reason }, by)?;
    let ticket = (!query.dry_run).then_some(ticket);
    let report = api.decide_rollout((id, version), promote, note, wait, ticket).await?;
    let status = report.report.as_ref().map_or(StatusCode::OK, |it| status_of(it.outcome));
    match report.report {
        Some(report) if !status.is_success() => Err(HttpError::Reload(Box::new(report))),
        _ => Ok((status, Json(report)).into_response()),
    }
}
