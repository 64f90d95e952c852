//! What goes wrong between a source and its registry: each is an error that says so, and none is an
//! answer.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{Registry, assert_says, entries};

/// Far more than any of these tests takes: a bound that is not the one under test.
const LONG: &str = "60s";

pub fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub fn gzipped(body: &[u8]) -> ResponseTemplate {
    ResponseTemplate::new(200)
        .insert_header("Content-Encoding", "gzip")
        .set_body_raw(gzip(body), "application/json")
}

async fn failure_of(answer: ResponseTemplate) -> String {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    Registry::puppetdb(&server.uri(), json!({})).failure().await
}

/// A server that hands each connection to `serve`, with its number from 1. Its URL.
async fn raw<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(usize, TcpStream) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    url
}

/// Reads one request, headers and body.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return false,
            Ok(length) => request.extend_from_slice(&bytes[..length]),
        }
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.lines().next().unwrap().trim().parse().unwrap());
        if body.len() >= length {
            return true;
        }
    }
}

#[tokio::test]
async fn a_status_of_failure_says_what_to_do() {
    for (answer, parts) in [
        (
            ResponseTemplate::new(500).set_body_string("PSQLException: the connection was refused"),
            &["failed (500)", "PSQLException"][..],
        ),
        (
            ResponseTemplate::new(400).set_body_string("PQL parse error at line 1,\n column 3"),
            &["the query was refused", "PQL parse error at line 1, column 3"],
        ),
        (
            ResponseTemplate::new(403).set_body_string("not in the allowlist"),
            &["certificate-allowlist", "not in the allowlist"],
        ),
        (
            ResponseTemplate::new(302).insert_header("Location", "/pdb/dashboard/index.html"),
            &["redirects to /pdb/dashboard/index.html", "is the url PuppetDB's root?"],
        ),
        (
            ResponseTemplate::new(404).set_body_string("<html><title>Error 404</title>"),
            &["(404): Error 404", "root?"],
        ),
        (ResponseTemplate::new(418), &["status 418", "(no text)"]),
    ] {
        let message = failure_of(answer).await;
        assert_says(&message, parts);
        assert_says(&message, &["http://127.0.0.1:", "/pdb/query/v4: "]);
    }
}

#[tokio::test]
async fn a_puppetdb_that_is_starting_answers_in_the_end() {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(503).set_body_string("starting up"))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    Mock::given(any())
        .respond_with(
            ResponseTemplate::new(200).set_body_json(json!([{"certname": "a", "producer": "m1"}])),
        )
        .mount(&server)
        .await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    for _ in 0..2 {
        assert_says(&registry.failure().await, &["is starting", "starting up"]);
    }
    assert_eq!(entries(&registry.poll().await), [("a", "m1")]);
}

#[tokio::test]
async fn a_rest_that_a_registry_asks_for_is_noted() {
    for (status, header, rest) in [(503, "7", Some(7)), (429, "90", Some(90)), (500, "7", None)] {
        let server = MockServer::start().await;
        let answer = ResponseTemplate::new(status)
            .insert_header("Retry-After", header)
            .set_body_string("busy");
        Mock::given(any()).respond_with(answer).mount(&server).await;
        let error = Registry::puppetdb(&server.uri(), json!({})).try_poll().await.unwrap_err();
        assert_eq!(error.fault.retry_after(), rest.map(Duration::from_secs), "{error}");
    }
}

#[tokio::test]
async fn a_servers_text_is_shown_bounded_and_without_control_characters() {
    let message = failure_of(
        ResponseTemplate::new(500)
            .set_body_string(format!("a\u{1b}[2J\r\nb{}", "x".repeat(100_000))),
    )
    .await;
    assert!(message.len() < 500 && !message.chars().any(char::is_control), "{message}");
}

#[tokio::test]
async fn nobody_at_the_door_is_told_from_a_server_that_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_says(
        &Registry::puppetdb(&url, json!({})).failure().await,
        &["can't be reached", "Connection refused"],
    );
    assert_says(
        &Registry::puppetdb("http://registry.invalid", json!({})).failure().await,
        &["can't be reached"],
    );
}

