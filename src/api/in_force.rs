//! Whether what is registered for a node is in force, and what keeps the node elsewhere.

use mapsmith_core::Note;
use mapsmith_core::desired::{self, SourceView};

use super::Api;
use super::explain::{explain_kept, is_disputed, kept_node};
use super::rollback::hold_text;
use super::types::NodeElsewhere;
use crate::engine::map::MapDecision;

/// How many of the nodes that go elsewhere are named.
const NAMED: usize = 20;

/// What became of nodes that were registered, or are no more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct InForce {
    /// Whether every one of them goes where that leads; none where that is not decided.
    pub in_force: Option<bool>,
    /// Whether one of the first goes elsewhere for no reason that is known: it may be on its way.
    pub waits: bool,
    /// How many go elsewhere.
    pub count: usize,
    /// The first of them.
    pub elsewhere: Vec<NodeElsewhere>,
}

impl Api {
    /// Whether these nodes go to the masters that they were registered with, or where the other
    /// sources say where they are registered no more. A decision that has not `taken` them in says
    /// so only where that is certain, whatever the next one comes to.
    pub(super) fn in_force_of<'n>(
        &self,
        nodes: impl Iterator<Item = (&'n str, Option<&'n str>)>,
        decision: &MapDecision,
        taken: bool,
    ) -> InForce {
        let states = self.states();
        let views = super::views(&states);
        let registered = states.iter().find(|state| state.registered.is_some());
        let registered = registered.map_or("", |state| state.status.name.as_str());
        let entries = decision.in_force.as_ref().map(|revision| &revision.entries);
        let mut found = InForce { in_force: Some(true), ..InForce::default() };
        for (node, master) in nodes {
            let goes = entries.and_then(|entries| entries.get(node));
            let said = said(&views, node);
            let wanted = master.or(said.map(|(_, said)| said));
            if goes == wanted {
                continue;
            }
            let by_another = master.and_then(|master| said_else(said, registered, master));
            let lasting = kept_by_order(decision, node)
                .or(by_another)
                .or_else(|| kept_back(decision, wanted));
            if lasting.is_none() && !taken {
                found.in_force = found.in_force.filter(|is_it| !is_it);
                continue;
            }
            (found.in_force, found.count) = (Some(false), found.count + 1);
            if found.elsewhere.len() < NAMED {
                let why = lasting.or_else(|| self.passing_reason(decision, &views, (node, wanted)));
                found.waits |= why.is_none();
                let why = why.unwrap_or_else(|| "it is not in the map in force yet".to_owned());
                let (node, master) = (node.to_owned(), goes.map(str::to_owned));
                found.elsewhere.push(NodeElsewhere { node, master, why });
            }
        }
        found
    }

    /// What of a decision keeps a node from where it should go.
    fn passing_reason(
        &self,
        decision: &MapDecision,
        views: &[SourceView<'_>],
        (node, master): (&str, Option<&str>),
    ) -> Option<String> {
        let owner = decision.owners.nodes.get(node);
        if let Some(owned) = owner.filter(|owned| owned.routed_to().is_some()) {
            return Some(format!(
                "it belongs to {}, its owner, and goes back there ([ownership])",
                owned.record.owner
            ));
        }
        let origin = desired::origin(views, node);
        let disputed = origin.is_some_and(|origin| is_disputed(&origin, node));
        explain_kept(kept_node(decision, node), disputed, owner.is_some())
            .or_else(|| decision.rejected.of_node(node).map(|row| format!("rejected: {row}")))
            .or_else(|| {
                let rejected = decision.hold.state.rejected_change()?;
                Some(format!("what the sources say was rejected{}", by(&rejected.note)))
            })
            .or_else(|| {
                let held = decision.held.as_ref()?;
                Some(format!("held back by the guard: {} (id {})", held.reason, held.id))
            })
            .or_else(|| self.explain_reference(decision, master?))
            .or_else(|| {
                let gone = self.gone_node(node, decision.gone.get(node)?);
                Some(format!("no source names it any more, and it stays until {:.0}", gone.until))
            })
            .or_else(|| {
                let error = decision.file.as_ref()?.error.as_ref()?;
                Some(format!("the map file can't be written: {error}"))
            })
    }
}

/// The source whose answer counts for a node, and the master that it names.
fn said<'v>(views: &[SourceView<'v>], node: &str) -> Option<(&'v str, &'v str)> {
    let origin = desired::origin(views, node)?;
    Some((origin.name, origin.snapshot?.entries.get(node)?))
}

/// An order, or another Mapsmith, that the sources' answers are nothing to.
fn kept_by_order(decision: &MapDecision, node: &str) -> Option<String> {
    if let Some(writer) = &decision.read_only {
        return Some(format!("another Mapsmith writes the map file ({writer})"));
    }
    let overrides = &decision.overrides;
    if let Some(block) = overrides.block(node) {
        return Some(format!("it is blocked{}: it is in no map", by(&block.note)));
    }
    let pin = overrides.pin(node)?;
    Some(format!("it is pinned to {}{}", pin.master, by(&pin.note)))
}

/// Why the registration with this master is not what the sources say together.
fn said_else(said: Option<(&str, &str)>, registered: &str, master: &str) -> Option<String> {
    match said {
        Some((source, said)) if source != registered => {
            Some(format!("source {source} names {said}, and counts more"))
        }
        Some((_, said)) => (said != master).then(|| format!("it is registered with {said} by now")),
        None => Some("it is no longer registered".to_owned()),
    }
}

/// What keeps back all that the sources say, or sends a master's nodes elsewhere.
fn kept_back(decision: &MapDecision, master: Option<&str>) -> Option<String> {
    if let Some(drained) = master.and_then(|master| decision.overrides.drain(master)) {
        return Some(format!("{} is drained{}", drained.master, by(&drained.note)));
    }
    if let Some(open) = decision.rollout.open().filter(|open| open.holds_sources()) {
        return Some(format!("what the sources say waits behind the canary {}", open.id));
    }
    if let Some(hold) = &decision.hold.state.hold {
        return Some(format!("rolled back to revision {}: {}", hold.of, hold_text(hold)));
    }
    let waits = !decision.active && !decision.waiting_for.is_empty();
    waits.then(|| format!("still waiting for: {}", decision.waiting_for.join(", ")))
}

/// ` by anna (site 7)`.
fn by(note: &Note) -> String {
    let by = note.by.as_ref().map_or(String::new(), |by| format!(" by {by}"));
    let reason = note.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    by + &reason
}
