//! One server of a backend, taken out, weighted and brought back through Mapsmith.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::haproxy::{Binary, Gateway};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::pool::{AT_ONCE, BACKEND, Pool, servers, settles, with_backend};
use crate::support::scene::{BOUND, complaints, metric, newest, oldest_and_newest, printed};

const STORE: &str = "[store]\npath = \"mapsmith.db\"\n";
/// As `show servers state` has it.
const MAINTENANCE: u32 = 0x01;
const DRAIN: u32 = 0x08;
const OUT: u32 = MAINTENANCE | DRAIN;

/// A backend of two servers that a registry lists.
struct Scene {
    gateway: Gateway,
    pool: Pool,
    masters: Vec<Master>,
    mapsmith: Mapsmith,
}

impl Scene {
    fn start(binary: &'static Binary, store: &str) -> Self {
        let plan = Gateway::plan(binary).entry("node1", BACKEND);
        let gateway = with_backend(plan, "    balance roundrobin\n").start();
        let masters: Vec<_> = ["m1", "m2"].map(Master::start).into();
        let pool = Pool::start(&listed(&masters));
        let more = format!("{AT_ONCE}{store}");
        let options = "options = [\"check\", \"inter 100ms\"]";
        let mapsmith = pool.config(&gateway, &gateway.runtime_address(), options, &more).start();
        settles(&gateway, &mapsmith, &listed(&masters));
        Self { gateway, pool, masters, mapsmith }
    }

    fn order(&self, arguments: &[&str]) -> (i32, String) {
        printed(&self.mapsmith.cli(&[&["server"][..], arguments].concat()))
    }

    /// An order that must arrive.
    fn done(&self, arguments: &[&str]) -> String {
        let (code, text) = self.order(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}\n{}", self.mapsmith.log());
        text
    }

