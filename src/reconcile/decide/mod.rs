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

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mapsmith_core::desired::guard::{Flapping, Limits, Window};
use mapsmith_core::desired::references::{Actions, Dangling, Targets};
use mapsmith_core::desired::{self, SourceView, overrides as desired_overrides};
use mapsmith_core::map_file::{MapFile, Writer};
use mapsmith_core::plan::{Deviation, Diff};
use mapsmith_core::revision::{RevisionLog, RevisionSummary};
use mapsmith_core::status::{DriftKind, KeptNodes, MapFileStatus, StepTiming};
use mapsmith_core::{EntryMap, HeldChange, Overrides, RejectedRows, Revision, SourceState};
use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::map_file::{Check, MapFileError, MapFileKeeper, WriteError, WriterState, state_of};
use super::rows::RowScreen;
use super::{Change, Wanted};
use crate::telemetry::{
    CONFLICTING_NODES, DRAINED_MASTERS, DRIFT_HEALED, FLAPPING_NODES, GUARD_HELD, GUARD_HOLDS,
    MAP_CHANGES, MAP_ENTRIES, MAP_FILE_FAILED, MAP_REJECTED, PINS, READ_ONLY, REFERENCES_DANGLING,
    REVISION,
};

mod file;
mod judge;
mod run;
mod screens;

use file::MapFileAccess;
pub use judge::judge_references;
pub use run::Inputs;
use screens::Screens;

/// How long a map file that another Mapsmith wrote may be gone, or name nobody, before it counts as
/// nobody's.
const ABANDONED: Duration = Duration::from_secs(30);

/// The cause of a revision that overrides led to, beside the sources' names.
pub const BY_OVERRIDE: &str = "override";
/// The cause of a revision that nothing but a change of what the map may point to, or of what a
/// HAProxy takes, led to.
pub const BY_REFERENCES: &str = "references";

/// What was decided last.
#[derive(Debug, Clone, Default)]
pub struct Decision {
    /// The highest poll request whose answers, from every source, are taken into account.
    pub considered: u64,
    /// The number of this decision; see [`Wanted::look`].
    pub look: u64,
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
    /// The map file.
    pub file: Option<MapFileStatus>,
    /// The latest revisions.
    pub log: Arc<RevisionLog>,
    /// How long the parts of the last decision took.
    pub steps: Vec<StepTiming>,
}

/// Asks for a held change to be let through.
#[derive(Debug)]
pub struct Approval {
    /// The change's id.
    pub id: String,
    /// Gets the approved change, or why it can't be approved.
    pub answer: oneshot::Sender<Result<HeldChange, ApprovalError>>,
}

/// Why a change can't be approved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// Nothing is held.
    #[error("nothing is held back, so there is nothing to approve")]
    NothingHeld,
    /// Another change is held.
    #[error(
        "the change {asked} is not the one held back, {held} is; look at it before you approve it"
    )]
    Another {
        /// The id that was asked for.
        asked: String,
        /// The id that is held.
        held: String,
    },
    /// It was approved, but the map file can't be written.
    #[error("approved, but not in force yet: {0}")]
    NotWritten(String),
}

/// What the sources said and the guard let through, or the last that it did.
struct Said {
    map: Arc<EntryMap>,
    /// Whether the guard let what the sources say now through; false where this is an older answer.
    passed: bool,
    /// Whether it differs from the last that was let through.
    is_new: bool,
    /// Whether it took an approval.
    approved: bool,
    /// The way there from the map in force, where it is known: without overrides the guard has
    /// asked for it.
    change: Option<Diff>,
    /// What the guard remembers of it once it is in force; none where nothing is new.
    passing: Option<judge::Passing>,
}

impl Said {
    /// What was let through before, once more.
    fn again(map: Arc<EntryMap>) -> Self {
        Self { map, passed: false, is_new: false, approved: false, change: None, passing: None }
    }
}

