//! Held changes that an operator lets through.

use mapsmith_core::desired::gate::ApprovalError;
use mapsmith_core::{HeldChange, Note};

use super::MapDecider;

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
