//! Faults against the running whole, drawn from a seed: HAProxy, Mapsmith, registries, sockets,
//! disks and the clock fail one after the other while nodes move, clients ask, and the laws of
//! `laws` are watched all along. See docs/testing.md.
//!
//! Without variables a short round of fixed seeds runs. `MAPSMITH_FAULT_SEEDS` is how many,
//! `MAPSMITH_FAULT_FROM` the first of them, `MAPSMITH_FAULT_JOBS` how many at a time:
//! `scripts/faults` sets them.

mod answers;
mod client;
mod crowd;
mod daemon;
pub mod disk;
mod guard;
mod laws;
mod map_file;
mod outage;
mod process;
mod registry;
mod rollout;
pub mod run;
mod schedule;
pub mod site;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use run::Figures;

/// The short round: on the oldest and the newest HAProxy, together nearly every kind of fault; the
/// last one needs the guard.
const SHORT: [u64; 3] = [14, 36, 16];

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is no number: {value:?}")))
}

#[test]
fn whatever_fails_no_law_is_broken_and_in_the_end_all_is_in_sync() {
    run_seeds(&SHORT, run::run_seed);
}

/// Runs the seeds that the variables say, or else a short round.
///
/// # Panics
/// When a seed fails, with all of them.
pub fn run_seeds(short: &[u64], run_seed: impl Fn(u64) -> Result<Figures, String> + Sync) {
    let seeds: Vec<u64> = match number("MAPSMITH_FAULT_SEEDS") {
        Some(count) => {
            let from = number("MAPSMITH_FAULT_FROM").unwrap_or(1);
            (from..from + count).collect()
        }
        None => short.to_vec(),
    };
    let jobs = number("MAPSMITH_FAULT_JOBS").unwrap_or(2);
    let began = Instant::now();
    let (next, ended, requests) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let (faults, failed) = (Mutex::new(BTreeMap::<String, usize>::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match run_seed(*seed) {
                        Ok(figures) => {
                            let count: usize = figures.faults.values().sum();
                            println!(
                                "[{}/{}] seed {seed}: {count} faults, {} requests, {:.1} s, in \
                                    sync {:.1} s after a fault at the latest",
                                ended.fetch_add(1, Ordering::Relaxed) + 1,
                                seeds.len(),
                                figures.requests,
                                figures.took.as_secs_f64(),
                                figures.longest.as_secs_f64()
                            );
                            // Whoever asks for one seed wants to see what it does.
                            if seeds.len() == 1 {
                                println!("{}", figures.journal);
                            }
                            requests.fetch_add(figures.requests, Ordering::Relaxed);
                            let mut faults = faults.lock().expect("nobody panics with it");
                            figures.faults.into_iter().for_each(|(kind, count)| {
                                *faults.entry(kind).or_default() += count
                            });
                        }
                        Err(report) => {
                            println!(
                                "[{}/{}] FAILED \
                                {report}",
                                ended.fetch_add(1, Ordering::Relaxed) + 1,
                                seeds.len()
                            );
                            failed.lock().expect("nobody panics with it").push(*seed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    println!(
        "{} seeds in {:.0} s, {} requests",
        seeds.len(),
        began.elapsed().as_secs_f64(),
        requests.into_inner()
    );
    println!("faults: {:?}", faults.into_inner().expect("nobody panics with it"));
    assert!(failed.is_empty(), "laws were broken with the seeds {failed:?}: see above");
}
