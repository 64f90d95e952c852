//! What was measured, in tables.

use std::fs;
use std::time::Duration;

use crate::{Phase, Quiet};

/// How often everything is asked for, unless the settings say otherwise.
const FULL_POLL: Duration = Duration::from_secs(10 * 60);

fn name(phase: &Phase) -> String {
    phase.poll.map_or_else(|| "not polled".to_owned(), |poll| format!("`{poll}`"))
}

fn minutes(phase: &Phase) -> f64 {
    phase.took.as_secs_f64() / 60.0
}

pub(super) fn print_progress(phase: &Phase) {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split(' ').take(2).collect();
    println!(
        "{}: {:.0} s, {} runs; the machine's load average {}",
        name(phase),
        phase.took.as_secs_f64(),
        phase.runs.count,
        load.join(" ")
    );
}

/// The 50th and the 99th percentile, the most and the mean, in seconds.
fn quantiles(times: &[Duration]) -> String {
    let mut seconds: Vec<_> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_unstable_by(f64::total_cmp);
    let last = seconds.len().saturating_sub(1);
    let at = |part: f64| {
        seconds.get(((part * seconds.len() as f64) as usize).min(last)).copied().unwrap_or_default()
    };
    let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
    format!("{:.3} | {:.3} | {:.3} | {mean:.3}", at(0.5), at(0.99), at(1.0))
}

pub(super) fn print_routes(phases: &[Phase]) {
    println!("\nseconds from stored facts to the route in HAProxy's memory\n");
    println!("| `schedule.poll` | moves | polls | p50 | p99 | most | mean |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for phase in phases.iter().filter(|phase| phase.poll.is_some()) {
        let routes = &phase.routes;
        println!(
            "| {} | {} | {} | {} |",
            name(phase),
            routes.len(),
            phase.polls,
            quantiles(routes)
        );
    }
    let stored: Vec<_> = phases.iter().flat_map(|phase| phase.runs.stored.clone()).collect();
    println!("\nuntil PuppetDB had stored them (p50, p99, most, mean): {}", quantiles(&stored));
}

/// All phases of that kind.
fn unpolled(phases: &[Phase]) -> impl Iterator<Item = &Phase> {
    phases.iter().filter(|phase| phase.poll.is_none())
}

/// What both use a second while nobody polls.
fn unpolled_rate(phases: &[Phase]) -> f64 {
    let used: f64 = unpolled(phases).map(|phase| phase.cost.whole().as_secs_f64()).sum();
    used / unpolled(phases).map(|phase| phase.took.as_secs_f64()).sum::<f64>()
}

pub(super) fn print_minutes(phases: &[Phase], quiet: &Quiet) {
    let floor = unpolled_rate(phases) * 60.0;
    println!("\nseconds of processor time a minute, agents running\n");
    println!(
        "| `schedule.poll` | polls | kB a poll | runs | PuppetDB | PostgreSQL | both \
            | : not polled | Mapsmith |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for phase in phases {
        let (minutes, cost) = (minutes(phase), phase.cost.each(minutes(phase)));
        println!(
            "| {} | {:.1} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            name(phase),
            phase.polls as f64 / minutes,
            phase.bytes / 1000,
            phase.runs.count as f64 / minutes,
            cost.puppetdb.as_secs_f64(),
            cost.postgres.as_secs_f64(),
            cost.whole().as_secs_f64(),
            cost.whole().as_secs_f64() / floor,
            phase.mapsmith.as_secs_f64() / minutes
        );
    }
    let idle = quiet.idle;
    println!(
        "| no agents, not polled | | | | {:.2} | {:.2} | {:.2} | {:.2} | |",
        idle.puppetdb.as_secs_f64(),
        idle.postgres.as_secs_f64(),
        idle.whole().as_secs_f64(),
        idle.whole().as_secs_f64() / floor
    );
}

/// What one poll costs, and what so many of them add to a minute.
pub(super) fn print_polls(phases: &[Phase], quiet: &Quiet) {
    let runs: usize = unpolled(phases).map(|phase| phase.runs.count).sum();
    let seconds = unpolled(phases).map(|phase| phase.took.as_secs_f64()).sum::<f64>();
    let rate = unpolled_rate(phases);
    let run = (rate - quiet.idle.whole().as_secs_f64() / 60.0) * seconds / runs.max(1) as f64;
    println!("\none poll, no agents running; a run's facts cost both {:.1} ms\n", run * 1000.0);
    println!(
        "| poll | took ms | kB | PuppetDB ms | PostgreSQL ms | both | as much as the facts of |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (kind, single) in [("delta", &quiet.delta), ("full", &quiet.full)] {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "| {kind} | {:.1} | {} | {:.1} | {:.1} | {:.1} | {:.1} runs |",
            ms(single.took),
            single.bytes / 1000,
            ms(single.cost.puppetdb),
            ms(single.cost.postgres),
            ms(single.cost.whole()),
            single.cost.whole().as_secs_f64() / run
        );
    }
    println!("\nso polling adds to what both do for the runs, full polls included\n");
    println!("| `schedule.poll` | seconds a minute | % |\n|---|---:|---:|");
    let full = quiet.full.cost.whole().as_secs_f64() * 60.0 / FULL_POLL.as_secs_f64();
    for interval in [60.0, 10.0, 5.0, 1.0] {
        let added = quiet.delta.cost.whole().as_secs_f64() * 60.0 / interval + full;
        println!("| `{interval}s` | {added:.2} | {:.1} |", added / (rate * 60.0) * 100.0);
    }
}
