//! How a backend's list stands: for people, and as metrics.

use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::status::{BackendStatus, LeavingServer};
use metrics::gauge;

use super::BackendList;
use crate::telemetry::{
    BACKEND_HELD, BACKEND_LEAVING, BACKEND_ORDERED, BACKEND_REJECTED, BACKEND_SERVERS,
};

impl BackendList {
    pub(in crate::engine::servers) fn status(
        &self,
        at: &impl Fn(Duration) -> Timestamp,
    ) -> BackendStatus {
        let leaving = self.damper.leaving();
        let mut leaving: Vec<_> = leaving
            .map(|(name, due)| LeavingServer { name: name.to_owned(), due: due.map(at) })
            .collect();
        leaving.sort_by_key(|server| (server.due.is_none(), server.due));
        BackendStatus {
            name: self.settings.name.clone(),
            from: self.settings.origin(),
            servers: self.damper.in_force().map(|servers| servers.values().cloned().collect()),
            waiting_for: self.waiting_for.clone(),
            stored_since: self
                .before
                .as_ref()
                .filter(|_| self.waiting_for.is_some())
                .and_then(|before| before.since),
            confirmed_at: self.confirmed_at,
            rejected: self.rejected.clone(),
            rejected_count: self.rejected_count,
            beyond_max: self.beyond_max,
            stale: self.stale.clone(),
            held: self.gate.held().cloned(),
            change_due: self.damper.change_due().map(at),
            leaving,
            ordered: self.ordered.clone(),
        }
    }

    pub(in crate::engine::servers) fn record(&self) {
        let name = || self.settings.name.clone();
        gauge!(BACKEND_REJECTED, "backend" => name()).set(self.rejected_count as f64);
        gauge!(BACKEND_LEAVING, "backend" => name()).set(self.damper.leaving().count() as f64);
        gauge!(BACKEND_HELD, "backend" => name())
            .set(f64::from(u8::from(self.gate.held().is_some())));
        gauge!(BACKEND_ORDERED, "backend" => name()).set(self.ordered.len() as f64);
        if let Some(servers) = self.damper.in_force() {
            gauge!(BACKEND_SERVERS, "backend" => name()).set(servers.len() as f64);
        }
    }
}
