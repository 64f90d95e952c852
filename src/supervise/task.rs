//! The task that brings HAProxy's configuration into force: rendered, checked, put in place, and
//! loaded where a reload is what it needs. It is the only one that writes the file or reloads.
//!
//! Like all of Mapsmith it is level-triggered: the file says by its stamp what it is, and the
//! process by its environment what it has loaded ([`stamp`]); what was done before is never
//! trusted. A crash at any point leaves a file that starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use haproxy_runtime::master::Target;
use haproxy_runtime::{MasterClient, RuntimeClient};
use jiff::Timestamp;
use mapsmith_core::Desired;
use mapsmith_core::config::status::{
    ConfigState, HaproxyStatus, ProcessStatus, RefusedCandidate, ReloadOutcome, ReloadReport,
    WorkerStatus,
};
use mapsmith_core::render::Rendered;
use mapsmith_core::render::stamp::{self, Stamp};
use mapsmith_core::status::milliseconds;
use metrics::{counter, gauge};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Due};
use super::candidate::Candidate;
use super::check::{self, CHECK_BOUND, CheckError, Verdict};
use super::files::{Files, FilesError, InPlace};
use super::health::{Answer, Health};
use super::old_workers::OldWorkers;
use super::process::{self, ProcessError};
use super::reload::{Outcome, Reloader};
use super::sockets::Sockets;
use crate::backoff::Backoff;
use crate::heartbeat;
use crate::instance::{InstanceReport, Turn};
use crate::settings::supervision::Managed;
use crate::settings::{self, Settings};
use crate::telemetry::{
    HAPROXY_CONFIG_EDITS, HAPROXY_CONFIG_IN_FORCE, HAPROXY_CONFIG_QUARANTINED,
    HAPROXY_CONFIG_REFUSED, HAPROXY_RELOADS, HAPROXY_WORKERS,
};

/// Between a failure or a refusal and the next try: what it lacked may be there by then.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
/// How long a reload may take.
const RELOAD_BOUND: Duration = Duration::from_secs(60);
/// How long a reload waits for the commands that are being sent to the worker it replaces.
const TURN_BOUND: Duration = Duration::from_secs(30);
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    #[error("the map file {}: can't be created: {cause}", path.display())]
    MapFile { path: PathBuf, cause: std::io::Error },
}

/// The task of one HAProxy.
pub struct Supervisor {
    haproxy: settings::Haproxy,
    /// The node map's file, which HAProxy must find; none without a map.
    map_file: Option<PathBuf>,
    observe: Duration,
    files: Arc<std::sync::Mutex<Files>>,
    /// None where the process is somebody else's.
    managed: Option<process::Managed>,
    reloader: Arc<Reloader>,
    master: Option<MasterClient>,
    runtime: RuntimeClient,
    budget: Budget,
    turn: Turn,
    candidate: Option<Candidate>,
    /// None without a master's socket.
    old_workers: Option<OldWorkers>,
    /// What a load balancer in front is answered; none where it is not asked for.
    health: Option<Health>,
    /// Whether the process that runs answers that it is ready.
    is_ready: bool,
    /// What needed a reload when one was last made for it.
    reloaded_for: Vec<String>,
    report: SupervisorReport,
}

