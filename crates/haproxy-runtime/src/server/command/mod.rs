//! Commands that change servers and backends, as values, each with the one parse of its replies.
//! Pure.
//!
//! HAProxy's replies have no codes, and their texts differ between versions; every text here was
//! measured on 2.6, 3.0, 3.2 and 3.4. Before 3.0 `del server` and some refusals of `add server`
//! lack the empty line that ends a reply, see [`outcomes`].

use core::fmt;
use core::time::Duration;

use super::{Server, ServerAddress, is_valid_name};
use crate::error::ReplyError;
use crate::wire;

mod refusal;

pub use refusal::Refusal;

/// The last command of each line: its answer shows that the line's answer is whole, whatever stands
/// before it.
pub const END: &str = "show cli level";

/// Both lists that an observation of the servers is made of, in one line, without frontends. See
/// [`super::reply::observed`].
pub const OBSERVE: &str = "show servers state;show stat -1 6 -1\n";

/// A name that can't stand in a command: nothing of it is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} can't name a backend or a server: use letters, digits and `.`, `_`, `:`, `-`")]
pub struct InvalidName {
    /// The name.
    pub name: String,
}

fn valid(name: &str) -> Result<String, InvalidName> {
    if is_valid_name(name) {
        Ok(name.to_owned())
    } else {
        Err(InvalidName { name: name.to_owned() })
    }
}

/// A server of a backend; both names are valid.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerPath {
    backend: String,
    server: String,
}

impl ServerPath {
    /// The server `server` of the backend `backend`.
    ///
    /// # Errors
    /// When a name can't stand in a command.
    pub fn new(backend: &str, server: &str) -> Result<Self, InvalidName> {
        Ok(Self { backend: valid(backend)?, server: valid(server)? })
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// The server's name.
    pub fn server(&self) -> &str {
        &self.server
    }
}

impl fmt::Display for ServerPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.backend, self.server)
    }
}

/// What `set server state` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// In rotation, as far as its checks allow.
    Ready,
    /// The same, for a server with a running check that comes out of maintenance: down until its
    /// check has passed. HAProxy would take it for up until a check fails.
    ReadyOnceChecked,
    /// Takes no new traffic but for persistence; what it has goes on.
    Drain,
    /// Takes none; requests in flight go on, and its checks stop. Entering it closes the idle
    /// connections. Before 3.0 one that goes idle later keeps `del server` away for seconds: enter
    /// it when no session is left, or drain and enter it again.
    Maintenance,
}

/// One change of a backend, or of the server `at` a path.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant says what its fields are")]
pub enum ServerCommand {
    /// Makes a backend (3.4 and later) from a `defaults` section that is named and has a `mode`:
    /// `add backend`, then `publish backend` so that rules may choose it.
    AddBackend { backend: BackendName, defaults: BackendName },
    /// Adds a server of the path's name and puts it into rotation: `add server`, `enable health`
    /// and `enable agent` where it has such checks, then `enable server`; with a check it comes in
    /// by way of draining, down until that has passed. Should another writer have added a server of
    /// that name meanwhile, the refusal is reported and that one is enabled.
    Add { at: ServerPath, server: Box<Server> },
    /// Adds a server that stays in maintenance: `add server`, and `enable health` and `enable agent`
    /// where it has such checks.
    AddOut { at: ServerPath, server: Box<Server> },
    /// Another address and port. From 3.0 on HAProxy makes the change a moment after its answer.
    /// Requests in flight end where they began, and before 3.0 the connections they came by are
    /// used again.
    SetAddress { at: ServerPath, address: ServerAddress },
    /// Another weight, 0 to 256.
    SetWeight { at: ServerPath, weight: u16 },
    /// Another limit of connections; none lifts it.
    SetMaxconn { at: ServerPath, maxconn: Option<u32> },
    /// Ready, drain or maintenance.
    SetState { at: ServerPath, state: ServerState },
    /// Starts the health check that a server has but does not run.
    EnableHealth { at: ServerPath },
    /// Ends every session on a server; the clients see their requests fail.
    ShutdownSessions { at: ServerPath },
    /// Removes a server that is in maintenance and has no connection left.
    Delete { at: ServerPath },
}

/// A valid name of a backend or of a `defaults` section.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendName(String);

