//! One HAProxy: observe, plan, apply, publish, forever. Each instance has a task of its own.
//!
//! The loop never trusts what it did: a map counts as held only after it was read back, or after
//! every touched key answered right, and only as long as the process and the map's counters stay as
//! they were then.

use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::{
    Glance, HaproxyVersion, Level, MapClient, MapCounters, MapName, ProcessInfo, ReplyError,
    RuntimeError,
};
use jiff::Timestamp;
use mapsmith_core::plan::map::Memory;
use mapsmith_core::plan::{CostModel, Deviation, MapPlan, plan_map};
use mapsmith_core::status::{ApplyReport, DriftKind, InstanceState, InstanceStatus, Strategy};
use mapsmith_core::{LearnedRoute, Revision};
use metrics::{counter, gauge, histogram};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use apply::{ApplyError, Timings};
use learned::LearnedTable;
use servers::ServerKeeper;

use crate::engine::rows::{InstanceRows, RefusedRow};
use crate::engine::{AskSources, Wanted};
use crate::heartbeat;
use crate::settings;
use crate::telemetry::{
    APPLY_DURATION, APPLY_FAILURES, DRIFT_HEALED, INSTANCE_IN_STEP, INSTANCE_REVISION_HELD,
    INSTANCE_REVISION_WANTED, INSTANCE_UP,
};

pub mod apply;
pub mod learned;
mod rest;
mod screen;
pub mod servers;

/// How often staged entries must look the same before they count as abandoned: another Mapsmith may
/// be about to commit them.
const ABANDONED_LOOKS: u32 = 10;
/// The least time between two swaps of one instance: `commit map` of a huge map frees the old one
/// in one go, and doing so back to back has tripped HAProxy's watchdog (haproxy issue 3292).
const SWAP_SPACING: Duration = Duration::from_secs(1);
/// The least time between two log lines of a state that is bad in ever new words.
const LOG_SPACING: Duration = Duration::from_secs(600);
/// How long the sources may take to answer before a change by another hand is undone all the same.
const ASK_BOUND: Duration = Duration::from_secs(10);
/// The first wait after a failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait between two tries.
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// By how much a process's start may seem to move: its uptime comes in whole seconds. In a
/// container a new process often has the old one's pid, so the pid alone does not tell.
const START_TOLERANCE: Duration = Duration::from_secs(2);

/// From a revision that memory is known to hold to the wanted one.
fn deviation_from(held: &Revision, wanted: &Wanted) -> Arc<Deviation> {
    match &wanted.change {
        Some(change) if change.from == held.number => Arc::clone(&change.deviation),
        _ => Arc::new(Deviation::between(&held.entries, &wanted.revision.entries)),
    }
}

async fn lists_changed(servers: &mut Option<ServerKeeper>) {
    match servers {
        Some(servers) => servers.changed().await,
        None => std::future::pending().await,
    }
}

/// What an instance's task publishes.
#[derive(Debug, Clone)]
pub struct InstanceReport {
    /// For people.
    pub status: InstanceStatus,
    /// The last [`Wanted::look`] that the instance was in step with.
    pub looked: u64,
    /// The number of the desired server lists that it holds, see [`ServerKeeper::held`].
    pub servers_held: Option<u64>,
    /// The routes it learned that the map does not have, sorted by node.
    pub learned: Arc<[LearnedRoute]>,
}

impl InstanceReport {
    /// The route that was learned for this node.
    pub fn learned_of(&self, node: &str) -> Option<&LearnedRoute> {
        let found = self.learned.binary_search_by(|route| route.node.as_str().cmp(node)).ok()?;
        self.learned.get(found)
    }
}

/// Why an instance is not in step.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Look(RuntimeError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(
        "the socket has {0} level, Mapsmith needs `level admin` on its `stats socket` line in \
            HAProxy's configuration"
    )]
    Level(&'static str),
    #[error(
        "HAProxy's configuration uses no map of the name {0}: it must name exactly this path in a \
            map converter (see `map.path`)"
    )]
    UnknownMap(String),
    #[error("{0}")]
    Version(String),
    #[error("right after the change {0}; looking again")]
    NotConfirmed(String),
    #[error("HAProxy refuses {}, the first is {first}; it is taken out of the map \
        file", counted(*rows))]
    Rows { rows: usize, first: RefusedRow },
}

