//! What the API asks for, answered from the tasks' latest states.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use haproxy_runtime::MapClient;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::desired::overrides::DeadEnd;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::desired::{self, SourceView};
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::status::{InstanceState, KeptNodes, SourceStatus, milliseconds};
use mapsmith_core::{
    DesiredServers, HeldChange, OverrideChange, Overrides, Pin, ServerList, SourceState,
};
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::DECIDER;
use crate::engine::Approval;
use crate::engine::map::Decision;
use crate::engine::servers::ServerDecision;
use crate::heartbeat::Heartbeats;
use crate::http::Control;
use crate::http::dto::{
    ExplainChange, ExplainInstance, ExplainReport, ExplainSource, LearnedReport, MasterLoad,
    Readiness, ReferencesReport, ReloadInstance, ReloadOutcome, ReloadReport, ReloadServers,
    ReloadSource, StatusReport,
};
use crate::http::error::ApiError;
use crate::instance::InstanceReport;
use crate::settings::Settings;
use crate::source::schedule::PollRequests;
use crate::store::OverrideService;
use crate::telemetry::{SOURCE_ANSWER_AGE, TASK_HEARTBEAT_AGE};

/// How long `explain` waits for one instance: a person is watching.
const EXPLAIN_BOUND: Duration = Duration::from_secs(2);

/// How long the task that decides may give no sign of life before the process counts as ill: many
/// times its longest work.
const DECIDES_WITHIN: Duration = Duration::from_secs(60);

/// The running program, as the API sees it.
pub(super) struct Gateway {
    pub sources: Vec<watch::Receiver<SourceState>>,
    /// The sources that list servers.
    pub lists: Vec<watch::Receiver<SourceState<ServerList>>>,
    pub decision: watch::Receiver<Decision>,
    pub server_decision: watch::Receiver<ServerDecision>,
    pub desired_servers: watch::Receiver<Option<Arc<DesiredServers>>>,
    /// What a map may point to, an instance each; none before it was looked at.
    pub targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    pub instances: Vec<watch::Receiver<InstanceReport>>,
    pub clients: Vec<MapClient>,
    pub requests: PollRequests,
    pub approvals: mpsc::Sender<Approval>,
    pub server_approvals: mpsc::Sender<Approval>,
    /// None without a store.
    pub overrides: Option<OverrideService>,
    pub metrics: PrometheusHandle,
    pub settings: Arc<Settings>,
    pub heartbeats: Heartbeats,
}

impl Gateway {
    fn states(&self) -> Vec<SourceState> {
        self.sources.iter().map(|source| source.borrow().clone()).collect()
    }

    /// How every source stands, those of the node map first, with the last request that each has
    /// answered.
    fn source_statuses(&self) -> Vec<(SourceStatus, u64)> {
        let lists = self.lists.iter().map(|list| {
            let state = list.borrow();
            (state.status.clone(), state.answered)
        });
        self.states().into_iter().map(|state| (state.status, state.answered)).chain(lists).collect()
    }

    fn all_held(&self, decision: &Decision) -> Vec<HeldChange> {
        decision.held.iter().chain(self.server_decision.borrow().held()).cloned().collect()
    }

    /// The number of the desired server lists.
    fn servers_number(&self) -> Option<u64> {
        self.desired_servers.borrow().as_ref().map(|desired| desired.number)
    }

    fn instance_reports(&self) -> Vec<InstanceReport> {
        self.instances.iter().map(|instance| instance.borrow().clone()).collect()
    }

