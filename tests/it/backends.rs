//! Which servers a backend should have: from written lists, sources and the map, whatever the
//! registry does. How they get into HAProxy is another matter.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, file_source_settings, gateway_settings, in_sync, metric, newest,
    nodes, printed, reload, source_settings,
};

/// Changes count at once; only what a test says stays for a while.
const QUICK: &str = "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n";
/// A server that is gone stays as long as a test takes.
const HOLDING: &str = "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"1h\"\n";
/// A backend `puppet` whose servers a source `consul` lists.
const LISTED: &str = "[[backend]]\nname = \"puppet\"\nfrom = \"consul\"\n";

/// A gateway, a registry of the node map and one of servers.
struct Scene {
    gateway: Gateway,
    nodes: Registry,
    servers: Registry,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            gateway: Gateway::plan(newest())
                .more("backend puppet\n    balance roundrobin\n")
                .start(),
            nodes: Registry::start(&[("n1", "m1")]),
            servers: Registry::start(&[]),
        };
        scene.servers.answers(200, &list(3).to_string());
        scene
    }

    fn config(&self, more: &str) -> Config {
        let mut sources = source_settings("registry", &self.nodes.url());
        if more.contains(LISTED) {
            sources += &source_settings("consul", &self.servers.url());
        }
        Mapsmith::config(&format!("{ON_REQUEST}{}{sources}{more}", gateway_settings(&self.gateway)))
    }

    /// A daemon with the backend [`LISTED`], which has its servers.
    fn start(&self, damping: &str, servers: usize) -> Mapsmith {
        let mapsmith = self.config(&format!("{damping}{LISTED}")).start();
        in_sync(&mapsmith);
        has(&mapsmith, servers);
        mapsmith
    }
}

/// So many servers, as a registry lists them.
fn list(count: usize) -> Value {
    (0..count)
        .map(|number| json!({ "name": format!("s{number:02}"), "address": format!("10.0.0.{}", number + 1), "port": 8140 }))
        .collect()
}

/// The backend's status.
fn backend(mapsmith: &Mapsmith) -> Value {
    mapsmith.get("/v1/status").1["backends"][0].clone()
}

/// The backend's servers: names and addresses.
fn servers(mapsmith: &Mapsmith) -> Vec<String> {
    let backend = backend(mapsmith);
    let servers = backend["servers"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    servers
        .iter()
        .map(|server| {
            format!(
                "{} {} {}",
                text(&server["name"]),
                text(&server["address"]["ip"]),
                text(&server["address"]["port"])
            )
        })
        .collect()
}

fn has(mapsmith: &Mapsmith, count: usize) {
    mapsmith.wait_for(&format!("the backend has {count} servers"), BOUND, |mapsmith| {
        (servers(mapsmith).len() == count).then_some(())
    });
}

/// A reload that must be answered with this status, and the problem or report.
fn reload_answers(mapsmith: &Mapsmith, expected: u16) -> Value {
    let (status, answer) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, expected, "{answer:#}\n{}", mapsmith.log());
    answer
}

fn gauge(mapsmith: &Mapsmith, name: &str) -> Option<f64> {
    metric(mapsmith, &format!("{name}{{backend=\"puppet\"}}"))
}

const WRITTEN: &str = r#"
[[backend]]
name = "puppet"
options = ["check"]
servers = [
  { name = "m1", address = "127.0.0.1:8141", weight = 100, options = ["maxconn 1000"] },
  { name = "m2", address = "localhost:8142", backup = true },
  { name = "m1", address = "127.0.0.1:8143" },
  { name = "m3", address = "127.0.0.300:8144" },
]
"#;

