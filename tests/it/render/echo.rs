//! A server that answers with the head of the request that it got, byte for byte, and remembers it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// It listens until it is dropped.
pub struct Echo {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    /// Heads of requests, health checks among them.
    seen: Arc<Mutex<Vec<String>>>,
    accepting: Option<JoinHandle<()>>,
}

impl Echo {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let accepting = thread::spawn({
            let (ended, seen) = (Arc::clone(&ended), Arc::clone(&seen));
            move || {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    // How a client leaves is the client's affair.
                    let _ = stream.map(|stream| {
                        let seen = Arc::clone(&seen);
                        thread::spawn(move || serve(stream, &seen))
                    });
                }
            }
        });
        Self { address, ended, seen, accepting: Some(accepting) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a request came whose head has all of this.
    pub fn has_seen(&self, parts: &[&str]) -> bool {
        let seen = self.seen.lock().expect("no thread panics with it");
        seen.iter().any(|head| parts.iter().all(|part| head.contains(part)))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    seen.lock().expect("no thread panics with it").push(text);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        head.len()
    );
    stream.write_all(answer.as_bytes())?;
    stream.write_all(&head)?;
    stream.shutdown(Shutdown::Write)
}
