//! How a reload or a change of the overrides went.

use mapsmith_core::HeldChange;
use mapsmith_core::history::Shift;
use mapsmith_core::revision::{ChangeCounts, RevisionSummary};
use mapsmith_core::status::{ApplyReport, InstanceState, PollReport, ServersState, StepTiming};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MasterShare;

/// How a reload, or a change of the overrides, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReloadOutcome {
    /// The poll was asked for, or the override is stored; nobody waited.
    Requested,
    /// Every instance holds the revision and the servers that the sources' answers led to, and what
    /// was read of certificates and CRLs.
    InSync,
    /// The guard holds the change back, or a part of it.
    Held,
    /// A source, or what a certificate or CRL comes from, gave no good answer: the last good one
    /// stays in force.
    SourceFailed,
    /// The change is accepted, but the time was over before every instance was in sync.
    Behind,
    /// The map file can't be written, so no instance gets the change.
    FileFailed,
    /// Another Mapsmith writes the map file, so this one changes nothing.
    ReadOnly,
}

/// `POST /v1/reload`, and every change of the overrides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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

/// What a change of the map would come to: the answer to `dry_run=true`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DryRunReport {
    /// Always true.
    pub dry_run: bool,
    /// Always false: nothing is changed.
    pub stored: bool,
    /// One sentence for a person.
    pub message: String,
    /// The revision in force.
    pub revision: u64,
    pub counts: ChangeCounts,
    /// How many nodes would go from which master to which one, the most first.
    pub shift: Vec<Shift>,
    /// Each master's part before and after, sorted by master.
    pub masters: Vec<MasterShare>,
}

/// A source in a [`ReloadReport`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
