//! Members are registered by name and version, and backends are switched to another version.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::access::{Identity, Role};
use mapsmith_core::members::{InvalidMember, Member, MemberKey, check_name};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{HttpError, status_of};
use super::handlers::json;
use super::registrations::{Missing, UnregisterQuery};
use super::request::{Author, BackendName, NoQuery, Parameters, QueryParameters, Reason};
use crate::api::members::{self, MemberOrder, MemberSearch};
use crate::api::types::{
    MemberChangeReport, MemberEffect, MembersReport, RegisterMemberRequest, ReloadOutcome,
    SwitchReport, SwitchRequest, VersionsReport,
};
use crate::api::{self, Api, requests};
use crate::store::AuditTicket;

type Shared = State<Arc<Api>>;
type Ticket = Extension<Arc<AuditTicket>>;
type Who = Extension<Identity>;

/// Which members are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MembersQuery {
    /// Those that were silent for too long, and no others.
    #[serde(default)]
    expired: bool,
    /// The most rows: 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2,3})?$")]
    after: Option<String>,
}

impl QueryParameters for MembersQuery {
    const KNOWN: &str = "the parameters are expired, limit and after";
}

/// What a change may be given that can be tried.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MemberQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    wait: Option<String>,
    /// It is only told what would be.
    #[serde(default)]
    dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for MemberQuery {
    const KNOWN: &str = "the parameters are wait, dry_run and reason";
}

fn invalid(error: InvalidMember) -> HttpError {
    HttpError::BadRequest(error.to_string())
}

/// A member, whether there is one or not.
pub(super) struct MemberPath(MemberKey);

impl<S: Send + Sync> FromRequestParts<S> for MemberPath {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        type Names = Path<(String, String, String, String)>;
        let Path((name, version, host, port)) = Names::from_request_parts(parts, state)
            .await
            .map_err(|error| HttpError::BadRequest(error.body_text()))?;
        MemberKey::new(&name, &version, &host, &port).map(Self).map_err(invalid)
    }
}

/// Members, by name, version and address, page by page.
#[utoipa::path(
    get,
    path = "/v1/registrations",
    params(MembersQuery),
    responses((status = 200, body = MembersReport), (status = 409))
)]
pub(super) async fn all(
    State(api): Shared,
    Parameters(query): Parameters<MembersQuery>,
) -> Result<Json<MembersReport>, HttpError> {
    page(&api, MemberSearch::default(), &query)
}

/// Members of a name.
#[utoipa::path(
    get,
    path = "/v1/registrations/{name}",
    operation_id = "members_of_name",
    params(MembersQuery),
    responses((status = 200, body = MembersReport), (status = 409))
)]
pub(super) async fn of_name(
    State(api): Shared,
    Path(name): Path<String>,
    Parameters(query): Parameters<MembersQuery>,
) -> Result<Json<MembersReport>, HttpError> {
    check_name("name", &name).map_err(invalid)?;
    page(&api, MemberSearch { name: Some(name), ..MemberSearch::default() }, &query)
}

/// Members of a version of a name.
#[utoipa::path(
    get,
    path = "/v1/registrations/{name}/{version}",
    operation_id = "members_of_version",
    params(MembersQuery),
    responses((status = 200, body = MembersReport), (status = 409))
)]
pub(super) async fn of_version(
    State(api): Shared,
    Path((name, version)): Path<(String, String)>,
    Parameters(query): Parameters<MembersQuery>,
) -> Result<Json<MembersReport>, HttpError> {
    check_name("name", &name).map_err(invalid)?;
    check_name("version", &version).map_err(invalid)?;
    let search = MemberSearch { name: Some(name), version: Some(version), expired: false };
    page(&api, search, &query)
}

fn page(
    api: &Api,
    search: MemberSearch,
    query: &MembersQuery,
) -> Result<Json<MembersReport>, HttpError> {
    let page = requests::page(query.limit, query.after.as_deref())?;
    let search = MemberSearch { expired: query.expired, ..search };
    Ok(Json(api.members(&search, &page)?))
}

/// Whether somebody may register this member, and end that; and whether it is by a grant alone.
fn may(identity: &Identity, key: &MemberKey) -> Result<bool, HttpError> {
    let path = key.to_string();
    let granted = identity.grants.iter().any(|grant| grant.covers_registration(&path));
    let is_operator = identity.role >= Role::Operator;
    if is_operator || granted {
        return Ok(!is_operator);
    }
    let name = &identity.name;
    let text = format!("{name:?} may register members that its grants name, and not {path}");
    Err(api::Error::NotGranted(text).into())
}