    /// What is known now. `request` is the poll request that the sources are asked by; 0 where none
    /// was made.
    fn reload_report(
        &self,
        outcome: ReloadOutcome,
        message: String,
        before: u64,
        request: u64,
        start: Instant,
    ) -> ReloadReport {
        let decision = self.decision.borrow().clone();
        let revision = decision.in_force.as_ref().map(|revision| revision.number);
        let sources = self
            .source_statuses()
            .into_iter()
            .map(|(status, answered)| ReloadSource {
                answered: answered >= request && status.last_poll.is_some(),
                name: status.name,
                poll: status.last_poll,
                error: status.error,
            })
            .collect();
        let held = self.all_held(&decision);
        let desired = self.servers_number();
        let instances = self
            .instance_reports()
            .into_iter()
            .map(|report| ReloadInstance {
                servers: report.status.servers.as_ref().map(|servers| ReloadServers {
                    verified: servers.needs_reload.is_empty() && report.servers_held >= desired,
                    state: servers.state.clone(),
                    needs_reload: servers.needs_reload.clone(),
                }),
                verified: report.observed_generation >= decision.generation
                    && matches!(report.status.state, InstanceState::InSync { .. }),
                apply: report.status.last_apply.filter(|apply| apply.revision > before),
                name: report.status.name,
                state: report.status.state,
            })
            .collect();
        ReloadReport {
            outcome,
            message,
            revision,
            changes: decision.log.since(before),
            held,
            sources,
            steps: decision.steps,
            instances,
            milliseconds: milliseconds(start.elapsed()),
        }
    }

    /// The node, as the map has it.
    fn as_in_map(&self, node: &str) -> String {
        if self.settings.map.lowercase { node.to_ascii_lowercase() } else { node.to_owned() }
    }

    /// Whether a decision has arrived everywhere; `behind` are the instances where it has not.
    fn arrival(
        &self,
        decision: &Decision,
        behind: &[String],
        before: u64,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let count = self.instances.len();
        if let Some(error) = decision.file.as_ref().and_then(|file| file.error.as_ref()) {
            (ReloadOutcome::FileFailed, format!("the map file can't be written: {error}"))
        } else if let Some(writer) = &decision.read_only {
            (ReloadOutcome::ReadOnly, read_only(writer))
        } else if !decision.active {
            (
                ReloadOutcome::SourceFailed,
                format!("still waiting for: {}", decision.waiting_for.join(", ")),
            )
        } else if !behind.is_empty() {
            (ReloadOutcome::Behind, format!("not in sync within {wait:?}: {}", behind.join(", ")))
        } else {
            let changes = changes_in_words(&decision.log.since(before));
            (
                ReloadOutcome::InSync,
                format!(
                    "{changes}; {count} of {count} instances in sync{}",
                    kept_in_words(decision)
                ),
            )
        }
    }

    /// Whether every master that an order names is one: a backend or server of some instance, or a
    /// master that nodes are routed to. A name that is none is a slip of the pen mostly, and would
    /// be a route to nothing.
    fn known(&self, change: &OverrideChange, decision: &Decision) -> Result<(), ApiError> {
        let named = match change {
            OverrideChange::Pin(pin) => vec![&pin.master],
            OverrideChange::Drain(drained) => {
                [Some(&drained.master), drained.to.as_ref()].into_iter().flatten().collect()
            }
            _ => return Ok(()),
        };
        let targets: Vec<_> =
            self.targets.iter().filter_map(|targets| targets.borrow().clone()).collect();
        let lists = self.server_decision.borrow();
        let listed = lists.backends.iter().flat_map(|backend| {
            let servers = backend.servers.iter().flatten().map(|server| server.name.as_str());
            servers.chain([backend.name.as_str()])
        });
        let routed =
            decision.in_force.as_ref().map(|revision| revision.entries.load()).unwrap_or_default();
        let drained = decision.overrides.drained().map(|drained| drained.master.as_str());
        let masters: BTreeSet<&str> =
            routed.iter().map(|(master, _)| *master).chain(drained).collect();
        let known: BTreeSet<&str> = targets
            .iter()
            .flat_map(|targets| targets.names())
            .chain(listed)
            .chain(masters.iter().copied())
            .collect();
        match named.into_iter().find(|master| !known.contains(master.as_str())) {
            None => Ok(()),
            Some(master) => {
                Err(ApiError::UnknownMaster(unknown(master, &known, &masters, targets.is_empty())))
            }
        }
    }

