//! Nodes that are registered with Mapsmith itself: routed at once, kept over a restart, and only by
//! who may.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::haproxy::{Binary, Gateway};
use crate::support::http::Response;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, complaints, entries, gateway_settings, in_sync, map_file, memory,
    newest, nodes, oldest_and_newest, printed, reload, source_settings,
};

const KEPT: &str = "[[source]]\nname = \"registered\"\ntype = \"registrations\"\npriority = 10\n\
    [store]\npath = \"mapsmith.db\"\n[damping]\nhold = \"0s\"\n";
const TOKEN: &str = "s3cret-of-the-file";

struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

impl Scene {
    /// With a registry that names these nodes, and more settings.
    fn start(binary: &Binary, said: &[(String, String)], more: &str) -> Self {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&borrowed(said));
        let source = source_settings("registry", &registry.url());
        let config = Mapsmith::config(&format!(
            "{ON_REQUEST}{}{source}{KEPT}{more}",
            gateway_settings(&gateway)
        ));
        fs::write(config.directory().join("token"), TOKEN).unwrap();
        let mapsmith = config.start();
        let ready = |mapsmith: &Mapsmith| (mapsmith.get("/readyz").0 == 200).then_some(());
        mapsmith.wait_for("a map is in force", BOUND, ready);
        Self { gateway, registry, mapsmith }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let response = self.mapsmith.ask(method, path, &[], body);
        (response.status, parsed(&response))
    }

    /// Registers a node, and waits until it is in force.
    fn register(&self, node: &str, body: Value, expected: u16) -> Value {
        let path = format!("/v1/nodes/{node}?wait=60s&force=true");
        let (status, report) = self.ask("PUT", &path, &body.to_string());
        assert_eq!(status, expected, "{report:#}\n{}", self.mapsmith.log());
        assert_eq!((&report["outcome"], &report["stored"]), (&json!("in_sync"), &json!(true)));
        report
    }

    fn holds(&self, expected: &[(&str, &str)]) {
        let expected = entries(expected);
        assert_eq!(memory(&self.gateway), expected, "{}", self.mapsmith.log());
        assert_eq!(map_file(&self.gateway), expected);
    }
}

fn parsed(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_default()
}

fn detail(problem: &Value) -> &str {
    problem["detail"].as_str().unwrap_or_default()
}

fn good(output: &Output) -> String {
    let (code, text) = printed(output);
    assert_eq!(code, 0, "{text}{}", complaints(output));
    text
}

/// Who registered and unregistered nodes, and why.
fn is_in_the_history(scene: &Scene) {
    let kept = scene.mapsmith.get("/v1/revisions?limit=1").1["items"][0].clone();
    assert_eq!(
        (&kept["by"], &kept["reason"], &kept["sources"][0]),
        (&json!("local"), &json!("rack 7 is gone"), &json!("registered")),
        "{kept:#}"
    );
    let history = good(&scene.mapsmith.cli(&["history", "--limit", "9"]));
    for said in ["local (rack 7 is gone)", "local (rack 7)"] {
        assert!(history.contains(said), "{said}: {history}");
    }
}

