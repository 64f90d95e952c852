//! What is reported of the HAProxy whose configuration Mapsmith writes. The API and the CLI show
//! it as it is.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::render::verdict::Remark;

/// The HAProxy whose configuration Mapsmith writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HaproxyStatus {
    /// Whether Mapsmith runs the process too.
    pub managed: bool,
    /// The file that is written.
    pub config: String,
    pub state: ConfigState,
    /// The mark of the configuration that the process has loaded; none where it does not answer, or
    /// runs with a file that Mapsmith did not render.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,
    /// Its processes; none where nothing answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessStatus>,
    /// The last reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<ReloadReport>,
    /// Reloads since Mapsmith started or read other settings.
    pub reloads: u64,
    /// Starts of the process likewise.
    pub starts: u64,
    /// The last candidate that HAProxy refused, until one is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedCandidate>,
    /// What keeps its last good form because HAProxy refuses the new one, or is left out where it
    /// has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<Quarantined>,
    /// Where the last external edit of the file was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit_kept: Option<String>,
}

/// How the configuration stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ConfigState {
    /// Not looked at yet.
    Starting,
    /// HAProxy was stopped on purpose.
    Stopped,
    /// The process runs with what the settings declare.
    InForce,
    /// Nothing can be rendered yet.
    Waiting { reason: String },
    /// The file has it, and a reload is due, or waits for its turn.
    ReloadDue { reason: String },
    /// HAProxy refuses it: the last good one stays in force.
    Refused { reason: String },
    /// The file was edited externally, and is left as it is.
    Edited,
    /// It can't be checked, written or loaded.
    Failed { error: String },
}

impl ConfigState {
    /// The names of all states, in metrics.
    pub const LABELS: [&str; 8] =
        ["starting", "stopped", "in_force", "waiting", "reload_due", "refused", "edited", "failed"];

    /// Its name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopped => "stopped",
            Self::InForce => "in_force",
            Self::Waiting { .. } => "waiting",
            Self::ReloadDue { .. } => "reload_due",
            Self::Refused { .. } => "refused",
            Self::Edited => "edited",
            Self::Failed { .. } => "failed",
        }
    }
}

impl fmt::Display for ConfigState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => write!(out, "starting"),
            Self::Stopped => {
                write!(out, "HAProxy was stopped; `mapsmith haproxy start` starts it")
            }
            Self::InForce => write!(out, "in force"),
            Self::Waiting { reason } => write!(out, "waiting: {reason}"),
            Self::ReloadDue { reason } => write!(out, "reload due: {reason}"),
            Self::Refused { reason } => {
                write!(out, "refused, the last good one stays in force: {reason}")
            }
            Self::Edited => write!(
                out,
                "the file was edited externally and is left as it is; see `mapsmith render \
                    --diff`, then `mapsmith render --take-over`"
            ),
            Self::Failed { error } => write!(out, "failed: {error}"),
        }
    }
}

/// HAProxy's processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProcessStatus {
    pub version: String,
    /// The master; none where only the Runtime API's socket is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_pid: Option<u32>,
    /// The worker that takes new connections first, then those of before.
    pub workers: Vec<WorkerStatus>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerStatus {
    pub pid: u32,
    pub age_seconds: u64,
    /// Whether a reload replaced it: it only finishes what it has.
    pub old: bool,
    /// Its connections; none where it does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Whether an old worker was seen to hold the node map and the servers in force, for the
    /// requests that its connections may still bring; none where it is not driven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_sync: Option<bool>,
}

/// A reload, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = HaproxyReload)]
pub struct ReloadReport {
    pub at: Timestamp,
    pub reason: String,
    pub outcome: ReloadOutcome,
    pub milliseconds: f64,
    /// What HAProxy said, where it did not load the configuration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HaproxyReloadOutcome)]
pub enum ReloadOutcome {
    Loaded,
    Refused,
    /// HAProxy ended at it.
    Died,
    /// Nothing told in time what came of it.
    Unknown,
}

impl ReloadOutcome {
    pub const ALL: [Self; 4] = [Self::Loaded, Self::Refused, Self::Died, Self::Unknown];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Refused => "refused",
            Self::Died => "died",
            Self::Unknown => "unknown",
        }
    }
}

/// A candidate that HAProxy refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RefusedCandidate {
    pub at: Timestamp,
    /// The file, for a closer look.
    pub file: String,
    pub remarks: Vec<Remark>,
}

/// Something that keeps its last good form, or is left out where it has none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// Like `backend app`.
    pub object: String,
    pub remarks: Vec<Remark>,
}
