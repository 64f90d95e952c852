//! The map in one HAProxy's memory: compared with the wanted one, and brought there.

use std::sync::Arc;
use std::time::Duration;

use haproxy_runtime::{MapCounters, Probe};
use jiff::Timestamp;
use mapsmith_core::plan::map::MapFacts;
use mapsmith_core::plan::{CostModel, Deviation, MapPlan, plan_map};
use mapsmith_core::status::{ApplyReport, DriftKind, InstanceState, Strategy};
use mapsmith_core::{DesiredMap, Revision};
use metrics::{counter, histogram};
use tokio::time::{Instant, sleep_until};

use super::apply::{self, Timings};
use super::failure::Failure;
use super::process::Seen;
use super::{Instance, Staged, Verified};
use crate::telemetry::{APPLY_DURATION, APPLY_FAILURES, DRIFT_CORRECTED};

/// How often staged entries must look the same before they count as abandoned: another Mapsmith may
/// be about to commit them.
const ABANDONED_PASSES: u32 = 10;
/// The least time between two swaps of one instance: `commit map` of a huge map frees the old one
/// in one go, and doing so back to back has tripped HAProxy's watchdog (haproxy issue 3292).
const SWAP_SPACING: Duration = Duration::from_secs(1);
/// How long the sources may take to answer before a change outside Mapsmith is undone all the same.
const ASK_BOUND: Duration = Duration::from_secs(10);

/// What memory holds beside what it should.
struct Found {
    deviation: Arc<Deviation>,
    memory: MapFacts,
    /// Whether the live map was read back for it.
    was_read: bool,
}

/// What came of one try.
enum Outcome {
    Done(InstanceState),
    /// The last swap is too recent.
    SwapNotBefore(Instant),
}

/// From a revision that memory is known to hold to the wanted one.
fn deviation_from(held: &Revision, wanted: &DesiredMap) -> Arc<Deviation> {
    match &wanted.change {
        Some(change) if change.from == held.number => Arc::clone(&change.deviation),
        _ => Arc::new(Deviation::between(&held.entries, &wanted.revision.entries)),
    }
}

impl Instance {
    /// Brings the map in memory to the wanted one.
    pub(super) async fn sync_map(
        &mut self,
        seen: &Seen,
        wanted: Option<&DesiredMap>,
    ) -> Result<InstanceState, Failure> {
        let Some(wanted) = wanted else { return Ok(InstanceState::Connected) };
        let mut seen = *seen;
        loop {
            match self.try_map(wanted, seen).await? {
                Outcome::Done(state) => return Ok(state),
                Outcome::SwapNotBefore(due) => {
                    sleep_until(due).await;
                    // What was seen before the pause may be past.
                    let probe = self.client.probe().await?;
                    seen = self.observe_process(&probe)?;
                }
            }
        }
    }

    async fn try_map(&mut self, wanted: &DesiredMap, seen: Seen) -> Result<Outcome, Failure> {
        let revision = &wanted.revision;
        let behind =
            |reason| Ok(Outcome::Done(InstanceState::Behind { wanted: revision.number, reason }));
        let found = self.compare(wanted, seen).await?;
        let Found { deviation, memory, .. } = &found;
        let mut drift = self.drift(revision, deviation);
        let mut plan = plan_map(&revision.entries, deviation, memory);
        if plan == MapPlan::InSync && self.abandoned(seen.counters, memory.staged_entries) {
            drift.push(DriftKind::AbandonedVersions);
            // Not `clear map`: a writer that only paused would commit what is left, an empty map. A
            // commit fences it off.
            plan = MapPlan::Swap {
                reason: format!(
                    "{} entries of abandoned versions go with a commit",
                    memory.staged_entries
                ),
            };
        }
        let mut counters = seen.counters;
        if plan != MapPlan::InSync {
            if self.must_ask_first(wanted, &drift) {
                let reason = "another writer changed the map in memory; the sources are asked \
                    again before it is corrected";
                return behind(reason.to_owned());
            }
            if let Some(reason) = self.unchecked_master(revision, deviation) {
                return behind(reason);
            }
            if let (MapPlan::Swap { .. }, Some(last)) = (&plan, self.last_swap)
                && last.elapsed() < SWAP_SPACING
            {
                return Ok(Outcome::SwapNotBefore(last + SWAP_SPACING));
            }
            counters = match self.apply(&plan, revision, deviation, memory, counters).await {
                Ok(counters) => counters,
                Err(failure) => return Err(self.refused_rows(failure, revision, deviation).await),
            };
        }
        self.note_drift(&drift);
        self.note_verified(revision, counters, found.was_read);
        Ok(Outcome::Done(InstanceState::InSync { revision: revision.number }))
    }

