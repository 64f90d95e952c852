//! Rows that a HAProxy's map refuses: kept out of the map file, from which HAProxy would not start,
//! and told by name.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::haproxy::{Binary, Gateway, installed};
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, entries, in_sync, instance_settings, map_file, memory, metric, newest,
    oldest_and_newest, printed, reload, source_settings,
};
use crate::support::site::{CALM, Site, alternating};

/// A converter that takes some rows only: as HAProxy's configuration has it, two rows that it
/// takes, and rows that it refuses.
struct Choosy {
    expression: &'static str,
    good: [(&'static str, &'static str); 2],
    bad: &'static [(&'static str, &'static str)],
}

const CHOOSY: [Choosy; 4] = [
    Choosy {
        expression: "req.hdr_ip(X-Node-Name),map_ip",
        good: [("10.0.0.1", "m1"), ("10.1.0.0/16", "m2")],
        bad: &[("10.0.0.300", "m1"), ("host.example", "m1")],
    },
    Choosy {
        expression: "req.hdr(X-Node-Name),map_reg",
        good: [("^web[0-9]+$", "m1"), ("db", "m2")],
        bad: &[("web[", "m1"), ("a(", "m2")],
    },
    Choosy {
        expression: "dst_port,map_int",
        good: [("80", "m1"), ("1000:2000", "m2")],
        bad: &[("eighty", "m1")],
    },
    Choosy {
        expression: "req.hdr(X-Node-Name),map_str_int",
        good: [("n1", "5"), ("n2", "7")],
        bad: &[("n3", "m1")],
    },
];

/// A gateway whose map has this converter, a registry, and where the map file is.
struct Scene {
    registry: Registry,
    gateway: Gateway,
    folder: TempDir,
}

impl Scene {
    fn start(binary: &Binary, expression: &str, rows: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("mapsmith-rows-")
            .tempdir()
            .expect("a temporary folder");
        let map = folder.path().join("node-master.map");
        fs::write(&map, "").expect("the map file can be written");
        let uses = format!(
            "backend rows\n    http-request set-header X-Row %[{expression}({})]\n",
            map.display()
        );
        let gateway = Gateway::plan(binary).map_unused().map_at(&map).more(&uses).start();
        Self { registry: Registry::start(rows), gateway, folder }
    }

    fn config(&self) -> Config {
        let schedule = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\n";
        Mapsmith::config(&format!(
            "{schedule}[map]\npath = {:?}\n{}{}",
            self.gateway.map_path(),
            source_settings("registry", &self.registry.url()),
            instance_settings("edge1", &self.gateway.runtime_address()),
        ))
    }

    /// Waits until file and memory hold exactly these rows, and Mapsmith is in sync.
    fn settles(&self, mapsmith: &Mapsmith, rows: &[(&str, &str)]) {
        mapsmith.wait_for(&format!("file and memory hold {rows:?}"), BOUND, |mapsmith| {
            let there =
                map_file(&self.gateway) == entries(rows) && memory(&self.gateway) == entries(rows);
            (there && mapsmith.get("/v1/status").1["instances"][0]["state"] == "in_sync")
                .then_some(())
        });
    }
}

/// The rejected rows' nodes.
fn rejected(mapsmith: &Mapsmith) -> Vec<String> {
    let status = mapsmith.get("/v1/status").1;
    let named = status["rejected"]["named"].as_array().cloned().unwrap_or_default();
    named.iter().filter_map(|row| row["node"].as_str().map(str::to_owned)).collect()
}

fn is_rejected(mapsmith: &Mapsmith, rows: &[(&str, &str)]) {
    let mut nodes: Vec<_> = rows.iter().map(|(node, _)| (*node).to_owned()).collect();
    nodes.sort();
    mapsmith.wait_for(&format!("{nodes:?} are rejected"), BOUND, |mapsmith| {
        (rejected(mapsmith) == nodes).then_some(())
    });
}

