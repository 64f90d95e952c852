//! What of the sources' answer may come into force: nodes that stay where they are, then the guard,
//! which may let a part of a change through while it holds the rest.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::gate::Verdict;
use mapsmith_core::desired::guard::{
    self, Accepted, Flapping, Limits, Part, Proposal, Recent, partial,
};
use mapsmith_core::desired::references::{Actions, Dangling, Targets};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::{KeptNode, KeptNodes, NAMED_NODES};
use mapsmith_core::{EntryMap, HeldChange, Overrides};

use super::compose::Said;
use super::{Evaluation, MapDecider, between, id_of};

/// The most nodes that one line of the log names.
const LOGGED_NODES: usize = 10;

/// A change of what the sources said last, on its way into force.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passing {
    /// The mark of the map that it leads to.
    mark: u64,
    before: usize,
    pub counts: ChangeCounts,
    /// What of the change it is; the rest is held.
    pub part: Part,
}

/// From what was accepted last to what the sources say now.
struct Change {
    base: Arc<EntryMap>,
    /// Entries in force; none before the first map.
    in_force: Option<usize>,
    candidate: Arc<EntryMap>,
    diff: Diff,
}

impl Change {
    /// What was accepted last, with a part of the change.
    fn map(&self, part: Part) -> Arc<EntryMap> {
        match part {
            Part::WHOLE => Arc::clone(&self.candidate),
            _ => Arc::new(part.apply(&self.base, &self.candidate)),
        }
    }
}

impl MapDecider {
    /// Keeps nodes that flap where they are until they have been still for so long; without this
    /// none is kept.
    pub fn with_hold(self, hold: Duration) -> Self {
        let flapping = Flapping::new(self.limits.window, hold);
        Self { flapping, ..self }
    }

    /// What the sources said, where the guard lets it through. With `on_hold` it is held for that
    /// reason, whatever the guard says.
    pub(super) fn check_guard(
        &mut self,
        candidate: Arc<EntryMap>,
        round: &Evaluation<'_>,
        on_hold: Option<String>,
    ) -> Option<Said> {
        let in_force = self.entries_in_force();
        let before = self.gate.accepted().cloned().or_else(|| in_force.clone());
        let base = before.clone().unwrap_or_default();
        let mut diff = between(&base, &candidate);
        let kept = self.keep(&base, &candidate, &mut diff, round.now);
        // An answer that agrees with the map file is checked too until something was in force once:
        // where both are empty, they would empty every memory.
        if let (true, Some(accepted)) = (diff.is_empty(), self.gate.accepted()) {
            return Some(Said { passed: true, ..Said::again(Arc::clone(accepted)) });
        }
        let candidate = Diff::settle(&kept, &base, &candidate);
        let change =
            Change { in_force: before.as_ref().map(|map| map.len()), base, candidate, diff };
        let (whole, passing) = self.propose(&change, Part::WHOLE, round.now);
        let limits = self.limits_of(&whole, &change, &round.overrides);
        let part = match &limits {
            Err(_) if on_hold.is_none() => self.passing_part(&change, &whole, round),
            _ => None,
        };
        let limits = match (on_hold, limits) {
            (None, limits) => limits,
            (Some(reason), Ok(())) => Err(reason),
            (Some(reason), Err(more)) => Err(format!("{reason}; {more}")),
        };
        let left = part.map_or(whole.counts, |passing| passing.part.rest(whole.counts));
        let verdict = self.gate.submit(
            limits,
            || id_of(&change.candidate),
            |id, reason| HeldChange {
                id,
                of: HeldChange::MAP.to_owned(),
                reason,
                since: Timestamp::now(),
                entries_in_force: change.candidate.len() + left.removed - left.added,
                entries_held: change.candidate.len(),
                counts: left,
                applied: ChangeCounts::default(),
            },
        );
        let from_in_force = match (&before, &in_force) {
            (Some(before), Some(in_force)) => Arc::ptr_eq(before, in_force),
            (before, in_force) => before.is_none() && in_force.is_none(),
        };
        if let Verdict::Held(hold) = verdict {
            self.note_held_base(&change.candidate);
            self.log_hold(hold, part.map(|passing| passing.counts));
            let passing = part?;
            let map = change.map(passing.part);
            return Some(Said {
                is_new: true,
                change: from_in_force.then(|| Diff::between(&change.base, &map)),
                passing: Some(passing),
                ..Said::again(map)
            });
        }
        Some(Said {
            passed: true,
            is_new: !change.diff.is_empty() || before.is_none(),
            approved: verdict == Verdict::Approved,
            map: change.candidate,
            change: from_in_force.then_some(change.diff),
            passing: Some(passing),
            gone: Arc::default(),
            order: None,
        })
    }