impl BackendName {
    /// The name.
    ///
    /// # Errors
    /// When it can't stand in a command.
    pub fn new(name: &str) -> Result<Self, InvalidName> {
        valid(name).map(Self)
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// How a success is recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Success {
    /// Nothing is said.
    Silent,
    /// The last line is this. HAProxy may put warnings and left-over messages before it.
    LastLine(&'static str),
    /// What `set server addr` says: what changed, or that nothing had to.
    Address,
}

impl Success {
    fn parse(self, reply: &[u8]) -> Result<(), Refusal> {
        let text = str::from_utf8(reply).unwrap_or_default();
        let good = match self {
            Self::Silent => reply.is_empty(),
            Self::LastLine(line) => text.lines().next_back() == Some(line),
            Self::Address => {
                // 2.6 words it "no need to change the addr, port changed from ...", 3.0 and later
                // "nothing changed".
                let changes = [
                    "IP changed from '",
                    "port changed from '",
                    "no need to change the addr",
                    "nothing changed",
                ];
                text.lines().count() == 1 && changes.iter().any(|change| text.starts_with(change))
            }
        };
        if good { Ok(()) } else { Err(Refusal::from_text(reply)) }
    }
}

impl ServerCommand {
    /// The commands it is made of, each with how its success is recognized.
    fn parts(&self) -> Vec<(String, Success)> {
        let one = |command: String, success| vec![(command, success)];
        match self {
            Self::AddBackend { backend, defaults } => vec![
                (
                    format!("add backend {backend} from {defaults}"),
                    Success::LastLine("New backend registered."),
                ),
                (format!("publish backend {backend}"), Success::LastLine("Backend published.")),
            ],
            Self::AddOut { at, server } => addition(at, server),
            Self::Add { at, server } => {
                let mut parts = addition(at, server);
                match server.options.check {
                    true => parts.extend(ready_once_checked(at)),
                    false => parts.push((format!("enable server {at}"), Success::Silent)),
                }
                parts
            }
            Self::SetAddress { at, address } => one(
                format!("set server {at} addr {} port {}", address.ip, address.port),
                Success::Address,
            ),
            Self::SetWeight { at, weight } => {
                one(format!("set server {at} weight {weight}"), Success::Silent)
            }
            Self::SetMaxconn { at, maxconn } => one(
                format!("set maxconn server {at} {}", maxconn.unwrap_or_default()),
                Success::Silent,
            ),
            Self::SetState { at, state } => {
                let word = match state {
                    ServerState::ReadyOnceChecked => return ready_once_checked(at).into(),
                    ServerState::Ready => "ready",
                    ServerState::Drain => "drain",
                    ServerState::Maintenance => "maint",
                };
                one(format!("set server {at} state {word}"), Success::Silent)
            }
            Self::EnableHealth { at } => one(format!("enable health {at}"), Success::Silent),
            Self::ShutdownSessions { at } => {
                one(format!("shutdown sessions server {at}"), Success::Silent)
            }
            Self::Delete { at } => {
                one(format!("del server {at}"), Success::LastLine("Server deleted."))
            }
        }
    }
}

/// The command line's words, without its end.
impl fmt::Display for ServerCommand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (command, _)) in self.parts().iter().enumerate() {
            write!(out, "{}{command}", if position == 0 { "" } else { ";" })?;
        }
        Ok(())
    }
}

/// Out of maintenance by way of draining: leaving maintenance sets a server up, and a request on
/// another thread may come between two commands of a line. Leaving drain sets nothing up.
fn ready_once_checked(at: &ServerPath) -> [(String, Success); 3] {
    ["state drain", "health down", "state ready"]
        .map(|word| (format!("set server {at} {word}"), Success::Silent))
}

/// A server that is there, with its checks enabled, in maintenance.
fn addition(at: &ServerPath, server: &Server) -> Vec<(String, Success)> {
    let mut parts = vec![(added(at, server), Success::LastLine("New server registered."))];
    if server.options.check {
        parts.push((format!("enable health {at}"), Success::Silent));
    }
    if server.options.agent_check() {
        parts.push((format!("enable agent {at}"), Success::Silent));
    }
    parts
}

fn added(at: &ServerPath, server: &Server) -> String {
    let mut line = format!("add server {at} {}", server.address);
    let mut word = |word: fmt::Arguments<'_>| {
        line.push(' ');
        line.push_str(&word.to_string());
    };
    if server.options.check {
        word(format_args!("check"));
    }
    if let Some(weight) = server.weight {
        word(format_args!("weight {weight}"));
    }
    if server.backup {
        word(format_args!("backup"));
    }
    if let Some(maxconn) = server.options.maxconn {
        word(format_args!("maxconn {maxconn}"));
    }
    if let Some(maxqueue) = server.options.maxqueue {
        word(format_args!("maxqueue {maxqueue}"));
    }
    for option in &server.options.other {
        word(format_args!("{}", wire::escape(option)));
    }
    line
}

