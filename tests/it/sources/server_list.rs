//! Sources that list servers: what holds for maps holds for lists.

use std::fs;
use std::sync::Arc;

use jiff::Timestamp;
use mapsmith::settings::Selector;
use mapsmith::source::{self, Extent, Feed, Polled};
use mapsmith_core::status::PollKind;
use mapsmith_core::{Invalid, ServerList, Snapshot};
use serde_json::{Value, json};
use wiremock::matchers::{header, method};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{assert_says, faults};

pub(super) fn source(settings: Value) -> Box<dyn Feed<ServerList>> {
    let mut all = json!({"name": "consul"});
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let settings = serde_json::from_value(all).unwrap();
    let registry = source::registry(&settings, true).unwrap_or_else(|error| panic!("{error}"));
    registry.servers(&Selector::all_of("consul")).unwrap()
}

pub(super) async fn poll(
    source: &mut Box<dyn Feed<ServerList>>,
    current: Option<&Snapshot<ServerList>>,
) -> Polled<ServerList> {
    source
        .poll(Extent::Changes, current, Timestamp::UNIX_EPOCH)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn snapshot(polled: &Polled<ServerList>) -> Snapshot<ServerList> {
    Snapshot {
        entries: Arc::clone(&polled.entries),
        rejections: Arc::clone(&polled.rejections),
        answered_at: Timestamp::UNIX_EPOCH,
    }
}

#[tokio::test]
async fn a_list_that_did_not_change_is_not_sent_again_and_one_that_says_the_same_is_held_once() {
    let server = MockServer::start().await;
    Mock::given(header("If-None-Match", "\"v1\""))
        .respond_with(ResponseTemplate::new(304))
        .with_priority(1)
        .mount(&server)
        .await;
    let rows = json!([
        {"name": "b", "address": "10.0.0.2:1"},
        {"name": "a", "address": "10.0.0.1:1"},
        {"name": "c"},
    ]);
    let whole = faults::gzipped(rows.to_string().as_bytes()).insert_header("ETag", "\"v1\"");
    Mock::given(method("GET")).respond_with(whole).mount(&server).await;
    let settings = json!({"type": "http_json", "url": format!("{}/servers", server.uri())});
    let mut consul = source(settings.clone());
    let first = poll(&mut consul, None).await;
    assert_eq!(
        first.entries.servers.iter().map(|server| &*server.name).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!((first.rejections.counts[&Invalid::ServerRow], first.rejections.total()), (1, 1));
    let current = snapshot(&first);
    let second = poll(&mut consul, Some(&current)).await;
    // A source that starts again knows no version; the answer is whole, and says what is known.
    let third = poll(&mut source(settings), Some(&current)).await;
    assert_eq!((second.kind, second.bytes, third.kind), (PollKind::Unchanged, 0, PollKind::Full));
    for polled in [second, third] {
        assert!(
            Arc::ptr_eq(&polled.entries, &first.entries)
                && Arc::ptr_eq(&polled.rejections, &first.rejections)
        );
    }
}

#[tokio::test]
async fn a_list_larger_than_allowed_or_without_an_answer_is_a_fault() {
    let server = MockServer::start().await;
    let rows: Vec<_> =
        (1..200).map(|number| json!({"address": format!("10.0.0.{number}:1")})).collect();
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_json(rows))
        .mount(&server)
        .await;
    let url = format!("{}/servers", server.uri());
    let mut small = source(json!({"type": "http_json", "url": url, "max_bytes": "1000"}));
    assert_says(
        &small.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await.unwrap_err().to_string(),
        &["larger than max_bytes (1000 bytes"],
    );
    let mut gone = source(json!({"type": "file", "path": "/nonexistent/servers.json"}));
    assert_says(
        &gone.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await.unwrap_err().to_string(),
        &["/nonexistent/servers.json", "no such file"],
    );
}

#[tokio::test]
async fn a_file_is_a_list_of_json_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("servers.json");
    let mut file = source(json!({"type": "file", "path": path}));
    fs::write(&path, "\n [{\"address\": \"10.0.0.1\", \"port\": \"8140\"}]\n").unwrap();
    let polled = poll(&mut file, None).await;
    assert_eq!((polled.kind, &*polled.entries.servers[0].name), (PollKind::Full, "10.0.0.1:8140"));
    for (text, part) in [
        ("master1 10.0.0.1:8140\n", "not JSON: master1"),
        ("", "cut off"),
        ("{\"a\": \"b\"}", "a list of servers was expected"),
    ] {
        fs::write(&path, text).unwrap();
        assert_says(
            &file.poll(Extent::Changes, None, Timestamp::UNIX_EPOCH).await.unwrap_err().to_string(),
            &["servers.json", part],
        );
    }
}
