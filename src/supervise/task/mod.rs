//! The task that brings HAProxy's configuration into force: rendered, checked, put in place, and
//! loaded where a reload is what it needs. It is the only one that writes the file or reloads.
//!
//! Like all of Mapsmith it is level-triggered: the file says by its stamp what it is, and the
//! process by its environment what it has loaded (`core::render::stamp`); what was done before is never
//! trusted. A crash at any point leaves a file that starts.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use haproxy_runtime::{MasterClient, RuntimeClient};
use mapsmith_core::Desired;
use mapsmith_core::config::Config;
use mapsmith_core::config::status::{ConfigState, HaproxyStatus, Quarantined, ReloadOutcome};
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::desired::config::DesiredConfig;
use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Due, Limits};
use super::candidate::Candidate;
use super::files::{Files, InPlace};
use super::health::Health;
use super::keeper::Keeper;
use super::lock;
use super::old_workers::OldWorkers;
use super::process::{Launch, ProcessError};
use super::reload::Reloader;
use super::server_states;
use super::sockets::{Handover, SocketsError};
use super::unknown::{FIRST_LISTS, FirstLists};
use crate::backoff::Backoff;
use crate::heartbeat;
use crate::instance::{InstanceReport, Turn};
use crate::settings::supervision::Managed;
use crate::settings::{self, Settings};
use crate::telemetry::{HAPROXY_CONFIG_EDITS, HAPROXY_RELOADS, HAPROXY_STARTS};

mod keep;
mod lists;
mod load;
mod observe;
mod outcome;
mod place;
mod setback;

use observe::{have_been_seen, process_of};
use outcome::{Failure, Next, Reason};
use setback::Setback;

/// Between a failure or a refusal and the next try: what it lacked may be there by then.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long a reload may take.
const RELOAD_BOUND: Duration = Duration::from_secs(60);
/// Between two looks while something is about to be in force.
const SOON: Duration = Duration::from_millis(100);
/// How long the process may take to say which configuration it has.
const ANSWER_BOUND: Duration = Duration::from_secs(5);

/// What the task publishes.
#[derive(Debug, Clone)]
pub struct SupervisorReport {
    /// For people.
    pub status: HaproxyStatus,
    /// The last [`Desired::generation`] whose configuration was settled: in force, or refused.
    pub observed: u64,
    /// The services that HAProxy refuses, where it refuses nothing else.
    pub refused_services: Vec<Quarantined>,
    /// Whether that keeps a HAProxy that is down from starting.
    pub refused_at_start: bool,
    /// When the last reload began, for the budget.
    pub(super) reload_began: Option<std::time::Instant>,
}

impl SupervisorReport {
    fn before_the_start(haproxy: &settings::Haproxy) -> Self {
        let status = HaproxyStatus {
            managed: haproxy.managed == Managed::Yes,
            config: haproxy.configuration().display().to_string(),
            state: ConfigState::Starting,
            loaded: None,
            process: None,
            last_reload: None,
            reloads: 0,
            starts: 0,
            refused: None,
            quarantined: Vec::new(),
            edit_kept: None,
        };
        Self {
            status,
            observed: 0,
            refused_services: Vec::new(),
            refused_at_start: false,
            reload_began: None,
        }
    }
}

/// The task of one HAProxy.
pub struct Supervisor {
    haproxy: settings::Haproxy,
    /// Held for as long as this lives; none where the folder can't be written now.
    _owner: Option<File>,
    /// The node map's file, which HAProxy must find; none without a map.
    map_file: Option<PathBuf>,
    observe: Duration,
    files: Arc<Mutex<Files>>,
    /// Keeps the process running; none where it is somebody else's.
    keeper: Option<Keeper>,
    /// Where its sockets are left for the next one.
    handover: Handover,
    /// Of a process that is somebody else's.
    reloader: Option<Reloader>,
    master: Option<MasterClient>,
    runtime: RuntimeClient,
    budget: Budget<Reason>,
    turn: Turn,
    /// The services among what is desired; none while they are not known yet.
    services: Option<BTreeSet<String>>,
    /// The services that HAProxy has not loaded yet.
    first_lists: FirstLists,
    /// Those that are not among it as their registry has them, because HAProxy refuses that.
    quarantined_services: Vec<Quarantined>,
    candidate: Option<Candidate>,
    /// What HAProxy last accepted.
    last_good: Option<Arc<DesiredConfig>>,
    /// None without a master's socket.
    old_workers: Option<OldWorkers>,
    /// What a load balancer in front is answered; none where it is not asked for.
    health: Option<Health>,
    /// Whether the process that runs answers that it is ready.
    is_ready: bool,
    began: Instant,
    /// What needed a reload when one was last made for it.
    reloaded_for: Vec<String>,
    /// The process that the instance spoke of last, and the one that the last reload replaced.
    observed_process: Option<u32>,
    replaced_process: Option<u32>,
    setback: Option<Setback>,
    /// Whether the servers of the process were seen.
    servers_are_seen: bool,
    /// Backends and servers that are out because a person wants that.
    kept_out: Vec<(String, String)>,
    /// Since when the Runtime API gives no answer though the master does.
    silent_since: Option<Instant>,
    report: SupervisorReport,
    published: watch::Sender<SupervisorReport>,
    shutdown: CancellationToken,
}

