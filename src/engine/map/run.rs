//! When decisions are made: the loop round [`MapDecider::decide`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, select_all};
use mapsmith_core::desired::references::Targets;
use mapsmith_core::{HeldChange, Overrides, SourceState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Approval, ApprovalError, Decision, MapDecider};
use crate::engine::Wanted;
use crate::heartbeat;

/// How long the sources have at the start before the map file counts without them.
const FIRST_ANSWERS: Duration = Duration::from_secs(1);
/// How long a round of polls that was asked for at once may take before the answers that are there
/// count by themselves.
const ROUND_BOUND: Duration = Duration::from_secs(5);
/// Between two tries to write a map file that can't be written.
const FILE_RETRY: Duration = Duration::from_secs(5);
/// The least time between two decisions that only what the map may point to led to: health checks
/// of many instances flap all the time, and each decision may be a revision.
const TARGETS_REST: Duration = Duration::from_secs(1);

/// What the decisions are made of.
#[derive(Debug)]
pub struct Inputs {
    /// What each source said, in order of priority.
    pub sources: Vec<watch::Receiver<SourceState>>,
    /// What an operator ordered.
    pub overrides: watch::Receiver<Arc<Overrides>>,
    /// What the map may point to, an instance each; none before it was looked at.
    pub targets: Vec<watch::Receiver<Option<Arc<Targets>>>>,
    /// Held changes that are to be let through.
    pub approvals: mpsc::Receiver<Approval>,
}

impl MapDecider {
    /// Decides whenever a source has something new, an operator ordered something, or the map file
    /// needs care; until shutdown.
    pub async fn run(
        mut self,
        inputs: Inputs,
        file_check: Duration,
        outputs: (watch::Sender<Decision>, watch::Sender<Option<Wanted>>),
        shutdown: CancellationToken,
    ) {
        let Inputs { mut sources, mut overrides, mut targets, mut approvals } = inputs;
        let publish = |decider: &Self| {
            outputs.0.send_replace(decider.decision.clone());
            outputs.1.send_replace(decider.wanted());
        };
        let mut answer: Option<(HeldChange, oneshot::Sender<Result<HeldChange, ApprovalError>>)> =
            None;
        let mut rested = Instant::now();
        let mut file_checks = interval(file_check);
        file_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        outputs.0.send_replace(self.decision.clone());
        if shutdown
            .run_until_cancelled(self.begin(&mut sources, &mut targets, &outputs.1))
            .await
            .is_none()
        {
            return;
        }
        let mut states: Vec<_> = sources.iter().map(|source| source.borrow().clone()).collect();
        // The first decision takes what is there.
        let mut round = Some(Instant::now());
        loop {
            heartbeat::beat();
            let bound = *round.get_or_insert_with(|| Instant::now() + ROUND_BOUND);
            let whole = tokio::select! {
                biased;
                // On the answers as they were: an operator does not wait for a registry. Nor does
                // the registry wait for operators: the round ends when it would have.
                Ok(()) = overrides.changed() => false,
                () = whole_round(&mut sources, bound, &shutdown) => true,
            };
            if shutdown.is_cancelled() {
                // Half a round is no ground for a revision that nobody would correct.
                return;
            }
            if whole {
                states =
                    sources.iter_mut().map(|source| source.borrow_and_update().clone()).collect();
            }
            let ordered = Arc::clone(&overrides.borrow_and_update());
            self.see(
                targets
                    .iter_mut()
                    .filter_map(|target| target.borrow_and_update().clone())
                    .collect(),
            );
            self.decide(&states, ordered).await;
            publish(&self);
            if let Some((held, sender)) = answer.take() {
                let result = self.outcome_of_approval(held);
                // Whoever asked may have gone; the change is in force all the same.
                let _ = sender.send(result);
            }
            if !whole {
                // The round in progress goes on.
                continue;
            }
            round = None;
            let retry = Instant::now() + FILE_RETRY;
            'quiet: loop {
                let release = self.release.map(|due| Instant::from_std(self.clock) + due);
                let news = select_all(sources.iter_mut().map(|source| Box::pin(source.changed())));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    // A poller that ended leaves its last state; only the shutdown ends pollers.
                    (changed, _, _) = news => if changed.is_err() { return } else { break 'quiet },
                    Ok(()) = overrides.changed() => {
                        overrides.mark_changed();
                        break 'quiet;
                    }
                    Some(approval) = approvals.recv() => {
                        let Approval { id, answer: sender } = approval;
                        match self.approve(&id) {
                            Ok(held) => {
                                answer = Some((held, sender));
                                break 'quiet;
                            }
                            Err(error) => { let _ = sender.send(Err(error)); }
                        }
                    }
                    () = any_changed(&mut targets, rested) => {
                        rested = Instant::now() + TARGETS_REST;
                        break 'quiet;
                    }
                    () = heartbeat::tick() => {}
                    () = self.screens.changed() => break 'quiet,
                    () = sleep_until(release.unwrap_or(retry)), if release.is_some() => break 'quiet,
                    () = sleep_until(retry), if self.file.error.is_some() || self.screens.waiting() => break 'quiet,
                    _ = file_checks.tick(), if self.file.error.is_none() || self.foreign.is_some() => if self.check_file().await {
                        publish(&self);
                        // Where another Mapsmith has ended, its file is only the beginning.
                        break 'quiet;
                    },
                }
            }
        }
    }

    /// Waits for what the first decision should know, within bounds. The map file is the last good
    /// map, and where answers are missing after a second it is kept in force without them; not
    /// before, because they may be newer than a file that came from a backup, and so may be what
    /// HAProxy holds.
    async fn begin(
        &mut self,
        sources: &mut [watch::Receiver<SourceState>],
        targets: &mut [watch::Receiver<Option<Arc<Targets>>>],
        wanted: &watch::Sender<Option<Wanted>>,
    ) {
        let has_routes =
            self.decision.in_force.as_ref().is_some_and(|revision| !revision.entries.is_empty());
        let looks_matter = self.actions.matter() || (self.actions.guard() && has_routes);
        let last_good = self.wanted();
        let answers = async {
            if timeout(FIRST_ANSWERS, first_answers(sources)).await.is_err() {
                wanted.send_replace(last_good);
            }
        };
        let looks = async {
            self.screens.first_looks().await;
            if looks_matter {
                first_looks(targets, self.screens.unreached()).await;
            }
        };
        join(answers, looks).await;
    }
}

