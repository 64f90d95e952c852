//! One function a route: take the request apart, ask [`Api`], answer.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use mapsmith_core::certificate::CertificateStatus;
use mapsmith_core::{HeldChange, Note};
use serde::de::DeserializeOwned;

use super::body::LARGEST;
use super::error::{HttpError, status_of};
use super::request::{
    Author, ChangeQuery, Id, Master, NoQuery, Node, OrderQuery, Parameters, ReasonQuery,
    VerdictQuery,
};
use crate::api::types::{
    ApproveReport, ApproveRequest, AttentionReport, ExplainReport, LearnedReport, MasterReport,
    OwnRequest, Readiness, ReloadReport, StatusReport,
};
use crate::api::{Api, requests};
use crate::store::AuditTicket;

pub(in crate::http) mod access;

type Shared = State<Arc<Api>>;
/// What the audit has of the request.
type Ticket = Extension<Arc<AuditTicket>>;

/// A body as JSON; `help` says what to send.
pub(in crate::http) fn json<T: DeserializeOwned>(body: &Bytes, help: &str) -> Result<T, HttpError> {
    // What is written for structures takes lists too, by the order of the fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(HttpError::BadRequest(format!("send {help}: a JSON object")));
    }
    serde_json::from_slice(body)
        .map_err(|error| HttpError::BadRequest(format!("send {help}: {error}")))
}

/// Everything at once.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = 200, body = StatusReport))
)]
pub(in crate::http) async fn status(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<StatusReport> {
    Json(api.status())
}

/// What needs a person, worst first.
#[utoipa::path(get, path = "/v1/attention", responses((status = 200, body = AttentionReport)))]
pub(in crate::http) async fn attention(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<AttentionReport> {
    Json(api.attention())
}

/// Asks every source for everything now.
#[utoipa::path(
    post,
    path = "/v1/reload",
    params(ChangeQuery),
    responses(
        (status = 200, body = ReloadReport, description = "every instance is in sync"),
        (status = 202, body = ReloadReport, description = "accepted: in sync later"),
        (
            status = 409,
            description = "the guard holds the change, or another Mapsmith writes the map file",
        ),
        (status = 500),
        (
            status = 502,
            description = "a source gave no good answer; the last good one stays in force",
        ),
    )
)]
pub(in crate::http) async fn reload(
    State(api): Shared,
    Extension(ticket): Ticket,
    Parameters(query): Parameters<ChangeQuery>,
) -> Result<Response, HttpError> {
    answer(api.reload(requests::wait(query.wait.as_deref())?, &ticket).await)
}

pub(in crate::http) fn answer(report: ReloadReport) -> Result<Response, HttpError> {
    let status = status_of(report.outcome);
    if status.is_success() {
        Ok((status, Json(report)).into_response())
    } else {
        Err(HttpError::Reload(Box::new(report)))
    }
}

/// Why a node goes where it goes, and what each instance has of it right now.
#[utoipa::path(
    get,
    path = "/v1/nodes/{node}",
    responses((status = 200, body = ExplainReport))
)]
pub(in crate::http) async fn explain(
    State(api): Shared,
    Node(node): Node,
    _: Parameters<NoQuery>,
) -> Json<ExplainReport> {
    Json(api.explain(&node).await)
}

/// What each instance learned and the map does not have.
#[utoipa::path(
    get,
    path = "/v1/learned",
    responses((status = 200, body = [LearnedReport]))
)]
pub(in crate::http) async fn learned(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<Vec<LearnedReport>> {
    Json(api.learned())
}

/// What the guard holds, the map's change first.
#[utoipa::path(
    get,
    path = "/v1/held",
    responses((status = 200, body = [HeldChange]))
)]
pub(in crate::http) async fn held(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<Vec<HeldChange>> {
    Json(api.held())
}

/// Lets exactly that change through.
#[utoipa::path(
    post,
    path = "/v1/held/approve",
    params(VerdictQuery),
    request_body = ApproveRequest,
    responses(
        (status = 200, body = ApproveReport),
        (status = 409, description = "it is not what is held"),
    )
)]
pub(in crate::http) async fn approve(
    State(api): Shared,
    Extension(ticket): Ticket,
    Parameters(query): Parameters<VerdictQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Json<ApproveReport>, HttpError> {
    let help = "{\"id\": \"...\"} with the id of the held change";
    let request: ApproveRequest = json(&body, help)?;
    let note = Note { reason: ticket.reason(), by };
    if query.dry_run {
        let held = api.try_approval(&request.id, None).await?;
        return Ok(Json(ApproveReport { held, rollout: None, dry_run: true }));
    }
    Ok(Json(api.approve(&request.id, note, None, ticket).await?))
}

/// What goes to a master, and whether it can be stopped.
#[utoipa::path(
    get,
    path = "/v1/masters/{master}",
    responses((status = 200, body = MasterReport), (status = 404), (status = 503))
)]
pub(in crate::http) async fn master(
    State(api): Shared,
    Master(master): Master,
    _: Parameters<NoQuery>,
) -> Result<Json<MasterReport>, HttpError> {
    Ok(Json(api.master(&master).await?))
}

/// Says whose a node is.
#[utoipa::path(
    put,
    path = "/v1/nodes/{node}/owner",
    params(OrderQuery),
    request_body = OwnRequest,
    responses(
        (status = 200, body = ReloadReport, description = "every instance is in sync"),
        (status = 202, body = ReloadReport, description = "accepted: in sync later"),
        (
            status = 409,
            description = "the master or the node is unknown, or owners are not remembered",
        ),
        (status = 500),
    )
)]
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

/// The certificates whose content Mapsmith keeps.
#[utoipa::path(
    get,
    path = "/v1/certificates",
    responses((status = 200, body = [CertificateStatus]))
)]
pub(in crate::http) async fn certificates(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Json<Vec<CertificateStatus>> {
    Json(api.certificates())
}

/// Has a certificate renewed now.
#[utoipa::path(
    post,
    path = "/v1/certificates/{name}/renew",
    params(ReasonQuery),
    responses(
        (status = 202, body = CertificateStatus),
        (status = 404),
        (status = 409),
        (status = 503),
    )
)]
pub(in crate::http) async fn renew(
    State(api): Shared,
    Id(name): Id,
    _: Parameters<ReasonQuery>,
) -> Result<Response, HttpError> {
    Ok((StatusCode::ACCEPTED, Json(api.renew(&name).await?)).into_response())
}

/// The metrics of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain; version=0.0.4; charset=utf-8"),
    )
)]
pub(in crate::http) async fn metrics(State(api): Shared) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics())
        .into_response()
}

/// Whether the process lives and decides.
#[utoipa::path(
    get,
    path = "/healthz",
    responses(
        (status = 200, body = String),
        (status = 503, body = String, description = "it does not: why"),
    )
)]
pub(in crate::http) async fn healthz(State(api): Shared) -> (StatusCode, String) {
    match api.stands_still() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}

/// Whether a map is in force, in at least one instance and in the map file.
#[utoipa::path(
    get,
    path = "/readyz",
    responses(
        (status = 200, body = Readiness),
        (status = 503, body = Readiness, description = "it is not ready"),
    )
)]
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
