//! What Mapsmith reports of its sources and instances. The API and the CLI show these as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use haproxy_runtime::{ProcessInfo, RuntimeAddress};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::learned::LearnedStatus;
use crate::overrides::ServerOverride;
use crate::revision::{ChangeCounts, HeldChange};
use crate::server::Server;
use crate::server::list::RejectedServer;
use crate::server::shown::without_secrets;
use crate::snapshot::Rejections;
use crate::tls_file::InstanceTlsFile;

/// One timed part of a poll or an apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepTiming {
    /// What was done: `prepare`, `stage`, `verify`, `commit`, ...
    pub step: String,
    pub milliseconds: f64,
}

impl StepTiming {
    /// A step and its duration, rounded to a microsecond.
    pub fn new(step: impl Into<String>, took: Duration) -> Self {
        Self { step: step.into(), milliseconds: milliseconds(took) }
    }
}

/// A duration in milliseconds, rounded to a microsecond.
pub fn milliseconds(took: Duration) -> f64 {
    took.as_micros() as f64 / 1000.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PollKind {
    /// The whole content.
    Full,
    /// Only what changed since the last poll.
    Delta,
    /// The source said that nothing changed (304, or an untouched file).
    Unchanged,
}

/// Whether a source notices changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// A change is noticed at once.
    Watched,
    /// A change is noticed at the next poll.
    PolledOnly,
}

impl fmt::Display for Watch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Watched => "watched",
            Self::PolledOnly => "polled only",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceStatus {
    pub name: String,
    /// Its type, as in the settings: `puppetdb`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether nothing may happen before it has answered once.
    pub required: bool,
    /// Entries in its last good answer; none before the first.
    pub entries: Option<usize>,
    pub rejections: Rejections,
    /// When it last gave a good answer.
    pub answered_at: Option<Timestamp>,
    /// Why the last poll failed, if it did: the last good answer stays in force meanwhile.
    pub error: Option<String>,
    /// What is wrong although it answers, and what that costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// Whether it notices changes by itself; none where it has no way to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    pub last_poll: Option<PollReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PollReport {
    /// What it brought; none where it failed.
    pub kind: Option<PollKind>,
    pub at: Timestamp,
    pub milliseconds: f64,
    /// Bytes of the answer's body after decompression.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Not reached yet since Mapsmith started.
    Starting,
    /// It answers; there is no desired map yet.
    Connected,
    /// It answers; there is no node map to keep.
    NoMap,
    /// Its memory was seen to hold this revision.
    InSync { revision: u64 },
    /// It answers but does not hold the wanted revision.
    Behind { wanted: u64, reason: String },
    /// It can't be reached, or accepts and never answers.
    Unreachable { since: Timestamp, error: String },
    /// It answers but will not take our commands: the socket's level, or a map it does not know.
    Refused { reason: String },
}

impl InstanceState {
    /// Whether it holds what it should.
    pub fn is_in_sync(&self) -> bool {
        matches!(self, Self::InSync { .. } | Self::NoMap)
    }

    /// The state without its reason, which may hold paths and addresses.
    pub fn in_brief(&self) -> String {
        match self {
            Self::Starting | Self::Connected | Self::NoMap | Self::InSync { .. } => {
                self.to_string()
            }
            Self::Behind { wanted, .. } => format!("behind revision {wanted}"),
            Self::Unreachable { since, .. } => format!("unreachable since {since:.0}"),
            Self::Refused { .. } => "refused".to_owned(),
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(out, "starting"),
            Self::Connected => write!(out, "connected, no map wanted yet"),
            Self::NoMap => write!(out, "in sync (no node map)"),
            Self::InSync { revision } => write!(out, "in sync with revision {revision}"),
            Self::Behind { wanted, reason } => write!(out, "behind revision {wanted}: {reason}"),
            Self::Unreachable { since, error } => {
                write!(out, "unreachable since {since:.0}: {error}")
            }
            Self::Refused { reason } => write!(out, "refused: {reason}"),
        }
    }
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// HAProxy was restarted or reloaded and its memory was not the desired map.
    Restarted,
    /// The map in memory was changed outside Mapsmith.
    MapChanged,
    /// A key stood in memory more than once.
    Duplicates,
    /// Staged versions that nobody commits.
    AbandonedVersions,
    /// The map file was lost or changed outside Mapsmith.
    MapFile,
}

impl DriftKind {
    /// The kinds that an instance can show.
    pub const OF_AN_INSTANCE: [Self; 4] =
        [Self::Restarted, Self::MapChanged, Self::Duplicates, Self::AbandonedVersions];

