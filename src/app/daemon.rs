//! The tasks of a daemon: what each is given, and how they end together.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use anyhow::{anyhow, bail};
use jiff::Timestamp;
use mapsmith_core::desired::rollout::InstanceView;
use mapsmith_core::server::LastGoodList;
use mapsmith_core::status::InstanceStatus;
use mapsmith_core::{Desired, DesiredServers, Overrides};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::attention::event_log;
use super::ground::{Carried, Ground};
use super::lists::{confirmed_lists, stored_lists, stored_with};
use super::signals::{End, Signals};
use super::tasks::{Fleet, Tasks};
use crate::api::places::Places;
use crate::api::{Api, DECIDER, HistoryAccess, MapAnswers};
use crate::declared::Progress;
use crate::engine::map::MapDecider;
use crate::engine::servers::ServerDecider;
use crate::engine::servers::resolve::{HostNames, Resolver, SystemLookup};
use crate::engine::{Decision, Engine, Inputs, InstanceViews, Memory, Outputs};
use crate::instance::{InstanceReport, Turn};
use crate::services::Known;
use crate::settings::Settings;
use crate::source::{PollRequests, Registries, Round, TargetedLookups};
use crate::store::map_file::MapFileWriter;
use crate::store::{HistoryBounds, OverrideService, SqliteStore, keep_lists};
use crate::supervise::{Supervisor, SupervisorReport};
use crate::telemetry::API_STREAMS;

/// How many orders may wait for the decision at hand: one operator, one change; more callers simply
/// wait.
pub(super) const ORDERS_WAITING: usize = 4;
/// How long the steps in progress may take to end after a signal, before the program leaves all the
/// same.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(30);

/// How long they may take before other settings are used: a reload of HAProxy that nobody answers
/// for, and its check, are waited for.
const CHANGE_BOUND: Duration = Duration::from_secs(300);

/// Goes on from where the tasks before ended, if there were any. With `take_over` also where another
/// Mapsmith writes the map file.
async fn decider_after(
    carried: &Carried,
    take_over: bool,
    settings: &Settings,
    stored: Arc<Overrides>,
    store: Option<SqliteStore>,
) -> anyhow::Result<MapDecider> {
    let decider = map_decider(settings, stored, store).await?;
    let mut decider = if take_over { decider.take_over() } else { decider };
    if let Some(memory) = &carried.memory {
        decider.go_on(memory);
    }
    Ok(decider)
}

/// Goes on from the map file, and from the owners in the store; without a map from nothing.
async fn map_decider(
    settings: &Settings,
    stored: Arc<Overrides>,
    store: Option<SqliteStore>,
) -> anyhow::Result<MapDecider> {
    if !settings.keeps_map() {
        return Ok(MapDecider::without_map(settings.guard.clone(), settings.map.file(), stored));
    }
    let map_file = MapFileWriter::new(settings.map.file()).with_site(settings.site.name.as_deref());
    let decider = MapDecider::start(settings.guard.clone(), map_file, stored)
        .await?
        .with_actions(settings.references_in_force())
        .with_hold(settings.damping.hold)
        .with_remove_after(settings.map.remove_after);
    let Some(store) = store else { return Ok(decider) };
    let bounds =
        HistoryBounds { keep: settings.history.keep, max_bytes: settings.history.max_bytes };
    let decider = decider.with_numbers_above(store.highest_number().await?);
    let decider = decider.with_history(Arc::new(store.history(bounds))).await;
    let (hold, rollouts) = (store.hold().await?, store.rollouts().await?);
    let decider = decider.with_source_hold(hold, rollouts, Some(Arc::new(store.clone()))).await;
    if !settings.ownership.remember {
        return Ok(decider);
    }
    let owners = store.owners().await?;
    Ok(decider.with_ownership(settings.ownership.policy(), owners, Some(Arc::new(store))))
}

/// How long what is declared waits after it could not be begun with.
const DECLARED_RETRY: Duration = Duration::from_secs(30);
/// How the instances of these reports stand.
fn views_of(reports: &[watch::Receiver<InstanceReport>]) -> InstanceViews {
    let reports = reports.to_vec();
    InstanceViews::new(move || {
        let view = |report: &watch::Receiver<InstanceReport>| {
            let InstanceStatus { name, state, .. } = &report.borrow().status;
            InstanceView { name: name.clone(), state: state.clone() }
        };
        reports.iter().map(view).collect()
    })
}