    /// What the API says of a server.
    fn server(&self, name: &str) -> Value {
        let (status, report) = self.mapsmith.get(&format!("/v1/backends/{BACKEND}"));
        assert_eq!(status, 200, "{report}");
        let servers = report["servers"].as_array().expect("servers").clone();
        let found = servers.into_iter().find(|server| server["server"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {report:#}"))
    }

    /// Waits until HAProxy has a server so.
    fn is(&self, server: &str, state: u32) {
        self.mapsmith.wait_for(&format!("{server} is {state}"), BOUND, |_| {
            let admin = servers(&self.gateway).get(server)?.1;
            (admin & OUT == state).then_some(())
        });
    }

    fn refused(&self, method: &str, path: &str, body: &str, expected: u16) -> String {
        let response = self.mapsmith.ask(method, path, &[], body);
        assert_eq!(response.status, expected, "{method} {path} {body}: {}", response.body);
        let problem: Value = serde_json::from_str(&response.body).expect("a problem");
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

fn listed(masters: &[Master]) -> Vec<(&str, std::net::SocketAddr)> {
    masters.iter().map(|master| (master.name(), master.address())).collect()
}

#[test]
fn a_disabled_server_stays_out_whatever_restarts_and_comes_back_when_it_is_enabled() {
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary, STORE);
        let text = scene.done(&["disable", "app/m1", "--reason", "kernel"]);
        assert!(text.starts_with("app/m1: maint; in force in 1 of 1 instances\n"), "{text}");
        assert_eq!(servers(&scene.gateway)["m1"].1 & OUT, MAINTENANCE);
        let server = scene.server("m1");
        let ordered = &server["override"];
        assert_eq!(
            (&ordered["state"], &ordered["reason"], &ordered["by"], &ordered["until"]),
            (&json!("maint"), &json!("kernel"), &json!("local"), &Value::Null)
        );
        assert_eq!(
            (&server["from"], &server["instances"][0]["state"]),
            (&json!("source servers"), &json!("maint"))
        );
        assert_eq!(
            metric(&scene.mapsmith, "mapsmith_backend_server_overrides{backend=\"app\"}"),
            Some(1.0)
        );
        let shown = scene.done(&["list", "app"]);
        assert!(shown.contains("ordered: maint, by local"), "{shown}");
        let (_, status) = printed(&scene.mapsmith.cli(&["status"]));
        assert!(status.contains("m1: maint, by local"), "{status}");

        // Somebody else's hand, a restart of Mapsmith and one of HAProxy change nothing.
        scene.gateway.command("set server app/m1 state ready");
        scene.is("m1", MAINTENANCE);
        scene.mapsmith.kill();
        scene.gateway.command("set server app/m1 state ready");
        scene.mapsmith.restart();
        scene.is("m1", MAINTENANCE);
        scene.gateway.restart();
        scene.is("m1", MAINTENANCE);

        // The other one is the last that serves.
        scene.mapsmith.wait_for("m2 serves", BOUND, |_| {
            (scene.server("m2")["instances"][0]["up"] == true).then_some(())
        });
        let output = scene.mapsmith.cli(&["server", "drain", "app/m2"]);
        let complaint = complaints(&output);
        let why = "app/m2 stays in rotation: it is the last server of app that is ready in edge1";
        assert!(complaint.contains(why) && complaint.contains("409"), "{complaint}");
        assert_eq!(output.status.code(), Some(1));
        scene.done(&["drain", "app/m2", "--force"]);
        assert_eq!(servers(&scene.gateway)["m2"].1 & OUT, DRAIN);

        scene.done(&["enable", "app/m1"]);
        assert_eq!(servers(&scene.gateway)["m1"].1 & OUT, 0);
        scene.gateway.command("set server app/m1 state maint");
        scene.is("m1", 0);
        scene.done(&["reset", "app/m1"]);
        scene.done(&["reset", "app/m2"]);
        settles(&scene.gateway, &scene.mapsmith, &listed(&scene.masters));
        // From now on it is whoever's who takes it out.
        scene.gateway.command("set server app/m1 state maint");
        scene.mapsmith.wait_for("it is shown as somebody else's", BOUND, |mapsmith| {
            let (_, status) = mapsmith.get("/v1/status");
            let external = status["instances"][0]["servers"]["external"].to_string();
            external.contains("app/m1").then_some(())
        });
        let audit = scene.mapsmith.get("/v1/audit?target=backends/app/servers/m1").1;
        assert_eq!(audit["items"].as_array().map(Vec::len), Some(3), "{audit}");
    }
}

#[test]
fn an_order_ends_by_itself_also_where_mapsmith_does_not_run_then() {
    let mut scene = Scene::start(newest(), STORE);
    scene.done(&["disable", "app/m1", "--for", "1s"]);
    scene.is("m1", 0);
    scene.done(&["disable", "app/m1", "--for", "4s"]);
    let until: Timestamp =
        scene.server("m1")["override"]["until"].as_str().unwrap().parse().unwrap();
    scene.mapsmith.kill();
    assert_eq!(servers(&scene.gateway)["m1"].1 & OUT, MAINTENANCE);
    eventually("its time is over", BOUND, || (Timestamp::now() > until).then_some(()));
    scene.mapsmith.restart();
    scene.is("m1", 0);
    assert_eq!(scene.server("m1")["override"], Value::Null);
    // Whoever follows is told of both ends.
    let told = scene.mapsmith.get("/v1/activity?after=0&topics=override").1["items"].clone();
    let states: Vec<_> = told.as_array().expect("items").iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["set", "ended", "set", "ended"], "{told:#}");
}

#[test]
fn a_server_that_left_its_list_comes_back_as_it_was_ordered() {
    let scene = Scene::start(newest(), STORE);
    scene.done(&["weight", "app/m2", "7"]);
    assert_eq!(scene.server("m2")["instances"][0]["weight"], 7);
    scene.done(&["disable", "app/m2"]);
    let ordered = scene.server("m2")["override"].clone();
    assert_eq!((&ordered["state"], &ordered["weight"]), (&json!("maint"), &json!(7)));
    let first = &listed(&scene.masters)[..1];
    scene.pool.lists(first);
    settles(&scene.gateway, &scene.mapsmith, first);
    let gone = scene.server("m2");
    assert_eq!((&gone["dormant"], &gone["from"]), (&json!(true), &Value::Null));
    scene.pool.lists(&listed(&scene.masters));
    scene.is("m2", MAINTENANCE);
    scene.mapsmith.wait_for("m2 has its weight", BOUND, |_| {
        (scene.server("m2")["instances"][0]["weight"] == 7).then_some(())
    });
    scene.done(&["weight", "app/m2", "--reset"]);
    assert_eq!(scene.server("m2")["instances"][0]["weight"], 1);
    assert_eq!(scene.server("m2")["override"]["state"], "maint");
    // A server that only HAProxy has can be ordered, too.
    let address = scene.masters[0].address();
    scene.gateway.command(&format!("add server app/x {address};enable server app/x"));
    scene.done(&["drain", "app/x"]);
    assert_eq!(servers(&scene.gateway)["x"].1 & OUT, DRAIN);
    assert_eq!(scene.server("x")["from"], "haproxy");
    scene.done(&["reset", "app/x"]);
    assert_eq!(servers(&scene.gateway)["x"].1 & OUT, 0);
}

#[test]
fn what_can_not_be_done_to_a_server_is_refused_with_what_would_be_right() {
    let scene = Scene::start(newest(), STORE);
    let m1 = "/v1/backends/app/servers/m1";
    let maint = r#"{"state": "maint"}"#;
    let near = scene.refused("GET", "/v1/backends/ap", "", 404);
    assert_eq!(near, "\"ap\" is no backend here; did you mean app?");
    let near = scene.refused("PUT", "/v1/backends/app/servers/m11", maint, 404);
    assert!(near.ends_with("did you mean m1, m2?"), "{near}");
    assert!(scene.refused("DELETE", m1, "", 404).contains("app/m1 has no override"));
    for (path, body) in [
        (m1, "{}"),
        (m1, r#"{"state": "off"}"#),
        (m1, r#"{"weight": 257}"#),
        (m1, r#"{"state": "maint", "for": "0s"}"#),
        (m1, r#"{"state": "maint", "odd": 1}"#),
        ("/v1/backends/app/servers/m1%20x", maint),
        ("/v1/backends/app/servers/m1%0Ashow%20info", maint),
        ("/v1/backends/app/servers/m1?odd=1", maint),
    ] {
        scene.refused("PUT", path, body, 400);
    }
    let text = scene.done(&["disable", "app/m1", "--dry-run"]);
    assert!(text.starts_with("app/m1 would be: maint (now: as listed); nothing is changed"));
    assert_eq!(scene.server("m1")["override"], Value::Null);
    assert_eq!(servers(&scene.gateway)["m1"].1 & OUT, 0);

    let scene = Scene::start(newest(), "");
    let why = scene.refused("PUT", m1, maint, 409);
    assert!(why.starts_with("overrides of servers need a store"), "{why}");
}

#[test]
fn an_order_about_a_server_is_changed_as_it_was_seen() {
    let mut scene = Scene::start(newest(), STORE);
    let path = format!("/v1/backends/{BACKEND}/servers/m1");
    let value = |body: &str| serde_json::from_str::<Value>(body).unwrap_or_default();
    let maint = json!({"state": "maint", "reason": "kernel"}).to_string();
    let ask = |scene: &Scene, method: &str, condition: (&str, &str), body: &str| {
        scene.mapsmith.ask(method, &path, &[condition], body)
    };
    scene.refused("GET", &path, "", 404);
    assert_eq!(ask(&scene, "PUT", ("If-Match", "*"), &maint).status, 412, "nothing is ordered");
    assert_eq!(ask(&scene, "PUT", ("If-None-Match", "*"), &maint).status, 202);
    let seen = scene.mapsmith.ask("GET", &path, &[], "");
    assert_eq!(value(&seen.body)["reason"], "kernel", "{}", seen.body);
    let tag = seen.header("etag").expect("an ETag").to_owned();
    assert_eq!(ask(&scene, "GET", ("If-None-Match", &tag), "").status, 304);
    let weight = json!({"weight": 7}).to_string();
    assert_eq!(ask(&scene, "PUT", ("If-Match", &tag), &weight).status, 202);
    let late = ask(&scene, "DELETE", ("If-Match", &tag), "");
    assert_eq!((late.status, &value(&late.body)["current"]["weight"]), (412, &json!(7)));
    let required = ["MAPSMITH__API__REQUIRE_IF_MATCH=true"];
    scene.mapsmith.extra_variables(&required);
    scene.mapsmith.restart();
    scene.refused("DELETE", &path, "", 428);
    // The command line has just looked.
    let server = format!("{BACKEND}/m1");
    for words in [&["reset", &server][..], &["weight", &server, "9"]] {
        scene.done(words);
    }
}
