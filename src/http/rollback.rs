//! Rollback, the hold that it leaves, and what becomes of held changes.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::access::{Identity, Role};

use super::error::{HttpError, status_of};
use super::etag::expected_number;
use super::handlers::json;
use super::overrides::{ChangeAnswer, told};
use super::request::{Author, DryRunQuery, Id, NoQuery, Number, Parameters, VerdictQuery};
use crate::api::types::{
    ApproveHeldRequest, ApproveReport, HoldsReport, RejectReport, ReloadOutcome, ReloadReport,
    RollbackReport, RollbackRequest, UnrejectReport, VerdictRequest,
};
use crate::api::{Api, canary, requests};
use crate::store::AuditTicket;

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;

/// A body that may be left out.
pub(super) fn optional<T: Default + serde::de::DeserializeOwned>(
    body: &Bytes,
    help: &str,
) -> Result<T, HttpError> {
    if body.is_empty() { Ok(T::default()) } else { json(body, help) }
}

/// Goes back to what the sources had said at a revision, and holds them back.
#[utoipa::path(
    post,
    path = "/v1/revisions/{number}/rollback",
    params(DryRunQuery,
        (
            "If-Match" = String,
            Header,
            description = "the `ETag` of `GET /v1/map`: the map that was looked at",
        )),
    request_body = Option<RollbackRequest>,
    responses(
        (status = 200, body = RollbackReport),
        (status = 202, body = RollbackReport, description = "accepted: in sync later"),
        (status = 404),
        (status = 409),
        (status = 410),
        (status = 412),
        (status = 428),
        (status = 500),
    )
)]
pub(super) async fn roll_back(
    State(api): Shared,
    Extension(ticket): Ticket,
    (Author(by), Extension(identity)): (Author, Extension<Identity>),
    Number(number): Number,
    Parameters(query): Parameters<DryRunQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    let expected = expected_number(&headers)?.ok_or(HttpError::NoPrecondition)?;
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"reason\": \"...\", \"for\": \"1h\"}, or nothing for an hour";
    let mut request: RollbackRequest = optional(&body, help)?;
    request.reason = ticket.reason().or(request.reason);
    if request.duration == Some(None) && identity.role < Role::Admin {
        return Err(HttpError::Role { needed: Role::Admin, identity });
    }
    let terms = request.canary.take().map(canary::terms).transpose()?;
    let rollback = requests::rollback(number, request, by, Timestamp::now())?;
    let ticket = (!query.dry_run).then_some(ticket);
    let report = api.roll_back((rollback, terms), expected, wait, ticket).await?;
    let status = report.report.as_ref().map_or(StatusCode::OK, |it| status_of(it.outcome));
    match report.report {
        Some(report) if !status.is_success() => Err(HttpError::Reload(Box::new(report))),
        _ => Ok((status, Json(report)).into_response()),
    }
}

/// What holds the sources back, and what was rejected.
#[utoipa::path(
    get,
    path = "/v1/hold",
    responses(
        (status = 200, body = HoldsReport),
    )
)]
pub(super) async fn hold(State(api): Shared, _: Parameters<NoQuery>) -> Json<HoldsReport> {
    Json(api.hold())
}

/// Follows the sources again.
#[utoipa::path(
    delete,
    path = "/v1/hold",
    params(DryRunQuery,
        (
            "If-Match" = Option<String>,
            Header,
            description = "the `ETag` of `GET /v1/map`: the map that was looked at",
        )),
    responses(
        (status = 200, body = inline(ChangeAnswer)),
        (
            status = 202,
            body = ReloadReport,
            description = "accepted: in sync later, or what they say is held by the guard",
        ),
        (status = 404),
        (status = 409),
        (status = 412),
        (status = 500),
    )
)]
pub(super) async fn resume(
    State(api): Shared,
    Extension(ticket): Ticket,
    Parameters(query): Parameters<DryRunQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let expected = expected_number(&headers)?;
    let wait = requests::wait(query.wait.as_deref())?;
    if query.dry_run {
        return told(api.try_resume(expected).await?);
    }
    let report = api.resume(expected, wait, ticket).await?;
    // It is done, whatever the guard says of the answer that counts again.
    let status = match report.outcome {
        ReloadOutcome::Held => StatusCode::ACCEPTED,
        outcome => status_of(outcome),
    };
    match status.is_success() {
        true => Ok((status, Json(report)).into_response()),
        false => Err(HttpError::Reload(Box::new(report))),
    }
}

/// Lets exactly this held change through.
#[utoipa::path(
    post,
    path = "/v1/held/{id}/approve",
    operation_id = "approve_held",
    params(VerdictQuery),
    request_body = Option<ApproveHeldRequest>,
    responses(
        (status = 200, body = ApproveReport),
        (status = 202, body = ApproveReport, description = "a canary has begun"),
        (status = 409, description = "it is not what is held"),
        (status = 500),
    )
)]
pub(super) async fn approve(
    State(api): Shared,
    Extension(ticket): Ticket,
    Id(id): Id,
    Parameters(query): Parameters<VerdictQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let help = "{\"reason\": \"...\", \"canary\": {...}}, or nothing";
    let ApproveHeldRequest { reason, canary: asked } = optional(&body, help)?;
    let reason = ticket.reason().or(reason);
    let note = requests::verdict(VerdictRequest { reason }, by)?;
    let terms = asked.map(canary::terms).transpose()?;
    if query.dry_run {
        let held = api.try_approval(&id, terms).await?;
        return Ok(Json(ApproveReport { held, rollout: None, dry_run: true }).into_response());
    }
    let report = api.approve(&id, note, terms, ticket).await?;
    let status = report.rollout.as_ref().map_or(StatusCode::OK, |_| StatusCode::ACCEPTED);
    Ok((status, Json(report)).into_response())
}

/// Rejects a held change of the map: it is not shown again while the sources say the same.
#[utoipa::path(
    post,
    path = "/v1/held/{id}/reject",
    operation_id = "reject_held",
    params(VerdictQuery),
    request_body = Option<VerdictRequest>,
    responses(
        (status = 200, body = RejectReport),
        (status = 409, description = "it is not what is held, or there is no store"),
        (status = 500),
    )
)]
pub(super) async fn reject(
    State(api): Shared,
    Extension(ticket): Ticket,
    Id(id): Id,
    Parameters(query): Parameters<VerdictQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Json<RejectReport>, HttpError> {
    let mut request: VerdictRequest = optional(&body, "{\"reason\": \"...\"}, or nothing")?;
    request.reason = ticket.reason().or(request.reason);
    let note = requests::verdict(request, by)?;
    if query.dry_run {
        return Ok(Json(api.try_rejection(&id).await?));
    }
    Ok(Json(api.reject(id, note, ticket).await?))
}

/// Takes a rejection back: what the sources say is judged again, and held where it was.
#[utoipa::path(
    delete,
    path = "/v1/held/{id}/reject",
    operation_id = "unreject_held",
    params(VerdictQuery),
    responses(
        (status = 200, body = UnrejectReport),
        (status = 404, description = "it is not what is rejected"),
        (status = 409, description = "a rollback holds the sources back, or a canary is on its way"),
        (status = 500),
    )
)]
pub(super) async fn unreject(
    State(api): Shared,
    Extension(ticket): Ticket,
    Id(id): Id,
    Parameters(query): Parameters<VerdictQuery>,
) -> Result<Json<UnrejectReport>, HttpError> {
    Ok(Json(api.unreject(id, query.dry_run, ticket).await?))
}
