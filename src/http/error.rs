//! Which HTTP status a failure has: decided here and nowhere else.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::BOUND;
use crate::api;
use crate::api::types::{Problem, ReloadOutcome, ReloadReport};

/// Why a request gets no plain answer.
#[derive(Debug)]
pub enum HttpError {
    /// The request is not understood.
    BadRequest(String),
    /// The token is missing or wrong.
    Unauthorized,
    /// A web page of another site asks, or one that names this machine as none of its programs
    /// would.
    Forbidden,
    /// No such path.
    NotFound(String),
    /// The path knows another method.
    MethodNotAllowed,
    /// The body is larger than any request of this API.
    TooLarge,
    /// The body did not arrive in time.
    TooSlow,
    /// The API serves this many connections, and all are in use.
    Full(usize),
    /// The program did not do what was asked for.
    Api(api::Error),
    /// A reload or an override was not accepted.
    Reload(Box<ReloadReport>),
}

/// The status of a reload or an override. What is accepted and on its way is no failure: a 5xx
/// would have clients and proxies try again.
pub(super) fn status_of(outcome: ReloadOutcome) -> StatusCode {
    match outcome {
        ReloadOutcome::InSync => StatusCode::OK,
        ReloadOutcome::Requested | ReloadOutcome::Behind => StatusCode::ACCEPTED,
        ReloadOutcome::Held | ReloadOutcome::ReadOnly => StatusCode::CONFLICT,
        ReloadOutcome::SourceFailed => StatusCode::BAD_GATEWAY,
        ReloadOutcome::FileFailed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn status_of_error(error: &api::Error) -> StatusCode {
    match error {
        api::Error::NotApproved(_)
        | api::Error::UnknownMaster(_)
        | api::Error::DeadEnd(_)
        | api::Error::NoStore => StatusCode::CONFLICT,
        api::Error::NoOverride(_) => StatusCode::NOT_FOUND,
        api::Error::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<api::Error> for HttpError {
    fn from(error: api::Error) -> Self {
        Self::Api(error)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, detail, report) = match self {
            Self::BadRequest(detail) => (StatusCode::BAD_REQUEST, detail, None),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "send the token of `api.token_file` as `Authorization: \
                    Bearer TOKEN`"
                    .to_owned(),
                None,
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "requests of other web pages, or by another name than an \
                    address or localhost, are refused while no `api.token_file` is \
                    set"
                .to_owned(),
                None,
            ),
            Self::NotFound(path) => (
                StatusCode::NOT_FOUND,
                format!(
                    "{path} is not a path of this \
                API"
                ),
                None,
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "the path exists, but not with this \
                    method"
                    .to_owned(),
                None,
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than any \
                request here"
                    .to_owned(),
                None,
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the request's body did not \
                arrive within {BOUND:?}"
                ),
                None,
            ),
            Self::Full(most) => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "the API serves {most} connections at \
                    once, and all are in use; try again in a moment"
                ),
                None,
            ),
            Self::Api(error) => (status_of_error(&error), error.to_string(), None),
            Self::Reload(report) => {
                (status_of(report.outcome), report.message.clone(), Some(report))
            }
        };
        let title = status.canonical_reason().unwrap_or("error").to_owned();
        let mut response =
            (status, Json(Problem { title, status: status.as_u16(), detail, report }))
                .into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
