//! A node that goes back and forth, or is named twice, stays where it is.

use serde_json::json;

use super::{NODES, Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, entries, in_sync, memory, metric, newest, nodes, oldest_and_newest, printed,
    reload,
};

#[test]
fn a_node_that_flaps_stays_where_it_is_until_it_has_been_still() {
    // Longer than a crowded machine takes from the last change to the last question below.
    let scene = Scene::start(newest(), "[damping]\nhold = \"20s\"\n");
    let with = |master: &str| {
        let mut nodes = nodes(NODES, "m1");
        nodes[7].1 = master.to_owned();
        nodes
    };
    for (said, expected) in [("m2", "m2"), ("m1", "m1"), ("m2", "m1"), ("m1", "m1"), ("m2", "m1")] {
        scene.registry.knows(&borrowed(&with(said)));
        reload(&scene.mapsmith);
        assert_eq!(memory(&scene.gateway), with(expected), "{said}");
    }
    let status = scene.mapsmith.get("/v1/status").1;
    let kept = json!({ "count": 1, "nodes": [{ "node": "n007", "master": "m1", "said": "m2" }] });
    assert_eq!((&status["flapping"], &status["held"]), (&kept, &json!([])));
    assert_eq!(metric(&scene.mapsmith, "mapsmith_flapping_nodes"), Some(1.0));
    let (_, text) = printed(&scene.mapsmith.cli(&["status"]));
    assert!(
        text.contains("flapping   1 node stays with the same master") && text.contains("n007 (m1)"),
        "{text}"
    );
    let (_, text) = printed(&scene.mapsmith.cli(&["explain", "n007"]));
    assert!(
        text.contains("it flaps: it stays with m1")
            && text.contains(": m2 (not in force), answered"),
        "{text}"
    );
    assert_eq!(
        scene.mapsmith.log().matches("the node flaps").count(),
        1,
        "{}",
        scene.mapsmith.log()
    );
    // Nobody polls again: it goes by itself.
    scene.mapsmith.wait_for("the node goes where it is said to be", BOUND, |_| {
        (memory(&scene.gateway) == with("m2")).then_some(())
    });
    assert_eq!(metric(&scene.mapsmith, "mapsmith_flapping_nodes"), Some(0.0));
}

#[test]
fn a_node_named_twice_stays_where_it_is_and_is_shown_after_a_restart_too() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&[("node1", "master2"), ("node2", "master1")]);
        let mut mapsmith = config(&gateway, &registry, "").start();
        in_sync(&mapsmith);
        let before = entries(&[("node1", "master2"), ("node2", "master1")]);
        let conflict = json!({ "node": "node1", "master": "master2", "said": "master1" });
        let conflicts = json!({ "count": 1, "nodes": [conflict] });
        for body in [
            r#"{"Node1": "master1", "node1": "master2", "node2": "master1"}"#,
            r#"{"node1": "master2", "node2": "master1", "NODE1": "master1", "Node1": "master3"}"#,
        ] {
            registry.answers(200, body);
            for _ in 0..2 {
                reload(&mapsmith);
                assert_eq!(memory(&gateway), before, "{body}");
            }
            assert_eq!(mapsmith.get("/v1/status").1["conflicts"], conflicts, "{body}");
            mapsmith.kill();
            mapsmith.restart();
            in_sync(&mapsmith);
            reload(&mapsmith);
            assert_eq!(memory(&gateway), before, "{body} after a restart");
        }
        assert_eq!(metric(&mapsmith, "mapsmith_conflicting_nodes"), Some(1.0));
        let (_, text) = printed(&mapsmith.cli(&["status"]));
        assert!(
            text.contains("conflicts  1 node stays with the same master")
                && text.contains("node1 (master2)"),
            "{text}"
        );
        let (_, text) = printed(&mapsmith.cli(&["explain", "node1"]));
        assert!(
            text.contains("its source names it with different masters")
                && text.contains(": master1 (not in force)"),
            "{text}"
        );
        let (code, text) = printed(&mapsmith.configuration().cli(&["plan"]));
        assert!(code == 0 && text.contains("nothing to do"), "{code}: {text}");

        registry.knows(&[("Node1", "master1"), ("node2", "master1")]);
        reload(&mapsmith);
        assert_eq!(
            memory(&gateway),
            entries(&[("node1", "master1"), ("node2", "master1")]),
            "it is clear again"
        );
        assert_eq!(mapsmith.get("/v1/status").1["conflicts"]["count"], 0);
    }
}
