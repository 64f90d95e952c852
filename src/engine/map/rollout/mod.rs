//! Rollouts: a revision that is tried in a few instances before the map file has it. How one stands
//! is decided in `desired::rollout`; an order is in the store before anything acts on it, so that a
//! restart goes on where it was.
//!
//! The map file and the revision in force stay what is stable until a promotion is carried out, as
//! a rollback is: pending until the file has it. What the sources say waits meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::desired::guard::Window;
use mapsmith_core::desired::references::Targets;
use mapsmith_core::desired::rollout::{Plan, Rollout, RolloutError, Subject};
use mapsmith_core::history::{Fingerprint, Patch};
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::{EntryMap, Note, Overrides, Revision};
use metrics::gauge;

use super::compose::Said;
use super::hold::Ordered;
use super::{MapDecider, between};
use crate::engine::HoldOrderError;
use crate::store::{StoredRollout, Ways};
use crate::telemetry::{ROLLOUT_OPEN, ROLLOUT_STUCK};

mod canary;
mod orders;

/// How many rollouts that are over are shown.
const PAST: usize = 20;

/// What the last decision left of rollouts.
#[derive(Debug, Clone, Default)]
pub struct RolloutDecision {
    /// The latest, the newest first.
    pub rollouts: Arc<[Rollout]>,
    /// The canary's map, while instances should hold it.
    pub canary: Option<Arc<Revision>>,
    /// The masters in it.
    pub masters: Arc<BTreeSet<String>>,
    /// What the sources' answer would change of what is stable, where it waits behind a rollout.
    pub waiting: Option<ChangeCounts>,
}

impl RolloutDecision {
    /// The one that is not over.
    pub fn open(&self) -> Option<&Rollout> {
        self.rollouts.first().filter(|rollout| rollout.is_open())
    }
}

/// What a canary's map was made of.
#[derive(Debug, Clone)]
struct Ingredients {
    gone: Arc<GoneNodes>,
    overrides: Arc<Overrides>,
    targets: Vec<Arc<Targets>>,
    owned: Arc<EntryMap>,
}

impl Ingredients {
    fn are(&self, other: &Self) -> bool {
        let same_targets = self.targets.len() == other.targets.len()
            && self.targets.iter().zip(&other.targets).all(|(one, other)| Arc::ptr_eq(one, other));
        same_targets
            && (Arc::ptr_eq(&self.gone, &other.gone) || self.gone == other.gone)
            && self.overrides == other.overrides
            && (Arc::ptr_eq(&self.owned, &other.owned) || self.owned == other.owned)
    }
}

/// The rollout that is not over.
#[derive(Debug)]
struct Current {
    rollout: Rollout,
    plan: Plan,
    /// What the sources had said of it, and of what was in force before.
    base: Arc<EntryMap>,
    stable: Arc<EntryMap>,
    /// Its map, and what that was made of.
    made: Option<(Arc<Revision>, Ingredients)>,
    masters: Arc<BTreeSet<String>>,
}

impl Current {
    fn new(rollout: Rollout, plan: Plan, base: Arc<EntryMap>, stable: Arc<EntryMap>) -> Self {
        Self { rollout, plan, base, stable, made: None, masters: Arc::default() }
    }
}

/// The latest rollouts.
#[derive(Debug, Default)]
pub(in crate::engine) struct Rollouts {
    current: Option<Current>,
    /// Those that are over, the newest first.
    past: Vec<Rollout>,
    /// The highest number that the store knows to have been given.
    given: u64,
    /// Whether the store may have another state of the current one.
    pub unsaved: bool,
    /// What the sources' answer would change, and of which maps that was told.
    waiting: Option<(Arc<EntryMap>, Arc<EntryMap>, ChangeCounts)>,
    /// The whole change that is held as a candidate of the sources.
    pub held: Option<(String, Arc<EntryMap>)>,
}

impl Rollouts {
    fn open(&self) -> Option<&Current> {
        self.current.as_ref().filter(|current| current.rollout.is_open())
    }

    fn open_mut(&mut self) -> Option<&mut Current> {
        self.current.as_mut().filter(|current| current.rollout.is_open())
    }

    /// As the store keeps the current one.
    pub fn stored(&self) -> Option<StoredRollout> {
        let Current { rollout, plan, .. } = self.current.as_ref()?;
        Some(StoredRollout { rollout: rollout.clone(), plan: plan.clone(), ways: None })
    }

    /// A rollout that is over is no longer at hand as a map.
    fn retire(&mut self) {
        if let Some(current) = self.current.take_if(|current| !current.rollout.is_open()) {
            self.past.insert(0, current.rollout);
            self.past.truncate(PAST - 1);
        }
    }

    fn shown(&self) -> Arc<[Rollout]> {
        let current = self.current.iter().map(|current| &current.rollout);
        current.chain(&self.past).cloned().collect()
    }

