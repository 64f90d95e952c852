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
    /// What backends should have; none before the first list was accepted, and likewise.
    pub servers: Option<Arc<DesiredServers>>,
    /// What `haproxy.cfg` should say; none where it is somebody else's.
    pub config: Option<Arc<DesiredConfig>>,
}

/// The map that every instance should hold.
#[derive(Debug, Clone)]
pub struct DesiredMap {
    /// The desired revision. It is in the map file already.
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
