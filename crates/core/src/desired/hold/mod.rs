//! Whether the sources are followed: the hold that a rollback leaves, and what an operator
//! rejected. Pure.
//!
//! While a hold lasts the sources are asked and compared, and nothing of what they say is applied.
//! It ends when its time is over, or when they say something else than what was rolled back from:
//! then whatever they say is a held change, which takes an approval. Only a person leads back to
//! following them, by an approval or by resuming. So no hold ends with a map that nobody has seen.
//!
//! An answer is known here by a text that names exactly it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Note;
use crate::desired::guard::PastChange;
use crate::revision::{ChangeCounts, HeldChange};

/// What keeps the sources' answers from being applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldState {
    /// None while the sources are followed.
    pub hold: Option<Hold>,
    /// What an operator does not want: it is neither applied nor shown while the sources say it.
    pub rejected: Option<Rejected>,
    /// What was approved and tried in a canary that was aborted: it is held while the sources say
    /// it, whatever the guard says.
    #[serde(default)]
    pub aborted: Option<Rejected>,
    /// While the guard holds a change, what had come into force within its window when it began to:
    /// else a start would let the change through.
    #[serde(default)]
    pub window: Vec<PastChange>,
    /// Since when a change of the map is held; none while none is.
    #[serde(default)]
    pub held_since: Option<Timestamp>,
}

/// What a rollback leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// The revision that was rolled back to.
    pub of: u64,
    /// The one that the rollback made; none while it is not in force.
    pub revision: Option<u64>,
    pub since: Timestamp,
    /// None where it lasts until somebody resumes.
    pub until: Option<Timestamp>,
    #[serde(flatten)]
    pub note: Note,
    /// None while it lasts.
    pub ended: Option<HoldEnd>,
}

/// How a hold ended. The sources are not followed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HoldEnd {
    pub at: Timestamp,
    pub why: EndReason,
}

/// Why a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    TimeOver,
    /// The sources say something else than what was rolled back from.
    OtherAnswer,
    /// The map in force is gone: there is nothing to hold on to.
    MapLost,
}

/// An answer of the sources that an operator does not want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RejectedAnswer)]
pub struct Rejected {
    pub answer: String,
    pub at: Timestamp,
    #[serde(flatten)]
    pub note: Note,
    /// The held change that it was; none of what was rolled back from, which the hold tells of.
    #[serde(flatten)]
    pub change: Option<RejectedChange>,
}

/// A held change that an operator rejected, as it was held then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectedChange {
    /// The id that it was held by.
    pub id: String,
    /// What it is of, as of a held change.
    pub of: String,
    /// Why it was held.
    pub why: String,
    /// What it would have changed.
    pub counts: ChangeCounts,
}

impl From<&HeldChange> for RejectedChange {
    fn from(held: &HeldChange) -> Self {
        let HeldChange { id, of, reason, counts, .. } = held;
        Self { id: id.clone(), of: of.clone(), why: reason.clone(), counts: *counts }
    }
}

impl Rejected {
    /// What a person names it by.
    pub fn id(&self) -> &str {
        self.change.as_ref().map_or(&self.answer, |change| &change.id)
    }
}

/// What becomes of an answer of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// The guard judges it.
    Follow,
    /// Nothing of it is applied, and nothing is shown as held.
    Stay,
    /// It is held for this reason, whatever the guard says.
    Hold(String),
}

/// Why an order is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    #[error(
        "the rollback to revision {0} holds the sources back; resume first (`mapsmith resume`, \
            `DELETE /v1/hold`)"
    )]
    OnHold(u64),
    #[error(
        "the rollback to revision {0} holds the sources back; resume first (`mapsmith resume`, \
            `DELETE /v1/hold`), or roll back in its place (`--replace`, `\"replace\": true`)"
    )]
    InPlace(u64),
    #[error("there is no hold: the sources are followed")]
    NoHold,
    #[error("no held change {0} is rejected, so there is nothing to take back")]
    NotRejected(String),
}

/// A rollback, as it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// The revision.
    pub of: u64,
    pub until: Option<Timestamp>,
    pub note: Note,
    /// Whether it may take the place of one that holds the sources back already.
    pub replace: bool,
}

impl HoldState {
    /// Whether what the sources say is judged by the guard alone.
    pub fn follows(&self) -> bool {
        self.hold.is_none() && self.rejected.is_none() && self.aborted.is_none()
    }

    /// The hold, while nothing that the sources say can be approved.
    pub fn lasting(&self) -> Option<&Hold> {
        self.hold.as_ref().filter(|hold| hold.ended.is_none())
    }

