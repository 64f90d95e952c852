//! What lets a held change through: an approval of that very change, or its own end.

use serde_json::json;

use super::{NODES, Scene};
use crate::support::scene::{
    borrowed, complaints, map_file, memory, metric, newest, nodes, oldest_and_newest, printed,
    reload,
};

#[test]
fn approving_lets_exactly_the_held_change_through() {
    for binary in oldest_and_newest() {
        // Its moves would pass.
        let scene = Scene::start(binary, "[guard]\npartial = false\n");
        scene.registry.knows(&borrowed(&nodes(10, "m2")));
        let held = scene.held();
        let id = held["id"].as_str().expect("an id");
        let (_, text) = printed(&scene.mapsmith.cli(&["explain", "n003"]));
        assert!(text.contains(": m2 (held back), answered"), "{text}");

        let output = scene.mapsmith.cli(&["approve", id]);
        assert!(output.status.success(), "{}", complaints(&output));
        assert_eq!(map_file(&scene.gateway), nodes(10, "m2"));
        let report = reload(&scene.mapsmith);
        assert_eq!(memory(&scene.gateway), nodes(10, "m2"), "{report:#}");
        assert_eq!(scene.mapsmith.get("/v1/held").1, json!([]));
        assert_eq!(metric(&scene.mapsmith, "mapsmith_guard_held"), Some(0.0));

        // The approval is used up: the next upheaval is held again.
        scene.registry.knows(&[]);
        scene.held();
        assert_eq!(memory(&scene.gateway), nodes(10, "m2"));
    }
}

#[test]
fn an_approval_of_a_change_that_is_no_longer_the_held_one_is_refused_and_changes_nothing() {
    let scene = Scene::start(newest(), "");
    let before = scene.kept();
    scene.registry.knows(&borrowed(&nodes(10, "m1")));
    let seen = scene.held()["id"].as_str().expect("an id").to_owned();
    scene.registry.knows(&borrowed(&nodes(9, "m1")));
    let now = scene.held()["id"].as_str().expect("an id").to_owned();
    assert_ne!(seen, now);

    let body = json!({ "id": seen }).to_string();
    let response = scene.mapsmith.ask("POST", "/v1/held/approve", &[], &body);
    assert_eq!(
        (response.status, response.content_type.as_str()),
        (409, "application/problem+json"),
        "{}",
        response.body
    );
    assert!(response.body.contains(&seen) && response.body.contains(&now), "{}", response.body);
    let output = scene.mapsmith.cli(&["approve", &seen]);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaints(&output).contains("is not the one held back"), "{}", complaints(&output));
    assert_eq!(scene.kept(), before);
    assert_eq!(
        scene.mapsmith.get("/v1/held").1[0]["id"],
        json!(now),
        "the other change is held as before"
    );

    // An approval that was refused leaves nothing behind: the change it named is held when it comes
    // back.
    scene.registry.knows(&borrowed(&nodes(10, "m1")));
    assert_eq!(scene.held()["id"], json!(seen));
    assert_eq!(scene.kept(), before);
}

#[test]
fn nothing_is_there_to_approve_while_nothing_is_held() {
    let scene = Scene::start(newest(), "");
    let response =
        scene.mapsmith.ask("POST", "/v1/held/approve", &[], r#"{"id": "0123456789abcdef"}"#);
    assert_eq!(response.status, 409, "{}", response.body);
    assert!(response.body.contains("nothing is held back"), "{}", response.body);
    let response = scene.mapsmith.ask("POST", "/v1/held/approve", &[], "yes");
    assert_eq!(
        (response.status, response.content_type.as_str()),
        (400, "application/problem+json"),
        "{}",
        response.body
    );
}

#[test]
fn a_held_change_that_goes_by_itself_is_released() {
    let scene = Scene::start(newest(), "");
    scene.registry.knows(&[]);
    scene.held();
    scene.registry.knows(&borrowed(&nodes(NODES + 1, "m1")));
    let report = reload(&scene.mapsmith);
    assert_eq!(
        (&report["held"], &report["changes"][0]["added"]),
        (&json!([]), &json!(1)),
        "{report:#}"
    );
    assert_eq!(scene.mapsmith.get("/v1/status").1["held"], json!([]));
    assert_eq!(metric(&scene.mapsmith, "mapsmith_guard_held"), Some(0.0));
    assert_eq!(memory(&scene.gateway), nodes(NODES + 1, "m1"));
}
