//! What a change passes before it comes into force: the last value that was accepted, the change
//! that is held back, and the approval that lets it through. Pure. The node map has one, and each
//! backend's server list.

use jiff::Timestamp;

use super::hold::HoldError;
use crate::revision::{ChangeCounts, HeldChange};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    #[error("nothing is held back, so there is nothing to approve or reject")]
    NothingHeld,
    #[error("the change {asked} is not the one held back, {held} is; review that one first")]
    Another { asked: String, held: String },
    /// A rollback holds the sources back.
    #[error(transparent)]
    OnHold(HoldError),
    /// It was approved, but the map file can't be written.
    #[error("approved, but not in force yet: {0}")]
    NotWritten(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Approved,
    Held(Hold),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    New,
    Replaced,
    Unchanged,
}

/// The last value that was accepted, and what is held back from replacing it.
#[derive(Debug, Clone)]
pub struct Gate<V> {
    accepted: Option<V>,
    held: Option<HeldChange>,
    /// The id of a held change that is let through when it is submitted again.
    approved: Option<String>,
    /// What was accepted before the first part of what is held.
    before_part: Option<V>,
    /// Since when a change was held before the start, until one is held, or none is any more.
    recalled: Option<Timestamp>,
}

impl<V> Default for Gate<V> {
    fn default() -> Self {
        Self { accepted: None, held: None, approved: None, before_part: None, recalled: None }
    }
}

impl<V> Gate<V> {
    pub fn accepted(&self) -> Option<&V> {
        self.accepted.as_ref()
    }

    pub fn held(&self) -> Option<&HeldChange> {
        self.held.as_ref()
    }

    /// What was accepted before a part of what is held came into force; none where none did. The
    /// rest is judged against it too, or it would pass for what came beside it.
    pub fn before_part(&self) -> Option<&V> {
        self.before_part.as_ref()
    }

    /// Sets the accepted value without a change being submitted: what a start found in force.
    pub fn resume(&mut self, accepted: Option<V>) {
        self.accepted = accepted;
    }

    /// What a start holds first has been held since then.
    pub fn recall(&mut self, since: Option<Timestamp>) {
        self.recalled = since;
    }

    /// Lets the held change of this id through when it is submitted again.
    pub fn approve(&mut self, id: &str) -> Result<HeldChange, ApprovalError> {
        let held = self.named(id)?.clone();
        self.approved = Some(id.to_owned());
        Ok(held)
    }

    /// The held change, where it has this id.
    pub fn named(&self, id: &str) -> Result<&HeldChange, ApprovalError> {
        match &self.held {
            None => Err(ApprovalError::NothingHeld),
            Some(held) if held.id != id => {
                Err(ApprovalError::Another { asked: id.to_owned(), held: held.id.clone() })
            }
            Some(held) => Ok(held),
        }
    }

    pub fn is_approved(&self, id: &str) -> bool {
        self.approved.as_deref() == Some(id)
    }

    /// Submits a change: it passes where `limits` allow it or it is the approved one, and is held
    /// back else. `id` names exactly this change; `describe` turns the broken limit into the change
    /// as a person sees it.
    pub fn submit(
        &mut self,
        limits: Result<(), String>,
        id: impl FnOnce() -> String,
        describe: impl FnOnce(String, String) -> HeldChange,
    ) -> Verdict {
        let Err(reason) = limits else { return Verdict::Passed };
        let id = id();
        if self.is_approved(&id) {
            return Verdict::Approved;
        }
        Verdict::Held(self.hold(describe(id, reason)))
    }

    fn hold(&mut self, mut change: HeldChange) -> Hold {
        // An approval was of what was held when it was given; it must not let that through some
        // other day.
        self.approved = None;
        let hold = match &self.held {
            None => {
                change.since = self.recalled.take().unwrap_or(change.since);
                Hold::New
            }
            // A registry lives: what is held may be a little different at each poll, and is one
            // hold all the same.
            Some(before) => {
                change.since = before.since;
                change.applied = before.applied;
                if before.id == change.id { Hold::Unchanged } else { Hold::Replaced }
            }
        };
        self.held = Some(change);
        hold
    }

    /// Nothing is held any more. Gives what was.
    pub fn release(&mut self) -> Option<HeldChange> {
        (self.before_part, self.recalled) = (None, None);
        self.held.take()
    }

    /// The accepted value was submitted again: nothing is held any more, and no approval stands.
    /// Gives what was held.
    pub fn settle(&mut self) -> Option<HeldChange> {
        self.approved = None;
        self.release()
    }

    /// The value is in force now. Gives the id of the approval that it took, which is used up.
    pub fn accept(&mut self, value: V) -> Option<String> {
        self.accepted = Some(value);
        self.approved.take()
    }