impl Supervisor {
    /// From the settings; none where HAProxy's configuration is somebody else's.
    ///
    /// # Errors
    /// Another Mapsmith has the folder, or it can't be used.
    pub async fn new(
        settings: &Settings,
        turn: Turn,
        handover: Handover,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let own = settings.own_instance().and_then(|own| settings.instances.get(own));
        let (Some(haproxy), Some(instance)) = (&settings.haproxy, own) else { return Ok(None) };
        let owner = lock::own_folder(haproxy.files()).await?;
        let runtime = runtime_of(instance);
        let master_socket = haproxy.master_socket();
        let master = master_socket.clone().map(|socket| MasterClient::new(socket, ANSWER_BOUND));
        let reloader = match (haproxy.managed, haproxy.reload_command(), &master) {
            // The process that runs brings its own.
            (Managed::Yes, ..) => None,
            (_, Some(command), master) => {
                let (master, runtime) = (master.clone(), Some(runtime.clone()));
                Some(Reloader::by_command(command, master, runtime, RELOAD_BOUND))
            }
            (_, None, Some(master)) => {
                Some(Reloader::by_master(master.clone(), None, RELOAD_BOUND))
            }
            (_, None, None) => bail!("haproxy: nothing says how HAProxy is reloaded"),
        };
        begin_counters(haproxy.managed == Managed::Yes);
        let held = handover.take(haproxy.files().path()).filter(|_| haproxy.hold_sockets);
        let keeper = || Keeper::new(Launch::new(haproxy)).with_sockets(held);
        let config = haproxy.configuration();
        let report = SupervisorReport::before_the_start(haproxy);
        Ok(Some(Self {
            haproxy: haproxy.clone(),
            _owner: owner,
            map_file: settings.keeps_map().then(|| settings.map.file().to_owned()),
            observe: settings.schedule.observe,
            files: Arc::new(Mutex::new(Files::new(&config, haproxy.files().path()))),
            keeper: (haproxy.managed == Managed::Yes).then(keeper),
            handover,
            reloader,
            master,
            runtime,
            budget: Budget::new(Limits {
                interval: haproxy.reload_interval(),
                max_old_workers: haproxy.max_old_workers(),
            }),
            turn,
            services: match settings.services_source() {
                Some(_) => settings.services_in_force.clone(),
                None => Some(BTreeSet::new()),
            },
            first_lists: FirstLists::default(),
            quarantined_services: Vec::new(),
            candidate: None,
            last_good: None,
            old_workers: master_socket.map(|socket| OldWorkers::new(settings, instance, socket)),
            health: Health::of(haproxy),
            is_ready: false,
            began: Instant::now(),
            reloaded_for: Vec::new(),
            observed_process: None,
            replaced_process: None,
            setback: None,
            servers_are_seen: false,
            kept_out: Vec::new(),
            silent_since: None,
            published: watch::Sender::new(report.clone()),
            report,
            shutdown,
        }))
    }

    /// Has the file wait for the servers of these services.
    #[must_use]
    pub fn with_first_lists(mut self, lists: FirstLists) -> Self {
        self.first_lists = lists;
        self
    }

    /// What is quarantined already: it is shown.
    #[must_use]
    pub fn with_quarantined(mut self, services: Vec<Quarantined>) -> Self {
        self.quarantined_services = services;
        self
    }

    /// Goes on with the reloads and starts that another one had of the same HAProxy: the least time
    /// between two reloads is that of both.
    #[must_use]
    pub fn with_history(mut self, before: Option<&SupervisorReport>) -> Self {
        let Some(SupervisorReport { status, reload_began, .. }) =
            before.filter(|before| before.status.config == self.report.status.config)
        else {
            return self;
        };
        self.budget.go_on(*reload_began);
        self.report.reload_began = *reload_began;
        let own = &mut self.report.status;
        (own.reloads, own.starts) = (status.reloads, status.starts);
        own.last_reload.clone_from(&status.last_reload);
        own.edit_kept.clone_from(&status.edit_kept);
        self.published.send_replace(self.report.clone());
        self
    }