fn counted(rows: usize) -> String {
    if rows == 1 { "1 entry of the map".to_owned() } else { format!("{rows} entries of the map") }
}

impl Failure {
    /// The process could not be reached or gave no whole answer to the first look. Once it has
    /// answered that, a command that fails later leaves it behind, not unreachable.
    fn unreachable(&self) -> bool {
        matches!(self, Self::Look(_)) && !self.refused()
    }

    /// The process answers and won't do it: only its configuration can help.
    fn refused(&self) -> bool {
        match self {
            Self::Look(error) | Self::Runtime(error) | Self::Apply(ApplyError::Runtime(error)) => {
                matches!(
                    error.reply(),
                    Some(ReplyError::Denied | ReplyError::UnknownMap | ReplyError::TooBig)
                )
            }
            Self::Level(_) | Self::UnknownMap(_) | Self::Version(_) => true,
            Self::Apply(_) | Self::NotConfirmed(_) | Self::Rows { .. } => false,
        }
    }
}

/// What the instance was last verified to hold, and the marks by which a change behind our back
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
    /// The revision it was last in step with; outlives `verified`, so that a deviation from it is
    /// known for drift.
    last_revision: Option<u64>,
    /// What made `verified` go, until the deviation is healed.
    suspicion: Option<DriftKind>,
    staged: Option<Staged>,
    next_verify: Instant,
    last_swap: Option<Instant>,
    /// When a bad state was last logged.
    last_logged: Option<Instant>,
    ask_sources: Option<AskSources>,
    servers: Option<ServerKeeper>,
    learned: Option<LearnedTable>,
    rows: Option<InstanceRows>,
    /// The poll request that must be decided on before a change by another hand is undone.
    asked: Option<(u64, Instant)>,
}

