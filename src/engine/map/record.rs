//! The decisions on the map as metrics.

use metrics::gauge;

use super::MapDecider;
use crate::telemetry::{
    BLOCKED, CONFLICTING_NODES, DRAINED_MASTERS, FLAPPING_NODES, GONE_NODES, GUARD_HELD,
    GUARD_HELD_ENTRIES, HISTORY_FAILED, MAP_ENTRIES, MAP_FILE_FAILED, MAP_REJECTED, PINS,
    READ_ONLY, REFERENCES_DANGLING, REVISION,
};

impl MapDecider {
    pub(super) fn record(&self) {
        gauge!(GUARD_HELD).set(f64::from(u8::from(self.decision.held.is_some())));
        let held = self.decision.held.as_ref().map(|held| held.counts).unwrap_or_default();
        for (kind, count) in held.by_kind() {
            gauge!(GUARD_HELD_ENTRIES, "kind" => kind).set(count as f64);
        }
        gauge!(MAP_FILE_FAILED).set(f64::from(u8::from(self.file.error.is_some())));
        gauge!(HISTORY_FAILED).set(f64::from(u8::from(self.decision.history.error.is_some())));
        self.record_hold();
        self.record_rollout();
        gauge!(READ_ONLY).set(f64::from(u8::from(self.foreign.is_some())));
        gauge!(PINS).set(self.decision.overrides.pins().len() as f64);
        gauge!(BLOCKED).set(self.decision.overrides.blocked().len() as f64);
        let (unknown, not_ready) = self.decision.dangling.entries();
        gauge!(REFERENCES_DANGLING, "kind" => "unknown").set(unknown as f64);
        gauge!(REFERENCES_DANGLING, "kind" => "not_ready").set(not_ready as f64);
        gauge!(MAP_REJECTED).set(self.decision.rejected.count as f64);
        gauge!(FLAPPING_NODES).set(self.decision.flapping.count as f64);
        gauge!(GONE_NODES).set(self.gone.len() as f64);
        gauge!(CONFLICTING_NODES).set(self.decision.conflicts.count as f64);
        self.record_owners();
        gauge!(DRAINED_MASTERS).set(self.decision.overrides.drained().len() as f64);
        if let Some(revision) = &self.decision.in_force {
            gauge!(REVISION).set(revision.number as f64);
            gauge!(MAP_ENTRIES).set(revision.entries.len() as f64);
        }
    }
}
