//! The map as a whole, and who waits for another one.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Scene, owned};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, borrowed, metric, nodes, reload};

#[test]
fn the_map_is_shown_in_figures_and_as_haproxy_reads_it() {
    let scene = Scene::start(&owned(&[("b", "m2"), ("a", "m1"), ("c", "m1")]));
    let map = scene.get("/v1/map");
    assert_eq!(
        (&map["revision"], &map["entries"], &map["masters"]),
        (
            &json!(1),
            &json!(3),
            &json!([{"master": "m1", "nodes": 2}, {"master": "m2", "nodes": 1}])
        )
    );
    let text = scene.mapsmith.ask("GET", "/v1/map", &[("Accept", "text/plain")], "");
    assert_eq!((text.status, text.body.as_str()), (200, "a m1\nb m2\nc m1\n"));
    assert_eq!(text.content_type, "text/plain; charset=utf-8");
    // printf 'a m1\nb m2\nc m1\n' | sha256sum
    let sum = "726fdd0ec7ca35da17a3fb733405e788326579bac61d97b4e8432bc2130a9049";
    assert_eq!(map["sha256"], sum);
    let known = [("Accept", "text/plain"), ("If-None-Match", &format!("\"{sum}\""))];
    assert_eq!(scene.mapsmith.ask("GET", "/v1/map", &known, "").status, 304);
    let known = [("If-None-Match", "\"1\"")];
    assert_eq!(scene.mapsmith.ask("GET", "/v1/map", &known, "").status, 304);
}

/// Asks in a thread of its own; the answer, and how long it took.
fn waiting(mapsmith: &Mapsmith, path: &str) -> std::thread::JoinHandle<(u16, String, Duration)> {
    let (mut connection, path) = (mapsmith.connect(), path.to_owned());
    std::thread::spawn(move || {
        let start = Instant::now();
        let response = connection.request("GET", &path, &[], "").expect("an answer");
        (response.status, response.body, start.elapsed())
    })
}

fn somebody_waits(mapsmith: &Mapsmith) {
    mapsmith.wait_for("somebody waits", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_api_waits") == Some(1.0)).then_some(())
    });
}

fn revision(body: &str) -> Value {
    serde_json::from_str::<Value>(body).expect("JSON")["revision"].clone()
}

#[test]
fn whoever_waits_for_another_map_gets_it_as_soon_as_it_is_there() {
    let said = nodes(3, "m1");
    let mut scene = Scene::start(&said);
    for known in ["0", "7"] {
        let body = scene.get(&format!("/v1/map?revision={known}&wait=60s"));
        assert_eq!(body["revision"], 1, "{known} is not the map in force");
    }
    let waits = waiting(&scene.mapsmith, "/v1/map?revision=1&wait=10m");
    somebody_waits(&scene.mapsmith);
    // What changes nothing of the map wakes nobody.
    reload(&scene.mapsmith);
    assert!(!waits.is_finished());
    scene.registry.knows(&borrowed(&nodes(4, "m1")));
    reload(&scene.mapsmith);
    let (status, body, _) = waits.join().expect("an answer");
    assert_eq!((status, revision(&body)), (200, json!(2)));

    let (status, body, took) =
        waiting(&scene.mapsmith, "/v1/map?revision=2&wait=1s").join().expect("an answer");
    assert_eq!((status, body.as_str()), (304, ""));
    assert!(took >= Duration::from_secs(1), "it waited for {took:?}");
    assert_eq!(scene.mapsmith.ask("GET", "/v1/map?revision=2", &[], "").status, 304);
    for query in ["wait=60s", "revision=2&wait=11m", "revision=x", "revision=1&since=1"] {
        scene.refused("GET", &format!("/v1/map?{query}"), "", 400);
    }

    let waits = waiting(&scene.mapsmith, "/v1/map?revision=2&wait=10m");
    somebody_waits(&scene.mapsmith);
    assert_eq!(scene.mapsmith.sigterm(), 0);
    assert_eq!(waits.join().expect("an answer").0, 304, "at the end nobody waits any more");
}
