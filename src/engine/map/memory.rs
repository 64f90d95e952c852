//! What is known of the node map beside its file, over a change of the settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mapsmith_core::EntryMap;
use mapsmith_core::desired::gate::Gate;
use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::desired::guard::{Flapping, Window};

use super::MapDecider;
use crate::engine::Memory;

/// What is known of the node map beside its file.
#[derive(Debug, Clone)]
pub(in crate::engine) struct MapMemory {
    /// Whose times these are.
    clock: Instant,
    /// The revision in force: of another one this is not the memory.
    revision: Option<u64>,
    gate: Gate<Arc<EntryMap>>,
    window: Window,
    flapping: Flapping,
    gone: Arc<GoneNodes>,
    removal: Option<Duration>,
}

impl MapDecider {
    /// Goes on from what was known of the map with other settings, where it is the same map.
    pub fn go_on(&mut self, memory: &Memory) {
        let MapMemory { clock, revision, gate, window, flapping, gone, removal } = &memory.map;
        if *revision != self.file.revision {
            return;
        }
        if self.gate.accepted() == gate.accepted() {
            self.gate.clone_from(gate);
        }
        self.goes_on = true;
        self.clock = *clock;
        self.window.go_on(window);
        self.flapping.go_on(flapping);
        (self.gone, self.removal) = (Arc::clone(gone), *removal);
    }

    /// What whoever goes on has to know of the map.
    pub(in crate::engine) fn memory(&self) -> MapMemory {
        MapMemory {
            clock: self.clock,
            revision: self.file.revision,
            gate: self.gate.clone(),
            window: self.window.clone(),
            flapping: self.flapping.clone(),
            gone: Arc::clone(&self.gone),
            removal: self.removal,
        }
    }
}
