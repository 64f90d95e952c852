//! What happens outside Mapsmith, in HAProxy's memory or in the map file, is found, corrected
//! and counted by its kind.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::haproxy::{Binary, Gateway, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, in_sync, instance_settings, map_file, memory, metric, newest,
    oldest_and_newest, reload, source_settings,
};
use crate::support::site::{Nodes, Site, alternating, assert_no_leftovers};

/// Looks at the counters all the time and reads back as often as this says.
fn schedule(verify: &str) -> String {
    format!(
        "[schedule]\npoll = \"1h\"\nverify = {verify:?}\nobserve = \"100ms\"\n[guard]\nmax_moved \
            = \"100%\"\n[damping]\nhold = \"0s\"\n"
    )
}

fn corrected(mapsmith: &Mapsmith, instance: usize) -> Value {
    mapsmith.get("/v1/status").1["instances"][instance]["drift_corrected"].clone()
}

fn corrected_by_metric(mapsmith: &Mapsmith, instance: &str, kind: &str) -> f64 {
    let series = format!("mapsmith_drift_corrected_total{{haproxy={instance:?},kind={kind:?}}}");
    metric(mapsmith, &series).unwrap_or_else(|| panic!("{series} is not exposed"))
}

#[test]
fn a_map_changed_external_is_healed_and_counted() {
    for binary in installed() {
        let nodes = alternating(50, 0);
        let site = Site::start(binary, &nodes);
        // Nothing here is left to a read-back: the counters tell.
        let mapsmith = site.config_with(&schedule("1h")).start();
        in_sync(&mapsmith);
        let external = [
            ("add map MAP n999999 master1", "map_changed"),
            ("del map MAP n000007", "map_changed"),
            ("add map MAP n000001 master1;add map MAP n000002 master2", "duplicates"),
            ("clear map MAP", "map_changed"),
        ];
        let mut expected = serde_json::Map::new();
        for (command, kind) in external {
            site.gateway.command(&command.replace("MAP", site.gateway.map_path()));
            let count = expected.get(kind).and_then(Value::as_u64).unwrap_or(0) + 1;
            expected.insert(kind.to_owned(), json!(count));
            mapsmith.wait_for(&format!("{command} is corrected"), BOUND, |mapsmith| {
                (memory(&site.gateway) == nodes
                    && corrected(mapsmith, 0) == Value::Object(expected.clone()))
                .then_some(())
            });
            assert_eq!(corrected_by_metric(&mapsmith, "edge1", kind), count as f64, "{command}");
        }
        assert_eq!(corrected_by_metric(&mapsmith, "edge1", "restarted"), 0.0);
        assert_eq!(mapsmith.get("/v1/status").1["revision"], 1, "correcting makes no revision");
    }
}

#[test]
fn a_value_changed_external_moves_no_counter_and_is_found_by_the_next_read_back() {
    for binary in installed() {
        let nodes = alternating(50, 0);
        let site = Site::start(binary, &nodes);
        let mut mapsmith = site.config_with(&schedule("1h")).start();
        in_sync(&mapsmith);
        let change = format!("set map {} n000003 master1", site.gateway.map_path());
        assert_ne!(nodes[3].1, "master1");
        assert_eq!(site.gateway.command(&change), "\n");
        // Many looks later it still stands: this is what a read-back is for.
        let looks = site.proxy.commands().len() + 10;
        eventually("Mapsmith looks ten times", BOUND, || {
            (site.proxy.commands().len() > looks).then_some(())
        });
        assert_eq!(site.route("n000003"), "master1");
        // The same with a read-back a second.
        let settings = mapsmith.configuration().path();
        fs::write(
            &settings,
            fs::read_to_string(&settings).unwrap().replace("verify = \"1h\"", "verify = \"1s\""),
        )
        .unwrap();
        mapsmith.restart();
        in_sync(&mapsmith);
        assert_eq!(memory(&site.gateway), nodes, "a start reads back too");
        assert_eq!(corrected(&mapsmith, 0), json!({}), "what was found at the start is no drift");
        assert_eq!(site.gateway.command(&change), "\n");
        mapsmith.wait_for("the value is corrected", BOUND, |mapsmith| {
            (memory(&site.gateway) == nodes
                && corrected(mapsmith, 0) == json!({ "map_changed": 1 }))
            .then_some(())
        });
        assert_eq!(corrected_by_metric(&mapsmith, "edge1", "map_changed"), 1.0);
    }
}

