//! An answer to a request that failed.

use mapsmith_core::access::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ReloadReport;

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
    /// The oldest revision whose map is kept, where an older one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
    /// What the resource is now, where it is not as the request says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<serde_json::Value>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A reload or an override that did not end well, in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<ReloadReport>>,
}
