//! One HAProxy: observe, plan, apply, publish, forever. Each instance has a task of its own.
//!
//! The loop never trusts what it did: a map counts as held only after it was read back, or after
//! every touched key answered right, and only as long as the process and the map's counters stay as
//! they were then.

use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::{MapClient, MapCounters, MapName, ProcessInfo};
use jiff::Timestamp;
use mapsmith_core::Revision;
use mapsmith_core::status::{DriftKind, InstanceState, InstanceStatus};
use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::engine::rows::InstanceRows;
use crate::engine::{AskSources, Wanted};
use crate::heartbeat;
use crate::settings;
use crate::telemetry::{APPLY_FAILURES, DRIFT_CORRECTED};

pub mod apply;
mod failure;
pub mod learned;
mod map;
mod process;
mod report;
mod rest;
mod screen;
pub mod servers;

use failure::Failure;
use learned::LearnedTable;
use process::Seen;
pub use report::InstanceReport;
use servers::ServerPhase;

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
    looks: u32,
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
    /// When a bad state was last logged.
    last_logged: Option<Instant>,
    ask_sources: Option<AskSources>,
    servers: Option<ServerPhase>,
    learned: Option<LearnedTable>,
    rows: Option<InstanceRows>,
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
            process: None,
            entries_in_memory: None,
            verified_at: None,
            drift_corrected: Default::default(),
            last_apply: None,
            servers: None,
            learned: None,
        };
        Self {
            servers,
            client,
            verify: schedule.verify,
            observe: schedule.observe,
            report: InstanceReport {
                status,
                observed_generation: 0,
                servers_held: None,
                learned: Arc::new([]),
            },
            process: None,
            verified: None,
            last_revision: None,
            suspicion: None,
            staged: None,
            next_verify: Instant::now(),
            last_swap: None,
            last_logged: None,
            ask_sources,
            learned: None,
            rows: None,
            asked: None,
        }
    }

    /// Has it tell which rows its map refuses.
    pub fn with_rows(self, rows: InstanceRows) -> Self {
        Self { rows: Some(rows), ..self }
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
        mut wanted: watch::Receiver<Option<Wanted>>,
        report: watch::Sender<InstanceReport>,
        shutdown: CancellationToken,
    ) {
        let mut backoff = BACKOFF;
        while !shutdown.is_cancelled() {
            let target = wanted.borrow_and_update().clone();
            let seen = target.as_ref().map(|target| target.generation);
            let wait = if self.cycle(target.as_ref()).await {
                backoff.reset();
                self.observe
            } else {
                backoff.pause()
            };
            report.send_replace(self.report.clone());
            // A failing instance waits its time out whatever the sources say, unless there is
            // another map for it.
            let failing = wait != self.observe;
            let tried = target.map(|target| target.revision.number);
            let news = wanted.wait_for(move |wanted| {
                let number = wanted.as_ref().map(|wanted| wanted.revision.number);
                let look = wanted.as_ref().map(|wanted| wanted.generation);
                number != tried || (!failing && look != seen)
            });
            let (rows, servers) = (&mut self.rows, &mut self.servers);
            let woken = heartbeat::waiting(async {
                tokio::select! {
                    () = shutdown.cancelled() => Some(None),
                    changed = news => changed.is_ok().then_some(None),
                    question = screen::question(rows) => Some(Some(question)),
                    () = lists_changed(servers), if !failing => Some(None),
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
    pub async fn cycle(&mut self, wanted: Option<&Wanted>) -> bool {
        let result = self.pass(wanted).await;
        let state = match &result {
            Ok(state) => state.clone(),
            Err(failure) => self.failed_state(failure, wanted),
        };
        if let (InstanceState::InSync { .. }, Some(wanted)) = (&state, wanted) {
            self.report.observed_generation = wanted.generation;
        }
        self.publish(state, wanted);
        self.read_learned(wanted).await;
        result.is_ok()
    }

    /// One pass. Its order is what keeps requests from failing: servers that become ready, the map,
    /// servers that leave.
    async fn pass(&mut self, wanted: Option<&Wanted>) -> Result<InstanceState, Failure> {
        let seen = self.observe().await?;
        let counters = self.learn_rows(seen.counters).await?;
        self.make_servers_ready(&seen, wanted).await;
        let state = self.bring_map(&Seen { counters, ..seen }, wanted).await;
        self.take_servers_away(&seen, wanted, &state).await;
        self.report_servers();
        state
    }

    async fn make_servers_ready(&mut self, seen: &Seen, wanted: Option<&Wanted>) {
        if let Some(servers) = &mut self.servers {
            servers.make_ready(seen.version, wanted.map(|wanted| &wanted.revision)).await;
        }
    }

    /// Only where the map that sends nobody there any more is in memory.
    async fn take_servers_away(
        &mut self,
        seen: &Seen,
        wanted: Option<&Wanted>,
        state: &Result<InstanceState, Failure>,
    ) {
        if let (Some(servers), Some(wanted), Ok(InstanceState::InSync { .. })) =
            (&mut self.servers, wanted, state)
        {
            servers.take_away(seen.version, &wanted.revision).await;
        }
    }

    /// Only a map that was seen to be in memory can agree with what was learned.
    async fn read_learned(&mut self, wanted: Option<&Wanted>) {
        let (Some(learned), Some(verified), Some(wanted)) =
            (&mut self.learned, &self.verified, wanted)
        else {
            return;
        };
        self.report.learned =
            learned.look(&verified.revision.entries, &wanted.overrides, Timestamp::now()).await;
        self.report.status.learned = Some(learned.status().clone());
    }

    fn report_servers(&mut self) {
        if let Some(servers) = &self.servers {
            self.report.status.servers = servers.status().cloned();
            self.report.servers_held = servers.held();
        }
    }
}

async fn lists_changed(servers: &mut Option<ServerPhase>) {
    match servers {
        Some(servers) => servers.changed().await,
        None => std::future::pending().await,
    }
}