#[test]
fn rows_that_a_map_refuses_are_kept_out_of_the_file_and_told_by_name() {
    for binary in installed() {
        for Choosy { expression, good, bad } in CHOOSY {
            let mut scene = Scene::start(binary, expression, &good);
            let mapsmith = scene.config().start();
            scene.settles(&mapsmith, &good);
            assert_eq!(rejected(&mapsmith), Vec::<String>::new());

            scene.registry.knows(&[bad, &good].concat());
            reload(&mapsmith);
            scene.settles(&mapsmith, &good);
            is_rejected(&mapsmith, bad);
            let node = bad[0].0;
            let (_, text) = printed(&mapsmith.cli(&["status"]));
            assert!(
                text.contains(&format!(
                    "rejected   {node} -> {}: HAProxy (edge1) refuses it: ",
                    bad[0].1
                )),
                "{text}"
            );
            assert_eq!(metric(&mapsmith, "mapsmith_map_rejected_entries"), Some(bad.len() as f64));
            let status = mapsmith.get("/v1/status").1;
            assert_eq!(
                status["instances"][0]["entries_in_memory"], 2,
                "HAProxy's own counter can't be true: {status:#}"
            );
            assert_eq!(
                status["instances"][0]["drift_corrected"],
                serde_json::json!({}),
                "asking is no drift"
            );
            let explained =
                mapsmith.ask("GET", &format!("/v1/nodes/{}", node.replace('[', "%5B")), &[], "");
            assert!(explained.body.contains("\"rejected\":{"), "{}", explained.body);
            let (_, told) = printed(&scene.config().cli(&["check"]));
            assert!(
                told.contains("ok    instance edge1, map: 2 entries in memory"),
                "HAProxy {:?}, {expression}: {told}",
                binary.version
            );

            // It starts from that file, and goes on with it.
            scene.gateway.restart();
            scene.settles(&mapsmith, &good);
            is_rejected(&mapsmith, bad);
            // The registry corrects them.
            scene.registry.knows(&good[..1]);
            reload(&mapsmith);
            scene.settles(&mapsmith, &good[..1]);
            is_rejected(&mapsmith, &[]);
        }
    }
}

#[test]
fn a_row_that_changes_to_one_that_is_refused_keeps_its_entry_and_comes_back_with_a_value_that_is_taken()
 {
    for binary in oldest_and_newest() {
        let scene = Scene::start(binary, CHOOSY[3].expression, &[("n1", "5"), ("n2", "7")]);
        let mapsmith = scene.config().start();
        scene.settles(&mapsmith, &[("n1", "5"), ("n2", "7")]);
        scene.registry.knows(&[("n1", "five"), ("n2", "8")]);
        reload(&mapsmith);
        scene.settles(&mapsmith, &[("n1", "5"), ("n2", "8")]);
        is_rejected(&mapsmith, &[("n1", "five")]);
        let (_, text) = printed(&mapsmith.cli(&["explain", "n1"]));
        assert!(
            text.contains("rejected: n1 -> five") && text.contains("the entry in force stays"),
            "{text}"
        );
        scene.registry.knows(&[("n1", "6"), ("n2", "8")]);
        reload(&mapsmith);
        scene.settles(&mapsmith, &[("n1", "6"), ("n2", "8")]);
        is_rejected(&mapsmith, &[]);
    }
}

#[test]
fn rows_refused_by_a_gateway_that_hung_at_the_start_leave_the_file_once_it_answers() {
    for binary in oldest_and_newest() {
        let Choosy { expression, good, bad } = &CHOOSY[0];
        let mut scene = Scene::start(binary, expression, &[]);
        scene.registry.knows(&[bad, &good[..]].concat());
        scene.gateway.stop_process();
        let mapsmith = scene.config().start();
        mapsmith.wait_for("a gateway that hangs holds no decision up", BOUND, |_| {
            (map_file(&scene.gateway).len() == good.len() + bad.len()).then_some(())
        });
        scene.gateway.continue_process();
        scene.settles(&mapsmith, good);
        is_rejected(&mapsmith, bad);
        scene.gateway.restart();
        scene.settles(&mapsmith, good);
    }
}

