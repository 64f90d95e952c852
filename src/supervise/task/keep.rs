//! The process: kept running where it is Mapsmith's, left to others where they end it.

use futures_util::FutureExt as _;
use mapsmith_core::config::Config;
use mapsmith_core::config::status::ConfigState;
use mapsmith_core::desired::config::DesiredConfig;
use mapsmith_core::render::stamp::Stamp;
use metrics::counter;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::load::SILENCE;
use super::{Failure, Supervisor, addresses};
use crate::heartbeat;
use crate::supervise::candidate::Candidate;
use crate::supervise::files::{Files, FilesError};
use crate::supervise::health::Answer;
use crate::supervise::keeper::{Event, Keeper};
use crate::supervise::process::ProcessError;
use crate::telemetry::HAPROXY_STARTS;

/// How many lines are told of what a HAProxy said that has ended.
const LAST_WORDS: usize = 10;

impl Supervisor {
    /// A HAProxy that somebody stops, or restarts, is theirs until it has ended.
    pub(super) fn leave_to_others(&mut self) -> Result<(), Failure> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        if keeper.launch().is_stopped() {
            if keeper.running().is_some() {
                // Where it has ended, its sockets are closed.
                let _ = keeper.next().now_or_never();
            }
            self.is_ready = false;
            return Err(Failure::Stopped);
        }
        if let Some(running) = keeper.running() {
            if !running.identity().is_alive() {
                // Its sockets are for the next one, which may need others beside them.
                self.note_end()?;
            } else if keeper.launch().is_restarting() {
                return Err(Failure::Restarting);
            } else if self.report.status.state == ConfigState::Stopped {
                // It was about to end, which was called off: it listens again by a reload only.
                self.silent_since = Instant::now().checked_sub(SILENCE);
            }
        }
        Ok(())
    }

    /// Takes note of the end of the process that ran; whether it has ended.
    fn note_end(&mut self) -> Result<bool, Failure> {
        let Some(keeper) = self.keeper.as_mut().filter(|keeper| keeper.running().is_some()) else {
            return Ok(false);
        };
        match keeper.next().now_or_never() {
            None => return Ok(false),
            Some(Event::Died { said }) => {
                // The next start does not wait for what is to be hidden of them.
                spawn_blocking(move || {
                    let said = said.without_secrets();
                    tracing::error!("HAProxy ended by itself: {}", last_words(&said));
                });
            }
            Some(Event::Restarting) => tracing::info!("HAProxy has ended to be started again"),
            Some(Event::Stopped) => return Err(Failure::Stopped),
            Some(Event::Found | Event::Started | Event::NotStarted { .. }) => {}
        }
        Ok(true)
    }

    /// While HAProxy is down nobody is served: what has started before comes first, unless what is
    /// desired is the same but for its servers.
    pub(super) async fn start_what_is_good(
        &mut self,
        stamp: &Stamp,
        config: &DesiredConfig,
    ) -> Result<(), Failure> {
        let stamp = stamp.clone();
        let is_same = match (&stamp, Candidate::mark_of(config)) {
            (Stamp::Whole { mark }, Ok(wanted)) => *mark == wanted,
            _ => false,
        };
        // What is refused now may be in what has started before.
        let has_started = !is_same && self.quarantined_services.is_empty();
        if self.is_down() && has_started && self.files(move |files| files.is_good(&stamp)).await? {
            self.keep_running().await?;
        }
        Ok(())
    }

    /// What is refused changes nothing: what is in place is kept running.
    pub(super) async fn keep_last_good(
        &mut self,
        is_there: bool,
        reason: String,
    ) -> Result<ConfigState, Failure> {
        if is_there {
            self.keep_running().await?;
            self.report.status.loaded = self.loaded().await.ok().flatten();
        }
        Ok(ConfigState::Refused { reason })
    }

    /// Notes beside the files whether what is desired is refused: whoever reloads HAProxy by hand
    /// loads the last good one then. What failed or begins tells nothing of it.
    pub(super) async fn keep_refusal(&self, state: &ConfigState) {
        let why = match state {
            ConfigState::Starting | ConfigState::Stopped | ConfigState::Failed { .. } => return,
            ConfigState::Refused { reason } => Some(reason.clone()),
            _ => None,
        };
        if let Err(Failure::Files(error)) = self.files(|files| files.keep_refusal(why)).await {
            tracing::debug!("why the configuration is refused can't be kept: {error}");
        }
    }

    pub(super) async fn hold_sockets(&mut self, config: &Config) -> Result<(), ProcessError> {
        match &mut self.keeper {
            Some(keeper) if self.haproxy.hold_sockets => keeper.hold(addresses(config)).await,
            _ => Ok(()),
        }
    }

    /// Whether it is a managed process, and none is known to run.
    pub(super) fn is_down(&self) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        keeper.running().is_none_or(|running| !running.identity().is_alive())
    }

    /// Whether it is down, and not by order.
    pub(super) fn is_to_start(&self) -> bool {
        let is_stopped = |keeper: &Keeper| keeper.launch().is_stopped();
        self.is_down() && !self.keeper.as_ref().is_some_and(is_stopped)
    }

    /// Finds or starts a managed process that does not run.
    pub(super) async fn keep_running(&mut self) -> Result<(), Failure> {
        let mut refused = None;
        loop {
            self.note_end()?;
            let Some(keeper) = &mut self.keeper else { return Ok(()) };
            let event = if keeper.running().is_some() {
                return refused.map_or(Ok(()), |why| Err(Failure::FellBack(why)));
            } else if keeper.find().await? {
                Event::Found
            } else if keeper.launch().is_stopped() {
                return Err(Failure::Stopped);
            } else if let Some(left) = keeper.pause() {
                return Err(Failure::Down(left));
            } else {
                // Until the map and the servers are in force in it.
                if let Some(health) = &self.health {
                    health.write(Answer::Starting).map_err(FilesError::Write)?;
                }
                self.is_ready = false;
                // One whose start is not waited for is found by the next Mapsmith.
                let next = self.shutdown.run_until_cancelled(keeper.next());
                heartbeat::waiting(next).await.ok_or(Failure::Ending)?
            };
            match event {
                Event::Found => tracing::info!("HAProxy runs already"),
                Event::Started => {
                    tracing::info!("HAProxy was started");
                    self.turn.tell();
                    counter!(HAPROXY_STARTS).increment(1);
                    self.report.status.starts += 1;
                }
                Event::NotStarted { why, .. } => {
                    let is_refused =
                        matches!(why, ProcessError::Refused { .. } | ProcessError::Silent { .. });
                    if !is_refused || !self.files(Files::fall_back).await? {
                        return Err(why.into());
                    }
                    tracing::error!("the last good configuration takes its place again: {why}");
                    self.keeper.iter_mut().for_each(Keeper::start_now);
                    // It may have other sockets.
                    if let Some(candidate) = self.candidate.take() {
                        let state = ConfigState::Refused { reason: why.to_string() };
                        self.note_setback(&candidate.mark, &state);
                    }
                    refused = Some(why);
                }
                Event::Stopped => return Err(Failure::Stopped),
                // Of one that runs.
                Event::Died { .. } | Event::Restarting => {}
            }
        }
    }
}

/// What it said of its end, among all that it said.
fn last_words(said: &str) -> String {
    let levels = ["[ALERT]", "[WARNING]", "[EMERG]"];
    let own = said.lines().filter(|line| levels.iter().any(|level| line.starts_with(level)));
    let own: Vec<_> = own.collect();
    match own.is_empty() {
        true => {
            let last = said.lines().rfind(|line| !line.trim().is_empty());
            last.unwrap_or("it said nothing of why").to_owned()
        }
        false => own[own.len().saturating_sub(LAST_WORDS)..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_haproxy_said_of_its_end_is_told_by_its_alerts_or_its_last_line() {
        for (said, expected) in [
            ("", "it said nothing of why"),
            ("malloc\nfree(): invalid pointer\n\n", "free(): invalid pointer"),
            ("[NOTICE] (7) : new\n[ALERT] (7) : out of memory", "[ALERT] (7) : out of memory"),
        ] {
            assert_eq!(last_words(said), expected, "{said}");
        }
    }
}
