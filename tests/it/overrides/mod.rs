//! Pins and drained masters: they come into force at once, whatever the guard holds, and outlive
//! every restart.

mod drains;
mod pins;
mod refused;
mod restarts;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    ON_REQUEST, borrowed, gateway_settings, in_sync, map_file, memory, newest, source_settings,
};

const STORE: &str = "[store]\npath = \"mapsmith.db\"\n";

fn config(gateway: &Gateway, registry: &Registry, store: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}{store}", gateway_settings(gateway)))
}

/// A gateway in sync with a registry, and a Mapsmith with a store.
struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

impl Scene {
    fn start(nodes: &[(String, String)]) -> Self {
        Self::start_on(newest(), nodes)
    }

    fn start_on(binary: &crate::support::haproxy::Binary, nodes: &[(String, String)]) -> Self {
        let gateway = Gateway::plan(binary).start();
        let registry = Registry::start(&borrowed(nodes));
        let mapsmith = config(&gateway, &registry, STORE).start();
        in_sync(&mapsmith);
        Self { gateway, registry, mapsmith }
    }

    /// An answer of the API, and its status.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let response = self.mapsmith.ask(method, path, &[], body);
        (
            response.status,
            serde_json::from_str(&response.body).unwrap_or(Value::String(response.body)),
        )
    }

    /// Orders something, which must arrive; gives the report's message.
    fn order(&self, method: &str, path: &str, body: Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // The masters of these tests are only names: no HAProxy has them.
        let force = if method == "DELETE" { "" } else { "&force=true" };
        let (status, report) = self.ask(method, &format!("/v1/{path}?wait=60s{force}"), &body);
        assert_eq!(
            (status, &report["outcome"]),
            (200, &json!("in_sync")),
            "{report:#}\n{}",
            self.mapsmith.log()
        );
        report["message"].as_str().expect("a message").to_owned()
    }

    fn refused(&self, method: &str, path: &str, body: &str, expected: u16) -> String {
        let response = self.mapsmith.ask(method, path, &[], body);
        let what = format!("{method} {path} {body}: {}", response.body);
        assert_eq!(
            (response.status, response.content_type.as_str()),
            (expected, "application/problem+json"),
            "{what}"
        );
        let problem: Value =
            serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{what}: {error}"));
        problem["detail"].as_str().expect("a detail").to_owned()
    }

    fn database(&self) -> PathBuf {
        self.mapsmith.configuration().directory().join("mapsmith.db")
    }

    /// What the registry says, with some nodes elsewhere: in memory and in the file.
    fn holds(&self, expected: &[(String, String)]) {
        assert_eq!(memory(&self.gateway), expected, "{}", self.mapsmith.log());
        assert_eq!(map_file(&self.gateway), expected);
    }
}

/// The nodes, with some of them on other masters, and more.
fn with(nodes: &[(String, String)], moved: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut all: BTreeMap<_, _> = nodes.iter().cloned().collect();
    all.extend(moved.iter().map(|(node, master)| ((*node).to_owned(), (*master).to_owned())));
    all.into_iter().collect()
}

/// So many nodes in turn of the masters.
fn fleet(count: usize, masters: &[&str]) -> Vec<(String, String)> {
    (0..count)
        .map(|node| (format!("n{node:03}"), masters[node % masters.len()].to_owned()))
        .collect()
}