/// What the tasks of one daemon share.
pub(super) struct Daemon {
    settings: Arc<Settings>,
    pub(super) shutdown: CancellationToken,
    pub(super) requests: PollRequests,
    pub(super) lookups: TargetedLookups,
    pub(super) tasks: Tasks,
    /// Gives other services.
    pub(super) changed_services: Option<mpsc::Receiver<Known>>,
    /// What is known of services now.
    pub(super) known_services: Option<watch::Receiver<Known>>,
    /// None before the start.
    pub(super) desired: Option<watch::Receiver<Desired>>,
    /// Has what the engine knows once it has ended.
    memory: Option<oneshot::Receiver<Memory>>,
    /// How the instances stand.
    pub(super) instances: Vec<watch::Receiver<InstanceReport>>,
    /// None where HAProxy's process and configuration are somebody else's.
    haproxy: Option<watch::Receiver<SupervisorReport>>,
}

impl Daemon {
    /// Starts every task.
    pub async fn start(
        ground: &Ground,
        carried: &Carried,
        metrics: PrometheusHandle,
        most_connections: usize,
        take_over: bool,
    ) -> anyhow::Result<Self> {
        let mut daemon = Self::new(ground.settings.clone());
        let started = daemon.start_tasks(ground, carried, metrics, most_connections, take_over);
        if let Err(error) = started.await {
            // The next start needs the store and HAProxy's folder.
            daemon.tasks.running.shutdown().await;
            return Err(error);
        }
        Ok(daemon)
    }

    async fn start_tasks(
        &mut self,
        ground: &Ground,
        carried: &Carried,
        metrics: PrometheusHandle,
        most_connections: usize,
        take_over: bool,
    ) -> anyhow::Result<()> {
        let settings = &ground.settings;
        let listener = TcpListener::from_std(ground.listener.try_clone()?)?;
        let (store, override_service, overridden) = open_store(settings, carried).await?;
        let decider =
            decider_after(carried, take_over, settings, overridden, store.clone()).await?;
        let overrides = self.start_overrides(override_service.clone());
        let registries = Registries::new(settings);
        let registrations = self.start_registrations(store.as_ref()).await?;
        let sources = self.start_sources(&registries, registrations.as_ref())?;
        let members = self.start_members(store.as_ref(), carried).await?;
        let lists = self.start_lists(&registries, members.as_ref())?;
        let (desired_sender, desired) = watch::channel(Desired::default());
        self.desired = Some(desired.clone());
        let stored = stored_with(store.clone()).await?;
        let challenges = self.supply_certificates().await?;
        let (tls_files, turn) = (self.start_tls_files()?, Turn::default());
        let before = (&turn, carried.instances.as_slice());
        let fleet = self.start_instances(&desired, &tls_files, challenges.as_ref(), before)?;
        let certificates = self.start_certificates(challenges, &fleet);
        let services = self.start_services_source(&registries)?;
        // What can fail comes before: whoever takes the sockets that are held goes on with them.
        let haproxy = self.start_supervisor(&desired, &fleet, turn, ground, carried).await?;
        let (access, audit) = self.start_access(ground, carried, store.clone()).await?;
        let services = self.start_services(ground, services, store.clone(), haproxy.clone());
        let (decision_sender, decision) = watch::channel(first_decision(&decider));
        let (to_follow, decided) = (desired.clone(), decision.clone());
        let declared = self.start_declared(ground, carried, to_follow, decided, haproxy.clone());
        let (orders_sender, orders) = mpsc::channel(ORDERS_WAITING);
        let servers = self.server_decider(stored, carried, &desired, &decision);
        let listings = self.start_switches(members.clone(), &desired, &decision);
        let (targets, instances) = (fleet.targets, views_of(&fleet.reports));
        let api = Arc::new(Api {
            sources: sources.clone(),
            lists: lists.clone(),
            shadows: self.start_shadows(&registries, &sources, &lists, &decision),
            decision,
            desired,
            targets: targets.clone(),
            instances: fleet.reports,
            tls_files,
            certificates,
            haproxy,
            services,
            declared,
            clients: fleet.clients,
            requests: self.requests.clone(),
            orders: orders_sender,
            overrides: override_service,
            registrations,
            members: members.clone(),
            history: store.clone().map(HistoryAccess::new),
            store: store.clone(),
            access,
            audit,
            metrics: metrics.clone(),
            settings: Arc::clone(&self.settings),
            heartbeats: self.tasks.heartbeats.clone(),
            map_answers: MapAnswers::new(most_connections),
            started_at: Timestamp::now(),
            notify: watch::Sender::default(),
            events: event_log(store.clone(), carried).await?,
            streams: Arc::new(Places::new(API_STREAMS, most_connections / 4)),
            stats: self.start_stats(),
            shutdown: self.shutdown.clone(),
        });
        self.start_attention(Arc::clone(&api), carried).await?;
        self.start_clocks(metrics);
        let inputs =
            Inputs { sources, lists, members: listings, overrides, targets, orders, instances };
        let outputs = Outputs { decision: decision_sender, desired: desired_sender };
        self.start_engine(decider.with_screens(fleet.screens), servers, inputs, outputs, carried);
        self.serve_api(ground, listener, api, most_connections)
    }

    fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            shutdown: CancellationToken::new(),
            requests: PollRequests::new(),
            lookups: TargetedLookups::new(),
            tasks: Tasks::default(),
            changed_services: None,
            known_services: None,
            desired: None,
            memory: None,
            instances: Vec::new(),
            haproxy: None,
        }
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// A round of one feed.
    pub(super) fn round(&self) -> Round {
        self.requests.round()
    }

    /// Ends every task.
    pub(super) fn stop(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// A task that ends when it is told to stop.
    pub(super) fn start_task(
        &mut self,
        name: &str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.start(name, work);
    }

    /// A task that has no end of its own, and nothing to bring to one.
    pub(super) fn start_until_shutdown(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = self.shutdown.clone();
        self.tasks.start(name, async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Without a store the overrides stay as they are, none.
    fn start_overrides(
        &mut self,
        service: Option<OverrideService>,
    ) -> watch::Receiver<Arc<Overrides>> {
        let Some(service) = service else { return watch::channel(Arc::default()).1 };
        let overrides = service.subscribe();
        self.tasks.start("overrides", service.run(self.shutdown.clone()));
        overrides
    }

    /// Has HAProxy's configuration written and loaded, where the settings say so.
    async fn start_supervisor(
        &mut self,
        desired: &watch::Receiver<Desired>,
        fleet: &Fleet,
        turn: Turn,
        ground: &Ground,
        carried: &Carried,
    ) -> anyhow::Result<Option<watch::Receiver<SupervisorReport>>> {
        let (stop, sockets) = (self.shutdown.clone(), carried.sockets.clone());
        let Some(supervisor) = Supervisor::new(&self.settings, turn, sockets, stop).await? else {
            return Ok(None);
        };
        let own = self.settings.own_instance().and_then(|own| fleet.reports.get(own).cloned());
        let Some(instance) = own else { return Ok(None) };
        let lists = ground.services.first_lists().clone();
        let quarantined = ground.services.quarantined();
        let supervisor = supervisor
            .with_first_lists(lists)
            .with_quarantined(quarantined)
            .with_history(carried.haproxy.as_ref());
        let report = supervisor.reports();
        self.haproxy = Some(report.clone());
        let work = supervisor.run(desired.clone(), instance);
        self.tasks.start("haproxy", work);
        Ok(Some(report))
    }

    /// Goes on from the lists in the store, and keeps them there, or from those that were in force
    /// with other settings.
    fn server_decider(
        &mut self,
        stored: Option<(SqliteStore, BTreeMap<String, LastGoodList>)>,
        carried: &Carried,
        desired: &watch::Receiver<Desired>,
        decision: &watch::Receiver<Decision>,
    ) -> ServerDecider {
        let decider = ServerDecider::new(&self.settings);
        let go_on = |decider: ServerDecider| match &carried.memory {
            Some(memory) => decider.go_on(&carried.lists).remember(memory),
            None => decider.go_on(&carried.lists),
        };
        let Some((store, lists)) = stored else { return go_on(decider) };
        let decider = go_on(decider.resume(&lists));
        let origins = stored_lists(&self.settings);
        let (desired, decision) = (desired.clone(), decision.clone());
        let confirmed = move || confirmed_lists(&decision.borrow());
        let keep = keep_lists(store, origins, confirmed, lists, desired, self.shutdown.clone());
        self.tasks.start("server lists in the store", keep);
        decider
    }

    fn start_engine(
        &mut self,
        map: MapDecider,
        servers: ServerDecider,
        inputs: Inputs,
        outputs: Outputs,
        carried: &Carried,
    ) {
        let engine = Engine::new(map, servers, self.start_resolver(), inputs, outputs)
            .with_config(self.settings.haproxy_config(&DesiredServers::default()))
            .remember(carried.memory.as_ref());
        let (file_check, stop) = (self.settings.schedule.observe, self.shutdown.clone());
        let (told, memory) = oneshot::channel();
        self.memory = Some(memory);
        self.tasks.start(DECIDER, async move {
            // Nobody waits for it at the end of the program.
            let _ = told.send(engine.run(file_check, stop).await);
        });
    }

    fn start_resolver(&mut self) -> HostNames {
        let resolver = Resolver::new(Box::new(SystemLookup), self.settings.damping.hold);
        let (names, lookups) = HostNames::new(resolver);
        self.start_until_shutdown("host names", lookups);
        names
    }

    /// Waits for a signal, or a task that ends by itself, and then for the steps in progress. What
    /// to go on with, where that are other settings. `ground` has what is known of services by
    /// then, and `carried` what these tasks leave.
    pub async fn run_until_stopped(
        mut self,
        signals: &mut Signals,
        ground: &mut Ground,
        carried: &mut Carried,
    ) -> anyhow::Result<Option<Ground>> {
        let running = &mut self.tasks.running;
        let end = loop {
            let (services, known) = (&mut self.changed_services, self.known_services.as_ref());
            let number = ground.file.declared().objects.number;
            let declared = carried.declared.due(number, ground.not_before);
            let latest = || carried.declared.latest();
            let (file, requests) = (&ground.file, &self.requests);
            match signals.wait_for_end(file, requests, services, declared, running).await {
                End::Settings(file) => match ground.changed(&file, latest(), known).await {
                    Ok(changed) => break Ok(Some(changed)),
                    Err(error) => {
                        tracing::error!("SIGHUP: the settings in force stay so: {error:#}");
                    }
                },
                End::Declared => match ground.changed(&ground.file, latest(), known).await {
                    Ok(changed) => {
                        let number = changed.file.declared().objects.number;
                        tracing::info!("what the API declares has changed (change {number})");
                        break Ok(Some(changed));
                    }
                    Err(error) => {
                        let why = format!("what the API declares can't be begun with: {error:#}");
                        tracing::error!("{why}");
                        carried.declared.reach(latest().number, Progress::Behind(why));
                        ground.not_before = Some(Instant::now() + DECLARED_RETRY);
                    }
                },
                End::Services(services) => {
                    let news = services.news(&ground.services);
                    tracing::info!("the services have changed ({news})");
                    break Ok(Some(ground.with_services(*services)));
                }
                End::Stopped => break Ok(None),
                End::Died(task) => break Err(anyhow!("the task {task:?} ended unexpectedly")),
            }
        };
        if !matches!(end, Ok(Some(_))) {
            carried.declared.end();
        }
        self.shutdown.cancel();
        // Nobody waits for changed settings with a signal that kills.
        let bound = if matches!(end, Ok(Some(_))) { CHANGE_BOUND } else { SHUTDOWN_BOUND };
        let drain = async { while running.join_next().await.is_some() {} };
        tokio::select! {
            drained = timeout(bound, drain) => if drained.is_err() {
                bail!("some tasks did not end within {bound:?} after the signal");
            },
            signal = signals.end() => {
                bail!("a second {signal}: left without waiting for the step in progress")
            }
        }
        carried.lists = self.lists_in_force();
        let status = |report: &watch::Receiver<InstanceReport>| report.borrow().status.clone();
        carried.instances = self.instances.iter().map(status).collect();
        carried.haproxy = self.haproxy.as_ref().map(|report| report.borrow().clone());
        let memory = self.memory.take().and_then(|mut memory| memory.try_recv().ok());
        carried.memory = memory.or(carried.memory.take());
        if let Some(known) = &self.known_services {
            *ground = ground.with_services(known.borrow().clone());
        }
        match end {
            Ok(Some(changed)) => {
                tracing::info!("going on with the changed settings");
                Ok(Some(changed))
            }
            Ok(None) => {
                tracing::info!("stopped");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What is in force before anything was decided.
fn first_decision(decider: &MapDecider) -> Decision {
    Decision { map: decider.decision().clone(), ..Decision::default() }
}

/// The store, and the overrides in it. One that can't be read keeps the daemon from starting:
/// without its overrides nodes would go back to where an operator took them from.
/// Whoever asked those who have ended, and waits, has it open still.
async fn open_store(
    settings: &Settings,
    carried: &Carried,
) -> anyhow::Result<(Option<SqliteStore>, Option<OverrideService>, Arc<Overrides>)> {
    let take = || carried.store.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = take().take();
    let Some(store) = &settings.store else { return Ok((None, None, Arc::default())) };
    let store = match kept.filter(|kept| kept.is_at(&store.path)) {
        Some(kept) => kept,
        None => {
            let store = SqliteStore::open(&store.path).await?;
            store.end_lost_commands(Timestamp::now()).await?;
            store
        }
    };
    *take() = Some(store.clone());
    let (service, overridden) = OverrideService::open(store.clone()).await?;
    Ok((Some(store), Some(service), overridden))
}
