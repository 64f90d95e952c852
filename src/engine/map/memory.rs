//! What is known of the node map beside its file, over a change of the settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mapsmith_core::desired::gate::Gate;
use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::desired::guard::{Flapping, Window};
use mapsmith_core::revision::RevisionLog;
use mapsmith_core::{EntryMap, Revision};

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
    /// What changed lately, and when.
    log: RevisionLog,
    /// Since when the map in force is.
    at: Option<Timestamp>,
    /// How often the map file was corrected, and when last.
    corrected: (u64, Option<Timestamp>),
}

impl MapDecider {
    /// Goes on from what was known of the map with other settings, where it is the same map.
    pub fn go_on(&mut self, memory: &Memory) {
        let MapMemory { clock, revision, gate, window, flapping, gone, removal, .. } = &memory.map;
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
        self.go_on_with_times(&memory.map);
    }

    /// Takes over when what was.
    fn go_on_with_times(&mut self, MapMemory { log, at, corrected, .. }: &MapMemory) {
        self.log.clone_from(log);
        self.decision.log = Arc::new(log.clone());
        (self.file.corrected, self.file.corrected_at) = *corrected;
        self.decision.file = Some(self.file.clone());
        if let Some(at) = at {
            self.in_force_since(*at);
        }
    }

    /// The map in force is so since this time: a start knows nothing but its file.
    pub(super) fn in_force_since(&mut self, at: Timestamp) {
        if let Some(found) = &self.decision.in_force {
            let Revision { number, entries, .. } = &**found;
            let entries = Arc::clone(entries);
            self.decision.in_force = Some(Arc::new(Revision { number: *number, at, entries }));
        }
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
            log: self.log.clone(),
            at: self.decision.in_force.as_ref().map(|revision| revision.at),
            corrected: (self.file.corrected, self.file.corrected_at),
        }
    }
}
