//! The task that brings HAProxy's configuration into force: rendered, checked, put in place, and
//! loaded where a reload is what it needs. It is the only one that writes the file or reloads.
//!
//! Like all of Mapsmith it is level-triggered: the file says by its stamp what it is, and the
//! process by its environment what it has loaded (`core::render::stamp`); what was done before is never
//! trusted. A crash at any point leaves a file that starts.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::bail;
use futures_util::FutureExt as _;
use haproxy_runtime::{MasterClient, RuntimeClient};
use mapsmith_core::Desired;
use mapsmith_core::config::Config;
use mapsmith_core::config::status::{ConfigState, HaproxyStatus, ReloadOutcome};
use mapsmith_core::config::values::BindAddress;
use mapsmith_core::desired::config::DesiredConfig;
use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Due, Limits};
use super::candidate::Candidate;
use super::check::CheckError;
use super::files::{self, Files, FilesError};
use super::health::{Answer, Health};
use super::keeper::{Event, Keeper};
use super::lock::{self, LockError};
use super::old_workers::OldWorkers;
use super::process::{Launch, ProcessError};
use super::reload::Reloader;
use crate::backoff::Backoff;
use crate::heartbeat;
use crate::instance::{InstanceReport, Turn};
use crate::settings::supervision::Managed;
use crate::settings::{self, Settings};
use crate::telemetry::{HAPROXY_CONFIG_EDITS, HAPROXY_RELOADS, HAPROXY_STARTS};

mod load;
mod observe;
mod place;

/// Between a failure or a refusal and the next try: what it lacked may be there by then.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long one that is just ending may still have the folder.
const OWNER_BOUND: Duration = Duration::from_secs(5);
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
}

/// Why a reload is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// The process has another configuration.
    Configuration,
    /// Servers can't be brought by the Runtime API.
    Servers,
}

impl Reason {
    const ALL: [Self; 2] = [Self::Configuration, Self::Servers];

    fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Servers => "servers",
        }
    }
}

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Files(#[from] FilesError),
    #[error("{0}")]
    Check(#[from] CheckError),
    #[error("{0}")]
    Process(#[from] ProcessError),
    #[error("a task of the program ended: {0}")]
    Blocking(#[from] tokio::task::JoinError),
    #[error("{0}")]
    Unanswered(String),
    #[error("HAProxy was stopped on purpose; `mapsmith haproxy start` starts it")]
    Stopped,
    #[error("Mapsmith is shutting down")]
    Ending,
    #[error("HAProxy ended by itself and is started again in {:.1} s", .0.as_secs_f64())]
    Down(Duration),
    #[error("the map file {}: can't be created: {cause}", path.display())]
    MapFile { path: PathBuf, cause: std::io::Error },
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
    /// Of a process that is somebody else's.
    reloader: Option<Reloader>,
    master: Option<MasterClient>,
    runtime: RuntimeClient,
    budget: Budget<Reason>,
    turn: Turn,
    candidate: Option<Candidate>,
    /// What HAProxy last accepted.
    last_good: Option<Arc<DesiredConfig>>,
    /// None without a master's socket.
    old_workers: Option<OldWorkers>,
    /// What a load balancer in front is answered; none where it is not asked for.
    health: Option<Health>,
    /// Whether the process that runs answers that it is ready.
    is_ready: bool,
    /// What needed a reload when one was last made for it.
    reloaded_for: Vec<String>,
    report: SupervisorReport,
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
        shutdown: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let own = settings.own_instance().and_then(|own| settings.instances.get(own));
        let (Some(haproxy), Some(instance)) = (&settings.haproxy, own) else { return Ok(None) };
        let owner = own_folder(haproxy).await?;
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
        if haproxy.managed == Managed::Yes {
            counter!(HAPROXY_STARTS).increment(0);
        }
        for reason in Reason::ALL {
            for outcome in ReloadOutcome::ALL {
                let (reason, outcome) = (reason.label(), outcome.label());
                // There from the start: a counter that begins at 1 has no rise that an alert could
                // see.
                counter!(HAPROXY_RELOADS, "reason" => reason, "outcome" => outcome).increment(0);
            }
        }
        counter!(HAPROXY_CONFIG_EDITS).increment(0);
        let config = haproxy.configuration();
        let status = HaproxyStatus {
            managed: haproxy.managed == Managed::Yes,
            config: config.display().to_string(),
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
        Ok(Some(Self {
            haproxy: haproxy.clone(),
            _owner: owner,
            map_file: settings.keeps_map().then(|| settings.map.file().to_owned()),
            observe: settings.schedule.observe,
            files: Arc::new(Mutex::new(Files::new(&config, haproxy.files().path()))),
            keeper: (haproxy.managed == Managed::Yes).then(|| Keeper::new(Launch::new(haproxy))),
            reloader,
            master,
            runtime,
            budget: Budget::new(Limits {
                interval: haproxy.reload_interval(),
                max_old_workers: haproxy.max_old_workers(),
            }),
            turn,
            candidate: None,
            last_good: None,
            old_workers: master_socket.map(|socket| OldWorkers::new(settings, instance, socket)),
            health: Health::of(haproxy),
            is_ready: false,
            reloaded_for: Vec::new(),
            report: SupervisorReport { status, observed: 0 },
            shutdown,
        }))
    }

    /// What it last published.
    pub fn report(&self) -> &SupervisorReport {
        &self.report
    }

    /// Keeps the configuration in force until `shutdown`, and leaves HAProxy running then.
    pub async fn run(
        mut self,
        mut desired: watch::Receiver<Desired>,
        mut instance: watch::Receiver<InstanceReport>,
        report: watch::Sender<SupervisorReport>,
    ) {
        let shutdown = self.shutdown.clone();
        let mut backoff = BACKOFF;
        while !shutdown.is_cancelled() {
            heartbeat::beat();
            let wanted = desired.borrow_and_update().clone();
            let (needs, in_sync) = {
                let report = instance.borrow_and_update();
                (needs_reload(&report), report.observed.generation() >= wanted.generation)
            };
            let lists_are_known =
                wanted.config.as_ref().is_some_and(|config| config.unknown.is_empty());
            let is_well = self.cycle(&wanted, &needs).await;
            self.follow_old_workers(&desired, wanted.generation);
            self.tell_health(in_sync && lists_are_known).await;
            if let Some(running) = self.keeper.as_ref().and_then(Keeper::running) {
                // One that can't be emptied is told by the disk's own alarms.
                let _ = running.bound_log();
            }
            let wait = match is_well {
                true => {
                    backoff.reset();
                    match self.budget.due(0, Instant::now().into_std()) {
                        Due::In(left) => left.min(self.observe),
                        _ if self.report.observed < wanted.generation => SOON,
                        _ => self.observe,
                    }
                }
                false => backoff.pause(),
            };
            report.send_replace(self.report.clone());
            let news = async {
                tokio::select! {
                    Ok(()) = desired.changed() => {}
                    // What it needs a reload for is new, or was met.
                    Ok(_) = instance.wait_for(|report| {
                        let now_in_sync = report.observed.generation() >= wanted.generation;
                        needs_reload(report) != needs || now_in_sync != in_sync
                    }) => {}
                    () = ended(self.keeper.as_ref()) => {}
                    () = sleep(wait) => {}
                    () = shutdown.cancelled() => {}
                }
            };
            heartbeat::waiting(news).await;
        }
    }
}

impl Supervisor {
    /// Looks once and does what is to be done; whether all is as it should be, or only waits.
    async fn cycle(&mut self, desired: &Desired, needs: &[String]) -> bool {
        let state = match self.pass(desired, needs).await {
            Ok(state) => state,
            Err(Failure::Stopped) => ConfigState::Stopped,
            Err(Failure::Ending) => return true,
            Err(failure) => ConfigState::Failed { error: failure.to_string() },
        };
        self.observe_processes().await;
        let is_good = matches!(
            state,
            ConfigState::InForce
                | ConfigState::Starting
                | ConfigState::Stopped
                | ConfigState::Waiting { .. }
                | ConfigState::ReloadDue { .. }
        );
        self.publish(state);
        is_good
    }

    /// One pass: what is in place, what should be, the process, and what that has loaded.
    async fn pass(&mut self, desired: &Desired, needs: &[String]) -> Result<ConfigState, Failure> {
        let Some(config) = &desired.config else { return Ok(ConfigState::Starting) };
        let in_place = self.files(Files::in_place).await?;
        if let (Some(_), [first, more @ ..]) = (&in_place, config.unknown.as_slice()) {
            self.keep_running().await?;
            let more = if more.is_empty() { "" } else { " and others" };
            let reason = format!(
                "the servers of backend {first}{more} are not known yet; the file stays as it is \
                    (with [store] a restart knows the last ones)"
            );
            return Ok(ConfigState::Waiting { reason });
        }
        if self.candidate.as_ref().is_none_or(|candidate| !Arc::ptr_eq(&candidate.of, config)) {
            if let Some(keeper) = self.keeper.as_mut().filter(|_| self.haproxy.hold_sockets) {
                keeper.hold(addresses(&config.config)).await?;
            }
            match Candidate::new(config, self.sockets()) {
                Ok(candidate) => self.candidate = Some(candidate),
                Err(error) => {
                    if in_place.is_some() {
                        self.keep_running().await?;
                    }
                    return Ok(ConfigState::Refused { reason: error.to_string() });
                }
            }
            self.report.status.quarantined.clear();
        }
        let has_good = in_place.is_some();
        if let Some(refusal) = self.put_in_place(in_place).await? {
            if has_good {
                self.keep_running().await?;
            }
            return Ok(refusal);
        }
        self.keep_running().await?;
        let state = self.load(needs).await?;
        if let (ConfigState::InForce, Some(keeper)) = (&state, &mut self.keeper) {
            keeper.release(addresses(&config.config)).map_err(ProcessError::from)?;
        }
        Ok(state)
    }

    /// Finds or starts a managed process that does not run.
    async fn keep_running(&mut self) -> Result<(), Failure> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        loop {
            let event = if keeper.running().is_some() {
                // Where it has ended, that shows at once.
                match keeper.next().now_or_never() {
                    None => return Ok(()),
                    Some(event) => event,
                }
            } else if keeper.find().await? {
                Event::Found
            } else if keeper.launch().is_stopped() {
                return Err(Failure::Stopped);
            } else if let Some(left) = keeper.pause() {
                return Err(Failure::Down(left));
            } else {
                // Until the map and the servers are in force in it.
                if let Some(health) = &self.health {
                    health.write(Answer::Starting).map_err(FilesError::Write)?;
                }
                self.is_ready = false;
                // One whose start is not waited for is found by the next Mapsmith.
                let next = self.shutdown.run_until_cancelled(keeper.next());
                heartbeat::waiting(next).await.ok_or(Failure::Ending)?
            };
            match event {
                Event::Found => tracing::info!("HAProxy runs already"),
                Event::Started => {
                    tracing::info!("HAProxy was started");
                    counter!(HAPROXY_STARTS).increment(1);
                    self.report.status.starts += 1;
                }
                Event::NotStarted { why, .. } => return Err(why.into()),
                Event::Died { said } => tracing::error!("HAProxy ended by itself: {said}"),
                Event::Stopped => return Err(Failure::Stopped),
                Event::Restarting => tracing::info!("HAProxy has ended to be started again"),
            }
        }
    }
}

/// Makes the folder this Mapsmith's: two that write one configuration would undo each other's work
/// for ever. A folder that can't be written at the moment keeps nobody from starting.
async fn own_folder(haproxy: &settings::Haproxy) -> anyhow::Result<Option<File>> {
    let folder = haproxy.files();
    let locked = match files::create(folder.path()) {
        Ok(()) => lock::acquire(&folder.owner(), OWNER_BOUND).await,
        Err(error) => {
            tracing::warn!("{error}");
            return Ok(None);
        }
    };
    match locked {
        Ok(file) => Ok(Some(file)),
        Err(LockError::Taken(_)) => bail!(
            "haproxy.folder: another Mapsmith keeps HAProxy's configuration in {}; stop it, or \
                give this one a folder of its own",
            folder.path().display()
        ),
        Err(error) => {
            tracing::warn!("{error}");
            Ok(None)
        }
    }
}

/// What its frontends listen on.
fn addresses(config: &Config) -> impl Iterator<Item = &BindAddress> {
    config.frontends.iter().flat_map(|frontend| &frontend.binds).map(|bind| &bind.address)
}

fn runtime_of(instance: &settings::Instance) -> RuntimeClient {
    RuntimeClient::new(instance.runtime.clone(), ANSWER_BOUND)
}

/// What of the servers only a reload of HAProxy can bring.
fn needs_reload(report: &InstanceReport) -> Vec<String> {
    report.status.servers.as_ref().map(|servers| servers.needs_reload.clone()).unwrap_or_default()
}

/// Resolves when a managed process that runs has ended.
async fn ended(keeper: Option<&Keeper>) {
    match keeper.and_then(Keeper::running) {
        Some(running) => running.ended().await,
        None => std::future::pending().await,
    }
}
