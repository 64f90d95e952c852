//! Talks to a stats socket: one connection a command line, every wait bounded. Decides nothing.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::either::Either;

use super::codec::{self, Listing, Payloads};
use super::command::{self, MapName};
use super::pace::Pace;
use super::reply::{self, Glance, ReplyError};
use super::server_command::{self, Refusal, ServerCommand, ServerPath};
use super::server_reply;
use super::table::{self, Row, Rows, TableName, TableSize};
use mapsmith_core::{EntryMap, ObservedServers, RuntimeAddress};
use crate::settings;

mod screen;

/// The most that a reply which is held whole may have, in bytes: a listing of thousands of maps or of ten thousand servers fits.
const MAX_REPLY: usize = 16 * 1024 * 1024;
/// Room for an answer, in bytes, before it is known to be longer: a swap has hundreds of one line's end each.
const SHORT_ANSWER: usize = 4 * 1024;
/// A stream's buffer, in bytes; replies come in pieces of HAProxy's buffer size.
const READ_BUFFER: usize = 64 * 1024;
/// A whole listing may take so many times the bound on one silence, and beyond that so long for each row that it may have.
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

/// Why a command did not succeed. Every variant names the socket and the command.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The socket can't be opened.
    #[error("{address}: can't connect: {source}{}", hint(source))]
    Connect {
        /// The socket.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke.
    #[error(
        "{address}: {command:?}: the connection broke: {source} (HAProxy stopped, or the command is too big for its tune.bufsize)"
    )]
    Broken {
        /// The socket.
        address: String,
        /// The command, cut.
        command: String,
        /// What the system says.
        source: io::Error,
    },
    /// HAProxy accepts and does not answer.
    #[error(
        "{address}: {command:?}: no answer within {waited:?}; the process may be stopped or stuck, or other programs hold every connection that its `stats maxconn` allows (10 unless set)"
    )]
    Silent {
        /// The socket.
        address: String,
        /// The command, cut.
        command: String,
        /// How long was waited.
        waited: Duration,
    },
    /// An answer comes and comes.
    #[error("{address}: {command:?}: the answer has no end after {waited:?}; is this HAProxy's own `stats socket`?")]
    Endless {
        /// The socket.
        address: String,
        /// The command, cut.
        command: String,
        /// How long it was read.
        waited: Duration,
    },
    /// HAProxy answered, and the answer is no success.
    #[error("{address}: {command:?}: {error}")]
    Reply {
        /// The socket.
        address: String,
        /// The command, cut.
        command: String,
        /// What came.
        error: ReplyError,
    },
}

impl RuntimeError {
    /// What HAProxy answered, if it answered.
    pub fn reply(&self) -> Option<&ReplyError> {
        match self {
            Self::Reply { error, .. } => Some(error),
            _ => None,
        }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (is HAProxy running, and does its `stats socket` have this path?)",
        io::ErrorKind::ConnectionRefused => " (nothing listens there: is HAProxy running?)",
        io::ErrorKind::PermissionDenied => " (the socket's user, group and mode must let Mapsmith in)",
        _ => "",
    }
}

type Connection = Either<UnixStream, TcpStream>;

/// A stats socket.
#[derive(Debug, Clone)]
pub struct RuntimeClient {
    address: RuntimeAddress,
    bound: Duration,
}

impl RuntimeClient {
    /// `bound` is the longest silence that is waited for.
    pub fn new(address: RuntimeAddress, bound: Duration) -> Self {
        Self { address, bound }
    }

