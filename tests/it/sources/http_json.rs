//! A JSON document over HTTP as a source.

use std::sync::Arc;

use mapsmith_core::Invalid;
use mapsmith_core::status::PollKind;
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
    let server = serve(
        ResponseTemplate::new(200).set_body_json(json!({"A": "m1", "b": "m2", "c": null, "d": 5})),
    )
    .await;
    let polled =
        Registry::http_json(&server.uri(), json!({"masters": {"m2": "master2"}})).poll().await;
    assert_eq!(entries(&polled), [("a", "m1"), ("b", "master2")]);
    assert_eq!(rejected(&polled), [("c", Invalid::NoMaster), ("d", Invalid::NotString)]);
}

#[tokio::test]
async fn a_list_with_named_fields_is_a_map() {
    let rows = json!([{"host": "a", "owner": "m1"}, {"host": "b", "owner": "m2"}, {"owner": "m2"}]);
    let server = serve(ResponseTemplate::new(200).set_body_json(rows)).await;
    let fields = json!({"node_field": "host", "master_field": "owner"});
    let polled = Registry::http_json(&server.uri(), fields).poll().await;
    assert_eq!(entries(&polled), [("a", "m1"), ("b", "m2")]);
    assert_eq!(polled.rejections.counts[&Invalid::NoNode], 1);
    let wrong = json!({"node_field": "name", "master_field": "owner"});
    let message = Registry::http_json(&server.uri(), wrong).failure().await;
    assert_says(&message, &["no row has the field \"name\" (node_field)", "host, owner"]);
    assert_says(
        &Registry::http_json(&server.uri(), json!({})).failure().await,
        &["set node_field and master_field"],
    );
}

#[tokio::test]
async fn a_document_that_did_not_change_is_not_sent_again() {
    for (answer, question, value) in [
        ("ETag", "If-None-Match", "\"v1\""),
        ("Last-Modified", "If-Modified-Since", "Fri, 20 Nov 2026 10:00:00 GMT"),
    ] {
        let server = MockServer::start().await;
        // The matcher of headers would take a date for two values, for its comma.
        let asks = move |request: &Request| {
            request.headers.get(question).is_some_and(|asked| asked == value)
        };
        Mock::given(asks)
            .respond_with(ResponseTemplate::new(304))
            .with_priority(1)
            .mount(&server)
            .await;
        let whole = ResponseTemplate::new(200)
            .insert_header("Date", "Fri, 20 Nov 2026 10:00:02 GMT")
            .insert_header(answer, value)
            .set_body_json(json!({"a": "m1", "b": null}));
        Mock::given(method("GET")).respond_with(whole).mount(&server).await;
        let mut registry = Registry::http_json(&server.uri(), json!({}));
        let first = registry.poll().await;
        let second = registry.poll().await;
        assert_eq!(
            (first.kind, second.kind, second.bytes),
            (PollKind::Full, PollKind::Unchanged, 0)
        );
        assert!(
            Arc::ptr_eq(&first.entries, &second.entries)
                && Arc::ptr_eq(&first.rejections, &second.rejections)
        );
        // Without a snapshot "not modified" would leave us with nothing.
        let current = registry.current.take();
        assert_eq!(registry.poll().await.kind, PollKind::Full);
        registry.current = current;
        assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    }
}

/// A document as python's `http.server` (no `ETag`) and nginx (one made of time and size) serve it:
/// a second change within a second leaves both as they are.
#[tokio::test]
async fn a_document_written_twice_within_a_second_is_read_again() {
    for (answered, modified, etag) in [
        ("Fri, 20 Nov 2026 10:00:00 GMT", "Fri, 20 Nov 2026 10:00:00 GMT", None),
        ("Fri, 20 Nov 2026 10:00:01 GMT", "Fri, 20 Nov 2026 10:00:00 GMT", Some("\"65f1-a\"")),
        ("Fri, 20 Nov 2026 10:00:01 GMT", "Fri, 20 Nov 2026 10:30:00 GMT", Some("W/\"65f1-a\"")),
        ("Fri, 20 Nov 2026 10:00:05 GMT", "yesterday", None),
    ] {
        let server = MockServer::start().await;
        let conditional = |request: &Request| {
            request.headers.contains_key("If-None-Match")
                || request.headers.contains_key("If-Modified-Since")
        };
        Mock::given(conditional)
            .respond_with(ResponseTemplate::new(304))
            .with_priority(1)
            .mount(&server)
            .await;
        for master in ["m1", "m2"] {
            let answer = ResponseTemplate::new(200)
                .insert_header("Date", answered)
                .insert_header("Last-Modified", modified);
            let answer =
                etag.into_iter().fold(answer, |answer, etag| answer.insert_header("ETag", etag));
            let answer = answer.set_body_json(json!({"a": master}));
            Mock::given(method("GET")).respond_with(answer).up_to_n_times(1).mount(&server).await;
        }
        let mut registry = Registry::http_json(&server.uri(), json!({}));
        assert_eq!(entries(&registry.poll().await), [("a", "m1")]);
        assert_eq!(
            entries(&registry.poll().await),
            [("a", "m2")],
            "answered {answered}, modified {modified}"
        );
    }
}

