//! Masters: HTTP servers in the test's own process that answer with their name, to everybody or for
//! their own nodes alone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};

use crate::owners::Owners;

/// A master that answers every request with 200 and its name, until it is dropped; then its
/// connections are cut.
pub struct Master {
    name: String,
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    /// Those that a thread still serves: one that is kept beyond that would keep its descriptor.
    connections: Arc<Mutex<Vec<Weak<TcpStream>>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Master {
    pub fn start(name: &str) -> Self {
        Self::listen(name, None)
    }

    /// Answers 200 for the nodes that are its own and refuses all others.
    pub fn owning(name: &str, owners: &Owners) -> Self {
        Self::listen(name, Some(owners.clone()))
    }

    /// Masters of one port, at 127.0.0.1, 127.0.0.2 and so on; each has its address as its name.
    pub fn at_one_port(count: u8) -> Vec<Self> {
        loop {
            let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = first.local_addr().expect("a bound address").port();
            // Another process may have the port there.
            let others =
                (2..=count).map(|host| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)));
            let Ok(others) = others.collect::<io::Result<Vec<_>>>() else { continue };
            return std::iter::once(first)
                .chain(others)
                .map(|listener| {
                    let address = listener.local_addr().expect("a bound address");
                    Self::on(listener, &address.ip().to_string(), None)
                })
                .collect();
        }
    }

    fn listen(name: &str, owners: Option<Owners>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), name, owners)
    }

    fn on(listener: TcpListener, name: &str, owners: Option<Owners>) -> Self {
        let address = listener.local_addr().expect("a bound address");
        let ended = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepting = thread::spawn({
            let (name, ended, connections) = (name.to_owned(), ended.clone(), connections.clone());
            move || accept(&listener, &name, owners.as_ref(), &ended, &connections)
        });
        Self { name: name.to_owned(), address, ended, connections, accepting: Some(accepting) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; where it fails, that thread has gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for connection in self
            .connections
            .lock()
            .expect("no thread panics with it")
            .iter()
            .filter_map(Weak::upgrade)
        {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(
    listener: &TcpListener,
    name: &str,
    owners: Option<&Owners>,
    ended: &AtomicBool,
    connections: &Mutex<Vec<Weak<TcpStream>>>,
) {
    for stream in listener.incoming() {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let stream = Arc::new(stream);
        {
            let mut connections = connections.lock().expect("no thread panics with it");
            connections.retain(|connection| connection.strong_count() > 0);
            connections.push(Arc::downgrade(&stream));
        }
        let (name, owners) = (name.to_owned(), owners.cloned());
        // It ends with its connection; how a client leaves is the client's affair.
        thread::spawn(move || serve(&stream, &name, owners.as_ref()));
    }
}

fn serve(mut stream: &TcpStream, name: &str, owners: Option<&Owners>) -> io::Result<()> {
    let mut requests = BufReader::new(stream);
    while let Some(node) = read_request(&mut requests)? {
        let status = owners.map_or("200 OK", |owners| owners.status(name, &node));
        // In one piece: the parts of a `write!` would wait for each other's acknowledgement.
        let length = name.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: \
                {length}\r\n\r\n{name}"
        );
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Reads a request and drops all but its node; none when the client has left.
fn read_request(requests: &mut BufReader<&TcpStream>) -> io::Result<Option<String>> {
    let mut length = 0;
    let mut node = String::new();
    loop {
        let mut line = Vec::new();
        if requests.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        // A header may hold any bytes.
        let line = String::from_utf8_lossy(&line).trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        } else if let Some(value) = line.strip_prefix("x-node-name:") {
            node = value.trim().to_owned();
        }
    }
    io::copy(&mut requests.by_ref().take(length), &mut io::sink())?;
    Ok(Some(node))
}
