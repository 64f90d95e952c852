//! The tasks of a daemon: what each is given, and how they end together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use haproxy_runtime::{MapClient, MapName};
use mapsmith_core::desired::references::Targets;
use mapsmith_core::server::LastGoodList;
use mapsmith_core::{Content, Desired, DesiredServers, Overrides, ServerList, SourceState};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, DECIDER};
use crate::engine::map::MapDecider;
use crate::engine::rows::{self, RowScreen};
use crate::engine::servers::ServerDecider;
use crate::engine::servers::resolve::{HostNames, Resolver, SystemLookup};
use crate::engine::{AskSources, Decision, Engine, Inputs, Outputs, RequestLookups};
use crate::heartbeat::{self, Heartbeats};
use crate::http;
use crate::instance::certificates::CertificatePhase;
use crate::instance::learned::LearnedTable;
use crate::instance::servers::ServerPhase;
use crate::instance::{Instance, InstanceReport, Turn};
use crate::services::Known;
use crate::settings::{self, Settings};
use crate::source::{Feed, PollRequests, Registries, Round, TargetedLookups, poller, schedule};
use crate::store::map_file::MapFileWriter;
use crate::store::{OverrideService, SqliteStore, keep_lists};
use crate::supervise::{Supervisor, SupervisorReport};
use crate::tls::challenges::Challenges;
use crate::tls_file::InForce;

use super::Ground;
use super::lists::{confirmed_lists, stored_lists, stored_with};
use super::signals::{End, Signals};

/// How many orders may wait for the decision at hand: one operator, one change; more callers simply
/// wait.
pub(super) const ORDERS_WAITING: usize = 4;
/// How often the metrics' samples are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How long the steps in progress may take to end after a signal, before the program leaves all the
/// same.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(30);

/// How long they may take before other settings are used: a reload of HAProxy that nobody answers
/// for, and its check, are waited for.
const CHANGE_BOUND: Duration = Duration::from_secs(300);

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
    let Some(store) = store.filter(|_| settings.ownership.remember) else { return Ok(decider) };
    let owners = store.owners().await?;
    Ok(decider.with_ownership(settings.ownership.policy(), owners, Some(Arc::new(store))))
}

/// What the tasks of one daemon share.
pub(super) struct Daemon {
    settings: Arc<Settings>,
    shutdown: CancellationToken,
    requests: PollRequests,
    lookups: TargetedLookups,
    tasks: Tasks,
    /// Gives other services.
    pub(super) changed_services: Option<mpsc::Receiver<Known>>,
    /// What is known of services now.
    pub(super) known_services: Option<watch::Receiver<Known>>,
    /// None before the start.
    pub(super) desired: Option<watch::Receiver<Desired>>,
}

/// The instances' tasks as the others see them, in the settings' order.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) reports: Vec<watch::Receiver<InstanceReport>>,
    clients: Vec<MapClient>,
    targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    screens: Vec<RowScreen>,
}

