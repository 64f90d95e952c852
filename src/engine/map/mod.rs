//! Snapshots and overrides -> revisions: merge, guard, overrides, number, map file, then the
//! instances. The only place where a revision is made.
//!
//! The guard judges what the sources say, never what an operator ordered: an answer is compared
//! with the last one that was accepted, both without overrides, and the overrides are put over
//! whichever of the two counts. So an override comes into force while an answer is held, no
//! override is held, and none hides from the guard what a source lost.
//!
//! The map file is the last good map: a revision that Mapsmith wrote says in its comments what the
//! sources had said, so a start knows both and goes on from there, whatever the sources say or
//! don't. A file that it did not write (or none) is only compared with: no memory that works is
//! changed for a file that nothing confirms, and until a first answer was accepted overrides wait.
//!
//! A file that another Mapsmith goes on writing is left to that one, and so is every HAProxy: two
//! that fight are worse than either.
//!
//! Entries that point nowhere may be held too (`[references]`). The sources' answer then waits as a
//! whole; an override waits alone: its nodes stay where they are, and the others come into force.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mapsmith_core::desired::MapChange;
use mapsmith_core::desired::gate::Gate;
use mapsmith_core::desired::gone::GoneNodes;
use mapsmith_core::desired::guard::{Flapping, Limits, Window};
use mapsmith_core::desired::references::{Actions, Dangling, Targets};
use mapsmith_core::desired::{self, SourceView};
use mapsmith_core::map_file::{MapFile, Writer};
use mapsmith_core::plan::Diff;
use mapsmith_core::revision::{ChangeCounts, RevisionLog};
use mapsmith_core::status::{DriftKind, KeptNodes, MapFileStatus, StepTiming};
use mapsmith_core::{
    DesiredMap, EntryMap, HeldChange, Note, Overrides, RejectedRows, Revision, SourceState,
};
use metrics::counter;

use super::rows::RowScreen;
use crate::store::map_file::{MapFileError, MapFileWriter};
use crate::telemetry::{DRIFT_CORRECTED, GUARD_HOLDS, GUARD_PARTS, MAP_CHANGES, MAP_FILE};

mod approval;
mod commit;
mod compose;
mod file;
mod gone;
mod guard;
mod history;
mod hold;
mod map_file;
mod memory;
mod owners;
mod record;
mod rollout;
mod screens;
mod trial;

use commit::RevisionInputs;
use compose::Said;
use file::MapFileAccess;
use history::History;
pub use history::HistoryState;
pub use hold::HoldDecision;
use hold::SourceHold;
pub(super) use memory::MapMemory;
use owners::Owners;
pub use owners::OwnersDecision;
pub use rollout::RolloutDecision;
use rollout::Rollouts;
use screens::Screens;

/// The cause of a revision that overrides led to, beside the sources' names.
pub const BY_OVERRIDE: &str = "override";
/// The cause of a revision that nodes led to which go to their owner, or leave it.
pub const BY_OWNERSHIP: &str = "ownership";
/// The cause of a revision that nothing but a change of what the map may point to, or of what a
/// HAProxy takes, led to.
pub const BY_REFERENCES: &str = "references";

/// The cause of a revision that went back to an older one.
pub const BY_ROLLBACK: &str = "rollback";
/// The cause of a revision that nothing but the end of `map.remove_after` led to.
pub const BY_REMOVE_AFTER: &str = "remove_after";

/// What was decided last.
#[derive(Debug, Clone, Default)]
pub struct MapDecision {
    /// The highest poll request whose answers, from every source, are taken into account.
    pub evaluated_request: u64,
    /// The number of the latest change of what is registered that is taken into account.
    pub registered: u64,
    /// When the source answered whose answer is the oldest of those taken into account.
    pub answered_at: Option<Timestamp>,
    /// The map in force: the desired revision, or before the sources have spoken the one found in
    /// the map file.
    pub in_force: Option<Arc<Revision>>,
    /// Whether instances are brought to it: what the sources said was accepted once, before the
    /// start (then it is the map file's) or since, and the map file is ours.
    pub active: bool,
    /// The Mapsmith that writes the map file instead of this one, which changes nothing then.
    pub read_only: Option<String>,
    /// The sources that are waited for.
    pub waiting_for: Vec<String>,
    /// The change that the guard holds back.
    pub held: Option<HeldChange>,
    /// The overrides that this decision took into account.
    pub overrides: Arc<Overrides>,
    /// Drained masters that keep their nodes, because no other master is left.
    pub stuck: Vec<String>,
    /// Entries of the map that point nowhere in some instance, before any was left out.
    pub dangling: Arc<Dangling>,
    /// Masters that an override gives nodes, and that don't get them while they point nowhere.
    pub kept_from: Vec<String>,
    /// Entries that a HAProxy's map refuses, and that are not in the map for that.
    pub rejected: Arc<RejectedRows>,
    /// Nodes that stay where they are because they flap.
    pub flapping: KeptNodes,
    /// Nodes that an answer names with different masters, none of them newer: each stays where it
    /// is.
    pub conflicts: KeptNodes,
    /// Nodes that no source names any more, and that stay for a while.
    pub gone: Arc<GoneNodes>,
    /// The nodes whose owner is remembered; none where owners are not.
    pub owners: OwnersDecision,
    /// The map file.
    pub file: Option<MapFileStatus>,
    /// The latest revisions.
    pub log: Arc<RevisionLog>,
    /// What is kept of them.
    pub history: HistoryState,
    /// What keeps the sources' answers from being applied.
    pub hold: HoldDecision,
    /// What is tried in a few instances first, or was.
    pub rollout: RolloutDecision,
    /// How long the parts of the last decision took.
    pub steps: Vec<StepTiming>,
}