    /// Whether the nodes of a master that is to be drained have anywhere to go. Who drains one may
    /// be about to stop it.
    fn has_a_way(&self, change: &OverrideChange, stored: &Overrides) -> Result<(), ApiError> {
        let OverrideChange::Drain(drained) = change else { return Ok(()) };
        let states = self.states();
        let Ok(merged) = desired::merge(&views(&states)) else { return Ok(()) };
        let mut after = stored.clone();
        // A name that is not valid was refused before.
        let _ = after.add_drain(drained.clone());
        let why = match desired::overrides::dead_end(&merged, &after, &drained.master) {
            None => return Ok(()),
            Some(DeadEnd::Circle(way)) => {
                format!(
                    "the drains run in a circle: {}; undrain one of them, or name another master \
                        with --to",
                    way.join(" -> ")
                )
            }
            Some(DeadEnd::NobodyLeft) => {
                let master = &drained.master;
                format!(
                    "no other master is left that the nodes of {master} could go to; name one \
                        with --to, or undrain another"
                )
            }
        };
        Err(ApiError::DeadEnd(format!("{why} (--force, or force=true, stores it all the same)")))
    }

    /// Waits for a decision.
    async fn decided(
        &self,
        deadline: Instant,
        reached: impl FnMut(&Decision) -> bool,
    ) -> Option<Decision> {
        let mut decision = self.decision.clone();
        let wait = decision.wait_for(reached);
        Some(timeout_at(deadline, wait).await.ok()?.ok()?.clone())
    }

    /// Waits until the changes of server lists that come into force before the deadline have done
    /// so: the others wait for quiet.
    async fn quiet(&self, deadline: Instant, request: u64) -> Option<()> {
        let mut lists = self.server_decision.clone();
        timeout_at(deadline, lists.wait_for(|lists| lists.evaluated_request >= request))
            .await
            .ok()?
            .ok()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let latest = SignedDuration::try_from(left)
            .ok()
            .and_then(|left| Timestamp::now().checked_add(left).ok());
        let waits = |lists: &ServerDecision| {
            let due = lists.backends.iter().filter_map(|backend| backend.change_due).min();
            due.is_some_and(|due| latest.is_some_and(|latest| due < latest))
        };
        // A list that is never quiet is no reason to say nothing of the rest.
        let _ = timeout_at(deadline, lists.wait_for(|lists| !waits(lists))).await;
        Some(())
    }

    /// Waits until every instance but those that are `behind` anyway holds the servers that are
    /// desired, as far as it can without a reload of HAProxy. Those that do not or can't, each with
    /// the reason.
    async fn servers_behind(&self, behind: &[String], deadline: Instant) -> Vec<String> {
        let Some(number) = self.servers_number() else { return Vec::new() };
        let is_behind = |instance: &&watch::Receiver<InstanceReport>| {
            behind.contains(&instance.borrow().status.name)
        };
        let waits = self.instances.iter().filter(|instance| !is_behind(instance)).map(
            |instance| async move {
                let mut report = instance.clone();
                let held = report
                    .wait_for(|report| report.servers_held.is_some_and(|held| held >= number));
                let in_time = timeout_at(deadline, held).await.is_ok_and(|result| result.is_ok());
                let status = instance.borrow().status.clone();
                let servers = status.servers?;
                match servers.needs_reload.as_slice() {
                    [] if in_time => None,
                    [] => Some(format!("{} ({})", status.name, servers.state)),
                    [first, rest @ ..] => {
                        let more = if rest.is_empty() {
                            String::new()
                        } else {
                            format!("; and {} more", rest.len())
                        };
                        Some(format!(
                            "{} (servers need a reload of HAProxy: {first}{more})",
                            status.name
                        ))
                    }
                }
            },
        );
        join_all(waits).await.into_iter().flatten().collect()
    }

