//! Follows what a daemon began with until HAProxy has it, and tells whoever waits.

use std::sync::Arc;

use mapsmith_core::config::status::ConfigState;
use mapsmith_core::{Desired, HeldChange};
use tokio::sync::watch;

use super::link::{Link, Progress};
use crate::engine::Decision;
use crate::heartbeat;
use crate::supervise::SupervisorReport;

/// Says of the declared objects of this number how far they have come, for as long as this daemon
/// runs.
pub async fn follow(
    link: Arc<Link>,
    number: u64,
    mut desired: watch::Receiver<Desired>,
    mut decision: watch::Receiver<Decision>,
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
            progress(&desired, &decision.borrow_and_update(), &report)
        };
        link.reach(number, progress);
        let news = async {
            tokio::select! {
                Ok(()) = desired.changed() => {}
                Ok(()) = decision.changed() => {}
                Ok(()) = haproxy.changed() => {}
                // Their tasks have ended, and so does this one.
                else => std::future::pending().await,
            }
        };
        heartbeat::waiting(news).await;
    }
}

fn progress(desired: &Desired, decision: &Decision, report: &SupervisorReport) -> Progress {
    let is_settled = desired.config.is_some() && report.observed >= desired.generation;
    if let Some(behind) = behind_a_hold(&report.status.state, decision) {
        return behind;
    }
    match &report.status.state {
        ConfigState::InForce if is_settled => Progress::InForce,
        ConfigState::InForce
        | ConfigState::Starting
        | ConfigState::Waiting { .. }
        | ConfigState::ReloadDue { .. } => Progress::Applying,
        state => Progress::Behind(format!("HAProxy's configuration: {state}")),
    }
}

/// The servers that it waits for are held: nothing comes of waiting.
fn behind_a_hold(state: &ConfigState, decision: &Decision) -> Option<Progress> {
    if !matches!(state, ConfigState::Waiting { .. }) {
        return None;
    }
    let (backend, HeldChange { id, reason, .. }) = decision.held_without_servers()?;
    Some(Progress::Behind(format!(
        "HAProxy's configuration waits for the servers of backend {backend}, which are held: \
            {reason}; `mapsmith approve {id}` lets them through"
    )))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use mapsmith_core::revision::ChangeCounts;
    use mapsmith_core::status::BackendStatus;

    use super::*;

    #[test]
    fn a_change_that_waits_for_a_held_list_is_behind_and_names_the_approval() {
        let state = ConfigState::Waiting { reason: "the servers".to_owned() };
        let of = |held: Option<HeldChange>| {
            let backend = BackendStatus {
                name: "nope".to_owned(),
                from: "settings".to_owned(),
                servers: None,
                waiting_for: None,
                stored_since: None,
                confirmed_at: None,
                rejected: Vec::new(),
                rejected_count: 0,
                beyond_max: 0,
                stale: Vec::new(),
                held,
                change_due: None,
                leaving: Vec::new(),
                ordered: Vec::new(),
            };
            behind_a_hold(&state, &Decision { backends: vec![backend], ..Decision::default() })
        };
        assert_eq!(of(None), None, "its first answer is about to come");
        let held = HeldChange {
            id: "ab12".to_owned(),
            of: "backend nope".to_owned(),
            reason: "it is empty".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            entries_in_force: 0,
            entries_held: 0,
            counts: ChangeCounts::default(),
            applied: ChangeCounts::default(),
        };
        let Some(Progress::Behind(why)) = of(Some(held)) else { panic!("it is behind") };
        assert!(why.contains("backend nope") && why.contains("it is empty"), "{why}");
        assert!(why.contains("mapsmith approve ab12"), "{why}");
    }
}
