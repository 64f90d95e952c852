//! The HTTP API: who may ask, how it says no, and why a node goes where it goes.

use std::fs;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, gateway_settings, in_sync, instance_settings, newest,
    oldest_and_newest, printed, reload, source_settings,
};

fn config(gateway: &Gateway, registry: &Registry, more: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}{more}", gateway_settings(gateway)))
}

fn start() -> (Gateway, Registry, Mapsmith) {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1")]);
    let mapsmith = config(&gateway, &registry, "").start();
    in_sync(&mapsmith);
    (gateway, registry, mapsmith)
}

/// An error answer in the form that every error has (RFC 9457).
fn problem(
    mapsmith: &Mapsmith,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    expected: u16,
) -> Value {
    let response = mapsmith.ask(method, path, headers, "");
    let what = format!("{method} {path}: {}", response.body);
    assert_eq!(response.status, expected, "{what}");
    assert_eq!(response.content_type, "application/problem+json", "{what}");
    let problem: Value =
        serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(problem["status"], expected, "{what}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{what}");
    problem
}

#[test]
fn with_a_token_only_who_has_it_is_let_in_and_probes_need_none() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1")]);
    let config =
        config(&gateway, &registry, "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n");
    fs::write(config.directory().join("token"), "s3cret-of-the-api\n").unwrap();
    let mapsmith = config.start();
    mapsmith.wait_for("ready, without a token", BOUND, |mapsmith| {
        (mapsmith.get("/readyz").0 == 200).then_some(())
    });
    assert_eq!((mapsmith.get("/healthz").0, mapsmith.get("/metrics").0), (200, 200));

    for (method, path) in [
        ("GET", "/v1/status"),
        ("POST", "/v1/reload"),
        ("GET", "/v1/nodes/node1"),
        ("PUT", "/v1/nodes/node1/owner"),
        ("GET", "/v1/learned"),
        ("GET", "/v1/held"),
        ("POST", "/v1/held/approve"),
        ("GET", "/v1/overrides"),
        ("PUT", "/v1/overrides/node1"),
        ("DELETE", "/v1/overrides/node1"),
        ("POST", "/v1/masters/m1/drain"),
        ("DELETE", "/v1/masters/m1/drain"),
    ] {
        let wrong = [
            "Bearer s3cret-of-the-ap",
            "Bearer s3cret-of-the-apI",
            "Basic s3cret-of-the-api",
            "s3cret-of-the-api",
            "Bearer ",
        ];
        let problem = problem(&mapsmith, method, path, &[], 401);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("Authorization: Bearer"), "{problem}");
        for value in wrong {
            let response = mapsmith.ask(method, path, &[("Authorization", value)], "");
            // After the first few it is told to wait.
            assert!(matches!(response.status, 401 | 429), "{method} {path}: {}", response.body);
        }
    }
    let given = [("Authorization", "Bearer s3cret-of-the-api")];
    assert_eq!(mapsmith.ask("GET", "/v1/status", &given, "").status, 200);
    // A dashboard elsewhere that was given the token is no stranger.
    let page =
        [("Authorization", "Bearer s3cret-of-the-api"), ("Origin", "https://dashboard.example")];
    assert_eq!(mapsmith.ask("GET", "/v1/status", &page, "").status, 200);

    let output = mapsmith.cli(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        complaints(&output).contains("MAPSMITH_TOKEN") && complaints(&output).contains("401"),
        "{}",
        complaints(&output)
    );
    let (code, text) = printed(&mapsmith.cli(&["status", "--token", "s3cret-of-the-api"]));
    assert_eq!(code, 0, "{text}");
    assert!(!mapsmith.log().contains("s3cret"), "a token is never logged");
}

