//! A proxy in front of an admin socket, so that a test acts at an exact command: it holds one
//! command while the test kills, reloads or interferes, or cuts a reply at a byte. In bad
//! [`Weather`] it does such things by itself, as a seed has it.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::random::Random;

/// Longer than Mapsmith takes to reach any command.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command that passed or was held: its first line, and its bytes with the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub line: String,
    pub bytes: usize,
}

/// What happens to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Forward,
    /// It never arrives; the connection closes without a reply.
    Lose,
    /// It arrives, and the connection closes after this many bytes of the reply.
    Cut(usize),
    /// It waits for the test's verdict.
    Hold,
    /// Only so many of its bytes arrive, then both connections close.
    Break(usize),
    /// It arrives late.
    Late(Duration),
    /// It arrives, and nothing comes back for so long; then the connection closes.
    Silent(Duration),
}

/// What a bad line does to commands, drawn from a seed.
#[derive(Debug)]
pub struct Weather {
    random: Random,
    /// How many in a hundred commands suffer.
    percent: usize,
}

impl Weather {
    pub fn new(seed: u64, percent: usize) -> Self {
        Self { random: Random::new(seed), percent }
    }

    fn verdict(&mut self, command: &Command) -> Verdict {
        if !self.random.chance(self.percent) {
            return Verdict::Forward;
        }
        match self.random.below(16) {
            0..4 => Verdict::Lose,
            4..8 => Verdict::Cut(self.random.below(400)),
            8..11 => Verdict::Break(self.random.below(command.bytes)),
            11..15 => Verdict::Late(Duration::from_millis(self.random.below(400) as u64)),
            _ => Verdict::Silent(Duration::from_secs(3)),
        }
    }
}

/// A verdict on the `nth` next command (1 is the next one) whose first line begins with `prefix`.
#[derive(Debug)]
struct Rule {
    prefix: String,
    nth: usize,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct State {
    commands: Vec<Command>,
    rules: VecDeque<Rule>,
    /// Replies that were longer than their cut.
    shortened: usize,
    weather: Option<Weather>,
    /// How many commands suffered from it.
    suffered: usize,
    /// Commands that begin so are answered by the proxy itself, without an end.
    endless: Option<String>,
    /// How many such answers the client has ended by leaving.
    left: usize,
    held: Option<Command>,
    verdict: Option<Verdict>,
    ended: bool,
}

struct Shared {
    upstream: String,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that fails while it holds the lock must still find its way out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a command and says what happens to it, once that is known.
    fn judge(&self, command: Command) -> Verdict {
        let mut state = self.state();
        state.commands.push(command.clone());
        let mut verdict = Verdict::Forward;
        if let Some(rule) = state.rules.front_mut()
            && command.line.starts_with(&rule.prefix)
        {
            rule.nth -= 1;
            if rule.nth == 0 {
                verdict = rule.verdict;
                state.rules.pop_front();
            }
        }
        if verdict == Verdict::Forward
            && let Some(weather) = &mut state.weather
        {
            verdict = weather.verdict(&command);
            state.suffered += usize::from(verdict != Verdict::Forward);
        }
        self.changed.notify_all();
        if verdict != Verdict::Hold {
            return verdict;
        }
        state.held = Some(command);
        while state.verdict.is_none() && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.held = None;
        state.verdict.take().unwrap_or(Verdict::Lose)
    }
}

/// The proxy; its socket is gone on drop.
pub struct AdminProxy {
    directory: TempDir,
    shared: Arc<Shared>,
}

impl AdminProxy {
    /// In front of an admin socket, given as Mapsmith's settings write it. Each command gets a
    /// connection of its own there, so the socket's HAProxy may go and come back.
    pub fn start(upstream: &str) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("mapsmith-proxy-")
            .tempdir()
            .expect("a temporary folder");
        let listener =
            UnixListener::bind(directory.path().join("admin.sock")).expect("a fresh socket");
        let shared = Shared {
            upstream: upstream.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let proxy = Self { directory, shared: Arc::new(shared) };
        let shared = proxy.shared.clone();
        thread::spawn(move || accept(&listener, &shared));
        proxy
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// Its own socket, as Mapsmith's settings write it.
    pub fn address(&self) -> String {
        format!("unix@{}", self.socket().display())
    }

    /// Every command so far.
    pub fn commands(&self) -> Vec<Command> {
        self.shared.state().commands.clone()
    }

    /// Holds the `nth` next command that begins with `prefix`. Several rules take effect one after
    /// the other.
    pub fn hold(&self, prefix: &str, nth: usize) {
        self.add_rule(prefix, nth, Verdict::Hold);
    }

    /// Cuts the reply to the `nth` next command that begins with `prefix` after so many bytes.
    pub fn cut(&self, prefix: &str, nth: usize, bytes: usize) {
        self.add_rule(prefix, nth, Verdict::Cut(bytes));
    }

    fn add_rule(&self, prefix: &str, nth: usize, verdict: Verdict) {
        self.shared.state().rules.push_back(Rule { prefix: prefix.to_owned(), nth, verdict });
    }

    /// Forgets what was to be held or cut, and loses what is held.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        if state.held.is_some() {
            state.verdict = Some(Verdict::Lose);
        }
        self.shared.changed.notify_all();
    }

