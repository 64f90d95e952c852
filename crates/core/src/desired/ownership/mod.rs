//! Whose a node is, where the registry only names the master that served it last. Pure.
//!
//! PuppetDB's producer is whoever compiled for the node last, so a map made of producers confirms
//! itself: after a drain, a pin or an outage every node would stay with its stand-in. So what the
//! registry says is told apart:
//!
//! - While a node's owner is *absent* (drained, pinned away from, or ready in no instance) a new
//!   master is provisional. The owner is remembered, and the node is [`Phase::Away`].
//! - Once the owner is back the node goes back to it and is [`Phase::Returning`], until the
//!   registry names the owner, or a bound is over. A newer answer that names another master is a
//!   move on purpose.
//! - While the owner is there a new master is a move on purpose. For a moment the node is
//!   [`Phase::Leaving`]: the registry may know of a failover before a health check has failed.
//!
//! What is kept of a node is no more than its owner and when it left ([`OwnerRecord`]); the phase
//! follows from that and from the absences, so that a restart comes to the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::Diff;
use crate::{EntryMap, Overrides};

mod absence;

use absence::{Absence, absences};
pub use absence::{Outage, Outages};

/// How owners are remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long an owner that was down must be ready again before its nodes go back to it.
    pub return_after: Duration,
    /// How long a node waits for the registry to name its owner again; then its owner is whoever
    /// the registry names.
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

/// What is remembered of a node whose registry names another master than its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The master that the node belongs to, by HAProxy's name.
    pub owner: String,
    /// When the registry began to name another, at the earliest: by the producer's clock where
    /// the registry tells. Or when the owner was ordered.
    pub since: Timestamp,
    /// The same, at the latest.
    pub seen: Timestamp,
    /// Whether an operator said whose the node is (`own`).
    pub ordered: bool,
}

/// Where a node is whose owner the registry does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Its owner is absent: it goes to the master that the registry names, or that was ordered.
    Away,
    /// It goes to its owner again, until the registry names the owner or the time is over.
    Returning { until: Timestamp },
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

/// A node whose owner is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedNode {
    #[serde(flatten)]
    pub record: OwnerRecord,
    #[serde(flatten)]
    pub phase: Phase,
    /// Whether it counts as its owner's, before overrides.
    #[serde(skip)]
    at_owner: bool,
}

/// What an evaluation is made of.
#[derive(Debug)]
pub struct Observation<'a> {
    /// What the sources say, as far as the guard let it through.
    pub said: &'a Arc<EntryMap>,
    /// When the sources said it: what is new in it is newer than the answer before.
    pub answered_at: Timestamp,
    pub overrides: &'a Overrides,
    pub now: Timestamp,
}

/// The owners of all nodes: what the registry says, but for those that are remembered.
#[derive(Debug)]
pub struct Ownership {
    policy: Policy,
    outages: Outages,
    /// What the sources said at the last evaluation.
    said: Arc<EntryMap>,
    answered_at: Timestamp,
    /// The time of the last evaluation.
    evaluated: Timestamp,
    /// The number of the overrides at the last evaluation; none before the first.
    overrides: Option<u64>,
    /// Whether an operator has said whose a node is since.
    ordered: bool,
    nodes: BTreeMap<String, OwnedNode>,
    /// What is not stored yet: the record of a node, or that there is none any more.
    unsaved: BTreeMap<String, Option<OwnerRecord>>,
}

/// What outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredOwners {
    /// By node.
    pub records: BTreeMap<String, OwnerRecord>,
    /// Of each master the oldest first.
    pub outages: Vec<Outage>,
}

/// What of it is to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnersChange {
    /// The record of a node, or that there is none any more.
    pub records: BTreeMap<String, Option<OwnerRecord>>,
    /// All outages, where one has begun or ended.
    pub outages: Option<Vec<Outage>>,
}

impl Ownership {
    /// Goes on from what is stored, and from what the sources had said.
    pub fn resume(policy: Policy, stored: StoredOwners, said: Arc<EntryMap>) -> Self {
        let nodes = stored.records.into_iter().map(|(node, record)| (node, OwnedNode::new(record)));
        Self {
            outages: Outages::resume(policy.return_after, stored.outages),
            policy,
            said,
            answered_at: Timestamp::MIN,
            evaluated: Timestamp::MIN,
            overrides: None,
            ordered: false,
            nodes: nodes.collect(),
            unsaved: BTreeMap::new(),
        }
    }

