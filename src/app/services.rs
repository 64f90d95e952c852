//! The task of services, and what changed ones are begun with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mapsmith_core::server::LastGoodList;
use mapsmith_core::services::ServicesStatus;
use metrics::gauge;
use tokio::sync::{mpsc, watch};

use super::Ground;
use super::daemon::Daemon;
use crate::services::ServicesTask;
use crate::source::{Registries, SourceError, TargetedLookups};
use crate::store::SqliteStore;
use crate::supervise::SupervisorReport;
use crate::telemetry::{SERVICES_HELD, SERVICES_IN_FORCE, SERVICES_REJECTED};

impl Daemon {
    /// Follows the services' source, if there is one.
    pub(super) fn start_services(
        &mut self,
        ground: &Ground,
        registries: &Registries,
        store: Option<SqliteStore>,
        haproxy: Option<watch::Receiver<SupervisorReport>>,
    ) -> Result<Option<watch::Receiver<ServicesStatus>>, SourceError> {
        let settings = self.settings();
        let (Some((source, from)), Some(haproxy)) = (settings.services_source(), haproxy) else {
            // There may have been some with other settings.
            for none in [SERVICES_IN_FORCE, SERVICES_HELD] {
                gauge!(none).set(0.0);
            }
            for by in ["haproxy", "mapsmith"] {
                gauge!(SERVICES_REJECTED, "by" => by).set(0.0);
            }
            return Ok(None);
        };
        let (name, feed, round) = (from.to_string(), registries.services(from)?, self.round());
        let state = self.start_poller(name, source, feed, round, TargetedLookups::new());
        let (anew, changed) = mpsc::channel(1);
        let (file, known) = (ground.file.settings.clone(), ground.services.clone());
        let task = ServicesTask::new(file, known, state, haproxy, store, anew);
        let status = task.status();
        self.known_services = Some(task.known());
        self.start_until_shutdown("services", task.run());
        self.changed_services = Some(changed);
        Ok(Some(status))
    }

    /// The backends that no file of HAProxy's has had servers of: those of services that are new,
    /// or that the store has no list of.
    pub(super) fn fresh_backends(
        &self,
        ground: &Ground,
        stored: Option<&BTreeMap<String, LastGoodList>>,
    ) -> BTreeSet<String> {
        let mut fresh = ground.services.fresh().clone();
        if let Some(stored) = stored {
            let services = self.settings().services_in_force.clone().unwrap_or_default();
            fresh.extend(services.into_iter().filter(|name| !stored.contains_key(name)));
        }
        fresh
    }

    /// The lists in force, for those who begin with other settings.
    pub(super) fn lists_in_force(&self) -> BTreeMap<String, LastGoodList> {
        let desired = self.desired.as_ref().and_then(|desired| desired.borrow().servers.clone());
        let settings: Arc<_> = self.settings();
        let origins = super::lists::stored_lists(&settings);
        let list = |(backend, origin): (String, String)| {
            let servers = desired.as_ref()?.backends.get(&backend)?.servers.clone();
            Some((backend, LastGoodList { origin, since: None, confirmed: None, servers }))
        };
        origins.into_iter().filter_map(list).collect()
    }
}
