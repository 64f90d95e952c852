//! The signals that the daemon answers.

use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::services::Known;
use crate::settings::SettingsFile;
use crate::source::PollRequests;

/// Why the daemon's tasks are to end.
pub(super) enum End {
    Stopped,
    /// There are other settings.
    Settings(Box<SettingsFile>),
    /// There are other services over them.
    Services(Box<Known>),
    /// Something else is declared through the API.
    Declared,
    /// A task that should not have ended.
    Died(String),
}

/// The signals that the daemon answers. Before they are caught here SIGTERM and SIGINT end it at
/// once, and SIGHUP does nothing (see `cli`).
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn catch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT and names it.
    pub(super) async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for so long, while nothing runs; for SIGTERM or SIGINT, or for a SIGHUP, which ends
    /// the wait, too: what kept everything from starting may be corrected, here or elsewhere.
    pub(super) async fn pause(&mut self, length: Duration, file: &SettingsFile) -> Option<End> {
        tokio::select! {
            () = sleep(length) => None,
            _ = self.terminate.recv() => {
                tracing::info!("SIGTERM: stopped");
                Some(End::Stopped)
            }
            _ = self.interrupt.recv() => {
                tracing::info!("SIGINT: stopped");
                Some(End::Stopped)
            }
            _ = self.hangup.recv() => match file.read_again() {
                Ok(changed) => changed.map(|changed| End::Settings(Box::new(changed))),
                Err(error) => {
                    tracing::error!("SIGHUP: the settings of before stay: {error}");
                    None
                }
            },
        }
    }

    /// Waits for SIGTERM or SIGINT; for a SIGHUP after which there are other settings, while those
    /// that change none are passed on as poll requests; for other services; until `declared`, when
    /// something else is declared; or for a task that ends by itself, which none should.
    pub(super) async fn wait_for_end(
        &mut self,
        file: &SettingsFile,
        requests: &PollRequests,
        services: &mut Option<mpsc::Receiver<Known>>,
        declared: impl Future<Output = ()>,
        tasks: &mut JoinSet<String>,
    ) -> End {
        let mut declared = pin!(declared);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    tracing::info!("SIGTERM: finishing the step in progress");
                    return End::Stopped;
                }
                _ = self.interrupt.recv() => {
                    tracing::info!("SIGINT: finishing the step in progress");
                    return End::Stopped;
                }
                _ = self.hangup.recv() => match file.read_again() {
                    Ok(None) => {
                        tracing::info!("SIGHUP: the settings are as before; polling every source \
                            and reading every certificate and CRL now");
                        requests.request_everything();
                    }
                    Ok(Some(changed)) => return End::Settings(Box::new(changed)),
                    Err(error) => {
                        tracing::error!("SIGHUP: the settings in force stay so: {error}");
                        requests.request_everything();
                    }
                },
                () = &mut declared => return End::Declared,
                Some(known) = other(services) => return End::Services(Box::new(known)),
                Some(ended) = tasks.join_next() => return End::Died(match ended {
                    Ok(task) => task,
                    Err(error) => error.to_string(),
                }),
            }
        }
    }
}

/// Resolves when there are other services.
async fn other(services: &mut Option<mpsc::Receiver<Known>>) -> Option<Known> {
    match services {
        Some(services) => services.recv().await,
        None => std::future::pending().await,
    }
}
