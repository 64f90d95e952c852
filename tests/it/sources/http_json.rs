//! A JSON document over HTTP as a source.

use std::sync::Arc;

use mapsmith::model::Illegal;
use mapsmith::model::status::PollKind;
use serde_json::json;
use wiremock::matchers::{header, header_exists, method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::{Registry, assert_says, entries, rejected};

async fn serve(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("GET")).and(path("/map")).respond_with(answer).mount(&server).await;
    server
}

#[tokio::test]
async fn an_object_of_nodes_and_masters_is_a_map() {
    let server = serve(ResponseTemplate::new(200).set_body_json(json!({"A": "m1", "b": "m2", "c": null, "d": 5}))).await;
    let polled = Registry::http_json(&server.uri(), json!({"masters": {"m2": "master2"}})).poll().await;
    assert_eq!(entries(&polled), [("a", "m1"), ("b", "master2")]);
    assert_eq!(rejected(&polled), [("c", Illegal::NoMaster), ("d", Illegal::NotText)]);
}

#[tokio::test]
async fn a_list_with_named_fields_is_a_map() {
    let rows = json!([{"host": "a", "owner": "m1"}, {"host": "b", "owner": "m2"}, {"owner": "m2"}]);
    let server = serve(ResponseTemplate::new(200).set_body_json(rows)).await;
    let fields = json!({"node_field": "host", "master_field": "owner"});
    let polled = Registry::http_json(&server.uri(), fields).poll().await;
    assert_eq!(entries(&polled), [("a", "m1"), ("b", "m2")]);
    assert_eq!(polled.rejections.counts[&Illegal::NoNode], 1);
    let wrong = json!({"node_field": "name", "master_field": "owner"});
    let message = Registry::http_json(&server.uri(), wrong).failure().await;
    assert_says(&message, &["no row has the field \"name\" (node_field)", "host, owner"]);
    assert_says(&Registry::http_json(&server.uri(), json!({})).failure().await, &["set node_field and master_field"]);
}

#[tokio::test]
async fn a_document_that_did_not_change_is_not_sent_again() {
    for (answer, question, value) in
        [("ETag", "If-None-Match", "\"v1\""), ("Last-Modified", "If-Modified-Since", "Fri, 20 Nov 2026 10:00:00 GMT")]
    {
        let server = MockServer::start().await;
        // The matcher of headers would take a date for two values, for its comma.
        let asks = move |request: &Request| request.headers.get(question).is_some_and(|asked| asked == value);
        Mock::given(asks).respond_with(ResponseTemplate::new(304)).with_priority(1).mount(&server).await;
        let whole = ResponseTemplate::new(200).insert_header(answer, value).set_body_json(json!({"a": "m1", "b": null}));
        Mock::given(method("GET")).respond_with(whole).mount(&server).await;
        let mut registry = Registry::http_json(&server.uri(), json!({}));
        let first = registry.poll().await;
        let second = registry.poll().await;
        assert_eq!((first.kind, second.kind, second.bytes), (PollKind::Full, PollKind::Unchanged, 0));
        assert!(Arc::ptr_eq(&first.entries, &second.entries) && Arc::ptr_eq(&first.rejections, &second.rejections));
        // Without a snapshot "not modified" would leave us with nothing.
        registry.current = None;
        assert_eq!(registry.poll().await.kind, PollKind::Full);
    }
}

#[tokio::test]
async fn the_version_of_an_answer_that_could_not_be_used_is_not_kept() {
    let server = MockServer::start().await;
    let broken = ResponseTemplate::new(200).insert_header("ETag", "\"v2\"").set_body_string("{\"a\":");
    let good = ResponseTemplate::new(200).insert_header("ETag", "\"v1\"").set_body_json(json!({"a": "m1"}));
    for answer in [good, broken, ResponseTemplate::new(304)] {
        Mock::given(method("GET")).respond_with(answer).up_to_n_times(1).mount(&server).await;
    }
    let mut registry = Registry::http_json(&server.uri(), json!({}));
    registry.poll().await;
    assert_says(&registry.failure().await, &["cut off"]);
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    let asked: Vec<_> =
        server.received_requests().await.unwrap().iter().map(|request| request.headers.get("If-None-Match").cloned()).collect();
    assert_eq!(asked, [None, Some("\"v1\"".parse().unwrap()), Some("\"v1\"".parse().unwrap())]);
}

#[tokio::test]
async fn not_modified_without_a_question_is_no_answer() {
    let server = serve(ResponseTemplate::new(304)).await;
    assert_says(&Registry::http_json(&server.uri(), json!({})).failure().await, &["304"]);
}

#[tokio::test]
async fn the_token_goes_as_a_bearer_token() {
    let server = MockServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, " s3cret \n").unwrap();
    Mock::given(header("Authorization", "Bearer s3cret"))
        .respond_with(ResponseTemplate::new(200).set_body_json(json!({"a": "m1"})))
        .mount(&server)
        .await;
    Registry::http_json(&server.uri(), json!({"token_file": token_file})).poll().await;
    let message = Registry::http_json(&server.uri(), json!({})).failure().await;
    assert_says(&message, &["has no such document (404)"]);
}

#[tokio::test]
async fn an_error_object_is_no_map() {
    for (kind, body) in [
        ("application/json", json!({"error": "the database is down"})),
        ("application/json", json!({"errors": [{"message": "the database is down"}]})),
        ("application/problem+json; charset=utf-8", json!({"title": "the database is down", "a": "m1"})),
    ] {
        let answer = ResponseTemplate::new(200).set_body_raw(body.to_string(), kind);
        let server = serve(answer).await;
        assert_says(&Registry::http_json(&server.uri(), json!({})).failure().await, &["error object", "the database is down"]);
    }
    let server = serve(ResponseTemplate::new(200).set_body_json(json!({"status": 500, "ok": false}))).await;
    assert_says(&Registry::http_json(&server.uri(), json!({})).failure().await, &["none of the object's 2 entries"]);
}

#[tokio::test]
async fn a_token_in_the_url_is_not_shown() {
    let server = serve(ResponseTemplate::new(500)).await;
    let url = format!("{}/map?token=s3cret", server.uri());
    let message = Registry::new(json!({"type": "http_json", "url": url})).failure().await;
    assert!(!message.contains("s3cret") && message.contains("/map"), "{message}");
}

#[tokio::test]
async fn a_compressed_answer_is_asked_for_and_read() {
    let server = MockServer::start().await;
    Mock::given(header_exists("Accept-Encoding"))
        .respond_with(|request: &Request| {
            assert!(request.headers["Accept-Encoding"].to_str().unwrap().contains("gzip"));
            super::faults::gzipped(b"{\"a\":\"m1\"}")
        })
        .mount(&server)
        .await;
    let polled = Registry::http_json(&server.uri(), json!({})).poll().await;
    assert_eq!((entries(&polled), polled.bytes), (vec![("a", "m1")], 10));
}
