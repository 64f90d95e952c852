//! Learned routes: what HAProxy found out about a node by asking another master in the same request
//! (redispatch), and keeps in a stick table until the map says the same.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A route in an instance's stick table that the map does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LearnedRoute {
    /// The node: a valid key.
    pub node: String,
    /// The server that answered for it.
    pub master: String,
    /// When Mapsmith first saw this route. HAProxy does not tell since when it has it.
    pub since: Timestamp,
    /// When HAProxy forgets it by itself if no request uses it until then.
    pub expires: Timestamp,
}

/// Why a learned route was taken out of the stick table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Settled {
    /// The map in the instance's memory has this master now.
    Agreed,
    /// The map has had another answer for the node since the route was first seen, and it is not
    /// the learned master.
    Contradicted,
    /// An operator pinned the node to another master, or drained the learned one.
    Overridden,
}

impl Settled {
    pub const ALL: [Self; 3] = [Self::Agreed, Self::Contradicted, Self::Overridden];

    pub fn label(self) -> String {
        crate::label(self)
    }
}

/// An instance's stick table of learned routes, in figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LearnedStatus {
    pub table: String,
    /// Learned routes that the map does not have, as far as they were read (`learned.max`).
    pub routes: usize,
    pub since: Option<Timestamp>,
    /// Rows whose key is no valid node, or that name no server: keys come from clients' headers.
    /// They expire by themselves.
    pub malformed: u64,
    /// Rows beyond `learned.max`, which were not read.
    pub truncated: u64,
    /// How many routes were forgotten since Mapsmith started, by reason.
    pub forgotten: BTreeMap<Settled, u64>,
    /// Why the table can't be read or changed, if so. The map is kept all the same.
    pub error: Option<String>,
}