#[test]
fn a_mistake_in_a_written_list_is_told_by_place_and_the_rest_goes_on() {
    let scene = Scene::new();
    let config = scene.config(&format!("{QUICK}{WRITTEN}"));
    let (code, text) = printed(&config.cli(&["check"]));
    assert_eq!(code, 1, "{text}");
    for part in [
        "backend puppet: 2 servers from settings; rejected: ",
        "servers[2] \"m1\": ",
        "servers[3] \"m3\": ",
    ] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }

    let mapsmith = config.start();
    in_sync(&mapsmith);
    has(&mapsmith, 2);
    // What `localhost` is differs from machine to machine; its port does not.
    let servers = servers(&mapsmith);
    assert!(servers[0] == "m1 127.0.0.1 8141" && servers[1].ends_with(" 8142"), "{servers:?}");
    let backend = backend(&mapsmith);
    assert_eq!(
        (&backend["from"], &backend["held"]),
        (&json!("settings"), &Value::Null),
        "{backend:#}"
    );
    let options = |number: usize| backend["servers"][number]["options"].clone();
    assert_eq!(
        (&options(0)["check"], &options(0)["maxconn"]),
        (&json!(false), &json!(1000)),
        "{backend:#}"
    );
    assert_eq!(
        (&options(1)["check"], &backend["servers"][1]["backup"]),
        (&json!(true), &json!(true)),
        "{backend:#}"
    );
    let mut places: Vec<_> =
        backend["rejected"].as_array().unwrap().iter().map(|row| row["place"].clone()).collect();
    places.sort_by_key(Value::to_string);
    assert_eq!(places, [json!("servers[2] \"m1\""), json!("servers[3] \"m3\"")]);
    assert_eq!(gauge(&mapsmith, "mapsmith_backend_left_out_servers"), Some(2.0));
    assert_eq!(gauge(&mapsmith, "mapsmith_backend_servers"), Some(2.0));
    let log = mapsmith.log();
    assert!(log.contains("rejected in the server list") && log.contains("127.0.0.300"), "{log}");
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    assert!(
        code == 0
            && text.contains("puppet  2 servers from settings")
            && text.contains("rejected: servers[2] \"m1\""),
        "{text}"
    );
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
    (200, "<html><title>Gateway Timeout</title></html>", "no JSON"),
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
    scene
        .servers
        .answers(200, r#"[{"address": "10.0.0.1:1"}, {"address": "10.0.0.2:1"}, {"address": "10.0.0.3", "port": "x"}, 7]"#);
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

#[test]
fn a_registry_that_flaps_changes_nothing() {
    let scene = Scene::new();
    let mapsmith = scene.start(HOLDING, 3);
    let number = |mapsmith: &Mapsmith| mapsmith.get("/v1/status").1["servers_number"].clone();
    let before = (number(&mapsmith), servers(&mapsmith));
    for turn in 0..10 {
        scene.servers.answers(200, &list(2 + turn % 2).to_string());
        reload(&mapsmith);
        assert_eq!((number(&mapsmith), servers(&mapsmith)), before, "turn {turn}");
        let leaving = backend(&mapsmith)["leaving"].as_array().map(Vec::len);
        assert_eq!(leaving, Some(1 - turn % 2), "turn {turn}");
    }
}

#[test]
fn a_change_that_waits_for_quiet_says_until_when() {
    let scene = Scene::new();
    let mapsmith = scene
        .config(&format!("[damping]\ndebounce = \"1h\"\nmax_delay = \"1h\"\n{LISTED}"))
        .start();
    in_sync(&mapsmith);
    let due = mapsmith.wait_for("the list waits", BOUND, |mapsmith| {
        backend(mapsmith)["change_due"].as_str().map(str::to_owned)
    });
    scene.servers.answers(200, &list(5).to_string());
    reload(&mapsmith);
    let waits = backend(&mapsmith);
    assert_eq!(waits["servers"], Value::Null, "{waits:#}");
    assert!(waits["change_due"].is_string() && !due.is_empty(), "{waits:#}");
    assert_eq!(mapsmith.get("/v1/status").1["servers_number"], Value::Null);
    let (_, text) = printed(&mapsmith.cli(&["status"]));
    assert!(text.contains("a change waits for the list to be quiet, until 2"), "{text}");
}

#[test]
fn a_list_in_a_file_is_followed_as_it_is_replaced() {
    let scene = Scene::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.json");
    let replace = |text: &str| replace(&path, text);
    replace(&list(3).to_string());
    let sources =
        source_settings("registry", &scene.nodes.url()) + &file_source_settings("consul", &path);
    let settings =
        format!("{ON_REQUEST}{}{sources}{QUICK}{LISTED}", gateway_settings(&scene.gateway));
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    has(&mapsmith, 3);
    replace(&list(5).to_string());
    has(&mapsmith, 5);
    // With an address changed and half of a file, which is no answer.
    replace(&list(5).to_string().replace("10.0.0.2", "10.0.9.9"));
    mapsmith.wait_for("the new address", BOUND, |mapsmith| {
        (servers(mapsmith)[1] == "s01 10.0.9.9 8140").then_some(())
    });
    replace("[{\"name\": \"s00\", \"addr");
    mapsmith.wait_for("the failure shows", BOUND, |mapsmith| {
        let sources = mapsmith.get("/v1/status").1["sources"].clone();
        sources[1]["error"].as_str().is_some_and(|error| error.contains("cut off")).then_some(())
    });
    assert_eq!(servers(&mapsmith).len(), 5);
}

/// As a careful writer does it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("the folder can be written");
    fs::rename(new, path).expect("the file can be replaced");
}

