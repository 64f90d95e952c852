//! Who watches all along: clients that know the truth, a reader of the map file, and a reader of
//! every gateway's memory.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// The nodes that every map has had since all was in sync, and has still: what clients ask for.
/// Shared.
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
    watchers: Vec<Watcher>,
}

struct Watcher {
    name: String,
    /// How often it saw what it watches.
    looks: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Watchers {
    /// Nobody watches.
    pub fn none() -> Self {
        Self { ending: Arc::default(), watchers: Vec::new() }
    }

    pub fn start(watched: Watched) -> Self {
        let watched = Arc::new(watched);
        let mut all = Self::none();
        for gateway in 0..watched.gateways.len() {
            for client in 0..CLIENTS_A_GATEWAY {
                all.add(
                    &watched,
                    format!("client {client} of gateway {gateway}"),
                    move |watched, ending, looks| {
                        request(watched, gateway, client, ending, looks);
                    },
                );
            }
            all.add(
                &watched,
                format!("the reader of gateway {gateway}'s memory"),
                move |watched, ending, looks| {
                    read_memory(watched, gateway, ending, looks);
                },
            );
        }
        all.add(&watched, "the reader of the map file".to_owned(), read_file);
        all
    }

    fn add(
        &mut self,
        watched: &Arc<Watched>,
        name: String,
        watch: impl FnOnce(&Watched, &AtomicBool, &AtomicUsize) + Send + 'static,
    ) {
        let looks = Arc::<AtomicUsize>::default();
        let (watched, ending, counted) =
            (Arc::clone(watched), Arc::clone(&self.ending), Arc::clone(&looks));
        let thread = thread::spawn(move || watch(&watched, &ending, &counted));
        self.watchers.push(Watcher { name, looks, thread });
    }

    /// Those that see nothing, or no more: what they did not see could not break a law.
    pub fn blind(&self) -> Vec<String> {
        let blind = self.watchers.iter().filter(|watcher| {
            watcher.thread.is_finished() || watcher.looks.load(Ordering::Relaxed) == 0
        });
        blind
            .map(|watcher| format!("{} ended early, or saw nothing at all", watcher.name))
            .collect()
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for watcher in self.watchers.drain(..) {
            // One that panicked is told by `blind`.
            let _ = watcher.thread.join();
        }
    }
}

fn request(
    watched: &Watched,
    gateway: usize,
    client: usize,
    ending: &AtomicBool,
    looks: &AtomicUsize,
) {
    let Watched { laws, owners, known, .. } = watched;
    let mut random = Random::new(watched.seed ^ (gateway * CLIENTS_A_GATEWAY + client) as u64);
    let mut connection = None;
    let mut nodes: Vec<String> = Vec::new();
    while !ending.load(Ordering::Relaxed) {
        if nodes.is_empty() || random.chance(1) {
            nodes = known
                .read()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .iter()
                .cloned()
                .collect();
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
        looks.fetch_add(1, Ordering::Relaxed);
        thread::sleep(BETWEEN_REQUESTS);
    }
}

fn read_file(watched: &Watched, ending: &AtomicBool, looks: &AtomicUsize) {
    while !ending.load(Ordering::Relaxed) {
        watched.laws.look_at_file(&watched.map);
        looks.fetch_add(1, Ordering::Relaxed);
        thread::sleep(BETWEEN_FILES);
    }
}

fn read_memory(watched: &Watched, gateway: usize, ending: &AtomicBool, looks: &AtomicUsize) {
    while !ending.load(Ordering::Relaxed) {
        if let Some(entries) =
            memory_of(&watched.gateways[gateway].1, &watched.map.display().to_string())
        {
            watched.laws.memory_is(gateway, &entries, &watched.map);
            looks.fetch_add(1, Ordering::Relaxed);
        }
        thread::sleep(BETWEEN_MEMORIES);
    }
}

/// The live map in the order of HAProxy; none where it does not answer, or not to the end.
pub fn memory_of(runtime: &str, map: &str) -> Option<Nodes> {
    let reply = ask(runtime, &format!("show map {map}")).ok()?;
    (reply == "\n" || reply.ends_with("\n\n")).then(|| entries_of(&reply))
}
