//! Servers of backends: how they stand, and what an operator orders of one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use mapsmith_core::objects::{ObjectKey, ObjectKind};
use mapsmith_core::overrides::{ServerEdit, ServerOverride};
use mapsmith_core::status::BackendStatus;
use mapsmith_core::{Note, ObservedServers, OverrideChange, Overrides};
use tokio::time::{Instant, timeout};

use self::scene::Scene;
use super::commands::describe;
use super::declared::Secrets;
use super::similar::similar;
use super::types::{
    BackendReport, BackendSummary, BackendsReport, ReloadOutcome, ServerChangeReport,
};
use super::{Api, Error, Precondition};
use crate::instance::InstanceReport;
use crate::store::{AuditTicket, OverrideService};

mod scene;

/// How long one instance is waited for: a person is watching.
const BOUND: Duration = Duration::from_secs(2);
/// Where the list comes from of a backend that is declared through the API with its servers, and
/// of one that the settings file declares so.
const ORIGIN: &str = "api";
const WRITTEN: &str = "settings";

/// A server, as somebody names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlace {
    pub backend: String,
    pub server: String,
}

/// A change of a server's override.
#[derive(Debug, Clone)]
pub struct ServerChange {
    pub edit: ServerEdit,
    pub note: Note,
    /// The last server that is ready may go, too.
    pub force: bool,
    /// Nothing is changed: it is only said what would be.
    pub dry_run: bool,
    pub wait: Option<Duration>,
}

/// An instance, and its servers or why they are not known.
pub(super) type Answer = (String, Result<ObservedServers, String>);

impl Api {
    /// The declared backends.
    pub fn backends(&self) -> BackendsReport {
        let decision = self.decision.borrow();
        let mut declared = self.backends_declared();
        let versions = self.versions_in_force();
        let version = |name: &str| versions.iter().find(|it| it.version.backend == name).cloned();
        let summary = |status: &BackendStatus| {
            let declared = declared.remove(&status.name);
            BackendSummary {
                backend: status.name.clone(),
                from: self.list_of(&status.name, &status.from),
                servers: status.servers.as_ref().map(Vec::len),
                overrides: status.ordered.len(),
                version: version(&status.name),
                status: declared,
            }
        };
        let mut items: Vec<_> = decision.backends.iter().map(summary).collect();
        // What is stored and not in force yet.
        items.extend(declared.into_iter().map(|(backend, status)| BackendSummary {
            backend,
            from: ORIGIN.to_owned(),
            servers: None,
            overrides: 0,
            version: None,
            status: Some(status),
        }));
        BackendsReport { items }
    }

    /// A backend's servers, as they should be and as every instance has them right now.
    ///
    /// # Errors
    /// [`Error::UnknownServer`] where the settings have no such backend.
    pub async fn backend(&self, name: &str, secrets: Secrets) -> Result<BackendReport, Error> {
        let config = self.object(&ObjectKey::new(ObjectKind::Backend, name), secrets).ok();
        let backend = name.to_owned();
        let (scene, config) = match (self.scene(name).await, config) {
            (Ok(scene), config) => (scene, config),
            // It is stored, and not in force yet.
            (Err(_), Some(config)) => {
                let (from, servers, config) = (ORIGIN.to_owned(), Vec::new(), Some(config));
                return Ok(BackendReport { backend, from, waiting_for: None, servers, config });
            }
            (Err(error), None) => return Err(error),
        };
        let names = scene.names();
        Ok(BackendReport {
            from: self.list_of(&backend, &scene.status.from),
            backend,
            waiting_for: scene.status.waiting_for.clone(),
            servers: names.iter().map(|name| scene.server(name)).collect(),
            config,
        })
    }

    /// What is ordered of a server.
    ///
    /// # Errors
    /// There is no store, nobody knows the backend or the server, or nothing is ordered of it.
    pub async fn server_override(&self, place: ServerPlace) -> Result<ServerOverride, Error> {
        let service = self.overrides.as_ref().ok_or(Error::NoStore("overrides of servers"))?;
        let stored = service.latest().server(&place.backend, &place.server).cloned();
        if let Some(stored) = stored {
            return Ok(stored);
        }
        let scene = self.scene(&place.backend).await?;
        let place = ServerPlace { server: scene.resolve(&place.server)?, ..place };
        let ordered = scene.overrides.server(&place.backend, &place.server).cloned();
        ordered.ok_or_else(|| nothing_to_end(&place))
    }

