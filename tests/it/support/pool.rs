//! A backend whose servers a registry lists: the list, the settings, and what HAProxy makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::haproxy::{Gateway, Plan};
use super::mapsmith::{Config, Mapsmith};
use super::scene::{BOUND, file_source_settings};

/// The backend's name.
pub const BACKEND: &str = "app";

/// A schedule that looks often, and damping that lets every change through at once.
pub const AT_ONCE: &str = "[schedule]\npoll = \"1h\"\nverify = \"1s\"\nobserve = \"100ms\"\nservers \
    = \"200ms\"\n\
                       [damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold \
                       = \"0s\"\nmax_removed = \"100%\"\n";

/// A list of servers in a file, and a map in another whose only node goes to the backend.
pub struct Pool {
    folder: TempDir,
}

impl Pool {
    /// A registry that lists these servers.
    pub fn start(servers: &[(&str, SocketAddr)]) -> Self {
        let pool = Self {
            folder: tempfile::Builder::new()
                .prefix("mapsmith-pool-")
                .tempdir()
                .expect("a temporary folder"),
        };
        pool.routes("node1", BACKEND);
        pool.lists(servers);
        pool
    }

    fn nodes(&self) -> PathBuf {
        self.folder.path().join("nodes.json")
    }

    fn servers(&self) -> PathBuf {
        self.folder.path().join("servers.json")
    }

    /// From now on its only node has this master.
    pub fn routes(&self, node: &str, master: &str) {
        replace(&self.nodes(), &json!({ node: master }).to_string());
    }

    /// From now on it lists these; an empty name leaves the name out.
    pub fn lists(&self, servers: &[(&str, SocketAddr)]) {
        let list: Vec<Value> = servers
            .iter()
            .map(|(name, address)| match *name {
                "" => json!({ "address": address.ip().to_string(), "port": address.port() }),
                name => json!({
                    "name": name,
                    "address": address.ip().to_string(),
                    "port": address.port(),
                }),
            })
            .collect();
        self.writes(&Value::Array(list).to_string());
    }

    /// From now on its file holds this, whatever it is.
    pub fn writes(&self, text: &str) {
        replace(&self.servers(), text);
    }

    /// A Mapsmith that drives one HAProxy behind this socket; `backend` is more of the
    /// `[[backend]]`, `more` of the file's beginning.
    pub fn config(&self, gateway: &Gateway, runtime: &str, backend: &str, more: &str) -> Config {
        let at_once =
            if more.contains("[schedule]") { more.to_owned() } else { AT_ONCE.to_owned() + more };
        let servers = file_source_settings("servers", &self.servers());
        let backend = format!("from = \"servers\"\n{backend}");
        self.config_from(gateway, runtime, &backend, &(at_once + &servers))
    }

    /// The same where `backend` says itself whose servers it has; `more` has that source.
    pub fn config_from(
        &self,
        gateway: &Gateway,
        runtime: &str,
        backend: &str,
        more: &str,
    ) -> Config {
        let at_once = if more.contains("[schedule]") { "" } else { AT_ONCE };
        Mapsmith::config(&format!(
            "{at_once}{more}[map]\npath = {:?}\n{}[[backend]]\nname = {BACKEND:?}\n{backend}\n\
             [[instance]]\nname = \"edge1\"\nruntime = {runtime:?}\ntimeout = \"5s\"\n",
            gateway.map_path(),
            file_source_settings("nodes", &self.nodes()),
        ))
    }
}

/// Nobody reads half of it.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, text).expect("the file can be written");
    fs::rename(&fresh, path).expect("the file can be put in place");
}

/// A gateway whose backend balances so and has these lines.
pub fn with_backend(plan: Plan, lines: &str) -> Plan {
    plan.more(&format!("backend {BACKEND}\n{lines}"))
}

/// The backend's servers as HAProxy has them: address and port, and the administrative state (0 is
/// ready).
pub fn servers(gateway: &Gateway) -> BTreeMap<String, (String, u32)> {
    servers_of(&gateway.command(&format!("show servers state {BACKEND}")))
}

/// The same, of what HAProxy said to that command.
pub fn servers_of(listing: &str) -> BTreeMap<String, (String, u32)> {
    let mut lines = listing.lines().skip(1);
    let columns: Vec<_> =
        lines.next().unwrap_or_default().trim_start_matches("# ").split(' ').collect();
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let values: Vec<_> = line.split(' ').collect();
            let value = |column: &str| {
                let at = columns.iter().position(|name| *name == column);
                at.and_then(|at| values.get(at))
                    .unwrap_or_else(|| panic!("no {column} in {listing}"))
                    .to_string()
            };
            let admin = value("srv_admin_state").parse().expect("a number");
            (value("srv_name"), (format!("{}:{}", value("srv_addr"), value("srv_port")), admin))
        })
        .collect()
}

/// What may keep a server out. The bit 0x04, `disabled` in the configuration, stays set when it is
/// made ready.
const OUT: u32 = 0x01 | 0x02 | 0x08 | 0x10 | 0x20;

/// Whether nothing keeps a server of this administrative state out.
pub fn is_ready(admin: u32) -> bool {
    admin & OUT == 0
}

/// Names and addresses of the servers that nothing keeps out.
pub fn ready(gateway: &Gateway) -> BTreeMap<String, String> {
    servers(gateway)
        .into_iter()
        .filter(|(_, (_, admin))| is_ready(*admin))
        .map(|(name, (address, _))| (name, address))
        .collect()
}

/// The same, as a test writes it.
pub fn list(servers: &[(&str, SocketAddr)]) -> BTreeMap<String, String> {
    servers.iter().map(|(name, address)| ((*name).to_owned(), address.to_string())).collect()
}

/// Waits until HAProxy's backend has exactly these servers, all ready, and Mapsmith says so too.
pub fn settles(gateway: &Gateway, mapsmith: &Mapsmith, wanted: &[(&str, SocketAddr)]) {
    mapsmith.wait_for(&format!("the servers are {wanted:?}"), BOUND, |mapsmith| {
        let all: BTreeMap<_, _> =
            servers(gateway).into_iter().map(|(name, (address, _))| (name, address)).collect();
        let there = all == list(wanted) && ready(gateway) == all;
        (there && instance(mapsmith)["servers"]["state"] == "in_sync").then_some(())
    });
}

/// The instance's part of the status.
pub fn instance(mapsmith: &Mapsmith) -> Value {
    mapsmith.get("/v1/status").1["instances"][0].clone()
}
