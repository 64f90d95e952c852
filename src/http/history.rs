//! Revisions, and what lies between two of them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::answers::REVISION;
use super::error::HttpError;
use super::map::text;
use super::request::{DiffQuery, NoQuery, Number, PageQuery, Parameters};
use crate::api::types::{DiffReport, RevisionReport, RevisionsReport};
use crate::api::{Api, requests};

type Shared = State<Arc<Api>>;

/// The revisions that are kept, the newest first, page by page.
#[utoipa::path(
    get,
    path = "/v1/revisions",
    params(PageQuery),
    responses((status = 200, body = RevisionsReport), (status = 409))
)]
pub(super) async fn revisions(
    State(api): Shared,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<RevisionsReport>, HttpError> {
    let page = requests::page(query.limit, query.after.as_deref())?;
    Ok(Json(api.revisions(&page).await?))
}

/// A revision.
#[utoipa::path(
    get,
    path = "/v1/revisions/{number}",
    responses(
        (status = 200, body = RevisionReport),
        (status = 404),
        (status = 409),
        (status = 410),
    )
)]
pub(super) async fn revision(
    State(api): Shared,
    Number(number): Number,
    _: Parameters<NoQuery>,
) -> Result<Json<RevisionReport>, HttpError> {
    Ok(Json(api.revision_report(number).await?))
}

/// What a revision changed, or what lies between two.
#[utoipa::path(
    get,
    path = "/v1/revisions/{number}/diff",
    params(DiffQuery),
    responses((status = 200, body = DiffReport), (status = 404), (status = 409), (status = 410))
)]
pub(super) async fn diff(
    State(api): Shared,
    Number(number): Number,
    Parameters(query): Parameters<DiffQuery>,
) -> Result<Json<DiffReport>, HttpError> {
    let page = requests::page(query.limit, query.after.as_deref())?;
    Ok(Json(api.diff(query.from, number, &page).await?))
}

/// A revision's map, as HAProxy reads it.
#[utoipa::path(
    get,
    path = "/v1/revisions/{number}/map",
    operation_id = "revision_map",
    responses(
        (status = 200, body = String, content_type = "text/plain; charset=utf-8"),
        (status = 404),
        (status = 409),
        (status = 410),
    )
)]
pub(super) async fn map(
    State(api): Shared,
    Number(number): Number,
    _: Parameters<NoQuery>,
) -> Result<Response, HttpError> {
    Ok(text(api.map_of(number).await?))
}

/// What has changed since a revision, a line of JSON for each node.
pub(super) async fn since(api: &Api, known: u64) -> Result<Response, HttpError> {
    let (number, lines) = api.changes_since(known).await?;
    let lines = stream::iter(lines.map(Ok::<_, Infallible>));
    let headers =
        [(header::CONTENT_TYPE, "application/x-ndjson".to_owned()), (REVISION, number.to_string())];
    Ok((headers, Body::from_stream(lines)).into_response())
}