#[tokio::test]
async fn not_modified_is_not_trusted_for_longer_than_full_poll_nor_by_a_reload() {
    let server = MockServer::start().await;
    let asks = |request: &Request| request.headers.contains_key("If-None-Match");
    Mock::given(asks)
        .respond_with(ResponseTemplate::new(304))
        .with_priority(1)
        .mount(&server)
        .await;
    for master in ["m1", "m2", "m3"] {
        let answer = ResponseTemplate::new(200)
            .insert_header("ETag", "\"never changes\"")
            .set_body_json(json!({"a": master}));
        Mock::given(method("GET")).respond_with(answer).up_to_n_times(1).mount(&server).await;
    }
    let mut registry = Registry::http_json(&server.uri(), json!({"full_poll": "10m"}));
    registry.poll().await;
    registry.later(599);
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    registry.later(1);
    assert_eq!(entries(&registry.poll().await), [("a", "m2")]);
    registry.later(1);
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    assert_eq!(entries(&registry.poll_everything().await), [("a", "m3")]);
}

#[tokio::test]
async fn the_version_of_an_answer_that_could_not_be_used_is_not_kept() {
    let server = MockServer::start().await;
    let broken =
        ResponseTemplate::new(200).insert_header("ETag", "\"v2\"").set_body_string("{\"a\":");
    let good = ResponseTemplate::new(200)
        .insert_header("ETag", "\"v1\"")
        .set_body_json(json!({"a": "m1"}));
    for answer in [good, broken, ResponseTemplate::new(304)] {
        Mock::given(method("GET")).respond_with(answer).up_to_n_times(1).mount(&server).await;
    }
    let mut registry = Registry::http_json(&server.uri(), json!({}));
    registry.poll().await;
    assert_says(&registry.failure().await, &["cut off"]);
    assert_eq!(registry.poll().await.kind, PollKind::Unchanged);
    let asked: Vec<_> = server
        .received_requests()
        .await
        .unwrap()
        .iter()
        .map(|request| request.headers.get("If-None-Match").cloned())
        .collect();
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
        (
            "application/problem+json; charset=utf-8",
            json!({"title": "the database is down", "a": "m1"}),
        ),
    ] {
        let answer = ResponseTemplate::new(200).set_body_raw(body.to_string(), kind);
        let server = serve(answer).await;
        assert_says(
            &Registry::http_json(&server.uri(), json!({})).failure().await,
            &["error object", "the database is down"],
        );
    }
    let server =
        serve(ResponseTemplate::new(200).set_body_json(json!({"status": 500, "ok": false}))).await;
    assert_says(
        &Registry::http_json(&server.uri(), json!({})).failure().await,
        &["none of the object's 2 entries"],
    );
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

#[tokio::test]
async fn an_answer_compressed_in_several_members_is_read_whole() {
    let text = b"{\"a\":\"m1\",\"b\":\"m2\"}";
    for parts in [1, 2, 5, text.len()] {
        let members = text
            .chunks(text.len().div_ceil(parts))
            .flat_map(super::faults::gzip)
            .collect::<Vec<_>>();
        for coding in ["gzip", "x-gzip"] {
            let answer = ResponseTemplate::new(200).insert_header("Content-Encoding", coding);
            let server = serve(answer.set_body_raw(members.clone(), "application/json")).await;
            let polled = Registry::http_json(&server.uri(), json!({})).poll().await;
            assert_eq!(entries(&polled), [("a", "m1"), ("b", "m2")], "{parts} members, {coding}");
            assert_eq!(polled.bytes, text.len() as u64);
        }
        // What is lost of the last one shows.
        let cut = members[..members.len() - 3].to_vec();
        let answer = ResponseTemplate::new(200)
            .insert_header("Content-Encoding", "gzip")
            .set_body_raw(cut, "application/json");
        let message = Registry::http_json(&serve(answer).await.uri(), json!({})).failure().await;
        assert_says(&message, &["the answer's body is damaged"]);
    }
    let answer = ResponseTemplate::new(200)
        .insert_header("Content-Encoding", "br")
        .set_body_raw(&b"x"[..], "application/json");
    let message = Registry::http_json(&serve(answer).await.uri(), json!({})).failure().await;
    assert_says(&message, &["compressed by \"br\", which was not asked for"]);
}

#[tokio::test]
async fn a_compressed_error_page_is_shown_as_text() {
    let answer = ResponseTemplate::new(500).insert_header("Content-Encoding", "gzip");
    let server =
        serve(answer.set_body_raw(super::faults::gzip(b"the database is down"), "text/plain"))
            .await;
    assert_says(
        &Registry::http_json(&server.uri(), json!({})).failure().await,
        &["failed (500): the database is down"],
    );
}
