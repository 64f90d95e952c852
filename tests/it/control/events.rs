//! Events: followed over restarts without a gap, page by page, and by those who may.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Scene, config};
use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, borrowed, gateway_settings, in_sync, metric, newest, nodes, printed, reload,
    source_settings,
};

/// One message of a stream.
#[derive(Debug, Clone)]
struct Message {
    id: Option<u64>,
    kind: String,
    data: Value,
}

/// A client of the stream.
struct Follower {
    stream: BufReader<TcpStream>,
    head: String,
    /// The last id that it has got.
    last: Option<u64>,
}

impl Follower {
    /// Asks, and reads the answer's head.
    fn open(address: SocketAddr, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(address).expect("the API listens");
        stream.set_read_timeout(Some(BOUND)).expect("a bound");
        let headers: String =
            headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "GET /v1/events{query} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n")
            .expect("it is asked");
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        Self { stream, head, last: None }
    }

    /// Goes on where another one has ended.
    fn resume(address: SocketAddr, last: u64) -> Self {
        let follower = Self::open(address, "", &[("Last-Event-ID", &last.to_string())]);
        Self { last: Some(last), ..follower }
    }

    /// The next message; none at the end. The sizes of chunks are lines that are no field.
    fn next(&mut self) -> Option<Message> {
        let mut message = Message { id: None, kind: String::new(), data: Value::Null };
        loop {
            let mut line = String::new();
            match self.stream.read_line(&mut line) {
                Ok(1..) => {}
                _ => return None,
            }
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => message.id = Some(id.parse().expect("a number")),
                Some(("event", kind)) => message.kind = kind.to_owned(),
                Some(("data", data)) => {
                    message.data = serde_json::from_str(data).expect("JSON");
                    self.last = message.id.or(self.last);
                    return Some(message);
                }
                _ => {}
            }
        }
    }

    /// Reads until one is as it should be; all that came, it included.
    fn until(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Vec<Message> {
        let (start, mut read) = (Instant::now(), Vec::new());
        loop {
            let message = self.next().unwrap_or_else(|| panic!("{what}: {read:#?}"));
            let found = is_it(&message);
            read.push(message);
            if found {
                return read;
            }
            assert!(start.elapsed() < BOUND, "{what}: {read:#?}");
        }
    }
}

fn is(kind: &'static str, subject: &'static str) -> impl Fn(&Message) -> bool {
    move |message| message.kind == kind && message.data["subject"] == subject
}

/// The events that a client has got, without what is of the stream itself.
fn numbers(messages: &[Message]) -> Vec<u64> {
    let events = messages.iter().filter(|message| message.data["subject"].is_string());
    events.filter_map(|message| message.id).collect()
}

fn all_events(scene: &Scene) -> Vec<Value> {
    let page = scene.get("/v1/activity?after=0&limit=1000");
    assert_eq!(page["more"], false);
    page["items"].as_array().expect("items").clone()
}