#[tokio::test]
async fn a_server_that_takes_the_request_and_never_answers_is_left_in_time() {
    let url = raw(|_, mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let message = Registry::puppetdb(&url, json!({"timeout": "200ms"})).failure().await;
    assert_says(&message, &["gave no answer within 200ms"]);
}

#[tokio::test]
async fn an_answer_that_drips_for_ever_is_left_in_time() {
    let url = raw(|_, mut stream| async move {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n")
            .await
            .unwrap();
        while stream.write_all(b"1\r\n \r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let message = Registry::puppetdb(&url, json!({"timeout": "300ms"})).failure().await;
    assert_says(&message, &["the answer began but did not end within 300ms"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    // By its length, by its chunks, and, worst, with a clean end and a status of success.
    let body = r#"[{"certname":"a","producer":"m1"},{"certname":"b","#;
    for (head, end, part) in [
        (
            format!("Content-Length: {}", body.len() + 20),
            "",
            "the connection broke within the answer",
        ),
        ("Transfer-Encoding: chunked".to_owned(), "", "the connection broke within the answer"),
        ("Transfer-Encoding: chunked".to_owned(), "0\r\n\r\n", "cut off at line 1, column"),
        (format!("Content-Length: {}", body.len()), "", "cut off at line 1, column"),
        ("Connection: close".to_owned(), "", "cut off at line 1, column"),
    ] {
        let text = if head.starts_with("Transfer") {
            format!("{:x}\r\n{body}\r\n{end}", body.len())
        } else {
            body.to_owned()
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{text}");
        let url = raw(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let message = Registry::puppetdb(&url, json!({"timeout": LONG})).failure().await;
        assert_says(&message, &[part]);
    }
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_no_answer() {
    let body = br#"[{"certname":"a","producer":"m1"},{"certname":"b","producer":null}]"#;
    let server = MockServer::start().await;
    for cut in 0..body.len() {
        Mock::given(any())
            .respond_with(ResponseTemplate::new(200).set_body_bytes(&body[..cut]))
            .up_to_n_times(1)
            .mount(&server)
            .await;
    }
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_bytes(&body[..]))
        .mount(&server)
        .await;
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    for cut in 0..body.len() {
        assert_says(
            &registry.failure().await,
            &[&format!("cut off at line 1, column {}, after {cut} bytes", cut + 1)],
        );
    }
    registry.poll().await;
}

#[tokio::test]
async fn a_body_that_is_no_list_of_rows_is_no_answer() {
    for (body, part) in [
        ("<html><title>Sign in</title></html>", "not JSON: Sign in"),
        (r#"{"error":"the database is down"}"#, "the database is down"),
        (r#"[{"certname":"a","producer":"m1"}] trailing"#, "something follows the end"),
        (r#"[{"certname":"a","producer":"m1"} {"#, "mistake at line 1, column 35"),
        (r#"[{"name":"a","owner":"m1"}]"#, "the rows have: name, owner"),
    ] {
        assert_says(&failure_of(ResponseTemplate::new(200).set_body_string(body)).await, &[part]);
    }
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_compressed_or_not() {
    let row = r#"{"certname":"node","producer":"master"},"#;
    let large = format!("[{}{}]", row.repeat(100_000), row.trim_end_matches(','));
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(200).set_body_string(&*large))
        .up_to_n_times(2)
        .mount(&server)
        .await;
    // A few kilobytes that unfold to four megabytes.
    Mock::given(any()).respond_with(gzipped(large.as_bytes())).mount(&server).await;
    let mut bounded = Registry::puppetdb(&server.uri(), json!({"max_bytes": "1000000"}));
    let mut fitting =
        Registry::puppetdb(&server.uri(), json!({"max_bytes": large.len().to_string()}));
    for _ in 0..2 {
        assert_says(
            &bounded.failure().await,
            &["larger than max_bytes (1000000 bytes, after decompression)"],
        );
        assert_eq!(fitting.poll().await.bytes, large.len() as u64);
    }
}

#[tokio::test]
async fn a_damaged_compressed_body_is_no_answer() {
    let server = MockServer::start().await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(br#"[{"certname":"a","producer":"m1"}]"#).unwrap();
    let whole = encoder.finish().unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for body in [whole[..whole.len() - 12].to_vec(), flipped, b"not compressed".to_vec()] {
        let answer = ResponseTemplate::new(200)
            .insert_header("Content-Encoding", "gzip")
            .set_body_bytes(body);
        Mock::given(any()).respond_with(answer).up_to_n_times(1).mount(&server).await;
    }
    let mut registry = Registry::puppetdb(&server.uri(), json!({}));
    for _ in 0..3 {
        assert_says(&registry.failure().await, &["the answer's body is damaged"]);
    }
}

/// Answers the first request of the first connection, then closes each connection at its next
/// request.
async fn closing_at_the_second_request(
    answering: impl Fn(usize) -> bool + Send + Copy + 'static,
) -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let url = raw(move |connection, mut stream| {
        let requests = Arc::clone(&count);
        async move {
            let mut first = true;
            while read_request(&mut stream).await {
                requests.fetch_add(1, Ordering::SeqCst);
                if !first || !answering(connection) {
                    return;
                }
                first = false;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await.unwrap();
            }
        }
    })
    .await;
    (url, requests)
}

#[tokio::test]
async fn a_kept_connection_that_turns_out_dead_is_replaced_once() {
    let (url, requests) = closing_at_the_second_request(|_| true).await;
    let mut registry = Registry::puppetdb(&url, json!({"timeout": LONG}));
    registry.poll().await;
    registry.poll().await;
    assert_eq!(
        requests.load(Ordering::SeqCst),
        3,
        "the second poll asked on the dead connection, then on a fresh one"
    );
}

#[tokio::test]
async fn a_server_that_closes_every_connection_is_asked_twice_at_most() {
    let (url, requests) = closing_at_the_second_request(|connection| connection == 1).await;
    let mut registry = Registry::puppetdb(&url, json!({"timeout": LONG}));
    registry.poll().await;
    assert_says(&registry.failure().await, &["the connection broke before the answer"]);
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    // Nothing was kept open: a fresh connection that breaks is not tried again.
    registry.failure().await;
    assert_eq!(requests.load(Ordering::SeqCst), 4);
}
