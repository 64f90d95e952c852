//! What changes while faults come: nodes, servers and pins, first in truth and then in what the
//! registries say.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde_json::json;

use super::super::schedule::Routing;
use super::{Outcome, Rest, Whole, node_name, publish};
use crate::support::random::Random;

/// Nodes with their masters.
type Rows = BTreeMap<String, String>;

impl Whole {
    /// The registries say what is true.
    pub fn publish(&self) {
        publish(&self.registries, &self.site, &self.registry, &self.servers, &self.server_masters);
    }

    /// Nodes move to other masters, come and go, and servers are listed again: first in truth, then
    /// in what the registries will say once [`Self::publish`] is called.
    pub fn changes(&mut self, random: &mut Random) {
        let names = self.master_names();
        let nodes: Vec<_> =
            self.registry.keys().filter(|node| !self.pins.contains_key(*node)).cloned().collect();
        let moving = random.between(1, (nodes.len() / 14).max(1));
        for _ in 0..moving {
            let node = random.pick(&nodes);
            let others: Vec<_> =
                names.iter().filter(|name| **name != self.registry[node]).collect();
            let master = (*random.pick(&others)).clone();
            self.owners.moves(node, &master);
            self.registry.insert(node.clone(), master);
        }
        let coming = random.below((nodes.len() / 100).max(1) + 1);
        for _ in 0..coming {
            let (node, master) = (node_name(self.names_given), random.pick(&names).clone());
            self.names_given += 1;
            self.owners.moves(&node, &master);
            self.registry.insert(node, master);
        }
        // With redispatch an owner answers as long as there is one: nodes that nobody owns would
        // only fail.
        let mut going = 0;
        if self.site.routing == Routing::Map && nodes.len() >= 50 {
            going = random.below(nodes.len() / 100 + 1);
            for _ in 0..going {
                let node = random.pick(&nodes);
                self.known.write().unwrap_or_else(PoisonError::into_inner).remove(node);
                self.registry.remove(node);
            }
        }
        if self.site.servers && random.chance(40) {
            self.list_servers(random);
        }
        let listed: Vec<_> = self.servers.keys().collect();
        self.journal
            .note(&format!("  {moving} nodes move, {coming} come, {going} go; servers {listed:?}"));
    }

    /// The configured server and up to two more, each under a name that was never there.
    fn list_servers(&mut self, random: &mut Random) {
        for master in 1..self.server_masters.len() {
            if random.chance(50) {
                self.servers.retain(|_, listed| *listed != master);
                if random.chance(60) {
                    self.servers.insert(format!("s{}", self.names_given), master);
                    self.names_given += 1;
                }
            }
        }
    }

    /// The share of nodes that a step back to an older registry moves and removes, in per cent.
    pub(super) fn distance(
        &self,
        from: &BTreeMap<String, String>,
        to: &BTreeMap<String, String>,
    ) -> (usize, usize) {
        let moved = from
            .iter()
            .filter(|(node, master)| to.get(*node).is_some_and(|other| other != *master))
            .count();
        let removed = from.keys().filter(|node| !to.contains_key(*node)).count();
        (moved * 100 / from.len().max(1), removed * 100 / from.len().max(1))
    }

    /// The map file as it was so many rests ago, or later, so that the way from it to what is true
    /// now is one that the guard lets pass.
    pub fn older_file(&self, back: usize) -> &[u8] {
        let last = self.rests.len() - 1;
        let near = |rest: &&Rest| {
            let (moved, removed) = self.distance(&rest.registry, &self.registry);
            moved <= 35 && removed <= 10
        };
        let from = &self.rests[last.saturating_sub(back)..];
        &from.iter().find(near).unwrap_or(&self.rests[last]).file
    }

    /// What the registries said so many rests ago, and what of it comes into force: the guard judges
    /// moves and removals apart. None where it is a near thing.
    pub fn older_registry(&self, back: usize) -> Option<(Rows, Rows)> {
        let said = &self.rests[(self.rests.len() - 1).saturating_sub(back)].registry;
        let (moved, removed) = self.distance(&self.registry, said);
        let passes = |percent: usize, most: usize| match percent.abs_diff(most) {
            ..=5 => None,
            _ => Some(percent < most),
        };
        let (moves, removals) = (passes(moved, 50)?, passes(removed, 20)?);
        let mut in_force = self.registry.clone();
        in_force.retain(|node, _| !removals || said.contains_key(node));
        for (node, master) in said {
            match in_force.get_mut(node) {
                Some(before) if moves => before.clone_from(master),
                Some(_) => {}
                None => drop(in_force.insert(node.clone(), master.clone())),
            }
        }
        let (moved_back, removed_back) = self.distance(&in_force, &self.registry);
        (moved_back < 45 && removed_back < 15).then(|| (said.clone(), in_force))
    }

    /// The registries say this, whatever is true.
    pub fn publish_map(&self, registry: &BTreeMap<String, String>) {
        publish(&self.registries, &self.site, registry, &self.servers, &self.server_masters);
    }

    /// Pins a node, or unpins one; its owner is the one that is ordered. An order may only fail
    /// where the store is said to be `broken`.
    pub fn order(&mut self, random: &mut Random, broken: bool) -> Outcome {
        let pinned: Vec<_> = self.pins.keys().cloned().collect();
        if !pinned.is_empty() && random.chance(40) {
            let node = random.pick(&pinned).clone();
            let answer = self.mapsmith.ask("DELETE", &format!("/v1/overrides/{node}"), &[], "");
            self.journal.note(&format!("  unpin {node}: {}", answer.status));
            if answer.status < 300 {
                self.pins.remove(&node);
                let back = self.registry.get(&node).cloned();
                back.iter().for_each(|master| self.owners.moves(&node, master));
                return Ok(());
            }
            return if broken {
                Ok(())
            } else {
                Err(format!("unpin {node}: {} {}", answer.status, answer.body))
            };
        }
        let nodes: Vec<_> = self.registry.keys().cloned().collect();
        let (node, master) =
            (random.pick(&nodes).clone(), random.pick(&self.master_names()).clone());
        // It may be answered by the new one from here on.
        self.owners.moves(&node, &master);
        let body = json!({ "master": master }).to_string();
        let answer =
            self.mapsmith.ask("PUT", &format!("/v1/overrides/{node}?force=true"), &[], &body);
        self.journal.note(&format!("  pin {node} to {master}: {}", answer.status));
        if answer.status < 300 {
            self.pins.insert(node, master);
            return Ok(());
        }
        let before = self.pins.get(&node).or(self.registry.get(&node)).cloned();
        before.iter().for_each(|master| self.owners.moves(&node, master));
        if broken { Ok(()) } else { Err(format!("pin {node}: {} {}", answer.status, answer.body)) }
    }
}