    /// The sources had said this before: nothing is known of how they came to it.
    pub fn go_on_from(&mut self, said: &Arc<EntryMap>) {
        self.said = Arc::clone(said);
    }

    /// The nodes whose owner is remembered, sorted by name.
    pub fn nodes(&self) -> &BTreeMap<String, OwnedNode> {
        &self.nodes
    }

    pub fn outages(&mut self) -> &mut Outages {
        &mut self.outages
    }

    /// What is to be stored, if anything; [`Ownership::saved`] says that it was.
    pub fn unsaved(&self) -> Option<OwnersChange> {
        let outages = self.outages.unsaved().then(|| self.outages.all());
        let records = self.unsaved.clone();
        (outages.is_some() || !records.is_empty()).then_some(OwnersChange { records, outages })
    }

    pub fn saved(&mut self) {
        self.unsaved.clear();
        self.outages.saved();
    }

    /// An operator says whose a node is. It counts from the next evaluation on.
    pub fn own(&mut self, node: &str, owner: &str, now: Timestamp) {
        let owner = owner.to_owned();
        self.remember(node, OwnerRecord { owner, since: now, seen: now, ordered: true });
        self.ordered = true;
    }

    /// Takes in what the sources say, what was ordered, and the time. `time_of` gives when the
    /// producer said that a node has this master, where the registry tells. Whether any node is
    /// another's than before.
    pub fn evaluate(
        &mut self,
        seen: &Observation<'_>,
        time_of: impl Fn(&str, &str) -> Option<Timestamp>,
    ) -> bool {
        if self.is_settled(seen) {
            return false;
        }
        let before = self.at_owner();
        let changed = match Arc::ptr_eq(&self.said, seen.said) {
            true => BTreeSet::new(),
            false => self.take_in(seen, &time_of),
        };
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        for node in nodes {
            let said = seen.said.get(&node);
            let at = said.and_then(|master| time_of(&node, master));
            let at = at.or(changed.contains(&node).then_some(self.answered_at));
            self.settle(&node, seen, at);
        }
        self.said = Arc::clone(seen.said);
        self.answered_at = self.answered_at.max(seen.answered_at);
        self.evaluated = seen.now;
        self.overrides = Some(seen.overrides.number());
        self.ordered = false;
        self.outages.taken_in();
        before != self.at_owner()
    }

    /// What the sources say, with nodes given to their owner that count as its.
    pub fn apply(&self, said: &Arc<EntryMap>) -> Arc<EntryMap> {
        let owned = self.nodes.iter().filter(|(_, owned)| owned.at_owner);
        let changed: Vec<(usize, &str)> = owned
            .filter_map(|(node, owned)| {
                let at = said.find(node.as_bytes())?;
                let owner = owned.record.owner.as_str();
                (said.value(at) != owner).then_some((at, owner))
            })
            .collect();
        match changed.is_empty() {
            true => Arc::clone(said),
            false => Arc::new(said.settled(changed.into_iter())),
        }
    }

