//! What many instances cost beside one: `scripts/bench fleet [stand-ins] [INSTANCES [ENTRIES...]]`.
//!
//! One daemon drives a single HAProxy, another drives all the rest; both meet the same changes,
//! turn about. Where the HAProxys share the machine with Mapsmith, most of the time is theirs. So
//! the floor stands beside it: the same payloads from a plain blocking client, one thread an
//! instance, all at once. The same is measured again with stand-ins, whose answers were compared
//! with a HAProxy's byte by byte, and which cost next to nothing: there Mapsmith's own share shows.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

#[path = "../common/mod.rs"]
mod common;
mod driven;
mod floor;
mod gateways;
#[path = "../common/stand_in.rs"]
mod stand_in;
mod stand_ins;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::maps::{Registry, changed, median, nodes};
use common::{PATIENCE, haproxies};
use driven::{Driven, Sample};
use floor::Floor;
use gateways::Fleet;
use mapsmith_core::EntryMap;
use stand_ins::check_stand_ins;

const INSTANCES: usize = 100;

const THEIRS: &str = "the HAProxys' or stand-ins' processor time";

/// How often the registry changes there and back; each way is a sample.
const ROUNDS: usize = 3;

/// How many single changes.
const CHANGES: usize = 100;

/// Longer than Mapsmith lets pass between two swaps of an instance.
const REST: Duration = Duration::from_millis(1300);

/// How long idle cost is taken for.
const IDLE: Duration = Duration::from_secs(20);

fn main() -> anyhow::Result<()> {
    let numbers: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (instances, sizes) = match numbers.as_slice() {
        [] => (INSTANCES, [10_000, 100_000].as_slice()),
        [instances] => (*instances, [10_000, 100_000].as_slice()),
        [instances, sizes @ ..] => (*instances, sizes),
    };
    println!(
        "one instance beside {instances}, in the same run; milliseconds, median of {} changes",
        2 * ROUNDS
    );
    for binary in haproxies() {
        check_stand_ins(&binary)?;
    }
    let only_stand_ins = std::env::args().any(|argument| argument == "stand-ins");
    for entries in sizes {
        measure(instances, *entries, only_stand_ins)?;
    }
    Ok(())
}

fn measure(instances: usize, entries: usize, only_stand_ins: bool) -> anyhow::Result<()> {
    let binary = haproxies()
        .into_iter()
        .next_back()
        .ok_or_else(|| anyhow::anyhow!("no HAProxy: run scripts/setup"))?;
    let maps = [nodes(entries, 0), changed(&nodes(entries, 0), CHANGES), nodes(entries, 1)];
    let registry = Registry::start(&maps)?;
    if !only_stand_ins {
        measure_haproxys(&binary, instances, &maps, &registry)?;
    }
    println!("\nstand-ins for HAProxys, {entries} entries");
    let stand_ins = |count| Fleet::stand_in(Fleet::start(&binary, 1, &maps[0])?, count);
    registry.says(0);
    drive(&[stand_ins(1)?, stand_ins(instances)?], &registry, None)
}

fn measure_haproxys(
    binary: &Path,
    instances: usize,
    maps: &[EntryMap; 3],
    registry: &Registry,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let fleets = [Fleet::start(binary, 1, &maps[0])?, Fleet::start(binary, instances, &maps[0])?];
    let version = fleets[1].gateways[0].version.clone();
    println!(
        "\nHAProxy {version}, {} entries from a registry that answers {} bytes",
        maps[0].len(),
        registry.bytes()
    );
    println!(
        "  {} processes with one thread each started in {:.1} s, with {:.1} s of processor time",
        instances + 1,
        start.elapsed().as_secs_f64(),
        fleets.iter().map(Fleet::processor).sum::<Duration>().as_secs_f64()
    );
    let floor = Floor::measure(&fleets, maps)?;
    drive(&fleets, registry, Some(floor))
}