    /// Whether a rollback was ordered that is not in force.
    pub fn is_pending(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.revision.is_none())
    }

    /// When the hold's time is over.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.lasting()?.until
    }

    /// The state with a rollback, which takes what the sources say now for rejected.
    ///
    /// # Errors
    /// Another rollback holds the sources back.
    pub fn rolled_back(
        &self,
        rollback: Rollback,
        answer: String,
        now: Timestamp,
    ) -> Result<Self, HoldError> {
        let Rollback { of, until, note, replace } = rollback;
        match &self.hold {
            Some(hold) if !replace => return Err(HoldError::InPlace(hold.of)),
            _ => {}
        }
        let rejected = Rejected { answer, at: now, note: note.clone(), change: None };
        let hold = Hold { of, revision: None, since: now, until, note, ended: None };
        let aborted = self.aborted.clone();
        Ok(Self { hold: Some(hold), rejected: Some(rejected), aborted, ..Self::default() })
    }

    /// The state in which the sources are followed again.
    ///
    /// # Errors
    /// They are.
    pub fn resumed(&self) -> Result<Self, HoldError> {
        self.hold.as_ref().map(|_| Self::default()).ok_or(HoldError::NoHold)
    }

    /// The state in which this answer is not wanted.
    ///
    /// # Errors
    /// Nothing is held while a hold lasts.
    pub fn rejecting(
        &self,
        answer: String,
        held: &HeldChange,
        note: Note,
        at: Timestamp,
    ) -> Result<Self, HoldError> {
        self.check_approval()?;
        let rejected = Rejected { answer, at, note, change: Some(held.into()) };
        Ok(Self { rejected: Some(rejected), ..self.clone() })
    }

    /// The held change that an operator rejected, while the sources are not known to say something
    /// else. What was rolled back from is none: the hold tells of that.
    pub fn rejected_change(&self) -> Option<&Rejected> {
        self.rejected.as_ref().filter(|_| self.lasting().is_none())
    }

    /// The state in which this rejection is taken back, and what that was.
    ///
    /// # Errors
    /// It is not what is rejected, or a hold lasts.
    pub fn unrejected(&self, id: &str) -> Result<(Self, Rejected), HoldError> {
        self.check_approval()?;
        let rejected = self.rejected.as_ref().filter(|rejected| rejected.id() == id);
        let rejected = rejected.ok_or_else(|| HoldError::NotRejected(id.to_owned()))?;
        Ok((Self { rejected: None, ..self.clone() }, rejected.clone()))
    }

    /// Whether what is held may be approved.
    ///
    /// # Errors
    /// A hold lasts.
    pub fn check_approval(&self) -> Result<(), HoldError> {
        self.lasting().map_or(Ok(()), |hold| Err(HoldError::OnHold(hold.of)))
    }

    /// A rollback is in force, as this revision.
    pub fn note_in_force(&mut self, revision: u64) {
        if let Some(hold) = &mut self.hold {
            hold.revision = Some(revision);
        }
    }

    /// What was held is in force by an approval: the sources are followed.
    pub fn note_approved(&mut self) {
        *self = Self::default();
    }

    /// Ends a hold whose time is over.
    pub fn expire(&mut self, now: Timestamp) {
        if let Some(until) = self.next_end().filter(|until| *until <= now) {
            self.end(HoldEnd { at: until, why: EndReason::TimeOver });
        }
    }

    fn end(&mut self, end: HoldEnd) {
        if let Some(hold) = &mut self.hold {
            hold.ended = Some(end);
        }
        // What was rolled back from is shown like any answer.
        self.rejected = None;
    }

    /// What becomes of the sources' answer, where `accepted` is the one in force.
    pub fn observe(&mut self, answer: &str, accepted: Option<&str>, now: Timestamp) -> Course {
        self.expire(now);
        let is_rejected = self.rejected.as_ref().is_some_and(|it| it.answer == answer);
        if self.lasting().is_some() {
            let why = match accepted {
                None => EndReason::MapLost,
                Some(accepted) if is_rejected || accepted == answer => return Course::Stay,
                Some(_) => EndReason::OtherAnswer,
            };
            self.end(HoldEnd { at: now, why });
        }
        if self.rejected.as_ref().is_some_and(|rejected| rejected.answer == answer) {
            return Course::Stay;
        }
        // Once they have said something else it is over.
        self.rejected = None;
        self.aborted.take_if(|aborted| aborted.answer != answer);
        match &self.hold {
            None if self.aborted.is_some() && accepted != Some(answer) => {
                Course::Hold("the canary of this change was aborted".to_owned())
            }
            None => Course::Follow,
            Some(_) if accepted == Some(answer) => Course::Stay,
            Some(hold) => Course::Hold(hold.reason()),
        }
    }
}

impl Hold {
    /// Why what the sources say is held.
    fn reason(&self) -> String {
        let why = match self.ended.map(|end| end.why) {
            Some(EndReason::OtherAnswer) => {
                "the sources say something else than what was rolled back from"
            }
            Some(EndReason::MapLost) => "the map that it had in force is gone",
            Some(EndReason::TimeOver) | None => "its time is over",
        };
        format!("the rollback to revision {} held the sources back, and {why}", self.of)
    }
}

#[cfg(test)]
mod tests;
