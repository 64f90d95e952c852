//! What keeping a map costs, against a real HAProxy: `scripts/bench map [ENTRIES...]`.
//!
//! Every figure stands beside something measured in the same run: the same payloads sent by the
//! simplest client that could work (the floor), a script that calls `socat` once an entry, a plain
//! read of the same listing. No figure here is a test.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::maps::{PAYLOAD, Registry, changed, median, nodes};
use common::{Daemon, Gateway, PATIENCE, haproxies, processor};
use haproxy_runtime::HaproxyVersion;
use haproxy_runtime::RuntimeAddress;
use haproxy_runtime::wire::Payloads;
use haproxy_runtime::{MapClient, MapName, RuntimeClient};
use mapsmith::instance::apply::{self, Timings};
use mapsmith_core::EntryMap;
use mapsmith_core::plan::map::MapFacts;
use mapsmith_core::plan::{CostModel, Deviation, MapPlan, plan_map};

/// How often a figure is taken; the median is shown.
const ROUNDS: usize = 7;
/// How many entries the script is measured with; its time is scaled up.
const SCRIPT_SAMPLE: usize = 200;

fn main() -> anyhow::Result<()> {
    // `cargo bench` passes flags of its own harness.
    let sizes: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1_000, 100_000, 1_000_000] } else { sizes };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!(
        "median of {ROUNDS} rounds; milliseconds; floor: the same payloads over one blocking \
            connection each, no checks"
    );
    for binary in haproxies() {
        for entries in &sizes {
            let gateway = gateway(&binary, *entries)?;
            runtime.block_on(measure_map(&gateway, *entries))?;
        }
    }
    for entries in &sizes {
        measure_daemon(*entries)?;
    }
    Ok(())
}

/// A HAProxy with one map of so many entries.
fn gateway(binary: &Path, entries: usize) -> anyhow::Result<Gateway> {
    let prepare = |root: &Path| {
        let mut map = Vec::new();
        mapsmith_core::map_file::print(
            &nodes(entries, 0),
            &mapsmith_core::map_file::Header { revision: 0, writer: None },
            [],
            &mut map,
        )?;
        fs::write(root.join("n.map"), map)
    };
    Gateway::start(binary, 2, prepare, |root| {
        format!(
            "frontend gateway\n  bind unix@{root}/http.sock\n  \
             use_backend %[req.hdr(X-Node-Name),lower,map_str({root}/n.map,none)]\nbackend none\n"
        )
    })
}

fn map_of(gateway: &Gateway) -> String {
    gateway.folder.path().join("n.map").display().to_string()
}

fn client(gateway: &Gateway) -> MapClient {
    let client = RuntimeClient::new(RuntimeAddress::Unix(gateway.socket()), PATIENCE);
    MapClient::new(client, MapName::new(&map_of(gateway)), PAYLOAD)
}

async fn measure_map(gateway: &Gateway, entries: usize) -> anyhow::Result<()> {
    println!("\nHAProxy {}, {entries} entries", gateway.version);
    let client = client(gateway);
    let maps = [nodes(entries, 1), nodes(entries, 2)];
    let (mut floor, mut ours, mut rested, mut parts) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Turn about, so that both meet the same machine.
        floor.push(blast(gateway, &maps[0])?);
        let start = Instant::now();
        let mut timings = Timings::default();
        apply::swap(&client, &maps[1], &mut timings).await?;
        ours.push(start.elapsed());
        rested.push(timings.rested());
        if round == ROUNDS - 1 {
            parts = timings.into_steps();
        }
    }
    let (floor, ours) = (median(floor), median(ours));
    let script = script(gateway, entries)?;
    let parts: Vec<_> =
        parts.iter().map(|step| format!("{} {:.1}", step.step, step.milliseconds)).collect();
    println!(
        "  full swap, verified      {ours:>10.1}   {:.2} x floor   ({})",
        ours / floor,
        parts.join(", ")
    );
    println!("    of which it rested     {:>10.1}", median(rested));
    println!("  floor                    {floor:>10.1}");
    println!(
        "  one socat an entry       {script:>10.0}   {:.0} x ours   ({SCRIPT_SAMPLE} entries, \
            scaled)",
        script / ours
    );

    let (mut plain, mut read) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        drop(gateway.call(format!("show map {}\n", map_of(gateway)).as_bytes())?);
        plain.push(start.elapsed());
        let start = Instant::now();
        let (deviation, _) = apply::read_back(&client, None, maps[1].len(), &maps[1]).await?;
        read.push(start.elapsed());
        anyhow::ensure!(deviation.is_none(), "memory is not what was sent");
    }
    let (plain, read) = (median(plain), median(read));
    println!(
        "  read-back, compared      {read:>10.1}   {:.2} x a plain read ({plain:.1})",
        read / plain
    );

    for changes in [1, 100, 10_000] {
        if changes <= entries / 2 {
            measure_delta(gateway, &client, &maps[1], changes).await?;
        }
    }
    Ok(())
}

/// The simplest client that could work: the same payloads, made beforehand; no check of any answer.
fn blast(gateway: &Gateway, map: &EntryMap) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let answer = gateway.call(format!("prepare map {}\n", map_of(gateway)).as_bytes())?;
    let prepared = start.elapsed();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let version = answer.trim().rsplit(' ').next().unwrap_or_default();
    let header = format!("add map @{version} {} <<", map_of(gateway));
    let (mut payloads, mut commands, mut payload) =
        (Payloads::new(&header, map.iter(), PAYLOAD), Vec::new(), Vec::new());
    while payloads.next_into(&mut payload) {
        commands.push(payload.clone());
    }
    let start = Instant::now();
    for command in &commands {
        gateway.call(command)?;
    }
    gateway.call(format!("commit map @{version} {}\n", map_of(gateway)).as_bytes())?;
    Ok(prepared + start.elapsed())
}

