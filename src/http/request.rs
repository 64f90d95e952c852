//! The parts of a request's line: names in the path, and query parameters.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::error::HttpError;
use crate::api::requests;
use crate::store::AuditFilter;

/// The parameters that a path takes. Others are an error, or a misspelt one would go unnoticed.
pub(super) trait QueryParameters: DeserializeOwned {
    const KNOWN: &str;
}

/// Why somebody changes something: the guard takes it from the request for the audit.
#[derive(Default, Deserialize)]
#[serde(from = "IgnoredAny")]
struct Reason;

impl From<IgnoredAny> for Reason {
    fn from(_: IgnoredAny) -> Self {
        Self
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

impl QueryParameters for NoQuery {
    const KNOWN: &str = "this path takes no parameters";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuery {
    pub(super) wait: Option<String>,
    #[serde(default, rename = "reason")]
    _reason: Reason,
}

impl QueryParameters for ChangeQuery {
    const KNOWN: &str = "the parameters are wait and reason";
}

/// What a change may be given that is done at once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonQuery {
    #[serde(default, rename = "reason")]
    _reason: Reason,
}

impl QueryParameters for ReasonQuery {
    const KNOWN: &str = "the only parameter is reason";
}

/// What the end of a drain may be given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UndrainQuery {
    pub(super) wait: Option<String>,
    /// Nodes stay where they went during the drain.
    #[serde(default)]
    pub(super) stay: bool,
    #[serde(default, rename = "reason")]
    _reason: Reason,
}

impl QueryParameters for UndrainQuery {
    const KNOWN: &str = "the parameters are wait, stay and reason";
}

/// What an order that names a master may be given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderQuery {
    pub(super) wait: Option<String>,
    /// Masters are taken that nobody knows.
    #[serde(default)]
    pub(super) force: bool,
    #[serde(default, rename = "reason")]
    _reason: Reason,
}

impl QueryParameters for OrderQuery {
    const KNOWN: &str = "the parameters are wait, force and reason";
}

/// Which rows of the audit are asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    actor: Option<String>,
    target: Option<String>,
    since: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

impl QueryParameters for AuditQuery {
    const KNOWN: &str = "the parameters are actor, target, since, limit and after";
}

impl AuditQuery {
    pub(super) fn filter(self) -> Result<AuditFilter, requests::Invalid> {
        Ok(AuditFilter {
            since: requests::since(self.since.as_deref())?,
            before: requests::after(self.after.as_deref())?,
            limit: requests::limit(self.limit.as_deref())?,
            actor: self.actor,
            target: self.target,
        })
    }
}

pub(super) struct Parameters<Q>(pub(super) Q);

impl<S: Send + Sync, Q: QueryParameters> FromRequestParts<S> for Parameters<Q> {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(error) => {
                Err(HttpError::BadRequest(format!("{}; {}", error.body_text(), Q::KNOWN)))
            }
        }
    }
}

async fn name<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<String, HttpError> {
    match Path::from_request_parts(parts, state).await {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(HttpError::BadRequest(error.body_text())),
    }
}

/// The valid name of a node.
pub(super) struct Node(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Node {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        Ok(Self(requests::node(name(parts, state).await?)?))
    }
}

/// The valid name of a master.
pub(super) struct Master(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Master {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        Ok(Self(requests::master(name(parts, state).await?)?))
    }
}

/// A token's id or a certificate's name, whether there is one or not.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        Ok(Self(name(parts, state).await?))
    }
}