    pub fn label(self) -> String {
        crate::label(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Single `add`, `set` and `del` commands, several a line.
    Edits,
    /// A whole new version: staged, verified, committed.
    Swap,
}

impl Strategy {
    pub fn label(self) -> String {
        crate::label(self)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplyReport {
    pub revision: u64,
    /// When it was verified.
    pub at: Timestamp,
    pub strategy: Strategy,
    /// Why that way: the cost model's figures.
    pub reason: String,
    #[serde(flatten)]
    pub counts: ChangeCounts,
    pub steps: Vec<StepTiming>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStatus {
    pub name: String,
    #[schema(value_type = String)]
    pub runtime: RuntimeAddress,
    #[serde(flatten)]
    pub state: InstanceState,
    /// Since when it is in a state of this name.
    #[serde(default)]
    pub state_since: Timestamp,
    pub process: Option<ProcessInfo>,
    /// Entries in its memory when it last answered, all versions counted.
    pub entries_in_memory: Option<u64>,
    /// When its whole map was last read back and found right.
    pub verified_at: Option<Timestamp>,
    /// What was found to differ and corrected since Mapsmith started.
    pub drift_corrected: BTreeMap<DriftKind, u64>,
    /// When that was last something else than a restart of HAProxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_at: Option<Timestamp>,
    pub last_apply: Option<ApplyReport>,
    /// Its declared backends; none before they were first seen, and where none is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServersStatus>,
    /// Its files of certificates and revocations that the settings name, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_files: Vec<InstanceTlsFile>,
    /// Its stick table of learned routes; none without `[learned]`, and until its map was first in
    /// sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<LearnedStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ServersState {
    /// Every declared backend is as it should be.
    InSync,
    /// Steps are left: servers drain, or wait for routes to leave them.
    Working,
    /// What is left can't be done at runtime; see [`ServersStatus::needs_reload`].
    NeedsReload,
    /// The lists could not be seen or changed.
    Failed { error: String },
}

impl fmt::Display for ServersState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => write!(out, "servers in sync"),
            Self::Working => write!(out, "servers are being changed"),
            Self::NeedsReload => write!(out, "servers need a reload of HAProxy"),
            Self::Failed { error } => write!(out, "servers: {error}"),
        }
    }
}

/// The most steps, causes and servers of one kind that a status lists.
pub const LISTED_SERVERS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServersStatus {
    #[serde(flatten)]
    pub state: ServersState,
    /// When they were last seen; Mapsmith's start where they never were.
    pub observed_at: Timestamp,
    /// What only a reload of HAProxy can bring, and why: one sentence each.
    pub needs_reload: Vec<String>,
    /// Servers on their way out, and how far each is: one sentence each.
    pub removing: Vec<String>,
    /// Servers that somebody else put into maintenance or drain; they stay as they are.
    pub external: Vec<String>,
    /// Servers that were made ready and whose health check has yet to pass: one sentence each.
    #[serde(default)]
    pub checking: Vec<String>,
    /// Servers whose weight is their agent's, and not the listed one: one sentence each.
    #[serde(default)]
    pub by_agent: Vec<String>,
    /// Servers of declared backends that are not Mapsmith's.
    pub foreign: usize,
    /// The latest steps, oldest first.
    pub last_steps: Vec<String>,
    /// How many steps were carried out since Mapsmith started.
    pub steps: u64,
}

/// A declared backend: which servers it should have, and what stands between its list and that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendStatus {
    pub name: String,
    /// Where its servers come from: `settings` (written out), `node map` (its masters), or
    /// `source NAME`, with the keys of the backend's `from`.
    pub from: String,
    /// The servers it should have, by name; none before its list was known and accepted, and until
    /// then it is not touched. While something is waited for, those that were in force before
    /// Mapsmith's start, where a store has them. Their options are shown without credentials.
    #[serde(serialize_with = "without_secrets")]
    pub servers: Option<Vec<Server>>,
    /// What has not spoken since Mapsmith's start, if its list is not known for that.
    pub waiting_for: Option<String>,
    /// Since when these servers are in force, while they are those of a store and something is
    /// waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_since: Option<Timestamp>,
    /// When whoever lists its servers last said that these are the list; none where that is not
    /// known. Of a written-out list, when the settings were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_at: Option<Timestamp>,
    /// What of the list is left out, the first 1000 rows.
    pub rejected: Vec<RejectedServer>,
    /// How many rows are left out.
    #[serde(default)]
    pub rejected_count: u64,
    /// How many listed servers are left out because there are more than `max_servers`.
    #[serde(default, skip_serializing_if = "is_none")]
    pub beyond_max: usize,
    /// Host names that do not resolve right now, and keep their last address.
    pub stale: Vec<RejectedServer>,
    pub held: Option<HeldChange>,
    /// When the changes that wait for the list to be quiet come into force at the latest, as things
    /// stand.
    pub change_due: Option<Timestamp>,
    /// Servers that are no longer listed and stay for a while, in the order of the times at which
    /// they may go.
    pub leaving: Vec<LeavingServer>,
    /// What an operator has ordered of its servers, listed or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ordered: Vec<ServerOverride>,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeavingServer {
    pub name: String,
    /// The earliest time it may go: `damping.max_removed` may keep it for longer. None where it
    /// stays because it is the last one.
    pub due: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MapFileStatus {
    pub path: String,
    /// The revision that was last written or found right; none before.
    pub revision: Option<u64>,
    /// Why it can't be written, if so: no instance gets a revision that is not in the file.
    pub error: Option<String>,
    /// How often a lost or changed file was corrected since Mapsmith started.
    pub corrected: u64,
    /// When that was last so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrected_at: Option<Timestamp>,
}

/// The most nodes of one kind that a status names.
pub const NAMED_NODES: usize = 100;

/// Nodes that stay where they are although the sources say something else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptNodes {
    pub count: usize,
    /// The first [`NAMED_NODES`] of them, by name.
    pub nodes: Vec<KeptNode>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptNode {
    pub node: String,
    /// The master that it stays with, before overrides.
    pub master: String,
    /// The master that the sources name.
    pub said: String,
}
