//! Many instances of a service, and answers of many megabytes.

use jiff::Timestamp;
use mapsmith::settings::Selector;
use mapsmith::source::{self, Extent, Feed, Polled};
use mapsmith_core::ServerList;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::sources::assert_says;
use crate::support::consul::Consul;

const COUNT: usize = 10_000;

/// The source of these further settings, whose token may do everything, and the token's folder.
pub fn registry(consul: &Consul, settings: Value) -> (Box<dyn source::Registry>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, consul.management_token()).unwrap();
    let mut all = json!({
        "name": "consul", "type": "consul", "url": consul.url(), "token_file": token,
    });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let settings = serde_json::from_value(all).unwrap();
    let registry = source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"));
    (registry, folder)
}

/// The instances of the service `web`.
pub fn instances(registry: &dyn source::Registry) -> Box<dyn Feed<ServerList>> {
    let selector = json!({"source": "consul", "service": ["web"]});
    let selector: Selector = serde_json::from_value(selector).unwrap();
    registry.servers(&selector).unwrap_or_else(|error| panic!("{error}"))
}

pub fn names(polled: &Polled<ServerList>) -> Vec<&str> {
    polled.entries.servers.iter().map(|server| &*server.name).collect()
}

#[tokio::test]
async fn ten_thousand_instances_and_megabytes_of_them_are_read_and_more_than_max_bytes_refused() {
    let consul = Consul::start();
    // A kilobyte of what Mapsmith does not read.
    let meta = json!({"a": "x".repeat(500), "b": "y".repeat(500)});
    let rows = (0..COUNT).map(|number| (format!("w{number}"), 1 + number % 60_000));
    consul.register_all("node", "web", &meta, rows);
    let (whole, _token) = registry(&consul, json!({}));
    let poll = instances(whole.as_ref()).poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await;
    let polled = poll.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((polled.entries.servers.len(), polled.rejections.total()), (COUNT, 0));
    assert!(polled.bytes > 10 * 1024 * 1024, "{} bytes", polled.bytes);
    let (small, _token) = registry(&consul, json!({"max_bytes": "1000000"}));
    let poll = instances(small.as_ref()).poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await;
    let message = poll.expect_err("more than max_bytes").to_string();
    assert_says(&message, &["/v1/health/service/web", "larger than max_bytes (1000000"]);
}
