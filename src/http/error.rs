//! Which HTTP status a failure has: decided here and nowhere else.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use mapsmith_core::access::{Identity, Role};
use mapsmith_core::desired::hold::HoldError;

use super::body::BOUND;
use super::problems::Kind;
use crate::api::types::{Problem, ReloadOutcome, ReloadReport};
use crate::api::{self, NotRun, requests};
use crate::tls::RenewError;

/// The most names of a certificate that are told.
const NAMED: usize = 5;

/// Why a request gets no plain answer, as a person reads it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("{0}")]
    BadRequest(String),
    /// Nobody who is known; with `tried` there was a token, a wrong one.
    #[error(
        "send a token as `Authorization: Bearer TOKEN`: that of `api.token_file`, or one of \
            `mapsmith token create` that is not over"
    )]
    Unauthorized { tried: bool },
    /// A certificate was shown, and nobody is known by it.
    #[error("{}, or send a token as `Authorization: Bearer TOKEN`", client(.0))]
    NoClient(Vec<String>),
    /// Too many wrong tokens of this address.
    #[error("too many wrong tokens from this address; try again in {}, with one that is good",
        seconds(*.0))]
    TooManyFailed(Duration),
    /// Too many requests of this identity.
    #[error("too many requests; try again in {} (`GET /v1/about` has the limits)", seconds(*.0))]
    TooMany(Duration),
    /// Somebody who is known, and who may not.
    #[error("this needs the role {needed}; {} `{}` has {}", .identity.kind.name(), .identity.name,
        .identity.role)]
    Role { needed: Role, identity: Identity },
    /// A web page of another site asks, in the name of whoever sits at the browser.
    #[error(
        "requests of other sites' web pages are refused, and a change must say that it comes from \
            a page of this API (`Origin`, `Sec-Fetch-Site`)"
    )]
    OtherSite,
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
    /// A body that is no JSON; `takes` is what it may be.
    #[error("send the body as `Content-Type: {takes}`")]
    MediaType { takes: String },
    /// A body of more bytes than this.
    #[error("the body is larger than {}, and that is the most here", size(*.0))]
    TooLarge(usize),
    /// So many large bodies are taken in at once.
    #[error("{0} large bodies are being read, and no more may be; try again in a moment")]
    NoRoom(usize),
    #[error("the request's body did not arrive within {BOUND:?}")]
    TooSlow,
    /// The API serves so many connections.
    #[error("the API serves {0} connections at once, and all are in use; try again in a moment")]
    Full(usize),
    /// A change that nobody may ask for without having looked.
    #[error("say with If-Match what you have seen: the ETag of `GET /v1/map`, or of the rollout")]
    NoPrecondition,
    #[error("say with If-Match what you have seen: the ETag of `GET /v1/config`")]
    NoConfigPrecondition,
    #[error(
        "say with If-Match what you have seen, or with `If-None-Match: *` that it is new: the \
         settings have `require_if_match` in `[api]`"
    )]
    ConditionRequired,
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

/// What would make somebody of whoever has shown a certificate with these names.
fn client(names: &[String]) -> String {
    match names {
        [] => "the certificate that was shown is over, revoked, or has no name".to_owned(),
        names => {
            let named: Vec<_> = names.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
            format!(
                "a certificate was shown, and none of its names ({}) is the `san` of an \
                    `[[api.client]]`: put one into the settings",
                named.join(", ")
            )
        }
    }
}

/// How long to wait, for a person and for `Retry-After`.
fn seconds(wait: Duration) -> String {
    format!("{} s", rounded_up(wait))
}

/// A limit of bytes, for a person.
fn size(bytes: usize) -> String {
    const MIB: usize = 1024 * 1024;
    match bytes % MIB {
        0 => format!("{} MiB", bytes / MIB),
        _ => format!("{} KiB", bytes / 1024),
    }
}

