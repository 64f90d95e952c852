//! One HAProxy: observe, plan, apply, publish, forever. Each instance has a task of its own.
//!
//! The loop never trusts what it did: a map counts as held only after it was read back, or after
//! every touched key answered right, and only as long as the process and the map's counters stay as
//! they were then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::{MapClient, MapCounters, MapName, ProcessInfo};
use jiff::Timestamp;
use mapsmith_core::status::{DriftKind, InstanceState, InstanceStatus};
use mapsmith_core::{Desired, DesiredMap, Revision};
use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::engine::AskSources;
use crate::engine::rows::InstanceRows;
use crate::heartbeat;
use crate::settings;
use crate::telemetry::{APPLY_FAILURES, DRIFT_CORRECTED};

pub mod apply;
pub mod certificates;
pub mod challenges;
mod failure;
pub mod learned;
mod map;
mod process;
mod report;
mod rest;
mod screen;
pub mod servers;
mod turn;

use certificates::CertificatePhase;
use challenges::{ChallengePhase, HeldChallenges};
use failure::Failure;
use learned::LearnedTable;
use process::Seen;
pub use report::{InstanceReport, Observed};
use servers::ServerPhase;
pub use turn::Turn;

/// Between a failure and the next try.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// What the instance was last verified to hold, and the marks by which a change outside Mapsmith
/// shows.
#[derive(Debug, Clone)]
struct Verified {
    revision: Arc<Revision>,
    counters: MapCounters,
    live_entries: usize,
}

/// Staged entries that nobody commits, as they were last seen.
#[derive(Debug, Clone, Copy)]
struct Staged {
    counters: MapCounters,
    passes: u32,
}

/// One HAProxy and what is known of it.
pub struct Instance {
    client: MapClient,
    verify: Duration,
    observe: Duration,
    report: InstanceReport,
    /// The process that answered last, and when it was started by its own account.
    process: Option<(ProcessInfo, Option<Instant>)>,
    verified: Option<Verified>,
    /// The revision it was last in sync with; outlives `verified`, so that a deviation from it is
    /// known for drift.
    last_revision: Option<u64>,
    /// What made `verified` go, until the deviation is corrected.
    suspicion: Option<DriftKind>,
    staged: Option<Staged>,
    next_verify: Instant,
    last_swap: Option<Instant>,
    /// How it stood before everything began anew.
    before: Option<InstanceStatus>,
    /// When a bad state was last logged.
    last_logged: Option<Instant>,
    ask_sources: Option<AskSources>,
    certificates: Option<CertificatePhase>,
    challenges: Option<ChallengePhase>,
    servers: Option<ServerPhase>,
    learned: Option<LearnedTable>,
    rows: Option<InstanceRows>,
    /// Whether there is a node map to keep.
    keeps_map: bool,
    /// Held during a pass, where Mapsmith reloads the process too: no command of the pass goes to a
    /// worker that is about to be replaced.
    turn: Option<Turn>,
    /// The poll request that must be decided on before a change outside Mapsmith is undone.
    asked: Option<(u64, Instant)>,
}

impl Instance {
    /// From its settings; touches nothing yet. Without `ask_sources` a change outside Mapsmith is
    /// undone at once. Without `servers` the backends are left alone.
    pub fn new(
        instance: &settings::Instance,
        map: &MapName,
        schedule: &settings::Schedule,
        ask_sources: Option<AskSources>,
        servers: Option<ServerPhase>,
    ) -> Self {
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        counter!(APPLY_FAILURES, "haproxy" => instance.name.clone()).increment(0);
        for kind in DriftKind::OF_AN_INSTANCE {
            counter!(DRIFT_CORRECTED, "haproxy" => instance.name.clone(), "kind" => kind.label())
                .increment(0);
        }
        let client = instance.map_client(map);
        let status = InstanceStatus {
            name: instance.name.clone(),
            runtime: instance.runtime.clone(),
            state: InstanceState::Starting,
            state_since: Timestamp::now(),
            process: None,
            entries_in_memory: None,
            verified_at: None,
            drift_corrected: Default::default(),
            drift_at: None,
            last_apply: None,
            servers: None,
            tls_files: Vec::new(),
            learned: None,
        };
        Self {
            servers,
            client,
            verify: schedule.verify,
            observe: schedule.observe,
            report: InstanceReport {
                kept_out: Vec::new(),
                status,
                observed: Observed::default(),
                tls_files: BTreeMap::new(),
                challenges: HeldChallenges::default(),
                learned: Arc::new([]),
            },
            process: None,
            verified: None,
            last_revision: None,
            suspicion: None,
            staged: None,
            next_verify: Instant::now(),
            last_swap: None,
            before: None,
            last_logged: None,
            ask_sources,
            certificates: None,
            challenges: None,
            learned: None,
            rows: None,
            keeps_map: true,
            turn: None,
            asked: None,
        }
    }

