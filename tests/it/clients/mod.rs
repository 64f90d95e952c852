//! Clients that others wrote, held to the streams over restarts and crashes: npm's `eventsource`
//! and PyPI's `websockets`, which know nothing of Mapsmith.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::haproxy::Gateway;
use crate::support::mapsmith::Mapsmith;
use crate::support::registry::Registry;
use crate::support::scene::{
    BOUND, ON_REQUEST, gateway_settings, in_sync, newest, reload, source_settings,
};
use crate::support::{eventually, free_port, unpacked};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients");

/// Where they are; none where they can't be had, which is said.
fn clients() -> Option<PathBuf> {
    let clients = unpacked().join("clients");
    let is_there = clients.join("complete").exists();
    if !is_there {
        eprintln!("left out: eventsource and websockets are not there (scripts/setup test)");
    }
    is_there.then_some(clients)
}

/// On a port that stays the same.
fn start() -> (Gateway, Registry, Mapsmith) {
    let gateway = Gateway::plan(newest()).start();
    let registry = Registry::start(&[("node1", "default")]);
    let settings = format!(
        "{ON_REQUEST}{}{}[store]\npath = \"mapsmith.db\"\n[api]\nlisten = \"127.0.0.1:{}\"\n",
        gateway_settings(&gateway),
        source_settings("registry", &registry.url()),
        free_port()
    );
    let mapsmith = Mapsmith::config(&settings).start();
    in_sync(&mapsmith);
    (gateway, registry, mapsmith)
}

/// A client that runs until this is dropped, and what it prints.
struct Client {
    process: Child,
    folder: TempDir,
}

impl Client {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = |name: &str| File::create(folder.path().join(name)).expect("a file");
        let process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(open("out"))
            .stderr(open("err"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { process, folder }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("a file")
    }

    /// All whole lines so far.
    fn lines(&self) -> Vec<Value> {
        let text = self.read("out");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until what was printed is as it should be.
    fn until(&self, what: &str, mapsmith: &Mapsmith, is_it: impl Fn(&[Value]) -> bool) {
        let said = || format!("{}\n{}\n{}", self.read("out"), self.read("err"), mapsmith.log());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, BOUND, || is_it(&self.lines()).then_some(()));
        }));
        assert!(found.is_ok(), "{what}:\n{}", said());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pin(mapsmith: &Mapsmith, node: &str) {
    let body = json!({"master": "default"}).to_string();
    let path = format!("/v1/overrides/{node}?force=true&wait=30s");
    let response = mapsmith.ask("PUT", &path, &[], &body);
    assert_eq!(response.status, 200, "{}\n{}", response.body, mapsmith.log());
}

fn has_pin(node: &str) -> impl Fn(&[Value]) -> bool {
    move |lines| lines.iter().any(|it| it["kind"] == "override" && it["data"]["subject"] == node)
}

#[test]
fn npms_eventsource_gets_each_event_once_and_in_order_over_an_end_and_a_crash() {
    let Some(clients) = clients() else { return };
    let (_gateway, _registry, mut mapsmith) = start();
    let script = format!("{FOLDER}/events.mjs");
    let packages = clients.join("node_modules/").display().to_string();
    let url = format!("{}/v1/events?after=0", mapsmith.api_url());
    let node = clients.join("bin/node");
    let client = Client::start(&node, &[&script, &packages, &url]);
    pin(&mapsmith, "a1");
    client.until("an order", &mapsmith, has_pin("a1"));

    assert_eq!(mapsmith.sigterm(), 0);
    mapsmith.restart();
    // Before the client is back, and after.
    pin(&mapsmith, "b1");
    client.until("an order after an end", &mapsmith, has_pin("b1"));
    pin(&mapsmith, "b2");
    client.until("an order to a client that is back", &mapsmith, has_pin("b2"));

    pin(&mapsmith, "c1");
    mapsmith.kill();
    mapsmith.restart();
    pin(&mapsmith, "c2");
    reload(&mapsmith);
    client.until("an order after a crash", &mapsmith, has_pin("c2"));
    pin(&mapsmith, "c3");
    client.until("the last order", &mapsmith, has_pin("c3"));

    let lines = client.lines();
    let events = lines.iter().filter(|it| it["data"]["subject"].is_string());
    let got: Vec<u64> = events.filter_map(|it| it["data"]["id"].as_u64()).collect();
    let (_, page) = mapsmith.get("/v1/activity?after=0&limit=1000");
    let kept = page["items"].as_array().expect("items").iter();
    let kept: Vec<u64> = kept.filter_map(|event| event["id"].as_u64()).collect();
    let last = *got.last().expect("an event");
    let until: Vec<u64> = kept.into_iter().filter(|id| *id <= last).collect();
    assert_eq!(got, until, "nothing lost, nothing doubled, in order: {lines:#?}");
    let count = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((count("hello"), count("bye"), count("resync")), (3, 1, 0), "{lines:#?}");
    assert!(count("error") >= 2, "it was cut off: {lines:#?}");
}

#[test]
fn pypis_websockets_watches_on_over_an_end_and_a_crash() {
    let Some(clients) = clients() else { return };
    let (gateway, _registry, mut mapsmith) = start();
    let url = format!("ws://{}/v1/stats/stream", mapsmith.address());
    let python = clients.join("bin/python");
    let client = Client::start(&python, &[&format!("{FOLDER}/stats.py"), &url]);
    let opened = |lines: &[Value]| lines.iter().filter(|it| it["type"] == "open").count();
    // What `stot` grew by: after the series' number and five gauges.
    let grown = |lines: &[Value]| {
        let rows = lines.iter().filter_map(|frame| frame["rows"][0][6].as_u64());
        rows.sum::<u64>()
    };
    let is_measured = |connections: usize| {
        move |lines: &[Value]| {
            let is_open = |(_, line): &(usize, &Value)| line["type"] == "open";
            let last = lines.iter().enumerate().rev().find(is_open);
            let rest = last.map_or(&[][..], |(position, _)| &lines[position..]);
            opened(lines) == connections && rest.iter().any(|frame| frame["rows"][0][6].is_u64())
        }
    };
    let mut requests = 0;
    for (connection, count) in [(1, 3), (2, 4), (3, 5)] {
        client.until("it watches", &mapsmith, is_measured(connection));
        for _ in 0..count {
            assert_eq!(gateway.request("unknown").0, 404);
        }
        requests += count;
        client.until("its requests", &mapsmith, |lines| grown(lines) >= requests);
        assert_eq!(grown(&client.lines()), requests, "counted once: {:#?}", client.lines());
        match connection {
            1 => assert_eq!(mapsmith.sigterm(), 0),
            2 => mapsmith.kill(),
            _ => break,
        }
        // Nobody counts these.
        gateway.request("unknown");
        mapsmith.restart();
    }
    let lines = client.lines();
    let codes: Vec<_> = lines.iter().filter(|line| line["type"] == "closed").collect();
    assert_eq!(codes[0]["code"], 1001, "{lines:#?}");
    assert_eq!(codes[1]["code"], 1006, "a crash says nothing: {lines:#?}");
    let is_wrong = |line: &&Value| line["type"] == "error" || line["type"] == "gap";
    assert!(!lines.iter().any(|line| is_wrong(&line)), "{lines:#?}");
}
