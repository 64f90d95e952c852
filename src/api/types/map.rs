//! The map in force in figures.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::MasterLoad;

/// `GET /v1/map`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapReport {
    /// The map's number.
    pub revision: u64,
    pub entries: usize,
    /// The SHA-256 of the map's text, in hexadecimal digits.
    pub sha256: String,
    /// When it came into force; after a restart, when it was read from the map file.
    pub at: Timestamp,
    /// Nodes of each master, sorted by master.
    pub masters: Vec<MasterLoad>,
}
