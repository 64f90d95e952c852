//! Servers that come and go, and changes that wait for quiet.

use serde_json::Value;

use super::{HOLDING, LISTED, Scene, backend, list, servers};
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, in_sync, printed, reload};

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