/// Registers a member, or says that it is still there.
#[utoipa::path(
    put,
    path = "/v1/registrations/{name}/{version}/{host}/{port}",
    operation_id = "register_member",
    params(MemberQuery),
    request_body = RegisterMemberRequest,
    responses(
        (status = 200, body = MemberChangeReport),
        (status = 201, body = MemberChangeReport, description = "it was not registered before"),
        (status = 202, body = MemberChangeReport, description = "accepted: in force later"),
        (status = 409, description = "there are too many, or there is no store"),
        (status = 500),
    )
)]
pub(super) async fn register(
    State(api): Shared,
    Extension(identity): Who,
    Extension(ticket): Ticket,
    MemberPath(key): MemberPath,
    Parameters(query): Parameters<MemberQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let by_grant = may(&identity, &key)?;
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"meta\": {}, \"ttl\": \"10s\"}";
    let request: RegisterMemberRequest = json(&body, help)?;
    let ttl = members::ttl(request.ttl.as_deref())?;
    ticket.explain(members::reason(request.reason)?);
    let member = Member { key, meta: request.meta, ttl, since: Timestamp::now(), by };
    member.check().map_err(invalid)?;
    let order = MemberOrder { wait, dry_run: query.dry_run, by_grant, ..MemberOrder::default() };
    let report = api.register_member(member, order, ticket).await?;
    let status = match (report.outcome, report.effect) {
        (Some(ReloadOutcome::Behind), _) => StatusCode::ACCEPTED,
        (Some(_), MemberEffect::Registered) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(report)).into_response())
}

/// Ends a member's registration.
#[utoipa::path(
    delete,
    path = "/v1/registrations/{name}/{version}/{host}/{port}",
    operation_id = "unregister_member",
    params(UnregisterQuery),
    responses(
        (status = 200, body = MemberChangeReport, description = "a dry run"),
        (status = 202, body = MemberChangeReport, description = "accepted: in force later"),
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
    MemberPath(key): MemberPath,
    Parameters(query): Parameters<UnregisterQuery>,
) -> Result<Response, HttpError> {
    may(&identity, &key)?;
    let wait = requests::wait(query.wait.as_deref())?;
    let UnregisterQuery { dry_run, missing, .. } = query;
    let missing_ok = missing == Some(Missing::Ok);
    let order = MemberOrder { wait, dry_run, missing_ok, ..MemberOrder::default() };
    let report = api.unregister_member(key, order, ticket).await?;
    Ok(match report.outcome {
        None => (StatusCode::OK, Json(report)).into_response(),
        Some(ReloadOutcome::Behind) => (StatusCode::ACCEPTED, Json(report)).into_response(),
        // There is nothing left to show.
        Some(_) => StatusCode::NO_CONTENT.into_response(),
    })
}

/// The versions of a backend's members.
#[utoipa::path(
    get,
    path = "/v1/backends/{backend}/versions",
    responses((status = 200, body = VersionsReport), (status = 404), (status = 409))
)]
pub(super) async fn versions(
    State(api): Shared,
    BackendName(backend): BackendName,
    _: Parameters<NoQuery>,
) -> Result<Json<VersionsReport>, HttpError> {
    Ok(Json(api.backend_versions(&backend).await?))
}

/// Gives a backend another version of its members, whose servers are ready before the old ones
/// leave.
#[utoipa::path(
    post,
    path = "/v1/backends/{backend}/switch",
    operation_id = "switch_backend",
    params(MemberQuery),
    request_body = SwitchRequest,
    responses(
        (status = 200, body = SwitchReport, description = "every instance has it so"),
        (status = 202, body = SwitchReport, description = "accepted: in force later"),
        (status = 404),
        (
            status = 409,
            description = "too few members are registered, or its servers come from elsewhere",
        ),
        (status = 500),
    )
)]
pub(super) async fn switch(
    State(api): Shared,
    Extension(ticket): Ticket,
    BackendName(backend): BackendName,
    Parameters(query): Parameters<MemberQuery>,
    Author(by): Author,
    body: Bytes,
) -> Result<Response, HttpError> {
    let wait = requests::wait(query.wait.as_deref())?;
    let help = "{\"version\": \"1.1.0\"}, with \"min_ready\": 2 where not all must be ready";
    let request: SwitchRequest = json(&body, help)?;
    check_name("version", &request.version).map_err(invalid)?;
    let min_ready = members::min_ready(request.min_ready)?;
    let reason = members::reason(request.reason)?;
    let request = SwitchRequest { min_ready, reason, ..request };
    let how = (wait, query.dry_run);
    let report = api.switch_backend(&backend, request, by, how, ticket).await?;
    let status = report.outcome.map_or(StatusCode::OK, status_of);
    Ok((status, Json(report)).into_response())
}
