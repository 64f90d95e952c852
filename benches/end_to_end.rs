//! From a change in the registry to the first request that HAProxy routes by it:
//! `scripts/bench end-to-end [--quick]`.
//!
//! The daemon itself, a gateway as shipped, a stand-in registry (`http_json`: the whole document at
//! every poll) and stand-in masters. A client asks for the moved node all the time; what counts is
//! when the first right answer is there. Changes come at random moments and each moves one node.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::open_loop::{Connection, exchange};
use common::site::{MASTERS, Site, node, nodes, wait_for};
use common::world::{Owners, Registry};
use common::{Daemon, PATIENCE, call, haproxies};
use serde_json::Value;

const ENTRIES: usize = 100_000;
const MANY_ENTRIES: usize = 1_000_000;
/// Between two questions for the moved node.
const ASK_EVERY: Duration = Duration::from_millis(1);

fn main() -> anyhow::Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (changes, many_changes) = if quick { (10, 0) } else { (100, 20) };
    let mut binaries = haproxies();
    anyhow::ensure!(!binaries.is_empty(), "no HAProxy: run scripts/setup");
    // The oldest and the newest, or the newest alone.
    binaries.drain(usize::from(!quick).min(binaries.len() - 1)..binaries.len() - 1);
    println!(
        "milliseconds from a change in the registry to the first right answer; asked every \
            {ASK_EVERY:?}; 1 node a change"
    );
    println!(
        "asked: until the registry was asked; then: from there to the right answer, the poll's \
            own time included"
    );
    for binary in binaries {
        by_poll(&binary, changes)?;
        by_reload(&binary, ENTRIES, changes)?;
        by_learned_route(&binary, changes)?;
        if many_changes > 0 {
            by_reload(&binary, MANY_ENTRIES, many_changes)?;
        }
    }
    Ok(())
}

/// The daemon between a registry and a gateway, in sync.
struct Scene {
    registry: Registry,
    owners: Owners,
    site: Site,
    api: String,
    _daemon: Daemon,
    client: Option<Connection>,
    entries: usize,
    /// How many nodes were moved: each one once.
    moved: usize,
}

impl Scene {
    /// `poll` is an interval.
    fn start(binary: &Path, entries: usize, poll: &str) -> anyhow::Result<Self> {
        let registry = Registry::start(entries)?;
        let owners = Owners::start()?;
        let site = Site::start(binary, &nodes(entries, 0), owners.addresses)?;
        let root = site.folder.path();
        fs::write(
            root.join("mapsmith.toml"),
            format!(
                "[schedule]\npoll = \"{poll}\"\njitter = \"0s\"\n[api]\nlisten \
                    = \"127.0.0.1:0\"\n[map]\npath = \"{}\"\n[learned]\ntable \
                    = \"puppet\"\n[[source]]\n\
                 name = \"registry\"\ntype = \"http_json\"\nurl = \"{}\"\n[[instance]]\nname \
                 = \"edge\"\nruntime = \"unix@{}\"\n",
                site.map(),
                registry.url,
                site.socket().display()
            ),
        )?;
        let mut daemon = Daemon::start(root)?;
        let api = daemon.api(&root.join("log"))?;
        wait_for("the first map", || (call(&api, "GET", "/readyz").ok()?.0 == 200).then_some(()))?;
        Ok(Self { registry, owners, site, api, _daemon: daemon, client: None, entries, moved: 0 })
    }

    /// The next node that is moved, and to which master.
    fn next_move(&mut self) -> (usize, usize) {
        self.moved += 1;
        // Spread over the whole map.
        let number = (self.moved * 7_919) % self.entries;
        (number, (number + 1) % MASTERS.len())
    }

    /// The master that answers for a node.
    fn ask(&mut self, number: usize) -> anyhow::Result<Vec<u8>> {
        let request =
            format!("GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: {}\r\n\r\n", node(number));
        let (status, body) =
            exchange(&mut self.client, self.site.address, request.as_bytes(), &mut 0)?;
        anyhow::ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Asks until the right master answers; when its answer was there.
    fn until_routed(&mut self, number: usize, master: usize) -> anyhow::Result<Instant> {
        let start = Instant::now();
        loop {
            if self.ask(number)? == MASTERS[master].as_bytes() {
                return Ok(Instant::now());
            }
            anyhow::ensure!(start.elapsed() < PATIENCE, "the change did not arrive");
            thread::sleep(ASK_EVERY);
        }
    }

    /// The mean time of the polls so far, in milliseconds.
    fn mean_poll(&self) -> anyhow::Result<f64> {
        let (_, text) = call(&self.api, "GET", "/metrics")?;
        let sample = |name: &str| {
            let series = format!(
                "mapsmith_source_poll_duration_seconds_{name}{{source=\"registry\",kind=\"full\"}} "
            );
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value
                .and_then(|value| value.parse::<f64>().ok())
                .with_context(|| format!("no {series}"))
        };
        Ok(sample("sum")? * 1000.0 / sample("count")?)
    }

    /// The time of the last poll, in milliseconds.
    fn last_poll(&self) -> anyhow::Result<f64> {
        let status: Value = serde_json::from_str(&call(&self.api, "GET", "/v1/status")?.1)?;
        status["sources"][0]["last_poll"]["milliseconds"].as_f64().context("no last poll")
    }
}

/// Times of one kind, in milliseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1000.0);
    }

    fn row(mut self, what: &str) {
        self.0.sort_unstable_by(f64::total_cmp);
        let at = |part: f64| {
            self.0
                .get(((part * self.0.len() as f64) as usize).min(self.0.len() - 1))
                .copied()
                .unwrap_or_default()
        };
        let mean = self.0.iter().sum::<f64>() / self.0.len() as f64;
        println!(
            "| {what:<58} | {:>7.1} | {:>7.1} | {:>7.1} | {:>7.1} |",
            at(0.5),
            at(0.99),
            at(1.0),
            mean
        );
    }
}

