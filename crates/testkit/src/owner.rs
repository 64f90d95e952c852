//! Masters that own nodes and can be made to hold what they were asked: HTTP servers in the test's
//! own process.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{eventually, free_port};

/// Longer than any test holds a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// A master that answers 200 and its name for the nodes it owns, 404 and its name for others, until
/// it is dropped; then its connections are cut.
///
/// Its port is given to no other server of this process: what is sent to it afterwards is refused.
pub struct Owner {
    name: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    nodes: BTreeSet<String>,
    holding: bool,
    ended: bool,
    /// What it began to work on, in order: method and target.
    served: Vec<String>,
    misdirected: usize,
    running: usize,
    most_running: usize,
    connections: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }
}

impl Owner {
    pub fn start(name: &str, nodes: &[&str]) -> Self {
        let listener = eventually("a port can be had", PATIENCE, || {
            TcpListener::bind(("127.0.0.1", free_port())).ok()
        });
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared::default());
        shared.state().nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
        let accepting = thread::spawn({
            let (name, shared) = (name.to_owned(), shared.clone());
            move || accept(&listener, &name, &shared)
        });
        Self { name: name.to_owned(), address, shared, accepting: Some(accepting) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the node is this master's.
    pub fn take(&self, node: &str) {
        self.shared.state().nodes.insert(node.to_owned());
    }

    /// From now on it is not.
    pub fn lose(&self, node: &str) {
        self.shared.state().nodes.remove(node);
    }

    /// Answers for its nodes are held back from now on.
    pub fn hold(&self) {
        self.shared.state().holding = true;
    }

    /// Ends [`Self::hold`].
    pub fn release(&self) {
        self.shared.state().holding = false;
        self.shared.changed.notify_all();
    }

    /// What it was asked for its own nodes so far, in the order it came: `GET /path`.
    pub fn served(&self) -> Vec<String> {
        self.shared.state().served.clone()
    }

    /// How often it was asked for a node that is another's.
    pub fn misdirected(&self) -> usize {
        self.shared.state().misdirected
    }

    /// How many requests for its own nodes it works on now.
    pub fn running(&self) -> usize {
        self.shared.state().running
    }

    /// The most of them that it ever worked on at once.
    pub fn most_running(&self) -> usize {
        self.shared.state().most_running
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.release();
        // Wakes the accepting thread; where it fails, that thread has gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for connection in &self.shared.state().connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, name: &str, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        let mut state = shared.state();
        if state.ended {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(other_end) = stream.try_clone() {
            state.connections.push(other_end);
        }
        drop(state);
        let (name, shared) = (name.to_owned(), shared.clone());
        // It ends with its connection; how a client leaves is the client's affair.
        thread::spawn(move || serve(stream, &name, &shared));
    }
}

fn serve(mut stream: TcpStream, name: &str, shared: &Shared) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    while let Some((request, node)) = read_request(&mut requests)? {
        let status = if request == "GET /healthz" || work(&request, &node, shared) {
            "200 OK"
        } else {
            "404 Not Found"
        };
        let length = name.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: \
                {length}\r\n\r\n{name}"
        );
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// False for a node that is another's.
fn work(request: &str, node: &str, shared: &Shared) -> bool {
    let mut state = shared.state();
    if !state.nodes.contains(node) {
        state.misdirected += 1;
        return false;
    }
    state.served.push(request.to_owned());
    state.running += 1;
    state.most_running = state.most_running.max(state.running);
    let waited = shared.changed.wait_timeout_while(state, PATIENCE, |state| state.holding);
    waited.expect("no thread panics with it").0.running -= 1;
    true
}

/// Reads a request to its end; returns its method and target, and the node it names. None when the
/// client has left.
fn read_request(requests: &mut BufReader<TcpStream>) -> io::Result<Option<(String, String)>> {
    let (mut request, mut node, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("x-node-name") => {
                node = value.to_ascii_lowercase()
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap_or(0)
            }
            // Health checks are HTTP/1.0.
            _ if request.is_empty() => {
                request = line.split(' ').take(2).collect::<Vec<_>>().join(" ")
            }
            _ => {}
        }
    }
    io::copy(&mut requests.by_ref().take(length), &mut io::sink())?;
    Ok(Some((request, node)))
}
