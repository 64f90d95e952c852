//! Waiting until a change is in force in every instance.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::HeldChange;
use mapsmith_core::config::status::ConfigState;
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::status::{KeptNodes, ServersState, SourceStatus, milliseconds};
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::types::{ReloadInstance, ReloadOutcome, ReloadReport, ReloadServers, ReloadSource};
use crate::engine::Decision;
use crate::engine::map::MapDecision;
use crate::instance::InstanceReport;

/// A change that somebody asked for.
pub(super) struct Asked {
    /// When it was asked for.
    pub start: Instant,
    /// The revision then.
    pub before: u64,
    /// The poll request that the sources are asked by; 0 where none was made.
    pub request: u64,
    /// The generation that it is in force with, once that is known.
    pub generation: Option<u64>,
}

impl Api {
    /// Waits until a reload is in force in every instance, and says how that ended.
    pub(super) async fn reload_in_force(
        &self,
        asked: &mut Asked,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let (deadline, before) = (asked.start + wait, asked.before);
        let Some(decision) = self.evaluated(asked.request, deadline).await else {
            return self.not_evaluated(asked.request, wait);
        };
        asked.generation = Some(decision.generation);
        if let Some(writer) = &decision.map.read_only {
            return (ReloadOutcome::ReadOnly, read_only(writer));
        }
        let behind = match decision.map.active {
            true => self.behind(decision.generation, deadline).await,
            false => Vec::new(),
        };
        let failed = self.failed_sources();
        let held = held_in_words(&decision, before);
        // Without the map file nothing comes into force, whatever is held.
        if decision.map.file.as_ref().is_some_and(|file| file.error.is_some()) {
            return self.arrival(&decision, &behind, before, wait);
        }
        // A failure first: what is held may have been held for days, and says nothing of this
        // reload.
        match (failed.is_empty(), held) {
            (false, held) => {
                let held = held.map_or(String::new(), |held| format!("; {held}"));
                let failed = failed_in_words(&failed, decision.map.active);
                (ReloadOutcome::SourceFailed, format!("{failed}{held}"))
            }
            (true, Some(held)) => (ReloadOutcome::Held, held),
            (true, None) => self.arrival(&decision, &behind, before, wait),
        }
    }

    /// Waits until every source was polled for the request and the answers are decided on, and the
    /// changes of server lists that come into force before the deadline have done so: the others
    /// wait for quiet.
    async fn evaluated(&self, request: u64, deadline: Instant) -> Option<Decision> {
        let decision =
            self.decided(deadline, |decision| decision.evaluated_request >= request).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let latest = SignedDuration::try_from(left)
            .ok()
            .and_then(|left| Timestamp::now().checked_add(left).ok())
            .unwrap_or(Timestamp::MAX);
        let is_quiet = |decision: &Decision| {
            let mut due = decision.backends.iter().filter_map(|backend| backend.change_due);
            !due.any(|due| due < latest)
        };
        // A list that is never quiet is no reason to say nothing of the rest.
        Some(self.decided(deadline, is_quiet).await.unwrap_or(decision))
    }

    /// Why the answers to a request are not evaluated in time.
    fn not_evaluated(&self, request: u64, wait: Duration) -> (ReloadOutcome, String) {
        let slow: Vec<_> = self
            .source_statuses()
            .into_iter()
            .filter(|(_, answered)| *answered < request)
            .map(|(status, _)| status.name)
            .collect();
        if slow.is_empty() {
            (
                ReloadOutcome::Behind,
                format!(
                    "every source was polled, but the answers are not evaluated within {wait:?}"
                ),
            )
        } else {
            (
                ReloadOutcome::SourceFailed,
                format!("no answer within {wait:?} from: {}", slow.join(", ")),
            )
        }
    }

    /// The required sources whose last poll failed, that of services included.
    fn failed_sources(&self) -> Vec<SourceStatus> {
        // An optional source's failure is no failure of the reload; the report tells of it all the
        // same.
        let services = self.services.iter().map(|services| services.status.borrow().source.clone());
        let statuses = self.source_statuses().into_iter().map(|(status, _)| status);
        let required = statuses.chain(services).filter(|status| status.required);
        required.filter(|status| status.error.is_some()).collect()
    }

