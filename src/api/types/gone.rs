//! Nodes that no source names any more and that stay in the map for a while.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All of them, in a status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GoneReport {
    pub count: usize,
    /// The first [`NAMED_NODES`](mapsmith_core::status::NAMED_NODES) of them, by name.
    pub nodes: Vec<GoneNodeReport>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GoneNodeReport {
    /// The node.
    pub node: String,
    /// The master that the sources named last, before overrides.
    pub master: String,
    /// When they stopped.
    pub since: Timestamp,
    /// When it goes, unless they name it again.
    pub until: Timestamp,
}
