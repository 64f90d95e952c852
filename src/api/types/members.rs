//! Members by name and version, and the versions that backends have.

use jiff::Timestamp;
use mapsmith_core::members::{BackendVersion, Meta, SwitchPhase};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReloadOutcome;

/// `PUT /v1/registrations/{name}/{version}/{host}/{port}`: the body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterMemberRequest {
    /// What it says of itself: an object of at most 8 KiB that is kept and shown.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub meta: Meta,
    /// How long it may be silent, `1s` to `24h`; without it until somebody unregisters it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    Registered,
    /// It was silent for too long.
    Expired,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberReport {
    /// `/NAME/VERSION/HOST/PORT`.
    pub id: String,
    pub name: String,
    pub version: String,
    pub host: String,
    pub port: u16,
    /// What its server is called in backends.
    pub server: String,
    #[schema(value_type = Object)]
    pub meta: Meta,
    pub state: MemberState,
    /// Since when it is registered.
    pub since: Timestamp,
    /// How long it may be silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// When its time is over, unless it is heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was found silent for too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired_at: Option<Timestamp>,
    /// The backends that keep it although it is expired: the guard or the damping holds that back,
    /// or it is their last server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_by: Vec<String>,
    /// Who registered it, where the API knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// `GET /v1/registrations`, and of a name, or of a version of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MembersReport {
    /// How many there are on all pages.
    pub total: usize,
    /// The page, sorted by name, version, host and port.
    pub items: Vec<MemberReport>,
    /// What `after` is for the next page; none on the last one.
    pub next: Option<String>,
}

/// What a change of a member came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemberEffect {
    Registered,
    /// It says something else of itself.
    Changed,
    /// It is still there.
    CheckedIn,
    Unregistered,
    /// There was none to unregister.
    Missing,
}

/// What came of a change of a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberChangeReport {
    /// `/NAME/VERSION/HOST/PORT`.
    pub id: String,
    pub effect: MemberEffect,
    /// When its time is over, unless it is heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// How often it should be heard of: a third of its `ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_in: Option<String>,
    /// Whether it outlives a restart: false after a dry run.
    pub stored: bool,
    /// Whether it is in force; none after a dry run.
    pub outcome: Option<ReloadOutcome>,
    /// One sentence for a person.
    pub message: String,
    pub milliseconds: f64,
}

/// The version of its members that a backend has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionReport {
    #[serde(flatten)]
    pub version: BackendVersion,
    /// Why its switch is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// A version of what is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberVersion {
    pub version: String,
    /// How many members are registered.
    pub members: usize,
    /// How many were silent for too long.
    pub expired: usize,
    /// How many of them are ready in every instance that can be reached; none where none can.
    pub ready: Option<usize>,
}

/// `GET /v1/backends/{backend}/versions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionsReport {
    /// What the backend has.
    pub current: VersionReport,
    /// What is registered by its name, each version once.
    pub items: Vec<MemberVersion>,
}

/// `POST /v1/backends/{backend}/switch`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwitchRequest {
    #[schema(min_length = 1, max_length = 100)]
    pub version: String,
    /// How many of its members must be ready, where not all become so within 10 s; without it all
    /// must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub min_ready: Option<u32>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of a switch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SwitchReport {
    pub backend: String,
    pub version: String,
    /// The version before: the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How many servers come in.
    pub added: usize,
    /// How many leave, once the others are ready.
    pub leaving: usize,
    pub phase: SwitchPhase,
    /// Whether it outlives a restart: false after a dry run.
    pub stored: bool,
    /// Whether it is in force; none after a dry run.
    pub outcome: Option<ReloadOutcome>,
    /// One sentence for a person.
    pub message: String,
    pub milliseconds: f64,
}