/// What one evaluation is made of, and how long its parts took.
struct Evaluation<'a> {
    sources: &'a [SourceState],
    overrides: Arc<Overrides>,
    /// The time, since the decider's start.
    now: Duration,
    /// The time by the clock that producers have too.
    at: Timestamp,
    /// What the sources say now, held back or not; none while some have not answered.
    candidate: Option<Arc<EntryMap>>,
    /// Whether a node is another's than at the decision before.
    owners_changed: bool,
    steps: Vec<StepTiming>,
}

/// Makes the revisions.
#[derive(Debug)]
pub struct MapDecider {
    /// Whether there is a map to keep: with no source of one, Mapsmith is there for HAProxy's
    /// configuration and servers alone.
    keeps_map: bool,
    limits: Limits,
    access: MapFileAccess,
    decision: MapDecision,
    file: MapFileStatus,
    /// What the file says, or may say, though it is not in force: it was put in place, and could
    /// not be made to last.
    unsynced_on_disk: Option<Arc<Revision>>,
    /// Whether the file lacks something that a start would have to know.
    unsaved: bool,
    /// The Mapsmith that writes the map file.
    foreign: Option<Writer>,
    /// Since when its file is gone, or names nobody.
    abandoned: Option<Instant>,
    log: RevisionLog,
    /// None where revisions are not kept.
    history: Option<History>,
    /// What keeps the sources' answers from being applied.
    hold: SourceHold,
    rollouts: Rollouts,
    /// Who let the held change through at the next decision, and why.
    approval: Note,
    /// What the sources said when the guard last let it through (the map in force without
    /// overrides), and the change of it that is held.
    gate: Gate<Arc<EntryMap>>,
    /// The change that came into force by an approval at the last decision.
    let_through: Option<String>,
    /// What the sources said when the revision in force was made.
    inputs: RevisionInputs,
    /// The number of the latest change of what is registered that it was made with.
    registered: u64,
    /// The overrides in the map in force.
    overrides: Arc<Overrides>,
    /// Whether the map in force is known to be what the sources said with these overrides: a start
    /// knows only what the file says.
    composed: bool,
    /// Whether the map in force is known to be of this moment, and not only of the last end.
    goes_on: bool,
    /// What the revision in force changed.
    change: Option<MapChange>,
    /// What becomes of entries that point nowhere.
    actions: Actions,
    /// What the map may point to, in each instance that has been observed.
    targets: Vec<Arc<Targets>>,
    /// The same, as it was when the map in force was last compared with it.
    checked: Vec<Arc<Targets>>,
    /// Whose the nodes are; none where a node is whoever's the sources name.
    owners: Option<Owners>,
    /// What the instances' maps refuse.
    screens: Screens,
    /// What the sources changed lately.
    window: Window,
    /// The nodes whose master goes back and forth.
    flapping: Flapping,
    /// The clock of both.
    clock: Instant,
    /// When the first node that the last decision kept for flapping may go, on that clock.
    release: Option<Duration>,
    /// Nodes in the map in force that no source names any more.
    gone: Arc<GoneNodes>,
    /// How long they stay.
    remove_after: SignedDuration,
    /// When the next of them goes, on that clock.
    removal: Option<Duration>,
}

