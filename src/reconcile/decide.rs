//! Snapshots -> revisions: merge, guard, number, map file, then the instances. The only place where a revision is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use jiff::Timestamp;
use metrics::{counter, gauge};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::Wanted;
use super::map_file::{Check, MapFileError, MapFileKeeper};
use crate::desire::{self, SourceView};
use crate::guard::{self, Limits};
use crate::model::revision::{RevisionLog, RevisionSummary};
use crate::model::status::{DriftKind, MapFileStatus, StepTiming};
use crate::model::{EntryMap, HeldChange, Revision, SourceState};
use crate::plan::Diff;
use crate::telemetry::{DRIFT_HEALED, GUARD_HELD, GUARD_HOLDS, MAP_CHANGES, MAP_ENTRIES, MAP_FILE_FAILED, REVISION};

/// How long a round of polls that was asked for at once may take before the answers that are there count by themselves.
const ROUND_BOUND: Duration = Duration::from_secs(5);
/// Between two tries to write a map file that can't be written.
const FILE_RETRY: Duration = Duration::from_secs(5);

/// What was decided last.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// The highest poll request whose answers, from every source, are taken into account.
    pub considered: u64,
    /// The number of this decision; see [`Wanted::look`].
    pub look: u64,
    /// The map in force: the desired revision, or before the sources have spoken the one found in the map file.
    pub in_force: Option<Arc<Revision>>,
    /// Whether instances are brought to it: every required source has spoken, and what they said was accepted once.
    pub active: bool,
    /// The sources that are waited for.
    pub waiting_for: Vec<String>,
    /// The change that the guard holds back.
    pub held: Option<HeldChange>,
    /// The map file.
    pub file: Option<MapFileStatus>,
    /// The latest revisions.
    pub log: Arc<RevisionLog>,
    /// How long the parts of the last decision took.
    pub steps: Vec<StepTiming>,
}

/// Asks for a held change to be let through.
#[derive(Debug)]
pub struct Approval {
    /// The change's id.
    pub id: String,
    /// Gets the approved change, or why it can't be approved.
    pub answer: oneshot::Sender<Result<HeldChange, ApprovalError>>,
}

/// Why a change can't be approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// Nothing is held.
    #[error("nothing is held back, so there is nothing to approve")]
    NothingHeld,
    /// Another change is held.
    #[error("the change {asked} is no longer the one held back, {held} is; look at it before you approve it")]
    Another {
        /// The id that was asked for.
        asked: String,
        /// The id that is held.
        held: String,
    },
    /// It was approved, but the map file can't be written.
    #[error("approved, but not in force yet: {0}")]
    NotWritten(String),
}

/// Makes the revisions.
#[derive(Debug)]
pub struct Decider {
    limits: Limits,
    keeper: MapFileKeeper,
    decision: Decision,
    file: MapFileStatus,
    log: RevisionLog,
    approved: Option<String>,
    /// The sources' maps as they were when the revision in force was made, to tell which of them led to the next one.
    made_of: Vec<Option<Arc<EntryMap>>>,
}

