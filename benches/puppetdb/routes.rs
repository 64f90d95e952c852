//! When a route is in HAProxy's memory.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::site::{MASTERS, Site, node};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A route that has not come within this counts as lost.
const PATIENCE: Duration = Duration::from_secs(180);
/// What is looked at each time. A poll brings all that was stored before it: as long as none of the
/// oldest is there, none of the others is.
const OLDEST: usize = 4;
/// Names in one command line, which has to fit in HAProxy's buffer.
const NAMES: usize = 100;

/// A node whose facts are stored, and its master by them.
#[derive(Clone, Copy)]
struct Move {
    node: usize,
    master: usize,
    stored: Instant,
}

/// The moves that wait for their route, the oldest first.
#[derive(Default)]
pub(super) struct Routes {
    waiting: Mutex<VecDeque<Move>>,
    over: AtomicBool,
}

impl Routes {
    /// PuppetDB has just said that it stored this.
    pub(super) fn expect(&self, node: usize, master: usize) {
        self.lock().push_back(Move { node, master, stored: Instant::now() });
    }

    /// No more moves come: [`Self::watch`] ends with the last route.
    pub(super) fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// The time that each route took, from the stored facts on.
    pub(super) fn watch(&self, site: &Site) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        loop {
            let oldest: Vec<_> = self.lock().iter().take(OLDEST).copied().collect();
            if oldest.is_empty() && self.over.load(Ordering::Relaxed) {
                return Ok(times);
            }
            let late = oldest.first().is_some_and(|oldest| oldest.stored.elapsed() > PATIENCE);
            anyhow::ensure!(!late, "a route did not come within {PATIENCE:?}");
            if arrived(site, &oldest)?.is_empty() {
                thread::sleep(LOOK_EVERY);
                continue;
            }
            let all: Vec<_> = self.lock().iter().copied().collect();
            for (node, took) in arrived(site, &all)? {
                times.push(took);
                self.lock().retain(|waiting| waiting.node != node);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Move>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nodes of these whose route is in memory, and how long each took.
fn arrived(site: &Site, moves: &[Move]) -> anyhow::Result<Vec<(usize, Duration)>> {
    let (map, mut there) = (site.map(), Vec::new());
    for moves in moves.chunks(NAMES) {
        let line = moves.iter().fold(String::new(), |mut line, each| {
            let _ = write!(line, "get map {map} {};", node(each.node));
            line
        });
        let answer = site.call(line.trim_end_matches(';'))?;
        let seen = Instant::now();
        let rows: Vec<_> = answer.lines().filter(|row| row.contains("found=")).collect();
        anyhow::ensure!(rows.len() == moves.len(), "asked for {}:\n{answer}", moves.len());
        let right = moves
            .iter()
            .zip(rows)
            .filter(|(each, row)| row.contains(&format!("value=\"{}\"", MASTERS[each.master])));
        there.extend(right.map(|(each, _)| (each.node, seen - each.stored)));
    }
    Ok(there)
}
