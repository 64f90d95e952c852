//! The map as a whole: in figures, as text, and as soon as it is another one.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use mapsmith_core::EntryMap;
use mapsmith_core::access::Identity;
use tokio::time::sleep;

use super::access::{Peer, identify};
use super::error::HttpError;
use super::etag::EntityTag;
use super::events::MAY_FOLLOW;
use super::history;
use super::request::{MapQuery, Parameters};
use crate::api::map::MapText;
use crate::api::types::MapReport;
use crate::api::{Api, requests};

/// The map in force: in figures, as text, as soon as it is another one, or what has changed.
#[utoipa::path(
    get,
    path = "/v1/map",
    params(MapQuery),
    responses(
        (
            status = 200,
            headers(("ETag" = String)),
            content(
                (MapReport = "application/json"),
                (String = "text/plain; charset=utf-8"),
                (String = "application/x-ndjson")
            )
        ),
        (status = 304, description = "it is the map that the client has"),
        (status = 404),
        (status = 410),
        (status = 503),
    )
)]
pub(super) async fn map(
    State(api): State<Arc<Api>>,
    parts: Parts,
    Extension(identity): Extension<Identity>,
    Parameters(query): Parameters<MapQuery>,
) -> Result<Response, HttpError> {
    if let Some(known) = query.since {
        if query.revision.is_some() || query.wait.is_some() {
            return Err(HttpError::BadRequest("since goes alone".to_owned()));
        }
        return history::since(&api, known).await;
    }
    let wait = requests::wait(query.wait.as_deref())?;
    let revision = match query.revision {
        None if wait.is_some() => {
            let help = "wait goes with revision, the number of the map that you have";
            return Err(HttpError::BadRequest(help.to_owned()));
        }
        None => api.map_in_force()?,
        Some(known) => {
            let who = (&identity, parts.version < Version::HTTP_2);
            let other = tokio::select! {
                biased;
                refusal = loses_access(&api, &parts) => return Err(refusal),
                other = api.map_other_than(known, wait, who) => other?,
            };
            // The right to see it may have been lost in the last moment.
            identify(&api.access, &parts, &Peer::of(&parts), false)?;
            match other {
                Some(revision) => revision,
                None => return Ok(StatusCode::NOT_MODIFIED.into_response()),
            }
        }
    };
    let headers = &parts.headers;
    let report = api.map_report(&revision).await;
    let mut response = match wants_text(headers) {
        true => EntityTag::digest(&report.sha256)
            .answer(headers, || text(Arc::clone(&revision.entries))),
        false => {
            EntityTag::numbered(revision.number).answer(headers, || Json(&*report).into_response())
        }
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Ends once whoever has sent this is nobody any more: a token was revoked or is over, a session has
/// ended, a certificate was revoked.
async fn loses_access(api: &Api, parts: &Parts) -> HttpError {
    let peer = Peer::of(parts);
    loop {
        sleep(MAY_FOLLOW).await;
        if let Err(refusal) = identify(&api.access, parts, &peer, false) {
            return refusal;
        }
    }
}

/// A map as HAProxy reads it, sent as fast as the client takes it.
pub(super) fn text(entries: Arc<EntryMap>) -> Response {
    let pieces = stream::iter(MapText::new(entries).map(Ok::<_, Infallible>));
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (kind, Body::from_stream(pieces)).into_response()
}

/// Whether a client asks for plain text and not for JSON.
fn wants_text(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT).iter().filter_map(|list| list.to_str().ok());
    let kinds = lists.flat_map(|list| list.split(',')).filter_map(|kind| kind.split(';').next());
    let kinds: Vec<_> = kinds.map(|kind| kind.trim().to_ascii_lowercase()).collect();
    kinds.iter().any(|kind| kind == "text/plain")
        && !kinds.iter().any(|kind| kind == "application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_for_those_who_ask_for_it() {
        let accept = |given: &str| {
            wants_text(&HeaderMap::from_iter([(header::ACCEPT, given.parse().unwrap())]))
        };
        assert!(accept("text/plain") && accept("text/html, Text/Plain;q=0.5"));
        assert!(!accept("*/*") && !accept("application/json, text/plain, */*"));
        assert!(!wants_text(&HeaderMap::new()));
    }
}
