//! Where a node is whose owner the registry does not name: the rule, for one node.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::absence::Absence;
use super::{OwnedNode, OwnerRecord};

/// How owners are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long an owner that was down must be ready again before its nodes go back to it.
    pub return_after: Duration,
    /// How long a node waits for the registry to name its owner again; if the registry answers
    /// later than that and does not, its owner is whoever it names.
    pub confirm_within: Duration,
    /// How much older or newer than an absence a change of the registry may be that it led to:
    /// health checks take a while to fail, and clocks differ.
    pub grace: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            return_after: Duration::from_secs(60),
            confirm_within: Duration::from_secs(2 * 3600),
            grace: Duration::from_secs(60),
        }
    }
}

/// Where a node is whose owner the registry does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Its owner is absent: it goes to the master that the registry names, or that was ordered.
    Away,
    /// It goes to its owner again, until the registry names the owner, or answers after this time
    /// and does not. What an operator ordered has no such time, and what the map in force does not
    /// send home yet.
    Returning {
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
    /// It goes to the master that the registry names, which is its owner from then on.
    Leaving { until: Timestamp },
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Returning { .. } => "returning",
            Self::Leaving { .. } => "leaving",
        }
    }
}

/// Why an owner is not remembered any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The registry names it again.
    Confirmed,
    /// The registry named another master while the owner served the node.
    MovedOnPurpose,
    /// The registry did not name the owner in time.
    NotConfirmed,
    /// The operator left the nodes where they had gone.
    Stayed,
    /// No source has named the node for a week.
    Vanished,
}

impl Why {
    pub fn label(self) -> &'static str {
        match self {
            Self::Confirmed => "the registry names the owner again",
            Self::MovedOnPurpose => "the registry named another master while the owner was there",
            Self::NotConfirmed => "the registry did not name the owner within confirm_within",
            Self::Stayed => "an operator left the nodes where they had gone",
            Self::Vanished => "no source has named the node for a week",
        }
    }
}

/// What the registry tells of a node that it does not name the owner of.
pub(super) struct Evidence {
    /// Whether the registry names the owner by now, and the guard holds that.
    pub is_held: bool,
    /// When the registry began to name the master that it names, at the earliest and at the latest,
    /// as far as that is known.
    pub named: Option<(Timestamp, Timestamp)>,
    /// When it last answered so.
    pub answered: Option<Timestamp>,
    /// Whether any HAProxy is seen, without which no outage is.
    pub observed: bool,
    /// Whether a HAProxy has the owner, as far as any has been seen.
    pub exists: bool,
}

impl Policy {
    /// Where a node is that the registry does not name the owner of, and whether it counts as its
    /// owner's; or why it belongs to whoever the registry names.
    pub(super) fn phase(
        &self,
        record: &OwnerRecord,
        absences: &[Absence],
        now: Timestamp,
        evidence: &Evidence,
    ) -> Result<(Phase, bool), Why> {
        let (earliest, latest) = (before(record.since, self.grace), after(record.seen, self.grace));
        let later =
            absences.iter().filter(|absence| absence.until.is_none_or(|end| end >= earliest));
        if !record.ordered && !later.clone().any(|absence| absence.from <= latest) {
            return leaving(latest, now, evidence);
        }
        // Whatever else keeps the owner away: the nodes that had gone were to stay.
        let stayed = |absence: &Absence| absence.stay && absence.until >= Some(record.since);
        if !record.ordered && later.clone().any(stayed) {
            return Err(Why::Stayed);
        }
        let mut lasting = later.clone().filter(|absence| absence.until.is_none()).peekable();
        if lasting.peek().is_some() {
            // Of a node that was ordered elsewhere the order says where; what is down is no
            // place to send it.
            return Ok((Phase::Away, lasting.any(|absence| absence.ordered)));
        }
        if record.ordered && !evidence.exists {
            return Ok((Phase::Away, false));
        }
        let last = later.filter_map(|absence| Some((absence.until?, absence.stay))).max();
        let (back, stay) = last.unwrap_or((record.since, false));
        if stay && !record.ordered {
            return Err(Why::Stayed);
        }
        let back = if record.ordered { back.max(record.since) } else { back };
        // Until the map sends it home, its agent runs where it was.
        let served = record.routed_since.map(|routed| after(routed.max(back), self.grace));
        let is_later = |(at, _): &(Timestamp, _)| served.is_some_and(|served| *at > served);
        if let Some((_, latest)) = evidence.named.filter(is_later) {
            return leaving(after(latest, self.grace), now, evidence);
        }
        let routed = record.routed_since.filter(|_| !record.ordered);
        let until = routed.map(|routed| after(routed.max(back), self.confirm_within));
        let is_over = |until| evidence.answered.is_some_and(|answered| answered >= until);
        match until.is_some_and(is_over) && !evidence.is_held && evidence.observed {
            true => Err(Why::NotConfirmed),
            false => Ok((Phase::Returning { until }, true)),
        }
    }
}

/// The registry names another master while the owner is there, as far as is known now: it may know
/// of a failover before a health check has failed.
fn leaving(until: Timestamp, now: Timestamp, evidence: &Evidence) -> Result<(Phase, bool), Why> {
    match now < until || !evidence.observed {
        true => Ok((Phase::Leaving { until }, false)),
        false => Err(Why::MovedOnPurpose),
    }
}

pub(super) fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

pub(super) fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

impl OwnedNode {
    /// The owner, where the node counts as its: it is returning, or an operator ordered it away.
    pub fn routed_to(&self) -> Option<&str> {
        self.at_owner.then_some(self.record.owner.as_str())
    }

    /// Where it is says the next evaluation.
    pub(super) fn new(record: OwnerRecord) -> Self {
        Self { record, phase: Phase::Away, at_owner: false, named: None }
    }
}