#[test]
fn without_a_token_no_web_page_may_ask() {
    let (_gateway, registry, mapsmith) = start();
    let asked = registry.asked();
    // What a browser tells of a page of another site, or of one on another port of this machine;
    // the last one is an `<img>` in a page whose own name was made to point to this machine.
    let strangers = [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Referer", "https://evil.example/page"),
        ("Host", "evil.example"),
    ];
    let paths = [
        ("GET", "/v1/status"),
        ("POST", "/v1/reload"),
        ("POST", "/v1/held/approve"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
    ];
    for (method, path) in paths {
        for header in strangers {
            let detail = problem(&mapsmith, method, path, &[header], 403)["detail"].to_string();
            assert!(!detail.contains("/var/") && !detail.contains("edge1"), "{detail}");
        }
    }
    assert_eq!(registry.asked(), asked, "nothing was set off");
    // A page that came from this very address may ask and change.
    let origin = mapsmith.api_url();
    let page = format!("{origin}/page");
    let own = [
        ("Origin", origin.as_str()),
        ("Referer", page.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    for (method, path, expected) in
        [("GET", "/v1/status", 200), ("POST", "/v1/reload", 202), ("GET", "/metrics", 200)]
    {
        assert_eq!(mapsmith.ask(method, path, &own, "").status, expected, "{method} {path}");
        assert_eq!(mapsmith.ask(method, path, &[], "").status, expected, "{method} {path}");
    }
    assert_eq!(
        mapsmith.ask("GET", "/healthz", &[("Host", "any.example")], "").status,
        200,
        "it tells nothing"
    );
}

#[test]
fn an_api_that_others_can_reach_without_a_token_is_refused_by_the_settings() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[]);
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let output =
            config(&gateway, &registry, &format!("[api]\nlisten = {listen:?}\n")).cli(&["run"]);
        assert_eq!(output.status.code(), Some(2), "{listen}");
        let text = complaints(&output);
        assert!(text.contains("api.listen") && text.contains("api.token_file"), "{text}");
    }
}

#[test]
fn an_empty_token_file_keeps_the_daemon_from_starting() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[]);
    let config =
        config(&gateway, &registry, "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n");
    for (text, words) in [(Some(" \n"), "the file is empty"), (None, "No such file")] {
        match text {
            Some(text) => fs::write(config.directory().join("token"), text).unwrap(),
            None => fs::remove_file(config.directory().join("token")).unwrap(),
        }
        let output = config.cli(&["run"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            complaints(&output).contains("api.token_file") && complaints(&output).contains(words),
            "{}",
            complaints(&output)
        );
    }
}

#[test]
fn who_has_no_token_learns_that_an_instance_is_in_trouble_and_no_path_or_address() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m1")]);
    let gone = instance_settings("gone", "unix@/nonexistent/secret/admin.sock")
        + &instance_settings("off", "tcp@127.0.0.1:1");
    let config = config(
        &gateway,
        &registry,
        &format!("{gone}[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n"),
    );
    fs::write(config.directory().join("token"), "s3cret\n").unwrap();
    let mapsmith = config.start();
    mapsmith.wait_for("both are known to be in trouble", BOUND, |mapsmith| {
        let (status, readiness) = mapsmith.get("/readyz");
        let missing = readiness["missing"].to_string();
        (status == 200 && missing.matches("unreachable since").count() == 2).then_some(())
    });
    // A scraper may name the machine as it likes where a token guards the rest.
    for path in ["/readyz", "/metrics"] {
        let response = mapsmith.ask("GET", path, &[("Host", "gateway1.example:7070")], "");
        assert_eq!(response.status, 200, "{}", response.body);
        for told in ["/nonexistent", "admin.sock", "127.0.0.1"] {
            assert!(!response.body.contains(told), "{path} tells {told}: {}", response.body);
        }
    }
    let given = [("Authorization", "Bearer s3cret")];
    assert!(
        mapsmith
            .ask("GET", "/v1/status", &given, "")
            .body
            .contains("/nonexistent/secret/admin.sock")
    );
}

#[test]
fn every_no_is_a_problem_in_json() {
    let (_gateway, _registry, mapsmith) = start();
    for path in
        ["/", "/v1", "/v1/", "/v1/nope", "/v1/masters", "/v1/nodes/", "/nope", "/v1/nodes/a/b"]
    {
        let problem = problem(&mapsmith, "GET", path, &[], 404);
        assert!(
            problem["detail"].as_str().is_some_and(|detail| detail.contains(path)),
            "{problem}"
        );
    }
    for (method, path) in [
        ("POST", "/v1/status"),
        ("GET", "/v1/reload"),
        ("POST", "/v1/nodes/node1"),
        ("GET", "/v1/nodes/node1/owner"),
        ("PUT", "/v1/held"),
        ("GET", "/v1/held/approve"),
        ("POST", "/v1/overrides"),
        ("PUT", "/v1/masters/m1/drain"),
        ("POST", "/metrics"),
        ("POST", "/readyz"),
    ] {
        problem(&mapsmith, method, path, &[], 405);
    }
    for name in ["a%20b", "%23comment", "%3C%3Cmark", "a%0Ab", "%ff", "%C2%A0", &"n".repeat(256)] {
        problem(&mapsmith, "GET", &format!("/v1/nodes/{name}"), &[], 400);
    }
    let large = mapsmith.ask("POST", "/v1/held/approve", &[], &" ".repeat(64 * 1024 + 1));
    assert_eq!(
        (large.status, large.content_type.as_str()),
        (413, "application/problem+json"),
        "{}",
        large.body
    );
}