#[test]
fn a_registered_node_is_routed_at_once_whatever_the_registry_says_and_after_a_crash() {
    for binary in oldest_and_newest() {
        let mut scene = Scene::start(binary, &nodes(300, "m1"), "");
        let asked = scene.registry.asked();
        scene.registry.hangs();
        let report = scene.register("NEW", json!({"master": "m2", "reason": "rack 7"}), 201);
        assert_eq!(
            (&report["node"], &report["registered"], &report["moved"]),
            (&json!("new"), &json!(1), &json!(0)),
            "{report:#}"
        );
        assert_eq!(
            report["message"],
            "node new is registered with m2; revision 2: 1 added, 0 moved, 0 removed; 1 of 1 \
                instances in sync"
        );
        let status = scene.mapsmith.get("/v1/status").1;
        assert_eq!(status["instances"][0]["last_apply"]["strategy"], "edits", "{status:#}");
        assert_eq!(scene.register("n000", json!({"master": "m2"}), 201)["moved"], 0);
        assert_eq!(scene.register("n000", json!({"master": "m3"}), 200)["moved"], 1);
        assert_eq!(scene.register("n000", json!({"master": "m3"}), 200)["unchanged"], 1);
        assert_eq!(scene.registry.asked(), asked, "no registry was asked for it");

        let explained = scene.mapsmith.get("/v1/nodes/n000").1;
        assert_eq!(explained["registration"]["master"], "m3", "{explained:#}");
        let said: Vec<_> = explained["sources"]
            .as_array()
            .expect("sources")
            .iter()
            .map(|said| (said["name"].clone(), said["master"].clone(), said["used"].clone()))
            .collect();
        let expected = [("registered", "m3", true), ("registry", "m1", false)];
        assert_eq!(
            said,
            expected.map(|(name, master, used)| (json!(name), json!(master), json!(used)))
        );
        let text = good(&scene.mapsmith.cli(&["explain", "new"]));
        let who = "registered with m2 by local ";
        assert!(
            text.contains(who) && text.contains("(rack 7), until it is unregistered"),
            "{text}"
        );

        let holds = |scene: &Scene| {
            let all = memory(&scene.gateway);
            let of = |node: &str| all.iter().find(|(name, _)| name == node).map(|(_, it)| &**it);
            let expected = (301, Some("m2"), Some("m3"), Some("m1"));
            assert_eq!((all.len(), of("new"), of("n000"), of("n001")), expected);
        };
        holds(&scene);
        // Before a registry has answered after the start the map file counts; then what is
        // registered is in the first map that is decided.
        scene.mapsmith.kill();
        scene.registry.knows(&borrowed(&nodes(300, "m1")));
        scene.mapsmith.restart();
        let status = in_sync(&scene.mapsmith);
        assert_eq!(status["revision"], 4, "{}", scene.mapsmith.log());
        let source = status["sources"].as_array().expect("sources")[0].clone();
        assert_eq!(
            (&source["type"], &source["entries"], &source["error"]),
            (&json!("registrations"), &json!(2), &Value::Null)
        );
        holds(&scene);

        let end = |path: &str| scene.ask("DELETE", path, "");
        assert_eq!(end("/v1/nodes/NEW?wait=60s&reason=rack%207%20is%20gone"), (204, Value::Null));
        is_in_the_history(&scene);
        assert_eq!(end("/v1/nodes/n000?wait=60s").0, 204);
        let (status, problem) = end("/v1/nodes/new");
        assert!(status == 404 && detail(&problem).contains("missing=ok"), "{problem}");
        assert_eq!(end("/v1/nodes/new?missing=ok").0, 204);
        assert_eq!(memory(&scene.gateway), nodes(300, "m1"), "{}", scene.mapsmith.log());
        assert_eq!(reload(&scene.mapsmith)["outcome"], "in_sync");
    }
}

