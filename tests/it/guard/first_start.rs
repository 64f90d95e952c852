//! What counts as in force at a start.

use std::fs;

use serde_json::{Value, json};

use super::{NODES, Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::registry::Registry;
use crate::support::scene::{BOUND, borrowed, entries, in_sync, memory, newest, nodes, reload};

/// A gateway whose map file, and so whose memory, holds `count` nodes of `m1` before Mapsmith ever
/// ran.
pub(super) fn gateway_with(count: usize) -> Gateway {
    let nodes = nodes(count, "m1");
    nodes
        .iter()
        .fold(Gateway::plan(newest()), |plan, (node, master)| plan.entry(node, master))
        .start()
}

#[test]
fn at_the_first_start_the_map_file_in_place_counts_as_the_map_in_force() {
    let gateway = gateway_with(NODES);
    let file = fs::read(gateway.map_path()).unwrap();
    let registry = Registry::start(&borrowed(&nodes(3, "m1")));
    let mapsmith = config(&gateway, &registry, "").start();
    let held = mapsmith.wait_for("the first answer is held", BOUND, |mapsmith| {
        let held = mapsmith.get("/v1/held").1[0].clone();
        held["id"].is_string().then_some(held)
    });
    assert!(
        held["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("remove 37 of the 40 entries in force")),
        "{held:#}"
    );
    assert_eq!(memory(&gateway), nodes(NODES, "m1"));
    assert_eq!(fs::read(gateway.map_path()).unwrap(), file, "the file is as it was, byte by byte");

    registry.knows(&borrowed(&nodes(NODES + 1, "m1")));
    reload(&mapsmith);
    assert_eq!(memory(&gateway), nodes(NODES + 1, "m1"));
}

#[test]
fn a_first_start_with_an_empty_map_file_is_not_held() {
    for text in ["", "# the first Mapsmith fills this\n\n"] {
        let gateway = Gateway::plan(newest()).start();
        fs::write(gateway.map_path(), text).unwrap();
        let registry = Registry::start(&borrowed(&nodes(NODES, "m1")));
        let mapsmith = config(&gateway, &registry, "").start();
        let status = in_sync(&mapsmith);
        assert_eq!(
            (&status["held"], &status["revision"]),
            (&json!([]), &json!(1)),
            "{text:?}: {status:#}"
        );
        assert_eq!(memory(&gateway), nodes(NODES, "m1"), "{text:?}");
    }
}

#[test]
fn an_empty_map_file_and_an_empty_answer_do_not_empty_a_gateway_that_works() {
    let gateway = gateway_with(NODES);
    // As an editor or a full disk leaves it.
    fs::write(gateway.map_path(), "").unwrap();
    let registry = Registry::start(&[]);
    let mapsmith = config(&gateway, &registry, "").start();
    mapsmith.wait_for("the empty answer is held", BOUND, |mapsmith| {
        mapsmith.get("/v1/held").1[0]["id"].is_string().then_some(())
    });
    assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 409);
    assert_eq!(memory(&gateway), nodes(NODES, "m1"));
}

#[test]
fn revision_numbers_go_on_after_a_restart() {
    let mut scene = Scene::start(newest(), "");
    for (master, revision) in [("m2", 2), ("m3", 3)] {
        let mut changed = nodes(NODES, "m1");
        changed[0].1 = master.to_owned();
        scene.registry.knows(&borrowed(&changed));
        assert_eq!(reload(&scene.mapsmith)["revision"], revision);
    }
    assert_eq!(scene.mapsmith.sigterm(), 0, "{}", scene.mapsmith.log());

    let restarted = config(&scene.gateway, &scene.registry, "").start();
    let status = in_sync(&restarted);
    assert_eq!(
        (&status["revision"], &status["last_change"]),
        (&json!(3), &Value::Null),
        "nothing changed: {status:#}"
    );
    let mut changed = nodes(NODES, "m1");
    changed[1].1 = "m2".to_owned();
    scene.registry.knows(&borrowed(&changed));
    let report = reload(&restarted);
    assert_eq!(
        (&report["revision"], &report["changes"][0]["moved"]),
        (&json!(4), &json!(2)),
        "{report:#}"
    );
    assert_eq!(memory(&scene.gateway), entries(&borrowed(&changed)));
}
