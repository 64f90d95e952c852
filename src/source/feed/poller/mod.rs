//! One task a source: polls when asked, when the source itself changed, and by itself while it
//! fails.
//!
//! A targeted lookup (see [`TargetedLookups`]) brings single nodes up to date between two polls; it
//! is no poll: it covers no request, and the source's age and condition stay as the last poll left
//! them.
//!
//! A poll is for changes, or for everything where somebody asked and waits for the answer.
//!
//! A failed poll never touches the snapshot: the last good answer and its age stay.

mod changes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use mapsmith_core::status::{PollKind, PollReport, milliseconds};
use mapsmith_core::{Content, Invalid, Snapshot, SourceState};
use metrics::{Label, SharedString, counter, gauge, histogram};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::requests::{Requested, Round};
use super::targeted::{RequestPacer, TargetedLookups};
use super::{Extent, Feed, Notes, Polled, SourceError};
use crate::backoff::Backoff;
use crate::heartbeat;
use crate::telemetry::{
    SHADOW, SOURCE_ANSWER_BYTES, SOURCE_ENTRIES, SOURCE_FAILURES, SOURCE_POLL_DURATION,
    SOURCE_REJECTED,
};
use changes::ChangePacer;

/// How much a source is asked.
#[derive(Debug, Clone)]
struct Pacing {
    /// The pauses after failures.
    backoff: Backoff,
    /// The least time from one poll's beginning to the next one's.
    spacing: Duration,
    /// A poll counts as late once it has taken this long, and twice as long as the last good one.
    late: Duration,
}

impl Pacing {
    /// "PuppetDB was starting" recovers within seconds; one that is down for long is not hammered.
    /// Reloads in a loop are a few polls a second.
    const STANDARD: Self = Self {
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
        spacing: Duration::from_millis(300),
        late: Duration::from_secs(1),
    };
}

/// What becomes of a feed's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    Applied,
    /// They are compared, and never applied.
    Compared,
}

/// The labels of a source's metrics: what is never applied is told from what is, by whoever is
/// paged for it.
pub(crate) fn labels_of(name: String, use_of_it: Use) -> Vec<Label> {
    let shadow = (use_of_it == Use::Compared).then(|| Label::from_static_parts(SHADOW, "true"));
    [Label::new("source", name)].into_iter().chain(shadow).collect()
}

/// Polls the feed of this name until `shutdown`: once at the start, then whenever a request to its
/// round came that no started poll covers, so that requests made together, or during a poll, become
/// one. Between polls it looks up the nodes of `lookups`. `state` should begin as
/// [`SourceState::before_first_poll`].
pub async fn run<C: Content>(
    name: String,
    feed: Box<dyn Feed<C>>,
    round: Round,
    lookups: &TargetedLookups,
    state: watch::Sender<SourceState<C>>,
    use_of_it: Use,
    shutdown: CancellationToken,
) {
    let labels = labels_of(name.clone(), use_of_it);
    counter!(SOURCE_FAILURES, labels.clone()).increment(0);
    let poller = Poller { labels, ..Poller::new(name, round, lookups, state, Pacing::STANDARD) };
    // A poll that is under way when the end comes changes nothing anywhere: it is dropped.
    shutdown.run_until_cancelled(poller.run(feed)).await;
}

/// A poll under way. It has the feed meanwhile, and gives it back.
struct Running<C: Content> {
    /// The requests that it covers: read before it began.
    covered: Requested,
    extent: Extent,
    began: Instant,
    poll: BoxFuture<'static, (Box<dyn Feed<C>>, Outcome<C>)>,
}

type Outcome<C> = Result<Polled<C>, SourceError>;

struct Poller<C: Content> {
    name: String,
    /// Of its metrics.
    labels: Vec<Label>,
    requests: watch::Receiver<Requested>,
    /// Asked where the feed saw a change itself.
    round: Round,
    changes: ChangePacer,
    lookups: RequestPacer,
    state: watch::Sender<SourceState<C>>,
    pacing: Pacing,
    /// The requests that are answered.
    covered: Requested,
    /// The request for everything that a good answer has covered.
    brought: u64,
    last_begun: Option<Instant>,
    /// How long the last good poll took.
    usual: Duration,
    /// When a failing source is asked again by itself; none where the last poll was good.
    retry: Option<Instant>,
    /// Until when the registry asked to be left alone.
    rests_until: Option<Instant>,
    /// Reasons whose gauge was ever set: one that vanished goes to 0.
    reported: BTreeSet<Invalid>,
}

impl<C: Content> Poller<C> {
    fn new(
        name: String,
        round: Round,
        lookups: &TargetedLookups,
        state: watch::Sender<SourceState<C>>,
        pacing: Pacing,
    ) -> Self {
        Self {
            labels: labels_of(name.clone(), Use::Applied),
            name,
            requests: round.join(),
            round,
            changes: ChangePacer::default(),
            lookups: lookups.pacer(),
            state,
            pacing,
            covered: Requested::default(),
            brought: 0,
            last_begun: None,
            usual: Duration::ZERO,
            retry: None,
            rests_until: None,
            reported: BTreeSet::new(),
        }
    }

