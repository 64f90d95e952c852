//! `check`, `plan` and `sync`: the verbs that work without a daemon.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::{ANSWER, Scene, complaint, masters, text};
use crate::support::eventually;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, complaints, entries, instance_settings, map_file, memory, nodes,
    oldest_and_newest, source_settings, version_3_0,
};

#[test]
fn a_good_setup_is_all_ok() {
    let scene = Scene::new();
    let before = scene.traces();
    let output = scene.config().cli(&["check"]);
    assert_text!(text(&output, 0), @"
    ok    settings: 1 source, 1 instance
    ok    map file: [GATEWAY]/node-master.map: 3 entries in force, can be replaced
    ok    source registry: answers with 3 entries; 1 rejected: the registry names no master for \
    the node (null)
    ok    instance edge1: HAProxy [VERSION] answers, pid [PID]
    ok    instance edge1, level: admin
    ok    instance edge1, map: 3 entries in memory
    ok    instance edge1, masters: 2 masters in the map, each a backend or server here, and ready
    all is well
    ");
    assert!(scene.traces() == before, "check left something behind");
}

#[test]
fn a_bad_setup_has_every_problem_named_at_once() {
    let scene = Scene::new();
    let user_level =
        masters(Gateway::plan(version_3_0())).user_socket().map_of(&scene.gateway).start();
    let map_unused = masters(Gateway::plan(version_3_0())).map_unused().start();
    scene.registry.knows(&[("alpha", "master1"), ("beta", "puppet01.example.test")]);
    let settings = [
        ON_REQUEST,
        &format!(
            "[map]\npath = {:?}\nfile = \"/nonexistent/node-master.map\"\n",
            scene.gateway.map_path()
        ),
        &source_settings("registry", &scene.registry.url()),
        // Port 1 is nobody's.
        &source_settings("down", "http://127.0.0.1:1/nodes.json"),
        "required = false\n",
        &instance_settings("edge1", &scene.gateway.runtime_address()),
        &instance_settings("user-level", &user_level.user_runtime_address()),
        &instance_settings("map-unused", &map_unused.runtime_address()),
        &instance_settings("wrong-path", "unix@/nonexistent/admin.sock"),
    ]
    .concat();
    let output = Mapsmith::config(&settings).cli(&["check"]);
    assert_text!(text(&output, 1), @"
    ok    settings: 2 sources, 4 instances
    FAIL  map file: /nonexistent/node-master.map: its replacement can't be created: No such file \
    or directory (os error 2) (the folder must exist)
    ok    source registry: answers with 2 entries
    FAIL  source down: http://127.0.0.1:1/nodes.json: can't be reached: Connection refused (os \
    error 111)
    ok    instance edge1: HAProxy [VERSION] answers, pid [PID]
    ok    instance edge1, level: admin
    ok    instance edge1, map: 3 entries in memory
    FAIL  instance edge1, masters: no backend or server is named puppet01.example.test: add them \
    to HAProxy, or map the registry's names by [source.masters]
    ok    instance user-level: HAProxy [VERSION] answers, pid [PID]
    FAIL  instance user-level, level: unix@[GATEWAY]/user.sock is not an admin socket: add `level \
    admin` to its `stats socket` line in HAProxy's configuration
    ok    instance user-level, map: 3 entries in memory
    FAIL  instance user-level, masters: no backend or server is named puppet01.example.test: add \
    them to HAProxy, or map the registry's names by [source.masters]
    ok    instance map-unused: HAProxy [VERSION] answers, pid [PID]
    ok    instance map-unused, level: admin
    FAIL  instance map-unused, map: HAProxy's configuration uses no map of the name \
    [GATEWAY]/node-master.map: it must name exactly this path in a map converter
    FAIL  instance map-unused, masters: no backend or server is named puppet01.example.test: add \
    them to HAProxy, or map the registry's names by [source.masters]
    FAIL  instance wrong-path: unix@/nonexistent/admin.sock: can't connect: No such file or \
    directory (os error 2) (is HAProxy running, and does its `stats socket` have this path?)
    8 problems
    ");
}

#[test]
fn a_socket_of_user_level_is_found_whatever_the_version_lets_it_do() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).user_socket().entry("alpha", "default").start();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nodes.json");
        fs::write(&file, r#"{"alpha": "default"}"#).unwrap();
        let config = Mapsmith::config(&format!(
            "{ON_REQUEST}[map]\npath = {:?}\n[[source]]\nname = \"file\"\ntype = \"file\"\npath = \
                {file:?}\n{}",
            gateway.map_path(),
            instance_settings("edge1", &gateway.user_runtime_address())
        ));
        let text = text(&config.cli(&["check"]), 1);
        assert!(
            text.contains("FAIL  instance edge1, level:") && text.contains("level admin"),
            "{text}"
        );
    }
}

