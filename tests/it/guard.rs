//! A registry in trouble never reaches HAProxy: what is held back, what lets it through, and what
//! counts as in force at a start.

use std::fs;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, complaints, entries, gateway_settings, in_sync, map_file, memory,
    metric, newest, nodes, oldest_and_newest, printed, reload, source_settings,
};

/// Enough that the guard's shares apply.
const NODES: usize = 40;

fn config(gateway: &Gateway, registry: &Registry, more: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}{more}", gateway_settings(gateway)))
}

/// A gateway in sync with a registry of [`NODES`] nodes of `m1`.
struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

/// What must not change while something is refused.
#[derive(Debug, PartialEq)]
struct Kept {
    memory: Vec<(String, String)>,
    file: Vec<u8>,
    revision: Value,
}

impl Scene {
    fn start(binary: &crate::support::haproxy::Binary, more: &str) -> Self {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&borrowed(&nodes(NODES, "m1")));
        let mapsmith = config(&gateway, &registry, more).start();
        in_sync(&mapsmith);
        assert_eq!(memory(&gateway), nodes(NODES, "m1"));
        Self { gateway, registry, mapsmith }
    }

    fn kept(&self) -> Kept {
        Kept {
            memory: memory(&self.gateway),
            file: fs::read(self.gateway.map_path()).expect("the map file is there"),
            revision: self.mapsmith.get("/v1/status").1["revision"].clone(),
        }
    }

    /// Reloads, which must be answered with the HTTP status, and gives the problem.
    fn refused_reload(&self, expected: u16) -> Value {
        let (status, problem) = self.mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, expected, "{problem:#}\n{}", self.mapsmith.log());
        problem
    }

    /// Has the registry say something that the guard holds, and gives the held change.
    fn held(&self) -> Value {
        self.refused_reload(409);
        let held = self.mapsmith.get("/v1/held").1[0].clone();
        assert!(held["id"].is_string() && held["of"] == "map", "nothing is held: {held}");
        held
    }
}

#[test]
fn a_change_that_is_held_does_not_hide_that_the_source_fails_since() {
    let scene = Scene::start(newest(), "");
    scene.registry.knows(&[]);
    let id = scene.held()["id"].as_str().expect("an id").to_owned();
    for (status, body, words) in [(500, "down", "failed (500)"), (200, "<html>", "no JSON")] {
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
    ("a page", "<html><title>Gateway Timeout</title></html>", "no JSON"),
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

/// A change that the guard must hold.
struct Upheaval {
    what: &'static str,
    nodes: Vec<(String, String)>,
    /// What its reason must say.
    words: [&'static str; 2],
}

fn upheavals() -> [Upheaval; 3] {
    let mut most_moved = nodes(NODES, "m1");
    most_moved.iter_mut().take(21).for_each(|(_, master)| *master = "m2".to_owned());
    let upheaval = |what, nodes, words| Upheaval { what, nodes, words };
    [
        upheaval("no node at all", Vec::new(), ["the new map has 0 entries", "guard.min_entries"]),
        upheaval(
            "too few nodes",
            nodes(31, "m1"),
            ["remove 9 of the 40 entries in force (22.5%)", "guard.max_removed allows 20%"],
        ),
        upheaval(
            "too many moves",
            most_moved,
            ["move 21 of the 40 entries in force (52.5%)", "guard.max_moved allows 50%"],
        ),
    ]
}

#[test]
fn an_upheaval_is_held_back_with_reason_and_figures_in_status_log_and_metrics() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, "");
        let before = scene.kept();
        for (number, Upheaval { what, nodes: upheaval, words }) in (1..).zip(upheavals()) {
            scene.registry.knows(&borrowed(&upheaval));
            let problem = scene.refused_reload(409);
            assert_eq!(scene.kept(), before, "{what} changed something");
            let held = scene.mapsmith.get("/v1/status").1["held"][0].clone();
            for text in [&held["reason"], &problem["detail"]] {
                let text = text.as_str().unwrap_or_default();
                assert!(words.iter().all(|word| text.contains(word)), "{what}: {text}");
            }
            assert_eq!(
                (&held["entries_in_force"], &held["entries_held"]),
                (&json!(NODES), &json!(upheaval.len())),
                "{held:#}"
            );
            assert_eq!(scene.mapsmith.get("/v1/held").1, json!([held]));
            let log = scene.mapsmith.log();
            assert!(
                log.lines()
                    .any(|line| line.contains("held back by the guard") && line.contains(words[0])),
                "{what}: {log}"
            );
            assert_eq!(metric(&scene.mapsmith, "mapsmith_guard_held"), Some(1.0), "{what}");
            // The same answer again is the same hold.
            scene.held();
            assert_eq!(
                metric(&scene.mapsmith, "mapsmith_guard_holds_total"),
                Some(f64::from(number)),
                "{what}"
            );
            scene.registry.knows(&borrowed(&nodes(NODES, "m1")));
            reload(&scene.mapsmith);
        }
    }
}

