//! What the control API shows of nodes, map and history, and what it takes.

mod attention;
mod blocked;
mod conditions;
mod events;
mod history;
mod map;
mod masters;
mod nodes;
mod rollback;
mod rollout;
mod servers;
mod stats;

use serde_json::Value;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::registry::Registry;
use crate::support::scene::{
    ON_REQUEST, borrowed, gateway_settings, in_sync, newest, source_settings,
};

/// A gateway in sync with a registry, and a Mapsmith with a store.
struct Scene {
    gateway: Gateway,
    registry: Registry,
    mapsmith: Mapsmith,
}

impl Scene {
    fn start(nodes: &[(String, String)]) -> Self {
        Self::start_with(nodes, "")
    }

    /// With more settings.
    fn start_with(nodes: &[(String, String)], more: &str) -> Self {
        let gateway = Gateway::plan(newest()).start();
        let registry = Registry::start(&borrowed(nodes));
        let mapsmith = config(&gateway, &registry, more).start();
        in_sync(&mapsmith);
        Self { gateway, registry, mapsmith }
    }

    /// An answer that must be good.
    fn get(&self, path: &str) -> Value {
        let (status, body) = self.mapsmith.get(path);
        assert_eq!(status, 200, "{path}: {body:#}\n{}", self.mapsmith.log());
        body
    }

    /// Orders something, which must arrive; gives the report's message.
    fn order(&self, method: &str, path: &str, body: Value) -> String {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        // The masters of these tests are only names: no HAProxy has them.
        let force = if method == "DELETE" { "" } else { "&force=true" };
        let path = format!("/v1/{path}?wait=60s{force}");
        let response = self.mapsmith.ask(method, &path, &[], &body);
        let report: Value = serde_json::from_str(&response.body).unwrap_or(Value::Null);
        assert_eq!(
            (response.status, report["outcome"].as_str()),
            (200, Some("in_sync")),
            "{}\n{}",
            response.body,
            self.mapsmith.log()
        );
        report["message"].as_str().expect("a message").to_owned()
    }

    /// An answer that must be this problem.
    fn refused(&self, method: &str, path: &str, body: &str, expected: u16) -> Value {
        let response = self.mapsmith.ask(method, path, &[], body);
        let what = format!("{method} {path} {body}: {}", response.body);
        assert_eq!(
            (response.status, response.content_type.as_str()),
            (expected, "application/problem+json"),
            "{what}"
        );
        serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{what}: {error}"))
    }
}

fn config(gateway: &Gateway, registry: &Registry, more: &str) -> Config {
    let source = source_settings("registry", &registry.url());
    let store = "[store]\npath = \"mapsmith.db\"\n";
    Mapsmith::config(&format!("{ON_REQUEST}{}{source}{store}{more}", gateway_settings(gateway)))
}

/// Pairs of names, owned.
fn owned(nodes: &[(&str, &str)]) -> Vec<(String, String)> {
    nodes.iter().map(|(node, master)| ((*node).to_owned(), (*master).to_owned())).collect()
}
