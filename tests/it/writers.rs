//! Two writers on one HAProxy: they settle, and whoever is overtaken says so.

use serde_json::json;
use tempfile::TempDir;

use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::installed;
use crate::support::mapsmith::Mapsmith;
use crate::support::scene::{BOUND, borrowed, in_sync, memory, oldest_and_newest, source_settings};
use crate::support::site::{Counters, Site, alternating, counters, patient_instance};

const EAGER: &str = "[schedule]\npoll = \"1s\"\njitter = \"0s\"\nverify = \"1s\"\nobserve \
    = \"100ms\"\n[guard]\nmax_moved = \"100%\"\n[damping]\nhold = \"0s\"\n";

/// The settings of another Mapsmith on the site's gateway, with a map file of its own.
fn second(site: &Site, schedule: &str, proxy: &AdminProxy, folder: &TempDir) -> String {
    let file = folder.path().join("node-master.map");
    let map = format!("[map]\npath = {:?}\nfile = {file:?}\n", site.gateway.map_path());
    let registry = source_settings("registry", &site.registry.url());
    format!("{schedule}{map}{registry}{}", patient_instance("edge1", &proxy.address()))
}

#[test]
fn a_mapsmith_that_has_not_polled_yet_does_not_undo_what_another_one_knows_already() {
    for binary in oldest_and_newest() {
        let maps = [alternating(300, 0), alternating(300, 1)];
        let site = Site::start(binary, &maps[0]);
        let other_proxy = AdminProxy::start(&site.gateway.runtime_address());
        let other_file = tempfile::tempdir().expect("a temporary folder");
        // Neither polls by itself; both look at the counters and read back all the time.
        let schedule = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve \
            = \"100ms\"\n[guard]\nmax_moved = \"100%\"\n[damping]\nhold = \"0s\"\n";
        let first = site.config_with(schedule).start();
        in_sync(&first);
        let other = Mapsmith::config(&second(&site, schedule, &other_proxy, &other_file)).start();
        in_sync(&other);
        site.registry.knows(&borrowed(&maps[1]));
        assert_eq!(first.post("/v1/reload?wait=30s").0, 200);
        other.wait_for(
            "the other one follows, without a poll of its own schedule",
            BOUND,
            |other| {
                let held = memory(&site.gateway);
                assert!(
                    held == maps[1],
                    "HAProxy {:?}: an older route is back\n{}",
                    binary.version,
                    other.log()
                );
                let status = other.get("/v1/status").1;
                let follows =
                    status["instances"][0]["state"] == "in_sync" && status["revision"] == 2;
                follows.then_some(())
            },
        );
        assert_eq!(memory(&site.gateway), maps[1]);
    }
}

#[test]
fn two_mapsmiths_on_one_gateway_settle_and_do_not_fight() {
    for binary in installed() {
        let maps = [alternating(300, 0), alternating(300, 1)];
        let site = Site::start(binary, &maps[0]);
        let other_proxy = AdminProxy::start(&site.gateway.runtime_address());
        let other_file = tempfile::tempdir().expect("a temporary folder");
        let other = second(&site, EAGER, &other_proxy, &other_file);
        let pair = [site.config_with(EAGER).start(), Mapsmith::config(&other).start()];
        // A whole new map, a few moves, nodes that come and go.
        let mut few = maps[1].clone();
        few[5].1 = maps[0][5].1.clone();
        few.remove(9);
        few.push(("n999999".to_owned(), "master1".to_owned()));
        for nodes in [&maps[0], &maps[1], &few] {
            site.registry.knows(&borrowed(nodes));
            let settled = || {
                let in_sync = pair.iter().all(|mapsmith| {
                    // These two tell the maps of this test apart. Asked before the state, which is
                    // then of this map or a later one.
                    let knows = |at: usize| {
                        mapsmith.get(&format!("/v1/nodes/{}", nodes[at].0)).1["master"]
                            == nodes[at].1
                    };
                    let known = knows(0) && knows(5);
                    let status = mapsmith.get("/v1/status").1;
                    let instance = &status["instances"][0];
                    let in_sync = instance["state"] == "in_sync"
                        && instance["revision"] == status["revision"];
                    known && in_sync && status["entries"] == nodes.len()
                });
                in_sync
                    && memory(&site.gateway) == *nodes
                    && counters(&site.gateway).entries == nodes.len() as u64
            };
            pair[0]
                .wait_for("both are in sync with the registry", BOUND, |_| settled().then_some(()));
            // Both read everything back again, and again: nobody finds anything to commit or to
            // change.
            let quiet = || {
                (
                    counters(&site.gateway),
                    pair.each_ref()
                        .map(|mapsmith| mapsmith.get("/v1/status").1["revision"].clone()),
                )
            };
            let before = quiet();
            for _ in 0..2 {
                let verified = |mapsmith: &Mapsmith| {
                    mapsmith.get("/v1/status").1["instances"][0]["verified_at"].clone()
                };
                let times = pair.each_ref().map(verified);
                pair[0].wait_for("both read back again", BOUND, |_| {
                    pair.iter()
                        .zip(&times)
                        .all(|(mapsmith, time)| verified(mapsmith) != *time)
                        .then_some(())
                });
            }
            assert_eq!(
                quiet(),
                before,
                "HAProxy {:?}: they fight\n{}\n{}",
                binary.version,
                pair[0].log(),
                pair[1].log()
            );
            assert!(settled());
        }
    }
}