impl MapDecider {
    /// Reads the map file: what is in it is the map in force until the sources say something else.
    /// `overrides` are those in it, as far as the store tells.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub async fn start(
        limits: Limits,
        writer: MapFileWriter,
        overrides: Arc<Overrides>,
    ) -> Result<Self, MapFileError> {
        let mut access = MapFileAccess::start(writer)?;
        let found = access.load().await?;
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        counter!(GUARD_HOLDS).increment(0);
        counter!(GUARD_PARTS).increment(0);
        counter!(DRIFT_CORRECTED, "haproxy" => MAP_FILE, "kind" => DriftKind::MapFile.label())
            .increment(0);
        for (kind, _) in ChangeCounts::default().by_kind() {
            counter!(MAP_CHANGES, "kind" => kind).increment(0);
        }
        let mut decider = Self::new(limits, access, overrides);
        decider.adopt(found);
        decider.record();
        Ok(decider)
    }

    /// The same decisions without a writer: nothing is written, and the map file is nobody's.
    pub(super) fn without_writer(
        limits: Limits,
        path: &Path,
        found: Option<MapFile>,
        overrides: Arc<Overrides>,
    ) -> Self {
        let mut decider = Self::new(limits, MapFileAccess::without_writer(path), overrides);
        decider.adopt(found.map(|mut found| {
            if let Some(header) = &mut found.header {
                header.writer = None;
            }
            found
        }));
        decider
    }

    /// There is no map to keep, and no map file.
    pub fn without_map(limits: Limits, path: &Path, overrides: Arc<Overrides>) -> Self {
        let mut decider = Self::without_writer(limits, path, None, overrides);
        decider.keeps_map = false;
        decider.decision.active = true;
        decider
    }

    fn new(limits: Limits, access: MapFileAccess, overrides: Arc<Overrides>) -> Self {
        let path = access.path().display().to_string();
        let file =
            MapFileStatus { path, revision: None, error: None, corrected: 0, corrected_at: None };
        let decision = MapDecision { overrides: Arc::clone(&overrides), ..MapDecision::default() };
        Self {
            keeps_map: true,
            window: Window::new(limits.window),
            flapping: Flapping::new(limits.window, Duration::ZERO),
            clock: Instant::now(),
            release: None,
            gone: Arc::default(),
            remove_after: SignedDuration::ZERO,
            removal: None,
            limits,
            access,
            decision,
            file,
            unsynced_on_disk: None,
            unsaved: true,
            foreign: None,
            abandoned: None,
            log: RevisionLog::default(),
            history: None,
            hold: SourceHold::default(),
            rollouts: Rollouts::default(),
            approval: Note::default(),
            gate: Gate::default(),
            let_through: None,
            inputs: RevisionInputs::default(),
            registered: 0,
            overrides,
            composed: false,
            goes_on: false,
            change: None,
            actions: Actions::default(),
            targets: Vec::new(),
            checked: Vec::new(),
            owners: None,
            screens: Screens::default(),
        }
    }

    /// For one round without the daemon: the file is written only where it has to say something
    /// else.
    pub fn for_one_round(self) -> Self {
        Self { unsaved: self.gate.accepted().is_none(), ..self }
    }

    /// What becomes of entries that point nowhere; without this they are kept.
    pub fn with_actions(self, actions: Actions) -> Self {
        Self { actions, ..self }
    }

    /// Keeps rows out of the map that these instances' HAProxys refuse; without this none is asked.
    pub fn with_screens(self, screens: Vec<RowScreen>) -> Self {
        Self { screens: Screens::new(screens), ..self }
    }

    /// What the map may point to, in each instance that has been observed; for the next decision.
    pub fn see(&mut self, targets: Vec<Arc<Targets>>) {
        self.targets = targets;
    }

    /// What was decided last.
    pub fn decision(&self) -> &MapDecision {
        &self.decision
    }

    /// What the instances should hold; none until a first answer of the sources was accepted, and
    /// while another Mapsmith keeps them.
    pub fn desired(&self) -> Option<DesiredMap> {
        let revision = self.decision.in_force.clone().filter(|_| self.decision.active)?;
        let overrides = Arc::clone(&self.overrides);
        let change = self.change.clone();
        Some(DesiredMap {
            revision,
            evaluated_request: self.decision.evaluated_request,
            overrides,
            change,
        })
    }

    /// When a node that the last decision kept may go, for it flaps or is gone, or a hold's time is
    /// over.
    pub(super) fn next_release(&self) -> Option<tokio::time::Instant> {
        let due = self.release.into_iter().chain(self.removal).min();
        let due = due.map(|due| tokio::time::Instant::from_std(self.clock) + due);
        due.into_iter().chain(self.hold_due()).min()
    }

    /// Whether a decision is to be repeated soon: the map file could not be written, or rows wait
    /// for an instance that can be asked.
    pub(super) fn must_try_again(&self) -> bool {
        self.file.error.is_some()
            || self.screens.waiting()
            || self.owners_error().is_some()
            || self.hold_is_unsettled()
            || self.history_is_unsettled()
    }

    /// Whether the map file is to be compared with what it should hold.
    pub(super) fn checks_its_file(&self) -> bool {
        self.keeps_map && (self.file.error.is_none() || self.foreign.is_some())
    }

    /// Resolves when an instance tells something else of its rows than before.
    pub(super) async fn rows_changed(&mut self) {
        self.screens.changed().await;
    }

    /// Whether the first try to observe each instance is over.
    pub(super) fn every_instance_was_tried(&self) -> bool {
        self.screens.all_tried()
    }

    /// Whether each instance could not be reached so far.
    pub(super) fn unreached_instances(&self) -> impl Iterator<Item = bool> {
        self.screens.unreached()
    }

    /// Whether the first decision depends on what the map may point to.
    pub(super) fn targets_matter(&self) -> bool {
        let has_routes =
            self.decision.in_force.as_ref().is_some_and(|revision| !revision.entries.is_empty());
        self.actions.matter() || self.owners.is_some() || (self.actions.guard() && has_routes)
    }

    /// Looks at what every source said and an operator ordered, and decides what is wanted.
    pub async fn decide(&mut self, sources: &[SourceState], overrides: Arc<Overrides>) {
        if !self.keeps_map {
            // Nobody is asked, so every request is answered.
            self.decision.evaluated_request = u64::MAX;
            return;
        }
        self.decide_at(sources, overrides, self.clock.elapsed()).await;
    }

    /// The same at a time since the start.
    async fn decide_at(
        &mut self,
        sources: &[SourceState],
        overrides: Arc<Overrides>,
        now: Duration,
    ) {
        let start = Instant::now();
        (self.let_through, self.release) = (None, None);
        self.decision.evaluated_request =
            sources.iter().map(|state| state.answered).min().unwrap_or(0);
        self.decision.registered =
            sources.iter().filter_map(|state| state.registered).max().unwrap_or_default();
        let answers = sources.iter().filter_map(|state| state.snapshot.as_ref());
        self.decision.answered_at = answers.map(|snapshot| snapshot.answered_at).min();
        self.decision.overrides = Arc::clone(&overrides);
        let at = Timestamp::now();
        let merged = desired::merge(&views(sources));
        let mut round = Evaluation {
            sources,
            overrides,
            now,
            at,
            candidate: merged.as_ref().ok().cloned(),
            owners_changed: false,
            steps: Vec::new(),
        };
        self.note_answer(round.candidate.as_ref(), at);
        self.check_rollouts_map();
        match merged {
            Err(waiting) => {
                self.decision.waiting_for = waiting;
                if let (None, Some(accepted)) = (&self.foreign, self.gate.accepted().cloned()) {
                    let said = self.pending_order().unwrap_or_else(|| Said::again(accepted));
                    self.compose_and_commit(said, &mut round).await;
                }
            }
            Ok(_) if self.foreign.is_some() => self.decision.waiting_for.clear(),
            Ok(candidate) => {
                self.decision.waiting_for.clear();
                round.steps.push(StepTiming::new("merge", start.elapsed()));
                if let Some(said) = self.evaluate(candidate, &mut round) {
                    self.compose_and_commit(said, &mut round).await;
                }
            }
        }
        self.compose_canary();
        self.save_hold(now, at).await;
        self.keep_what_was_missed().await;
        self.removal = self.next_removal(now);
        self.decision.gone = Arc::clone(&self.gone);
        self.decision.steps = round.steps;
        self.decision.held = self.gate.held().cloned();
        self.decision.file = Some(self.file.clone());
        self.decision.log = Arc::new(self.log.clone());
        self.record();
    }
}

fn views(sources: &[SourceState]) -> Vec<SourceView<'_>> {
    sources
        .iter()
        .map(|state| SourceView {
            name: &state.status.name,
            // A source that is being asked for the first time may well answer: at a restart its
            // entries are in the map in force, and leaving it out would take them away for a
            // moment.
            required: state.status.required || state.status.last_poll.is_none(),
            snapshot: state.snapshot.as_ref(),
        })
        .collect()
}

fn between(old: &Arc<EntryMap>, new: &Arc<EntryMap>) -> Diff {
    if Arc::ptr_eq(old, new) { Diff::default() } else { Diff::between(old, new) }
}

/// Names exactly this map.
fn id_of(map: &EntryMap) -> String {
    format!("{:016x}", map.digest())
}

#[cfg(test)]
mod tests;
