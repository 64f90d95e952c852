//! `/metrics`: every promised series is there under its name, with values that fit what happened.

use std::io::Write;
use std::process::{Command, Stdio};

use mapsmith::telemetry;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::promtool;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, gateway_settings, in_sync, instance_settings, metric, newest,
    nodes, oldest_and_newest, reload, source_settings,
};

/// A sample whose labels are in the given order, as Mapsmith writes them.
fn sample(mapsmith: &Mapsmith, name: &str, labels: &str) -> f64 {
    let series = if labels.is_empty() { name.to_owned() } else { format!("{name}{{{labels}}}") };
    metric(mapsmith, &series).unwrap_or_else(|| {
        panic!("{series} is missing in:\n{}", mapsmith.get("/metrics").1.as_str().unwrap())
    })
}

/// A Mapsmith in sync with the registry.
fn start(gateway: &Gateway, registry: &Registry) -> Mapsmith {
    let settings = format!(
        "{ON_REQUEST}{}{}",
        gateway_settings(gateway),
        source_settings("registry", &registry.url())
    );
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    mapsmith
}

/// A revision that adds, moves and removes; an answer with rows that are left out; a failure; a
/// hold; drift.
fn much_happens(gateway: &Gateway, registry: &Registry, mapsmith: &Mapsmith) {
    let reaches = |what: &str, series: &str, value: f64| {
        mapsmith
            .wait_for(what, BOUND, |mapsmith| (metric(mapsmith, series)? >= value).then_some(()));
    };

    let mut changed = nodes(39, "m1");
    changed[0].1 = "m2".to_owned();
    changed.push(("new1".to_owned(), "m1".to_owned()));
    changed.push(("new2".to_owned(), "m1".to_owned()));
    changed.push(("lost".to_owned(), "m 1".to_owned()));
    registry.knows(&borrowed(&changed));
    mapsmith.post("/v1/reload");
    reaches(
        "the revision",
        &format!("{}{{haproxy=\"edge1\"}}", telemetry::INSTANCE_REVISION_HELD),
        2.0,
    );
    registry.answers(500, "down");
    mapsmith.post("/v1/reload");
    reaches("the failure", &format!("{}{{source=\"registry\"}}", telemetry::SOURCE_FAILURES), 1.0);
    registry.knows(&[]);
    mapsmith.post("/v1/reload");
    reaches("the hold", telemetry::GUARD_HELD, 1.0);
    gateway.command(&format!("del map {} new1", gateway.map_path()));
    reaches(
        "the correction",
        &format!("{}{{haproxy=\"edge1\",kind=\"map_changed\"}}", telemetry::DRIFT_CORRECTED),
        1.0,
    );
}

#[test]
fn every_promised_metric_is_there_with_values_that_fit_what_happened() {
    for binary in oldest_and_newest() {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&borrowed(&nodes(40, "m1")));
        let settings = format!(
            "{ON_REQUEST}{}{}{}",
            gateway_settings(&gateway),
            instance_settings("gone", "unix@/nonexistent/admin.sock"),
            source_settings("registry", &registry.url())
        );
        let mapsmith = Mapsmith::config(&settings).start();
        in_sync(&mapsmith);
        much_happens(&gateway, &registry, &mapsmith);

        let value = |name: &str, labels: &str| sample(&mapsmith, name, labels);
        let source = "source=\"registry\"";
        assert!((0.0..3600.0).contains(&value(telemetry::SOURCE_ANSWER_AGE, source)));
        assert!(
            value(
                &format!("{}_count", telemetry::SOURCE_POLL_DURATION),
                &format!("{source},kind=\"full\"")
            ) >= 3.0
        );
        assert!(
            value(
                &format!("{}_count", telemetry::SOURCE_POLL_DURATION),
                &format!("{source},kind=\"failed\"")
            ) >= 1.0
        );
        assert!(
            value(
                &format!("{}_sum", telemetry::SOURCE_POLL_DURATION),
                &format!("{source},kind=\"full\"")
            ) > 0.0
        );
        assert_eq!(value(telemetry::SOURCE_ANSWER_BYTES, source), 2.0, "the last answer was {{}}");
        assert_eq!(value(telemetry::SOURCE_ENTRIES, source), 0.0);
        assert!(value(telemetry::SOURCE_FAILURES, source) >= 1.0);
        // The reason of an answer before the last one has gone to 0, not away.
        assert_eq!(
            value(telemetry::SOURCE_REJECTED, &format!("{source},reason=\"value_whitespace\"")),
            0.0
        );
        assert_eq!(value(telemetry::MAP_ENTRIES, ""), 41.0);
        for (kind, count) in [("added", 42.0), ("moved", 1.0), ("removed", 1.0)] {
            assert_eq!(value(telemetry::MAP_CHANGES, &format!("kind=\"{kind}\"")), count, "{kind}");
        }
        assert_eq!(value(telemetry::REVISION, ""), 2.0);
        assert_eq!(
            (value(telemetry::GUARD_HOLDS, ""), value(telemetry::GUARD_HELD, "")),
            (1.0, 1.0)
        );
        assert_eq!(value(telemetry::MAP_FILE_FAILED, ""), 0.0);
        for (instance, up) in [("edge1", 1.0), ("gone", 0.0)] {
            let instance = format!("haproxy=\"{instance}\"");
            assert_eq!(value(telemetry::INSTANCE_UP, &instance), up, "{instance}");
            assert_eq!(value(telemetry::INSTANCE_IN_SYNC, &instance), up, "{instance}");
            assert_eq!(value(telemetry::INSTANCE_REVISION_WANTED, &instance), 2.0, "{instance}");
        }
        assert_eq!(value(telemetry::INSTANCE_REVISION_HELD, "haproxy=\"edge1\""), 2.0);
        let applied: f64 = ["edits", "swap"]
            .iter()
            .filter_map(|strategy| {
                let labels = format!("haproxy=\"edge1\",strategy=\"{strategy}\"");
                metric(&mapsmith, &format!("{}_count{{{labels}}}", telemetry::APPLY_DURATION))
            })
            .sum();
        assert!(applied >= 3.0, "two revisions and a correction, not {applied}");
    }
}

