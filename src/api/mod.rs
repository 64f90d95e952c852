//! What can be asked of the running program, answered from the tasks' latest states.
//! Knows nothing of HTTP.

use std::sync::Arc;

use haproxy_runtime::MapClient;
use jiff::Timestamp;
use mapsmith_core::attention::NotifyStatus;
use mapsmith_core::desired::SourceView;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::services::ServicesStatus;
use mapsmith_core::status::SourceStatus;
use mapsmith_core::{Desired, HeldChange, ServerList, SourceState};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::{Approval, Decision, Order};
use crate::events::EventLog;
use crate::heartbeat::Heartbeats;
use crate::instance::InstanceReport;
use crate::settings::Settings;
use crate::shadow::Shadows;
use crate::source::PollRequests;
use crate::stats::Stats;
use crate::store::{MemberService, OverrideService, RegistrationService, SqliteStore};
use crate::supervise::SupervisorReport;
use crate::tls_file::InForce;

pub mod access;
mod attention;
pub mod audit;
pub mod batch;
pub(crate) mod canary;
mod certificates;
mod commands;
mod compat;
mod condition;
mod convergence;
pub mod declared;
mod error;
pub mod events;
mod explain;
mod history;
mod in_force;
pub mod map;
mod masters;
pub mod members;
mod node_commands;
mod nodes;
mod owned;
pub(crate) mod places;
mod queries;
pub mod registrations;
pub mod requests;
pub(crate) mod rollback;
pub(crate) mod rollout;
mod servers;
mod similar;
mod switch;
mod tls_files;
mod tokens;
mod trials;
pub mod types;

pub use access::{Access, Token};
pub use audit::Audit;
pub use certificates::Certificates;
pub use condition::{NumberCondition, Precondition};
pub use declared::Declarations;
pub use error::Error;
pub(crate) use history::HistoryAccess;
pub(crate) use map::MapAnswers;
pub use node_commands::NotRun;
pub use servers::{ServerChange, ServerPlace};

/// The task without which nothing is decided, by its name in the metrics.
pub const DECIDER: &str = "engine";

/// The running program, as the API sees it.
pub struct Api {
    pub(crate) sources: Vec<watch::Receiver<SourceState>>,
    /// The server lists that backends take from sources.
    pub(crate) lists: Vec<watch::Receiver<SourceState<ServerList>>>,
    /// What is compared and never applied.
    pub(crate) shadows: Shadows,
    pub(crate) decision: watch::Receiver<Decision>,
    pub(crate) desired: watch::Receiver<Desired>,
    /// What a map may point to, an instance each; none before it was observed.
    pub(crate) targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    pub(crate) instances: Vec<watch::Receiver<InstanceReport>>,
    /// The files of certificates and revocations, in the settings' order.
    pub(crate) tls_files: Vec<watch::Receiver<InForce>>,
    /// The certificates that Mapsmith gets itself; none where there are none.
    pub(crate) certificates: Option<Certificates>,
    /// The HAProxy whose configuration is rendered; none where it is somebody else's.
    pub(crate) haproxy: Option<watch::Receiver<SupervisorReport>>,
    /// The services of a registry; none where the settings name none.
    pub(crate) services: Option<ServicesApi>,
    /// What is declared beside the settings file.
    pub(crate) declared: Declarations,
    pub(crate) clients: Vec<MapClient>,
    pub(crate) requests: PollRequests,
    pub(crate) orders: mpsc::Sender<Order>,
    /// None without a store.
    pub(crate) overrides: Option<OverrideService>,
    /// None where the settings have no source of registrations.
    pub(crate) registrations: Option<RegistrationService>,
    /// None without a store.
    pub(crate) members: Option<MemberService>,
    /// None without a store.
    pub(crate) store: Option<SqliteStore>,
    pub(crate) access: Access,
    pub(crate) audit: Audit,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) settings: Arc<Settings>,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) map_answers: MapAnswers,
    /// None without a store.
    pub(crate) history: Option<HistoryAccess>,
    /// When the tasks began.
    pub(crate) started_at: Timestamp,
    /// How the command stands that tells what needs a person.
    pub(crate) notify: watch::Sender<NotifyStatus>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) streams: Arc<places::Places>,
    pub(crate) stats: Arc<Stats>,
    /// Whoever waits is answered then.
    pub(crate) shutdown: CancellationToken,
}

/// The services of a registry.
pub(crate) struct ServicesApi {
    pub status: watch::Receiver<ServicesStatus>,
    /// Takes approvals of what the guard holds of them.
    pub approvals: mpsc::Sender<Approval>,
}

impl Api {
    pub(super) fn states(&self) -> Vec<SourceState> {
        let now = Timestamp::now();
        self.sources.iter().map(|source| source.borrow().clone().at(now)).collect()
    }

    /// How every source stands, those of the node map first, with the last request that each has
    /// answered.
    pub(super) fn source_statuses(&self) -> Vec<(SourceStatus, u64)> {
        let lists = self.lists.iter().map(|list| {
            let state = list.borrow();
            (state.status.clone(), state.answered)
        });
        self.states().into_iter().map(|state| (state.status, state.answered)).chain(lists).collect()
    }

    /// The change of the services that the guard holds back.
    pub(super) fn held_services(&self) -> Option<HeldChange> {
        self.services.as_ref()?.status.borrow().held.clone()
    }

    pub(super) fn instance_reports(&self) -> Vec<InstanceReport> {
        self.instances.iter().map(|instance| instance.borrow().clone()).collect()
    }

    /// The node, as the map has it.
    pub fn as_in_map(&self, node: &str) -> String {
        if self.settings.map.lowercase { node.to_ascii_lowercase() } else { node.to_owned() }
    }
}

pub(super) fn views(states: &[SourceState]) -> Vec<SourceView<'_>> {
    states.iter().map(SourceView::from).collect()
}
