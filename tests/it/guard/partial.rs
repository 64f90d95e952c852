//! What passes of a change is applied while the rest is held.

use serde_json::json;

use super::{NODES, Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::registry::Registry;
use crate::support::scene::{
    borrowed, complaints, map_file, memory, metric, newest, nodes, oldest_and_newest, printed,
    reload,
};

/// A registry that lost ten nodes; another one has moved, and one is new.
fn said() -> Vec<(String, String)> {
    with_a_move(30)
}

/// What of that is in force until it is approved.
fn in_force() -> Vec<(String, String)> {
    with_a_move(NODES)
}

fn with_a_move(count: usize) -> Vec<(String, String)> {
    let mut nodes = nodes(count, "m1");
    nodes[3].1 = "m2".to_owned();
    nodes.push(("new".to_owned(), "m1".to_owned()));
    nodes
}

#[test]
fn nodes_that_a_registry_lost_are_held_while_others_move_and_come() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, "");
        scene.registry.knows(&borrowed(&said()));
        for verb in ["plan", "check"] {
            let (code, text) = printed(&scene.mapsmith.configuration().cli(&[verb]));
            assert_eq!(code, if verb == "plan" { 4 } else { 1 }, "{text}");
            assert!(
                text.contains("0 added, 0 moved, 10 removed")
                    && text.contains("the rest would be applied: 1 added, 1 moved, 0 removed"),
                "{text}"
            );
        }
        let held = scene.held();
        assert_eq!((memory(&scene.gateway), map_file(&scene.gateway)), (in_force(), in_force()));
        assert_eq!(
            (&held["removed"], &held["moved"], &held["applied"]),
            (&json!(10), &json!(0), &json!({ "added": 1, "moved": 1, "removed": 0 })),
            "{held:#}"
        );
        // The same again is the same hold, and no other revision.
        let problem = scene.refused_reload(409);
        let report = &problem["report"];
        let again = &report["held"][0];
        assert_eq!((&again["id"], &again["since"]), (&held["id"], &held["since"]));
        assert_eq!((&again["applied"], &report["changes"]), (&held["applied"], &json!([])));
        let log = scene.mapsmith.log();
        assert_eq!(log.matches("held back by the guard").count(), 1, "{log}");
        assert!(
            log.contains("the rest of the change passes: 1 added, 1 moved, 0 removed"),
            "{log}"
        );
        for (metric_name, value) in [
            ("mapsmith_guard_held", 1.0),
            ("mapsmith_guard_held_entries{kind=\"removed\"}", 10.0),
            ("mapsmith_guard_parts_total", 1.0),
        ] {
            assert_eq!(metric(&scene.mapsmith, metric_name), Some(value), "{metric_name}");
        }
        for verb in [&["status"][..], &["explain", "n035"]] {
            let (_, text) = printed(&scene.mapsmith.cli(verb));
            assert!(
                text.contains("HELD BY THE GUARD: the rest of the change is applied")
                    && text.contains("applied meanwhile: 1 added, 1 moved, 0 removed"),
                "{text}"
            );
        }
        let output = scene.mapsmith.cli(&["approve", held["id"].as_str().expect("an id")]);
        assert!(output.status.success(), "{}", complaints(&output));
        reload(&scene.mapsmith);
        assert_eq!(memory(&scene.gateway), said());
    }
}

#[test]
fn a_loss_that_is_held_ends_with_the_registrys_recovery_and_outlives_a_restart() {
    let mut scene = Scene::start(newest(), "");
    scene.registry.knows(&borrowed(&said()));
    let id = scene.held()["id"].clone();
    scene.mapsmith.kill();
    scene.mapsmith.restart();
    scene.mapsmith.wait_for("the loss is held again", crate::support::scene::BOUND, |mapsmith| {
        (mapsmith.get("/v1/held").1[0]["id"] == id).then_some(())
    });
    assert_eq!(memory(&scene.gateway), in_force());
    scene.registry.knows(&borrowed(&in_force()));
    let report = reload(&scene.mapsmith);
    assert_eq!((&report["held"], &report["changes"]), (&json!([]), &json!([])), "{report:#}");
    assert_eq!(memory(&scene.gateway), in_force());
}

#[test]
fn with_partial_off_the_whole_change_is_held() {
    let scene = Scene::start(newest(), "[guard]\npartial = false\n");
    let before = scene.kept();
    scene.registry.knows(&borrowed(&said()));
    let held = scene.held();
    assert_eq!(scene.kept(), before);
    assert_eq!(
        (&held["removed"], &held["moved"], &held["added"]),
        (&json!(10), &json!(1), &json!(1))
    );
}

#[test]
fn a_sync_applies_what_passes_and_exits_as_held_until_the_rest_is_approved() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&borrowed(&nodes(NODES, "m1")));
    let config = config(&gateway, &registry, "");
    let (code, text) = printed(&config.cli(&["sync"]));
    assert_eq!(code, 0, "{text}");
    registry.knows(&borrowed(&said()));
    let mut id = String::new();
    for first in
        ["revision 2: 1 added, 1 moved, 0 removed, 41 entries", "revision 2: nothing changed"]
    {
        let (code, text) = printed(&config.cli(&["sync"]));
        assert!(code == 4 && text.starts_with(first), "{code}: {text}");
        assert_eq!(memory(&gateway), in_force());
        id = text.split("--approve ").nth(1).expect("the command is printed").trim().to_owned();
    }
    let (code, text) = printed(&config.cli(&["sync", "--approve", &id]));
    assert_eq!((code, memory(&gateway)), (0, said()), "{text}");
}