    /// The highest number that is known to have been given to a map, a canary's or another.
    pub fn number(&self) -> u64 {
        let made = self.current.iter().filter_map(|it| Some(it.made.as_ref()?.0.number));
        let shown = self.current.iter().map(|it| &it.rollout).chain(&self.past);
        made.chain(shown.map(|rollout| rollout.revision)).fold(self.given, u64::max)
    }
}

impl MapDecider {
    /// Gives no number again that the store has seen: a map file can be lost, and what names a
    /// revision or a rollout must never come to mean another one.
    pub fn with_numbers_above(mut self, given: u64) -> Self {
        self.rollouts.given = given;
        self
    }

    /// Goes on with the rollouts of the store, the newest first.
    pub(in crate::engine) async fn go_on_with_rollouts(&mut self, stored: Vec<StoredRollout>) {
        let mut stored = stored.into_iter();
        let newest = stored.next();
        self.rollouts.past = stored.map(|stored| stored.rollout).take(PAST - 1).collect();
        let Some(StoredRollout { rollout, plan, ways }) = newest else { return };
        if !rollout.is_open() {
            self.rollouts.past.insert(0, rollout);
            return;
        }
        tracing::warn!(
            id = rollout.id,
            state = rollout.state.name(),
            "a rollout of the store goes on"
        );
        let bases = self.bases_of(&rollout, &plan, ways.unwrap_or_default()).await;
        let is_pending = rollout.is_promotion_pending();
        let is_rollback = matches!(rollout.subject, Subject::Rollback { .. });
        let (base, stable) = match bases {
            Some(bases) => bases,
            None => {
                let empty = Arc::<EntryMap>::default();
                let mut current = Current::new(rollout, plan, Arc::clone(&empty), empty);
                self.give_up(&mut current, Timestamp::now());
                (self.rollouts.current, self.rollouts.unsaved) = (Some(current), true);
                return;
            }
        };
        if is_pending && is_rollback {
            self.hold.pending = Some(Arc::clone(&base));
        }
        self.rollouts.current = Some(Current::new(rollout, plan, base, stable));
    }

    /// What the sources had said of a canary and of what was before it; none where what is in force
    /// is none of them, and the store has neither.
    async fn bases_of(
        &self,
        rollout: &Rollout,
        plan: &Plan,
        ways: Ways,
    ) -> Option<(Arc<EntryMap>, Arc<EntryMap>)> {
        let accepted = self.gate.accepted()?;
        let led = |blocks: &[Vec<u8>], to: Fingerprint| {
            let mut patch = Patch::default();
            blocks.iter().try_for_each(|block| patch.take(block)).ok()?;
            let map = patch.apply(accepted);
            (Fingerprint::of(&map) == to).then(|| Arc::new(map))
        };
        match Fingerprint::of(accepted) {
            found if found == plan.stable => {
                Some((led(&ways.forward, plan.canary)?, Arc::clone(accepted)))
            }
            found if found == plan.canary => {
                Some((Arc::clone(accepted), led(&ways.back, plan.stable)?))
            }
            _ => {
                rollout.in_force?;
                let (store, newest) = (self.hold.store()?, self.decision.in_force.clone()?);
                let stable = store.base_of(newest, rollout.stable).await.ok()?;
                let is_it = Fingerprint::of(&stable) == plan.stable;
                is_it.then(|| (Arc::clone(accepted), Arc::new(stable)))
            }
        }
    }

    /// The map that a rollout began beside is gone: what is in force stays.
    fn give_up(&self, current: &mut Current, now: Timestamp) {
        let rollout = &mut current.rollout;
        let why = "the map in force is another than the one that it began beside".to_owned();
        tracing::error!(id = rollout.id, "the rollout is over: {why}");
        match rollout.in_force.is_some() {
            true => rollout.end(why, now),
            false => {
                if let Ok(aborted) = rollout.abort(Note::default(), Some(why), now) {
                    *rollout = aborted;
                    rollout.note_in_force(0, now);
                }
            }
        }
    }

    /// Whether something else may come into force by an order: not while there is a canary.
    ///
    /// # Errors
    /// Its id.
    pub(in crate::engine) fn check_no_canary(&self) -> Result<(), HoldOrderError> {
        match self.rollouts.open().filter(|open| open.rollout.holds_sources()) {
            Some(open) => {
                let error = RolloutError::Another(open.rollout.id.clone());
                Err(HoldOrderError::Rollout(error))
            }
            None => Ok(()),
        }
    }

    /// An order takes the place of what is in force: the rollout that brought that is over.
    pub(in crate::engine) fn supersede_rollout(&mut self, now: Timestamp) {
        if let Some(current) = self.rollouts.open_mut()
            && !current.rollout.holds_sources()
        {
            current.rollout.end("another order took its place".to_owned(), now);
            self.rollouts.unsaved = true;
        }
    }

