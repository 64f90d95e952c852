//! Several registries at once: whose word counts, who is waited for, and a file that is watched.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, entries, file_source_settings, gateway_settings, in_sync, memory, newest,
    oldest_and_newest, printed, reload, source_settings,
};

#[test]
fn of_a_node_in_two_registries_the_one_of_higher_priority_counts_until_it_forgets_the_node() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let low = Registry::start(&[("both", "m1"), ("only-low", "m1")]);
        let high = Registry::start(&[("both", "m2"), ("only-high", "m2")]);
        let mapsmith = Mapsmith::config(&format!(
            "{ON_REQUEST}{}{}{}priority = 10\n",
            gateway_settings(&gateway),
            source_settings("low", &low.url()),
            source_settings("high", &high.url()),
        ))
        .start();
        in_sync(&mapsmith);
        assert_eq!(
            memory(&gateway),
            entries(&[("both", "m2"), ("only-high", "m2"), ("only-low", "m1")])
        );
        let (_, explained) = mapsmith.get("/v1/nodes/both");
        let said: Vec<_> = explained["sources"]
            .as_array()
            .expect("sources")
            .iter()
            .map(|source| {
                (source["name"].clone(), source["master"].clone(), source["used"].clone())
            })
            .collect();
        assert_eq!(
            said,
            [(json!("high"), json!("m2"), json!(true)), (json!("low"), json!("m1"), json!(false))]
        );

        high.knows(&[("only-high", "m2")]);
        let report = reload(&mapsmith);
        assert_eq!(
            memory(&gateway),
            entries(&[("both", "m1"), ("only-high", "m2"), ("only-low", "m1")])
        );
        assert_eq!(
            report["changes"][0]["sources"],
            json!(["high"]),
            "the registry whose answer led to it is named: {report:#}"
        );
    }
}

#[test]
fn a_required_registry_that_never_answered_holds_everything_back() {
    let gateway = Gateway::plan(newest()).entry("kept", "m9").start();
    let file = fs::read(gateway.map_path()).unwrap();
    let (good, silent) = (Registry::start(&[("a", "m1")]), Registry::start(&[]));
    silent.answers(503, "starting");
    let mapsmith = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{}{}",
        gateway_settings(&gateway),
        source_settings("good", &good.url()),
        source_settings("silent", &silent.url()),
    ))
    .start();
    let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 502, "{problem:#}");
    assert!(
        problem["detail"].as_str().is_some_and(|detail| detail.contains("silent")),
        "{problem:#}"
    );
    assert_eq!(memory(&gateway), entries(&[("kept", "m9")]), "memory is untouched");
    assert_eq!(fs::read(gateway.map_path()).unwrap(), file, "the map file is untouched");
    let (status, readiness) = mapsmith.get("/readyz");
    assert_eq!(status, 503);
    let missing = readiness["missing"].to_string();
    assert!(missing.contains("source silent") && !missing.contains("source good"), "{readiness:#}");
    assert_eq!(mapsmith.get("/v1/status").1["waiting_for"], json!(["silent"]));
    assert_eq!(mapsmith.get("/healthz").0, 200, "it lives: restarting it would help nobody");

    silent.knows(&[("b", "m2"), ("kept", "m2")]);
    reload(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m1"), ("b", "m2"), ("kept", "m2")]));
    assert_eq!(mapsmith.get("/readyz").0, 200);
}

#[test]
fn an_optional_registry_that_never_answered_is_not_waited_for() {
    let gateway = Gateway::plan(newest()).start();
    let (good, silent) = (Registry::start(&[("a", "m1")]), Registry::start(&[]));
    silent.answers(503, "starting");
    let mapsmith = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{}{}required = false\n",
        gateway_settings(&gateway),
        source_settings("good", &good.url()),
        source_settings("silent", &silent.url()),
    ))
    .start();
    in_sync(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m1")]));
    let status = mapsmith.get("/v1/status").1;
    assert_eq!(status["waiting_for"], json!([]));
    mapsmith.wait_for("the silent one's error shows", BOUND, |mapsmith| {
        mapsmith.get("/v1/status").1["sources"][1]["error"].is_string().then_some(())
    });

    silent.knows(&[("b", "m2")]);
    reload(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m1"), ("b", "m2")]));
}

#[test]
fn a_registry_that_fails_later_keeps_its_last_answer_beside_the_news_of_the_others() {
    let gateway = Gateway::plan(newest()).start();
    let (one, other) = (Registry::start(&[("a", "m1")]), Registry::start(&[("b", "m1")]));
    let mapsmith = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{}{}",
        gateway_settings(&gateway),
        source_settings("one", &one.url()),
        source_settings("other", &other.url()),
    ))
    .start();
    in_sync(&mapsmith);
    one.answers(500, "broken");
    other.knows(&[("b", "m2")]);
    let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 502, "the failure is told: {problem:#}");
    mapsmith.wait_for("the news of the other registry arrive all the same", BOUND, |_| {
        (memory(&gateway) == entries(&[("a", "m1"), ("b", "m2")])).then_some(())
    });
}

