//! What the process has loaded, and reloads.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::config::status::{ConfigState, ReloadOutcome, ReloadReport};
use mapsmith_core::render::stamp;
use mapsmith_core::status::milliseconds;
use metrics::counter;
use tokio::time::{Instant, timeout};

use super::{ANSWER_BOUND, Failure, Reason, Supervisor};
use crate::heartbeat;
use crate::supervise::budget::Due;
use crate::supervise::keeper::Keeper;
use crate::supervise::process::Running;
use crate::supervise::reload::Outcome;
use crate::telemetry::HAPROXY_RELOADS;

/// How long a reload waits for the commands that are being sent to the worker it replaces.
const TURN_BOUND: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Has the process load what is in place, if it has something else.
    pub(super) async fn load(&mut self, needs: &[String]) -> Result<ConfigState, Failure> {
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
                self.budget.forget();
                return Ok(ConfigState::InForce);
            }
            Some(loaded) if loaded == mark => Reason::Servers,
            _ => Reason::Configuration,
        };
        let now = Instant::now().into_std();
        self.budget.want(reason, now);
        match self.budget.due(self.count_old_workers(), now) {
            Due::Now => self.reload(reason, needs).await,
            due => Ok(ConfigState::ReloadDue { reason: due.to_string() }),
        }
    }

    async fn reload(&mut self, reason: Reason, needs: &[String]) -> Result<ConfigState, Failure> {
        let config = self.files(|files| Ok(files.config().to_owned())).await?;
        let verdict = self.check(&config).await?;
        if !verdict.valid {
            return Ok(self.refuse(&config, verdict));
        }
        let turn = Arc::clone(&self.turn);
        // Commands that are under way are for the worker that is about to go.
        let turn = heartbeat::waiting(timeout(TURN_BOUND, turn.lock_owned())).await;
        let start = Instant::now();
        self.budget.begin(start.into_std());
        let running = self.keeper.as_ref().and_then(Keeper::running);
        let Some(reloader) = running.map(Running::reloader).or(self.reloader.as_ref()) else {
            return Err(Failure::Unanswered("HAProxy does not run".to_owned()));
        };
        let outcome = heartbeat::waiting(reloader.reload(&verdict)).await;
        drop(turn);
        let (outcome, said, state) = match outcome {
            Outcome::Loaded { worker, .. } => {
                tracing::info!(worker, reason = reason.label(), "HAProxy was reloaded");
                self.reloaded_for = needs.to_vec();
                (ReloadOutcome::Loaded, String::new(), ConfigState::InForce)
            }
            Outcome::Refused { said } | Outcome::MasterDied { said } => {
                let restored = self.files(|files| files.restore()).await?;
                let last = said.lines().last().unwrap_or("HAProxy did not say why").to_owned();
                tracing::error!(
                    restored,
                    "HAProxy could not load the configuration, the last good one stays in force: \
                        {said}"
                );
                (ReloadOutcome::Refused, said, ConfigState::Refused { reason: last })
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
}
