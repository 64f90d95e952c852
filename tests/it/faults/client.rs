//! Who watches all along: clients that know the truth, a reader of the map file, and a reader of every gateway's memory.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::laws::{Judged, Laws};
use super::schedule::Routing;
use crate::support::haproxy::{ask, entries_of};
use crate::support::load::ask_once;
use crate::support::owners::Owners;
use crate::support::random::Random;
use crate::support::site::Nodes;

/// As many requests as a site has, not as many as two cores can.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(2);
const BETWEEN_FILES: Duration = Duration::from_millis(2);
const BETWEEN_MEMORIES: Duration = Duration::from_millis(60);
const CLIENTS_A_GATEWAY: usize = 2;

/// The nodes that every map has had since all was in step, and has still: what clients ask for. Shared.
pub type Known = Arc<RwLock<BTreeSet<String>>>;

/// What the watchers watch.
pub struct Watched {
    pub routing: Routing,
    pub seed: u64,
    pub laws: Arc<Laws>,
    pub owners: Owners,
    pub known: Known,
    /// Where clients ask, and the admin socket, of each gateway.
    pub gateways: Vec<(SocketAddr, String)>,
    pub map: PathBuf,
}

/// They run until they are dropped.
pub struct Watchers {
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watchers {
    /// Nobody watches.
    pub fn none() -> Self {
        Self { ending: Arc::default(), threads: Vec::new() }
    }

    pub fn start(watched: Watched) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let watched = Arc::new(watched);
        let mut threads = Vec::new();
        let shared = || (watched.clone(), ending.clone());
        for gateway in 0..watched.gateways.len() {
            for client in 0..CLIENTS_A_GATEWAY {
                let (watched, ending) = shared();
                threads.push(thread::spawn(move || request(&watched, gateway, client, &ending)));
            }
            let (watched, ending) = shared();
            threads.push(thread::spawn(move || read_memory(&watched, gateway, &ending)));
        }
        threads.push(thread::spawn({
            let (watched, ending) = shared();
            move || read_file(&watched, &ending)
        }));
        Self { ending, threads }
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for watcher in self.threads.drain(..) {
            // A watcher that panicked has said so itself.
            let _ = watcher.join();
        }
    }
}

fn request(watched: &Watched, gateway: usize, client: usize, ending: &AtomicBool) {
    let Watched { laws, owners, known, .. } = watched;
    let mut random = Random::new(watched.seed ^ (gateway * CLIENTS_A_GATEWAY + client) as u64);
    let mut connection = None;
    let mut nodes: Vec<String> = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        if nodes.is_empty() || random.chance(1) {
            nodes = known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).iter().cloned().collect();
        }
        let node = random.pick(&nodes);
        let moment = match watched.routing {
            Routing::Map => 0,
            Routing::Redispatch => owners.moments(node),
        };
        let from = Instant::now();
        let answer = ask_once(watched.gateways[gateway].0, node, &mut connection);
        let to = Instant::now();
        let known = known.read().unwrap_or_else(|poisoned| poisoned.into_inner()).contains(node);
        let owners = owners.since(node, moment);
        laws.judge(&Judged { gateway, from, to, answer: &answer, owners: &owners, known });
        thread::sleep(BETWEEN_REQUESTS);
    }
}

fn read_file(watched: &Watched, ending: &AtomicBool) {
    while !ending.load(Ordering::Relaxed) {
        watched.laws.look_at_file(&watched.map);
        thread::sleep(BETWEEN_FILES);
    }
}

fn read_memory(watched: &Watched, gateway: usize, ending: &AtomicBool) {
    while !ending.load(Ordering::Relaxed) {
        if let Some(entries) = memory_of(&watched.gateways[gateway].1, &watched.map.display().to_string()) {
            watched.laws.memory_is(gateway, &entries, &watched.map);
        }
        thread::sleep(BETWEEN_MEMORIES);
    }
}

/// The live map in the order of HAProxy; none where it does not answer, or not to the end.
pub fn memory_of(runtime: &str, map: &str) -> Option<Nodes> {
    let reply = ask(runtime, &format!("show map {map}")).ok()?;
    (reply == "\n" || reply.ends_with("\n\n")).then(|| entries_of(&reply))
}