#[test]
fn the_settings_limits_are_the_ones_that_hold() {
    let scene = Scene::start(newest(), "[guard]\nmax_removed = 2\nmax_moved = \"100%\"\n");
    scene.registry.knows(&borrowed(&nodes(NODES, "m2")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(NODES - 2, "m2")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(NODES - 5, "m2")));
    let held = scene.held();
    assert!(
        held["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("guard.max_removed allows 2 entries")),
        "{held:#}"
    );
    assert_eq!(memory(&scene.gateway), nodes(NODES - 2, "m2"));
}

#[test]
fn a_registry_that_grows_beyond_measure_is_held_and_its_way_back_never_is() {
    let scene = Scene::start(newest(), "[guard]\nfree = 100\n");
    scene.registry.knows(&borrowed(&nodes(99, "m1")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(400, "m1")));
    let held = scene.held();
    let reason = held["reason"].as_str().expect("a reason");
    assert!(reason.contains("add 301 to the 99 entries in force, 360 of 99 within 1h"), "{reason}");
    let (code, text) =
        printed(&scene.mapsmith.cli(&["approve", held["id"].as_str().expect("an id")]));
    assert_eq!(code, 0, "{text}");
    for back in [99, 40] {
        scene.registry.knows(&borrowed(&nodes(back, "m1")));
        reload(&scene.mapsmith);
        assert_eq!(memory(&scene.gateway), nodes(back, "m1"));
    }
}

#[test]
fn more_entries_than_the_settings_allow_are_held_at_the_first_start_too() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&borrowed(&nodes(NODES + 1, "m1")));
    let mapsmith = config(&gateway, &registry, "[guard]\nmax_entries = 40\n").start();
    let held = mapsmith.wait_for("the answer is held", BOUND, |mapsmith| {
        let held = mapsmith.get("/v1/held").1[0].clone();
        held["id"].is_string().then_some(held)
    });
    assert_eq!(held["reason"], "the new map has 41 entries, guard.max_entries allows 40");
    assert_eq!(memory(&gateway), []);
    registry.knows(&borrowed(&nodes(NODES, "m1")));
    reload(&mapsmith);
    assert_eq!(memory(&gateway), nodes(NODES, "m1"));
}

#[test]
fn a_registry_that_loses_a_fifth_at_each_poll_is_held_at_the_second() {
    let scene = Scene::start(newest(), "");
    scene.registry.knows(&borrowed(&nodes(32, "m1")));
    reload(&scene.mapsmith);
    scene.registry.knows(&borrowed(&nodes(26, "m1")));
    let held = scene.held();
    let reason = held["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("remove 6 of the 32 entries in force, 14 of 40 within 1h (35.0%)"),
        "{reason}"
    );
    assert_eq!(memory(&scene.gateway), nodes(32, "m1"));
    scene.registry.knows(&borrowed(&nodes(NODES, "m1")));
    reload(&scene.mapsmith);
    assert_eq!(memory(&scene.gateway), nodes(NODES, "m1"), "the way back is free");
}

#[test]
fn a_map_of_which_no_key_is_left_is_held_at_any_size() {
    for count in [1, 3] {
        let gateway = gateway_with(count);
        let other: Vec<_> =
            (0..count).map(|node| (format!("other{node}"), "m1".to_owned())).collect();
        let registry = Registry::start(&borrowed(&other));
        let mapsmith = config(&gateway, &registry, "").start();
        let held = mapsmith.wait_for("the first answer is held", BOUND, |mapsmith| {
            let held = mapsmith.get("/v1/held").1[0].clone();
            held["id"].is_string().then_some(held)
        });
        let words = format!("replace every key of the {count} entries in force");
        assert!(held["reason"].as_str().is_some_and(|reason| reason.contains(&words)), "{held:#}");
        assert_eq!(memory(&gateway), nodes(count, "m1"));
        registry.knows(&borrowed(&nodes(count, "m2")));
        reload(&mapsmith);
        assert_eq!(memory(&gateway), nodes(count, "m2"));
    }
}

