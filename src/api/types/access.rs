//! Who may ask, and who changed what.

use jiff::Timestamp;
use mapsmith_core::access::{Grant, Identity, Role};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::AuditRow;

/// `GET /v1/about`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct About {
    /// Mapsmith's version.
    pub version: String,
    /// `site.name`.
    pub site: Option<String>,
    /// `api.external_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_url: Option<String>,
    /// Who asks.
    pub identity: Identity,
    pub limits: Limits,
    /// Whether there is a store, without which there are no tokens and no audit.
    pub store: bool,
}

/// How often each may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limits {
    pub reads: Limit,
    pub changes: Limit,
    /// Logins and logouts of one token.
    pub logins: Limit,
    /// Wrong tokens of one address.
    pub failed_logins: Limit,
}

/// So many at once, and so many a minute after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Limit {
    pub burst: u32,
    pub per_minute: u32,
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    pub name: String,
    pub role: Role,
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub grants: Vec<Grant>,
    /// How long it is good; until it is revoked where nothing is said.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenReport {
    pub id: String,
    pub name: String,
    pub role: Role,
    #[schema(value_type = Vec<String>)]
    pub grants: Vec<Grant>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    /// A minute too old at most.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    /// Whether it admits anybody now.
    pub valid: bool,
}

/// A token that was just made, or has another secret now.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewTokenReport {
    /// The token itself. It is shown once.
    pub token: String,
    #[serde(flatten)]
    pub about: TokenReport,
}

/// `GET /v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokensReport {
    pub items: Vec<TokenReport>,
}

/// The body of `POST /v1/session`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    pub token: String,
}

/// `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The newest first.
    pub items: Vec<AuditRow>,
    /// What `after` is for the next page; none at the end.
    pub next: Option<String>,
}
