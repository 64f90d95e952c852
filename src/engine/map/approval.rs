//! Held changes that an operator lets through or rejects, and rejections that they take back.

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::desired::hold::Rejected;
use mapsmith_core::{HeldChange, Note};

use super::MapDecider;
use crate::engine::HoldOrderError;
use crate::store::AuditTicket;

impl MapDecider {
    /// Lets one held change through at the next decision.
    ///
    /// # Errors
    /// When no such change is held.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        self.approve_by(id, Note::default())
    }

    /// The same, with who says so and why.
    ///
    /// # Errors
    /// When no such change is held.
    pub fn approve_by(&mut self, id: &str, note: Note) -> Result<HeldChange, ApprovalError> {
        self.check_hold().map_err(ApprovalError::OnHold)?;
        let held = self.gate.approve(id)?;
        self.approval = note;
        Ok(held)
    }

    /// Takes a held change for rejected: it is not shown again while the sources say the same.
    ///
    /// # Errors
    /// It is not the one that is held, or the store did not take it.
    pub(in crate::engine) async fn reject(
        &mut self,
        id: &str,
        note: Note,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<HeldChange, HoldOrderError> {
        self.hold.state.check_approval().map_err(HoldOrderError::Refused)?;
        let held = self.gate.named(id).map_err(HoldOrderError::NotHeld)?.clone();
        let answer = self.answer_id().ok_or(HoldOrderError::NotReady)?;
        let state = self.hold.state.rejecting(answer, &held, note, Timestamp::now());
        self.hold.change(state.map_err(HoldOrderError::Refused)?, None, ticket).await?;
        self.gate.settle();
        Ok(held)
    }

    /// Takes a rejection back: what the sources say is judged again with the next decision, and held
    /// where it was. Without a ticket it is only tried.
    ///
    /// # Errors
    /// It is not what is rejected, a hold lasts, a canary is on its way, another Mapsmith decides,
    /// or the store did not take it.
    pub(in crate::engine) async fn unreject(
        &mut self,
        id: &str,
        ticket: Option<Arc<AuditTicket>>,
    ) -> Result<Rejected, HoldOrderError> {
        self.expected(None)?;
        self.check_no_canary()?;
        let unrejected = self.hold.state.unrejected(id).map_err(HoldOrderError::Refused);
        let (state, rejected) = unrejected?;
        if ticket.is_some() {
            self.hold.change(state, None, ticket).await?;
        }
        Ok(rejected)
    }

    /// Whether a change that was approved came into force at the decision that followed: a source
    /// may have said something else just then.
    pub(in crate::engine) fn outcome_of_approval(
        &self,
        approved: HeldChange,
    ) -> Result<HeldChange, ApprovalError> {
        match (&self.file.error, self.gate.held()) {
            (Some(error), _) => Err(ApprovalError::NotWritten(error.clone())),
            (None, _) if self.let_through.as_ref() == Some(&approved.id) => Ok(approved),
            (None, Some(held)) => {
                Err(ApprovalError::Another { asked: approved.id, held: held.id.clone() })
            }
            (None, None) => Err(ApprovalError::NothingHeld),
        }
    }
}
