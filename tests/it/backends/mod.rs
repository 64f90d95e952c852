//! Which servers a backend should have: from written lists, sources and the map, whatever the
//! registry does. How they get into HAProxy is another matter.

mod damping;
mod guarded;
mod origins;
mod written;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, gateway_settings, in_sync, metric, newest, source_settings,
};

/// Changes count at once; only what a test says stays for a while.
const QUICK: &str = "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"0s\"\n";

/// A server that is gone stays as long as a test takes.
const HOLDING: &str = "[damping]\ndebounce = \"0s\"\nmax_delay = \"0s\"\nhold = \"1h\"\n";

/// A backend `puppet` whose servers a source `consul` lists.
const LISTED: &str = "[[backend]]\nname = \"puppet\"\nfrom = \"consul\"\n";

/// A gateway, a registry of the node map and one of servers.
struct Scene {
    gateway: Gateway,
    nodes: Registry,
    servers: Registry,
}

impl Scene {
    fn new() -> Self {
        let scene = Self {
            gateway: Gateway::plan(newest())
                .more("backend puppet\n    balance roundrobin\n")
                .start(),
            nodes: Registry::start(&[("n1", "m1")]),
            servers: Registry::start(&[]),
        };
        scene.servers.answers(200, &list(3).to_string());
        scene
    }

    fn config(&self, more: &str) -> Config {
        let mut sources = source_settings("registry", &self.nodes.url());
        if more.contains(LISTED) {
            sources += &source_settings("consul", &self.servers.url());
        }
        Mapsmith::config(&format!("{ON_REQUEST}{}{sources}{more}", gateway_settings(&self.gateway)))
    }

    /// A daemon with the backend [`LISTED`], which has its servers.
    fn start(&self, damping: &str, servers: usize) -> Mapsmith {
        let mapsmith = self.config(&format!("{damping}{LISTED}")).start();
        in_sync(&mapsmith);
        has(&mapsmith, servers);
        mapsmith
    }
}

/// So many servers, as a registry lists them.
fn list(count: usize) -> Value {
    (0..count)
        .map(|number| {
            let address = format!("10.0.0.{}", number + 1);
            json!({ "name": format!("s{number:02}"), "address": address, "port": 8140 })
        })
        .collect()
}

/// The backend's status.
fn backend(mapsmith: &Mapsmith) -> Value {
    mapsmith.get("/v1/status").1["backends"][0].clone()
}

/// The backend's servers: names and addresses.
fn servers(mapsmith: &Mapsmith) -> Vec<String> {
    let backend = backend(mapsmith);
    let servers = backend["servers"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    servers
        .iter()
        .map(|server| {
            format!(
                "{} {} {}",
                text(&server["name"]),
                text(&server["address"]["ip"]),
                text(&server["address"]["port"])
            )
        })
        .collect()
}

fn has(mapsmith: &Mapsmith, count: usize) {
    mapsmith.wait_for(&format!("the backend has {count} servers"), BOUND, |mapsmith| {
        (servers(mapsmith).len() == count).then_some(())
    });
}

fn gauge(mapsmith: &Mapsmith, name: &str) -> Option<f64> {
    metric(mapsmith, &format!("{name}{{backend=\"puppet\"}}"))
}
