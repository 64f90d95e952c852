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

mod common;
#[path = "common/stand_in.rs"]
mod stand_in;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::maps::{PAYLOAD, Registry, changed, median, nodes};
use common::{Daemon, Gateway, PATIENCE, haproxies, processor};
use haproxy_runtime::MapName;
use haproxy_runtime::wire::{Batches, Payloads};
use jiff::Timestamp;
use mapsmith_core::EntryMap;
use serde_json::Value;
use stand_in::StandIns;

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

/// HAProxys with one thread each that share a map file, or stand-ins.
struct Fleet {
    map: String,
    sockets: Vec<PathBuf>,
    /// None where they are stand-ins.
    gateways: Vec<Gateway>,
    _stand_ins: Option<StandIns>,
    folder: tempfile::TempDir,
}

impl Fleet {
    fn start(binary: &Path, count: usize, entries: &EntryMap) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let map = folder.path().join("n.map");
        let mut text = Vec::new();
        mapsmith_core::map_file::print(
            entries,
            &mapsmith_core::map_file::Header { revision: 0, writer: None },
            [],
            &mut text,
        )?;
        fs::write(&map, text)?;
        let map = map.display().to_string();
        let sections = |root: &str| {
            format!(
                "frontend gateway\n  bind unix@{root}/http.sock\n  \
                 use_backend %[req.hdr(X-Node-Name),lower,map_str({map},none)]\nbackend none\n"
            )
        };
        let gateways: Vec<_> = (0..count)
            .map(|_| Gateway::start(binary, 1, |_| Ok(()), sections))
            .collect::<Result<_, _>>()?;
        let sockets = gateways.iter().map(Gateway::socket).collect();
        Ok(Self { map, sockets, gateways, _stand_ins: None, folder })
    }

    /// So many stand-ins for an untouched fleet of one HAProxy, which is needed no more then.
    fn stand_in(of: Self, count: usize) -> anyhow::Result<Self> {
        let Self { map, mut gateways, folder, .. } = of;
        let sockets: Vec<_> =
            (0..count).map(|at| folder.path().join(format!("{at}.sock"))).collect();
        let model = gateways.pop().context("no HAProxy to stand in for")?;
        let stand_ins = StandIns::start(&model, &map, sockets.iter().map(PathBuf::as_path))?;
        Ok(Self { map, sockets, gateways, _stand_ins: Some(stand_ins), folder })
    }

    /// Of the HAProxys, or of all stand-ins: they are in this process.
    fn processor(&self) -> Duration {
        if self.gateways.is_empty() {
            return processor(std::process::id());
        }
        self.gateways.iter().map(Gateway::processor).sum()
    }

    /// The same lines to every HAProxy at once, from a plain client with a thread for each; no
    /// check of any answer.
    fn blast(&self, lines: &[Vec<u8>]) -> anyhow::Result<Duration> {
        let barrier = Barrier::new(self.gateways.len() + 1);
        std::thread::scope(|scope| {
            let send = |gateway: &Gateway| {
                barrier.wait();
                lines.iter().try_for_each(|line| gateway.call(line).map(drop))
            };
            let clients: Vec<_> =
                self.gateways.iter().map(|gateway| scope.spawn(move || send(gateway))).collect();
            barrier.wait();
            let start = Instant::now();
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client died"))??;
            }
            Ok(start.elapsed())
        })
    }

    /// A whole swap to `entries`. Every HAProxy must be at the same version.
    fn floor_of_a_swap(&self, entries: &EntryMap) -> anyhow::Result<Duration> {
        let prepare = format!("prepare map {}\n", self.map);
        let start = Instant::now();
        let answers: Vec<_> = self
            .gateways
            .iter()
            .map(|gateway| gateway.call(prepare.as_bytes()))
            .collect::<Result<_, _>>()?;
        let prepared = start.elapsed();
        anyhow::ensure!(
            answers.iter().all(|answer| *answer == answers[0]),
            "the instances are at different versions"
        );
        let answer = String::from_utf8_lossy(&answers[0]);
        let version = answer.trim().rsplit(' ').next().unwrap_or_default();
        let header = format!("add map @{version} {} <<", self.map);
        let (mut payloads, mut lines, mut payload) =
            (Payloads::new(&header, entries.iter(), PAYLOAD), Vec::new(), Vec::new());
        while payloads.next_into(&mut payload) {
            lines.push(payload.clone());
        }
        lines.push(format!("commit map @{version} {}\n", self.map).into_bytes());
        Ok(prepared + self.blast(&lines)?)
    }

    /// The single commands from `from` to `to`, which has the same nodes.
    fn floor_of_edits(&self, from: &EntryMap, to: &EntryMap) -> anyhow::Result<Duration> {
        let map = MapName::new(&self.map);
        let moved = from
            .iter()
            .zip(to.iter())
            .filter(|(from, to)| from != to)
            .map(|(_, (key, value))| map.set(key, value));
        let lines: Vec<_> =
            Batches::new(moved, PAYLOAD, usize::MAX).map(|(line, _)| line).collect();
        self.blast(&lines)
    }
}

