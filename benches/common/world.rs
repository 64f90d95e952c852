//! A registry and masters that agree on who owns which node, and that can be told of a move.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use super::site::{MASTERS, node};

/// The master of a node, by its position in [`MASTERS`], before any move.
fn first_owner(number: usize) -> usize {
    number % MASTERS.len()
}

/// A stand-in registry, `http_json`: it answers every request with the whole object
/// `{"node": "master"}`, and knows no conditions.
pub struct Registry {
    pub url: String,
    known: Arc<Mutex<Known>>,
    /// Bytes of a node in the document.
    entry: usize,
}

struct Known {
    document: Arc<Vec<u8>>,
    /// When it was first asked after the last move.
    asked: Option<Instant>,
}

impl Registry {
    pub fn start(entries: usize) -> anyhow::Result<Self> {
        let mut document = String::new();
        for number in 0..entries {
            let _ = write!(document, ",\"{}\":\"{}\"", node(number), MASTERS[first_owner(number)]);
        }
        let entry = document.len() / entries;
        document.push('}');
        document.replace_range(..1, "{");
        let known =
            Arc::new(Mutex::new(Known { document: Arc::new(document.into_bytes()), asked: None }));
        let served = Arc::clone(&known);
        let address = serve(move |_| {
            let mut known = served.lock().unwrap_or_else(PoisonError::into_inner);
            known.asked.get_or_insert_with(Instant::now);
            (200, Body::Shared(Arc::clone(&known.document)))
        })?;
        Ok(Self { url: format!("http://{address}/nodes.json"), known, entry })
    }

    /// From the time that it returns on, the registry names another master for a node.
    pub fn moves(&self, number: usize, master: usize) -> Instant {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // All masters' names have one length; the closing quote is the entry's last byte.
        let digit = (number + 1) * self.entry - 2;
        Arc::make_mut(&mut known.document)[digit] = b'1' + u8::try_from(master).unwrap_or_default();
        known.asked = None;
        Instant::now()
    }

    /// When it was first asked after the last move.
    pub fn asked(&self) -> Option<Instant> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).asked
    }
}

/// Stand-in masters. They answer every node with their name, or, once they are strict, only their
/// own nodes and 404 to the others.
pub struct Owners {
    pub addresses: [SocketAddr; 3],
    truth: Arc<Truth>,
}

#[derive(Default)]
struct Truth {
    strict: AtomicBool,
    moved: RwLock<HashMap<String, usize>>,
}

impl Owners {
    pub fn start() -> anyhow::Result<Self> {
        let truth = Arc::new(Truth::default());
        let start = |master: usize| {
            let truth = Arc::clone(&truth);
            serve(move |head| match truth.owner(head) {
                Some(owner) if owner != master => (404, Body::Text("not mine")),
                _ => (200, Body::Text(MASTERS[master])),
            })
        };
        let addresses = [start(0)?, start(1)?, start(2)?];
        Ok(Self { addresses, truth })
    }

    pub fn be_strict(&self) {
        self.truth.strict.store(true, Ordering::SeqCst);
    }

    pub fn moves(&self, number: usize, master: usize) {
        self.truth
            .moved
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node(number), master);
    }
}

impl Truth {
    /// The owner of the node that a request names, where that counts.
    fn owner(&self, head: &str) -> Option<usize> {
        if !self.strict.load(Ordering::SeqCst) {
            return None;
        }
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        let (_, node) = headers.find(|(name, _)| name.eq_ignore_ascii_case("x-node-name"))?;
        let node = node.trim();
        let moved = self.moved.read().unwrap_or_else(PoisonError::into_inner).get(node).copied();
        moved.or_else(|| Some(first_owner(node.get(4..11)?.parse().ok()?)))
    }
}

enum Body {
    Text(&'static str),
    Shared(Arc<Vec<u8>>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Answers requests without a body, on kept connections, a thread each, for as long as the program
/// runs.
fn serve(
    answer: impl Fn(&str) -> (u16, Body) + Send + Sync + 'static,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            // The other side may go at any time.
            thread::spawn(move || converse(stream, &*answer));
        }
    });
    Ok(address)
}

fn converse(mut stream: TcpStream, answer: &impl Fn(&str) -> (u16, Body)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut request, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") {
            let (status, body) = answer(&String::from_utf8_lossy(&request[..end]));
            let length = body.bytes().len();
            let mut head = format!(
                "HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: \
                    {length}\r\n\r\n"
            )
            .into_bytes();
            if let Body::Text(text) = body {
                head.extend_from_slice(text.as_bytes());
                stream.write_all(&head)?;
            } else {
                stream.write_all(&head)?;
                stream.write_all(body.bytes())?;
            }
            request.drain(..end + 4);
        }
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            length => request.extend_from_slice(&piece[..length]),
        }
    }
}
