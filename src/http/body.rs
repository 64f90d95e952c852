//! A request's body: whole, small and in time before anything acts on it.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::error::HttpError;
use super::openapi;
use super::routes::Route;

/// The most bytes of a body: all that this API takes are a few names.
pub(super) const LARGEST: usize = 64 * 1024;
/// How long a client may take to send it.
pub(super) const BOUND: Duration = Duration::from_secs(10);

/// The media types that the body of a route may have: those of the OpenAPI document. A route that
/// takes none does not look at it.
#[derive(Clone)]
pub(super) struct Kinds(Vec<&'static str>);

impl Kinds {
    pub(super) fn of(route: &Route) -> Self {
        Self(openapi::bodies(route))
    }

    /// A body that does not say what it is counts as what is wanted.
    fn check(&self, headers: &HeaderMap, body: &Bytes) -> Result<(), HttpError> {
        let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
        if self.0.is_empty() || body.is_empty() {
            return Ok(());
        }
        let given = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match self.0.iter().any(|kind| kind.eq_ignore_ascii_case(given)) {
            true => Ok(()),
            false => Err(HttpError::MediaType { takes: self.0.join("` or `") }),
        }
    }
}

/// Passes the request on once its body is there.
pub(super) async fn arrives(
    State(kinds): State<Kinds>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let whole = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    let body =
        timeout(BOUND, whole).await.map_err(|_| HttpError::TooSlow)?.map_err(
            |error| match error.status() {
                StatusCode::PAYLOAD_TOO_LARGE => HttpError::TooLarge,
                _ => HttpError::BadRequest(error.body_text()),
            },
        )?;
    kinds.check(&parts.headers, &body)?;
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}
