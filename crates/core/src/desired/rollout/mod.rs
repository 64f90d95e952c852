//! The canary of a revision: it goes to a few instances first, bakes there, and then everywhere or
//! nowhere. Pure.
//!
//! While the canary lasts the others hold what is stable, and so does the map file. Promoting is
//! always possible, and so is aborting, until the last instance is in sync; neither waits for the
//! health of what is stable. Every wait has an end, after which a person is needed and nothing is
//! taken away from them. What the sources say meanwhile waits behind it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::hold::{HoldState, Rejected, Rollback};
use crate::Note;
use crate::history::Fingerprint;
use crate::status::InstanceState;

mod instances;
mod words;

pub use instances::{CanaryInstances, ChoiceError, choose};

/// How much longer than it bakes a canary may take before somebody has to look.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// How long an instance may lack the canary before it counts as behind: a HAProxy that starts again
/// comes up with what is stable. Of a short bake it is half of it.
const BEHIND: SignedDuration = SignedDuration::from_secs(30);
const SHORTEST_BEHIND: SignedDuration = SignedDuration::from_secs(1);

/// How a canary is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub instances: CanaryInstances,
    pub bake: Duration,
    pub then: Then,
}

/// What happens once a canary has baked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It goes everywhere, unless one of its instances is behind.
    #[default]
    Auto,
    /// It waits for somebody.
    Wait,
}

/// What a canary brings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = RolloutSubject)]
pub enum Subject {
    /// What the sources had said at an older revision.
    Rollback { of: u64 },
    /// A change that was held and is approved.
    Approve { held: String },
}

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RolloutState)]
pub enum State {
    /// Not every one of the chosen instances has it yet.
    Waiting,
    /// They have it.
    Baking,
    /// It stays in the chosen instances until somebody promotes or aborts it.
    Paused,
    /// It is to go everywhere.
    Promoting,
    /// Every instance has it.
    InForce,
    /// What was before is to be everywhere again.
    Aborting,
    /// It is.
    Aborted,
    /// A wait is over its time: somebody has to promote or abort it.
    Stuck,
}

impl State {
    /// As it stands in JSON.
    pub fn name(self) -> String {
        crate::label(self)
    }
}

/// Who promoted or aborted a rollout; nobody where it happened by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RolloutVerdict)]
pub struct Verdict {
    pub at: Timestamp,
    #[serde(flatten)]
    pub note: Note,
}

/// A revision on its way, or one that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    pub id: String,
    #[serde(flatten)]
    pub subject: Subject,
    pub state: State,
    /// Since when it is in that state.
    pub since: Timestamp,
    pub begun: Timestamp,
    /// What the others and the map file have: a later one than at first where overrides changed.
    pub stable: u64,
    /// The number of its map: another one where overrides changed meanwhile.
    pub revision: u64,
    /// Those that get it first.
    pub instances: Vec<String>,
    /// How long it bakes, in seconds.
    pub bake_seconds: u64,
    pub then: Then,
    /// When it has baked; none before every chosen instance has it.
    pub ends: Option<Timestamp>,
    /// When somebody is needed at the latest.
    pub deadline: Timestamp,
    #[serde(flatten)]
    pub note: Note,
    /// Why it is in its state, where that is no matter of course.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted: Option<Verdict>,
    /// The revision as which it is in force everywhere, or was; none while the map file has what is
    /// stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u64>,
    /// Grows with each change of it.
    #[serde(default)]
    pub version: u64,
    /// Since when one of its instances lacks it.
    #[serde(skip)]
    behind: Option<Timestamp>,
}

/// What a rollout needs to know beside what is shown of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What names the sources' answer that it began beside.
    pub answer: String,
    /// How long a rollback holds the sources back, in seconds; none until somebody resumes.
    pub hold_seconds: Option<i64>,
    /// What tells what the sources had said of what is stable, and of the canary.
    pub stable: Fingerprint,
    pub canary: Fingerprint,
    /// What kept the sources back before it was promoted.
    #[serde(default)]
    pub hold_before: HoldState,
}

/// Why an order about a rollout is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    #[error(
        "the canary {0} is on its way: promote or abort it first (`mapsmith rollout promote`, \
            `mapsmith rollout abort`)"
    )]
    Another(String),
    #[error("the rollout {id} is over: {}", state.name())]
    Over { id: String, state: State },
}

/// How one of the instances stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    pub name: String,
    pub state: InstanceState,
}

/// What an observation comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation {
    Unchanged,
    Changed,
    /// It has baked, and is to be promoted.
    Baked,
}

impl Plan {
    /// The hold that a promoted rollback begins.
    pub fn rollback(&self, of: u64, note: Note, now: Timestamp) -> Rollback {
        let length = self.hold_seconds.map(SignedDuration::from_secs);
        let until = length.and_then(|length| now.checked_add(length).ok());
        Rollback { of, until, note, replace: true }
    }
}

