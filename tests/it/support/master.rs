//! Masters: HTTP servers in the test's own process that answer with their name.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// A master that answers every request with 200 and its name, until it is dropped; then its connections are cut.
pub struct Master {
    name: String,
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Master {
    pub fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let ended = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepting = thread::spawn({
            let (name, ended, connections) = (name.to_owned(), ended.clone(), connections.clone());
            move || accept(&listener, &name, &ended, &connections)
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
        for connection in self.connections.lock().expect("no thread panics with it").iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, name: &str, ended: &AtomicBool, connections: &Mutex<Vec<TcpStream>>) {
    for stream in listener.incoming() {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(other_end) = stream.try_clone() {
            connections.lock().expect("no thread panics with it").push(other_end);
        }
        let name = name.to_owned();
        // It ends with its connection; how a client leaves is the client's affair.
        thread::spawn(move || serve(stream, &name));
    }
}

fn serve(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    while read_request(&mut requests)? {
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Reads a request and drops it; false when the client has left.
fn read_request(requests: &mut BufReader<TcpStream>) -> io::Result<bool> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut requests.by_ref().take(length), &mut io::sink())?;
    Ok(true)
}