#[test]
fn new_rows_wait_while_no_gateway_with_such_a_map_answers_so_that_it_can_always_start() {
    let Choosy { expression, good, bad } = &CHOOSY[1];
    let mut scene = Scene::start(newest(), expression, &good[..1]);
    let mapsmith = scene.config().start();
    scene.settles(&mapsmith, &good[..1]);
    scene.gateway.kill();
    mapsmith.wait_for("it is known to be away", BOUND, |mapsmith| {
        (mapsmith.get("/v1/status").1["instances"][0]["state"] == "unreachable").then_some(())
    });
    let all = [bad, &good[..]].concat();
    scene.registry.knows(&all);
    assert_eq!(mapsmith.post("/v1/reload").0, 202);
    is_rejected(&mapsmith, &all.iter().filter(|row| **row != good[0]).copied().collect::<Vec<_>>());
    assert_eq!(map_file(&scene.gateway), entries(&good[..1]));
    scene.gateway.restart();
    scene.settles(&mapsmith, good);
    is_rejected(&mapsmith, bad);
}

#[test]
fn one_round_without_the_daemon_keeps_them_out_too() {
    let Choosy { expression, good, bad } = &CHOOSY[0];
    let scene = Scene::start(newest(), expression, &[bad, &good[..]].concat());
    let (code, text) = printed(&scene.config().cli(&["sync"]));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("rejected   10.0.0.300 -> m1: HAProxy (edge1) refuses it"), "{text}");
    assert_eq!(map_file(&scene.gateway), entries(good));
    assert_eq!(memory(&scene.gateway), entries(good));
    // By hand into the file, with HAProxy running on: `check` names it before a restart fails.
    let file = scene.folder.path().join("node-master.map");
    let text = fs::read_to_string(&file).expect("the map file");
    fs::write(&file, text + "10.0.0.400 m1\n").expect("the map file can be written");
    let (code, text) = printed(&scene.config().cli(&["check"]));
    assert!(
        code == 1
            && text.contains("memory lacks 1 line of the map file, the first is `10.0.0.400 m1`"),
        "{text}"
    );
}

#[test]
fn a_map_that_takes_any_row_is_asked_once_and_never_for_a_row() {
    for binary in oldest_and_newest() {
        let mut nodes = alternating(300, 0);
        let site = Site::start(binary, &nodes);
        let mapsmith = site.config_with(CALM).start();
        in_sync(&mapsmith);
        let before = site.proxy.commands().len();
        nodes.push(("zz".to_owned(), "master1".to_owned()));
        site.registry.knows(&borrowed(&nodes));
        reload(&mapsmith);
        assert_eq!(memory(&site.gateway), nodes);
        let sent = site.proxy.commands()[before..].to_vec();
        let staged: Vec<_> =
            sent.iter().filter(|command| command.line.starts_with("prepare map")).collect();
        assert!(staged.is_empty(), "{sent:#?}");
    }
}

#[test]
fn an_answer_without_an_end_is_an_error_of_that_gateway_and_costs_little() {
    let nodes = alternating(300, 0);
    let site = Site::start(newest(), &nodes);
    let often = CALM.replace("verify = \"1h\"", "verify = \"1s\"");
    let mapsmith = site.config_with(&often).start();
    in_sync(&mapsmith);
    site.proxy.endless(Some("show map "));
    let told = |mapsmith: &Mapsmith| -> Option<Value> {
        let instance = mapsmith.get("/v1/status").1["instances"][0].clone();
        (instance["state"] == "behind").then_some(instance)
    };
    let instance = mapsmith.wait_for("it is told", BOUND, told);
    assert!(
        instance["reason"].as_str().is_some_and(|reason| reason.contains("the answer has no end")),
        "{instance:#}"
    );
    mapsmith
        .wait_for("each such answer is left", BOUND, |_| (site.proxy.left() >= 2).then_some(()));
    assert_eq!(mapsmith.get("/readyz").0, 503);
    site.proxy.endless(None);
    site.converges(&mapsmith, &nodes);
}
