//! A revision that goes to one instance first: everywhere else, and in the map file, is what was
//! there, whatever ends meanwhile.

use serde_json::{Value, json};

use crate::documented;
use crate::support::haproxy::Gateway;
use crate::support::http::Response;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, complaints, in_sync, instance_settings, map_file, memory, metric,
    newest, nodes, oldest_and_newest, printed, reload, source_settings,
};

const PIN: &str = "{\"master\": \"m2\"}";

/// Two gateways of one map file.
struct Edges {
    edge1: Gateway,
    edge2: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

impl Edges {
    /// With what was said at revision 1 and then.
    fn start(first: &[(String, String)], then: &[(String, String)]) -> Self {
        let edge1 = Gateway::plan(oldest_and_newest()[0]).start();
        let edge2 = Gateway::plan(newest()).map_of(&edge1).start();
        let registry = Registry::start(&borrowed(first));
        let settings = ON_REQUEST.to_owned()
            + &format!("[map]\npath = {:?}\n", edge1.map_path())
            + &source_settings("registry", &registry.url())
            + &instance_settings("edge1", &edge1.runtime_address())
            + &instance_settings("edge2", &edge2.runtime_address())
            + "[store]\npath = \"mapsmith.db\"\n";
        let mapsmith = Mapsmith::config(&settings).start();
        in_sync(&mapsmith);
        let edges = Self { edge1, edge2, registry, mapsmith };
        edges.says(then);
        edges
    }

    fn says(&self, nodes: &[(String, String)]) {
        self.registry.knows(&borrowed(nodes));
        self.mapsmith.post("/v1/reload?wait=60s");
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.mapsmith.get(path);
        assert_eq!(status, 200, "{path}: {body:#}\n{}", self.mapsmith.log());
        body
    }

    /// Orders something of the rollout as it stands then: it may go on by itself meanwhile.
    fn order(&self, path: &str) {
        self.mapsmith.wait_for(path, BOUND, |_| {
            let version = self.rollout()["version"].as_u64().expect("a number");
            let answer = self.ask(path, version, &json!({}));
            assert!([202, 412].contains(&answer.status), "{path}: {}", answer.body);
            (answer.status == 202).then_some(())
        });
    }

    fn ask(&self, path: &str, tag: u64, body: &Value) -> Response {
        let tag = format!("\"{tag:x}\"");
        self.mapsmith.ask("POST", path, &[("If-Match", &tag)], &body.to_string())
    }

    /// Begins the canary of a rollback to revision 1 in edge1.
    fn begin(&self, in_force: u64, canary: Value) -> Value {
        let body = json!({"reason": "site 7", "canary": canary});
        let begun = self.ask("/v1/revisions/1/rollback?wait=60s", in_force, &body);
        value(&begun, 200)
    }

    fn rollout(&self) -> Value {
        self.get("/v1/rollouts")["items"][0].clone()
    }

    /// Waits for it.
    fn comes_to(&self, state: &str) -> Value {
        self.mapsmith.wait_for(&format!("the rollout is {state}"), BOUND, |mapsmith| {
            let rollout = mapsmith.get("/v1/rollouts").1["items"][0].clone();
            (rollout["state"] == state).then_some(rollout)
        })
    }

