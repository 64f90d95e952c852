//! Maps to measure with, a registry that serves them, and the least that a swap of them can cost.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mapsmith_core::{EntryMap, EntryMapBuilder};

/// The settings' default payload, in bytes.
pub const PAYLOAD: usize = 15 * 1024;

/// `entries` nodes over ten masters; another `shift` sends every node to another master.
pub fn nodes(entries: usize, shift: usize) -> EntryMap {
    let mut builder = EntryMapBuilder::new();
    let mut key = String::new();
    for node in 0..entries {
        key.clear();
        let _ = write!(key, "node{node:07}.example.test");
        builder.push(&key, &format!("puppet{:02}", (node + shift) % 10)).expect("a valid entry");
    }
    builder.finish()
}

/// `map` with its first `changes` nodes sent to another master.
pub fn changed(map: &EntryMap, changes: usize) -> EntryMap {
    let mut builder = EntryMapBuilder::new();
    // Spread over the map: a list is walked to each of them.
    let step = map.len() / changes;
    for (at, (key, value)) in map.iter().enumerate() {
        let moved = at % step == 0 && at / step < changes;
        builder.push(key, if moved { "moved" } else { value }).expect("a valid entry");
    }
    builder.finish()
}

/// In milliseconds.
pub fn median(mut values: Vec<Duration>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2].as_secs_f64() * 1000.0
}

/// Answers every request with one of some whole answers, as PuppetDB would write them.
pub struct Registry {
    pub url: String,
    answers: Arc<Vec<Vec<u8>>>,
    says: Arc<AtomicUsize>,
}

impl Registry {
    /// Says the first of these maps.
    pub fn start(maps: &[EntryMap]) -> anyhow::Result<Self> {
        let row = |(node, master): (&str, &str)| {
            format!(
                "{{\"certname\":\"{node}\",\"producer\":\"{master}\",\
                 \"producer_timestamp\":\"2026-11-20T10:25:04.290Z\"}}"
            )
        };
        let print = |map: &EntryMap| {
            format!("[{}]", map.iter().map(row).collect::<Vec<_>>().join(",")).into_bytes()
        };
        let answers: Arc<Vec<_>> = Arc::new(maps.iter().map(print).collect());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (url, says) =
            (format!("http://{}", listener.local_addr()?), Arc::new(AtomicUsize::new(0)));
        let (served, at) = (Arc::clone(&answers), Arc::clone(&says));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (served, at) = (Arc::clone(&served), Arc::clone(&at));
                std::thread::spawn(move || answer(stream, &served[at.load(Ordering::SeqCst)]));
            }
        });
        Ok(Self { url, answers, says })
    }

    /// From now on the map at this position.
    pub fn says(&self, map: usize) {
        self.says.store(map, Ordering::SeqCst);
    }

    /// The size of the first answer.
    pub fn bytes(&self) -> usize {
        self.answers[0].len()
    }
}

/// Reads a request and answers it with this body.
pub fn answer(mut stream: std::net::TcpStream, body: &[u8]) -> std::io::Result<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..length]);
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: \
            close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
