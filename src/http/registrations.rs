//! Nodes are registered and unregistered.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mapsmith_core::RegistrationChange;
use mapsmith_core::access::{Grant, Identity, Role};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::body::Room;
use super::error::{HttpError, status_of};
use super::handlers::json;
use super::request::{Author, Node, Parameters, QueryParameters, Reason};
use crate::api::registrations::{RegistrationAnswer, RegistrationOrder};
use crate::api::types::{
    RegisterNode, RegisterRequest, RegistrationReport, ReloadOutcome, UnregisterNode,
};
use crate::api::{self, Api, requests};
use crate::store::AuditTicket;

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;
type Who = Extension<Identity>;

/// What the registration of nodes may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RegisterQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// It is only told what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Masters are taken that nobody knows.
    #[serde(default)]
    pub(super) force: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for RegisterQuery {
    const KNOWN: &str = "the parameters are wait, dry_run, force and reason";
}

/// What the end of a registration may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UnregisterQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// It is only told what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// That the node is not registered is no failure.
    pub(super) missing: Option<Missing>,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

/// What becomes of an order about something that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Missing {
    Ok,
}

impl QueryParameters for UnregisterQuery {
    const KNOWN: &str = "the parameters are wait, dry_run, missing (ok) and reason";
}

/// The masters whose nodes somebody may register; none where they may register any.
fn granted(identity: &Identity) -> Option<Vec<String>> {
    let master = |grant: &Grant| match grant {
        Grant::Node(master) => Some(master.clone()),
        Grant::Register(_) | Grant::Commands(_) => None,
    };
    (identity.role < Role::Operator).then(|| identity.grants.iter().filter_map(master).collect())
}

/// Registers a node with its master.
#[utoipa::path(
    put,
    path = "/v1/nodes/{node}",
    params(RegisterQuery),
    request_body = RegisterRequest,
    responses(
        (status = 200, body = RegistrationReport),
        (status = 201, body = RegistrationReport, description = "it was not registered before"),
        (status = 202, body = RegistrationReport, description = "accepted: in force later"),
        (
            status = 409,
            description = "the guard holds it, the master is unknown, or nothing is registered here",
        ),
        (status = 500),
    )
)]
pub(super) async fn register(
    State(api): Shared,
    Extension(identity): Who,
    Extension(ticket): Ticket,
    Node(node): Node,
    Parameters(query): Parameters<RegisterQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"master\": \"...\"}, with \"for\": \"2h\" for a registration that ends by itself";
    let mut request: RegisterRequest = json(&body, help)?;
    request.reason = ticket.reason().or(request.reason);
    let registration = api.asker(by, &ticket).registration(node, request)?;
    let masters = granted(&identity);
    if masters.as_ref().is_some_and(|masters| !masters.contains(&registration.master)) {
        let error = format!(
            "{:?} may register nodes of {} alone, and no node of {}",
            identity.name,
            masters.unwrap_or_default().join(", "),
            registration.master
        );
        return Err(api::Error::NotGranted(error).into());
    }
    ticket.explain(registration.note.reason.clone());
    // A master that a grant names is known to whoever gave it.
    let force = query.force || masters.is_some();
    let order = RegistrationOrder { wait, dry_run: query.dry_run, force };
    let change = RegistrationChange::Register(vec![registration]);
    let created = |report: &RegistrationReport| match report.counts.registered {
        0 => StatusCode::OK,
        _ => StatusCode::CREATED,
    };
    let answer = api.change_registrations(change, order, ticket).await?;
    respond(answer, created, Some)
}

