//! Whether anything grows: `scripts/bench long [MINUTES]`.
//!
//! A registry of 100,000 nodes in which 50 a second move, polled each second; a HAProxy in
//! master-worker mode that is reloaded each minute; 2,000 requests a second through it, by clients
//! that know which masters ever had a node. The registry is a stand-in, the masters are a second
//! HAProxy that answers with their names.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark ends where something fails"
)]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::open_loop::{Load, Outcome, Requests};
use common::site::wait_for;
use common::{Daemon, Gateway as Plain, haproxies, maps, status};

const MINUTES: u64 = 60;
const NODES: usize = 100_000;
const MASTERS: u8 = 8;
/// A second.
const MOVES: u32 = 50;
/// A second.
const REQUESTS: u32 = 2_000;
const CONNECTIONS: u32 = 32;
const MINUTE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let minutes =
        std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(MINUTES);
    let binary = haproxies().into_iter().next_back().context("no HAProxy: run scripts/setup")?;
    let truth = Arc::new(Truth::new());
    let masters = Masters::start(&binary)?;
    let gateway = Gateway::start(&binary, &masters, &truth)?;
    let mut daemon = start_daemon(&gateway, &masters, &registry(&truth)?)?;
    let url = daemon.api(&gateway.file("log"))?;
    in_sync(&url)?;

    println!(
        "{} (newest there is), {NODES} nodes over {MASTERS} masters, {MOVES} moves and {REQUESTS} \
            requests a second, a reload each \
         minute, {minutes} minutes",
        gateway.version()?
    );
    println!("memory in MB; latency in ms from the moment a request was due");
    println!(
        "minute  requests  failed  wrong     p50     p99   p99.9 |  mapsmith     fds | workers  \
            of each  revision  moves so far"
    );
    let mut moved = 0;
    let (mut first, mut last) = (None, Figures::default());
    let (mut failed, mut wrong, mut requests) = (0, 0, 0);
    for minute in 1..=minutes {
        let questions =
            Questions { truth: &truth, first: minute * u64::from(REQUESTS) * MINUTE.as_secs() };
        let load = Load {
            address: gateway.address,
            rate: REQUESTS,
            connections: CONNECTIONS,
            requests: questions,
        };
        let outcome = thread::scope(|scope| {
            let load = scope.spawn(|| load.run(Duration::ZERO, MINUTE));
            let (start, already, mut reload) = (Instant::now(), moved, Some(MINUTE / 2));
            while !load.is_finished() {
                let due = already + u64::from(MOVES) * start.elapsed().as_millis() as u64 / 1000;
                (moved..due).for_each(|_| truth.moves());
                moved = due;
                if reload.take_if(|at| start.elapsed() > *at).is_some() {
                    gateway.reload()?;
                }
                thread::sleep(Duration::from_millis(20));
            }
            load.join().map_err(|_| anyhow::anyhow!("a client broke"))
        })?;
        last = figures(&gateway, &daemon, &url)?;
        print_minute(minute, &outcome, &last, moved);
        failed += outcome.failed;
        wrong += outcome.wrong;
        requests += outcome.answered();
        first.get_or_insert(last);
    }
    gateway.settle()?;
    let first = first.unwrap_or_default();
    println!(
        "\n{requests} requests answered, {wrong} of them not by a master that has or had the \
            node; {failed} not answered; {moved} moves"
    );
    println!(
        "mapsmith's memory {:.1} MB after a minute, {:.1} MB at the end; peak {:.1} MB",
        first.memory,
        last.memory,
        mb(daemon.memory("VmHWM:")?)
    );
    println!(
        "its file descriptors {} after a minute, {} at the end",
        first.descriptors, last.descriptors
    );
    println!("workers {} after a minute, {} at the end", first.workers, last.workers);
    let differences = differences(&gateway, &url, &truth)?;
    println!(
        "at quiet the map in memory differs from the registry in {differences} of {NODES} entries"
    );
    anyhow::ensure!(failed + wrong + differences as u64 == 0, "something is wrong");
    Ok(())
}

/// Which master has each node, and which ever had it.
struct Truth {
    owners: Vec<AtomicU8>,
    ever: Vec<AtomicU8>,
    /// A generator's state (splitmix64): the run is the same each time.
    random: AtomicU64,
}

impl Truth {
    fn new() -> Self {
        let owner = |node: usize| (node % usize::from(MASTERS)) as u8;
        Self {
            owners: (0..NODES).map(|node| AtomicU8::new(owner(node))).collect(),
            ever: (0..NODES).map(|node| AtomicU8::new(1 << owner(node))).collect(),
            random: AtomicU64::new(1),
        }
    }

