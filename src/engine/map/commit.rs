//! A composed map comes into force: number, map file, log. The only place where a revision is made.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use mapsmith_core::desired::MapChange;
use mapsmith_core::desired::guard::Part;
use mapsmith_core::plan::{Deviation, Diff};
use mapsmith_core::revision::RevisionSummary;
use mapsmith_core::status::StepTiming;
use mapsmith_core::{EntryMap, Revision, SourceState};
use metrics::counter;

use super::compose::{Composed, Said};
use super::hold::Ordered;
use super::{
    BY_OVERRIDE, BY_OWNERSHIP, BY_REFERENCES, BY_REMOVE_AFTER, BY_ROLLBACK, Evaluation, MapDecider,
};
use crate::telemetry::{GUARD_PARTS, MAP_CHANGES};

impl MapDecider {
    /// Writes the composed map to the file where it says something new, and takes it for the one in
    /// force once it is there.
    pub(super) async fn commit(
        &mut self,
        composed: Composed,
        before: &Arc<EntryMap>,
        round: &mut Evaluation<'_>,
    ) {
        let Composed { said, map, diff } = composed;
        let (approved, order) = (said.approved, said.order.clone());
        let gone = Arc::clone(&said.gone);
        let part = said.passing.filter(|passing| passing.part != Part::WHOLE);
        let accepted = match self.decision.in_force.clone() {
            Some(revision) if diff.is_empty() => {
                self.confirm(&revision, &said).await;
                self.take_registered(&said);
                if said.passed && said.order.is_none() && !self.keeps_nodes_back() {
                    self.inputs.take(round.sources, true);
                }
                self.note_accepted(&said, round.now);
                // One copy of two equal maps is enough.
                if Arc::ptr_eq(&map, &said.map) { Arc::clone(before) } else { said.map }
            }
            _ => {
                let revision = self.numbered(map);
                let causes = self.causes(&said, round);
                self.keep_in_history(&revision, &diff, &said, &causes, round).await;
                let start = Instant::now();
                let written = self.write(Arc::clone(&revision), &said.map, &said.gone).await;
                round.steps.push(StepTiming::new("map file", start.elapsed()));
                if !written {
                    // What is not in the file must not be in memory: a restart would bring the
                    // older map back.
                    self.composed = false;
                    return;
                }
                self.put_in_force(revision, before, diff, causes);
                self.take_inputs(&said, round);
                self.history_in_force();
                self.note_accepted(&said, round.now);
                said.map
            }
        };
        (self.overrides, self.gone) = (Arc::clone(&round.overrides), gone);
        self.composed = true;
        self.owners_in_force(round.at).await;
        self.checked.clone_from(&self.targets);
        self.decision.active = self.foreign.is_none();
        match part {
            Some(part) => {
                self.gate.accept_part(accepted, part.counts);
                counter!(GUARD_PARTS).increment(1);
            }
            None => self.let_through = self.gate.accept(accepted).filter(|_| approved),
        }
        self.note_order_in_force(order.as_ref(), approved);
    }

    /// The map in force stays; the file is written where it lacks something.
    async fn confirm(&mut self, revision: &Arc<Revision>, said: &Said) {
        // A file that says what the sources said before would bring that back after a restart.
        self.unsaved |= said.is_new || said.gone != self.gone;
        if self.file.error.is_none() && !self.unsaved {
            return;
        }
        // Over a file that is ahead it goes as a change of its own: a number never goes back.
        let again = if self.unsynced_on_disk.is_some() {
            self.numbered(Arc::clone(&revision.entries))
        } else {
            Arc::clone(revision)
        };
        if said.is_new {
            self.keep_base_in_history(&again, &said.map).await;
        }
        if self.write(Arc::clone(&again), &said.map, &said.gone).await {
            self.decision.in_force = Some(again);
        }
    }

    /// A revision that is in the file is the one in force from now on.
    fn put_in_force(
        &mut self,
        revision: Arc<Revision>,
        before: &EntryMap,
        diff: Diff,
        causes: Vec<String>,
    ) {
        self.log_revision(&revision, before, &diff, causes);
        let from = self.decision.in_force.as_ref().map(|revision| revision.number);
        self.change = from.map(|from| MapChange {
            from,
            deviation: Arc::new(Deviation::from_diff(diff, before)),
        });
        self.decision.in_force = Some(revision);
    }

    /// What led to a revision: sources by name, an override, the end of a node that was gone, or
    /// what the map may point to.
    fn causes(&self, said: &Said, round: &Evaluation<'_>) -> Vec<String> {
        if matches!(said.order, Some(Ordered::Rollback { .. } | Ordered::Abort { .. })) {
            return vec![BY_ROLLBACK.to_owned()];
        }
        let mut causes = match said.is_new {
            true => self.inputs.led_by(round.sources),
            false => Vec::new(),
        };
        if round.overrides != self.overrides {
            causes.push(BY_OVERRIDE.to_owned());
        }
        if round.owners_changed {
            causes.push(BY_OWNERSHIP.to_owned());
        }
        if !said.is_new && said.gone != self.gone {
            causes.push(BY_REMOVE_AFTER.to_owned());
        }
        if causes.is_empty() {
            // What came or went between the file and a start is an override.
            let cause = if self.composed { BY_REFERENCES } else { BY_OVERRIDE };
            causes.push(cause.to_owned());
        }
        causes
    }

