//! Changes beyond the limits are held back, with reason and figures.

use serde_json::json;

use super::first_start::gateway_with;
use super::{NODES, Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, memory, metric, newest, nodes, oldest_and_newest, printed, reload,
};

/// A change that the guard must hold.
struct Upheaval {
    what: &'static str,
    nodes: Vec<(String, String)>,
    /// What its reason must say.
    words: [&'static str; 2],
}

fn upheavals() -> [Upheaval; 3] {
    let mut most_moved = nodes(NODES, "m1");
    most_moved.iter_mut().take(21).for_each(|(_, master)| *master = "m2".to_owned());
    let upheaval = |what, nodes, words| Upheaval { what, nodes, words };
    [
        upheaval("no node at all", Vec::new(), ["the new map has 0 entries", "guard.min_entries"]),
        upheaval(
            "too few nodes",
            nodes(31, "m1"),
            ["remove 9 of the 40 entries in force (22.5%)", "guard.max_removed allows 20%"],
        ),
        upheaval(
            "too many moves",
            most_moved,
            ["move 21 of the 40 entries in force (52.5%)", "guard.max_moved allows 50%"],
        ),
    ]
}

#[test]
fn an_upheaval_is_held_back_with_reason_and_figures_in_status_log_and_metrics() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, "");
        let before = scene.kept();
        for (number, Upheaval { what, nodes: upheaval, words }) in (1..).zip(upheavals()) {
            scene.registry.knows(&borrowed(&upheaval));
            let problem = scene.refused_reload(409);
            assert_eq!(scene.kept(), before, "{what} changed something");
            let held = scene.mapsmith.get("/v1/status").1["held"][0].clone();
            for text in [&held["reason"], &problem["detail"]] {
                let text = text.as_str().unwrap_or_default();
                assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
            }
            assert_eq!(
                (&held["entries_in_force"], &held["entries_held"]),
                (&json!(NODES), &json!(upheaval.len())),
                "{held:#}"
            );
            assert_eq!(scene.mapsmith.get("/v1/held").1, json!([held]));
            let log = scene.mapsmith.log();
            assert!(
                log.lines()
                    .any(|line| line.contains("held back by the guard") && line.contains(words[0])),
                "{what}: {log}"
            );
            assert_eq!(metric(&scene.mapsmith, "mapsmith_guard_held"), Some(1.0), "{what}");
            // The same answer again is the same hold.
            scene.held();
            assert_eq!(
                metric(&scene.mapsmith, "mapsmith_guard_holds_total"),
                Some(f64::from(number)),
                "{what}"
            );
            scene.registry.knows(&borrowed(&nodes(NODES, "m1")));
            reload(&scene.mapsmith);
        }
    }
}

#[test]
fn the_settings_limits_are_the_ones_that_hold() {
    let scene = Scene::start(newest(), "[guard]\nmax_removed = 2\nmax_moved = \"100%\"\n");
    scene.registry.knows(&borrowed(&nodes(NODES, "m2")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(NODES - 2, "m2")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(NODES - 5, "m2")));
    let held = scene.held();
    assert!(
        held["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("guard.max_removed allows 2 entries")),
        "{held:#}"
    );
    assert_eq!(memory(&scene.gateway), nodes(NODES - 2, "m2"));
}

#[test]
fn a_registry_that_grows_beyond_measure_is_held_and_its_way_back_never_is() {
    let scene = Scene::start(newest(), "[guard]\nfree = 100\n");
    scene.registry.knows(&borrowed(&nodes(99, "m1")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(400, "m1")));
    let held = scene.held();
    let reason = held["reason"].as_str().expect("a reason");
    assert!(reason.contains("add 301 to the 99 entries in force, 360 of 99 within 1h"), "{reason}");
    let (code, text) =
        printed(&scene.mapsmith.cli(&["approve", held["id"].as_str().expect("an id")]));
    assert_eq!(code, 0, "{text}");
    for back in [99, 40] {
        scene.registry.knows(&borrowed(&nodes(back, "m1")));
        reload(&scene.mapsmith);
        assert_eq!(memory(&scene.gateway), nodes(back, "m1"));
    }
}

#[test]
fn more_entries_than_the_settings_allow_are_held_at_the_first_start_too() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&borrowed(&nodes(NODES + 1, "m1")));
    let mapsmith = config(&gateway, &registry, "[guard]\nmax_entries = 40\n").start();
    let held = mapsmith.wait_for("the answer is held", BOUND, |mapsmith| {
        let held = mapsmith.get("/v1/held").1[0].clone();
        held["id"].is_string().then_some(held)
    });
    assert_eq!(held["reason"], "the new map has 41 entries, guard.max_entries allows 40");
    assert_eq!(memory(&gateway), []);
    registry.knows(&borrowed(&nodes(NODES, "m1")));
    reload(&mapsmith);
    assert_eq!(memory(&gateway), nodes(NODES, "m1"));
}

#[test]
fn a_registry_that_loses_a_fifth_at_each_poll_is_held_at_the_second() {
    let scene = Scene::start(newest(), "");
    scene.registry.knows(&borrowed(&nodes(32, "m1")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(26, "m1")));
    let held = scene.held();
    let reason = held["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("remove 6 of the 32 entries in force, 14 of 40 within 1h (35.0%)"),
        "{reason}"
    );
    assert_eq!(memory(&scene.gateway), nodes(32, "m1"));
    scene.registry.knows(&borrowed(&nodes(NODES, "m1")));
    reload(&scene.mapsmith);
    assert_eq!(memory(&scene.gateway), nodes(NODES, "m1"), "the way back is free");
}

#[test]
fn a_map_of_which_no_key_is_left_is_held_at_any_size() {
    for count in [1, 3] {
        let gateway = gateway_with(count);
        let other: Vec<_> =
            (0..count).map(|node| (format!("other{node}"), "m1".to_owned())).collect();
        let registry = Registry::start(&borrowed(&other));
        let mapsmith = config(&gateway, &registry, "").start();
        let held = mapsmith.wait_for("the first answer is held", BOUND, |mapsmith| {
            let held = mapsmith.get("/v1/held").1[0].clone();
            held["id"].is_string().then_some(held)
        });
        let words = format!("replace every key of the {count} entries in force");
        assert!(held["reason"].as_str().is_some_and(|reason| reason.contains(&words)), "{held:#}");
        assert_eq!(memory(&gateway), nodes(count, "m1"));
        registry.knows(&borrowed(&nodes(count, "m2")));
        reload(&mapsmith);
        assert_eq!(memory(&gateway), nodes(count, "m2"));
    }
}