    /// Changes what is ordered of a server, and puts it in force; with `wait` answers when every
    /// instance has it, or when the time is over.
    ///
    /// # Errors
    /// There is no store, it did not take the change, another Mapsmith decides, nobody knows the
    /// backend or the server, it is the last one that is ready, or there is nothing to end.
    pub async fn change_server(
        &self,
        place: ServerPlace,
        change: ServerChange,
        ticket: Arc<AuditTicket>,
        condition: Precondition,
    ) -> Result<ServerChangeReport, Error> {
        let start = Instant::now();
        ticket.explain(change.note.reason.clone());
        let service = self.overrides.as_ref().ok_or(Error::NoStore("overrides of servers"))?;
        if let Some(writer) = &self.decision.borrow().map.read_only {
            return Err(Error::ServerConflict(format!(
                "this Mapsmith changes nothing, for another one writes the map file ({writer}): \
                    ask that one"
            )));
        }
        let edits = service.edit_servers().await;
        let scene = match self.scene(&place.backend).await {
            Ok(scene) => scene,
            Err(_)
                if self.is_left(&service.latest(), &place)
                    && ends_all(&service.latest(), &place, &change) =>
            {
                return end_what_is_left(service, place, change, ticket, condition).await;
            }
            Err(error) => return Err(error),
        };
        let server = scene.resolve(&place.server)?;
        let place = ServerPlace { server, ..place };
        condition.check(scene.overrides.server(&place.backend, &place.server))?;
        let ordered = scene.after(&place, &change)?;
        if !change.force {
            scene.check(&place, ordered.as_ref())?;
        }
        if change.dry_run {
            return Ok(scene.dry_run(&place, ordered));
        }
        let (number, what) = keep(service, &place, ordered.clone(), &change.note, ticket).await?;
        drop(edits);
        let mut report = ServerChangeReport {
            backend: place.backend.clone(),
            server: place.server.clone(),
            ordered,
            stored: true,
            outcome: Some(ReloadOutcome::Requested),
            message: format!("{what}; it is stored, and every instance gets it now"),
            instances: Vec::new(),
        };
        if let Some(wait) = change.wait {
            let (outcome, message) = self.server_in_force(&place, number, start, wait).await;
            (report.outcome, report.message) = (Some(outcome), format!("{what}; {message}"));
            report.instances = self.scene(&place.backend).await?.server(&place.server).instances;
        }
        Ok(report)
    }

    /// Where a backend's list comes from: what is written out is the API's where that declares it.
    pub(super) fn list_of(&self, backend: &str, from: &str) -> String {
        let key = ObjectKey::new(ObjectKind::Backend, backend);
        let is_of_api = self.object_number(&key).is_some() && from == WRITTEN;
        if is_of_api { ORIGIN.to_owned() } else { from.to_owned() }
    }

    /// Whether there is an override of this server, and no backend of its name any more.
    fn is_left(&self, overrides: &Overrides, place: &ServerPlace) -> bool {
        let key = ObjectKey::new(ObjectKind::Backend, &place.backend);
        overrides.server(&place.backend, &place.server).is_some()
            && self.object_number(&key).is_none()
            && !self.is_of_file(&key)
    }

    async fn scene(&self, name: &str) -> Result<Scene, Error> {
        let decision = self.decision.borrow().clone();
        let Some(status) = decision.backends.iter().find(|status| status.name == name).cloned()
        else {
            let known = decision.backends.iter().map(|status| status.name.as_str());
            return Err(Error::UnknownServer(format!(
                "{name:?} is no backend here{}",
                similar(name, known)
            )));
        };
        let answers = self.ask_servers().await;
        let overrides = self.overrides.as_ref().map(OverrideService::latest).unwrap_or_default();
        let servers = self.desired.borrow().servers.clone();
        let wanted = servers.and_then(|servers| servers.backends.get(name).cloned());
        let mut wanted = wanted.unwrap_or_default();
        // What is stored counts, also in the moment before it is in force.
        let ordered = overrides.servers().filter(|ordered| ordered.backend == name);
        wanted.ordered = ordered.map(|one| (one.server.clone(), one.order)).collect();
        Ok(Scene { status, wanted, overrides, answers })
    }

