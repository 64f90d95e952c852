//! A blocked node is in no map, until it is unblocked or its time is over.

use serde_json::{Value, json};

use super::{Scene, owned};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, in_sync, map_file, memory, metric, nodes, printed};

#[test]
fn a_blocked_node_is_in_no_map_also_after_a_restart_and_comes_back() {
    let said = nodes(3, "m1");
    let mut scene = Scene::start(&said);
    let holds = |scene: &Scene, expected: &[(String, String)]| {
        assert_eq!(memory(&scene.gateway), expected, "{}", scene.mapsmith.log());
        assert_eq!(map_file(&scene.gateway), expected);
    };
    let block = ["block", "N001", "--reason", "its key was stolen"];
    let (code, text) = printed(&scene.mapsmith.cli(&block));
    let told = "node n001 is blocked: it is in no map; revision 2: 0 added, 0 moved, 1 removed; \
                1 of 1 instances in sync\n";
    assert_eq!((code, text.as_str()), (0, told));
    let left = owned(&[("n000", "m1"), ("n002", "m1")]);
    holds(&scene, &left);

    let explained = scene.get("/v1/nodes/n001");
    assert_eq!(
        (&explained["master"], &explained["blocked"]["reason"], &explained["sources"][0]["master"]),
        (&Value::Null, &json!("its key was stolen"), &json!("m1"))
    );
    let (_, text) = printed(&scene.mapsmith.cli(&["explain", "n001"]));
    assert!(text.contains("blocked: it is in no map, by local"), "{text}");
    assert!(text.contains("(its key was stolen), until it is unblocked"), "{text}");
    let shown = scene.get("/v1/overrides/n001");
    assert_eq!((&shown["absent"], &shown["node"]), (&json!(true), &json!("n001")));
    assert_eq!(scene.get("/v1/overrides")["blocked"][0]["node"], "n001");
    assert_eq!(scene.get("/v1/status")["blocked"], 1);
    assert_eq!(metric(&scene.mapsmith, "mapsmith_blocked_nodes"), Some(1.0));

    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    holds(&scene, &left);

    scene.refused("DELETE", "/v1/overrides/n001?kind=pin", "", 404);
    let (code, text) = printed(&scene.mapsmith.cli(&["unblock", "n001"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("node n001 is no longer blocked; revision 3: 1 added"), "{text}");
    holds(&scene, &said);
    scene.refused("GET", "/v1/overrides/n001", "", 404);
}

#[test]
fn a_node_has_one_override_and_a_block_ends_by_itself() {
    let scene = Scene::start(&nodes(3, "m1"));
    let put = |body: Value| scene.order("PUT", "overrides/n002", body);
    put(json!({"master": "m2", "reason": "try m2"}));
    assert_eq!(scene.get("/v1/overrides/n002")["reason"], "try m2");
    put(json!({"absent": true}));
    assert_eq!(scene.get("/v1/overrides")["pins"], json!([]));
    put(json!({"master": "m2"}));
    assert_eq!(scene.get("/v1/overrides")["blocked"], json!([]));
    scene.order("DELETE", "overrides/n002", Value::Null);
    for body in [r#"{}"#, r#"{"master": "m2", "absent": true}"#, r#"{"absent": true, "for": "x"}"#]
    {
        scene.refused("PUT", "/v1/overrides/n002", body, 400);
    }
    scene.order("PUT", "overrides/n002", json!({"absent": true, "for": "1s"}));
    let is_back =
        |mapsmith: &Mapsmith| (mapsmith.get("/v1/nodes/n002").1["master"] == "m1").then_some(());
    scene.mapsmith.wait_for("the node is back", BOUND, is_back);
    assert_eq!(scene.get("/v1/overrides")["blocked"], json!([]));
}