    async fn connect(&self) -> Result<Connection, RuntimeError> {
        let connect = async {
            match &self.address {
                RuntimeAddress::Unix(path) => UnixStream::connect(path).await.map(Either::Left),
                RuntimeAddress::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    stream.set_nodelay(true)?;
                    Ok(Either::Right(stream))
                }
            }
        };
        match timeout(self.bound, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => Err(RuntimeError::Connect { address: self.address.to_string(), source }),
            Err(_) => Err(self.silent(b"connect")),
        }
    }

    fn silent(&self, command: &[u8]) -> RuntimeError {
        RuntimeError::Silent { address: self.address.to_string(), command: shown(command), waited: self.bound }
    }

    fn broken(&self, command: &[u8], source: io::Error) -> RuntimeError {
        RuntimeError::Broken { address: self.address.to_string(), command: shown(command), source }
    }

    pub(super) fn refused(&self, command: &[u8], error: ReplyError) -> RuntimeError {
        RuntimeError::Reply { address: self.address.to_string(), command: shown(command), error }
    }

    async fn send(&self, connection: &mut Connection, command: &[u8]) -> Result<(), RuntimeError> {
        match timeout(self.bound, connection.write_all(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.broken(command, source)),
            Err(_) => Err(self.silent(command)),
        }
    }

    /// Reads what is there next behind what `buffer` holds; 0 at the end of the stream.
    async fn read(&self, connection: &mut Connection, command: &[u8], buffer: &mut Vec<u8>) -> Result<usize, RuntimeError> {
        match timeout(self.bound, connection.read_buf(buffer)).await {
            Ok(Ok(length)) => Ok(length),
            Ok(Err(source)) => Err(self.broken(command, source)),
            Err(_) => Err(self.silent(command)),
        }
    }

    /// Reads to the end of the stream; `take` gets the bytes as they come.
    async fn receive(
        &self,
        mut connection: Connection,
        command: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), ReplyError>,
    ) -> Result<(), RuntimeError> {
        let mut buffer = Vec::with_capacity(READ_BUFFER);
        while self.read(&mut connection, command, &mut buffer).await? > 0 {
            take(&buffer).map_err(|error| self.refused(command, error))?;
            buffer.clear();
        }
        Ok(())
    }

    /// Sends a line and reads a listing to its end; `take` gets the bytes as they come. Each read is bounded, and all of them
    /// together.
    async fn receive_rows(
        &self,
        line: &[u8],
        rows: RowBound,
        take: impl FnMut(&[u8]) -> Result<(), ReplyError>,
    ) -> Result<(), RuntimeError> {
        let mut connection = self.connect().await?;
        self.send(&mut connection, line).await?;
        let whole = rows.time(self.bound);
        let endless = || RuntimeError::Endless { address: self.address.to_string(), command: shown(line), waited: whole };
        timeout(whole, self.receive(connection, line, take)).await.unwrap_or_else(|_| Err(endless()))
    }

    /// Sends one line or payload command over an open connection and returns its whole answer.
    async fn exchange(&self, mut connection: Connection, command: &[u8]) -> Result<Vec<u8>, RuntimeError> {
        self.send(&mut connection, command).await?;
        let mut answer = Vec::with_capacity(SHORT_ANSWER);
        let receive = async {
            while self.read(&mut connection, command, &mut answer).await? > 0 {
                if answer.len() > MAX_REPLY {
                    let text = format!("more than {MAX_REPLY} bytes");
                    return Err(self.refused(command, ReplyError::Unexpected { text }));
                }
            }
            Ok(())
        };
        // Bounded as a whole too: a byte now and then is no answer.
        timeout(self.bound, receive).await.unwrap_or_else(|_| Err(self.silent(command)))?;
        Ok(answer)
    }

    /// Sends one command line, its end included, and returns the whole answer.
    ///
    /// # Errors
    /// When the socket can't be reached or stays silent.
    pub async fn call(&self, line: &str) -> Result<Vec<u8>, RuntimeError> {
        self.call_bytes(line.as_bytes()).await
    }

    async fn call_bytes(&self, line: &[u8]) -> Result<Vec<u8>, RuntimeError> {
        let connection = self.connect().await?;
        self.exchange(connection, line).await
    }

    /// Sends a line of one command and judges its reply.
    async fn judge<T>(&self, line: &str, judge: impl FnOnce(&[u8]) -> Result<T, ReplyError>) -> Result<T, RuntimeError> {
        let answer = self.call(line).await?;
        codec::replies(&answer, 1).and_then(|replies| judge(replies[0])).map_err(|error| self.refused(line.as_bytes(), error))
    }
}

/// How many rows a listing may have, so that one without an end ends.
#[derive(Debug, Clone, Copy)]
struct RowBound {
    most: usize,
    left: usize,
}

impl RowBound {
    fn new(expected: usize) -> Self {
        let most = expected.saturating_add(MORE_ROWS).min(MOST_ROWS);
        Self { most, left: most }
    }