    /// Why the guard would hold this answer of the sources, if it would. Nothing is noted of it.
    pub(super) fn judge(
        &self,
        candidate: Arc<EntryMap>,
        over: &Overrides,
        now: Duration,
    ) -> Option<String> {
        let accepted = self.gate.accepted().cloned();
        let before = accepted.clone().or_else(|| self.entries_in_force());
        let base = before.clone().unwrap_or_default();
        let mut diff = between(&base, &candidate);
        let kept = diff
            .keep(|at| candidate.is_disputed(at) || self.flapping.keeps(candidate.key(at), now));
        if diff.is_empty() && accepted.is_some() {
            return None;
        }
        let candidate = Diff::settle(&kept, &base, &candidate);
        let change =
            Change { in_force: before.as_ref().map(|map| map.len()), base, candidate, diff };
        let (whole, _) = self.propose(&change, Part::WHOLE, now);
        self.limits_of(&whole, &change, over).err()
    }

    /// Whether the guard lets a change through as a whole. Who approves it is told all that comes
    /// with it.
    fn limits_of(&self, whole: &Proposal, change: &Change, over: &Overrides) -> Result<(), String> {
        self.within_limits(whole, change, Part::WHOLE).map_err(|reason| {
            match self.points_nowhere(&change.candidate, over) {
                Some(more) => format!("{reason}; {more}"),
                None => reason,
            }
        })
    }

    /// A part of a change as the guard judges it, and what is remembered of it once it is in force.
    fn propose(&self, change: &Change, part: Part, now: Duration) -> (Proposal, Passing) {
        let counts = part.counts(change.diff.counts());
        let routes = change.diff.routes(&change.base, &change.candidate);
        let mark = self.window.after(routes.filter(|(_, from, to)| part.has(*from, *to)));
        let before = change.base.len();
        let recent = Recent {
            before_part: self.gate.before_part().map(|map| map.len()),
            ..self.window.recent(mark, now)
        };
        // Of the candidate's own entries: pins do not make up for what the sources lost.
        let entries = before + counts.added - counts.removed;
        let proposal = Proposal { in_force: change.in_force, entries, counts, recent };
        (proposal, Passing { mark, before, counts, part })
    }

    /// What of a change that is held as a whole passes.
    fn passing_part(
        &self,
        change: &Change,
        whole: &Proposal,
        round: &Evaluation<'_>,
    ) -> Option<Passing> {
        // A map file that nothing confirms is no map in force, and a first answer is one.
        self.gate.accepted()?;
        let passes = |part: Part| {
            let (proposal, _) = self.propose(change, part, round.now);
            self.within_limits(&proposal, change, part).is_ok()
                && self.points_nowhere(&change.map(part), &round.overrides).is_none()
        };
        let part = partial::split(&self.limits, whole, passes)?;
        Some(self.propose(change, part, round.now).1)
    }

    /// Whether the guard lets a part of a change of what the sources say through without being
    /// asked.
    fn within_limits(
        &self,
        proposal: &Proposal,
        change: &Change,
        part: Part,
    ) -> Result<(), String> {
        guard::check(guard::Subject::Map, &self.limits, proposal)?;
        if proposal.recent.is_return || !self.actions.guard() || self.targets.is_empty() {
            return Ok(());
        }
        let after = change.map(part);
        std::iter::once(&change.base).chain(self.gate.before_part()).try_for_each(|before| {
            check_references(self.actions, &self.limits, &self.targets, before, &after)
        })
    }

