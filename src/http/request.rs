//! The parts of a request's line: names in the path, and query parameters.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use utoipa::IntoParams;

use super::error::HttpError;
use crate::api::types::OverrideKind;
use crate::api::{ServerPlace, requests};
use crate::store::AuditFilter;

/// The parameters that a path takes. Others are an error, or a misspelt one would go unnoticed.
pub(super) trait QueryParameters: DeserializeOwned {
    const KNOWN: &str;
}

/// Why somebody changes something: the guard takes it from the request for the audit.
#[derive(Default, Deserialize)]
#[serde(from = "IgnoredAny")]
pub(super) struct Reason;

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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangeQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for ChangeQuery {
    const KNOWN: &str = "the parameters are wait and reason";
}

/// What a change may be given that can be tried.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DryRunQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// Nothing is changed.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for DryRunQuery {
    const KNOWN: &str = "the parameters are wait, dry_run and reason";
}

/// What a change may be given that is done at once.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReasonQuery {
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for ReasonQuery {
    const KNOWN: &str = "the only parameter is reason";
}

/// Which nodes are looked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NodesQuery {
    #[serde(default)]
    /// What the name begins with.
    pub(super) prefix: String,
    #[serde(default)]
    /// What stands in the name.
    pub(super) contains: String,
    /// The master, by HAProxy's name.
    pub(super) master: Option<String>,
    /// The most rows: 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = "^[0-9A-Za-z_-]*$")]
    pub(super) after: Option<String>,
}

impl QueryParameters for NodesQuery {
    const KNOWN: &str = "the parameters are prefix, contains, master, limit and after";
}

/// Which map a client has already.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MapQuery {
    /// The number of the map that it has: the answer is another one.
    pub(super) revision: Option<u64>,
    /// How long it waits for that, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// The number of the map that it has: the answer is what has changed since.
    pub(super) since: Option<u64>,
}

impl QueryParameters for MapQuery {
    const KNOWN: &str = "the parameters are revision and wait, or since";
}

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The most rows: 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = "^[0-9A-Za-z_-]*$")]
    pub(super) after: Option<String>,
}

impl QueryParameters for PageQuery {
    const KNOWN: &str = "the parameters are limit and after";
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// The number of the last one that a client has.
    pub(super) after: Option<u64>,
    /// Kinds, with commas between.
    #[serde(default)]
    pub(super) topics: String,
}

impl QueryParameters for EventsQuery {
    const KNOWN: &str = "the parameters are after and topics";
}

/// Which page of them.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ActivityQuery {
    /// The number of the last one that a client has; without it the newest come.
    pub(super) after: Option<u64>,
    /// The `oldest` of the page before: that some before it are gone is known.
    pub(super) oldest: Option<u64>,
    /// Kinds, with commas between.
    #[serde(default)]
    pub(super) topics: String,
    /// The most rows: 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
}

impl QueryParameters for ActivityQuery {
    const KNOWN: &str = "the parameters are after, oldest, topics and limit";
}

/// Which part of what lies between two revisions.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffQuery {
    /// The other revision; without it the one before.
    pub(super) from: Option<u64>,
    /// The most rows: 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = "^[0-9A-Za-z_-]*$")]
    pub(super) after: Option<String>,
}

impl QueryParameters for DiffQuery {
    const KNOWN: &str = "the parameters are from, limit and after";
}

/// What the end of a node's override may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OverrideEndQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// Nothing ends where the node has another one.
    pub(super) kind: Option<OverrideKind>,
    /// It is checked, and nothing is changed: the answer says what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for OverrideEndQuery {
    const KNOWN: &str = "the parameters are wait, kind (pin or absent), dry_run and reason";
}

/// What the end of a drain may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UndrainQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// Nodes stay where they went during the drain.
    #[serde(default)]
    pub(super) stay: bool,
    /// It is checked, and nothing is changed: the answer says what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for UndrainQuery {
    const KNOWN: &str = "the parameters are wait, stay, dry_run and reason";
}

/// What an override that names a master may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OverrideQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// Masters are taken that nobody knows.
    #[serde(default)]
    pub(super) force: bool,
    /// It is checked, and nothing is changed: the answer says what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for OverrideQuery {
    const KNOWN: &str = "the parameters are wait, force, dry_run and reason";
}

/// What a verdict on a held change may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VerdictQuery {
    /// It is checked, and nothing is changed: the answer says what would be.
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for VerdictQuery {
    const KNOWN: &str = "the parameters are dry_run and reason";
}

/// What an order that names a master may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OrderQuery {
    /// How long to wait until every instance is in sync, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(super) wait: Option<String>,
    /// Masters are taken that nobody knows.
    #[serde(default)]
    pub(super) force: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for OrderQuery {
    const KNOWN: &str = "the parameters are wait, force and reason";
}

/// Which rows of the audit are asked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// The name of who made the change.
    actor: Option<String>,
    /// What was changed, like `masters/master1`.
    target: Option<String>,
    /// Not before this time.
    #[param(value_type = Option<jiff::Timestamp>)]
    since: Option<String>,
    /// The most rows: 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = "^[0-9]{1,18}$")]
    after: Option<String>,
}

impl QueryParameters for AuditQuery {
    const KNOWN: &str = "the parameters are actor, target, since, limit and after";
}

impl AuditQuery {
    pub(super) fn filter(self) -> Result<AuditFilter, requests::Invalid> {
        Ok(AuditFilter {
            of: None,
            since: requests::since(self.since.as_deref())?,
            before: requests::after(self.after.as_deref())?,
            limit: requests::limit(self.limit)?,
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

/// Who asks, where whoever let the request in knows that and has put it into the request's
/// extensions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Author(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Author {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

pub(super) async fn name<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<String, HttpError> {
    match Path::from_request_parts(parts, state).await {
        Ok(Path(name)) => Ok(name),
        Err(error) => Err(HttpError::BadRequest(error.body_text())),
    }
}

/// The number of a revision.
pub(super) struct Number(pub(super) u64);

impl<S: Send + Sync> FromRequestParts<S> for Number {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let number = name(parts, state).await?.parse();
        let help = "a revision is a number";
        number.map(Self).map_err(|_| HttpError::BadRequest(help.to_owned()))
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

/// The name of a backend, whether there is one or not.
pub(super) struct BackendName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for BackendName {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        Ok(Self(requests::haproxy_name("backend", name(parts, state).await?)?))
    }
}

/// A backend and a server of it, whether there are any or not.
pub(super) struct ServerName(pub(super) ServerPlace);

impl<S: Send + Sync> FromRequestParts<S> for ServerName {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let (backend, server) = match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => names,
            Err(error) => return Err(HttpError::BadRequest(error.body_text())),
        };
        let (backend, server) = (
            requests::haproxy_name("backend", backend)?,
            requests::haproxy_name("server", server)?,
        );
        Ok(Self(ServerPlace { backend, server }))
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

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[tokio::test]
    async fn who_asks_is_known_where_whoever_let_them_in_says_so() {
        let (mut parts, ()) = Request::new(()).into_parts();
        assert_eq!(Author::from_request_parts(&mut parts, &()).await, Ok(Author(None)));
        parts.extensions.insert(Author(Some("anna".to_owned())));
        let known = Author::from_request_parts(&mut parts, &()).await;
        assert_eq!(known, Ok(Author(Some("anna".to_owned()))));
    }
}