#[test]
fn what_keeps_a_registered_node_elsewhere_is_told_at_once_and_in_words() {
    let first = Registry::start(&[("above", "m1")]);
    let above = source_settings("above", &first.url()) + "priority = 99\n";
    let mut scene = Scene::start(newest(), &nodes(3, "m1"), &above);
    let fine = scene.register("free", json!({"master": "m2"}), 201);
    assert_eq!((&fine["in_force"], &fine["elsewhere"]), (&json!(true), &Value::Null), "{fine:#}");
    let order = |method: &str, path: &str, body: &str| {
        let (status, report) = scene.ask(method, &format!("/v1/{path}?wait=60s&force=true"), body);
        assert_eq!(status, 200, "{report:#}");
    };
    order("PUT", "overrides/n000", "{\"master\": \"m1\", \"reason\": \"site 7\"}");
    order("PUT", "overrides/n001", "{\"absent\": true}");

    let expected = [
        ("above", "m2", Some("m1"), "source above names m1, and counts more"),
        ("n000", "m2", Some("m1"), "it is pinned to m1 by local (site 7)"),
        ("n001", "m2", None, "it is blocked by local: it is in no map"),
    ];
    let check = |report: &Value, (node, _, goes, why): (&str, &str, Option<&str>, &str)| {
        let elsewhere = json!([{"node": node, "master": goes, "why": why}]);
        assert_eq!(
            (&report["in_force"], &report["elsewhere"], &report["elsewhere_count"]),
            (&json!(false), &elsewhere, &json!(1)),
            "{report:#}"
        );
        let message = report["message"].as_str().unwrap_or_default();
        let goes = goes.unwrap_or("no master");
        let said = format!("; {node} goes to {goes} all the same: {why}");
        assert!(message.ends_with(&said), "{message}");
    };
    for case in &expected {
        let path = format!("/v1/nodes/{}?wait=60s&force=true", case.0);
        let (status, report) = scene.ask("PUT", &path, &json!({"master": case.1}).to_string());
        assert!(status == 200 || status == 201, "{report:#}");
        check(&report, *case);
        let explained = scene.mapsmith.get(&format!("/v1/nodes/{}", case.0)).1;
        let registration = &explained["registration"];
        assert_eq!(
            (&registration["in_force"], &registration["elsewhere"]["why"]),
            (&json!(false), &json!(case.3)),
            "{explained:#}"
        );
        let text = printed(&scene.mapsmith.cli(&["explain", case.0])).1;
        assert!(text.contains(&format!("not in force: {}", case.3)), "{text}");
    }
    let body = json!([{"node": "n000", "master": "m2"}, {"node": "n002", "master": "m2"}]);
    let (status, many) = scene.ask("POST", "/v1/nodes?wait=60s&force=true", &body.to_string());
    assert_eq!(
        (status, &many["in_force"], &many["elsewhere_count"]),
        (200, &json!(false), &json!(1))
    );

    // What comes to no instance is not waited for, though one can't be reached.
    scene.gateway.kill();
    let unreachable = |mapsmith: &Mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        (status["instances"][0]["state"] == "unreachable").then_some(())
    };
    scene.mapsmith.wait_for("the instance is missed", BOUND, unreachable);
    let pin = scene.ask("PUT", "/v1/overrides/n002?force=true", "{\"master\": \"m5\"}");
    assert_eq!(pin.0, 202, "what it misses: {:#}", pin.1);
    for query in ["?wait=10m&force=true", "?force=true"] {
        let (node, master) = (expected[0].0, "m3");
        let path = format!("/v1/nodes/{node}{query}");
        let (status, report) = scene.ask("PUT", &path, &json!({"master": master}).to_string());
        assert_eq!((status, &report["outcome"]), (200, &json!("requested")), "{report:#}");
        check(&report, expected[0]);
    }
}

#[test]
fn many_nodes_are_registered_together_or_not_at_all() {
    let scene = Scene::start(newest(), &nodes(2, "m1"), "");
    let post = |query: &str, body: &str| scene.ask("POST", &format!("/v1/nodes{query}"), body);
    let lines = "{\"node\": \"a\", \"master\": \"m1\"}\n{\"node\": \"n000\", \"master\": \"m1\"}\n";
    let (status, report) = post("?dry_run=true", lines);
    assert_eq!((status, &report["stored"], &report["registered"]), (200, &json!(false), &json!(2)));
    assert_eq!(
        report["message"],
        "would be: 2 registered, 0 moved, 0 unchanged; nothing is stored"
    );
    let (status, problem) = post("", &format!("{lines}{{\"node\": \"b\", \"master\": \"m8\"}}"));
    assert!(
        status == 409 && detail(&problem).contains("\"m8\" is not a known master"),
        "{problem}"
    );
    let (status, problem) = post("", &format!("{lines}{{\"node\": \"b c\", \"master\": \"m1\"}}"));
    assert!(status == 400 && detail(&problem).contains("node 3: \"b c\" is not"), "{problem}");
    scene.holds(&[("n000", "m1"), ("n001", "m1")]);

    let rows: Vec<_> =
        (0..5000).map(|number| json!({"node": format!("x{number:04}"), "master": "m2"})).collect();
    let (status, report) = post("?wait=60s&force=true&reason=site%207", &json!(rows).to_string());
    assert_eq!(
        (status, &report["registered"], &report["outcome"]),
        (200, &json!(5000), &json!("in_sync")),
        "{report:#}"
    );
    assert_eq!(memory(&scene.gateway).len(), 5002);
    let body = json!({"master": "m2"}).to_string();
    for (method, path, body) in
        [("PUT", "/v1/nodes/x0000?wait=60s", &*body), ("DELETE", "/v1/nodes/x0000?wait=60s", "")]
    {
        let answer = scene.mapsmith.ask(method, path, &[], body);
        assert!(answer.header("mapsmith-revision").is_some(), "{method}: {}", answer.body);
    }
    let one = scene.mapsmith.get("/v1/nodes/x4999").1;
    assert_eq!(one["registration"]["reason"], "site 7", "{one:#}");

    let rows = scene.mapsmith.wait_for("all is noted", BOUND, |mapsmith| {
        let all = mapsmith.get("/v1/audit?target=nodes").1["items"].as_array()?.clone();
        (all.len() >= 3 && all.iter().all(|row| row["status"].is_number())).then_some(all)
    });
    let mut noted: Vec<_> = rows.iter().filter_map(|row| row["status"].as_u64()).collect();
    noted.sort_unstable();
    assert_eq!(noted, [200, 400, 409], "a dry run is no change, and has no row");
    let done = rows.iter().find(|row| row["status"] == 200).expect("the one that was made");
    assert_eq!(done["reason"], "site 7");
}

