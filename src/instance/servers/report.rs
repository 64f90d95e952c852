//! What is published of an instance's servers: targets, status, metrics, log.

use std::sync::Arc;

use haproxy_runtime::RuntimeError;
use mapsmith_core::Desired;
use mapsmith_core::plan::servers::{Phase, Removing, ServerPlan};
use mapsmith_core::status::{LISTED_SERVERS, ServersState, ServersStatus};
use metrics::gauge;
use tokio::time::Instant;

use super::ServerPhase;
use crate::few::few;
use crate::telemetry::{SERVERS_EXTERNAL, SERVERS_IN_SYNC, SERVERS_NEED_RELOAD, SERVERS_REMOVING};

impl ServerPhase {
    /// Publishes what the map may point to: once a half is over, for in the middle of one a server
    /// that a restarted HAProxy lost is about to come back, and its nodes must keep their entries.
    pub(super) fn publish_targets(&mut self) {
        if self.plan.as_ref().is_some_and(|plan| !plan.checking.is_empty()) {
            // Their checks are about to pass: their nodes must keep their entries.
            return;
        }
        let Some(targets) = self.last_targets.take() else { return };
        self.targets.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(&targets);
            if is_new {
                *known = Some(Arc::new(targets));
            }
            is_new
        });
    }

    /// Takes the outcome of one half into status and metrics.
    pub(super) fn conclude(&mut self, outcome: Result<(), RuntimeError>, desired: &Desired) {
        if let Err(error) = outcome {
            self.fail(error.to_string(), desired);
            return;
        }
        self.publish_targets();
        let Some(plan) = self.plan.clone() else {
            self.status = None;
            self.held = false;
            return;
        };
        self.held = plan.before.is_empty() && plan.checking.is_empty();
        let state =
            if !plan.has_no_steps() || !plan.removing.is_empty() || !plan.checking.is_empty() {
                ServersState::Working
            } else if !plan.needs_reload.is_empty() {
                ServersState::NeedsReload
            } else {
                ServersState::InSync
            };
        self.publish(state, &plan);
    }

    /// The lists could not be seen or changed. What was seen before is shown on.
    pub(super) fn fail(&mut self, error: String, desired: &Desired) {
        self.held = false;
        if self.plan.is_none() && desired.servers.is_none() {
            // Nothing is declared, or not known yet.
            self.status = None;
            return;
        }
        let plan = self.plan.clone().unwrap_or_default();
        self.publish(ServersState::Failed { error }, &plan);
    }

    pub(super) fn publish(&mut self, state: ServersState, plan: &ServerPlan) {
        let waits = |removing: &Removing| matches!(removing.phase, Phase::Waiting | Phase::Routed);
        let moving =
            !plan.has_no_steps() || !plan.checking.is_empty() || !plan.removing.iter().all(waits);
        if moving || matches!(state, ServersState::Failed { .. }) {
            // The next pass observes again: a drain ends when its last session does.
            self.due = Instant::now();
        }
        let status = ServersStatus {
            state,
            observed_at: self.observed_at,
            needs_reload: listed(&plan.needs_reload),
            removing: listed(&plan.removing),
            external: listed(&plan.external),
            checking: listed(&plan.checking),
            by_agent: listed(&plan.by_agent),
            foreign: plan.foreign,
            last_steps: self.last_steps.clone(),
            steps: self.steps,
        };
        let gauges = [
            (SERVERS_IN_SYNC, f64::from(u8::from(status.state == ServersState::InSync))),
            (SERVERS_NEED_RELOAD, plan.needs_reload.len() as f64),
            (SERVERS_REMOVING, plan.removing.len() as f64),
            (SERVERS_EXTERNAL, plan.external.len() as f64),
        ];
        for (name, value) in gauges {
            gauge!(name, "haproxy" => self.name.clone()).set(value);
        }
        self.log(&status);
        self.status = Some(status);
    }

    /// One line a change of condition.
    fn log(&self, status: &ServersStatus) {
        let before = self.status.as_ref();
        let is_same = before.is_some_and(|before| {
            std::mem::discriminant(&before.state) == std::mem::discriminant(&status.state)
        });
        if !is_same {
            match &status.state {
                ServersState::InSync | ServersState::Working => {
                    tracing::info!(instance = self.name, "{}", status.state)
                }
                ServersState::Failed { .. } => {
                    tracing::warn!(instance = self.name, "{}", status.state)
                }
                ServersState::NeedsReload => {}
            }
        }
        let known = |text: &String, list: fn(&ServersStatus) -> &Vec<String>| {
            before.is_some_and(|before| list(before).contains(text))
        };
        let causes =
            status.needs_reload.iter().filter(|text| !known(text, |status| &status.needs_reload));
        // Each of many new backends is one.
        let (causes, more) = few(causes);
        let more = (more > 0).then(|| {
            format!("needs a reload of HAProxy for {more} more causes; the status names them")
        });
        let causes = causes.into_iter().map(|cause| format!("needs a reload of HAProxy: {cause}"));
        for text in causes.chain(more) {
            match self.is_reloaded {
                true => tracing::info!(instance = self.name, "{text}"),
                false => tracing::warn!(instance = self.name, "{text}"),
            }
        }
        for server in status.external.iter().filter(|text| !known(text, |status| &status.external))
        {
            tracing::info!(instance = self.name, "left as it is: {server}");
        }
    }
}

fn listed(what: &[impl ToString]) -> Vec<String> {
    what.iter().take(LISTED_SERVERS).map(ToString::to_string).collect()
}
