//! A proxy in front of a server that speaks TCP, so that a test spoils its answers at an exact byte
//! or takes the network away.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What happens to each connection's answers. Requests always pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Good,
    /// After so many bytes the connection closes.
    CutAfter(usize),
    /// From this byte on each is another.
    GarbledFrom(usize),
    /// After so many bytes nothing comes any more, and the connection stays.
    SilentAfter(usize),
}

struct Shared {
    line: Line,
    /// Of the connections that are open: nothing comes over them any more.
    silent: Arc<AtomicBool>,
    /// Both ends of each connection that is open.
    open: Vec<[TcpStream; 2]>,
}

/// A proxy. Its connections close when it is dropped.
pub struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl TcpProxy {
    /// In front of this server.
    pub fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback address");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Mutex::new(Shared {
            line: Line::Good,
            silent: Arc::default(),
            open: Vec::new(),
        }));
        let known = Arc::clone(&shared);
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                serve(client, server, &known);
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the line is so, for connections that begin from now on; those that there are
    /// close.
    pub fn set(&self, line: Line) {
        let mut shared = lock(&self.shared);
        shared.line = line;
        shared.silent = Arc::default();
        for ends in shared.open.drain(..) {
            close(&ends);
        }
    }

    /// From now on nothing comes over any connection, those that there are included, and none
    /// closes, until [`Self::set`].
    pub fn silence(&self) {
        let mut shared = lock(&self.shared);
        shared.line = Line::SilentAfter(0);
        shared.silent.store(true, Ordering::SeqCst);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.set(Line::CutAfter(0));
    }
}

fn serve(client: TcpStream, server: TcpStream, shared: &Arc<Mutex<Shared>>) {
    let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let (line, silent) = {
        let mut shared = lock(shared);
        shared.open.push([copy(&client), copy(&server)]);
        (shared.line, Arc::clone(&shared.silent))
    };
    let (mut from, mut to) = (copy(&client), copy(&server));
    thread::spawn(move || {
        // Whichever end closes, the other one does.
        let _ = std::io::copy(&mut from, &mut to);
        close(&[from, to]);
    });
    thread::spawn(move || answer(server, client, line, &silent));
}

fn answer(mut server: TcpStream, mut client: TcpStream, line: Line, silent: &AtomicBool) {
    let (mut buffer, mut passed) = ([0; 4096], 0);
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        if silent.load(Ordering::SeqCst) {
            continue;
        }
        let bytes = &mut buffer[..length];
        let sent = match line {
            Line::Good => client.write_all(bytes),
            Line::CutAfter(most) => {
                let left = most.saturating_sub(passed).min(length);
                let sent = client.write_all(&bytes[..left]);
                if left < length {
                    break;
                }
                sent
            }
            Line::SilentAfter(most) => {
                let left = most.saturating_sub(passed).min(length);
                client.write_all(&bytes[..left])
            }
            Line::GarbledFrom(first) => {
                let good = first.saturating_sub(passed).min(length);
                bytes[good..].iter_mut().for_each(|byte| *byte ^= 0x5a);
                client.write_all(bytes)
            }
        };
        passed += length;
        if sent.is_err() {
            break;
        }
    }
    close(&[server, client]);
}

fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        // It may be closed already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
