//! What the API asks for, answered from the tasks' latest states.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::desire::{self, SourceView};
use crate::haproxy::MapClient;
use crate::http::Control;
use crate::http::dto::{
    ExplainChange, ExplainInstance, ExplainReport, ExplainSource, MasterLoad, Readiness, ReloadInstance, ReloadOutcome,
    ReloadReport, ReloadSource, StatusReport,
};
use crate::model::revision::RevisionSummary;
use crate::model::status::{InstanceState, milliseconds};
use crate::model::{HeldChange, SourceState};
use crate::reconcile::decide::{Approval, Decision};
use crate::reconcile::instance::InstanceReport;
use crate::settings::Settings;
use crate::source::schedule::PollRequests;
use crate::telemetry::SOURCE_ANSWER_AGE;

/// How long `explain` waits for one instance: a person is watching.
const EXPLAIN_BOUND: Duration = Duration::from_secs(2);

/// The running program, as the API sees it.
pub(super) struct Gateway {
    pub sources: Vec<watch::Receiver<SourceState>>,
    pub decision: watch::Receiver<Decision>,
    pub instances: Vec<watch::Receiver<InstanceReport>>,
    pub clients: Vec<MapClient>,
    pub requests: PollRequests,
    pub approvals: mpsc::Sender<Approval>,
    pub metrics: PrometheusHandle,
    pub settings: Arc<Settings>,
}

impl Gateway {
    fn states(&self) -> Vec<SourceState> {
        self.sources.iter().map(|source| source.borrow().clone()).collect()
    }

    fn instance_reports(&self) -> Vec<InstanceReport> {
        self.instances.iter().map(|instance| instance.borrow().clone()).collect()
    }

    fn reload_report(&self, outcome: ReloadOutcome, message: String, before: u64, start: Instant) -> ReloadReport {
        let decision = self.decision.borrow().clone();
        let revision = decision.in_force.as_ref().map(|revision| revision.number);
        let sources = self
            .states()
            .into_iter()
            .map(|state| ReloadSource { name: state.status.name, poll: state.status.last_poll, error: state.status.error })
            .collect();
        let instances = self
            .instance_reports()
            .into_iter()
            .map(|report| ReloadInstance {
                verified: report.looked >= decision.look && matches!(report.status.state, InstanceState::InStep { .. }),
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
            held: decision.held,
            sources,
            steps: decision.steps,
            instances,
            milliseconds: milliseconds(start.elapsed()),
        }
    }

    /// Waits until every source has been polled for `request` and the answers are decided on.
    async fn considered(&self, request: u64, deadline: Instant) -> Option<Decision> {
        let mut decision = self.decision.clone();
        let wait = decision.wait_for(|decision| decision.considered >= request);
        Some(timeout_at(deadline, wait).await.ok()?.ok()?.clone())
    }

    /// Waits until every instance has looked again and holds the decision's revision. The names of those that do not.
    async fn verified(&self, look: u64, deadline: Instant) -> Vec<String> {
        let waits = self.instances.iter().map(|instance| async move {
            let mut report = instance.clone();
            let wait = report.wait_for(|report| report.looked >= look);
            let in_time = timeout_at(deadline, wait).await.is_ok_and(|result| result.is_ok());
            (!in_time).then(|| instance.borrow().status.name.clone())
        });
        join_all(waits).await.into_iter().flatten().collect()
    }
}

fn changes_in_words(changes: &[RevisionSummary]) -> String {
    match changes {
        [] => "nothing changed".to_owned(),
        [one] => format!("revision {}: {}", one.number, one.counts),
        many => format!("{} revisions up to {}", many.len(), many[many.len() - 1].number),
    }
}

#[async_trait]
impl Control for Gateway {
    fn status(&self) -> StatusReport {
        let decision = self.decision.borrow().clone();
        let load = |entries: &crate::model::EntryMap| -> Vec<MasterLoad> {
            entries.load().into_iter().map(|(master, nodes)| MasterLoad { master: master.to_owned(), nodes }).collect()
        };
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: decision.in_force.as_ref().map(|revision| revision.number),
            entries: decision.in_force.as_ref().map_or(0, |revision| revision.entries.len()),
            masters: decision.in_force.as_ref().map(|revision| load(&revision.entries)).unwrap_or_default(),
            last_change: decision.log.last().cloned(),
            waiting_for: decision.waiting_for,
            held: decision.held,
            map_file: decision.file,
            sources: self.states().into_iter().map(|state| state.status).collect(),
            instances: self.instance_reports().into_iter().map(|report| report.status).collect(),
        }
    }

    fn held(&self) -> Option<HeldChange> {
        self.decision.borrow().held.clone()
    }

    fn readiness(&self) -> Readiness {
        let decision = self.decision.borrow();
        let mut missing: Vec<String> =
            decision.waiting_for.iter().map(|name| format!("source {name} has not answered yet")).collect();
        if !decision.active && missing.is_empty() {
            missing.push("there is no desired map yet".to_owned());
        }
        let reports = self.instance_reports();
        let in_step = |report: &&InstanceReport| matches!(report.status.state, InstanceState::InStep { .. });
        let ready = decision.active && reports.iter().any(|report| in_step(&report));
        let behind = reports.iter().filter(|report| !in_step(report));
        missing.extend(behind.map(|report| format!("instance {}: {}", report.status.name, report.status.state)));
        Readiness { ready, missing }
    }