impl Supervisor {
    /// From the settings; none where HAProxy's configuration is somebody else's.
    ///
    /// # Errors
    /// Another Mapsmith has the folder, or it can't be used.
    pub async fn new(settings: &Settings, turn: Turn) -> anyhow::Result<Option<Self>> {
        let own = settings.own_instance().and_then(|own| settings.instances.get(own));
        let (Some(haproxy), Some(instance)) = (&settings.haproxy, own) else { return Ok(None) };
        let runtime = runtime_of(instance);
        let master_socket = haproxy.master_socket();
        let master = master_socket.clone().map(|socket| MasterClient::new(socket, ANSWER_BOUND));
        let reloader = match (haproxy.reload_command(), &master) {
            (Some(command), master) => {
                Reloader::by_command(command, master.clone(), Some(runtime.clone()), RELOAD_BOUND)
            }
            (None, Some(master)) => Reloader::by_master(master.clone(), None, RELOAD_BOUND),
            (None, None) => bail!("haproxy: nothing says how HAProxy is reloaded"),
        };
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
            map_file: settings.keeps_map().then(|| settings.map.file().to_owned()),
            observe: settings.schedule.observe,
            files: Arc::new(std::sync::Mutex::new(Files::new(&config, haproxy.files().path()))),
            managed: None,
            reloader: Arc::new(reloader),
            master,
            runtime,
            budget: Budget::new(haproxy.reload_interval(), haproxy.max_old_workers()),
            turn,
            candidate: None,
            old_workers: master_socket.map(|socket| OldWorkers::new(settings, instance, socket)),
            health: haproxy
                .health
                .as_ref()
                .and(haproxy.health_map())
                .map(|map| Health::new(Path::new(map.as_str()), runtime_of(instance))),
            is_ready: false,
            reloaded_for: Vec::new(),
            report: SupervisorReport { status, observed: 0 },
        }))
    }

    /// What it last published.
    pub fn report(&self) -> &SupervisorReport {
        &self.report
    }

    /// Keeps the configuration in force until shutdown, and leaves HAProxy running then.
    pub async fn run(
        mut self,
        mut desired: watch::Receiver<Desired>,
        mut instance: watch::Receiver<InstanceReport>,
        report: watch::Sender<SupervisorReport>,
        shutdown: CancellationToken,
    ) {
        let mut backoff = BACKOFF;
        while !shutdown.is_cancelled() {
            heartbeat::beat();
            let wanted = desired.borrow_and_update().clone();
            let (needs, in_sync) = {
                let report = instance.borrow_and_update();
                (needs_reload(&report), report.observed.generation() > 0)
            };
            let is_well = self.cycle(&wanted, &needs).await;
            self.follow_old_workers(&desired, wanted.generation);
            self.tell_health(in_sync).await;
            let wait = match is_well {
                true => {
                    backoff.reset();
                    if self.report.observed < wanted.generation { SOON } else { self.observe }
                }
                false => backoff.pause(),
            };
            report.send_replace(self.report.clone());
            let news = async {
                tokio::select! {
                    Ok(()) = desired.changed() => {}
                    // What it needs a reload for is new, or was met.
                    Ok(_) = instance.wait_for(|report| {
                        needs_reload(report) != needs || (report.observed.generation() > 0) != in_sync
                    }) => {}
                    () = sleep(self.budget.wait(Instant::now()).unwrap_or(wait).min(wait)) => {}
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
            Err(failure) => ConfigState::Failed { error: failure.to_string() },
        };
        self.observe_processes().await;
        let is_good = matches!(
            state,
            ConfigState::InForce
                | ConfigState::Starting
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
            self.candidate = Some(Candidate::new(config));
        }
        if let Some(refusal) = self.put_in_place(in_place).await? {
            // The last good one goes on.
            self.keep_running().await?;
            return Ok(refusal);
        }
        self.keep_running().await?;
        self.load(needs).await
    }

    /// Writes the candidate where something else is in place, once HAProxy has accepted it. What
    /// keeps it from that.
    async fn put_in_place(
        &mut self,
        in_place: Option<InPlace>,
    ) -> Result<Option<ConfigState>, Failure> {
        let Some(Candidate { text, mark, .. }) = &self.candidate else { return Ok(None) };
        let (text, mark) = (text.clone(), mark.clone());
        if in_place.as_ref().is_some_and(|in_place| in_place.holds(&text)) {
            return Ok(None);
        }
        let stamp = in_place.map(|in_place| in_place.stamp);
        if matches!(stamp, Some(Stamp::Edited | Stamp::Foreign)) {
            if self.managed.is_none() {
                return Ok(Some(ConfigState::Edited));
            }
            let kept = self.files(|files| files.set_aside()).await?;
            counter!(HAPROXY_CONFIG_EDITS).increment(1);
            tracing::warn!(kept = %kept.display(), "the rendered configuration was edited \
                externally; it is written again");
            self.report.status.edit_kept = Some(kept.display().to_string());
        }
        self.supply_maps()?;
        let candidate = text.clone();
        let file = self.files(move |files| files.write_candidate(&candidate)).await?;
        let verdict = self.check(&file).await?;
        if !verdict.valid {
            return Ok(Some(self.refuse(&file, verdict)));
        }
        self.report.status.refused = None;
        // Servers that come and go leave the last good one as it is: only a reload can fail.
        let keep = stamp != Some(Stamp::Whole { mark });
        self.files(move |files| files.switch(&text, keep)).await?;
        Ok(None)
    }

    fn refuse(&mut self, file: &Path, verdict: Verdict) -> ConfigState {
        let reason = verdict.alerts().lines().next().unwrap_or_default().to_owned();
        let known = self
            .report
            .status
            .refused
            .as_ref()
            .is_some_and(|known| known.remarks == verdict.remarks);
        if !known {
            tracing::error!(
                "HAProxy refuses the configuration, the last good one stays in force: {}",
                verdict.alerts()
            );
            self.report.status.refused = Some(RefusedCandidate {
                at: Timestamp::now(),
                file: file.display().to_string(),
                remarks: verdict.remarks,
            });
        }
        ConfigState::Refused { reason }
    }

    /// What HAProxy says of a file that the candidate was written to.
    async fn check(&self, file: &Path) -> Result<Verdict, Failure> {
        let unrendered = Rendered::default();
        let rendered = self.candidate.as_ref().map_or(&unrendered, |candidate| &candidate.rendered);
        let files: Vec<&Path> = [file]
            .into_iter()
            .chain(self.haproxy.includes.iter().map(|file| Path::new(file.as_str())))
            .collect();
        let none = Sockets::default();
        let sockets = self.managed.as_ref().map_or(&none, process::Managed::sockets);
        Ok(check::check(self.haproxy.program(), &files, rendered, sockets, CHECK_BOUND).await?)
    }

    /// HAProxy does not start without its maps' files; the node map's is written once the sources
    /// have spoken.
    fn supply_maps(&self) -> Result<(), Failure> {
        if let Some(health) = self.health.as_ref().filter(|health| !health.is_there()) {
            health.write(Answer::Starting).map_err(FilesError::Write)?;
        }
        let Some(path) = &self.map_file else { return Ok(()) };
        let error = |cause| Failure::MapFile { path: path.clone(), cause };
        if let Some(folder) = path.parent() {
            super::files::create(folder)?;
        }
        match std::fs::OpenOptions::new().write(true).create_new(true).open(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => Err(error(cause)),
            _ => Ok(()),
        }
    }

    /// Has the process load what is in place, if it has something else.
    async fn load(&mut self, needs: &[String]) -> Result<ConfigState, Failure> {
        let Some(mark) = self.candidate.as_ref().map(|candidate| candidate.mark.clone()) else {
            return Ok(ConfigState::Starting);
        };
        let loaded = self.loaded().await?;
        self.report.status.loaded.clone_from(&loaded);
        if needs.is_empty() {
            self.reloaded_for.clear();
        }
        let reason = match loaded {
            Some(loaded) if loaded == mark && (needs.is_empty() || needs == self.reloaded_for) => {
                return Ok(ConfigState::InForce);
            }
            Some(loaded) if loaded == mark => Reason::Servers,
            _ => Reason::Configuration,
        };
        let old_workers = self.count_old_workers();
        if let Due::Waits(why) = self.budget.due(Instant::now(), old_workers) {
            return Ok(ConfigState::ReloadDue { reason: why });
        }
        self.reload(reason, needs).await
    }

    async fn reload(&mut self, reason: Reason, needs: &[String]) -> Result<ConfigState, Failure> {
        let config = self.files(|files| Ok(files.config().to_owned())).await?;
        let verdict = self.check(&config).await?;
        if !verdict.valid {
            return Ok(self.refuse(&config, verdict));
        }
        let turn = Arc::clone(&self.turn);
        // Commands that are under way are for the worker that is about to go.
        let _turn = timeout(TURN_BOUND, turn.lock()).await.ok();
        let start = Instant::now();
        let outcome = heartbeat::waiting(self.reloader.reload(&verdict)).await;
        self.budget.reloaded(Instant::now());
        let (outcome, said, state) = match outcome {
            Outcome::Loaded { worker, .. } => {
                tracing::info!(worker, reason = reason.label(), "HAProxy was reloaded");
                self.reloaded_for = needs.to_vec();
                (ReloadOutcome::Loaded, String::new(), ConfigState::InForce)
            }
            Outcome::Refused { said } | Outcome::MasterDied { said } => {
                let restored = self.files(|files| files.restore()).await?;
                let reason = said.lines().last().unwrap_or("HAProxy did not say why").to_owned();
                tracing::error!(
                    restored,
                    "HAProxy could not load the configuration, the last good one stays in force: \
                        {said}"
                );
                (ReloadOutcome::Refused, said, ConfigState::Refused { reason })
            }
            Outcome::Unknown { why } => {
                tracing::warn!("what came of the reload is not known yet: {why}");
                let error = format!("reload: {why}");
                (ReloadOutcome::Unknown, why, ConfigState::Failed { error })
            }
            Outcome::Unreachable { why } => return Err(Failure::Unanswered(why)),
        };
        counter!(HAPROXY_RELOADS, "reason" => reason.label(), "outcome" => outcome.label())
            .increment(1);
        self.report.status.reloads += 1;
        self.report.status.last_reload = Some(ReloadReport {
            at: Timestamp::now(),
            reason: reason.label().to_owned(),
            outcome,
            milliseconds: milliseconds(start.elapsed()),
            said,
        });
        Ok(state)
    }

    /// The mark of what the process has loaded; none where that was not rendered.
    async fn loaded(&self) -> Result<Option<String>, Failure> {
        let line = format!("show env {}\n", stamp::VARIABLE);
        let answer = timeout(ANSWER_BOUND, self.runtime.call(line))
            .await
            .map_err(|_| Failure::Unanswered("the Runtime API gives no answer".to_owned()))?
            .map_err(|error| Failure::Unanswered(error.to_string()))?;
        let answer = String::from_utf8_lossy(&answer);
        let value =
            answer.lines().find_map(|line| line.strip_prefix(stamp::VARIABLE)?.strip_prefix('='));
        Ok(value.map(str::to_owned))
    }

    /// Starts a managed process that does not run.
    async fn keep_running(&mut self) -> Result<(), Failure> {
        let Some(managed) = &mut self.managed else { return Ok(()) };
        managed.keep_running().await?;
        self.report.status.starts = managed.starts();
        Ok(())
    }

    /// Does something with the files, off the async threads.
    async fn files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Files) -> Result<T, FilesError> + Send + 'static,
    ) -> Result<T, Failure> {
        let files = Arc::clone(&self.files);
        let work = move || {
            // Nothing panics while it holds the lock.
            work(&mut files.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
        };
        Ok(heartbeat::waiting(tokio::task::spawn_blocking(work)).await??)
    }

    /// Has those that a reload replaced answer what the worker that serves would.
    fn follow_old_workers(&mut self, desired: &watch::Receiver<Desired>, generation: u64) {
        let mut all_hold = true;
        if let Some(old_workers) = &mut self.old_workers {
            let listed =
                self.report.status.process.iter_mut().flat_map(|process| &mut process.workers);
            let mut old: Vec<_> = listed.filter(|worker| worker.old).collect();
            let pids: Vec<_> = old.iter().map(|worker| worker.pid).collect();
            old_workers.follow(&pids, desired);
            for worker in &mut old {
                worker.in_sync = old_workers.holds(worker.pid, generation);
                all_hold &= worker.in_sync == Some(true) || worker.connections == Some(0);
            }
        }
        let is_settled = matches!(
            self.report.status.state,
            ConfigState::InForce | ConfigState::Refused { .. } | ConfigState::Edited
        );
        if is_settled && all_hold {
            self.report.observed = generation;
        }
    }

    /// A gateway that has once been ready stays so, whatever its registries do: it serves by what
    /// it last knew.
    async fn tell_health(&mut self, in_sync: bool) {
        let Some(health) = self.health.clone().filter(|_| !self.is_ready) else { return };
        if in_sync && self.report.status.state == ConfigState::InForce {
            let written = health.write(Answer::Ready);
            if let Err(error) = &written {
                tracing::warn!("the answer of haproxy.health can't be written: {error}");
            }
            self.is_ready = written.is_ok() && health.set(Answer::Ready).await;
        }
    }

    fn count_old_workers(&self) -> usize {
        let workers = self.report.status.process.iter().flat_map(|process| &process.workers);
        workers.filter(|worker| worker.old).count()
    }

    async fn observe_processes(&mut self) {
        let process = match &self.master {
            Some(master) => processes_of(master).await,
            None => None,
        };
        self.report.status.process = process;
    }

    fn publish(&mut self, state: ConfigState) {
        let flag = |is: bool| f64::from(u8::from(is));
        gauge!(HAPROXY_CONFIG_IN_FORCE).set(flag(state == ConfigState::InForce));
        gauge!(HAPROXY_CONFIG_REFUSED).set(flag(matches!(state, ConfigState::Refused { .. })));
        gauge!(HAPROXY_CONFIG_QUARANTINED).set(self.report.status.quarantined.len() as f64);
        let workers = self.report.status.process.iter().flat_map(|process| &process.workers);
        let old = workers.clone().filter(|worker| worker.old).count();
        gauge!(HAPROXY_WORKERS, "kind" => "old").set(old as f64);
        gauge!(HAPROXY_WORKERS, "kind" => "current").set((workers.count() - old) as f64);
        if self.report.status.state != state {
            match &state {
                ConfigState::Failed { .. } | ConfigState::Edited => {
                    tracing::warn!("HAProxy's configuration: {state}");
                }
                ConfigState::Refused { .. } => {}
                _ => tracing::info!("HAProxy's configuration: {state}"),
            }
            self.report.status.state = state;
        }
    }
}

