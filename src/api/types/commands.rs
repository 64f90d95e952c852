//! Commands that are run on nodes: which there are, what is asked for, and what came of it.

use std::collections::BTreeMap;

use mapsmith_core::commands::{Method, Outcome, Request};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/commands`: which there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandsReport {
    /// Whether any can be run: the settings have `[commands]`.
    pub enabled: bool,
    /// In the settings' order.
    pub items: Vec<CommandInfo>,
}

/// A command of the settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandInfo {
    pub name: String,
    pub method: Method,
    /// With `{node}` in it.
    pub path: String,
    pub params: Vec<CommandParam>,
    /// How long it may take, like `1m`.
    pub timeout: String,
    /// How much is kept of the master's answer.
    pub max_bytes: usize,
    /// Whether whoever asks may run it.
    pub granted: bool,
}

/// What may be given with a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandParam {
    pub name: String,
    /// The regular expression that the whole value must match.
    pub pattern: String,
    /// The value where none is given; none where one must be.
    pub default: Option<String>,
    /// Whether values are shown as `***` wherever they stand, the default too.
    #[serde(default)]
    pub secret: bool,
}

/// `POST /v1/nodes/{node}/commands`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunCommandRequest {
    /// The command's name.
    pub command: String,
    /// Values of its parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of a command, or would be sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunCommandReport {
    /// Its id, which the master has in `X-Command-Id`; none after a dry run.
    pub id: Option<String>,
    pub command: String,
    /// As the map has it.
    pub node: String,
    /// The node's master in the map in force.
    pub master: String,
    /// What is sent, in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// None after a dry run.
    pub outcome: Option<Outcome>,
    /// The master's status; none where it gave no answer.
    pub status: Option<u16>,
    /// What the master said, as text: bytes that are no UTF-8 are replaced.
    pub output: Option<String>,
    /// Whether the master said more than that.
    pub truncated: bool,
    /// One sentence for a person.
    pub message: String,
    /// All in all, in milliseconds.
    pub milliseconds: f64,
}
