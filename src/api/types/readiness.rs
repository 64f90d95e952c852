//! What `GET /readyz` says.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether there is a desired map and at least one instance holds it.
    pub ready: bool,
    /// What is missing, one sentence each.
    pub missing: Vec<String>,
}
