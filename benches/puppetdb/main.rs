//! How soon a route follows the facts of a node, and what being polled costs PuppetDB:
//! `scripts/bench puppetdb [--quick] [NODES]`.
//!
//! A real PuppetDB on a real PostgreSQL knows the nodes, whose agents run every half hour; the
//! daemon polls it over TLS with the default query, for a gateway as shipped. Every run stores the
//! node's facts, and a few runs are served by another master than the node's last one: those are
//! timed from PuppetDB's word that it stored them until HAProxy's memory has the route. The
//! processor time of PuppetDB and PostgreSQL stands beside that of the same runs while nobody
//! polls. What one poll costs is measured at the end, while no agent runs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod agents;
#[path = "../common/mod.rs"]
mod common;
mod daemon;
mod registry;
mod routes;
mod tables;

use std::thread;
use std::time::{Duration, Instant};

use agents::{Agents, Runs};
use common::site::{Masters, Site, nodes};
use common::{haproxies, processor};
use daemon::Polling;
use registry::{Cost, Registry};
use routes::Routes;
use tables::{print_minutes, print_polls, print_progress, print_routes};

const NODES: usize = 100_000;
const QUICK_NODES: usize = 5_000;

/// Polls of a kind that do not count: Java compiles what they need.
const WARM_UP: Duration = Duration::from_secs(5);
const WARM_UP_POLLS: u32 = 3;

/// What is measured, and for how long.
struct Plan {
    warm_up: Duration,
    /// Nobody polls: before all others and after them.
    unpolled: Duration,
    /// `schedule.poll`, the most that a route may be on its way, and for how long.
    polls: Vec<(&'static str, Duration, Duration)>,
    /// No agent runs, with and without polls each second.
    quiet: Duration,
    full_polls: u32,
}

impl Plan {
    fn new(quick: bool) -> Self {
        let seconds = Duration::from_secs;
        if quick {
            let polls = vec![("5s", seconds(8), seconds(30))];
            let (warm_up, unpolled, quiet) = (seconds(20), seconds(10), seconds(5));
            return Self { warm_up, unpolled, polls, quiet, full_polls: 3 };
        }
        // The interval, its jitter, and a moment.
        let polls = vec![
            ("60s", seconds(66), seconds(205)),
            ("10s", seconds(16), seconds(80)),
            ("5s", seconds(8), seconds(80)),
        ];
        let (warm_up, unpolled, quiet) = (seconds(45), seconds(60), seconds(25));
        Self { warm_up, unpolled, polls, quiet, full_polls: 10 }
    }
}

/// Some time with runs of agents.
struct Phase {
    poll: Option<&'static str>,
    took: Duration,
    runs: Runs,
    cost: Cost,
    mapsmith: Duration,
    polls: u64,
    /// Of the last answer.
    bytes: u64,
    routes: Vec<Duration>,
}

/// What one poll costs, while no agent runs.
struct Single {
    cost: Cost,
    took: Duration,
    bytes: u64,
}

fn main() -> anyhow::Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let nodes_given = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let count = nodes_given.unwrap_or(if quick { QUICK_NODES } else { NODES });
    let binary =
        haproxies().pop().ok_or_else(|| anyhow::anyhow!("no HAProxy: run scripts/setup"))?;
    let plan = Plan::new(quick);

    let registry = Registry::start(count);
    let masters = Masters::start(&binary)?;
    let site = Site::start(&binary, &nodes(count, 0), masters.addresses)?;
    let agents = Agents::new(&registry);
    let (runs, moves) = agents.rates();
    println!(
        "HAProxy {}, {count} nodes; {runs:.1} runs of agents a second, of which {moves:.1} move a \
            node",
        site.version
    );
    agents.warm_up(plan.warm_up);

    let mut phases = vec![unpolled(&registry, &agents, plan.unpolled)];
    for (poll, most, duration) in plan.polls {
        phases.push(polled(&registry, &agents, &site, poll, duration, duration - most)?);
    }
    phases.push(unpolled(&registry, &agents, plan.unpolled));
    let quiet = Quiet::measure(&registry, &site, plan.quiet, plan.full_polls)?;

