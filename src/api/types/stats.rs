//! What backends and servers do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::stats::InstanceReading;

/// `GET /v1/stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatsReport {
    pub as_of: Timestamp,
    /// Each HAProxy, in the settings' order.
    pub items: Vec<InstanceReading>,
}