    /// Waits until every instance has looked again and holds the decision's revision. The names of
    /// those that do not.
    async fn verified(&self, generation: u64, deadline: Instant) -> Vec<String> {
        let waits = self.instances.iter().map(|instance| async move {
            let mut report = instance.clone();
            let wait = report.wait_for(|report| report.observed_generation >= generation);
            let in_time = timeout_at(deadline, wait).await.is_ok_and(|result| result.is_ok());
            (!in_time).then(|| instance.borrow().status.name.clone())
        });
        join_all(waits).await.into_iter().flatten().collect()
    }
}

fn read_only(writer: &str) -> String {
    format!(
        "this Mapsmith changes nothing, for another one writes the map file ({writer}); stop one \
            of the two, or use `run --take-over`"
    )
}

/// The most names that a refused order lists.
const LISTED_MASTERS: usize = 10;

/// Why a name is refused, with the names that may have been meant.
fn unknown(master: &str, known: &BTreeSet<&str>, masters: &BTreeSet<&str>, unseen: bool) -> String {
    let why = match unseen {
        true => "no HAProxy has been looked at yet, and no node is routed there",
        false => "no HAProxy has a backend or server of the name, and no node is routed there",
    };
    let meant: Vec<_> =
        known.iter().filter(|name| name.eq_ignore_ascii_case(master)).copied().collect();
    let hint = match (meant.as_slice(), masters.len()) {
        ([], 0) => String::new(),
        ([], count) => {
            let shown: Vec<_> = masters.iter().take(LISTED_MASTERS).copied().collect();
            let more = if count > LISTED_MASTERS { ", ..." } else { "" };
            format!("; nodes are routed to: {}{more}", shown.join(", "))
        }
        (meant, _) => format!("; is it {}?", meant.join(" or ")),
    };
    format!(
        "{master:?} is not a known master: {why}{hint} (--force, or force=true, takes it all the same)"
    )
}

fn views(states: &[SourceState]) -> Vec<SourceView<'_>> {
    states
        .iter()
        .map(|state| SourceView {
            name: &state.status.name,
            required: state.status.required,
            snapshot: state.snapshot.as_ref(),
        })
        .collect()
}

/// Whether the source's answer is not clear about the node.
fn is_disputed(source: &SourceView<'_>, node: &str) -> bool {
    let entries = source.snapshot.map(|snapshot| &snapshot.entries);
    entries.is_some_and(|entries| {
        entries.find(node.as_bytes()).is_some_and(|at| entries.is_disputed(at))
    })
}

/// Why a node stays where it is although the sources say something else, if so.
fn explain_kept(decision: &Decision, node: &str, disputed: bool) -> Option<String> {
    if disputed {
        return Some(
            "its source names it with different masters, and none is newer: it stays where it is"
                .to_owned(),
        );
    }
    let kept = decision.flapping.nodes.iter().find(|kept| kept.node == node)?;
    Some(format!(
        "it flaps: it stays with {} until the registry has named one master for a while",
        kept.master
    ))
}

/// What was ordered, for a person, with a warning where no node has the master that gets nodes: it
/// may be a slip of the pen.
fn told(change: &OverrideChange, is_known: bool) -> String {
    let unknown =
        if is_known { "" } else { " (by force: no HAProxy has a backend or server of the name)" };
    match change {
        OverrideChange::Pin(Pin { node, master, until, .. }) => {
            let until = until.map_or(String::new(), |until| format!(" until {until:.0}"));
            format!("node {node} is pinned to {master}{until}{unknown}")
        }
        OverrideChange::Unpin { node } => format!("node {node} is no longer pinned"),
        OverrideChange::Drain(drained) => match &drained.to {
            Some(to) => format!("master {} is drained to {to}{unknown}", drained.master),
            None => {
                format!("master {} is drained to the others{unknown}", drained.master)
            }
        },
        OverrideChange::Undrain { master } => format!("master {master} is no longer drained"),
        OverrideChange::Expire { .. } => "pins whose time is over have ended".to_owned(),
    }
}