    /// What is known now.
    pub(super) fn reload_report(
        &self,
        asked: &Asked,
        outcome: ReloadOutcome,
        message: String,
    ) -> ReloadReport {
        let Asked { start, before, request, generation } = *asked;
        let decision = self.decision.borrow().clone();
        let generation = generation.unwrap_or(decision.generation);
        let revision = decision.map.in_force.as_ref().map(|revision| revision.number);
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
        let held = decision.held().cloned().chain(self.held_services()).collect();
        let instances = self
            .instance_reports()
            .into_iter()
            .map(|report| ReloadInstance {
                servers: report.status.servers.as_ref().map(|servers| ReloadServers {
                    verified: servers.needs_reload.is_empty()
                        && report.observed.servers >= generation
                        && !matches!(servers.state, ServersState::Failed { .. }),
                    state: servers.state.clone(),
                    needs_reload: servers.needs_reload.clone(),
                }),
                verified: report.observed.map >= generation && report.status.state.is_in_sync(),
                apply: report.status.last_apply.filter(|apply| apply.revision > before),
                name: report.status.name,
                state: report.status.state,
            })
            .collect();
        ReloadReport {
            outcome,
            message,
            revision,
            changes: decision.map.log.since(before),
            held,
            sources,
            steps: decision.map.steps,
            instances,
            milliseconds: milliseconds(start.elapsed()),
        }
    }

    /// Whether a decision has arrived everywhere; `behind` are the instances where it has not.
    pub(super) fn arrival(
        &self,
        decision: &Decision,
        behind: &[String],
        before: u64,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let count = self.instances.len();
        if let Some(error) = decision.map.file.as_ref().and_then(|file| file.error.as_ref()) {
            (ReloadOutcome::FileFailed, format!("the map file can't be written: {error}"))
        } else if let Some(writer) = &decision.map.read_only {
            (ReloadOutcome::ReadOnly, read_only(writer))
        } else if !decision.map.active {
            (
                ReloadOutcome::SourceFailed,
                format!("still waiting for: {}", decision.map.waiting_for.join(", ")),
            )
        } else if !behind.is_empty() {
            (ReloadOutcome::Behind, format!("not in sync within {wait:?}: {}", behind.join(", ")))
        } else {
            let changes = changes_in_words(&decision.map.log.since(before));
            (
                ReloadOutcome::InSync,
                format!(
                    "{changes}; {count} of {count} instances in sync{}",
                    kept_in_words(&decision.map)
                ),
            )
        }
    }

    /// Waits for a decision.
    pub(super) async fn decided(
        &self,
        deadline: Instant,
        reached: impl FnMut(&Decision) -> bool,
    ) -> Option<Decision> {
        let mut decision = self.decision.clone();
        let wait = decision.wait_for(reached);
        Some(timeout_at(deadline, wait).await.ok()?.ok()?.clone())
    }

    /// Waits until every instance was seen to hold the generation, its servers as far as it can
    /// without a reload of HAProxy; where Mapsmith reloads it, with that. Those that do not or
    /// can't, each with the reason.
    async fn behind(&self, generation: u64, deadline: Instant) -> Vec<String> {
        let reloaded = self.haproxy.as_ref().and_then(|_| self.settings.own_instance());
        let has_all = |index, report: &InstanceReport| {
            let servers = report.status.servers.as_ref();
            let waits = reloaded == Some(index)
                && servers.is_some_and(|servers| !servers.needs_reload.is_empty());
            report.observed.generation() >= generation && !waits
        };
        let (configuration, reports) = tokio::join!(
            self.configuration_behind(generation, deadline),
            self.observed(deadline, has_all)
        );
        let instances = reports.iter().filter_map(|report| why_behind(report, generation));
        configuration.into_iter().chain(instances).collect()
    }

    /// Why the process does not run with the configuration of this generation, if it does not.
    async fn configuration_behind(&self, generation: u64, deadline: Instant) -> Option<String> {
        let mut haproxy = self.haproxy.clone()?;
        let settled = haproxy.wait_for(|report| report.observed >= generation);
        // Its task's end is told by the deadline.
        let _ = timeout_at(deadline, settled).await;
        let report = haproxy.borrow();
        match &report.status.state {
            ConfigState::InForce if report.observed >= generation => None,
            ConfigState::InForce => Some(
                "workers that a reload of HAProxy replaced, and that still have connections"
                    .to_owned(),
            ),
            state => Some(format!("HAProxy's configuration ({state})")),
        }
    }

    /// Waits until every instance was seen to hold the generation's map, which is all that an order
    /// changes. The names of those that do not.
    pub(super) async fn map_behind(&self, generation: u64, deadline: Instant) -> Vec<String> {
        let reports = self.observed(deadline, |_, report| report.observed.map >= generation).await;
        let behind = reports.into_iter().filter(|report| report.observed.map < generation);
        behind.map(|report| report.status.name).collect()
    }

    /// Every instance, by its place in the settings, once it has reached that or the time is over.
    pub(super) async fn observed(
        &self,
        deadline: Instant,
        reached: impl Fn(usize, &InstanceReport) -> bool + Copy,
    ) -> Vec<InstanceReport> {
        join_all(self.instances.iter().enumerate().map(|(index, instance)| async move {
            let mut reports = instance.clone();
            let waits = reports.wait_for(|report| reached(index, report));
            // An instance's task that ended tells nothing more.
            let _ = timeout_at(deadline, waits).await;
            instance.borrow().clone()
        }))
        .await
    }
}

