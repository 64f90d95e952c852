//! What an operator orders of the engine itself: taken at once, decided on with everything else, and
//! answered once that is done.

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::rollout::choose;

use super::Engine;
use crate::engine::{
    Approval, HoldOrderError, MapPreview, MapTrial, Order, OwnOrder, RegistrationTrial,
    RejectOrder, ResumeOrder, RollbackOrder, RolledBack, RolloutOrder, TriedOrder, UnrejectOrder,
    VerdictTrial,
};

impl Engine {
    pub(super) async fn take(&mut self, order: Order) {
        match order {
            Order::Approve(approval) => self.approve(approval).await,
            Order::Own(order) => self.own(order),
            Order::RollBack(order) => self.roll_back(order).await,
            Order::Resume(order) => self.resume(order).await,
            Order::Reject(order) => self.reject(order).await,
            Order::Unreject(order) => self.unreject(order).await,
            Order::Rollout(order) => self.roll_out(order).await,
            Order::TryMap(trial) => self.try_map(trial),
            Order::TryVerdict(trial) => self.try_verdict(trial),
            Order::TryRegistrations(trial) => self.try_registrations(trial),
        }
    }

    /// Answers those whose order was decided on.
    pub(super) fn answer_orders(&mut self) {
        for (held, answer) in self.approved_of_map.drain(..) {
            // Whoever asked may have gone; the change is in force all the same.
            let outcome = self.map.outcome_of_approval(held);
            let _ = answer.send(outcome.map_err(HoldOrderError::NotHeld));
        }
        if self.map_is_due {
            return;
        }
        let generation = self.desired.generation;
        let outcome = self.map.outcome_of_own();
        for answer in self.owned.drain(..) {
            let _ = answer.send(outcome.clone().map(|()| generation));
        }
        let (outcome, after) = (self.map.outcome_of_rollback(), self.map.entries_ordered());
        for (before, answer) in self.rolled_back.drain(..) {
            let after = after.clone().unwrap_or_default();
            let maps = MapPreview { before, after };
            let not_in_force = outcome.clone().err();
            let _ = answer.send(Ok(RolledBack { maps, generation, not_in_force }));
        }
        for answer in self.resumed.drain(..) {
            let _ = answer.send(Ok(generation));
        }
        for (rejected, answer) in self.unrejected.drain(..) {
            let held = self.map.decision().held.clone();
            let _ = answer.send(Ok((rejected, held)));
        }
        for (held, answer) in self.in_canary.drain(..) {
            let _ = answer.send(Ok(held));
        }
        let rollouts = Arc::clone(&self.map.decision().rollout.rollouts);
        for (ordered, answer) in self.rolled_out.drain(..) {
            let now = rollouts.iter().find(|rollout| rollout.id == ordered.id).cloned();
            let _ = answer.send(Ok((now.unwrap_or(ordered), generation)));
        }
    }

    async fn approve(&mut self, Approval { id, note, canary, answer }: Approval) {
        if let Some((terms, ticket)) = canary {
            let views = self.inputs.instances.now();
            let begun = self.map.begin_approved((&id, note, terms), &views, Some(ticket)).await;
            return match begun {
                Ok(held) => {
                    self.map_is_due = true;
                    self.in_canary.push((held, answer));
                }
                Err(error) => drop(answer.send(Err(error))),
            };
        }
        let of_map = match self.map.approve_by(&id, note) {
            Ok(held) => {
                self.map_is_due = true;
                return self.approved_of_map.push((held, answer));
            }
            Err(error) => error,
        };
        match self.servers.approve(&id) {
            Ok(held) => {
                self.lists_are_due = true;
                self.approved_of_lists.push((held, answer));
            }
            Err(of_lists) => drop(answer.send(Err(refusal(of_map, of_lists)))),
        }
    }

    fn try_map(&self, MapTrial { tried, answer }: MapTrial) {
        let preview = match tried {
            TriedOrder::Overrides(over) => self.map.preview_overrides(&over),
            TriedOrder::Resume { expected } => self.map.preview_resume(expected),
        };
        let _ = answer.send(preview);
    }

    fn try_verdict(&self, VerdictTrial { id, canary, answer }: VerdictTrial) {
        let views = canary.as_ref().map(|_| self.inputs.instances.now());
        let tried = self.map.try_verdict(&id, canary.as_ref().zip(views.as_deref()));
        let tried = match tried {
            Err(HoldOrderError::NotHeld(of_map)) => match self.servers.held(&id) {
                Ok(held) => Ok(held),
                Err(of_lists) => Err(refusal(of_map, of_lists)),
            },
            tried => tried,
        };
        let _ = answer.send(tried);
    }