#[test]
fn a_lost_or_edited_map_file_is_written_anew_with_its_owner_and_mode() {
    let nodes = alternating(50, 0);
    let site = Site::start(newest(), &nodes);
    let mapsmith = site.config_with(&schedule("1h")).start();
    in_sync(&mapsmith);
    let path = site.gateway.map_path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root may give a file away; another user's stays its own.
    let _ = chown(path, Some(7), Some(8));
    let before = fs::metadata(path).unwrap();
    let owner_and_mode = (before.uid(), before.gid(), before.mode());
    let edited = fs::read_to_string(path).unwrap().replace("n000003 master2", "n000003 master1");
    for (round, text) in [edited.as_str(), "", "n000000 master1\n"].into_iter().enumerate() {
        fs::write(path, text).unwrap();
        let corrected = json!(round + 1);
        mapsmith.wait_for("the file is written again", BOUND, |mapsmith| {
            (mapsmith.get("/v1/status").1["map_file"]["corrected"] == corrected).then_some(())
        });
        assert_eq!(map_file(&site.gateway), nodes);
        let after = fs::metadata(path).unwrap();
        assert_eq!((after.uid(), after.gid(), after.mode()), owner_and_mode);
    }
    fs::remove_file(path).unwrap();
    mapsmith.wait_for("the file is back", BOUND, |mapsmith| {
        (corrected_by_metric(mapsmith, "file", "map_file") == 4.0).then_some(())
    });
    assert_eq!(map_file(&site.gateway), nodes);
    assert_eq!(corrected(&mapsmith, 0), json!({}), "no instance had to be touched");
    assert_no_leftovers(path.as_ref());
}

/// Two gateways that name the same map file, a registry and a Mapsmith over both.
struct TwoGateways {
    registry: Registry,
    first: Gateway,
    second: Gateway,
    mapsmith: Mapsmith,
}

impl TwoGateways {
    fn start(binary: &Binary, nodes: &Nodes) -> Self {
        let first = Gateway::plan(binary).start();
        let second = Gateway::plan(binary).map_of(&first).tcp_socket().start();
        let registry = Registry::start(&borrowed(nodes));
        let settings = schedule("1h")
            + &format!("[map]\npath = {:?}\n", first.map_path())
            + &source_settings("registry", &registry.url())
            + &instance_settings("edge1", &first.runtime_address())
            + &instance_settings("edge2", &second.tcp_runtime_address());
        let mapsmith = Mapsmith::config(&settings).start();
        let both = Self { registry, first, second, mapsmith };
        both.converge(nodes);
        both
    }

    fn converge(&self, nodes: &Nodes) {
        self.mapsmith.wait_for("both memories and the file agree", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            let in_sync =
                (0..2).all(|instance| status["instances"][instance]["state"] == "in_sync");
            let agree = memory(&self.first) == *nodes
                && memory(&self.second) == *nodes
                && map_file(&self.first) == *nodes;
            (in_sync && agree).then_some(())
        });
    }
}

#[test]
fn a_gateway_restarted_with_an_old_copy_of_the_map_file_is_healed_and_counted_as_restarted() {
    for binary in oldest_and_newest() {
        let maps = [alternating(60, 0), alternating(60, 1)];
        let mut site = TwoGateways::start(binary, &maps[0]);
        let old_copy = fs::read_to_string(site.first.map_path()).unwrap();
        site.registry.knows(&borrowed(&maps[1]));
        reload(&site.mapsmith);
        // Frozen, so that the old copy is there when HAProxy starts.
        site.mapsmith.signal("STOP");
        site.first.kill();
        fs::write(site.first.map_path(), &old_copy).unwrap();
        site.first.restart();
        assert_eq!(memory(&site.first), maps[0], "it came back with the old map");
        site.mapsmith.signal("CONT");
        site.mapsmith.wait_for("the restart is corrected and counted", BOUND, |mapsmith| {
            (corrected(mapsmith, 0) == json!({ "restarted": 1 })).then_some(())
        });
        site.converge(&maps[1]);
        assert_eq!(corrected(&site.mapsmith, 1), json!({}), "the other gateway had no part in it");
        assert_eq!(corrected_by_metric(&site.mapsmith, "edge1", "restarted"), 1.0);
        assert_eq!(corrected_by_metric(&site.mapsmith, "edge2", "restarted"), 0.0);
        assert_eq!(corrected_by_metric(&site.mapsmith, "file", "map_file"), 1.0);

        // Down both, and the old copy back again: what the registry says counts, not what is found.
        site.mapsmith.kill();
        site.first.kill();
        fs::write(site.first.map_path(), &old_copy).unwrap();
        site.first.restart();
        assert_eq!(memory(&site.first), maps[0]);
        site.mapsmith.restart();
        site.converge(&maps[1]);
    }
}

#[test]
fn a_restart_that_brings_the_right_map_back_is_no_drift() {
    for binary in oldest_and_newest() {
        let nodes = alternating(60, 0);
        let mut site = TwoGateways::start(binary, &nodes);
        let before = site.first.pid();
        site.first.restart();
        site.mapsmith.wait_for("Mapsmith has seen the new process", BOUND, |mapsmith| {
            let process = mapsmith.get("/v1/status").1["instances"][0]["process"]["pid"].clone();
            (process != before && process == site.first.pid()).then_some(())
        });
        site.converge(&nodes);
        assert_eq!(corrected(&site.mapsmith, 0), json!({}));
    }
}
