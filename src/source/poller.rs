//! One task a source: polls when asked, when the source itself changed, and by itself while it fails.
//!
//! An early look (see [`super::early`]) brings single nodes up to date between two polls; it is no poll: it covers no request,
//! and the source's age and condition stay as the last poll left them.
//!
//! A failed poll never touches the snapshot: the last good answer and its age stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use metrics::{counter, gauge, histogram};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::early::{EarlyLooks, Pace};
use super::{PollRequests, Polled, Source, SourceError};
use crate::model::status::{PollKind, PollReport, milliseconds};
use crate::model::{Content, Illegal, Snapshot, SourceState};
use crate::settings;
use crate::telemetry::{SOURCE_ANSWER_BYTES, SOURCE_ENTRIES, SOURCE_FAILURES, SOURCE_POLL_DURATION, SOURCE_REJECTED};

/// How long a failing source is left alone between two polls of the poller's own.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// "PuppetDB was starting" heals within seconds; one that is down for long is not hammered.
    const STANDARD: Self = Self { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

    /// The pause after that many failures in a row: doubled each time, half of it at random, so that a fleet does not come back at
    /// once.
    fn pause(self, failures: u32) -> Duration {
        let whole = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// The least time between two rounds of polls that a source's own watch starts.
const ROUND_SPACING: Duration = Duration::from_secs(1);

/// Polls `source` until `shutdown`: once at the start, then whenever a request came that no started poll covers, so that
/// requests made together, or during a poll, become one. Between polls it looks early at the nodes of `looks`. `state` should begin as
/// [`SourceState::before_first_poll`].
pub async fn run<C: Content>(
    source: Box<dyn Source<C>>,
    settings: &settings::Source,
    requests: PollRequests,
    looks: &EarlyLooks,
    state: watch::Sender<SourceState<C>>,
    shutdown: CancellationToken,
) {
    counter!(SOURCE_FAILURES, "source" => settings.name.clone()).increment(0);
    let poller = Poller {
        source,
        name: settings.name.clone(),
        requests: requests.subscribe(),
        rounds: requests,
        last_round: None,
        looks: looks.pace(),
        state,
        backoff: Backoff::STANDARD,
        reported: BTreeSet::new(),
    };
    // A poll that is under way when the end comes changes nothing anywhere: it is dropped.
    shutdown.run_until_cancelled(poller.run()).await;
}

struct Poller<C: Content> {
    source: Box<dyn Source<C>>,
    name: String,
    requests: watch::Receiver<u64>,
    /// Where a change that the source saw itself becomes a request to all.
    rounds: PollRequests,
    last_round: Option<Instant>,
    looks: Pace,
    state: watch::Sender<SourceState<C>>,
    backoff: Backoff,
    /// Reasons whose gauge was ever set: one that vanished goes to 0.
    reported: BTreeSet<Illegal>,
}

impl<C: Content> Poller<C> {
    async fn run(mut self) {
        let mut failures: u32 = 0;
        loop {
            // Read before the poll starts: what is asked for from now on is for the next one.
            let covered = *self.requests.borrow_and_update();
            failures = if self.poll(covered).await { 0 } else { failures.saturating_add(1) };
            let retry = (failures > 0).then(|| self.backoff.pause(failures));
            loop {
                tokio::select! {
                    () = requested(&mut self.requests, covered) => break,
                    () = self.source.changed() => {
                        self.start_round().await;
                        break;
                    }
                    () = pause(retry) => break,
                    // A source that fails is left to its retries, which bring everything.
                    nodes = self.looks.next(), if failures == 0 => self.look_early(&nodes, covered).await,
                }
            }
        }
    }

    /// Asks for single nodes and publishes what is new of them. A poll that is asked for meanwhile brings them too, and does not wait
    /// for a slow look.
    async fn look_early(&mut self, nodes: &[String], covered: u64) {
        let Some(current) = self.state.borrow().snapshot.clone() else { return };
        let began = Instant::now();
        let mut requests = self.requests.clone();
        let outcome = tokio::select! {
            biased;
            outcome = self.source.look_up(nodes, &current, Timestamp::now()) => Some(outcome),
            () = requested(&mut requests, covered) => None,
        };
        let took = began.elapsed();
        self.looks.rest(Instant::now(), took);
        let Some(outcome) = outcome else { return };
        histogram!(SOURCE_POLL_DURATION, "source" => self.name.clone(), "kind" => "look").record(took.as_secs_f64());
        let Polled { entries, rejections, .. } = match outcome {
            Ok(polled) => polled,
            Err(error) => {
                // Not the source's condition: the next poll tells that. The look is repeated by itself.
                debug!(source = self.name, %error, nodes = nodes.len(), "an early look failed");
                return;
            }
        };
        let news = !Arc::ptr_eq(&entries, &current.entries) || !Arc::ptr_eq(&rejections, &current.rejections);
        debug!(source = self.name, nodes = nodes.len(), news, "looked early at nodes with a learned route");
        if news {
            gauge!(SOURCE_ENTRIES, "source" => self.name.clone()).set(entries.count() as f64);
            self.state.send_modify(|state| {
                state.status.rejections = (*rejections).clone();
                state.status.entries = Some(entries.count());
                state.snapshot = Some(Snapshot { entries, rejections, answered_at: current.answered_at });
            });
        }
    }

    /// Has every source look again, this one among them: a node that left here may have gone to another registry, and must
    /// not vanish in between. A file that changes all the time starts a round a second at most.
    async fn start_round(&mut self) {
        if let Some(last) = self.last_round {
            tokio::time::sleep_until(last + ROUND_SPACING).await;
        }
        self.last_round = Some(Instant::now());
        self.rounds.request();
    }

    /// One poll, told to everyone. Whether it was good.
    async fn poll(&mut self, covered: u64) -> bool {
        let current = self.state.borrow().snapshot.clone();
        let began = Instant::now();
        let outcome = self.source.poll(current.as_ref(), Timestamp::now()).await;
        drop(current);
        let took = began.elapsed();
        self.measure(&outcome, took);
        self.log(&outcome);
        let good = outcome.is_ok();
        self.publish(outcome, covered, took);
        good
    }

    fn measure(&mut self, outcome: &Result<Polled<C>, SourceError>, took: Duration) {
        let kind = match outcome {
            Ok(polled) => match polled.kind {
                PollKind::Full => "full",
                PollKind::Delta => "delta",
                PollKind::Unchanged => "unchanged",
            },
            Err(_) => "failed",
        };
        histogram!(SOURCE_POLL_DURATION, "source" => self.name.clone(), "kind" => kind).record(took.as_secs_f64());
        let Ok(polled) = outcome else {
            counter!(SOURCE_FAILURES, "source" => self.name.clone()).increment(1);
            return;
        };
        if polled.kind != PollKind::Unchanged {
            gauge!(SOURCE_ANSWER_BYTES, "source" => self.name.clone()).set(polled.bytes as f64);
        }
        gauge!(SOURCE_ENTRIES, "source" => self.name.clone()).set(polled.entries.count() as f64);
        self.reported.extend(polled.rejections.counts.keys());
        for reason in &self.reported {
            let count = polled.rejections.counts.get(reason).copied().unwrap_or(0);
            gauge!(SOURCE_REJECTED, "source" => self.name.clone(), "reason" => reason.label()).set(count as f64);
        }
    }

    /// One line a change of condition: a source that fails for an hour says so once.
    fn log(&self, outcome: &Result<Polled<C>, SourceError>) {
        let state = self.state.borrow();
        match (outcome, &state.status.error) {
            (Ok(polled), Some(_)) => info!(source = self.name, entries = polled.entries.count(), "the source answers again"),
            (Ok(polled), None) if state.snapshot.is_none() => {
                info!(
                    source = self.name,
                    entries = polled.entries.count(),
                    rejected = polled.rejections.total(),
                    "the source answered"
                );
            }
            (Ok(_), None) => {}
            (Err(error), known) => {
                let error = error.to_string();
                if known.as_ref() != Some(&error) {
                    let meanwhile = match state.snapshot {
                        Some(_) => "the last good answer stays in force",
                        None => "nothing is known of the source yet",
                    };
                    warn!(source = self.name, error, "the poll failed; {meanwhile}");
                }
            }
        }
    }

    fn publish(&self, outcome: Result<Polled<C>, SourceError>, covered: u64, took: Duration) {
        let now = Timestamp::now();
        self.state.send_modify(|state| {
            let mut report = PollReport { kind: None, at: now, milliseconds: milliseconds(took), bytes: 0 };
            match outcome {
                Ok(Polled { kind, entries, rejections, bytes }) => {
                    report.kind = Some(kind);
                    report.bytes = bytes;
                    let known = state.snapshot.as_ref().map(|snapshot| &snapshot.rejections);
                    if !known.is_some_and(|known| Arc::ptr_eq(known, &rejections)) {
                        state.status.rejections = (*rejections).clone();
                    }
                    state.status.entries = Some(entries.count());
                    state.status.answered_at = Some(now);
                    state.status.error = None;
                    state.snapshot = Some(Snapshot { entries, rejections, answered_at: now });
                }
                Err(error) => state.status.error = Some(error.to_string()),
            }
            state.status.last_poll = Some(report);
            state.answered = covered;
        });
    }
}

/// Resolves when a request beyond `covered` was made; never once nobody is left to make one.
async fn requested(requests: &mut watch::Receiver<u64>, covered: u64) {
    if requests.wait_for(|number| *number > covered).await.is_err() {
        std::future::pending().await
    }
}

async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
