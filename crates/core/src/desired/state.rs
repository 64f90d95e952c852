//! What every HAProxy should hold, as it is published.

use std::sync::Arc;

use super::config::DesiredConfig;
use crate::plan::Deviation;
use crate::{DesiredServers, Overrides, Revision};

/// What every instance should hold. Published as a whole; an instance answers with the generation
/// that it was seen to hold.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// Grows whenever an instance should observe again: with each change, and with each round of
    /// polls that is decided on.
    pub generation: u64,
    /// The map; none until a first answer of the sources was accepted, and while another Mapsmith
    /// keeps the instances.
    pub map: Option<DesiredMap>,
    /// The map that some instances should hold instead; none while all should hold the same.
    pub canary: Option<Arc<Canary>>,
    /// What backends should have; none before the first list was accepted, and likewise.
    pub servers: Option<Arc<DesiredServers>>,
    /// What `haproxy.cfg` should say; none where it is somebody else's.
    pub config: Option<Arc<DesiredConfig>>,
}

/// A map that is tried in some instances.
#[derive(Debug, Clone)]
pub struct Canary {
    pub instances: Vec<String>,
    /// It is not in the map file.
    pub map: DesiredMap,
}

impl Desired {
    /// The map that this instance should hold.
    pub fn map_of(&self, instance: &str) -> Option<&DesiredMap> {
        let is_it = |canary: &&Arc<Canary>| canary.instances.iter().any(|name| name == instance);
        let canary = self.canary.as_ref().filter(is_it).map(|canary| &canary.map);
        canary.filter(|_| self.map.is_some()).or(self.map.as_ref())
    }

    /// The same, as far as this instance is concerned.
    #[must_use]
    pub fn of_instance(&self, instance: &str) -> Self {
        Self { map: self.map_of(instance).cloned(), canary: None, ..self.clone() }
    }
}

/// The map that every instance should hold.
#[derive(Debug, Clone)]
pub struct DesiredMap {
    /// The desired revision. It is in the map file already, unless it is a canary's.
    pub revision: Arc<Revision>,
    /// The highest poll request that the decision takes into account.
    pub evaluated_request: u64,
    /// The overrides in the revision.
    pub overrides: Arc<Overrides>,
    /// What the revision changed; none where there was no map before it, or it came from the map
    /// file.
    pub change: Option<MapChange>,
}

/// What a revision changed: found once, not by each of a hundred instances.
#[derive(Debug, Clone)]
pub struct MapChange {
    /// The revision before it.
    pub from: u64,
    /// What must change in the memory of an instance that holds that one.
    pub deviation: Arc<Deviation>,
}
