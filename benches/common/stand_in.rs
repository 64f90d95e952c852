//! Admin sockets without a HAProxy behind them: they keep a map as HAProxy does and cost next to
//! nothing.
//!
//! They know what a daemon sends that moves nodes: the looks, a swap, `set map` and `get map`;
//! anything else is refused. What they say of the process and its servers is what a HAProxy said.
//! Maps are shared between all of them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;

use crate::common::Gateway;

/// As many whole maps as a change there and back needs.
const KNOWN_MAPS: usize = 3;

/// Running stand-ins; they end with this.
pub struct StandIns {
    _runtime: Runtime,
}

impl StandIns {
    /// One at each socket, holding the map that `model` holds, at version 0. The answers are those
    /// of `model`.
    pub fn start<'a>(
        model: &Gateway,
        map: &str,
        sockets: impl Iterator<Item = &'a Path>,
    ) -> anyhow::Result<Self> {
        let words = Arc::new(Words::record(model, map)?);
        let live = words.shared(plain(&model.call(format!("show map {map}\n").as_bytes())?));
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let entered = runtime.enter();
        for (pid, socket) in (100_000..).zip(sockets) {
            let listener = UnixListener::bind(socket)?;
            let (words, memory) =
                (Arc::clone(&words), Arc::new(Mutex::new(Memory::new(pid, Arc::clone(&live)))));
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (words, memory) = (Arc::clone(&words), Arc::clone(&memory));
                    tokio::spawn(serve(stream, words, memory));
                }
            });
        }
        drop(entered);
        Ok(Self { _runtime: runtime })
    }
}

/// A line, or a payload command with its empty line; then the whole answer, as HAProxy does it.
async fn serve(
    mut stream: UnixStream,
    words: Arc<Words>,
    memory: Arc<Mutex<Memory>>,
) -> std::io::Result<()> {
    let (mut command, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let length = stream.read(&mut buffer).await?;
        command.extend_from_slice(&buffer[..length]);
        let line = memchr::memchr(b'\n', &command).map(|end| &command[..end]);
        let whole = line.is_some_and(|line| !line.ends_with(b"<<") || command.ends_with(b"\n\n"));
        if whole {
            break;
        }
        if length == 0 {
            return Ok(());
        }
    }
    let parts = memory.lock().unwrap_or_else(PoisonError::into_inner).answer(&command, &words);
    for part in parts {
        match part {
            Part::Text(text) => stream.write_all(&text).await?,
            Part::Listing(map) => stream.write_all(&map.listing).await?,
        }
    }
    Ok(())
}

/// The `key value` lines of a listing.
fn plain(listing: &[u8]) -> Vec<u8> {
    let lines = listing
        .split(|byte| *byte == b'\n')
        .filter_map(|line| Some(&line[memchr::memchr(b' ', line)? + 1..]));
    lines.flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

/// A whole map.
struct Lines {
    plain: Vec<u8>,
    listing: Vec<u8>,
    count: usize,
    values: OnceLock<HashMap<Vec<u8>, Vec<u8>>>,
}

impl Lines {
    fn new(plain: Vec<u8>) -> Self {
        let (mut listing, mut count) = (Vec::with_capacity(plain.len() * 3 / 2), 0);
        for line in plain.split_inclusive(|byte| *byte == b'\n') {
            listing.extend_from_slice(b"0x7f7c68a77f00 ");
            listing.extend_from_slice(line);
            count += 1;
        }
        Self { plain, listing, count, values: OnceLock::new() }
    }

    fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.plain.split(|byte| *byte == b'\n').filter_map(|line| {
            let space = memchr::memchr(b' ', line)?;
            Some((&line[..space], &line[space + 1..]))
        })
    }

    fn value(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.values
            .get_or_init(|| {
                self.entries().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
            })
            .get(key)
    }
}

/// What is the same for all of them.
struct Words {
    started: Instant,
    info: String,
    servers: Vec<u8>,
    /// The line of `show map` up to its counters.
    listed: String,
    known: Mutex<Vec<Arc<Lines>>>,
}

impl Words {
    fn record(model: &Gateway, map: &str) -> anyhow::Result<Self> {
        let info = String::from_utf8(model.call(b"show info\n")?)?;
        let maps = String::from_utf8(model.call(b"show map\n")?)?;
        let listed = maps
            .lines()
            .find(|line| line.contains(&format!(" ({map}) ")))
            .context("no such map")?;
        let (listed, _) = listed.rsplit_once(" curr_ver=").context("no counters")?;
        Ok(Self {
            started: Instant::now(),
            info,
            servers: model.call(b"show servers state;show stat -1 6 -1\n")?,
            listed: format!("# id (file) description\n{listed}"),
            known: Mutex::default(),
        })
    }

    /// The one copy of a map.
    fn shared(&self, plain: Vec<u8>) -> Arc<Lines> {
        let mut known: MutexGuard<'_, Vec<Arc<Lines>>> =
            self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = known.iter().find(|lines| lines.plain == plain) {
            return Arc::clone(lines);
        }
        if known.len() == KNOWN_MAPS {
            known.remove(0);
        }
        let lines = Arc::new(Lines::new(plain));
        known.push(Arc::clone(&lines));
        lines
    }

