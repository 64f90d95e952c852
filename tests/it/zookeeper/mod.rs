//! A real ZooKeeper as a source: what stands there is what HAProxy has, and what can't be read
//! there changes nothing.

mod faults;
mod feeds;
mod gateway;
mod lines;
mod restarts;
mod shadow;

use std::sync::Arc;

use jiff::Timestamp;
use mapsmith::settings::Selector;
use mapsmith::source::{self, Extent, Feed, Polled};
use mapsmith_core::{Content, ServerList, Snapshot};
use serde_json::{Value, json};

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::{Config, Mapsmith};
use crate::support::master::Master;
use crate::support::pool::{AT_ONCE, BACKEND, with_backend};
use crate::support::scene::newest;
use crate::support::zookeeper::ZooKeeper;

/// What ProxyMgr's writers register.
fn address(master: &Master) -> String {
    let address = master.address();
    json!({"address": address.ip().to_string(), "port": address.port()}).to_string()
}

/// A gateway whose only node goes to a backend that ZooKeeper lists.
struct Scene {
    gateway: Gateway,
    zookeeper: ZooKeeper,
}

impl Scene {
    fn new() -> Self {
        let plan = Gateway::plan(newest()).entry("node1", BACKEND);
        let plan = with_backend(plan, "    balance roundrobin\n");
        let scene = Self { gateway: plan.start(), zookeeper: ZooKeeper::start() };
        scene.zookeeper.create("/mapsmith/nodes/node1", BACKEND);
        scene
    }

    /// The servers are those that `from` says, beside the source.
    fn config(&self, from: &str) -> Config {
        Mapsmith::config(&format!(
            "{AT_ONCE}[map]\npath = {:?}\n\
             [[source]]\nname = \"zk\"\ntype = \"zookeeper\"\nservers = [\"{}\"]\n\
             nodes = \"/mapsmith/nodes\"\ntimeout = \"5s\"\nsession_timeout = \"2s\"\n\
             [[backend]]\nname = {BACKEND:?}\nfrom = {{ source = \"zk\", {from} }}\n\
             [[instance]]\nname = \"edge1\"\nruntime = {:?}\ntimeout = \"5s\"\n",
            self.gateway.map_path(),
            self.zookeeper.address(),
            self.gateway.runtime_address(),
        ))
    }

    /// Whom requests of the node reach, in as many of them as there are servers.
    fn answering(&self, requests: usize) -> Vec<String> {
        let mut names: Vec<_> = (0..requests).map(|_| self.gateway.request("node1").1).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The registry of these settings, in JSON, beside its name and type.
fn registry(settings: Value) -> Box<dyn source::Registry> {
    let mut all = json!({"name": "zk", "type": "zookeeper", "timeout": "10s"});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let settings = serde_json::from_value(all).unwrap();
    source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"))
}

/// A list of servers, by a selector's keys.
fn listed(registry: &dyn source::Registry, keys: &Value) -> Box<dyn Feed<ServerList>> {
    let mut all = json!({"source": "zk"});
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let selector: Selector = serde_json::from_value(all).unwrap();
    registry.servers(&selector).unwrap_or_else(|error| panic!("{error}"))
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

fn snapshot<C: Content>(polled: &Polled<C>) -> Snapshot<C> {
    Snapshot {
        entries: Arc::clone(&polled.entries),
        rejections: Arc::clone(&polled.rejections),
        answered_at: Timestamp::UNIX_EPOCH,
    }
}

fn names(polled: &Polled<ServerList>) -> Vec<&str> {
    polled.entries.servers.iter().map(|server| &*server.name).collect()
}
