//! Stand-ins for Puppet Servers behind their guards: plain HTTP in the test's own process, for what
//! needs no catalog.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::free_port;

/// A master that answers every request with 200, its name, and a line for each `X-Client-` header
/// that reached it; 404 where the path has `missing` in it. A catalog's answer names its compiler, as
/// Puppet Server 8.4 and later do. It ends on drop, and its connections
/// are cut.
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    name: String,
    ended: AtomicBool,
    /// It dies over each request, as far as who asks can tell, and answers health checks.
    crashes: AtomicBool,
    served: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl StandIn {
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            ended: AtomicBool::new(false),
            crashes: AtomicBool::new(false),
            served: Mutex::default(),
            connections: Mutex::default(),
        });
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked so far, health checks aside, in the order it came: `GET /path`.
    pub fn served(&self) -> Vec<String> {
        lock(&self.shared.served).clone()
    }

    /// From now on it cuts the connection instead of answering.
    pub fn crashes(&self) {
        self.shared.crashes.store(true, Ordering::SeqCst);
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; where it fails, that thread has gone already.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for connection in lock(&self.shared.connections).iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        lock(&shared.connections).extend(stream.try_clone());
        let shared = shared.clone();
        // It ends with its connection; how a client leaves is the client's affair.
        thread::spawn(move || serve(stream, &shared));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    while let Some((request, claims)) = read_request(&mut requests)? {
        let is_check = request == "GET /status/v1/simple";
        if !is_check {
            lock(&shared.served).push(request.clone());
            if shared.crashes.load(Ordering::SeqCst) {
                return stream.shutdown(Shutdown::Both);
            }
        }
        let status = if request.contains("missing") { "404 Not Found" } else { "200 OK" };
        let body =
            if is_check { "running".to_owned() } else { format!("{}\n{claims}", shared.name) };
        let compiler = match request.contains("/puppet/v3/catalog/") {
            true => format!("X-Puppet-Compiler-Name: {}\r\n", shared.name),
            false => String::new(),
        };
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{compiler}Content-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Reads a request to its end; returns its method and target, and what its headers claim. None when
/// the client has left.
fn read_request(requests: &mut BufReader<TcpStream>) -> io::Result<Option<(String, String)>> {
    let (mut request, mut claims, mut length) = (String::new(), String::new(), 0);
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
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().unwrap_or(0);
            }
            Some((name, value)) if name.to_ascii_lowercase().starts_with("x-client-") => {
                claims += &format!("{}: {value}\n", name.to_ascii_lowercase());
            }
            None if request.is_empty() => {
                request = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            }
            _ => {}
        }
    }
    io::copy(&mut requests.by_ref().take(length), &mut io::sink())?;
    Ok(Some((request, claims)))
}
