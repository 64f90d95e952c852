//! The store of overrides: broken, shared, full.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::json;

use super::{STORE, Scene, config, with};
use crate::support::haproxy::Gateway;
use crate::support::registry::Registry;
use crate::support::scene::{complaints, entries, in_sync, memory, newest, nodes, printed};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_store_that_can_not_be_used_keeps_the_daemon_from_starting_and_says_why() {
    let gateway = Gateway::plan(newest()).entry("n000", "m9").start();
    let registry = Registry::start(&[("n000", "m1")]);
    let config = config(&gateway, &registry, STORE);
    let path = config.directory().join("mapsmith.db");
    let refused = |part: &str| {
        let output = config.cli(&["run"]);
        let told = complaints(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains(&format!("store.path {}: ", path.display())) && told.contains(part),
            "{part:?} is not in {told}"
        );
        assert_eq!(memory(&gateway), entries(&[("n000", "m9")]), "nothing was touched");
        let (code, text) = printed(&config.cli(&["check"]));
        assert!(code == 1 && text.contains("FAIL  store: "), "{text}");
    };
    fs::write(&path, "no database at all ".repeat(500)).expect("a file");
    refused("is damaged or not a SQLite database");
    fs::remove_file(&path).expect("it is there");

    Connection::open(&path)
        .and_then(|theirs| theirs.execute_batch("CREATE TABLE theirs (x)"))
        .expect("a database");
    refused("not one of Mapsmith's");
    fs::remove_file(&path).expect("it is there");

    fs::create_dir(&path).expect("a folder in its place");
    refused("is a folder; name a file in it");
    fs::remove_dir(&path).expect("it is there");

    let mut mapsmith = config.start();
    in_sync(&mapsmith);
    mapsmith.kill();
    let database = Connection::open(&path).expect("the store");
    database.pragma_update(None, "user_version", 99).expect("a later version's store");
    drop(database);
    let output = mapsmith.configuration().cli(&["run"]);
    let told = complaints(&output);
    assert!(
        output.status.code() == Some(1)
            && told.contains("was written by a later Mapsmith (schema 99"),
        "{told}"
    );
}

#[test]
fn a_store_serves_one_daemon_and_another_is_told_which_process_has_it() {
    let mut scene = Scene::start(&nodes(1, "m1"));
    scene.order("PUT", "overrides/n000", json!({"master": "m2"}));
    let other = Gateway::plan(newest()).entry("n000", "m9").start();
    let store = format!("[store]\npath = {:?}\n", scene.database());
    let second = config(&other, &scene.registry, &store);
    let output = second.cli(&["run"]);
    let told = complaints(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains(&format!("is in use by another Mapsmith (process {})", scene.mapsmith.id())),
        "{told}"
    );
    assert_eq!(memory(&other), entries(&[("n000", "m9")]), "nothing was touched");
    let (_, text) = printed(&second.cli(&["check"]));
    assert!(text.contains("ok    store: 1 pin, 0 drained"), "who only looks may: {text}");

    // Nothing that a killed daemon leaves keeps the next one out.
    scene.mapsmith.kill();
    let second = second.start();
    in_sync(&second);
    assert_eq!(memory(&other), entries(&[("n000", "m2")]));
}

#[test]
fn an_override_that_the_store_does_not_take_is_not_in_force() {
    let said = nodes(3, "m1");
    let scene = Scene::start(&said);
    let other = Connection::open(scene.database()).expect("the store");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    let told =
        scene.refused("PUT", "/v1/overrides/n001?wait=60s&force=true", r#"{"master": "m2"}"#, 500);
    assert!(
        told.contains("mapsmith.db") && told.contains("is locked by another program"),
        "{told}"
    );
    scene.holds(&said);
    assert_eq!(scene.mapsmith.get("/v1/overrides").1["pins"], json!([]));
    other.execute_batch("ROLLBACK").expect("the lock's end");
    scene.order("PUT", "overrides/n001", json!({"master": "m2"}));
    scene.holds(&with(&said, &[("n001", "m2")]));
}

#[test]
fn what_a_store_had_stays_in_force_over_changed_settings_while_its_file_is_gone() {
    let said = nodes(3, "m1");
    let pinned = with(&said, &[("n001", "m2")]);
    let mut scene = Scene::start(&said);
    scene.order("PUT", "overrides/n001", json!({"master": "m2"}));
    let (path, aside) = (scene.database(), scene.database().with_extension("aside"));
    fs::rename(&path, &aside).expect("the file moves away");
    let lost = "mapsmith.db: has been removed, or another file is in its place";
    for round in 1..=2 {
        let settings = scene.mapsmith.configuration().path();
        let text = fs::read_to_string(&settings).expect("the settings");
        let [old, new] = [round - 1, round].map(|round| format!("observe = \"10{round}ms\""));
        let text = text.replace(&old, &new);
        fs::write(&settings, text).expect("changed settings");
        scene.mapsmith.hangup();
        scene.mapsmith.wait_for("all begins anew", PATIENCE, |mapsmith| {
            (mapsmith.log().matches("API listening").count() == 1 + round).then_some(())
        });
        scene.mapsmith.wait_for("attention names the store", PATIENCE, |mapsmith| {
            mapsmith.get("/v1/attention").1.to_string().contains(lost).then_some(())
        });
        assert!(!path.exists(), "no new file has the place of what is in force");
        in_sync(&scene.mapsmith);
        scene.holds(&pinned);
        assert_eq!(scene.mapsmith.get("/v1/overrides").1["pins"][0]["node"], "n001");
        let refused = r#"{"master": "m3"}"#;
        let told = scene.refused("PUT", "/v1/overrides/n002?force=true", refused, 500);
        assert!(told.contains(lost), "{told}");
    }
    fs::rename(&aside, &path).expect("the file is moved back");
    scene.order("PUT", "overrides/n002", json!({"master": "m3"}));
    scene.holds(&with(&pinned, &[("n002", "m3")]));
    scene.mapsmith.wait_for("attention has nothing of the store", PATIENCE, |mapsmith| {
        (!mapsmith.get("/v1/attention").1.to_string().contains(lost)).then_some(())
    });
}
