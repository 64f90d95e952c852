//! How a rollout stands, in words.

use std::fmt;

use super::{Rollout, State, Subject};

impl fmt::Display for Rollout {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Rollback { of } => write!(out, "the rollback to revision {of} "),
            Subject::Approve { held } => write!(out, "the held change {held} "),
        }?;
        let first = self.instances.join(", ");
        match (self.state, self.in_force) {
            (State::Waiting, _) => write!(out, "goes to {first} first"),
            (State::Baking, _) => {
                write!(out, "bakes in {first}")?;
                self.ends.map_or(Ok(()), |ends| write!(out, " until {ends:.0}"))
            }
            (State::Paused | State::Stuck, None) => {
                write!(out, "stays in {first} until somebody promotes or aborts it")
            }
            (State::Promoting, None) => write!(out, "is to go everywhere"),
            (State::Promoting | State::Stuck, Some(_)) => write!(out, "goes to the last instances"),
            (State::Paused | State::InForce, _) => write!(out, "is in force"),
            (State::Aborting, _) => write!(out, "is being taken back"),
            (State::Aborted, _) => write!(out, "was aborted"),
        }?;
        self.why.as_ref().map_or(Ok(()), |why| write!(out, ": {why}"))
    }
}