    async fn reload(&self, wait: Option<Duration>) -> ReloadReport {
        let start = Instant::now();
        let before = self.decision.borrow().in_force.as_ref().map_or(0, |revision| revision.number);
        let request = self.requests.request();
        let Some(wait) = wait else {
            let message = "every source is polled now; add ?wait=30s to be told the outcome".to_owned();
            return self.reload_report(ReloadOutcome::Requested, message, before, start);
        };
        let deadline = start + wait;
        let Some(decision) = self.considered(request, deadline).await else {
            let slow: Vec<_> =
                self.states().into_iter().filter(|state| state.answered < request).map(|state| state.status.name).collect();
            let message = format!("no answer within {wait:?} from: {}", slow.join(", "));
            return self.reload_report(ReloadOutcome::SourceFailed, message, before, start);
        };
        let behind = if decision.active { self.verified(decision.look, deadline).await } else { Vec::new() };
        // An optional source's failure is no failure of the reload; the report tells of it all the same.
        let failed: Vec<_> = self
            .states()
            .into_iter()
            .filter(|state| state.status.required)
            .filter_map(|state| state.status.error.map(|error| format!("source {}: {error}", state.status.name)))
            .collect();
        let file = decision.file.as_ref().and_then(|file| file.error.clone());
        let (outcome, message) = if let Some(held) = &decision.held {
            (ReloadOutcome::Held, format!("held back by the guard: {} (id {})", held.reason, held.id))
        } else if !failed.is_empty() {
            let meanwhile = match decision.active {
                true => "the last good answer stays in force",
                false => "nothing is applied until every required source has answered",
            };
            (ReloadOutcome::SourceFailed, format!("{}; {meanwhile}", failed.join("; ")))
        } else if let Some(error) = file {
            (ReloadOutcome::Behind, format!("the map file can't be written: {error}"))
        } else if !decision.active {
            (ReloadOutcome::SourceFailed, format!("still waiting for: {}", decision.waiting_for.join(", ")))
        } else if !behind.is_empty() {
            (ReloadOutcome::Behind, format!("not in step within {wait:?}: {}", behind.join(", ")))
        } else {
            let count = self.instances.len();
            (
                ReloadOutcome::InStep,
                format!("{}; {count} of {count} instances in step", changes_in_words(&decision.log.since(before))),
            )
        };
        self.reload_report(outcome, message, before, start)
    }

    async fn explain(&self, node: &str) -> ExplainReport {
        let node = if self.settings.map.lowercase { node.to_ascii_lowercase() } else { node.to_owned() };
        let decision = self.decision.borrow().clone();
        let states = self.states();
        let views: Vec<_> = states
            .iter()
            .map(|state| SourceView {
                name: &state.status.name,
                required: state.status.required,
                snapshot: state.snapshot.as_ref(),
            })
            .collect();
        let origin = desire::origin(&views, &node).map(|source| source.name.to_owned());
        let sources = views
            .iter()
            .map(|view| ExplainSource {
                name: view.name.to_owned(),
                master: view.snapshot.and_then(|snapshot| snapshot.entries.get(&node).map(str::to_owned)),
                left_out: view.snapshot.and_then(|snapshot| snapshot.rejections.reason(&node)),
                answered_at: view.snapshot.map(|snapshot| snapshot.answered_at),
                used: origin.as_deref() == Some(view.name),
            })
            .collect();
        let key = node.as_str();
        let lookups = self.clients.iter().zip(&self.settings.instances).map(|(client, instance)| async move {
            let mut master = None;
            let look_up = client.look_up(std::iter::once(key), |_, found| master = found.map(str::to_owned));
            let error = match timeout(EXPLAIN_BOUND, look_up).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {EXPLAIN_BOUND:?}")),
            };
            ExplainInstance { name: instance.name.clone(), master, error }
        });
        ExplainReport {
            master: decision.in_force.as_ref().and_then(|revision| revision.entries.get(&node).map(str::to_owned)),
            revision: decision.in_force.as_ref().map(|revision| revision.number),
            last_change: decision.log.last_change(&node).map(|(revision, change)| ExplainChange {
                revision: revision.number,
                at: revision.at,
                from: change.from.clone(),
                to: change.to.clone(),
            }),
            sources,
            instances: join_all(lookups).await,
            held: decision.held,
            node,
        }
    }

    async fn approve(&self, id: &str) -> Result<HeldChange, String> {
        let (answer, result) = oneshot::channel();
        let gone = || "Mapsmith is shutting down".to_owned();
        self.approvals.send(Approval { id: id.to_owned(), answer }).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())?.map_err(|error| error.to_string())
    }

    fn metrics(&self) -> String {
        // An age grows by itself, so it is taken when it is asked for.
        for state in self.states() {
            if let Some(at) = state.status.answered_at {
                let age = Timestamp::now().duration_since(at).as_secs_f64().max(0.0);
                gauge!(SOURCE_ANSWER_AGE, "source" => state.status.name).set(age);
            }
        }
        self.metrics.render()
    }
}
