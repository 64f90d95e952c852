//! What the API says and the CLI shows.

use jiff::Timestamp;
use mapsmith_core::desired::references::{Action, Dangling};
use mapsmith_core::learned::LearnedStatus;
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::status::{
    ApplyReport, BackendStatus, InstanceState, InstanceStatus, KeptNodes, MapFileStatus,
    PollReport, ServersState, SourceStatus, StepTiming,
};
use mapsmith_core::{
    DrainedMaster, HeldChange, Invalid, LearnedRoute, Pin, RejectedRow, RejectedRows,
};
use serde::{Deserialize, Serialize};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Mapsmith's version.
    pub version: String,
    /// The revision in force; none before the first.
    pub revision: Option<u64>,
    /// Entries of the map in force.
    pub entries: usize,
    /// Nodes of each master in the map in force, sorted by master.
    pub masters: Vec<MasterLoad>,
    /// What the latest revision changed; none if there was none since Mapsmith started.
    pub last_change: Option<RevisionSummary>,
    /// Required sources that have not answered since the start: until they have, the map file's map
    /// stays in force, or nothing is applied where there is none.
    pub waiting_for: Vec<String>,
    /// The Mapsmith that writes the map file instead of this one, which changes nothing then.
    pub read_only: Option<String>,
    /// The changes that the guard holds back, the map's first.
    pub held: Vec<HeldChange>,
    /// How many nodes are pinned.
    pub pins: usize,
    /// The masters that are drained.
    pub drained: Vec<DrainedMaster>,
    /// Those of them that keep their nodes, because no other master is left.
    pub stuck: Vec<String>,
    /// Nodes that stay where they are because their master goes back and forth.
    #[serde(default)]
    pub flapping: KeptNodes,
    /// Nodes that an answer names with different masters, none of them newer: each stays where it
    /// is.
    #[serde(default)]
    pub conflicts: KeptNodes,
    /// Entries of the map that point nowhere in some instance.
    pub references: ReferencesReport,
    /// Entries that are not in the map because a HAProxy's map refuses them.
    #[serde(default)]
    pub rejected: RejectedRows,
    /// The map file.
    pub map_file: Option<MapFileStatus>,
    /// The sources.
    pub sources: Vec<SourceStatus>,
    /// The number of the desired server lists, which grows with every change of one; none before
    /// the first was accepted.
    pub servers_number: Option<u64>,
    /// The declared backends.
    pub backends: Vec<BackendStatus>,
    /// The instances.
    pub instances: Vec<InstanceStatus>,
}

/// Entries whose master an instance does not have, or that is not ready there: by master, how many
/// nodes have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferencesReport {
    /// Which they are.
    #[serde(flatten)]
    pub dangling: Dangling,
    /// What becomes of those with an unknown master.
    pub unknown_are: Action,
    /// What becomes of those whose master is not ready.
    pub not_ready_are: Action,
}

/// How many nodes a master has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterLoad {
    /// The master, by HAProxy's name.
    pub master: String,
    /// Its nodes.
    pub nodes: usize,
}

/// How a reload, or a change of the overrides, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// The poll was asked for, or the override is stored; nobody waited.
    Requested,
    /// Every instance holds the revision and the servers that the sources' answers led to.
    InSync,
    /// The guard holds the change back; nothing of it was applied.
    Held,
    /// A source gave no good answer: its last good one stays in force.
    SourceFailed,
    /// The change is accepted, but the time was over before every instance was in sync.
    Behind,
    /// The map file can't be written, so no instance gets the change.
    FileFailed,
    /// Another Mapsmith writes the map file, so this one changes nothing.
    ReadOnly,
}

/// `POST /v1/reload`, and every change of the overrides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// How it ended.
    pub outcome: ReloadOutcome,
    /// One sentence for a person.
    pub message: String,
    /// The revision in force.
    pub revision: Option<u64>,
    /// The revisions that came into force meanwhile, with what they changed; empty where nothing
    /// changed.
    pub changes: Vec<RevisionSummary>,
    /// The changes that the guard holds back, the map's first.
    pub held: Vec<HeldChange>,
    /// How each source's poll went.
    pub sources: Vec<ReloadSource>,
    /// How long comparing and writing the map file took.
    pub steps: Vec<StepTiming>,
    /// Where each instance stands.
    pub instances: Vec<ReloadInstance>,
    /// All in all, in milliseconds.
    pub milliseconds: f64,
}

/// A source in a [`ReloadReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadSource {
    /// Its name.
    pub name: String,
    /// Whether a poll that began after the reload was asked for has ended.
    pub answered: bool,
    /// Its last poll that ended.
    pub poll: Option<PollReport>,
    /// Why that one failed, if it did.
    pub error: Option<String>,
}

/// An instance in a [`ReloadReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadInstance {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub state: InstanceState,
    /// Whether it was seen to hold the revision since the reload was asked for.
    pub verified: bool,
    /// Where its server lists stand; none where no backend is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ReloadServers>,
    /// How the revision was brought to it, if it had to be.
    pub apply: Option<ApplyReport>,
}

/// An instance's server lists in a [`ReloadReport`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadServers {
    /// Where they stand.
    #[serde(flatten)]
    pub state: ServersState,
    /// Whether every server that is to be there was seen to be; those that are to go may still
    /// drain.
    pub verified: bool,
    /// What only a reload of HAProxy can bring, and why: one sentence each.
    pub needs_reload: Vec<String>,
}

/// `GET /v1/nodes/{node}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The node, as the map has it.
    pub node: String,
    /// Its master in the map in force.
    pub master: Option<String>,
    /// The revision in force.
    pub revision: Option<u64>,
    /// The latest change of the node that is remembered.
    pub last_change: Option<ExplainChange>,
    /// The node's pin: it counts more than the sources.
    pub pin: Option<Pin>,
    /// The drain of the master that the sources name, where the node has no pin.
    pub drained: Option<DrainedMaster>,
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
    /// What each source says of the node, in order of priority.
    pub sources: Vec<ExplainSource>,
    /// What each instance holds in memory right now.
    pub instances: Vec<ExplainInstance>,
    /// The change of the map that the guard holds back, if any: the map in force may be older than
    /// the sources' answers.
    pub held: Option<HeldChange>,
}

/// The latest change of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// An instance in `GET /v1/learned`: the routes that it learned and the map does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedReport {
    /// The instance.
    pub instance: String,
    /// Its stick table at a probe.
    #[serde(flatten)]
    pub status: LearnedStatus,
    /// The routes, sorted by node; at most `learned.max`.
    #[serde(rename = "nodes")]
    pub routes: Vec<LearnedRoute>,
}

/// `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether there is a desired map and at least one instance holds it.
    pub ready: bool,
    /// What is missing, one sentence each.
    pub missing: Vec<String>,
}

/// `POST /v1/held/approve`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// The id of the held change.
    pub id: String,
}

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

/// `POST /v1/masters/{master}/drain`: the body, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// The master that gets all the nodes; without it they are spread over the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// An error answer (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong and what to do.
    pub detail: String,
    /// A reload or an override that did not end well, in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<ReloadReport>>,
}