impl Instance {
    /// From its settings; touches nothing yet. Without `ask_sources` a change by another hand is
    /// undone at once. Without `servers` the backends are left alone.
    pub fn new(
        instance: &settings::Instance,
        map: &MapName,
        schedule: &settings::Schedule,
        ask_sources: Option<AskSources>,
        servers: Option<ServerKeeper>,
    ) -> Self {
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        counter!(APPLY_FAILURES, "haproxy" => instance.name.clone()).increment(0);
        for kind in DriftKind::OF_AN_INSTANCE {
            counter!(DRIFT_HEALED, "haproxy" => instance.name.clone(), "kind" => kind.label())
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
            drift_healed: Default::default(),
            last_apply: None,
            servers: None,
            learned: None,
        };
        Self {
            servers,
            client,
            verify: schedule.verify,
            observe: schedule.observe,
            report: InstanceReport { status, looked: 0, servers_held: None, learned: Arc::new([]) },
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

    /// Keeps the instance in step until shutdown. A step in hand is finished first.
    pub async fn run(
        mut self,
        mut wanted: watch::Receiver<Option<Wanted>>,
        report: watch::Sender<InstanceReport>,
        shutdown: CancellationToken,
    ) {
        let mut backoff = BACKOFF_FIRST;
        while !shutdown.is_cancelled() {
            let target = wanted.borrow_and_update().clone();
            let seen = target.as_ref().map(|target| target.look);
            let wait = if self.cycle(target.as_ref()).await {
                backoff = BACKOFF_FIRST;
                self.observe
            } else {
                let wait = backoff.mul_f64(0.5 + fastrand::f64() / 2.0);
                backoff = (backoff * 2).min(BACKOFF_MOST);
                wait
            };
            report.send_replace(self.report.clone());
            // A failing instance waits its time out whatever the sources say, unless there is
            // another map for it.
            let failing = wait != self.observe;
            let tried = target.map(|target| target.revision.number);
            let news = wanted.wait_for(move |wanted| {
                let number = wanted.as_ref().map(|wanted| wanted.revision.number);
                let look = wanted.as_ref().map(|wanted| wanted.look);
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
        let result = self.reconcile(wanted).await;
        let state = match &result {
            Ok(state) => state.clone(),
            Err(failure) => self.failed_state(failure, wanted),
        };
        if let (InstanceState::InStep { .. }, Some(wanted)) = (&state, wanted) {
            self.report.looked = wanted.look;
        }
        self.publish(state, wanted);
        self.look_at_learned(wanted).await;
        result.is_ok()
    }

    /// Only a map that was seen to be in memory can agree with what was learned.
    async fn look_at_learned(&mut self, wanted: Option<&Wanted>) {
        let (Some(learned), Some(verified), Some(wanted)) =
            (&mut self.learned, &self.verified, wanted)
        else {
            return;
        };
        self.report.learned =
            learned.look(&verified.revision.entries, &wanted.overrides, Timestamp::now()).await;
        self.report.status.learned = Some(learned.status().clone());
    }

    fn failed_state(&mut self, failure: &Failure, wanted: Option<&Wanted>) -> InstanceState {
        // Whatever was half done: read back before anything else is believed.
        self.verified = None;
        if failure.unreachable() {
            // What happens to the map meanwhile is a change of its own.
            self.asked = None;
        }
        if let Some(rows) = &mut self.rows {
            rows.failed(failure.unreachable());
        }
        match wanted {
            _ if failure.unreachable() => {
                let since = match &self.report.status.state {
                    InstanceState::Unreachable { since, .. } => *since,
                    _ => Timestamp::now(),
                };
                InstanceState::Unreachable { since, error: failure.to_string() }
            }
            Some(wanted) if !failure.refused() => InstanceState::Behind {
                wanted: wanted.revision.number,
                reason: failure.to_string(),
            },
            _ => InstanceState::Refused { reason: failure.to_string() },
        }
    }

    /// Takes the new state into report, metrics and, where it changed, the log.
    fn publish(&mut self, state: InstanceState, wanted: Option<&Wanted>) {
        let status = &mut self.report.status;
        let name = status.name.clone();
        let up = !matches!(state, InstanceState::Unreachable { .. } | InstanceState::Starting);
        gauge!(INSTANCE_UP, "haproxy" => name.clone()).set(f64::from(u8::from(up)));
        let in_step = matches!(state, InstanceState::InStep { .. });
        gauge!(INSTANCE_IN_STEP, "haproxy" => name.clone()).set(f64::from(u8::from(in_step)));
        if let Some(wanted) = wanted {
            gauge!(INSTANCE_REVISION_WANTED, "haproxy" => name.clone())
                .set(wanted.revision.number as f64);
        }
        if let InstanceState::InStep { revision } = state {
            gauge!(INSTANCE_REVISION_HELD, "haproxy" => name.clone()).set(revision as f64);
        }
        if status.state != state {
            let bad = matches!(
                state,
                InstanceState::Behind { .. }
                    | InstanceState::Unreachable { .. }
                    | InstanceState::Refused { .. }
            );
            let same_kind = std::mem::discriminant(&status.state) == std::mem::discriminant(&state);
            if !bad {
                tracing::info!(instance = name, "{state}");
            } else if !same_kind
                || self.last_logged.is_none_or(|last| last.elapsed() >= LOG_SPACING)
            {
                tracing::warn!(instance = name, "{state}");
                self.last_logged = Some(Instant::now());
            }
            status.state = state;
        }
    }

    /// The order is what keeps requests from failing: servers that become ready, the map, servers
    /// that leave.
    async fn reconcile(&mut self, wanted: Option<&Wanted>) -> Result<InstanceState, Failure> {
        let glance = self.client.glance().await.map_err(Failure::Look);
        let (counters, cost, version) =
            match glance.and_then(|glance| self.observe_process(&glance)) {
                Ok(seen) => seen,
                Err(failure) => {
                    if let Some(servers) = &mut self.servers {
                        servers.lost(failure.to_string());
                        self.report_servers();
                    }
                    return Err(failure);
                }
            };
        let counters = self.learn_rows(counters).await?;
        if let Some(servers) = &mut self.servers {
            servers.make_ready(version, wanted.map(|wanted| &wanted.revision)).await;
        }
        let state = match wanted {
            Some(wanted) => self.reconcile_map(wanted, counters, cost).await,
            None => Ok(InstanceState::Connected),
        };
        if let (Some(servers), Some(wanted), Ok(InstanceState::InStep { .. })) =
            (&mut self.servers, wanted, &state)
        {
            servers.take_away(version, &wanted.revision).await;
        }
        self.report_servers();
        state
    }

    fn report_servers(&mut self) {
        if let Some(servers) = &self.servers {
            self.report.status.servers = servers.status().cloned();
            self.report.servers_held = servers.held();
        }
    }

    async fn reconcile_map(
        &mut self,
        wanted: &Wanted,
        counters: MapCounters,
        cost: CostModel,
    ) -> Result<InstanceState, Failure> {
        let revision = &wanted.revision;
        self.observe_counters(counters);

        let mut read = false;
        let (deviation, live_entries) = match &self.verified {
            Some(verified) if verified.revision.number == revision.number => {
                (Arc::default(), verified.live_entries)
            }
            Some(verified) => (deviation_from(&verified.revision, wanted), verified.live_entries),
            None => {
                read = true;
                let expected = counters
                    .count(0)
                    .map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
                let (deviation, live_entries) =
                    apply::read_back(&self.client, None, expected, &revision.entries).await?;
                (Arc::new(deviation), live_entries)
            }
        };
        // HAProxy counts the entries of all versions together, and some twice where a map is used
        // with several match types; only a version beyond the live one can hold staged entries.
        let staged = counters.last_prepared > counters.live_version;
        let counted = counters.count(live_entries).filter(|_| staged);
        let staged_entries =
            counted.map_or(0, |counted| (counted as usize).saturating_sub(live_entries));
        let memory = Memory { entries: live_entries, staged_entries, cost };
        let mut drift = self.drift(revision, &deviation);
        let (mut plan, mut counters) = (plan_map(&revision.entries, &deviation, &memory), counters);
        if plan == MapPlan::InStep && self.abandoned(counters, staged_entries) {
            drift.push(DriftKind::AbandonedVersions);
            // Not `clear map`: a writer that only paused would commit what is left, an empty map. A
            // commit fences it off.
            plan = MapPlan::Swap {
                reason: format!("{staged_entries} entries of abandoned versions go with a commit"),
            };
        }
        if plan != MapPlan::InStep && self.must_ask_first(wanted, &drift) {
            let reason =
                "another writer changed the map in memory; the sources are asked again before it \
                    is put right"
                    .to_owned();
            return Ok(InstanceState::Behind { wanted: revision.number, reason });
        }
        if plan != MapPlan::InStep
            && let Some(reason) = self.unchecked_master(revision, &deviation)
        {
            return Ok(InstanceState::Behind { wanted: revision.number, reason });
        }
        if let (MapPlan::Swap { .. }, Some(last)) = (&plan, self.last_swap)
            && last.elapsed() < SWAP_SPACING
        {
            // Then look anew: what was seen before the pause may be past.
            sleep_until(last + SWAP_SPACING).await;
            let glance = self.client.glance().await?;
            let (counters, cost, _) = self.observe_process(&glance)?;
            return Box::pin(self.reconcile_map(wanted, counters, cost)).await;
        }
        if plan != MapPlan::InStep {
            counters = match self.apply(&plan, revision, &deviation, &memory, counters).await {
                Ok(counters) => counters,
                Err(failure) => return Err(self.refused_rows(failure, revision, &deviation).await),
            };
        }
        if read {
            self.report.status.verified_at = Some(Timestamp::now());
            self.next_verify = Instant::now() + self.verify.mul_f64(0.9 + fastrand::f64() / 5.0);
        }
        self.note_drift(&drift);
        self.suspicion = None;
        self.asked = None;
        self.last_revision = Some(revision.number);
        let live_entries = revision.entries.len();
        self.report.status.entries_in_memory =
            Some(counters.count(live_entries).unwrap_or(live_entries as u64));
        self.verified = Some(Verified { revision: Arc::clone(revision), counters, live_entries });
        Ok(InstanceState::InStep { revision: revision.number })
    }

    /// Why the map has to wait: it would send nodes to a server that was just made ready and whose
    /// check has yet to pass.
    fn unchecked_master(&self, revision: &Revision, deviation: &Deviation) -> Option<String> {
        let to = deviation
            .missing
            .iter()
            .chain(&deviation.wrong)
            .map(|at| revision.entries.value(*at as usize));
        let master = self.servers.as_ref()?.awaits_check(to)?;
        Some(format!("no node is sent to {master} before its health check has passed"))
    }

    /// Takes in which process answers; a new one has a memory of its own.
    fn observe_process(
        &mut self,
        glance: &Glance,
    ) -> Result<(MapCounters, CostModel, HaproxyVersion), Failure> {
        let process = &glance.process;
        let version: HaproxyVersion = process.version.parse().map_err(Failure::Version)?;
        let started = Instant::now().checked_sub(Duration::from_secs(process.uptime_seconds));
        if let Some((before, started_before)) = &self.process
            && (before.pid != process.pid
                || started > started_before.map(|started| started + START_TOLERANCE))
        {
            tracing::info!(
                instance = self.report.status.name,
                pid_before = before.pid,
                pid = process.pid,
                version = process.version,
                "HAProxy was restarted or reloaded"
            );
            self.verified = None;
            self.staged = None;
            self.suspicion = Some(DriftKind::Restarted);
            self.servers.iter_mut().for_each(ServerKeeper::forget);
            self.rows.iter_mut().for_each(InstanceRows::forget);
        }
        let cost = CostModel::new(version);
        self.process = Some((process.clone(), started));
        self.report.status.process = Some(process.clone());
        match glance.level {
            Level::Admin => {}
            Level::Operator => return Err(Failure::Level("operator")),
            Level::User => return Err(Failure::Level("user")),
        }
        let counters =
            glance.map.ok_or_else(|| Failure::UnknownMap(self.client.map().as_str().to_owned()))?;
        // Where the counter can't be true, what was read back last counts.
        let live_entries = self.verified.as_ref().map_or(0, |verified| verified.live_entries);
        if let Some(count) = counters.count(live_entries) {
            self.report.status.entries_in_memory = Some(count);
        }
        Ok((counters, cost, version))
    }

    /// Forgets what is held where the map's counters moved or its time has come.
    fn observe_counters(&mut self, counters: MapCounters) {
        let Some(verified) = &self.verified else { return };
        if (verified.counters.live_version, verified.counters.entries)
            != (counters.live_version, counters.entries)
        {
            self.suspicion = Some(DriftKind::MapChanged);
            self.verified = None;
        } else if Instant::now() >= self.next_verify {
            self.verified = None;
        }
    }

    /// What a deviation tells beyond "a new revision is due".
    fn drift(&self, revision: &Revision, deviation: &Deviation) -> Vec<DriftKind> {
        let mut drift = Vec::new();
        if deviation.duplicates > 0 {
            drift.push(DriftKind::Duplicates);
        }
        if deviation.counts().total() > 0 && self.last_revision == Some(revision.number) {
            drift.push(self.suspicion.unwrap_or(DriftKind::MapChanged));
        }
        drift
    }

    /// Whether a change by another hand may be news: a second Mapsmith that has polled already
    /// changes the map before this one knows why. Undoing that would bring an older route back, so
    /// the sources are asked first, once for each change.
    fn must_ask_first(&mut self, wanted: &Wanted, drift: &[DriftKind]) -> bool {
        let Some(ask) = &self.ask_sources else { return false };
        let foreign =
            drift.iter().any(|kind| matches!(kind, DriftKind::MapChanged | DriftKind::Duplicates));
        if !foreign || self.last_revision != Some(wanted.revision.number) {
            return false;
        }
        let (request, at) = *self.asked.get_or_insert_with(|| (ask(), Instant::now()));
        wanted.considered < request && at.elapsed() < ASK_BOUND
    }

    fn note_drift(&mut self, drift: &[DriftKind]) {
        for kind in drift {
            let status = &mut self.report.status;
            *status.drift_healed.entry(*kind).or_default() += 1;
            counter!(DRIFT_HEALED, "haproxy" => status.name.clone(), "kind" => kind.label())
                .increment(1);
            tracing::warn!(
                instance = status.name,
                kind = kind.label(),
                "the map in memory was not what it should be; healed"
            );
        }
    }

    /// Whether staged entries have stood untouched for long enough that no writer can be about to
    /// commit them.
    fn abandoned(&mut self, counters: MapCounters, staged_entries: usize) -> bool {
        if staged_entries == 0 {
            self.staged = None;
            return false;
        }
        let looks = match self.staged {
            Some(staged) if staged.counters == counters => staged.looks + 1,
            _ => 1,
        };
        self.staged = Some(Staged { counters, looks });
        looks >= ABANDONED_LOOKS
    }

    /// Carries the plan out and returns the map's counters after it.
    async fn apply(
        &mut self,
        plan: &MapPlan,
        revision: &Revision,
        deviation: &Deviation,
        memory: &Memory,
        before: MapCounters,
    ) -> Result<MapCounters, Failure> {
        let (strategy, reason) = match plan {
            MapPlan::Edit { reason, .. } => (Strategy::Edits, reason),
            MapPlan::Swap { reason } => (Strategy::Swap, reason),
            MapPlan::InStep => return Ok(before),
        };
        let name = self.report.status.name.clone();
        let mut timings = Timings::default();
        let start = Instant::now();
        let result = self.carry_out(plan, revision, memory, before, &mut timings).await;
        let took = start.elapsed();
        if strategy == Strategy::Swap {
            // Also where it failed: the commit may have been carried out.
            self.last_swap = Some(Instant::now());
        }
        let counters = match result {
            Ok(counters) => counters,
            Err(failure) => {
                counter!(APPLY_FAILURES, "haproxy" => name).increment(1);
                return Err(failure);
            }
        };
        histogram!(APPLY_DURATION, "haproxy" => name.clone(), "strategy" => strategy.label())
            .record(took.as_secs_f64());
        let counts = deviation.counts();
        tracing::info!(
            instance = name,
            revision = revision.number,
            strategy = strategy.label(),
            added = counts.added,
            moved = counts.moved,
            removed = counts.removed,
            milliseconds = took.as_millis() as u64,
            "map applied and verified"
        );
        self.report.status.last_apply = Some(ApplyReport {
            revision: revision.number,
            at: Timestamp::now(),
            strategy,
            reason: reason.clone(),
            counts,
            steps: timings.into_steps(),
        });
        self.staged = None;
        Ok(counters)
    }

    async fn carry_out(
        &mut self,
        plan: &MapPlan,
        revision: &Revision,
        memory: &Memory,
        before: MapCounters,
        timings: &mut Timings,
    ) -> Result<MapCounters, Failure> {
        let expected = match plan {
            MapPlan::Edit { edits, .. } => {
                apply::edit(&self.client, edits, memory.cost.edits_a_line(memory.entries), timings)
                    .await?;
                // The planner edits only where nothing is staged, so the versions must not move,
                // and the count moves by what was added and removed; where HAProxy counted entries
                // twice before, it says nothing.
                let exact = before.entries == memory.entries as u64;
                MapCounters {
                    entries: if exact { revision.entries.len() as u64 } else { 0 },
                    ..before
                }
            }
            _ => {
                let version = apply::swap(&self.client, &revision.entries, timings).await?;
                MapCounters { live_version: version, last_prepared: version, entries: 0 }
            }
        };
        let glance = timings.step("confirm", self.client.glance()).await?;
        self.confirm(&glance, expected)
    }

    /// Whether the counters are what the change must have left; another writer or process shows
    /// here at once. An expected count of 0 entries is not compared.
    fn confirm(&self, glance: &Glance, expected: MapCounters) -> Result<MapCounters, Failure> {
        let differs = |what: String| Err(Failure::NotConfirmed(what));
        let counters =
            glance.map.ok_or_else(|| Failure::UnknownMap(self.client.map().as_str().to_owned()))?;
        if Some(glance.process.pid) != self.process.as_ref().map(|(process, _)| process.pid) {
            return differs(format!("another process answers (pid {})", glance.process.pid));
        }
        if counters.live_version != expected.live_version {
            let (live, ours) = (counters.live_version, expected.live_version);
            return differs(format!(
                "version {live} is live instead of {ours}: another writer was later"
            ));
        }
        if expected.entries != 0 && counters.entries != expected.entries {
            return differs(format!(
                "memory counts {} entries instead of {}",
                counters.entries, expected.entries
            ));
        }
        Ok(counters)
    }
}