fn runtime_of(instance: &settings::Instance) -> RuntimeClient {
    RuntimeClient::new(instance.runtime.clone(), ANSWER_BOUND)
}

/// What of the servers only a reload of HAProxy can bring.
fn needs_reload(report: &InstanceReport) -> Vec<String> {
    report.status.servers.as_ref().map(|servers| servers.needs_reload.clone()).unwrap_or_default()
}

/// The processes, as the master lists them; old workers say how many connections they have left.
async fn processes_of(master: &MasterClient) -> Option<ProcessStatus> {
    let processes = master.processes().await.ok()?;
    let mut workers = Vec::new();
    for (is_old, listed) in [(false, &processes.workers), (true, &processes.old_workers)] {
        for worker in listed {
            let info = master.worker(Target::Pid(worker.pid)).await.ok();
            workers.push(WorkerStatus {
                pid: worker.pid,
                age_seconds: worker.uptime_seconds,
                // After a failed reload the worker that serves is listed as an old one.
                old: is_old && info.as_ref().is_none_or(|info| info.stopping),
                // The one that asks is not counted.
                connections: info.map(|info| info.connections.saturating_sub(1)),
                in_sync: None,
            });
        }
    }
    Some(ProcessStatus {
        version: processes.master.version,
        master_pid: Some(processes.master.pid),
        workers,
    })
}