/// Makes the revisions.
#[derive(Debug)]
pub struct Decider {
    limits: Limits,
    access: MapFileAccess,
    decision: Decision,
    file: MapFileStatus,
    /// What the file says, or may say, though it is not in force: it was put in place, and could
    /// not be made to last.
    ahead: Option<Arc<Revision>>,
    /// Whether the file lacks something that a start would have to know.
    unsaved: bool,
    /// The Mapsmith that writes the map file.
    foreign: Option<Writer>,
    /// Since when its file is gone, or names nobody.
    abandoned: Option<Instant>,
    log: RevisionLog,
    approved: Option<String>,
    /// The change that came into force by an approval at the last decision.
    let_through: Option<String>,
    /// The sources' maps as they were when the revision in force was made, to tell which of them
    /// led to the next one.
    made_of: Vec<Option<Arc<EntryMap>>>,
    /// What the sources said when the guard last let it through: the map in force without
    /// overrides.
    accepted: Option<Arc<EntryMap>>,
    /// The overrides in the map in force.
    overrides: Arc<Overrides>,
    /// Whether the map in force is known to be what the sources said with these overrides: a start
    /// knows only what the file says.
    composed: bool,
    /// What the revision in force changed.
    change: Option<Change>,
    /// What becomes of entries that point nowhere.
    actions: Actions,
    /// What the map may point to, in each instance that has been looked at.
    targets: Vec<Arc<Targets>>,
    /// The same, as it was when the map in force was last compared with it.
    checked: Vec<Arc<Targets>>,
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
}

