//! Whose a node is, where the registry only names the master that served it last. Pure.
//!
//! PuppetDB's producer is whoever compiled for the node last, so a map made of producers confirms
//! itself: after a drain, a pin or an outage every node would stay with its stand-in. So what the
//! registry says is told apart:
//!
//! - While a node's owner is *absent* (drained, pinned away from, or ready in no instance) a new
//!   master is provisional. The owner is remembered, and the node is [`Phase::Away`].
//! - Once the owner is back the node goes back to it and is [`Phase::Returning`], until the
//!   registry names the owner, or still does not in an answer after a bound. A newer answer that
//!   names another master is a move on purpose.
//! - While the owner is there a new master is a move on purpose. For a moment the node is
//!   [`Phase::Leaving`]: the registry may know of a failover before a health check has failed.
//!
//! What is kept of a node is no more than its owner and when it left ([`OwnerRecord`]); the phase
//! follows from that and from the absences, so that a restart comes to the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gone::GoneNodes;
use super::references::Targets;
use crate::overrides::ENDED_KEPT;
use crate::plan::Diff;
use crate::{EntryMap, Overrides};

mod absence;
mod phase;

pub use absence::Outage;
use absence::{Outages, absences};
use phase::{Evidence, after, before};
pub use phase::{Phase, Policy, Why};

/// What is remembered of a node whose registry names another master than its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Since when the map in force sends it to its owner again; kept while it is leaving.
    #[serde(skip)]
    pub routed_since: Option<Timestamp>,
    /// Since when no source names it, if none does.
    #[serde(skip)]
    pub unnamed_since: Option<Timestamp>,
}

impl OwnerRecord {
    fn new(owner: String, since: Timestamp, seen: Timestamp) -> Self {
        let (routed_since, unnamed_since) = (None, None);
        Self { owner, since, seen, ordered: false, routed_since, unnamed_since }
    }
}

/// A node whose owner is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OwnedNode {
    #[serde(flatten)]
    pub record: OwnerRecord,
    #[serde(flatten)]
    pub phase: Phase,
    /// Whether it counts as its owner's, before overrides.
    #[serde(skip)]
    at_owner: bool,
    /// When the registry began to name the master that it names, at the earliest and at the latest,
    /// as far as this process knows.
    #[serde(skip)]
    named: Option<(Timestamp, Timestamp)>,
}

/// An owner that is not remembered any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    pub node: String,
    pub owner: String,
    pub why: Why,
}

/// How a source names a node with a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The source's number among those of [`Observation::answered`].
    pub source: usize,
    /// When the producer said so, where the registry tells.
    pub at: Option<Timestamp>,
    /// When the source answered.
    pub answered: Timestamp,
}

/// What an evaluation is made of.
#[derive(Debug)]
pub struct Observation<'a> {
    /// What the sources say, as far as the guard let it through.
    pub said: &'a Arc<EntryMap>,
    /// What they say, held back or not.
    pub candidate: &'a Arc<EntryMap>,
    /// When each source answered, if it has: what is new in an answer is newer than the one before.
    pub answered: Vec<Option<Timestamp>>,
    /// Nodes that no source names any more, and that stay with their master for a while.
    pub gone: &'a GoneNodes,
    pub overrides: &'a Overrides,
    pub now: Timestamp,
}

