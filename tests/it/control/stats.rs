//! Statistics: over a WebSocket and as events, over HAProxy's restarts, and by those who may.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use super::config;
use crate::support::admin_proxy::AdminProxy;
use crate::support::haproxy::{Binary, Gateway};
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, complaints, in_sync, instance_settings, metric, newest, oldest_and_newest,
    printed, source_settings,
};

const PATH: &str = "/v1/stats/stream";

/// A client of the WebSocket.
struct Socket {
    socket: WebSocket<TcpStream>,
    fields: Vec<String>,
}

impl Socket {
    /// The status where it is not opened.
    fn try_open(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).expect("the API listens");
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        let url = format!("ws://{address}{PATH}{query}");
        let mut request = url.into_client_request().expect("a URL");
        for (name, value) in headers {
            let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self { socket, fields: Vec::new() }),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn open(mapsmith: &Mapsmith, query: &str, headers: &[(&str, &str)]) -> Self {
        Self::try_open(mapsmith.address(), query, headers)
            .unwrap_or_else(|status| panic!("{status}\n{}", mapsmith.log()))
    }

    fn ask(&mut self, subscription: &Value) {
        self.socket.send(Message::text(subscription.to_string())).expect("it is sent");
    }

    /// The next frame, or the code and the reason of the end.
    fn next(&mut self) -> Result<Value, (u16, String)> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    assert!(text.len() <= 64 * 1024, "{}", text.len());
                    let frame: Value = serde_json::from_str(&text).expect("JSON");
                    if let Some(fields) = frame["fields"].as_array() {
                        let names = fields.iter().map(|it| it.as_str().expect("a name"));
                        self.fields = names.map(str::to_owned).collect();
                    }
                    return Ok(frame);
                }
                Ok(Message::Close(frame)) => {
                    let frame = frame.expect("a code");
                    return Err((frame.code.into(), frame.reason.to_string()));
                }
                Ok(_) => {}
                Err(error) => panic!("the socket ended without a word: {error}"),
            }
        }
    }

    /// Reads until a frame is as it should be; all that came, it included.
    fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (start, mut read) = (Instant::now(), Vec::new());
        loop {
            let frame = self.next().unwrap_or_else(|end| panic!("{what}: {end:?} {read:#?}"));
            let found = is_it(&frame);
            read.push(frame);
            if found {
                return read;
            }
            assert!(start.elapsed() < BOUND, "{what}: {read:#?}");
        }
    }

    /// A figure of the first row of a frame.
    fn figure<'f>(&self, frame: &'f Value, name: &str) -> &'f Value {
        let position = self.fields.iter().position(|field| field == name).expect("a field");
        &frame["rows"][0][position + 1]
    }
}

fn is(kind: &'static str) -> impl Fn(&Value) -> bool {
    move |frame| frame["type"] == kind
}

fn start(binary: &'static Binary) -> (Gateway, Registry, Mapsmith) {
    let gateway = Gateway::plan(binary).start();
    let registry = Registry::start(&[("node1", "default")]);
    let mapsmith = config(&gateway, &registry, "").start();
    in_sync(&mapsmith);
    (gateway, registry, mapsmith)
}