/// Waits until every source has answered: one that failed may well answer a moment later.
async fn first_answers(sources: &mut [watch::Receiver<SourceState>]) {
    for source in sources {
        // A poller that ended leaves its last state.
        let _ = source.wait_for(|state| state.snapshot.is_some()).await;
    }
}

/// Waits until every instance but the unreached ones has been looked at once, within a bound.
async fn first_looks(targets: &mut [watch::Receiver<Option<Arc<Targets>>>], unreached: Vec<bool>) {
    let unreached = unreached.into_iter().chain(std::iter::repeat(false));
    let whole = async {
        for (target, _) in targets.iter_mut().zip(unreached).filter(|(_, unreached)| !unreached) {
            // An instance's task that ended leaves what it saw last.
            let _ = target.wait_for(Option::is_some).await;
        }
    };
    let _ = timeout(ROUND_BOUND, whole).await;
}

/// Resolves when another look at an instance's backends and servers found others, not before
/// `rested`.
async fn any_changed(targets: &mut [watch::Receiver<Option<Arc<Targets>>>], rested: Instant) {
    sleep(rested.saturating_duration_since(Instant::now())).await;
    let alive = targets.iter_mut().filter(|target| target.has_changed().is_ok());
    let changes: Vec<_> = alive.map(|target| Box::pin(target.changed())).collect();
    if changes.is_empty() {
        return std::future::pending().await;
    }
    if select_all(changes).await.0.is_err() {
        std::future::pending().await
    }
}

/// Waits until every source has answered the latest round of polls that one of them has answered,
/// until `bound` at the latest: a node that moves from one registry to another must not vanish in
/// between.
async fn whole_round(
    sources: &mut [watch::Receiver<SourceState>],
    bound: Instant,
    shutdown: &CancellationToken,
) {
    let whole = async {
        loop {
            let answered: Vec<_> =
                sources.iter_mut().map(|source| source.borrow_and_update().answered).collect();
            if answered.iter().min() == answered.iter().max() {
                return;
            }
            let (changed, _, _) =
                select_all(sources.iter_mut().map(|source| Box::pin(source.changed()))).await;
            if changed.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep_until(bound) => {}
        () = whole => {}
    }
}
