//! The server lists of one HAProxy: observe -> plan -> apply, in two halves round its map.
//!
//! Servers become ready before routes point to them, and leave only once no route does. Nothing is
//! believed: after steps were sent, the next plan is made of what HAProxy shows then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::HaproxyVersion;
use haproxy_runtime::{
    Refusal, RuntimeError, ServerCommand, ServerPath, ServerState, ServersClient,
};
use jiff::Timestamp;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::plan::servers::{ServerHistory, ServerPlan, ServerStep, plan_servers};
use mapsmith_core::server::shown::shown_words;
use mapsmith_core::status::{LISTED_SERVERS, ServersState, ServersStatus};
use mapsmith_core::{Desired, DesiredServers, ObservedServers};
use metrics::counter;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::settings;
use crate::telemetry::{SERVER_REFUSALS, SERVER_STEPS};

mod commands;
mod report;

pub use commands::commands_of;
use commands::slot_address;

/// How often one half of a cycle plans again at most: an idle server's removal takes four rounds,
/// and the map should not wait long.
const ROUNDS: usize = 5;

/// For how long HAProxy can't be observed before what was seen of it last is out of date.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// The first version that has `wait srv-removable`.
const WAITS: HaproxyVersion = HaproxyVersion { major: 3, minor: 0 };
/// How long HAProxy is waited for in it.
const REMOVABLE_WAIT: Duration = Duration::from_millis(500);

/// What an instance's task keeps of its server lists.
pub struct ServerPhase {
    name: String,
    client: ServersClient,
    targets: watch::Sender<Option<Arc<Targets>>>,
    /// What the map may point to, as last seen and not published yet.
    last_targets: Option<Targets>,
    /// Between two observations where nothing is to do.
    every: Duration,
    /// Nothing is changed, whatever is missing.
    only_observes: bool,
    /// Whether Mapsmith reloads the process for what takes that.
    is_reloaded: bool,
    memory: Option<ServerHistory>,
    /// That of the process before.
    memory_before: Option<ServerHistory>,
    /// Whether there was a plan since Mapsmith started.
    has_planned: bool,
    advanced_at: Instant,
    due: Instant,
    observed_at: Timestamp,
    /// Since when HAProxy can't be observed.
    lost_since: Option<Instant>,
    /// The desired lists that were last looked into, whatever came of it.
    seen: Option<Arc<DesiredServers>>,
    /// What was left to do when they were last observed; none where no backend is declared.
    plan: Option<ServerPlan>,
    /// The masters that the map wanted last routes nodes to.
    routed: Option<(u64, Arc<BTreeSet<String>>)>,
    status: Option<ServersStatus>,
    /// Whether all their servers were seen to be there, as far as that can be done at runtime.
    held: bool,
    steps: u64,
    last_steps: Vec<String>,
}

impl ServerPhase {
    /// Touches nothing yet. `every` is the time between two observations while nothing changes;
    /// `targets` gets what maps may point to.
    pub fn new(
        instance: &settings::Instance,
        targets: watch::Sender<Option<Arc<Targets>>>,
        every: Duration,
    ) -> Self {
        let (name, client) = (instance.name.clone(), instance.servers_client());
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        counter!(SERVER_STEPS, "haproxy" => name.clone()).increment(0);
        counter!(SERVER_REFUSALS, "haproxy" => name.clone()).increment(0);
        let now = Instant::now();
        Self {
            name,
            client,
            targets,
            last_targets: None,
            every,
            only_observes: false,
            is_reloaded: false,
            memory: None,
            memory_before: None,
            has_planned: false,
            advanced_at: now,
            due: now,
            observed_at: Timestamp::now(),
            lost_since: None,
            seen: None,
            plan: None,
            routed: None,
            status: None,
            held: false,
            steps: 0,
            last_steps: Vec::new(),
        }
    }

    /// Of a process that takes no change of its servers.
    pub fn only_observing(self) -> Self {
        Self { only_observes: true, ..self }
    }

    /// Of a process that Mapsmith reloads, if so: what needs that is no call for an operator.
    pub fn with_own_reloads(self, is_reloaded: bool) -> Self {
        Self { is_reloaded, ..self }
    }

    /// Another process answers: what was done to the old one is no longer true.
    pub fn forget(&mut self) {
        self.memory_before = self.memory.take().or(self.memory_before.take());
        self.due = Instant::now();
    }

    /// What is known of the lists; none before they were first seen, and where no backend is
    /// declared.
    pub fn status(&self) -> Option<&ServersStatus> {
        self.status.as_ref()
    }

