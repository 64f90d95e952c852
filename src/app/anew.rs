//! Beginning anew with other settings, or with those of before where these can't be used.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::Instant;

use super::daemon::Daemon;
use super::ground::{Carried, Ground};
use super::signals::{End, Signals};
use crate::backoff::Backoff;
use crate::declared::Progress;

/// Between two tries with settings that were good: what they lack may be there again at any moment.
const RETRIES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// How long services stay as they are after a change of them that could not be begun with. Each try
/// ends all tasks.
const REFUSALS: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(300));

/// Starts the daemon, and starts it again.
pub(super) struct Starter {
    metrics: PrometheusHandle,
    most_connections: usize,
    /// After changes that could not be begun with.
    refusals: Backoff,
}

impl Starter {
    pub fn new(metrics: PrometheusHandle, most_connections: usize) -> Self {
        Self { metrics, most_connections, refusals: REFUSALS }
    }

    /// Starts on this ground.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn start(
        &self,
        ground: &Ground,
        carried: &Carried,
        take_over: bool,
    ) -> anyhow::Result<Daemon> {
        let metrics = self.metrics.clone();
        Daemon::start(ground, carried, metrics, self.most_connections, take_over).await
    }

    /// Starts on a changed ground. Where that can't be, and that may be so for a moment, it goes
    /// back to the one before, and tries that for ever: a Mapsmith that ended would have to be
    /// started by a person. None after a signal to end.
    pub async fn begin_anew(
        &mut self,
        changed: Ground,
        mut good: Ground,
        carried: &Carried,
        signals: &mut Signals,
    ) -> Option<(Ground, Daemon)> {
        let number = changed.file.declared().objects.number;
        let mut next = Some(changed);
        let mut retries = RETRIES;
        let latest = || carried.declared.latest();
        loop {
            let ground = next.as_ref().unwrap_or(&good);
            let started = tokio::select! {
                started = self.start(ground, carried, false) => started,
                signal = signals.end() => {
                    tracing::info!("{signal}: stopped");
                    return None;
                }
            };
            let error = match (started, next.take()) {
                (Ok(daemon), Some(changed)) => {
                    self.refusals.reset();
                    return Some((changed, daemon));
                }
                (Ok(daemon), None) => return Some((good, daemon)),
                (Err(error), Some(_)) => {
                    tracing::error!(
                        "the changed settings can't be used, those of before stay in force: \
                            {error:#}"
                    );
                    let pause = self.refusals.pause();
                    good.services = good.services.waiting_for(pause);
                    good.not_before = Some(Instant::now() + pause);
                    let why = format!("it can't be begun with: {error:#}");
                    carried.declared.reach(number, Progress::Behind(why));
                    continue;
                }
                (Err(error), None) => error,
            };
            let pause = retries.pause();
            tracing::error!(
                "nor can the settings of before be used now, trying again in {pause:.1?}: {error:#}"
            );
            match signals.pause(pause, &good.file).await {
                Some(End::Settings(file)) => match good.changed(&file, latest(), None).await {
                    Ok(changed) => next = Some(changed),
                    Err(error) => tracing::error!("SIGHUP: the settings of before stay: {error:#}"),
                },
                Some(_) => return None,
                None => {}
            }
        }
    }
}
