//! What approves a held change.

use serde::{Deserialize, Serialize};

/// `POST /v1/held/approve`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// The id of the held change.
    pub id: String,
}
