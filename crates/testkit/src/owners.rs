//! Who truly owns each node, whatever registries and maps say; and a client that knows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::load::ask_once;

/// The owners, shared by the masters and the clients.
#[derive(Clone)]
pub struct Owners {
    /// Every owner that a node has had, the present one last.
    nodes: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    /// Requests that a master got for a node that is not its own.
    refused: Arc<AtomicUsize>,
    refusal: &'static str,
}

impl Owners {
    /// A master answers 404 for a node that is not its own.
    pub fn new(nodes: &[(&str, &str)]) -> Self {
        let owners =
            Self { nodes: Arc::default(), refused: Arc::default(), refusal: "404 Not Found" };
        nodes.iter().for_each(|(node, master)| owners.moves(node, master));
        owners
    }

    /// It answers 421 instead.
    pub fn misdirected(self) -> Self {
        Self { refusal: "421 Misdirected Request", ..self }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the node is this master's.
    pub fn moves(&self, node: &str, master: &str) {
        self.nodes().entry(node.to_owned()).or_default().push(master.to_owned());
    }

    /// The status with which a master answers for a node; refusals are counted.
    pub fn status(&self, master: &str, node: &str) -> &'static str {
        if self
            .nodes()
            .get(node)
            .and_then(|owners| owners.last())
            .is_some_and(|owner| owner == master)
        {
            return "200 OK";
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        self.refusal
    }

    /// How often a master was asked for a node that was not its own: each is a hop more.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Each node's present owner.
    pub fn all(&self) -> Vec<(String, String)> {
        let owner =
            |(node, owners): (&String, &Vec<String>)| Some((node.clone(), owners.last()?.clone()));
        self.nodes().iter().filter_map(owner).collect()
    }

    /// How many owners a node has had.
    pub fn moments(&self, node: &str) -> usize {
        self.nodes().get(node).map_or(0, Vec::len)
    }

    /// The owners from a moment of [`Self::moments`] on.
    pub fn since(&self, node: &str, moment: usize) -> Vec<String> {
        let nodes = self.nodes();
        let owners = nodes.get(node).map_or(&[][..], Vec::as_slice);
        owners[moment.saturating_sub(1).min(owners.len())..].to_vec()
    }
}

/// What a [`Census`] has found.
#[derive(Debug, Default)]
pub struct Found {
    pub requests: usize,
    /// Every answer that no owner of the node gave, in words.
    pub wrong: Vec<String>,
}

/// Clients that ask for all nodes all the time and know who must answer: an owner that the node had
/// between the request and its answer.
pub struct Census {
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Found>>,
}

impl Census {
    pub fn start(
        gateways: &[SocketAddr],
        nodes: &[String],
        owners: &Owners,
        threads: usize,
    ) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let threads = (0..threads)
            .map(|thread| {
                let (gateway, nodes, owners, ending) = (
                    gateways[thread % gateways.len()],
                    nodes.to_vec(),
                    owners.clone(),
                    ending.clone(),
                );
                thread::spawn(move || ask(gateway, &nodes, thread, &owners, &ending))
            })
            .collect();
        Self { ending, threads }
    }

    /// Ends it.
    pub fn stop(mut self) -> Found {
        self.ending.store(true, Ordering::Relaxed);
        let mut all = Found::default();
        for thread in self.threads.drain(..) {
            let found = thread.join().expect("the client does not panic");
            all.requests += found.requests;
            all.wrong.extend(found.wrong);
        }
        all
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

fn ask(
    gateway: SocketAddr,
    nodes: &[String],
    thread: usize,
    owners: &Owners,
    ending: &AtomicBool,
) -> Found {
    let mut found = Found::default();
    let mut connection = None;
    // Threads begin at different nodes.
    for node in nodes.iter().cycle().skip(thread * nodes.len() / 7) {
        if ending.load(Ordering::Relaxed) {
            break;
        }
        let moment = owners.moments(node);
        let answer = ask_once(gateway, node, &mut connection);
        found.requests += 1;
        let right = owners.since(node, moment);
        // As many requests as a site has, not as many as two cores can: the machine has other tests
        // to run.
        thread::sleep(Duration::from_millis(1));
        if answer.status != 200 || !right.contains(&answer.master) {
            found.wrong.push(format!(
                "{node}: {} from {:?} instead of {right:?}",
                answer.status, answer.master
            ));
        }
    }
    found
}
