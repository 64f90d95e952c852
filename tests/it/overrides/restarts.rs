//! Overrides over restarts: of Mapsmith, of HAProxy, and before the sources have spoken.

use rusqlite::Connection;
use serde_json::{Value, json};

use super::{STORE, Scene, config, fleet, with};
use crate::support::haproxy::Gateway;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, entries, in_sync, memory, newest, nodes, printed, reload,
};

#[test]
fn overrides_outlive_a_killed_mapsmith_and_a_killed_haproxy() {
    let said = fleet(60, &["m1", "m2", "m3"]);
    let mut scene = Scene::start(&said);
    scene.order("PUT", "overrides/n000", json!({"master": "m9", "for": "1h"}));
    scene.order("POST", "masters/m2/drain", Value::Null);
    let (held, kept) = (memory(&scene.gateway), scene.mapsmith.get("/v1/overrides").1);
    assert_eq!(
        (&kept["pins"][0]["node"], &kept["drained"][0]["master"]),
        (&json!("n000"), &json!("m2")),
        "{kept:#}"
    );

    scene.mapsmith.kill();
    scene.gateway.kill();
    scene.gateway.restart();
    assert_eq!(memory(&scene.gateway), held, "HAProxy has it from its file");
    scene.mapsmith.restart();
    let status = in_sync(&scene.mapsmith);
    assert_eq!(
        (&status["revision"], &status["held"], &status["pins"]),
        (&json!(3), &json!([]), &json!(1)),
        "{status:#}"
    );
    scene.holds(&held);
    assert_eq!(scene.mapsmith.get("/v1/overrides").1, kept);
    assert!(scene.mapsmith.log().contains("a pin of the store is in force"));

    scene.order("DELETE", "overrides/n000", Value::Null);
    scene.order("DELETE", "masters/m2/drain", Value::Null);
    scene.holds(&said);
}

#[test]
fn a_pin_whose_time_runs_out_while_mapsmith_does_not_run_is_over_at_the_start() {
    let said = nodes(3, "m1");
    let mut scene = Scene::start(&said);
    scene.order("PUT", "overrides/n001", json!({"master": "m2", "for": "1h"}));
    scene.mapsmith.kill();
    let database = Connection::open(scene.database()).expect("the store");
    database.execute("UPDATE pins SET until = since + 1", []).expect("a pin of a moment");
    drop(database);
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    scene.holds(&said);
    assert_eq!(scene.mapsmith.get("/v1/overrides").1["pins"], json!([]));
}

#[test]
fn an_override_waits_until_the_sources_have_spoken() {
    let gateway = Gateway::plan(newest()).entry("n000", "m1").start();
    let registry = Registry::start(&[]);
    registry.answers(503, "PuppetDB is starting");
    let mapsmith = config(&gateway, &registry, STORE).start();
    let scene = Scene { gateway, registry, mapsmith };
    let told =
        scene.refused("PUT", "/v1/overrides/n000?wait=60s&force=true", r#"{"master": "m2"}"#, 502);
    assert_eq!(
        told,
        "node n000 is pinned to m2 (by force: no HAProxy has a backend or server of the name); \
            still waiting for: registry"
    );
    scene.holds(&entries(&[("n000", "m1")]));
    scene.registry.knows(&[("n000", "m1"), ("n001", "m1")]);
    reload(&scene.mapsmith);
    scene.holds(&entries(&[("n000", "m2"), ("n001", "m1")]));
}

#[test]
fn an_override_comes_into_force_while_the_first_answer_after_a_restart_is_held() {
    let said = nodes(40, "m1");
    let mut scene = Scene::start(&said);
    scene.mapsmith.kill();
    scene.registry.knows(&borrowed(&said[..10]));
    scene.mapsmith.restart();
    scene.mapsmith.wait_for("the answer is held", BOUND, |mapsmith| {
        mapsmith.get("/v1/held").1[0]["id"].is_string().then_some(())
    });
    scene.order("PUT", "overrides/n001", json!({"master": "m2"}));
    scene.holds(&with(&said, &[("n001", "m2")]));
    scene.registry.knows(&borrowed(&said));
    reload(&scene.mapsmith);
    scene.holds(&with(&said, &[("n001", "m2")]));
}

#[test]
fn a_plan_holds_what_the_daemon_would_hold_though_pins_hide_some_of_it() {
    let said = nodes(100, "m1");
    let mut scene = Scene::start(&said);
    for node in 75..85 {
        scene.order("PUT", &format!("overrides/n{node:03}"), json!({"master": "m1"}));
    }
    scene.mapsmith.sigterm();
    scene.registry.knows(&borrowed(&said[..75]));
    let (code, text) = printed(&scene.mapsmith.configuration().cli(&["plan"]));
    assert!(code == 4 && text.contains("remove 25 of the 100 entries in force"), "{code}\n{text}");
}
