//! What an operator orders of the engine itself: taken at once, decided on with everything else, and
//! answered once that is done.

use jiff::Timestamp;
use mapsmith_core::desired::gate::ApprovalError;

use super::Engine;
use crate::engine::{
    Approval, Order, OwnOrder, RejectOrder, ResumeOrder, RollbackOrder, RollbackPreview, RolledBack,
};

impl Engine {
    pub(super) async fn take(&mut self, order: Order) {
        match order {
            Order::Approve(approval) => self.approve(approval),
            Order::Own(order) => self.own(order),
            Order::RollBack(order) => self.roll_back(order).await,
            Order::Resume(order) => self.resume(order).await,
            Order::Reject(order) => self.reject(order).await,
        }
    }

    /// Answers those whose order was decided on.
    pub(super) fn answer_orders(&mut self) {
        for (held, answer) in self.approved_of_map.drain(..) {
            // Whoever asked may have gone; the change is in force all the same.
            let _ = answer.send(self.map.outcome_of_approval(held));
        }
        if self.map_is_due {
            return;
        }
        let generation = self.desired.generation;
        let outcome = self.map.outcome_of_own();
        for answer in self.owned.drain(..) {
            let _ = answer.send(outcome.clone().map(|()| generation));
        }
        let (outcome, after) = (self.map.outcome_of_rollback(), self.map.entries_in_force());
        for (before, answer) in self.rolled_back.drain(..) {
            let after = after.clone().unwrap_or_default();
            let maps = RollbackPreview { before, after };
            let not_in_force = outcome.clone().err();
            let _ = answer.send(Ok(RolledBack { maps, generation, not_in_force }));
        }
        for answer in self.resumed.drain(..) {
            let _ = answer.send(Ok(generation));
        }
    }

    fn approve(&mut self, Approval { id, answer }: Approval) {
        let of_map = match self.map.approve(&id) {
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
            Err(of_lists) => {
                let error = if of_map == ApprovalError::NothingHeld { of_lists } else { of_map };
                let _ = answer.send(Err(error));
            }
        }
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
        let RollbackOrder { rollback, base, expected, ticket, answer } = order;
        let (of, until) = (rollback.of, rollback.until);
        let by = rollback.note.by.clone();
        let Some(ticket) = ticket else {
            let preview = self.map.preview_rollback(rollback, &base, expected);
            let generation = self.desired.generation;
            let told = |maps| RolledBack { maps, generation, not_in_force: None };
            let _ = answer.send(preview.map(told));
            return;
        };
        match self.map.roll_back(rollback, base, expected, Some(ticket)).await {
            Ok(before) => {
                let until = until.map(tracing::field::display);
                tracing::warn!(
                    of,
                    until,
                    by,
                    "an operator ordered a rollback: the sources are held back"
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

    async fn reject(&mut self, RejectOrder { id, note, ticket, answer }: RejectOrder) {
        let by = note.by.clone();
        let rejected = self.map.reject(&id, note, ticket).await;
        if rejected.is_ok() {
            tracing::info!(id, by, "an operator rejected a held change");
            self.map_is_due = true;
        }
        let _ = answer.send(rejected);
    }
}
