//! The OpenAPI document, held to the running API: schemathesis, which knows nothing of Mapsmith,
//! sends what the document allows and what it does not.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, gateway_settings, in_sync, newest, printed, source_settings,
};
use crate::support::unpacked;

/// How it asks.
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openapi/schemathesis.toml");
/// What is not asked: waits, which end when they end.
const LONG_POLLS: &str = "^/v1/map$";

fn start() -> (Gateway, Registry, Mapsmith) {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1"), ("node2", "m2")]);
    let source = source_settings("registry", &registry.url());
    let more = "[store]\npath = \"mapsmith.db\"\n[site]\nname = \"edge\"\n";
    let config =
        Mapsmith::config(&format!("{ON_REQUEST}{}{source}{more}", gateway_settings(&gateway)));
    let mapsmith = config.start();
    in_sync(&mapsmith);
    (gateway, registry, mapsmith)
}

/// Runs it with these arguments; what it says where something is not as the document has it.
fn schemathesis(program: &Path, mapsmith: &Mapsmith, arguments: &[&str]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (url, document) = (mapsmith.api_url(), format!("{}/openapi.json", mapsmith.api_url()));
    let output = Command::new(program)
        .args(["--config-file", CONFIG, "run", &document, "--url", &url])
        .args(["--exclude-path-regex", LONG_POLLS])
        .args(arguments)
        .current_dir(folder.path())
        .env("NO_COLOR", "1")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{said}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

#[test]
fn whatever_a_stranger_asks_by_the_document_is_answered_as_the_document_says() {
    let program = unpacked().join("schemathesis/bin/st");
    if !program.exists() {
        eprintln!("left out: schemathesis is not there (scripts/setup test)");
        return;
    }
    let (_gateway, _registry, mapsmith) = start();
    if let Err(said) = schemathesis(&program, &mapsmith, &[]) {
        panic!("as an admin:\n{said}\n{}", mapsmith.log());
    }
    let token = json!({"name": "stranger", "role": "viewer"}).to_string();
    let made = mapsmith.ask("POST", "/v1/tokens", &[], &token);
    let made: Value = serde_json::from_str(&made.body).expect("a token");
    let bearer = format!("Authorization: Bearer {}", made["token"].as_str().expect("its text"));
    if let Err(said) = schemathesis(&program, &mapsmith, &["-H", &bearer, "--phases", "coverage"]) {
        panic!("as a viewer:\n{said}\n{}", mapsmith.log());
    }
    // Whatever was ordered is done.
    mapsmith.wait_for("every instance is in sync", BOUND, |mapsmith| {
        let (_, status) = mapsmith.get("/v1/status");
        let instances = status["instances"].as_array()?;
        instances.iter().all(|instance| instance["state"] == "in_sync").then_some(())
    });
    let plan = mapsmith.configuration().cli(&["plan"]);
    let (code, text) = printed(&plan);
    assert_eq!(code, 0, "a plan after all that is empty: {text}{}", complaints(&plan));
}

#[test]
fn every_answer_has_an_id_a_revision_and_what_proxies_must_know() {
    let (_gateway, _registry, mapsmith) = start();
    let header = |response: &crate::support::http::Response, name: &str| {
        let found = response.headers.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    for (method, path, status) in [
        ("GET", "/v1/status", 200),
        ("GET", "/v1/overrides/node1", 404),
        ("GET", "/openapi.json", 200),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/status", 405),
        ("GET", "/v1/status?x=y", 400),
        ("GET", "/v1/problems/held", 200),
        ("GET", "/healthz", 200),
    ] {
        let what = format!("{method} {path}");
        let response = mapsmith.ask(method, path, &[("X-Request-Id", "build-17")], "");
        assert_eq!(response.status, status, "{what}: {}", response.body);
        assert_eq!(header(&response, "x-request-id"), "build-17", "{what}");
        assert!(header(&response, "cache-control").ends_with("no-transform"), "{what}");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff", "{what}");
        let is_cors = |(name, _): &(String, String)| name.starts_with("access-control-");
        assert!(!response.headers.iter().any(is_cors), "{what}: {:?}", response.headers);
        if status >= 400 {
            let problem: Value = serde_json::from_str(&response.body).expect("a problem");
            assert_eq!(problem["request_id"], "build-17", "{what}: {problem}");
            let page = problem["type"].as_str().expect("a path");
            assert_eq!(mapsmith.get(page).0, 200, "{what}: {page}");
        }
    }
    let response = mapsmith.ask("GET", "/v1/status", &[], "");
    assert_eq!(header(&response, "mapsmith-revision"), "1", "{:?}", response.headers);
    let status: Value = serde_json::from_str(&response.body).expect("a status");
    assert_eq!(status["site"], "edge");
    let response = mapsmith.ask("DELETE", "/v1/status", &[], "");
    assert_eq!(header(&response, "allow"), "GET,HEAD", "{:?}", response.headers);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let response = mapsmith.ask("PUT", "/v1/overrides/node1", &form, "{\"master\": \"m2\"}");
    assert_eq!(response.status, 415, "{}", response.body);
}

#[test]
fn an_override_that_somebody_else_has_changed_is_not_overwritten() {
    let (_gateway, _registry, mapsmith) = start();
    let put = |headers: &[(&str, &str)], master: &str| {
        let body = json!({ "master": master }).to_string();
        // Forced: nobody knows a master any more whose only node has gone to the other one.
        mapsmith.ask("PUT", "/v1/overrides/node1?force=true", headers, &body)
    };
    let tag = || {
        let response = mapsmith.ask("GET", "/v1/overrides/node1", &[], "");
        let tag = response.headers.iter().find(|(name, _)| name == "etag");
        tag.map(|(_, tag)| tag.clone()).expect("an ETag")
    };
    assert_eq!(put(&[("If-Match", "*")], "m2").status, 412, "there is none");
    assert_eq!(put(&[("If-None-Match", "*")], "m2").status, 202);
    assert_eq!(put(&[("If-None-Match", "*")], "m1").status, 412, "there is one by now");
    let first = tag();
    let weak = format!("W/{}-gzip\"", first.trim_end_matches('"'));
    assert_eq!(put(&[("If-Match", &weak)], "m1").status, 202, "a proxy has compressed it");
    let late = put(&[("If-Match", &first)], "m2");
    let problem: Value = serde_json::from_str(&late.body).expect("a problem");
    assert_eq!((late.status, &problem["current"]["master"]), (412, &json!("m1")), "{problem}");
    let known = mapsmith.ask("GET", "/v1/overrides/node1", &[("If-None-Match", &tag())], "");
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    let end = |tag: &str| mapsmith.ask("DELETE", "/v1/overrides/node1", &[("If-Match", tag)], "");
    assert_eq!(end(&first).status, 412);
    assert_eq!(end(&tag()).status, 202);
}
