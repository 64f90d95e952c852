//! Rollbacks, the hold that they leave, and rejected changes.

use mapsmith_core::desired::hold::{Hold, Rejected};
use mapsmith_core::history::Shift;
use mapsmith_core::revision::ChangeCounts;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{CanaryRequest, ReloadReport, RolloutReport};

/// `POST /v1/revisions/{n}/rollback`: the body, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the sources are held back, like `2h`, a week at most; an hour without it. `null`
    /// is until somebody resumes, which takes an admin.
    #[serde(
        default,
        rename = "for",
        deserialize_with = "given",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration: Option<Option<String>>,
    /// Take the place of a rollback that holds the sources back already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Where it goes first; without it everywhere at once. The sources are held back once it has
    /// gone everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRequest>,
}

/// `null` is something else than nothing.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// What `POST /v1/revisions/{n}/rollback` came to, or would come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RollbackReport {
    /// Always `rollback`.
    pub kind: String,
    /// The revision that was rolled back to.
    pub of: u64,
    /// The revision that was in force before.
    pub from: u64,
    /// Nothing was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whether it outlives a restart.
    pub stored: bool,
    pub counts: ChangeCounts,
    /// How many nodes go from which master to which one, the most first.
    pub shift: Vec<Shift>,
    /// Each master's part before and after, sorted by master.
    pub masters: Vec<MasterShare>,
    /// What holds the sources back since; none in a dry run.
    pub hold: Option<HoldReport>,
    /// The canary that it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutReport>,
    /// How it arrived; none in a dry run.
    #[serde(flatten)]
    pub report: Option<ReloadReport>,
}

/// A master's part of the map before and after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MasterShare {
    pub master: String,
    /// Its nodes.
    pub before: usize,
    pub after: usize,
    /// Of all nodes.
    pub share_before: f64,
    pub share_after: f64,
}

/// `GET /v1/hold`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldsReport {
    /// None while the sources are followed.
    pub hold: Option<HoldReport>,
    /// The answer that is not applied while the sources say it; none where there is none.
    pub rejected: Option<Rejected>,
}

/// What a rollback leaves: nothing that the sources say is applied by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldReport {
    #[serde(flatten)]
    pub hold: Hold,
    /// What the sources' answer would change of what is in force.
    pub waiting: ChangeCounts,
    /// Why the latest of it could not be stored, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// One sentence for a person.
    pub text: String,
}

/// `POST /v1/held/{id}/approve` and `POST /v1/held/{id}/reject`: the body, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictRequest {
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
