//! What keeping server lists costs, against a real HAProxy: `scripts/bench servers [BACKENDS]`.
//!
//! Backends without servers get four each; then a second pass must send nothing. The floor is the
//! same commands, made beforehand and sent by the simplest client that could work, without a look
//! before or after.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Daemon, Gateway, PATIENCE, haproxies, processor, status};

const BACKENDS: usize = 500;
const SERVERS: usize = 4;
/// A command line's size, in bytes, as Mapsmith's own.
const LINE: usize = 15 * 1024;

fn main() -> anyhow::Result<()> {
    let backends =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(BACKENDS);
    println!("{backends} backends x {SERVERS} servers, from none to all ready; milliseconds");
    println!(
        "floor: the same commands over blocking connections, no look before or after; Mapsmith \
            without `damping.debounce` (1000)"
    );
    for binary in haproxies() {
        let sections = |root: &str| {
            let mut text = format!(
                "frontend gateway\n  bind unix@{root}/http.sock\n  use_backend \
                    %[str(x),map_str({root}/n.map,none)]\nbackend none\n"
            );
            for backend in 0..backends {
                let _ = writeln!(text, "backend b{backend}\n  balance roundrobin");
            }
            text
        };
        let gateway =
            Gateway::start(&binary, 2, |root| fs::write(root.join("n.map"), "x none\n"), sections)?;
        let floor = floor(&gateway, backends)?;
        drop(gateway);
        let gateway =
            Gateway::start(&binary, 2, |root| fs::write(root.join("n.map"), "x none\n"), sections)?;
        measure(&gateway, backends, floor)?;
    }
    Ok(())
}

fn address(backend: usize, server: usize) -> String {
    format!("10.{}.{}.{}:8140", backend / 250, backend % 250, server + 1)
}

fn floor(gateway: &Gateway, backends: usize) -> anyhow::Result<Duration> {
    let mut lines = vec![String::new()];
    for backend in 0..backends {
        for server in 0..SERVERS {
            let at = format!("b{backend}/s{server}");
            let command = format!(
                "add server {at} {} weight 10;enable server {at}",
                address(backend, server)
            );
            match lines.last_mut() {
                Some(line) if line.len() + command.len() + 2 < LINE => {
                    if !line.is_empty() {
                        line.push(';');
                    }
                    line.push_str(&command);
                }
                _ => lines.push(command),
            }
        }
    }
    let start = Instant::now();
    for line in &lines {
        gateway.call(format!("{line}\n").as_bytes())?;
    }
    let took = start.elapsed();
    let state = String::from_utf8_lossy(&gateway.call(b"show servers state\n")?).into_owned();
    let made = state.lines().filter(|line| line.contains(" s")).count();
    anyhow::ensure!(made >= backends * SERVERS, "the floor made {made} servers only");
    Ok(took)
}

/// A map of one node, and the servers of each backend as a list in the settings.
fn write_settings(root: &Path, backends: usize) -> anyhow::Result<()> {
    let mut settings = format!(
        "[schedule]\npoll = \"1h\"\nservers = \"1s\"\n[damping]\ndebounce = \"0s\"\n[api]\nlisten \
            = \"127.0.0.1:0\"\n[map]\npath = \"{0}/n.map\"\n[[source]]\nname = \"nodes\"\n\
         type = \"file\"\npath = \"{0}/nodes.json\"\n[[instance]]\nname = \"edge\"\nruntime \
         = \"unix@{0}/admin.sock\"\n",
        root.display()
    );
    fs::write(root.join("nodes.json"), "{\"x\": \"none\"}")?;
    for backend in 0..backends {
        let servers: Vec<_> = (0..SERVERS)
            .map(|server| {
                format!(
                    "{{ name = \"s{server}\", address = \"{}\", weight = 10 }}",
                    address(backend, server)
                )
            })
            .collect();
        let _ = writeln!(
            settings,
            "[[backend]]\nname = \"b{backend}\"\nservers = [{}]",
            servers.join(", ")
        );
    }
    fs::write(root.join("mapsmith.toml"), settings)?;
    Ok(())
}

fn measure(gateway: &Gateway, backends: usize, floor: Duration) -> anyhow::Result<()> {
    let root = gateway.folder.path();
    write_settings(root, backends)?;
    let before = gateway.processor();
    let start = Instant::now();
    let mut daemon = Daemon::start(root)?;
    let url = daemon.api(&root.join("log"))?;
    let servers = loop {
        let servers = status(&url)?["instances"][0]["servers"].clone();
        if servers["state"] == "in_sync" {
            break servers;
        }
        anyhow::ensure!(start.elapsed() < PATIENCE, "not in sync: {servers:#}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let took = start.elapsed();
    let sent = servers["steps"].as_u64().unwrap_or_default();
    let (haproxy, own) = (gateway.processor() - before, processor(daemon.0.id()));
    // Some more looks; a second pass must send nothing.
    let looked = servers["observed_at"].clone();
    let mut looks = 0;
    let (mut last, began) = (looked, Instant::now());
    let (haproxy_idle, own_idle) = (gateway.processor(), processor(daemon.0.id()));
    // Asked rarely: a status of so many servers costs more than a look.
    while looks < 5 {
        std::thread::sleep(Duration::from_secs(1));
        let servers = status(&url)?["instances"][0]["servers"].clone();
        if servers["observed_at"] != last {
            looks += 1;
            last = servers["observed_at"].clone();
        }
        anyhow::ensure!(
            servers["steps"].as_u64() == Some(sent),
            "a second pass sent steps: {servers:#}"
        );
        anyhow::ensure!(began.elapsed() < PATIENCE, "no further look");
    }
    let per_look = |used: Duration| used.as_secs_f64() * 1000.0 / 5.0;
    println!("\nHAProxy {}", gateway.version);
    println!("  floor                              {:>8.1}", floor.as_secs_f64() * 1000.0);
    println!(
        "  from the daemon's start to in sync {:>8.1}   {:.2} of the floor; {sent} steps",
        took.as_secs_f64() * 1000.0,
        took.as_secs_f64() / floor.as_secs_f64()
    );
    println!(
        "  processor time                     {:>8.1} of HAProxy, {:.1} of Mapsmith",
        haproxy.as_secs_f64() * 1000.0,
        own.as_secs_f64() * 1000.0
    );
    println!(
        "  a second pass                      0 steps; {:.1} of HAProxy's and {:.1} of Mapsmith's \
            processor time a look",
        per_look(gateway.processor() - haproxy_idle),
        per_look(processor(daemon.0.id()) - own_idle)
    );
    println!(
        "  the daemon's peak memory           {:>8.1} MB",
        daemon.memory("VmHWM:")? as f64 / 1024.0
    );
    Ok(())
}
