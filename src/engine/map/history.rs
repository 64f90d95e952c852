//! What is kept of each revision: before the map file has it, and never in its way.
//!
//! A revision whose change can't be kept comes into force all the same, and is kept as soon as it can
//! be. Where another one comes first, that is kept as a change of the last that was: so one is
//! missing, and all the others can be had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mapsmith_core::history::{self, Fingerprint, RevisionKind, RevisionRecord};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::StepTiming;
use mapsmith_core::{EntryMap, Note, Revision};

use self::late::{Answer, Asked, Late};
use super::compose::Said;
use super::hold::Ordered;
use super::{
    BY_OVERRIDE, BY_OWNERSHIP, BY_REFERENCES, BY_REMOVE_AFTER, Evaluation, MapDecider, between,
};
use crate::store::{HistoryStore, KeptRevision};

mod late;

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

/// A revision that is kept.
#[derive(Clone)]
struct Kept {
    revision: Arc<Revision>,
    fingerprint: Fingerprint,
    /// The revision that is kept with what lies over the sources' answer in this one, and what
    /// tells that from others; none where it is not known.
    overlay: Option<(u64, Fingerprint)>,
}

/// Keeps revisions.
pub(super) struct History {
    store: Arc<dyn HistoryStore>,
    kept: Option<Kept>,
    /// The one that is kept, and not in force yet.
    next: Option<Kept>,
    /// The record of one that could not be kept.
    missed: Option<RevisionRecord>,
    error: Option<String>,
    /// What did not end in time: nothing else is asked of the store meanwhile.
    late: Option<Late>,
    /// How long the store may take.
    pub bound: Duration,
}

/// What leads from a revision's map to the sources' answer under it.
#[derive(Default)]
struct Overlay {
    /// The revision that is kept with it.
    of: u64,
    mark: Fingerprint,
    /// Nothing where that is an older one.
    blocks: Vec<Vec<u8>>,
}

impl Overlay {
    /// The one of a revision after `before`.
    fn new(before: Option<&Kept>, number: u64, base: &Arc<EntryMap>, map: &Arc<EntryMap>) -> Self {
        let diff = between(base, map);
        let mark = Fingerprint::of_overlay(&diff, base, map);
        match before.and_then(|before| before.overlay).filter(|(_, known)| *known == mark) {
            Some((of, _)) => Self { of, mark, blocks: Vec::new() },
            None => Self { of: number, mark, blocks: history::encode(&diff, base, map) },
        }
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("History").field("error", &self.error).finish_non_exhaustive()
    }
}

impl History {
    pub(super) fn new(store: Arc<dyn HistoryStore>) -> Self {
        let (kept, next, missed) = (None, None, None);
        Self { store, kept, next, missed, error: None, late: None, bound: BOUND }
    }

