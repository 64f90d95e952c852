//! Talks to a stats socket: one connection a command line, every wait bounded. Decides nothing.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::either::Either;

use crate::address::RuntimeAddress;
use crate::error::{Failure, ReplyError, RuntimeError};
use crate::wire;
use crate::wire::pace::Pacer;

/// The most that a reply which is held whole may have, in bytes: a listing of thousands of maps or
/// of ten thousand servers fits.
const MAX_REPLY: usize = 16 * 1024 * 1024;
/// Room for an answer, in bytes, before it is known to be longer: a swap has hundreds of one line's
/// end each.
const SHORT_ANSWER: usize = 4 * 1024;
/// A stream's buffer, in bytes; replies come in pieces of HAProxy's buffer size.
pub(crate) const READ_BUFFER: usize = 64 * 1024;
/// A whole listing may take so many times the bound on one silence, and beyond that so long for
/// each row that it may have.
const LISTING_BOUNDS: u32 = 2;
/// See [`LISTING_BOUNDS`]: a million rows over 10 Mbit/s.
const A_ROW: Duration = Duration::from_micros(50);
/// More rows than these get no more time.
const TIMED_ROWS: u32 = 1_000_000;
/// Rows that a listing may have beyond those that are expected: other writers add some too.
const MORE_ROWS: usize = 100_000;
/// The most rows of any listing: 16 times the largest map that Mapsmith is made for.
const MOST_ROWS: usize = 16_000_000;
/// The most characters of a command that an error carries.
const SHOWN_COMMAND: usize = 100;

pub(crate) type Connection = Either<UnixStream, TcpStream>;

/// A stats socket.
#[derive(Debug, Clone)]
pub struct RuntimeClient {
    pub(crate) address: RuntimeAddress,
    pub(crate) bound: Duration,
}

impl RuntimeClient {
    /// `bound` is the longest silence that is waited for.
    pub fn new(address: RuntimeAddress, bound: Duration) -> Self {
        Self { address, bound }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, RuntimeError> {
        let connect = async {
            match &self.address {
                RuntimeAddress::Unix(path) => UnixStream::connect(path).await.map(Either::Left),
                RuntimeAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Ok(Either::Right(stream))
                }
                RuntimeAddress::Worker { master, pid } => {
                    let mut stream = UnixStream::connect(master).await?;
                    // By itself on a line it holds for the whole connection, payloads included.
                    stream.write_all(format!("@!{pid}\n").as_bytes()).await?;
                    Ok(Either::Left(stream))
                }
            }
        };
        match timeout(self.bound, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => {
                Err(RuntimeError::Connect { address: self.address.to_string(), source })
            }
            Err(_) => Err(self.failed("connect", Failure::Silent(self.bound))),
        }
    }

    pub(crate) fn failed(
        &self,
        command: impl AsRef<[u8]>,
        failure: impl Into<Failure>,
    ) -> RuntimeError {
        let line = command.as_ref().split(|byte| *byte == b'\n').next().unwrap_or_default();
        RuntimeError::Command {
            address: self.address.to_string(),
            command: String::from_utf8_lossy(&line[..line.len().min(SHOWN_COMMAND)]).into_owned(),
            failure: failure.into(),
        }
    }

    /// Bounds one exchange with HAProxy.
    async fn bounded<T>(
        &self,
        command: &[u8],
        exchange: impl Future<Output = io::Result<T>>,
    ) -> Result<T, RuntimeError> {
        match timeout(self.bound, exchange).await {
            Ok(done) => done.map_err(|error| self.failed(command, Failure::Broken(error))),
            Err(_) => Err(self.failed(command, Failure::Silent(self.bound))),
        }
    }

    pub(crate) async fn send(
        &self,
        connection: &mut Connection,
        command: &[u8],
    ) -> Result<(), RuntimeError> {
        let send = async {
            connection.write_all(command).await?;
            match self.address {
                // The master would keep the connection open for the next command.
                RuntimeAddress::Worker { .. } => connection.shutdown().await,
                RuntimeAddress::Unix(_) | RuntimeAddress::Tcp(_) => Ok(()),
            }
        };
        self.bounded(command, send).await
    }

