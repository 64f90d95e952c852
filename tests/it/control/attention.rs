//! What needs a person: shown by the API, by `status` and in metrics, and told by a command.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{BOUND, borrowed, in_sync, metric, newest, nodes, printed};

/// A folder with a command that keeps what it is told, a line for each run.
struct Pager(tempfile::TempDir);

impl Pager {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// It fails while there is a file called `broken`.
    fn settings(&self) -> String {
        let folder = self.0.path().display();
        let script = format!(
            "echo \"[$MAPSMITH_TOKEN]\" >{folder}/token; cat >>{folder}/told; \
            echo >>{folder}/told; test ! -e {folder}/broken"
        );
        format!("[notify]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nsettle = \"2s\"\n")
    }

    fn told(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("told")).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.is_empty());
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The last message once there are so many.
    fn message(&self, mapsmith: &Mapsmith, count: usize) -> Value {
        mapsmith.wait_for("somebody is told", BOUND, |_| {
            let mut told = self.told();
            (told.len() >= count).then(|| told.remove(count - 1))
        })
    }
}

#[test]
fn what_needs_a_person_is_told_once_and_so_is_its_end_also_over_a_crash() {
    let pager = Pager::new();
    let mut gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&borrowed(&nodes(3, "m1")));
    // Its masters are only names: no HAProxy has them.
    let more = format!("{}[references]\nunknown = \"keep\"\n", pager.settings());
    let mut mapsmith =
        config(&gateway, &registry, &more).variable("MAPSMITH_TOKEN", "s3cret").start();
    in_sync(&mapsmith);
    let first = pager.message(&mapsmith, 1);
    assert_eq!(
        (&first["item"]["kind"], &first["item"]["subject"], &first["previous"]),
        (&json!("unknown_master"), &json!("m1"), &Value::Null),
        "{first:#}"
    );
    assert_eq!(fs::read_to_string(pager.path("token")).unwrap(), "[]\n");

    gateway.kill();
    let second = pager.message(&mapsmith, 2);
    assert_eq!(
        (&second["item"]["kind"], &second["previous"]["kind"], &second["worst"]),
        (&json!("instance_unreachable"), &json!("unknown_master"), &json!("act")),
        "{second:#}"
    );
    let (status, shown) = mapsmith.get("/v1/attention");
    assert_eq!((status, &shown["worst"]), (200, &json!("act")), "{shown:#}");
    assert_eq!(shown["items"][0]["subject"], "edge1");
    assert_eq!(mapsmith.get("/v1/status").1["attention"]["act"], shown["act"]);
    let (code, text) = printed(&mapsmith.cli(&["status"]));
    let expected = "2 things need you\n  act edge1 is unreachable: ";
    assert!(code == 1 && text.starts_with(expected), "{text}");
    assert_eq!(metric(&mapsmith, "mapsmith_attention_items{severity=\"act\"}"), Some(2.0));

    // What was told is not told again; what it became meanwhile is.
    mapsmith.restart();
    mapsmith.wait_for("it is seen again", BOUND, |mapsmith| {
        let shown = mapsmith.get("/v1/attention").1;
        (shown["items"][0]["kind"] == "instance_unreachable").then_some(())
    });
    gateway.restart();
    let third = pager.message(&mapsmith, 3);
    assert_eq!(
        (&third["item"]["kind"], &third["previous"]["kind"]),
        (&json!("unknown_master"), &json!("instance_unreachable")),
        "{third:#}"
    );
}

#[test]
fn a_command_that_fails_is_run_again_and_shown_and_keeps_nothing_waiting() {
    let pager = Pager::new();
    fs::write(pager.path("broken"), "").unwrap();
    let scene = Scene::start_with(&nodes(3, "m1"), &pager.settings());
    scene.mapsmith.wait_for("it has failed", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_notify_failed") == Some(1.0)).then_some(())
    });
    let failed = "mapsmith_notify_runs_total{outcome=\"failed\"}";
    assert!(metric(&scene.mapsmith, failed).is_some_and(|count| count >= 1.0));
    scene.order("PUT", "overrides/n001", json!({"master": "m2"}));
    fs::remove_file(pager.path("broken")).unwrap();
    scene.mapsmith.wait_for("it succeeds", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_notify_failed") == Some(0.0)).then_some(())
    });
}

#[test]
fn a_command_that_a_person_copies_runs_nothing_that_a_registry_says() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "m;$(touch${IFS}pwned)`id`'x")]);
    let more = "[references]\nunknown = \"keep\"\n";
    let mapsmith = config(&gateway, &registry, more).start();
    let remedy = mapsmith.wait_for("the master is named", BOUND, |mapsmith| {
        let items = mapsmith.get("/v1/attention").1["items"].clone();
        let item = items.as_array()?.iter().find(|item| item["kind"] == "unknown_master")?.clone();
        Some(item["do"][0].clone())
    });
    let command = remedy["command"].as_str().expect("a command");
    let line = command.replacen("mapsmith", "printf '<%s>'", 1);
    let folder = tempfile::tempdir().expect("a folder");
    let shell =
        std::process::Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output();
    let read = String::from_utf8(shell.expect("a shell").stdout).unwrap();
    assert_eq!(read, "<drain><m;$(touch${IFS}pwned)`id`'x>", "{command}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was run: {command}");
    assert_eq!(
        remedy["call"], "POST /v1/masters/m%3B%24%28touch%24%7BIFS%7Dpwned%29%60id%60%27x/drain",
        "{remedy:#}"
    );
}