    /// What it publishes.
    pub fn reports(&self) -> watch::Receiver<SupervisorReport> {
        self.published.subscribe()
    }

    /// Keeps the configuration in force until `shutdown`, and leaves HAProxy running then.
    pub async fn run(
        mut self,
        mut desired: watch::Receiver<Desired>,
        mut instance: watch::Receiver<InstanceReport>,
    ) {
        let shutdown = self.shutdown.clone();
        let mut backoff = BACKOFF;
        // Nothing that matters fails here.
        let states = self.haproxy.files().server_states();
        let clear = move |files: &mut Files| {
            files.remove_leftovers();
            Ok(server_states::clear(&states)?)
        };
        let _ = self.files(clear).await;
        while !shutdown.is_cancelled() {
            heartbeat::beat();
            let wanted = desired.borrow_and_update().clone();
            let (needs, in_sync) = {
                let report = instance.borrow_and_update();
                let needs = self.needs_reload(&report, wanted.generation);
                self.servers_are_seen = have_been_seen(&report);
                self.observed_process = process_of(&report);
                self.kept_out.clone_from(&report.kept_out);
                (needs, report.observed.generation() >= wanted.generation)
            };
            let lists_are_known =
                wanted.config.as_ref().is_some_and(|config| self.awaited(config).next().is_none());
            let next = self.cycle(&wanted, needs.as_deref()).await;
            self.follow_old_workers(&desired, wanted.generation);
            self.tell_health(in_sync && lists_are_known).await;
            if let Some(running) = self.keeper.as_ref().and_then(Keeper::running) {
                // One that can't be emptied is told by the disk's own alarms.
                let _ = running.bound_log();
            }
            let wait = match next {
                Next::AsUsual => {
                    backoff.reset();
                    match self.budget.due(0, Instant::now().into_std()) {
                        Due::In(left) => left.min(self.observe),
                        _ if self.report.observed < wanted.generation && self.is_about_to() => SOON,
                        _ => self
                            .first_lists
                            .left(Instant::now())
                            .map_or(self.observe, |left| left.min(self.observe)),
                    }
                }
                Next::In(left) => left,
                Next::BackOff => backoff.pause(),
            };
            self.published.send_replace(self.report.clone());
            let news = async {
                tokio::select! {
                    Ok(()) = desired.changed() => {}
                    // What it needs a reload for is new, or was met.
                    Ok(_) = instance.wait_for(|report| {
                        let now_in_sync = report.observed.generation() >= wanted.generation;
                        let now_needs = self.needs_reload(report, wanted.generation);
                        now_needs != needs
                            || now_in_sync != in_sync
                            || have_been_seen(report) != self.servers_are_seen
                    }) => {}
                    () = ended(self.keeper.as_ref()) => {}
                    () = sleep(wait) => {}
                    () = shutdown.cancelled() => {}
                }
            };
            heartbeat::waiting(news).await;
        }
        if let Some(sockets) = self.keeper.take().and_then(Keeper::into_sockets) {
            self.handover.keep(self.haproxy.files().path(), sockets);
        }
    }
}

impl Supervisor {
    /// Looks once and does what is to be done; when to look again.
    async fn cycle(&mut self, desired: &Desired, needs: Option<&[String]>) -> Next {
        let outcome = self.pass(desired, needs).await;
        let next = Next::after(&outcome);
        let state = match outcome {
            Ok(state) => state,
            Err(Failure::Stopped) => ConfigState::Stopped,
            Err(Failure::Ending) => return next,
            Err(Failure::Restarting) => ConfigState::Starting,
            Err(Failure::FellBack(why)) => ConfigState::Refused { reason: why.to_string() },
            Err(failure) => ConfigState::Failed { error: failure.to_string() },
        };
        self.keep_refusal(&state).await;
        self.observe_processes().await;
        self.publish(state);
        next
    }

