//! What an instance's task publishes: report, metrics, log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::status::{InstanceState, InstanceStatus};
use mapsmith_core::{DesiredMap, LearnedRoute};
use metrics::gauge;
use tokio::time::Instant;

use super::Instance;
use super::challenges::HeldChallenges;
use super::failure::Failure;
use crate::telemetry::{
    INSTANCE_IN_SYNC, INSTANCE_REVISION_HELD, INSTANCE_REVISION_WANTED, INSTANCE_UP,
};

/// The least time between two log lines of a state that is bad in ever new words.
const LOG_SPACING: Duration = Duration::from_secs(600);

/// What an instance's task publishes.
#[derive(Debug, Clone)]
pub struct InstanceReport {
    /// For people.
    pub status: InstanceStatus,
    /// Which generation it was last seen to hold.
    pub observed: Observed,
    /// Backends and servers that are in maintenance or drain because a person wants that.
    pub kept_out: Vec<(String, String)>,
    /// The number of the content that each TLS file, by its path, was last compared with or given.
    pub tls_files: BTreeMap<String, u64>,
    /// What it answers to certificate authorities.
    pub challenges: HeldChallenges,
    /// The routes it learned that the map does not have, sorted by node.
    pub learned: Arc<[LearnedRoute]>,
}

/// The last [`Desired::generation`](mapsmith_core::Desired::generation) that an instance was seen
/// to hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Observed {
    /// Of the map.
    pub map: u64,
    /// Of the servers, as far as they can be there without a reload of HAProxy.
    pub servers: u64,
}

impl Observed {
    /// Of everything.
    pub fn generation(self) -> u64 {
        self.map.min(self.servers)
    }
}

impl InstanceReport {
    /// The route that was learned for this node.
    pub fn learned_of(&self, node: &str) -> Option<&LearnedRoute> {
        let found = self.learned.binary_search_by(|route| route.node.as_str().cmp(node)).ok()?;
        self.learned.get(found)
    }
}

impl Instance {
    pub(super) fn failed_state(
        &mut self,
        failure: &Failure,
        wanted: Option<&DesiredMap>,
    ) -> InstanceState {
        // Whatever was half done: read back before anything else is believed.
        self.verified = None;
        if failure.unreachable() {
            // What happens to the map meanwhile is a change of its own.
            self.asked = None;
        }
        if let Some(rows) = &mut self.rows {
            rows.failed(failure.unreachable());
        }
        match wanted {
            _ if failure.unreachable() => {
                let before = self.before.as_ref().map(|before| &before.state);
                let since = match (&self.report.status.state, before) {
                    (InstanceState::Unreachable { since, .. }, _)
                    | (_, Some(InstanceState::Unreachable { since, .. })) => *since,
                    _ => Timestamp::now(),
                };
                InstanceState::Unreachable { since, error: failure.to_string() }
            }
            Some(wanted) if !failure.refused() => InstanceState::Behind {
                wanted: wanted.revision.number,
                reason: failure.to_string(),
            },
            _ => InstanceState::Refused { reason: failure.to_string() },
        }
    }

    /// Takes the new state into report, metrics and, where it changed, the log.
    pub(super) fn publish(&mut self, state: InstanceState, wanted: Option<&DesiredMap>) {
        let status = &mut self.report.status;
        let name = status.name.clone();
        let up = !matches!(state, InstanceState::Unreachable { .. } | InstanceState::Starting);
        gauge!(INSTANCE_UP, "haproxy" => name.clone()).set(f64::from(u8::from(up)));
        let in_sync = state.is_in_sync();
        gauge!(INSTANCE_IN_SYNC, "haproxy" => name.clone()).set(f64::from(u8::from(in_sync)));
        if let Some(wanted) = wanted {
            gauge!(INSTANCE_REVISION_WANTED, "haproxy" => name.clone())
                .set(wanted.revision.number as f64);
        }
        if let InstanceState::InSync { revision } = state {
            gauge!(INSTANCE_REVISION_HELD, "haproxy" => name.clone()).set(revision as f64);
        }
        if status.state != state {
            let bad = matches!(
                state,
                InstanceState::Behind { .. }
                    | InstanceState::Unreachable { .. }
                    | InstanceState::Refused { .. }
            );
            let same_kind = std::mem::discriminant(&status.state) == std::mem::discriminant(&state);
            if !bad {
                tracing::info!(instance = name, "{state}");
            } else if !same_kind
                || self.last_logged.is_none_or(|last| last.elapsed() >= LOG_SPACING)
            {
                tracing::warn!(instance = name, "{state}");
                self.last_logged = Some(Instant::now());
            }
            if !same_kind {
                let kind = std::mem::discriminant(&state);
                // Before there is a map to compare with nothing is known of how it stands.
                let is_settled =
                    !matches!(state, InstanceState::Starting | InstanceState::Connected);
                let before = self.before.take_if(|_| is_settled);
                let as_before =
                    before.filter(|before| std::mem::discriminant(&before.state) == kind);
                status.state_since =
                    as_before.map_or_else(Timestamp::now, |before| before.state_since);
            }
            status.state = state;
        }
    }
}
