//! Entries that a HAProxy's map refuses, so that they are not in the map file.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most rejected entries that are named.
pub const NAMED_ROWS: usize = 1000;

/// An entry that the sources name and the map leaves out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedRow {
    pub node: String,
    /// The master that is named for it.
    pub master: String,
    /// The instance whose HAProxy refuses it; none where no instance could be asked yet.
    pub instance: Option<String>,
    /// HAProxy's words, or what is waited for.
    pub reason: String,
}

impl fmt::Display for RejectedRow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, master, instance, reason } = self;
        match instance {
            Some(instance) => {
                write!(out, "{node} -> {master}: HAProxy ({instance}) refuses it: {reason}")
            }
            None => write!(out, "{node} -> {master}: {reason}"),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedRows {
    pub count: usize,
    /// The first [`NAMED_ROWS`], sorted by node.
    pub named: Vec<RejectedRow>,
}

impl RejectedRows {
    /// The entry of this node, if it is among the named ones.
    pub fn of_node(&self, node: &str) -> Option<&RejectedRow> {
        let found = self.named.binary_search_by(|row| row.node.as_str().cmp(node)).ok()?;
        self.named.get(found)
    }
}