/// A daemon and the instances that it drives.
struct Driven {
    daemon: Daemon,
    url: String,
    log: PathBuf,
}

/// One change of the registry.
#[derive(Default)]
struct Sample {
    /// From the reload's request to its answer.
    whole: Vec<Duration>,
    /// From the revision to the last instance that has it.
    spread: Vec<Duration>,
    own: Vec<Duration>,
    haproxy: Vec<Duration>,
    /// How many instances came there by which strategy, over all samples.
    strategies: BTreeMap<String, usize>,
}

impl Driven {
    fn start(fleet: &Fleet, registry: &Registry) -> anyhow::Result<Self> {
        let root = fleet.folder.path();
        let mut settings = format!(
            "[schedule]\npoll = \"1h\"\n[api]\nlisten = \"127.0.0.1:0\"\n[map]\npath \
                = \"{}\"\n[guard]\nmax_moved = \"100%\"\n[damping]\nhold = \"0s\"\n[[source]]\n\
             name = \"puppetdb\"\ntype = \"puppetdb\"\nurl = \"{}\"\nfull_poll = \"1ms\"\n",
            fleet.map, registry.url
        );
        for (at, socket) in fleet.sockets.iter().enumerate() {
            // With a hundred HAProxys on a few processors each of them is slow.
            let _ = writeln!(
                settings,
                "[[instance]]\nname = \"edge{at}\"\nruntime = \"unix@{}\"\ntimeout = \"60s\"",
                socket.display()
            );
        }
        fs::write(root.join("mapsmith.toml"), settings)?;
        let log = root.join("log");
        let mut daemon = Daemon::start(root)?;
        let url = daemon.api(&log)?;
        Ok(Self { daemon, url, log })
    }

    fn processor(&self) -> Duration {
        processor(self.daemon.0.id())
    }

    /// By hand: `mapsmith reload` is a process more.
    fn reload(&self, query: &str) -> anyhow::Result<Value> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(
            format!(
                "POST /v1/reload{query} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        serde_json::from_str(body).with_context(|| body.to_owned())
    }

    fn in_sync(&self) -> anyhow::Result<Value> {
        let report = self.reload("?wait=5m")?;
        anyhow::ensure!(
            report["outcome"] == "in_sync",
            "not in sync: {} {}",
            report["message"],
            report["detail"]
        );
        Ok(report)
    }

    /// Has the sources asked, and takes the time until every instance is in sync.
    fn take(&self, fleet: &Fleet, sample: &mut Sample) -> anyhow::Result<()> {
        let (own, haproxy, start) = (self.processor(), fleet.processor(), Instant::now());
        let report = self.in_sync()?;
        sample.whole.push(start.elapsed());
        sample.own.push(self.processor() - own);
        sample.haproxy.push(fleet.processor() - haproxy);
        let revision = report["revision"].as_u64().context("no revision")?;
        let arrivals = self.arrivals(revision)?;
        anyhow::ensure!(
            arrivals.len() == fleet.sockets.len(),
            "{} have revision {revision}",
            arrivals.len()
        );
        for (_, strategy) in &arrivals {
            *sample.strategies.entry(strategy.clone()).or_default() += 1;
        }
        sample.spread.extend(arrivals.iter().map(|(took, _)| *took).max());
        Ok(())
    }

    /// When each instance had applied a revision, counted from when it was made, and by which
    /// strategy.
    fn arrivals(&self, revision: u64) -> anyhow::Result<Vec<(Duration, String)>> {
        let (mut made, mut arrivals) = (None, Vec::new());
        for line in fs::read_to_string(&self.log)?.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let fields = &line["fields"];
            if fields["revision"] != revision {
                continue;
            }
            let message = fields["message"].as_str().unwrap_or_default();
            let at: Timestamp = line["timestamp"].as_str().context("no time")?.parse()?;
            if message.starts_with("new revision") {
                made = Some(at);
            } else if message == "map applied and verified" {
                let took = Duration::try_from(
                    at.duration_since(made.context("applied before it was made")?),
                )?;
                arrivals.push((took, fields["strategy"].as_str().unwrap_or_default().to_owned()));
            }
        }
        Ok(arrivals)
    }
}

