//! What is kept of each revision: before the map file has it, and never in its way.
//!
//! A revision whose change can't be kept comes into force all the same. The next one is then kept
//! as a change of the last that was, so one is missing and all the others can be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mapsmith_core::history::{self, Fingerprint, RevisionKind, RevisionRecord};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::StepTiming;
use mapsmith_core::{Note, Revision};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::compose::Said;
use super::{
    BY_OVERRIDE, BY_OWNERSHIP, BY_REFERENCES, BY_REMOVE_AFTER, Evaluation, MapDecider, between,
};
use crate::store::{HistoryStore, KeptRevision, StoreError};

/// How long a revision may wait for its change to be kept.
const BOUND: Duration = Duration::from_secs(5);

/// What whoever asks for older maps begins with.
#[derive(Debug, Clone, Default)]
pub struct HistoryState {
    /// The newest revision that is kept, with its map.
    pub kept: Option<Arc<Revision>>,
    /// Why the revision in force could not be kept, if so.
    pub error: Option<String>,
}

/// Keeps revisions.
pub(super) struct History {
    store: Arc<dyn HistoryStore>,
    kept: Option<(Arc<Revision>, Fingerprint)>,
    /// The one that is kept, and not in force yet.
    next: Option<(Arc<Revision>, Fingerprint)>,
    error: Option<String>,
    /// What did not end in time: nothing else is asked of the store meanwhile.
    late: Option<JoinHandle<Result<(), StoreError>>>,
}

impl std::fmt::Debug for History {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("History").field("error", &self.error).finish_non_exhaustive()
    }
}

impl History {
    fn new(store: Arc<dyn HistoryStore>) -> Self {
        Self { store, kept: None, next: None, error: None, late: None }
    }

    /// Keeps a revision, within a bound.
    async fn keep(&mut self, revision: KeptRevision) -> Result<(), String> {
        if self.late.as_ref().is_some_and(|late| !late.is_finished()) {
            return Err("the store has not taken an earlier revision yet".to_owned());
        }
        let store = Arc::clone(&self.store);
        let mut work = tokio::spawn(async move { store.keep_revision(revision).await });
        match timeout(BOUND, &mut work).await {
            Ok(Ok(done)) => done.map_err(|error| error.to_string()),
            Ok(Err(error)) => Err(format!("the store's task ended: {error}")),
            Err(_) => {
                self.late = Some(work);
                Err(format!("the store gives no answer within {BOUND:?}"))
            }
        }
    }

    /// Keeps what is in force where nothing before it is known.
    async fn keep_found(&mut self, revision: &Arc<Revision>) -> Result<(), String> {
        let fingerprint = Fingerprint::of(&revision.entries);
        let record = RevisionRecord {
            number: revision.number,
            at: revision.at,
            kind: RevisionKind::Found,
            note: Note::default(),
            sources: Vec::new(),
            entries: revision.entries.len(),
            counts: ChangeCounts::default(),
            previous: None,
        };
        self.keep(KeptRevision { record, fingerprint, blocks: Vec::new() }).await?;
        self.kept = Some((Arc::clone(revision), fingerprint));
        Ok(())
    }

    /// Keeps a revision that is about to come into force. `diff` leads to it from the map in force.
    async fn keep_next(
        &mut self,
        mut record: RevisionRecord,
        revision: &Arc<Revision>,
        in_force: Option<&Arc<Revision>>,
        diff: &Diff,
    ) -> Result<(), String> {
        self.next = None;
        if let (None, Some(found)) = (&self.kept, in_force) {
            self.keep_found(found).await?;
        }
        let (blocks, fingerprint) = match self.kept.clone() {
            None => (Vec::new(), Fingerprint::of(&revision.entries)),
            Some((kept, fingerprint)) => {
                record.previous = Some(kept.number);
                let (old, new) = (Arc::clone(&kept.entries), Arc::clone(&revision.entries));
                let is_base = in_force.is_some_and(|base| Arc::ptr_eq(&base.entries, &old));
                let known = is_base.then(|| diff.clone());
                let encoded = tokio::task::spawn_blocking(move || {
                    let diff = known.unwrap_or_else(|| between(&old, &new));
                    let fingerprint = fingerprint.after(&diff, &old, &new);
                    (history::encode(&diff, &old, &new), fingerprint)
                });
                encoded.await.map_err(|error| format!("the change can't be packed: {error}"))?
            }
        };
        self.keep(KeptRevision { record, fingerprint, blocks }).await?;
        self.next = Some((Arc::clone(revision), fingerprint));
        Ok(())
    }

