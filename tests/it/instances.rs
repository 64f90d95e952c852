//! Many gateways: one that refuses says why and recovers once it is reconfigured; one that hangs
//! delays no other.

use std::os::unix::net::UnixListener;

use haproxy_runtime::HaproxyVersion;
use serde_json::Value;

use crate::support::haproxy::{Binary, Gateway, installed};
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, borrowed, complaints, memory, oldest_and_newest, printed, source_settings,
};
use crate::support::site::{CALM, Nodes, Site, alternating};

fn instance(mapsmith: &Mapsmith, number: usize) -> Value {
    mapsmith.get("/v1/status").1["instances"][number].clone()
}

/// Waits until an instance is refused for a reason that holds all of `words`.
fn is_refused(mapsmith: &Mapsmith, words: &[&str]) {
    mapsmith.wait_for(&format!("refused: {words:?}"), BOUND, |mapsmith| {
        let instance = instance(mapsmith, 0);
        let reason = instance["reason"].as_str().unwrap_or_default();
        (instance["state"] == "refused" && words.iter().all(|word| reason.contains(word)))
            .then_some(())
    });
    let (code, report) = mapsmith.get("/readyz");
    assert_eq!(code, 503, "{report:#}");
    // Why stands in the status: whoever asks here need not have shown a token.
    assert!(report["missing"].to_string().contains("instance edge1: refused"), "{report:#}");
}

#[test]
fn a_socket_below_admin_level_is_refused_until_it_is_reconfigured() {
    for binary in installed() {
        let nodes = alternating(30, 0);
        for level in ["user", "operator"] {
            let mut site = Site::planned(binary, &nodes, |plan| plan.level(level));
            let config = site.config_with(CALM);
            let check = config.cli(&["check"]);
            let told = printed(&check).1 + &complaints(&check);
            assert!(
                !check.status.success() && told.contains("level admin"),
                "HAProxy {:?}, {level}: {told}",
                binary.version
            );
            let mapsmith = config.start();
            is_refused(&mapsmith, &["level admin", level]);
            assert_eq!(
                site.gateway.request("n000000").0,
                404,
                "up to 3.2 the socket would let it, and it must not"
            );
            site.gateway.restart_as(|plan| plan.level("admin"));
            site.converges(&mapsmith, &nodes);
        }
    }
}

#[test]
fn a_gateway_that_does_not_know_the_map_is_refused_until_it_is_reconfigured() {
    for binary in installed() {
        let nodes = alternating(30, 0);
        let mut site = Site::planned(binary, &nodes, |plan| plan.map_unused());
        let mapsmith = site.config_with(CALM).start();
        is_refused(&mapsmith, &[site.gateway.map_path(), "map.path"]);
        site.gateway.restart_as(|plan| plan.map_used());
        site.converges(&mapsmith, &nodes);
        // And the other way round: a configuration that loses the map is told, too.
        site.gateway.restart_as(|plan| plan.map_unused());
        is_refused(&mapsmith, &[site.gateway.map_path(), "map.path"]);
    }
}

#[test]
fn a_socket_with_severity_output_is_driven_like_any_other() {
    for binary in installed() {
        for level in ["admin severity-output number", "admin severity-output string"] {
            let maps = [alternating(30, 0), alternating(30, 1)];
            let site = Site::planned(binary, &maps[0], |plan| plan.level(level));
            let config = site.config_with(CALM);
            let check = printed(&config.cli(&["check"]));
            assert!(
                check.1.contains("level: admin"),
                "HAProxy {:?}, {level}: {}",
                binary.version,
                check.1
            );
            let mapsmith = config.start();
            site.converges(&mapsmith, &maps[0]);
            // By single commands, and by a swap.
            let moved = [&maps[1][..1], &maps[0][1..]].concat();
            site.registry.knows(&borrowed(&moved));
            assert_eq!(mapsmith.post("/v1/reload?wait=30s").0, 200, "{}", mapsmith.log());
            site.converges(&mapsmith, &moved);
            site.change(&mapsmith, &maps[1]);
            site.converges(&mapsmith, &maps[1]);
        }
    }
    for level in ["user severity-output number", "operator severity-output string"] {
        let site = Site::planned(&installed()[0], &alternating(3, 0), |plan| plan.level(level));
        let mapsmith = site.config_with(CALM).start();
        is_refused(&mapsmith, &["level admin", level.split(' ').next().expect("a word")]);
    }
}

/// `[[instance]]` with a time after which it counts as hung.
fn bounded_instance(name: &str, runtime: &str, timeout: &str) -> String {
    format!("[[instance]]\nname = {name:?}\nruntime = {runtime:?}\ntimeout = {timeout:?}\n")
}

struct Edges {
    registry: Registry,
    first: Gateway,
    second: Gateway,
}

impl Edges {
    /// Two gateways of the same map file, the second over TCP.
    fn start(nodes: &Nodes, versions: [&Binary; 2]) -> Self {
        let first = Gateway::plan(versions[0]).start();
        let second = Gateway::plan(versions[1]).map_of(&first).tcp_socket().start();
        Self { registry: Registry::start(&borrowed(nodes)), first, second }
    }

