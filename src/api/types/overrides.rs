//! Pins, drains and owners: what is asked for and what is in force.

use mapsmith_core::{DrainedMaster, Pin};
use serde::{Deserialize, Serialize};

/// `GET /v1/overrides`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverridesReport {
    /// Grows with every change.
    pub number: u64,
    /// The pins, sorted by node.
    pub pins: Vec<Pin>,
    /// The drained masters, sorted by name.
    pub drained: Vec<DrainedMaster>,
}

/// `PUT /v1/overrides/{node}`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// The master, by HAProxy's name.
    pub master: String,
    /// For how long, like `2h`, a year at most; without it until the pin is taken away.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
}

/// `PUT /v1/nodes/{node}/owner`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRequest {
    /// The master that the node belongs to, by HAProxy's name.
    pub master: String,
}

/// `POST /v1/masters/{master}/drain`: the body, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The master that gets all the nodes; without it they are spread over the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}