fn rounded_up(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl From<requests::Invalid> for HttpError {
    fn from(error: requests::Invalid) -> Self {
        Self::BadRequest(error.to_string())
    }
}

/// What kind of problem it is that a command is not begun.
fn kind_of(error: &NotRun) -> Kind {
    match error {
        NotRun::NoGrant(_) => Kind::FORBIDDEN,
        NotRun::Off => Kind::CONFLICT,
        NotRun::NoCommand(_) | NotRun::NotInMap(_) => Kind::NOT_FOUND,
        NotRun::Invalid(_) => Kind::INVALID,
        NotRun::Running(_) => Kind::RATE_LIMITED,
    }
}

impl HttpError {
    pub(super) fn status(&self) -> StatusCode {
        self.kind().status
    }

    /// What kind of problem it is; its status is the kind's.
    fn kind(&self) -> Kind {
        match self {
            Self::BadRequest(_)
            | Self::Api(api::Error::Canary(_) | api::Error::UnknownSecret(_)) => Kind::INVALID,
            Self::Unauthorized { .. } | Self::NoClient(_) => Kind::UNAUTHORIZED,
            Self::TooManyFailed(_)
            | Self::TooMany(_)
            | Self::Api(api::Error::TooManyOfOne { .. }) => Kind::RATE_LIMITED,
            Self::Api(api::Error::NotRun(error)) => kind_of(error),
            Self::Forbidden
            | Self::OtherSite
            | Self::Role { .. }
            | Self::Api(api::Error::NotGranted(_)) => Kind::FORBIDDEN,
            Self::NotFound(_)
            | Self::Api(
                api::Error::NoOverride(_)
                | api::Error::NotRegistered(_)
                | api::Error::NoToken(_)
                | api::Error::NoMap
                | api::Error::NoRevision(_)
                | api::Error::NoRollout(_)
                | api::Error::NoMaster(_)
                | api::Error::NoObject(_)
                | api::Error::UnknownServer(_)
                | api::Error::Hold(HoldError::NoHold | HoldError::NotRejected(_))
                | api::Error::NotRenewed(RenewError::Unknown(_)),
            ) => Kind::NOT_FOUND,
            Self::Api(
                api::Error::NotKept { .. }
                | api::Error::NothingBefore(_)
                | api::Error::NotReached { .. }
                | api::Error::EventsGone { .. },
            ) => Kind::GONE,
            Self::MethodNotAllowed => Kind::METHOD,
            Self::TooLarge(_) => Kind::TOO_LARGE,
            Self::TooSlow => Kind::TOO_SLOW,
            Self::MediaType { .. } => Kind::MEDIA_TYPE,
            Self::Full(_)
            | Self::NoRoom(_)
            | Self::Api(
                api::Error::Busy
                | api::Error::Ending
                | api::Error::TooManyChecks
                | api::Error::TooManyWaits(_)
                | api::Error::TooManyStreams(_),
            ) => Kind::BUSY,
            Self::Api(api::Error::NotReady) => Kind::NOT_READY,
            Self::Api(api::Error::Store(_)) => Kind::STORE_FAILED,
            Self::Api(api::Error::NoStore(_)) => Kind::NO_STORE,
            Self::Api(api::Error::NoMembers { .. }) => Kind::NO_MEMBERS,
            Self::ConditionRequired | Self::NoPrecondition | Self::NoConfigPrecondition => {
                Kind::PRECONDITION
            }
            Self::Api(api::Error::OwnedBySettings { .. }) => Kind::OWNED,
            Self::Api(api::Error::NotManaged) => Kind::NOT_MANAGED,
            Self::Api(api::Error::InvalidConfig { .. }) => Kind::INVALID_CONFIG,
            Self::Api(api::Error::RefusedByHaproxy { .. }) => Kind::REFUSED,
            Self::Api(api::Error::NotChecked(_)) => Kind::NOT_CHECKED,
            Self::Api(
                api::Error::Changed { .. }
                | api::Error::NotInForce { .. }
                | api::Error::ObjectChanged { .. },
            ) => Kind::CHANGED,
            Self::Api(api::Error::Hold(HoldError::OnHold(_) | HoldError::InPlace(_))) => {
                Kind::ON_HOLD
            }
            Self::Api(api::Error::ReadOnly(_)) => Kind::READ_ONLY,
            Self::Api(
                api::Error::NotApproved(_)
                | api::Error::Rollout(_)
                | api::Error::UnknownMaster(_)
                | api::Error::UnknownNode(_)
                | api::Error::DeadEnd(_)
                | api::Error::ServerConflict(_)
                | api::Error::ObjectConflict(_)
                | api::Error::NoRegistrations
                | api::Error::TokenConflict(_)
                | api::Error::NotRenewed(_)
                | api::Error::NotRemembered(_),
            ) => Kind::CONFLICT,
            Self::Reload(report) => Kind::of_outcome(report.outcome),
        }
    }
}

impl Kind {
    /// Of a change that did not end well.
    fn of_outcome(outcome: ReloadOutcome) -> Self {
        match outcome {
            ReloadOutcome::ReadOnly => Self::READ_ONLY,
            ReloadOutcome::SourceFailed => Self::SOURCE_FAILED,
            ReloadOutcome::FileFailed => Self::FILE_FAILED,
            // The others are no failures.
            ReloadOutcome::Held
            | ReloadOutcome::InSync
            | ReloadOutcome::Requested
            | ReloadOutcome::Behind => Self::HELD,
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (kind, detail) = (self.kind(), self.to_string());
        let status = kind.status;
        let retry_after = match &self {
            Self::TooManyFailed(wait) | Self::TooMany(wait) => Some(rounded_up(*wait)),
            Self::Api(api::Error::NotRun(NotRun::Running(_))) => Some(1),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        };
        let mut problem = Problem {
            kind: kind.page(),
            title: kind.title.to_owned(),
            status: status.as_u16(),
            detail,
            ..Problem::default()
        };
        match self {
            Self::Reload(full) => problem.report = Some(full),
            Self::Role { needed, .. } => problem.needs = Some(needed),
            Self::Api(
                api::Error::NotKept { oldest, .. } | api::Error::NotReached { oldest, .. },
            ) => problem.oldest = oldest,
            Self::Api(api::Error::NothingBefore(number)) => problem.oldest = Some(number),
            Self::Api(api::Error::EventsGone { oldest, .. }) => problem.oldest = Some(oldest),
            Self::Api(api::Error::Hold(HoldError::OnHold(_) | HoldError::InPlace(_))) => {
                problem.resume = Some("/v1/hold".to_owned());
            }
            Self::Api(api::Error::NotInForce { since, .. }) => {
                problem.changed_by = since.first().and_then(|record| record.note.by.clone());
                problem.changed_at = since.first().map(|record| record.at);
                problem.changes = since;
            }
            Self::Api(api::Error::NoMembers { have, min_ready, .. }) => {
                (problem.have, problem.min_ready) = (Some(have), Some(min_ready));
            }
            Self::Api(api::Error::Changed { current }) => problem.current = current,
            Self::Api(api::Error::ObjectChanged { current, by, at, .. }) => {
                (problem.current, problem.changed_by, problem.changed_at) = (current, by, at);
            }
            Self::Api(
                api::Error::InvalidConfig { faults, .. }
                | api::Error::RefusedByHaproxy { faults, .. },
            ) => problem.errors = faults,
            _ => {}
        }
        let mut response = (status, Json(&problem)).into_response();
        // For whoever knows the request's id.
        response.extensions_mut().insert(problem);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreError, StoreErrorKind};

    #[test]
    fn who_comes_while_all_begins_anew_is_told_to_come_again() {
        let path = "m.db".to_owned();
        let answer = |fault| {
            let error = api::Error::from(StoreError { path: path.clone(), fault });
            let response = HttpError::from(error).into_response();
            let again = response.headers().get(header::RETRY_AFTER).cloned();
            (response.status().as_u16(), again.map(|seconds| seconds.to_str().unwrap().to_owned()))
        };
        assert_eq!(answer(StoreErrorKind::Ending), (503, Some("1".to_owned())));
        assert_eq!(answer(StoreErrorKind::Full("no room".to_owned())), (500, None));
    }
}
