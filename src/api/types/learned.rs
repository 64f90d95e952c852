//! Routes that instances learned.

use mapsmith_core::LearnedRoute;
use mapsmith_core::learned::LearnedStatus;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An instance in `GET /v1/learned`: the routes that it learned and the map does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LearnedReport {
    /// The instance.
    pub instance: String,
    /// Its stick table in figures.
    #[serde(flatten)]
    pub status: LearnedStatus,
    /// The routes, sorted by node; at most `learned.max`.
    #[serde(rename = "nodes")]
    pub routes: Vec<LearnedRoute>,
}
