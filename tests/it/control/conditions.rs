//! Changes that say what they are for: what was seen, and whether they are only tried.

use serde_json::{Value, json};

use super::{Scene, owned};
use crate::support::scene::{in_sync, memory, printed};

fn value(body: &str) -> Value {
    serde_json::from_str(body).expect("JSON")
}

/// Four nodes of two masters, of which one is pinned.
fn pinned() -> Scene {
    let scene = Scene::start(&owned(&[("a", "m1"), ("b", "m1"), ("c", "m2"), ("d", "m2")]));
    scene.order("PUT", "overrides/d", json!({"master": "m1"}));
    scene
}

#[test]
fn an_order_can_be_tried_and_says_what_it_would_move_and_changes_nothing() {
    let scene = pinned();
    let before = memory(&scene.gateway);
    let audit = scene.get("/v1/audit")["items"].as_array().map(Vec::len);
    let counts = |added: u8, moved: u8, removed: u8| json!({"added": added, "moved": moved, "removed": removed});
    for (method, path, body, expected) in [
        ("PUT", "overrides/a", json!({"master": "m2"}), counts(0, 1, 0)),
        ("PUT", "overrides/new", json!({"master": "m2"}), counts(1, 0, 0)),
        ("PUT", "overrides/a", json!({"absent": true}), counts(0, 0, 1)),
        ("DELETE", "overrides/d", Value::Null, counts(0, 1, 0)),
        ("POST", "masters/m1/drain", json!({"to": "m2"}), counts(0, 2, 0)),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/v1/{path}?dry_run=true");
        let answer = scene.mapsmith.ask(method, &path, &[], &body);
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        let told = value(&answer.body);
        assert_eq!(
            (&told["counts"], &told["dry_run"], &told["stored"], &told["revision"]),
            (&expected, &json!(true), &json!(false), &json!(2)),
            "{method} {path}: {told:#}"
        );
    }
    // What would be refused is refused.
    for (method, path, body, status) in [
        ("PUT", "overrides/a", json!({"master": "nobody"}), 409),
        ("DELETE", "overrides/a", Value::Null, 404),
        ("DELETE", "masters/m1/drain", Value::Null, 404),
        ("POST", "masters/m1/drain", json!({"to": "nobody"}), 409),
        ("POST", "held/none/approve", Value::Null, 409),
        ("POST", "held/none/reject", Value::Null, 409),
        ("DELETE", "hold", Value::Null, 404),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        scene.refused(method, &format!("/v1/{path}?dry_run=true"), &body, status);
    }
    let (code, text) = printed(&scene.mapsmith.cli(&["drain", "m1", "--to", "m2", "--dry-run"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("would be: master m1 is drained to m2; 0 added, 2 moved"), "{text}");
    assert!(text.contains("2 nodes  m1 -> m2"), "{text}");

    assert_eq!(memory(&scene.gateway), before, "nothing has moved");
    assert_eq!(scene.get("/v1/overrides")["drained"], json!([]));
    assert_eq!(scene.get("/v1/audit")["items"].as_array().map(Vec::len), audit, "no row of it");
}

#[test]
fn a_condition_that_nobody_looks_at_is_refused_and_settings_can_require_one() {
    let mut scene = pinned();
    let tag = ("If-Match", "\"1\"");
    let reload = scene.mapsmith.ask("POST", "/v1/reload", &[tag], "");
    assert_eq!(reload.status, 400, "{}", reload.body);
    assert!(reload.body.contains("takes no If-Match"), "{}", reload.body);

    scene.mapsmith.extra_variables(&["MAPSMITH__API__REQUIRE_IF_MATCH=true"]);
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    let pin = json!({"master": "m2"}).to_string();
    let blind = scene.mapsmith.ask("PUT", "/v1/overrides/a?wait=60s", &[], &pin);
    assert_eq!(blind.status, 428, "{}", blind.body);
    assert!(blind.body.contains("require_if_match"), "{}", blind.body);
    // That it is not some other state says nothing of the state that is changed.
    for tag in ["x", "\"x\"", "W/\"0\", \"1\""] {
        let header = [("If-None-Match", tag)];
        let other = scene.mapsmith.ask("PUT", "/v1/overrides/a?wait=60s", &header, &pin);
        assert_eq!(other.status, 428, "{tag}: {}", other.body);
    }
    let new = [("If-None-Match", "*")];
    let pinned = scene.mapsmith.ask("PUT", "/v1/overrides/a?wait=60s", &new, &pin);
    assert_eq!(pinned.status, 200, "{}", pinned.body);
    let again = scene.mapsmith.ask("PUT", "/v1/overrides/a?wait=60s", &new, &pin);
    assert_eq!(again.status, 412, "somebody has pinned it: {}", again.body);
    // The command line has just looked.
    let drains = [&["drain", "m1", "--to", "m2"][..], &["undrain", "m1"]];
    for words in
        [&["pin", "a", "m1"][..], &["unpin", "a"], &["pin", "b", "m2"], drains[0], drains[1]]
    {
        let (code, text) = printed(&scene.mapsmith.cli(words));
        assert_eq!(code, 0, "{words:?}: {text}");
    }
}

#[test]
fn a_drain_is_begun_and_ended_as_it_was_seen() {
    let scene = pinned();
    let drain = "/v1/masters/m1/drain";
    let to = json!({"to": "m2", "reason": "kernel"}).to_string();
    let ask = |method: &str, condition: (&str, &str), body: &str| {
        scene.mapsmith.ask(method, drain, &[condition], body)
    };
    scene.refused("GET", drain, "", 404);
    assert_eq!(ask("POST", ("If-Match", "*"), &to).status, 412, "it is not drained");
    assert_eq!(ask("POST", ("If-None-Match", "*"), &to).status, 202);
    let again = ask("POST", ("If-None-Match", "*"), &to);
    assert_eq!((again.status, &value(&again.body)["current"]["to"]), (412, &json!("m2")));
    let seen = scene.mapsmith.ask("GET", drain, &[], "");
    assert_eq!(value(&seen.body)["reason"], "kernel", "{}", seen.body);
    let tag = seen.header("etag").expect("an ETag").to_owned();
    assert_eq!(ask("GET", ("If-None-Match", &tag), "").status, 304);
    let spread = ask("POST", ("If-Match", &tag), "{\"reason\": \"spread\"}");
    assert_eq!(spread.status, 202, "{}", spread.body);
    let late = ask("DELETE", ("If-Match", &tag), "");
    assert_eq!((late.status, &value(&late.body)["current"]["reason"]), (412, &json!("spread")));
    let tried =
        scene.mapsmith.ask("DELETE", &format!("{drain}?dry_run=true"), &[("If-Match", &tag)], "");
    assert_eq!(tried.status, 412, "{}", tried.body);
    let seen = scene.mapsmith.ask("GET", drain, &[], "");
    let tag = seen.header("etag").expect("an ETag").to_owned();
    assert_eq!(ask("DELETE", ("If-Match", &tag), "").status, 202);
}
