//! A request's body: whole, small and in time before anything acts on it. Those that may be large
//! are few at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::error::HttpError;

/// The most bytes of a body: mostly all that this API takes are a few names.
pub(super) const LARGEST: usize = 64 * 1024;
/// The most bytes of a body with many nodes.
pub(super) const LARGEST_BATCH: usize = 16 * 1024 * 1024;
/// How many of those may be in memory at once.
const BATCHES: usize = 4;
static BATCH_ROOM: Semaphore = Semaphore::const_new(BATCHES);
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

/// The room in memory that a large body takes, for as long as somebody keeps it.
#[derive(Debug, Clone)]
pub(super) struct Room(
    #[expect(dead_code, reason = "it is let go of")] Arc<SemaphorePermit<'static>>,
);

/// Passes a request on whose body may be large, once there is room for it.
pub(super) async fn has_room(mut request: Request, next: Next) -> Result<Response, HttpError> {
    let no_room = || HttpError::NoRoom(BATCHES);
    let permit = timeout(BOUND, BATCH_ROOM.acquire()).await.map_err(|_| no_room())?;
    request.extensions_mut().insert(Room(Arc::new(permit.map_err(|_| no_room())?)));
    Ok(next.run(request).await)
}