#[test]
fn the_masters_of_the_map_are_servers_at_the_registrys_name_of_them() {
    let scene = Scene::new();
    scene.nodes.answers(
        200,
        r#"{"n1": "localhost", "n2": "localhost", "n3": "127.0.0.7", "n4": "nowhere.invalid"}"#,
    );
    let source = source_settings("registry", &scene.nodes.url())
        + "[source.masters]\nlocalhost = \"master1\"\n";
    let masters = "[[backend]]\nname = \"puppet\"\nmasters = \"{producer}:8140\"\n";
    let settings =
        format!("{ON_REQUEST}{}{source}{QUICK}{masters}", gateway_settings(&scene.gateway));
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    has(&mapsmith, 2);
    let names: Vec<_> = servers(&mapsmith)
        .iter()
        .map(|server| server.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["127.0.0.7", "master1"]);
    let rejected = backend(&mapsmith)["rejected"].clone();
    assert_eq!(rejected[0]["place"], "server \"nowhere.invalid\"");
    assert!(
        rejected[0]["reason"].as_str().is_some_and(|reason| reason.contains("never resolved")),
        "{rejected}"
    );

    // A master that comes is a server at once, whatever its name on the way.
    scene.nodes.answers(200, r#"{"n1": "localhost", "n3": "127.0.0.7", "n4": "127.0.0.8"}"#);
    reload(&mapsmith);
    has(&mapsmith, 3);
    assert_eq!(backend(&mapsmith)["rejected"], json!([]));
}

#[test]
fn a_check_names_what_is_wrong_with_the_lists_of_sources() {
    let scene = Scene::new();
    let config = scene.config(LISTED);
    let check = || {
        let (_, text) = printed(&config.cli(&["check"]));
        text.lines()
            .find(|line| line.contains("  backend puppet: "))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    assert!(
        check().starts_with("ok ") && check().contains("3 servers from source consul"),
        "{}",
        check()
    );
    scene.servers.answers(200, r#"[{"address": "10.0.0.1:1"}, {"address": "10.0.0.1"}]"#);
    let line = check();
    assert!(line.starts_with("FAIL") && line.contains("row 2: \"10.0.0.1\" has no port"), "{line}");
    scene.servers.answers(200, "[]");
    assert!(check().contains("the guard would hold its list back"), "{}", check());
    scene.servers.answers(500, "down");
    assert!(check().contains("not known without a first answer of source consul"), "{}", check());
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
                .query_row("SELECT servers FROM server_lists", [], |row| row.get::<_, String>(0))
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
        let told = "puppet  3 servers as last stored from source consul: waiting for a first \
            answer of source consul\n";
        assert!(text.contains(told), "{number}: {text}");

        // The first answer is a change of it.
        scene.servers.answers(200, &list(2).to_string());
        mapsmith.wait_for("what is listed no more is removed", BOUND, |mapsmith| {
            mapsmith.post("/v1/reload?wait=10s");
            (in_haproxy(&scene.gateway) == ["s00", "s01"]).then_some(())
        });
        assert_eq!(backend(&mapsmith)["waiting_for"], Value::Null);
    }
}
