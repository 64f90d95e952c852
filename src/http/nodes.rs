//! The nodes of the map, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use mapsmith_core::Search;

use super::error::HttpError;
use super::etag::EntityTag;
use super::request::{NodesQuery, Parameters};
use crate::api::types::NodesReport;
use crate::api::{Api, requests};

/// Nodes of the map in force, by name, page by page.
#[utoipa::path(
    get,
    path = "/v1/nodes",
    params(NodesQuery),
    responses((status = 200, body = NodesReport, headers(("ETag" = String))), (status = 304))
)]
pub(super) async fn nodes(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    Parameters(query): Parameters<NodesQuery>,
) -> Result<Response, HttpError> {
    let page = requests::page(query.limit, query.after.as_deref())?;
    let NodesQuery { prefix, contains, master, .. } = query;
    let report = api.nodes(Search { prefix, contains, master }, &page);
    let tag = EntityTag::numbered(report.revision.unwrap_or_default());
    Ok(tag.answer(&headers, || Json(report)))
}
