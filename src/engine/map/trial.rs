//! What an order would come to: nothing is changed.

use std::sync::Arc;

use jiff::Timestamp;

use mapsmith_core::desired;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::hold::Course;
use mapsmith_core::desired::rollout::{CanaryInstances, InstanceView, choose};
use mapsmith_core::{HeldChange, Overrides, SourceState};

use super::{MapDecider, views};
use crate::engine::{HoldOrderError, MapPreview};

impl MapDecider {
    /// The map with these overrides, over what the sources had said that was accepted last.
    ///
    /// # Errors
    /// There is no map in force, or another Mapsmith decides.
    pub(in crate::engine) fn preview_overrides(
        &self,
        over: &Overrides,
    ) -> Result<MapPreview, HoldOrderError> {
        let before = self.expected(None)?;
        let base = self.gate.accepted().ok_or(HoldOrderError::NotReady)?;
        let (overridden, dangling) = self.with_overrides(base, &self.gone, over);
        let mut after = overridden.entries;
        if let Some(kept) = dangling.hold_back(&after, self.actions, &before.entries) {
            after = Arc::new(kept);
        }
        if let Some(kept) = dangling.leave_out(&after, self.actions) {
            after = Arc::new(kept);
        }
        Ok(MapPreview { before, after })
    }

    /// The map once the sources are followed again, where the guard lets through what they say.
    ///
    /// # Errors
    /// They are followed, or as an order to do so.
    pub(in crate::engine) fn preview_resume(
        &self,
        expected: Option<u64>,
    ) -> Result<MapPreview, HoldOrderError> {
        let before = self.expected(expected)?;
        self.check_no_canary()?;
        self.hold.state.resumed().map_err(HoldOrderError::Refused)?;
        let said = self.hold_answer().ok_or(HoldOrderError::NotReady)?;
        let (overridden, dangling) = self.with_overrides(&said, &self.gone, &self.overrides);
        let left = dangling.leave_out(&overridden.entries, self.actions);
        Ok(MapPreview { before, after: left.map_or(overridden.entries, Arc::new) })
    }

    /// Why what these sources say would be held, if it would: by the guard, or after a hold or a
    /// canary.
    pub(in crate::engine) fn would_hold(&mut self, sources: &[SourceState]) -> Option<String> {
        if !self.keeps_map || self.rollout_holds_sources() {
            return None;
        }
        let candidate = desired::merge(&views(sources)).ok()?;
        match self.course_and_state(&candidate, Timestamp::now()).1 {
            Course::Follow => self.judge(candidate, &self.overrides, self.clock.elapsed()),
            Course::Hold(why) => Some(why),
            Course::Stay => None,
        }
    }

    /// The held change of the map, where it could be approved or rejected now.
    ///
    /// # Errors
    /// It is not the one that is held, a hold lasts, or no canary could begin.
    pub(in crate::engine) fn try_verdict(
        &self,
        id: &str,
        canary: Option<(&CanaryInstances, &[InstanceView])>,
    ) -> Result<HeldChange, HoldOrderError> {
        if let Some((wanted, instances)) = canary {
            self.expected(None)?;
            self.check_no_canary()?;
            choose(wanted, instances).map_err(HoldOrderError::Choice)?;
        }
        let held = match self.check_hold() {
            Ok(()) => self.gate.named(id),
            Err(error) => Err(ApprovalError::OnHold(error)),
        };
        held.cloned().map_err(HoldOrderError::NotHeld)
    }
}
