//! No answer, a bad one or an empty one takes no server away.

use serde_json::{Value, json};

use super::{HOLDING, LISTED, QUICK, Scene, backend, gauge, has, list, servers};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{BOUND, borrowed, in_sync, metric, nodes, printed, reload};

/// A reload that must be answered with this status, and the problem or report.
fn reload_answers(mapsmith: &Mapsmith, expected: u16) -> Value {
    let (status, answer) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, expected, "{answer:#}\n{}", mapsmith.log());
    answer
}

#[test]
fn a_list_without_a_first_answer_leaves_its_backend_alone_and_the_map_goes_on() {
    let scene = Scene::new();
    scene.servers.answers(503, "starting");
    let mapsmith = scene.config(&format!("{QUICK}{LISTED}")).start();
    in_sync(&mapsmith);
    let waits = backend(&mapsmith);
    assert_eq!(
        (&waits["servers"], &waits["waiting_for"]),
        (&Value::Null, &json!("a first answer of source consul")),
        "{waits:#}"
    );
    let detail = reload_answers(&mapsmith, 502)["detail"].clone();
    assert!(detail.as_str().is_some_and(|detail| detail.contains("source consul: ")), "{detail}");
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    assert!(
        code == 1
            && text.contains("puppet  not touched: waiting for a first answer of source consul\n"),
        "{text}"
    );

    scene.servers.answers(200, &list(2).to_string());
    reload(&mapsmith);
    has(&mapsmith, 2);
}

/// Answers that are no list, with what must be said of each.
const NO_LISTS: [(u16, &str, &str); 5] = [
    (500, "down", "failed (500)"),
    (200, "{\"error\": \"down\"}", "error object"),
    (200, "{}", "a list of servers was expected"),
    (200, "[{\"address\": \"10.0.0.1:1\"}, {\"addr", "cut off"),
    (200, "<html><title>Gateway Timeout</title></html>", "not JSON"),
];

#[test]
fn an_answer_that_is_no_list_keeps_the_last_good_one() {
    let scene = Scene::new();
    let mapsmith = scene.start(QUICK, 3);
    let before = mapsmith.get("/v1/status").1["servers_number"].clone();
    for (status, body, words) in NO_LISTS {
        scene.servers.answers(status, body);
        let problem = reload_answers(&mapsmith, 502);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("source consul") && detail.contains(words), "{body}: {detail}");
        assert_eq!(
            (servers(&mapsmith).len(), &mapsmith.get("/v1/status").1["servers_number"]),
            (3, &before),
            "{body}"
        );
    }
    let rows = json!([
        {"address": "10.0.0.1:1"},
        {"address": "10.0.0.2:1"},
        {"address": "10.0.0.3", "port": "x"},
        7,
    ]);
    scene.servers.answers(200, &rows.to_string());
    reload(&mapsmith);
    mapsmith.wait_for("the rows that are good are taken", BOUND, |mapsmith| {
        servers(mapsmith).iter().any(|server| server == "10.0.0.2:1 10.0.0.2 1").then_some(())
    });
    assert_eq!(
        metric(
            &mapsmith,
            "mapsmith_source_rejected_entries{source=\"consul\",reason=\"server_row\"}"
        ),
        Some(2.0)
    );
    assert_eq!(backend(&mapsmith)["rejected"][0]["place"], "row 3", "{:#}", backend(&mapsmith));
}

#[test]
fn an_empty_list_is_held_and_once_approved_goes_server_by_server_but_for_the_last() {
    let scene = Scene::new();
    let mapsmith = scene.start(QUICK, 3);
    scene.servers.answers(200, "[]");
    let problem = reload_answers(&mapsmith, 409);
    assert!(problem["detail"].as_str().is_some_and(|detail| {
        detail.contains("backend puppet: the new server list has 0 servers")
    }));
    let held = mapsmith.get("/v1/held").1;
    assert_eq!(
        (held.as_array().map(Vec::len), &held[0]["of"], &held[0]["removed"]),
        (Some(1), &json!("backend puppet"), &json!(3))
    );
    let status = mapsmith.get("/v1/status").1;
    assert_eq!((&status["held"], &status["backends"][0]["held"]), (&held, &held[0]), "{status:#}");
    assert_eq!(servers(&mapsmith).len(), 3);
    assert_eq!(gauge(&mapsmith, "mapsmith_backend_held"), Some(1.0));
    assert_eq!(
        (metric(&mapsmith, "mapsmith_guard_held"), metric(&mapsmith, "mapsmith_guard_holds_total")),
        (Some(0.0), Some(1.0))
    );
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    assert!(
        code == 4
            && text
                .contains("HELD BY THE GUARD: nothing of this change of backend puppet is applied"),
        "{text}"
    );
    // The same answer again is the same hold.
    reload_answers(&mapsmith, 409);
    assert_eq!(mapsmith.log().matches("held back by the guard").count(), 1, "{}", mapsmith.log());

    let held = mapsmith.get("/v1/held").1;
    let (code, text) = printed(&mapsmith.cli(&["approve", held[0]["id"].as_str().expect("an id")]));
    assert!(code == 0 && text.starts_with("approved for backend puppet"), "{text}");
    has(&mapsmith, 1);
    let status = backend(&mapsmith);
    assert_eq!(
        (&status["held"], &status["leaving"][0]["due"]),
        (&Value::Null, &Value::Null),
        "{status:#}"
    );
    assert_eq!(gauge(&mapsmith, "mapsmith_backend_held"), Some(0.0));
    let removed = "mapsmith_backend_changes_total{backend=\"puppet\",kind=\"removed\"}";
    assert_eq!(metric(&mapsmith, removed), Some(2.0));
}

