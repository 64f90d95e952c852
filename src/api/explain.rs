//! Why a node goes where it goes.

use std::time::Duration;

use futures_util::future::join_all;
use mapsmith_core::desired;
use mapsmith_core::desired::SourceView;
use mapsmith_core::desired::ownership::OwnedNode;
use mapsmith_core::status::KeptNode;
use tokio::time::timeout;

use super::rollback::hold_report;
use super::types::{
    ExplainCanary, ExplainChange, ExplainInstance, ExplainRegistration, ExplainReport,
    ExplainSource,
};
use super::{Api, views};
use crate::engine::map::{MapDecision, RolloutDecision};

/// How long `explain` waits for one instance: a person is watching.
const EXPLAIN_BOUND: Duration = Duration::from_secs(2);

impl Api {
    /// Why a node goes where it goes. `node` is a valid key.
    pub async fn explain(&self, node: &str) -> ExplainReport {
        let node = self.as_in_map(node);
        let decision = self.decision.borrow().map.clone();
        let states = self.states();
        let views = views(&states);
        let origin = desired::origin(&views, &node);
        // Overrides lie over a node that is gone as over any other.
        let gone = decision.gone.get(&node);
        let said = origin
            .and_then(|source| source.snapshot?.entries.get(&node))
            .or(gone.map(|gone| gone.master.as_str()));
        let owner = decision.owners.nodes.get(&node).cloned();
        let registration = match &self.registrations {
            // What can't be read is in the sources' answers all the same.
            Some(kept) => kept.registration(&node).await.ok().flatten(),
            None => None,
        };
        let registration = registration.map(|registration| {
            let node = (node.as_str(), Some(registration.master.as_str()));
            let found = self.in_force_of(std::iter::once(node), &decision, true);
            let elsewhere = found.elsewhere.into_iter().next();
            ExplainRegistration { registration, in_force: elsewhere.is_none(), elsewhere }
        });
        let pin = decision.overrides.pin(&node).cloned();
        let blocked = decision.overrides.block(&node).cloned();
        let disputed = origin.is_some_and(|origin| is_disputed(&origin, &node));
        let kept = kept_node(&decision, &node);
        // What is kept counts for the sources' answer, whatever they say at the moment.
        let counts = kept.map(|kept| kept.master.as_str()).or(said);
        let base = owner.as_ref().and_then(OwnedNode::routed_to).or(counts);
        let drained = base
            .filter(|_| pin.is_none() && blocked.is_none())
            .and_then(|master| decision.overrides.drain(master))
            .cloned();
        let sources = explain_sources(&views, origin.map(|origin| origin.name), &node);
        let in_force = decision.in_force.as_ref().and_then(|revision| revision.entries.get(&node));
        // Where a drained master's nodes go is the sources' answer no more.
        let ordered = match (&pin, &drained) {
            (Some(pin), _) => Some(pin.master.as_str()),
            (None, Some(drained)) => drained
                .to
                .as_deref()
                .filter(|to| decision.overrides.drain(to).is_none())
                .or(in_force),
            (None, None) => base,
        };
        // What an operator ordered is not kept back by anything that the sources say.
        let kept = match pin.is_some() || blocked.is_some() {
            true => None,
            false => explain_kept(kept, disputed, owner.is_some()),
        };
        let ordered = ordered.filter(|_| blocked.is_none());
        let reference = ordered.and_then(|master| self.explain_reference(&decision, master));
        ExplainReport {
            owner: owner.clone(),
            reference,
            rejected: decision.rejected.of_node(&node).cloned(),
            kept,
            gone: gone.map(|gone| self.gone_node(&node, gone)),
            master: in_force.map(str::to_owned),
            revision: decision.in_force.as_ref().map(|revision| revision.number),
            last_change: self.last_change(&decision, &node).await,
            registration,
            pin,
            blocked,
            drained,
            sources,
            instances: self.look_up_everywhere(&node, &decision.rollout).await,
            held: decision.held,
            hold: hold_report(decision.hold),
            node,
        }
    }

    /// The latest change of a node: as it is remembered, or as the store has it.
    async fn last_change(&self, decision: &MapDecision, node: &str) -> Option<ExplainChange> {
        let (log, in_force) = (&decision.log, decision.in_force.as_ref()?);
        if let Some((revision, change)) = log.last_change(node) {
            return Some(ExplainChange {
                revision: revision.number,
                at: revision.at,
                from: change.from.clone(),
                to: change.to.clone(),
            });
        }
        let from = log.first_unknown(in_force.number);
        let found = self.kept_change(node.to_owned(), in_force.number, from).await?;
        let (record, before) = found;
        let to = in_force.entries.get(node).map(str::to_owned);
        Some(ExplainChange { revision: record.number, at: record.at, from: before, to })
    }

