//! A request's body: whole, small and in time before anything acts on it. Those that may be large
//! are few at once.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::error::HttpError;
use super::openapi;
use super::routes::Route;

/// The most bytes of a body: mostly all that this API takes are a few names.
pub(super) const LARGEST: usize = 64 * 1024;
/// The most bytes of a body with many nodes, or with a whole configuration: all that the store may
/// hold of one, however it is indented.
pub(super) const LARGEST_BATCH: usize = 16 * 1024 * 1024;
/// How many of those may be in memory at once.
const BATCHES: usize = 4;
static BATCH_ROOM: Semaphore = Semaphore::const_new(BATCHES);
/// How long a client may take to send it.
pub(super) const BOUND: Duration = Duration::from_secs(10);

/// What the body of a route may be: its media types are those of the OpenAPI document. A route that
/// takes none does not look at it.
#[derive(Clone)]
pub(super) struct Takes {
    kinds: Vec<&'static str>,
    /// The most bytes.
    most: usize,
}

impl Takes {
    pub(super) fn of(route: &Route) -> Self {
        Self { kinds: openapi::bodies(route), most: route.largest_body }
    }

    /// A body that does not say what it is counts as what is wanted.
    fn check(&self, headers: &HeaderMap, body: &Bytes) -> Result<(), HttpError> {
        let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
        if self.kinds.is_empty() || body.is_empty() {
            return Ok(());
        }
        let given = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        match self.kinds.iter().any(|kind| kind.eq_ignore_ascii_case(given)) {
            true => Ok(()),
            false => Err(HttpError::MediaType { takes: self.kinds.join("` or `") }),
        }
    }
}

/// Passes the request on once its body is there.
pub(super) async fn arrives(
    State(takes): State<Takes>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let (parts, body) = request.into_parts();
    let whole = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    let body =
        timeout(BOUND, whole).await.map_err(|_| HttpError::TooSlow)?.map_err(
            |error| match error.status() {
                StatusCode::PAYLOAD_TOO_LARGE => HttpError::TooLarge(takes.most),
                _ => HttpError::BadRequest(error.body_text()),
            },
        )?;
    takes.check(&parts.headers, &body)?;
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
