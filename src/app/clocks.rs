//! What is done at its time, and not because something happened.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::sleep;

use super::daemon::Daemon;
use crate::heartbeat;
use crate::source::schedule;

/// How often the metrics' samples are folded.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

impl Daemon {
    /// What is done at its time, and not because something happened.
    pub(super) fn start_clocks(&mut self, metrics: PrometheusHandle) {
        self.start_metrics_upkeep(metrics);
        self.start_schedule();
    }

    /// Samples of durations are kept until somebody asks for the metrics; folded now and then, they
    /// don't pile up.
    fn start_metrics_upkeep(&mut self, metrics: PrometheusHandle) {
        self.start_until_shutdown("metrics", async move {
            loop {
                heartbeat::waiting(sleep(METRICS_UPKEEP)).await;
                metrics.run_upkeep();
            }
        });
    }

    fn start_schedule(&mut self) {
        let (clock, stop, requests) =
            (self.settings().schedule.clone(), self.stop(), self.requests.clone());
        self.tasks.start("schedule", async move {
            if let Err(error) = schedule::run(&clock, requests, stop).await {
                tracing::error!("the schedule ended: {error}");
            }
        });
    }
}
