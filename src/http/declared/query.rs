//! The parts of such a request's line.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::api::requests;
use crate::http::error::HttpError;
use crate::http::registrations::Missing;
use crate::http::request::{QueryParameters, Reason, name};

/// What the declaration of a frontend or backend may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct DeclareQuery {
    /// How long to wait until HAProxy runs with it, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(in crate::http) wait: Option<String>,
    /// It is checked, and nothing is stored.
    #[serde(default)]
    pub(in crate::http) dry_run: bool,
    /// What is another owner's may be taken over by the owner that the body names.
    #[serde(default)]
    pub(in crate::http) force: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for DeclareQuery {
    const KNOWN: &str = "the parameters are wait, dry_run, force and reason";
}

/// What the end of such a declaration may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct UndeclareQuery {
    /// How long to wait until HAProxy runs without it, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(in crate::http) wait: Option<String>,
    /// It is checked, and nothing is stored.
    #[serde(default)]
    pub(in crate::http) dry_run: bool,
    /// Frontends that send requests there wait until it is there again.
    #[serde(default)]
    pub(in crate::http) force: bool,
    /// That it is not declared is no failure.
    pub(in crate::http) missing: Option<Missing>,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for UndeclareQuery {
    const KNOWN: &str = "the parameters are wait, dry_run, force, missing (ok) and reason";
}

/// What a whole configuration may be given.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ConfigQuery {
    /// `owner`: what the document's owner declared before, and it does not have, goes.
    pub(in crate::http) prune: Option<Prune>,
    /// How long to wait until HAProxy runs with it, up to 10m.
    #[param(pattern = "^([1-9][0-9]{0,4}ms|[1-9][0-9]?s|[1-9]m|10m)$")]
    pub(in crate::http) wait: Option<String>,
    /// It is checked, and nothing is stored.
    #[serde(default)]
    pub(in crate::http) dry_run: bool,
    /// Frontends may be left without a backend: they wait until it is there again. What is another
    /// owner's may be taken over.
    #[serde(default)]
    pub(in crate::http) force: bool,
    /// Why: one line, for the audit and for whoever asks later.
    #[serde(default, rename = "reason")]
    #[param(value_type = Option<String>, max_length = 500)]
    _reason: Reason,
}

impl QueryParameters for ConfigQuery {
    const KNOWN: &str = "the parameters are prune (owner), wait, dry_run, force and reason";
}

/// What a whole configuration may be given that is only checked.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct CheckQuery {
    /// `owner`: as if what the document's owner declared before, and it does not have, went.
    pub(in crate::http) prune: Option<Prune>,
    /// As if frontends might be left without a backend, and what is another owner's be taken over.
    #[serde(default)]
    pub(in crate::http) force: bool,
}

impl QueryParameters for CheckQuery {
    const KNOWN: &str = "the parameters are prune (owner) and force; nothing is stored anyway";
}

/// What goes that a document does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::http) enum Prune {
    /// What its owner declared.
    Owner,
}

/// Which text of HAProxy's configuration.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct CandidateQuery {
    /// With all that is stored, whether it is about to be in force or not.
    #[serde(default)]
    pub(in crate::http) candidate: bool,
}

impl QueryParameters for CandidateQuery {
    const KNOWN: &str = "the only parameter is candidate";
}

/// The name of a frontend, whether there is one or not.
pub(in crate::http) struct FrontendName(pub(in crate::http) String);

impl<S: Send + Sync> FromRequestParts<S> for FrontendName {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        Ok(Self(requests::haproxy_name("frontend", name(parts, state).await?)?))
    }
}
