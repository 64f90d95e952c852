//! Registries of type `http_json` in one server that shows every fault, down to the byte at which a
//! connection ends.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Longer than any answer is held back.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a document's address answers.
#[derive(Clone, Debug)]
pub enum Reply {
    Whole(u16, String),
    /// The whole body, in pieces over this time.
    Slow(String, Duration),
    /// Only so many bytes of the body, though its length is told.
    Cut(String, usize),
    /// Nothing, until another reply is set.
    Hang,
    /// The connection closes.
    Close,
    /// The whole body under this version, and no body at all for whoever asks whether that one
    /// still holds.
    Versioned(Version, String),
}

/// What a registry calls a version of its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The header that names it, and the one that asks for it, in lower case.
    pub headers: (&'static str, &'static str),
    pub value: &'static str,
}

/// One that is a name, and one that is a time and can't tell two moments of a second apart.
pub const VERSIONS: [Version; 2] = [
    Version { headers: ("etag", "if-none-match"), value: "\"of-this-second\"" },
    Version {
        headers: ("last-modified", "if-modified-since"),
        value: "Wed, 25 Nov 2026 10:00:00 GMT",
    },
];

#[derive(Default)]
struct State {
    replies: BTreeMap<String, Reply>,
    asked: BTreeMap<String, usize>,
    /// How often a reply was set.
    changes: usize,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server, gone on drop.
pub struct Registries {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Registries {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let shared = Arc::<Shared>::default();
        let accepting = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.state().ended {
                    return;
                }
                let (Ok(stream), shared) = (stream, accepting.clone()) else { continue };
                // How a client leaves is the client's affair.
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self, document: &str) -> String {
        format!("http://{}/{document}", self.address)
    }

    /// From now on.
    pub fn answers(&self, document: &str, reply: Reply) {
        let mut state = self.shared.state();
        state.replies.insert(format!("/{document}"), reply);
        state.changes += 1;
        self.shared.changed.notify_all();
    }

    /// How often it was asked for this so far.
    pub fn asked(&self, document: &str) -> usize {
        self.shared.state().asked.get(&format!("/{document}")).copied().unwrap_or(0)
    }
}

impl Drop for Registries {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        // Wakes the accepting thread; where it fails, that thread has gone already.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    request.read_line(&mut first)?;
    let document = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = String::new();
    while request.read_line(&mut headers)? > 2 {}
    let mut state = shared.state();
    *state.asked.entry(document.clone()).or_default() += 1;
    let (reply, changes) = (state.replies.get(&document).cloned(), state.changes);
    drop(state);
    let head = |status: u16, body: &str| {
        format!(
            "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: \
                {}\r\nConnection: close\r\n\r\n",
            body.len()
        )
    };
    match reply.unwrap_or(Reply::Close) {
        Reply::Whole(status, body) => stream.write_all((head(status, &body) + &body).as_bytes()),
        Reply::Cut(body, bytes) => {
            stream.write_all(head(200, &body).as_bytes())?;
            stream.write_all(&body.as_bytes()[..bytes.min(body.len())])
        }
        Reply::Slow(body, time) => {
            stream.write_all(head(200, &body).as_bytes())?;
            const PIECES: usize = 10;
            for piece in body.as_bytes().chunks(body.len().div_ceil(PIECES).max(1)) {
                thread::sleep(time / PIECES as u32);
                stream.write_all(piece)?;
            }
            Ok(())
        }
        Reply::Hang => {
            let waiting = |state: &mut State| !state.ended && state.changes == changes;
            drop(shared.changed.wait_timeout_while(shared.state(), PATIENCE, waiting));
            Ok(())
        }
        Reply::Close => Ok(()),
        Reply::Versioned(Version { headers: (name, question), value }, body) => {
            // So much later that the time of a change tells it from another one.
            let version = format!("{name}: {value}\r\nDate: Wed, 25 Nov 2026 11:00:00 GMT\r\n");
            let asked = format!("{question}: {value}");
            if headers.lines().any(|header| header.eq_ignore_ascii_case(&asked)) {
                return stream.write_all(
                    format!("HTTP/1.1 304 Told\r\n{version}Connection: close\r\n\r\n").as_bytes(),
                );
            }
            let head = head(200, &body).replacen("\r\n", &format!("\r\n{version}"), 1);
            stream.write_all((head + &body).as_bytes())
        }
    }
}