/// The stand-ins' answers must be a HAProxy's, byte by byte, but for addresses in memory and the
/// figures of the process.
fn check_stand_ins(binary: &Path) -> anyhow::Result<()> {
    let maps = [nodes(1000, 0), nodes(1000, 1)];
    let fleet = Fleet::start(binary, 1, &maps[0])?;
    let (gateway, socket, map) =
        (&fleet.gateways[0], fleet.folder.path().join("0.sock"), &fleet.map);
    let _stand_ins = StandIns::start(gateway, map, std::iter::once(socket.as_path()))?;
    let name = MapName::new(map);
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for (version, to) in [(1, &maps[1]), (2, &maps[0])] {
        let keys = || to.iter().map(|(key, _)| key).step_by(100).chain(["nobody"]);
        let edits = Batches::new(keys().map(|key| name.set(key, "moved")), PAYLOAD, usize::MAX)
            .map(|(line, _)| line);
        let look_ups: Vec<_> = Batches::new(keys().map(|key| name.get(key)), PAYLOAD, usize::MAX)
            .map(|(line, _)| line)
            .collect();
        lines.extend(edits);
        lines.extend(look_ups.clone());
        lines.push(format!("show map {map}\n").into());
        lines.push(format!("prepare map {map}\n").into());
        let header = name.stage_header(version);
        let (mut payloads, mut payload) = (Payloads::new(&header, to.iter(), PAYLOAD), Vec::new());
        while payloads.next_into(&mut payload) {
            lines.push(payload.clone());
        }
        lines.push("show map\n".into());
        lines.push(format!("show map @{version} {map}\n").into());
        lines.push(format!("commit map @{version} {map}\n").into());
        lines.push("show map\n".into());
        lines.push(format!("show map {map}\n").into());
        lines.extend(look_ups);
    }
    for line in &lines {
        let (theirs, ours) = (gateway.call(line)?, call(&socket, line)?);
        let (theirs, ours) = (without_addresses(&theirs), without_addresses(&ours));
        let line = String::from_utf8_lossy(line);
        anyhow::ensure!(theirs == ours, "{line:?}: a HAProxy says {theirs:?}, a stand-in {ours:?}");
    }
    for line in ["show info;show cli level;show map\n", "show servers state;show stat -1 6 -1\n"] {
        let (theirs, ours) = (gateway.call(line.as_bytes())?, call(&socket, line.as_bytes())?);
        let (theirs, ours) = (without_figures(&theirs), without_figures(&ours));
        anyhow::ensure!(theirs == ours, "{line:?}: a HAProxy says {theirs:?}, a stand-in {ours:?}");
    }
    println!("stand-ins for HAProxy {}: {} answers compared", gateway.version, lines.len() + 2);
    Ok(())
}

/// Without addresses in memory.
fn without_addresses(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.split("0x")
        .map(|part| part.trim_start_matches(|character: char| character.is_ascii_hexdigit()))
        .collect()
}

fn without_figures(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|character| !character.is_ascii_digit()).collect()
}

fn call(socket: &Path, command: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(command)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// What a plain client takes to send one instance and many the same.
struct Floor {
    edits: [Vec<Duration>; 2],
    swap: [Vec<Duration>; 2],
}

impl Floor {
    fn measure(fleets: &[Fleet; 2], maps: &[EntryMap; 3]) -> anyhow::Result<Self> {
        let mut floor = Self { edits: [const { Vec::new() }; 2], swap: [const { Vec::new() }; 2] };
        for _ in 0..ROUNDS {
            for (at, fleet) in fleets.iter().enumerate() {
                floor.edits[at].push(fleet.floor_of_edits(&maps[0], &maps[1])?);
                floor.edits[at].push(fleet.floor_of_edits(&maps[1], &maps[0])?);
                floor.swap[at].push(fleet.floor_of_a_swap(&maps[2])?);
                floor.swap[at].push(fleet.floor_of_a_swap(&maps[0])?);
            }
        }
        Ok(floor)
    }
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
