//! What an operator orders of rollouts, and what comes of itself: in the store first.

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::hold::Rollback;
use mapsmith_core::desired::rollout::{
    InstanceView, Observation, Plan, Rollout, RolloutError, Subject, Terms, choose,
};
use mapsmith_core::history::{self, Fingerprint};
use mapsmith_core::{EntryMap, HeldChange, Note, Revision};

use super::Current;
use crate::engine::HoldOrderError;
use crate::engine::map::{MapDecider, between};
use crate::store::{AuditTicket, StoredRollout, Ways};

impl MapDecider {
    /// Begins the canary of a rollback; see [`Self::roll_back`]. What was in force before.
    ///
    /// # Errors
    /// As a rollback; or another canary is on its way, or the instances can't be chosen.
    pub(in crate::engine) async fn begin_rollback(
        &mut self,
        (rollback, terms): (Rollback, Terms),
        base: Arc<EntryMap>,
        expected: u64,
        instances: &[InstanceView],
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Arc<Revision>, HoldOrderError> {
        let now = Timestamp::now();
        let before = self.expected(Some(expected))?;
        let answer = self.answer_id().ok_or(HoldOrderError::NotReady)?;
        let possible = self.hold.state.rolled_back(rollback.clone(), answer, now);
        possible.map_err(HoldOrderError::Refused)?;
        let hold_seconds = rollback.until.map(|until| until.duration_since(now).as_secs());
        let subject = Subject::Rollback { of: rollback.of };
        let order = (subject, rollback.note, hold_seconds);
        self.begin(order, &terms, base, instances, ticket, now).await?;
        Ok(before)
    }

    /// Begins the canary of a held change of the map.
    ///
    /// # Errors
    /// It is not the one that is held; or as another rollout.
    pub(in crate::engine) async fn begin_approved(
        &mut self,
        (id, note, terms): (&str, Note, Terms),
        instances: &[InstanceView],
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<HeldChange, HoldOrderError> {
        self.expected(None)?;
        self.check_no_canary()?;
        self.hold.state.check_approval().map_err(HoldOrderError::Refused)?;
        let held = self.gate.named(id).map_err(HoldOrderError::NotHeld)?.clone();
        let base = self.rollouts.held.clone().filter(|(of, _)| of == id);
        let (_, base) = base.ok_or(HoldOrderError::NotReady)?;
        let subject = Subject::Approve { held: id.to_owned() };
        let order = (subject, note, None);
        self.begin(order, &terms, base, instances, ticket, Timestamp::now()).await?;
        Ok(held)
    }

    async fn begin(
        &mut self,
        (subject, note, hold_seconds): (Subject, Note, Option<i64>),
        terms: &Terms,
        base: Arc<EntryMap>,
        instances: &[InstanceView],
        ticket: Option<Arc<AuditTicket>>,
        now: Timestamp,
    ) -> Result<(), HoldOrderError> {
        self.check_no_canary()?;
        let chosen = choose(&terms.instances, instances).map_err(HoldOrderError::Choice)?;
        let in_force = self.expected(None)?;
        let stable = self.gate.accepted().cloned().ok_or(HoldOrderError::NotReady)?;
        let answer = self.answer_id().ok_or(HoldOrderError::NotReady)?;
        let numbers = (in_force.number, self.next_number());
        let rollout = Rollout::begin(subject, note, (chosen, terms), numbers, now);
        let maps = (Arc::clone(&stable), Arc::clone(&base));
        let weighed = tokio::task::spawn_blocking(move || {
            let (stable, base) = &maps;
            let (there, back) = (between(stable, base), between(base, stable));
            let ways = Ways {
                forward: history::encode(&back, base, stable),
                back: history::encode(&there, stable, base),
            };
            (Fingerprint::of(stable), Fingerprint::of(base), ways)
        });
        let failed = |error: tokio::task::JoinError| HoldOrderError::NotStored(error.to_string());
        let (stable_is, canary_is, ways) = weighed.await.map_err(failed)?;
        let hold_before = self.hold.state.clone();
        let plan = Plan { answer, hold_seconds, stable: stable_is, canary: canary_is, hold_before };
        // One that came into force before is over.
        self.supersede_rollout(now);
        if self.rollouts.unsaved {
            self.save_hold(self.clock.elapsed(), Timestamp::now()).await;
        }
        let stored =
            StoredRollout { rollout: rollout.clone(), plan: plan.clone(), ways: Some(ways) };
        let state = self.hold.state.clone();
        if let Err(error) = self.hold.change(state, Some(stored), ticket).await {
            if let (HoldOrderError::NotStored(why), Ok(aborted)) =
                (&error, rollout.abort(Note::default(), Some("not stored".to_owned()), now))
            {
                // What was given up may be written all the same.
                tracing::error!(id = rollout.id, "the canary does not begin: {why}");
                self.rollouts.retire();
                self.rollouts.unsaved = true;
                self.rollouts.current = Some(Current::new(aborted, plan, base, stable));
            }
            return Err(error);
        }
        self.rollouts.retire();
        tracing::warn!(
            id = rollout.id,
            instances = rollout.instances.join(","),
            by = rollout.note.by,
            "a canary begins: the others and the map file keep what is in force"
        );
        self.rollouts.current = Some(Current::new(rollout, plan, base, stable));
        self.gate.settle();
        Ok(())
    }

    /// The open rollout of this id and version.
    fn rollout_of(&self, id: &str, version: u64) -> Result<&Current, HoldOrderError> {
        if let Some(writer) = &self.foreign {
            return Err(HoldOrderError::ReadOnly(writer.to_string()));
        }
        let current = self.rollouts.current.as_ref().filter(|it| it.rollout.id == id);
        let Some(current) = current else {
            let over = self.rollouts.past.iter().find(|it| it.id == id);
            return Err(match over {
                Some(Rollout { id, state, .. }) => {
                    let (id, state) = (id.clone(), *state);
                    HoldOrderError::Rollout(RolloutError::Over { id, state })
                }
                None => HoldOrderError::NoRollout(id.to_owned()),
            });
        };
        match current.rollout.version == version {
            true => Ok(current),
            false => Err(HoldOrderError::RolloutChanged(Box::new(current.rollout.clone()))),
        }
    }

    /// Has a rollout go everywhere, or what was before. In force with the next decision; the
    /// rollout as it is since. Without a ticket nothing is changed, and it is what would be.
    ///
    /// # Errors
    /// There is none of this id and version, it is over, or the store did not take it.
    pub(in crate::engine) async fn decide_rollout(
        &mut self,
        (id, version): (&str, u64),
        promote: bool,
        note: Note,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Rollout, HoldOrderError> {
        let now = Timestamp::now();
        let current = self.rollout_of(id, version)?;
        let after = match promote {
            true => current.rollout.promote(note, now),
            false => current.rollout.abort(note, None, now),
        };
        let after = after.map_err(HoldOrderError::Rollout)?;
        if ticket.is_some() {
            self.take_verdict(after.clone(), ticket, now).await?;
        }
        Ok(after)
    }

    /// Stores what becomes of the open rollout, and has it carried out.
    async fn take_verdict(
        &mut self,
        after: Rollout,
        ticket: Option<Arc<AuditTicket>>,
        now: Timestamp,
    ) -> Result<(), HoldOrderError> {
        let answer = self.answer_id();
        let Some(current) = self.rollouts.open() else { return Ok(()) };
        let (mut plan, before) = (current.plan.clone(), &current.rollout);
        let hold = &self.hold.state;
        let is_promoted = before.promoted.is_none() && after.promoted.is_some();
        let is_aborted = before.aborted.is_none() && after.aborted.is_some();
        let state = match (is_promoted, &after.aborted) {
            (true, _) => {
                plan.hold_before = hold.clone();
                after.hold_promoted(hold, &plan, now)
            }
            (false, Some(verdict)) if is_aborted => {
                after.hold_aborted(hold, &plan, answer, &verdict.note, now)
            }
            _ => hold.clone(),
        };
        let base = Arc::clone(&current.base);
        let stored = StoredRollout { rollout: after.clone(), plan: plan.clone(), ways: None };
        if let Err(error) = self.hold.change(state, Some(stored), ticket).await {
            // What was given up may be written all the same.
            self.rollouts.unsaved = true;
            return Err(error);
        }
        tracing::warn!(id = after.id, state = after.state.name(), "the rollout goes on");
        let is_rollback = matches!(after.subject, Subject::Rollback { .. });
        self.hold.pending = (after.is_promotion_pending() && is_rollback).then_some(base);
        if let Some(current) = &mut self.rollouts.current {
            (current.rollout, current.plan) = (after, plan);
        }
        self.rollouts.unsaved = false;
        self.gate.settle();
        Ok(())
    }

    /// Takes in how the instances stand. Whether anything is another than before: then a decision
    /// is due.
    pub(in crate::engine) async fn observe_rollout(
        &mut self,
        instances: &[InstanceView],
        now: Timestamp,
    ) -> bool {
        if self.foreign.is_some() {
            return false;
        }
        let Some(current) = self.rollouts.open_mut() else { return false };
        match current.rollout.observe(instances, now) {
            Observation::Unchanged => false,
            Observation::Changed => {
                let Rollout { id, state, why, .. } = &current.rollout;
                let (state, needs) = (state.name(), current.rollout.needs_a_person());
                match needs {
                    true => tracing::warn!(id, state, why, "the rollout needs somebody"),
                    false => tracing::info!(id, state, "the rollout goes on"),
                }
                self.rollouts.unsaved = true;
                true
            }
            Observation::Baked => {
                let reason = Some("it has baked".to_owned());
                let after = current.rollout.promote(Note { reason, by: None }, now);
                let Ok(after) = after else { return false };
                match self.take_verdict(after, None, now).await {
                    Ok(()) => true,
                    Err(error) => {
                        self.hold.failed(&error);
                        false
                    }
                }
            }
        }
    }
}
