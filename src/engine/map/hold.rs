//! Rollbacks, the hold that they leave, and answers that an operator rejected. What becomes of the
//! sources' answers is decided in `desired::hold`; an order is in the store before anything acts on
//! it, so that a restart goes on where it was.
//!
//! A rollback is an order: the guard does not judge it. It is pending until the map file has it,
//! and a start that finds it pending carries it out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::hold::{Course, HoldError, HoldState, Rollback};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::{EntryMap, Note, Revision};
use metrics::gauge;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::compose::Said;
use super::{MapDecider, between, id_of};
use crate::engine::{HoldOrderError, MapPreview};
use crate::store::{AuditTicket, HoldStore, StoreError, StoredRollout};
use crate::telemetry::{HOLD_END, HOLD_LASTING, HOLD_OVER};

/// How long a decision waits for the store.
const STORE_BOUND: Duration = Duration::from_secs(5);
/// The longest sleep until a hold's end: the clock may be set meanwhile.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// What keeps the sources' answers from being applied, as the last decision left it.
#[derive(Debug, Clone, Default)]
pub struct HoldDecision {
    pub state: HoldState,
    /// What the sources' answer would change of the last that was accepted, while there is a hold.
    pub waiting: ChangeCounts,
    /// Why it could not be stored: a restart would not know the latest of it.
    pub error: Option<String>,
}

/// The order that a map comes from; `of` is the revision that it goes back to.
#[derive(Debug, Clone)]
pub(super) enum Ordered {
    Rollback {
        of: u64,
        note: Note,
    },
    /// A rollout's end, which had gone everywhere.
    Abort {
        of: u64,
        note: Note,
    },
    /// A held change that was tried in a canary.
    Approved {
        note: Note,
    },
}

impl Ordered {
    pub fn of(&self) -> Option<u64> {
        match self {
            Self::Rollback { of, .. } | Self::Abort { of, .. } => Some(*of),
            Self::Approved { .. } => None,
        }
    }

    pub fn note(&self) -> &Note {
        match self {
            Self::Rollback { note, .. } | Self::Abort { note, .. } | Self::Approved { note } => {
                note
            }
        }
    }
}

/// A map with what names exactly it.
#[derive(Debug, Default)]
struct Named(Option<(Arc<EntryMap>, String)>);

impl Named {
    fn id(&mut self, map: &Arc<EntryMap>) -> String {
        match &self.0 {
            Some((known, id)) if Arc::ptr_eq(known, map) => id.clone(),
            _ => self.0.insert((Arc::clone(map), id_of(map))).1.clone(),
        }
    }
}

/// The hold, and where it is kept.
#[derive(Default)]
pub(super) struct SourceHold {
    pub state: HoldState,
    /// None where nothing is written.
    store: Option<Arc<dyn HoldStore>>,
    /// Whether the store may have another state.
    unsaved: bool,
    error: Option<String>,
    /// A write that did not end in time: until it ends none is begun, or it might come after a
    /// newer one.
    late: Option<JoinHandle<Result<(), StoreError>>>,
    /// What a rollback goes back to that is not in force.
    pub pending: Option<Arc<EntryMap>>,
    /// What the sources say.
    answer: Option<Arc<EntryMap>>,
    names: [Named; 2],
    /// What lies between two maps.
    waiting: Option<(Arc<EntryMap>, Arc<EntryMap>, ChangeCounts)>,
}

impl std::fmt::Debug for SourceHold {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SourceHold").field("state", &self.state).finish_non_exhaustive()
    }
}

impl SourceHold {
    /// Where it is kept.
    pub fn store(&self) -> Option<&Arc<dyn HoldStore>> {
        self.store.as_ref()
    }

    /// What changed by itself could not be stored. One line for each reason.
    pub fn failed(&mut self, error: &HoldOrderError) {
        let error = match error {
            HoldOrderError::NotStored(why) => why.clone(),
            error => error.to_string(),
        };
        if self.error.as_ref() != Some(&error) {
            tracing::error!("how a rollback or a rollout stands can't be stored: {error}");
        }
        self.error = Some(error);
    }

    /// Keeps a state, with that of a rollout, within a bound; only then it counts.
    pub async fn change(
        &mut self,
        state: HoldState,
        rollout: Option<StoredRollout>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), HoldOrderError> {
        let kept = self.keep(&state, rollout, ticket).await;
        if let Err(error) = kept {
            // What was given up may be written all the same.
            self.unsaved = true;
            return Err(error);
        }
        (self.state, self.unsaved, self.error) = (state, false, None);
        Ok(())
    }

