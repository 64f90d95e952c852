//! The signals that the daemon answers.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::source::PollRequests;

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

    /// Waits for SIGTERM or SIGINT, passing SIGHUPs on as poll requests; or for a task that ends by
    /// itself, which none should.
    pub(super) async fn wait_for_end(
        &mut self,
        requests: &PollRequests,
        tasks: &mut JoinSet<String>,
    ) -> Option<String> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {
                    tracing::info!("SIGTERM: finishing the step in progress");
                    return None;
                }
                _ = self.interrupt.recv() => {
                    tracing::info!("SIGINT: finishing the step in progress");
                    return None;
                }
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: polling every source and reading every certificate and CRL now");
                    requests.request_everything();
                }
                Some(ended) = tasks.join_next() => return Some(match ended {
                    Ok(task) => task,
                    Err(error) => error.to_string(),
                }),
            }
        }
    }
}