    /// Backends and servers that are in maintenance or drain because a person wants that, be it by
    /// an order or outside Mapsmith.
    pub fn kept_out(&self) -> Vec<(String, String)> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let external = plan.external.iter().map(|one| (one.backend.clone(), one.server.clone()));
        external.chain(plan.ordered_out.iter().cloned()).collect()
    }

    /// Whether the instance is known to hold the desired lists: every server that is to be there
    /// is, but for those that only a reload of HAProxy can bring. Servers that are to go may still
    /// drain.
    pub fn holds(&self, desired: &Desired) -> bool {
        desired.servers.is_none() || (self.held && self.seen == desired.servers)
    }

    /// The first of these masters that no node may be sent to yet, for it stands for a server that
    /// was just made ready and whose check has yet to pass.
    pub fn awaits_check<'m>(&self, masters: impl Iterator<Item = &'m str>) -> Option<&'m str> {
        let checking = &self.plan.as_ref().filter(|plan| !plan.checking.is_empty())?.checking;
        let waits = |master: &str| {
            checking
                .iter()
                .any(|server| server.server == master || server.alone && server.backend == master)
        };
        let mut masters = masters;
        masters.find(|master| waits(master))
    }

    /// HAProxy could not be observed, so nothing is known of its lists.
    pub fn lost(&mut self, error: String, desired: &Desired) {
        // A single pass may fail over a reload.
        if self.lost_since.get_or_insert_with(Instant::now).elapsed() >= STALE_AFTER {
            self.targets.send_if_modified(|known| {
                let fresh = known.take_if(|known| !known.is_stale());
                let is_news = fresh.is_some();
                if let Some(fresh) = fresh {
                    *known = Some(Arc::new(fresh.stale()));
                }
                is_news
            });
        }
        self.due = Instant::now();
        self.fail(error, desired);
    }

    /// The first half: what makes servers exist and ready. Must come before the map. A failure is
    /// in the status; the map's own commands will show whether HAProxy is there at all.
    pub async fn make_ready(&mut self, version: HaproxyVersion, desired: &Desired) {
        if self.is_due(desired) {
            let outcome = self.try_make_ready(version, desired).await;
            self.conclude(outcome, desired);
        }
    }

    /// The second half: what takes servers away. The desired map must be the one that HAProxy was
    /// seen to hold.
    pub async fn take_away(&mut self, version: HaproxyVersion, desired: &Desired) {
        if self
            .status
            .as_ref()
            .is_some_and(|status| matches!(status.state, ServersState::Failed { .. }))
        {
            // The first half failed: the plan is of an earlier pass, and the map may route to its
            // servers again by now.
            return;
        }
        let is_left = self.plan.as_ref().is_some_and(|plan| !plan.after.is_empty());
        if is_left && !self.only_observes {
            let outcome = self.try_take_away(version, desired).await;
            self.conclude(outcome, desired);
        }
    }

    fn is_due(&self, desired: &Desired) -> bool {
        let wanted = desired.map.as_ref().map(|map| &map.revision);
        // A server may wait for another map to route its nodes elsewhere.
        let routed = self.routed.as_ref().map(|(revision, _)| *revision);
        let other_map = routed.is_some() && routed != wanted.map(|wanted| wanted.number);
        Instant::now() >= self.due || self.seen != desired.servers || other_map
    }

    async fn try_make_ready(
        &mut self,
        version: HaproxyVersion,
        desired: &Desired,
    ) -> Result<(), RuntimeError> {
        let mut sent = Vec::new();
        for _ in 0..ROUNDS {
            let Some(plan) = self.observe(version, desired).await? else { return Ok(()) };
            if plan.before.is_empty() || plan.before == sent || self.only_observes {
                return Ok(());
            }
            self.send(&plan.before).await?;
            sent = plan.before;
        }
        Ok(())
    }

    async fn try_take_away(
        &mut self,
        version: HaproxyVersion,
        desired: &Desired,
    ) -> Result<(), RuntimeError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let mut steps = plan.after.clone();
        for _ in 0..ROUNDS {
            if steps.is_empty() {
                return Ok(());
            }
            self.send(&steps).await?;
            let Some(plan) = self.observe(version, desired).await? else { return Ok(()) };
            if plan.after == steps {
                return Ok(());
            }
            steps = plan.after;
        }
        Ok(())
    }

    /// Observes and plans. None where nothing is declared.
    async fn observe(
        &mut self,
        version: HaproxyVersion,
        desired: &Desired,
    ) -> Result<Option<ServerPlan>, RuntimeError> {
        let wanted = desired.map.as_ref().map(|map| &map.revision);
        let desired = desired.servers.clone();
        self.seen.clone_from(&desired);
        self.due = Instant::now() + self.every;
        let observed = self.client.observe().await?;
        (self.observed_at, self.lost_since) = (Timestamp::now(), None);
        self.last_targets = Some(Targets::from_observed(&observed));
        let Some(desired) = desired else {
            self.plan = None;
            return Ok(None);
        };
        let mut plan = self.plan(&desired, &observed, version);
        // What the map routes to is of interest only while something is to go.
        match wanted.filter(|_| !plan.removing.is_empty()) {
            Some(wanted)
                if self.routed.as_ref().is_none_or(|(revision, _)| *revision != wanted.number) =>
            {
                let masters = wanted
                    .entries
                    .load()
                    .into_iter()
                    .map(|(master, _)| master.to_owned())
                    .collect();
                self.routed = Some((wanted.number, Arc::new(masters)));
                plan = self.plan(&desired, &observed, version);
            }
            Some(_) => {}
            None => self.routed = None,
        }
        if let Some(memory) = &mut self.memory {
            memory.planned(&plan, &observed);
        }
        self.plan = Some(plan.clone());
        Ok(Some(plan))
    }

    fn plan(
        &mut self,
        desired: &DesiredServers,
        observed: &ObservedServers,
        version: HaproxyVersion,
    ) -> ServerPlan {
        let now = Instant::now();
        let memory = self.memory.get_or_insert_with(|| match self.memory_before.take() {
            Some(before) => before.of_successor(version),
            None => ServerHistory::new(version),
        });
        memory.advance(now.duration_since(self.advanced_at));
        self.advanced_at = now;
        memory.desired(desired);
        memory.observed(desired, observed);
        if !self.has_planned {
            self.has_planned = true;
            memory.found_at_start(desired, observed);
        }
        memory.routed =
            self.routed.as_ref().map_or_else(Arc::default, |(_, routed)| Arc::clone(routed));
        plan_servers(desired, observed, memory)
    }

    /// Sends steps and takes their answers in.
    async fn send(&mut self, steps: &[ServerStep]) -> Result<(), RuntimeError> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        let addresses: Vec<_> = steps.iter().filter_map(slot_address).collect();
        if !addresses.is_empty() {
            // From 3.0 on HAProxy changes an address a moment after its answer: a slot must not be
            // ready before.
            self.client.run(&addresses).await?;
            self.client.observe().await?;
        }
        let mut commands = Vec::new();
        let mut sizes = Vec::new();
        for step in steps {
            memory.sending(step);
            let start = commands.len();
            match commands_of(step) {
                Ok(more) => commands.extend(more),
                Err(invalid) => memory.answered(step, Err(Refusal::Other(invalid.to_string()))),
            }
            sizes.push(commands.len() - start);
        }
        let answers = self.client.run(&commands).await?;
        let mut answers = answers.into_iter();
        let mut done = 0;
        let mut idle = Vec::new();
        for (step, size) in steps.iter().zip(sizes) {
            if size == 0 {
                continue;
            }
            let mut parts: Vec<_> = answers.by_ref().take(size).collect();
            if matches!(step, ServerStep::TakeSlot { .. }) && size > 2 {
                // Whoever serves counts more than its weight: a refused weight or maxconn does not
                // keep the slot out.
                parts.drain(1..size - 1);
            }
            match parts.into_iter().collect::<Result<(), _>>() {
                Ok(()) => {
                    done += 1;
                    tracing::debug!(instance = self.name, "{step}");
                    self.last_steps.push(step.to_string());
                    memory.answered(step, Ok(()));
                }
                Err(refusal) => {
                    let removes = matches!(step, ServerStep::Delete { .. });
                    if refusal == Refusal::ConnectionsLeft && removes {
                        idle.push(step);
                    }
                    note_refusal(&self.name, step, &refusal);
                    memory.answered(step, Err(refusal));
                }
            }
        }
        self.steps += done;
        counter!(SERVER_STEPS, "haproxy" => self.name.clone()).increment(done);
        let surplus = self.last_steps.len().saturating_sub(LISTED_SERVERS);
        self.last_steps.drain(..surplus);
        if done > 0 {
            tracing::info!(instance = self.name, steps = done, "server lists changed");
        }
        let version = memory.version;
        self.close_idle(&idle, version).await
    }

    /// Of servers that can't be deleted yet. A connection that fell idle after the maintenance
    /// began keeps a server from being deleted for many seconds on 2.6; entering maintenance once
    /// more closes it. From 3.0 on HAProxy itself says when the server can go; one at a time, for
    /// it blocks.
    async fn close_idle(
        &self,
        idle: &[&ServerStep],
        version: HaproxyVersion,
    ) -> Result<(), RuntimeError> {
        let paths: Vec<_> = idle
            .iter()
            .filter_map(|step| ServerPath::new(step.backend(), step.server()?).ok())
            .collect();
        if let (true, Some(at)) = (version >= WAITS, paths.first()) {
            let removable = self.client.wait_removable(at, REMOVABLE_WAIT).await?;
            tracing::debug!(instance = self.name, "{at} can be removed: {removable:?}");
            return Ok(());
        }
        let states = [ServerState::Drain, ServerState::Maintenance];
        let again: Vec<_> = paths
            .iter()
            .flat_map(|at| states.map(|state| ServerCommand::SetState { at: at.clone(), state }))
            .collect();
        self.client.run(&again).await?;
        Ok(())
    }
}

/// One line and one count for each refusal.
fn note_refusal(instance: &str, step: &ServerStep, refusal: &Refusal) {
    let said = shown_words(refusal.to_string());
    counter!(SERVER_REFUSALS, "haproxy" => instance.to_owned()).increment(1);
    if *refusal == Refusal::ConnectionsLeft {
        // Comes again at each pass until the last one is closed; the status shows it.
        tracing::debug!(instance, "{step}: {said}");
    } else {
        tracing::warn!(instance, "{step}: {said}");
    }
}