#[test]
fn whoever_resumes_over_a_crash_and_an_end_gets_each_event_once() {
    let mut scene = Scene::start(&nodes(3, "m1"));
    let address = |scene: &Scene| scene.mapsmith.address();
    let mut follower = Follower::open(address(&scene), "?after=0", &[]);
    for header in
        ["text/event-stream", "cache-control: no-store", "x-accel-buffering: no", " 200 OK"]
    {
        assert!(follower.head.contains(header), "{}", follower.head);
    }
    let hello = follower.next().expect("hello");
    assert_eq!((hello.kind.as_str(), hello.id), ("hello", Some(0)));
    let mut got = follower.until("in sync", is("instance", "edge1"));
    scene.order("PUT", "overrides/n001", json!({"master": "m2", "reason": "try m2"}));
    got.extend(follower.until("the order", is("override", "n001")));
    let order = &got.last().expect("it").data;
    assert_eq!(
        (&order["state"], &order["by"], &order["reason"]),
        (&json!("pinned"), &json!("local"), &json!("try m2"))
    );
    assert!(order["request_id"].is_string(), "{order:#}");

    // While nobody follows: an order, a crash, and another revision.
    let last = follower.last.expect("a number");
    drop(follower);
    scene.order("DELETE", "overrides/n001", Value::Null);
    scene.mapsmith.kill();
    scene.registry.knows(&borrowed(&nodes(4, "m1")));
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    reload(&scene.mapsmith);
    let mut follower = Follower::resume(address(&scene), last);
    assert_eq!(follower.next().and_then(|hello| hello.id), Some(last));
    got.extend(follower.until("the reload", is("reload", "sources")));

    // An end that is told, and a beginning anew on the same number.
    let mapsmith = &mut scene.mapsmith;
    assert_eq!(mapsmith.sigterm(), 0);
    let rest = follower.until("the end", |message| message.kind == "bye");
    assert_eq!(rest.last().expect("bye").id, None);
    got.extend(rest);
    assert!(follower.next().is_none());
    let last = follower.last.expect("a number");
    scene.mapsmith.restart();
    in_sync(&scene.mapsmith);
    let mut follower = Follower::resume(address(&scene), last);
    scene.order("PUT", "overrides/n002", json!({"absent": true}));
    got.extend(follower.until("the order", is("override", "n002")));
    let last = *numbers(&got).last().expect("a number");
    // That there is another map is told a moment after the order.
    let in_force = scene.get("/v1/status")["revision"].as_u64().expect("a revision");
    let subject = in_force.to_string();
    let is_it = |event: &Value| event["kind"] == "revision" && event["subject"] == *subject;
    let is_told = || all_events(&scene).iter().any(is_it).then_some(());
    scene.mapsmith.wait_for("the map in force is told of", BOUND, |_| is_told());

    let kept: Vec<_> = all_events(&scene);
    let ids: Vec<_> = kept.iter().filter_map(|event| event["id"].as_u64()).collect();
    let until: Vec<_> = ids.iter().copied().filter(|id| *id <= last).collect();
    assert_eq!(numbers(&got), until, "nothing lost, nothing doubled");
    let revisions = kept.iter().filter(|event| event["kind"] == "revision");
    let revisions: Vec<_> = revisions.map(|event| event["subject"].clone()).collect();
    let first = if revisions[0] == "0" { 0 } else { 1 };
    // A number that was lost with the crash no map ever had.
    let had = scene.get("/v1/revisions?limit=1000")["items"].clone();
    let had = had.as_array().expect("items").iter().rev();
    let had = had.filter_map(|revision| revision["number"].as_u64()).filter(|it| *it >= first);
    let expected: Vec<_> = had.map(|number| json!(number.to_string())).collect();
    assert!(expected.len() > 3, "{expected:?}");
    assert_eq!(revisions, expected, "each once");

    let (code, text) = printed(&scene.mapsmith.cli(&["events", "--after", "0", "--limit", "999"]));
    assert!(code == 0 && text.contains("override   n001 is pinned to m2 by local (try m2)\n"));
}