    fn moves(&self) {
        let random = scatter(self.random.fetch_add(1, Ordering::SeqCst));
        let node = random as usize % NODES;
        let to =
            (self.owners[node].load(Ordering::SeqCst) + 1 + (random >> 40) as u8 % (MASTERS - 1))
                % MASTERS;
        // First, so that no answer of it can be early.
        self.ever[node].fetch_or(1 << to, Ordering::SeqCst);
        self.owners[node].store(to, Ordering::SeqCst);
    }

    fn entries(&self) -> impl Iterator<Item = (String, String)> {
        self.owners
            .iter()
            .enumerate()
            .map(|(node, owner)| (name(node), master(owner.load(Ordering::SeqCst))))
    }
}

/// What is asked in a minute, beginning with the request of this number.
struct Questions<'a> {
    truth: &'a Truth,
    first: u64,
}

impl Questions<'_> {
    fn node(&self, number: u64) -> usize {
        scatter(self.first + number) as usize % NODES
    }
}

impl Requests for Questions<'_> {
    fn write(&self, number: u64, request: &mut Vec<u8>) {
        let node = name(self.node(number));
        request.extend_from_slice(
            format!("GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: {node}\r\n\r\n").as_bytes(),
        );
    }

    fn right(&self, number: u64, status: u16, body: &[u8]) -> bool {
        let ever = self.truth.ever[self.node(number)].load(Ordering::SeqCst);
        status == 200
            && (0..MASTERS).any(|owner| ever & 1 << owner != 0 && master(owner).as_bytes() == body)
    }
}

