//! What runs side by side, and how it ends together.

use std::sync::Arc;

use anyhow::{anyhow, bail};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use super::Ground;
use super::daemon::Daemon;
use super::signals::{End, Signals};
use crate::heartbeat::Heartbeats;

/// How long the steps in progress may take to end after a signal, before the program leaves all the
/// same.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(30);
/// How long they may take before other settings are used: a reload of HAProxy that nobody answers
/// for, and its check, are waited for.
const CHANGE_BOUND: Duration = Duration::from_secs(300);

/// What the daemon does side by side.
#[derive(Default)]
pub(super) struct Tasks {
    pub heartbeats: Heartbeats,
    pub running: JoinSet<String>,
}

impl Tasks {
    pub fn start(
        &mut self,
        name: impl Into<String>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let name = name.into();
        let work = self.heartbeats.watch(name.clone(), work);
        self.running.spawn(async move {
            work.await;
            name
        });
    }
}

impl Daemon {
    /// Waits for a signal, or a task that ends by itself, and then for the steps in progress. What
    /// to go on with, where that are other settings.
    pub async fn run_until_stopped(
        mut self,
        signals: &mut Signals,
        ground: &Ground,
    ) -> anyhow::Result<Option<Ground>> {
        let running = &mut self.tasks.running;
        let end = loop {
            let services = &mut self.changed_services;
            match signals.wait_for_end(&ground.file, &self.requests, services, running).await {
                End::Settings(file) => {
                    match ground.changed(*file, self.known_services.as_ref()).await {
                        Ok(changed) => break Ok(Some(changed)),
                        Err(error) => {
                            tracing::error!("SIGHUP: the settings in force stay so: {error:#}");
                        }
                    }
                }
                End::Services(services) => {
                    let news = services.news(&ground.services);
                    tracing::info!("the services have changed ({news})");
                    break Ok(Some(ground.with_services(*services)));
                }
                End::Stopped => break Ok(None),
                End::Died(task) => break Err(anyhow!("the task {task:?} ended unexpectedly")),
            }
        };
        self.shutdown.cancel();
        // Nobody waits for changed settings with a signal that kills.
        let bound = if matches!(end, Ok(Some(_))) { CHANGE_BOUND } else { SHUTDOWN_BOUND };
        let drain = async { while running.join_next().await.is_some() {} };
        tokio::select! {
            drained = timeout(bound, drain) => if drained.is_err() {
                bail!("some tasks did not end within {bound:?} after the signal");
            },
            signal = signals.end() => {
                bail!("a second {signal}: left without waiting for the step in progress")
            }
        }
        let lists = self.lists_in_force();
        let memory = self.memory.take().and_then(|mut memory| memory.try_recv().ok());
        let (memory, haproxy) =
            (memory.map(Arc::new), self.haproxy.map(|known| known.borrow().clone()));
        match end {
            Ok(Some(changed)) => {
                tracing::info!("going on with the changed settings");
                Ok(Some(Ground { lists, memory, haproxy, ..changed }))
            }
            Ok(None) => {
                tracing::info!("stopped");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
