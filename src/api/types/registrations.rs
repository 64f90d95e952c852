//! Nodes that are registered with Mapsmith itself: what is asked for, and what came of it.

use jiff::Timestamp;
use mapsmith_core::RegistrationCounts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReloadOutcome;

/// `PUT /v1/nodes/{node}`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The master, by HAProxy's name.
    pub master: String,
    /// For how long, like `2h`, a year at most; without it until somebody unregisters it.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /v1/nodes`: one of the nodes, in a JSON array or on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object like {\"node\": \"...\", \"master\": \"...\"}")]
pub struct RegisterNode {
    pub node: String,
    /// The master, by HAProxy's name.
    pub master: String,
    /// As in [`RegisterRequest`].
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// As in [`RegisterRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `DELETE /v1/nodes`: one of the nodes, in a JSON array or on a line of its own. What else a row
/// that registers may say is not looked at, so the body that registered nodes ends that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object like {\"node\": \"...\"}")]
pub struct UnregisterNode {
    pub node: String,
    /// Not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// Not looked at.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Not looked at: the change's own is a parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What came of a registration, or of many, or of its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegistrationReport {
    /// The node, as the map has it; none where there were many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its master; none where it is registered no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// When its registration ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What it does to what is registered.
    #[serde(flatten)]
    pub counts: RegistrationCounts,
    /// Whether it outlives a restart: false after a dry run.
    pub stored: bool,
    /// Whether it is in force; none after a dry run.
    pub outcome: Option<ReloadOutcome>,
    /// Whether the map in force has what was asked for: of all the nodes, where there were many.
    /// None after a dry run, and where it is not decided yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<bool>,
    /// How many of the nodes go elsewhere all the same.
    #[serde(default, skip_serializing_if = "is_none")]
    pub elsewhere_count: usize,
    /// The first of them: where each goes, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<NodeElsewhere>,
    /// After a dry run, why the guard would hold the map that this leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_hold: Option<String>,
    /// One sentence for a person.
    pub message: String,
    /// The revision in force.
    pub revision: Option<u64>,
    /// All in all, in milliseconds.
    pub milliseconds: f64,
}

/// A node that does not go where it is registered to, or still goes where it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeElsewhere {
    /// The node, as the map has it.
    pub node: String,
    /// Its master in the map in force; none where it has no route.
    pub master: Option<String>,
    /// What keeps it there.
    pub why: String,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}