    async fn keep(
        &mut self,
        state: &HoldState,
        rollout: Option<StoredRollout>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), HoldOrderError> {
        let failed = |error: &dyn std::fmt::Display| HoldOrderError::NotStored(error.to_string());
        let store = self.store.clone().ok_or(HoldOrderError::NoStore)?;
        if self.late.as_ref().is_some_and(|late| !late.is_finished()) {
            return Err(failed(&"the store has not taken an earlier change yet"));
        }
        let state = state.clone();
        let mut work = tokio::spawn(async move { store.keep_hold(state, rollout, ticket).await });
        match timeout(STORE_BOUND, &mut work).await {
            Ok(Ok(done)) => done.map_err(|error| failed(&error)),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => {
                self.late = Some(work);
                Err(failed(&format!("the store gives no answer within {STORE_BOUND:?}")))
            }
        }
    }
}

impl MapDecider {
    /// Goes on with what keeps the sources' answers from being applied. A rollback that was ordered
    /// and is not in force is carried out with the first decision, and so is what was ordered of a
    /// rollout. Without a `store` nothing is written.
    pub async fn with_source_hold(
        mut self,
        state: HoldState,
        rollouts: Vec<StoredRollout>,
        store: Option<Arc<dyn HoldStore>>,
    ) -> Self {
        if let Some(hold) = &state.hold {
            let until = hold.until.map(tracing::field::display);
            let (of, by) = (hold.of, hold.note.by.as_deref());
            tracing::warn!(of, until, by, "a rollback of the store holds the sources back");
        }
        self.window.recall(&state.window, self.clock.elapsed(), Timestamp::now());
        self.gate.recall(state.held_since);
        self.hold = SourceHold { state, store, ..SourceHold::default() };
        self.go_on_with_rollouts(rollouts).await;
        let pending = self.hold.state.hold.as_ref().filter(|hold| hold.revision.is_none());
        let pending = pending.filter(|_| self.hold.pending.is_none());
        if let (Some(of), Some(store), Some(newest)) = (
            pending.map(|hold| hold.of),
            self.hold.store.clone(),
            self.decision.in_force.clone().filter(|_| self.decision.active),
        ) {
            match store.base_of(newest, of).await {
                Ok(base) => self.hold.pending = Some(Arc::new(base)),
                Err(error) => tracing::error!(
                    of,
                    "the rollback was ordered, was not in force when Mapsmith ended, and can't be \
                        made: {error}; the sources are held back all the same: order it again, or \
                        resume"
                ),
            }
        }
        self.tell_hold();
        self.tell_rollouts();
        self
    }