/// The owners of all nodes: what the registry says, but for those that are remembered.
#[derive(Debug, Clone)]
pub struct Ownership {
    policy: Policy,
    outages: Outages,
    /// What the sources said at the last evaluation.
    said: Arc<EntryMap>,
    /// When each source had answered then.
    answered: Vec<Option<Timestamp>>,
    /// The nodes that the sources had with another master than they counted as having, for it was
    /// held back; each with a time at which they did not yet.
    held: BTreeMap<String, Timestamp>,
    /// When this began.
    began: Timestamp,
    /// The time of the last evaluation.
    evaluated: Timestamp,
    /// The number of the overrides at the last evaluation; none before the first.
    overrides: Option<u64>,
    /// Whether an operator has said whose a node is since.
    ordered: bool,
    nodes: BTreeMap<String, OwnedNode>,
    /// What is not stored yet: the record of a node, or that there is none any more.
    unsaved: BTreeMap<String, Option<OwnerRecord>>,
    /// Owners forgotten since this was last asked for.
    forgotten: Vec<Forgotten>,
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
    pub fn resume(
        policy: Policy,
        stored: StoredOwners,
        said: Arc<EntryMap>,
        now: Timestamp,
    ) -> Self {
        let nodes = stored.records.into_iter().map(|(node, record)| (node, OwnedNode::new(record)));
        Self {
            outages: Outages::resume(policy.return_after, stored.outages, now),
            policy,
            said,
            answered: Vec::new(),
            held: BTreeMap::new(),
            began: now,
            evaluated: Timestamp::MIN,
            overrides: None,
            ordered: false,
            nodes: nodes.collect(),
            unsaved: BTreeMap::new(),
            forgotten: Vec::new(),
        }
    }

    /// The sources had said this before: nothing is known of how they came to it.
    pub fn go_on_from(&mut self, said: &Arc<EntryMap>, now: Timestamp) {
        self.said = Arc::clone(said);
        (self.answered, self.began) = (Vec::new(), now);
        self.held.clear();
    }

    /// What the sources said at the last evaluation.
    pub fn said(&self) -> &Arc<EntryMap> {
        &self.said
    }

    /// The nodes whose owner is remembered, sorted by name.
    pub fn nodes(&self) -> &BTreeMap<String, OwnedNode> {
        &self.nodes
    }