#[test]
fn a_node_that_flaps_stays_where_it_is_until_it_has_been_still() {
    // Longer than a crowded machine takes from the last change to the last question below.
    let scene = Scene::start(newest(), "[damping]\nhold = \"20s\"\n");
    let with = |master: &str| {
        let mut nodes = nodes(NODES, "m1");
        nodes[7].1 = master.to_owned();
        nodes
    };
    for (said, expected) in [("m2", "m2"), ("m1", "m1"), ("m2", "m1"), ("m1", "m1"), ("m2", "m1")] {
        scene.registry.knows(&borrowed(&with(said)));
        reload(&scene.mapsmith);
        assert_eq!(memory(&scene.gateway), with(expected), "{said}");
    }
    let status = scene.mapsmith.get("/v1/status").1;
    let kept = json!({ "count": 1, "nodes": [{ "node": "n007", "master": "m1", "said": "m2" }] });
    assert_eq!((&status["flapping"], &status["held"]), (&kept, &json!([])));
    assert_eq!(metric(&scene.mapsmith, "mapsmith_flapping_nodes"), Some(1.0));
    let (_, text) = printed(&scene.mapsmith.cli(&["status"]));
    assert!(
        text.contains("flapping   1 node stays with the same master") && text.contains("n007 (m1)"),
        "{text}"
    );
    let (_, text) = printed(&scene.mapsmith.cli(&["explain", "n007"]));
    assert!(
        text.contains("it flaps: it stays with m1")
            && text.contains(": m2 (not in force), answered"),
        "{text}"
    );
    assert_eq!(
        scene.mapsmith.log().matches("the node flaps").count(),
        1,
        "{}",
        scene.mapsmith.log()
    );
    // Nobody polls again: it goes by itself.
    scene.mapsmith.wait_for("the node goes where it is said to be", BOUND, |_| {
        (memory(&scene.gateway) == with("m2")).then_some(())
    });
    assert_eq!(metric(&scene.mapsmith, "mapsmith_flapping_nodes"), Some(0.0));
}

#[test]
fn a_node_named_twice_stays_where_it_is_and_is_shown_after_a_restart_too() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&[("node1", "master2"), ("node2", "master1")]);
        let mut mapsmith = config(&gateway, &registry, "").start();
        in_sync(&mapsmith);
        let before = entries(&[("node1", "master2"), ("node2", "master1")]);
        let conflicts = json!({ "count": 1, "nodes": [{ "node": "node1", "master": "master2", "said": "master1" }] });
        for body in [
            r#"{"Node1": "master1", "node1": "master2", "node2": "master1"}"#,
            r#"{"node1": "master2", "node2": "master1", "NODE1": "master1", "Node1": "master3"}"#,
        ] {
            registry.answers(200, body);
            for _ in 0..2 {
                reload(&mapsmith);
                assert_eq!(memory(&gateway), before, "{body}");
            }
            assert_eq!(mapsmith.get("/v1/status").1["conflicts"], conflicts, "{body}");
            mapsmith.kill();
            mapsmith.restart();
            in_sync(&mapsmith);
            reload(&mapsmith);
            assert_eq!(memory(&gateway), before, "{body} after a restart");
        }
        assert_eq!(metric(&mapsmith, "mapsmith_conflicting_nodes"), Some(1.0));
        let (_, text) = printed(&mapsmith.cli(&["status"]));
        assert!(
            text.contains("conflicts  1 node stays with the same master")
                && text.contains("node1 (master2)"),
            "{text}"
        );
        let (_, text) = printed(&mapsmith.cli(&["explain", "node1"]));
        assert!(
            text.contains("its source names it with different masters")
                && text.contains(": master1 (not in force)"),
            "{text}"
        );
        let (code, text) = printed(&mapsmith.configuration().cli(&["plan"]));
        assert!(code == 0 && text.contains("nothing to do"), "{code}: {text}");

        registry.knows(&[("Node1", "master1"), ("node2", "master1")]);
        reload(&mapsmith);
        assert_eq!(
            memory(&gateway),
            entries(&[("node1", "master1"), ("node2", "master1")]),
            "it is clear again"
        );
        assert_eq!(mapsmith.get("/v1/status").1["conflicts"]["count"], 0);
    }
}

