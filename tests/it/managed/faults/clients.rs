//! Who watches all along: clients on new and on kept connections, and a reader of the file.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::laws::{Asked, Laws};
use crate::support::http::Connection;

/// As many requests as a site has, not as many as two cores can.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(4);
const BETWEEN_FILES: Duration = Duration::from_millis(3);
/// Nobody is asked by all at once where nobody answers.
const AFTER_A_FAILURE: Duration = Duration::from_millis(10);
/// How long half a request waits for its rest: longer than a reload takes.
const HALF: Duration = Duration::from_millis(700);
/// Longer than any worker is stopped for, and than HAProxy takes to be started again.
const PATIENCE: Duration = Duration::from_secs(90);

/// What they watch.
#[derive(Clone)]
pub struct Watched {
    pub laws: Arc<Laws>,
    pub web: SocketAddr,
    pub config: PathBuf,
    pub holds: bool,
}

/// They run until they are dropped.
pub struct Clients {
    ending: Arc<AtomicBool>,
    threads: Vec<(&'static str, Arc<AtomicUsize>, JoinHandle<()>)>,
}

impl Clients {
    pub fn start(watched: &Watched) -> Self {
        let mut clients = Self { ending: Arc::default(), threads: Vec::new() };
        clients.add("new connections", watched, |watched| {
            watched.ask(Asked::Word, &mut None, false);
        });
        for asked in [Asked::Word, Asked::Server] {
            let mut kept = None;
            clients.add("a kept connection", watched, move |watched| {
                watched.ask(asked, &mut kept, true);
            });
        }
        clients.add("halves of requests", watched, Watched::ask_slowly);
        clients.add("the file", watched, |watched| {
            watched.laws.look_at_file(&watched.config);
            thread::sleep(BETWEEN_FILES);
        });
        clients
    }

    fn add(
        &mut self,
        name: &'static str,
        watched: &Watched,
        mut look: impl FnMut(&Watched) + Send + 'static,
    ) {
        let watched = watched.clone();
        self.watch(name, move || {
            look(&watched);
            true
        });
    }

    /// One more who looks, again and again, and says each time whether it saw anything.
    pub fn watch(&mut self, name: &'static str, mut look: impl FnMut() -> bool + Send + 'static) {
        let (ending, looks) = (Arc::clone(&self.ending), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&looks);
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                counted.fetch_add(usize::from(look()), Ordering::Relaxed);
            }
        });
        self.threads.push((name, looks, thread));
    }

    /// Those that saw nothing, or ended: what they did not see could not break a law.
    pub fn blind(&self) -> Vec<String> {
        let blind = self.threads.iter().filter(|(_, looks, thread)| {
            thread.is_finished() || looks.load(Ordering::Relaxed) == 0
        });
        blind.map(|(name, ..)| format!("nobody saw {name}")).collect()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for (.., thread) in self.threads.drain(..) {
            // One that panicked is told by `blind`.
            let _ = thread.join();
        }
    }
}

/// A connection, and when it was last answered on.
type Kept = Option<(Connection, Instant)>;

impl Watched {
    /// A kept connection may be closed just as the request leaves: then it is sent again on a new
    /// one (RFC 9110, 9.2.2). A new connection's failure is one.
    fn ask(&self, asked: Asked, connection: &mut Kept, keeps: bool) {
        let path = if asked == Asked::Server { "/app" } else { "/word" };
        let headers: &[_] = if keeps { &[] } else { &[("Connection", "close")] };
        if let Some((mut kept, last)) = connection.take()
            && let Ok(response) = kept.request("GET", path, headers, "")
        {
            let now = Instant::now();
            self.judge(asked, (last, now), &Ok((response.status, response.body)));
            *connection = (response.reusable && keeps).then_some((kept, now));
            return thread::sleep(BETWEEN_REQUESTS);
        }
        let from = Instant::now();
        let answer = Connection::open(self.web).and_then(|mut fresh| {
            let response = fresh.request("GET", path, headers, "")?;
            let now = Instant::now();
            *connection = (response.reusable && keeps).then_some((fresh, now));
            Ok((response.status, response.body))
        });
        self.judge(asked, (from, Instant::now()), &answer);
    }

    fn judge(&self, asked: Asked, times: (Instant, Instant), answer: &io::Result<(u16, String)>) {
        self.laws.judge(asked, times, answer, self.holds);
        thread::sleep(if answer.is_ok() { BETWEEN_REQUESTS } else { AFTER_A_FAILURE });
    }

    fn ask_slowly(&self) {
        let from = Instant::now();
        let answer = slow_request(self.web);
        self.judge(Asked::Slowly, (from, Instant::now()), &answer);
    }
}

fn slow_request(web: SocketAddr) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&web, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /word HTTP/1.1\r\nHost: slow\r\n")?;
    thread::sleep(HALF);
    stream.write_all(b"Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