    /// What memory lacks of the wanted map: from what it is known to hold, or read back where
    /// nothing is known for sure.
    async fn compare(&mut self, wanted: &DesiredMap, seen: Seen) -> Result<Found, Failure> {
        let (revision, counters) = (&wanted.revision, seen.counters);
        self.observe_counters(counters);
        let (deviation, live_entries, was_read) = match &self.verified {
            Some(verified) if verified.revision.number == revision.number => {
                (Arc::default(), verified.live_entries, false)
            }
            Some(verified) => {
                (deviation_from(&verified.revision, wanted), verified.live_entries, false)
            }
            None => {
                let expected = counters
                    .count(0)
                    .map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
                let (deviation, live_entries) =
                    apply::read_back(&self.client, None, expected, &revision.entries).await?;
                (Arc::new(deviation), live_entries, true)
            }
        };
        // HAProxy counts the entries of all versions together, and some twice where a map is used
        // with several match types; only a version beyond the live one can hold staged entries.
        let staged = counters.last_prepared > counters.live_version;
        let counted = counters.count(live_entries).filter(|_| staged);
        let staged_entries =
            counted.map_or(0, |counted| (counted as usize).saturating_sub(live_entries));
        let cost = CostModel::new(seen.version);
        let memory = MapFacts { entries: live_entries, staged_entries, cost };
        Ok(Found { deviation, memory, was_read })
    }

    /// Memory holds this revision.
    fn note_verified(&mut self, revision: &Arc<Revision>, counters: MapCounters, was_read: bool) {
        if was_read {
            self.report.status.verified_at = Some(Timestamp::now());
            self.next_verify = Instant::now() + self.verify.mul_f64(0.9 + fastrand::f64() / 5.0);
        }
        self.suspicion = None;
        self.asked = None;
        self.last_revision = Some(revision.number);
        let live_entries = revision.entries.len();
        self.report.status.entries_in_memory =
            Some(counters.count(live_entries).unwrap_or(live_entries as u64));
        self.verified = Some(Verified { revision: Arc::clone(revision), counters, live_entries });
    }

    /// Why the map has to wait: it would send nodes to a server that was just made ready and whose
    /// check has yet to pass.
    fn unchecked_master(&self, revision: &Revision, deviation: &Deviation) -> Option<String> {
        let to = deviation
            .missing
            .iter()
            .chain(&deviation.wrong)
            .map(|at| revision.entries.value(*at as usize));
        let master = self.servers.as_ref()?.awaits_check(to)?;
        Some(format!("no node is sent to {master} before its health check has passed"))
    }

    /// Forgets what is held where the map's counters moved or its time has come.
    fn observe_counters(&mut self, counters: MapCounters) {
        let Some(verified) = &self.verified else { return };
        if (verified.counters.live_version, verified.counters.entries)
            != (counters.live_version, counters.entries)
        {
            self.suspicion = Some(DriftKind::MapChanged);
            self.verified = None;
        } else if Instant::now() >= self.next_verify {
            self.verified = None;
        }
    }

    /// What a deviation tells beyond "a new revision is due".
    fn drift(&self, revision: &Revision, deviation: &Deviation) -> Vec<DriftKind> {
        let mut drift = Vec::new();
        if deviation.duplicates > 0 {
            drift.push(DriftKind::Duplicates);
        }
        if deviation.counts().total() > 0 && self.last_revision == Some(revision.number) {
            drift.push(self.suspicion.unwrap_or(DriftKind::MapChanged));
        }
        drift
    }

    /// Whether a change outside Mapsmith may be news: a second Mapsmith that has polled already
    /// changes the map before this one knows why. Undoing that would bring an older route back, so
    /// the sources are asked first, once for each change.
    fn must_ask_first(&mut self, wanted: &DesiredMap, drift: &[DriftKind]) -> bool {
        let Some(ask) = &self.ask_sources else { return false };
        let foreign =
            drift.iter().any(|kind| matches!(kind, DriftKind::MapChanged | DriftKind::Duplicates));
        if !foreign || self.last_revision != Some(wanted.revision.number) {
            return false;
        }
        let (request, at) = *self.asked.get_or_insert_with(|| (ask(), Instant::now()));
        wanted.evaluated_request < request && at.elapsed() < ASK_BOUND
    }