    /// Takes a rollback: stored, and in force with the next decision. `base` is what the sources
    /// had said at that revision, `expected` the revision that whoever orders it takes for the one
    /// in force. The map before it.
    ///
    /// # Errors
    /// It is not the one in force, another rollback holds the sources back, another Mapsmith
    /// decides, nothing is in force, or the store did not take it.
    pub(in crate::engine) async fn roll_back(
        &mut self,
        rollback: Rollback,
        base: Arc<EntryMap>,
        expected: u64,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Arc<Revision>, HoldOrderError> {
        let before = self.expected(Some(expected))?;
        self.check_no_canary()?;
        let answer = self.answer_id().ok_or(HoldOrderError::NotReady)?;
        let now = Timestamp::now();
        let state = self.hold.state.rolled_back(rollback, answer, now);
        let state = state.map_err(HoldOrderError::Refused)?;
        self.supersede_rollout(now);
        let rollout = self.rollouts.stored().filter(|_| self.rollouts.unsaved);
        self.hold.change(state, rollout, ticket).await?;
        self.hold.pending = Some(base);
        // What was held is what was rolled back from.
        self.gate.settle();
        Ok(before)
    }

    /// What a rollback would bring into force now, and the map before it.
    ///
    /// # Errors
    /// As a rollback.
    pub(in crate::engine) fn preview_rollback(
        &self,
        rollback: Rollback,
        base: &Arc<EntryMap>,
        expected: u64,
    ) -> Result<MapPreview, HoldOrderError> {
        let before = self.expected(Some(expected))?;
        self.check_no_canary()?;
        let possible = self.hold.state.rolled_back(rollback, String::new(), Timestamp::now());
        possible.map_err(HoldOrderError::Refused)?;
        let mut gone = (*self.gone).clone();
        gone.forget(base);
        let (overridden, dangling) = self.with_overrides(base, &gone, &self.overrides);
        let left = dangling.leave_out(&overridden.entries, self.actions);
        Ok(MapPreview { before, after: left.map_or(overridden.entries, Arc::new) })
    }

    /// Follows the sources again from the next decision on.
    ///
    /// # Errors
    /// They are followed, or the store did not take it; `expected` is not the revision in force.
    pub(in crate::engine) async fn resume(
        &mut self,
        expected: Option<u64>,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<(), HoldOrderError> {
        self.expected(expected)?;
        self.check_no_canary()?;
        let state = self.hold.state.resumed().map_err(HoldOrderError::Refused)?;
        self.hold.change(state, None, ticket).await?;
        self.hold.pending = None;
        self.gate.settle();
        Ok(())
    }

    /// Why a rollback that was taken is not in force after a decision, if it is not.
    pub(in crate::engine) fn outcome_of_rollback(&self) -> Result<(), String> {
        match (&self.hold.pending, &self.file.error) {
            (None, _) => Ok(()),
            (Some(_), Some(error)) => Err(error.clone()),
            (Some(_), None) => Err("the map waits for an instance".to_owned()),
        }
    }

    /// The revision in force, where it is the one that somebody expects.
    pub(super) fn expected(&self, expected: Option<u64>) -> Result<Arc<Revision>, HoldOrderError> {
        if let Some(writer) = &self.foreign {
            return Err(HoldOrderError::ReadOnly(writer.to_string()));
        }
        let in_force = self.decision.in_force.clone().filter(|_| self.decision.active);
        let in_force = in_force.ok_or(HoldOrderError::NotReady)?;
        match expected {
            Some(expected) if expected != in_force.number => {
                Err(HoldOrderError::Changed { expected, in_force: in_force.number })
            }
            _ => Ok(in_force),
        }
    }

    /// What names the sources' answer; before they have answered the last that was accepted.
    pub(super) fn answer_id(&mut self) -> Option<String> {
        let answer = self.hold.answer.clone().or_else(|| self.gate.accepted().cloned())?;
        Some(self.hold.names[0].id(&answer))
    }

    /// What the sources say; none before they have answered.
    pub(super) fn hold_answer(&self) -> Option<Arc<EntryMap>> {
        self.hold.answer.clone()
    }

    /// The map that an order is to bring into force, and has not.
    pub(super) fn pending_order(&self) -> Option<Said> {
        self.pending_rollback().or_else(|| self.pending_of_rollout())
    }

    fn pending_rollback(&self) -> Option<Said> {
        let (base, hold) = (self.hold.pending.as_ref()?, self.hold.state.hold.as_ref()?);
        let accepted = self.gate.accepted().filter(|accepted| *accepted == base);
        Some(Said {
            is_new: accepted.is_none(),
            passed: true,
            approved: true,
            order: Some(Ordered::Rollback { of: hold.of, note: hold.note.clone() }),
            ..Said::again(Arc::clone(accepted.unwrap_or(base)))
        })
    }

    /// Notes what the sources say, and what time it is.
    pub(super) fn note_answer(&mut self, answer: Option<&Arc<EntryMap>>, at: Timestamp) {
        self.hold.answer = answer.cloned();
        let before = self.hold.state.clone();
        self.hold.state.expire(at);
        self.note_hold_since(&before);
    }

    /// What becomes of the sources' answer.
    pub(super) fn course(&mut self, answer: &Arc<EntryMap>, at: Timestamp) -> Course {
        let (state, course) = self.course_and_state(answer, at);
        let before = std::mem::replace(&mut self.hold.state, state);
        self.note_hold_since(&before);
        course
    }

    /// The same, and what of a hold is left then; nothing is changed.
    pub(super) fn course_and_state(
        &mut self,
        answer: &Arc<EntryMap>,
        at: Timestamp,
    ) -> (HoldState, Course) {
        let mut state = self.hold.state.clone();
        if state.follows() {
            return (state, Course::Follow);
        }
        let [answers, accepted] = &mut self.hold.names;
        let (answer, accepted) =
            (answers.id(answer), self.gate.accepted().map(|map| accepted.id(map)));
        let course = state.observe(&answer, accepted.as_deref(), at);
        (state, course)
    }

    fn note_hold_since(&mut self, before: &HoldState) {
        if self.hold.state == *before {
            return;
        }
        self.hold.unsaved = true;
        if let (Some(hold), Some(_)) = (&self.hold.state.hold, before.lasting())
            && let Some(end) = hold.ended
        {
            tracing::warn!(
                of = hold.of,
                why = ?end.why,
                "the hold of a rollback is over: what the sources say from now on is a held \
                    change; approve or reject it, or resume"
            );
        }
    }

    /// What was ordered is in force, or what was held is by an approval.
    pub(super) fn note_order_in_force(&mut self, order: Option<&Ordered>, approved: bool) {
        let before = self.hold.state.clone();
        if order.is_some() && self.file.error.is_some() {
            // The map is the same, and a start would not know that it is what was ordered.
            return;
        }
        let number = self.decision.in_force.as_ref().map_or(0, |revision| revision.number);
        if order.is_some() {
            // What was rolled back from is judged like any answer once somebody resumes, and not as
            // a return to what was in force.
            self.note_rollout_in_force(number);
        }
        match order {
            Some(Ordered::Rollback { .. }) => {
                self.hold.pending = None;
                self.hold.state.note_in_force(number);
            }
            Some(Ordered::Approved { .. }) => self.hold.state.note_approved(),
            Some(Ordered::Abort { .. }) => {}
            None if approved => self.hold.state.note_approved(),
            None => {}
        }
        self.hold.unsaved |= self.hold.state != before;
    }

    /// Notes what a start must know to hold what the guard holds now, or held before it was
    /// rejected: the rejection ends with the next other answer. Before the sources have answered
    /// nothing is known of that.
    fn note_window(&mut self, now: Duration, at: Timestamp) {
        if self.hold.answer.is_none() || self.foreign.is_some() {
            return;
        }
        let held_since = self.gate.held().map(|held| held.since);
        self.hold.unsaved |= self.hold.state.held_since != held_since;
        self.hold.state.held_since = held_since;
        let is_noted = !self.hold.state.window.is_empty();
        let is_held = held_since.is_some() || self.hold.state.rejected_change().is_some();
        if is_held == is_noted {
            return;
        }
        let window = if is_noted { Vec::new() } else { self.window.past(now, at) };
        self.hold.unsaved |= is_noted || !window.is_empty();
        self.hold.state.window = window;
    }

    /// Stores what changed by itself.
    pub(super) async fn save_hold(&mut self, now: Duration, at: Timestamp) {
        self.note_window(now, at);
        if self.hold_is_unsettled() {
            let state = self.hold.state.clone();
            let rollout = self.rollouts.stored().filter(|_| self.rollouts.unsaved);
            match self.hold.change(state, rollout, None).await {
                Ok(()) => self.rollouts.unsaved = false,
                Err(error) => self.hold.failed(&error),
            }
        }
        self.tell_hold();
        self.tell_rollouts();
    }

    fn tell_hold(&mut self) {
        let answer = self.hold.answer.clone().filter(|_| self.hold.state.hold.is_some());
        let waiting = match answer.zip(self.gate.accepted().cloned()) {
            None => ChangeCounts::default(),
            Some((answer, accepted)) => match &self.hold.waiting {
                Some((from, to, counts))
                    if Arc::ptr_eq(from, &accepted) && Arc::ptr_eq(to, &answer) =>
                {
                    *counts
                }
                _ => {
                    let diff: Diff = between(&accepted, &answer);
                    self.hold.waiting.insert((accepted, answer, diff.counts())).2
                }
            },
        };
        let (state, error) = (self.hold.state.clone(), self.hold.error.clone());
        self.decision.hold = HoldDecision { state, waiting, error };
    }

    pub(super) fn record_hold(&self) {
        let HoldState { hold, .. } = &self.hold.state;
        let lasts = self.hold.state.lasting().is_some();
        gauge!(HOLD_LASTING).set(f64::from(u8::from(lasts)));
        gauge!(HOLD_OVER).set(f64::from(u8::from(hold.is_some() && !lasts)));
        let end = self.hold.state.next_end().map_or(0, |end| end.as_second());
        gauge!(HOLD_END).set(end as f64);
    }

    /// Whether something of it is to be tried again.
    pub(super) fn hold_is_unsettled(&self) -> bool {
        (self.hold.unsaved || self.rollouts.unsaved) && self.hold.store.is_some()
    }

    /// When the hold's time is over, or the clock is to be looked at again.
    pub(super) fn hold_due(&self) -> Option<tokio::time::Instant> {
        let left = self.hold.state.next_end()?.duration_since(Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        Some(match left.is_zero() {
            // Due whatever moment it is compared with.
            true => tokio::time::Instant::from_std(self.clock),
            false => tokio::time::Instant::now() + left.min(CLOCK_CHECK_INTERVAL),
        })
    }

    /// Whether what is held may be approved.
    pub(super) fn check_hold(&self) -> Result<(), HoldError> {
        self.hold.state.check_approval()
    }
}