    /// How long the whole listing may take, where so long may pass without a byte.
    fn time(self, silence: Duration) -> Duration {
        silence * LISTING_BOUNDS + A_ROW * u32::try_from(self.most).unwrap_or(TIMED_ROWS).min(TIMED_ROWS)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        let rows = memchr::memchr_iter(b'\n', bytes).count();
        self.left = self.left.checked_sub(rows).ok_or(ReplyError::TooLong { rows: self.most })?;
        Ok(())
    }
}

/// Leaves HAProxy to its requests after a part that took so long; for how long.
async fn rest(pace: &mut Pace, took: Duration) -> Duration {
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

fn shown(command: &[u8]) -> String {
    let line = command.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(SHOWN_COMMAND)]).into_owned()
}

/// One map behind a stats socket.
#[derive(Debug, Clone)]
pub struct MapClient {
    client: RuntimeClient,
    map: MapName,
    max_payload: usize,
}

impl MapClient {
    /// A map of the instance in the settings.
    pub fn of(instance: &settings::Instance, map: &MapName) -> Self {
        Self::new(RuntimeClient::new(instance.runtime.clone(), instance.timeout), map.clone(), instance.max_payload)
    }

    /// `max_payload` bounds a payload command and a command line, in bytes.
    pub fn new(client: RuntimeClient, map: MapName, max_payload: usize) -> Self {
        Self { client, map, max_payload }
    }

    /// The map.
    pub fn map(&self) -> &MapName {
        &self.map
    }

    /// Looks at the process, the socket's level and the map's counters.
    ///
    /// # Errors
    /// When the socket can't be reached, stays silent or answers something else.
    pub async fn glance(&self) -> Result<Glance, RuntimeError> {
        let answer = self.client.call(command::GLANCE).await?;
        reply::glance(&answer, self.map.as_str()).map_err(|error| self.client.refused(command::GLANCE.as_bytes(), error))
    }

    /// The names of all backends and servers.
    ///
    /// # Errors
    /// As every command: not reached, silent, refused.
    pub async fn backends_and_servers(&self) -> Result<BTreeSet<String>, RuntimeError> {
        self.client.judge(command::BACKENDS_AND_SERVERS, reply::backends_and_servers).await
    }

    /// Opens a new version.
    ///
    /// # Errors
    /// As every command: not reached, silent, refused.
    pub async fn prepare(&self) -> Result<u64, RuntimeError> {
        self.client.judge(&self.map.prepare(), command::prepared).await
    }

    /// Adds every entry to a version, with rests between the payloads, which are added to `rested`. The next connection is opened
    /// while HAProxy works on the payload before it.
    ///
    /// # Errors
    /// As every command; payloads before the failing one stay in the version.
    pub async fn stage(&self, version: u64, entries: &EntryMap, rested: &mut Duration) -> Result<(), RuntimeError> {
        let header = self.map.stage_header(version);
        let mut payloads = Payloads::new(&header, entries.iter(), self.max_payload);
        let (mut payload, mut next) = (Vec::with_capacity(self.max_payload), Vec::with_capacity(self.max_payload));
        let mut more = payloads.next_into(&mut payload);
        let mut connection = if more { Some(self.client.connect().await?) } else { None };
        let mut pace = Pace::default();
        while let Some(open) = connection.take() {
            more = more && payloads.next_into(&mut next);
            let sent = Instant::now();
            let following = async { if more { self.client.connect().await.map(Some) } else { Ok(None) } };
            let (answer, following) = tokio::join!(self.client.exchange(open, &payload), following);
            let took = sent.elapsed();
            codec::replies(&answer?, 1)
                .and_then(|replies| command::silent(replies[0]))
                .map_err(|error| self.client.refused(&payload, error))?;
            connection = following?;
            std::mem::swap(&mut payload, &mut next);
            if more {
                *rested += rest(&mut pace, took).await;
            }
        }
        Ok(())
    }

    /// Lists a version, or the live map, entry by entry. About `expected` entries are expected.
    ///
    /// # Errors
    /// As every command; a listing that ends early is an error whatever was taken until then, and so is one that does not end.
    pub async fn list(
        &self,
        version: Option<u64>,
        expected: usize,
        mut entry: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), RuntimeError> {
        let line = self.map.show(version);
        let (mut listing, mut rows) = (Listing::new(), RowBound::new(expected));
        let bound = rows;
        let take = |bytes: &[u8]| {
            listing.feed(bytes, &mut entry)?;
            rows.take(bytes)
        };
        self.client.receive_rows(line.as_bytes(), bound, take).await?;
        listing.finish().map_err(|error| self.client.refused(line.as_bytes(), error))
    }

