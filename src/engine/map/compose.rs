//! From what the sources said to the map that is desired: the guard, overrides, references, and
//! rows that a HAProxy refuses.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use mapsmith_core::desired::gate::{Hold, Verdict};
use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::desired::hold::Course;
use mapsmith_core::desired::overrides::{self, Overridden};
use mapsmith_core::desired::ownership::Ownership;
use mapsmith_core::desired::references::{Dangling, Targets};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::StepTiming;
use mapsmith_core::{EntryMap, HeldChange, Overrides, RejectedRows};

use super::hold::Ordered;
use super::{Evaluation, MapDecider, between, guard, id_of};
use crate::engine::record_hold;

/// What stays in force while a change of the map is held.
const SUBJECT: &str = "map";

/// What the sources said and the guard let through, or the last that it did.
pub(super) struct Said {
    pub map: Arc<EntryMap>,
    /// Whether the guard let what the sources say now through; false where this is an older answer,
    /// or a part of theirs.
    pub passed: bool,
    /// Whether it differs from the last that was let through.
    pub is_new: bool,
    /// Whether it took an approval.
    pub approved: bool,
    /// The way there from the map in force, where it is known: without overrides the guard has
    /// asked for it.
    pub change: Option<Diff>,
    /// What the guard remembers of it once it is in force; none where nothing is new.
    pub passing: Option<guard::Passing>,
    /// The nodes that are gone and stay once it is in force.
    pub gone: Arc<GoneNodes>,
    /// The order that it comes from; none where the sources say it.
    pub order: Option<Ordered>,
}

impl Said {
    /// What was let through before, once more.
    pub fn again(map: Arc<EntryMap>) -> Self {
        Self {
            map,
            passed: false,
            is_new: false,
            approved: false,
            change: None,
            passing: None,
            gone: Arc::default(),
            order: None,
        }
    }
}

/// A desired map on its way into force.
pub(super) struct Composed {
    /// What the sources said.
    pub said: Said,
    /// With overrides, without what is left out.
    pub map: Arc<EntryMap>,
    /// What it changes of the map in force.
    pub diff: Diff,
}

impl MapDecider {
    /// What of the sources' answer may come into force: it, or the last that was accepted; none
    /// where it is held and nothing was accepted before.
    pub(super) fn evaluate(
        &mut self,
        candidate: Arc<EntryMap>,
        round: &mut Evaluation<'_>,
    ) -> Option<Said> {
        if let Some(ordered) = self.pending_order() {
            return Some(ordered);
        }
        if self.rollout_holds_sources() {
            self.gate.settle();
            return self.gate.accepted().cloned().map(Said::again);
        }
        let start = Instant::now();
        let checked = match self.course(&candidate, round.at) {
            Course::Follow => self.check_guard(candidate, round, None),
            Course::Hold(reason) => self.check_guard(candidate, round, Some(reason)),
            Course::Stay => {
                self.gate.settle();
                None
            }
        };
        round.steps.push(StepTiming::new("compare", start.elapsed()));
        match checked {
            Some(said) => Some(said),
            // At the first start this leaves every HAProxy as it is: a map file that nothing
            // confirms is no reason to change a memory that works, and no ground for overrides.
            None => self.gate.accepted().cloned().map(Said::again),
        }
    }

    /// Why this map with these overrides would be held for where it points to, if it would.
    pub(super) fn points_nowhere(&self, map: &Arc<EntryMap>, over: &Overrides) -> Option<String> {
        if !self.actions.hold() {
            return None;
        }
        let in_force = self.entries_in_force().unwrap_or_default();
        self.with_overrides(map, &self.gone, over).1.held(self.actions, &in_force)
    }

    /// An accepted answer with what lies under and over it, and which entries point nowhere then.
    pub(super) fn with_overrides(
        &self,
        map: &Arc<EntryMap>,
        gone: &GoneNodes,
        over: &Overrides,
    ) -> (Overridden, Dangling) {
        let map = self.with_owners(&gone.under(map));
        let overridden = overrides::apply(&map, over);
        let dangling = Dangling::new(&overridden.entries, &self.targets);
        (overridden, dangling)
    }

    /// The entries of the map in force.
    pub(in crate::engine) fn entries_in_force(&self) -> Option<Arc<EntryMap>> {
        self.decision.in_force.as_ref().map(|revision| Arc::clone(&revision.entries))
    }

    /// Puts the overrides over what the sources said, and brings the result into force.
    pub(super) async fn compose_and_commit(&mut self, said: Said, round: &mut Evaluation<'_>) {
        let start = Instant::now();
        let before = self.entries_in_force().unwrap_or_default();
        let composed = self.compose(said, &before, round).await;
        // Before the map file says what the sources said.
        self.keep_owners().await;
        let Some(composed) = composed else { return };
        if composed.said.passed
            && let Some(held) = self.gate.release()
        {
            let approved = self.gate.is_approved(&held.id);
            tracing::info!(id = held.id, approved, "no change is held any more");
        }
        if !round.overrides.is_empty() {
            round.steps.push(StepTiming::new("overrides", start.elapsed()));
        }
        self.commit(composed, &before, round).await;
    }

