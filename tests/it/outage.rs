//! The registry is away while Mapsmith starts, and the file system while it works: what was good
//! last stays in force, and what is missing is said.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, gateway_settings, in_sync, map_file, memory, metric, nodes,
    oldest_and_newest, printed, reload, source_settings,
};

/// What a registry does from then on.
type Outage = fn(&Registry);

#[test]
fn a_restart_during_an_outage_keeps_every_route_right() {
    for binary in oldest_and_newest() {
        // Held by the guard, failed, and silent.
        let outages: [(&str, Outage); 3] = [
            ("an empty answer", |registry| registry.answers(200, "{}")),
            ("status 500", |registry| registry.answers(500, "down")),
            ("no answer", Registry::hangs),
        ];
        for (outage, begin) in outages {
            let known = nodes(200, "m1");
            let (gateway, registry) =
                (Gateway::plan(binary).start(), Registry::start(&borrowed(&known)));
            let source = source_settings("registry", &registry.url());
            let store = "[store]\npath = \"mapsmith.db\"\n";
            let mut mapsmith = Mapsmith::config(&format!(
                "{ON_REQUEST}{}{source}{store}",
                gateway_settings(&gateway)
            ))
            .start();
            in_sync(&mapsmith);
            begin(&registry);
            mapsmith.restart();
            let holds = |mapsmith: &Mapsmith, what: &str, expected: &[(String, String)]| {
                mapsmith.wait_for(&format!("{outage}: {what}"), BOUND, |_| {
                    let there = Path::new(gateway.map_path()).exists();
                    (there && memory(&gateway) == expected && map_file(&gateway) == expected)
                        .then_some(())
                });
            };
            // Ready at once, with the map that was good last.
            let status = in_sync(&mapsmith);
            assert_eq!(
                (&status["revision"], &status["instances"][0]["state"]),
                (&json!(1), &json!("in_sync")),
                "{status:#}"
            );
            let map = gateway.map_path();
            gateway.command(&format!("set map {map} n007 m9"));
            holds(&mapsmith, "a value that was changed in memory is corrected", &known);
            gateway.command(&format!("clear map {map}"));
            holds(&mapsmith, "a memory that was cleared is filled", &known);
            fs::remove_file(map).expect("the map file goes");
            holds(&mapsmith, "a lost map file is written again", &known);
            let (code, report) = request(
                &mapsmith,
                "PUT",
                "/v1/overrides/n003?wait=30s&force=true",
                "{\"master\": \"m1b\"}",
            );
            let mut pinned = known.clone();
            pinned[3].1 = "m1b".to_owned();
            holds(&mapsmith, "a pin comes into force", &pinned);
            assert_eq!(code, 200, "{outage}: {report}");
            let (code, report) = request(&mapsmith, "DELETE", "/v1/overrides/n003?wait=30s", "");
            holds(&mapsmith, "and ends", &known);
            assert_eq!(code, 200, "{outage}: {report}");
            assert_told(&mapsmith, outage);
            registry.knows(&borrowed(&nodes(201, "m1")));
            reload(&mapsmith);
            assert_eq!(memory(&gateway), nodes(201, "m1"), "{outage}");
            assert_eq!(mapsmith.get("/v1/status").1["waiting_for"], json!([]));
        }
    }
}

/// What is missing is said, in the status and by the commands.
fn assert_told(mapsmith: &Mapsmith, outage: &str) {
    mapsmith.wait_for(&format!("{outage}: the status says so"), BOUND, |mapsmith| {
        let status = mapsmith.get("/v1/status").1;
        (status["waiting_for"] == json!(["registry"]) || status["held"][0]["id"].is_string())
            .then_some(())
    });
    let (_, text) = printed(&mapsmith.cli(&["explain", "n007"]));
    let said = text.contains("has not answered since the start; the map file's map stays in force");
    assert!(
        text.contains("node n007 goes to m1") && (said || text.contains("HELD BY THE GUARD")),
        "{outage}: {text}"
    );
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    let said =
        text.contains("WAITING for an answer of registry: the map file's map stays in force");
    assert!(code != 0 && (said || text.contains("HELD BY THE GUARD")), "{outage}: {code}\n{text}");
}

fn request(mapsmith: &Mapsmith, method: &str, path: &str, body: &str) -> (u16, String) {
    let response = mapsmith.ask(method, path, &[], body);
    (response.status, response.body)
}

#[test]
fn a_fifo_in_the_map_files_place_is_named_and_stops_nothing_else() {
    let (gateway, registry) = (
        Gateway::plan(oldest_and_newest()[1]).start(),
        Registry::start(&borrowed(&nodes(3, "m1"))),
    );
    let source = source_settings("registry", &registry.url());
    let mut mapsmith =
        Mapsmith::config(&format!("{ON_REQUEST}{}{source}", gateway_settings(&gateway))).start();
    in_sync(&mapsmith);
    let map = Path::new(gateway.map_path());
    fs::remove_file(map).expect("the map file goes");
    rustix::fs::mkfifoat(rustix::fs::CWD, map, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .expect("a FIFO");
    mapsmith.wait_for("the failure shows", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_map_file_failed")? == 1.0).then_some(())
    });
    let (code, readiness) = mapsmith.get("/readyz");
    assert_eq!(code, 503, "{readiness:#}");
    registry.knows(&borrowed(&nodes(4, "m1")));
    let (code, report) = mapsmith.post("/v1/reload?wait=20s");
    let message = report["detail"].as_str().unwrap_or_default();
    assert!(code == 500 && message.contains("not a regular file"), "{code} {report:#}");
    assert_eq!(memory(&gateway), nodes(3, "m1"), "what is not in the file comes into no memory");
    assert_eq!(mapsmith.get("/healthz").0, 200, "the file is at fault, not Mapsmith");
    fs::remove_file(map).expect("the FIFO goes");
    mapsmith.wait_for("the change arrives by itself", BOUND, |_| {
        (memory(&gateway) == nodes(4, "m1")).then_some(())
    });
    // And one that is there when the end comes delays nothing.
    fs::remove_file(map).expect("the map file goes");
    rustix::fs::mkfifoat(rustix::fs::CWD, map, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .expect("a FIFO");
    assert_eq!(mapsmith.sigterm(), 0, "{}", mapsmith.log());
}
