//! Which HTTP status a failure has: decided here and nowhere else.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body::BOUND;
use crate::api::types::{Problem, ReloadOutcome, ReloadReport};
use crate::api::{self, requests};

/// Why a request gets no plain answer, as a person reads it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0}")]
    BadRequest(String),
    #[error("send the token of `api.token_file` as `Authorization: Bearer TOKEN`")]
    Unauthorized,
    /// A web page of another site asks, or one that names this machine as none of its programs
    /// would.
    #[error(
        "requests of other web pages, or by another name than an address or localhost, are \
            refused while no `api.token_file` is set"
    )]
    Forbidden,
    #[error("{0} is not a path of this API")]
    NotFound(String),
    #[error("the path exists, but not with this method")]
    MethodNotAllowed,
    #[error("the body is larger than any request here")]
    TooLarge,
    #[error("the request's body did not arrive within {BOUND:?}")]
    TooSlow,
    /// The API serves so many connections.
    #[error("the API serves {0} connections at once, and all are in use; try again in a moment")]
    Full(usize),
    #[error(transparent)]
    Api(#[from] api::Error),
    #[error("{}", .0.message)]
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

impl From<requests::Invalid> for HttpError {
    fn from(error: requests::Invalid) -> Self {
        Self::BadRequest(error.to_string())
    }
}

impl HttpError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound(_)
            | Self::Api(
                api::Error::NoOverride(_)
                | api::Error::NoMap
                | api::Error::NoRevision(_)
                | api::Error::NoMaster(_),
            ) => StatusCode::NOT_FOUND,
            Self::Api(api::Error::NotKept { .. }) => StatusCode::GONE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Full(_) | Self::Api(api::Error::NotReady | api::Error::TooManyWaits(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Api(api::Error::Store(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Api(
                api::Error::NotApproved(_)
                | api::Error::UnknownMaster(_)
                | api::Error::UnknownNode(_)
                | api::Error::DeadEnd(_)
                | api::Error::NoStore
                | api::Error::NoHistory
                | api::Error::NotRemembered(_),
            ) => StatusCode::CONFLICT,
            Self::Reload(report) => status_of(report.outcome),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, detail) = (self.status(), self.to_string());
        let (report, oldest) = match self {
            Self::Reload(report) => (Some(report), None),
            Self::Api(api::Error::NotKept { oldest, .. }) => (None, oldest),
            _ => (None, None),
        };
        let title = status.canonical_reason().unwrap_or("error").to_owned();
        let mut response =
            (status, Json(Problem { title, status: status.as_u16(), detail, oldest, report }))
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