    /// When something becomes of a node by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        let of_nodes = self.nodes.values().filter_map(|owned| match owned.phase {
            Phase::Away => None,
            Phase::Returning { until } | Phase::Leaving { until } => Some(until),
        });
        // Without an instance to observe an outage has no end.
        of_nodes.chain(self.outages.next_due()).filter(|due| *due > self.evaluated).min()
    }

    /// Whether this is what was evaluated last, and no time is over: health checks of many instances
    /// flap all the time, and most of them say nothing about a master.
    fn is_settled(&self, seen: &Observation<'_>) -> bool {
        Arc::ptr_eq(&self.said, seen.said)
            && self.answered_at >= seen.answered_at
            && self.overrides == Some(seen.overrides.number())
            && !self.ordered
            && !self.outages.are_new()
            && self.next_due().is_none_or(|due| due > seen.now)
    }

    fn at_owner(&self) -> Vec<(String, String)> {
        let owned = self.nodes.iter().filter(|(_, owned)| owned.at_owner);
        owned.map(|(node, owned)| (node.clone(), owned.record.owner.clone())).collect()
    }

    /// Remembers the owners of nodes whose registry names another master than before, or none.
    /// The nodes that have another master.
    fn take_in(
        &mut self,
        seen: &Observation<'_>,
        time_of: &impl Fn(&str, &str) -> Option<Timestamp>,
    ) -> BTreeSet<String> {
        let before = Arc::clone(&self.said);
        let diff = Diff::between(&before, seen.said);
        let mut changed = BTreeSet::new();
        for (from, to) in &diff.moved {
            let (from, to) = (*from as usize, *to as usize);
            let (node, owner) = (before.key(from), before.value(from));
            changed.insert(node.to_owned());
            if !self.nodes.contains_key(node) {
                let (since, at) = match time_of(node, seen.said.value(to)) {
                    Some(at) => (at, at),
                    None => (self.answered_at, seen.now),
                };
                let owner = owner.to_owned();
                self.remember(node, OwnerRecord { owner, since, seen: at, ordered: false });
            }
        }
        // What a registry loses while the owner is absent comes back under the stand-in's name.
        for from in &diff.removed {
            let (node, owner) = (before.key(*from as usize), before.value(*from as usize));
            let absent = absences(node, owner, seen.overrides, &self.outages)
                .any(|absence| absence.until.is_none());
            if absent && !self.nodes.contains_key(node) {
                let (owner, at) = (owner.to_owned(), seen.now);
                self.remember(node, OwnerRecord { owner, since: at, seen: at, ordered: false });
            }
        }
        changed
    }

    /// What has become of a node whose owner is remembered. `at` is when the registry said whose it
    /// is, as far as that is known.
    fn settle(&mut self, node: &str, seen: &Observation<'_>, at: Option<Timestamp>) {
        let Some(owned) = self.nodes.get(node) else { return };
        let record = &owned.record;
        let known: Vec<_> = absences(node, &record.owner, seen.overrides, &self.outages).collect();
        let confirmed = seen.said.get(node) == Some(record.owner.as_str());
        let next = if confirmed { None } else { self.policy.phase(record, &known, seen.now, at) };
        let Some((phase, at_owner)) = next else { return self.forget(node) };
        if let Some(owned) = self.nodes.get_mut(node) {
            (owned.phase, owned.at_owner) = (phase, at_owner);
        }
    }

    fn remember(&mut self, node: &str, record: OwnerRecord) {
        self.unsaved.insert(node.to_owned(), Some(record.clone()));
        self.nodes.insert(node.to_owned(), OwnedNode::new(record));
    }

    fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
        self.unsaved.insert(node.to_owned(), None);
    }
}

impl OwnedNode {
    /// The owner, where the node counts as its: it is returning, or an operator ordered it away.
    pub fn routed_to(&self) -> Option<&str> {
        self.at_owner.then_some(self.record.owner.as_str())
    }

    /// Where it is says the next evaluation.
    fn new(record: OwnerRecord) -> Self {
        Self { record, phase: Phase::Away, at_owner: false }
    }
}

impl Policy {
    /// Where a node is that the registry does not name the owner of, and whether it counts as its
    /// owner's; none where it belongs to whoever the registry names.
    fn phase(
        &self,
        record: &OwnerRecord,
        absences: &[Absence],
        now: Timestamp,
        at: Option<Timestamp>,
    ) -> Option<(Phase, bool)> {
        let (earliest, latest) = (before(record.since, self.grace), after(record.seen, self.grace));
        let later =
            absences.iter().filter(|absence| absence.until.is_none_or(|end| end >= earliest));
        if !record.ordered && !later.clone().any(|absence| absence.from <= latest) {
            return (now < latest).then_some((Phase::Leaving { until: latest }, false));
        }
        let mut lasting = later.clone().filter(|absence| absence.until.is_none()).peekable();
        if lasting.peek().is_some() {
            // Of a node that was ordered elsewhere the order says where; what is down is no
            // place to send it.
            return Some((Phase::Away, lasting.any(|absence| absence.ordered)));
        }
        let last = later.filter_map(|absence| Some((absence.until?, absence.stay))).max();
        let (back, stay) = last.unwrap_or((record.since, false));
        let back = if record.ordered { back.max(record.since) } else { back };
        let until = after(back, self.confirm_within);
        let on_purpose = at.is_some_and(|at| at > after(back, self.grace));
        let stays = stay && !(record.ordered && record.since >= back);
        (!on_purpose && !stays && now < until).then_some((Phase::Returning { until }, true))
    }
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}

fn after(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