    /// Makes a version the live map, at once for every request.
    ///
    /// # Errors
    /// As every command; [`ReplyError::VersionOvertaken`] where another writer was later.
    pub async fn commit(&self, version: u64) -> Result<(), RuntimeError> {
        self.client.judge(&self.map.commit(version), command::silent).await
    }

    /// Drops a version that is not the live one.
    ///
    /// # Errors
    /// As every command.
    pub async fn clear(&self, version: u64) -> Result<(), RuntimeError> {
        self.client.judge(&self.map.clear(version), command::silent).await
    }

    /// Runs single commands, at most `most` a line, with rests between the lines, which are added to `rested`. Stops at the first
    /// that fails.
    ///
    /// # Errors
    /// As every command; what stands before the failing line is done, and the rest of its line may be.
    pub async fn run(
        &self,
        commands: impl Iterator<Item = String>,
        most: usize,
        rested: &mut Duration,
    ) -> Result<(), RuntimeError> {
        let mut lines = codec::Batches::new(commands, self.max_payload, most);
        let mut pace = Pace::default();
        let mut following = lines.next();
        while let Some((line, count)) = following {
            let sent = Instant::now();
            let answer = self.client.call(&line).await?;
            let took = sent.elapsed();
            codec::replies(&answer, count)
                .and_then(|replies| replies.into_iter().try_for_each(command::silent))
                .map_err(|error| self.client.refused(line.as_bytes(), error))?;
            following = lines.next();
            if following.is_some() {
                *rested += rest(&mut pace, took).await;
            }
        }
        Ok(())
    }

    /// Looks keys up as traffic does; `found` gets each key's position and value.
    ///
    /// # Errors
    /// As every command.
    pub async fn look_up<'k>(
        &self,
        keys: impl Iterator<Item = &'k str>,
        mut found: impl FnMut(usize, Option<&str>),
    ) -> Result<(), RuntimeError> {
        let mut position = 0;
        for (line, count) in codec::Batches::new(keys.map(|key| self.map.get(key)), self.max_payload, usize::MAX) {
            let answer = self.client.call(&line).await?;
            let judge = |replies: Vec<&[u8]>| {
                for reply in replies {
                    found(position, command::looked_up(reply)?);
                    position += 1;
                }
                Ok(())
            };
            codec::replies(&answer, count).and_then(judge).map_err(|error| self.client.refused(line.as_bytes(), error))?;
        }
        Ok(())
    }
}

/// The backends and servers behind a stats socket.
#[derive(Debug, Clone)]
pub struct ServersClient {
    client: RuntimeClient,
    max_payload: usize,
}

impl ServersClient {
    /// The servers of the instance in the settings.
    pub fn of(instance: &settings::Instance) -> Self {
        Self::new(RuntimeClient::new(instance.runtime.clone(), instance.timeout), instance.max_payload)
    }

    /// `max_payload` bounds a command line, in bytes.
    pub fn new(client: RuntimeClient, max_payload: usize) -> Self {
        Self { client, max_payload }
    }

    /// Looks at every backend and server, in one line. From 3.0 on a new address shows a moment after it was set.
    ///
    /// # Errors
    /// As every command; also a row that can't be read, never a list without it.
    pub async fn observe(&self) -> Result<ObservedServers, RuntimeError> {
        let line = server_command::OBSERVE;
        let answer = self.client.call(line).await?;
        server_reply::observed(&answer).map_err(|error| self.client.refused(line.as_bytes(), error))
    }

