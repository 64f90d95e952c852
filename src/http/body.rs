//! A request's body: whole, small and in time before anything acts on it.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::timeout;

use super::error::HttpError;

/// The most bytes of a body: all that this API takes are a few names.
pub(super) const LARGEST: usize = 64 * 1024;
/// How long a client may take to send it.
pub(super) const BOUND: Duration = Duration::from_secs(10);

/// Passes the request on once its body is there.
pub(super) async fn arrives(request: Request, next: Next) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let whole = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    let body =
        timeout(BOUND, whole).await.map_err(|_| HttpError::TooSlow)?.map_err(
            |error| match error.status() {
                StatusCode::PAYLOAD_TOO_LARGE => HttpError::TooLarge,
                _ => HttpError::BadRequest(error.body_text()),
            },
        )?;
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}
