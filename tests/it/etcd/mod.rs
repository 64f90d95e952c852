//! A real etcd as a source: what stands there is what HAProxy has, and what can't be read there
//! changes nothing.

mod faults;
mod feeds;
mod gateway;
mod lines;
mod refusals;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith::settings::Selector;
use mapsmith::source::{self, Extent, Feed, Polled};
use mapsmith_core::{Content, ServerList};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::etcd::Etcd;
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::master::Master;
use crate::support::pool::{AT_ONCE, BACKEND, with_backend};
use crate::support::scene::newest;

/// Far more than any of these tests takes.
const BOUND: Duration = Duration::from_secs(60);

/// What the backend takes, by its name in `status`.
const LIST: &str = "etcd prefix=/services/web/";

/// A server as its key holds it.
fn json_of(master: &Master) -> String {
    let address = master.address();
    json!({"address": address.ip().to_string(), "port": address.port()}).to_string()
}

/// A gateway whose only node goes to a backend that etcd lists.
struct Scene {
    gateway: Gateway,
    etcd: Etcd,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let plan = Gateway::plan(newest()).entry("node1", BACKEND);
        let plan = with_backend(plan, "    balance roundrobin\n");
        let folder = tempfile::tempdir().unwrap();
        let scene = Self { gateway: plan.start(), etcd: Etcd::start(), folder };
        scene.etcd.put("/mapsmith/nodes/node1", BACKEND);
        scene
    }

    /// `more` of the source's keys.
    fn config(&self, more: &str) -> Config {
        Mapsmith::config(&format!(
            "{AT_ONCE}[map]\npath = {:?}\n[store]\npath = {:?}\n\
             [[source]]\nname = \"etcd\"\ntype = \"etcd\"\nendpoints = [{:?}]\n\
             nodes = \"/mapsmith/nodes/\"\ntimeout = \"2s\"\n{more}\
             [[backend]]\nname = {BACKEND:?}\n\
             from = {{ source = \"etcd\", prefix = \"/services/web/\" }}\n\
             [[instance]]\nname = \"edge1\"\nruntime = {:?}\ntimeout = \"5s\"\n",
            self.gateway.map_path(),
            self.store(),
            self.etcd.url(),
            self.gateway.runtime_address(),
        ))
    }

    fn store(&self) -> impl AsRef<Path> + std::fmt::Debug {
        self.folder.path().join("mapsmith.db")
    }

    /// Whom requests of the node reach, in as many of them as there are servers.
    fn answering(&self, requests: usize) -> Vec<String> {
        let mut names: Vec<_> = (0..requests).map(|_| self.gateway.request("node1").1).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// How a feed stands in the status.
fn feed(mapsmith: &Mapsmith, name: &str) -> Value {
    let (_, status) = mapsmith.get("/v1/status");
    let sources = status["sources"].as_array().unwrap().clone();
    let found = sources.iter().find(|source| source["name"] == name);
    found.unwrap_or_else(|| panic!("no source {name:?} in {sources:?}")).clone()
}

/// Waits until the feed's last poll failed with these words.
fn fails(mapsmith: &Mapsmith, name: &str, words: &str) {
    mapsmith.wait_for(&format!("{name} fails: {words}"), BOUND, |mapsmith| {
        feed(mapsmith, name)["error"].as_str()?.contains(words).then_some(())
    });
}

/// The registry of these settings, in JSON, beside its name and type.
fn registry(settings: Value) -> Box<dyn source::Registry> {
    let mut all = json!({"name": "etcd", "type": "etcd", "timeout": "10s"});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let settings = serde_json::from_value(all).unwrap();
    source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"))
}

/// A list of servers, by a selector's keys.
fn listed(registry: &dyn source::Registry, keys: &Value) -> Box<dyn Feed<ServerList>> {
    let mut all = json!({"source": "etcd"});
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let selector: Selector = serde_json::from_value(all).unwrap();
    registry.servers(&selector).unwrap_or_else(|error| panic!("{error}"))
}

/// The servers below `/web/`, as `host:port`.
fn web(registry: &dyn source::Registry) -> Box<dyn Feed<ServerList>> {
    listed(registry, &json!({"prefix": ["/web/"], "format": ["address"]}))
}

/// A poll, as the poller does it.
async fn poll<C: Content>(feed: &mut Box<dyn Feed<C>>) -> Polled<C> {
    feed.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A poll that must fail, and what it says.
async fn failure<C: Content>(feed: &mut Box<dyn Feed<C>>) -> String {
    match feed.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await {
        Ok(polled) => panic!("an answer: {polled:?}"),
        Err(error) => error.to_string(),
    }
}

/// Waits until the feed itself sees something.
async fn changes<C: Content>(feed: &mut Box<dyn Feed<C>>, what: &str) {
    let seen = tokio::time::timeout(BOUND, feed.changed()).await;
    assert!(seen.is_ok(), "{what} was not seen within {BOUND:?}");
}

fn names(polled: &Polled<ServerList>) -> Vec<&str> {
    polled.entries.servers.iter().map(|server| &*server.name).collect()
}
