//! A master: how much goes there, and whether it can be stopped.

use mapsmith_core::DrainedMaster;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/masters/{master}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MasterReport {
    pub master: String,
    /// Since when it is drained, where its nodes go, why and by whom; none where it is not.
    pub drained: Option<DrainedMaster>,
    /// The revision in force.
    pub revision: u64,
    /// Its nodes in the map in force.
    pub nodes: usize,
    /// Their part of all nodes, 0 to 1.
    pub share: f64,
    /// What each instance has of it, right now.
    pub instances: Vec<MasterInstance>,
    /// Whether it can be stopped: no node is routed to it, and every instance was seen to leave it
    /// alone since.
    pub can_stop: bool,
    /// Why, or why not, in one sentence.
    pub why: String,
}

/// A master in an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MasterInstance {
    pub name: String,
    /// Whether it holds the map in force.
    pub in_sync: bool,
    /// Its sessions; none where the instance has no such backend or server, or can't be asked.
    pub sessions: Option<u64>,
    /// Requests that wait for it.
    pub queue: Option<u64>,
    /// Sessions in the last second.
    pub rate: Option<u64>,
    /// Seconds since its last session began; none where there was none.
    pub last_session_s: Option<u64>,
    /// Routes that the instance learned, and that lead to it whatever the map says.
    pub learned: usize,
    /// Why the instance can't be asked, if so.
    pub error: Option<String>,
}