    fn mapsmith(&self, schedule: &str, second_timeout: &str, more: &str) -> Mapsmith {
        let settings = schedule.to_owned()
            + &format!("[map]\npath = {:?}\n", self.first.map_path())
            + &source_settings("registry", &self.registry.url())
            + &bounded_instance("edge1", &self.first.runtime_address(), "60s")
            + &bounded_instance("edge2", &self.second.tcp_runtime_address(), second_timeout)
            + more;
        Mapsmith::config(&settings).start()
    }
}

fn in_sync_with(mapsmith: &Mapsmith, number: usize, revision: u64) {
    mapsmith.wait_for(
        &format!("instance {number} is in sync with revision {revision}"),
        BOUND,
        |mapsmith| {
            let instance = instance(mapsmith, number);
            (instance["state"] == "in_sync" && instance["revision"] == revision).then_some(())
        },
    );
}

#[test]
fn a_hung_gateway_delays_no_other_and_catches_up_when_it_goes_on() {
    // Its silence may last longer than this whole test: whatever the other waits for, it is not for
    // its end.
    let maps = [alternating(300, 0), alternating(300, 1)];
    let mut edges = Edges::start(&maps[0], oldest_and_newest());
    let mapsmith = edges.mapsmith(CALM, "600s", "");
    in_sync_with(&mapsmith, 0, 1);
    in_sync_with(&mapsmith, 1, 1);
    edges.second.stop_process();
    edges.registry.knows(&borrowed(&maps[1]));
    assert_eq!(mapsmith.post("/v1/reload").0, 202);
    in_sync_with(&mapsmith, 0, 2);
    assert_eq!(memory(&edges.first), maps[1]);
    let hung = instance(&mapsmith, 1);
    assert_eq!(
        (&hung["state"], &hung["revision"]),
        (&"in_sync".into(), &1.into()),
        "nobody has given it up yet: {hung:#}"
    );
    assert!(
        mapsmith.get("/readyz").0 == 200,
        "one gateway that holds the map is enough to be ready"
    );
    edges.second.continue_process();
    in_sync_with(&mapsmith, 1, 2);
    assert_eq!(memory(&edges.second), maps[1]);
}

#[test]
fn a_hung_gateway_is_told_as_unreachable_since_a_time_that_stays() {
    let maps = [alternating(300, 0), alternating(300, 1)];
    let [oldest, newest] = oldest_and_newest();
    for versions in [[oldest, newest], [newest, oldest]] {
        let mut edges = Edges::start(&maps[0], versions);
        // The kernel accepts for it; nobody ever reads.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("silent.sock");
        let _silent = UnixListener::bind(&socket).expect("a fresh socket");
        let silent = bounded_instance("silent", &format!("unix@{}", socket.display()), "200ms");
        let absent = bounded_instance(
            "absent",
            &format!("unix@{}", folder.path().join("absent.sock").display()),
            "200ms",
        );
        let mapsmith = edges.mapsmith(CALM, "500ms", &(silent + &absent));
        in_sync_with(&mapsmith, 0, 1);
        in_sync_with(&mapsmith, 1, 1);
        edges.second.stop_process();
        edges.registry.knows(&borrowed(&maps[1]));
        let (status, report) = mapsmith.post("/v1/reload?wait=3s");
        assert_eq!((status, &report["outcome"]), (202, &"behind".into()), "{report:#}");
        let message = report["message"].as_str().unwrap_or_default();
        assert!(
            ["edge2", "silent", "absent"].iter().all(|name| message.contains(name))
                && !message.contains("edge1"),
            "{report:#}"
        );
        assert_eq!(report["instances"][0]["verified"], true, "{report:#}");
        assert_eq!(report["instances"][0]["apply"]["revision"], 2, "{report:#}");
        for number in 1..4 {
            assert_eq!(report["instances"][number]["verified"], false, "{report:#}");
        }
        let unreachable = |mapsmith: &Mapsmith, number: usize| {
            let instance = instance(mapsmith, number);
            (instance["state"] == "unreachable")
                .then_some((instance["since"].clone(), instance["error"].clone()))
        };
        let since: Vec<_> = (1..4)
            .map(|number| {
                mapsmith
                    .wait_for("it is unreachable", BOUND, |mapsmith| unreachable(mapsmith, number))
                    .0
            })
            .collect();
        // Tried again and again, it stays unreachable since that time.
        assert_eq!(mapsmith.post("/v1/reload?wait=3s").0, 202);
        for (number, since) in (1..4).zip(&since) {
            assert_eq!(
                unreachable(&mapsmith, number).map(|(since, _)| since).as_ref(),
                Some(since),
                "{}",
                mapsmith.log()
            );
        }
        edges.second.continue_process();
        in_sync_with(&mapsmith, 1, 2);
        assert_eq!(memory(&edges.second), maps[1]);
    }
}

#[test]
fn a_status_names_the_version_of_the_process_behind_each_socket() {
    let nodes = alternating(30, 0);
    let edges = Edges::start(&nodes, oldest_and_newest());
    let mapsmith = edges.mapsmith(CALM, "60s", "");
    for (number, gateway) in [&edges.first, &edges.second].into_iter().enumerate() {
        in_sync_with(&mapsmith, number, 1);
        let process = instance(&mapsmith, number)["process"].clone();
        let version: HaproxyVersion =
            process["version"].as_str().and_then(|text| text.parse().ok()).expect("a version");
        assert_eq!((u32::from(version.major), u32::from(version.minor)), gateway.version());
        assert_eq!(process["pid"], gateway.pid());
    }
}