    /// The command that is held now.
    pub fn held(&self) -> Option<Command> {
        self.shared.state().held.clone()
    }

    /// Bad weather from now on, or none.
    pub fn weather(&self, weather: Option<Weather>) {
        self.shared.state().weather = weather;
    }

    /// How many commands suffered from the weather so far.
    pub fn suffered(&self) -> usize {
        self.shared.state().suffered
    }

    /// From now on commands that begin so get rows without an end; none ends that.
    pub fn endless(&self, prefix: Option<&str>) {
        self.shared.state().endless = prefix.map(str::to_owned);
    }

    /// How many answers without an end the client has left.
    pub fn left(&self) -> usize {
        self.shared.state().left
    }

    /// Takes its socket away, so that nobody can connect, or puts it back.
    pub fn absent(&self, absent: bool) {
        let (there, away) = (self.socket(), self.directory.path().join("away.sock"));
        let (from, to) = if absent { (&there, &away) } else { (&away, &there) };
        fs::rename(from, to).expect("the socket can be moved");
    }

    /// How many replies a cut has shortened.
    pub fn shortened(&self) -> usize {
        self.shared.state().shortened
    }

    /// Waits for the command that is to be held.
    ///
    /// # Panics
    /// With all the commands so far when it does not come.
    pub fn wait_held(&self) -> Command {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.held.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.held.clone().unwrap_or_else(|| {
            let last = state
                .commands
                .iter()
                .rev()
                .take(20)
                .map(|command| command.line.get(..60).unwrap_or(&command.line));
            panic!(
                "the command to hold has not come ({:?}); the last ones, backwards: {:#?}",
                state.rules,
                last.collect::<Vec<_>>()
            )
        })
    }

    /// Lets the held command through.
    pub fn forward(&self) {
        self.release(Verdict::Forward);
    }

    /// Closes the held command's connection: the command never arrives.
    pub fn lose(&self) {
        self.release(Verdict::Lose);
    }

    fn release(&self, verdict: Verdict) {
        let mut state = self.shared.state();
        assert!(state.held.is_some(), "no command is held");
        state.verdict = Some(verdict);
        self.shared.changed.notify_all();
        // Until it is taken, so that the next command can't be taken for this one.
        while state.verdict.is_some() {
            let waited = self.shared.changed.wait_timeout(state, Duration::from_millis(10));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for AdminProxy {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
        // Wakes the accepting thread; where it fails, that thread has gone already.
        let _ = UnixStream::connect(self.socket());
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.state().ended {
            return;
        }
        let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
        // How either side leaves is what the tests are about; the thread only passes it on.
        thread::spawn(move || serve(stream, &shared));
    }
}

fn serve(mut client: UnixStream, shared: &Shared) -> io::Result<()> {
    let command = read_command(&mut BufReader::new(client.try_clone()?))?;
    if command.is_empty() {
        return Ok(());
    }
    let line =
        String::from_utf8_lossy(command.split(|byte| *byte == b'\n').next().unwrap_or_default())
            .into_owned();
    if shared.state().endless.as_ref().is_some_and(|prefix| line.starts_with(prefix)) {
        let rows = "0x55d0 a-node-of-no-end a-master\n".repeat(1000);
        while client.write_all(rows.as_bytes()).is_ok() {}
        shared.state().left += 1;
        return Ok(());
    }
    let (mut arrives, mut limit, mut silence) = (command.len(), u64::MAX, Duration::ZERO);
    match shared.judge(Command { line, bytes: command.len() }) {
        Verdict::Lose | Verdict::Hold => return Ok(()),
        Verdict::Forward => {}
        Verdict::Cut(bytes) => limit = bytes as u64,
        Verdict::Break(bytes) => (arrives, limit) = (bytes, 0),
        Verdict::Late(time) => thread::sleep(time),
        Verdict::Silent(time) => (limit, silence) = (0, time),
    }
    let mut relay = |mut upstream: Box<dyn ReadWrite>| {
        upstream.write_all(&command[..arrives])?;
        if arrives < command.len() {
            return Ok(());
        }
        io::copy(&mut Read::take(&mut upstream, limit), &mut client)?;
        // Read to its end, so that a cut reply's command was carried out before the client knows of
        // the cut.
        if io::copy(&mut upstream, &mut io::sink())? > 0 {
            shared.state().shortened += 1;
        }
        thread::sleep(silence);
        Ok(())
    };
    match shared.upstream.split_once('@') {
        Some(("unix", path)) => relay(Box::new(UnixStream::connect(path)?)),
        Some(("tcp", address)) => relay(Box::new(TcpStream::connect(address)?)),
        _ => panic!("not an address: {:?}", shared.upstream),
    }
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// One command line, with its payload if it has one. Empty when the client left before the end.
fn read_command(client: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut command = Vec::new();
    client.read_until(b'\n', &mut command)?;
    while command.ends_with(b"\n") {
        let is_payload =
            command.split(|byte| *byte == b'\n').next().is_some_and(|line| line.ends_with(b" <<"));
        if !is_payload || command.ends_with(b"\n\n") {
            return Ok(command);
        }
        client.read_until(b'\n', &mut command)?;
    }
    Ok(Vec::new())
}
