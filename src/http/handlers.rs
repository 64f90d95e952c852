//! One function a route: take the request apart, ask [`Api`], answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::{DrainedMaster, HeldChange, OverrideChange, Pin, names};
use serde::Deserialize;

use super::LONGEST_WAIT;
use super::error::{HttpError, status_of};
use crate::api::Api;
use crate::api::types::{
    ApproveRequest, DrainRequest, ExplainReport, LearnedReport, OverridesReport, PinRequest,
    ReloadReport, StatusReport,
};

type Shared = State<Arc<Api>>;
type Wait = Result<Query<WaitQuery>, QueryRejection>;
type Name = Result<Path<String>, PathRejection>;

/// The longest time that a pin may be given: beyond it nobody remembers why.
const LONGEST_PIN: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitQuery {
    wait: Option<String>,
}

type Order = Result<Query<OrderQuery>, QueryRejection>;

/// What an order that names a master may be given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderQuery {
    wait: Option<String>,
    #[serde(default)]
    force: bool,
}

/// How long the answer may be waited for, and whether masters are taken that nobody knows.
fn order(query: Order) -> Result<(Option<Duration>, bool), HttpError> {
    let Query(query) = query.map_err(|error| {
        HttpError::BadRequest(format!("{}; the parameters are wait and force", error.body_text()))
    })?;
    Ok((wait_of(query.wait.as_deref())?, query.force))
}

pub(super) async fn status(State(api): Shared) -> Json<StatusReport> {
    Json(api.status())
}

pub(super) async fn reload(State(api): Shared, query: Wait) -> Result<Response, HttpError> {
    let wait = wait(query)?;
    answer(api.reload(wait).await)
}

/// How long the answer may be waited for, where the request says so.
fn wait(query: Wait) -> Result<Option<Duration>, HttpError> {
    let Query(query) = query.map_err(|error| {
        HttpError::BadRequest(format!("{}; the only parameter is wait", error.body_text()))
    })?;
    wait_of(query.wait.as_deref())
}

fn wait_of(text: Option<&str>) -> Result<Option<Duration>, HttpError> {
    match text.map(humantime::parse_duration) {
        None => Ok(None),
        Some(Ok(wait)) if !wait.is_zero() && wait <= LONGEST_WAIT => Ok(Some(wait)),
        Some(_) => {
            Err(HttpError::BadRequest("wait must be a duration up to 10m, like 30s".to_owned()))
        }
    }
}

fn answer(report: ReloadReport) -> Result<Response, HttpError> {
    let status = status_of(report.outcome);
    if status.is_success() {
        Ok((status, Json(report)).into_response())
    } else {
        Err(HttpError::Reload(Box::new(report)))
    }
}

pub(super) async fn explain(
    State(api): Shared,
    node: Name,
) -> Result<Json<ExplainReport>, HttpError> {
    Ok(Json(api.explain(&valid_node(node)?).await))
}

fn valid_node(node: Name) -> Result<String, HttpError> {
    let Path(node) = node.map_err(|error| HttpError::BadRequest(error.body_text()))?;
    names::check_key(&node)
        .map_err(|reason| HttpError::BadRequest(format!("{node:?} can be no node: {reason}")))?;
    Ok(node)
}

fn valid_master(master: String) -> Result<String, HttpError> {
    match names::check_value(&master) {
        Ok(()) => Ok(master),
        Err(reason) => Err(HttpError::BadRequest(format!("{master:?} can be no master: {reason}"))),
    }
}

pub(super) async fn learned(State(api): Shared) -> Json<Vec<LearnedReport>> {
    Json(api.learned())
}

pub(super) async fn held(State(api): Shared) -> Json<Vec<HeldChange>> {
    Json(api.held())
}

pub(super) async fn approve(
    State(api): Shared,
    body: Bytes,
) -> Result<Json<HeldChange>, HttpError> {
    let request: ApproveRequest = serde_json::from_slice(&body).map_err(|error| {
        HttpError::BadRequest(format!(
            "send {{\"id\": \"...\"}} with the id of the held change: {error}"
        ))
    })?;
    Ok(Json(api.approve(&request.id).await?))
}