    /// Whether the revision of this number is the one that was kept last.
    fn keeps(&self, number: u64) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.revision.number == number)
    }

    /// Keeps a revision, within a bound: then it is this.
    async fn keep(&mut self, revision: KeptRevision, asked: Asked) -> Result<(), String> {
        let store = Arc::clone(&self.store);
        let work = async move { store.keep_revision(revision).await.map(|()| None) };
        self.bounded(work, asked).await.map(drop)
    }

    /// Goes on from what is kept of the revision in force, and since when it was in force; where it
    /// is not kept, or another one, it is kept as found. What is kept beyond it never came into
    /// force, and the next one takes its place.
    async fn go_on_from(
        &mut self,
        in_force: &Arc<Revision>,
        base: &Arc<EntryMap>,
        late: Option<(Asked, Answer)>,
    ) -> Result<Option<Timestamp>, String> {
        let number = in_force.number;
        let known = match late {
            Some((Asked::WhatIsKept(of), known)) if of == number => known,
            _ => {
                let store = Arc::clone(&self.store);
                let work = async move { store.fingerprint_of(number).await };
                self.bounded(work, Asked::WhatIsKept(number)).await?
            }
        };
        let map = Arc::clone(&in_force.entries);
        let fingerprint = tokio::task::spawn_blocking(move || Fingerprint::of(&map)).await;
        let fingerprint = fingerprint.map_err(|error| format!("the map can't be read: {error}"))?;
        let Some((_, at)) = known.filter(|(known, _)| *known == fingerprint) else {
            self.keep_found(in_force, base, fingerprint).await?;
            return Ok(None);
        };
        let revision = Arc::clone(in_force);
        self.kept = Some(Kept { revision, fingerprint, overlay: None });
        Ok(Some(at))
    }

    /// Keeps what is in force where nothing before it is known. `base` is what the sources had
    /// said.
    async fn keep_found(
        &mut self,
        revision: &Arc<Revision>,
        base: &Arc<EntryMap>,
        fingerprint: Fingerprint,
    ) -> Result<(), String> {
        let overlay = Overlay::new(None, revision.number, base, &revision.entries);
        let record = RevisionRecord {
            number: revision.number,
            at: revision.at,
            kind: RevisionKind::Found,
            note: Note::default(),
            sources: Vec::new(),
            entries: revision.entries.len(),
            counts: ChangeCounts::default(),
            previous: None,
            rollback_of: None,
            base: Some(overlay.of),
        };
        let kept = Kept {
            revision: Arc::clone(revision),
            fingerprint,
            overlay: Some((overlay.of, overlay.mark)),
        };
        let asked = Asked::to_keep(&kept, base, true);
        let (blocks, base) = (Vec::new(), overlay.blocks);
        self.keep(KeptRevision { record, fingerprint, blocks, base }, asked).await?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Keeps a revision that is about to come into force. `diff` leads to it from the map in force;
    /// `bases` are what the sources had said, of that map and of this one.
    async fn keep_next(
        &mut self,
        mut record: RevisionRecord,
        revision: &Arc<Revision>,
        in_force: Option<&Arc<Revision>>,
        diff: &Diff,
        bases: [&Arc<EntryMap>; 2],
    ) -> Result<(), String> {
        self.next = None;
        self.take_late().await?;
        if let (None, Some(found)) = (&self.kept, in_force) {
            self.keep_found(found, bases[0], Fingerprint::of(&found.entries)).await?;
        }
        let (before, number) = (self.kept.clone(), record.number);
        record.previous = before.as_ref().map(|before| before.revision.number);
        let (new, base) = (Arc::clone(&revision.entries), Arc::clone(bases[1]));
        let old = before.as_ref().map(|before| Arc::clone(&before.revision.entries));
        let is_known = in_force.zip(old).is_some_and(|(map, old)| Arc::ptr_eq(&map.entries, &old));
        let known = is_known.then(|| diff.clone());
        let encoded = tokio::task::spawn_blocking(move || {
            let overlay = Overlay::new(before.as_ref(), number, &base, &new);
            let Some(before) = before else {
                return (Vec::new(), Fingerprint::of(&new), overlay);
            };
            let old = &before.revision.entries;
            let diff = known.unwrap_or_else(|| between(old, &new));
            let fingerprint = before.fingerprint.after(&diff, old, &new);
            (history::encode(&diff, old, &new), fingerprint, overlay)
        });
        let (blocks, fingerprint, overlay) =
            encoded.await.map_err(|error| format!("the change can't be packed: {error}"))?;
        record.base = Some(overlay.of);
        let kept = Kept {
            revision: Arc::clone(revision),
            fingerprint,
            overlay: Some((overlay.of, overlay.mark)),
        };
        let asked = Asked::to_keep(&kept, bases[1], false);
        self.keep(KeptRevision { record, fingerprint, blocks, base: overlay.blocks }, asked)
            .await?;
        self.next = Some(kept);
        Ok(())
    }

    /// The sources say something else by now, and the map stays as it is.
    async fn keep_base(&mut self, in_force: &Revision, base: Arc<EntryMap>) -> Result<(), String> {
        self.take_late().await?;
        let number = in_force.number;
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.revision.number == number) else {
            return Ok(());
        };
        kept.overlay = None;
        let mut kept = kept.clone();
        let (map, said) = (Arc::clone(&in_force.entries), Arc::clone(&base));
        let encoded = tokio::task::spawn_blocking(move || Overlay::new(None, number, &said, &map));
        let overlay =
            encoded.await.map_err(|error| format!("what was said can't be packed: {error}"))?;
        kept.overlay = Some((number, overlay.mark));
        let (store, asked) = (Arc::clone(&self.store), Asked::to_keep(&kept, &base, true));
        let work = async move { store.keep_base(number, overlay.blocks).await.map(|()| None) };
        self.bounded(work, asked).await?;
        self.kept = Some(kept);
        Ok(())
    }

    /// Keeps the revision in force, where that failed before, unless the store has done it since.
    async fn keep_missed(
        &mut self,
        in_force: &Arc<Revision>,
        base: &Arc<EntryMap>,
    ) -> Result<(), String> {
        let late = self.take_late().await?;
        if self.keeps(in_force.number) {
            return match late.is_some_and(|(asked, _)| asked.is_with(base)) {
                true => Ok(()),
                false => self.keep_base(in_force, Arc::clone(base)).await,
            };
        }
        let Some(record) = self.missed.clone().filter(|_| self.kept.is_some()) else {
            return self.go_on_from(in_force, base, late).await.map(drop);
        };
        // It may have come into force under another number.
        let record = RevisionRecord { number: in_force.number, at: in_force.at, ..record };
        let kept = self.keep_next(record, in_force, None, &Diff::default(), [base, base]).await;
        self.in_force(in_force);
        kept
    }

    /// What is kept of this revision, or will be once the store has done it, counts: it is in force.
    fn in_force(&mut self, revision: &Arc<Revision>) {
        self.kept = self.next.take().or(self.kept.take());
        if let Some(late) = &mut self.late {
            late.in_force(revision);
        }
    }

    /// Takes in how keeping went. One line for each change of it.
    fn note(&mut self, kept: Result<(), String>) {
        let error = kept.err();
        match (&self.error, &error) {
            (None, Some(error)) => tracing::error!(
                "a revision could not be kept: {error}; it comes into force all the same, and is \
                    tried again until another one does"
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
    pub async fn with_history(self, store: Arc<dyn HistoryStore>) -> Self {
        self.keeping_in(History::new(store)).await
    }

    pub(super) async fn keeping_in(mut self, mut history: History) -> Self {
        if let Some(in_force) = self.decision.in_force.clone().filter(|_| self.decision.active) {
            let base = self.gate.accepted().unwrap_or(&in_force.entries);
            let goes_on = history.go_on_from(&in_force, base, None).await;
            if let Ok(Some(at)) = goes_on {
                self.in_force_since(at);
            }
            history.note(goes_on.map(drop));
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
        let note = match &said.order {
            Some(order) => order.note().clone(),
            None if said.approved => self.approval.clone(),
            None if by_order => round.overrides.note().clone(),
            None => registered_by(round, causes, self.registered),
        };
        let record = RevisionRecord {
            number: revision.number,
            at: revision.at,
            kind: kind_of(said, causes),
            note,
            sources: causes.to_vec(),
            entries: revision.entries.len(),
            counts: diff.counts(),
            previous: None,
            rollback_of: said.order.as_ref().and_then(Ordered::of),
            base: None,
        };
        let in_force = self.decision.in_force.as_ref();
        let before = self.gate.accepted().or(in_force.map(|revision| &revision.entries));
        let bases = [before.unwrap_or(&said.map), &said.map];
        let kept = history.keep_next(record.clone(), revision, in_force, diff, bases).await;
        history.missed = kept.is_err().then_some(record);
        history.note(kept);
        round.steps.push(StepTiming::new("history", start.elapsed()));
    }

    /// Whether what is in force is to be kept once more, for it could not be.
    pub(super) fn history_is_unsettled(&self) -> bool {
        self.decision.active && self.history.as_ref().is_some_and(|history| history.error.is_some())
    }

    /// Keeps the revision in force, where that failed before.
    pub(super) async fn keep_what_was_missed(&mut self) {
        let (Some(in_force), true) = (self.decision.in_force.clone(), self.history_is_unsettled())
        else {
            return;
        };
        let base = self.gate.accepted().unwrap_or(&in_force.entries).clone();
        let Some(history) = &mut self.history else { return };
        let kept = history.keep_missed(&in_force, &base).await;
        history.note(kept);
        self.tell_history();
    }

    /// Keeps what the sources say by now beside a map that stays as it is.
    pub(super) async fn keep_base_in_history(&mut self, in_force: &Revision, said: &Arc<EntryMap>) {
        let is_of = |history: &&mut History| history.keeps(in_force.number);
        // One that is missed is kept with what the sources say when it can be.
        let Some(history) = self.history.as_mut().filter(is_of) else { return };
        let kept = history.keep_base(in_force, Arc::clone(said)).await;
        history.note(kept);
        self.tell_history();
    }

    /// The revision that was kept last is in force.
    pub(super) fn history_in_force(&mut self) {
        if let (Some(history), Some(revision)) = (&mut self.history, &self.decision.in_force) {
            history.in_force(revision);
        }
        self.tell_history();
    }

    /// What was known of the map before is of no use: another map was found.
    pub(super) fn history_is_other(&mut self) {
        if let Some(history) = &mut self.history {
            (history.kept, history.next) = (None, None);
            history.late.iter_mut().for_each(Late::forget);
        }
        self.tell_history();
    }

    fn tell_history(&mut self) {
        if let Some(history) = &self.history {
            let kept = history.kept.as_ref().map(|kept| Arc::clone(&kept.revision));
            self.decision.history = HistoryState { kept, error: history.error.clone() };
        }
    }
}

/// Who registered and unregistered nodes since the change of this number, and why, where that is
/// one of the causes.
fn registered_by(round: &Evaluation<'_>, causes: &[String], since: u64) -> Note {
    let mut sources = round.sources.iter().filter(|source| source.registered.is_some());
    let source = sources.find(|source| causes.contains(&source.status.name));
    source.map(|source| source.authors.since(since)).unwrap_or_default()
}

/// What led to a revision, in one word.
fn kind_of(said: &Said, causes: &[String]) -> RevisionKind {
    match causes.first().map(String::as_str) {
        _ if said.order.as_ref().and_then(Ordered::of).is_some() => RevisionKind::Rollback,
        _ if said.approved => RevisionKind::Approve,
        Some(BY_OVERRIDE) => RevisionKind::Override,
        Some(BY_OWNERSHIP) => RevisionKind::Ownership,
        Some(BY_REFERENCES) => RevisionKind::References,
        Some(BY_REMOVE_AFTER) => RevisionKind::RemoveAfter,
        _ => RevisionKind::Sources,
    }
}