    /// Takes the moves out of the way that must not be made now: of nodes that flap, and of those
    /// that an answer is not clear about.
    fn keep(
        &mut self,
        base: &EntryMap,
        candidate: &EntryMap,
        diff: &mut Diff,
        now: Duration,
    ) -> Vec<(u32, u32)> {
        let node = |kept: &str, master: &str| KeptNode {
            node: kept.to_owned(),
            master: base.get(kept).unwrap_or(master).to_owned(),
            said: master.to_owned(),
        };
        // A first answer after a start shows no move: the file may be old.
        if (self.composed || self.goes_on) && self.gate.accepted().is_some() {
            let moved = diff
                .moved
                .iter()
                .map(|(_, to)| (candidate.key(*to as usize), candidate.value(*to as usize)));
            self.flapping.see(moved, |node| candidate.get(node), now);
        }
        let flaps = self.flapping.kept(now);
        let nodes = flaps.iter().take(NAMED_NODES).map(|(name, said)| node(name, said)).collect();
        let flapping = KeptNodes { count: flaps.len(), nodes };
        for kept in news(&self.decision.flapping, &flapping) {
            tracing::warn!(
                node = kept.node,
                master = kept.master,
                said = kept.said,
                "the node flaps, its master changed {} times within {}: it stays where it is \
                    until it has been still",
                guard::flapping::CHANGES,
                humantime::format_duration(self.limits.window)
            );
        }
        self.decision.flapping = flapping;
        self.release = self.flapping.next_release(now);
        let disputed = if candidate.disputed() == 0 { 0 } else { candidate.len() };
        let disputed = (0..disputed).filter(|at| candidate.is_disputed(*at)).take(NAMED_NODES);
        let nodes = disputed.map(|at| node(candidate.key(at), candidate.value(at))).collect();
        let conflicts = KeptNodes { count: candidate.disputed(), nodes };
        for kept in news(&self.decision.conflicts, &conflicts) {
            tracing::warn!(
                node = kept.node,
                master = kept.master,
                "an answer names the node with different masters, and none is newer: it stays \
                    where it is; remove one of the rows"
            );
        }
        self.decision.conflicts = conflicts;
        diff.keep(|at| {
            let name = candidate.key(at);
            candidate.is_disputed(at) || self.flapping.keeps(name, now)
        })
    }

    /// Notes that the sources' answer is in force.
    pub(super) fn note_accepted(&mut self, said: &Said, now: Duration) {
        if let Some(Passing { mark, before, counts, .. }) = said.passing {
            let accepted =
                Accepted { mark, before, entries: said.map.len(), counts, approved: said.approved };
            self.window.accept(&accepted, now);
        }
    }
}

/// Those that were not there before, as many as the log names.
fn news<'a>(before: &KeptNodes, now: &'a KeptNodes) -> impl Iterator<Item = &'a KeptNode> {
    let known: BTreeSet<_> = before.nodes.iter().map(|kept| kept.node.clone()).collect();
    let bound = if now.count > before.count { LOGGED_NODES } else { 0 };
    now.nodes.iter().filter(move |kept| !known.contains(&kept.node)).take(bound)
}

/// Whether a change of the map leads too many more of its entries to where an instance has nothing.
///
/// # Errors
/// The figures and the masters: one sentence for a person.
fn check_references(
    actions: Actions,
    limits: &Limits,
    targets: &[Arc<Targets>],
    before: &EntryMap,
    after: &EntryMap,
) -> Result<(), String> {
    let (before_it, after_it) = (Dangling::new(before, targets), Dangling::new(after, targets));
    let counts =
        ((before_it.guarded(actions), before.len()), (after_it.guarded(actions), after.len()));
    guard::check_references(limits, counts.0, counts.1).map_err(|reason| {
        format!("{reason}: {} (see [references])", after_it.news(&before_it, actions))
    })
}

#[cfg(test)]
mod tests;