    /// Reads what is there next behind what `buffer` holds; 0 at the end of the stream.
    pub(crate) async fn read(
        &self,
        connection: &mut Connection,
        command: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<usize, RuntimeError> {
        self.bounded(command, connection.read_buf(buffer)).await
    }

    /// Sends a line and reads a listing to its end; `take` gets the bytes as they come. Each read
    /// is bounded, and all of them together.
    pub(crate) async fn receive_rows(
        &self,
        line: &[u8],
        rows: RowBound,
        mut take: impl FnMut(&[u8]) -> Result<(), ReplyError>,
    ) -> Result<(), RuntimeError> {
        let mut connection = self.connect().await?;
        self.send(&mut connection, line).await?;
        let receive = async {
            let mut buffer = Vec::with_capacity(READ_BUFFER);
            while self.read(&mut connection, line, &mut buffer).await? > 0 {
                take(&buffer).map_err(|error| self.failed(line, error))?;
                buffer.clear();
            }
            Ok(())
        };
        self.ending(line, rows, receive).await
    }

    /// Bounds the reading of a whole listing.
    pub(crate) async fn ending<T>(
        &self,
        line: &[u8],
        rows: RowBound,
        reading: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        let whole = rows.time(self.bound);
        timeout(whole, reading)
            .await
            .unwrap_or_else(|_| Err(self.failed(line, Failure::Endless(whole))))
    }

    /// Sends one line or payload command over an open connection and returns its whole answer.
    pub(crate) async fn exchange(
        &self,
        mut connection: Connection,
        command: &[u8],
    ) -> Result<Vec<u8>, RuntimeError> {
        self.send(&mut connection, command).await?;
        self.receive(connection, command).await
    }

    /// Reads the whole answer to a command that was sent.
    pub(crate) async fn receive(
        &self,
        mut connection: Connection,
        command: &[u8],
    ) -> Result<Vec<u8>, RuntimeError> {
        let mut answer = Vec::with_capacity(SHORT_ANSWER);
        let receive = async {
            while self.read(&mut connection, command, &mut answer).await? > 0 {
                if answer.len() > MAX_REPLY {
                    let text = format!("more than {MAX_REPLY} bytes");
                    return Err(self.failed(command, ReplyError::Unexpected(text)));
                }
            }
            Ok(())
        };
        // Bounded as a whole too: a byte now and then is no answer.
        timeout(self.bound, receive)
            .await
            .unwrap_or_else(|_| Err(self.failed(command, Failure::Silent(self.bound))))?;
        Ok(answer)
    }

    /// Sends one command line, its end included, and returns the whole answer.
    ///
    /// # Errors
    /// When the socket can't be reached or stays silent.
    pub async fn call(&self, line: impl AsRef<[u8]>) -> Result<Vec<u8>, RuntimeError> {
        let connection = self.connect().await?;
        self.exchange(connection, line.as_ref()).await
    }

    /// Sends a line of one command and judges its reply.
    pub(crate) async fn parse_reply<T>(
        &self,
        line: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, ReplyError>,
    ) -> Result<T, RuntimeError> {
        self.parse_replies(line.as_bytes(), 1, |replies| parse(replies[0])).await
    }

    /// Sends a line of so many commands and judges their replies.
    pub(crate) async fn parse_replies<T>(
        &self,
        line: &[u8],
        commands: usize,
        parse: impl FnOnce(Vec<&[u8]>) -> Result<T, ReplyError>,
    ) -> Result<T, RuntimeError> {
        let answer = self.call(line).await?;
        wire::replies(&answer, commands).and_then(parse).map_err(|error| self.failed(line, error))
    }
}

/// How many rows a listing may have, so that one without an end ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowBound {
    most: usize,
    left: usize,
}

impl RowBound {
    pub(crate) fn new(expected: usize) -> Self {
        let most = expected.saturating_add(MORE_ROWS).min(MOST_ROWS);
        Self { most, left: most }
    }

    /// How long the whole listing may take, where so long may pass without a byte.
    pub(crate) fn time(self, silence: Duration) -> Duration {
        silence * LISTING_BOUNDS
            + A_ROW * u32::try_from(self.most).unwrap_or(TIMED_ROWS).min(TIMED_ROWS)
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        let rows = memchr::memchr_iter(b'\n', bytes).count();
        self.left = self.left.checked_sub(rows).ok_or(ReplyError::TooLong(self.most))?;
        Ok(())
    }
}

/// Leaves HAProxy to its requests after a part that took so long; for how long.
pub(crate) async fn rest(pace: &mut Pacer, took: Duration) -> Duration {
    let due = pace.worked(took);
    if due.is_zero() {
        return due;
    }
    let start = Instant::now();
    tokio::time::sleep(due).await;
    let rested = start.elapsed();
    pace.rested(rested);
    rested
}