#[test]
fn rejected_entries_are_counted_by_reason() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[]);
    registry.answers(200, r##"{"a": "m1", "b": null, "c": null, "d e": "m1", "#f": "m1"}"##);
    let mapsmith = start(&gateway, &registry);
    for (reason, count) in [("no_master", 2.0), ("key_whitespace", 1.0), ("key_mark", 1.0)] {
        let labels = format!("source=\"registry\",reason=\"{reason}\"");
        assert_eq!(sample(&mapsmith, telemetry::SOURCE_REJECTED, &labels), count, "{reason}");
    }
}

#[test]
fn counters_are_there_from_the_start_so_that_their_first_rise_is_seen() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[]);
    let settings = format!(
        "{ON_REQUEST}{}{}",
        gateway_settings(&gateway),
        source_settings("registry", &registry.url())
    );
    let mapsmith = Mapsmith::config(&settings).start();
    // Held at once, for it is empty: so nothing else has happened.
    mapsmith.wait_for("the answer is judged", BOUND, |mapsmith| {
        mapsmith.get("/v1/held").1[0]["id"].is_string().then_some(())
    });
    let mut counters = vec![
        (telemetry::SOURCE_FAILURES, "source=\"registry\"".to_owned()),
        (telemetry::APPLY_FAILURES, "haproxy=\"edge1\"".to_owned()),
        (telemetry::DRIFT_CORRECTED, "haproxy=\"file\",kind=\"map_file\"".to_owned()),
        (telemetry::API_CONNECTIONS_REFUSED, String::new()),
    ];
    counters.extend(
        ["added", "moved", "removed"]
            .map(|kind| (telemetry::MAP_CHANGES, format!("kind=\"{kind}\""))),
    );
    counters
        .extend(["restarted", "map_changed", "duplicates", "abandoned_versions"].map(|kind| {
            (telemetry::DRIFT_CORRECTED, format!("haproxy=\"edge1\",kind=\"{kind}\""))
        }));
    for (name, labels) in counters {
        assert_eq!(sample(&mapsmith, name, &labels), 0.0, "{name} {labels}");
    }
    assert_eq!(sample(&mapsmith, telemetry::GUARD_HOLDS, ""), 1.0);
}

#[test]
fn a_map_file_that_can_not_be_written_shows() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let map = format!(
        "[map]\npath = {:?}\nfile = \"/nonexistent/node-master.map\"\n",
        gateway.map_path()
    );
    let instance = instance_settings("edge1", &gateway.runtime_address());
    let mapsmith = Mapsmith::config(&format!(
        "{ON_REQUEST}{map}{instance}{}",
        source_settings("registry", &registry.url())
    ))
    .start();
    mapsmith.wait_for("the failure shows", BOUND, |mapsmith| {
        (metric(mapsmith, telemetry::MAP_FILE_FAILED)? == 1.0).then_some(())
    });
    let (status, problem) = mapsmith.post("/v1/reload?wait=1s");
    assert_eq!(
        (status, &problem["report"]["outcome"]),
        (500, &"file_failed".into()),
        "{problem:#}"
    );
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("/nonexistent/node-master.map")),
        "{problem:#}"
    );
    assert!(gateway.memory_map().is_empty(), "what is not in the file is not in memory");
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_exposition() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("a", "m1")]);
    let mapsmith = start(&gateway, &registry);
    reload(&mapsmith);
    let response = mapsmith.ask("GET", "/metrics", &[], "");
    assert_eq!(response.content_type, "text/plain; version=0.0.4; charset=utf-8");
    let mut check = Command::new(promtool())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    check
        .stdin
        .take()
        .expect("a pipe")
        .write_all(response.body.as_bytes())
        .expect("promtool reads");
    let output = check.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{}", response.body);
    for line in response.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert!(line.starts_with("mapsmith_"), "a metric that is none of ours: {line}");
    }
}
