//! Registries that lose a little at each poll, and nodes that go back and forth.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::laws::Excuse;
use super::run::document;
use super::schedule::Routing;
use super::site::{Outcome, Whole, is_held, source_of, with_pins};
use crate::support::poll;
use crate::support::random::Random;
use crate::support::site::Nodes;

/// The settings of these faults; in the others no change counts but the one at hand, and no node is
/// kept.
const WINDOW: &str = "MAPSMITH__GUARD__WINDOW=1h";
const HOLD: &str = "MAPSMITH__DAMPING__HOLD=8s";
/// Two alternations further apart may find the node still for long enough, on a machine that has
/// much else to do.
const ALTERNATES: Duration = Duration::from_secs(6);
/// Of nodes, by default.
const MAX_REMOVED_PERCENT: usize = 20;
/// What a registry loses at a poll, of its nodes.
const LOSS_PERCENT: usize = 8;
/// Longer than a poll takes.
const BOUND: Duration = Duration::from_secs(60);

/// A registry loses a few nodes at each poll, never many at once. No more are lost than one poll
/// might have taken, and what is held keeps no other node from moving.
pub fn registry_creeps(whole: &mut Whole, random: &mut Random) -> Outcome {
    whole.restart_with(&[WINDOW]);
    whole.settle()?;
    (0..whole.gateways.len()).for_each(|gateway| whole.laws.excused(gateway, Excuse::Old));
    let (mut said, count) = (whole.registry().clone(), whole.registry().len());
    let mut in_force = with_pins(&said, &whole.pins);
    loop {
        // Of one source each time: the losses of two are two answers, of which the guard may hold
        // the second alone.
        let source = random.below(whole.site.sources);
        for _ in 0..(count * LOSS_PERCENT / 100).max(1) {
            let is_in = |node: &&String| {
                source_of(&whole.site, node) == source && !whole.pins.contains_key(*node)
            };
            let nodes: Vec<_> = said.keys().filter(is_in).cloned().collect();
            said.remove(random.pick(&nodes));
        }
        whole.publish_map(&said);
        whole.nudge();
        let wanted = with_pins(&said, &whole.pins);
        let held = poll(BOUND, || {
            if is_held(&whole.status()) {
                Some(true)
            } else {
                whole.is_in_memory(&wanted).then_some(false)
            }
        });
        let lost = count - said.len();
        whole.journal.note(&format!(
            "  {lost} of {count} nodes are lost: {}",
            if held == Some(true) { "held" } else { "let through" }
        ));
        match held {
            Some(true) => break,
            Some(false) if lost * 100 > count * MAX_REMOVED_PERCENT => {
                return Err(format!(
                    "{lost} of {count} nodes were lost, a few at each poll, and the guard let \
                        them go"
                ));
            }
            Some(false) => in_force = wanted,
            None => {
                return Err(format!(
                    "a loss of {lost} nodes in all is neither held nor in force: {}",
                    whole.status()
                ));
            }
        }
    }
    if !whole.is_in_memory(&in_force) {
        return Err("a part of what is held was applied".to_owned());
    }
    moves_meanwhile(whole, random, said, &in_force)?;
    whole.publish();
    whole.nudge();
    let expected = whole.expected();
    whole
        .settles_on(&expected)
        .map_err(|error| format!("the registry has its nodes again: {error}"))?;
    whole.restart_with(&[]);
    Ok(())
}

/// A node moves while the loss of others is held, which `said` lacks.
fn moves_meanwhile(
    whole: &Whole,
    random: &mut Random,
    mut said: BTreeMap<String, String>,
    in_force: &Nodes,
) -> Outcome {
    let nodes: Vec<_> =
        said.keys().filter(|node| !whole.pins.contains_key(*node)).cloned().collect();
    let node = random.pick(&nodes).clone();
    let home = said[&node].clone();
    let others: Vec<_> = whole.master_names().into_iter().filter(|name| *name != home).collect();
    let away = random.pick(&others).clone();
    if whole.site.routing == Routing::Map {
        whole.owners.moves(&node, &away);
        whole.owners.moves(&node, &home);
    }
    whole.journal.note(&format!("  {node} moves to {away} meanwhile"));
    said.insert(node.clone(), away.clone());
    whole.publish_map(&said);
    whole.nudge();
    let expected: Nodes = in_force
        .iter()
        .map(|(name, master)| (name.clone(), if *name == node { &away } else { master }.clone()))
        .collect();
    whole
        .holds(&expected)
        .map_err(|error| format!("a node does not move while others are held: {error}"))?;
    if is_held(&whole.status()) {
        Ok(())
    } else {
        Err("what is held was let go because a node moved".to_owned())
    }
}

/// A node goes back and forth between two masters. From its third move on it stays where it is,
/// until it has been still.
pub fn node_flaps(whole: &mut Whole, random: &mut Random) -> Outcome {
    whole.restart_with(&[WINDOW, HOLD]);
    whole.settle()?;
    let nodes: Vec<_> =
        whole.registry().keys().filter(|node| !whole.pins.contains_key(*node)).cloned().collect();
    let node = random.pick(&nodes).clone();
    let home = whole.registry()[&node].clone();
    let others: Vec<_> = whole.master_names().into_iter().filter(|name| *name != home).collect();
    let away = random.pick(&others).clone();
    // With redispatch only its owner ever answers, wherever the map sends it.
    if whole.site.routing == Routing::Map {
        whole.owners.moves(&node, &away);
        whole.owners.moves(&node, &home);
    }
    let document = document(source_of(&whole.site, &node));
    let map = |whole: &Whole, master: &str| {
        let mut map = whole.registry().clone();
        map.insert(node.clone(), master.to_owned());
        map
    };
    // A poll that began after the registry said it has ended once the next one has begun.
    let said = |whole: &Whole, master: &str| {
        let asked = whole.registries.asked(&document);
        whole.publish_map(&map(whole, master));
        for more in 1..=2 {
            whole.nudge();
            poll(BOUND, || (whole.registries.asked(&document) >= asked + more).then_some(()))
                .ok_or_else(|| format!("{document} is polled no more"))?;
        }
        Ok::<_, String>(())
    };
    for master in [&away, &home] {
        said(whole, master)?;
        let wanted = with_pins(&map(whole, master), &whole.pins);
        whole.holds(&wanted).map_err(|error| format!("{node} moved to {master}: {error}"))?;
    }
    let kept = with_pins(whole.registry(), &whole.pins);
    let mut last = Instant::now();
    for master in [&away, &home, &away, &home, &away] {
        said(whole, master)?;
        if last.elapsed() > ALTERNATES {
            whole
                .journal
                .note("  it was still for too long to be judged: this machine has much to do");
            break;
        }
        last = Instant::now();
        if !whole.is_in_memory(&kept) {
            return Err(format!(
                "{node} goes back and forth between {home} and {away}, and the map with it"
            ));
        }
    }
    whole.journal.note(&format!("  {node} went back and forth"));
    said(whole, &away)?;
    let wanted = with_pins(&map(whole, &away), &whole.pins);
    whole.settles_on(&wanted).map_err(|error| format!("{node} is still at last: {error}"))?;
    whole.publish();
    whole.nudge();
    whole.restart_with(&[]);
    Ok(())
}