    /// Takes in what every instance has ready, for the masters that nodes have or had by what the
    /// sources say.
    pub fn observe(&mut self, targets: &[Arc<Targets>], said: &EntryMap, now: Timestamp) {
        let oldest = self.nodes.values().map(|owned| owned.record.since).min();
        let needed = oldest.map_or(Timestamp::MAX, |oldest| before(oldest, self.policy.grace));
        let (said, earlier) = (said.load(), self.said.load());
        let owners = self.nodes.values().map(|owned| owned.record.owner.as_str());
        let named = said.iter().chain(&earlier).map(|(master, _)| *master);
        self.outages.observe(targets, named.chain(owners), needed, now);
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

    /// The owners forgotten since this was last asked for.
    pub fn take_forgotten(&mut self) -> Vec<Forgotten> {
        std::mem::take(&mut self.forgotten)
    }

    /// This map is in force now. A node that it sends home ran elsewhere until then.
    pub fn in_force(&mut self, map: &EntryMap, now: Timestamp) {
        for (node, owned) in &mut self.nodes {
            let is_home = map.get(node) == Some(owned.record.owner.as_str());
            let before = owned.record.routed_since;
            owned.record.routed_since = match owned.phase {
                Phase::Leaving { .. } => before,
                Phase::Returning { .. } if is_home => before.or(Some(now)),
                Phase::Away | Phase::Returning { .. } => None,
            };
            let OwnerRecord { routed_since, ordered, .. } = owned.record;
            if let (None, Some(routed), false) = (before, routed_since, ordered) {
                let until = Some(after(routed, self.policy.confirm_within));
                owned.phase = Phase::Returning { until };
            }
            if owned.record.routed_since != before {
                self.unsaved.insert(node.clone(), Some(owned.record.clone()));
            }
        }
    }

    /// Whether an operator's order is not evaluated yet.
    pub fn has_orders(&self) -> bool {
        self.ordered
    }

    /// An operator says whose a node is. It counts from the next evaluation on.
    pub fn own(&mut self, node: &str, owner: &str, now: Timestamp) {
        let owner = owner.to_owned();
        self.remember(node, OwnerRecord { ordered: true, ..OwnerRecord::new(owner, now, now) });
        self.ordered = true;
    }

    /// Takes in what the sources say, what was ordered, and the time. `told` is how a source names a
    /// node with a master, if one does. Whether any node is another's than before.
    pub fn evaluate(
        &mut self,
        seen: &Observation<'_>,
        told: impl Fn(&str, &str) -> Option<Told>,
    ) -> bool {
        if self.is_settled(seen) {
            return false;
        }
        let before = self.at_owner();
        let changed = match Arc::ptr_eq(&self.said, seen.said) {
            true => BTreeMap::new(),
            false => self.take_in(seen, &told),
        };
        self.note_held(seen, &told);
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        for node in nodes {
            let told = seen.said.get(&node).and_then(|master| told(&node, master));
            self.settle(&node, seen, told, changed.get(&node).copied());
        }
        self.said = Arc::clone(seen.said);
        self.answered.clone_from(&seen.answered);
        self.evaluated = seen.now;
        self.overrides = Some(seen.overrides.number());
        self.ordered = false;
        self.outages.taken_in();
        before != self.at_owner()
    }

    /// What the sources say, with nodes given to their owner that count as its.
    pub fn apply(&self, said: &Arc<EntryMap>) -> Arc<EntryMap> {
        with_owners(said, &self.nodes)
    }

    /// When something becomes of a node by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        let of_nodes = self.nodes.values().filter_map(|owned| match owned.phase {
            Phase::Away => None,
            Phase::Returning { until } => until,
            Phase::Leaving { until } => Some(until),
        });
        // What is over already waits for something else: an instance to observe, an answer.
        of_nodes.chain(self.outages.next_due()).filter(|due| *due > self.evaluated).min()
    }

    /// Whether this is what was evaluated last, and no time is over: health checks of many instances
    /// flap all the time, and most of them say nothing about a master.
    fn is_settled(&self, seen: &Observation<'_>) -> bool {
        Arc::ptr_eq(&self.said, seen.said)
            && self.answered == seen.answered
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
    /// The nodes that have another master, each with a time at which that was not said yet.
    fn take_in(
        &mut self,
        seen: &Observation<'_>,
        told: &impl Fn(&str, &str) -> Option<Told>,
    ) -> BTreeMap<String, Timestamp> {
        let before = Arc::clone(&self.said);
        let diff = Diff::between(&before, seen.said);
        let mut changed = BTreeMap::new();
        for (from, to) in &diff.moved {
            let (from, to) = (*from as usize, *to as usize);
            let (node, owner) = (before.key(from), before.value(from));
            let told = told(node, seen.said.value(to));
            let earliest = self.before_it_was_said(node, told);
            changed.insert(node.to_owned(), earliest);
            let is_absent = self.is_absent(node, owner, seen);
            // A master that no HAProxy has is nobody's home. One that took a node on purpose, a
            // moment before it was absent itself, is.
            let is_home = is_absent || self.outages.exists(owner);
            let is_known = self
                .nodes
                .get(node)
                .is_some_and(|owned| !matches!(owned.phase, Phase::Leaving { .. }) || !is_absent);
            if is_home && !is_known {
                let at = told.and_then(|told| told.at);
                let (since, seen) = at.map_or((earliest, seen.now), |at| (at, at));
                let owner = owner.to_owned();
                self.remember(node, OwnerRecord::new(owner, since, seen));
            }
        }
        for to in diff.added.iter().map(|to| *to as usize) {
            let node = seen.said.key(to);
            if self.nodes.contains_key(node) {
                let told = told(node, seen.said.value(to));
                changed.insert(node.to_owned(), self.before_it_was_said(node, told));
            }
        }
        // What a registry loses while the owner is absent comes back under the stand-in's name.
        let lost = diff.removed.iter().map(|from| *from as usize);
        let lost = lost.map(|from| (before.key(from), before.value(from)));
        let back = diff.added.iter().filter_map(|to| {
            let node = seen.said.key(*to as usize);
            let gone = seen.gone.get(node)?;
            (seen.said.value(*to as usize) != gone.master).then_some((node, gone.master.as_str()))
        });
        for (node, owner) in lost.chain(back) {
            if self.is_absent(node, owner, seen) && !self.nodes.contains_key(node) {
                let (owner, at) = (owner.to_owned(), seen.now);
                self.remember(node, OwnerRecord::new(owner, at, at));
            }
        }
        changed
    }

    /// A time at which the sources did not name a node as they do now.
    fn before_it_was_said(&self, node: &str, told: Option<Told>) -> Timestamp {
        let answered = told.and_then(|told| *self.answered.get(told.source)?);
        self.held.get(node).copied().or(answered).unwrap_or(self.began)
    }

    /// Notes the nodes that the sources have with another master than they count as having.
    fn note_held(&mut self, seen: &Observation<'_>, told: &impl Fn(&str, &str) -> Option<Told>) {
        if Arc::ptr_eq(seen.said, seen.candidate) {
            return self.held.clear();
        }
        let diff = Diff::between(seen.said, seen.candidate);
        let held = diff.moved.iter().map(|(_, to)| {
            let (node, master) =
                (seen.candidate.key(*to as usize), seen.candidate.value(*to as usize));
            (node.to_owned(), self.before_it_was_said(node, told(node, master)))
        });
        self.held = held.collect();
    }

    /// Whether a node's owner does not serve it now.
    fn is_absent(&self, node: &str, owner: &str, seen: &Observation<'_>) -> bool {
        absences(node, owner, seen.overrides, &self.outages).any(|absence| absence.until.is_none())
    }

    /// What has become of a node whose owner is remembered. `told` is how a source names it with the
    /// master that it is said to have, `new` when that was not said yet, if it is new.
    fn settle(
        &mut self,
        node: &str,
        seen: &Observation<'_>,
        told: Option<Told>,
        new: Option<Timestamp>,
    ) {
        let named = seen.said.get(node).is_some() || seen.candidate.get(node).is_some();
        let Some(owned) = self.nodes.get_mut(node) else { return };
        let before = owned.record.unnamed_since;
        owned.record.unnamed_since = (!named).then_some(before.unwrap_or(seen.now));
        if owned.record.unnamed_since != before {
            self.unsaved.insert(node.to_owned(), Some(owned.record.clone()));
        }
        let at = told.and_then(|told| told.at).map(|at| (at, at));
        owned.named = at.or(new.map(|earliest| (earliest, seen.now))).or(owned.named);
        let Some(owned) = self.nodes.get(node) else { return };
        let record = &owned.record;
        let known: Vec<_> = absences(node, &record.owner, seen.overrides, &self.outages).collect();
        let names_owner = |map: &EntryMap| map.get(node) == Some(record.owner.as_str());
        let answered = told.map(|told| told.answered);
        let evidence = Evidence {
            is_held: names_owner(seen.candidate),
            named: owned.named,
            answered,
            observed: self.outages.observed(),
            exists: self.outages.exists(&record.owner),
        };
        // An order is not confirmed by what was said before it.
        // Rows have whole seconds, cut off.
        let second = Duration::from_secs(1);
        let is_after =
            |told: Told| told.at.map_or(told.answered, |at| after(at, second)) > record.since;
        let is_news = !record.ordered || told.is_some_and(is_after);
        let next = if names_owner(seen.said) && is_news {
            Err(Why::Confirmed)
        } else if record.unnamed_since.is_some_and(|since| after(since, ENDED_KEPT) < seen.now) {
            Err(Why::Vanished)
        } else {
            self.policy.phase(record, &known, seen.now, &evidence)
        };
        let (phase, at_owner) = match next {
            Ok(next) => next,
            Err(why) => return self.forget(node, why),
        };
        if let Some(owned) = self.nodes.get_mut(node) {
            (owned.phase, owned.at_owner) = (phase, at_owner);
        }
    }

    fn remember(&mut self, node: &str, record: OwnerRecord) {
        self.unsaved.insert(node.to_owned(), Some(record.clone()));
        self.nodes.insert(node.to_owned(), OwnedNode::new(record));
    }

    fn forget(&mut self, node: &str, why: Why) {
        let Some(owned) = self.nodes.remove(node) else { return };
        let (node, owner) = (node.to_owned(), owned.record.owner);
        self.unsaved.insert(node.clone(), None);
        self.forgotten.push(Forgotten { node, owner, why });
    }
}

/// What the sources say, with these nodes given to their owner where they count as its.
pub fn with_owners(said: &Arc<EntryMap>, nodes: &BTreeMap<String, OwnedNode>) -> Arc<EntryMap> {
    let owned = nodes.iter().filter(|(_, owned)| owned.at_owner);
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

#[cfg(test)]
mod tests;
