//! A registry in trouble never reaches HAProxy: what is held back, what lets it through, and what
//! counts as in force at a start.

mod approval;
mod bad_answers;
mod damping;
mod first_start;
mod limits;
mod partial;

use std::fs;

use serde_json::Value;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    ON_REQUEST, borrowed, gateway_settings, in_sync, memory, nodes, source_settings,
};

/// Enough that the guard's shares apply.
const NODES: usize = 40;

fn config(gateway: &Gateway, registry: &Registry, more: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}{more}", gateway_settings(gateway)))
}

/// A gateway in sync with a registry of [`NODES`] nodes of `m1`.
struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

/// What must not change while something is refused.
#[derive(Debug, PartialEq)]
struct Kept {
    memory: Vec<(String, String)>,
    file: Vec<u8>,
    revision: Value,
}

impl Scene {
    fn start(binary: &crate::support::haproxy::Binary, more: &str) -> Self {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&borrowed(&nodes(NODES, "m1")));
        let mapsmith = config(&gateway, &registry, more).start();
        in_sync(&mapsmith);
        assert_eq!(memory(&gateway), nodes(NODES, "m1"));
        Self { gateway, registry, mapsmith }
    }

    fn kept(&self) -> Kept {
        Kept {
            memory: memory(&self.gateway),
            file: fs::read(self.gateway.map_path()).expect("the map file is there"),
            revision: self.mapsmith.get("/v1/status").1["revision"].clone(),
        }
    }

    /// Reloads, which must be answered with the HTTP status, and gives the problem.
    fn refused_reload(&self, expected: u16) -> Value {
        let (status, problem) = self.mapsmith.post("/v1/reload?wait=30s");
        assert_eq!(status, expected, "{problem:#}\n{}", self.mapsmith.log());
        problem
    }

    /// Has the registry say something that the guard holds, and gives the held change.
    fn held(&self) -> Value {
        self.refused_reload(409);
        let held = self.mapsmith.get("/v1/held").1[0].clone();
        assert!(held["id"].is_string() && held["of"] == "map", "nothing is held: {held}");
        held
    }
}
