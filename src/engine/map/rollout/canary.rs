//! The canary's map: what its sources had said under the overrides of this moment.

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::Canary;
use mapsmith_core::{DesiredMap, EntryMap, Revision};

use super::Ingredients;
use crate::engine::map::MapDecider;

impl MapDecider {
    /// Puts the overrides over what the canary's sources had said. Another map, or one that is not
    /// newer than what is in force, has another number.
    pub(in crate::engine) fn compose_canary(&mut self) {
        let Some(in_force) = self.decision.in_force.clone() else { return };
        if let Some(current) = self.rollouts.open_mut() {
            let before = current.rollout.version;
            current.rollout.note_stable(in_force.number);
            let is_changed = current.rollout.version != before;
            self.rollouts.unsaved |= is_changed;
        }
        let Some(open) = self.rollouts.open().filter(|open| open.rollout.is_canary()) else {
            return;
        };
        let mut gone = (*self.gone).clone();
        gone.forget(&open.base);
        let owned = self.with_owners(&gone.under(&open.base));
        let ingredients = Ingredients {
            gone: Arc::new(gone),
            overrides: Arc::clone(&self.overrides),
            targets: self.targets.clone(),
            owned,
        };
        let made = open.made.as_ref();
        let known = made.filter(|(_, of)| of.are(&ingredients)).map(|(revision, _)| revision);
        let entries = match known {
            Some(revision) if revision.number > in_force.number => return,
            Some(revision) => Arc::clone(&revision.entries),
            None => {
                let composed = self.compose_base(&open.base, &ingredients);
                match made.filter(|(revision, _)| revision.entries == composed) {
                    Some((revision, _)) => Arc::clone(&revision.entries),
                    None => composed,
                }
            }
        };
        let is_same = |revision: &&Arc<Revision>| {
            revision.number > in_force.number && Arc::ptr_eq(&revision.entries, &entries)
        };
        let revision = match made.map(|(revision, _)| revision).filter(is_same) {
            Some(revision) => Arc::clone(revision),
            None => {
                // The first one has the number that it began with.
                let number = match made {
                    None if open.rollout.revision > in_force.number => open.rollout.revision,
                    _ => self.next_number(),
                };
                Arc::new(Revision { number, at: Timestamp::now(), entries })
            }
        };
        if let Some(current) = self.rollouts.open_mut() {
            let before = current.rollout.version;
            current.rollout.note_revision(revision.number);
            let is_changed = current.rollout.version != before;
            let made = current.made.as_ref().map(|(made, _)| &made.entries);
            if made.is_none_or(|entries| !Arc::ptr_eq(entries, &revision.entries)) {
                let names = revision.entries.load().into_iter().map(|(name, _)| name.to_owned());
                current.masters = Arc::new(names.collect());
            }
            current.made = Some((revision, ingredients));
            self.rollouts.unsaved |= is_changed;
        }
    }

    fn compose_base(&self, base: &Arc<EntryMap>, of: &Ingredients) -> Arc<EntryMap> {
        let (overridden, dangling) = self.with_overrides(base, &of.gone, &of.overrides);
        let left = dangling.leave_out(&overridden.entries, self.actions);
        let map = left.map_or(overridden.entries, Arc::new);
        self.screens.leave_out(&map).map_or(map, Arc::new)
    }

    /// The canary's map, while instances should hold it.
    pub(in crate::engine) fn canary(&self) -> Option<Arc<Revision>> {
        let open = self.rollouts.open().filter(|open| open.rollout.is_canary())?;
        Some(Arc::clone(&open.made.as_ref()?.0))
    }

    /// What some instances should hold instead of the map in force.
    pub fn desired_canary(&self) -> Option<Arc<Canary>> {
        let revision = self.canary().filter(|_| self.decision.active)?;
        let instances = self.rollouts.open()?.rollout.instances.clone();
        let map = DesiredMap {
            revision,
            evaluated_request: self.decision.evaluated_request,
            overrides: Arc::clone(&self.overrides),
            change: None,
        };
        Some(Arc::new(Canary { instances, map }))
    }

    /// The canary's map where it is this one: a promotion brings no other.
    pub(in crate::engine) fn canary_of(&self, entries: &Arc<EntryMap>) -> Option<Arc<Revision>> {
        self.canary().filter(|revision| revision.entries == *entries)
    }

    /// What an order came to: the open rollout's map, or the map in force.
    pub(in crate::engine) fn entries_ordered(&self) -> Option<Arc<EntryMap>> {
        let canary = self.canary().map(|revision| Arc::clone(&revision.entries));
        canary.or_else(|| self.entries_in_force())
    }
}
