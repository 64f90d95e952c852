//! A client that asks a gateway all the time and remembers every answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::http::Connection;

/// What came back for a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    pub node: String,
    /// 0 when there was no answer at all: refused, cut off, silent.
    pub status: u16,
    /// The body, which is the master's name; of an answer that never came, the error.
    pub master: String,
}

/// The running client.
pub struct Load {
    ending: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Answer>>>,
}

impl Load {
    /// Asks for the nodes in turn, on one kept-alive connection a thread.
    pub fn start(gateway: SocketAddr, nodes: &[String], threads: usize) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let threads = (0..threads)
            .map(|thread| {
                let (nodes, ending, answered) = (nodes.to_vec(), ending.clone(), answered.clone());
                thread::spawn(move || ask(gateway, &nodes, thread, &ending, &answered))
            })
            .collect();
        Self { ending, answered, threads }
    }

    /// How many answers there are so far, to see that the load runs while something else happens.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends it and returns every answer, a thread's in their order.
    pub fn stop(mut self) -> Vec<Answer> {
        self.ending.store(true, Ordering::Relaxed);
        self.threads
            .drain(..)
            .flat_map(|thread| thread.join().expect("the load client does not panic"))
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

fn ask(
    gateway: SocketAddr,
    nodes: &[String],
    thread: usize,
    ending: &AtomicBool,
    answered: &AtomicUsize,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut connection = None;
    // Threads begin at different nodes.
    for node in nodes.iter().cycle().skip(thread * nodes.len() / 7) {
        if ending.load(Ordering::Relaxed) {
            break;
        }
        answers.push(ask_once(gateway, node, &mut connection));
        answered.fetch_add(1, Ordering::Relaxed);
    }
    answers
}

/// A kept connection may be closed by the gateway just as the request leaves, which is nobody's
/// fault: HTTP has a client then ask again on a fresh one (RFC 9110, 9.2.2). A fresh connection's
/// failure is an answer that never came.
pub fn ask_once(gateway: SocketAddr, node: &str, connection: &mut Option<Connection>) -> Answer {
    let headers = [("X-Node-Name", node)];
    let kept = connection.take().and_then(|mut kept| {
        kept.request("GET", "/", &headers, "").ok().map(|response| (kept, response))
    });
    let result = match kept {
        Some(answer) => Ok(answer),
        None => Connection::open(gateway).and_then(|mut fresh| {
            fresh.request("GET", "/", &headers, "").map(|response| (fresh, response))
        }),
    };
    let (status, master) = match result {
        Ok((used, response)) => {
            *connection = response.reusable.then_some(used);
            (response.status, response.body)
        }
        Err(error) => {
            // A gateway that is down refuses at once; asking it without a pause would only starve
            // it.
            thread::sleep(Duration::from_millis(5));
            (0, error.to_string())
        }
    };
    Answer { node: node.to_owned(), status, master }
}