/// As a shell script does it: one `socat` an entry. Milliseconds for the whole map, scaled from a
/// sample.
fn script(gateway: &Gateway, entries: usize) -> anyhow::Result<f64> {
    let answer = gateway.call(format!("prepare map {}\n", map_of(gateway)).as_bytes())?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let version = answer.trim().rsplit(' ').next().unwrap_or_default();
    let sample = SCRIPT_SAMPLE.min(entries);
    let start = Instant::now();
    let status = Command::new("sh")
        .arg("-c")
        .arg(
            "i=0; while [ $i -lt $1 ]; do echo \"add map @$2 $3 s$i m\" | socat stdio \
            unix-connect:$4 >/dev/null || exit 1; i=$((i+1)); done",
        )
        .args(["sh", &sample.to_string(), version, &map_of(gateway)])
        .arg(gateway.socket())
        .status()?;
    anyhow::ensure!(status.success(), "socat is missing: run scripts/setup");
    Ok(start.elapsed().as_secs_f64() * 1000.0 * entries as f64 / sample as f64)
}

async fn measure_delta(
    gateway: &Gateway,
    client: &MapClient,
    held: &EntryMap,
    changes: usize,
) -> anyhow::Result<()> {
    let other = changed(held, changes);
    let version: HaproxyVersion = gateway.version.parse().map_err(anyhow::Error::msg)?;
    let (mut took, mut processor, mut strategy) = (Vec::new(), Vec::new(), "");
    for _ in 0..ROUNDS {
        for (from, to) in [(held, &other), (&other, held)] {
            // The script's sample left a version behind; what a delta meets in production is a
            // clean map.
            let memory =
                MapFacts { entries: held.len(), staged_entries: 0, cost: CostModel::new(version) };
            let (start, before) = (Instant::now(), gateway.processor());
            let mut timings = Timings::default();
            match plan_map(to, &Deviation::between(from, to), &memory) {
                MapPlan::Edit { edits, .. } => {
                    strategy = "edits";
                    apply::edit(client, &edits, memory.cost.edits_a_line(held.len()), &mut timings)
                        .await?;
                }
                MapPlan::Swap { .. } => {
                    strategy = "swap";
                    apply::swap(client, to, &mut timings).await?;
                }
                MapPlan::InSync => anyhow::bail!("nothing to do, which can't be"),
            }
            took.push(start.elapsed());
            processor.push(gateway.processor().saturating_sub(before));
        }
    }
    println!(
        "  {changes:>6} changes, verified  {:>10.2}   {:.2} of HAProxy's processor time, by \
            {strategy}",
        median(took),
        median(processor)
    );
    Ok(())
}

/// The daemon itself: its memory after a few polls and swaps, and what an unchanged poll costs.
fn measure_daemon(entries: usize) -> anyhow::Result<()> {
    let binary = haproxies()
        .into_iter()
        .next_back()
        .ok_or_else(|| anyhow::anyhow!("no HAProxy: run scripts/setup"))?;
    let gateway = gateway(&binary, 0)?;
    let registry = Registry::start(&[nodes(entries, 0), nodes(entries, 1)])?;
    let root = gateway.folder.path();
    let settings = root.join("mapsmith.toml");
    fs::write(
        &settings,
        format!(
            "[schedule]\npoll = \"1h\"\n[api]\nlisten = \"127.0.0.1:0\"\n[map]\npath \
                = \"{}\"\n[guard]\nmax_moved = \"100%\"\n[damping]\nhold \
                = \"0s\"\n[[source]]\nname = \"puppetdb\"\n\
             type = \"puppetdb\"\nurl = \"{}\"\nfull_poll = \"1ms\"\n[[instance]]\nname \
             = \"edge\"\nruntime = \"unix@{}\"\n",
            map_of(&gateway),
            registry.url,
            gateway.socket().display()
        ),
    )?;
    let mut daemon = Daemon::start(root)?;
    let url = daemon.api(&root.join("log"))?;
    // Two whole maps, turn about, so that the old and the new one are there at once, as in
    // production.
    let reload = |what: &str| -> anyhow::Result<()> {
        let status = Command::new(env!("CARGO_BIN_EXE_mapsmith"))
            .args(["reload", "--wait", "60s", "--url", &url])
            .stdout(Stdio::null())
            .status()?;
        anyhow::ensure!(status.success(), "{what} did not end in sync");
        Ok(())
    };
    reload("the first map")?;
    for turn in 1..5 {
        registry.says(turn % 2);
        reload("a whole new map")?;
    }
    let peak = daemon.memory("VmHWM:")?;
    let now = daemon.memory("VmRSS:")?;
    let before = processor(daemon.0.id());
    for _ in 0..ROUNDS {
        reload("an unchanged poll")?;
    }
    let unchanged = (processor(daemon.0.id()) - before).as_secs_f64() * 1000.0 / ROUNDS as f64;
    println!(
        "\nmapsmith run, {entries} entries from a registry that answers {} bytes",
        registry.bytes()
    );
    println!(
        "  peak memory after 5 whole new maps  {:>6.0} MB   ({:.0} MB now)",
        peak as f64 / 1024.0,
        now as f64 / 1024.0
    );
    println!(
        "  an unchanged full poll              {unchanged:>6.0} ms of processor time, transfer \
            and parsing included"
    );
    Ok(())
}
