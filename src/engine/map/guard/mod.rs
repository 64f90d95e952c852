//! What of the sources' answer may come into force: nodes that stay where they are, then the guard.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith_core::desired::gate::Verdict;
use mapsmith_core::desired::guard::{self, Accepted, Flapping, Limits, Proposal};
use mapsmith_core::desired::references::{Actions, Dangling, Targets};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::ChangeCounts;
use mapsmith_core::status::{KeptNode, KeptNodes, NAMED_NODES};
use mapsmith_core::{EntryMap, HeldChange};

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
    counts: ChangeCounts,
}

impl MapDecider {
    /// Keeps nodes that flap where they are until they have been still for so long; without this
    /// none is kept.
    pub fn with_hold(self, hold: Duration) -> Self {
        let flapping = Flapping::new(self.limits.window, hold);
        Self { flapping, ..self }
    }

    /// What the sources said, where the guard lets it through.
    pub(super) fn check_guard(
        &mut self,
        candidate: Arc<EntryMap>,
        round: &Evaluation<'_>,
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
        let counts = diff.counts();
        let mark = self.window.after(diff.routes(&base, &candidate));
        let proposal = Proposal {
            in_force: before.as_ref().map(|map| map.len()),
            // Of the candidate's own entries: pins do not make up for what the sources lost.
            entries: candidate.len(),
            counts,
            recent: self.window.recent(mark, round.now),
        };
        let limits = self.within_limits(&proposal, &base, &candidate).map_err(|reason| {
            // Who approves it is told all that comes with it.
            match self.points_nowhere(&candidate, &round.overrides) {
                Some(more) => format!("{reason}; {more}"),
                None => reason,
            }
        });
        let verdict = self.gate.submit(
            limits,
            || id_of(&candidate),
            |id, reason| HeldChange {
                id,
                of: HeldChange::MAP.to_owned(),
                reason,
                since: Timestamp::now(),
                entries_in_force: base.len(),
                entries_held: candidate.len(),
                counts,
            },
        );
        if let Verdict::Held(hold) = verdict {
            self.log_hold(hold);
            return None;
        }
        let from_in_force = match (&before, &in_force) {
            (Some(before), Some(in_force)) => Arc::ptr_eq(before, in_force),
            (before, in_force) => before.is_none() && in_force.is_none(),
        };
        Some(Said {
            map: candidate,
            passed: true,
            is_new: !diff.is_empty() || before.is_none(),
            approved: verdict == Verdict::Approved,
            change: from_in_force.then_some(diff),
            passing: Some(Passing { mark, before: base.len(), counts }),
        })
    }

    /// Whether the guard lets a change of what the sources say through without being asked.
    fn within_limits(
        &self,
        proposal: &Proposal,
        base: &EntryMap,
        candidate: &EntryMap,
    ) -> Result<(), String> {
        guard::check(guard::Subject::Map, &self.limits, proposal)?;
        if proposal.recent.is_return {
            return Ok(());
        }
        check_references(self.actions, &self.limits, &self.targets, base, candidate)
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
        if self.composed && self.gate.accepted().is_some() {
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
        if let Some(Passing { mark, before, counts }) = said.passing {
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

/// Whether a change of the map leads too many more of its entries to where an instance has nothing,
/// as far as that is kept at all.
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
    if !actions.guard() || targets.is_empty() {
        return Ok(());
    }
    let (before_it, after_it) = (Dangling::new(before, targets), Dangling::new(after, targets));
    let counts =
        ((before_it.guarded(actions), before.len()), (after_it.guarded(actions), after.len()));
    guard::check_references(limits, counts.0, counts.1).map_err(|reason| {
        format!("{reason}: {} (see [references])", after_it.news(&before_it, actions))
    })
}

#[cfg(test)]
mod tests;