fn head(site: &Site, entries: usize, how: &str, changes: usize) {
    println!("\nHAProxy {}, {entries} entries, {how}, {changes} changes\n", site.version);
    println!("| {:<58} |     p50 |     p99 |    most |    mean |\n|---|---:|---:|---:|---:|", "");
}

/// A pause of up to so long, at random.
fn pause(least: f64, most: f64) {
    thread::sleep(Duration::from_secs_f64(least + fastrand::f64() * (most - least)));
}

fn by_poll(binary: &Path, changes: usize) -> anyhow::Result<()> {
    let mut scene = Scene::start(binary, ENTRIES, "1s")?;
    let (mut whole, mut asked, mut then) = (Times::default(), Times::default(), Times::default());
    for _ in 0..changes {
        pause(0.0, 1.0);
        let (number, master) = scene.next_move();
        let changed = scene.registry.moves(number, master);
        let routed = scene.until_routed(number, master)?;
        let poll = scene.registry.asked().context("routed, and never asked")?;
        whole.add(routed - changed);
        asked.add(poll - changed);
        then.add(routed - poll);
    }
    head(&scene.site, ENTRIES, "a poll each second", changes);
    whole.row("from the change");
    asked.row("asked (the poll's wait)");
    then.row("then");
    println!("\nthe polls took {:.1} ms on average", scene.mean_poll()?);
    Ok(())
}

fn by_reload(binary: &Path, entries: usize, changes: usize) -> anyhow::Result<()> {
    let mut scene = Scene::start(binary, entries, "1h")?;
    let (mut whole, mut asked, mut own, mut rest) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    for _ in 0..changes {
        pause(0.2, 0.5);
        let (number, master) = scene.next_move();
        scene.registry.moves(number, master);
        let api = scene.api.clone();
        let requested = Instant::now();
        let request = thread::spawn(move || call(&api, "POST", "/v1/reload"));
        let routed = scene.until_routed(number, master)?;
        let (status, answer) =
            request.join().map_err(|_| anyhow::anyhow!("the request broke"))??;
        anyhow::ensure!(status == 202, "{status}: {answer}");
        let poll = Duration::from_secs_f64(scene.last_poll()? / 1000.0);
        whole.add(routed - requested);
        asked.add(scene.registry.asked().context("routed, and never asked")? - requested);
        own.add(poll);
        rest.add((routed - requested).saturating_sub(poll));
    }
    head(&scene.site, entries, "POST /v1/reload", changes);
    whole.row("from the request");
    asked.row("asked");
    own.row("the poll's own time");
    rest.row("all but the poll's own time");
    Ok(())
}

fn by_learned_route(binary: &Path, changes: usize) -> anyhow::Result<()> {
    let mut scene = Scene::start(binary, ENTRIES, "1h")?;
    scene.owners.be_strict();
    let (mut plain, mut first, mut second, mut map) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    for _ in 0..changes {
        // Looks and their rests are over, so that each move is met by a daemon that idles.
        pause(1.0, 2.0);
        let (number, master) = scene.next_move();
        let start = Instant::now();
        scene.ask(number)?;
        plain.add(start.elapsed());
        scene.registry.moves(number, master);
        scene.owners.moves(number, master);
        let moved = Instant::now();
        let answered_by = scene.ask(number)?;
        first.add(moved.elapsed());
        anyhow::ensure!(
            answered_by == MASTERS[master].as_bytes(),
            "the first answer is another master's"
        );
        let start = Instant::now();
        scene.ask(number)?;
        second.add(start.elapsed());
        let line = format!("get map {} {}", scene.site.map(), node(number));
        let value = format!("value=\"{}\"", MASTERS[master]);
        wait_for("the map's following", || {
            scene.site.call(&line).ok()?.contains(&value).then_some(())
        })?;
        map.add(moved.elapsed());
    }
    head(&scene.site, ENTRIES, "by learned route", changes);
    plain.row("a request before the move");
    first.row("the first request after it, answered right by redispatch");
    second.row("the next one");
    map.row("until the map follows (polled every hour otherwise)");
    Ok(())
}
