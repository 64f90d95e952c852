//! The runs of a site's agents, as PuppetDB sees them: facts from the master that serves the run.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::site::{MASTERS, node};
use crate::registry::{RUN_INTERVAL, Registry, facts};
use crate::routes::Routes;

/// Masters' connections at a time.
const CLIENTS: u16 = 8;
/// A stride through all nodes: a prime that divides no number of nodes that anyone would give.
const STRIDE: usize = 7_919;

/// The agents of all nodes. Runs come at random moments, on average each node's every half hour;
/// some are served by another master than the run before.
pub(super) struct Agents<'a> {
    registry: &'a Registry,
    /// Of each node the master that served it last, by its position.
    masters: Vec<AtomicUsize>,
    runs: AtomicUsize,
    moves: AtomicUsize,
    /// A second.
    run_rate: f64,
    move_rate: f64,
}

/// What came of some minutes of runs.
#[derive(Default)]
pub(super) struct Runs {
    pub(super) count: usize,
    /// From a move's facts on their way to PuppetDB until it has stored them.
    pub(super) stored: Vec<Duration>,
}

impl<'a> Agents<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        // Few enough moves for the guard, and of small sites enough to measure.
        let move_rate = (registry.nodes as f64 / 20_000.0).clamp(1.0, 5.0);
        let run_rate = registry.nodes as f64 / RUN_INTERVAL.as_secs_f64();
        Self {
            registry,
            masters: (0..registry.nodes).map(|number| (number % MASTERS.len()).into()).collect(),
            runs: 0.into(),
            moves: 0.into(),
            run_rate: run_rate.max(move_rate),
            move_rate,
        }
    }

    /// Runs a second, and those of them that move a node.
    pub(super) fn rates(&self) -> (f64, f64) {
        (self.run_rate, self.move_rate)
    }

    /// One run after another for so long, as fast as PuppetDB stores them: Java compiles what it is
    /// asked often.
    pub(super) fn warm_up(&self, duration: Duration) {
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while start.elapsed() < duration {
                        self.usual_run(true);
                    }
                });
            }
        });
    }

    /// Goes on for so long; `routes` waits for the moves of the first `measured` of it.
    pub(super) fn run(&self, duration: Duration, measured: Duration, routes: &Routes) -> Runs {
        let (start, runs) = (Instant::now(), Mutex::new(Runs::default()));
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mine = self.client(start, duration, measured, routes);
                    let mut runs = runs.lock().expect("no client panics");
                    runs.count += mine.count;
                    runs.stored.extend(mine.stored);
                });
            }
        });
        // Whatever is still queued belongs to these runs: the commands are carried out in turn.
        self.move_one();
        runs.into_inner().expect("no client panics")
    }

    fn client(
        &self,
        start: Instant,
        duration: Duration,
        measured: Duration,
        routes: &Routes,
    ) -> Runs {
        let (mut runs, mut due) = (Runs::default(), Duration::ZERO);
        let mean = f64::from(CLIENTS) / self.run_rate;
        loop {
            // Times between independent events.
            due += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() * mean);
            if due >= duration {
                thread::sleep((start + duration).saturating_duration_since(Instant::now()));
                return runs;
            }
            thread::sleep((start + due).saturating_duration_since(Instant::now()));
            runs.count += 1;
            if fastrand::f64() * self.run_rate >= self.move_rate {
                self.usual_run(false);
                continue;
            }
            let sent = Instant::now();
            let (node, master) = self.move_one();
            runs.stored.push(sent.elapsed());
            if start.elapsed() < measured {
                routes.expect(node, master);
            }
        }
    }

    /// The node whose run is the longest ago, through the same master.
    fn usual_run(&self, wait: bool) {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let number = run % self.registry.nodes;
        let master = MASTERS[self.masters[number].load(Ordering::Relaxed)];
        self.registry.puppetdb.send_facts_with(&node(number), master, facts(run), wait);
    }

    /// A node's run through the next master; returns when it is stored.
    fn move_one(&self) -> (usize, usize) {
        let number = self.moves.fetch_add(1, Ordering::Relaxed) + self.registry.nodes / 2;
        let number = (number * STRIDE) % self.registry.nodes;
        let master = (self.masters[number].load(Ordering::Relaxed) + 1) % MASTERS.len();
        self.masters[number].store(master, Ordering::Relaxed);
        let run = self.runs.load(Ordering::Relaxed);
        self.registry.puppetdb.send_facts_with(&node(number), MASTERS[master], facts(run), true);
        (number, master)
    }
}