impl Decider {
    /// Reads the map file: what is in it is the map in force until the sources say something else.
    /// `overrides` are those in it, as far as the store tells.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub async fn start(
        limits: Limits,
        keeper: MapFileKeeper,
        overrides: Arc<Overrides>,
    ) -> Result<Self, MapFileError> {
        let mut access = MapFileAccess::start(keeper)?;
        let path = access.path().display().to_string();
        let found = access.load().await?;
        let file = MapFileStatus { path, revision: None, error: None, healed: 0 };
        // There from the start: a counter that begins at 1 has no rise that an alert could see.
        counter!(GUARD_HOLDS).increment(0);
        counter!(DRIFT_HEALED, "haproxy" => "file", "kind" => DriftKind::MapFile.label())
            .increment(0);
        for kind in ["added", "moved", "removed"] {
            counter!(MAP_CHANGES, "kind" => kind).increment(0);
        }
        let decision =
            Decision { look: 1, overrides: Arc::clone(&overrides), ..Decision::default() };
        let mut decider = Self {
            window: Window::new(limits.window),
            flapping: Flapping::new(limits.window, Duration::ZERO),
            clock: Instant::now(),
            release: None,
            limits,
            access,
            decision,
            file,
            ahead: None,
            unsaved: true,
            foreign: None,
            abandoned: None,
            log: RevisionLog::default(),
            approved: None,
            let_through: None,
            made_of: Vec::new(),
            accepted: None,
            overrides,
            composed: false,
            change: None,
            actions: Actions::default(),
            targets: Vec::new(),
            checked: Vec::new(),
            screens: Screens::default(),
        };
        decider.adopt(found);
        decider.record();
        Ok(decider)
    }

    /// Takes what the map file holds for the map in force, as at a start.
    fn adopt(&mut self, found: Option<MapFile>) {
        self.own();
        let Some(found) = found else { return };
        for (line, reason) in found.rejected.iter().take(10) {
            tracing::warn!(
                path = self.file.path,
                line,
                "a line of the map file is no entry: {reason}"
            );
        }
        let number = found.revision().unwrap_or(0);
        let written = found.header.is_some();
        let said = written.then(|| found.said_by_sources());
        let entries = Arc::new(found.entries);
        tracing::info!(
            path = self.file.path,
            revision = number,
            entries = entries.len(),
            "the map file is the map in force"
        );
        // One copy of two equal maps is enough.
        self.accepted =
            said.map(|said| if said == *entries { Arc::clone(&entries) } else { Arc::new(said) });
        self.file.revision = Some(number);
        self.decision.in_force = Some(Arc::new(Revision { number, at: Timestamp::now(), entries }));
        self.decision.active = self.accepted.is_some();
        self.decision.file = Some(self.file.clone());
        (self.ahead, self.change, self.composed) = (None, None, false);
        // Of what came before that map nothing is known.
        self.window = Window::new(self.limits.window);
        self.flapping.forget();
        self.made_of.clear();
        if let Some(writer) = found.header.and_then(|header| header.writer) {
            match state_of(&writer) {
                WriterState::Running => self.leave_to(writer),
                WriterState::Gone => {}
                WriterState::Unknown => tracing::warn!(
                    path = self.file.path,
                    "the map file was written elsewhere ({writer}), and nothing shows whether \
                        that Mapsmith still runs: it is taken over"
                ),
            }
        }
    }

    /// The map file is this one's to write.
    fn own(&mut self) {
        (self.foreign, self.abandoned, self.decision.read_only) = (None, None, None);
        self.file.error = None;
        // Also that it is this one's.
        self.unsaved = true;
    }

    /// Another Mapsmith writes the map file: this one changes nothing.
    fn leave_to(&mut self, writer: Writer) {
        tracing::error!(
            path = self.file.path,
            "the map file is another Mapsmith's ({writer}), so this one changes nothing; stop one \
                of the two, or start this one with \
             `mapsmith run --take-over`"
        );
        self.decision.active = false;
        self.decision.read_only = Some(writer.to_string());
        (self.foreign, self.abandoned, self.file.error) = (Some(writer), None, None);
        // What is held is the other one's to decide.
        self.decision.held = None;
    }

    /// For one round without the daemon: the file is written only where it has to say something
    /// else.
    pub fn for_one_round(self) -> Self {
        Self { unsaved: self.accepted.is_none(), ..self }
    }

    /// Writes the map file from now on, whoever wrote it before.
    pub fn take_over(mut self) -> Self {
        if let Some(writer) = self.foreign.take() {
            tracing::warn!(
                path = self.file.path,
                "the map file is taken over from another Mapsmith ({writer})"
            );
        }
        self.own();
        self.decision.active = self.accepted.is_some();
        self
    }

    /// What becomes of entries that point nowhere; without this they are kept.
    pub fn with_actions(self, actions: Actions) -> Self {
        Self { actions, ..self }
    }

    /// Keeps rows out of the map that these instances' HAProxys refuse; without this none is asked.
    pub fn with_screens(self, screens: Vec<RowScreen>) -> Self {
        Self { screens: Screens::new(screens), ..self }
    }

    /// What the map may point to, in each instance that has been looked at; for the next decision.
    pub fn see(&mut self, targets: Vec<Arc<Targets>>) {
        self.targets = targets;
    }

    /// What was decided last.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// What the instances should hold; none until a first answer of the sources was accepted, and
    /// while another Mapsmith keeps them.
    pub fn wanted(&self) -> Option<Wanted> {
        let revision = self.decision.in_force.clone().filter(|_| self.decision.active)?;
        let overrides = Arc::clone(&self.overrides);
        let change = self.change.clone();
        Some(Wanted {
            revision,
            look: self.decision.look,
            considered: self.decision.considered,
            overrides,
            change,
        })
    }

    /// Lets one held change through at the next decision.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        match &self.decision.held {
            None => Err(ApprovalError::NothingHeld),
            Some(held) if held.id != id => {
                Err(ApprovalError::Another { asked: id.to_owned(), held: held.id.clone() })
            }
            Some(held) => {
                self.approved = Some(held.id.clone());
                Ok(held.clone())
            }
        }
    }

    /// Whether a change that was approved came into force at the decision that followed: a source
    /// may have said something else just then.
    fn outcome_of_approval(&self, approved: HeldChange) -> Result<HeldChange, ApprovalError> {
        match (&self.file.error, &self.decision.held) {
            (Some(error), _) => Err(ApprovalError::NotWritten(error.clone())),
            (None, _) if self.let_through.as_ref() == Some(&approved.id) => Ok(approved),
            (None, Some(held)) => {
                Err(ApprovalError::Another { asked: approved.id, held: held.id.clone() })
            }
            (None, None) => Err(ApprovalError::NothingHeld),
        }
    }

    /// Looks at what every source said and an operator ordered, and decides what is wanted.
    pub async fn decide(&mut self, sources: &[SourceState], overrides: Arc<Overrides>) {
        self.decide_at(sources, overrides, self.clock.elapsed()).await;
    }

    /// The same at a time since the start.
    async fn decide_at(
        &mut self,
        sources: &[SourceState],
        overrides: Arc<Overrides>,
        now: Duration,
    ) {
        let mut steps = Vec::new();
        let start = Instant::now();
        let views: Vec<_> = sources
            .iter()
            .map(|state| SourceView {
                name: &state.status.name,
                // A source that is being asked for the first time may well answer: at a restart its
                // entries are in the map in force, and leaving it out would take them away for a
                // moment.
                required: state.status.required || state.status.last_poll.is_none(),
                snapshot: state.snapshot.as_ref(),
            })
            .collect();
        let before = self.marks();
        (self.let_through, self.release) = (None, None);
        self.decision.considered = sources.iter().map(|state| state.answered).min().unwrap_or(0);
        self.decision.overrides = Arc::clone(&overrides);
        match desired::merge(&views) {
            Err(waiting) => {
                self.decision.waiting_for = waiting;
                if let (None, Some(accepted)) = (&self.foreign, self.accepted.clone()) {
                    self.bring(Said::again(accepted), overrides, sources, &mut steps, now).await;
                }
            }
            Ok(_) if self.foreign.is_some() => self.decision.waiting_for.clear(),
            Ok(candidate) => {
                self.decision.waiting_for.clear();
                steps.push(StepTiming::new("merge", start.elapsed()));
                self.consider(candidate, overrides, sources, &mut steps, now).await;
            }
        }
        // What an instance's own servers do is no reason for all of them to look again: with a
        // hundred whose health checks flap none would rest.
        if self.marks() != before {
            self.decision.look += 1;
        }
        self.decision.steps = steps;
        self.decision.file = Some(self.file.clone());
        self.decision.log = Arc::new(self.log.clone());
        self.record();
    }

    /// What someone may wait for every instance to have seen.
    fn marks(&self) -> (u64, u64, Option<u64>, bool) {
        let revision = self.decision.in_force.as_ref().map(|revision| revision.number);
        (self.decision.considered, self.decision.overrides.number(), revision, self.decision.active)
    }

    async fn consider(
        &mut self,
        candidate: Arc<EntryMap>,
        overrides: Arc<Overrides>,
        sources: &[SourceState],
        steps: &mut Vec<StepTiming>,
        now: Duration,
    ) {
        let start = Instant::now();
        let judged = self.judge(Arc::clone(&candidate), now);
        steps.push(StepTiming::new("compare", start.elapsed()));
        let said = match judged {
            Ok(said) => said,
            Err(mut held) => {
                // Who approves it is told all that comes with it.
                if let Some(reason) = self.points_nowhere(&candidate, &overrides) {
                    held.reason = format!("{}; {reason}", held.reason);
                }
                self.hold(*held);
                // At the first start this leaves every HAProxy as it is: a map file that nothing
                // confirms is no reason to change a memory that works, and no ground for overrides.
                let Some(accepted) = self.accepted.clone() else { return };
                Said::again(accepted)
            }
        };
        self.bring(said, overrides, sources, steps, now).await;
    }

    /// Why this map with these overrides would be held for where it points to, if it would.
    fn points_nowhere(&self, map: &Arc<EntryMap>, overrides: &Overrides) -> Option<String> {
        if !self.actions.hold() {
            return None;
        }
        let overridden = desired_overrides::apply(map, overrides).entries;
        let in_force = self
            .decision
            .in_force
            .as_ref()
            .map(|revision| Arc::clone(&revision.entries))
            .unwrap_or_default();
        Dangling::of(&overridden, &self.targets).held(self.actions, &in_force)
    }

    /// Puts the overrides over what the sources said, and brings the result into force.
    async fn bring(
        &mut self,
        mut said: Said,
        overrides: Arc<Overrides>,
        sources: &[SourceState],
        steps: &mut Vec<StepTiming>,
        now: Duration,
    ) {
        let start = Instant::now();
        let nothing = Arc::default();
        let in_force =
            self.decision.in_force.as_ref().map(|revision| Arc::clone(&revision.entries));
        let before = in_force.as_ref().unwrap_or(&nothing);
        let ordered = overrides != self.overrides;
        let same_base =
            self.accepted.as_ref().is_some_and(|accepted| Arc::ptr_eq(accepted, &said.map));
        let settled = self.decision.held.is_none() && same(&self.targets, &self.checked);
        let refusals = self.screens.take_in();
        let as_before = self.composed && same_base && !ordered && !refusals;
        let (desired, diff) = if as_before && (settled || !self.actions.matter()) {
            if !settled {
                self.decision.dangling = Arc::new(Dangling::of(before, &self.targets));
            }
            (Arc::clone(before), Diff::default())
        } else {
            let mut overridden = desired_overrides::apply(&said.map, &overrides);
            let mut dangling = Dangling::of(&overridden.entries, &self.targets);
            let held = said.passed.then(|| dangling.held(self.actions, before)).flatten();
            let id = if held.is_some() { id_of(&overridden.entries) } else { String::new() };
            said.approved |= held.is_some() && self.approved.as_ref() == Some(&id);
            self.decision.dangling = Arc::new(dangling.clone());
            if let Some(reason) = held.filter(|_| !said.approved) {
                self.hold(HeldChange {
                    id,
                    of: HeldChange::MAP.to_owned(),
                    reason,
                    since: Timestamp::now(),
                    entries_in_force: before.len(),
                    entries_held: overridden.entries.len(),
                    counts: between(before, &overridden.entries).counts(),
                });
                let Some(accepted) = self.accepted.clone() else { return };
                overridden = desired_overrides::apply(&accepted, &overrides);
                dangling = Dangling::of(&overridden.entries, &self.targets);
                said = Said::again(accepted);
            }
            let mut desired = Arc::clone(&overridden.entries);
            self.decision.kept_from.clear();
            if !said.approved
                && let Some(kept) = dangling.hold_back(&desired, self.actions, before)
            {
                self.decision.kept_from = dangling
                    .held_masters(self.actions, before)
                    .into_iter()
                    .map(str::to_owned)
                    .collect();
                desired = Arc::new(kept);
            }
            if let Some(kept) = dangling.leave_out(&desired, self.actions) {
                desired = Arc::new(kept);
            }
            self.decision.stuck = overridden.stuck;
            let known = said.change.take().filter(|_| Arc::ptr_eq(&desired, &said.map));
            let diff = known.unwrap_or_else(|| between(before, &desired));
            let sifted = self.screens.sift(desired, before, diff, &self.limits).await;
            self.reject(sifted.rejected);
            let Some(sifted) = sifted.map else {
                // What the instances told is taken in, and not in the map yet.
                self.composed = false;
                return;
            };
            sifted
        };
        if said.passed {
            self.release();
        }
        let said_approved = said.approved;
        if !overrides.is_empty() {
            steps.push(StepTiming::new("overrides", start.elapsed()));
        }
        if let Some(revision) = &self.decision.in_force
            && diff.is_empty()
        {
            // A file that says what the sources said before would bring that back after a restart.
            self.unsaved |= said.is_new;
            if self.file.error.is_some() || self.unsaved {
                // Over a file that is ahead it goes as a change of its own: a number never goes
                // back.
                let again = if self.ahead.is_some() {
                    self.numbered(Arc::clone(before))
                } else {
                    Arc::clone(revision)
                };
                if self.write(Arc::clone(&again), Arc::clone(&said.map)).await {
                    self.decision.in_force = Some(again);
                }
            }
            self.note_accepted(&said, now);
            // One copy of two equal maps is enough.
            self.accepted =
                Some(if Arc::ptr_eq(&desired, &said.map) { Arc::clone(before) } else { said.map });
        } else {
            let revision = self.numbered(desired);
            let start = Instant::now();
            let written = self.write(Arc::clone(&revision), Arc::clone(&said.map)).await;
            steps.push(StepTiming::new("map file", start.elapsed()));
            if !written {
                // What is not in the file must not be in memory: a restart would bring the older
                // map back.
                self.composed = false;
                return;
            }
            let mut causes = Vec::new();
            if said.is_new {
                let maps: Vec<_> = sources
                    .iter()
                    .map(|state| {
                        state.snapshot.as_ref().map(|snapshot| Arc::clone(&snapshot.entries))
                    })
                    .collect();
                causes = changed_sources(sources, &maps, &self.made_of);
                self.made_of = maps;
            }
            if ordered {
                causes.push(BY_OVERRIDE.to_owned());
            }
            if causes.is_empty() {
                // What came or went between the file and a start is an override.
                let cause = if self.composed { BY_REFERENCES } else { BY_OVERRIDE };
                causes.push(cause.to_owned());
            }
            self.log_revision(&revision, before, &diff, causes);
            let from = self.decision.in_force.as_ref().map(|revision| revision.number);
            self.change =
                from.map(|from| Change { from, deviation: Arc::new(Deviation::of(diff, before)) });
            self.decision.in_force = Some(revision);
            self.note_accepted(&said, now);
            self.accepted = Some(said.map);
        }
        self.overrides = overrides;
        self.composed = true;
        self.checked.clone_from(&self.targets);
        self.decision.active = self.foreign.is_none();
        self.let_through = self.approved.take().filter(|_| said_approved);
    }

    /// Takes in what is rejected. One line for each change of it.
    fn reject(&mut self, rejected: RejectedRows) {
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
        for (kind, count) in
            [("added", counts.added), ("moved", counts.moved), ("removed", counts.removed)]
        {
            counter!(MAP_CHANGES, "kind" => kind).increment(count as u64);
        }
        self.log.push(
            summary,
            diff.changes(before, &revision.entries)
                .take(mapsmith_core::revision::REMEMBERED_CHANGES)
                .collect(),
        );
    }

    fn hold(&mut self, mut held: HeldChange) {
        // An approval was of what was held when it was given; it must not let that through some
        // other day.
        self.approved = None;
        match &self.decision.held {
            // A registry lives: what is held may be a little different at each poll, and is one
            // hold all the same.
            Some(before) => {
                held.since = before.since;
                if before.id != held.id {
                    tracing::info!(
                        id = held.id,
                        "the held change is another one now: {} ({})",
                        held.reason,
                        held.counts
                    );
                }
            }
            None => {
                counter!(GUARD_HOLDS).increment(1);
                tracing::warn!(
                    id = held.id,
                    "held back by the guard: {}; the last good map stays in force ({}); `mapsmith \
                        approve {}` lets it through",
                    held.reason,
                    held.counts,
                    held.id
                );
            }
        }
        self.decision.held = Some(held);
    }

    /// Nothing is held any more: the change was approved, or the sources say something else by now.
    fn release(&mut self) {
        if let Some(held) = self.decision.held.take() {
            tracing::info!(
                id = held.id,
                approved = self.approved.is_some(),
                "no change is held any more"
            );
        }
    }

    /// The next revision; the one that is in the file already, where it has these entries.
    fn numbered(&self, entries: Arc<EntryMap>) -> Arc<Revision> {
        match &self.ahead {
            Some(ahead) if ahead.entries == entries => Arc::clone(ahead),
            ahead => {
                let latest = ahead.as_ref().or(self.decision.in_force.as_ref());
                let number = latest.map_or(0, |revision| revision.number) + 1;
                Arc::new(Revision { number, at: Timestamp::now(), entries })
            }
        }
    }

    /// Writes a revision to the map file, with what the sources said; says whether it is there now.
    async fn write(&mut self, revision: Arc<Revision>, said: Arc<EntryMap>) -> bool {
        let error = match self.access.write(Arc::clone(&revision), said).await {
            Ok(()) => {
                (self.ahead, self.unsaved) = (None, false);
                self.file.revision = Some(revision.number);
                if self.file.error.take().is_some() {
                    tracing::info!(path = self.file.path, "the map file can be written again");
                }
                return true;
            }
            Err(WriteError::Foreign(writer)) => {
                self.leave_to(writer);
                return false;
            }
            Err(WriteError::Failed(error)) => error,
        };
        if error.replaced {
            self.ahead = Some(revision);
        }
        self.file_failed(&error);
        false
    }

    fn file_failed(&mut self, error: &MapFileError) {
        let error = error.to_string();
        if self.file.error.as_ref() != Some(&error) {
            tracing::error!("{error}; no instance gets a map that is not in the file");
        }
        self.file.error = Some(error);
    }

    /// Corrects a lost or changed map file. Whether anything about it changed.
    async fn check_file(&mut self) -> bool {
        if self.foreign.is_some() {
            return self.check_foreign_file().await;
        }
        let (Some(wanted), Some(said)) = (self.wanted(), self.accepted.clone()) else {
            return false;
        };
        match self.access.check(Arc::clone(&wanted.revision.entries)).await {
            Check::Same => return false,
            Check::Different => {
                if self.write(wanted.revision, said).await {
                    self.file.healed += 1;
                    counter!(DRIFT_HEALED, "haproxy" => "file", "kind" => DriftKind::MapFile.label()).increment(1);
                    tracing::warn!(
                        path = self.file.path,
                        "map file missing or modified externally; rewritten"
                    );
                }
            }
            Check::Foreign(writer) => self.leave_to(writer),
            Check::Unusable(error) => self.file_failed(&error),
        }
        self.decision.file = Some(self.file.clone());
        self.record();
        true
    }

    /// Looks whether another Mapsmith still writes the map file. Whether anything about it changed.
    async fn check_foreign_file(&mut self) -> bool {
        let Ok(header) = self.access.header().await else { return false };
        match header.and_then(|header| header.writer) {
            Some(writer) if state_of(&writer) == WriterState::Gone => self.take_back().await,
            Some(writer) => {
                self.abandoned = None;
                if self.foreign.as_ref() == Some(&writer) {
                    return false;
                }
                self.leave_to(writer);
                self.record();
                true
            }
            // Whoever keeps a file writes it again within moments.
            None => {
                self.abandoned.get_or_insert_with(Instant::now).elapsed() > ABANDONED
                    && self.take_back().await
            }
        }
    }

    /// The Mapsmith that wrote the map file has ended: what it left is the last good map, unless
    /// that is older than ours.
    async fn take_back(&mut self) -> bool {
        let ours = self.decision.in_force.as_ref().map_or(0, |revision| revision.number);
        match self.access.load().await {
            Ok(found) => {
                tracing::warn!(
                    path = self.file.path,
                    "the Mapsmith that wrote the map file has ended; this one goes on from there"
                );
                let later =
                    found.filter(|found| found.revision().is_some_and(|number| number >= ours));
                self.adopt(later);
                self.decision.active = self.accepted.is_some() && self.foreign.is_none();
            }
            Err(error) => self.file_failed(&error),
        }
        self.decision.look += 1;
        self.decision.file = Some(self.file.clone());
        self.record();
        true
    }

    fn record(&self) {
        gauge!(GUARD_HELD).set(f64::from(u8::from(self.decision.held.is_some())));
        gauge!(MAP_FILE_FAILED).set(f64::from(u8::from(self.file.error.is_some())));
        gauge!(READ_ONLY).set(f64::from(u8::from(self.foreign.is_some())));
        gauge!(PINS).set(self.decision.overrides.pins().len() as f64);
        let (unknown, not_ready) = self.decision.dangling.entries();
        gauge!(REFERENCES_DANGLING, "kind" => "unknown").set(unknown as f64);
        gauge!(REFERENCES_DANGLING, "kind" => "not_ready").set(not_ready as f64);
        gauge!(MAP_REJECTED).set(self.decision.rejected.count as f64);
        gauge!(FLAPPING_NODES).set(self.decision.flapping.count as f64);
        gauge!(CONFLICTING_NODES).set(self.decision.conflicts.count as f64);
        gauge!(DRAINED_MASTERS).set(self.decision.overrides.drained().len() as f64);
        if let Some(revision) = &self.decision.in_force {
            gauge!(REVISION).set(revision.number as f64);
            gauge!(MAP_ENTRIES).set(revision.entries.len() as f64);
        }
    }
}

/// Whether these are the very looks that those were.
fn same(one: &[Arc<Targets>], other: &[Arc<Targets>]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
}

fn between(old: &Arc<EntryMap>, new: &Arc<EntryMap>) -> Diff {
    if Arc::ptr_eq(old, new) { Diff::default() } else { Diff::between(old, new) }
}

/// Names exactly this map.
fn id_of(map: &EntryMap) -> String {
    format!("{:016x}", map.digest())
}

/// The sources whose map is another one than when the revision in force was made.
fn changed_sources(
    sources: &[SourceState],
    maps: &[Option<Arc<EntryMap>>],
    before: &[Option<Arc<EntryMap>>],
) -> Vec<String> {
    sources
        .iter()
        .enumerate()
        .filter(|(index, _)| match (&maps[*index], before.get(*index).and_then(Option::as_ref)) {
            (Some(now), Some(before)) => !Arc::ptr_eq(now, before),
            (now, _) => now.is_some(),
        })
        .map(|(_, state)| state.status.name.clone())
        .collect()
}

#[cfg(test)]
mod tests;