#[test]
fn a_socket_tells_what_counters_grew_by_and_what_was_not_measured() {
    for binary in oldest_and_newest() {
        let (mut gateway, _registry, mapsmith) = start(binary);
        let mut socket = Socket::open(&mapsmith, "", &[]);
        socket.ask(&json!({"series": ["backend/default", "edge1/backend/nope"], "every": "1s"}));
        let begin = socket.until("figures", is("stats"));
        assert_eq!(begin[0]["type"], "schema", "{begin:#?}");
        assert_eq!(begin[1]["series"], json!({"1": "edge1/backend/default"}), "{begin:#?}");
        assert_eq!(begin[2]["missing"], json!(["edge1/backend/nope"]), "{begin:#?}");
        let first = begin.last().expect("figures");
        assert_eq!(socket.figure(first, "stot"), &Value::Null, "nothing to compare with");
        assert_eq!(
            (&first["rows"][0][0], socket.figure(first, "status")),
            (&json!(1), &json!("UP"))
        );

        for _ in 0..7 {
            assert_eq!(gateway.request("unknown").0, 404);
        }
        let (mut sessions, mut answers, begun) = (0, 0, Instant::now());
        while sessions < 7 {
            let frame = socket.until("figures", is("stats")).pop().expect("figures");
            assert!(
                frame["over"].as_f64().is_some_and(|over| (0.9..5.0).contains(&over)),
                "{frame}"
            );
            sessions += socket.figure(&frame, "stot").as_u64().expect("a count");
            answers += socket.figure(&frame, "hrsp_4xx").as_u64().expect("a count");
            assert!(begun.elapsed() < BOUND);
        }
        assert_eq!((sessions, answers), (7, 7), "{:?}", binary.version);

        gateway.kill();
        let gap = socket.until("HAProxy is gone", is("gap")).pop().expect("it");
        assert_eq!((&gap["i"], &gap["why"]), (&json!("edge1"), &json!("unreachable")), "{gap}");
        gateway.restart();
        let again = socket.until("HAProxy is back", is("stats"));
        assert_eq!(again.len(), 1, "a gap is told once: {again:#?}");
        assert_eq!(socket.figure(&again[0], "stot"), &Value::Null, "no negative number, no zero");
        gateway.request("unknown");
        let grown = socket.until("the request", |frame| {
            frame["type"] == "stats"
                && frame["rows"][0].as_array().expect("a row").contains(&json!(1))
        });
        let counts = grown.iter().map(|frame| socket.figure(frame, "stot").as_u64());
        assert_eq!(counts.map(Option::unwrap_or_default).sum::<u64>(), 1, "{grown:#?}");
    }
}

#[test]
fn a_process_that_takes_over_begins_its_counters_anew() {
    let mut gateway = Gateway::plan(newest()).master_worker().start();
    let registry = Registry::start(&[("node1", "default")]);
    let mapsmith = config(&gateway, &registry, "").start();
    in_sync(&mapsmith);
    let mut socket = Socket::open(&mapsmith, "?series=backend/default&every=1s", &[]);
    gateway.request("unknown");
    socket.until("figures", is("stats"));
    gateway.reload();
    let frames = socket.until("another process", is("gap"));
    let gap = frames.last().expect("a gap");
    assert!(["restarted", "unreachable"].contains(&gap["why"].as_str().expect("why")), "{gap}");
    let next = socket.until("its figures", is("stats")).pop().expect("figures");
    assert_eq!(socket.figure(&next, "stot"), &Value::Null, "{next}");
}

#[test]
fn one_reading_serves_all_who_watch_and_nobody_reads_for_nobody() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "default")]);
    let proxy = AdminProxy::start(&gateway.runtime_address());
    let settings = format!(
        "{ON_REQUEST}[map]\npath = {:?}\n{}{}",
        gateway.map_path(),
        instance_settings("edge1", &proxy.address()),
        source_settings("registry", &registry.url())
    );
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    let readings = || {
        let commands = proxy.commands();
        let of_stats = commands.iter().filter(|it| it.line.starts_with("show info;show stat"));
        of_stats.map(|it| it.line.clone()).collect::<Vec<_>>()
    };
    assert!(readings().is_empty(), "nobody watches");
    let query = "?series=backend/default&every=1s";
    let mut sockets: Vec<_> = (0..5).map(|_| Socket::open(&mapsmith, query, &[])).collect();
    for socket in &mut sockets {
        for _ in 0..4 {
            socket.until("figures", is("stats"));
        }
    }
    let read = readings();
    assert!((4..=9).contains(&read.len()), "one reading for all five: {read:#?}");
    let last = read.last().expect("one");
    assert!(!last.contains("-1 6 -1") && last.ends_with(" 6 -1"), "one backend alone: {last:?}");
    let mut late = Socket::open(&mapsmith, &format!("{query}&backlog=300s"), &[]);
    let begun = Instant::now();
    for _ in 0..4 {
        late.until("what was", is("stats"));
    }
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    drop((sockets, late));
    mapsmith.wait_for("nothing is read for nobody", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_stats_series{instance=\"edge1\"}")? == 0.0).then_some(())
    });
    let before = readings().len();
    // The metrics above were asked for, and nothing else can be waited for that does not come.
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(readings().len(), before);
}

