//! What must hold, whatever happens: judged from what clients get, and from the file.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mapsmith_core::render::stamp::{self, Stamp};

/// More would say nothing new.
const MOST: usize = 5;

/// A time in which something may fail for a reason that is the harness's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// A master, or the worker that serves, was killed.
    Down,
    /// An old worker was killed, and what it had with it.
    Cut,
    /// Mapsmith was killed, and may not hold the sockets again yet.
    Unheld,
    /// HAProxy's file was edited.
    Edited,
}

#[derive(Debug)]
struct Window {
    excuse: Excuse,
    from: Instant,
    to: Option<Instant>,
}

impl Window {
    fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

#[derive(Debug)]
struct Allowed {
    word: String,
    from: Instant,
    to: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    broken: Vec<String>,
    windows: Vec<Window>,
    words: Vec<Allowed>,
    servers: BTreeSet<String>,
    requests: usize,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The word of the configuration in force.
    Word,
    /// The same, half of it long before the rest.
    Slowly,
    /// A server of the backend.
    Server,
}

#[derive(Debug, Default)]
pub struct Laws(Mutex<State>);

impl Laws {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn broken(&self, what: String) {
        let mut state = self.state();
        if state.broken.len() < MOST {
            state.broken.push(what);
        }
    }

    pub fn all_broken(&self) -> Vec<String> {
        self.state().broken.clone()
    }

    pub fn requests(&self) -> usize {
        self.state().requests
    }

    pub fn excused(&self, excuse: Excuse) {
        self.state().windows.push(Window { excuse, from: Instant::now(), to: None });
    }

    /// Ends every such window.
    pub fn closed(&self, excuse: Excuse) {
        let now = Instant::now();
        let mut state = self.state();
        let open = state
            .windows
            .iter_mut()
            .filter(|window| window.excuse == excuse && window.to.is_none());
        open.for_each(|window| window.to = Some(now));
    }

    /// This may be answered from now on.
    pub fn allow(&self, word: &str) {
        self.state().words.push(Allowed { word: word.to_owned(), from: Instant::now(), to: None });
    }

    /// Nothing but this may be answered to whoever asks from now on.
    pub fn only(&self, word: &str) {
        let now = Instant::now();
        let mut state = self.state();
        let others =
            state.words.iter_mut().filter(|allowed| allowed.to.is_none() && allowed.word != word);
        others.for_each(|allowed| allowed.to = Some(now));
    }

    pub fn serves(&self, servers: impl IntoIterator<Item = String>) {
        self.state().servers.extend(servers);
    }

    /// An answer to what was asked `from` then; of a kept connection since its last answer, which
    /// is when it may have been given to a worker.
    pub fn judge(
        &self,
        asked: Asked,
        (from, to): (Instant, Instant),
        answer: &io::Result<(u16, String)>,
        holds: bool,
    ) {
        let mut state = self.state();
        state.requests += 1;
        let in_window = |excuse| {
            state
                .windows
                .iter()
                .filter(move |window| window.excuse == excuse && window.overlaps(from, to))
        };
        let is_right = match (asked, answer) {
            (Asked::Word | Asked::Slowly, Ok((200, word))) => state.words.iter().any(|allowed| {
                allowed.word == *word
                    && allowed.from <= to
                    && allowed.to.is_none_or(|end| end >= from)
            }),
            (Asked::Server, Ok((200, name))) => state.servers.contains(name),
            (Asked::Slowly, Err(_)) if in_window(Excuse::Cut).next().is_some() => true,
            (_, Err(error)) => in_window(Excuse::Down).any(|down| {
                let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                let is_unheld = || {
                    state.windows.iter().any(|window| {
                        window.excuse == Excuse::Unheld && window.overlaps(down.from, to)
                    })
                };
                !is_refused || !holds || is_unheld()
            }),
            // A server's connections end with the worker; a new one knows none of them as down.
            (_, Ok(_)) => in_window(Excuse::Down).next().is_some(),
        };
        if !is_right {
            let took = (to - from).as_millis();
            drop(state);
            self.broken(format!("{asked:?} got {answer:?} after {took} ms"));
        }
    }

    /// The file must be one that was rendered, to its end.
    pub fn look_at_file(&self, config: &Path) {
        let Ok(text) = fs::read(config) else { return };
        let now = Instant::now();
        let is_whole = matches!(stamp::read(&text), Stamp::Whole { .. });
        let is_excused = || {
            let state = self.state();
            let mut edited = state.windows.iter().filter(|window| window.excuse == Excuse::Edited);
            edited.any(|window| window.overlaps(now, now))
        };
        if !is_whole && !is_excused() {
            let text = String::from_utf8_lossy(&text);
            self.broken(format!("{} is not whole:\n{text}", config.display()));
        }
    }
}
