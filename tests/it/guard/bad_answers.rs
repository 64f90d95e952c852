//! Answers that are no map, and sources that fail meanwhile.

use serde_json::json;

use super::{NODES, Scene};
use crate::support::scene::{
    borrowed, complaints, metric, newest, nodes, oldest_and_newest, reload,
};

#[test]
fn a_change_that_is_held_does_not_hide_that_the_source_fails_since() {
    let scene = Scene::start(newest(), "");
    scene.registry.knows(&[]);
    let id = scene.held()["id"].as_str().expect("an id").to_owned();
    for (status, body, words) in [(500, "down", "failed (500)"), (200, "<html>", "not JSON")] {
        scene.registry.answers(status, body);
        let problem = scene.refused_reload(502);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(words) && detail.contains(&id), "{detail}");
        assert_eq!(
            (&problem["report"]["outcome"], &problem["report"]["held"][0]["id"]),
            (&json!("source_failed"), &json!(id))
        );
        let output = scene.mapsmith.cli(&["reload", "--wait", "30s"]);
        assert_eq!(output.status.code(), Some(1), "{}", complaints(&output));
    }
    scene.registry.knows(&[]);
    assert_eq!(
        scene.refused_reload(409)["report"]["held"][0]["id"],
        json!(id),
        "the source answers again, and it is held as before"
    );
}

/// An answer that is no map at all, by what is wrong with it and what the error must say.
const NO_MAPS: [(&str, &str, &str); 5] = [
    ("an empty list in place of an object", "[]", "an object {\"node\": \"master\"} was expected"),
    ("an error object", r#"{"error": "the database is down"}"#, "error object"),
    ("truncated JSON", r#"{"n000": "m2", "n001": "m"#, "cut off"),
    ("a page", "<html><title>Gateway Timeout</title></html>", "not JSON"),
    ("nothing", "", "cut off"),
];

#[test]
fn an_answer_that_is_no_map_keeps_the_last_good_one_and_says_what_came() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, "");
        let before = scene.kept();
        for (number, (what, body, words)) in (1..).zip(NO_MAPS) {
            scene.registry.answers(200, body);
            let problem = scene.refused_reload(502);
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(
                detail.contains(words) && detail.contains("the last good answer stays in force"),
                "{what}: {detail}"
            );
            assert_eq!(scene.kept(), before, "{what} changed something");
            let status = scene.mapsmith.get("/v1/status").1;
            let source = &status["sources"][0];
            assert!(
                source["error"].as_str().is_some_and(|error| error.contains(words)),
                "{what}: {source:#}"
            );
            assert_eq!(source["entries"], NODES, "{what}: the last good answer is still counted");
            assert!(
                scene
                    .mapsmith
                    .log()
                    .contains("the poll failed; the last good answer stays in force"),
                "{what}"
            );
            let failures =
                metric(&scene.mapsmith, "mapsmith_source_poll_failures_total{source=\"registry\"}");
            assert!(failures >= Some(f64::from(number)), "{what}: {failures:?}");
        }
        scene.registry.knows(&borrowed(&nodes(NODES, "m1")));
        let report = reload(&scene.mapsmith);
        assert_eq!(report["changes"], json!([]), "{report:#}");
    }
}
