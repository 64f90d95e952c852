//! Waiting until a change is in force in every instance.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use mapsmith_core::HeldChange;
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::status::{InstanceState, KeptNodes, milliseconds};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::Api;
use super::types::{ReloadInstance, ReloadOutcome, ReloadReport, ReloadServers, ReloadSource};
use crate::engine::map::Decision;
use crate::engine::servers::ServerDecision;
use crate::instance::InstanceReport;

impl Api {
    /// Waits until a reload is in force in every instance, and says how that ended.
    pub(super) async fn reload_in_force(
        &self,
        request: u64,
        before: u64,
        deadline: Instant,
        wait: Duration,
    ) -> (ReloadOutcome, String) {
        let Some(decision) = self.evaluated(request, deadline).await else {
            return self.not_evaluated(request, wait);
        };
        if let Some(writer) = &decision.read_only {
            return (ReloadOutcome::ReadOnly, read_only(writer));
        }
        let mut behind = if decision.active {
            self.verified(decision.generation, deadline).await
        } else {
            Vec::new()
        };
        if decision.active {
            behind.extend(self.servers_behind(&behind, deadline).await);
        }
        let failed = self.failed_sources();
        let held = self.held_in_words(&decision);
        // Without the map file nothing comes into force, whatever is held.
        if decision.file.as_ref().is_some_and(|file| file.error.is_some()) {
            return self.arrival(&decision, &behind, before, wait);
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
                (ReloadOutcome::SourceFailed, format!("{}; {meanwhile}{held}", failed.join("; ")))
            }
            (true, Some(held)) => (ReloadOutcome::Held, held),
            (true, None) => self.arrival(&decision, &behind, before, wait),
        }
    }

    /// Waits until every source was polled for the request and the answers are decided on.
    async fn evaluated(&self, request: u64, deadline: Instant) -> Option<Decision> {
        let decision =
            self.decided(deadline, |decision| decision.evaluated_request >= request).await?;
        self.quiet(deadline, request).await?;
        Some(decision)
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

    /// The required sources whose last poll failed, each with its error.
    fn failed_sources(&self) -> Vec<String> {
        // An optional source's failure is no failure of the reload; the report tells of it all the
        // same.
        self.source_statuses()
            .into_iter()
            .filter(|(status, _)| status.required)
            .filter_map(|(status, _)| {
                status.error.map(|error| format!("source {}: {error}", status.name))
            })
            .collect()
    }

    /// What the guard holds back, in words.
    fn held_in_words(&self, decision: &Decision) -> Option<String> {
        let of = |held: &HeldChange| {
            if held.of == HeldChange::MAP { String::new() } else { format!("{}: ", held.of) }
        };
        let held = self.all_held(decision);
        let held: Vec<_> = held
            .iter()
            .map(|held| format!("{}{} (id {})", of(held), held.reason, held.id))
            .collect();
        (!held.is_empty()).then(|| format!("held back by the guard: {}", held.join("; ")))
    }

    /// What is known now. `request` is the poll request that the sources are asked by; 0 where none
    /// was made.
    pub(super) fn reload_report(
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

    /// Whether a decision has arrived everywhere; `behind` are the instances where it has not.
    pub(super) fn arrival(
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
    pub(super) async fn verified(&self, generation: u64, deadline: Instant) -> Vec<String> {
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
