//! `pin`, `unpin`, `drain` and `undrain`, and what `status` and `explain` say of them.

use serde_json::{Value, json};

use super::{Scene, complaint, text};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::in_sync;

/// The scene with a daemon that is in sync and has a store.
fn start() -> (Scene, Mapsmith) {
    let scene = Scene::new();
    let mapsmith =
        Mapsmith::config(&format!("{}[store]\npath = \"mapsmith.db\"\n", scene.settings())).start();
    in_sync(&mapsmith);
    (scene, mapsmith)
}

#[test]
fn a_pin_is_told_with_its_outcome_and_explained() {
    let (_scene, mapsmith) = start();
    assert_text!(text(&mapsmith.cli(&["pin", "ALPHA", "master2", "--for", "2h"]), 0), @"node \
        alpha is pinned to master2 until [TIME]; revision 2: 0 added, 1 moved, 0 removed; 1 of 1 \
        instances in sync");
    assert_text!(text(&mapsmith.cli(&["explain", "alpha"]), 0), @"
    node alpha goes to master2 (revision 2)
      since revision 2, [AGE] ago: master1 -> master2
      pinned to master2 by local [AGE] ago, until [TIME]
    sources
      registry: master1 (would count without the override), answered [AGE] ago
    in memory right now
      edge1: master2
    ");
    assert_text!(text(&mapsmith.cli(&["status"]), 0), @r#"
    all is well: nothing needs you

    revision   2, 3 entries
    changed    [AGE] ago by override: 0 added, 1 moved, 0 removed
    masters    master1 1, master2 2
    pinned     1 node
    map file   [GATEWAY]/node-master.map

    sources
      registry  http_json  3 entries  answered [AGE] ago  last poll full, [N] ms, 74 bytes
      registry: 1 rejected: the registry names no master for the node (null), as "delta"

    instances
      edge1  in sync with revision 2 (HAProxy [VERSION], pid [PID])
        last change [AGE] ago: revision 2 by [STRATEGY]: 0 added, 1 moved, 0 removed ([STEPS])
    "#);
    assert_text!(text(&mapsmith.cli(&["unpin", "alpha"]), 0), @"node alpha is no longer pinned; \
        revision 3: 0 added, 1 moved, 0 removed; 1 of 1 instances in sync");
    assert_text!(complaint(&mapsmith.cli(&["unpin", "alpha"]), 1), @"mapsmith: node alpha has no \
        pin (404 Not Found)");
    assert_text!(
        text(&mapsmith.cli(&["pin", "gamma", "master3", "--force", "--wait", "0s"]), 0),
        @"node gamma is pinned to master3 (by force: no HAProxy has a backend or server of the \
            name); it is stored, and every instance gets it now"
    );
}

#[test]
fn a_drain_is_told_with_its_outcome_and_explained() {
    let (_scene, mapsmith) = start();
    assert_text!(text(&mapsmith.cli(&["drain", "master1"]), 0), @"master master1 is drained to \
        the others; revision 2: 0 added, 2 moved, 0 removed; 1 of 1 instances in sync");
    assert_text!(text(&mapsmith.cli(&["explain", "alpha"]), 0), @"
    node alpha goes to master2 (revision 2)
      since revision 2, [AGE] ago: master1 -> master2
      master1 is drained to the others by local [AGE] ago, until it is undrained
    sources
      registry: master1 (would count without the override), answered [AGE] ago
    in memory right now
      edge1: master2
    ");
    assert_text!(complaint(&mapsmith.cli(&["drain", "master2", "--spread"]), 1), @"mapsmith: no \
        other master is left that the nodes of master2 could go to; name one with --to, or \
        undrain another (--force, or force=true, stores it all the same) (409 Conflict)");
    assert_text!(text(&mapsmith.cli(&["drain", "master2", "--spread", "--force"]), 0), @"master \
        master2 is drained to the others; no other master is left, so these keep their nodes: \
        master1, master2; revision 3: 0 added, 2 moved, 0 removed; 1 of 1 instances in sync");
    assert_text!(text(&mapsmith.cli(&["status"]), 0), @r#"
    2 things need you
      act master1 is drained and keeps its nodes: no other master is left
           End the drain, or add a master that can take the nodes: mapsmith undrain master1
      act master2 is drained and keeps its nodes: no other master is left
           End the drain, or add a master that can take the nodes: mapsmith undrain master2

    revision   3, 3 entries
    changed    [AGE] ago by override: 0 added, 2 moved, 0 removed
    masters    master1 2, master2 1
    drained    master1 (keeps its nodes, because no other master is left), master2 (keeps its nodes, because no other master is left)
    map file   [GATEWAY]/node-master.map

    sources
      registry  http_json  3 entries  answered [AGE] ago  last poll full, [N] ms, 74 bytes
      registry: 1 rejected: the registry names no master for the node (null), as "delta"

    instances
      edge1  in sync with revision 3 (HAProxy [VERSION], pid [PID])
        last change [AGE] ago: revision 3 by [STRATEGY]: 0 added, 2 moved, 0 removed ([STEPS])
    "#);
    assert_text!(text(&mapsmith.cli(&["undrain", "master1"]), 0), @"master master1 is no longer \
        drained; revision 4: 0 added, 1 moved, 0 removed; 1 of 1 instances in sync");
    assert_text!(text(&mapsmith.cli(&["drain", "master2", "--to", "master1"]), 0), @"master \
        master2 is drained to master1; nothing changed; 1 of 1 instances in sync");
    assert_text!(text(&mapsmith.cli(&["undrain", "master2"]), 0), @"master master2 is no longer \
        drained; revision 5: 0 added, 1 moved, 0 removed; 1 of 1 instances in sync");
    assert_text!(complaint(&mapsmith.cli(&["undrain", "master2"]), 1), @"mapsmith: master master2 \
        is not drained (404 Not Found)");
    assert_text!(
        complaint(&mapsmith.cli(&["drain", "master2", "--to", "master2"]), 1),
        @"mapsmith: master2 can't be drained to itself; name another master (400 Bad Request)"
    );
}

#[test]
fn what_was_ordered_is_there_for_programs_too() {
    let (_scene, mapsmith) = start();
    let json = |arguments: &[&str]| -> Value {
        let text = text(&mapsmith.cli(&[arguments, &["--output", "json"]].concat()), 0);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
    };
    let report = json(&["pin", "alpha", "master2"]);
    assert_eq!(
        (&report["outcome"], &report["changes"][0]["moved"]),
        (&json!("in_sync"), &json!(1)),
        "{report:#}"
    );
    assert_eq!(report["changes"][0]["sources"], json!(["override"]));
    assert_eq!(json(&["drain", "master1", "--to", "master2"])["outcome"], "in_sync");
    let status = json(&["status"]);
    assert_eq!(
        (&status["pins"], &status["drained"][0]["to"]),
        (&json!(1), &json!("master2")),
        "{status:#}"
    );
    assert_eq!(json(&["unpin", "alpha", "--wait", "0s"])["outcome"], "requested");
}

#[test]
fn an_override_that_does_not_arrive_everywhere_fails_and_names_the_instance() {
    let (scene, mapsmith) = start();
    let Scene { mut gateway, registry: _registry } = scene;
    gateway.kill();
    let output = mapsmith.cli(&["pin", "alpha", "master2", "--wait", "1s"]);
    let text = text(&output, 1);
    assert!(
        text.starts_with(
            "node alpha is pinned to master2; not in sync within 1s: edge1\n  instance edge1: "
        ),
        "{text}"
    );
}

#[test]
fn a_wrong_use_is_told_before_anything_is_asked() {
    for arguments in [
        &["pin", "alpha"][..],
        &["pin", "alpha", "master2", "--for", "soon"],
        &["drain", "master1", "--to", "master2", "--spread"],
        &["drain"],
    ] {
        complaint(&crate::support::mapsmith::cli(arguments, None), 2);
    }
}

#[test]
fn a_name_that_a_path_would_swallow_is_refused_in_words() {
    for arguments in [
        &["pin", ".", "master1"][..],
        &["unpin", ".."],
        &["drain", ""],
        &["undrain", ".."],
        &["explain", "."],
    ] {
        let told = complaint(&crate::support::mapsmith::cli(arguments, None), 1);
        assert!(told.contains("is not a valid node or master name"), "{arguments:?}: {told}");
    }
}
