//! A drained master's nodes go to the others and come back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Scene, fleet, with};
use crate::support::scene::{memory, metric, nodes, oldest_and_newest, reload};

#[test]
fn a_drained_masters_nodes_are_spread_over_the_others_and_undraining_restores_the_map_exactly() {
    for binary in oldest_and_newest() {
        let said = fleet(90, &["m1", "m2", "m3"]);
        let scene = Scene::start_on(binary, &said);
        scene.order("PUT", "overrides/n000", json!({"master": "m1"}));
        let told = scene.order("POST", "masters/m1/drain", Value::Null);
        assert!(
            told.starts_with("master m1 is drained to the others; revision 2: 0 added, 29 moved"),
            "{told}"
        );
        let held = memory(&scene.gateway);
        let mut got = BTreeMap::new();
        for ((node, master), (_, before)) in held.iter().zip(&said) {
            match before.as_str() {
                "m1" if node == "n000" => assert_eq!(master, "m1", "a pin stays"),
                "m1" => *got.entry(master.as_str()).or_insert(0) += 1,
                _ => assert_eq!(master, before, "{node} has nothing to do with m1"),
            }
        }
        // Which node goes where never changes, so neither does this.
        assert!(got.len() == 2 && got["m2"] >= 10 && got["m3"] >= 10, "{got:?}");
        let explained = scene.mapsmith.get("/v1/nodes/n003").1;
        assert_eq!(
            (&explained["drained"]["master"], &explained["sources"][0]["master"]),
            (&json!("m1"), &json!("m1")),
            "{explained:#}"
        );
        assert_eq!(scene.mapsmith.get("/v1/status").1["drained"][0]["master"], "m1");
        assert_eq!(metric(&scene.mapsmith, "mapsmith_drained_masters"), Some(1.0));

        let told = scene.order("POST", "masters/m1/drain", json!({"to": "m2"}));
        assert!(told.starts_with("master m1 is drained to m2; revision 3: "), "{told}");
        let moved: Vec<_> =
            said.iter().map(|(node, master)| (node.clone(), master.replace("m1", "m2"))).collect();
        scene.holds(&with(&moved, &[("n000", "m1")]));

        scene.order("DELETE", "masters/m1/drain", Value::Null);
        scene.order("DELETE", "overrides/n000", Value::Null);
        scene.holds(&said);
        assert_eq!(
            scene.refused("DELETE", "/v1/masters/m1/drain", "", 404),
            "master m1 is not drained"
        );
    }
}

#[test]
fn the_guard_does_not_hold_a_drain_of_nearly_everything() {
    let said = with(&nodes(60, "m1"), &[("other", "m2")]);
    let scene = Scene::start(&said);
    let told = scene.order("POST", "masters/m1/drain", Value::Null);
    assert!(told.contains("60 moved"), "{told}");
    // Nor what an answer that changes nothing says of it.
    reload(&scene.mapsmith);
    assert_eq!(scene.mapsmith.get("/v1/held").1, json!([]));
    scene.order("DELETE", "masters/m1/drain", Value::Null);
    scene.holds(&said);
}

#[test]
fn a_drain_that_leads_nowhere_is_refused_unless_it_is_forced() {
    let said = nodes(3, "m1");
    let scene = Scene::start(&said);
    let detail = scene.refused("POST", "/v1/masters/m1/drain", "", 409);
    assert!(
        detail.contains(
            "no other master is left that the nodes of m1 could go to; name one with --to"
        ),
        "{detail}"
    );
    assert_eq!(scene.mapsmith.get("/v1/overrides").1["drained"], json!([]), "nothing is stored");
    scene.order("POST", "masters/m1/drain", json!({"to": "m2"}));
    scene.holds(&nodes(3, "m2"));
    let detail = scene.refused("POST", "/v1/masters/m2/drain", r#"{"to": "m1"}"#, 409);
    assert!(detail.contains("the drains run in a circle: m2 -> m1 -> m2"), "{detail}");
    scene.holds(&nodes(3, "m2"));
    scene.order("DELETE", "masters/m1/drain", Value::Null);

    let told = scene.order("POST", "masters/m1/drain", Value::Null);
    assert!(
        told.contains("no other master is left, so these keep their nodes: m1; nothing changed"),
        "{told}"
    );
    scene.holds(&said);
    assert_eq!(scene.mapsmith.get("/v1/status").1["stuck"], json!(["m1"]));
}