#[test]
fn the_same_frames_come_as_events_and_the_command_line_shows_them() {
    let (_gateway, _registry, mapsmith) = start(newest());
    let address = mapsmith.address();
    let mut stream = TcpStream::connect(address).expect("the API listens");
    stream.set_read_timeout(Some(BOUND)).expect("a bound");
    write!(
        stream,
        "GET {PATH}?series=backend/default HTTP/1.1\r\nHost: {address}\r\n\
         Accept: text/event-stream\r\n\r\n"
    )
    .expect("it is asked");
    let mut kinds = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.expect("a line");
        if let Some(data) = line.strip_prefix("data: ") {
            let frame: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(kinds.last().map(String::as_str), frame["type"].as_str());
            if frame["type"] == "stats" {
                break;
            }
        }
        kinds.extend(line.strip_prefix("event: ").map(str::to_owned));
    }
    assert_eq!(kinds, ["schema", "schema", "stats"]);

    for (path, accept, text) in [
        (PATH, "application/json", "WebSocket"),
        (PATH, "text/event-stream", "name series"),
        ("/v1/stats/stream?series=web", "text/event-stream", "names no series"),
        ("/v1/stats/stream?every=1ms", "text/event-stream", "every"),
        ("/v1/stats?series=edge9/backend/web", "*/*", "edge9"),
        ("/v1/stats/stream?series=backend/x&x=y", "text/event-stream", "parameters"),
    ] {
        let response = mapsmith.ask("GET", path, &[("Accept", accept)], "");
        assert_eq!(response.status, 400, "{path}: {}", response.body);
        assert!(response.body.contains(text), "{path}: {}", response.body);
    }

    let (status, report) = mapsmith.get("/v1/stats?series=backend/default");
    let row = &report["items"][0]["rows"][0];
    assert_eq!((status, &row["backend"], &row["scur"]), (200, &json!("default"), &json!(0)));
    let (code, text) = printed(&mapsmith.cli(&["stats", "default"]));
    assert!(code == 0 && text.contains("INSTANCE  SERVER"), "{text}");
    let missing = mapsmith.cli(&["stats", "nope"]);
    assert!(complaints(&missing).contains("no HAProxy has nope"), "{missing:?}");
    let followed = std::process::Command::new("timeout")
        .args(["3", crate::support::mapsmith::BINARY, "stats", "default", "--follow"])
        .args(["--every", "1s", "--output", "json", "--url", &mapsmith.api_url()])
        .output()
        .expect("timeout starts");
    let lines = String::from_utf8_lossy(&followed.stdout).into_owned();
    let frames = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(frames.filter(|frame| frame["type"] == "stats").count() >= 1, "{lines}");
}

