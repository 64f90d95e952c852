//! The listeners for clients of other APIs, asked as those ask.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Ground, Managed, PATIENCE};
use crate::support::haproxy::Binary;
use crate::support::http::{self, Response};
use crate::support::mapsmith::Mapsmith;
use crate::support::{eventually, free_port};

mod browsers;
mod changes;
mod members;
mod rendered;
mod sequence;
mod served;

/// What Aqueduct expects and answers, observed there.
fn aqueduct() -> Value {
    serde_json::from_str(include_str!("aqueduct_api.json")).expect("it is JSON")
}

/// `[haproxy]`, `[store]`, a listener, and nothing else.
fn settings(ground: &Ground, listener: &str) -> String {
    let (folder, program) = (ground.path().display(), ground.binary.path.display());
    format!(
        "[haproxy]\nmanaged = true\nbinary = \"{program}\"\nfolder = \"{folder}\"\n\
        reload_interval = \"100ms\"\nhard_stop_after = \"20s\"\n\
        [store]\npath = \"mapsmith.db\"\n\
        {listener}"
    )
}

struct Scene {
    managed: Managed,
    /// Where Aqueduct's clients ask.
    old: SocketAddr,
}

impl Scene {
    fn start(binary: &'static Binary) -> Self {
        Self::with(binary, "", "")
    }

    /// `keys` are more of the listener's, `more` other sections.
    fn with(binary: &'static Binary, keys: &str, more: &str) -> Self {
        let ground = Ground::new(binary);
        let old = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let listener = format!("[compat.aqueduct]\nlisten = \"{old}\"\n{keys}\n{more}");
        let mapsmith = Mapsmith::config(&settings(&ground, &listener)).start();
        Self { managed: Managed { mapsmith, ground }, old }
    }

    /// A request of an old client. A connection may end while other settings come into force.
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        eventually("the listener answers", PATIENCE, || {
            http::request(self.old, method, path, headers, body).ok()
        })
    }

    /// Its status and its body: JSON, or a text.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(method, path, &[("Content-Type", "application/json")], &text);
        let body = serde_json::from_str(&response.body);
        (response.status, body.unwrap_or(Value::String(response.body)))
    }

    fn put(&self, path: &str, body: &Value) {
        let answer = self.ask("PUT", path, body);
        assert_eq!(answer, (200, 200.into()), "{path}: {}", self.managed.mapsmith.log());
    }
}
