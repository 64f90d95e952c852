//! The task that follows the services' source, and has everything begin anew where they have
//! changed.

use std::sync::Arc;
use std::time::Duration;

use mapsmith_core::config::status::{ConfigState, Quarantined};
use mapsmith_core::services::ServicesStatus;
use mapsmith_core::{ServiceTexts, SourceState};
use metrics::gauge;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::Known;
use super::pace::{Pending, SPACING};
use crate::engine::{Approval, HoldOrderError};
use crate::few::few;
use crate::heartbeat;
use crate::settings::Settings;
use crate::settings::services::Overlay;
use crate::store::SqliteStore;
use crate::supervise::{SupervisorReport, ports};
use crate::telemetry::{SERVICES_HELD, SERVICES_IN_FORCE, SERVICES_REJECTED};

/// How long a store that failed is left alone.
const RETRY: Duration = Duration::from_secs(30);
/// How many approvals may wait for the one at hand; more callers simply wait.
const APPROVALS_WAITING: usize = 4;

/// The task of one source of services.
pub struct ServicesTask {
    file: Arc<Settings>,
    known: Known,
    source: watch::Receiver<SourceState<ServiceTexts>>,
    haproxy: watch::Receiver<SupervisorReport>,
    store: Option<SqliteStore>,
    status: watch::Sender<ServicesStatus>,
    /// What is known now, for those who begin anew for another reason.
    latest: watch::Sender<Known>,
    /// Takes what is to be begun with anew.
    anew: mpsc::Sender<Known>,
    /// What was taken in last.
    taken: Option<Arc<ServiceTexts>>,
    refused: Vec<Quarantined>,
    /// What operators let through.
    approvals: mpsc::Receiver<Approval>,
    approve: mpsc::Sender<Approval>,
    /// What would come into force next, where that is something else.
    next: Option<(Overlay, Pending)>,
    /// When the store is to have what HAProxy has loaded.
    store_due: Option<Instant>,
}

impl ServicesTask {
    /// `file` are the settings without services, and `known` is what is gone by.
    pub fn new(
        file: Settings,
        known: Known,
        source: watch::Receiver<SourceState<ServiceTexts>>,
        haproxy: watch::Receiver<SupervisorReport>,
        store: Option<SqliteStore>,
        anew: mpsc::Sender<Known>,
    ) -> Self {
        let (approve, approvals) = mpsc::channel(APPROVALS_WAITING);
        let status = watch::Sender::new(known.status(source.borrow().status.clone()));
        Self {
            file: Arc::new(file),
            latest: watch::Sender::new(known.clone()),
            known,
            source,
            haproxy,
            store,
            status,
            anew,
            taken: None,
            refused: Vec::new(),
            approvals,
            approve,
            next: None,
            store_due: None,
        }
    }

    /// How the services stand.
    pub fn status(&self) -> watch::Receiver<ServicesStatus> {
        self.status.subscribe()
    }

    /// What is known of them, as it is at any moment.
    pub fn known(&self) -> watch::Receiver<Known> {
        self.latest.subscribe()
    }

    /// Takes approvals of what is held.
    pub fn approvals(&self) -> mpsc::Sender<Approval> {
        self.approve.clone()
    }

    /// Follows the source, until what is known is begun with anew.
    pub async fn run(mut self) {
        let mut retried = self.known.retry();
        let mut approved = false;
        loop {
            heartbeat::beat();
            let mut is_new = self.take_answer() | std::mem::take(&mut approved);
            is_new |= self.take_report();
            if retried.is_some_and(|retry| retry <= Instant::now()) {
                self.known.put_off(ports::obstacle);
                is_new = true;
            }
            retried = self.known.retry();
            if is_new {
                self.decide().await;
                self.latest.send_replace(self.known.clone());
            }
            self.keep().await;
            self.publish();
            let due = self.next.as_ref().map(|(_, pending)| pending.due(self.known.not_before));
            if due.is_some_and(|due| due <= Instant::now()) {
                self.begin_anew().await;
                return heartbeat::waiting(std::future::pending()).await;
            }
            let wake = [due, retried, self.store_due].into_iter().flatten().min();
            let news = async {
                tokio::select! {
                    Ok(()) = self.source.changed() => {}
                    Ok(()) = self.haproxy.changed() => {}
                    Some(approval) = self.approvals.recv() => {
                        approved = self.approve(approval);
                    }
                    () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                    else => std::future::pending().await,
                }
            };
            heartbeat::waiting(news).await;
        }
    }

