//! Frontends and backends: as the settings file declares them, and as the API does.

use jiff::Timestamp;
use mapsmith_core::objects::{Change, Spec};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ReloadOutcome;
use crate::declared::{Fault, Needs};

/// A frontend or backend: the keys of its section of the settings file, and how it stands. Sent
/// back, it is what it was: `status` is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ObjectReport {
    pub name: String,
    /// Whose it is; not there where it is the settings file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The keys of `[[frontend]]` or `[[backend]]`; for all but admins without secrets (`***`).
    #[serde(flatten)]
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    pub keys: Spec,
    /// Not there of what the settings file declares where Mapsmith writes no HAProxy's
    /// configuration: whoever does decides what is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ObjectStatus>,
}

/// How a frontend or backend stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ObjectStatus {
    pub origin: ObjectOrigin,
    pub state: ObjectState,
    /// Why it is in no better state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The number of the change that made it what it is, in hexadecimal digits: its `ETag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Who declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectOrigin {
    /// The settings file: the API does not change it.
    Settings,
    Api,
}

/// Whether HAProxy has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectState {
    InForce,
    /// It is stored, and about to be in force.
    Requested,
    /// It is stored, and something keeps it from being in force.
    Behind,
    /// It is a frontend whose backend is not there: it is rendered once it is.
    Pending,
    /// The settings file has taken its name, or has changed so that it can't be.
    SetAside,
}

impl ObjectState {
    pub fn name(self) -> &'static str {
        match self {
            Self::InForce => "in force",
            Self::Requested => "requested",
            Self::Behind => "behind",
            Self::Pending => "pending",
            Self::SetAside => "set aside",
        }
    }
}

/// `GET /v1/frontends`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ObjectsReport {
    /// The settings file's, then by name.
    pub items: Vec<ObjectReport>,
}

/// The rules of a frontend, in their order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesBody {
    #[schema(value_type = Vec<Object>)]
    pub rules: Vec<Value>,
}

/// `GET /v1/config`: all that is declared through the API. Sent back, it changes nothing, and what an
/// admin reads brings it all back: `status` is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigReport {
    pub frontends: Vec<ObjectReport>,
    pub backends: Vec<ObjectReport>,
    pub status: ConfigStatus,
}

/// What is declared beside that, and how all of it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigStatus {
    /// Of the last change, in hexadecimal digits: the `ETag`.
    pub etag: String,
    /// Of all that is stored.
    pub state: ObjectState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What the settings file declares.
    pub settings: SettingsObjects,
}

/// What the settings file declares: the API changes none of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SettingsObjects {
    pub frontends: Vec<ObjectReport>,
    pub backends: Vec<ObjectReport>,
}

/// `PUT /v1/config`: the body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigBody {
    /// Whose those of these are to be that name no `owner`; without it, of whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub owner: Option<String>,
    /// Each with `name` and the keys of `[[frontend]]`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub frontends: Vec<Spec>,
    /// Each with `name` and the keys of `[[backend]]`.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub backends: Vec<Spec>,
    /// What `GET /v1/config` answers: it is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub status: Option<Value>,
}

/// What a change of what is declared came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigChangeReport {
    /// What it changes, object by object; nothing where all is so already.
    pub changes: Vec<Change>,
    /// What it takes to bring it into force.
    pub needs: Needs,
    /// Whether it is stored, and so outlives everything.
    pub stored: bool,
    /// How bringing it into force ended; none where nothing was to be done.
    pub outcome: Option<ReloadOutcome>,
    /// One sentence for a person.
    pub message: String,
    /// The number of the last change, in hexadecimal digits: the `ETag` of what has changed.
    pub etag: String,
    /// The frontends that wait for a backend.
    pub pending: Vec<String>,
    /// What HAProxy warns of, and ports that another program has, too.
    pub warnings: Vec<Fault>,
    pub milliseconds: f64,
}