    /// Takes in how keeping went. One line for each change of it.
    fn note(&mut self, kept: Result<(), String>) {
        let error = kept.err();
        match (&self.error, &error) {
            (None, Some(error)) => tracing::error!(
                "the history has a gap, a revision could not be kept: {error}; it comes into force \
                    all the same"
            ),
            (Some(_), None) => tracing::info!("revisions can be kept again"),
            _ => {}
        }
        self.error = error;
    }
}

impl MapDecider {
    /// Keeps revisions from now on. What is kept already goes on from the map in force, where it
    /// is about that one.
    pub async fn with_history(mut self, store: Arc<dyn HistoryStore>) -> Self {
        let mut history = History::new(store);
        if let Some(in_force) = self.decision.in_force.clone().filter(|_| self.decision.active) {
            // What is kept beyond it never came into force, and the next one takes its place.
            let goes_on = match history.store.fingerprint_of(in_force.number).await {
                Ok(known) => {
                    let fingerprint = Fingerprint::of(&in_force.entries);
                    let is_it = known == Some(fingerprint);
                    history.kept = is_it.then(|| (Arc::clone(&in_force), fingerprint));
                    if is_it { Ok(()) } else { history.keep_found(&in_force).await }
                }
                Err(error) => Err(error.to_string()),
            };
            history.note(goes_on);
        }
        self.history = Some(history);
        self.tell_history();
        self
    }

    /// Keeps a revision before it comes into force. That it can't be keeps nothing else back.
    pub(super) async fn keep_in_history(
        &mut self,
        revision: &Arc<Revision>,
        diff: &Diff,
        said: &Said,
        causes: &[String],
        round: &mut Evaluation<'_>,
    ) {
        let Some(history) = &mut self.history else { return };
        let start = Instant::now();
        let by_order = causes.iter().any(|cause| cause == BY_OVERRIDE);
        let record = RevisionRecord {
            number: revision.number,
            at: revision.at,
            kind: kind_of(said, causes),
            note: if by_order { round.overrides.note().clone() } else { Note::default() },
            sources: causes.to_vec(),
            entries: revision.entries.len(),
            counts: diff.counts(),
            previous: None,
        };
        let in_force = self.decision.in_force.as_ref();
        let kept = history.keep_next(record, revision, in_force, diff).await;
        history.note(kept);
        round.steps.push(StepTiming::new("history", start.elapsed()));
    }

    /// The revision that was kept last is in force.
    pub(super) fn history_in_force(&mut self) {
        if let Some(history) = &mut self.history {
            history.kept = history.next.take().or(history.kept.take());
        }
        self.tell_history();
    }

    /// What was known of the map before is of no use: another map was found.
    pub(super) fn history_is_other(&mut self) {
        if let Some(history) = &mut self.history {
            (history.kept, history.next) = (None, None);
        }
        self.tell_history();
    }

    fn tell_history(&mut self) {
        if let Some(history) = &self.history {
            let kept = history.kept.as_ref().map(|(revision, _)| Arc::clone(revision));
            self.decision.history = HistoryState { kept, error: history.error.clone() };
        }
    }
}

/// What led to a revision, in one word.
fn kind_of(said: &Said, causes: &[String]) -> RevisionKind {
    match causes.first().map(String::as_str) {
        _ if said.approved => RevisionKind::Approve,
        Some(BY_OVERRIDE) => RevisionKind::Override,
        Some(BY_OWNERSHIP) => RevisionKind::Ownership,
        Some(BY_REFERENCES) => RevisionKind::References,
        Some(BY_REMOVE_AFTER) => RevisionKind::RemoveAfter,
        _ => RevisionKind::Sources,
    }
}