    /// What edge1 holds, then edge2, then what a restart loads.
    #[track_caller]
    fn hold(&self, expected: [usize; 3]) {
        let held = self.mapsmith.wait_for("what each should hold", BOUND, |_| {
            let held = [memory(&self.edge1), memory(&self.edge2), map_file(&self.edge1)];
            let held = held.map(|map| map.len());
            (held == expected).then_some(held)
        });
        assert_eq!(held, expected);
    }
}

#[track_caller]
fn value(response: &Response, expected: u16) -> Value {
    assert_eq!(response.status, expected, "{}", response.body);
    serde_json::from_str(&response.body).expect("JSON")
}

#[test]
fn a_canary_is_in_its_instance_alone_over_restarts_until_it_is_aborted() {
    let mut edges = Edges::start(&nodes(3, "m1"), &nodes(4, "m1"));
    let refused = [
        json!({"instances": ["edge9"]}),
        json!({"instances": ["edge1", "edge2"]}),
        json!({"share": "100%"}),
        json!({"instances": ["edge1"], "bake": "0s"}),
        json!({"instance": ["edge1"]}),
    ];
    for canary in refused {
        let answer = edges.ask("/v1/revisions/1/rollback", 2, &json!({"canary": canary}));
        assert_eq!(answer.status, 400, "{canary}: {}", answer.body);
    }
    let begun = edges.begin(2, json!({"share": "10%", "bake": "1h", "then": "wait"}));
    assert_eq!(
        (&begun["rollout"]["id"], &begun["rollout"]["instances"], &begun["hold"]),
        (&json!("r3"), &json!(["edge1"]), &Value::Null),
        "{begun:#}"
    );
    edges.hold([3, 4, 4]);
    edges.comes_to("baking");
    let (_, plan) = printed(&edges.mapsmith.configuration().cli(&["plan"]));
    assert!(plan.contains("r3 is tried in edge1 first, and what the sources say waits"), "{plan}");
    assert_eq!(edges.get("/v1/hold")["hold"], Value::Null);
    for verb in ["promote", "abort"] {
        let other = complaints(&edges.mapsmith.cli(&["rollout", verb, "--id", "r1"]));
        assert!(other.contains("r3 is the current one, and not r1"), "{other}");
    }
    let again = edges.ask("/v1/revisions/1/rollback", 2, &json!({"replace": true}));
    assert!(value(&again, 409)["detail"].to_string().contains("promote or abort it first"));

    // What the sources say waits; who restarts comes back to the same.
    edges.says(&nodes(5, "m1"));
    assert_eq!(edges.rollout()["waiting"]["added"], 1);
    edges.hold([3, 4, 4]);
    edges.edge1.restart();
    edges.hold([3, 4, 4]);
    edges.mapsmith.kill();
    edges.edge2.restart();
    edges.mapsmith.restart();
    edges.hold([3, 4, 4]);
    let baking = edges.comes_to("baking");
    assert_eq!(baking["revision"], 3, "{baking:#}");
    reload(&edges.mapsmith);
    let drift = edges.edge1.command(&format!("del map {} n000", edges.edge1.map_path()));
    assert!(drift.trim().is_empty(), "{drift}");
    edges.hold([3, 4, 4]);

    let (code, shown) = printed(&edges.mapsmith.cli(&["rollout"]));
    assert!(
        code == 0 && shown.contains("r3 baking") && shown.contains("1 change waits"),
        "{shown}"
    );
    let (_, shown) = printed(&edges.mapsmith.cli(&["status"]));
    assert!(shown.contains("bakes in edge1") && shown.contains("(site 7)"), "{shown}");
    let (_, shown) = printed(&edges.mapsmith.cli(&["explain", "n003"]));
    assert!(shown.contains("(it has the canary r3)") && !shown.contains("not what it should"));
    assert_eq!(metric(&edges.mapsmith, "mapsmith_rollout_open"), Some(1.0));

    let unseen = edges.mapsmith.ask("POST", "/v1/rollouts/r3/abort", &[], "");
    assert_eq!(unseen.status, 428, "{}", unseen.body);
    assert_eq!(edges.ask("/v1/rollouts/r3/abort", 999, &json!({})).status, 412);
    assert_eq!(edges.ask("/v1/rollouts/r9/abort", 1, &json!({})).status, 404);
    let (code, shown) = printed(&edges.mapsmith.cli(&["rollout", "abort", "--dry-run"]));
    assert!(code == 0 && shown.contains("nothing is changed"), "{shown}");
    let (code, shown) = printed(&edges.mapsmith.cli(&["rollout", "abort", "--reason", "errors"]));
    assert!(code == 0 && shown.starts_with("the rollout r3 is aborted"), "{shown}");
    // What waited comes the ordinary way.
    edges.hold([5, 5, 5]);
    let aborted = edges.rollout();
    assert_eq!((&aborted["state"], &aborted["can"]), (&json!("aborted"), &json!([])));
    assert_eq!(aborted["aborted"]["reason"], "errors");
    // Its number was no map's that was in force, and the next one comes after it.
    let pinned = edges.mapsmith.ask("PUT", "/v1/overrides/n000?wait=60s&force=true", &[], PIN);
    assert_eq!(pinned.status, 200, "{}", pinned.body);
    let in_force = edges.get("/v1/status")["revision"].to_string();
    let told = edges.mapsmith.wait_for("the map in force is told of", BOUND, |mapsmith| {
        let page = mapsmith.get("/v1/activity?after=0&topics=revision&limit=1000").1;
        let told = page["items"].as_array()?.iter().map(|it| it["subject"].as_str());
        let told = told.collect::<Option<Vec<_>>>()?.join(" ");
        told.ends_with(&in_force).then_some(told)
    });
    for number in told.split(' ') {
        edges.get(&format!("/v1/revisions/{number}"));
    }
    edges.mapsmith.ask("DELETE", "/v1/overrides/n000?wait=60s", &[], "");
    let late = edges.ask("/v1/rollouts/r3/promote", 1, &json!({}));
    assert_eq!(late.status, 409, "{}", late.body);
    let events = edges.get("/v1/activity?limit=100").to_string();
    assert!(events.contains("\"rollout\"") && events.contains("aborted"), "{events}");
    let audit = edges.get("/v1/audit?limit=20").to_string();
    assert!(audit.contains("/v1/rollouts/{id}/abort"), "{audit}");
}

#[test]
fn a_canary_that_has_baked_goes_everywhere_and_can_still_be_taken_back() {
    let edges = Edges::start(&nodes(3, "m1"), &nodes(4, "m1"));
    edges.begin(2, json!({"instances": ["edge1"], "bake": "1s"}));
    edges.hold([3, 3, 3]);
    let done = edges.comes_to("in_force");
    assert_eq!(
        (&done["in_force"], &done["promoted"]["reason"]),
        (&json!(3), &json!("it has baked"))
    );
    let hold = edges.get("/v1/hold")["hold"].clone();
    assert_eq!(
        (&hold["of"], &hold["revision"], &hold["reason"]),
        (&json!(1), &json!(3), &json!("site 7"))
    );
    let kept = edges.get("/v1/revisions/3");
    assert_eq!((&kept["kind"], &kept["reason"]), (&json!("rollback"), &json!("site 7")));
    let attention = edges.get("/v1/attention").to_string();
    assert!(attention.contains("\"hold\"") && attention.contains("holds the sources back until"));
    assert_eq!(edges.mapsmith.ask("DELETE", "/v1/hold?wait=60s", &[], "").status, 200);
    edges.hold([4, 4, 4]);
}

#[test]
fn a_promotion_waits_for_no_instance_and_an_abort_takes_back_what_is_in_force() {
    let mut edges = Edges::start(&nodes(40, "m1"), &nodes(40, "m2"));
    let held =
        |mapsmith: &Mapsmith| mapsmith.get("/v1/held").1[0]["id"].as_str().map(str::to_owned);
    let held_id = edges.mapsmith.wait_for("a held change", BOUND, held);
    let approve = ["approve", &held_id, "--canary", "edge1", "--bake", "1h", "--reason", "true"];
    let (code, shown) = printed(&edges.mapsmith.cli(&approve));
    assert!(code == 0 && shown.contains("edge1"), "{shown}");
    let (old, new) = (nodes(40, "m1"), nodes(40, "m2"));
    edges.mapsmith.wait_for("the canary", BOUND, |_| (memory(&edges.edge1) == new).then_some(()));
    assert_eq!((memory(&edges.edge2), map_file(&edges.edge1)), (old.clone(), old.clone()));
    edges.edge2.kill();
    let id = edges.rollout()["id"].as_str().expect("an id").to_owned();
    edges.order(&format!("/v1/rollouts/{id}/promote"));
    assert_eq!(map_file(&edges.edge1), new, "a restart loads it from now on");
    assert_eq!(edges.rollout()["state"], "promoting");
    edges.mapsmith.kill();
    edges.mapsmith.restart();
    edges.comes_to("promoting");
    let kept = edges.get("/v1/revisions/2");
    assert_eq!(
        (&kept["kind"], &kept["reason"], &kept["by"]),
        (&json!("approve"), &json!("true"), &json!("local"))
    );
    edges.order(&format!("/v1/rollouts/{id}/abort"));
    assert_eq!(edges.rollout()["state"], "aborted", "it ends, whoever is down");
    assert_eq!(map_file(&edges.edge1), old);
    edges.edge2.restart();
    for gateway in [&edges.edge1, &edges.edge2] {
        edges.mapsmith.wait_for("stable", BOUND, |_| (memory(gateway) == old).then_some(()));
    }
    let again = edges.mapsmith.wait_for("it is held again", BOUND, held);
    assert_eq!(again, held_id);
}

#[test]
fn each_command_of_the_documents_rollouts_does_what_it_says() {
    let edges = Edges::start(&nodes(30, "m1"), &nodes(31, "m1"));
    let folder = tempfile::tempdir().expect("a folder");
    let document = documented::document();
    let [block] = documented::blocks(&document, "### Rollouts")[..] else {
        panic!("the section has one block of commands");
    };
    let whole = block.replace("\\\n", "");
    let [begin, approve, look, promote, abort, list] = whole.lines().collect::<Vec<_>>()[..] else {
        panic!("there are six commands: {whole}");
    };
    let run = |command: &str| {
        let revision = edges.get("/v1/status")["revision"].as_u64().expect("a number");
        let rollout = edges.rollout();
        let held = edges.get("/v1/held")[0]["id"].clone();
        let version = rollout["version"].as_u64().unwrap_or_default();
        let here = command
            .replace("127.0.0.1:7070", &edges.mapsmith.address().to_string())
            .replace("/1038/", "/1/")
            .replace("\"412\"", &format!("\"{revision:x}\""))
            .replace("r1043", rollout["id"].as_str().unwrap_or_default())
            .replace("\"3\"", &format!("\"{version:x}\""))
            .replace("5f0c1d2e3a4b5c6d", held.as_str().unwrap_or_default());
        documented::run(&here, folder.path(), || edges.mapsmith.log());
    };
    run(begin);
    edges.comes_to("baking");
    run(look);
    run(promote);
    edges.comes_to("in_force");
    assert_eq!(printed(&edges.mapsmith.cli(&["resume"])).0, 0, "{}", edges.mapsmith.log());
    edges.says(&nodes(10, "m1"));
    run(approve);
    edges.comes_to("baking");
    run(abort);
    edges.comes_to("aborted");
    run(list);
}