    fn note_drift(&mut self, drift: &[DriftKind]) {
        for kind in drift {
            let status = &mut self.report.status;
            *status.drift_corrected.entry(*kind).or_default() += 1;
            if *kind != DriftKind::Restarted {
                status.drift_at = Some(Timestamp::now());
            }
            counter!(DRIFT_CORRECTED, "haproxy" => status.name.clone(), "kind" => kind.label())
                .increment(1);
            tracing::warn!(
                instance = status.name,
                kind = kind.label(),
                "the map in memory was not what it should be; corrected"
            );
        }
    }

    /// Whether staged entries have stood untouched for long enough that no writer can be about to
    /// commit them.
    fn abandoned(&mut self, counters: MapCounters, staged_entries: usize) -> bool {
        if staged_entries == 0 {
            self.staged = None;
            return false;
        }
        let passes = match self.staged {
            Some(staged) if staged.counters == counters => staged.passes + 1,
            _ => 1,
        };
        self.staged = Some(Staged { counters, passes });
        passes >= ABANDONED_PASSES
    }

    /// Carries the plan out and returns the map's counters after it.
    async fn apply(
        &mut self,
        plan: &MapPlan,
        revision: &Revision,
        deviation: &Deviation,
        memory: &MapFacts,
        before: MapCounters,
    ) -> Result<MapCounters, Failure> {
        let (strategy, reason) = match plan {
            MapPlan::Edit { reason, .. } => (Strategy::Edits, reason),
            MapPlan::Swap { reason } => (Strategy::Swap, reason),
            MapPlan::InSync => return Ok(before),
        };
        let name = self.report.status.name.clone();
        let mut timings = Timings::default();
        let start = Instant::now();
        let result = self.carry_out(plan, revision, memory, before, &mut timings).await;
        let took = start.elapsed();
        if strategy == Strategy::Swap {
            // Also where it failed: the commit may have been carried out.
            self.last_swap = Some(Instant::now());
        }
        let counters = match result {
            Ok(counters) => counters,
            Err(failure) => {
                counter!(APPLY_FAILURES, "haproxy" => name).increment(1);
                return Err(failure);
            }
        };
        histogram!(APPLY_DURATION, "haproxy" => name.clone(), "strategy" => strategy.label())
            .record(took.as_secs_f64());
        let counts = deviation.counts();
        tracing::info!(
            instance = name,
            revision = revision.number,
            strategy = strategy.label(),
            added = counts.added,
            moved = counts.moved,
            removed = counts.removed,
            milliseconds = took.as_millis() as u64,
            "map applied and verified"
        );
        self.report.status.last_apply = Some(ApplyReport {
            revision: revision.number,
            at: Timestamp::now(),
            strategy,
            reason: reason.clone(),
            counts,
            steps: timings.into_steps(),
        });
        self.staged = None;
        Ok(counters)
    }

    async fn carry_out(
        &mut self,
        plan: &MapPlan,
        revision: &Revision,
        memory: &MapFacts,
        before: MapCounters,
        timings: &mut Timings,
    ) -> Result<MapCounters, Failure> {
        let expected = match plan {
            MapPlan::Edit { edits, .. } => {
                apply::edit(&self.client, edits, memory.cost.edits_a_line(memory.entries), timings)
                    .await?;
                // The planner edits only where nothing is staged, so the versions must not move,
                // and the count moves by what was added and removed; where HAProxy counted entries
                // twice before, it says nothing.
                let exact = before.entries == memory.entries as u64;
                MapCounters {
                    entries: if exact { revision.entries.len() as u64 } else { 0 },
                    ..before
                }
            }
            _ => {
                let version = apply::swap(&self.client, &revision.entries, timings).await?;
                MapCounters { live_version: version, last_prepared: version, entries: 0 }
            }
        };
        let probe = timings.step("confirm", self.client.probe()).await?;
        self.confirm(&probe, expected)
    }

    /// Whether the counters are what the change must have left; another writer or process shows
    /// here at once. An expected count of 0 entries is not compared.
    fn confirm(&self, probe: &Probe, expected: MapCounters) -> Result<MapCounters, Failure> {
        let differs = |what: String| Err(Failure::NotConfirmed(what));
        let counters =
            probe.map.ok_or_else(|| Failure::UnknownMap(self.client.map().as_str().to_owned()))?;
        if Some(probe.process.pid) != self.process.as_ref().map(|(process, _)| process.pid) {
            return differs(format!("another process answers (pid {})", probe.process.pid));
        }
        if counters.live_version != expected.live_version {
            let (live, ours) = (counters.live_version, expected.live_version);
            return differs(format!(
                "version {live} is live instead of {ours}: another writer was later"
            ));
        }
        if expected.entries != 0 && counters.entries != expected.entries {
            return differs(format!(
                "memory counts {} entries instead of {}",
                counters.entries, expected.entries
            ));
        }
        Ok(counters)
    }
}
