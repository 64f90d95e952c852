//! Events, page by page.

use mapsmith_core::events::Event;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/activity`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActivityReport {
    /// The page, in the order of their numbers.
    pub items: Vec<Event>,
    /// What `after` is for those that follow these, also where there are none yet.
    pub next: u64,
    /// Whether there are some already.
    pub more: bool,
    /// The number from which on every event that was asked for is kept. Some that are older may be
    /// there, too.
    pub oldest: u64,
}
