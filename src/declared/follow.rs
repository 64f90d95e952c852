//! Follows what a daemon began with until HAProxy has it, and tells whoever waits.

use std::sync::Arc;

use mapsmith_core::Desired;
use mapsmith_core::config::status::ConfigState;
use tokio::sync::watch;

use super::link::{Link, Progress};
use crate::heartbeat;
use crate::supervise::SupervisorReport;

/// Says of the declared objects of this number how far they have come, for as long as this daemon
/// runs.
pub async fn follow(
    link: Arc<Link>,
    number: u64,
    mut desired: watch::Receiver<Desired>,
    haproxy: Option<watch::Receiver<SupervisorReport>>,
) {
    let Some(mut haproxy) = haproxy else {
        let why = "HAProxy's configuration is not Mapsmith's (haproxy.managed)";
        link.reach(number, Progress::Behind(why.to_owned()));
        return heartbeat::waiting(std::future::pending()).await;
    };
    loop {
        heartbeat::beat();
        let progress = {
            let (desired, report) = (desired.borrow_and_update(), haproxy.borrow_and_update());
            progress(&desired, &report)
        };
        link.reach(number, progress);
        let news = async {
            tokio::select! {
                Ok(()) = desired.changed() => {}
                Ok(()) = haproxy.changed() => {}
                // Their tasks have ended, and so does this one.
                else => std::future::pending().await,
            }
        };
        heartbeat::waiting(news).await;
    }
}

fn progress(desired: &Desired, report: &SupervisorReport) -> Progress {
    let is_settled = desired.config.is_some() && report.observed >= desired.generation;
    match &report.status.state {
        ConfigState::InForce if is_settled => Progress::InForce,
        ConfigState::InForce
        | ConfigState::Starting
        | ConfigState::Waiting { .. }
        | ConfigState::ReloadDue { .. } => Progress::Applying,
        state => Progress::Behind(format!("HAProxy's configuration: {state}")),
    }
}