    /// Goes on from how it stood with other settings, where it is the same HAProxy: since when it is
    /// in its state, and what was corrected.
    pub fn go_on(mut self, before: &[InstanceStatus]) -> Self {
        let status = &mut self.report.status;
        let is_it = |it: &&InstanceStatus| it.name == status.name && it.runtime == status.runtime;
        if let Some(before) = before.iter().find(is_it) {
            status.drift_corrected.clone_from(&before.drift_corrected);
            status.drift_at = before.drift_at;
            status.last_apply.clone_from(&before.last_apply);
            self.before = Some(before.clone());
        }
        self
    }

    /// Has it tell which rows its map refuses.
    pub fn with_rows(self, rows: InstanceRows) -> Self {
        Self { rows: Some(rows), ..self }
    }

    /// Its HAProxy has no node map.
    pub fn without_map(self) -> Self {
        Self { keeps_map: false, ..self }
    }

    /// Has it take turns with the process's reloads.
    pub fn with_turn(self, turn: Option<Turn>) -> Self {
        Self { turn, ..self }
    }

    /// Has it keep certificates and revocations too.
    pub fn with_certificates(self, certificates: Option<CertificatePhase>) -> Self {
        Self { certificates, ..self }
    }

    /// Has it answer certificate authorities too.
    pub fn with_challenges(self, challenges: Option<ChallengePhase>) -> Self {
        Self { challenges, ..self }
    }

    /// Has it keep the stick table of learned routes too.
    pub fn with_learned(self, learned: Option<LearnedTable>) -> Self {
        Self { learned, ..self }
    }

    /// What it last published.
    pub fn report(&self) -> &InstanceReport {
        &self.report
    }

    /// Keeps the instance in sync until shutdown. A step in progress is finished first.
    pub async fn run(
        mut self,
        mut desired: watch::Receiver<Desired>,
        report: watch::Sender<InstanceReport>,
        shutdown: CancellationToken,
    ) {
        let mut backoff = BACKOFF;
        while !shutdown.is_cancelled() {
            let name = self.report.status.name.clone();
            let target = desired.borrow_and_update().of_instance(&name);
            let mut tls_files = self.certificates.as_ref().map(CertificatePhase::news);
            let mut challenges_news = self.challenges.as_ref().map(ChallengePhase::news);
            let turn = match &self.turn {
                Some(turn) => Some(heartbeat::waiting(turn.take()).await),
                None => None,
            };
            let is_well = self.cycle(&target).await;
            drop(turn);
            let wait = if is_well {
                backoff.reset();
                self.observe
            } else {
                backoff.pause()
            };
            report.send_replace(self.report.clone());
            // A failing instance waits its time out whatever the sources say, unless there is
            // another map for it, or another CRL or certificate.
            let failing = wait != self.observe;
            let number = |desired: &Desired| desired.map_of(&name).map(|map| map.revision.number);
            let tried = number(&target);
            let news = desired.wait_for(|desired| {
                number(desired) != tried || (!failing && desired.generation != target.generation)
            });
            let new_content = async {
                match &mut tls_files {
                    Some(files) => files.changed().await,
                    None => std::future::pending().await,
                }
            };
            let another_process = async {
                match &self.turn {
                    Some(turn) => turn.told().await,
                    None => std::future::pending().await,
                }
            };
            let rows = &mut self.rows;
            let woken = heartbeat::waiting(async {
                tokio::select! {
                    () = shutdown.cancelled() => Some(None),
                    changed = news => changed.is_ok().then_some(None),
                    () = new_content => Some(None),
                    () = challenges::changed(&mut challenges_news) => Some(None),
                    () = another_process => Some(None),
                    question = screen::question(rows) => Some(Some(question)),
                    () = sleep(wait) => Some(None),
                }
            });
            // Whoever decides has ended; the shutdown follows.
            let Some(question) = woken.await else { break };
            if let Some(question) = question {
                self.answer(question).await;
            }
        }
    }

