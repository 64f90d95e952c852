//! A site that a test breaks at an exact command: a gateway with two masters, a proxy in front of
//! its admin socket, a registry.

use std::fs;
use std::path::Path;

use super::admin_proxy::AdminProxy;
use super::eventually;
use super::haproxy::{Binary, Gateway, Plan};
use super::mapsmith::{Config, Mapsmith};
use super::master::Master;
use super::registry::Registry;
use super::scene::{BOUND, borrowed, map_file, memory, source_settings};

/// Nodes and their masters, sorted by node.
pub type Nodes = Vec<(String, String)>;

/// So many nodes, in turn of the two masters; `first` says which of them the first node has.
pub fn alternating(count: usize, first: usize) -> Nodes {
    (0..count)
        .map(|number| (format!("n{number:06}"), format!("master{}", (number + first) % 2 + 1)))
        .collect()
}

/// A poll at the start and when asked; no guard stands in a test's way.
pub const CALM: &str = "[schedule]\npoll = \"1h\"\nverify = \"1h\"\nobserve = \"1s\"\n\
                        [guard]\nmax_moved = \"100%\"\nmax_removed = \"100%\"\n[damping]\nhold \
                        = \"0s\"\n";

/// An `[[instance]]` that may be held for as long as a test takes, and gets many small payloads.
pub fn patient_instance(name: &str, runtime: &str) -> String {
    format!(
        "[[instance]]\nname = {name:?}\nruntime = {runtime:?}\ntimeout = \"60s\"\nmax_payload = \
            1024\n"
    )
}

pub struct Site {
    pub proxy: AdminProxy,
    pub registry: Registry,
    pub gateway: Gateway,
    _masters: [Master; 2],
}

impl Site {
    /// With a gateway whose map is empty at the start.
    pub fn start(binary: &Binary, nodes: &Nodes) -> Self {
        Self::planned(binary, nodes, |plan| plan)
    }

    pub fn planned(binary: &Binary, nodes: &Nodes, plan: impl FnOnce(Plan) -> Plan) -> Self {
        let masters = [Master::start("master1"), Master::start("master2")];
        let base = Gateway::plan(binary);
        let base =
            masters.iter().fold(base, |base, master| base.master(master.name(), master.address()));
        let gateway = plan(base).start();
        let registry = Registry::start(&borrowed(nodes));
        Self {
            proxy: AdminProxy::start(&gateway.runtime_address()),
            registry,
            gateway,
            _masters: masters,
        }
    }

    /// Settings for a Mapsmith that works through the proxy, after a `[schedule]` and more.
    pub fn config_with(&self, schedule: &str) -> Config {
        let map = format!("[map]\npath = {:?}\n", self.gateway.map_path());
        let source = source_settings("registry", &self.registry.url());
        Mapsmith::config(
            &(schedule.to_owned()
                + &map
                + &source
                + &patient_instance("edge1", &self.proxy.address())),
        )
    }

    /// A Mapsmith that works through the proxy and has brought the registry's nodes in.
    pub fn mapsmith(&self) -> Mapsmith {
        let mapsmith = self.config_with(CALM).start();
        super::scene::in_sync(&mapsmith);
        mapsmith
    }

    /// Has the next change be a swap whatever the costs, which depend on how busy the machine is:
    /// another tool stages an entry, and single commands would mix with it. Ten looks later it
    /// counts as abandoned, so the change should follow at once.
    pub fn next_is_a_swap(&self) {
        let map = self.gateway.map_path();
        let reply = self.gateway.command(&format!("prepare map {map}"));
        let version = reply.trim_end().rsplit(' ').next().expect("a version").to_owned();
        assert_eq!(
            self.gateway
                .command(&format!("add map @{version} {map} staged-by-another-tool master1")),
            "\n"
        );
    }

    /// The registry names these from now on, and Mapsmith is asked to look and will swap; nobody
    /// waits for it.
    pub fn change(&self, mapsmith: &Mapsmith, nodes: &Nodes) {
        self.next_is_a_swap();
        self.registry.knows(&borrowed(nodes));
        let (status, report) = mapsmith.post("/v1/reload");
        assert_eq!(status, 202, "{report:#}\n{}", mapsmith.log());
    }

    /// Waits until memory and file hold exactly these nodes, nothing is staged beside them, and
    /// Mapsmith says so too.
    pub fn converges(&self, mapsmith: &Mapsmith, nodes: &Nodes) {
        let what = "memory, file and Mapsmith agree on the registry's nodes";
        mapsmith.wait_for(what, BOUND, |mapsmith| {
            let settled = memory(&self.gateway) == *nodes
                && counters(&self.gateway).entries == nodes.len() as u64
                && map_file(&self.gateway) == *nodes
                && mapsmith.get("/v1/status").1["instances"][0]["state"] == "in_sync";
            settled.then_some(())
        });
        assert_no_leftovers(Path::new(self.gateway.map_path()));
    }

    /// What a client gets for a node right now.
    pub fn route(&self, node: &str) -> String {
        let (status, master) = self.gateway.request(node);
        assert_eq!(status, 200, "{node}: {master}");
        master
    }
}

/// The map's counters in `show map`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub live_version: u64,
    /// Of all versions together.
    pub entries: u64,
}

pub fn counters(gateway: &Gateway) -> Counters {
    let listing = gateway.command("show map");
    let number = |name: &str| {
        let (_, rest) =
            listing.split_once(name).unwrap_or_else(|| panic!("no {name} in {listing:?}"));
        rest.split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {listing:?}"))
    };
    Counters { live_version: number("curr_ver="), entries: number("entry_cnt=") }
}

/// The revision that the map file's first line notes.
pub fn file_revision(gateway: &Gateway) -> u64 {
    let text = fs::read_to_string(gateway.map_path()).expect("the map file is there");
    let first = text.lines().next().unwrap_or_default();
    let number = first.rsplit_once(' ').and_then(|(_, number)| number.parse().ok());
    number.unwrap_or_else(|| panic!("no revision in {first:?}"))
}

/// Nothing half-written stands beside the map file.
pub fn assert_no_leftovers(map: &Path) {
    let folder = map.parent().expect("a file in a folder");
    eventually("no temporary file stands beside the map file", BOUND, || {
        let files = fs::read_dir(folder)
            .expect("the map's folder")
            .map(|file| file.expect("a file").file_name());
        let left = files.filter(|name| name.to_string_lossy().ends_with(".tmp")).count();
        (left == 0).then_some(())
    });
}
