//! What the process has loaded, and reloads.

use std::mem;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::config::status::{ConfigState, RefusedCandidate, ReloadOutcome, ReloadReport};
use mapsmith_core::render::stamp;
use mapsmith_core::render::verdict::{Level, Remark, remarks};
use mapsmith_core::status::milliseconds;
use metrics::counter;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::{ANSWER_BOUND, Failure, Reason, Supervisor};
use crate::heartbeat;
use crate::supervise::budget::Due;
use crate::supervise::check::Verdict;
use crate::supervise::keeper::Keeper;
use crate::supervise::log;
use crate::supervise::quarantine::without_quarantined;
use crate::supervise::reload::{Outcome, Reloader};
use crate::supervise::running::Running;
use crate::supervise::server_states;
use crate::telemetry::HAPROXY_RELOADS;

/// How long a reload waits for the commands that are being sent to the worker it replaces.
const TURN_BOUND: Duration = Duration::from_secs(30);

/// How long a first reload waits for the states of servers: a worker that takes over must have what
/// a person did to them.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Of what HAProxy, or a command, says of a reload, in bytes.
const MOST_WORDS: usize = 4096;

/// How long a reload is waited for after the end of these settings.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// How long the Runtime API may be silent while the master answers.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

impl Supervisor {
    /// Has the process load what is in place, if it has something else. `needs` is what of the
    /// servers needs a reload; none where that is not known of those that are desired now.
    pub(super) async fn load(&mut self, needs: Option<&[String]>) -> Result<ConfigState, Failure> {
        let Some(mark) = self.candidate.as_ref().map(|candidate| candidate.mark.clone()) else {
            return Ok(ConfigState::Starting);
        };
        let loaded = match self.loaded().await {
            Ok(loaded) => {
                self.silent_since = None;
                loaded
            }
            // It runs, and only a reload opens the Runtime API's socket again.
            Err(_) if self.master_answers().await && self.is_silent() => None,
            Err(failure) => return Err(failure),
        };
        self.report.status.loaded.clone_from(&loaded);
        let needs = match needs {
            Some(needs) => without_quarantined(needs, &self.report.status.quarantined),
            None => self.reloaded_for.clone(),
        };
        if needs.is_empty() {
            self.reloaded_for.clear();
        }
        let reason = match loaded {
            Some(loaded) if loaded == mark && (needs.is_empty() || needs == self.reloaded_for) => {
                self.budget.forget();
                self.setback = None;
                self.files(move |files| files.keep_good(&mark)).await?;
                return Ok(ConfigState::InForce);
            }
            Some(loaded) if loaded == mark => Reason::Servers,
            _ => Reason::Configuration,
        };
        if reason == Reason::Configuration
            && let Some(state) = self.setback_of(&mark)
        {
            return Ok(state);
        }
        let candidate = self.candidate.as_ref();
        let has_servers = candidate.is_some_and(|candidate| candidate.from.has_servers());
        if has_servers && !self.servers_are_seen && self.began.elapsed() < FIRST_LOOK {
            let reason = "what a person did to servers is being looked at".to_owned();
            return Ok(ConfigState::ReloadDue { reason });
        }
        let now = Instant::now().into_std();
        self.budget.want(reason, now);
        match self.budget.due(self.count_old_workers(), now) {
            Due::Now => self.reload(reason, &needs).await,
            due => Ok(ConfigState::ReloadDue { reason: due.to_string() }),
        }
    }

    /// What came of it, as far as that is told while these settings are in force.
    async fn have_it_loaded(&mut self, verdict: &Verdict) -> Result<Outcome, Failure> {
        self.hand_over_states().await;
        let under_way = ConfigState::ReloadDue { reason: "HAProxy is loading it".to_owned() };
        self.publish(under_way);
        self.published.send_replace(self.report.clone());
        let Some(reloader) = self.reloader() else {
            return Err(Failure::Unanswered("HAProxy does not run".to_owned()));
        };
        let outcome = tokio::select! {
            outcome = heartbeat::waiting(reloader.reload(verdict)) => outcome,
            () = self.given_up() => Outcome::Unknown {
                why: "other settings came before HAProxy had answered".to_owned(),
            },
        };
        self.write_states(server_states::NONE.to_owned()).await;
        Ok(outcome)
    }

