//! What the engine knows beside what is in force: what changed lately, what is held, and what waits
//! for its time. Whoever goes on with other settings in the same process takes it over, or a change
//! of the settings would be a way past the guard and the damping.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::map::MapMemory;
use super::servers::ListMemory;

/// What one engine hands on to the next.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Whose times those of the lists are.
    pub(super) clock: Instant,
    pub(super) map: MapMemory,
    /// By the backend's name.
    pub(super) lists: BTreeMap<String, ListMemory>,
}