fn drive(fleets: &[Fleet; 2], registry: &Registry, floor: Option<Floor>) -> anyhow::Result<()> {
    let start = Instant::now();
    let driven = [Driven::start(&fleets[0], registry)?, Driven::start(&fleets[1], registry)?];
    for one in &driven {
        one.in_sync()?;
    }
    let (took, own) =
        (start.elapsed().as_secs_f64() * 1000.0, driven[1].processor().as_secs_f64() * 1000.0);
    println!(
        "  from the start of both daemons to all read back and in sync {took:.0}, with {own:.0} \
            of the second's processor time"
    );
    let used = || {
        driven
            .iter()
            .zip(fleets)
            .map(|(driven, fleet)| [driven.processor(), fleet.processor()])
            .collect::<Vec<_>>()
    };
    let before = used();
    std::thread::sleep(IDLE);
    let a_second = |now: Duration, before: Duration| {
        (now - before).as_secs_f64() * 1000.0 / IDLE.as_secs_f64()
    };
    let idle: Vec<_> = used()
        .iter()
        .zip(&before)
        .map(|(now, before)| [0, 1].map(|at| a_second(now[at], before[at])))
        .collect();

    let [mut edits, mut swaps] =
        [[Sample::default(), Sample::default()], [Sample::default(), Sample::default()]];
    let descriptors = with_descriptors(&driven[1], || {
        for (other, samples) in [(1, &mut edits), (2, &mut swaps)] {
            for round in 0..ROUNDS {
                for map in [other, 0] {
                    std::thread::sleep(REST);
                    registry.says(map);
                    // Turn about, so that neither always meets the busier machine.
                    for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                        driven[at].take(&fleets[at], &mut samples[at])?;
                    }
                }
            }
        }
        Ok(())
    })?;
    let instances = fleets[1].sockets.len();
    let (edits_floor, swap_floor) = floor.map(|floor| (floor.edits, floor.swap)).unzip();
    print(&format!("{CHANGES} changes"), instances, edits, edits_floor);
    print("every node moved", instances, swaps, swap_floor);
    println!("  idle, a second");
    row("Mapsmith's processor time", idle[0][0], idle[1][0]);
    row(THEIRS, idle[0][1], idle[1][1]);
    let peak = driven[1].daemon.memory("VmHWM:")? as f64 / 1024.0;
    println!("  the daemon of {instances}: {peak:.0} MB and {descriptors} descriptors at the most");
    if fleets[1].gateways.is_empty() { Ok(()) } else { hung(&driven[1], &fleets[1], registry) }
}

/// The most descriptors that the daemon has open meanwhile.
fn with_descriptors(
    driven: &Driven,
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<usize> {
    let over = AtomicBool::new(false);
    let folder = format!("/proc/{}/fd", driven.daemon.0.id());
    std::thread::scope(|scope| {
        let count = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::SeqCst) {
                most = most.max(fs::read_dir(&folder).map_or(0, Iterator::count));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let result = work();
        over.store(true, Ordering::SeqCst);
        let most = count.join().map_err(|_| anyhow::anyhow!("the count of descriptors died"))?;
        result.map(|()| most)
    })
}

/// One instance is stopped; the others must not wait for it.
fn hung(driven: &Driven, fleet: &Fleet, registry: &Registry) -> anyhow::Result<()> {
    let info = String::from_utf8_lossy(&fleet.gateways[0].call(b"show info\n")?).into_owned();
    let process = info.lines().find_map(|line| line.strip_prefix("Pid: ")).context("no pid")?;
    let signal = |name: &str| Command::new("kill").args([name, process]).status();
    let revision = driven.reload("?wait=5m")?["revision"].as_u64().context("no revision")? + 1;
    signal("-STOP")?;
    registry.says(1);
    driven.reload("")?;
    let start = Instant::now();
    let arrivals = loop {
        let arrivals = driven.arrivals(revision)?;
        if arrivals.len() == fleet.gateways.len() - 1 {
            break arrivals;
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "{} only have it", arrivals.len());
    };
    let took = arrivals.iter().map(|(took, _)| *took).max().unwrap_or_default();
    println!(
        "  {CHANGES} changes while one instance hangs: the others have them after {:.1}",
        took.as_secs_f64() * 1000.0
    );
    signal("-CONT")?;
    Ok(())
}

fn row(what: &str, one: f64, all: f64) {
    println!("    {what:<42} {one:>9.1} {all:>9.1}   {:>6.2} x", all / one);
}

fn print(what: &str, instances: usize, samples: [Sample; 2], floor: Option<[Vec<Duration>; 2]>) {
    let [one, all] = samples;
    println!(
        "  {what:<44} {:>9} {instances:>9}        by {:?}, {:?}",
        1, one.strategies, all.strategies
    );
    row("from the change to all in sync", median(one.whole), median(all.whole));
    row("of it from the revision to all in sync", median(one.spread), median(all.spread));
    if let Some([one, all]) = floor {
        row("floor: the same payloads, plain client", median(one), median(all));
    }
    row("Mapsmith's processor time", median(one.own), median(all.own));
    row(THEIRS, median(one.haproxy), median(all.haproxy));
}
