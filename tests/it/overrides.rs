//! Pins and drained masters: they come into force at once, whatever the guard holds, and outlive
//! every restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::master::Master;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, complaints, entries, gateway_settings, in_sync, map_file, memory,
    metric, newest, nodes, oldest_and_newest, printed, reload, source_settings,
};

const STORE: &str = "[store]\npath = \"mapsmith.db\"\n";

fn config(gateway: &Gateway, registry: &Registry, store: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}{store}", gateway_settings(gateway)))
}

/// A gateway in sync with a registry, and a Mapsmith with a store.
struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

impl Scene {
    fn start(nodes: &[(String, String)]) -> Self {
        Self::start_on(newest(), nodes)
    }

    fn start_on(binary: &crate::support::haproxy::Binary, nodes: &[(String, String)]) -> Self {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&borrowed(nodes));
        let mapsmith = config(&gateway, &registry, STORE).start();
        in_sync(&mapsmith);
        Self { gateway, registry, mapsmith }
    }

    /// An answer of the API, and its status.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let response = self.mapsmith.ask(method, path, &[], body);
        (
            response.status,
            serde_json::from_str(&response.body).unwrap_or(Value::String(response.body)),
        )
    }

    /// Orders something, which must arrive; gives the report's message.
    fn order(&self, method: &str, path: &str, body: Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // The masters of these tests are only names: no HAProxy has them.
        let force = if method == "DELETE" { "" } else { "&force=true" };
        let (status, report) = self.ask(method, &format!("/v1/{path}?wait=60s{force}"), &body);
        assert_eq!(
            (status, &report["outcome"]),
            (200, &json!("in_sync")),
            "{report:#}\n{}",
            self.mapsmith.log()
        );
        report["message"].as_str().expect("a message").to_owned()
    }

    fn refused(&self, method: &str, path: &str, body: &str, expected: u16) -> String {
        let response = self.mapsmith.ask(method, path, &[], body);
        let what = format!("{method} {path} {body}: {}", response.body);
        assert_eq!(
            (response.status, response.content_type.as_str()),
            (expected, "application/problem+json"),
            "{what}"
        );
        let problem: Value =
            serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{what}: {error}"));
        problem["detail"].as_str().expect("a detail").to_owned()
    }

    fn database(&self) -> PathBuf {
        self.mapsmith.configuration().directory().join("mapsmith.db")
    }

    /// What the registry says, with some nodes elsewhere: in memory and in the file.
    fn holds(&self, expected: &[(String, String)]) {
        assert_eq!(memory(&self.gateway), expected, "{}", self.mapsmith.log());
        assert_eq!(map_file(&self.gateway), expected);
    }
}

/// The nodes, with some of them on other masters, and more.
fn with(nodes: &[(String, String)], moved: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: BTreeMap<_, _> = nodes.iter().cloned().collect();
    all.extend(moved.iter().map(|(node, master)| ((*node).to_owned(), (*master).to_owned())));
    all.into_iter().collect()
}

/// So many nodes in turn of the masters.
fn fleet(count: usize, masters: &[&str]) -> Vec<(String, String)> {
    (0..count)
        .map(|node| (format!("n{node:03}"), masters[node % masters.len()].to_owned()))
        .collect()
}

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
fn an_order_that_names_a_master_nobody_knows_is_refused_unless_it_is_forced() {
    for binary in oldest_and_newest() {
        let said = fleet(6, &["master1", "master2"]);
        let (one, two, spare) =
            (Master::start("master1"), Master::start("master2"), Master::start("spare"));
        let plan = [&one, &two, &spare].into_iter().fold(Gateway::plan(binary), |plan, master| {
            plan.master(master.name(), master.address())
        });
        let gateway = plan.start();
        let registry = Registry::start(&borrowed(&said));
        let mapsmith = config(&gateway, &registry, STORE).start();
        in_sync(&mapsmith);
        let scene = Scene { gateway, registry, mapsmith };
        for (order, name, hint) in [
            (["pin", "n000", "Master2"].as_slice(), "Master2", "is it master2?"),
            (&["pin", "n000", "mastre2"], "mastre2", "nodes are routed to: master1, master2"),
            (
                &["drain", "master1", "--to", "mastre2"],
                "mastre2",
                "no HAProxy has a backend or server of the name",
            ),
            (&["drain", "mastre1"], "mastre1", "--force"),
        ] {
            let output = scene.mapsmith.cli(order);
            let told = complaints(&output);
            assert_eq!(output.status.code(), Some(1), "{order:?}: {told}");
            assert!(
                told.contains(&format!("{name:?} is not a known master")) && told.contains(hint),
                "{order:?}: {told}"
            );
        }
        let told = scene.refused(
            "POST",
            "/v1/masters/master1/drain?wait=60s",
            r#"{"to": "mastre2"}"#,
            409,
        );
        assert!(told.contains("force=true"), "{told}");
        assert_eq!(scene.mapsmith.get("/v1/overrides").1["number"], 0, "nothing was stored");
        scene.holds(&said);

        // A server of HAProxy that no node is routed to is known; so is what nodes are routed to
        // and HAProxy does not have.
        for (order, moved) in [
            (["pin", "n000", "spare"].as_slice(), vec![("n000", "spare")]),
            (&["pin", "n000", "nowhere", "--force"], vec![("n000", "nowhere")]),
            (&["pin", "n001", "nowhere"], vec![("n000", "nowhere"), ("n001", "nowhere")]),
            (&["unpin", "n000"], vec![("n001", "nowhere")]),
        ] {
            let (code, text) = printed(&scene.mapsmith.cli(order));
            assert_eq!(code, 0, "{order:?}: {text}");
            scene.holds(&with(&said, &moved));
        }
    }
}