impl Decider {
    /// Reads the map file: what is in it is the map in force until the sources have spoken.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn start(limits: Limits, mut keeper: MapFileKeeper) -> Result<Self, MapFileError> {
        let path = keeper.path().display().to_string();
        let found = keeper.load()?;
        let mut file = MapFileStatus { path, revision: None, error: None, healed: 0 };
        let in_force = found.map(|found| {
            for (line, reason) in found.rejected.iter().take(10) {
                tracing::warn!(path = file.path, line, "a line of the map file is no entry: {reason}");
            }
            let number = found.revision.unwrap_or(0);
            file.revision = Some(number);
            tracing::info!(
                path = file.path,
                revision = number,
                entries = found.entries.len(),
                "the map file is the map in force"
            );
            Arc::new(Revision { number, at: Timestamp::now(), entries: Arc::new(found.entries) })
        });
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        counter!(GUARD_HOLDS).increment(0);
        counter!(DRIFT_HEALED, "haproxy" => "file", "kind" => DriftKind::MapFile.label()).increment(0);
        for kind in ["added", "moved", "removed"] {
            counter!(MAP_CHANGES, "kind" => kind).increment(0);
        }
        let decision = Decision { in_force, file: Some(file.clone()), ..Decision::default() };
        let decider = Self { limits, keeper, decision, file, log: RevisionLog::default(), approved: None, made_of: Vec::new() };
        decider.record();
        Ok(decider)
    }

    /// What was decided last.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// What the instances should hold; none until a first answer of the sources was accepted.
    pub fn wanted(&self) -> Option<Wanted> {
        let revision = self.decision.in_force.clone().filter(|_| self.decision.active)?;
        Some(Wanted { revision, look: self.decision.look, considered: self.decision.considered })
    }

    /// Lets one held change through at the next decision.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        match &self.decision.held {
            None => Err(ApprovalError::NothingHeld),
            Some(held) if held.id != id => Err(ApprovalError::Another { asked: id.to_owned(), held: held.id.clone() }),
            Some(held) => {
                self.approved = Some(held.id.clone());
                Ok(held.clone())
            }
        }
    }

    /// Whether a change that was approved came into force at the decision that followed: a source may have said something
    /// else just then.
    fn outcome_of_approval(&self, approved: HeldChange) -> Result<HeldChange, ApprovalError> {
        let in_force = self.decision.in_force.as_ref().map(|revision| id_of(&revision.entries));
        match (&self.file.error, &self.decision.held) {
            (Some(error), _) => Err(ApprovalError::NotWritten(error.clone())),
            (None, Some(held)) => Err(ApprovalError::Another { asked: approved.id, held: held.id.clone() }),
            (None, None) if in_force.as_ref() == Some(&approved.id) => Ok(approved),
            (None, None) => Err(ApprovalError::NothingHeld),
        }
    }

    /// Looks at what every source said and decides what is wanted.
    pub async fn decide(&mut self, sources: &[SourceState]) {
        let mut steps = Vec::new();
        let start = Instant::now();
        let views: Vec<_> = sources
            .iter()
            .map(|state| SourceView {
                name: &state.status.name,
                // A source that is being asked for the first time may well answer: at a restart its entries are in the map
                // in force, and leaving it out would take them away for a moment.
                required: state.status.required || state.status.last_poll.is_none(),
                snapshot: state.snapshot.as_ref(),
            })
            .collect();
        self.decision.considered = sources.iter().map(|state| state.answered).min().unwrap_or(0);
        self.decision.look += 1;
        match desire::merge(&views) {
            Err(waiting) => self.decision.waiting_for = waiting,
            Ok(candidate) => {
                self.decision.waiting_for.clear();
                steps.push(StepTiming::new("merge", start.elapsed()));
                self.consider(candidate, sources, &mut steps).await;
            }
        }
        self.decision.steps = steps;
        self.decision.file = Some(self.file.clone());
        self.decision.log = Arc::new(self.log.clone());
        self.record();
    }

    async fn consider(&mut self, candidate: Arc<EntryMap>, sources: &[SourceState], steps: &mut Vec<StepTiming>) {
        let start = Instant::now();
        let nothing = Arc::new(EntryMap::default());
        let in_force = self.decision.in_force.as_ref().map(|revision| Arc::clone(&revision.entries));
        let before = in_force.as_ref().unwrap_or(&nothing);
        let diff = if Arc::ptr_eq(before, &candidate) { Diff::default() } else { Diff::between(before, &candidate) };
        steps.push(StepTiming::new("compare", start.elapsed()));
        let counts = diff.counts();
        // An answer that agrees with the map file is judged too until something was in force once: where both are empty,
        // they would empty every memory.
        let confirmed = diff.is_empty() && self.decision.active;
        let judged = guard::judge(&self.limits, in_force.as_ref().map(|map| map.len()), candidate.len(), counts);
        if let (Err(reason), false) = (judged, confirmed) {
            let id = id_of(&candidate);
            if self.approved.as_ref() != Some(&id) {
                // At the first start this leaves every HAProxy as it is: a map file that nothing confirms is no reason to
                // change a memory that works.
                self.hold(HeldChange {
                    id,
                    reason,
                    since: Timestamp::now(),
                    entries_in_force: before.len(),
                    entries_held: candidate.len(),
                    counts,
                });
                if let (Some(_), Some(wanted)) = (&self.file.error, self.wanted()) {
                    self.write(wanted.revision).await;
                }
                return;
            }
        }
        if let Some(in_force) = &self.decision.in_force
            && diff.is_empty()
        {
            if self.file.error.is_some() {
                self.write(Arc::clone(in_force)).await;
            }
            self.release();
            self.approved = None;
            self.decision.active = true;
            return;
        }
        self.release();
        let number = self.decision.in_force.as_ref().map_or(0, |revision| revision.number) + 1;
        let revision = Arc::new(Revision { number, at: Timestamp::now(), entries: candidate });
        let start = Instant::now();
        let written = self.write(Arc::clone(&revision)).await;
        steps.push(StepTiming::new("map file", start.elapsed()));
        if !written {
            // What is not in the file must not be in memory: a restart would bring the older map back.
            return;
        }
        let maps: Vec<_> =
            sources.iter().map(|state| state.snapshot.as_ref().map(|snapshot| Arc::clone(&snapshot.entries))).collect();
        let summary = RevisionSummary {
            number,
            at: revision.at,
            sources: changed_sources(sources, &maps, &self.made_of),
            entries: revision.entries.len(),
            counts,
        };
        tracing::info!(
            revision = number,
            entries = summary.entries,
            sources = summary.sources.join(","),
            "new revision: {counts}"
        );
        for (kind, count) in [("added", counts.added), ("moved", counts.moved), ("removed", counts.removed)] {
            counter!(MAP_CHANGES, "kind" => kind).increment(count as u64);
        }
        self.log
            .push(summary, diff.changes(before, &revision.entries).take(crate::model::revision::REMEMBERED_CHANGES).collect());
        self.made_of = maps;
        self.decision.in_force = Some(revision);
        self.decision.active = true;
        self.approved = None;
    }

    fn hold(&mut self, mut held: HeldChange) {
        // An approval was of what was held when it was given; it must not let that through some other day.
        self.approved = None;
        match &self.decision.held {
            // A registry lives: what is held may be a little different at each poll, and is one hold all the same.
            Some(before) => {
                held.since = before.since;
                if before.id != held.id {
                    tracing::info!(id = held.id, "the held change is another one now: {} ({})", held.reason, held.counts);
                }
            }
            None => {
                counter!(GUARD_HOLDS).increment(1);
                tracing::warn!(
                    id = held.id,
                    "held back by the guard: {}; the last good map stays in force ({}); `mapsmith approve` lets it through",
                    held.reason,
                    held.counts
                );
            }
        }
        self.decision.held = Some(held);
    }

    /// Nothing is held any more: the change was approved, or the sources say something else by now.
    fn release(&mut self) {
        if let Some(held) = self.decision.held.take() {
            tracing::info!(id = held.id, approved = self.approved.is_some(), "no change is held any more");
        }
    }

    /// Writes a revision to the map file; says whether it is there now.
    async fn write(&mut self, revision: Arc<Revision>) -> bool {
        let mut keeper = self.keeper.clone();
        let number = revision.number;
        let task = tokio::task::spawn_blocking(move || {
            let result = keeper.write(&revision);
            (keeper, result)
        });
        let result = match task.await {
            Ok((keeper, result)) => {
                self.keeper = keeper;
                result.map_err(|error| error.to_string())
            }
            Err(error) => Err(format!("the writer of the map file died: {error}")),
        };
        match result {
            Ok(()) => {
                self.file.revision = Some(number);
                if self.file.error.take().is_some() {
                    tracing::info!(path = self.file.path, "the map file can be written again");
                }
                true
            }
            Err(error) => {
                if self.file.error.as_ref() != Some(&error) {
                    tracing::error!("{error}; no instance gets a map that is not in the file");
                }
                self.file.error = Some(error);
                false
            }
        }
    }

    /// Puts a lost or changed map file right. Whether anything about it changed.
    async fn check_file(&mut self) -> bool {
        let Some(wanted) = self.wanted() else { return false };
        let mut keeper = self.keeper.clone();
        let entries = Arc::clone(&wanted.revision.entries);
        let task = tokio::task::spawn_blocking(move || {
            let check = keeper.check(&entries);
            (keeper, check)
        });
        let Ok((keeper, check)) = task.await else { return false };
        self.keeper = keeper;
        if check == Check::Same {
            return false;
        }
        if self.write(Arc::clone(&wanted.revision)).await {
            self.file.healed += 1;
            counter!(DRIFT_HEALED, "haproxy" => "file", "kind" => DriftKind::MapFile.label()).increment(1);
            tracing::warn!(path = self.file.path, "the map file was lost or changed behind our back; healed");
        }
        self.decision.file = Some(self.file.clone());
        self.record();
        true
    }

    fn record(&self) {
        gauge!(GUARD_HELD).set(f64::from(u8::from(self.decision.held.is_some())));
        gauge!(MAP_FILE_FAILED).set(f64::from(u8::from(self.file.error.is_some())));
        if let Some(revision) = &self.decision.in_force {
            gauge!(REVISION).set(revision.number as f64);
            gauge!(MAP_ENTRIES).set(revision.entries.len() as f64);
        }
    }

    /// Decides whenever a source has something new, an approval comes, or the map file needs care; until shutdown.
    pub async fn run(
        mut self,
        mut sources: Vec<watch::Receiver<SourceState>>,
        mut approvals: mpsc::Receiver<Approval>,
        file_check: Duration,
        outputs: (watch::Sender<Decision>, watch::Sender<Option<Wanted>>),
        shutdown: CancellationToken,
    ) {
        let publish = |decider: &Self| {
            outputs.0.send_replace(decider.decision.clone());
            outputs.1.send_replace(decider.wanted());
        };
        let mut answer: Option<(HeldChange, oneshot::Sender<Result<HeldChange, ApprovalError>>)> = None;
        let mut file_checks = interval(file_check);
        file_checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            whole_round(&mut sources, &shutdown).await;
            if shutdown.is_cancelled() {
                // Half a round is no ground for a revision that nobody would put right.
                return;
            }
            let states: Vec<_> = sources.iter_mut().map(|source| source.borrow_and_update().clone()).collect();
            self.decide(&states).await;
            publish(&self);
            if let Some((held, sender)) = answer.take() {
                let result = self.outcome_of_approval(held);
                // Whoever asked may have gone; the change is in force all the same.
                let _ = sender.send(result);
            }
            'quiet: loop {
                let news = select_all(sources.iter_mut().map(|source| Box::pin(source.changed())));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    // A poller that ended leaves its last state; only the shutdown ends pollers.
                    (changed, _, _) = news => if changed.is_err() { return } else { break 'quiet },
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
                    () = sleep(FILE_RETRY), if self.file.error.is_some() => break 'quiet,
                    _ = file_checks.tick(), if self.file.error.is_none() => if self.check_file().await {
                        publish(&self);
                    },
                }
            }
        }
    }
}

