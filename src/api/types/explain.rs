//! Why a node goes where it goes.

use jiff::Timestamp;
use mapsmith_core::desired::ownership::OwnedNode;
use mapsmith_core::{
    BlockedNode, DrainedMaster, HeldChange, Invalid, LearnedRoute, Pin, Registration, RejectedRow,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{GoneNodeReport, HoldReport, NodeElsewhere};

/// `GET /v1/nodes/{node}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExplainReport {
    /// The node, as the map has it.
    pub node: String,
    /// Its master in the map in force.
    pub master: Option<String>,
    /// The revision in force.
    pub revision: Option<u64>,
    /// The latest change of the node that is remembered.
    pub last_change: Option<ExplainChange>,
    /// How the node is registered with Mapsmith itself, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<ExplainRegistration>,
    /// The node's pin: it counts more than the sources.
    pub pin: Option<Pin>,
    /// Since when an operator keeps the node out of the map, whatever the sources say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<BlockedNode>,
    /// The drain of the master that the sources name, where the node has no pin.
    pub drained: Option<DrainedMaster>,
    /// The node's owner, where the registry names another master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnedNode>,
    /// Why the node's master is no target in some instance, and what became of the entry; none
    /// where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Why what is ordered or named for the node is not in the map, where a HAProxy's map refuses
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<RejectedRow>,
    /// Why the node stays where it is although the sources say something else; none where it goes
    /// where they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// Since when no source names the node any more, and until when it stays; none where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<GoneNodeReport>,
    /// What each source says of the node, in order of priority.
    pub sources: Vec<ExplainSource>,
    /// What each instance holds in memory right now.
    pub instances: Vec<ExplainInstance>,
    /// The change of the map that the guard holds back, if any: the map in force may be older than
    /// the sources' answers.
    pub held: Option<HeldChange>,
    /// What a rollback leaves, if any: nothing that the sources say is applied by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldReport>,
}

/// How a node is registered with Mapsmith itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainRegistration {
    #[serde(flatten)]
    pub registration: Registration,
    /// Whether the map in force has it so.
    pub in_force: bool,
    /// Where the node goes all the same, and why; none where the registration is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<NodeElsewhere>,
}

/// The latest change of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainChange {
    /// The revision that brought it.
    pub revision: u64,
    /// When.
    pub at: Timestamp,
    /// The master before.
    pub from: Option<String>,
    /// The master since.
    pub to: Option<String>,
}

/// What a source says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainSource {
    /// The source.
    pub name: String,
    /// The master it names, by HAProxy's name.
    pub master: Option<String>,
    /// Why the node was left out of its answer, if it was.
    pub rejected: Option<Invalid>,
    /// When it last answered; none where it never has.
    pub answered_at: Option<Timestamp>,
    /// Whether this source's answer counts for the node, before overrides.
    pub used: bool,
}

/// What an instance holds of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainInstance {
    /// The instance.
    pub name: String,
    /// The master in its memory.
    pub master: Option<String>,
    /// Why it can't be told, if so.
    pub error: Option<String>,
    /// The route that it learned for the node, which counts before the one in its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedRoute>,
    /// What it should hold in place of the map in force, where it is one of a canary's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<ExplainCanary>,
}

/// What an instance should hold of a node because it is one of a canary's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainCanary {
    /// The rollout.
    pub rollout: String,
    /// The master in its map.
    pub master: Option<String>,
}
