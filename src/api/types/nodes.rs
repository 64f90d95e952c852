//! Nodes of the map in force, page by page.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodesReport {
    /// The revision that this page is of; none before the first map.
    pub revision: Option<u64>,
    /// How many nodes there are on all pages.
    pub total: usize,
    /// The page, sorted by node.
    pub items: Vec<NodeReport>,
    /// What `after` is for the next page; none on the last one.
    pub next: Option<String>,
}

/// A node of the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    pub node: String,
    /// The master, by HAProxy's name.
    pub master: String,
}