/// Names exactly this map.
fn id_of(map: &EntryMap) -> String {
    format!("{:016x}", map.digest())
}

/// Waits until every source has answered the latest round of polls that one of them has answered, within bounds: a node that
/// moves from one registry to another must not vanish in between.
async fn whole_round(sources: &mut [watch::Receiver<SourceState>], shutdown: &CancellationToken) {
    let whole = async {
        loop {
            let answered: Vec<_> = sources.iter_mut().map(|source| source.borrow_and_update().answered).collect();
            if answered.iter().min() == answered.iter().max() {
                return;
            }
            let (changed, _, _) = select_all(sources.iter_mut().map(|source| Box::pin(source.changed()))).await;
            if changed.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(ROUND_BOUND) => {}
        () = whole => {}
    }
}

/// The sources whose map is another one than when the revision in force was made.
fn changed_sources(sources: &[SourceState], maps: &[Option<Arc<EntryMap>>], before: &[Option<Arc<EntryMap>>]) -> Vec<String> {
    sources
        .iter()
        .enumerate()
        .filter(|(index, _)| match (&maps[*index], before.get(*index).and_then(Option::as_ref)) {
            (Some(now), Some(before)) => !Arc::ptr_eq(now, before),
            (now, _) => now.is_some(),
        })
        .map(|(_, state)| state.status.name.clone())
        .collect()
}

#[cfg(test)]
mod tests;