#[test]
fn a_node_is_explained_by_master_source_revision_and_each_instances_memory() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let other = Gateway::plan(binary).map_of(&gateway).start();
        let registry = Registry::start(&[("node1", "m1"), ("node2", "m1")]);
        // No read-back of its own while this test changes a memory outside Mapsmith.
        let schedule = ON_REQUEST.replace("verify = \"1s\"", "verify = \"1h\"");
        let instances =
            gateway_settings(&gateway) + &instance_settings("edge2", &other.runtime_address());
        let source = source_settings("registry", &registry.url());
        let mapsmith = Mapsmith::config(&format!("{schedule}{instances}{source}")).start();
        mapsmith.wait_for("both are in sync", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            let instances = status["instances"].as_array()?.clone();
            instances.iter().all(|instance| instance["state"] == "in_sync").then_some(())
        });
        registry.knows(&[("node1", "m2"), ("node2", "m1")]);
        reload(&mapsmith);

        let (status, explained) = mapsmith.get("/v1/nodes/node1");
        assert_eq!(status, 200);
        assert_eq!(
            (&explained["node"], &explained["master"]),
            (&json!("node1"), &json!("m2")),
            "{explained:#}"
        );
        let change = &explained["last_change"];
        assert_eq!(
            (&change["from"], &change["to"], &change["revision"]),
            (&json!("m1"), &json!("m2"), &json!(2)),
            "{explained:#}"
        );
        assert!(change["at"].is_string());
        let source = &explained["sources"][0];
        assert_eq!(
            (&source["name"], &source["master"], &source["used"]),
            (&json!("registry"), &json!("m2"), &json!(true))
        );
        assert!(source["answered_at"].is_string());
        for (index, name) in [(0, "edge1"), (1, "edge2")] {
            let instance = &explained["instances"][index];
            assert_eq!(
                *instance,
                json!({ "name": name, "master": "m2", "error": null }),
                "{explained:#}"
            );
        }
        assert_eq!(
            mapsmith.get("/v1/nodes/NODE1").1["instances"],
            explained["instances"],
            "names are told apart in lower case"
        );

        // What is in memory is looked up, not remembered.
        other.command(&format!("set map {} node2 m9", gateway.map_path()));
        let seen = mapsmith.get("/v1/nodes/node2").1;
        assert_eq!(
            (&seen["master"], &seen["instances"][0]["master"]),
            (&json!("m1"), &json!("m1")),
            "{seen:#}"
        );
        assert_eq!(seen["instances"][1]["master"], "m9", "{seen:#}");
        assert_eq!(seen["last_change"]["revision"], 1, "{seen:#}");
    }
}

#[test]
fn a_node_that_has_no_route_is_explained_too() {
    let (gateway, registry, mapsmith) = start();
    registry.answers(200, r#"{"node1": "m1", "lost": null, "spaced": "m 1"}"#);
    reload(&mapsmith);
    for (node, reason) in [("lost", "no_master"), ("spaced", "value_whitespace"), ("stranger", "")]
    {
        let (status, explained) = mapsmith.get(&format!("/v1/nodes/{node}"));
        assert_eq!(status, 200);
        assert_eq!(
            (&explained["master"], &explained["instances"][0]["master"]),
            (&Value::Null, &Value::Null),
            "{explained:#}"
        );
        let rejected = explained["sources"][0]["rejected"].as_str().unwrap_or_default();
        assert_eq!(rejected, reason, "{explained:#}");
        assert_eq!(gateway.request(node).0, 404);
    }
}

#[test]
fn a_hung_instance_does_not_keep_an_explanation_waiting() {
    let gateway = Gateway::plan(newest()).start();
    let mut hung = Gateway::plan(newest()).map_of(&gateway).start();
    let registry = Registry::start(&[("node1", "m1")]);
    // Its own bound is far beyond what a person waits for.
    let instance = instance_settings("hung", &hung.runtime_address()).replace("\"2s\"", "\"10m\"");
    hung.stop_process();
    let mapsmith = config(&gateway, &registry, &instance).start();
    in_sync(&mapsmith);
    let (status, explained) = mapsmith.get("/v1/nodes/node1");
    assert_eq!(status, 200);
    assert_eq!(
        (&explained["master"], &explained["instances"][0]["master"]),
        (&json!("m1"), &json!("m1")),
        "{explained:#}"
    );
    assert_eq!(explained["instances"][1]["error"], "no answer within 2s", "{explained:#}");
    hung.continue_process();
}