    /// Leaves what a person did to servers to the worker that takes over. A reload is not put off
    /// for it.
    async fn hand_over_states(&self) {
        let shown = match self.kept_out.is_empty() {
            true => Ok(String::new()),
            false => self.ask("show servers state\n").await,
        };
        if let Err(why) = &shown {
            tracing::warn!("maintenance and drains of servers are lost at this reload: {why}");
        }
        let of_them = |backend: &str, server: &str, _| {
            self.kept_out.iter().any(|(its, one)| its == backend && one == server)
        };
        self.write_states(server_states::rows(&shown.unwrap_or_default(), of_them)).await;
    }

    async fn write_states(&self, text: String) {
        let file = self.haproxy.files().server_states();
        let written = self.files(move |_| Ok(server_states::write(&file, &text)?)).await;
        if let Err(why) = written {
            tracing::warn!("the states of servers for HAProxy's next worker: {why}");
        }
    }

    /// Resolves when a reload is waited for no longer, though nobody knows yet what came of it:
    /// maps and servers of every instance would stand still. What goes on with other settings looks
    /// at what the process has.
    async fn given_up(&self) {
        self.shutdown.cancelled().await;
        sleep(LAST_ANSWER).await;
    }

    async fn reload(&mut self, reason: Reason, needs: &[String]) -> Result<ConfigState, Failure> {
        let config = self.files(|files| Ok(files.config().to_owned())).await?;
        let verdict = self.check(&config).await?;
        if !verdict.valid {
            return Ok(self.refuse(&config, verdict));
        }
        if self.keeper.is_some() {
            // A master that can't open its socket in the folder again ends at the reload (seen on
            // 2.6).
            self.files(|files| files.probe()).await?;
        }
        let turn = self.turn.clone();
        // Commands that are under way are for the worker that is about to go.
        let turn = heartbeat::waiting(timeout(TURN_BOUND, turn.take())).await;
        let start = Instant::now();
        self.budget.begin(start.into_std());
        self.report.reload_began = Some(start.into_std());
        let mut outcome = self.have_it_loaded(&verdict).await?;
        drop(turn);
        self.turn.tell();
        let alerts = self.without_secrets(&config, &mut outcome).await?;
        let (outcome, said, state) = match outcome.with_words(MOST_WORDS) {
            Outcome::Loaded { worker, .. } => {
                tracing::info!(worker, reason = reason.label(), "HAProxy was reloaded");
                self.reloaded_for = needs.to_vec();
                self.replaced_process = self.observed_process;
                (ReloadOutcome::Loaded, String::new(), self.shown(&config).await?)
            }
            Outcome::Refused { said } => {
                let restored = self.files(|files| files.restore()).await?;
                if restored {
                    self.open_socket_again(&config).await?;
                }
                let state = self.note_refused_reload(&config, &said, alerts);
                tracing::error!(
                    restored,
                    "HAProxy could not load the configuration, the last good one stays in force: \
                        {state}: {said}"
                );
                (ReloadOutcome::Refused, said, state)
            }
            Outcome::MasterDied { said } => {
                self.files(|files| files.restore()).await?;
                let state = self.note_refused_reload(&config, &said, alerts);
                tracing::error!(
                    "HAProxy ended at the reload, and its connections with it; the last good \
                        configuration is started: {state}: {said}"
                );
                (ReloadOutcome::Died, said, state)
            }
            Outcome::Unknown { why } => {
                tracing::warn!("what came of the reload is not known yet: {why}");
                let error = format!("reload: {why}");
                (ReloadOutcome::Unknown, why, ConfigState::Failed { error })
            }
            Outcome::Unreachable { why } => return Err(Failure::Unanswered(why)),
        };
        if let Some(mark) = self.candidate.as_ref().map(|candidate| candidate.mark.clone())
            && matches!(state, ConfigState::Refused { .. } | ConfigState::Failed { .. })
        {
            match outcome {
                ReloadOutcome::Died if self.note_death(&mark, &state) => tracing::error!(
                    "HAProxy has ended twice at this configuration, which is not tried again \
                        before the settings change or Mapsmith is started again"
                ),
                ReloadOutcome::Died => {}
                _ => self.note_setback(&mark, &state),
            }
        }
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

    /// Whether the process has what it was reloaded for. One that has not would be reloaded for
    /// ever.
    async fn shown(&self, config: &Path) -> Result<ConfigState, Failure> {
        let wanted = self.candidate.as_ref().map(|candidate| &candidate.mark);
        Ok(match self.loaded().await {
            Ok(Some(mark)) if Some(&mark) == wanted => {
                self.files(move |files| files.keep_good(&mark)).await?;
                ConfigState::InForce
            }
            Ok(_) => {
                let error = format!(
                    "HAProxy was reloaded and does not have {}: does the process at haproxy.socket \
                        load that file?",
                    config.display()
                );
                ConfigState::Failed { error }
            }
            Err(failure) => {
                let error =
                    format!("HAProxy was reloaded, and does not say what it has: {failure}");
                ConfigState::Failed { error }
            }
        })
    }

    /// Whether the Runtime API has given no answer for so long that only a reload helps.
    fn is_silent(&mut self) -> bool {
        self.silent_since.get_or_insert_with(Instant::now).elapsed() >= SILENCE
    }

    /// Takes the secrets of what HAProxy was to load, this file and those that are included, out of
    /// what it said then. What it alerts of, by the settings that it is about.
    async fn without_secrets(
        &self,
        config: &Path,
        outcome: &mut Outcome,
    ) -> Result<Vec<Remark>, Failure> {
        if !matches!(outcome, Outcome::Refused { .. } | Outcome::MasterDied { .. }) {
            return Ok(Vec::new());
        }
        let rendered = self.candidate.as_ref().map(|candidate| candidate.rendered.clone());
        let rendered = rendered.unwrap_or_default();
        let (file, files) = (config.display().to_string(), self.with_included(config));
        let said = mem::take(outcome.words());
        let read = move || {
            let mask = log::mask(rendered.text(), &files);
            let mut alerts = remarks(&said, &file, &rendered, &mask);
            alerts.retain(|remark| remark.level == Level::Alert);
            (alerts, mask.over(&said, None))
        };
        let (alerts, said) = heartbeat::waiting(spawn_blocking(read)).await?;
        *outcome.words() = said;
        Ok(alerts)
    }

    /// What HAProxy said when it could not load this file. A command that reloads it has words of
    /// its own.
    fn note_refused_reload(
        &mut self,
        config: &Path,
        said: &str,
        remarks: Vec<Remark>,
    ) -> ConfigState {
        let file = config.display().to_string();
        let reason = match remarks.first() {
            Some(first) => first.to_string(),
            None => said.lines().last().unwrap_or("HAProxy did not say why").to_owned(),
        };
        if !remarks.is_empty() {
            // A port that only HAProxy can't have, perhaps.
            let verdict =
                Verdict { valid: false, remarks: remarks.clone(), printed: String::new() };
            self.refuse_services(&verdict);
            self.report.status.refused =
                Some(RefusedCandidate { at: Timestamp::now(), file, remarks });
        }
        ConfigState::Refused { reason }
    }

    /// From HAProxy 3.2 on a worker that can't bind a port has already taken the place of the
    /// Runtime API's socket when it ends, and the one that goes on can't be reached there any more.
    /// The last good configuration, loaded once more, brings it back.
    async fn open_socket_again(&self, config: &Path) -> Result<(), Failure> {
        if self.loaded().await.is_ok() || !self.master_answers().await {
            return Ok(());
        }
        let verdict = self.check(config).await?;
        let Some(reloader) = self.reloader() else { return Ok(()) };
        let outcome = heartbeat::waiting(reloader.reload(&verdict)).await;
        // Its words are of this file, and not of the candidate.
        let files = self.with_included(config);
        let read = move || outcome.without_secrets(&files).with_words(MOST_WORDS);
        let outcome = heartbeat::waiting(spawn_blocking(read)).await?;
        tracing::info!(?outcome, "reloaded once more, for the Runtime API's socket");
        Ok(())
    }

    async fn master_answers(&self) -> bool {
        match &self.master {
            Some(master) => master.processes().await.is_ok(),
            None => false,
        }
    }

    /// By what the process that runs is reloaded.
    fn reloader(&self) -> Option<&Reloader> {
        let running = self.keeper.as_ref().and_then(Keeper::running);
        running.map(Running::reloader).or(self.reloader.as_ref())
    }

    /// The mark of what the process has loaded; none where that was not rendered.
    pub(super) async fn loaded(&self) -> Result<Option<String>, Failure> {
        let answer = self.ask(&format!("show env {}\n", stamp::VARIABLE)).await?;
        let value =
            answer.lines().find_map(|line| line.strip_prefix(stamp::VARIABLE)?.strip_prefix('='));
        Ok(value.map(str::to_owned))
    }

    /// What the Runtime API answers to a line.
    async fn ask(&self, line: &str) -> Result<String, Failure> {
        let answer = timeout(ANSWER_BOUND, self.runtime.call(line))
            .await
            .map_err(|_| Failure::Unanswered("the Runtime API gives no answer".to_owned()))?
            .map_err(|error| Failure::Unanswered(error.to_string()))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