/// Splitmix64's last steps: numbers without a pattern from numbers in a row.
fn scatter(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn name(node: usize) -> String {
    format!("node{node:06}.example.test")
}

fn master(number: u8) -> String {
    format!("puppet{number}")
}

/// A HAProxy that answers for every master with its name.
struct Masters {
    _process: Plain,
    ports: Vec<u16>,
}

impl Masters {
    fn start(binary: &Path) -> anyhow::Result<Self> {
        let listeners = (0..MASTERS)
            .map(|_| TcpListener::bind("127.0.0.1:0"))
            .collect::<Result<Vec<_>, _>>()?;
        let ports = listeners
            .iter()
            .map(|listener| Ok(listener.local_addr()?.port()))
            .collect::<std::io::Result<Vec<_>>>()?;
        drop(listeners);
        let sections = |_: &str| {
            let mut text = String::new();
            for (number, port) in (0..MASTERS).zip(&ports) {
                let name = master(number);
                let _ = writeln!(
                    text,
                    "frontend {name}\n  bind 127.0.0.1:{port}\n  http-request return status 200 \
                        content-type text/plain string {name}"
                );
            }
            text
        };
        Ok(Self { _process: Plain::start(binary, 2, |_| Ok(()), sections)?, ports })
    }
}

/// The HAProxy under test: a master process and its workers, which end on drop.
struct Gateway {
    process: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Gateway {
    fn start(binary: &Path, masters: &Masters, truth: &Truth) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path().display().to_string();
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let map: String =
            truth.entries().map(|(node, master)| format!("{node} {master}\n")).collect();
        fs::write(folder.path().join("n.map"), map)?;
        let mut config = format!(
            "global\n  nbthread 2\n  hard-stop-after 20s\n  stats socket {root}/admin.sock level \
                admin\ndefaults\n  mode http\n  \
             timeout client 30s\n  timeout server 30s\n  timeout connect 5s\nfrontend gateway\n  \
             bind {address}\n  \
             use_backend %[req.hdr(X-Node-Name),lower,map_str({root}/n.map,none)]\nbackend none\n"
        );
        for (number, port) in (0..MASTERS).zip(&masters.ports) {
            let name = master(number);
            let _ = writeln!(
                config,
                "backend {name}\n  balance roundrobin\n  server {name} 127.0.0.1:{port}"
            );
        }
        fs::write(folder.path().join("haproxy.cfg"), config)?;
        let log = fs::File::create(folder.path().join("haproxy.log"))?;
        let process = Command::new(binary)
            .args(["-W", "-f"])
            .arg(folder.path().join("haproxy.cfg"))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()?;
        let gateway = Self { process, folder, address };
        gateway.answers()?;
        Ok(gateway)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn call(&self, command: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(self.file("admin.sock"))?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn answers(&self) -> anyhow::Result<()> {
        wait_for("the gateway's answer", || {
            self.call("show info").ok()?.contains("Version").then_some(())
        })
    }

    fn version(&self) -> anyhow::Result<String> {
        let info = self.call("show info")?;
        let version =
            info.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or_default();
        Ok(format!("HAProxy {version}"))
    }

    fn reload(&self) -> anyhow::Result<()> {
        let status =
            Command::new("kill").args(["-USR2", &self.process.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "the gateway's master process is gone");
        Ok(())
    }

    fn workers(&self) -> Vec<String> {
        let master = self.process.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))
            .unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until the workers of former configurations are gone.
    fn settle(&self) -> anyhow::Result<()> {
        wait_for("the end of the old workers", || (self.workers().len() == 1).then_some(()))?;
        self.answers()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // The master process takes its workers with it.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// Answers every request with the present owners; its address.
fn registry(truth: &Arc<Truth>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/nodes.json", listener.local_addr()?);
    let truth = truth.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let truth = truth.clone();
            thread::spawn(move || answer(stream, &truth));
        }
    });
    Ok(url)
}

fn answer(stream: TcpStream, truth: &Truth) -> std::io::Result<()> {
    let mut body = String::with_capacity(NODES * 40);
    for (node, master) in truth.entries() {
        let _ = write!(body, "{}\"{node}\":\"{master}\"", if body.is_empty() { '{' } else { ',' });
    }
    body.push('}');
    maps::answer(stream, body.as_bytes())
}

fn start_daemon(gateway: &Gateway, masters: &Masters, registry: &str) -> anyhow::Result<Daemon> {
    let root = gateway.folder.path().display().to_string();
    let mut settings = format!(
        "[schedule]\npoll = \"1s\"\n[api]\nlisten = \"127.0.0.1:0\"\n[store]\npath \
            = \"{root}/store.db\"\n[map]\npath = \"{root}/n.map\"\n\
         [guard]\nmax_moved = \"100%\"\n[damping]\nhold = \"0s\"\n\
         [[source]]\nname = \"registry\"\ntype = \"http_json\"\nurl = \"{registry}\"\n\
         [[instance]]\nname = \"edge\"\nruntime = \"unix@{root}/admin.sock\"\n"
    );
    for (number, port) in (0..MASTERS).zip(&masters.ports) {
        let name = master(number);
        let _ = writeln!(
            settings,
            "[[backend]]\nname = \"{name}\"\nservers = [{{ name = \"{name}\", address \
                = \"127.0.0.1:{port}\" }}]"
        );
    }
    fs::write(gateway.file("mapsmith.toml"), settings)?;
    Ok(Daemon::start(gateway.folder.path())?)
}

fn in_sync(url: &str) -> anyhow::Result<()> {
    wait_for("being in sync", || {
        (status(url).ok()?["instances"][0]["state"] == "in_sync").then_some(())
    })
}

#[derive(Clone, Copy, Default)]
struct Figures {
    /// The daemon's resident memory, in MB.
    memory: f64,
    descriptors: usize,
    workers: usize,
    /// The resident memory of each worker on average, in MB.
    worker: f64,
    revision: u64,
}

fn mb(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn figures(gateway: &Gateway, daemon: &Daemon, url: &str) -> anyhow::Result<Figures> {
    let workers = gateway.workers();
    let resident = |process: &String| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let all: u64 = workers.iter().filter_map(resident).sum();
    Ok(Figures {
        memory: mb(daemon.memory("VmRSS:")?),
        descriptors: fs::read_dir(format!("/proc/{}/fd", daemon.0.id()))?.count(),
        workers: workers.len(),
        worker: mb(all) / workers.len().max(1) as f64,
        revision: status(url)?["revision"].as_u64().unwrap_or_default(),
    })
}

fn print_minute(minute: u64, outcome: &Outcome, figures: &Figures, moved: u64) {
    let ms = |part: f64| outcome.quantile(part).as_secs_f64() * 1000.0;
    println!(
        "{minute:>6} {:>9} {:>7} {:>6} {:>7.2} {:>7.2} {:>7.2} | {:>9.1} {:>7} | {:>7} {:>8.1} \
            {:>9} {moved:>13}",
        outcome.answered(),
        outcome.failed,
        outcome.wrong,
        ms(0.5),
        ms(0.99),
        ms(0.999),
        figures.memory,
        figures.descriptors,
        figures.workers,
        figures.worker,
        figures.revision,
    );
}

/// Once nothing moves any more: in how many entries HAProxy's memory and the registry differ.
fn differences(gateway: &Gateway, url: &str, truth: &Truth) -> anyhow::Result<usize> {
    let wanted: std::collections::BTreeMap<_, _> = truth.entries().collect();
    let start = Instant::now();
    loop {
        in_sync(url)?;
        let listing = gateway.call(&format!("show map {}", gateway.file("n.map").display()))?;
        let rows = listing
            .lines()
            .filter_map(|line| line.split(' ').skip(1).collect::<Vec<_>>().try_into().ok());
        let held: Vec<[&str; 2]> = rows.collect();
        let right = held
            .iter()
            .filter(|[node, master]| wanted.get(*node).is_some_and(|wanted| wanted == master))
            .count();
        let differences = held.len().abs_diff(right) + wanted.len().abs_diff(right);
        if differences == 0 || start.elapsed() > Duration::from_secs(20) {
            return Ok(differences);
        }
        thread::sleep(Duration::from_millis(200));
    }
}
