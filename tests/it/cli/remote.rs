//! `status`, `explain`, `reload` and `approve`: the verbs that ask a running Mapsmith.

use std::fs;

use serde_json::{Value, json};

use super::{ANSWER, Scene, complaint, text};
use crate::support::free_port;
use crate::support::mapsmith::{Mapsmith, cli};
use crate::support::scene::{BOUND, borrowed, in_sync, nodes, reload};

/// The scene with a daemon that is in sync.
fn start() -> (Scene, Mapsmith) {
    start_on(Scene::new())
}

fn start_on(scene: Scene) -> (Scene, Mapsmith) {
    let mapsmith = scene.config().start();
    in_sync(&mapsmith);
    (scene, mapsmith)
}

/// The scene with a daemon whose guard holds a change back.
fn held() -> (Scene, Mapsmith) {
    let (scene, mapsmith) = start_on(Scene::of_one_node());
    scene.registry.knows(&borrowed(&nodes(40, "master1")));
    reload(&mapsmith);
    scene.registry.knows(&borrowed(&nodes(10, "master1")));
    let (status, problem) = mapsmith.post("/v1/reload?wait=30s");
    assert_eq!(status, 409, "{problem:#}");
    (scene, mapsmith)
}

#[test]
fn a_status_of_a_good_day() {
    let (_scene, mapsmith) = start();
    assert_text!(text(&mapsmith.cli(&["status"]), 0), @r#"
    all is well: nothing needs you

    revision   1, 3 entries
    changed    [AGE] ago by registry: 1 added, 1 moved, 1 removed
    masters    master1 2, master2 1
    map file   [GATEWAY]/node-master.map

    sources
      registry  http_json  3 entries  answered [AGE] ago  last poll full, [N] ms, 74 bytes
      registry: 1 rejected: the registry names no master for the node (null), as "delta"

    instances
      edge1  in sync with revision 1 (HAProxy [VERSION], pid [PID])
        last change [AGE] ago: revision 1 by [STRATEGY]: 1 added, 1 moved, 1 removed ([STEPS])
    "#);
}

#[test]
fn a_status_of_a_bad_night() {
    let (scene, mapsmith) = start();
    scene.registry.answers(500, "the database is down");
    assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 502);
    let Scene { mut gateway, registry: _registry } = scene;
    gateway.kill();
    mapsmith.wait_for("the loss of HAProxy is seen", BOUND, |mapsmith| {
        (mapsmith.get("/v1/status").1["instances"][0]["state"] == "unreachable").then_some(())
    });
    let status = text(&mapsmith.cli(&["status"]), 1);
    // The socket's file outlives the process or not, by version.
    let status = status
        .replace("No such file or directory (os error 2)", "Connection refused (os error 111)");
    let status = status.replace(
        "(is HAProxy running, and does its `stats socket` have this path?)",
        "(nothing listens there: is HAProxy running?)",
    );
    assert_text!(status, @r#"
    1 thing needs you, 1 is worth a look
      act edge1 is unreachable: unix@[GATEWAY]/admin.sock: can't connect: Connection refused (os error 111) (nothing listens there: is HAProxy running?) (since [AGE] ago)
      look registry fails, its last good answer stays in force: http://127.0.0.1:[PORT]/nodes.json: failed (500): the database is down (since [AGE] ago)
           Ask the sources again: mapsmith reload --wait 30s

    revision   1, 3 entries
    changed    [AGE] ago by registry: 1 added, 1 moved, 1 removed
    masters    master1 2, master2 1
    map file   [GATEWAY]/node-master.map

    sources
      registry  http_json  3 entries  answered [AGE] ago  last poll FAILED [AGE] ago after [N] ms
      registry: http://127.0.0.1:[PORT]/nodes.json: failed (500): the database is down
      registry: 1 rejected: the registry names no master for the node (null), as "delta"

    instances
      edge1  unreachable since [TIME]: unix@[GATEWAY]/admin.sock: can't connect: Connection refused (os error 111) (nothing listens there: is HAProxy running?)
        last seen as HAProxy [VERSION], pid [PID]
        last change [AGE] ago: revision 1 by [STRATEGY]: 1 added, 1 moved, 1 removed ([STEPS])
    "#);
}

#[test]
fn a_status_while_a_required_source_is_waited_for() {
    let scene = Scene::new();
    scene.registry.answers(503, "PuppetDB is starting");
    let mapsmith = scene.config().start();
    assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 502);
    mapsmith.wait_for("HAProxy is connected", BOUND, |mapsmith| {
        (mapsmith.get("/v1/status").1["instances"][0]["state"] == "connected").then_some(())
    });
    assert_text!(text(&mapsmith.cli(&["status"]), 1), @"
    1 thing needs you
      act registry has not answered since the start: http://127.0.0.1:[PORT]/nodes.json: is \
      unavailable for now (503): PuppetDB is starting (since [AGE] ago)
           Ask the sources again: mapsmith reload --wait 30s

    revision   0 (the map file as it was found), 3 entries
    masters    master1 3
    map file   [GATEWAY]/node-master.map
    WAITING for an answer of registry: nothing is applied until then

    sources
      registry  http_json  no answer yet    last poll FAILED [AGE] ago after [N] ms
      registry: http://127.0.0.1:[PORT]/nodes.json: is unavailable for now (503): PuppetDB is \
      starting

    instances
      edge1  connected, no map wanted yet (HAProxy [VERSION], pid [PID])
    ");
}

#[test]
fn a_reload_names_the_source_that_does_not_answer_in_time_and_calls_it_answered_nowhere() {
    let (scene, mapsmith) = start();
    scene.registry.hangs();
    let output = text(&mapsmith.cli(&["reload", "--wait", "1s"]), 1);
    assert!(output.starts_with("no answer within 1s from: registry\n"), "{output}");
    assert!(
        output.contains("  source registry: no answer yet\n") && !output.contains("answered"),
        "{output}"
    );
    let (status, problem) = mapsmith.post("/v1/reload?wait=1s");
    assert_eq!(
        (status, &problem["report"]["sources"][0]["answered"]),
        (502, &json!(false)),
        "{problem:#}"
    );
}

#[test]
fn a_status_while_a_change_is_held() {
    let (_scene, mapsmith) = held();
    assert_text!(text(&mapsmith.cli(&["status"]), 4).replace(&id(&mapsmith), "[ID]"), @"
    1 thing needs you
      act a change of the map is held: the change would remove 30 of the 40 entries in force \
      (75.0%), guard.max_removed allows 20% (0 added, 0 moved, 30 removed) (since [AGE] ago)
           See what would change: mapsmith plan
           Let exactly this change through: mapsmith approve [ID]

    revision   2, 40 entries
    changed    [AGE] ago by registry: 39 added, 0 moved, 0 removed
    masters    master1 40
    map file   [GATEWAY]/node-master.map
    HELD BY THE GUARD: nothing of this change is applied
      the change would remove 30 of the 40 entries in force (75.0%), guard.max_removed allows 20%
      since [TIME] ([AGE] ago): 40 entries in force, 10 held: 0 added, 0 moved, 30 removed
      let it through: mapsmith approve [ID]

    sources
      registry  http_json  10 entries  answered [AGE] ago  last poll full, [N] ms, 171 bytes

    instances
      edge1  in sync with revision 2 (HAProxy [VERSION], pid [PID])
        last change [AGE] ago: revision 2 by [STRATEGY]: 39 added, 0 moved, 0 removed ([STEPS])
    ");
}

/// The held change's id.
fn id(mapsmith: &Mapsmith) -> String {
    mapsmith.get("/v1/held").1[0]["id"].as_str().expect("something is held").to_owned()
}

#[test]
fn a_node_is_explained() {
    let (scene, mapsmith) = start();
    assert_text!(text(&mapsmith.cli(&["explain", "BETA"]), 0), @"
    node beta goes to master2 (revision 1)
      since revision 1, [AGE] ago: master1 -> master2
    sources
      registry: master2 (counts), answered [AGE] ago
    in memory right now
      edge1: master2
    ");
    // In step since the start, and never changed since.
    assert_text!(text(&mapsmith.cli(&["explain", "alpha"]), 0), @"
    node alpha goes to master1 (revision 1)
      no change of it is remembered since Mapsmith started
    sources
      registry: master1 (counts), answered [AGE] ago
    in memory right now
      edge1: master1
    ");
    assert_text!(text(&mapsmith.cli(&["explain", "delta"]), 1), @"
    node delta has no route (revision 1): what HAProxy does without one applies
    sources
      registry: rejected: the registry names no master for the node (null), answered [AGE] ago
    in memory right now
      edge1: no entry
    ");
    assert_text!(text(&mapsmith.cli(&["explain", "stranger"]), 1), @"
    node stranger has no route (revision 1): what HAProxy does without one applies
    sources
      registry: does not know the node, answered [AGE] ago
    in memory right now
      edge1: no entry
    ");
    assert_text!(
        complaint(&mapsmith.cli(&["explain", "two words"]), 1),
        @r#"mapsmith: "two words" is not a valid node name: node name contains whitespace (400 Bad Request)"#
    );
    drop(scene);
}

#[test]
fn a_node_of_an_odd_name_is_explained_as_well() {
    let (scene, mapsmith) = start();
    let odd = r#"a/b?c#d;e%20é"f\g"#;
    scene.registry.knows(&[(odd, "master1"), ("alpha", "master1")]);
    reload(&mapsmith);
    let text = text(&mapsmith.cli(&["explain", odd]), 0);
    assert!(
        text.contains(&format!("node {odd} goes to master1")) && text.contains("  edge1: master1"),
        "{text}"
    );
}

#[test]
fn a_reload_says_how_it_ended() {
    let (scene, mapsmith) = start();
    assert_text!(text(&mapsmith.cli(&["reload", "--wait", "30s"]), 0), @"
    nothing changed; 1 of 1 instances in sync
      source registry: answered in [N] ms
      map: merge [N] ms, compare [N] ms
      instance edge1: in sync with revision 1
      in all [N] ms
    ");
    scene.registry.knows(&[("alpha", "master2"), ("gamma", "master1"), ("new", "master1")]);
    assert_text!(text(&mapsmith.cli(&["reload", "--wait", "1m 30s"]), 0), @"
    revision 2: 1 added, 1 moved, 1 removed; 1 of 1 instances in sync
      source registry: answered in [N] ms
      map: merge [N] ms, compare [N] ms, map file [N] ms
      instance edge1: in sync with revision 2
        by [STRATEGY]: [STEPS]
      in all [N] ms
    ");
    scene.registry.answers(200, "{\"alpha\": ");
    assert_text!(text(&mapsmith.cli(&["reload", "--wait", "30s"]), 1), @"
    source registry: http://127.0.0.1:[PORT]/nodes.json: the JSON text is cut off at line 1, \
    column 11, after 10 bytes; the last good answer stays in force
      source registry: http://127.0.0.1:[PORT]/nodes.json: the JSON text is cut off at line 1, \
      column 11, after 10 bytes
      map: merge [N] ms, compare [N] ms
      instance edge1: in sync with revision 2
      in all [N] ms
    ");
    scene.registry.answers(200, ANSWER);
    assert_text!(text(&mapsmith.cli(&["reload"]), 0), @"every source is polled now; `mapsmith \
        reload --wait 30s` would say how it ends");
}

#[test]
fn a_reload_that_is_held_says_what_to_look_at_and_approving_ends_it() {
    let (_scene, mapsmith) = held();
    let id = id(&mapsmith);
    assert_text!(text(&mapsmith.cli(&["reload", "--wait", "30s"]), 4).replace(&id, "[ID]"), @"
    held back by the guard
      source registry: answered in [N] ms
      map: merge [N] ms, compare [N] ms
      instance edge1: in sync with revision 2
      in all [N] ms
    HELD BY THE GUARD: nothing of this change is applied
      the change would remove 30 of the 40 entries in force (75.0%), guard.max_removed allows 20%
      since [TIME] ([AGE] ago): 40 entries in force, 10 held: 0 added, 0 moved, 30 removed
      let it through: mapsmith approve [ID]
    ");
    assert_text!(
        complaint(&mapsmith.cli(&["approve", "0123456789abcdef"]), 1).replace(&id, "[ID]"),
        @"mapsmith: the change 0123456789abcdef is not the one held back, [ID] is; review that \
            one first (409 Conflict)"
    );
    let shown = text(&mapsmith.cli(&["approve"]), 4);
    assert!(
        shown.starts_with("HELD BY THE GUARD")
            && shown.trim_end().ends_with(&format!("let it through: mapsmith approve {id}")),
        "{shown}"
    );
    assert_text!(text(&mapsmith.cli(&["approve", &id]), 0), @"approved and in force: 0 added, 0 \
        moved, 30 removed (it was held because the change would remove 30 of the 40 entries in \
        force (75.0%), guard.max_removed allows 20%)");
    assert_text!(text(&mapsmith.cli(&["approve"]), 0), @"nothing is held back");
}

#[test]
fn a_daemon_that_does_not_run_is_told_as_that() {
    let (_scene, mut mapsmith) = start();
    mapsmith.kill();
    for verb in [&["status"][..], &["explain", "alpha"], &["reload"], &["approve"]] {
        let complaint = complaint(&mapsmith.cli(verb), 1);
        assert!(
            complaint.contains("no Mapsmith answers at http://127.0.0.1:"),
            "{verb:?}: {complaint}"
        );
        assert!(complaint.contains("is `mapsmith run` running?"), "{verb:?}: {complaint}");
    }
}

#[test]
fn what_the_daemon_says_is_there_for_programs_too() {
    let (_scene, mapsmith) = held();
    let json = |arguments: &[&str], code| -> Value {
        let text = text(&mapsmith.cli(&[arguments, &["--output", "json"]].concat()), code);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
    };
    // Between the two looks the process grows older, and the map may be read back.
    let timeless = |mut status: Value| {
        status["instances"][0]["process"]["uptime_seconds"].take();
        status["instances"][0]["verified_at"].take();
        status
    };
    let status = timeless(json(&["status"], 4));
    assert_eq!(status, timeless(mapsmith.get("/v1/status").1), "the CLI shows what the API says");
    assert_eq!(json(&["explain", "n000"], 0)["master"], "master1");
    let report = json(&["reload", "--wait", "30s"], 4);
    assert_eq!(
        (&report["outcome"], &report["held"][0]["id"]),
        (&json!("held"), &status["held"][0]["id"])
    );
    let id = status["held"][0]["id"].as_str().expect("an id");
    assert_eq!(json(&["approve"], 4), status["held"]);
    assert_eq!(json(&["approve", id], 0)["id"], id);
    assert_eq!(json(&["approve"], 0), Value::Array(Vec::new()), "nothing is held any more");
    assert_eq!(json(&["reload"], 0)["outcome"], "requested");
}

#[test]
fn who_names_the_settings_needs_neither_address_nor_token() {
    let scene = Scene::new();
    let port = free_port();
    let api = format!("[api]\nlisten = \"0.0.0.0:{port}\"\ntoken_file = \"token\"\n");
    let config = Mapsmith::config(&format!("{}{api}", scene.settings()));
    fs::write(config.directory().join("token"), "s3cret\n").unwrap();
    let mapsmith = config.start();
    let config = mapsmith.configuration();
    mapsmith.wait_for("it is in sync", BOUND, |_| {
        (config.cli(&["status"]).status.code() == Some(0)).then_some(())
    });
    assert!(text(&config.cli(&["explain", "beta"]), 0).contains("node beta goes to master2"));
    assert!(text(&config.cli(&["reload", "--wait", "30s"]), 0).contains("in sync"));
    // A mistake elsewhere in the file is not in the way of one who only asks.
    let whole = fs::read_to_string(config.path()).unwrap();
    fs::write(config.path(), whole.replace("[[instance]]", "[[instnace]]")).unwrap();
    text(&config.cli(&["status"]), 0);
    fs::write(config.path(), &whole).unwrap();

    // The settings' token is for the settings' address alone.
    let refused = complaint(
        &config.cli(&["status", "--url", &mapsmith.api_url().replace("0.0.0.0", "127.0.0.1")]),
        1,
    );
    assert!(
        refused.contains("the API asks for its token: give it by MAPSMITH_TOKEN or --token"),
        "{refused}"
    );
    let wrong = complaint(&config.cli(&["status", "--token", "other"]), 1);
    assert!(wrong.contains("the token that was given is not one of this API"), "{wrong}");
    assert!(!wrong.contains("asks for its token") && wrong.contains("401"), "{wrong}");
    fs::remove_file(config.directory().join("token")).unwrap();
    let unreadable = complaint(&config.cli(&["status"]), 1);
    assert!(
        unreadable.contains("token: No such file")
            && unreadable.contains("give the token by MAPSMITH_TOKEN"),
        "{unreadable}"
    );
    text(&config.cli(&["status", "--token", "s3cret"]), 0);
}

#[test]
fn settings_that_name_no_address_to_ask_are_told_as_that() {
    let config = Mapsmith::config("");
    let complaint = complaint(&config.cli(&["status"]), 1);
    assert!(
        complaint.contains("api.listen: 127.0.0.1:0 leaves the port to the system"),
        "{complaint}"
    );
    let gone = super::complaint(&cli(&["status", "-c", "/nonexistent/m.toml"], None), 2);
    assert!(gone.contains("/nonexistent/m.toml: can't be read"), "{gone}");
}