    async fn run(mut self, mut feed: Box<dyn Feed<C>>) {
        loop {
            heartbeat::beat();
            feed = self.poll(feed).await;
            heartbeat::beat();
            loop {
                let covered = self.covered.latest;
                tokio::select! {
                    requested = requested(&self.requests, |asked| asked.latest > covered) => {
                        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
                        if !rests || requested.urgent > covered {
                            break;
                        }
                        // The registry asked for rest. The schedule can wait, and the other sources
                        // need not wait for this one: what was answered last stands.
                        self.covered = requested;
                        self.state.send_modify(|state| state.answered = requested.latest);
                    }
                    () = feed.changed() => {
                        self.request_round().await;
                        break;
                    }
                    () = pause(self.retry) => break,
                    () = heartbeat::tick() => {}
                    // A source that fails is left to its retries, which bring everything.
                    nodes = self.lookups.next(), if self.retry.is_none() => {
                        self.look_up(feed.as_mut(), &nodes).await;
                    }
                }
            }
        }
    }

    /// Polls once. While that poll is late, by a network that was cut perhaps, somebody's request
    /// for everything is not left to wait for its bound: another poll begins beside it, and the
    /// first to answer counts for the requests made before it began. Further requests replace that
    /// other one in its turn; the first poll is never given up for them, so that a registry which
    /// is just slow is heard.
    async fn poll(&mut self, feed: Box<dyn Feed<C>>) -> Box<dyn Feed<C>> {
        if let Some(last) = self.last_begun {
            sleep_until(last + self.pacing.spacing).await;
        }
        let spare = feed.beside();
        let mut first = self.begin(feed);
        let mut second: Option<Running<C>> = None;
        loop {
            let latest = second.as_ref().unwrap_or(&first);
            let (covered, late) =
                (latest.covered, latest.began + self.pacing.late.max(self.usual * 2));
            let everything = async {
                requested(&self.requests, |asked| asked.everything > covered.latest).await;
                sleep_until(late).await;
            };
            tokio::select! {
                (feed, outcome) = &mut first.poll => {
                    self.conclude(&first, feed.as_ref(), outcome);
                    match second.take() {
                        None => return feed,
                        Some(next) => first = next,
                    }
                }
                (feed, outcome) = answer_of(&mut second) => {
                    if let Some(second) = &second {
                        self.conclude(second, feed.as_ref(), outcome);
                    }
                    return feed;
                }
                () = everything, if spare.is_some() => {
                    debug!(source = self.name, "the poll under way is late; another begins beside \
                        it");
                    let beside = spare.as_ref().and_then(|spare| spare.beside());
                    second = beside.map(|feed| self.begin(feed));
                }
            }
        }
    }

    fn begin(&mut self, mut feed: Box<dyn Feed<C>>) -> Running<C> {
        // Read before the poll starts: what is asked for from now on is for the next one.
        let covered = *self.requests.borrow_and_update();
        let extent =
            if covered.everything > self.brought { Extent::Everything } else { Extent::Changes };
        let current = self.state.borrow().snapshot.clone();
        let began = Instant::now();
        self.last_begun = Some(began);
        feed.set_reload(covered.urgent);
        let poll = Box::pin(async move {
            let outcome = feed.poll(extent, current.as_ref(), Timestamp::now()).await;
            (feed, outcome)
        });
        Running { covered, extent, began, poll }
    }

    /// Publishes, logs and counts a poll that has ended.
    fn conclude(&mut self, running: &Running<C>, feed: &dyn Feed<C>, outcome: Outcome<C>) {
        let took = running.began.elapsed();
        self.covered = running.covered;
        self.measure(&outcome, took);
        self.log(&outcome);
        match &outcome {
            Ok(_) => {
                (self.retry, self.rests_until, self.usual) = (None, None, took);
                self.pacing.backoff.reset();
                if running.extent == Extent::Everything {
                    self.brought = running.covered.everything;
                }
            }
            Err(error) => {
                let now = Instant::now();
                self.rests_until = error.fault.retry_after().map(|rest| now + rest);
                self.retry = self.rests_until.max(Some(now + self.pacing.backoff.pause()));
            }
        }
        self.publish(outcome, feed.notes(), took);
    }