#[test]
fn before_any_haproxy_was_looked_at_only_masters_of_the_map_are_taken() {
    let mut gateway = Gateway::plan(newest()).entry("n000", "m1").entry("n001", "m2").start();
    gateway.kill();
    let registry = Registry::start(&[("n000", "m1"), ("n001", "m2")]);
    let mapsmith = config(&gateway, &registry, STORE).start();
    mapsmith.wait_for("the map is known", BOUND, |mapsmith| {
        (mapsmith.get("/v1/status").1["entries"] == 2).then_some(())
    });
    let scene = Scene { gateway, registry, mapsmith };
    let told = scene.refused("PUT", "/v1/overrides/n000", r#"{"master": "m3"}"#, 409);
    assert!(told.contains("no HAProxy has been observed yet"), "{told}");
    let (status, answer) = scene.ask("PUT", "/v1/overrides/n000", r#"{"master": "m2"}"#);
    assert_eq!(status, 202, "{answer:#}");
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
fn a_drained_masters_nodes_are_spread_over_the_others_and_undraining_restores_the_map_exactly() {
    for binary in oldest_and_newest() {
        let said = fleet(90, &["m1", "m2", "m3"]);
        let scene = Scene::start_on(binary, &said);
        scene.order("PUT", "overrides/n000", json!({"master": "m1"}));
        let told = scene.order("POST", "masters/m1/drain", Value::Null);
        assert!(
            told.starts_with("master m1 is drained to the others; revision 2: 0 added, 29 moved"),
            "{told}"
        );
        let held = memory(&scene.gateway);
        let mut got = BTreeMap::new();
        for ((node, master), (_, before)) in held.iter().zip(&said) {
            match before.as_str() {
                "m1" if node == "n000" => assert_eq!(master, "m1", "a pin stays"),
                "m1" => *got.entry(master.as_str()).or_insert(0) += 1,
                _ => assert_eq!(master, before, "{node} has nothing to do with m1"),
            }
        }
        // Which node goes where never changes, so neither does this.
        assert!(got.len() == 2 && got["m2"] >= 10 && got["m3"] >= 10, "{got:?}");
        let explained = scene.mapsmith.get("/v1/nodes/n003").1;
        assert_eq!(
            (&explained["drained"]["master"], &explained["sources"][0]["master"]),
            (&json!("m1"), &json!("m1")),
            "{explained:#}"
        );
        assert_eq!(scene.mapsmith.get("/v1/status").1["drained"][0]["master"], "m1");
        assert_eq!(metric(&scene.mapsmith, "mapsmith_drained_masters"), Some(1.0));

        let told = scene.order("POST", "masters/m1/drain", json!({"to": "m2"}));
        assert!(told.starts_with("master m1 is drained to m2; revision 3: "), "{told}");
        let moved: Vec<_> =
            said.iter().map(|(node, master)| (node.clone(), master.replace("m1", "m2"))).collect();
        scene.holds(&with(&moved, &[("n000", "m1")]));

        scene.order("DELETE", "masters/m1/drain", Value::Null);
        scene.order("DELETE", "overrides/n000", Value::Null);
        scene.holds(&said);
        assert_eq!(
            scene.refused("DELETE", "/v1/masters/m1/drain", "", 404),
            "master m1 is not drained"
        );
    }
}

#[test]
fn the_guard_does_not_hold_a_drain_of_nearly_everything() {
    let said = with(&nodes(60, "m1"), &[("other", "m2")]);
    let scene = Scene::start(&said);
    let told = scene.order("POST", "masters/m1/drain", Value::Null);
    assert!(told.contains("60 moved"), "{told}");
    // Nor what an answer that changes nothing says of it.
    reload(&scene.mapsmith);
    assert_eq!(scene.mapsmith.get("/v1/held").1, json!([]));
    scene.order("DELETE", "masters/m1/drain", Value::Null);
    scene.holds(&said);
}

#[test]
fn a_drain_that_leads_nowhere_is_refused_unless_it_is_forced() {
    let said = nodes(3, "m1");
    let scene = Scene::start(&said);
    let detail = scene.refused("POST", "/v1/masters/m1/drain", "", 409);
    assert!(
        detail.contains(
            "no other master is left that the nodes of m1 could go to; name one with --to"
        ),
        "{detail}"
    );
    assert_eq!(scene.mapsmith.get("/v1/overrides").1["drained"], json!([]), "nothing is stored");
    scene.order("POST", "masters/m1/drain", json!({"to": "m2"}));
    scene.holds(&nodes(3, "m2"));
    let detail = scene.refused("POST", "/v1/masters/m2/drain", r#"{"to": "m1"}"#, 409);
    assert!(detail.contains("the drains run in a circle: m2 -> m1 -> m2"), "{detail}");
    scene.holds(&nodes(3, "m2"));
    scene.order("DELETE", "masters/m1/drain", Value::Null);

    let told = scene.order("POST", "masters/m1/drain", Value::Null);
    assert!(
        told.contains("no other master is left, so these keep their nodes: m1; nothing changed"),
        "{told}"
    );
    scene.holds(&said);
    assert_eq!(scene.mapsmith.get("/v1/status").1["stuck"], json!(["m1"]));
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

#[test]
fn without_a_store_overrides_are_refused_with_what_to_do() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("n000", "m1")]);
    let mapsmith = config(&gateway, &registry, "").start();
    in_sync(&mapsmith);
    let scene = Scene { gateway, registry, mapsmith };
    for (method, path, body) in [
        ("GET", "/v1/overrides", ""),
        ("GET", "/v1/overrides/n000", ""),
        ("PUT", "/v1/overrides/n000", r#"{"master": "m2"}"#),
        ("DELETE", "/v1/overrides/n000", ""),
        ("POST", "/v1/masters/m1/drain", ""),
        ("DELETE", "/v1/masters/m1/drain", ""),
    ] {
        let told = scene.refused(method, path, body, 409);
        assert!(told.contains("set `path` in `[store]`"), "{told}");
    }
    let output = scene.mapsmith.cli(&["pin", "n000", "m2"]);
    assert!(
        output.status.code() == Some(1) && complaints(&output).contains("[store]"),
        "{}",
        complaints(&output)
    );
    scene.holds(&entries(&[("n000", "m1")]));
}

#[test]
fn what_can_be_no_override_is_refused_and_nothing_is_stored() {
    let scene = Scene::start(&nodes(1, "m1"));
    for (method, path, body, part) in [
        ("PUT", "overrides/a%20b", r#"{"master": "m2"}"#, "is not a valid node name"),
        ("PUT", "overrides/n", r#"{"master": "m 2"}"#, "is not a valid master name"),
        ("PUT", "overrides/n", r#"{"master": ""}"#, "is not a valid master name"),
        ("PUT", "overrides/n", r#"{"master": "m2\nclear map"}"#, "is not a valid master name"),
        ("PUT", "overrides/n", "", "send {\"master\""),
        ("PUT", "overrides/n", r#"{"master": "m2", "force": true}"#, "force"),
        ("PUT", "overrides/n", r#"{"master": "m2", "for": "soon"}"#, "is not a duration"),
        ("PUT", "overrides/n", r#"{"master": "m2", "for": "0s"}"#, "is not a duration"),
        ("PUT", "overrides/n", r#"{"master": "m2", "for": "400days"}"#, "a year at most"),
        ("PUT", "overrides/n?wait=never", r#"{"master": "m2"}"#, "wait must be"),
        ("PUT", "overrides/n?force=perhaps", r#"{"master": "m2"}"#, "wait and force"),
        ("DELETE", "overrides/n?force=true", "", "the only parameter is wait"),
        ("GET", "status?verbose=1", "", "this path takes no parameters"),
        ("GET", "nodes/n?wait=1s", "", "this path takes no parameters"),
        ("GET", "learned?x", "", "unknown field `x`"),
        ("GET", "held?id=1", "", "this path takes no parameters"),
        ("GET", "overrides?node=n", "", "this path takes no parameters"),
        ("GET", "overrides/n?force=true", "", "this path takes no parameters"),
        ("POST", "held/approve?id=1", r#"{"id": "1"}"#, "this path takes no parameters"),
        ("POST", "masters/m%3B1%0A/drain", "", "is not a valid master name"),
        ("POST", "masters/m1/drain", r#"{"to": "m1"}"#, "to itself"),
        ("POST", "masters/m1/drain", r##"{"to": "#m2"}"##, "is not a valid master name"),
        ("POST", "masters/m1/drain", "[", "send {\"to\""),
    ] {
        let told = scene.refused(method, &format!("/v1/{path}"), body, 400);
        assert!(told.contains(part), "{method} {path} {body}: {part:?} is not in {told}");
    }
    let page = [("Origin", "https://evil.example")];
    assert_eq!(
        scene.mapsmith.ask("PUT", "/v1/overrides/n", &page, r#"{"master": "m2"}"#).status,
        403
    );
    assert_eq!(scene.mapsmith.ask("POST", "/v1/masters/m1/drain", &page, "").status, 403);
    assert_eq!(
        scene.mapsmith.get("/v1/overrides").1,
        json!({"number": 0, "pins": [], "drained": []})
    );
}

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
    refused("is damaged or no SQLite database");
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