    /// What every instance holds of the node in memory right now; nothing where there is no map.
    async fn look_up_everywhere(
        &self,
        node: &str,
        rollout: &RolloutDecision,
    ) -> Vec<ExplainInstance> {
        if !self.settings.keeps_map() {
            return Vec::new();
        }
        let instances = self.clients.iter().zip(&self.settings.instances).zip(&self.instances);
        let lookups = instances.map(|((client, instance), report)| async move {
            let learned = report.borrow().learned_of(node).cloned();
            let mut master = None;
            let look_up =
                client.look_up(std::iter::once(node), |_, found| master = found.map(str::to_owned));
            let error = match timeout(EXPLAIN_BOUND, look_up).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(format!("no answer within {EXPLAIN_BOUND:?}")),
            };
            let (name, canary) = (instance.name.clone(), canary_of(rollout, &instance.name, node));
            ExplainInstance { name, master, error, learned, canary }
        });
        join_all(lookups).await
    }

    /// Why a master is no target in some instance, and what becomes of entries with it.
    pub(super) fn explain_reference(&self, decision: &MapDecision, master: &str) -> Option<String> {
        let (why, action) = if decision.dangling.unknown.contains_key(master) {
            ("an instance has no backend or server of the name", self.settings.references.unknown)
        } else if decision.dangling.not_ready.contains_key(master) {
            ("it is not ready in an instance", self.settings.references.not_ready)
        } else {
            return None;
        };
        Some(format!("{master}: {why}; such entries are {action} ([references])"))
    }
}

/// What an instance should hold of a node in place of the map in force, where it is one of a
/// canary's.
fn canary_of(rollout: &RolloutDecision, instance: &str, node: &str) -> Option<ExplainCanary> {
    let (map, open) = (rollout.canary.as_ref()?, rollout.open()?);
    open.instances.iter().find(|name| *name == instance)?;
    let master = map.entries.get(node).map(str::to_owned);
    Some(ExplainCanary { rollout: open.id.clone(), master })
}

/// What each source says of the node; `origin` is the one whose answer counts.
fn explain_sources(
    views: &[SourceView<'_>],
    origin: Option<&str>,
    node: &str,
) -> Vec<ExplainSource> {
    views
        .iter()
        .map(|view| ExplainSource {
            name: view.name.to_owned(),
            master: view
                .snapshot
                .and_then(|snapshot| snapshot.entries.get(node).map(str::to_owned)),
            rejected: view.snapshot.and_then(|snapshot| snapshot.rejections.reason(node)),
            answered_at: view.snapshot.map(|snapshot| snapshot.answered_at),
            used: origin == Some(view.name),
        })
        .collect()
}

/// Whether the source's answer is not clear about the node.
pub(super) fn is_disputed(source: &SourceView<'_>, node: &str) -> bool {
    let entries = source.snapshot.map(|snapshot| &snapshot.entries);
    entries.is_some_and(|entries| {
        entries.find(node.as_bytes()).is_some_and(|at| entries.is_disputed(at))
    })
}

/// The node, where it stays although the sources say something else.
pub(super) fn kept_node<'a>(decision: &'a MapDecision, node: &str) -> Option<&'a KeptNode> {
    let kept = decision.conflicts.nodes.iter().chain(&decision.flapping.nodes);
    kept.into_iter().find(|kept| kept.node == node)
}

/// Why a node stays where it is although the sources say something else, if so. Where its owner is
/// remembered it may well be there: then only the sources' answer stays what it was.
pub(super) fn explain_kept(
    kept: Option<&KeptNode>,
    disputed: bool,
    is_owned: bool,
) -> Option<String> {
    let why = match disputed {
        true => "its source names it with different masters, and none is newer",
        false => "it flaps",
    };
    let until = if disputed { "" } else { " until the registry has named one master for a while" };
    match kept {
        Some(KeptNode { master, .. }) if is_owned => {
            Some(format!("{why}: {master} counts as the registry's answer{until}"))
        }
        Some(KeptNode { master, .. }) if !disputed => {
            Some(format!("{why}: it stays with {master}{until}"))
        }
        Some(_) => Some(format!("{why}: it stays where it is")),
        None => disputed.then(|| format!("{why}: it stays where it is")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_an_owner_is_not_said_to_stay_where_it_is_not() {
        let kept =
            KeptNode { node: "n".to_owned(), master: "m2".to_owned(), said: "m1".to_owned() };
        let told = |disputed, is_owned| explain_kept(Some(&kept), disputed, is_owned);
        assert_eq!(
            told(false, false).as_deref(),
            Some("it flaps: it stays with m2 until the registry has named one master for a while")
        );
        assert_eq!(
            told(false, true).as_deref(),
            Some(
                "it flaps: m2 counts as the registry's answer until the registry has named one \
                    master for a while"
            )
        );
        let why = "its source names it with different masters, and none is newer";
        assert_eq!(told(true, false), Some(format!("{why}: it stays where it is")));
        assert_eq!(told(true, true), Some(format!("{why}: m2 counts as the registry's answer")));
        assert_eq!(explain_kept(None, false, true), None);
    }
}