    /// One pass: what is in place, what should be, the process, and what that has loaded.
    async fn pass(
        &mut self,
        desired: &Desired,
        needs: Option<&[String]>,
    ) -> Result<ConfigState, Failure> {
        self.report.status.loaded = None;
        let Some(config) = &desired.config else { return Ok(ConfigState::Starting) };
        self.leave_to_others()?;
        let in_place = self.files(Files::in_place).await?;
        if self.services.is_none() {
            if in_place.is_some() {
                self.keep_running().await?;
            }
            let reason = "the services of the registry are not known yet (services.from, \
                portmap.source); the file stays as it is (with [store] a restart knows the last \
                ones)";
            return Ok(ConfigState::Waiting { reason: reason.to_owned() });
        }
        if let Some(waiting) = self.wait_for_lists(config, in_place.is_some()).await? {
            return Ok(waiting);
        }
        if let Some(InPlace { stamp, .. }) = &in_place {
            self.start_what_is_good(stamp, config).await?;
        }
        if self.lacks_candidate(config) {
            let held = self.hold_sockets(&config.config).await;
            if let Err(ProcessError::Sockets(error @ SocketsError::Bind { .. })) = held {
                if self.refuse_services_without_port(&config.config) {
                    return self.wait_without_refused(in_place.is_some()).await;
                }
                // What is in place needs no more than it had.
                return self.keep_last_good(in_place.is_some(), error.to_string()).await;
            }
            held?;
            let filled = match self.with_servers_in_place(config).await? {
                Ok(filled) => filled,
                Err(backend) => {
                    return self.wait_without_lists(&backend, "", in_place.is_some()).await;
                }
            };
            match Candidate::new(&filled, self.sockets()) {
                Ok(made) => self.candidate = Some(Candidate { of: Arc::clone(config), ..made }),
                Err(error) => {
                    let refused = ConfigState::Refused { reason: error.to_string() };
                    if self.report.status.state != refused {
                        tracing::error!("HAProxy's configuration: {refused}");
                    }
                    return self.keep_last_good(in_place.is_some(), error.to_string()).await;
                }
            }
            self.report.status.quarantined = self.quarantined_services.clone();
        }
        let has_good = in_place.is_some();
        if let Some(reason) = self.is_set_back(in_place.as_ref()).await {
            return self.keep_last_good(has_good, reason).await;
        }
        match self.put_in_place(in_place).await? {
            Some(ConfigState::Refused { reason }) => {
                return self.keep_last_good(has_good, reason).await;
            }
            Some(ConfigState::Waiting { .. }) => return self.wait_without_refused(has_good).await,
            Some(state) => return Ok(state),
            None => {}
        }
        self.keep_running().await?;
        let state = self.load(needs).await?;
        if let (ConfigState::InForce, Some(keeper)) = (&state, &mut self.keeper) {
            keeper.release(addresses(&config.config)).map_err(ProcessError::from)?;
        }
        Ok(state)
    }

    /// Whether what is desired is to be rendered: it is another, or sockets are to be held that the
    /// one before did not have.
    fn lacks_candidate(&self, config: &Arc<DesiredConfig>) -> bool {
        let holds_anew = self.haproxy.hold_sockets
            && self.is_down()
            && !self.sockets().are_of(addresses(&config.config));
        holds_anew
            || self.candidate.as_ref().is_none_or(|candidate| !Arc::ptr_eq(&candidate.of, config))
    }

    /// Why the candidate is not to be put in place again yet: HAProxy could not load it.
    async fn is_set_back(&mut self, in_place: Option<&InPlace>) -> Option<String> {
        let candidate = self.candidate.as_ref()?;
        if in_place.is_some_and(|in_place| in_place.holds(&candidate.text)) {
            return None;
        }
        let ConfigState::Refused { reason } = self.setback_of(&candidate.mark)? else {
            return None;
        };
        let mark = candidate.mark.clone();
        // It may have been slow.
        (self.loaded().await.ok().flatten() != Some(mark)).then_some(reason)
    }

    /// Whether more is in force at any moment.
    fn is_about_to(&self) -> bool {
        matches!(self.report.status.state, ConfigState::InForce | ConfigState::Starting)
    }
}

/// There from the start: a counter that begins at 1 has no rise that an alert could see.
fn begin_counters(starts: bool) {
    if starts {
        counter!(HAPROXY_STARTS).increment(0);
    }
    for reason in Reason::ALL {
        for outcome in ReloadOutcome::ALL {
            let (reason, outcome) = (reason.label(), outcome.label());
            counter!(HAPROXY_RELOADS, "reason" => reason, "outcome" => outcome).increment(0);
        }
    }
    counter!(HAPROXY_CONFIG_EDITS).increment(0);
}

/// What its frontends listen on.
fn addresses(config: &Config) -> impl Iterator<Item = &BindAddress> {
    config.frontends.iter().flat_map(|frontend| &frontend.binds).map(|bind| &bind.address)
}

fn runtime_of(instance: &settings::Instance) -> RuntimeClient {
    RuntimeClient::new(instance.runtime.clone(), ANSWER_BOUND)
}

/// Resolves when a managed process that runs has ended.
async fn ended(keeper: Option<&Keeper>) {
    match keeper.and_then(Keeper::running) {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}
