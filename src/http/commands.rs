//! Commands of the settings: which there are, and one is run on a node.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use mapsmith_core::access::Identity;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::HttpError;
use super::handlers::json;
use super::request::{NoQuery, Node, Parameters, QueryParameters, Reason};
use crate::api::types::{CommandsReport, RunCommandReport, RunCommandRequest};
use crate::api::{Api, requests};
use crate::store::AuditTicket;

/// What a command may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunQuery {
    /// It is only told what would be sent.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for RunQuery {
    const KNOWN: &str = "the parameters are dry_run and reason";
}

/// The commands that the settings name.
#[utoipa::path(get, path = "/v1/commands", responses((status = 200, body = CommandsReport)))]
pub(super) async fn commands(
    State(api): State<Arc<Api>>,
    Extension(identity): Extension<Identity>,
    _: Parameters<NoQuery>,
) -> Json<CommandsReport> {
    Json(api.commands(&identity))
}

/// Runs a command on a node, at most once. What came of it is the `outcome`: a 200 says that the
/// command was begun, so that nobody on the way repeats it.
#[utoipa::path(
    post,
    path = "/v1/nodes/{node}/commands",
    params(RunQuery),
    request_body = RunCommandRequest,
    responses(
        (status = 200, body = RunCommandReport),
        (status = 404, description = "no such command, or the node is not in the map"),
        (status = 409, description = "commands are off"),
        (status = 500, description = "it can't be noted, so it was not begun"),
    )
)]
pub(super) async fn run(
    State(api): State<Arc<Api>>,
    Extension(identity): Extension<Identity>,
    Extension(ticket): Extension<Arc<AuditTicket>>,
    Node(node): Node,
    Parameters(query): Parameters<RunQuery>,
    body: Bytes,
) -> Result<Json<RunCommandReport>, HttpError> {
    let help = "{\"command\": \"NAME\"}, with \"params\": {\"name\": \"value\"} where it takes any";
    let request: RunCommandRequest = json(&body, help)?;
    ticket.explain(requests::reason(request.reason.clone())?);
    Ok(Json(api.run_command(&node, request, identity, ticket, query.dry_run).await?))
}
