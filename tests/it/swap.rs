//! A change of the map as clients of a busy gateway see it: the old route or the new one, never
//! anything else.

use std::thread;

use serde_json::Value;

use crate::support::eventually;
use crate::support::haproxy::{Gateway, installed};
use crate::support::load::{Answer, Load};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, borrowed, in_sync, reload};
use crate::support::site::{Nodes, Site, alternating};

/// Two clients, each with its answers in their order.
struct Clients(Vec<Load>);

impl Clients {
    fn start(gateway: &Gateway, nodes: &[String]) -> Self {
        Self((0..2).map(|_| Load::start(gateway.http_address(), nodes, 1)).collect())
    }

    /// Waits until each has got many more answers.
    fn go_on(&self) {
        for load in &self.0 {
            let before = load.answered();
            eventually("the load gets answers", BOUND, || {
                (load.answered() > before + 200).then_some(())
            });
        }
    }

    fn stop(self) -> Vec<Vec<Answer>> {
        self.0.into_iter().map(Load::stop).collect()
    }
}

fn master_of<'a>(nodes: &'a Nodes, node: &str) -> &'a str {
    let at = nodes
        .binary_search_by(|(name, _)| name.as_str().cmp(node))
        .unwrap_or_else(|_| panic!("{node} is in the map"));
    &nodes[at].1
}

/// Every answer came from a master that one of the two maps names, and no client got an older route
/// after a newer one. With `at_once` the whole map changed between two of its answers.
fn assert_old_then_new(answers: &[Answer], old: &Nodes, new: &Nodes, at_once: bool) {
    let mut changed = std::collections::BTreeSet::new();
    for (at, answer) in answers.iter().enumerate() {
        let (before, after) = (master_of(old, &answer.node), master_of(new, &answer.node));
        assert_ne!(before, after, "the load asks only for nodes that move");
        assert_eq!(answer.status, 200, "answer {at} of {}: {answer:?}", answers.len());
        if answer.master == after {
            changed.insert(if at_once { "" } else { answer.node.as_str() });
        } else {
            assert_eq!(answer.master, before, "answer {at}: a master that neither map names");
            let returned = changed.contains(if at_once { "" } else { answer.node.as_str() });
            assert!(
                !returned,
                "answer {at} of {}: the older route came back: {answer:?}",
                answers.len()
            );
        }
    }
}

/// Changes the registry under load, holding Mapsmith at each of `holds` until clients have got many
/// answers meanwhile.
fn change_under_load(
    site: &Site,
    mapsmith: &Mapsmith,
    maps: (&Nodes, &Nodes),
    holds: &[(&str, usize)],
    at_once: bool,
) -> Value {
    let (old, new) = maps;
    let moving: Vec<String> = new
        .iter()
        .filter(|(node, master)| old.iter().any(|(other, was)| other == node && was != master))
        .map(|(node, _)| node.clone())
        .collect();
    for (command, nth) in holds {
        site.proxy.hold(command, *nth);
    }
    site.registry.knows(&borrowed(new));
    if at_once {
        site.next_is_a_swap();
    }
    let clients = Clients::start(&site.gateway, &moving);
    clients.go_on();
    let report = thread::scope(|scope| {
        let report = scope.spawn(|| reload(mapsmith));
        for _ in holds {
            site.proxy.wait_held();
            clients.go_on();
            site.proxy.forward();
        }
        report.join().expect("the reload ends well")
    });
    // Who begins to ask now, after the reload's answer, must get the new routes alone.
    let late = Clients::start(&site.gateway, &moving);
    late.go_on();
    for answers in clients.stop() {
        let held =
            answers.iter().filter(|answer| answer.master == master_of(old, &answer.node)).count();
        assert!(held > 200, "the old map was asked while the change was under way");
        assert_old_then_new(&answers, old, new, at_once);
    }
    for answers in late.stop() {
        assert_old_then_new(&answers, old, new, at_once);
        let stale = answers.iter().find(|answer| answer.master != master_of(new, &answer.node));
        assert_eq!(stale, None, "an older route after the reload's answer\n{report:#}");
    }
    report["instances"][0]["apply"].clone()
}

#[test]
fn no_request_is_answered_from_a_half_filled_map_while_a_swap_is_under_way() {
    for binary in installed() {
        let maps = [alternating(500, 0), alternating(500, 1)];
        let site = Site::start(binary, &maps[0]);
        let mapsmith = site.mapsmith();
        for round in 0..3 {
            let maps = (&maps[round % 2], &maps[(round + 1) % 2]);
            let holds =
                [("prepare map", 1), ("add map @", 4), ("show map @", 1), ("commit map", 1)];
            let apply = change_under_load(&site, &mapsmith, maps, &holds, true);
            assert_eq!(apply["strategy"], "swap", "HAProxy {:?}: {apply:#}", binary.version);
            assert_eq!(apply["moved"], 500, "{apply:#}");
        }
    }
}

#[test]
fn no_request_is_answered_by_anyone_but_the_old_or_the_new_master_while_single_nodes_move() {
    for binary in installed() {
        let old = alternating(500, 0);
        let mut new = old.clone();
        for at in [3, 77, 200, 498] {
            new[at].1 = alternating(500, 1)[at].1.clone();
        }
        new.remove(100);
        new.push(("n999999".to_owned(), "master1".to_owned()));
        let site = Site::start(binary, &old);
        let mut mapsmith = site.mapsmith();
        let apply = change_under_load(&site, &mapsmith, (&old, &new), &[("add map ", 1)], false);
        assert_eq!(apply["strategy"], "edits", "HAProxy {:?}: {apply:#}", binary.version);
        let counts = (&apply["added"], &apply["moved"], &apply["removed"]);
        assert_eq!(counts, (&1.into(), &4.into(), &1.into()), "{apply:#}");
        assert_eq!(site.gateway.request("n000100"), (404, "none".to_owned()));
        assert_eq!(site.route("n999999"), "master1");
        // And back, this time held after the commands, before they are verified; by a Mapsmith that
        // has not yet learned from the first hold that single commands are slow here.
        mapsmith.restart();
        in_sync(&mapsmith);
        let apply = change_under_load(&site, &mapsmith, (&new, &old), &[("get map ", 1)], false);
        assert_eq!(apply["strategy"], "edits", "HAProxy {:?}: {apply:#}", binary.version);
        assert_eq!(site.gateway.request("n999999"), (404, "none".to_owned()));
    }
}
