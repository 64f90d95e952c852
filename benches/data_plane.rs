//! What keeping the map costs the requests that pass meanwhile:
//! `scripts/bench data-plane [--quick] [--all] ...`.
//!
//! A gateway as shipped (two threads) in front of stand-in masters (a second HAProxy that answers
//! at once) carries a fixed rate of requests, see `common/open_loop.rs`. Meanwhile nothing happens,
//! or once a second something does; the cases take turns, so that all of them meet the same
//! machine. A percentile is the median of the rounds'.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::haproxies;
use common::open_loop::{Load, Outcome, Requests};
use common::site::{Blast, MASTERS, Masters, PAYLOAD, Site, node, nodes};
use haproxy_runtime::HaproxyVersion;
use haproxy_runtime::MapClient;
use mapsmith::instance::apply::{self, Timings};
use mapsmith_core::EntryMap;
use mapsmith_core::plan::map::MapFacts;
use mapsmith_core::plan::{CostModel, Deviation, MapPlan, plan_map};

const ENTRIES: usize = 100_000;
const CONNECTIONS: u32 = 32;
/// Left out at the start of each round: connections are being opened.
const WARM_UP: Duration = Duration::from_millis(500);
/// Between two changes, from start to start; more where one takes longer.
const PERIOD: Duration = Duration::from_secs(1);

/// What happens once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Idle,
    Swap,
    /// So many changes, by the way that the planner takes.
    Hundred,
    Ten,
    Blast,
    Reload,
}

impl Case {
    const ALL: [Self; 6] =
        [Self::Idle, Self::Swap, Self::Hundred, Self::Ten, Self::Blast, Self::Reload];

    fn label(self) -> &'static str {
        match self {
            Self::Idle => "nothing",
            Self::Swap => "full swap, verified",
            Self::Hundred => "100 changes, as planned",
            Self::Ten => "10 changes, as planned",
            Self::Blast => "floor: the swap's payloads at once",
            Self::Reload => "file rewritten, HAProxy reloaded",
        }
    }
}

/// The flags of the command line.
struct Options {
    all: bool,
    rate: u32,
    rounds: usize,
    round: Duration,
}

impl Options {
    fn read() -> anyhow::Result<Self> {
        let mut options =
            Self { all: false, rate: 2_000, rounds: 5, round: Duration::from_secs(8) };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || -> anyhow::Result<u32> {
                let value = arguments.next().unwrap_or_default();
                value.parse().with_context(|| format!("{argument} {value}: a number is missing"))
            };
            match argument.as_str() {
                "--quick" => (options.rounds, options.round) = (1, Duration::from_secs(4)),
                "--all" => options.all = true,
                "--rate" => options.rate = number()?.max(1),
                "--rounds" => options.rounds = number()?.max(1) as usize,
                "--seconds" => options.round = Duration::from_secs(number()?.max(2).into()),
                // A flag of cargo's own harness.
                "--bench" => {}
                other => anyhow::bail!("{other}: no such flag"),
            }
        }
        Ok(options)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::read()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut binaries = haproxies();
    anyhow::ensure!(!binaries.is_empty(), "no HAProxy: run scripts/setup");
    if !options.all && binaries.len() > 2 {
        binaries.drain(1..binaries.len() - 1);
    }
    println!(
        "{} requests a second over {CONNECTIONS} connections; {ENTRIES} entries; {} rounds of \
            {:?} each, turn about",
        options.rate, options.rounds, options.round
    );
    println!("milliseconds; a request's from when it was due; the median of the rounds");
    for binary in binaries {
        measure(&runtime, &binary, &options)?;
    }
    Ok(())
}

/// A node of the map, another one each time, in no order.
struct AnyNode;

impl Requests for AnyNode {
    fn write(&self, number: u64, request: &mut Vec<u8>) {
        // A prime that is no divisor of ENTRIES: every node has its turn.
        let node = node((number * 7_919) as usize % ENTRIES);
        request.extend_from_slice(
            format!("GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: {node}\r\n\r\n").as_bytes(),
        );
    }

    fn right(&self, _number: u64, status: u16, body: &[u8]) -> bool {
        status == 200 && MASTERS.iter().any(|master| master.as_bytes() == body)
    }
}

/// One case's rounds.
#[derive(Default)]
struct Rounds {
    outcomes: Vec<Outcome>,
    changes: Vec<Change>,
}

struct Change {
    took: Duration,
    way: &'static str,
}

/// What the maps are changed between.
struct Maps {
    /// Every node moves from the one to the other.
    whole: [EntryMap; 2],
    /// The first one with so many moves.
    hundred: EntryMap,
    ten: EntryMap,
}

impl Maps {
    fn new() -> Self {
        let whole = [nodes(ENTRIES, 0), nodes(ENTRIES, 1)];
        // Spread over the map: a list is walked to each of them.
        let moved = |changes: usize| {
            let pairs = whole[0].iter().zip(whole[1].iter()).enumerate();
            pairs
                .map(|(at, (from, to))| if at % (ENTRIES / changes) == 0 { to } else { from })
                .collect()
        };
        Self { hundred: moved(100), ten: moved(10), whole }
    }
}

impl Rounds {
    /// In milliseconds.
    fn quantile(&self, part: f64) -> f64 {
        median(self.outcomes.iter().map(|outcome| outcome.quantile(part)).collect())
    }