    /// Takes in what the source says; whether that is news.
    fn take_answer(&mut self) -> bool {
        let state = self.source.borrow_and_update();
        let Some(snapshot) = &state.snapshot else { return false };
        if self.taken.as_ref().is_some_and(|taken| Arc::ptr_eq(taken, &snapshot.entries)) {
            return false;
        }
        let entries = Arc::clone(&snapshot.entries);
        drop(state);
        self.known.take(&self.file, &entries);
        self.taken = Some(entries);
        true
    }

    /// Lets what is held go, at once where the source has said since the beginning what that is,
    /// and else with its next answer; whether that is news.
    fn approve(&mut self, Approval { id, answer, .. }: Approval) -> bool {
        let approved = self.known.approve(&id);
        let is_new = approved.is_ok();
        if is_new && let Some(taken) = &self.taken {
            self.known.take(&self.file, taken);
        }
        // Whoever asked may have gone; the change is approved all the same.
        let _ = answer.send(approved.map_err(HoldOrderError::NotHeld));
        is_new
    }

    /// Takes in what HAProxy has loaded, or refuses; whether that is news.
    fn take_report(&mut self) -> bool {
        let report = self.haproxy.borrow_and_update();
        let (refused, at_start) = (report.refused_services.clone(), report.refused_at_start);
        let is_loaded = report.status.state == ConfigState::InForce;
        drop(report);
        let mut is_new = false;
        if refused != self.refused {
            self.known.refuse(&refused, at_start);
            is_new = !refused.is_empty();
            self.refused = refused;
        }
        if is_loaded && self.known.note_loaded() {
            self.store_due = Some(Instant::now());
            is_new = true;
        }
        is_new
    }

    async fn decide(&mut self) {
        let (known, file) = (self.known.clone(), Arc::clone(&self.file));
        // Of many services it takes a moment.
        let made = tokio::task::spawn_blocking(move || known.next(&file)).await;
        let Ok(Some(next)) = made else { return };
        if self.known.goes_by(&next) {
            self.next = None;
            self.known.go_by(next);
            return;
        }
        let before = self.next.take();
        let pending = match before {
            Some((same, pending)) if same.forms == next.forms => pending,
            before => Pending::changed(before.map(|(_, pending)| pending), Instant::now()),
        };
        self.next = Some((next, pending));
    }

    /// Has the store keep what HAProxy has loaded.
    async fn keep(&mut self) {
        if self.store_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.store_due = None;
        let (Some(store), Some(origin)) = (&self.store, Known::origin(&self.file)) else {
            return;
        };
        if let Err(error) = store.keep_services(&origin, &self.known.good).await {
            tracing::error!(
                "services can't be stored, so a restart would begin with older ones: {error}"
            );
            self.store_due = Some(Instant::now() + RETRY);
        }
    }

    fn publish(&self) {
        let status = self.known.status(self.source.borrow().status.clone());
        let count = |services: usize| services as f64;
        gauge!(SERVICES_IN_FORCE).set(count(status.in_force.as_ref().map_or(0, Vec::len)));
        let by_haproxy = status.rejected.iter().filter(|rejected| rejected.by_haproxy).count();
        let by = |label: &'static str, services| {
            gauge!(SERVICES_REJECTED, "by" => label).set(count(services));
        };
        by("haproxy", by_haproxy);
        by("mapsmith", status.rejected.len() - by_haproxy);
        gauge!(SERVICES_HELD)
            .set(f64::from(u8::from(status.held.is_some() || status.kept.is_some())));
        let before = self.status.send_replace(status.clone());
        if before.kept != status.kept
            && let Some(why) = &status.kept
        {
            tracing::error!("the metadata is not followed: {why}");
        }
        let news = status.rejected.iter().filter(|rejected| !before.rejected.contains(rejected));
        let (news, more) = few(news);
        for rejected in news {
            let kept = if rejected.keeps_last_good { ", its last good form stays" } else { "" };
            tracing::warn!("service {} is rejected{kept}: {}", rejected.name, rejected.reason);
        }
        if more > 0 {
            tracing::warn!("and {more} more services are rejected; the status names them");
        }
    }

    async fn begin_anew(&mut self) {
        let Some((next, _)) = self.next.take() else { return };
        self.known.go_by(next);
        self.known.not_before = Some(Instant::now() + SPACING);
        self.publish();
        // Where nobody takes it, everything is about to end.
        let _ = self.anew.send(self.known.clone()).await;
    }
}
