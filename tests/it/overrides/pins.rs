//! A pinned node is routed where the pin says, until it is unpinned or the pin ends.

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{Scene, fleet, with};
use crate::support::eventually;
use crate::support::scene::{
    BOUND, borrowed, memory, metric, nodes, oldest_and_newest, printed, reload,
};

#[test]
fn a_pin_routes_a_node_at_once_and_unpinning_brings_it_back() {
    for binary in oldest_and_newest() {
        let said = fleet(6, &["m1", "m2"]);
        let scene = Scene::start_on(binary, &said);
        let told = scene.order("PUT", "overrides/N000", json!({"master": "m2"}));
        assert_eq!(
            told,
            "node n000 is pinned to m2; revision 2: 0 added, 1 moved, 0 removed; 1 of 1 instances \
                in sync"
        );
        scene.holds(&with(&said, &[("n000", "m2")]));

        let explained = scene.mapsmith.get("/v1/nodes/n000").1;
        assert_eq!(
            (&explained["master"], &explained["pin"]["master"]),
            (&json!("m2"), &json!("m2")),
            "{explained:#}"
        );
        assert_eq!(
            (&explained["pin"]["until"], &explained["sources"][0]["master"]),
            (&Value::Null, &json!("m1"))
        );
        assert_eq!(scene.mapsmith.get("/v1/overrides/N000").1, explained["pin"]);
        let status = scene.mapsmith.get("/v1/status").1;
        assert_eq!(
            (&status["pins"], &status["last_change"]["sources"]),
            (&json!(1), &json!(["override"])),
            "{status:#}"
        );
        assert_eq!(metric(&scene.mapsmith, "mapsmith_pins"), Some(1.0));

        // The registry goes on beside it, and knows nothing of the pin.
        scene.registry.knows(&borrowed(&with(&said, &[("n000", "m3"), ("n005", "m1")])));
        assert_eq!(reload(&scene.mapsmith)["changes"][0]["moved"], 1);
        scene.holds(&with(&said, &[("n000", "m2"), ("n005", "m1")]));

        let told = scene.order("DELETE", "overrides/n000", Value::Null);
        assert!(
            told.starts_with(
                "node n000 is no longer pinned; revision 4: 0 added, 1 moved, 0 removed"
            ),
            "{told}"
        );
        scene.holds(&with(&said, &[("n000", "m3"), ("n005", "m1")]));
        assert_eq!(scene.refused("DELETE", "/v1/overrides/n000", "", 404), "node n000 has no pin");
        assert_eq!(scene.refused("GET", "/v1/overrides/n000", "", 404), "node n000 has no pin");
        assert_eq!(metric(&scene.mapsmith, "mapsmith_pins"), Some(0.0));
    }
}

#[test]
fn a_node_that_no_source_knows_can_be_pinned_and_a_master_that_no_node_has_is_told() {
    let said = nodes(3, "m1");
    let scene = Scene::start(&said);
    let told = scene.order("PUT", "overrides/new", json!({"master": "spare"}));
    assert!(told.starts_with(
        "node new is pinned to spare (by force: no HAProxy has a backend or server of the name);"
    ));
    scene.holds(&with(&said, &[("new", "spare")]));
    let told = scene.order("PUT", "overrides/new", json!({"master": "m1"}));
    assert!(told.starts_with("node new is pinned to m1; revision 3: 0 added, 1 moved"), "{told}");
    scene.order("DELETE", "overrides/new", Value::Null);
    scene.holds(&said);
}

#[test]
fn a_pin_ends_by_itself() {
    let said = nodes(3, "m1");
    let scene = Scene::start(&said);
    scene.order("PUT", "overrides/n002", json!({"master": "m2", "for": "1h"}));
    let pin = scene.mapsmith.get("/v1/overrides/n002").1;
    let time = |name: &str| {
        pin[name]
            .as_str()
            .and_then(|time| time.parse::<Timestamp>().ok())
            .unwrap_or_else(|| panic!("{pin}"))
    };
    assert_eq!(time("until").duration_since(time("since")).as_secs(), 3600);

    scene.order("PUT", "overrides/n001", json!({"master": "m2", "for": "1s"}));
    scene.mapsmith.wait_for("the pin is over", BOUND, |mapsmith| {
        let gone = mapsmith.get("/v1/overrides/n001").0 == 404;
        (gone && memory(&scene.gateway) == with(&said, &[("n002", "m2")])).then_some(())
    });
    assert!(scene.mapsmith.log().contains("the pin's time is over"), "{}", scene.mapsmith.log());
    eventually("the store forgets it too", BOUND, || {
        let database = Connection::open(scene.database()).expect("the store");
        let left: i64 =
            database.query_row("SELECT count(*) FROM pins", [], |row| row.get(0)).expect("a count");
        (left == 1).then_some(())
    });
}

#[test]
fn a_held_answer_stays_held_while_a_pin_comes_into_force() {
    let said = nodes(40, "m1");
    let scene = Scene::start(&said);
    scene.registry.knows(&borrowed(&said[..10]));
    assert_eq!(scene.mapsmith.post("/v1/reload?wait=60s").0, 409);
    let id =
        scene.mapsmith.get("/v1/held").1[0]["id"].as_str().expect("something is held").to_owned();
    scene.order("PUT", "overrides/n030", json!({"master": "m2"}));
    scene.holds(&with(&said, &[("n030", "m2")]));
    assert_eq!(
        scene.mapsmith.get("/v1/held").1[0]["id"],
        json!(id),
        "it is the same change as before"
    );
    let (code, text) = printed(&scene.mapsmith.cli(&["approve", &id]));
    assert_eq!(code, 0, "{text}");
    scene.mapsmith.wait_for("what was held is in force, with the pin", BOUND, |_| {
        (memory(&scene.gateway) == with(&said[..10], &[("n030", "m2")])).then_some(())
    });
}

#[test]
fn plan_and_sync_take_no_pinned_node_back() {
    let said = nodes(3, "m1");
    let mut scene = Scene::start(&said);
    scene.order("PUT", "overrides/n001", json!({"master": "m2"}));
    scene.mapsmith.kill();
    let (code, text) = printed(&scene.mapsmith.configuration().cli(&["plan"]));
    assert!(code == 0 && text.contains("nothing to do"), "{code}: {text}");
    scene.registry.knows(&borrowed(&with(&said, &[("n002", "m3")])));
    let (code, text) = printed(&scene.mapsmith.configuration().cli(&["sync"]));
    assert_eq!(code, 0, "{text}");
    scene.holds(&with(&said, &[("n001", "m2"), ("n002", "m3")]));
    let (_, text) = printed(&scene.mapsmith.configuration().cli(&["check"]));
    assert!(text.contains("store: 1 pin, 0 drained"), "{text}");
}
