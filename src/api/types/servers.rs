//! Backends, their servers, and what an operator has ordered of these.

use mapsmith_core::overrides::{OrderedState, ServerOverride};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{ObjectReport, ObjectStatus, ReloadOutcome, VersionReport};

/// `GET /v1/backends`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendsReport {
    /// The declared backends, in the order of the settings.
    pub items: Vec<BackendSummary>,
}

/// A declared backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendSummary {
    pub backend: String,
    /// Where its list comes from.
    pub from: String,
    /// How many servers it should have; none before its list is known.
    pub servers: Option<usize>,
    /// How many servers have an override.
    pub overrides: usize,
    /// The version of its members; not there where its servers are no members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionReport>,
    /// How it stands as it is declared; not there where a registry's service declares it, or where
    /// Mapsmith writes no HAProxy's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ObjectStatus>,
}

/// `GET /v1/backends/{backend}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendReport {
    pub backend: String,
    /// Where its list comes from.
    pub from: String,
    /// What has not spoken since Mapsmith's start, if its list is not known for that.
    pub waiting_for: Option<String>,
    /// By name: those that are listed, that an instance has, and that have an override.
    pub servers: Vec<ServerReport>,
    /// As it is declared, and as a `PUT` takes it; not there where a registry's service declares
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ObjectReport>,
}

/// A server of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerReport {
    pub server: String,
    /// Where it comes from: the backend's list, or `haproxy` where only a HAProxy has it. None
    /// where nobody has it: its override counts once somebody does.
    pub from: Option<String>,
    /// The listed address.
    pub address: Option<String>,
    /// The listed weight.
    pub weight: Option<u16>,
    /// Whether an operator has drained the master that it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drained: bool,
    /// What an operator has ordered of it.
    #[serde(rename = "override")]
    pub ordered: Option<ServerOverride>,
    /// Whether it has an override that does not count, for nobody has the server now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dormant: bool,
    /// How each instance has it, right now.
    pub instances: Vec<ServerInstance>,
}

/// A server in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerInstance {
    pub instance: String,
    /// None where the instance does not have it, or can't be asked.
    pub state: Option<OrderedState>,
    /// What HAProxy calls it, where it has it in a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// Whether it would be sent requests by its health checks.
    pub up: bool,
    /// In the words of HAProxy's `show stat`.
    pub status: Option<String>,
    pub address: Option<String>,
    pub weight: Option<u16>,
    pub sessions: Option<u64>,
    /// Why the instance can't be asked, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `PUT /v1/backends/{backend}/servers/{server}`: the body. What it does not name stays as it is,
/// and `null` takes it away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerRequest {
    #[serde(default, deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub state: Option<Option<OrderedState>>,
    /// 0 to 256.
    #[serde(default, deserialize_with = "named", skip_serializing_if = "Option::is_none")]
    pub weight: Option<Option<u16>>,
    /// For how long, like `2h`, a year at most.
    #[serde(
        default,
        rename = "for",
        deserialize_with = "named",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration: Option<Option<String>>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A field that is there, be it `null`.
fn named<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// What a change of a server came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerChangeReport {
    pub backend: String,
    /// By the name that the list has, or HAProxy where nobody lists it.
    pub server: String,
    /// What is ordered of it after the change.
    #[serde(rename = "override")]
    pub ordered: Option<ServerOverride>,
    /// Whether the change is stored, and so outlives everything.
    pub stored: bool,
    /// How bringing it into force ended; none where nothing was to be done.
    pub outcome: Option<ReloadOutcome>,
    /// One sentence for a person.
    pub message: String,
    /// How each instance has it afterwards; empty where nobody waited.
    pub instances: Vec<ServerInstance>,
}