#[test]
fn many_that_the_guard_holds_are_foretold_and_taken_back_together() {
    let guard = "[guard]\nmax_added = 50\nfree = 0\n";
    let scene = Scene::start(newest(), &nodes(20, "m1"), guard);
    let rows: Vec<_> = (0..200)
        .map(|number| json!({"node": format!("x{number:03}"), "master": "m1", "for": "2h"}))
        .collect();
    let body = json!(rows).to_string();
    let (status, report) = scene.ask("POST", "/v1/nodes?dry_run=true", &body);
    let message = report["message"].as_str().unwrap_or_default();
    let words = "would be: 200 registered, 0 moved, 0 unchanged; the guard would hold the map";
    assert!(status == 200 && message.starts_with(words), "{report:#}");
    assert!(report["would_hold"].as_str().is_some_and(|it| it.contains("added")), "{report:#}");
    let few = json!(rows[..5]).to_string();
    let (_, report) = scene.ask("POST", "/v1/nodes?dry_run=true", &few);
    assert!(report["would_hold"].is_null(), "{report:#}");

    let (status, problem) = scene.ask("POST", "/v1/nodes?wait=60s", &body);
    assert_eq!((status, &problem["report"]["outcome"]), (409, &json!("held")), "{problem:#}");
    // The same body ends what it began, and nobody else's nodes wait for it any more.
    let (status, report) = scene.ask("DELETE", "/v1/nodes?dry_run=true", &body);
    assert_eq!((status, &report["unregistered"]), (200, &json!(200)), "{report:#}");
    let (status, report) = scene.ask("DELETE", "/v1/nodes?wait=60s&reason=too%20many", &body);
    assert_eq!(
        (status, &report["unregistered"], &report["outcome"]),
        (200, &json!(200), &json!("in_sync")),
        "{report:#}"
    );
    assert_eq!(scene.mapsmith.get("/v1/held").1, json!([]));
    scene.register("y000", json!({"master": "m1"}), 201);
    assert_eq!(memory(&scene.gateway).len(), 21);

    let (status, problem) =
        scene.ask("DELETE", "/v1/nodes", "[{\"node\": \"y000\"}, {\"node\": \"z\"}]");
    assert!(status == 404 && detail(&problem).contains("node z is not registered"), "{problem:#}");
    assert_eq!(scene.ask("DELETE", "/v1/nodes", "").0, 400, "a body that was lost ends nothing");
    let held = scene.mapsmith.get("/v1/nodes/y000").1;
    assert!(held["registration"].is_object(), "all of them or none: {held:#}");
    let rows = scene.mapsmith.get("/v1/audit?target=nodes").1["items"].clone();
    let done = rows.as_array().expect("rows").iter().find(|row| row["reason"] == "too many");
    assert_eq!(done.expect("the end has a row")["status"], 200, "{rows:#}");
}

