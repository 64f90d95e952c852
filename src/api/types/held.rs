//! What approves a held change.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/held/approve`: the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// The id of the held change.
    pub id: String,
}
