//! Pins, blocked nodes, drains and owners: what is asked for and what is in force.

use mapsmith_core::{BlockedNode, DrainedMaster, Pin, ServerOverride};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/overrides`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OverridesReport {
    /// Grows with every change.
    pub number: u64,
    /// The pins, sorted by node.
    pub pins: Vec<Pin>,
    /// The nodes that are in no map, sorted by node.
    #[serde(default)]
    pub blocked: Vec<BlockedNode>,
    /// The drained masters, sorted by name.
    pub drained: Vec<DrainedMaster>,
    /// What is ordered of servers, sorted by backend and server.
    #[serde(default)]
    pub servers: Vec<ServerOverride>,
}

/// `GET /v1/overrides/{node}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum NodeOverride {
    Pin(Pin),
    Absent {
        /// Always true: the node is in no map.
        absent: bool,
        #[serde(flatten)]
        blocked: BlockedNode,
    },
}

/// Which override of a node is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverrideKind {
    Pin,
    Absent,
}

/// `PUT /v1/overrides/{node}`: the body, with a master or with `absent`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OverrideRequest {
    /// The master, by HAProxy's name: the node goes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// The node is in no map.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// For how long, like `2h`, a year at most; without it until it is taken away.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `PUT /v1/nodes/{node}/owner`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnRequest {
    /// The master that the node belongs to, by HAProxy's name.
    pub master: String,
}

/// `POST /v1/masters/{master}/drain`: the body, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The master that gets all the nodes; without it they are spread over the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