#[test]
fn a_file_is_watched_whatever_way_it_is_changed() {
    let gateway = Gateway::plan(newest()).start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.json");
    fs::write(&path, r#"{"a": "m1"}"#).unwrap();
    // A node that moves three times within the hour is no flapping one here.
    let settings = format!("{ON_REQUEST}[damping]\nhold = \"0s\"\n{}", gateway_settings(&gateway));
    let mapsmith = Mapsmith::config(&(settings + &file_source_settings("file", &path))).start();
    in_sync(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m1")]));

    let arrives = |what: &str, expected: &[(&str, &str)]| {
        mapsmith.wait_for(what, BOUND, |_| (memory(&gateway) == entries(expected)).then_some(()));
    };
    fs::write(&path, r#"{"a": "m2"}"#).unwrap();
    arrives("what was written in place", &[("a", "m2")]);
    let other = folder.path().join("other.json");
    fs::write(&other, r#"{"a": "m3", "b": "m3"}"#).unwrap();
    fs::rename(&other, &path).unwrap();
    arrives("what was renamed into place", &[("a", "m3"), ("b", "m3")]);
    fs::remove_file(&path).unwrap();
    mapsmith.wait_for("the loss is told", BOUND, |mapsmith| {
        mapsmith.get("/v1/status").1["sources"][0]["error"].is_string().then_some(())
    });
    assert_eq!(
        memory(&gateway),
        entries(&[("a", "m3"), ("b", "m3")]),
        "a lost file is no empty one"
    );
    fs::write(&path, r#"{"a": "m4", "b": "m4"}"#).unwrap();
    arrives("a file in its place", &[("a", "m4"), ("b", "m4")]);
    let source = &mapsmith.get("/v1/status").1["sources"][0];
    assert_eq!(
        (&source["error"], &source["watch"]),
        (&Value::Null, &json!("watched")),
        "{source:#}"
    );
    assert!(printed(&mapsmith.cli(&["status"])).1.contains("watched"));
}

#[test]
fn junk_in_the_place_of_a_map_file_changes_no_route() {
    let gateway = Gateway::plan(newest()).start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.map");
    fs::write(&path, "a m1\nb m2\n").unwrap();
    let settings = format!(
        "{ON_REQUEST}{}{}",
        gateway_settings(&gateway),
        file_source_settings("file", &path)
    );
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    for junk in [
        "\u{feff}{\"a\": \"m9\"}",
        "a: m9\nb: m9\n",
        "<html><body>Bad gateway</body></html>",
        "Not Found",
    ] {
        fs::write(&path, junk).unwrap();
        let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, 502, "{junk:?}: {problem:#}");
        let error = problem["report"]["sources"][0]["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{problem:#}"));
        assert!(error.contains("the file is not a map file"), "{error}");
        assert_eq!(memory(&gateway), entries(&[("a", "m1"), ("b", "m2")]), "{junk:?}");
    }
    fs::write(&path, "\u{feff}a m3\n").unwrap();
    reload(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m3")]));
}

#[test]
fn a_reload_does_not_wait_for_an_older_poll_that_hangs() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let source = source_settings("registry", &registry.url())
        .replace("timeout = \"5s\"", "timeout = \"10m\"");
    let mapsmith =
        Mapsmith::config(&format!("{ON_REQUEST}{}{source}", gateway_settings(&gateway))).start();
    in_sync(&mapsmith);
    registry.hangs();
    let before = registry.asked();
    assert_eq!(mapsmith.post("/v1/reload").0, 202);
    mapsmith.wait_for("the poll that hangs", BOUND, |_| (registry.asked() > before).then_some(()));
    registry.knows(&[("a", "m2")]);
    let report = reload(&mapsmith);
    assert_eq!(memory(&gateway), entries(&[("a", "m2")]), "{report:#}");
}

#[test]
fn a_node_that_goes_from_one_registry_to_a_slower_one_never_vanishes_in_between() {
    let gateway = Gateway::plan(newest()).start();
    let (fast, slow) =
        (Registry::start(&[("stays", "m1"), ("goes", "m1")]), Registry::start(&[("other", "m2")]));
    let mapsmith = Mapsmith::config(&format!(
        "{ON_REQUEST}{}{}{}",
        gateway_settings(&gateway),
        source_settings("fast", &fast.url()),
        source_settings("slow", &slow.url()),
    ))
    .start();
    in_sync(&mapsmith);
    fast.knows(&[("stays", "m1")]);
    slow.takes(Duration::from_millis(700), &[("other", "m2"), ("goes", "m2")]);
    let report = reload(&mapsmith);
    let changes = report["changes"].as_array().expect("the changes");
    assert_eq!(changes.len(), 1, "both answers are one change: {report:#}");
    assert_eq!(
        (&changes[0]["moved"], &changes[0]["removed"]),
        (&json!(1), &json!(0)),
        "{report:#}"
    );
    assert_eq!(memory(&gateway), entries(&[("goes", "m2"), ("other", "m2"), ("stays", "m1")]));
}

#[test]
fn an_optional_registry_that_answers_late_at_a_restart_loses_none_of_its_routes() {
    let gateway = Gateway::plan(newest()).start();
    let (main, pins) = (
        Registry::start(&[("a", "m1"), ("b", "m1")]),
        Registry::start(&[("b", "pinned"), ("c", "pinned")]),
    );
    let settings = format!(
        "{ON_REQUEST}{}{}{}priority = 10\nrequired = false\n",
        gateway_settings(&gateway),
        source_settings("main", &main.url()),
        source_settings("pins", &pins.url()),
    );
    let mut mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    let routes = entries(&[("a", "m1"), ("b", "pinned"), ("c", "pinned")]);
    assert_eq!(memory(&gateway), routes);
    assert_eq!(mapsmith.sigterm(), 0);
    pins.takes(Duration::from_millis(700), &[("b", "pinned"), ("c", "pinned")]);
    let mapsmith = Mapsmith::config(&settings).start();
    let status = in_sync(&mapsmith);
    assert_eq!(
        status["revision"],
        json!(1),
        "nothing changed, so no revision was made: {status:#}"
    );
    assert_eq!(memory(&gateway), routes);
}
