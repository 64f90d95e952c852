//! Two Mapsmiths that were pointed at one map file: one of them works, the other one says whose the
//! file is.

use serde_json::json;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, gateway_settings, in_sync, map_file, memory, metric, newest,
    nodes, printed, source_settings,
};

fn config(gateway: &Gateway, registry: &Registry, site: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    let store = "[store]\npath = \"mapsmith.db\"\n";
    Mapsmith::config(&format!(
        "[site]\nname = {site:?}\n{ON_REQUEST}{}{source}{store}",
        gateway_settings(gateway)
    ))
}

#[test]
fn a_second_daemon_on_a_map_file_changes_nothing_and_says_whose_it_is() {
    let known = nodes(40, "m1");
    let (gateway, registry) = (Gateway::plan(newest()).start(), Registry::start(&borrowed(&known)));
    let first = config(&gateway, &registry, "first").start();
    in_sync(&first);
    let mut second = config(&gateway, &registry, "second").start();
    let told = format!("pid {} on", first.id());
    let status = second.get("/v1/status").1;
    assert!(
        status["read_only"]
            .as_str()
            .is_some_and(|text| text.contains(&told) && text.contains("first")),
        "{status:#}"
    );
    let (code, readiness) = second.get("/readyz");
    assert!(
        code == 503 && readiness["missing"].to_string().contains("another Mapsmith"),
        "{code} {readiness:#}"
    );
    assert_eq!(metric(&second, "mapsmith_read_only"), Some(1.0));
    let (code, text) = printed(&second.cli(&["status"]));
    assert!(code == 1 && text.contains("READ-ONLY") && text.contains(&told), "{code}\n{text}");

    // A pin in one of them, which the other one knows nothing of, and drift that both could see.
    let response =
        first.ask("PUT", "/v1/overrides/n001?wait=30s&force=true", &[], "{\"master\": \"m1b\"}");
    assert_eq!(response.status, 200, "{}", response.body);
    let response =
        second.ask("PUT", "/v1/overrides/n002?wait=5s&force=true", &[], "{\"master\": \"m1c\"}");
    assert!(
        response.status == 409 && response.body.contains(&told),
        "{} {}",
        response.status,
        response.body
    );
    let mut pinned = known.clone();
    pinned[1].1 = "m1b".to_owned();
    gateway.command(&format!("set map {} n001 m9", gateway.map_path()));
    first.wait_for("the drift is corrected", BOUND, |_| (memory(&gateway) == pinned).then_some(()));
    assert_eq!(second.post("/v1/reload?wait=10s").0, 409);
    assert_eq!((memory(&gateway), map_file(&gateway)), (pinned.clone(), pinned.clone()));

    // The first one ends: the second goes on from what it left, with its own pin.
    drop(first);
    let mut taken = pinned.clone();
    taken[1].1 = "m1".to_owned();
    taken[2].1 = "m1c".to_owned();
    second.wait_for("the second one goes on", BOUND, |second| {
        (memory(&gateway) == taken && second.get("/readyz").0 == 200).then_some(())
    });
    assert_eq!(second.get("/v1/status").1["read_only"], json!(null));
    assert_eq!(second.sigterm(), 0);
}

#[test]
fn a_daemon_that_takes_over_makes_the_other_one_read_only() {
    let known = nodes(40, "m1");
    let (gateway, registry) = (Gateway::plan(newest()).start(), Registry::start(&borrowed(&known)));
    let first = config(&gateway, &registry, "first").start();
    in_sync(&first);
    let second = config(&gateway, &registry, "second").argument("--take-over").start();
    in_sync(&second);
    let told = format!("pid {} on", second.id());
    first.wait_for("the first one is read-only", BOUND, |first| {
        first.get("/v1/status").1["read_only"]
            .as_str()
            .is_some_and(|text| text.contains(&told))
            .then_some(())
    });
    registry.knows(&borrowed(&nodes(41, "m1")));
    assert_eq!(second.post("/v1/reload?wait=30s").0, 200, "{}", second.log());
    assert_eq!(first.post("/v1/reload?wait=10s").0, 409);
    assert_eq!((memory(&gateway), map_file(&gateway)), (nodes(41, "m1"), nodes(41, "m1")));
    // One round by hand would be a third writer.
    let (code, text) = printed(&first.configuration().cli(&["sync"]));
    assert!(code == 1 && text.contains(&told), "{code}\n{text}");
}
