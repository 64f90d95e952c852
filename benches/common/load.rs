//! Clients that ask a gateway at a fixed rate, whatever it answers and however late.

use std::io::{Error, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked, and who may answer it.
pub trait Question: Send + Sync + 'static {
    /// The node of the request of this number.
    fn node(&self, number: u64) -> String;
    /// What is wrong with this master's answer to the request of this number, if anything is.
    fn judge(&self, number: u64, master: &str) -> Option<String>;
}

/// What came back.
#[derive(Default)]
pub struct Tally {
    /// From the moment when each request was due until its answer was there, in microseconds. What stalls the gateway so counts
    /// for all the requests that were due meanwhile.
    pub latencies: Vec<u32>,
    /// Requests that nobody answered, or not with 200.
    pub failed: Vec<String>,
    /// Answers of a master that must not answer.
    pub wrong: Vec<String>,
}

impl Tally {
    /// The latency that so many of a thousand requests stay within, in microseconds.
    pub fn permille(&mut self, permille: usize) -> u32 {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(last * permille / 1000).copied().unwrap_or_default()
    }
}

/// The running clients, which end on drop.
pub struct Load {
    ending: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// `rate` requests a second over so many kept-alive connections to a gateway's socket.
    pub fn start(socket: &Path, rate: u32, connections: u32, question: Arc<impl Question>) -> Self {
        let (ending, tally) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Tally>>::default());
        let (start, gap) = (Instant::now(), Duration::from_secs(1) / rate);
        let threads = (0..connections)
            .map(|connection| {
                let (ending, tally, question) = (ending.clone(), tally.clone(), question.clone());
                let mut client = Client { socket: socket.to_owned(), stream: None };
                thread::spawn(move || {
                    for number in (u64::from(connection)..).step_by(connections as usize) {
                        let due = start + Duration::from_nanos(gap.as_nanos() as u64 * number);
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        if ending.load(Ordering::Relaxed) {
                            return;
                        }
                        let answer = client.ask(&question.node(number));
                        let latency = due.elapsed().as_micros() as u32;
                        let wrong = answer.as_ref().ok().and_then(|master| question.judge(number, master));
                        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                        tally.latencies.push(latency);
                        tally.wrong.extend(wrong);
                        tally.failed.extend(answer.err().map(|error| error.to_string()));
                    }
                })
            })
            .collect();
        Self { ending, tally, threads }
    }

    /// What came back since this was called last.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A client with a connection that it keeps.
struct Client {
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Client {
    /// The body of the answer, which is the master's name. A kept connection that was closed while the request left is no failure:
    /// HTTP has a client ask again on a fresh one (RFC 9110, 9.2.2).
    fn ask(&mut self, node: &str) -> std::io::Result<String> {
        let request = format!("GET / HTTP/1.1\r\nHost: gateway\r\nX-Node-Name: {node}\r\n\r\n");
        if let Some(kept) = self.stream.take()
            && let Ok(answer) = self.exchange(kept, &request)
        {
            return answer;
        }
        let fresh = UnixStream::connect(&self.socket)?;
        fresh.set_read_timeout(Some(PATIENCE))?;
        self.exchange(fresh, &request)?
    }

    /// Fails outside when no answer came, and inside when it is not 200.
    fn exchange(&mut self, mut stream: UnixStream, request: &str) -> std::io::Result<std::io::Result<String>> {
        stream.write_all(request.as_bytes())?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        let (head, body) = loop {
            let length = stream.read(&mut buffer)?;
            if length == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&buffer[..length]);
            let text = String::from_utf8_lossy(&answer);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let head = head.to_ascii_lowercase();
            let expected = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if body.len() >= expected.unwrap_or_default() {
                break (head, body.to_owned());
            }
        };
        if !head.contains("connection: close") {
            self.stream = Some(stream);
        }
        if head.starts_with("http/1.1 200 ") {
            return Ok(Ok(body));
        }
        Ok(Err(Error::other(format!("{}: {body}", head.lines().next().unwrap_or_default()))))
    }
}