pub(super) async fn overrides(State(api): Shared) -> Result<Json<OverridesReport>, HttpError> {
    let overrides = api.overrides()?;
    Ok(Json(OverridesReport {
        number: overrides.number(),
        pins: overrides.pins().cloned().collect(),
        drained: overrides.drained().cloned().collect(),
    }))
}

pub(super) async fn pin(State(api): Shared, node: Name) -> Result<Json<Pin>, HttpError> {
    Ok(Json(api.pin(&valid_node(node)?)?))
}

pub(super) async fn set_pin(
    State(api): Shared,
    node: Name,
    query: Order,
    body: Bytes,
) -> Result<Response, HttpError> {
    let (node, (wait, force)) = (valid_node(node)?, order(query)?);
    let request: PinRequest = serde_json::from_slice(&body).map_err(|error| {
        HttpError::BadRequest(format!(
            "send {{\"master\": \"...\"}}, with \"for\": \"2h\" for a \
            pin that ends by itself: {error}"
        ))
    })?;
    let master = valid_master(request.master)?;
    let since = Timestamp::now();
    let until = request.duration.as_deref().map(|duration| end(since, duration)).transpose()?;
    answer(
        api.change_override(OverrideChange::Pin(Pin { node, master, since, until }), force, wait)
            .await?,
    )
}

/// When a pin of this length ends.
fn end(since: Timestamp, duration: &str) -> Result<Timestamp, HttpError> {
    let length = humantime::parse_duration(duration)
        .ok()
        .filter(|length| !length.is_zero() && *length <= LONGEST_PIN);
    length
        .and_then(|length| SignedDuration::try_from(length).ok())
        .and_then(|length| since.checked_add(length).ok())
        .ok_or_else(|| {
            HttpError::BadRequest(format!(
                "{duration:?} is not a duration like 30m or 2h, a year at most"
            ))
        })
}

pub(super) async fn unpin(
    State(api): Shared,
    node: Name,
    query: Wait,
) -> Result<Response, HttpError> {
    let (node, wait) = (valid_node(node)?, wait(query)?);
    answer(api.change_override(OverrideChange::Unpin { node }, false, wait).await?)
}

pub(super) async fn drain(
    State(api): Shared,
    master: Name,
    query: Order,
    body: Bytes,
) -> Result<Response, HttpError> {
    let Path(master) = master.map_err(|error| HttpError::BadRequest(error.body_text()))?;
    let (master, (wait, force)) = (valid_master(master)?, order(query)?);
    let request = match body.is_empty() {
        true => DrainRequest::default(),
        false => serde_json::from_slice(&body).map_err(|error| {
            HttpError::BadRequest(format!(
                "send {{\"to\": \"...\"}} with the master that gets the nodes, or nothing to \
                    spread them: {error}"
            ))
        })?,
    };
    let to = request.to.map(valid_master).transpose()?;
    if to.as_ref() == Some(&master) {
        return Err(HttpError::BadRequest(format!(
            "{master} can't be drained to itself; name another master"
        )));
    }
    let drained = DrainedMaster { master, to, since: Timestamp::now() };
    answer(api.change_override(OverrideChange::Drain(drained), force, wait).await?)
}

pub(super) async fn undrain(
    State(api): Shared,
    master: Name,
    query: Wait,
) -> Result<Response, HttpError> {
    let Path(master) = master.map_err(|error| HttpError::BadRequest(error.body_text()))?;
    let (master, wait) = (valid_master(master)?, wait(query)?);
    answer(api.change_override(OverrideChange::Undrain { master }, false, wait).await?)
}

pub(super) async fn metrics(State(api): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics())
        .into_response()
}

pub(super) async fn healthz(State(api): Shared) -> (StatusCode, String) {
    match api.stands_still() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}

pub(super) async fn readyz(State(api): Shared) -> Response {
    let readiness = api.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

pub(super) async fn not_found(uri: Uri) -> HttpError {
    HttpError::NotFound(uri.path().to_owned())
}

pub(super) async fn method_not_allowed() -> HttpError {
    HttpError::MethodNotAllowed
}
