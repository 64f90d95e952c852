//! What needs a person.

use jiff::Timestamp;
use mapsmith_core::attention::Attention;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/attention`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttentionReport {
    pub as_of: Timestamp,
    #[serde(flatten)]
    pub attention: Attention,
}