    fn info(&self, pid: u32) -> String {
        let uptime = self.started.elapsed().as_secs();
        let field = |line: &str| match line.split_once(": ") {
            Some(("Pid", _)) => format!("Pid: {pid}\n"),
            Some(("Uptime_sec", _)) => format!("Uptime_sec: {uptime}\n"),
            _ => format!("{line}\n"),
        };
        self.info.trim_end().lines().map(field).collect()
    }
}

enum Part {
    Text(Vec<u8>),
    Listing(Arc<Lines>),
}

/// What one of them holds.
struct Memory {
    pid: u32,
    live: Arc<Lines>,
    /// What was set since the live map was committed.
    moved: HashMap<Vec<u8>, Vec<u8>>,
    live_version: u64,
    last_prepared: u64,
    staged: BTreeMap<u64, Vec<u8>>,
}

impl Memory {
    fn new(pid: u32, live: Arc<Lines>) -> Self {
        Self {
            pid,
            live,
            moved: HashMap::new(),
            live_version: 0,
            last_prepared: 0,
            staged: BTreeMap::new(),
        }
    }

    fn answer(&mut self, command: &[u8], words: &Words) -> Vec<Part> {
        let (line, payload) =
            command.split_at(memchr::memchr(b'\n', command).unwrap_or(command.len()));
        let text = String::from_utf8_lossy(line).into_owned();
        if text == "show servers state;show stat -1 6 -1" {
            return vec![Part::Text(words.servers.clone())];
        }
        let mut parts = Vec::new();
        for one in text.split(';') {
            self.one(&one.split(' ').collect::<Vec<_>>(), payload, words, &mut parts);
            parts.push(Part::Text(b"\n".to_vec()));
        }
        parts
    }

    /// One command; its answer without the empty line that ends it.
    fn one(&mut self, command: &[&str], payload: &[u8], words: &Words, parts: &mut Vec<Part>) {
        let version =
            |word: &str| word.strip_prefix('@').and_then(|number| number.parse().ok()).unwrap_or(0);
        let text = match command {
            ["show", "info"] => words.info(self.pid),
            ["show", "cli", "level"] => "admin\n".to_owned(),
            ["show", "map"] => {
                let staged: usize = self
                    .staged
                    .values()
                    .map(|lines| memchr::memchr_iter(b'\n', lines).count())
                    .sum();
                let entries = self.live.count + staged;
                format!(
                    "{} curr_ver={} next_ver={} entry_cnt={entries}\n",
                    words.listed, self.live_version, self.last_prepared
                )
            }
            ["show", "map", at, _] => {
                let staged = self.staged.get(&version(at)).cloned().unwrap_or_default();
                parts.push(Part::Listing(words.shared(staged)));
                return;
            }
            ["show", "map", _] => {
                parts.push(Part::Listing(self.merged(words)));
                return;
            }
            ["prepare", "map", _] => {
                self.last_prepared += 1;
                format!("New version created: {}\n", self.last_prepared)
            }
            ["add", "map", at, _, "<<"] => {
                // Without the ends of the command line and of the payload.
                let lines = &payload[1..payload.len() - 1];
                self.staged.entry(version(at)).or_default().extend_from_slice(lines);
                String::new()
            }
            ["commit", "map", at, _] => {
                let committed = version(at);
                self.live = words.shared(self.staged.remove(&committed).unwrap_or_default());
                self.moved.clear();
                self.live_version = committed;
                self.staged.retain(|version, _| *version > committed);
                String::new()
            }
            ["set", "map", _, key, value] => match self.live.value(key.as_bytes()) {
                Some(_) => {
                    self.moved.insert(key.as_bytes().to_vec(), value.as_bytes().to_vec());
                    String::new()
                }
                None => "entry not found.\n".to_owned(),
            },
            ["get", "map", _, key] => {
                match self.moved.get(key.as_bytes()).or_else(|| self.live.value(key.as_bytes())) {
                    Some(value) => {
                        let value = String::from_utf8_lossy(value);
                        format!(
                            "type=str, case=sensitive, found=yes, idx=tree, key=\"{key}\", \
                                value=\"{value}\", type=\"str\"\n"
                        )
                    }
                    None => "type=str, case=sensitive, found=no\n".to_owned(),
                }
            }
            other => format!("A stand-in does not know {other:?}.\n"),
        };
        parts.push(Part::Text(text.into_bytes()));
    }

    fn merged(&self, words: &Words) -> Arc<Lines> {
        if self.moved.is_empty() {
            return Arc::clone(&self.live);
        }
        let mut plain = Vec::with_capacity(self.live.plain.len());
        for (key, value) in self.live.entries() {
            let value = self.moved.get(key).map_or(value, Vec::as_slice);
            plain.extend_from_slice(key);
            plain.push(b' ');
            plain.extend_from_slice(value);
            plain.push(b'\n');
        }
        words.shared(plain)
    }
}
