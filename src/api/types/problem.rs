//! An answer to a request that failed.

use jiff::Timestamp;
use mapsmith_core::access::Role;
use mapsmith_core::history::RevisionRecord;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReloadReport;
use crate::declared::Fault;

/// An error answer (RFC 9457).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The kind of problem: the path of a page that says what it means.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong and what to do.
    pub detail: String,
    /// The role that whoever asks would have to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Role>,
    /// The oldest revision whose map is kept, or the oldest event, where an older one was asked
    /// for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// Who ordered what is in force instead of what was expected, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// Since when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The revisions since then, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<RevisionRecord>,
    /// What to `DELETE` first, where a rollback holds the sources back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// How many members are registered, where too few are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<usize>,
    /// How many must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready: Option<u32>,
    /// What the resource is now, where it is not as the request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<serde_json::Value>,
    /// What is wrong with a configuration, one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A reload or an override that did not end well, in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<ReloadReport>>,
}