/// Each with its error, and what is in force meanwhile.
fn failed_in_words(failed: &[SourceStatus], is_active: bool) -> String {
    let errors = failed.iter().filter_map(|status| {
        let error = status.error.as_ref()?;
        Some(format!("source {}: {error}", status.name))
    });
    let errors = errors.collect::<Vec<_>>().join("; ");
    if !is_active {
        return format!("{errors}; nothing is applied until every required source has answered");
    }
    let silent = failed.iter().filter(|status| status.answered_at.is_none());
    let silent: Vec<_> = silent.map(|status| status.name.as_str()).collect();
    let mut meanwhile = Vec::new();
    if silent.len() < failed.len() {
        meanwhile.push("the last good answer stays in force".to_owned());
    }
    if !silent.is_empty() {
        meanwhile.push(format!("nothing is known yet of what {} says", silent.join(", ")));
    }
    format!("{errors}; {}", meanwhile.join("; "))
}

/// Why an instance does not hold a generation, if it does not.
fn why_behind(report: &InstanceReport, generation: u64) -> Option<String> {
    let name = &report.status.name;
    if report.observed.map < generation {
        return Some(name.clone());
    }
    let servers = report.status.servers.as_ref()?;
    match servers.needs_reload.as_slice() {
        [] if report.observed.servers >= generation => None,
        [] => Some(format!("{name} ({})", servers.state)),
        [first, rest @ ..] => {
            let more = match rest.len() {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            Some(format!("{name} (servers need a reload of HAProxy: {first}{more})"))
        }
    }
}

/// What the guard holds back, in words, and what came into force since the revision `before` all the
/// same.
fn held_in_words(decision: &Decision, before: u64) -> Option<String> {
    let describe = |held: &HeldChange| {
        let of = match held.of == HeldChange::MAP {
            true => String::new(),
            false => format!("{}: ", held.of),
        };
        format!("{of}{} (id {})", held.reason, held.id)
    };
    let held: Vec<_> = decision.held().map(describe).collect();
    let changes = match decision.map.log.since(before).as_slice() {
        [] => String::new(),
        changes => format!("; in force beside it: {}", changes_in_words(changes)),
    };
    (!held.is_empty()).then(|| format!("held back by the guard: {}{changes}", held.join("; ")))
}

fn read_only(writer: &str) -> String {
    format!(
        "this Mapsmith changes nothing, for another one writes the map file ({writer}); stop one \
            of the two, or use `run --take-over`"
    )
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
fn kept_in_words(decision: &MapDecision) -> String {
    let of = |kept: &KeptNodes, one: &str, many: &str| match (kept.count, kept.nodes.first()) {
        (0, _) | (_, None) => String::new(),
        (1, Some(node)) => format!("; node {} {one} and stays with {}", node.node, node.master),
        (count, Some(_)) => {
            format!("; {count} nodes {many} and stay where they are (see `mapsmith status`)")
        }
    };
    let held_back = match &decision.hold.state.hold {
        Some(hold) => format!(
            "; the sources are held back since the rollback to revision {} (`mapsmith resume`)",
            hold.of
        ),
        None => String::new(),
    };
    held_back
        + &of(&decision.flapping, "flaps", "flap")
        + &of(&decision.conflicts, "is named twice", "are named twice")
}

#[cfg(test)]
mod tests {
    use mapsmith_core::{ServerList, SourceState};

    use super::*;

    #[test]
    fn of_a_source_that_never_answered_nothing_is_said_to_stay() {
        let failed = |name: &str, has_answered: bool| {
            let state = SourceState::<ServerList>::before_first_poll(
                name.to_owned(),
                "file".to_owned(),
                true,
            );
            let error = Some("it is down".to_owned());
            let answered_at = has_answered.then_some(Timestamp::UNIX_EPOCH);
            SourceStatus { error, answered_at, ..state.status }
        };
        let stays = "the last good answer stays in force";
        let unknown = "nothing is known yet of what b says";
        let (a, b) = (failed("a", true), failed("b", false));
        let words = |failed: &[SourceStatus]| failed_in_words(failed, true);
        assert_eq!(words(std::slice::from_ref(&a)), format!("source a: it is down; {stays}"));
        assert_eq!(words(std::slice::from_ref(&b)), format!("source b: it is down; {unknown}"));
        let both = format!("source a: it is down; source b: it is down; {stays}; {unknown}");
        assert_eq!(words(&[a, b]), both);
    }
}
