//! A real Consul, Mapsmith and a real HAProxy: its services are the backends' servers, its keys the
//! node map.

mod lines;
mod many;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::consul::{Consul, Health, Service};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::master::Master;
use crate::support::pool::{BACKEND, ready, settles, with_backend};
use crate::support::scene::{
    BOUND, gateway_settings, memory, metric, newest, oldest_and_newest, printed,
};

/// Nothing is polled by the clock: what comes after the start, Consul has told.
const NEVER: &str = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\nservers \
    = \"200ms\"\n[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\nmax_removed \
    = \"100%\"\n[guard]\nmax_removed = \"100%\"\nmax_moved = \"100%\"\n";

const RULES: &str = "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy \
    = \"read\" } key_prefix \"mapsmith/\" { policy = \"read\" }";

/// What the backend takes, by its name in `status`.
const LIST: &str = "consul service=web tag=a";

/// A Consul, and the file with the token that may read it.
struct Site {
    consul: Consul,
    folder: TempDir,
}

impl Site {
    /// The node map has one node, which goes to the backend.
    fn start() -> Self {
        Self::start_with("")
    }

    fn start_with(more: &str) -> Self {
        let site = Self { consul: Consul::start_with(more), folder: tempfile::tempdir().unwrap() };
        site.allow(RULES);
        site.consul.set("mapsmith/nodes/node1", BACKEND);
        site
    }

    fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// Gives Mapsmith a token that may do this.
    fn allow(&self, rules: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("mapsmith-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let token = self.consul.token(&name, rules);
        fs::write(self.token_file(), &token).unwrap();
        token
    }

    fn config(&self, gateway: &Gateway) -> Config {
        Mapsmith::config(&format!(
            "{NEVER}[store]\npath = {:?}\n{}[[source]]\nname = \"consul\"\ntype = \"consul\"\n\
             url = {:?}\ntoken_file = {:?}\nkv = \"mapsmith/nodes/\"\ntimeout = \"20s\"\n\
             [[backend]]\nname = {BACKEND:?}\nfrom = {{ source = \"consul\", service = \"web\", \
             tag = \"a\" }}\n",
            self.folder.path().join("mapsmith.db"),
            gateway_settings(gateway),
            self.consul.url(),
            self.token_file(),
        ))
    }

    fn register(&self, id: &str, master: &Master) {
        self.consul.register(&web(id, master.address()));
    }
}

fn web(id: &str, address: SocketAddr) -> Service {
    Service::new(id, "web", &address.ip().to_string(), address.port()).tags(&["a", "b"])
}

fn gateway(binary: &crate::support::haproxy::Binary) -> Gateway {
    with_backend(Gateway::plan(binary).entry("node1", BACKEND), "    balance roundrobin\n").start()
}

/// How a feed stands in the status.
fn source(mapsmith: &Mapsmith, name: &str) -> Value {
    let (_, status) = mapsmith.get("/v1/status");
    let sources = status["sources"].as_array().unwrap().clone();
    let found = sources.iter().find(|source| source["name"] == name);
    found.unwrap_or_else(|| panic!("no source {name:?} in {sources:?}")).clone()
}

/// Waits until the feed's last poll failed with these words.
fn fails(mapsmith: &Mapsmith, name: &str, words: &str) {
    mapsmith.wait_for(&format!("{name} fails: {words}"), BOUND, |mapsmith| {
        source(mapsmith, name)["error"].as_str()?.contains(words).then_some(())
    });
}

#[test]
fn services_are_servers_and_keys_are_the_map_and_each_change_is_routed_as_consul_tells_it() {
    for binary in oldest_and_newest() {
        let site = Site::start();
        let masters = ["m1", "m2", "m3"].map(Master::start);
        site.consul.register(&web("w1", masters[0].address()).weight(1000));
        site.consul.register(&web("w2", masters[1].address()).weight(250).tags(&["a"]));
        site.consul.register(&web("other-tag", masters[2].address()).tags(&["b"]));
        site.consul.register(&web("broken", masters[2].address()).health(Health::Critical));
        let gateway = gateway(binary);
        let config = site.config(&gateway);
        let (code, checked) = printed(&config.cli(&["check"]));
        assert_eq!(code, 0, "{checked}");
        assert!(checked.contains(&format!("source {LIST}: answers with 2 entries")), "{checked}");
        assert!(checked.contains(&format!("2 servers from source {LIST}")), "{checked}");
        let (code, planned) = printed(&config.cli(&["plan"]));
        assert!(code == 0 && planned.contains("nothing to do"), "{code}: {planned}");

        let mapsmith = config.start();
        let (w1, w2) = ("node-w1:w1", "node-w2:w2");
        let both = [(w1, masters[0].address()), (w2, masters[1].address())];
        settles(&gateway, &mapsmith, &both);
        let stat = gateway.command(&format!("get weight {BACKEND}/{w1};get weight {BACKEND}/{w2}"));
        assert!(stat.contains("256 (initial") && stat.contains("64 (initial"), "{stat}");
        assert_eq!(gateway.request("node1").0, 200);

        site.register("w3", &masters[2]);
        settles(&gateway, &mapsmith, &[both[0], both[1], ("node-w3:w3", masters[2].address())]);
        site.consul.register(&web("w1", masters[0].address()).health(Health::Critical));
        site.consul.deregister("w2");
        settles(&gateway, &mapsmith, &[("node-w3:w3", masters[2].address())]);
        assert_eq!(gateway.request("node1"), (200, "m3".to_owned()));

        site.consul.set("mapsmith/nodes/eu/node2", BACKEND);
        mapsmith.wait_for("the map follows", BOUND, |_| {
            let entries = ["node1", "node2"].map(|node| (node.to_owned(), BACKEND.to_owned()));
            (memory(&gateway) == entries).then_some(())
        });
        for (name, entries) in [("consul", 2.0), (LIST, 1.0)] {
            assert_eq!(source(&mapsmith, name)["watch"], "watched", "{name}");
            let series = format!("mapsmith_source_entries{{source=\"{name}\"}}");
            assert_eq!(metric(&mapsmith, &series), Some(entries), "{series}");
        }
        let (code, status) = printed(&mapsmith.cli(&["status"]));
        assert!(code == 0 && status.contains(LIST), "{status}");
    }
}

#[test]
fn a_consul_that_is_killed_changes_nothing_and_once_it_is_back_it_is_followed_again() {
    let site = Site::start();
    let masters = ["m1", "m2"].map(Master::start);
    site.register("w1", &masters[0]);
    let gateway = gateway(newest());
    let mut mapsmith = site.config(&gateway).start();
    let first = [("node-w1:w1", masters[0].address())];
    settles(&gateway, &mapsmith, &first);

    site.consul.kill();
    for name in ["consul", LIST] {
        fails(&mapsmith, name, "can't be reached");
    }
    settles(&gateway, &mapsmith, &first);
    // A start while the registry is silent goes on from the store.
    mapsmith.restart();
    fails(&mapsmith, LIST, "can't be reached");
    settles(&gateway, &mapsmith, &first);
    assert_eq!(gateway.request("node1"), (200, "m1".to_owned()));

    site.consul.restart();
    site.register("w2", &masters[1]);
    let both = [first[0], ("node-w2:w2", masters[1].address())];
    settles(&gateway, &mapsmith, &both);

    // All is forgotten, and the indexes begin anew: an empty answer, which is held.
    site.consul.restart_empty();
    site.allow(RULES);
    mapsmith.wait_for("an empty list is held", BOUND, |mapsmith| {
        let held = mapsmith.get("/v1/held").1.to_string();
        held.contains(&format!("backend {BACKEND}")).then_some(())
    });
    settles(&gateway, &mapsmith, &both);
    site.register("w2", &masters[1]);
    site.consul.set("mapsmith/nodes/node1", BACKEND);
    settles(&gateway, &mapsmith, &both[1..]);
}

#[test]
fn without_permission_the_servers_stay_and_the_status_says_what_is_missing() {
    let site = Site::start();
    let masters = ["m1", "m2"].map(Master::start);
    site.register("w1", &masters[0]);
    let gateway = gateway(newest());
    let mapsmith = site.config(&gateway).start();
    let first = [("node-w1:w1", masters[0].address())];
    settles(&gateway, &mapsmith, &first);

    let token = fs::read_to_string(site.token_file()).unwrap();
    site.consul.revoke(&token);
    mapsmith.post("/v1/reload");
    for name in ["consul", LIST] {
        fails(&mapsmith, name, "access was refused (403)");
        fails(&mapsmith, name, "token_file needs service:read");
    }
    assert!(!mapsmith.log().contains(&token), "{}", mapsmith.log());
    // Of services, this Consul tells who may not read them only that there are none.
    site.allow("key_prefix \"mapsmith/\" { policy = \"read\" }");
    mapsmith.wait_for("an empty list is held", BOUND, |mapsmith| {
        let backends = mapsmith.get("/v1/status").1["backends"].clone();
        backends[0]["held"].is_object().then_some(())
    });
    settles(&gateway, &mapsmith, &first);
    assert_eq!(memory(&gateway), [("node1".to_owned(), BACKEND.to_owned())]);

    site.allow(RULES);
    site.register("w2", &masters[1]);
    mapsmith.post("/v1/reload");
    settles(&gateway, &mapsmith, &[first[0], ("node-w2:w2", masters[1].address())]);
    assert_eq!(ready(&gateway).len(), 2);
    assert_eq!(mapsmith.get("/v1/held").1, json!([]));
}

#[test]
fn consul_servers_without_a_leader_change_nothing_until_they_have_one_again() {
    // Of two servers both are needed. With this protocol the second counts from the start.
    let protocol = "raft_protocol = 2\n";
    let site = Site::start_with(protocol);
    let own: Value =
        serde_json::from_str(&site.consul.request("GET", "/v1/agent/self", "").body).unwrap();
    let serf = own["Member"]["Port"].as_u64().expect("the port that servers join at");
    let second = Consul::start_with(&format!(
        "{protocol}bootstrap_expect = 0\nnode_name = \"second\"\n\
         retry_join = [\"127.0.0.1:{serf}\"]\n"
    ));
    let masters = ["m1", "m2"].map(Master::start);
    site.register("w1", &masters[0]);
    let gateway = gateway(newest());
    let mapsmith = site.config(&gateway).start();
    let first = [("node-w1:w1", masters[0].address())];
    settles(&gateway, &mapsmith, &first);

    second.kill();
    // A request that waits goes on waiting: what asks is the schedule, or a reload. Consul holds
    // that for a moment, in case there is a leader again.
    mapsmith.wait_for("both polls fail", BOUND, |mapsmith| {
        mapsmith.post("/v1/reload?wait=30s");
        let fails = |name: &str| source(mapsmith, name)["error"].is_string();
        ["consul", LIST].into_iter().all(fails).then_some(())
    });
    for name in ["consul", LIST] {
        fails(&mapsmith, name, "the Consul servers have no leader (500): No cluster leader");
    }
    settles(&gateway, &mapsmith, &first);
    second.restart();
    site.register("w2", &masters[1]);
    settles(&gateway, &mapsmith, &[first[0], ("node-w2:w2", masters[1].address())]);
}