    /// Runs commands in their order, as many a line as fit. The outcomes are in the same order; a refusal does not stop the rest.
    ///
    /// # Errors
    /// When a line is not answered whole. The lines before it are done, and of it anything may be: look again.
    pub async fn run(&self, commands: &[ServerCommand]) -> Result<Vec<Result<(), Refusal>>, RuntimeError> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for (line, part) in server_command::lines(commands, self.max_payload) {
            let answer = self.client.call(&line).await?;
            let judged = server_command::outcomes(&answer, part).map_err(|error| self.client.refused(line.as_bytes(), error))?;
            outcomes.extend(judged);
        }
        Ok(outcomes)
    }

    /// Waits in HAProxy until a server in maintenance has no connection left, for at most `delay` (3.0 and later; before it is
    /// [`Refusal::UnknownCommand`]). False when the delay ended first.
    ///
    /// # Errors
    /// When HAProxy does not answer some time after `delay`.
    pub async fn wait_removable(&self, at: &ServerPath, delay: Duration) -> Result<Result<bool, Refusal>, RuntimeError> {
        let patient = RuntimeClient { bound: self.client.bound + delay, ..self.client.clone() };
        patient.judge(&server_command::wait_removable(at, delay), |reply| Ok(server_command::removable(reply))).await
    }
}

/// One stick table behind a stats socket.
#[derive(Debug, Clone)]
pub struct TableClient {
    client: RuntimeClient,
    table: TableName,
    max_payload: usize,
}

impl TableClient {
    /// A table of the instance in the settings.
    pub fn of(instance: &settings::Instance, table: &TableName) -> Self {
        Self::new(RuntimeClient::new(instance.runtime.clone(), instance.timeout), table.clone(), instance.max_payload)
    }

    /// `max_payload` bounds a command line, in bytes.
    pub fn new(client: RuntimeClient, table: TableName, max_payload: usize) -> Self {
        Self { client, table, max_payload }
    }

    /// Every stick table of the process.
    ///
    /// # Errors
    /// As every command.
    pub async fn tables(&self) -> Result<Vec<TableSize>, RuntimeError> {
        self.client.judge(table::TABLES, table::tables).await
    }

    /// Lists the rows one by one as they come, about `most` of them: the rest is not read, so that a table of any size costs no more.
    /// Returns the table's size, and how many rows it has beyond those that were listed.
    ///
    /// # Errors
    /// As every command; a listing that ends early is an error whatever was taken until then.
    pub async fn list(&self, most: usize, mut each: impl FnMut(Row)) -> Result<(TableSize, u64), RuntimeError> {
        let line = self.table.show();
        let line = line.as_bytes();
        let mut connection = self.client.connect().await?;
        self.client.send(&mut connection, line).await?;
        let (mut rows, mut buffer) = (Rows::new(), Vec::with_capacity(READ_BUFFER));
        let refused = |error| self.client.refused(line, error);
        let whole = RowBound::new(most).time(self.client.bound);
        let receive = async {
            while self.client.read(&mut connection, line, &mut buffer).await? > 0 {
                rows.feed(&buffer, &mut each).map_err(refused)?;
                buffer.clear();
                if rows.count() >= most as u64
                    && let Some(head) = rows.head()
                {
                    // The end of the listing may be here too; either way so many are left.
                    return Ok(Some((head.clone(), head.used.saturating_sub(rows.count()))));
                }
            }
            Ok(None)
        };
        let endless = || RuntimeError::Endless { address: self.client.address.to_string(), command: shown(line), waited: whole };
        match timeout(whole, receive).await.unwrap_or_else(|_| Err(endless()))? {
            Some(left) => Ok(left),
            None => rows.finish().map(|size| (size, 0)).map_err(refused),
        }
    }

    /// Forgets keys, as many a line as fit; one that is not there is forgotten too. Returns how many stay, because a request
    /// holds them right now or because the key is empty.
    ///
    /// # Errors
    /// As every command; keys of the lines before are forgotten.
    pub async fn forget<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<usize, RuntimeError> {
        let mut staying = 0;
        let commands: Vec<Vec<u8>> = keys
            .filter_map(|key| {
                let command = self.table.forget(key);
                staying += usize::from(command.is_none());
                command
            })
            .collect();
        for (line, count) in table::lines(&commands, self.max_payload) {
            let answer = self.client.call_bytes(&line).await?;
            let judge = |replies: Vec<&[u8]>| replies.into_iter().map(table::forgotten).collect::<Result<Vec<_>, _>>();
            let forgotten = codec::replies(&answer, count).and_then(judge);
            let forgotten = forgotten.map_err(|error| self.client.refused(&line, error))?;
            staying += forgotten.into_iter().filter(|forgotten| !forgotten).count();
        }
        Ok(staying)
    }
}
