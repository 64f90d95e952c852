//! A gateway of the node map beside the frontend of the word, with nodes and servers from files.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::json;

use super::{Ground, Managed, PATIENCE};
use crate::support::free_port;
use crate::support::haproxy::Binary;
use crate::support::http;
use crate::support::mapsmith::Mapsmith;
use crate::support::master::Master;
use crate::support::scene::{newest, printed};

/// A gateway beside the frontend of the word, with its nodes and servers from files.
pub(super) struct Gateway {
    pub managed: Managed,
    pub address: SocketAddr,
}

impl Gateway {
    pub fn start(binary: &'static Binary, servers: &[(&str, &Master)]) -> Self {
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
    pub fn ask_for(&self, node: &str) -> Option<String> {
        let answer = http::request(self.address, "GET", "/", &[("X-Node-Name", node)], "").ok()?;
        Some(answer.body)
    }

    /// Has other settings read, by which `/word` is answered so; HAProxy is reloaded for them.
    pub fn change(&mut self, word: &str) {
        self.managed.write_settings(&settings(&self.managed.ground, self.address, word));
        self.managed.mapsmith.hangup();
        self.managed.wait_for_word(word);
    }

    pub fn list_servers(&self, servers: &[(&str, &Master)]) {
        write_servers(&self.managed.ground.file("servers.json"), servers);
    }

    pub fn route(&self, nodes: &[(&str, &str)]) {
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

#[test]
fn a_check_of_settings_goes_by_what_they_would_be_rendered_to_and_not_by_what_runs() {
    let managed = Managed::start(newest(), "one", "");
    let master = Master::start("m1");
    write_nodes(&managed.ground.file("nodes.json"), &[("a", "m1"), ("b", "m2")]);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let written = |frontend: &str| {
        format!(
            "[[frontend]]\nname = \"gateway\"\nbind = [\"{address}\"]\n{frontend}\
            [[backend]]\nname = \"masters\"\nservers = [\
            {{ name = \"m1\", address = \"{0}\" }}, {{ name = \"m2\", address = \"{0}\" }}]\n\
            [[source]]\nname = \"nodes\"\ntype = \"file\"\npath = \"{1}\"\n",
            master.address(),
            managed.ground.file("nodes.json").display()
        )
    };
    let check = |more: &str| {
        managed.write("one", more);
        printed(&managed.mapsmith.configuration().cli(&["check"]))
    };
    let route = "route = { by = { header = \"X-Node-Name\" }, backend = \"masters\" }\n";
    let (code, text) = check(&written(route));
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("masters/m1, masters/m2"), "{text}");
    // A map that no frontend goes by is none that will be loaded.
    let (code, text) = check(&written("default_backend = \"masters\"\n"));
    assert!(code == 1 && text.contains("uses no map of the name"), "{text}");
}
