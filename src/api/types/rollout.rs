//! Rollouts: a revision that goes to a few instances first.

use mapsmith_core::HeldChange;
use mapsmith_core::desired::hold::Rejected;
use mapsmith_core::desired::rollout::{Rollout, Then};
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::InstanceState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReloadReport;

/// Where a change goes first: `instances` or `share`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryRequest {
    /// By name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<String>>,
    /// So many of all instances, like `10%`, rounded up; those in sync first, then by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<String>,
    /// How long it stays there before it goes everywhere, like `5m`, a day at most; five minutes
    /// without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bake: Option<String>,
    /// What happens then.
    #[serde(default)]
    pub then: Then,
}

/// `POST /v1/held/{id}/approve`: the body, which may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveHeldRequest {
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it goes first; without it everywhere at once. Of a change of the map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRequest>,
}

/// What an approval came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApproveReport {
    #[serde(flatten)]
    pub held: HeldChange,
    /// The canary that it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutReport>,
    /// It was only tried: nothing is changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What a rejection came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectReport {
    #[serde(flatten)]
    pub held: HeldChange,
    /// It was only tried: nothing is changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What taking a rejection back came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnrejectReport {
    /// What was rejected until now.
    pub rejected: Rejected,
    /// What is held of the map since; none where the guard lets it through by now, and in a dry
    /// run.
    pub held: Option<HeldChange>,
    /// It was only tried: nothing is changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// `POST /v1/rollouts/{id}/promote` and `POST /v1/rollouts/{id}/abort`: the body, which may be left
/// out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// Why, in at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/rollouts`: the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutsReport {
    pub items: Vec<RolloutReport>,
}

/// A rollout, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutReport {
    #[serde(flatten)]
    pub rollout: Rollout,
    /// How those stand that get it first; none once it is over.
    pub canary: Vec<RolloutInstance>,
    /// How many others there are.
    pub rest: usize,
    /// What the sources say by now would change so much of what is stable: it waits behind the
    /// rollout, and the guard judges it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ChangeCounts>,
    /// What may be asked of it: `promote`, `abort`.
    pub can: Vec<String>,
    /// One sentence for a person.
    pub text: String,
}

/// How an instance stands that gets a rollout first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutInstance {
    pub name: String,
    pub state: InstanceState,
}

/// What promoting or aborting came to, or would come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RolloutChangeReport {
    /// Nothing was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Whether it outlives a restart.
    pub stored: bool,
    pub rollout: RolloutReport,
    /// How it arrived; none in a dry run.
    #[serde(flatten)]
    pub report: Option<ReloadReport>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_example_of_a_rollout_is_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (_, rest) = document.split_once("```json\n{\"id\": \"r1043\"").expect("the example");
        let (example, _) = rest.split_once("```").unwrap();
        let report: RolloutReport =
            serde_json::from_str(&format!("{{\"id\": \"r1043\"{example}")).unwrap();
        assert_eq!(report.canary.len(), 1, "{report:?}");
    }
}