impl Rollout {
    /// A rollout to these instances that begins now, as the map of this number beside the stable
    /// one.
    pub fn begin(
        subject: Subject,
        note: Note,
        (instances, terms): (Vec<String>, &Terms),
        (stable, revision): (u64, u64),
        now: Timestamp,
    ) -> Self {
        let bake = SignedDuration::try_from(terms.bake).unwrap_or(SignedDuration::MAX);
        Self {
            id: format!("r{revision}"),
            subject,
            state: State::Waiting,
            since: now,
            begun: now,
            stable,
            revision,
            instances,
            bake_seconds: terms.bake.as_secs(),
            then: terms.then,
            ends: None,
            deadline: later(now, later_than(bake, PATIENCE)),
            note,
            why: None,
            promoted: None,
            aborted: None,
            in_force: None,
            version: 1,
            behind: None,
        }
    }

    /// Whether it can still be promoted or aborted.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::InForce | State::Aborted)
    }

    /// Whether the chosen instances hold another map than the others.
    pub fn is_canary(&self) -> bool {
        self.is_open() && self.aborted.is_none() && self.in_force.is_none()
    }

    /// Whether what the sources say waits behind it.
    pub fn holds_sources(&self) -> bool {
        self.is_canary() || self.state == State::Aborting
    }

    /// Whether it is to be in force, and is not.
    pub fn is_promotion_pending(&self) -> bool {
        self.is_canary() && self.promoted.is_some()
    }

    /// Whether somebody is needed for it.
    pub fn needs_a_person(&self) -> bool {
        matches!(self.state, State::Paused | State::Stuck)
    }

    fn bake(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.bake_seconds).unwrap_or(i64::MAX))
    }

    fn enter(&mut self, state: State, why: Option<String>, now: Timestamp) -> Observation {
        if self.state != state {
            self.since = now;
        }
        (self.state, self.why, self.behind) = (state, why, None);
        self.version += 1;
        Observation::Changed
    }

    fn check_open(&self) -> Result<(), RolloutError> {
        match self.is_open() {
            true => Ok(()),
            false => Err(RolloutError::Over { id: self.id.clone(), state: self.state }),
        }
    }

    /// The rollout as it is once somebody wants it everywhere; where that is so already, without
    /// waiting for instances that lack it.
    ///
    /// # Errors
    /// It is over.
    pub fn promote(&self, note: Note, now: Timestamp) -> Result<Self, RolloutError> {
        self.check_open()?;
        let mut after = self.clone();
        match (self.state, self.in_force) {
            (State::Aborting, _) => {
                return Err(RolloutError::Over { id: self.id.clone(), state: self.state });
            }
            (State::Stuck, Some(_)) => {
                let why = self.why.as_ref().map(|why| format!("ended by an operator: {why}"));
                after.enter(State::InForce, why, now);
            }
            _ if self.promoted.is_some() => {}
            _ => {
                after.promoted = Some(Verdict { at: now, note });
                after.deadline = later(now, PATIENCE);
                after.enter(State::Promoting, None, now);
            }
        }
        Ok(after)
    }

    /// The rollout as it is once somebody wants what was before everywhere. Where the map file has
    /// that, and no promotion may be about to change it, it is over at once.
    ///
    /// # Errors
    /// It is over.
    pub fn abort(
        &self,
        note: Note,
        why: Option<String>,
        now: Timestamp,
    ) -> Result<Self, RolloutError> {
        self.check_open()?;
        let mut after = self.clone();
        if self.aborted.is_some() {
            return Ok(after);
        }
        after.aborted = Some(Verdict { at: now, note });
        let state = if self.promoted.is_some() { State::Aborting } else { State::Aborted };
        after.enter(state, why, now);
        Ok(after)
    }

    /// What was to be in force is, as this revision.
    pub fn note_in_force(&mut self, revision: u64, now: Timestamp) {
        if self.is_promotion_pending() {
            (self.in_force, self.revision) = (Some(revision), revision);
            self.version += 1;
        } else if self.state == State::Aborting {
            self.enter(State::Aborted, None, now);
        }
    }

    /// What the other instances have is another revision by now.
    pub fn note_stable(&mut self, stable: u64) {
        if self.is_canary() && self.stable != stable {
            self.stable = stable;
            self.version += 1;
        }
    }

    /// Its map has another number.
    pub fn note_revision(&mut self, revision: u64) {
        if self.revision != revision {
            self.revision = revision;
            self.version += 1;
        }
    }

    /// What was before can't be brought back any more, and it is in force.
    pub fn end(&mut self, why: String, now: Timestamp) {
        self.enter(State::InForce, Some(why), now);
    }

    /// Takes in how the instances stand.
    pub fn observe(&mut self, instances: &[InstanceView], now: Timestamp) -> Observation {
        match (self.state, self.in_force) {
            (State::Promoting | State::Stuck, Some(revision)) => {
                let lacks = instances.iter().filter(|it| {
                    !matches!(it.state, InstanceState::NoMap)
                        && !matches!(it.state, InstanceState::InSync { revision: has }
                            if has >= revision)
                });
                self.observe_promotion(&lacks.collect::<Vec<_>>(), now)
            }
            (State::Promoting, None) if now >= self.deadline => {
                self.enter(State::Stuck, Some("it can't be put in force".to_owned()), now)
            }
            (State::Waiting | State::Baking | State::Paused, _) => {
                match self.observe_canary(self.lacking(instances), now) {
                    Observation::Unchanged => self.note_gone(instances, now),
                    changed => changed,
                }
            }
            _ => Observation::Unchanged,
        }
    }

    fn observe_promotion(&mut self, lacks: &[&InstanceView], now: Timestamp) -> Observation {
        if lacks.is_empty() {
            return self.enter(State::InForce, None, now);
        }
        if self.state == State::Promoting && now >= self.deadline {
            let named = lacks.iter().map(|it| format!("{}: {}", it.name, it.state));
            let why = format!("not in sync in time: {}", named.collect::<Vec<_>>().join("; "));
            return self.enter(State::Stuck, Some(why), now);
        }
        Observation::Unchanged
    }

    fn observe_canary(&mut self, lacks: Option<String>, now: Timestamp) -> Observation {
        if self.state == State::Paused {
            return match now >= self.deadline {
                true => self.enter(State::Stuck, self.why.clone(), now),
                false => Observation::Unchanged,
            };
        }
        let Some(lacks) = lacks else {
            self.behind = None;
            return match (self.state, self.ends) {
                (State::Baking, Some(ends)) if now < ends => Observation::Unchanged,
                (State::Baking, Some(_)) if self.then == Then::Auto => Observation::Baked,
                (State::Baking, Some(_)) => {
                    let why = "it has baked, and waits for somebody to promote or abort it";
                    self.enter(State::Paused, Some(why.to_owned()), now)
                }
                _ => {
                    self.ends = Some(later(now, self.bake()));
                    self.enter(State::Baking, None, now)
                }
            };
        };
        let since = *self.behind.get_or_insert(now);
        let patience = (self.bake() / 2).clamp(SHORTEST_BEHIND, BEHIND);
        // The clock may be set back.
        if now < since {
            self.behind = Some(now);
        }
        match now.duration_since(since) >= patience {
            // Once it stays it may hold the canary again.
            true => self.enter(State::Paused, Some(format!("at {now:.0} {lacks}")), now),
            false => Observation::Unchanged,
        }
    }

    /// Says of one that stays which of its instances the settings do not have any more.
    fn note_gone(&mut self, instances: &[InstanceView], now: Timestamp) -> Observation {
        let is_gone = |name: &&String| instances.iter().all(|it| it.name != **name);
        let gone = self.instances.iter().filter(is_gone).map(|name| has_no_instance(name));
        let gone = gone.collect::<Vec<_>>().join("; ");
        let is_said = self.why.as_ref().is_some_and(|why| why.contains(&gone));
        if self.state != State::Paused || gone.is_empty() || is_said {
            return Observation::Unchanged;
        }
        let why = self.why.take().map_or(String::new(), |why| format!("{why}; "));
        self.enter(State::Paused, Some(format!("{why}{gone}")), now)
    }

    /// Which of its instances lacked the canary, and why; none where none does.
    fn lacking(&self, instances: &[InstanceView]) -> Option<String> {
        let lacks = self.instances.iter().filter_map(|name| {
            match instances.iter().find(|it| it.name == *name).map(|it| &it.state) {
                None => Some(has_no_instance(name)),
                Some(InstanceState::InSync { revision }) if *revision == self.revision => None,
                Some(state) => Some(format!("{name} did not hold the canary: {state}")),
            }
        });
        let lacks: Vec<_> = lacks.collect();
        (!lacks.is_empty()).then(|| lacks.join("; "))
    }

    /// What keeps the sources back once it is promoted.
    pub fn hold_promoted(&self, hold: &HoldState, plan: &Plan, now: Timestamp) -> HoldState {
        let Subject::Rollback { of } = self.subject else { return hold.clone() };
        let rollback = plan.rollback(of, self.note.clone(), now);
        // It takes the place of any other.
        hold.rolled_back(rollback, plan.answer.clone(), now).unwrap_or_else(|_| hold.clone())
    }

    /// What keeps the sources back once it is aborted, where they say `answer`: what was approved
    /// is a held change again, whatever the guard says by now.
    pub fn hold_aborted(
        &self,
        hold: &HoldState,
        plan: &Plan,
        answer: Option<String>,
        note: &Note,
        now: Timestamp,
    ) -> HoldState {
        let is_promoted = self.promoted.is_some();
        let mut after = if is_promoted { plan.hold_before.clone() } else { hold.clone() };
        if let Subject::Approve { .. } = self.subject {
            let answer = answer.filter(|_| is_promoted).unwrap_or_else(|| plan.answer.clone());
            after.aborted = Some(Rejected { answer, at: now, note: note.clone(), change: None });
        }
        after
    }
}

/// How it stands, in a sentence.
fn has_no_instance(name: &str) -> String {
    format!("the settings have no instance {name}")
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn later_than(one: SignedDuration, other: SignedDuration) -> SignedDuration {
    one.checked_add(other).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests;