/// Whether an order is held for where it points to.
fn waits(change: &OverrideChange, decision: &Decision) -> bool {
    match (change, &decision.in_force) {
        (OverrideChange::Pin(pin), Some(revision)) => {
            revision.entries.get(&pin.node) != Some(&pin.master)
                && decision.kept_from.contains(&pin.master)
        }
        _ => !decision.kept_from.is_empty(),
    }
}

fn changes_in_words(changes: &[RevisionSummary]) -> String {
    match changes {
        [] => "nothing changed".to_owned(),
        [one] => format!("revision {}: {}", one.number, one.counts),
        many => format!("{} revisions up to {}", many.len(), many[many.len() - 1].number),
    }
}

/// Which nodes stay where they are although the sources say something else: what is in force is not
/// all that they said.
fn kept_in_words(decision: &Decision) -> String {
    let of = |kept: &KeptNodes, one: &str, many: &str| match (kept.count, kept.nodes.first()) {
        (0, _) | (_, None) => String::new(),
        (1, Some(node)) => format!("; node {} {one} and stays with {}", node.node, node.master),
        (count, Some(_)) => {
            format!("; {count} nodes {many} and stay where they are (see `mapsmith status`)")
        }
    };
    of(&decision.flapping, "flaps", "flap")
        + &of(&decision.conflicts, "is named twice", "are named twice")
}