    /// On the answers of the last round, as what is registered is decided on.
    fn try_registrations(&mut self, RegistrationTrial { entries, answer }: RegistrationTrial) {
        let mut answers = self.answers.clone();
        for state in answers.iter_mut().filter(|state| state.registered.is_some()) {
            if let Some(snapshot) = &mut state.snapshot {
                snapshot.entries = Arc::clone(&entries);
            }
        }
        let _ = answer.send(self.map.would_hold(&answers));
    }

    fn own(&mut self, OwnOrder { node, master, answer }: OwnOrder) {
        match self.map.own(&node, &master, Timestamp::now()) {
            Ok(()) => {
                tracing::info!(node, owner = master, "an operator said whose a node is");
                self.map_is_due = true;
                self.owned.push(answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    async fn roll_back(&mut self, order: RollbackOrder) {
        let RollbackOrder { rollback, canary, base, expected, ticket, answer } = order;
        let (of, until) = (rollback.of, rollback.until);
        let by = rollback.note.by.clone();
        let Some(ticket) = ticket else {
            let preview = self.map.preview_rollback(rollback, &base, expected);
            let views = self.inputs.instances.now();
            let choice = canary.map_or(Ok(()), |terms| choose(&terms.instances, &views).map(drop));
            let preview =
                preview.and_then(|it| choice.map(|()| it).map_err(HoldOrderError::Choice));
            let generation = self.desired.generation;
            let told = |maps| RolledBack { maps, generation, not_in_force: None };
            let _ = answer.send(preview.map(told));
            return;
        };
        let begun = match canary {
            None => self.map.roll_back(rollback, base, expected, Some(ticket)).await,
            Some(terms) => {
                let views = self.inputs.instances.now();
                let order = (rollback, terms);
                self.map.begin_rollback(order, base, expected, &views, Some(ticket)).await
            }
        };
        match begun {
            Ok(before) => {
                let until = until.map(tracing::field::display);
                tracing::warn!(
                    of,
                    until,
                    by,
                    "an operator ordered a rollback: what the sources say waits"
                );
                self.map_is_due = true;
                self.rolled_back.push((before, answer));
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    async fn resume(&mut self, ResumeOrder { expected, ticket, answer }: ResumeOrder) {
        match self.map.resume(expected, ticket).await {
            Ok(()) => {
                tracing::info!(
                    "an operator ended the hold of a rollback: the sources are followed"
                );
                self.map_is_due = true;
                self.resumed.push(answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    async fn roll_out(&mut self, order: RolloutOrder) {
        let RolloutOrder { id, version, promote, note, ticket, answer } = order;
        let (is_dry, generation) = (ticket.is_none(), self.desired.generation);
        match self.map.decide_rollout((&id, version), promote, note, ticket).await {
            Ok(rollout) if is_dry => drop(answer.send(Ok((rollout, generation)))),
            Ok(rollout) => {
                self.map_is_due = true;
                self.rolled_out.push((rollout, answer));
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }

    async fn reject(&mut self, RejectOrder { id, note, ticket, answer }: RejectOrder) {
        let by = note.by.clone();
        let rejected = self.map.reject(&id, note, ticket).await;
        if rejected.is_ok() {
            tracing::info!(id, by, "an operator rejected a held change");
            self.map_is_due = true;
        }
        let _ = answer.send(rejected);
    }

    async fn unreject(&mut self, UnrejectOrder { id, ticket, answer }: UnrejectOrder) {
        let by = ticket.as_ref().map(|ticket| ticket.request().actor.name);
        let is_dry = ticket.is_none();
        match self.map.unreject(&id, ticket).await {
            Ok(rejected) if is_dry => drop(answer.send(Ok((rejected, None)))),
            Ok(rejected) => {
                tracing::info!(id, by, "an operator took a rejection back");
                self.map_is_due = true;
                self.unrejected.push((rejected, answer));
            }
            Err(error) => drop(answer.send(Err(error))),
        }
    }
}

/// Why nothing that is held can be approved.
fn refusal(of_map: ApprovalError, of_lists: ApprovalError) -> HoldOrderError {
    match if of_map == ApprovalError::NothingHeld { of_lists } else { of_map } {
        ApprovalError::OnHold(error) => HoldOrderError::Refused(error),
        error => HoldOrderError::NotHeld(error),
    }
}