/// Registers many nodes at once.
#[utoipa::path(
    post,
    path = "/v1/nodes",
    params(RegisterQuery),
    request_body(
        content((Vec<RegisterNode> = "application/json"), (String = "application/x-ndjson"))
    ),
    responses(
        (status = 200, body = RegistrationReport),
        (status = 202, body = RegistrationReport, description = "accepted: in force later"),
        (
            status = 409,
            description = "the guard holds it, the master is unknown, or nothing is registered here",
        ),
        (status = 500),
    )
)]
pub(super) async fn register_many(
    State(api): Shared,
    Extension(ticket): Ticket,
    Extension(room): Extension<Room>,
    Parameters(query): Parameters<RegisterQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let nodes = api.asker(by, &ticket).registrations(&body)?;
    // What is large was the body; it may be waited for long.
    drop((body, room));
    let RegisterQuery { dry_run, force, .. } = query;
    let order = RegistrationOrder { wait, dry_run, force };
    let change = RegistrationChange::Register(nodes);
    respond(api.change_registrations(change, order, ticket).await?, |_| StatusCode::OK, Some)
}

/// Ends a node's registration.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{node}",
    params(UnregisterQuery),
    responses(
        (status = 200, body = RegistrationReport, description = "a dry run"),
        (status = 202, body = RegistrationReport, description = "accepted: in force later"),
        (status = 204, description = "it is registered no more"),
        (status = 404),
        (status = 409),
        (status = 500),
    )
)]
pub(super) async fn unregister(
    State(api): Shared,
    Extension(identity): Who,
    Extension(ticket): Ticket,
    Node(node): Node,
    Parameters(query): Parameters<UnregisterQuery>,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let node = api.as_in_map(&node);
    let UnregisterQuery { dry_run, missing, .. } = query;
    let (nodes, only_of, missing_ok) = (vec![node], granted(&identity), missing.is_some());
    let change = RegistrationChange::Unregister { nodes, only_of, missing_ok };
    let order = RegistrationOrder { wait, dry_run, force: false };
    let answer = api.change_registrations(change, order, ticket).await?;
    // There is nothing left to show.
    respond(answer, |_| StatusCode::NO_CONTENT, |report| (!report.stored).then_some(report))
}

/// Ends the registrations of many nodes at once.
#[utoipa::path(
    delete,
    path = "/v1/nodes",
    params(UnregisterQuery),
    request_body(
        content((Vec<UnregisterNode> = "application/json"), (String = "application/x-ndjson"))
    ),
    responses(
        (status = 200, body = RegistrationReport),
        (status = 202, body = RegistrationReport, description = "accepted: in force later"),
        (status = 404, description = "one of them is not registered"),
        (status = 409, description = "the guard holds it, or nothing is registered here"),
        (status = 500),
    )
)]
pub(super) async fn unregister_many(
    State(api): Shared,
    Extension(ticket): Ticket,
    Extension(room): Extension<Room>,
    Parameters(query): Parameters<UnregisterQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let nodes = api.asker(by, &ticket).ended(&body)?;
    // What is large was the body; it may be waited for long.
    drop((body, room));
    let UnregisterQuery { dry_run, missing, .. } = query;
    let order = RegistrationOrder { wait, dry_run, force: false };
    let missing_ok = missing.is_some();
    let change = RegistrationChange::Unregister { nodes, only_of: None, missing_ok };
    respond(api.change_registrations(change, order, ticket).await?, |_| StatusCode::OK, Some)
}

/// What is stored and not in force yet is accepted; a dry run is plainly answered.
fn respond(
    answer: RegistrationAnswer,
    done: impl FnOnce(&RegistrationReport) -> StatusCode,
    shown: impl FnOnce(RegistrationReport) -> Option<RegistrationReport>,
) -> Result<Response, HttpError> {
    let report = match answer {
        RegistrationAnswer::Done(report) => *report,
        RegistrationAnswer::KeptBack(report) => return Err(HttpError::Reload(report)),
    };
    let status = match report.outcome {
        None => StatusCode::OK,
        Some(ReloadOutcome::Requested | ReloadOutcome::InSync) => done(&report),
        Some(outcome) => status_of(outcome),
    };
    let report = if status == StatusCode::ACCEPTED { Some(report) } else { shown(report) };
    Ok(match report {
        Some(report) => (status, Json(report)).into_response(),
        None => status.into_response(),
    })
}
