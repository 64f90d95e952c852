//! Wiring: channels, tasks, signals. Decides nothing.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use haproxy_runtime::MapName;
use mapsmith_core::SourceState;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, DECIDER};
use crate::engine::map::{Inputs, MapDecider};
use crate::engine::servers::resolve::SystemLookup;
use crate::engine::servers::{ServerDecider, ServerDecision};
use crate::engine::{AskSources, RequestLookups, rows};
use crate::heartbeat::{self, Heartbeats};
use crate::http;
use crate::instance::Instance;
use crate::instance::learned::LearnedTable;
use crate::instance::servers::ServerPhase;
use crate::settings::{Listing, Settings};
use crate::source::schedule::PollRequests;
use crate::source::{self, TargetedLookups, poller, schedule};
use crate::store::map_file::MapFileWriter;
use crate::store::{OverrideService, SqliteStore, keep_lists};

mod descriptors;

/// How many approvals may wait for the decision at hand: one operator, one change; more callers
/// simply wait.
const APPROVALS_WAITING: usize = 4;
/// How often the metrics' samples are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);
/// How long the steps in progress may take to end after a signal, before the program leaves all the
/// same.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(30);

/// Runs the daemon until SIGTERM or SIGINT. With `take_over` it writes the map file also where
/// another Mapsmith does so.
///
/// # Errors
/// What keeps it from starting, or which of its tasks died.
pub async fn run(
    settings: Settings,
    metrics: PrometheusHandle,
    take_over: bool,
) -> anyhow::Result<()> {
    let settings = Arc::new(settings);
    let token = settings
        .api
        .token_file
        .as_deref()
        .map(http::Token::read)
        .transpose()
        .map_err(anyhow::Error::msg)?;
    let mut signals = Signals::catch()?;
    let most_connections = http::connections_within(descriptors::raise_limit());
    // Before anything is touched: a second Mapsmith that was started by mistake ends here.
    let listener = TcpListener::bind(settings.api.listen).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => " (is another Mapsmith running?)",
            io::ErrorKind::AddrNotAvailable => " (no interface of this machine has the address)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 are for root)",
            _ => "",
        };
        anyhow!("api.listen: can't listen on {}: {error}{hint}", settings.api.listen)
    })?;
    // A store that can't be read keeps the daemon from starting: without its overrides nodes would
    // go back to where an operator took them from.
    let store = match &settings.store {
        Some(store) => Some(SqliteStore::open(&store.path).await?),
        None => None,
    };
    let (keeper, stored) = match store.clone() {
        Some(store) => {
            OverrideService::open(store).await.map(|(keeper, stored)| (Some(keeper), stored))?
        }
        None => (None, Arc::default()),
    };
    let map_file = MapFileWriter::new(settings.map.file()).with_site(settings.site.name.as_deref());
    let decider = MapDecider::start(settings.guard.clone(), map_file, stored)
        .await?
        .with_actions(settings.references_in_force())
        .with_hold(settings.damping.hold);
    let decider = if take_over { decider.take_over() } else { decider };
    let shutdown = CancellationToken::new();
    let (requests, looks) = (PollRequests::new(), TargetedLookups::new());
    let mut tasks = Tasks::default();

    // Without a store the overrides stay as they are, none.
    let overrides = keeper
        .as_ref()
        .map_or_else(|| watch::channel(Arc::default()).1, OverrideService::subscribe);
    if let Some(keeper) = keeper.clone() {
        let stop = shutdown.clone();
        tasks.start("overrides", keeper.run(stop));
    }

    let mut states = Vec::new();
    for source in &settings.sources {
        let registry = source::build(source, settings.map.lowercase)?;
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            source.name.clone(),
            source.kind.to_string(),
            source.required,
        ));
        states.push(state);
        let (source, requests, looks, shutdown) =
            (source.clone(), requests.clone(), looks.clone(), shutdown.clone());
        tasks.start(format!("source {}", source.name), async move {
            poller::run(registry, &source, requests, &looks, sender, shutdown).await;
        });
    }

    let mut lists = Vec::new();
    for source in &settings.list_sources {
        let registry = source::build_list(source)?;
        let (sender, state) = watch::channel(SourceState::before_first_poll(
            source.name.clone(),
            source.kind.to_string(),
            source.required,
        ));
        lists.push(state);
        let (source, requests, shutdown) = (source.clone(), requests.clone(), shutdown.clone());
        tasks.start(format!("source {}", source.name), async move {
            // What HAProxy learns is about nodes.
            poller::run(registry, &source, requests, &TargetedLookups::new(), sender, shutdown)
                .await;
        });
    }

    let (wanted_sender, wanted) = watch::channel(None);
    let (desired_servers_sender, desired_servers) = watch::channel(None);
    let map_name = MapName::new(&settings.map.path.to_string_lossy());
    let (mut reports, mut clients, mut targets, mut screens) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for instance in &settings.instances {
        let (targets_sender, seen) = watch::channel(None);
        targets.push(seen);
        let servers = ServerPhase::new(
            instance,
            desired_servers.clone(),
            targets_sender,
            settings.schedule.servers,
        );
        let (screen, rows) = rows::channel(&instance.name);
        screens.push(screen);
        let task = Instance::new(
            instance,
            &map_name,
            &settings.schedule,
            Some(ask_sources(&requests)),
            Some(servers),
        )
        .with_rows(rows)
        .with_learned(LearnedTable::of(
            instance,
            &settings.learned,
            request_lookups(&looks, &instance.name),
        )?);
        let (sender, report) = watch::channel(task.report().clone());
        reports.push(report);
        clients.push(instance.map_client(&map_name));
        let (wanted, shutdown) = (wanted.clone(), shutdown.clone());
        tasks.start(format!("instance {}", instance.name), task.run(wanted, sender, shutdown));
    }

    let (decision_sender, decision) = watch::channel(decider.decision().clone());
    let (approvals_sender, approvals) = mpsc::channel(APPROVALS_WAITING);
    let (server_decision_sender, server_decision) = watch::channel(ServerDecision::default());
    let (server_approvals_sender, server_approvals) = mpsc::channel(APPROVALS_WAITING);
    let (mut server_decider, map_decision) =
        (ServerDecider::new(&settings, Box::new(SystemLookup)), decision.clone());
    if let Some(store) = store {
        let lists = store.last_good_lists().await?;
        server_decider = server_decider.resume(&lists);
        let (origins, desired, stop) =
            (stored_lists(&settings), desired_servers.clone(), shutdown.clone());
        tasks.start("server lists in the store", keep_lists(store, origins, lists, desired, stop));
    }
    let api = Arc::new(Api {
        sources: states.clone(),
        lists: lists.clone(),
        decision,
        server_decision,
        desired_servers,
        targets: targets.clone(),
        instances: reports,
        clients,
        requests: requests.clone(),
        approvals: approvals_sender,
        server_approvals: server_approvals_sender,
        overrides: keeper,
        metrics,
        settings: Arc::clone(&settings),
        heartbeats: tasks.heartbeats.clone(),
    });
    // Samples of durations are kept until somebody asks for the metrics; folded now and then, they
    // don't pile up.
    let (handle, stop) = (api.metrics.clone(), shutdown.clone());
    tasks.start("metrics", async move {
        let fold = async {
            loop {
                heartbeat::waiting(sleep(METRICS_UPKEEP)).await;
                handle.run_upkeep();
            }
        };
        stop.run_until_cancelled(fold).await;
    });

    let decider = decider.with_screens(screens);
    let inputs = Inputs { sources: states, overrides, targets, approvals };
    let (file_check, stop) = (settings.schedule.observe, shutdown.clone());
    tasks.start(DECIDER, decider.run(inputs, file_check, (decision_sender, wanted_sender), stop));
    let (outputs, stop) = ((server_decision_sender, desired_servers_sender), shutdown.clone());
    tasks.start(
        "server lists",
        server_decider.run(lists, map_decision, server_approvals, outputs, stop),
    );

    tracing::info!(address = %listener.local_addr()?, "API listening");
    let (spare, stop) = (http::spare_router(api.clone(), most_connections), shutdown.clone());
    tasks.start(
        "API",
        http::serve(listener, http::router(api, token), spare, most_connections, stop),
    );

    let (clock, stop, ticks) = (settings.schedule.clone(), shutdown.clone(), requests.clone());
    tasks.start("schedule", async move {
        if let Err(error) = schedule::run(&clock, ticks, stop).await {
            tracing::error!("the schedule ended: {error}");
        }
    });

    let died = signals.wait_for_end(&requests, &mut tasks.running).await;
    shutdown.cancel();
    tokio::select! {
        drained = timeout(SHUTDOWN_BOUND, async { while tasks.running.join_next().await.is_some() {} }) => if drained.is_err() {
            bail!("some tasks did not end within {SHUTDOWN_BOUND:?} after the signal");
        },
        signal = signals.end() => bail!("a second {signal}: left without waiting for the step in \
            hand"),
    }
    match died {
        Some(task) => bail!("the task {task:?} ended unexpectedly"),
        None => {
            tracing::info!("stopped");
            Ok(())
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

/// Where the lists come from that are stored, by backend. What is written out is in the settings.
fn stored_lists(settings: &Settings) -> BTreeMap<String, String> {
    let found = settings
        .backends
        .iter()
        .filter(|backend| !matches!(backend.listing(), Listing::Servers(_)));
    found.map(|backend| (backend.name.clone(), backend.origin())).collect()
}

fn ask_sources(requests: &PollRequests) -> AskSources {
    let requests = requests.clone();
    // Of what another writer knows already this one must miss nothing.
    Box::new(move || requests.request_everything_at_leisure())
}

fn request_lookups(looks: &TargetedLookups, instance: &str) -> RequestLookups {
    let (looks, instance) = (looks.clone(), instance.to_owned());
    Box::new(move |routes| looks.dispute(&instance, routes))
}

/// The signals that the daemon answers. Before they are caught here SIGTERM and SIGINT end it at
/// once, and SIGHUP does nothing (see `cli`).
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT and names it.
    async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for SIGTERM or SIGINT, passing SIGHUPs on as poll requests; or for a task that ends by
    /// itself, which none should.
    async fn wait_for_end(
        &mut self,
        requests: &PollRequests,
        tasks: &mut JoinSet<String>,
    ) -> Option<String> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    tracing::info!("SIGTERM: finishing the step in progress");
                    return None;
                }
                _ = self.interrupt.recv() => {
                    tracing::info!("SIGINT: finishing the step in progress");
                    return None;
                }
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: polling every source now");
                    requests.request_everything();
                }
                Some(ended) = tasks.join_next() => return Some(match ended {
                    Ok(task) => task,
                    Err(error) => error.to_string(),
                }),
            }
        }
    }
}