#[test]
fn a_registration_ends_by_itself_and_that_many_end_at_once_is_the_guards_case() {
    let scene = Scene::start(newest(), &nodes(1, "m1"), "");
    let row = |(node, master): (&str, &str)| json!({"node": node, "master": master});
    let rows: Vec<_> = borrowed(&nodes(41, "m1")[1..]).into_iter().map(row).collect();
    let body = json!(rows).to_string();
    assert_eq!(scene.ask("POST", "/v1/nodes?wait=60s&force=true", &body).0, 200);
    let (status, report) =
        scene.ask("PUT", "/v1/nodes/n001?wait=60s", "{\"master\": \"m1\", \"for\": \"1s\"}");
    assert!(status == 200 && report["until"].is_string(), "{report:#}");
    scene.mapsmith.wait_for("the node is gone", BOUND, |_| {
        (memory(&scene.gateway).len() == 40).then_some(())
    });
    let rows = scene.mapsmith.get("/v1/audit?target=nodes/n001").1;
    assert_eq!(rows["items"][0]["actor"]["kind"], "clock", "{rows:#}");

    let short: Vec<_> = nodes(41, "m1")[2..32]
        .iter()
        .map(|(node, master)| json!({"node": node, "master": master, "for": "1s"}))
        .collect();
    assert_eq!(scene.ask("POST", "/v1/nodes", &json!(short).to_string()).0, 200);
    let held = scene.mapsmith.wait_for("the guard holds their end", BOUND, |mapsmith| {
        mapsmith.get("/v1/held").1[0]["removed"].as_u64()
    });
    assert_eq!((held, memory(&scene.gateway).len()), (30, 40));
    let (status, problem) = scene.ask("DELETE", "/v1/nodes/n035?wait=60s", "");
    assert!(status == 409 && detail(&problem).contains("held back by the guard"), "{problem:#}");
    assert_eq!(problem["report"]["outcome"], "held");
}

#[test]
fn who_has_a_grant_for_a_master_registers_nodes_of_that_one_alone() {
    let api = "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
    let scene = Scene::start(newest(), &nodes(2, "m1"), api);
    let ask = |token: &str, method: &str, path: &str, body: &str| {
        let bearer = format!("Bearer {token}");
        let response = scene.mapsmith.ask(method, path, &[("Authorization", &bearer)], body);
        (response.status, parsed(&response))
    };
    let token = |role: &str| {
        let name = format!("m2-{role}");
        let body = json!({"name": name, "role": role, "grants": ["node:m2"]}).to_string();
        let (status, made) = ask(TOKEN, "POST", "/v1/tokens", &body);
        assert_eq!(status, 201, "{made}");
        made["token"].as_str().expect("a token").to_owned()
    };
    let (machine, viewer) = (token("none"), token("viewer"));
    let put = |token: &str, node: &str, master: &str| {
        let body = json!({"master": master}).to_string();
        ask(token, "PUT", &format!("/v1/nodes/{node}?wait=60s"), &body)
    };
    let (status, report) = put(&machine, "a", "m2");
    assert_eq!((status, &report["outcome"]), (201, &json!("in_sync")), "{report:#}");
    assert_eq!(put(&viewer, "n000", "m2").0, 201, "a node comes to it");
    assert_eq!(put(TOKEN, "b", "m1").0, 201);
    for (method, path, body) in [
        ("PUT", "/v1/nodes/c", "{\"master\": \"m1\"}"),
        ("DELETE", "/v1/nodes/b", ""),
        ("DELETE", "/v1/nodes/b?dry_run=true", ""),
        ("POST", "/v1/nodes", "[{\"node\": \"c\", \"master\": \"m2\"}]"),
        ("PUT", "/v1/overrides/c", "{\"master\": \"m2\"}"),
        ("PUT", "/v1/nodes/a/owner", "{\"master\": \"m2\"}"),
        ("POST", "/v1/masters/m1/drain", ""),
        ("GET", "/v1/nodes/a", ""),
    ] {
        let (status, problem) = ask(&machine, method, path, body);
        assert_eq!(status, 403, "{method} {path}: {problem}");
    }
    assert_eq!(ask(&viewer, "GET", "/v1/nodes/a", "").0, 200, "its role is what it was");
    assert_eq!(ask(&machine, "DELETE", "/v1/nodes/a?wait=60s", "").0, 204);
    assert_eq!(ask(&machine, "DELETE", "/v1/nodes/x", "").0, 404);
    scene.holds(&[("b", "m1"), ("n000", "m2"), ("n001", "m1")]);
    let (_, rows) = ask(TOKEN, "GET", "/v1/audit?target=nodes/n000", "");
    assert_eq!(rows["items"][0]["actor"]["name"], "m2-viewer", "{rows:#}");
}