#[test]
fn a_plan_shows_every_change_and_each_masters_load_and_changes_nothing() {
    let scene = Scene::new();
    let config = scene.config();
    let before = scene.traces();
    let output = config.cli(&["plan"]);
    assert_text!(text(&output, 3), @"
    map: 3 -> 3 entries: 1 added, 1 moved, 1 removed
      beta: master1 -> master2
      gamma: no route -> master1
      omega: master1 -> no route
    masters
      master   nodes before  after
      master1  3             2
      master2  0             1
    instances
      edge1: 1 added, 1 moved, 1 removed, by [STRATEGY]
    ");
    assert!(scene.traces() == before, "plan left something behind");

    text(&config.cli(&["sync"]), 0);
    let before = scene.traces();
    let output = config.cli(&["plan"]);
    assert_text!(text(&output, 0), @"
    map: 3 -> 3 entries: 0 added, 0 moved, 0 removed
    masters
      master   nodes before  after
      master1  2             2
      master2  1             1
    instances
      edge1: in sync
    nothing to do
    ");
    assert!(scene.traces() == before, "plan left something behind");
}

#[test]
fn a_plan_shows_what_an_instance_alone_lacks() {
    let scene = Scene::new();
    let config = scene.config();
    text(&config.cli(&["sync"]), 0);
    scene.gateway.command(&format!("set map {} beta master1", scene.gateway.map_path()));
    let output = config.cli(&["plan"]);
    assert_text!(text(&output, 3), @"
    map: 3 -> 3 entries: 0 added, 0 moved, 0 removed
    masters
      master   nodes before  after
      master1  2             2
      master2  1             1
    instances
      edge1: 0 added, 1 moved, 0 removed, by [STRATEGY]
    ");
}

#[test]
fn a_plan_of_what_the_guard_would_hold_says_so_and_long_ones_are_cut() {
    let scene = Scene::of_one_node();
    scene.registry.knows(&borrowed(&nodes(40, "master1")));
    let config = scene.config();
    text(&config.cli(&["sync"]), 0);
    scene.registry.knows(&borrowed(&nodes(10, "master1")));
    let before = scene.traces();
    let cut = text(&config.cli(&["plan"]), 4);
    let whole = text(&config.cli(&["plan", "--all"]), 4);
    assert_eq!(cut.lines().filter(|line| line.ends_with(" -> no route")).count(), 20);
    assert_eq!(whole.lines().filter(|line| line.ends_with(" -> no route")).count(), 30);
    assert!(scene.traces() == before, "plan left something behind");
    let end = &cut[cut.find("  and 10 more").unwrap_or_else(|| panic!("{cut}"))..];
    assert_text!(end, @"
      and 10 more (--all prints them)
    masters
      master   nodes before  after
      master1  40            10
    instances
      edge1: 0 added, 0 moved, 30 removed, by [STRATEGY]
    the guard would hold this back: the change would remove 30 of the 40 entries in force \
    (75.0%), guard.max_removed allows 20%
    ");
}

#[test]
fn a_plan_without_an_answer_fails_and_says_why() {
    let scene = Scene::new();
    scene.registry.answers(503, "PuppetDB is starting");
    let config = scene.config();
    let output = config.cli(&["plan"]);
    assert_text!(complaint(&output, 1), @"
    mapsmith: there is nothing to plan with, because a required source gave no answer:
      source registry: http://127.0.0.1:[PORT]/nodes.json: is unavailable for now (503): PuppetDB \
      is starting
    ");
    let gone = scene.settings().replace("admin.sock", "gone.sock");
    scene.registry.answers(200, ANSWER);
    let text = text(&Mapsmith::config(&gone).cli(&["plan"]), 1);
    assert!(text.contains("edge1: unix@") && text.contains("can't connect"), "{text}");
}

#[test]
fn a_sync_brings_everything_in_sync_once() {
    for binary in oldest_and_newest() {
        let scene = Scene {
            gateway: masters(Gateway::plan(binary))
                .entry("alpha", "master1")
                .entry("omega", "master1")
                .start(),
            ..Scene::new()
        };
        let config = scene.config();
        let (first, second) = (config.cli(&["sync"]), config.cli(&["sync"]));
        insta::allow_duplicates! {
            assert_text!(text(&first, 0), @"
            revision 1: 2 added, 0 moved, 1 removed, 3 entries
            instance edge1: in sync with revision 1; 2 added, 0 moved, 1 removed by [STRATEGY] \
            ([STEPS])
            ");
            assert_text!(text(&second, 0), @"
            revision 1: nothing changed
            instance edge1: in sync with revision 1; already in memory
            ");
        }
        let wanted = entries(&[("alpha", "master1"), ("beta", "master2"), ("gamma", "master1")]);
        assert_eq!((memory(&scene.gateway), map_file(&scene.gateway)), (wanted.clone(), wanted));
    }
}

#[test]
fn a_held_sync_touches_nothing_until_exactly_that_change_is_approved() {
    let scene = Scene::of_one_node();
    scene.registry.knows(&borrowed(&nodes(40, "master1")));
    let config = scene.config();
    text(&config.cli(&["sync"]), 0);
    scene.registry.knows(&borrowed(&nodes(10, "master1")));
    let before = scene.traces();
    let output = config.cli(&["sync"]);
    let held = text(&output, 4);
    assert_text!(held, @"
    revision 1: nothing changed
    instance edge1: in sync with revision 1; already in memory
    HELD BY THE GUARD: nothing of this change is applied
      the change would remove 30 of the 40 entries in force (75.0%), guard.max_removed allows 20%
      since [TIME] ([AGE] ago): 40 entries in force, 10 held: 0 added, 0 moved, 30 removed
      let it through: mapsmith sync --approve 4d68a5c2ec2f1de0
    ");
    assert!(scene.traces() == before, "a held sync left something behind");

    let wrong = text(&config.cli(&["sync", "--approve", "0123456789abcdef"]), 4);
    assert!(wrong.contains("0123456789abcdef is not the one held back"), "{wrong}");
    assert!(scene.traces() == before, "a wrong approval left something behind");

    let id = held.split("--approve ").nth(1).expect("the command is printed").trim();
    text(&config.cli(&["sync", "--approve", id]), 0);
    assert_eq!(memory(&scene.gateway), nodes(10, "master1"));
}

#[test]
fn an_approval_that_was_not_needed_fails_and_still_leaves_file_and_memory_in_sync() {
    let scene = Scene::new();
    let printed = text(&scene.config().cli(&["sync", "--approve", "0123456789abcdef"]), 1);
    assert!(printed.contains("nothing is held back"), "{printed}");
    let wanted = entries(&[("alpha", "master1"), ("beta", "master2"), ("gamma", "master1")]);
    assert_eq!((memory(&scene.gateway), map_file(&scene.gateway)), (wanted.clone(), wanted));
}

#[test]
fn a_sync_without_an_answer_fails_and_touches_nothing() {
    let scene = Scene::new();
    scene.registry.answers(500, "the database is down");
    let before = scene.traces();
    let output = scene.config().cli(&["sync"]);
    assert_text!(text(&output, 1), @"
    revision 0 stays in the map file; no instance was touched
    source registry: http://127.0.0.1:[PORT]/nodes.json: failed (500): the database is down
    ");
    assert!(scene.traces() == before, "it left something behind");
}

#[test]
fn what_is_printed_for_people_is_there_for_programs_too() {
    let scene = Scene::new();
    let config = scene.config();
    let json = |arguments: &[&str], code| -> Value {
        let text = text(&config.cli(&[arguments, &["--output", "json"]].concat()), code);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
    };
    let check = json(&["check"], 0);
    assert_eq!(check["ok"], true, "{check:#}");
    assert!(check["findings"].as_array().is_some_and(|findings| findings.len() > 5), "{check:#}");
    let plan = json(&["plan"], 3);
    assert_eq!(
        (&plan["added"], &plan["moved"], &plan["removed"]),
        (&json!(1), &json!(1), &json!(1)),
        "{plan:#}"
    );
    assert_eq!(
        plan["changes"][0],
        json!({ "node": "beta", "from": "master1", "to": "master2" }),
        "{plan:#}"
    );
    assert_eq!(
        plan["masters"][0],
        json!({ "master": "master1", "before": 3, "after": 2 }),
        "{plan:#}"
    );
    let sync = json(&["sync"], 0);
    assert_eq!(
        (&sync["revision"], &sync["instances"][0]["state"]),
        (&json!(1), &json!("in_sync")),
        "{sync:#}"
    );
}

/// Port 1 is nobody's: its health checks fail.
#[test]
fn masters_and_servers_that_are_down_are_no_good_setup() {
    for binary in oldest_and_newest() {
        let plan = Gateway::plan(binary)
            .entry("alpha", "good")
            .master("good", ([127, 0, 0, 1], 9).into())
            .more(
                "backend dead\n    server d1 127.0.0.1:1 check inter 100ms fall 1\n    server d2 \
                127.0.0.1:1 check inter 100ms fall 1\n\
             backend resting\n    server r1 127.0.0.1:1 disabled\nbackend alive\n    server a1 \
             127.0.0.1:1\n    server a2 127.0.0.1:1 check inter 100ms fall 1\n",
            );
        let scene = Scene { gateway: plan.start(), ..Scene::new() };
        scene.registry.knows(&[
            ("alpha", "good"),
            ("beta", "dead"),
            ("gamma", "resting"),
            ("delta", "a1"),
        ]);
        eventually("the health checks have failed", BOUND, || {
            let down = scene
                .gateway
                .command("show stat")
                .lines()
                .filter(|line| line.contains(",DOWN"))
                .count();
            // Three servers, and the backend of two of them.
            (down >= 4).then_some(())
        });
        let declared = "[[backend]]\nname = \"dead\"\nservers = []\n[[backend]]\nname \
            = \"resting\"\nservers = []\n[[backend]]\nname = \"alive\"\nservers = []\n";
        let printed =
            text(&Mapsmith::config(&format!("{}{declared}", scene.settings())).cli(&["check"]), 1);
        for told in [
            "FAIL  instance edge1, masters: 2 of 4 masters can't take requests (down, drained or \
                in maintenance; HAProxy's `show stat` says which): dead, resting",
            "FAIL  instance edge1, backends: every server is down by its health check in dead\n",
            "FAIL  instance edge1, servers: 3 servers are down: alive/a2 (Layer4 connection \
                problem), dead/d1 (Layer4 connection problem), dead/d2 (Layer4 connection problem)\n",
        ] {
            assert!(printed.contains(told), "{told}\n{printed}");
        }
        assert!(!printed.contains("all is well"), "{printed}");
    }
}

#[test]
fn a_socket_whose_connections_are_all_taken_is_told_as_that() {
    let scene = Scene::new();
    let socket = scene.gateway.runtime_address();
    let path = socket.strip_prefix("unix@").expect("a unix socket").to_owned();
    // As many as `stats maxconn` allows unless set, each with a session that HAProxy waits in.
    let held: Vec<_> = (0..10)
        .map(|_| {
            let mut held = UnixStream::connect(&path).expect("there is room");
            held.write_all(b"prompt\nset timeout cli 60\n").expect("it is read");
            let mut prompt = [0; 2];
            held.read_exact(&mut prompt).expect("HAProxy answers");
            held
        })
        .collect();
    let printed = text(&scene.config().cli(&["check"]), 1);
    drop(held);
    assert!(
        printed.contains(
            "other programs hold every connection that its `stats maxconn` allows (10 unless set)"
        ),
        "{printed}"
    );
}

#[test]
fn what_can_not_be_printed_is_a_failure() {
    let scene = Scene::new();
    let config = scene.config();
    for arguments in [
        &["check"][..],
        &["check", "--output", "json"],
        &["plan"],
        &["--help"],
        &["--version"],
        &["check", "--help"],
    ] {
        let output = config.cli_into(arguments, "/dev/full");
        let complaint = complaints(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(
            complaint.contains("standard output can't be written: No space left on device"),
            "{arguments:?}: {complaint}"
        );
    }
}

#[test]
fn a_file_that_is_not_ours_has_one_hint_and_the_right_one() {
    let scene = Scene::new();
    let map = scene.gateway.map_path();
    let Ok(metadata) = fs::metadata(map) else { panic!("the map file is there") };
    if std::os::unix::fs::chown(map, Some(metadata.uid() + 1), None).is_err() {
        eprintln!("only root can give a file away: not tested here");
        return;
    }
    // Without the right to give files away, as the daemon runs.
    let config = scene.config();
    let output = config.cli_as(&["setpriv", "--bounding-set=-chown"], &["check"]);
    let printed = text(&output, 1);
    assert!(
        printed.contains(
            "its owner and group can't be kept (give the file to Mapsmith's user): \
            Operation not permitted"
        ),
        "{printed}"
    );
    assert!(!printed.contains("must be able to write the folder"), "{printed}");

    fs::set_permissions(config.path(), fs::Permissions::from_mode(0o600)).expect("ours");
    std::os::unix::fs::chown(config.path(), Some(metadata.uid() + 1), None)
        .expect("root gives it away");
    let refused = complaint(
        &config.cli_as(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"], &["check"]),
        2,
    );
    assert!(
        refused.contains(
            "mapsmith.toml: can't be read: Permission denied (os error 13); let the \
            user read it who runs this"
        ),
        "{refused}"
    );
}
