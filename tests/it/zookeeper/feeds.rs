//! What a feed of a real ZooKeeper answers, and what it says where it can't.

use std::fs;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use mapsmith::source::{Extent, Feed};
use mapsmith_core::status::Watch;
use mapsmith_core::{Content, Invalid};
use serde_json::json;

use super::{ZooKeeper, failure, listed, names, poll, registry, snapshot};
use crate::sources::assert_says;
use crate::support::authority::Authority;
use crate::support::free_port;

/// Longer than an event takes to arrive.
const BOUND: Duration = Duration::from_secs(60);

async fn changes<C: Content>(feed: &mut Box<dyn Feed<C>>, what: &str) {
    let seen = tokio::time::timeout(BOUND, feed.changed()).await;
    assert!(seen.is_ok(), "{what} was not seen within {BOUND:?}");
}

#[tokio::test]
async fn the_node_map_and_each_list_of_servers_come_over_one_session() {
    let zookeeper = ZooKeeper::start();
    zookeeper.create("/site1/nodes/A.example", "puppet00\n");
    zookeeper.create("/site1/nodes/b.example", "m2");
    zookeeper.create("/site1/nodes/c.example", "");
    zookeeper.create("/site1/web/n2", r#"{"address": "9.9.9.9", "port": 1}"#);
    zookeeper.create("/site1/web/n1", r#"{"address": "1.2.3.4", "port": 8080}"#);
    zookeeper.create("/site1/old/10.0.0.1", "whatever");
    let host = r#"{"type": "host", "host": {"address": "10.0.0.2"}}"#;
    let balancer = r#"{"type": "load_balancer", "load_balancer": {"address": "10.0.0.3"}}"#;
    zookeeper.create("/site1/com/example/region/manta/web1", host);
    zookeeper.create("/site1/com/example/region/manta/lb1", balancer);
    // One server that answers is enough.
    let dead = format!("127.0.0.1:{}", free_port());
    let registry = registry(json!({
        "servers": [dead, zookeeper.address().to_string()],
        "chroot": "/site1",
        "nodes": "/nodes",
        "masters": {"puppet00": "m1"},
    }));
    let mut map = registry.node_map().unwrap();
    let polled = poll(&mut map).await;
    let entries: Vec<_> = polled.entries.iter().collect();
    assert_eq!(entries, [("a.example", "m1"), ("b.example", "m2")]);
    assert_eq!(polled.rejections.reason("c.example"), Some(Invalid::NoMaster));
    let manta = json!({"format": ["registrar"], "domain": ["region.example.com"],
        "service": ["manta"], "record": ["host"], "ports": ["80", "81"]});
    for (keys, expected) in [
        (json!({"format": ["proxymgr"], "path": ["/web"]}), &["1.2.3.4:8080", "9.9.9.9:1"][..]),
        (json!({"format": ["campanjazk"], "path": ["/old"], "port": ["8080"]}), &["10.0.0.1:8080"]),
        (manta, &["web1:80", "web1:81"]),
    ] {
        let mut list = listed(registry.as_ref(), &keys);
        let polled = poll(&mut list).await;
        assert_eq!(names(&polled), expected, "{keys}");
        // The load balancer is no mistake, and is counted.
        let skipped = polled.rejections.counts.get(&Invalid::RecordType).copied();
        assert_eq!(skipped, expected.contains(&"web1:80").then_some(1));
        assert!(polled.entries.rejected.is_empty());
        // What says the same is held once.
        let current = snapshot(&polled);
        let again = list.poll(Extent::Everything, Some(&current), Timestamp::UNIX_EPOCH).await;
        assert!(Arc::ptr_eq(&again.unwrap().entries, &polled.entries), "{keys}");
    }
    assert_eq!(zookeeper.sessions(), 1);
}

#[tokio::test]
async fn whatever_changes_of_the_path_or_its_children_is_seen_at_once() {
    let zookeeper = ZooKeeper::start();
    zookeeper.create("/web/n1", r#"{"address": "10.0.0.1", "port": 1}"#);
    let registry = registry(json!({"servers": [zookeeper.address().to_string()]}));
    let mut list = listed(registry.as_ref(), &json!({"format": ["proxymgr"], "path": ["/web"]}));
    poll(&mut list).await;
    assert_eq!(list.notes().watch, Some(Watch::Watched));
    zookeeper.create("/web/n2", r#"{"address": "10.0.0.2", "port": 1}"#);
    changes(&mut list, "a new child").await;
    assert_eq!(names(&poll(&mut list).await), ["10.0.0.1:1", "10.0.0.2:1"]);
    zookeeper.set("/web/n2", br#"{"address": "10.0.0.3", "port": 1}"#);
    changes(&mut list, "what a child holds").await;
    assert_eq!(names(&poll(&mut list).await), ["10.0.0.1:1", "10.0.0.3:1"]);
    zookeeper.delete("/web/n1");
    changes(&mut list, "a child that is gone").await;
    assert_eq!(names(&poll(&mut list).await), ["10.0.0.3:1"]);
    // A restart ends the watch, which is seen too; and the next poll watches again.
    zookeeper.restart();
    changes(&mut list, "a lost connection").await;
    poll(&mut list).await;
    zookeeper.delete("/web/n2");
    changes(&mut list, "a change after the restart").await;
    assert_eq!(names(&poll(&mut list).await), [""; 0]);
}

#[tokio::test]
async fn a_path_that_is_missing_is_told_from_one_that_may_not_be_read() {
    let zookeeper = ZooKeeper::start();
    let data = |host: &str| format!(r#"{{"address": "{host}", "port": 1}}"#);
    zookeeper.create_for("/secret", "", "reader", "right");
    zookeeper.create("/mixed/n1", &data("10.0.0.1"));
    zookeeper.create_for("/mixed/n2", &data("10.0.0.2"), "reader", "right");
    let folder = tempfile::tempdir().unwrap();
    let auth_file = folder.path().join("auth");
    let servers = [zookeeper.address().to_string()];
    let open = registry(json!({"servers": servers}));
    let of = |path: &str| json!({"format": ["proxymgr"], "path": [path]});
    let missing = failure(&mut listed(open.as_ref(), &of("/gone"))).await;
    assert_says(&missing, &[&servers[0], "there is no node /gone"]);
    for (path, at, members) in [("/secret", "/secret", 0), ("/mixed", "/mixed/n2", 2)] {
        let refused = failure(&mut listed(open.as_ref(), &of(path))).await;
        assert_says(&refused, &["no permission to read", at, "set auth_file"]);
        fs::write(&auth_file, "reader:wrong\n").unwrap();
        let known = registry(json!({"servers": servers, "auth_file": auth_file}));
        let mut list = listed(known.as_ref(), &of(path));
        let refused = failure(&mut list).await;
        assert_says(&refused, &["no permission to read", at, "must let the user of auth_file"]);
        assert!(!refused.contains("wrong"), "{refused}");
        // The right password counts from the next poll on.
        fs::write(&auth_file, "reader:right\n").unwrap();
        assert_eq!(names(&poll(&mut list).await).len(), members, "{path}");
    }
    fs::write(&auth_file, "reader").unwrap();
    let other = registry(json!({"servers": servers, "auth_file": auth_file}));
    let message = failure(&mut listed(other.as_ref(), &of("/mixed"))).await;
    assert_says(&message, &["auth_file", "must hold user:password"]);
}

#[tokio::test]
async fn a_list_that_may_not_be_read_disturbs_no_other_and_asks_for_no_poll_of_its_own() {
    let quiet = Duration::from_millis(500);
    let zookeeper = ZooKeeper::start();
    zookeeper.create("/web/n1", r#"{"address": "10.0.0.1", "port": 1}"#);
    zookeeper.create_for("/mixed/n2", "", "reader", "right");
    let registry = registry(json!({"servers": [zookeeper.address().to_string()]}));
    let of = |path: &str| json!({"format": ["proxymgr"], "path": [path]});
    let mut good = listed(registry.as_ref(), &of("/web"));
    let mut closed = listed(registry.as_ref(), &of("/mixed"));
    poll(&mut good).await;
    for _ in 0..3 {
        assert_says(&failure(&mut closed).await, &["no permission to read /mixed/n2"]);
        let found = tokio::time::timeout(quiet, good.changed()).await;
        assert!(found.is_err(), "the session was closed, and the good list's watch with it");
    }
    // Where the connection is lost the good one polls at once, the other one when it is due.
    zookeeper.restart();
    changes(&mut good, "a lost connection").await;
    assert!(
        tokio::time::timeout(quiet, closed.changed()).await.is_err(),
        "a failing list asks to be polled"
    );
    assert_eq!(names(&poll(&mut good).await), ["10.0.0.1:1"]);
}

#[tokio::test]
async fn a_server_that_can_not_be_reached_or_is_no_zookeeper_is_named_with_the_cause() {
    let closed = format!("127.0.0.1:{}", free_port());
    let of = json!({"format": ["proxymgr"], "path": ["/web"]});
    let down = registry(json!({"servers": [closed], "session_timeout": "1s"}));
    let message = failure(&mut listed(down.as_ref(), &of)).await;
    assert_says(&message, &[&closed, "/web: can't be reached", "refused"]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap().to_string();
    // It takes whatever comes, and hangs up.
    thread::spawn(move || other.incoming().for_each(drop));
    let down = registry(json!({"servers": [at], "session_timeout": "1s"}));
    let message = failure(&mut listed(down.as_ref(), &of)).await;
    assert_says(&message, &[&at, "takes connections, and opens no session"]);
    // It waits for the rest of a request, as an HTTP server does.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = silent.local_addr().unwrap().to_string();
    let down = registry(json!({"servers": [at], "timeout": "3s"}));
    let message = failure(&mut listed(down.as_ref(), &of)).await;
    assert_says(&message, &[&at, "opens no session: is it ZooKeeper's client port"]);
}

#[tokio::test]
async fn ten_thousand_members_are_read_and_more_than_max_bytes_are_refused() {
    let zookeeper = ZooKeeper::start();
    let member = |number: usize| {
        let address = format!("10.0.{}.{}", number / 250, number % 250 + 1);
        (format!("n{number}"), json!({"address": address, "port": 80}).to_string())
    };
    zookeeper.create_all("/web", (0..10_000).map(member));
    let servers = [zookeeper.address().to_string()];
    let of = json!({"format": ["proxymgr"], "path": ["/web"]});
    let whole = registry(json!({"servers": servers}));
    let polled = poll(&mut listed(whole.as_ref(), &of)).await;
    assert_eq!((polled.entries.servers.len(), polled.rejections.total()), (10_000, 0));
    let small = registry(json!({"servers": servers, "max_bytes": "10000"}));
    let message = failure(&mut listed(small.as_ref(), &of)).await;
    assert_says(&message, &["larger than max_bytes (10000 bytes"]);
}

#[tokio::test]
async fn tls_is_spoken_with_both_certificates_and_a_refusal_says_whose_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let authority = Authority::create(&path("right"));
    ["zookeeper", "gateway"].iter().for_each(|name| authority.issue(name));
    let stranger = Authority::create(&path("wrong"));
    stranger.issue("gateway");
    let zookeeper = ZooKeeper::start_with_tls(&authority);
    zookeeper.create("/web/n1", r#"{"address": "10.0.0.1", "port": 1}"#);
    let of = json!({"format": ["proxymgr"], "path": ["/web"]});
    let settings = |trusted: &Authority, shown: Option<&Authority>| {
        let mut settings = json!({
            "servers": [zookeeper.tls_address().to_string()],
            "session_timeout": "20s",
            "ca": trusted.ca(),
        });
        if let Some(shown) = shown {
            settings["cert"] = json!(shown.certificate("gateway"));
            settings["key"] = json!(shown.key("gateway"));
        }
        registry(settings)
    };
    let good = settings(&authority, Some(&authority));
    assert_eq!(names(&poll(&mut listed(good.as_ref(), &of)).await), ["10.0.0.1:1"]);
    for (registry, parts) in [
        (settings(&stranger, Some(&authority)), &["server's certificate is not trusted"][..]),
        (settings(&authority, None), &["demands a client certificate; set cert and key"]),
        (settings(&authority, Some(&stranger)), &["refused this client's certificate"]),
    ] {
        assert_says(&failure(&mut listed(registry.as_ref(), &of)).await, parts);
    }
    let plain = registry(json!({
        "servers": [zookeeper.address().to_string()],
        "session_timeout": "20s",
        "ca": authority.ca(),
    }));
    assert_says(&failure(&mut listed(plain.as_ref(), &of)).await, &["opens no session"]);
}