#[test]
fn changes_of_map_and_list_that_are_held_at_once_are_approved_each_by_its_id() {
    let scene = Scene::new();
    scene.nodes.knows(&borrowed(&nodes(40, "m1")));
    scene.servers.answers(200, &list(40).to_string());
    let mapsmith = scene.start(HOLDING, 40);
    scene.nodes.knows(&borrowed(&nodes(10, "m1")));
    scene.servers.answers(200, &list(20).to_string());
    reload_answers(&mapsmith, 409);
    let held = mapsmith.get("/v1/held").1;
    assert_eq!(
        (&held[0]["of"], &held[1]["of"]),
        (&json!("map"), &json!("backend puppet")),
        "{held:#}"
    );
    assert!(
        held[1]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("remove 20 of the 40 servers in force")),
        "{held:#}"
    );
    let id = |index: usize| held[index]["id"].as_str().expect("an id").to_owned();
    let (code, text) = printed(&mapsmith.cli(&["approve"]));
    assert!(
        code == 4 && (0..2).all(|index| text.contains(&format!("mapsmith approve {}", id(index)))),
        "{text}"
    );
    assert_eq!(mapsmith.get("/v1/held").1, held, "nothing is let through that nobody has named");
    assert_eq!(mapsmith.cli(&["approve", "0123456789abcdef"]).status.code(), Some(1));

    let (code, text) = printed(&mapsmith.cli(&["approve", &id(1)]));
    assert!(code == 0 && text.contains("backend puppet"), "{text}");
    assert_eq!(mapsmith.get("/v1/held").1, json!([held[0]]), "the map's is held as before");
    let waits = backend(&mapsmith);
    assert_eq!(waits["leaving"].as_array().map(Vec::len), Some(20), "{waits:#}");
    assert_eq!(servers(&mapsmith).len(), 40, "what goes stays for its hold time");
    let (code, text) = printed(&mapsmith.cli(&["approve", &id(0)]));
    assert!(code == 0 && text.starts_with("approved and in force"), "{text}");
    assert_eq!(mapsmith.get("/v1/held").1, json!([]));
}

/// The servers of the backend in HAProxy's memory.
fn in_haproxy(gateway: &Gateway) -> Vec<String> {
    let state = gateway.command("show servers state puppet");
    let rows = state.lines().filter(|line| line.split(' ').nth(1) == Some("puppet"));
    let mut names: Vec<_> =
        rows.filter_map(|row| row.split(' ').nth(3)).map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn a_list_outlives_a_restart_while_its_registry_is_silent() {
    let silences: [fn(&Registry); 3] = [
        |registry| registry.answers(503, "starting"),
        Registry::hangs,
        |registry| registry.answers(200, "<html><title>Gateway Timeout</title></html>"),
    ];
    for (number, silence) in silences.into_iter().enumerate() {
        let mut scene = Scene::new();
        let mut mapsmith =
            scene.config(&format!("{QUICK}{LISTED}[store]\npath = \"mapsmith.db\"\n")).start();
        in_sync(&mapsmith);
        let database = mapsmith.configuration().directory().join("mapsmith.db");
        mapsmith.wait_for("the list is stored", BOUND, |_| {
            let store = rusqlite::Connection::open(&database).ok()?;
            let stored = store
                .query_row(
                    "SELECT servers FROM server_lists WHERE confirmed IS NOT NULL",
                    [],
                    |row| row.get::<_, String>(0),
                )
                .ok()?;
            stored.contains("s02").then_some(())
        });
        silence(&scene.servers);
        mapsmith.kill();
        // HAProxy loses what was added at runtime.
        scene.gateway.restart();
        mapsmith.restart();
        mapsmith.wait_for("HAProxy has the servers again", BOUND, |_| {
            (in_haproxy(&scene.gateway).len() == 3).then_some(())
        });
        in_sync(&mapsmith);
        assert_eq!(
            servers(&mapsmith),
            ["s00 10.0.0.1 8140", "s01 10.0.0.2 8140", "s02 10.0.0.3 8140"]
        );
        assert_eq!(backend(&mapsmith)["waiting_for"], "a first answer of source consul");
        let (_, text) = printed(&mapsmith.cli(&["status"]));
        for told in [
            "puppet  3 servers as last stored, confirmed ",
            " ago, in force since 20",
            " ago): waiting for a first answer of source consul\n",
        ] {
            assert!(text.contains(told), "{number}: {text}");
        }

        // The first answer is a change of it.
        scene.servers.answers(200, &list(2).to_string());
        mapsmith.wait_for("what is listed no more is removed", BOUND, |mapsmith| {
            mapsmith.post("/v1/reload?wait=10s");
            (in_haproxy(&scene.gateway) == ["s00", "s01"]).then_some(())
        });
        assert_eq!(backend(&mapsmith)["waiting_for"], Value::Null);
    }
}
