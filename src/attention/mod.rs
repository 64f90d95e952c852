//! What needs a person: evaluated once a second, and told by a command when the worst is another
//! one. Nothing waits for it.

use std::sync::Arc;

use mapsmith_core::attention::{Attention, Severity};
use metrics::gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub mod notify;

pub use notify::Notifier;

use crate::api::Api;
use crate::heartbeat;
use crate::telemetry::ATTENTION;

/// Keeps what needs a person up to date, until shutdown.
pub async fn run(api: Arc<Api>, latest: watch::Sender<Arc<Attention>>, stop: CancellationToken) {
    loop {
        let attention = api.attention_now();
        for severity in Severity::OF_ITEMS {
            let count = attention.count(severity) as f64;
            gauge!(ATTENTION, "severity" => severity.label()).set(count);
        }
        latest.send_if_modified(|before| {
            let is_other = **before != attention;
            if is_other {
                *before = Arc::new(attention);
            }
            is_other
        });
        tokio::select! {
            () = stop.cancelled() => return,
            () = heartbeat::tick() => {}
        }
    }
}