    /// Looks once and does what is to be done. Whether all went well; the report says the rest.
    pub async fn cycle(&mut self, desired: &Desired) -> bool {
        let desired = &desired.of_instance(&self.report.status.name);
        let result = self.pass(desired).await;
        let wanted = desired.map.as_ref();
        let state = match &result {
            Ok(state) => state.clone(),
            Err(failure) => self.failed_state(failure, wanted),
        };
        match (&state, wanted) {
            (InstanceState::InSync { .. }, Some(_)) | (InstanceState::NoMap, _) => {
                self.report.observed.map = desired.generation;
            }
            _ => {}
        }
        self.publish(state, wanted);
        self.read_learned(wanted).await;
        result.is_ok()
    }

    /// One pass. Its order is what keeps requests from failing: certificates, servers that become
    /// ready, the map, servers that leave.
    async fn pass(&mut self, desired: &Desired) -> Result<InstanceState, Failure> {
        let seen = self.observe(desired).await?;
        self.bring_certificates(&seen).await;
        if let Some(challenges) = &mut self.challenges {
            challenges.bring().await;
            self.report.challenges = challenges.held().clone();
        }
        let seen = match self.keeps_map {
            true => Seen { counters: self.learn_rows(seen.counters).await?, ..seen },
            false => seen,
        };
        self.make_servers_ready(&seen, desired).await;
        let state = match self.keeps_map {
            true => self.sync_map(&seen, desired.map.as_ref()).await,
            false => Ok(InstanceState::NoMap),
        };
        self.take_servers_away(&seen, desired, &state).await;
        self.report_servers(desired);
        state
    }

    async fn bring_certificates(&mut self, seen: &Seen) {
        let Some(certificates) = &mut self.certificates else { return };
        let started = self.process.as_ref().and_then(|(_, started)| *started);
        certificates.bring(seen.version, started).await;
        self.report.status.tls_files = certificates.status();
        self.report.tls_files = certificates.numbers();
    }

    async fn make_servers_ready(&mut self, seen: &Seen, desired: &Desired) {
        if let Some(servers) = &mut self.servers {
            servers.make_ready(seen.version, desired).await;
        }
    }

    /// Only where the map that sends nobody there any more is in memory.
    async fn take_servers_away(
        &mut self,
        seen: &Seen,
        desired: &Desired,
        state: &Result<InstanceState, Failure>,
    ) {
        if let (Some(servers), Ok(InstanceState::InSync { .. } | InstanceState::NoMap)) =
            (&mut self.servers, state)
        {
            servers.take_away(seen.version, desired).await;
        }
    }

    /// Only a map that was seen to be in memory can agree with what was learned.
    async fn read_learned(&mut self, wanted: Option<&DesiredMap>) {
        let (Some(learned), Some(verified), Some(wanted)) =
            (&mut self.learned, &self.verified, wanted)
        else {
            return;
        };
        self.report.learned =
            learned.follow(&verified.revision.entries, &wanted.overrides, Timestamp::now()).await;
        self.report.status.learned = Some(learned.status().clone());
    }

    fn report_servers(&mut self, desired: &Desired) {
        let Some(servers) = &self.servers else { return };
        self.report.status.servers = servers.status().cloned();
        self.report.kept_out = servers.kept_out();
        if servers.holds(desired) {
            self.report.observed.servers = desired.generation;
        }
    }
}
