//! What Mapsmith tells about its sources and instances. The API and the CLI show these as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::address::RuntimeAddress;
use super::revision::ChangeCounts;
use super::snapshot::Rejections;

/// One timed part of a poll or an apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTiming {
    /// What was done: `prepare`, `stage`, `verify`, `commit`, ...
    pub step: String,
    /// How long it took, in milliseconds.
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

/// What a poll brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollKind {
    /// The whole content.
    Full,
    /// Only what changed since the last poll.
    Delta,
    /// The source said that nothing changed (304, or an untouched file).
    Unchanged,
}

/// A source as the poller sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name in the settings.
    pub name: String,
    /// Its type: `puppetdb`, `http_json`, `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether nothing may happen before it has answered once.
    pub required: bool,
    /// Entries in its last good answer; none before the first.
    pub entries: Option<usize>,
    /// What was left out of that answer.
    pub rejections: Rejections,
    /// When it last gave a good answer.
    pub answered_at: Option<Timestamp>,
    /// Why the last poll failed, if it did: the last good answer stays in force meanwhile.
    pub error: Option<String>,
    /// How the last poll went; none before the first one ended.
    pub last_poll: Option<PollReport>,
}

/// How one poll went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PollReport {
    /// What it brought; none where it failed.
    pub kind: Option<PollKind>,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub milliseconds: f64,
    /// Bytes of the answer's body after decompression.
    pub bytes: u64,
}

/// Where an instance stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Not reached yet since Mapsmith started.
    Starting,
    /// It answers; there is no desired map yet.
    Connected,
    /// Its memory was seen to hold this revision.
    InStep {
        /// The revision held.
        revision: u64,
    },
    /// It answers but does not hold the wanted revision.
    Behind {
        /// The revision wanted.
        wanted: u64,
        /// Why.
        reason: String,
    },
    /// It can't be reached, or accepts and never answers.
    Unreachable {
        /// Since when.
        since: Timestamp,
        /// The error.
        error: String,
    },
    /// It answers but will not take our commands: the socket's level, or a map it does not know.
    Refused {
        /// What it refused and what to do.
        reason: String,
    },
}

impl fmt::Display for InstanceState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(out, "starting"),
            Self::Connected => write!(out, "connected, no map wanted yet"),
            Self::InStep { revision } => write!(out, "in step with revision {revision}"),
            Self::Behind { wanted, reason } => write!(out, "behind revision {wanted}: {reason}"),
            Self::Unreachable { since, error } => write!(out, "unreachable since {since:.0}: {error}"),
            Self::Refused { reason } => write!(out, "refused: {reason}"),
        }
    }
}

/// What was found to differ from what should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftKind {
    /// HAProxy was restarted or reloaded and its memory was not the desired map.
    Restarted,
    /// The map in memory was changed behind our back.
    MapChanged,
    /// A key stood in memory more than once.
    Duplicates,
    /// Staged versions that nobody commits.
    AbandonedVersions,
    /// The map file was lost or changed behind our back.
    MapFile,
}

impl DriftKind {
    /// The kinds that an instance can show.
    pub const OF_AN_INSTANCE: [Self; 4] = [Self::Restarted, Self::MapChanged, Self::Duplicates, Self::AbandonedVersions];

    /// The kind as a metric label and in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::MapChanged => "map_changed",
            Self::Duplicates => "duplicates",
            Self::AbandonedVersions => "abandoned_versions",
            Self::MapFile => "map_file",
        }
    }
}

/// How a change was brought into HAProxy's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Single `add`, `set` and `del` commands, several a line.
    Edits,
    /// A whole new version: staged, verified, committed.
    Swap,
}

impl Strategy {
    /// The strategy as a metric label and in JSON.
    pub fn label(self) -> &'static str {
        match self {
            Self::Edits => "edits",
            Self::Swap => "swap",
        }
    }
}

/// How the last change of an instance went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// The revision that it brought.
    pub revision: u64,
    /// When it was verified.
    pub at: Timestamp,
    /// How.
    pub strategy: Strategy,
    /// Why that way: the cost model's figures.
    pub reason: String,
    /// What it changed in this instance's memory.
    #[serde(flatten)]
    pub counts: ChangeCounts,
    /// The steps with their durations, in order.
    pub steps: Vec<StepTiming>,
}

/// The HAProxy process behind a socket, from `show info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its version as it names it: `2.6.12-1+deb12u1`.
    pub version: String,
    /// The worker's process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
}

/// An instance as its task sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its name in the settings.
    pub name: String,
    /// Its socket.
    pub runtime: RuntimeAddress,
    /// Where it stands.
    #[serde(flatten)]
    pub state: InstanceState,
    /// The process that last answered.
    pub process: Option<ProcessInfo>,
    /// Entries in its memory when it last answered, all versions counted.
    pub entries_in_memory: Option<u64>,
    /// When its whole map was last read back and found right.
    pub verified_at: Option<Timestamp>,
    /// What was found to differ and healed since Mapsmith started.
    pub drift_healed: BTreeMap<DriftKind, u64>,
    /// The last change brought to it.
    pub last_apply: Option<ApplyReport>,
}

/// The map file on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MapFileStatus {
    /// Its path.
    pub path: String,
    /// The revision that was last written or found right; none before.
    pub revision: Option<u64>,
    /// Why it can't be written, if so: no instance gets a revision that is not in the file.
    pub error: Option<String>,
    /// How often a lost or changed file was put right since Mapsmith started.
    pub healed: u64,
}