/// Commands joined to lines of at most `limit` bytes, the end included; a single longer one stands
/// alone. Each line ends with [`END`], and comes with how many of the commands it holds.
pub fn lines(
    commands: &[ServerCommand],
    limit: usize,
) -> impl Iterator<Item = (Vec<u8>, &[ServerCommand])> {
    let mut rest = commands;
    let lines =
        wire::Batches::new(commands.iter().map(ServerCommand::to_string), limit, usize::MAX)
            .ending_with(END);
    lines.map(move |(line, count)| {
        let (now, later) = rest.split_at(count);
        rest = later;
        (line, now)
    })
}

/// The outcome of each command of a line in the line's answer.
///
/// Of a command of several parts the first refusal is reported.
///
/// # Errors
/// When the answer is not whole: then nothing is known of any of them.
pub fn outcomes(
    answer: &[u8],
    commands: &[ServerCommand],
) -> Result<Vec<Result<(), Refusal>>, ReplyError> {
    let parts: Vec<Vec<(String, Success)>> = commands.iter().map(ServerCommand::parts).collect();
    let texts: Vec<&str> =
        parts.iter().flatten().map(|(text, _)| text.as_str()).chain([END]).collect();
    let replies =
        wire::replies(answer, texts.len()).or_else(|error| unended(answer, &texts).ok_or(error))?;
    let mut replies = replies.into_iter();
    let outcomes = parts.iter().map(|parts| {
        let judged =
            parts.iter().zip(replies.by_ref()).map(|((_, success), reply)| success.parse(reply));
        // Each part's reply is taken, also after a refusal.
        judged.collect::<Vec<_>>().into_iter().collect()
    });
    let outcomes = outcomes.collect();
    match replies.next() {
        Some(b"admin\n" | b"operator\n" | b"user\n") => Ok(outcomes),
        _ => Err(ReplyError::unexpected(answer)),
    }
}

/// What 2.6 says without the empty line after it, as whole replies to `add server` and
/// `del server`.
const UNENDED: [&str; 7] = [
    "Server deleted.\n",
    "No such backend.\n",
    "No such server.\n",
    "Only servers in maintenance mode can be deleted.\n",
    "Server still has connections attached to it, cannot remove it.\n",
    "This server cannot be removed at runtime due to other configuration elements pointing to \
        it.\n",
    "Backend must use a dynamic load balancing to support dynamic servers.\n",
];

/// [`wire::replies`] for 2.6. Each reply without its empty line makes the count of ends smaller by
/// one, and [`END`] has one always: so an answer that fits one reading never fits the other.
fn unended<'a>(answer: &'a [u8], commands: &[&str]) -> Option<Vec<&'a [u8]>> {
    let mut rest = answer;
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        let plain = wire::without_severity(rest);
        let line = UNENDED.iter().find(|text| plain.starts_with(text.as_bytes()));
        let end = match line {
            Some(line)
                if command.starts_with("add server ") || command.starts_with("del server ") =>
            {
                replies.push(&plain[..line.len()]);
                rest.len() - plain.len() + line.len()
            }
            _ if rest.first() == Some(&b'\n') => {
                replies.push(&rest[..0]);
                1
            }
            _ => {
                let end = memchr::memmem::find(rest, b"\n\n")? + 1;
                replies.push(wire::without_severity(&rest[..end]));
                end + 1
            }
        };
        rest = &rest[end..];
    }
    rest.is_empty().then_some(replies)
}

/// Waits in HAProxy until a server can be removed, for at most `delay` (3.0 and later). Its parse
/// is [`removable`].
pub fn wait_removable(at: &ServerPath, delay: Duration) -> String {
    format!("wait {}ms srv-removable {at}\n", delay.as_millis())
}

/// Whether the server can be removed now; false when the delay ended first.
///
/// # Errors
/// When waiting does not help. 3.0 and 3.2 don't say why: not in maintenance, not there, or named
/// by the configuration.
pub fn removable(reply: &[u8]) -> Result<bool, Refusal> {
    let text = str::from_utf8(reply).unwrap_or_default();
    if text == "Done.\n" {
        Ok(true)
    } else if text.starts_with("Wait delay expired.") {
        Ok(false)
    } else {
        Err(Refusal::from_text(reply))
    }
}

#[cfg(test)]
mod tests;