    print_routes(&phases);
    print_minutes(&phases, &quiet);
    print_polls(&phases, &quiet);
    Ok(())
}

/// Runs while nobody polls.
fn unpolled(registry: &Registry, agents: &Agents<'_>, duration: Duration) -> Phase {
    let (start, before) = (Instant::now(), registry.cost());
    let runs = agents.run(duration, Duration::ZERO, &Routes::default());
    let phase = Phase {
        poll: None,
        took: start.elapsed(),
        runs,
        cost: registry.cost() - before,
        mapsmith: Duration::ZERO,
        polls: 0,
        bytes: 0,
        routes: Vec::new(),
    };
    print_progress(&phase);
    phase
}

/// Runs while Mapsmith polls; the routes of the first `measured` are timed.
fn polled(
    registry: &Registry,
    agents: &Agents<'_>,
    site: &Site,
    poll: &'static str,
    duration: Duration,
    measured: Duration,
) -> anyhow::Result<Phase> {
    let polling = Polling::start(site, registry, &format!("poll = \"{poll}\""))?;
    let routes = Routes::default();
    let (start, before) = (Instant::now(), registry.cost());
    let (mapsmith, polls_before) = (processor(polling.process()), polling.polls("delta")?);
    let (phase, times) = thread::scope(|scope| -> anyhow::Result<_> {
        let watch = scope.spawn(|| routes.watch(site));
        let runs = agents.run(duration, measured, &routes);
        let phase = Phase {
            poll: Some(poll),
            took: start.elapsed(),
            runs,
            cost: registry.cost() - before,
            mapsmith: processor(polling.process()) - mapsmith,
            polls: polling.polls("delta")?.count - polls_before.count,
            bytes: polling.last_bytes()?,
            routes: Vec::new(),
        };
        routes.close();
        Ok((phase, watch.join().expect("the watch does not panic")?))
    })?;
    let phase = Phase { routes: times, ..phase };
    print_progress(&phase);
    Ok(phase)
}

/// What polls cost that nothing else is beside.
struct Quiet {
    /// A minute of nothing at all.
    idle: Cost,
    delta: Single,
    full: Single,
}

impl Quiet {
    fn measure(
        registry: &Registry,
        site: &Site,
        duration: Duration,
        full_polls: u32,
    ) -> anyhow::Result<Self> {
        let (start, before) = (Instant::now(), registry.cost());
        thread::sleep(duration);
        let idle = (registry.cost() - before).each(start.elapsed().as_secs_f64());

        // No agent runs, so every delta reaches back to the same time: the last two minutes' runs.
        let polling = Polling::start(site, registry, "poll = \"1s\"")?;
        thread::sleep(WARM_UP);
        let delta = Self::single(registry, &polling, idle, "delta", || {
            thread::sleep(duration);
            Ok(())
        })?;
        drop(polling);
        let polling = Polling::start(site, registry, "poll = \"1h\"")?;
        (0..WARM_UP_POLLS).try_for_each(|_| polling.reload())?;
        let full = Self::single(registry, &polling, idle, "full", || {
            (0..full_polls).try_for_each(|_| polling.reload())
        })?;
        Ok(Self { idle: idle.each(1.0 / 60.0), delta, full })
    }

    /// One poll of those that `work` brings, without what passes by itself meanwhile.
    fn single(
        registry: &Registry,
        polling: &Polling,
        idle: Cost,
        kind: &str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Single> {
        let (start, before, polls) = (Instant::now(), registry.cost(), polling.polls(kind)?);
        work()?;
        let aside = idle.each(1.0 / start.elapsed().as_secs_f64());
        let polls = polling.polls(kind)? - polls;
        anyhow::ensure!(polls.count > 0, "no {kind} poll");
        Ok(Single {
            cost: (registry.cost() - before - aside).each(polls.count as f64),
            took: polls.took.div_f64(polls.count as f64),
            bytes: polling.last_bytes()?,
        })
    }
}