    /// What the sources said is what the revision in force was made of.
    fn take_inputs(&mut self, said: &Said, round: &Evaluation<'_>) {
        self.take_registered(said);
        if said.order.is_some() {
            // What leads from here to the next one is what every source says then.
            self.inputs = RevisionInputs::default();
        } else if said.is_new {
            self.inputs.take(round.sources, said.passed && !self.keeps_nodes_back());
        }
    }

    /// Whether nodes stay where they are, whatever the sources say of them.
    fn keeps_nodes_back(&self) -> bool {
        self.decision.flapping.count + self.decision.conflicts.count > 0
    }

    /// Whoever registered nodes until now led to what is in force, and to nothing that comes later.
    fn take_registered(&mut self, said: &Said) {
        if said.is_new || said.order.is_some() {
            self.registered = self.decision.registered;
        }
    }

    fn log_revision(
        &mut self,
        revision: &Revision,
        before: &EntryMap,
        diff: &Diff,
        sources: Vec<String>,
    ) {
        let counts = diff.counts();
        let summary = RevisionSummary {
            number: revision.number,
            at: revision.at,
            sources,
            entries: revision.entries.len(),
            counts,
        };
        tracing::info!(
            revision = summary.number,
            entries = summary.entries,
            sources = summary.sources.join(","),
            "new revision: {counts}"
        );
        for (kind, count) in counts.by_kind() {
            counter!(MAP_CHANGES, "kind" => kind).increment(count as u64);
        }
        self.log.push(
            summary,
            diff.changes(before, &revision.entries)
                .take(mapsmith_core::revision::REMEMBERED_CHANGES)
                .collect(),
        );
    }

    /// The next revision; the one that is in the file already, where it has these entries.
    fn numbered(&self, entries: Arc<EntryMap>) -> Arc<Revision> {
        match &self.unsynced_on_disk {
            Some(ahead) if ahead.entries == entries => Arc::clone(ahead),
            ahead => {
                let floor = ahead.as_ref().or(self.decision.in_force.as_ref());
                let floor = floor.map_or(0, |revision| revision.number);
                let canary = self.canary_of(&entries).filter(|it| it.number > floor);
                canary.unwrap_or_else(|| {
                    let number = self.next_number();
                    Arc::new(Revision { number, at: Timestamp::now(), entries })
                })
            }
        }
    }

    /// A number that no map had, a canary's included.
    pub(super) fn next_number(&self) -> u64 {
        let known = self.unsynced_on_disk.iter().chain(&self.decision.in_force);
        let known = known.map(|revision| revision.number).max().unwrap_or(0);
        known.max(self.rollouts.number()) + 1
    }
}

/// The sources' maps as they were once, to tell which of them led to the next revision.
#[derive(Debug, Default)]
pub(super) struct RevisionInputs {
    /// When the revision in force was made, or confirmed.
    latest: Vec<Option<Arc<EntryMap>>>,
    /// When the map last had all that they said: the guard may have held a part of it since, and
    /// nodes may have been kept where they were.
    whole: Vec<Option<Arc<EntryMap>>>,
}

impl RevisionInputs {
    /// What the sources say now is what the map in force is made of, as a whole or in part.
    fn take(&mut self, sources: &[SourceState], whole: bool) {
        self.latest = sources.iter().map(entries_of).collect();
        if whole {
            self.whole.clone_from(&self.latest);
        }
    }

    /// The sources that say something else than at the last revision. Where none does, those whose
    /// answer had not come into force as a whole.
    fn led_by(&self, sources: &[SourceState]) -> Vec<String> {
        match changed_sources(sources, &self.latest) {
            none if none.is_empty() => changed_sources(sources, &self.whole),
            some => some,
        }
    }
}

/// What a source says.
fn entries_of(state: &SourceState) -> Option<Arc<EntryMap>> {
    Some(Arc::clone(&state.snapshot.as_ref()?.entries))
}

/// The sources whose map is another one than when the revision in force was made. Of one that was
/// not heard then, having no node is no news.
fn changed_sources(sources: &[SourceState], before: &[Option<Arc<EntryMap>>]) -> Vec<String> {
    sources
        .iter()
        .enumerate()
        .filter(|(index, state)| {
            match (entries_of(state), before.get(*index).and_then(Option::as_ref)) {
                (Some(now), Some(before)) => !Arc::ptr_eq(&now, before),
                (now, _) => now.is_some_and(|entries| !entries.is_empty()),
            }
        })
        .map(|(_, state)| state.status.name.clone())
        .collect()
}