    /// The desired map; none where there is none to bring into force.
    async fn compose(
        &mut self,
        mut said: Said,
        before: &Arc<EntryMap>,
        round: &mut Evaluation<'_>,
    ) -> Option<Composed> {
        // What references hold is as if it had not been said.
        let owners = self.actions.hold().then(|| self.owners_before()).flatten();
        round.owners_changed = self.evaluate_owners(&said.map, round);
        said.gone = self.gone_with(&said, round.now);
        let ordered = round.overrides != self.overrides;
        let accepted = self.gate.accepted();
        let same_base = accepted.is_some_and(|accepted| Arc::ptr_eq(accepted, &said.map));
        let settled = self.gate.held().is_none() && same(&self.targets, &self.checked);
        let refusals = self.screens.take_in();
        let same_base = same_base && Arc::ptr_eq(&said.gone, &self.gone);
        let as_before =
            self.composed && same_base && !ordered && !refusals && !round.owners_changed;
        if as_before && (settled || !self.actions.matter()) {
            if !settled {
                self.decision.dangling = Arc::new(Dangling::new(before, &self.targets));
            }
            return Some(Composed { said, map: Arc::clone(before), diff: Diff::default() });
        }
        let overridden = self.override_within_references(&mut said, before, owners, round)?;
        let known = said.change.take().filter(|_| Arc::ptr_eq(&overridden, &said.map));
        let diff = known.unwrap_or_else(|| between(before, &overridden));
        let sifted = self.screens.sift(overridden, before, diff, &self.limits).await;
        self.take_rejected(sifted.rejected);
        if sifted.map.is_none() {
            // What the instances told is taken in, and not in the map yet.
            self.composed = false;
        }
        let (map, diff) = sifted.map?;
        Some(Composed { said, map, diff })
    }

    /// What the sources said with the overrides over it, as far as it points to what instances
    /// have. Where that is held the last accepted answer takes its place.
    fn override_within_references(
        &mut self,
        said: &mut Said,
        before: &Arc<EntryMap>,
        owners: Option<Ownership>,
        round: &mut Evaluation<'_>,
    ) -> Option<Arc<EntryMap>> {
        let over = &Arc::clone(&round.overrides);
        let (mut overridden, mut dangling) = self.with_overrides(&said.map, &said.gone, over);
        // An approval of what the guard held is one of all that comes with it.
        let judged = said.passed && !said.approved;
        let held = judged.then(|| dangling.held(self.actions, before)).flatten();
        self.decision.dangling = Arc::new(dangling.clone());
        let map = &overridden.entries;
        let verdict = self.gate.submit(
            held.map_or(Ok(()), Err),
            || id_of(map),
            |id, reason| HeldChange {
                id,
                of: HeldChange::MAP.to_owned(),
                reason,
                since: Timestamp::now(),
                entries_in_force: before.len(),
                entries_held: map.len(),
                counts: between(before, map).counts(),
                applied: ChangeCounts::default(),
            },
        );
        match verdict {
            Verdict::Passed => {}
            Verdict::Approved => said.approved = true,
            Verdict::Held(hold) => {
                self.log_hold(hold, None);
                self.note_held_base(&said.map);
                *said = Said::again(self.gate.accepted().cloned()?);
                self.take_owners_back(owners);
                round.owners_changed = self.evaluate_owners(&said.map, round);
                said.gone = self.gone_with(said, round.now);
                (overridden, dangling) = self.with_overrides(&said.map, &said.gone, over);
            }
        }
        let mut map = Arc::clone(&overridden.entries);
        self.decision.kept_from.clear();
        if !said.approved
            && let Some(kept) = dangling.hold_back(&map, self.actions, before)
        {
            let masters = dangling.held_masters(self.actions, before);
            self.decision.kept_from = masters.into_iter().map(str::to_owned).collect();
            map = Arc::new(kept);
        }
        if let Some(kept) = dangling.leave_out(&map, self.actions) {
            map = Arc::new(kept);
        }
        self.decision.stuck = overridden.stuck;
        Some(map)
    }

    /// Tells of what the gate holds, and of the rest of the change that passes.
    pub(super) fn log_hold(&self, hold: Hold, rest: Option<ChangeCounts>) {
        if let Some(held) = self.gate.held() {
            record_hold(hold, held, SUBJECT, rest);
        }
    }

    /// Takes in what is rejected. One line for each change of it.
    fn take_rejected(&mut self, rejected: RejectedRows) {
        if *self.decision.rejected == rejected {
            return;
        }
        match rejected.named.first() {
            Some(first) => {
                tracing::warn!(
                    entries = rejected.count,
                    "entries are not in the map, HAProxy would not start from it: {first}"
                )
            }
            None => tracing::info!("no entry is rejected by a HAProxy any more"),
        }
        self.decision.rejected = Arc::new(rejected);
    }
}

/// Whether these are the very observations that those were.
fn same(one: &[Arc<Targets>], other: &[Arc<Targets>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}