    /// Whether one is to be observed.
    pub(in crate::engine) fn watches_rollout(&self) -> bool {
        self.rollouts.open().is_some()
    }

    /// Whether what the sources say waits behind a rollout.
    pub(in crate::engine) fn rollout_holds_sources(&self) -> bool {
        self.rollouts.open().is_some_and(|open| open.rollout.holds_sources())
    }

    /// The map that an order about a rollout is to bring into force.
    pub(in crate::engine::map) fn pending_of_rollout(&self) -> Option<Said> {
        let Current { rollout, base, stable, .. } = self.rollouts.open()?;
        let (map, order) = match (&rollout.aborted, &rollout.subject) {
            (Some(verdict), _) => {
                (stable, Ordered::Abort { of: rollout.stable, note: verdict.note.clone() })
            }
            (None, Subject::Approve { .. }) if rollout.is_promotion_pending() => {
                (base, Ordered::Approved { note: rollout.note.clone() })
            }
            _ => return None,
        };
        let accepted = self.gate.accepted().filter(|accepted| *accepted == map);
        Some(Said {
            is_new: accepted.is_none(),
            passed: true,
            approved: true,
            order: Some(order),
            ..Said::again(Arc::clone(accepted.unwrap_or(map)))
        })
    }

    /// What was ordered is in force.
    pub(in crate::engine) fn note_rollout_in_force(&mut self, number: u64) {
        if let Some(current) = self.rollouts.open_mut() {
            current.rollout.note_in_force(number, Timestamp::now());
            self.rollouts.unsaved = true;
        }
        // What comes next is judged against this, and not as a return to what was before.
        self.window = Window::new(self.limits.window);
        self.flapping.forget();
    }

    /// The rollout of a map file that is another Mapsmith's by now, or was.
    pub(in crate::engine) fn check_rollouts_map(&mut self) {
        let (Some(accepted), None) = (self.gate.accepted().cloned(), &self.foreign) else { return };
        let Some(mut current) = self.rollouts.current.take() else { return };
        let is_before = current.rollout.is_canary();
        let is_stable = Arc::ptr_eq(&accepted, &current.stable) || accepted == current.stable;
        // Where it was pending when Mapsmith ended, the file may have it.
        let is_pending = current.rollout.is_promotion_pending() && accepted == current.base;
        if is_before && !is_stable && !is_pending {
            self.give_up(&mut current, Timestamp::now());
            self.rollouts.unsaved = true;
        }
        self.rollouts.current = Some(current);
    }

    /// The change of the sources that a hold is of, whole.
    pub(in crate::engine) fn note_held_base(&mut self, base: &Arc<EntryMap>) {
        let held = self.gate.held().map(|held| (held.id.clone(), Arc::clone(base)));
        self.rollouts.held = held;
    }

    pub(in crate::engine) fn tell_rollouts(&mut self) {
        if self.gate.held().is_none() {
            self.rollouts.held = None;
        }
        self.rollouts.retire_told();
        let waiting = self.waiting_behind();
        let canary = self.canary();
        let masters = self.rollouts.open().filter(|_| canary.is_some());
        let masters = masters.map(|open| Arc::clone(&open.masters)).unwrap_or_default();
        let rollouts = self.rollouts.shown();
        self.decision.rollout = RolloutDecision { rollouts, canary, masters, waiting };
    }

    /// What the sources' answer would change, where it is another one than that which the rollout
    /// began beside and than what it brings.
    fn waiting_behind(&mut self) -> Option<ChangeCounts> {
        let holds = |open: &&Current| open.rollout.holds_sources();
        // The id of an answer is a look at all of it.
        self.rollouts.open().filter(holds)?;
        let answer = self.hold_answer()?;
        let id = self.answer_id()?;
        let open = self.rollouts.open().filter(holds)?;
        let is_known = open.plan.answer == id || answer == open.base || answer == open.stable;
        let stable = Arc::clone(&open.stable);
        if is_known {
            return None;
        }
        if let Some((from, to, counts)) = &self.rollouts.waiting
            && Arc::ptr_eq(from, &stable)
            && Arc::ptr_eq(to, &answer)
        {
            return Some(*counts);
        }
        let counts = between(&stable, &answer).counts();
        self.rollouts.waiting = Some((stable, answer, counts));
        Some(counts)
    }

    pub(in crate::engine) fn record_rollout(&self) {
        let open = self.rollouts.open().map(|open| &open.rollout);
        gauge!(ROLLOUT_OPEN).set(f64::from(u8::from(open.is_some())));
        let stuck = open.is_some_and(Rollout::needs_a_person);
        gauge!(ROLLOUT_STUCK).set(f64::from(u8::from(stuck)));
    }
}

impl Rollouts {
    /// One that is over and stored goes to those of before.
    fn retire_told(&mut self) {
        if !self.unsaved {
            self.retire();
        }
    }
}