    /// Asks for single nodes and publishes what is new of them. A poll that is asked for meanwhile
    /// brings them too, and does not wait for a slow lookup.
    async fn look_up(&mut self, feed: &mut dyn Feed<C>, nodes: &[String]) {
        let Some(current) = self.state.borrow().snapshot.clone() else { return };
        let began = Instant::now();
        let covered = self.covered.latest;
        let outcome = tokio::select! {
            biased;
            outcome = feed.look_up(nodes, &current, Timestamp::now()) => Some(outcome),
            _ = requested(&self.requests, |asked| asked.latest > covered) => None,
        };
        let took = began.elapsed();
        self.lookups.rest(Instant::now(), took);
        let Some(outcome) = outcome else { return };
        histogram!(SOURCE_POLL_DURATION, self.labels_with("kind", "lookup"))
            .record(took.as_secs_f64());
        let Polled { entries, rejections, .. } = match outcome {
            Ok(polled) => polled,
            Err(error) => {
                // Not the source's condition: the next poll shows that. The lookup is repeated by
                // itself.
                debug!(source = self.name, %error, nodes = nodes.len(), "a targeted lookup failed");
                return;
            }
        };
        let news = !Arc::ptr_eq(&entries, &current.entries)
            || !Arc::ptr_eq(&rejections, &current.rejections);
        debug!(
            source = self.name,
            nodes = nodes.len(),
            news,
            "looked up nodes with a learned route"
        );
        if news {
            gauge!(SOURCE_ENTRIES, self.labels.clone()).set(entries.count() as f64);
            self.state.send_modify(|state| {
                state.status.rejections = (*rejections).clone();
                state.status.entries = Some(entries.count());
                state.snapshot =
                    Some(Snapshot { entries, rejections, answered_at: current.answered_at });
            });
        }
    }

    /// Has every feed of the round polled again, this one among them, as soon as it may. A request
    /// that comes meanwhile covers the change.
    async fn request_round(&mut self) {
        let spacing = changes::spacing(self.round.is_shared(), self.usual, self.pacing.spacing);
        let (due, covered) = (self.changes.due(Instant::now(), spacing), self.covered.latest);
        tokio::select! {
            () = sleep_until(due) => {
                self.round.request();
            }
            _ = requested(&self.requests, |asked| asked.latest > covered) => {}
        }
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
        histogram!(SOURCE_POLL_DURATION, self.labels_with("kind", kind)).record(took.as_secs_f64());
        let Ok(polled) = outcome else {
            counter!(SOURCE_FAILURES, self.labels.clone()).increment(1);
            return;
        };
        if polled.kind != PollKind::Unchanged {
            gauge!(SOURCE_ANSWER_BYTES, self.labels.clone()).set(polled.bytes as f64);
        }
        gauge!(SOURCE_ENTRIES, self.labels.clone()).set(polled.entries.count() as f64);
        self.reported.extend(polled.rejections.counts.keys());
        for reason in &self.reported {
            let count = polled.rejections.counts.get(reason).copied().unwrap_or(0);
            gauge!(SOURCE_REJECTED, self.labels_with("reason", reason.label())).set(count as f64);
        }
    }

    fn labels_with(&self, key: &'static str, value: impl Into<SharedString>) -> Vec<Label> {
        self.labels.iter().cloned().chain([Label::new(key, value)]).collect()
    }

    /// One line a change of condition: a source that fails for an hour says so once.
    fn log(&self, outcome: &Result<Polled<C>, SourceError>) {
        let state = self.state.borrow();
        match (outcome, &state.status.error) {
            (Ok(polled), Some(_)) => info!(
                source = self.name,
                entries = polled.entries.count(),
                "the source answers again"
            ),
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

    fn publish(&self, outcome: Outcome<C>, notes: Notes, took: Duration) {
        let now = Timestamp::now();
        self.log_warning(notes.warning.as_deref());
        self.state.send_modify(|state| {
            let mut report =
                PollReport { kind: None, at: now, milliseconds: milliseconds(took), bytes: 0 };
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
            (state.status.watch, state.status.warning) = (notes.watch, notes.warning);
            state.status.last_poll = Some(report);
            state.answered = self.covered.latest;
        });
    }

    /// One line a change here too.
    fn log_warning(&self, warning: Option<&str>) {
        let state = self.state.borrow();
        match (warning, &state.status.warning) {
            (Some(warning), None) => warn!(source = self.name, "{warning}"),
            (None, Some(_)) => info!(source = self.name, "the source is as it should be again"),
            _ => {}
        }
    }
}

/// Resolves when something is asked for that is `news`; never once nobody is left to ask.
async fn requested(
    requests: &watch::Receiver<Requested>,
    news: impl Fn(&Requested) -> bool,
) -> Requested {
    let requested = requests.clone().wait_for(news).await.map(|requested| *requested);
    match requested {
        Ok(requested) => requested,
        Err(_) => std::future::pending().await,
    }
}

/// What a poll beside another brings; never where there is none.
async fn answer_of<C: Content>(running: &mut Option<Running<C>>) -> (Box<dyn Feed<C>>, Outcome<C>) {
    match running {
        Some(running) => (&mut running.poll).await,
        None => std::future::pending().await,
    }
}

async fn pause(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
