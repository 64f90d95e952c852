//! Revisions of the map, and what lies between two of them.

use mapsmith_core::history::{RevisionRecord, Shift};
use mapsmith_core::revision::{ChangeCounts, RouteChange};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/revisions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionsReport {
    /// The page, the newest first.
    pub items: Vec<RevisionReport>,
    /// How many are kept.
    pub total: usize,
    /// What `after` is for the next page; none on the last one.
    pub next: Option<String>,
    /// Why the revision in force could not be kept, if so: the history has a gap there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionReport {
    #[serde(flatten)]
    pub record: RevisionRecord,
    pub state: RevisionState,
}

/// What there is of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    InForce,
    /// Its map can be had.
    Kept,
    /// It lies behind a gap: its map can't be had any more.
    Lost,
}

/// `GET /v1/revisions/{n}/diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffReport {
    pub from: u64,
    pub to: u64,
    pub counts: ChangeCounts,
    /// How many nodes went from which master to which one, the most first.
    pub shift: Vec<Shift>,
    /// The page, sorted by node.
    pub items: Vec<RouteChange>,
    /// How many there are on all pages.
    pub total: usize,
    /// What `after` is for the next page; none on the last one.
    pub next: Option<String>,
}
