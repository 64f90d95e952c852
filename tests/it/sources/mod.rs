//! The sources against servers that misbehave on demand, and files that change under them.

mod consul;
mod dns;
mod faults;
mod file;
mod http_json;
mod puppetdb;
mod replicas;
mod server_documents;
mod server_list;
mod tls;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use mapsmith::source::{self, Extent, Feed, Polled, SourceError};
use mapsmith_core::{EntryMap, Invalid, Snapshot};
use serde_json::{Value, json};
use wiremock::MockServer;

/// A source and what it said last.
struct Registry {
    source: Box<dyn Feed<EntryMap>>,
    current: Option<Snapshot>,
    now: Timestamp,
}

impl Registry {
    /// A source of the given settings; `name`, where it is not among them, is "registry".
    fn new(settings: Value) -> Self {
        let mut all = json!({"name": "registry"});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let settings = serde_json::from_value(all).unwrap();
        let registry = source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"));
        let source = registry.node_map().unwrap();
        Self { source, current: None, now: "2026-11-20T12:00:00Z".parse().unwrap() }
    }

    fn puppetdb(url: &str, settings: Value) -> Self {
        let mut all = json!({"type": "puppetdb", "url": url});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Self::new(all)
    }

    fn http_json(url: &str, settings: Value) -> Self {
        let mut all = json!({"type": "http_json", "url": format!("{url}/map")});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        Self::new(all)
    }

    /// Polls as the poller does: a good answer becomes the current snapshot.
    async fn try_poll(&mut self) -> Result<Polled, SourceError> {
        self.try_poll_for(Extent::Changes).await
    }

    async fn try_poll_for(&mut self, extent: Extent) -> Result<Polled, SourceError> {
        let polled = self.source.poll(extent, self.current.as_ref(), self.now).await?;
        self.current = Some(Snapshot {
            entries: Arc::clone(&polled.entries),
            rejections: Arc::clone(&polled.rejections),
            answered_at: self.now,
        });
        Ok(polled)
    }

    async fn poll(&mut self) -> Polled {
        self.try_poll().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// As a reload does it.
    async fn poll_everything(&mut self) -> Polled {
        self.try_poll_for(Extent::Everything).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn failure(&mut self) -> String {
        match self.try_poll().await {
            Ok(polled) => panic!("an answer: {polled:?}"),
            Err(error) => error.to_string(),
        }
    }

    /// What is wrong although it answers.
    fn warning(&self) -> Option<String> {
        self.source.notes().warning
    }

    fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }
}

fn entries(polled: &Polled) -> Vec<(&str, &str)> {
    polled.entries.iter().collect()
}

fn rejected(polled: &Polled) -> Vec<(&str, Invalid)> {
    polled.rejections.named.iter().map(|(node, reason)| (node.as_str(), *reason)).collect()
}

/// The queries that a stand-in was asked, in order.
async fn queries(server: &MockServer) -> Vec<String> {
    let requests = server.received_requests().await.unwrap();
    let query = |body: &[u8]| {
        serde_json::from_slice::<Value>(body).unwrap()["query"].as_str().unwrap().to_owned()
    };
    requests.iter().map(|request| query(&request.body)).collect()
}

#[track_caller]
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
