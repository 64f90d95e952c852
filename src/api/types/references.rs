//! Entries that point nowhere.

use mapsmith_core::desired::references::{Action, Dangling};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Entries whose master an instance does not have, or that is not ready there: by master, how many
/// nodes have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReferencesReport {
    /// Which they are.
    #[serde(flatten)]
    pub dangling: Dangling,
    /// What becomes of those with an unknown master.
    pub unknown_are: Action,
    /// What becomes of those whose master is not ready.
    pub not_ready_are: Action,
}