impl Daemon {
    /// Starts every task.
    pub async fn start(
        ground: &Ground,
        metrics: PrometheusHandle,
        most_connections: usize,
        take_over: bool,
    ) -> anyhow::Result<Self> {
        let settings = &ground.settings;
        let listener = TcpListener::from_std(ground.listener.try_clone()?)?;
        // A store that can't be read keeps the daemon from starting: without its overrides nodes
        // would go back to where an operator took them from.
        let store = match &settings.store {
            Some(store) => Some(SqliteStore::open(&store.path).await?),
            None => None,
        };
        let (override_service, overridden) = match store.clone() {
            Some(store) => OverrideService::open(store)
                .await
                .map(|(service, overridden)| (Some(service), overridden))?,
            None => (None, Arc::default()),
        };
        let decider = map_decider(settings, overridden, store.clone()).await?;
        let decider = if take_over { decider.take_over() } else { decider };

        let mut daemon = Self::new(settings.clone());
        let overrides = daemon.start_overrides(override_service.clone());
        let registries = Registries::new(settings);
        let sources = daemon.start_sources(&registries)?;
        let lists = daemon.start_lists(&registries)?;
        let (desired_sender, desired) = watch::channel(Desired::default());
        daemon.desired = Some(desired.clone());
        let stored = stored_with(store.clone()).await?;
        let challenges = daemon.supply_certificates().await?;
        let tls_files = daemon.start_tls_files()?;
        let turn = Turn::default();
        let fleet = daemon.start_instances(&desired, &tls_files, challenges.as_ref(), &turn)?;
        let certificates = daemon.start_certificates(challenges, &fleet);
        let fresh = daemon.fresh_backends(ground, stored.as_ref().map(|(_, lists)| lists));
        let haproxy = daemon.start_supervisor(&desired, &fleet, turn, ground, fresh).await?;
        let services = daemon.start_services(ground, &registries, store, haproxy.clone())?;
        let (decision_sender, decision) =
            watch::channel(Decision { map: decider.decision().clone(), ..Decision::default() });
        let (orders_sender, orders) = mpsc::channel(ORDERS_WAITING);
        let servers = daemon.server_decider(stored, &ground.lists, &desired, &decision);
        let shadows = daemon.start_shadows(&registries, &sources, &lists, &decision);
        let api = Arc::new(Api {
            sources: sources.clone(),
            lists: lists.clone(),
            shadows,
            decision,
            desired,
            targets: fleet.targets.clone(),
            instances: fleet.reports,
            tls_files,
            certificates,
            haproxy,
            services,
            clients: fleet.clients,
            requests: daemon.requests.clone(),
            orders: orders_sender,
            overrides: override_service,
            metrics: metrics.clone(),
            settings: Arc::clone(&daemon.settings),
            heartbeats: daemon.tasks.heartbeats.clone(),
        });

        daemon.start_metrics_upkeep(metrics);
        let inputs = Inputs { sources, lists, overrides, targets: fleet.targets, orders };
        let outputs = Outputs { decision: decision_sender, desired: desired_sender };
        let (decider, names) = (decider.with_screens(fleet.screens), daemon.start_resolver());
        let engine = Engine::new(decider, servers, names, inputs, outputs)
            .with_config(settings.haproxy_config(&DesiredServers::default()));
        let (file_check, stop) = (daemon.settings.schedule.observe, daemon.shutdown.clone());
        daemon.tasks.start(DECIDER, engine.run(file_check, stop));

        tracing::info!(address = %listener.local_addr()?, "API listening");
        let spare = http::spare_router(api.clone(), most_connections);
        let stop = daemon.shutdown.clone();
        let router = http::router(api, ground.token.clone());
        let serve = http::serve(listener, router, spare, most_connections, stop);
        daemon.tasks.start("API", serve);
        daemon.start_schedule();
        Ok(daemon)
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

    fn start_sources(
        &mut self,
        registries: &Registries,
    ) -> anyhow::Result<Vec<watch::Receiver<SourceState>>> {
        let settings = Arc::clone(&self.settings);
        let (round, lookups) = (self.requests.round(), self.lookups.clone());
        let sources = settings.map_sources().map(|source| {
            let (name, feed) = (source.name.clone(), registries.node_map(&source.name)?);
            Ok(self.start_poller(name, source, feed, round.clone(), lookups.clone()))
        });
        sources.collect()
    }

    fn start_lists(
        &mut self,
        registries: &Registries,
    ) -> anyhow::Result<Vec<watch::Receiver<SourceState<ServerList>>>> {
        let settings = Arc::clone(&self.settings);
        let lists = settings.server_lists().into_iter().map(|(source, list)| {
            let (name, feed) = (list.to_string(), registries.servers(list)?);
            // What HAProxy learns is about nodes.
            let lookups = TargetedLookups::new();
            Ok(self.start_poller(name, source, feed, self.requests.round(), lookups))
        });
        lists.collect()
    }

    pub(super) fn start_poller<C: Content>(
        &mut self,
        name: String,
        source: &settings::Source,
        feed: Box<dyn Feed<C>>,
        round: Round,
        lookups: TargetedLookups,
    ) -> watch::Receiver<SourceState<C>> {
        self.start_poller_for(poller::Use::Applied, name, source, feed, round, lookups)
    }

    pub(super) fn start_poller_for<C: Content>(
        &mut self,
        use_of_it: poller::Use,
        name: String,
        source: &settings::Source,
        feed: Box<dyn Feed<C>>,
        round: Round,
        lookups: TargetedLookups,
    ) -> watch::Receiver<SourceState<C>> {
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            name.clone(),
            source.kind.to_string(),
            source.required,
        ));
        let stop = self.shutdown.clone();
        self.tasks.start(format!("source {name}"), async move {
            poller::run(name, feed, round, &lookups, sender, use_of_it, stop).await;
        });
        state
    }

    fn start_instances(
        &mut self,
        desired: &watch::Receiver<Desired>,
        tls_files: &[watch::Receiver<InForce>],
        challenges: Option<&Challenges>,
        turn: &Turn,
    ) -> anyhow::Result<Fleet> {
        let settings = Arc::clone(&self.settings);
        let map = MapName::new(&settings.map.path.to_string_lossy());
        let mut fleet = Fleet::default();
        let own = settings.own_instance();
        for (index, instance) in settings.instances.iter().enumerate() {
            let (targets_sender, targets) = watch::channel(None);
            let servers = ServerPhase::new(instance, targets_sender, settings.schedule.servers);
            let lookups = request_lookups(&self.lookups, &instance.name);
            let learned = LearnedTable::from_settings(instance, &settings.learned, lookups)?;
            let files = settings.tls_files.iter().zip(tls_files.iter().cloned());
            let certificates = CertificatePhase::new(instance, files, settings.schedule.verify);
            let (screen, rows) = rows::channel(&instance.name);
            let ask = Some(ask_sources(&self.requests));
            let task = Instance::new(instance, &map, &settings.schedule, ask, Some(servers))
                .with_rows(rows)
                .with_certificates(certificates)
                .with_challenges(self.challenge_phase(index, challenges))
                .with_turn((own == Some(index)).then(|| turn.clone()))
                .with_learned(learned);
            let task = if settings.keeps_map() { task } else { task.without_map() };
            let (sender, report) = watch::channel(task.report().clone());
            fleet.targets.push(targets);
            fleet.screens.push(screen);
            fleet.reports.push(report);
            fleet.clients.push(instance.map_client(&map));
            let work = task.run(desired.clone(), sender, self.shutdown.clone());
            self.tasks.start(format!("instance {}", instance.name), work);
        }
        Ok(fleet)
    }

    /// Has HAProxy's configuration written and loaded, where the settings say so.
    async fn start_supervisor(
        &mut self,
        desired: &watch::Receiver<Desired>,
        fleet: &Fleet,
        turn: Turn,
        ground: &Ground,
        fresh: BTreeSet<String>,
    ) -> anyhow::Result<Option<watch::Receiver<SupervisorReport>>> {
        let (stop, sockets) = (self.shutdown.clone(), ground.sockets.clone());
        let Some(supervisor) = Supervisor::new(&self.settings, turn, sockets, stop).await? else {
            return Ok(None);
        };
        let own = self.settings.own_instance().and_then(|own| fleet.reports.get(own).cloned());
        let Some(instance) = own else { return Ok(None) };
        let quarantined = ground.services.quarantined();
        let supervisor = supervisor.with_fresh(fresh).with_quarantined(quarantined);
        let report = supervisor.reports();
        let work = supervisor.run(desired.clone(), instance);
        self.tasks.start("haproxy", work);
        Ok(Some(report))
    }

    /// Goes on from the lists in the store, and keeps them there, or from those that were in force
    /// with other settings.
    fn server_decider(
        &mut self,
        stored: Option<(SqliteStore, BTreeMap<String, LastGoodList>)>,
        before: &BTreeMap<String, LastGoodList>,
        desired: &watch::Receiver<Desired>,
        decision: &watch::Receiver<Decision>,
    ) -> ServerDecider {
        let decider = ServerDecider::new(&self.settings);
        let Some((store, lists)) = stored else { return decider.go_on(before) };
        let decider = decider.resume(&lists).go_on(before);
        let origins = stored_lists(&self.settings);
        let (desired, decision) = (desired.clone(), decision.clone());
        let confirmed = move || confirmed_lists(&decision.borrow());
        let keep = keep_lists(store, origins, confirmed, lists, desired, self.shutdown.clone());
        self.tasks.start("server lists in the store", keep);
        decider
    }

    fn start_resolver(&mut self) -> HostNames {
        let resolver = Resolver::new(Box::new(SystemLookup), self.settings.damping.hold);
        let (names, lookups) = HostNames::new(resolver);
        self.start_until_shutdown("host names", lookups);
        names
    }

    /// Samples of durations are kept until somebody asks for the metrics; folded now and then, they
    /// don't pile up.
    fn start_metrics_upkeep(&mut self, metrics: PrometheusHandle) {
        self.start_until_shutdown("metrics", async move {
            loop {
                heartbeat::waiting(sleep(METRICS_UPKEEP)).await;
                metrics.run_upkeep();
            }
        });
    }

    fn start_schedule(&mut self) {
        let (clock, stop, requests) =
            (self.settings.schedule.clone(), self.shutdown.clone(), self.requests.clone());
        self.tasks.start("schedule", async move {
            if let Err(error) = schedule::run(&clock, requests, stop).await {
                tracing::error!("the schedule ended: {error}");
            }
        });
    }

    /// Waits for a signal, or a task that ends by itself, and then for the steps in progress. What
    /// to go on with, where that are other settings.
    pub async fn run_until_stopped(
        mut self,
        signals: &mut Signals,
        ground: &Ground,
    ) -> anyhow::Result<Option<Ground>> {
        let running = &mut self.tasks.running;
        let end = loop {
            let services = &mut self.changed_services;
            match signals.wait_for_end(&ground.file, &self.requests, services, running).await {
                End::Settings(file) => {
                    match ground.changed(*file, self.known_services.as_ref()).await {
                        Ok(changed) => break Ok(Some(changed)),
                        Err(error) => {
                            tracing::error!("SIGHUP: the settings in force stay so: {error:#}");
                        }
                    }
                }
                End::Services(services) => match ground.with_services(*services) {
                    Ok(changed) => break Ok(Some(changed)),
                    Err(error) => break Err(error),
                },
                End::Stopped => break Ok(None),
                End::Died(task) => break Err(anyhow!("the task {task:?} ended unexpectedly")),
            }
        };
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
        let lists = self.lists_in_force();
        match end {
            Ok(Some(changed)) => {
                tracing::info!("going on with the changed settings");
                Ok(Some(Ground { lists, ..changed }))
            }
            Ok(None) => {
                tracing::info!("stopped");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the daemon does side by side.
#[derive(Default)]
struct Tasks {
    heartbeats: Heartbeats,
    running: JoinSet<String>,
}

impl Tasks {
    fn start(&mut self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let work = self.heartbeats.watch(name.clone(), work);
        self.running.spawn(async move {
            work.await;
            name
        });
    }
}

fn ask_sources(requests: &PollRequests) -> AskSources {
    let requests = requests.clone();
    // Of what another writer knows already this one must miss nothing.
    Box::new(move || requests.request_everything_at_leisure())
}

fn request_lookups(lookups: &TargetedLookups, instance: &str) -> RequestLookups {
    let (lookups, instance) = (lookups.clone(), instance.to_owned());
    Box::new(move |routes| lookups.dispute(&instance, routes))
}
