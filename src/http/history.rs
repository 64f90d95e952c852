//! Revisions, and what lies between two of them.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::error::HttpError;
use super::map::text;
use super::request::{DiffQuery, NoQuery, Number, PageQuery, Parameters};
use crate::api::types::{DiffReport, RevisionReport, RevisionsReport};
use crate::api::{Api, requests};

type Shared = State<Arc<Api>>;

/// Says which map an answer leads to.
const REVISION: HeaderName = HeaderName::from_static("mapsmith-revision");

pub(super) async fn revisions(
    State(api): Shared,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<RevisionsReport>, HttpError> {
    let page = requests::page(query.limit, query.after.as_deref())?;
    Ok(Json(api.revisions(&page).await?))
}

pub(super) async fn revision(
    State(api): Shared,
    Number(number): Number,
    _: Parameters<NoQuery>,
) -> Result<Json<RevisionReport>, HttpError> {
    Ok(Json(api.revision_report(number).await?))
}

pub(super) async fn diff(
    State(api): Shared,
    Number(number): Number,
    Parameters(query): Parameters<DiffQuery>,
) -> Result<Json<DiffReport>, HttpError> {
    let page = requests::page(query.limit, query.after.as_deref())?;
    Ok(Json(api.diff(query.from, number, &page).await?))
}

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
