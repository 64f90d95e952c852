//! Answers in the shapes of hapi, the web framework that Aqueduct and Thalassa were written with.

use std::fmt;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mapsmith_core::compat::aqueduct::{Refusal, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::api;
use crate::api::declared::FORCE;
use crate::http::body::BOUND;
use crate::http::error::HttpError;

/// The most bytes of a body, as hapi has it.
const LARGEST: usize = 1024 * 1024;

/// JSON, with the content type that hapi gives it.
pub(super) fn json(body: &impl Serialize) -> Response {
    with_status(StatusCode::OK, body)
}

/// What is JSON already.
pub(super) fn json_text(body: Body) -> Response {
    const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
    ([(header::CONTENT_TYPE, JSON)], body).into_response()
}

fn with_status(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(body) => (status, json_text(Body::from(body))).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `frontend nope not found`. The key is what the client sent, and the text is HTML.
pub(super) fn missing(what: &str, key: &str) -> Response {
    const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
    let key = key.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let text = format!("{what} {key} not found");
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, HTML)], text).into_response()
}

/// No path of the API.
pub(super) async fn not_found() -> Fault {
    Fault::new(StatusCode::NOT_FOUND, "")
}

/// An error, as hapi answers it.
#[derive(Debug)]
pub(super) struct Fault {
    status: StatusCode,
    message: String,
    validation: Option<Validation>,
    /// When one may try again.
    wait: Option<Duration>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FaultBody<'a> {
    status_code: u16,
    error: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<&'a Validation>,
}

impl Fault {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), validation: None, wait: None }
    }

    pub(super) fn forbidden(message: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    pub(super) fn conflict(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn busy(message: &str) -> Self {
        let wait = Some(Duration::from_secs(1));
        Self { wait, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    pub(super) fn too_many(wait: Duration) -> Self {
        let fault = Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests of this address");
        Self { wait: Some(wait), ..fault }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl From<Refusal> for Fault {
    fn from(Refusal { message, validation }: Refusal) -> Self {
        Self { validation, ..Self::new(StatusCode::BAD_REQUEST, message) }
    }
}

impl From<api::Error> for Fault {
    /// What HAProxy refuses is a bad request here, with its words.
    fn from(error: api::Error) -> Self {
        let error = HttpError::from(error);
        let status = match error.status() {
            StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
            status => status,
        };
        let wait = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1));
        Self { wait, ..Self::new(status, without_hints(&error.to_string())) }
    }
}

/// Parameters that nobody has here are not recommended.
fn without_hints(text: &str) -> String {
    let Some((said, hint)) = text.split_once(FORCE) else { return text.to_owned() };
    let rest = hint.split_once(')').map_or("", |(_, rest)| rest);
    format!("{said}{rest}")
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let body = FaultBody {
            status_code: self.status.as_u16(),
            error: self.status.canonical_reason().unwrap_or_default(),
            message: &self.message,
            validation: self.validation.as_ref(),
        };
        let mut response = with_status(self.status, &body);
        if let Some(wait) = self.wait {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What a path names.
pub(super) struct Names<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(Fault::new(StatusCode::BAD_REQUEST, error.body_text())),
        }
    }
}

/// A body of JSON; null where there is none.
pub(super) struct Payload(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        if let Some(kind) = other_than_json(request.headers()) {
            let text = format!("Unsupported content-type: {kind}");
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let body = match timeout(BOUND, Bytes::from_request(request, state)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let text =
                    format!("Payload content length greater than maximum allowed: {LARGEST}");
                return Err(Fault::new(error.status(), text));
            }
            Ok(Err(error)) => return Err(Fault::new(error.status(), error.body_text())),
            Err(_) => {
                let text = format!("the body did not arrive within {BOUND:?}");
                return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, text));
            }
        };
        if body.is_empty() {
            return Ok(Self(Value::Null));
        }
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|_| Fault::new(StatusCode::BAD_REQUEST, "Invalid request payload JSON format"))
    }
}

/// How much of a body is read.
pub(super) fn body_limit() -> DefaultBodyLimit {
    DefaultBodyLimit::max(LARGEST)
}

/// What a body says that it is, where that is not JSON. What does not say it counts as JSON. A form,
/// or plain text, a web page could send.
fn other_than_json(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?;
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let is_json =
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
    (!is_json).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_client_is_not_told_of_parameters_that_it_can_not_give() {
        let told = format!("web waits; send them elsewhere{FORCE} has the frontend wait for it)");
        let fault = Fault::from(api::Error::ObjectConflict(told));
        assert_eq!(fault.message, "web waits; send them elsewhere");
        assert_eq!(without_hints("no such thing (at all)"), "no such thing (at all)");
    }
}
