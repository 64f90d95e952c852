//! Large maps, and how a Mapsmith ends in the middle of one.

use crate::support::eventually;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{
    BOUND, borrowed, in_sync, map_file, memory, metric, oldest_and_newest, reload, source_settings,
};
use crate::support::site::{
    CALM, Nodes, Site, alternating, assert_no_leftovers, counters, file_revision,
};

const NODES: usize = 100_000;

/// Settings with payloads of the usual size.
fn mapsmith(site: &Site) -> Mapsmith {
    let settings = CALM.to_owned()
        + &format!("[map]\npath = {:?}\n", site.gateway.map_path())
        + &source_settings("registry", &site.registry.url())
        + &format!(
            "[[instance]]\nname = \"edge1\"\nruntime = {:?}\ntimeout = \"60s\"\n",
            site.proxy.address()
        );
    Mapsmith::config(&settings).start()
}

fn assert_holds(gateway: &Gateway, nodes: &Nodes) {
    // Not assert_eq, which would print both.
    assert!(memory(gateway) == *nodes, "the memory is another one, {:?}", counters(gateway));
    assert!(map_file(gateway) == *nodes, "the file is another one");
    assert_eq!(counters(gateway).entries, nodes.len() as u64);
}

#[test]
fn a_hundred_thousand_nodes_are_swapped_from_the_registry_to_the_traffic() {
    for binary in oldest_and_newest() {
        let maps = [alternating(NODES, 0), alternating(NODES, 1)];
        let site = Site::start(binary, &maps[0]);
        let mapsmith = mapsmith(&site);
        in_sync(&mapsmith);
        assert_holds(&site.gateway, &maps[0]);
        site.registry.knows(&borrowed(&maps[1]));
        site.next_is_a_swap();
        let report = reload(&mapsmith);
        let apply = &report["instances"][0]["apply"];
        assert_eq!(
            (&apply["strategy"], &apply["moved"]),
            (&"swap".into(), &NODES.into()),
            "{apply:#}"
        );
        assert_holds(&site.gateway, &maps[1]);
        for at in [0, 1, NODES / 2, NODES - 1] {
            assert_eq!(site.route(&maps[1][at].0), maps[1][at].1);
        }
        assert_eq!(metric(&mapsmith, "mapsmith_map_entries"), Some(NODES as f64));
        // A handful of changes in it is a handful of commands.
        let mut few = maps[1].clone();
        few[7].1 = maps[0][7].1.clone();
        few.pop();
        site.registry.knows(&borrowed(&few));
        let report = reload(&mapsmith);
        assert_eq!(report["instances"][0]["apply"]["strategy"], "edits", "{report:#}");
        assert_holds(&site.gateway, &few);
    }
}

#[test]
fn a_mapsmith_that_is_asked_to_end_in_the_middle_of_a_swap_finishes_it_first() {
    for binary in oldest_and_newest() {
        let maps = [alternating(NODES, 0), alternating(NODES, 1)];
        let site = Site::start(binary, &maps[0]);
        let mut mapsmith = mapsmith(&site);
        in_sync(&mapsmith);
        for (round, command) in
            ["prepare map", "add map @", "show map @", "commit map"].into_iter().enumerate()
        {
            let (old, new) = (&maps[round % 2], &maps[(round + 1) % 2]);
            site.proxy.hold(command, if command == "add map @" { 50 } else { 1 });
            site.change(&mapsmith, new);
            site.proxy.wait_held();
            assert!(memory(&site.gateway) == *old);
            mapsmith.signal("TERM");
            mapsmith.wait_for("it has got the signal", BOUND, |mapsmith| {
                (mapsmith.log().matches("finishing the step in progress").count() > round)
                    .then_some(())
            });
            site.proxy.forward();
            assert_eq!(mapsmith.wait(), 0, "{}", mapsmith.log());
            assert_holds(&site.gateway, new);
            assert_no_leftovers(site.gateway.map_path().as_ref());
            assert_eq!(file_revision(&site.gateway), round as u64 + 2);
            mapsmith.restart();
            in_sync(&mapsmith);
        }
    }
}

#[test]
fn a_mapsmith_that_is_asked_to_end_while_its_gateway_hangs_ends_well() {
    for binary in oldest_and_newest() {
        let maps = [alternating(300, 0), alternating(300, 1)];
        let mut site = Site::start(binary, &maps[0]);
        let settings = CALM.to_owned()
            + &format!("[map]\npath = {:?}\n", site.gateway.map_path())
            + &source_settings("registry", &site.registry.url())
            + &format!(
                "[[instance]]\nname = \"edge1\"\nruntime = {:?}\ntimeout = \"1s\"\n",
                site.proxy.address()
            );
        let mut mapsmith = Mapsmith::config(&settings).start();
        in_sync(&mapsmith);
        site.proxy.hold("commit map", 1);
        site.change(&mapsmith, &maps[1]);
        site.proxy.wait_held();
        site.gateway.stop_process();
        site.proxy.forward();
        assert_eq!(mapsmith.sigterm(), 0, "{}", mapsmith.log());
        site.gateway.continue_process();
        // The commit was on its way: it may arrive yet, and either map is whole.
        let whole = || {
            let held = memory(&site.gateway);
            held == maps[0] || held == maps[1]
        };
        eventually("the memory is one of the two maps", BOUND, || whole().then_some(()));
        mapsmith.restart();
        in_sync(&mapsmith);
        site.converges(&mapsmith, &maps[1]);
    }
}

#[test]
fn a_hangup_polls_the_registry() {
    let [_, newest] = oldest_and_newest();
    let maps = [alternating(30, 0), alternating(30, 1)];
    let site = Site::start(newest, &maps[0]);
    let mut mapsmith = site.mapsmith();
    let asked = site.registry.asked();
    site.registry.knows(&borrowed(&maps[1]));
    mapsmith.hangup();
    site.converges(&mapsmith, &maps[1]);
    assert_eq!(site.registry.asked(), asked + 1);
    assert!(mapsmith.log().contains("SIGHUP"), "{}", mapsmith.log());
}