    fn sum(&self, count: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(count).sum()
    }
}

/// In milliseconds; zero of none.
fn median(mut values: Vec<Duration>) -> f64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1000.0
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    binary: &Path,
    options: &Options,
) -> anyhow::Result<()> {
    let maps = Arc::new(Maps::new());
    let masters = Masters::start(binary)?;
    let site = Arc::new(Site::start(binary, &maps.whole[0], masters.addresses)?);
    let load = Load {
        address: site.address,
        rate: options.rate,
        connections: CONNECTIONS,
        requests: AnyNode,
    };
    let mut rounds = Case::ALL.map(|_| Rounds::default());
    for _ in 0..options.rounds {
        for (case, rounds) in Case::ALL.into_iter().zip(&mut rounds) {
            let until = Instant::now() + options.round;
            let changing =
                runtime.spawn(keep_changing(case, Arc::clone(&site), Arc::clone(&maps), until));
            rounds.outcomes.push(load.run(WARM_UP, options.round));
            rounds.changes.extend(runtime.block_on(changing)??);
            site.settle()?;
        }
    }
    print(&site.version, &rounds);
    Ok(())
}

/// Changes the map once a second; how long each change took, and by what way.
async fn keep_changing(
    case: Case,
    site: Arc<Site>,
    maps: Arc<Maps>,
    until: Instant,
) -> anyhow::Result<Vec<Change>> {
    let mut changes = Vec::new();
    let mut next = Instant::now();
    while case != Case::Idle && next < until {
        tokio::time::sleep_until(next.into()).await;
        let start = Instant::now();
        changes.push(change(case, &site, &maps, changes.len() + 1).await?);
        next = (start + PERIOD).max(Instant::now());
    }
    Ok(changes)
}

/// One change, from the first map to the second and back in turn; without what is made beforehand
/// for the floor.
async fn change(
    case: Case,
    site: &Arc<Site>,
    maps: &Arc<Maps>,
    turn: usize,
) -> anyhow::Result<Change> {
    let client = site.client(PAYLOAD);
    let map = &maps.whole[turn % 2];
    let mut start = Instant::now();
    let way = match case {
        Case::Idle => "",
        Case::Swap => {
            apply::swap(&client, map, &mut Timings::default()).await?;
            "swap"
        }
        Case::Hundred => apply_planned(site, &client, &maps.whole[0], &maps.hundred, turn).await?,
        Case::Ten => apply_planned(site, &client, &maps.whole[0], &maps.ten, turn).await?,
        Case::Blast => {
            let blast = Blast::prepare(site, map, PAYLOAD)?;
            start = Instant::now();
            tokio::task::spawn_blocking(move || blast.send()).await??;
            "swap"
        }
        Case::Reload => {
            let (site, maps) = (Arc::clone(site), Arc::clone(maps));
            tokio::task::spawn_blocking(move || site.rewrite_and_reload(&maps.whole[turn % 2]))
                .await??;
            "reload"
        }
    };
    Ok(Change { took: start.elapsed(), way })
}

/// From one map to the other, or back, as an instance's task does it. What memory holds is near
/// enough to the one or the other for the way that is taken: only the commands' number counts.
async fn apply_planned(
    site: &Site,
    client: &MapClient,
    map: &EntryMap,
    moved: &EntryMap,
    turn: usize,
) -> anyhow::Result<&'static str> {
    let (from, to) = if turn % 2 == 1 { (map, moved) } else { (moved, map) };
    let version: HaproxyVersion = site.version.parse().map_err(anyhow::Error::msg)?;
    let memory = MapFacts { entries: ENTRIES, staged_entries: 0, cost: CostModel::new(version) };
    match plan_map(to, &Deviation::between(from, to), &memory) {
        MapPlan::Edit { edits, .. } => {
            let most = memory.cost.edits_a_line(ENTRIES);
            apply::edit(client, &edits, most, &mut Timings::default()).await?;
            Ok("edits")
        }
        _ => {
            apply::swap(client, to, &mut Timings::default()).await?;
            Ok("swap")
        }
    }
}

fn print(version: &str, rounds: &[Rounds; Case::ALL.len()]) {
    println!("\nHAProxy {version}\n");
    println!(
        "| once a second | way | changes | one took | p50 | p99 | p99.9 | p99 : idle | p99 : \
            reload | not right | reconnected |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    let p99 = |case: Case| rounds[case as usize].quantile(0.99);
    for case in Case::ALL {
        let rounds = &rounds[case as usize];
        println!(
            "| {:<34} | {:<6} | {:>4} | {:>7.1} | {:>6.2} | {:>7.2} | {:>7.2} | {:>6.2} | {:>6.2} \
                | {:>3} | {:>5} |",
            case.label(),
            rounds.changes.first().map_or("", |change| change.way),
            rounds.changes.len(),
            median(rounds.changes.iter().map(|change| change.took).collect()),
            rounds.quantile(0.5),
            rounds.quantile(0.99),
            rounds.quantile(0.999),
            p99(case) / p99(Case::Idle),
            p99(case) / p99(Case::Reload),
            rounds.sum(|outcome| outcome.wrong + outcome.failed),
            rounds.sum(|outcome| outcome.reconnected),
        );
    }
}