    /// Every instance's servers, right now.
    pub(super) async fn ask_servers(&self) -> Vec<Answer> {
        let ask = self.settings.instances.iter().map(|instance| async move {
            let answer = match timeout(BOUND, instance.servers_client().observe()).await {
                Ok(answer) => answer.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {BOUND:?}")),
            };
            (instance.name.clone(), answer)
        });
        join_all(ask).await
    }

    /// Waits until every instance has a server as the overrides of this number say.
    async fn server_in_force(
        &self,
        place: &ServerPlace,
        number: u64,
        start: Instant,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let deadline = start + wait;
        let behind = |why: String| (ReloadOutcome::Behind, why);
        let Some(decision) = self.decided(deadline, |it| it.ordered >= number).await else {
            return behind(format!("it is stored, and not in force within {wait:?}"));
        };
        let mut backends = decision.backends.iter();
        let status = backends.find(|status| status.name == place.backend);
        if let Some(BackendStatus { servers: None, waiting_for, .. }) = status {
            let what = waiting_for.as_deref().unwrap_or("a list that is let through");
            return behind(format!("it is stored, and counts once the backend has {what}"));
        }
        let generation = decision.generation;
        let has_it = |_, report: &InstanceReport| report.observed.servers >= generation;
        let reports = self.observed(deadline, has_it).await;
        let prefix = format!("{}/{}: ", place.backend, place.server);
        let why = |report: &InstanceReport| {
            let servers = report.status.servers.as_ref()?;
            if report.observed.servers < generation {
                return Some(format!("{} ({})", report.status.name, servers.state));
            }
            let cause = servers.needs_reload.iter().find(|cause| cause.starts_with(&prefix))?;
            Some(format!("{} (needs a reload of HAProxy: {cause})", report.status.name))
        };
        let late: Vec<_> = reports
            .iter()
            .filter_map(|report| match report.status.servers {
                Some(_) => why(report),
                None => Some(format!("{} ({})", report.status.name, report.status.state)),
            })
            .collect();
        let count = reports.len();
        match late.as_slice() {
            [] => (ReloadOutcome::InSync, format!("in force in {count} of {count} instances")),
            late => behind(format!("not in force within {wait:?}: {}", late.join(", "))),
        }
    }
}

/// Stores it. The number of the overrides then, and what has changed in words.
async fn keep(
    service: &OverrideService,
    place: &ServerPlace,
    ordered: Option<ServerOverride>,
    note: &Note,
    ticket: Arc<AuditTicket>,
) -> Result<(u64, String), Error> {
    let ServerPlace { backend, server } = place.clone();
    let change = match ordered {
        Some(ordered) => OverrideChange::SetServer(ordered),
        None => OverrideChange::ResetServer {
            backend,
            server,
            now: Timestamp::now(),
            note: note.clone(),
        },
    };
    let what = describe(&change, true);
    let kept = service.change(change, Some(ticket)).await;
    let kept = kept.map_err(|error| Error::Store(error.to_string()))?;
    kept.map(|after| (after.number(), what)).ok_or_else(|| nothing_to_end(place))
}

/// Whether a change ends what is ordered, all of it.
fn ends_all(overrides: &Overrides, place: &ServerPlace, change: &ServerChange) -> bool {
    let ordered = overrides.server(&place.backend, &place.server);
    ordered.is_some() && change.edit.over(ordered).0.is_empty()
}

/// Ends the override of a server whose backend is no longer there: it would be in force again in
/// the next one of that name.
async fn end_what_is_left(
    service: &OverrideService,
    place: ServerPlace,
    change: ServerChange,
    ticket: Arc<AuditTicket>,
    condition: Precondition,
) -> Result<ServerChangeReport, Error> {
    condition.check(service.latest().server(&place.backend, &place.server))?;
    let ServerPlace { backend, server } = place.clone();
    let none = format!("there is no backend {backend} now");
    let message = match change.dry_run {
        true => format!("the override of {backend}/{server} would end; {none}"),
        false => {
            let (_, what) = keep(service, &place, None, &change.note, ticket).await?;
            format!("{what}; {none}")
        }
    };
    Ok(ServerChangeReport {
        backend,
        server,
        ordered: None,
        stored: !change.dry_run,
        outcome: (!change.dry_run).then_some(ReloadOutcome::InSync),
        message,
        instances: Vec::new(),
    })
}

fn nothing_to_end(place: &ServerPlace) -> Error {
    Error::NoOverride(format!("{}/{} has no override", place.backend, place.server))
}