#[test]
fn a_socket_is_for_whoever_may_and_for_no_page_of_another_site() {
    let (_gateway, _registry, mapsmith) = start(newest());
    let own = format!("http://{}", mapsmith.address());
    let open = |headers: &[(&str, &str)]| {
        Socket::try_open(mapsmith.address(), "", headers).map(drop).err()
    };
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        assert_eq!(open(&[("Origin", origin)]), Some(403), "{origin}");
    }
    assert_eq!(open(&[("Host", "evil.example"), ("Origin", "http://evil.example")]), Some(403));
    assert_eq!(open(&[("Origin", &own)]), None, "a page of ours");

    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "default")]);
    let api = "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
    let config = config(&gateway, &registry, api);
    std::fs::write(config.directory().join("token"), "s3cret").expect("a token");
    let mut mapsmith = config.start();
    let as_file = |mapsmith: &Mapsmith, method: &str, path: &str, body: &str| {
        let response = mapsmith.ask(method, path, &[("Authorization", "Bearer s3cret")], body);
        serde_json::from_str::<Value>(&response.body).unwrap_or_default()
    };
    let made = as_file(&mapsmith, "POST", "/v1/tokens", r#"{"name": "ui", "role": "viewer"}"#);
    let token = made["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    assert_eq!(Socket::try_open(mapsmith.address(), "", &[]).err(), Some(401));

    // A browser's session: for a page that says that it is of ours.
    let body = json!({ "token": token }).to_string();
    let logged_in = mapsmith.ask("POST", "/v1/session", &[], &body);
    let cookie = logged_in.header("set-cookie").expect("a cookie");
    let cookie = cookie.split(';').next().expect("its value").to_owned();
    let own = format!("http://{}", mapsmith.address());
    let of_page = |origin: &str| {
        Socket::try_open(mapsmith.address(), "", &[("Cookie", &cookie), ("Origin", origin)])
    };
    assert_eq!(of_page("https://evil.example").err(), Some(403));
    let without = Socket::try_open(mapsmith.address(), "", &[("Cookie", &cookie)]);
    assert_eq!(without.err(), Some(403), "a page says where it is from");
    let mut page = of_page(&own).expect("a page of ours");

    let mut open: Vec<_> =
        (0..19).map(|_| Socket::open(&mapsmith, "?series=backend/default", &headers)).collect();
    let mut one_more = Socket::open(&mapsmith, "", &headers);
    let (code, why) = one_more.next().expect_err("it is full");
    assert_eq!(code, 1013, "{why}");
    let event_stream = [headers[0], ("Accept", "text/event-stream")];
    let refused = mapsmith.ask("GET", "/v1/stats/stream?series=backend/default", &event_stream, "");
    assert_eq!(refused.status, 429, "{}", refused.body);
    let id = made["id"].as_str().expect("an id");
    as_file(&mapsmith, "DELETE", &format!("/v1/tokens/{id}"), "");
    for socket in open.iter_mut().chain([&mut page]) {
        let end = loop {
            if let Err(end) = socket.next() {
                break end;
            }
        };
        assert_eq!(end.0, 1008, "{end:?}");
    }

    // Mapsmith's end is told, and does not wait for whoever does not hear it.
    let file = [("Authorization", "Bearer s3cret")];
    let mut told = Socket::open(&mapsmith, "?series=backend/default", &file);
    let _deaf = Socket::open(&mapsmith, "?series=backend/default", &file);
    told.until("figures", is("schema"));
    let begun = Instant::now();
    assert_eq!(mapsmith.sigterm(), 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let end = loop {
        if let Err(end) = told.next() {
            break end;
        }
    };
    assert_eq!(end.0, 1001, "{end:?}");
}

#[test]
fn a_subscription_that_is_none_is_answered_and_the_socket_goes_on() {
    let (_gateway, _registry, mapsmith) = start(newest());
    let mut socket = Socket::open(&mapsmith, "", &[]);
    for (text, named) in [
        ("{", "subscription"),
        (r#"{"series": ["x"]}"#, "names no series"),
        (r#"{"series": ["edge9/backend/default"]}"#, "edge9"),
        (r#"{"series": [], "every": "1ms"}"#, "every"),
    ] {
        socket.socket.send(Message::text(text)).expect("it is sent");
        let error = socket.until("an error", is("error")).pop().expect("it");
        assert!(error["text"].as_str().expect("a text").contains(named), "{error}");
    }
    socket.socket.send(Message::binary(vec![0, 159])).expect("it is sent");
    socket.until("an error", is("error"));
    socket.ask(&json!({"series": ["backend/*"], "every": "1s", "backlog": "10s"}));
    let frames = socket.until("figures", is("stats"));
    assert!(!frames[1]["series"].as_object().expect("series").is_empty(), "{frames:#?}");
    let large = "x".repeat(400 * 1024);
    // It may be cut off before all of it is sent.
    let _ = socket.socket.send(Message::text(large));
    mapsmith.wait_for("the stream has ended", BOUND, |mapsmith| {
        (metric(mapsmith, "mapsmith_api_event_streams")? == 0.0).then_some(())
    });
    assert_eq!(mapsmith.get("/healthz").0, 200);
}
