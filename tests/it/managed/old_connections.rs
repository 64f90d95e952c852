//! A connection that is kept over a reload brings its next request to the worker of before: it is
//! answered by the map in force all the same, and Mapsmith says what it can't change there.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::{Ground, Managed, PATIENCE};
use crate::support::free_port;
use crate::support::haproxy::{Binary, installed};
use crate::support::http::{self, Connection};
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::reload;

/// A gateway beside the frontend of the word, with its nodes and servers from files.
struct Gateway {
    managed: Managed,
    address: SocketAddr,
}

impl Gateway {
    fn start(binary: &'static Binary, servers: &[(&str, &Master)]) -> Self {
        let ground = Ground::new(binary);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        write_servers(&ground.file("servers.json"), servers);
        write_nodes(&ground.file("nodes.json"), &[("a", "m1"), ("b", "m1")]);
        let settings = settings(&ground, address, "one");
        let managed = Managed { mapsmith: Mapsmith::config(&settings).start(), ground };
        let gateway = Self { managed, address };
        gateway.managed.wait_for_state("in_force");
        gateway.managed.mapsmith.wait_for("the gateway routes", PATIENCE, |_| {
            (gateway.ask_for("a").as_deref() == Some(servers[0].1.name())).then_some(())
        });
        gateway
    }

    /// Who answers for a node on a new connection.
    fn ask_for(&self, node: &str) -> Option<String> {
        let answer = http::request(self.address, "GET", "/", &[("X-Node-Name", node)], "").ok()?;
        Some(answer.body)
    }

    /// A connection that has brought one request for a node, and who answered that.
    fn keep(&self, node: &str) -> (Connection, String) {
        let mut connection = Connection::open(self.address).expect("it listens");
        let answer = next(&mut connection, node);
        (connection, answer.0)
    }

    /// Has HAProxy reloaded; returns the worker of before.
    fn reload(&mut self) -> u64 {
        let settings = settings(&self.managed.ground, self.address, "two");
        self.managed.write_settings(&settings);
        self.managed.mapsmith.hangup();
        self.managed.wait_for_word("two");
        self.managed.mapsmith.wait_for("the old worker is driven", PATIENCE, |_| {
            let status = self.managed.wait_for_state("in_force");
            let workers = status["process"]["workers"].as_array()?.clone();
            let old = workers.iter().find(|worker| worker["old"] == true)?;
            (old["in_sync"] == true).then(|| old["pid"].as_u64())?
        })
    }

    fn wait_for_the_end_of(&self, worker: u64) {
        self.managed.mapsmith.wait_for("the old worker ends", PATIENCE, |_| {
            let listed = self.managed.ground.ask_master("show proc");
            (!listed.contains(&worker.to_string())).then_some(())
        });
    }

    fn list_servers(&self, servers: &[(&str, &Master)]) {
        write_servers(&self.managed.ground.file("servers.json"), servers);
    }

    fn route(&self, nodes: &[(&str, &str)]) {
        write_nodes(&self.managed.ground.file("nodes.json"), nodes);
    }
}

fn settings(ground: &Ground, gateway: SocketAddr, word: &str) -> String {
    let file = |name: &str| ground.file(name).display().to_string();
    let more = format!(
        "[[frontend]]\nname = \"gateway\"\nbind = [\"{gateway}\"]\n\
        route = {{ by = {{ header = \"X-Node-Name\" }}, backend = \"masters\" }}\n\
        [[backend]]\nname = \"masters\"\nfrom = \"servers\"\n\
        [[source]]\nname = \"servers\"\ntype = \"file\"\npath = \"{}\"\n\
        [[source]]\nname = \"nodes\"\ntype = \"file\"\npath = \"{}\"\n\
        [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n",
        file("servers.json"),
        file("nodes.json")
    );
    // As long as a test takes.
    let long = "timeouts = { client = \"10m\", http_keep_alive = \"10m\" }\n";
    ground
        .settings(word, &more)
        .replace("[haproxy]\n", &format!("[haproxy]\n{long}"))
        .replace("hard_stop_after = \"20s\"", "hard_stop_after = \"10m\"")
}

/// Each server's name, and who is there.
fn write_servers(file: &PathBuf, servers: &[(&str, &Master)]) {
    let row = |(name, master): &(&str, &Master)| {
        let address = master.address().to_string();
        json!({"name": name, "address": address})
    };
    let rows: Vec<_> = servers.iter().map(row).collect();
    fs::write(file, json!(rows).to_string()).expect("the list can be written");
}

fn write_nodes(file: &PathBuf, nodes: &[(&str, &str)]) {
    let rows: serde_json::Map<_, _> =
        nodes.iter().map(|(node, master)| ((*node).to_owned(), json!(master))).collect();
    fs::write(file, json!(rows).to_string()).expect("the nodes can be written");
}

/// Who answers the next request on a connection, and whether it can bring another one.
fn next(connection: &mut Connection, node: &str) -> (String, bool) {
    let answer = connection.request("GET", "/", &[("X-Node-Name", node)], "").expect("an answer");
    assert_eq!(answer.status, 200, "{node}: {answer:?}");
    (answer.body, answer.reusable)
}

#[test]
fn a_connection_from_before_a_reload_follows_the_map() {
    for binary in installed() {
        let [one, two] = ["one", "two"].map(Master::start);
        let mut gateway = Gateway::start(binary, &[("m1", &one), ("m2", &two)]);
        let kept = ["a", "b"].map(|node| gateway.keep(node));
        assert!(kept.iter().all(|(_, answered)| answered == "one"));
        let [(mut first, _), (mut second, _)] = kept;
        let old = gateway.reload();

        // Who asks for that is told when a change is everywhere.
        gateway.route(&[("a", "m2"), ("b", "m1")]);
        reload(&gateway.managed.mapsmith);
        assert_eq!(
            next(&mut first, "a"),
            ("two".to_owned(), false),
            "HAProxy {:?}",
            binary.version
        );
        gateway.route(&[("a", "m1"), ("b", "m2")]);
        reload(&gateway.managed.mapsmith);
        assert_eq!(next(&mut second, "b"), ("two".to_owned(), false), "{:?}", binary.version);

        // With its last connection the worker ends.
        drop((first, second));
        gateway.wait_for_the_end_of(old);
        assert_eq!(gateway.managed.reloads(), 1);
    }
}

/// HAProxy makes no change of servers in a worker that only finishes what it has.
#[test]
fn nothing_is_called_in_sync_while_a_connection_may_still_bring_a_request_to_the_servers_of_before()
{
    for binary in installed() {
        let [one, two] = ["one", "two"].map(Master::start);
        let mut gateway = Gateway::start(binary, &[("m1", &one)]);
        let (kept, _) = gateway.keep("a");
        let old = gateway.reload();
        gateway.list_servers(&[("m1", &one), ("m2", &two)]);
        let (status, report) = gateway.managed.mapsmith.post("/v1/reload?wait=2s");
        let message = report["message"].to_string();
        assert!(status == 202 && message.contains("workers that a reload"), "{report:#}");
        let status = gateway.managed.wait_for_state("in_force");
        let workers = status["process"]["workers"].as_array().expect("workers");
        let of_before = workers.iter().find(|worker| worker["pid"] == old);
        let of_before = of_before.expect("it is listed");
        assert_eq!((&of_before["in_sync"], &of_before["connections"]), (&json!(false), &json!(1)));
        drop(kept);
        gateway.wait_for_the_end_of(old);
        reload(&gateway.managed.mapsmith);
    }
}