#[test]
fn an_overtaken_commit_is_told_as_such_and_then_corrected() {
    for binary in installed() {
        let maps = [alternating(300, 0), alternating(300, 1)];
        let site = Site::start(binary, &maps[0]);
        let mapsmith = site.mapsmith();
        site.proxy.hold("commit map", 1);
        site.change(&mapsmith, &maps[1]);
        site.proxy.wait_held();
        let map = site.gateway.map_path();
        let reply = site.gateway.command(&format!("prepare map {map}"));
        let later: u64 = reply
            .trim()
            .rsplit(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{reply:?}"));
        site.gateway.command(&format!("add map @{later} {map} stranger master1"));
        assert_eq!(site.gateway.command(&format!("commit map @{later} {map}")), "\n");
        // Its next look is held too, so that what it says of the commit can be read at leisure.
        site.proxy.hold("show info", 2);
        site.proxy.forward();
        mapsmith.wait_for("the overtaken commit is told", BOUND, |mapsmith| {
            let status = mapsmith.get("/v1/status").1;
            let instance = &status["instances"][0];
            let told = instance["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("another writer committed a later version"));
            (instance["state"] == "behind" && told).then_some(())
        });
        assert_eq!(
            counters(&site.gateway),
            Counters { live_version: later, entries: 1 },
            "nothing of the overtaken version is left"
        );
        site.proxy.wait_held();
        site.proxy.forward();
        site.converges(&mapsmith, &maps[1]);
        assert_eq!(mapsmith.get("/v1/status").1["revision"], 2);
    }
}

#[test]
fn a_writer_that_commits_between_the_change_and_its_confirmation_is_found_at_once() {
    for binary in oldest_and_newest() {
        let maps = [alternating(300, 0), alternating(300, 1)];
        let site = Site::start(binary, &maps[0]);
        let mapsmith = site.mapsmith();
        in_sync(&mapsmith);
        site.proxy.hold("commit map", 1);
        site.proxy.hold("show info", 1);
        site.change(&mapsmith, &maps[1]);
        site.proxy.wait_held();
        site.proxy.forward();
        let confirmation = site.proxy.wait_held();
        assert!(confirmation.line.starts_with("show info"), "{confirmation:?}");
        let map = site.gateway.map_path();
        let reply = site.gateway.command(&format!("prepare map {map}"));
        let later = reply.trim().rsplit(' ').next().expect("a version").to_owned();
        site.gateway
            .command(&format!("add map @{later} {map} stranger master1;commit map @{later} {map}"));
        site.proxy.forward();
        site.converges(&mapsmith, &maps[1]);
        let log = mapsmith.log();
        assert!(log.contains("another writer was later"), "{log}");
        assert_eq!(
            mapsmith.get("/v1/status").1["instances"][0]["drift_corrected"],
            json!({}),
            "a change that never held is no drift"
        );
    }
}
