//! One function a route: take the request apart, ask [`Control`], answer.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::dto::{ApproveRequest, ExplainReport, ReloadOutcome, StatusReport};
use super::error::ApiError;
use super::{Control, LONGEST_WAIT};
use crate::model::{HeldChange, name};

type Shared = State<Arc<dyn Control>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadQuery {
    wait: Option<String>,
}

pub(super) async fn status(State(control): Shared) -> Json<StatusReport> {
    Json(control.status())
}

pub(super) async fn reload(
    State(control): Shared,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) =
        query.map_err(|error| ApiError::BadRequest(format!("{}; the only parameter is wait", error.body_text())))?;
    let wait = match query.wait.as_deref().map(humantime::parse_duration) {
        None => None,
        Some(Ok(wait)) if !wait.is_zero() && wait <= LONGEST_WAIT => Some(wait),
        Some(_) => return Err(ApiError::BadRequest("wait must be a duration up to 10m, like 30s".to_owned())),
    };
    let report = control.reload(wait).await;
    match report.outcome {
        ReloadOutcome::InStep => Ok(Json(report).into_response()),
        ReloadOutcome::Requested => Ok((StatusCode::ACCEPTED, Json(report)).into_response()),
        ReloadOutcome::Held | ReloadOutcome::SourceFailed | ReloadOutcome::Behind => Err(ApiError::Reload(Box::new(report))),
    }
}

pub(super) async fn explain(
    State(control): Shared,
    node: Result<Path<String>, PathRejection>,
) -> Result<Json<ExplainReport>, ApiError> {
    let Path(node) = node.map_err(|error| ApiError::BadRequest(error.body_text()))?;
    name::check_key(&node).map_err(|reason| ApiError::BadRequest(format!("{node:?} can be no node: {reason}")))?;
    Ok(Json(control.explain(&node).await))
}

pub(super) async fn held(State(control): Shared) -> Json<Option<HeldChange>> {
    Json(control.held())
}

pub(super) async fn approve(State(control): Shared, body: Result<Bytes, BytesRejection>) -> Result<Json<HeldChange>, ApiError> {
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::TooLarge,
        _ => ApiError::BadRequest(error.body_text()),
    })?;
    let request: ApproveRequest = serde_json::from_slice(&body)
        .map_err(|error| ApiError::BadRequest(format!("send {{\"id\": \"...\"}} with the id of the held change: {error}")))?;
    control.approve(&request.id).await.map(Json).map_err(ApiError::NotApproved)
}

pub(super) async fn metrics(State(control): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], control.metrics()).into_response()
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(control): Shared) -> Response {
    let readiness = control.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

pub(super) async fn not_found(uri: Uri) -> ApiError {
    ApiError::NotFound(uri.path().to_owned())
}

pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
