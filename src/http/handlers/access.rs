//! Tokens, sessions, the audit, and who asks.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use mapsmith_core::access::Identity;

use super::{Shared, json};
use crate::api::access::NoLogin;
use crate::api::requests;
use crate::api::types::{
    About, AuditPage, CreateTokenRequest, LoginRequest, NewTokenReport, TokenReport, TokensReport,
};
use crate::http::access::{Peer, cookie_header, session_cookie};
use crate::http::error::HttpError;
use crate::http::request::{AuditQuery, Id, NoQuery, Parameters, ReasonQuery};
use crate::store::AuditTicket;

type Who = Extension<Identity>;
type Ticket = Extension<Arc<AuditTicket>>;

/// Who asks, and what limits there are.
#[utoipa::path(
    get,
    path = "/v1/about",
    responses((status = 200, body = About))
)]
pub(in crate::http) async fn about(
    State(api): Shared,
    Extension(identity): Who,
    _: Parameters<NoQuery>,
) -> Json<About> {
    Json(api.about(identity))
}

/// The tokens, without their secrets.
#[utoipa::path(
    get,
    path = "/v1/tokens",
    responses((status = 200, body = TokensReport), (status = 409))
)]
pub(in crate::http) async fn tokens(
    State(api): Shared,
    _: Parameters<NoQuery>,
) -> Result<Json<TokensReport>, HttpError> {
    Ok(Json(TokensReport { items: api.tokens()? }))
}

/// Makes a token. Its text is in this answer alone.
#[utoipa::path(
    post,
    path = "/v1/tokens",
    params(ReasonQuery),
    request_body = CreateTokenRequest,
    responses(
        (
            status = 201,
            body = NewTokenReport,
            headers(("Location" = String, description = "the token's path")),
        ),
        (status = 409),
        (status = 500),
    )
)]
pub(in crate::http) async fn create_token(
    State(api): Shared,
    Extension(identity): Who,
    Extension(ticket): Ticket,
    _: Parameters<ReasonQuery>,
    body: Bytes,
) -> Result<Response, HttpError> {
    let help = "{\"name\": \"ci\", \"role\": \"operator\"}, with \"grants\": [\"node:m1\"] and \
        \"for\": \"90d\" where you want";
    let request: CreateTokenRequest = json(&body, help)?;
    let new = requests::token(request, identity.name, Timestamp::now())?;
    let made: NewTokenReport = api.create_token(new, ticket).await?;
    let path = format!("/v1/tokens/{}", made.about.id);
    let place = api.access.place_of(&path);
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], Json(made)).into_response())
}

/// Revokes a token.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{id}",
    params(ReasonQuery),
    responses((status = 200, body = TokenReport), (status = 404), (status = 409), (status = 500))
)]
pub(in crate::http) async fn revoke_token(
    State(api): Shared,
    Extension(ticket): Ticket,
    Id(id): Id,
    _: Parameters<ReasonQuery>,
) -> Result<Json<TokenReport>, HttpError> {
    Ok(Json(api.revoke_token(&id, ticket).await?))
}

/// Gives a token another secret; the one before is good for an hour.
#[utoipa::path(
    post,
    path = "/v1/tokens/{id}/rotate",
    params(ReasonQuery),
    responses(
        (status = 200, body = NewTokenReport),
        (status = 404),
        (status = 409),
        (status = 500),
    )
)]
pub(in crate::http) async fn rotate_token(
    State(api): Shared,
    Extension(ticket): Ticket,
    Id(id): Id,
    _: Parameters<ReasonQuery>,
) -> Result<Json<NewTokenReport>, HttpError> {
    Ok(Json(api.rotate_token(&id, ticket).await?))
}

/// Who changed what, the newest first; an admin sees all.
#[utoipa::path(
    get,
    path = "/v1/audit",
    params(AuditQuery),
    responses((status = 200, body = AuditPage), (status = 409), (status = 500))
)]
pub(in crate::http) async fn audit(
    State(api): Shared,
    Extension(identity): Who,
    Parameters(query): Parameters<AuditQuery>,
) -> Result<Json<AuditPage>, HttpError> {
    Ok(Json(api.audit(&identity, query.filter()?).await?))
}

/// Logs a browser in.
#[utoipa::path(
    post,
    path = "/v1/session",
    params(ReasonQuery),
    request_body = LoginRequest,
    responses(
        (status = 204, description = "with a session's cookie"),
        (status = 401),
        (status = 403),
        (status = 429),
        (status = 500),
    )
)]
pub(in crate::http) async fn log_in(
    State(api): Shared,
    _: Parameters<ReasonQuery>,
    request: Request,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let (peer, whole) = (Peer::of(&parts), axum::body::to_bytes(body, super::LARGEST).await);
    let body = whole.map_err(|error| HttpError::BadRequest(error.to_string()))?;
    let LoginRequest { token } = json(&body, "{\"token\": \"ms_...\"}")?;
    let (identity, cookie) = match api.access.log_in(token.trim()) {
        Ok(begun) => begun,
        Err(NoLogin::Wrong) => {
            api.access.failed(peer.address.ip()).map_err(HttpError::TooManyFailed)?;
            return Err(HttpError::Unauthorized { tried: true });
        }
        Err(NoLogin::TooMany(wait)) => return Err(HttpError::TooMany(wait)),
        Err(error @ NoLogin::NoRandom(_)) => {
            return Err(HttpError::Api(crate::api::Error::Store(error.to_string())));
        }
    };
    let cookie = cookie_header(peer.over_tls, Some(&cookie));
    let mut response = (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response();
    // For the audit.
    response.extensions_mut().insert(identity);
    Ok(response)
}

/// Logs a browser out.
#[utoipa::path(
    delete,
    path = "/v1/session",
    params(ReasonQuery),
    responses((status = 204))
)]
pub(in crate::http) async fn log_out(
    State(api): Shared,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    _: Parameters<ReasonQuery>,
) -> Response {
    let over_tls = peer.is_some_and(|Extension(peer)| peer.over_tls);
    if let Some(cookie) = session_cookie(&headers, over_tls) {
        api.access.log_out(cookie);
    }
    let ended = cookie_header(over_tls, None);
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, ended)]).into_response()
}
