//! The tasks of a daemon: what each is given, and how they end together.

use std::collections::BTreeMap;
use std::sync::Arc;

use haproxy_runtime::{MapClient, MapName};
use jiff::Timestamp;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::server::LastGoodList;
use mapsmith_core::{Content, Desired, DesiredServers, Overrides, ServerList, SourceState};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, DECIDER};
use crate::engine::map::MapDecider;
use crate::engine::rows::{self, RowScreen};
use crate::engine::servers::ServerDecider;
use crate::engine::servers::resolve::{HostNames, Resolver, SystemLookup};
use crate::engine::{AskSources, Decision, Engine, Inputs, Memory, Outputs, RequestLookups};
use crate::heartbeat;
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
use crate::tls_file::{InForce, TlsFile};

use super::Ground;
use super::tasks::Tasks;

/// How many orders may wait for the decision at hand: one operator, one change; more callers simply
/// wait.
const ORDERS_WAITING: usize = 4;
/// How often the metrics' samples are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

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
    pub(super) shutdown: CancellationToken,
    pub(super) requests: PollRequests,
    lookups: TargetedLookups,
    pub(super) tasks: Tasks,
    /// Gives other services.
    pub(super) changed_services: Option<mpsc::Receiver<Known>>,
    /// What is known of services now.
    pub(super) known_services: Option<watch::Receiver<Known>>,
    /// None before the start.
    pub(super) desired: Option<watch::Receiver<Desired>>,
    /// Has what the engine knows once it has ended.
    pub(super) memory: Option<oneshot::Receiver<Memory>>,
    /// None where HAProxy's process and configuration are somebody else's.
    pub(super) haproxy: Option<watch::Receiver<SupervisorReport>>,
}

/// The instances' tasks as the others see them, in the settings' order.
#[derive(Default)]
struct Fleet {
    reports: Vec<watch::Receiver<InstanceReport>>,
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
        let mut decider = if take_over { decider.take_over() } else { decider };
        if let Some(memory) = &ground.memory {
            decider.go_on(memory);
        }

        let mut daemon = Self::new(settings.clone());
        let overrides = daemon.start_overrides(override_service.clone());
        let registries = Registries::new(settings);
        let sources = daemon.start_sources(&registries)?;
        let lists = daemon.start_lists(&registries)?;
        let (desired_sender, desired) = watch::channel(Desired::default());
        daemon.desired = Some(desired.clone());
        let stored = stored_with(store.clone()).await?;
        let tls_files = daemon.start_tls_files()?;
        let turn = Turn::default();
        let fleet = daemon.start_instances(&desired, &tls_files, &turn)?;
        let haproxy = daemon.start_supervisor(&desired, &fleet, turn, ground).await?;
        let services = daemon.start_services(ground, &registries, store, haproxy.clone())?;
        let (decision_sender, decision) =
            watch::channel(Decision { map: decider.decision().clone(), ..Decision::default() });
        let (orders_sender, orders) = mpsc::channel(ORDERS_WAITING);
        let servers = daemon.server_decider(stored, ground, &desired, &decision);
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
        let engine = engine.remember(ground.memory.as_deref());
        let (told, memory) = oneshot::channel();
        daemon.memory = Some(memory);
        daemon.tasks.start(DECIDER, async move {
            // Nobody waits for it at the end of the program.
            let _ = told.send(engine.run(file_check, stop).await);
        });

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
            memory: None,
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

    /// In the settings' order.
    fn start_tls_files(&mut self) -> anyhow::Result<Vec<watch::Receiver<InForce>>> {
        let settings = Arc::clone(&self.settings);
        let files = settings.tls_files.iter().map(|file| {
            let (task, state) = TlsFile::new(file)?;
            let name = format!("tls_file {}", file.path.display());
            self.tasks.start(name, task.run(self.requests.round(), self.shutdown.clone()));
            Ok(state)
        });
        files.collect()
    }

    fn start_instances(
        &mut self,
        desired: &watch::Receiver<Desired>,
        tls_files: &[watch::Receiver<InForce>],
        turn: &Turn,
    ) -> anyhow::Result<Fleet> {
        let settings = Arc::clone(&self.settings);
        let map = MapName::new(&settings.map.path.to_string_lossy());
        let mut fleet = Fleet::default();
        let own = settings.own_instance();
        for (index, instance) in settings.instances.iter().enumerate() {
            let (targets_sender, targets) = watch::channel(None);
            let is_own = own == Some(index);
            let servers = ServerPhase::new(instance, targets_sender, settings.schedule.servers)
                .with_own_reloads(is_own);
            let lookups = request_lookups(&self.lookups, &instance.name);
            let learned = LearnedTable::from_settings(instance, &settings.learned, lookups)?;
            let files = settings.tls_files.iter().zip(tls_files.iter().cloned());
            let certificates = CertificatePhase::new(instance, files, settings.schedule.verify);
            let (screen, rows) = rows::channel(&instance.name);
            let ask = Some(ask_sources(&self.requests));
            let task = Instance::new(instance, &map, &settings.schedule, ask, Some(servers))
                .with_rows(rows)
                .with_certificates(certificates)
                .with_turn(is_own.then(|| turn.clone()))
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
    ) -> anyhow::Result<Option<watch::Receiver<SupervisorReport>>> {
        let (stop, sockets) = (self.shutdown.clone(), ground.sockets.clone());
        let Some(supervisor) = Supervisor::new(&self.settings, turn, sockets, stop).await? else {
            return Ok(None);
        };
        let own = self.settings.own_instance().and_then(|own| fleet.reports.get(own).cloned());
        let Some(instance) = own else { return Ok(None) };
        let lists = ground.services.first_lists().clone();
        let quarantined = ground.services.quarantined();
        let supervisor = supervisor.with_first_lists(lists).with_quarantined(quarantined);
        let supervisor = supervisor.with_history(ground.haproxy.as_ref());
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
        ground: &Ground,
        desired: &watch::Receiver<Desired>,
        decision: &watch::Receiver<Decision>,
    ) -> ServerDecider {
        let decider = ServerDecider::new(&self.settings);
        let go_on = |decider: ServerDecider| match &ground.memory {
            Some(memory) => decider.go_on(&ground.lists).remember(memory),
            None => decider.go_on(&ground.lists),
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
}

/// The store with the lists in it.
async fn stored_with(
    store: Option<SqliteStore>,
) -> anyhow::Result<Option<(SqliteStore, BTreeMap<String, LastGoodList>)>> {
    let Some(store) = store else { return Ok(None) };
    let lists = store.last_good_lists().await?;
    Ok(Some((store, lists)))
}

/// Where each backend's list comes from. All are stored, those too that the settings write out:
/// what takes their place one day is a change of them.
pub(super) fn stored_lists(settings: &Settings) -> BTreeMap<String, String> {
    let origin = |backend: &settings::Backend| (backend.name.clone(), backend.origin());
    settings.backends.iter().map(origin).collect()
}

/// When whoever lists a backend's servers last said what is in force, of those that have since the
/// start.
fn confirmed_lists(decision: &Decision) -> BTreeMap<String, Timestamp> {
    let confirmed = decision.backends.iter().filter(|backend| backend.waiting_for.is_none());
    confirmed.filter_map(|backend| Some((backend.name.clone(), backend.confirmed_at?))).collect()
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