#[test]
fn approving_lets_exactly_the_held_change_through() {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, "");
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

/// A gateway whose map file, and so whose memory, holds `count` nodes of `m1` before Mapsmith ever
/// ran.
fn gateway_with(count: usize) -> Gateway {
    let nodes = nodes(count, "m1");
    nodes
        .iter()
        .fold(Gateway::plan(newest()), |plan, (node, master)| plan.entry(node, master))
        .start()
}

#[test]
fn at_the_first_start_the_map_file_in_place_counts_as_the_map_in_force() {
    let gateway = gateway_with(NODES);
    let file = fs::read(gateway.map_path()).unwrap();
    let registry = Registry::start(&borrowed(&nodes(3, "m1")));
    let mapsmith = config(&gateway, &registry, "").start();
    let held = mapsmith.wait_for("the first answer is held", BOUND, |mapsmith| {
        let held = mapsmith.get("/v1/held").1[0].clone();
        held["id"].is_string().then_some(held)
    });
    assert!(
        held["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("remove 37 of the 40 entries in force")),
        "{held:#}"
    );
    assert_eq!(memory(&gateway), nodes(NODES, "m1"));
    assert_eq!(fs::read(gateway.map_path()).unwrap(), file, "the file is as it was, byte by byte");

    registry.knows(&borrowed(&nodes(NODES + 1, "m1")));
    reload(&mapsmith);
    assert_eq!(memory(&gateway), nodes(NODES + 1, "m1"));
}

#[test]
fn a_first_start_with_an_empty_map_file_is_not_held() {
    for text in ["", "# the first Mapsmith fills this\n\n"] {
        let gateway = Gateway::plan(newest()).start();
        fs::write(gateway.map_path(), text).unwrap();
        let registry = Registry::start(&borrowed(&nodes(NODES, "m1")));
        let mapsmith = config(&gateway, &registry, "").start();
        let status = in_sync(&mapsmith);
        assert_eq!(
            (&status["held"], &status["revision"]),
            (&json!([]), &json!(1)),
            "{text:?}: {status:#}"
        );
        assert_eq!(memory(&gateway), nodes(NODES, "m1"), "{text:?}");
    }
}

#[test]
fn an_empty_map_file_and_an_empty_answer_do_not_empty_a_gateway_that_works() {
    let gateway = gateway_with(NODES);
    // As an editor or a full disk leaves it.
    fs::write(gateway.map_path(), "").unwrap();
    let registry = Registry::start(&[]);
    let mapsmith = config(&gateway, &registry, "").start();
    mapsmith.wait_for("the empty answer is held", BOUND, |mapsmith| {
        mapsmith.get("/v1/held").1[0]["id"].is_string().then_some(())
    });
    assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 409);
    assert_eq!(memory(&gateway), nodes(NODES, "m1"));
}

#[test]
fn revision_numbers_go_on_after_a_restart() {
    let mut scene = Scene::start(newest(), "");
    for (master, revision) in [("m2", 2), ("m3", 3)] {
        let mut changed = nodes(NODES, "m1");
        changed[0].1 = master.to_owned();
        scene.registry.knows(&borrowed(&changed));
        assert_eq!(reload(&scene.mapsmith)["revision"], revision);
    }
    assert_eq!(scene.mapsmith.sigterm(), 0, "{}", scene.mapsmith.log());

    let restarted = config(&scene.gateway, &scene.registry, "").start();
    let status = in_sync(&restarted);
    assert_eq!(
        (&status["revision"], &status["last_change"]),
        (&json!(3), &Value::Null),
        "nothing changed: {status:#}"
    );
    let mut changed = nodes(NODES, "m1");
    changed[1].1 = "m2".to_owned();
    scene.registry.knows(&borrowed(&changed));
    let report = reload(&restarted);
    assert_eq!(
        (&report["revision"], &report["changes"][0]["moved"]),
        (&json!(4), &json!(2)),
        "{report:#}"
    );
    assert_eq!(memory(&scene.gateway), entries(&borrowed(&changed)));
}
