//! An open-loop load client: requests are due at a fixed rate, whatever the answers take.
//!
//! A request's latency counts from the moment it was due, not from the moment it could be sent: one
//! that waits behind a slow answer on its connection has waited (else a pause of the server would
//! count once instead of for every request it delayed). Each connection is kept alive and has a
//! thread of its own, blocking: an asynchronous runtime's timers are too coarse here.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked, and which answer is right.
pub trait Requests: Sync {
    /// Writes the request with this number, headers and all, over `request`, which is empty.
    fn write(&self, number: u64, request: &mut Vec<u8>);
    /// Whether it was answered as it should be.
    fn right(&self, number: u64, status: u16, body: &[u8]) -> bool;
}

/// A steady load.
pub struct Load<R> {
    pub address: SocketAddr,
    /// Requests a second, over all connections.
    pub rate: u32,
    pub connections: u32,
    pub requests: R,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Of every request that was answered, in microseconds, sorted.
    latencies: Vec<u32>,
    /// Answers that were not the right ones.
    pub wrong: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Kept connections that the server had closed, so that the request was sent again.
    pub reconnected: u64,
}

impl Outcome {
    /// The latency that this part of the requests stays within; zero without any.
    pub fn quantile(&self, part: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (part * self.latencies.len() as f64) as usize;
        Duration::from_micros(self.latencies.get(at.min(last)).copied().unwrap_or_default().into())
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.latencies.len()
    }

    fn merge(parts: Vec<Self>) -> Self {
        let mut whole = Self::default();
        for part in parts {
            whole.latencies.extend(part.latencies);
            whole.wrong += part.wrong;
            whole.failed += part.failed;
            whole.reconnected += part.reconnected;
        }
        whole.latencies.sort_unstable();
        whole
    }
}

impl<R: Requests> Load<R> {
    /// Asks for so long, waits for the last answers, and tells of all requests that were due from
    /// `warm_up` on. Requests are numbered from 0 in each call.
    pub fn run(&self, warm_up: Duration, duration: Duration) -> Outcome {
        let start = Instant::now();
        let parts = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .map(|connection| {
                    scope.spawn(move || self.ask(u64::from(connection), start, warm_up, duration))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a client does not panic"))
                .collect()
        });
        Outcome::merge(parts)
    }

    /// One connection's share: every so many-th request.
    fn ask(&self, first: u64, start: Instant, warm_up: Duration, duration: Duration) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection = None;
        let mut request = Vec::new();
        for number in (first..).step_by(self.connections as usize) {
            let offset = Duration::from_secs_f64(number as f64 / f64::from(self.rate));
            if offset >= duration {
                break;
            }
            let due = start + offset;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                thread::sleep(early);
            }
            request.clear();
            self.requests.write(number, &mut request);
            let answer =
                exchange(&mut connection, self.address, &request, &mut outcome.reconnected);
            if offset < warm_up {
                continue;
            }
            match answer {
                Ok((status, body)) => {
                    let micros = due.elapsed().as_micros();
                    outcome.latencies.push(u32::try_from(micros).unwrap_or(u32::MAX));
                    outcome.wrong += u64::from(!self.requests.right(number, status, &body));
                }
                Err(_) => outcome.failed += 1,
            }
        }
        outcome
    }
}

/// A kept connection may be closed by the server just as a request leaves, which is nobody's fault:
/// HTTP has a client then ask again on a fresh one (RFC 9110, 9.2.2). What a fresh connection does
/// not answer has failed.
///
/// `reconnected` counts how often that was so.
pub fn exchange(
    kept: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
    reconnected: &mut u64,
) -> io::Result<(u16, Vec<u8>)> {
    if let Some(connection) = kept {
        match connection.exchange(request) {
            Ok(answer) => {
                if connection.ends {
                    *kept = None;
                }
                return Ok(answer);
            }
            Err(_) => *reconnected += 1,
        }
    }
    *kept = None;
    let mut connection = Connection::open(address)?;
    let answer = connection.exchange(request)?;
    if !connection.ends {
        *kept = Some(connection);
    }
    Ok(answer)
}

/// A kept-alive connection of HTTP/1.1, for answers with a `Content-Length`.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The server said that it closes it.
    ends: bool,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new(), ends: false })
    }

    /// The status and the body of the answer.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut piece = [0; 4096];
        loop {
            if let Some(answer) = self.parse()? {
                return Ok(answer);
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.buffer.extend_from_slice(&piece[..length]),
            }
        }
    }

    fn parse(&mut self) -> io::Result<Option<(u16, Vec<u8>)>> {
        let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else { return Ok(None) };
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer with a length");
        let head = str::from_utf8(&self.buffer[..end]).map_err(|_| odd())?.to_ascii_lowercase();
        let status =
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(odd)?;
        let header =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let length: usize =
            header("content-length:").and_then(|length| length.parse().ok()).ok_or_else(odd)?;
        let body = &self.buffer[end + 4..];
        if body.len() < length {
            return Ok(None);
        }
        self.ends = header("connection:") == Some("close");
        Ok(Some((status, body[..length].to_vec())))
    }
}