    /// The accepted value with a part of what is held is in force now; the rest stays held.
    pub fn accept_part(&mut self, value: V, counts: ChangeCounts) {
        let before = self.accepted.replace(value);
        if let Some(held) = &mut self.held {
            held.applied += counts;
            self.before_part = self.before_part.take().or(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: String, reason: String) -> HeldChange {
        HeldChange {
            id,
            of: HeldChange::MAP.to_owned(),
            reason,
            since: Timestamp::UNIX_EPOCH,
            entries_in_force: 1,
            entries_held: 0,
            counts: ChangeCounts::default(),
            applied: ChangeCounts::default(),
        }
    }

    fn submit(gate: &mut Gate<u32>, id: &str, limits: Result<(), &str>) -> Verdict {
        gate.submit(limits.map_err(str::to_owned), || id.to_owned(), change)
    }

    #[test]
    fn a_change_within_limits_passes_and_one_beyond_them_is_held_as_one_hold_since_the_first() {
        let mut gate = Gate::default();
        assert_eq!(submit(&mut gate, "a", Ok(())), Verdict::Passed);
        assert_eq!(gate.held(), None);
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::New));
        let since = gate.held().unwrap().since;
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::Unchanged));
        assert_eq!(submit(&mut gate, "b", Err("too much")), Verdict::Held(Hold::Replaced));
        let held = gate.held().unwrap();
        assert_eq!((held.id.as_str(), held.reason.as_str(), held.since), ("b", "too much", since));
        assert_eq!(gate.release().map(|held| held.id).as_deref(), Some("b"));
        assert_eq!((gate.held(), gate.accepted()), (None, None));
    }

    #[test]
    fn what_a_start_holds_again_has_been_held_since_then_and_what_it_holds_later_has_not() {
        let since = Timestamp::from_second(7).unwrap();
        let mut gate = Gate::default();
        gate.recall(Some(since));
        submit(&mut gate, "a", Err("too much"));
        assert_eq!(gate.held().unwrap().since, since);
        gate.release();
        submit(&mut gate, "a", Err("too much"));
        assert_eq!(gate.held().unwrap().since, Timestamp::UNIX_EPOCH);
        let mut gate = Gate::default();
        gate.recall(Some(since));
        assert_eq!(submit(&mut gate, "a", Ok(())), Verdict::Passed);
        gate.release();
        submit(&mut gate, "a", Err("too much"));
        assert_eq!(gate.held().unwrap().since, Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn an_approval_lets_exactly_the_change_through_that_was_held_and_only_once() {
        let mut gate = Gate::default();
        assert_eq!(gate.approve("a"), Err(ApprovalError::NothingHeld));
        // It is what a rejection is answered, too.
        let words = "nothing is held back, so there is nothing to approve or reject";
        assert_eq!(ApprovalError::NothingHeld.to_string(), words);
        submit(&mut gate, "a", Err("too much"));
        let another = ApprovalError::Another { asked: "b".to_owned(), held: "a".to_owned() };
        assert_eq!(gate.approve("b"), Err(another));
        assert_eq!(gate.approve("a").unwrap().id, "a");
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Approved);
        gate.release();
        assert_eq!(gate.accept(1).as_deref(), Some("a"));
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::New));
    }

    #[test]
    fn an_approval_ends_where_the_accepted_value_is_submitted_again() {
        let mut gate = Gate::default();
        submit(&mut gate, "a", Err("too much"));
        gate.approve("a").unwrap();
        assert_eq!(gate.settle().map(|held| held.id).as_deref(), Some("a"));
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::New));
    }

    #[test]
    fn an_approval_ends_with_the_first_change_that_is_held_in_its_place() {
        let mut gate = Gate::default();
        submit(&mut gate, "a", Err("too much"));
        gate.approve("a").unwrap();
        assert_eq!(submit(&mut gate, "b", Err("too much")), Verdict::Held(Hold::Replaced));
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::Replaced));
        assert_eq!(gate.accepted(), None);
    }
    #[test]
    fn a_part_that_comes_into_force_leaves_the_rest_held_and_is_told() {
        let mut gate = Gate::default();
        gate.accept(1);
        let part = ChangeCounts { moved: 2, ..ChangeCounts::default() };
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::New));
        gate.accept_part(2, part);
        assert_eq!((gate.accepted(), gate.before_part()), (Some(&2), Some(&1)));
        assert_eq!(submit(&mut gate, "a", Err("too much")), Verdict::Held(Hold::Unchanged));
        assert_eq!(submit(&mut gate, "b", Err("too much")), Verdict::Held(Hold::Replaced));
        gate.accept_part(3, part);
        assert_eq!((gate.accepted(), gate.before_part()), (Some(&3), Some(&1)));
        assert_eq!(gate.held().unwrap().applied.moved, 4);
        gate.approve("b").unwrap();
        assert_eq!(submit(&mut gate, "b", Err("too much")), Verdict::Approved);
        assert_eq!(gate.release().map(|held| held.id).as_deref(), Some("b"));
        gate.accept(4);
        assert_eq!((gate.accepted(), gate.before_part()), (Some(&4), None));
    }
}