#[async_trait]
impl Control for Gateway {
    fn status(&self) -> StatusReport {
        let decision = self.decision.borrow().clone();
        let load = |entries: &mapsmith_core::EntryMap| -> Vec<MasterLoad> {
            entries
                .load()
                .into_iter()
                .map(|(master, nodes)| MasterLoad { master: master.to_owned(), nodes })
                .collect()
        };
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: decision.in_force.as_ref().map(|revision| revision.number),
            entries: decision.in_force.as_ref().map_or(0, |revision| revision.entries.len()),
            masters: decision
                .in_force
                .as_ref()
                .map(|revision| load(&revision.entries))
                .unwrap_or_default(),
            last_change: decision.log.last().cloned(),
            held: self.all_held(&decision),
            waiting_for: decision.waiting_for,
            read_only: decision.read_only,
            pins: decision.overrides.pins().len(),
            drained: decision.overrides.drained().cloned().collect(),
            stuck: decision.stuck,
            flapping: decision.flapping,
            conflicts: decision.conflicts,
            references: ReferencesReport {
                dangling: (*decision.dangling).clone(),
                unknown_are: self.settings.references_in_force().unknown,
                not_ready_are: self.settings.references.not_ready,
            },
            rejected: (*decision.rejected).clone(),
            map_file: decision.file,
            sources: self.source_statuses().into_iter().map(|(status, _)| status).collect(),
            servers_number: self.servers_number(),
            backends: self.server_decision.borrow().backends.clone(),
            instances: self.instance_reports().into_iter().map(|report| report.status).collect(),
        }
    }

    fn held(&self) -> Vec<HeldChange> {
        let decision = self.decision.borrow().clone();
        self.all_held(&decision)
    }

    fn stands_still(&self) -> Option<String> {
        let ages = self.heartbeats.ages();
        let (task, age) =
            ages.iter().find(|(task, age)| task == DECIDER && *age > DECIDES_WITHIN)?;
        Some(format!("the task {task:?} has not moved for {} s; restart Mapsmith", age.as_secs()))
    }

    fn readiness(&self) -> Readiness {
        let decision = self.decision.borrow();
        let mut missing: Vec<String> = decision
            .waiting_for
            .iter()
            .map(|name| format!("source {name} has not answered since the start"))
            .collect();
        match &decision.read_only {
            Some(_) => missing.push(
                "another Mapsmith writes the map file, so this one changes nothing".to_owned(),
            ),
            None if !decision.active && missing.is_empty() => {
                missing.push("there is no desired map yet".to_owned())
            }
            None => {}
        }
        let file = decision.file.as_ref().and_then(|file| file.error.as_ref());
        missing.extend(
            file.map(|_| {
                "the map file can't be written, so no change can come into force".to_owned()
            }),
        );
        let reports = self.instance_reports();
        let in_sync =
            |report: &&InstanceReport| matches!(report.status.state, InstanceState::InSync { .. });
        let ready =
            decision.active && file.is_none() && reports.iter().any(|report| in_sync(&report));
        let behind = reports.iter().filter(|report| !in_sync(report));
        // Whoever asks need not have shown a token, so no path and no error: those are in
        // `/v1/status`.
        missing.extend(behind.map(|report| {
            format!("instance {}: {}", report.status.name, report.status.state.in_brief())
        }));
        Readiness { ready, missing }
    }

    async fn reload(&self, wait: Option<Duration>) -> ReloadReport {
        let start = Instant::now();
        let before = self.decision.borrow().in_force.as_ref().map_or(0, |revision| revision.number);
        let request = self.requests.request_everything();
        let report =
            |outcome, message| self.reload_report(outcome, message, before, request, start);
        let Some(wait) = wait else {
            let message =
                "every source is polled now; add ?wait=30s to be told the outcome".to_owned();
            return report(ReloadOutcome::Requested, message);
        };
        let deadline = start + wait;
        // Every source has been polled since, and the answers are decided on.
        let decided = async {
            let decision =
                self.decided(deadline, |decision| decision.evaluated_request >= request).await?;
            self.quiet(deadline, request).await?;
            Some(decision)
        };
        let Some(decision) = decided.await else {
            let slow: Vec<_> = self
                .source_statuses()
                .into_iter()
                .filter(|(_, answered)| *answered < request)
                .map(|(status, _)| status.name)
                .collect();
            return if slow.is_empty() {
                report(
                    ReloadOutcome::Behind,
                    format!(
                        "every source was polled, but the answers are not evaluated within {wait:?}"
                    ),
                )
            } else {
                report(
                    ReloadOutcome::SourceFailed,
                    format!("no answer within {wait:?} from: {}", slow.join(", ")),
                )
            };
        };
        if let Some(writer) = &decision.read_only {
            return report(ReloadOutcome::ReadOnly, read_only(writer));
        }
        let mut behind = if decision.active {
            self.verified(decision.generation, deadline).await
        } else {
            Vec::new()
        };
        if decision.active {
            behind.extend(self.servers_behind(&behind, deadline).await);
        }
        // An optional source's failure is no failure of the reload; the report tells of it all the
        // same.
        let failed: Vec<_> = self
            .source_statuses()
            .into_iter()
            .filter(|(status, _)| status.required)
            .filter_map(|(status, _)| {
                status.error.map(|error| format!("source {}: {error}", status.name))
            })
            .collect();
        let of = |held: &HeldChange| {
            if held.of == HeldChange::MAP { String::new() } else { format!("{}: ", held.of) }
        };
        let held = self.all_held(&decision);
        let held: Vec<_> = held
            .iter()
            .map(|held| format!("{}{} (id {})", of(held), held.reason, held.id))
            .collect();
        let held =
            (!held.is_empty()).then(|| format!("held back by the guard: {}", held.join("; ")));
        // Without the map file nothing comes into force, whatever is held.
        if decision.file.as_ref().is_some_and(|file| file.error.is_some()) {
            let (outcome, message) = self.arrival(&decision, &behind, before, wait);
            return report(outcome, message);
        }
        // A failure first: what is held may have been held for days, and says nothing of this
        // reload.
        match (failed.is_empty(), held) {
            (false, held) => {
                let meanwhile = match decision.active {
                    true => "the last good answer stays in force",
                    false => "nothing is applied until every required source has answered",
                };
                let held = held.map_or(String::new(), |held| format!("; {held}"));
                report(
                    ReloadOutcome::SourceFailed,
                    format!("{}; {meanwhile}{held}", failed.join("; ")),
                )
            }
            (true, Some(held)) => report(ReloadOutcome::Held, held),
            (true, None) => {
                let (outcome, message) = self.arrival(&decision, &behind, before, wait);
                report(outcome, message)
            }
        }
    }

    async fn explain(&self, node: &str) -> ExplainReport {
        let node = self.as_in_map(node);
        let decision = self.decision.borrow().clone();
        let states = self.states();
        let views = views(&states);
        let origin = desired::origin(&views, &node);
        let said = origin.and_then(|source| source.snapshot?.entries.get(&node));
        let pin = decision.overrides.pin(&node).cloned();
        let drained = said
            .filter(|_| pin.is_none())
            .and_then(|master| decision.overrides.drain(master))
            .cloned();
        let sources = views
            .iter()
            .map(|view| ExplainSource {
                name: view.name.to_owned(),
                master: view
                    .snapshot
                    .and_then(|snapshot| snapshot.entries.get(&node).map(str::to_owned)),
                rejected: view.snapshot.and_then(|snapshot| snapshot.rejections.reason(&node)),
                answered_at: view.snapshot.map(|snapshot| snapshot.answered_at),
                used: origin.is_some_and(|origin| origin.name == view.name),
            })
            .collect();
        let key = node.as_str();
        let instances = self.clients.iter().zip(&self.settings.instances).zip(&self.instances);
        let lookups = instances.map(|((client, instance), report)| async move {
            let learned = report.borrow().learned_of(key).cloned();
            let mut master = None;
            let look_up =
                client.look_up(std::iter::once(key), |_, found| master = found.map(str::to_owned));
            let error = match timeout(EXPLAIN_BOUND, look_up).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {EXPLAIN_BOUND:?}")),
            };
            ExplainInstance { name: instance.name.clone(), master, error, learned }
        });
        let in_force = decision.in_force.as_ref().and_then(|revision| revision.entries.get(&node));
        // Where a drained master's nodes go is the sources' answer no more.
        let ordered = match (&pin, &drained) {
            (Some(pin), _) => Some(pin.master.as_str()),
            (None, Some(drained)) => drained
                .to
                .as_deref()
                .filter(|to| decision.overrides.drain(to).is_none())
                .or(in_force),
            (None, None) => said,
        };
        // What an operator ordered is not kept back by anything that the sources say.
        let kept = match &pin {
            Some(_) => None,
            None => explain_kept(
                &decision,
                &node,
                origin.is_some_and(|origin| is_disputed(&origin, &node)),
            ),
        };
        let reference = ordered.and_then(|master| {
            let (why, action) = if decision.dangling.unknown.contains_key(master) {
                (
                    "an instance has no backend or server of the name",
                    self.settings.references.unknown,
                )
            } else if decision.dangling.not_ready.contains_key(master) {
                ("it is not ready in an instance", self.settings.references.not_ready)
            } else {
                return None;
            };
            Some(format!("{master}: {why}; such entries are {action} ([references])"))
        });
        ExplainReport {
            reference,
            rejected: decision.rejected.of_node(&node).cloned(),
            kept,
            master: in_force.map(str::to_owned),
            revision: decision.in_force.as_ref().map(|revision| revision.number),
            last_change: decision.log.last_change(&node).map(|(revision, change)| ExplainChange {
                revision: revision.number,
                at: revision.at,
                from: change.from.clone(),
                to: change.to.clone(),
            }),
            pin,
            drained,
            sources,
            instances: join_all(lookups).await,
            held: decision.held,
            node,
        }
    }

    fn overrides(&self) -> Result<Arc<Overrides>, ApiError> {
        self.overrides.as_ref().map(OverrideService::latest).ok_or(ApiError::NoStore)
    }

    fn pin(&self, node: &str) -> Result<Pin, ApiError> {
        let node = self.as_in_map(node);
        let overrides = Control::overrides(self)?;
        overrides
            .pin(&node)
            .cloned()
            .ok_or_else(|| ApiError::NoOverride(format!("node {node} has no pin")))
    }

    async fn change_override(
        &self,
        mut change: OverrideChange,
        force: bool,
        wait: Option<Duration>,
    ) -> Result<ReloadReport, ApiError> {
        let keeper = self.overrides.as_ref().ok_or(ApiError::NoStore)?;
        let start = Instant::now();
        match &mut change {
            OverrideChange::Pin(Pin { node, .. }) | OverrideChange::Unpin { node } => {
                *node = self.as_in_map(node)
            }
            _ => {}
        }
        let decision = self.decision.borrow().clone();
        let before = decision.in_force.as_ref().map_or(0, |revision| revision.number);
        let known = self.known(&change, &decision);
        let told = told(&change, known.is_ok());
        if !force {
            known?;
            self.has_a_way(&change, &keeper.latest())?;
        }
        let nothing_to_end = match &change {
            OverrideChange::Undrain { master } => format!("master {master} is not drained"),
            OverrideChange::Unpin { node } => format!("node {node} has no pin"),
            _ => "nothing changed".to_owned(),
        };
        let changed = keeper
            .change(change.clone())
            .await
            .map_err(|error| ApiError::Store(error.to_string()))?;
        let number = changed.ok_or(ApiError::NoOverride(nothing_to_end))?.number();
        let report = |outcome, message| Ok(self.reload_report(outcome, message, before, 0, start));
        let Some(wait) = wait else {
            return report(
                ReloadOutcome::Requested,
                format!("{told}; it is stored, and every instance gets it now"),
            );
        };
        let deadline = start + wait;
        let Some(decision) =
            self.decided(deadline, |decision| decision.overrides.number() >= number).await
        else {
            return report(
                ReloadOutcome::Behind,
                format!("{told}; it is stored, and not in force within {wait:?}"),
            );
        };
        let behind = if decision.active {
            self.verified(decision.generation, deadline).await
        } else {
            Vec::new()
        };
        let (outcome, message) = match &decision.held {
            Some(held) if !decision.active => {
                let later = "it is stored, and comes into force with the first answer of the \
                    sources that is let through";
                (
                    ReloadOutcome::Held,
                    format!("{later}; held back by the guard: {} (id {})", held.reason, held.id),
                )
            }
            Some(held) if waits(&change, &decision) => (
                ReloadOutcome::Held,
                format!("it is stored, and held back: {} (id {})", held.reason, held.id),
            ),
            _ => self.arrival(&decision, &behind, before, wait),
        };
        let stuck = match decision.stuck.as_slice() {
            [] => String::new(),
            stuck => format!(
                "; no other master is left, so these keep their nodes: {}",
                stuck.join(", ")
            ),
        };
        report(outcome, format!("{told}{stuck}; {message}"))
    }

    fn learned(&self) -> Vec<LearnedReport> {
        let report = |report: InstanceReport| {
            let status = report.status.learned?;
            Some(LearnedReport {
                instance: report.status.name,
                status,
                routes: report.learned.to_vec(),
            })
        };
        self.instance_reports().into_iter().filter_map(report).collect()
    }

    async fn approve(&self, id: &str) -> Result<HeldChange, String> {
        let (answer, result) = oneshot::channel();
        let gone = || "Mapsmith is shutting down".to_owned();
        // To the task that holds it; where none does, to one that holds another and says so.
        let of_a_list = {
            let lists = self.server_decision.borrow();
            lists.held().any(|held| held.id == id)
                || lists.held().next().is_some() && self.decision.borrow().held.is_none()
        };
        let approvals = if of_a_list { &self.server_approvals } else { &self.approvals };
        approvals.send(Approval { id: id.to_owned(), answer }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?.map_err(|error| error.to_string())
    }

    fn metrics(&self) -> String {
        // An age grows by itself, so it is taken when it is asked for.
        for (status, _) in self.source_statuses() {
            if let Some(at) = status.answered_at {
                let age = Timestamp::now().duration_since(at).as_secs_f64().max(0.0);
                gauge!(SOURCE_ANSWER_AGE, "source" => status.name).set(age);
            }
        }
        for (task, age) in self.heartbeats.ages() {
            gauge!(TASK_HEARTBEAT_AGE, "task" => task).set(age.as_secs_f64());
        }
        self.metrics.render()
    }
}
