//! What a feed of a real etcd answers, and what it says where it can't.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::thread;

use jiff::Timestamp;
use mapsmith::source::Extent;
use mapsmith_core::status::Watch;
use mapsmith_core::{Invalid, Snapshot};
use serde_json::json;

use super::{changes, failure, listed, names, poll, registry, web};
use crate::sources::assert_says;
use crate::support::etcd::Etcd;
use crate::support::free_port;

#[tokio::test]
async fn the_node_map_and_each_list_of_servers_come_from_the_first_member_that_answers() {
    let etcd = Etcd::start();
    etcd.put("/site1/nodes/A.example", "puppet00\n");
    etcd.put("/site1/nodes/b.example", "m2");
    etcd.put("/site1/nodes/c.example", "");
    etcd.put("/site1/nodes/", "a mark of somebody's");
    etcd.put("/site1/nodesx", "m3");
    etcd.put("/web/a", r#"{"address": "1.2.3.4", "port": 8080, "weight": "7"}"#);
    etcd.put("/web/b", r#"{"name": "second", "address": "9.9.9.9:1"}"#);
    etcd.put("/old/a", "10.0.0.1:80");
    let dead = format!("http://127.0.0.1:{}", free_port());
    let registry = registry(json!({
        "endpoints": [dead, etcd.url()],
        "nodes": "/site1/nodes/",
        "masters": {"puppet00": "m1"},
    }));
    let mut map = registry.node_map().unwrap();
    let polled = poll(&mut map).await;
    let entries: Vec<_> = polled.entries.iter().collect();
    assert_eq!(entries, [("a.example", "m1"), ("b.example", "m2")]);
    assert_eq!(polled.rejections.reason("c.example"), Some(Invalid::NoMaster));
    assert_says(&map.notes().warning.unwrap(), &["not every member answers", &dead, "refused"]);
    for (keys, expected) in [
        (json!({"prefix": ["/web/"]}), &["a", "second"][..]),
        (json!({"prefix": ["/old/"], "format": ["address"]}), &["a"]),
        (json!({"prefix": ["/none/"]}), &[]),
    ] {
        let mut list = listed(registry.as_ref(), &keys);
        let polled = poll(&mut list).await;
        assert_eq!(names(&polled), expected, "{keys}");
        assert_eq!(list.notes().warning, None, "the member that answers is asked");
        // What says the same is held once.
        let current = Snapshot {
            entries: Arc::clone(&polled.entries),
            rejections: Arc::clone(&polled.rejections),
            answered_at: Timestamp::UNIX_EPOCH,
        };
        let again = list.poll(Extent::Everything, Some(&current), Timestamp::UNIX_EPOCH).await;
        assert!(Arc::ptr_eq(&again.unwrap().entries, &polled.entries), "{keys}");
    }
}

#[tokio::test]
async fn whatever_changes_of_the_keys_is_seen_at_once_over_a_restart_and_a_compaction() {
    let etcd = Etcd::start();
    etcd.put("/web/a", "10.0.0.1:80");
    let registry = registry(json!({"endpoints": [etcd.url()], "serializable": true}));
    let mut list = web(registry.as_ref());
    poll(&mut list).await;
    assert_eq!(list.notes().watch, Some(Watch::Watched));
    // Not of the prefix: what is seen next is the new key, and nothing else.
    etcd.put("/web", "10.0.0.9:80");
    etcd.put("/web/b", "10.0.0.2:80");
    changes(&mut list, "a new key").await;
    assert_eq!(names(&poll(&mut list).await), ["a", "b"]);
    etcd.delete("/web/a");
    changes(&mut list, "a key that is gone").await;
    assert_eq!(names(&poll(&mut list).await), ["b"]);
    etcd.compact(etcd.revision());
    etcd.put("/web/c", "10.0.0.3:80");
    changes(&mut list, "a change after a compaction").await;
    assert_eq!(names(&poll(&mut list).await), ["b", "c"]);
    etcd.kill();
    changes(&mut list, "a lost connection").await;
    assert_says(&failure(&mut list).await, &["refused"]);
    etcd.restart();
    poll(&mut list).await;
    etcd.delete("/web/b");
    changes(&mut list, "a change after the restart").await;
    assert_eq!(names(&poll(&mut list).await), ["c"]);
}

#[tokio::test]
async fn a_restored_etcd_is_taken_after_a_reload_that_came_since_or_once_it_has_caught_up() {
    let etcd = Etcd::start();
    etcd.put("/web/a", "10.0.0.1:80");
    etcd.put("/web/b", "10.0.0.2:80");
    let registry = registry(json!({"endpoints": [etcd.url()]}));
    let (mut reloaded, mut waiting) = (web(registry.as_ref()), web(registry.as_ref()));
    reloaded.set_reload(3);
    for list in [&mut reloaded, &mut waiting] {
        assert_eq!(names(&poll(list).await), ["a", "b"]);
    }
    etcd.restart_empty();
    // The reload of before says nothing of this.
    for _ in 0..2 {
        for list in [&mut reloaded, &mut waiting] {
            let message = failure(list).await;
            assert_says(&message, &["its revision went back from 3 to 1", "mapsmith reload"]);
        }
    }
    reloaded.set_reload(4);
    assert_eq!(names(&poll(&mut reloaded).await), [""; 0]);
    etcd.put("/web/c", "10.0.0.3:80");
    failure(&mut waiting).await;
    etcd.put("/web/d", "10.0.0.4:80");
    assert_eq!(names(&poll(&mut waiting).await), ["c", "d"]);
    assert_eq!(names(&poll(&mut reloaded).await), ["c", "d"]);
    // Another cluster is another etcd, whatever its revision.
    let other = Etcd::start();
    (0..9).for_each(|_| other.put("/web/x", "10.0.0.9:80"));
    let both = json!({"endpoints": [etcd.url(), other.url()]});
    let both = super::registry(both);
    let mut list = web(both.as_ref());
    assert_eq!(names(&poll(&mut list).await), ["c", "d"]);
    etcd.kill();
    assert_says(&failure(&mut list).await, &["another etcd than before", "mapsmith reload"]);
    list.set_reload(5);
    assert_eq!(names(&poll(&mut list).await), ["x"]);
}

/// Says this to each client and ends the connection. What a client says is read to its end: a
/// connection that is closed with something unread is reset, which says less.
fn says_and_ends(server: &TcpListener, words: &'static [u8]) {
    for mut client in server.incoming().map_while(Result::ok) {
        thread::spawn(move || {
            let _ = client.read(&mut [0; 1000]);
            let _ = client.write_all(words);
            let _ = client.shutdown(Shutdown::Write);
            let _ = io::copy(&mut client, &mut io::sink());
        });
    }
}

#[tokio::test]
async fn a_member_that_can_not_be_reached_or_is_no_etcd_is_named_with_the_cause() {
    let closed = format!("http://127.0.0.1:{}", free_port());
    let down = registry(json!({"endpoints": [closed]}));
    let message = failure(&mut web(down.as_ref())).await;
    assert_says(&message, &[&closed, "/web/", "can't be reached", "refused"]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let hangs_up = format!("http://{}", other.local_addr().unwrap());
    thread::spawn(move || says_and_ends(&other, b""));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let is_silent = format!("http://{}", silent.local_addr().unwrap());
    let settings = json!({"endpoints": [&hangs_up, &is_silent], "timeout": "2s"});
    let message = failure(&mut web(registry(settings).as_ref())).await;
    assert_says(&message, &["the connection broke", &format!("{is_silent}: gave no answer")]);
    // What a plain web server says, and where TLS is not spoken.
    let web_server = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = web_server.local_addr().unwrap();
    thread::spawn(move || says_and_ends(&web_server, b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let in_tls = hangs_up.replace("http://", "https://");
    for endpoint in [format!("http://{at}"), in_tls] {
        let settings = json!({"endpoints": [&endpoint], "timeout": "5s"});
        let message = failure(&mut web(registry(settings).as_ref())).await;
        assert_says(&message, &[&endpoint, "is it etcd's client port", "http or https"]);
    }
}

#[tokio::test]
async fn ten_thousand_members_are_read_by_pages_and_more_than_max_bytes_are_refused() {
    let etcd = Etcd::start();
    let member = |number: usize| {
        let address = format!("10.0.{}.{}:80", number / 250, number % 250 + 1);
        (format!("/web/n{number}"), address)
    };
    etcd.put_all((0..10_000).map(member));
    let endpoints = [etcd.url()];
    let whole = registry(json!({"endpoints": endpoints}));
    let polled = poll(&mut web(whole.as_ref())).await;
    assert_eq!((polled.entries.servers.len(), polled.rejections.total()), (10_000, 0));
    let small = registry(json!({"endpoints": endpoints, "max_bytes": "100000"}));
    assert_says(&failure(&mut web(small.as_ref())).await, &["larger than max_bytes (100000"]);
    // Values that are large together: 40 MB in pages of a thousand keys.
    let large = "x".repeat(60_000);
    for group in 0..14 {
        let pairs = (0..20).map(|number| (format!("/large/{group}-{number}"), large.clone()));
        etcd.put_all(pairs);
    }
    let keys = json!({"prefix": ["/large/"], "format": ["address"]});
    let polled = poll(&mut listed(whole.as_ref(), &keys)).await;
    assert_eq!((polled.entries.servers.len(), polled.rejections.total()), (0, 280));
    assert!(polled.bytes > 16 * 1024 * 1024, "{} bytes", polled.bytes);
}