#[test]
fn the_command_line_registers_nodes_and_sees_them_without_a_daemon() {
    let mut scene = Scene::start(newest(), &nodes(2, "m1"), "");
    let cli = |arguments: &[&str]| scene.mapsmith.cli(arguments);
    let dry = good(&cli(&["register", "a", "m1", "--dry-run"]));
    assert_eq!(dry, "node a would be registered with m1; nothing is stored\n");
    let unknown = cli(&["register", "a", "m7"]);
    assert!(complaints(&unknown).contains("is not a known master"), "{}", complaints(&unknown));
    let done = good(&cli(&["register", "a", "m7", "--force", "--for", "2h", "--reason", "spare"]));
    assert!(done.starts_with("node a is registered with m7 until 20"), "{done}");
    let file = scene.mapsmith.configuration().directory().join("nodes.ndjson");
    let path = file.to_str().expect("a name");
    fs::write(
        &file,
        "{\"node\": \"b\", \"master\": \"m1\"}\n\n{\"node\": \"a\", \"master\": \"m1\"}\n",
    )
    .unwrap();
    let done = good(&cli(&["register", "--file", path]));
    assert!(done.starts_with("1 registered, 1 moved, 0 unchanged; revision 3:"), "{done}");
    let json = printed(&cli(&["register", "b", "m1", "--output", "json"])).1;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["unchanged"], &json["outcome"]), (&json!(1), &json!("in_sync")));
    fs::write(&file, "{\"node\": \"b\"}\n{").unwrap();
    let wrong = cli(&["register", "--file", path]);
    assert!(
        complaints(&wrong).contains("nodes.ndjson, line 2: not JSON"),
        "{}",
        complaints(&wrong)
    );
    assert_eq!(cli(&["register", "a"]).status.code(), Some(2));

    // What reads the store beside the daemon sees the same.
    let checked = printed(&scene.mapsmith.configuration().cli(&["check"])).1;
    assert!(checked.contains("source registered: answers with 2 entries"), "{checked}");
    assert_eq!(good(&cli(&["unregister", "a"])), "node a is no longer registered\n");
    fs::write(
        &file,
        "{\"node\": \"c\", \"master\": \"m1\"}\n{\"node\": \"d\", \"master\": \"m1\"}\n",
    )
    .unwrap();
    good(&cli(&["register", "--file", path]));
    let dry = good(&cli(&["unregister", "c", "d", "--dry-run"]));
    assert_eq!(dry, "would be: 2 no longer registered; nothing is stored\n");
    let done = good(&cli(&["unregister", "--file", path]));
    assert!(done.starts_with("2 no longer registered; revision "), "{done}");
    assert_eq!(cli(&["unregister"]).status.code(), Some(2));
    let gone = cli(&["unregister", "a"]);
    assert!(complaints(&gone).contains("--missing-ok"), "{}", complaints(&gone));
    let gone = good(&cli(&["unregister", "a", "--missing-ok"]));
    assert_eq!(gone, "node a is not registered\n");
    scene.holds(&[("b", "m1"), ("n000", "m1"), ("n001", "m1")]);
    scene.mapsmith.sigterm();
    let plan = printed(&scene.mapsmith.configuration().cli(&["plan"])).1;
    assert!(plan.contains("nothing to do"), "{plan}");
}

#[test]
fn without_a_source_of_them_nothing_is_registered_and_it_says_what_to_do() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("n000", "m1")]);
    let source = source_settings("registry", &registry.url());
    let settings = format!("{ON_REQUEST}{}{source}", gateway_settings(&gateway));
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    let response = mapsmith.ask("PUT", "/v1/nodes/a", &[], "{\"master\": \"m1\"}");
    assert_eq!(response.status, 409, "{}", response.body);
    let problem = parsed(&response);
    assert!(detail(&problem).contains("type \"registrations\""), "{problem}");
}