#[test]
fn pages_and_topics_choose_and_what_is_no_longer_kept_is_named() {
    let scene = Scene::start(&nodes(3, "m1"));
    for node in ["n000", "n001", "n002"] {
        scene.order("PUT", &format!("overrides/{node}"), json!({"master": "m2"}));
    }
    let page = scene.get("/v1/activity?after=0&topics=override&limit=2");
    assert_eq!((page["items"].as_array().map(Vec::len), &page["more"]), (Some(2), &json!(true)));
    let next = page["next"].as_u64().expect("a number");
    let rest = scene.get(&format!("/v1/activity?after={next}&topics=override"));
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(1), "{rest:#}");
    assert_eq!((&rest["items"][0]["subject"], &rest["more"]), (&json!("n002"), &json!(false)));
    let newest = scene.get("/v1/activity?topics=override&limit=1");
    assert_eq!(newest["items"][0]["subject"], "n002");
    let problem = scene.refused("GET", "/v1/activity?after=999999", "", 410);
    assert_eq!(problem["oldest"], 1, "{problem:#}");
    for query in ["topics=hello", "after=x", "limit=0"] {
        scene.refused("GET", &format!("/v1/activity?{query}"), "", 400);
    }
    scene.refused("GET", "/v1/events?topics=nothing", "", 400);

    let address = scene.mapsmith.address();
    let mut follower = Follower::open(address, "?after=0&topics=override", &[]);
    let got = follower.until("the last order", is("override", "n002"));
    let kinds: Vec<_> = got.iter().map(|message| message.kind.as_str()).collect();
    assert_eq!(kinds, ["hello", "override", "override", "override"]);
    for last in ["999999", "not-a-number"] {
        let mut ahead = Follower::open(address, "?after=1", &[("Last-Event-ID", last)]);
        let got = ahead.until("a resync", |message| message.kind == "resync");
        let resync = got.last().expect("it");
        assert_eq!((got.len(), &resync.data["snapshot"]), (2, &json!("/v1/status")), "{got:#?}");
        assert!(resync.id.is_some(), "it goes on from there");
    }
    assert!(metric(&scene.mapsmith, "mapsmith_api_event_streams").is_some_and(|open| open >= 1.0));
}

#[test]
fn a_stream_ends_with_its_token_and_one_has_twenty() {
    let api = "[api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"token\"\n";
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&borrowed(&nodes(3, "m1")));
    let config = config(&gateway, &registry, api);
    std::fs::write(config.directory().join("token"), "s3cret").expect("a token");
    let mapsmith = config.start();
    let as_file = |method: &str, path: &str, body: &str| {
        let response = mapsmith.ask(method, path, &[("Authorization", "Bearer s3cret")], body);
        serde_json::from_str::<Value>(&response.body).expect("JSON")
    };
    let made = as_file("POST", "/v1/tokens", "{\"name\": \"ui\", \"role\": \"viewer\"}");
    let bearer = format!("Bearer {}", made["token"].as_str().expect("a token"));
    let headers = [("Authorization", bearer.as_str())];
    let mut open: Vec<_> =
        (0..20).map(|_| Follower::open(mapsmith.address(), "", &headers)).collect();
    let more = Follower::open(mapsmith.address(), "", &headers);
    assert!(more.head.contains(" 429 "), "{}", more.head);
    let id = made["id"].as_str().expect("an id");
    as_file("DELETE", &format!("/v1/tokens/{id}"), "");
    let revoked = Instant::now();
    for follower in &mut open {
        let got = follower.until("the end", |message| message.kind == "bye");
        assert!(got.iter().all(|message| message.kind != "override"), "{got:#?}");
        assert!(follower.next().is_none());
    }
    assert!(revoked.elapsed() < Duration::from_secs(20));
    let nobody = Follower::open(mapsmith.address(), "", &headers);
    assert!(nobody.head.contains(" 401 "), "{}", nobody.head);
    let mut other =
        Follower::open(mapsmith.address(), "?after=0", &[("Authorization", "Bearer s3cret")]);
    let got = other.until("it was revoked", |message| message.data["state"] == "revoked");
    let text = format!("{got:?}");
    assert!(!text.contains(&bearer[7..]), "no secret is told");
}

#[test]
fn without_a_store_a_restart_is_told_as_a_gap() {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&borrowed(&nodes(3, "m1")));
    let source = source_settings("registry", &registry.url());
    let settings = format!("{ON_REQUEST}{}{source}", gateway_settings(&gateway));
    let mut mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    let mut follower = Follower::open(mapsmith.address(), "?after=0", &[]);
    follower.until("in sync", is("instance", "edge1"));
    let last = follower.last.expect("a number");
    mapsmith.restart();
    in_sync(&mapsmith);
    let mut follower = Follower::resume(mapsmith.address(), last);
    let got = follower.until("a resync", |message| message.kind == "resync");
    assert_eq!(got.len(), 2, "{got:#?}");
    reload(&mapsmith);
    follower.until("the reload", is("reload", "sources"));
}
