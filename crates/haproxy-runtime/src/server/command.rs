//! Commands that change servers and backends, as values, each with the one judge of its replies.
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

/// The last command of each line: its answer shows that the line's answer is whole, whatever stands
/// before it.
pub const END: &str = "show cli level";

/// Both lists that a look at the servers is made of, in one line. Frontends are not asked for. See
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

/// One change of a server or a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCommand {
    /// Makes a backend (3.4 and later): `add backend`, then `publish backend` so that rules may
    /// choose it.
    AddBackend {
        /// Its name.
        backend: BackendName,
        /// The `defaults` section it is made from: named, and with a `mode`.
        defaults: BackendName,
    },
    /// Adds a server and puts it into rotation: `add server`, `enable health` and `enable agent`
    /// where it has such checks, then `enable server`; with a check it comes in by way of draining,
    /// down until that has passed. Should another writer have added a server of that name since the
    /// last look, the refusal is reported and that one is enabled.
    Add {
        /// Where.
        at: ServerPath,
        /// Address, weight, options. Its name is the path's.
        server: Box<Server>,
    },
    /// Another address and port. From 3.0 on HAProxy makes the change a moment after its answer.
    /// Requests in flight end where they began, and before 3.0 the connections they came by are
    /// used again.
    SetAddress {
        /// Which.
        at: ServerPath,
        /// Where it listens now.
        address: ServerAddress,
    },
    /// Another weight, 0 to 256.
    SetWeight {
        /// Which.
        at: ServerPath,
        /// The weight.
        weight: u16,
    },
    /// Another limit of connections; none lifts it.
    SetMaxconn {
        /// Which.
        at: ServerPath,
        /// The limit.
        maxconn: Option<u32>,
    },
    /// Ready, drain or maintenance.
    SetState {
        /// Which.
        at: ServerPath,
        /// The state.
        state: ServerState,
    },
    /// Starts the health check that a server has but does not run.
    EnableHealth {
        /// Which.
        at: ServerPath,
    },
    /// Ends every session on a server; the clients see their requests fail.
    ShutdownSessions {
        /// Which.
        at: ServerPath,
    },
    /// Removes a server that is in maintenance and has no connection left.
    Delete {
        /// Which.
        at: ServerPath,
    },
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

/// Why HAProxy did not do what it was told. What the caller acts on has its own variant; everything
/// else is its text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The socket's level does not allow it.
    #[error("permission denied: the socket needs `level admin` in HAProxy's configuration")]
    Denied,
    /// The backend is not there.
    #[error("HAProxy has no such backend")]
    NoSuchBackend,
    /// The backend is there and the server is not.
    #[error("the backend has no such server")]
    NoSuchServer,
    /// `add server`, `add backend`: the name is in use.
    #[error("the name is taken")]
    NameTaken,
    /// The backend's balance algorithm is static: no server may be added, no weight set but 0 and
    /// the configured one.
    #[error("the backend's balance algorithm is static: use roundrobin, leastconn or random")]
    StaticAlgorithm,
    /// `add server`: this HAProxy does not take an option.
    #[error("an option is not taken at runtime: {text}")]
    OptionNotTaken {
        /// HAProxy's words.
        text: String,
    },
    /// `add backend`: no `defaults` section of that name, or one that names no `mode`.
    #[error("the `defaults` section does not serve: {text}")]
    Defaults {
        /// HAProxy's words.
        text: String,
    },
    /// `del server`: it is not in maintenance.
    #[error("the server is not in maintenance")]
    NotInMaintenance,
    /// `del server`: it has connections.
    #[error("the server has connections left")]
    ConnectionsLeft,
    /// `del server`: the configuration names it, in `use-server` or `track`, so only a reload
    /// removes it.
    #[error("the configuration names the server (use-server, track): only a reload removes it")]
    Referenced,
    /// `set server addr`: the server has a name to resolve and no address yet.
    #[error("the server has no address to change: {text}")]
    NoAddress {
        /// HAProxy's words.
        text: String,
    },
    /// This HAProxy does not know the command.
    #[error("this HAProxy is too old for the command")]
    UnknownCommand,
    /// Anything else.
    #[error("HAProxy answered {text:?}")]
    Other {
        /// Its words.
        text: String,
    },
}

impl Refusal {
    /// Whether the same command would be refused again for as long as the process lives. The others
    /// say that something changed between the look and the command, which the next look sees.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::NoSuchBackend
            | Self::NoSuchServer
            | Self::NameTaken
            | Self::NotInMaintenance
            | Self::ConnectionsLeft => false,
            Self::Denied
            | Self::StaticAlgorithm
            | Self::OptionNotTaken { .. }
            | Self::Defaults { .. }
            | Self::Referenced
            | Self::NoAddress { .. }
            | Self::UnknownCommand
            | Self::Other { .. } => true,
        }
    }

    /// What a text in place of a success says.
    fn of_text(reply: &[u8]) -> Self {
        let text = match ReplyError::of_text(reply) {
            ReplyError::Denied => return Self::Denied,
            ReplyError::Refused { text } => text,
            other => other.to_string(),
        };
        let has = |part: &str| text.contains(part);
        if has("No such backend.") {
            Self::NoSuchBackend
        } else if has("No such server.") {
            Self::NoSuchServer
        } else if has("Already exists a server with the same name")
            || has("name is already used by other proxy")
        {
            Self::NameTaken
        } else if has("dynamic load balancing")
            || has("static LB algorithm")
            || has("non dynamic load balancing")
        {
            Self::StaticAlgorithm
        } else if has("option is not accepted for dynamic server")
            || text.starts_with("unknown keyword")
        {
            Self::OptionNotTaken { text }
        } else if has("Cannot find default proxy") || has("Mode is required") {
            Self::Defaults { text }
        } else if has("Only servers in maintenance mode can be deleted") {
            Self::NotInMaintenance
        } else if has("still has connections attached") {
            Self::ConnectionsLeft
        } else if has("due to other configuration elements pointing to it") {
            Self::Referenced
        } else if has("server address family is only supported through configuration file") {
            Self::NoAddress { text }
        } else if text.starts_with("Unknown command") {
            Self::UnknownCommand
        } else {
            Self::Other { text }
        }
    }
}

/// How a reply's success looks.
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
    fn judge(self, reply: &[u8]) -> Result<(), Refusal> {
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
        if good { Ok(()) } else { Err(Refusal::of_text(reply)) }
    }
}

impl ServerCommand {
    /// The commands it is made of, each with what its success looks like.
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
            Self::Add { at, server } => {
                let mut parts =
                    vec![(added(at, server), Success::LastLine("New server registered."))];
                if server.options.check {
                    parts.push((format!("enable health {at}"), Success::Silent));
                }
                if server.options.agent_check() {
                    parts.push((format!("enable agent {at}"), Success::Silent));
                }
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
            parts.iter().zip(replies.by_ref()).map(|((_, success), reply)| success.judge(reply));
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

/// Waits in HAProxy until a server can be removed, for at most `delay` (3.0 and later). Its judge
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
        Err(Refusal::of_text(reply))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::server::ServerOptions;

    fn at(server: &str) -> ServerPath {
        ServerPath::new("b", server).unwrap()
    }

    fn add(options: &[&str]) -> ServerCommand {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Server {
            name: "n1".to_owned(),
            address: ServerAddress { ip: "::1".parse().unwrap(), port: 8140 },
            weight: Some(7),
            backup: true,
            options: ServerOptions::parse(&options).unwrap(),
        };
        ServerCommand::Add { at: at("n1"), server: Box::new(server) }
    }

    fn delete() -> ServerCommand {
        ServerCommand::Delete { at: at("n1") }
    }

    fn ready() -> ServerCommand {
        ServerCommand::SetState { at: at("n1"), state: ServerState::Ready }
    }

    fn answered(
        commands: &[ServerCommand],
        answer: &str,
    ) -> Result<Vec<Result<(), Refusal>>, ReplyError> {
        outcomes(answer.as_bytes(), commands)
    }

    #[test]
    fn a_server_is_added_and_put_into_rotation_in_one_line() {
        assert_eq!(
            add(&["check", "maxconn 10", "maxqueue 5", "inter 2s"]).to_string(),
            "add server b/n1 [::1]:8140 check weight 7 backup maxconn 10 maxqueue 5 inter \
                2s;enable health b/n1;\
             set server b/n1 state drain;set server b/n1 health down;set server b/n1 state ready"
        );
        assert_eq!(
            add(&[]).to_string(),
            "add server b/n1 [::1]:8140 weight 7 backup;enable server b/n1"
        );
        let agent = add(&["agent-check", "agent-port 7"]).to_string();
        assert!(agent.ends_with(";enable agent b/n1;enable server b/n1"), "{agent}");
    }

    #[test]
    fn changes_are_worded_as_every_version_takes_them() {
        let address = ServerAddress { ip: "::1".parse().unwrap(), port: 5 };
        let commands = [
            (
                ServerCommand::SetAddress { at: at("n1"), address },
                "set server b/n1 addr ::1 port 5",
            ),
            (ServerCommand::SetWeight { at: at("n1"), weight: 0 }, "set server b/n1 weight 0"),
            (
                ServerCommand::SetMaxconn { at: at("n1"), maxconn: Some(3) },
                "set maxconn server b/n1 3",
            ),
            (
                ServerCommand::SetMaxconn { at: at("n1"), maxconn: None },
                "set maxconn server b/n1 0",
            ),
            (
                ServerCommand::SetState { at: at("n1"), state: ServerState::Maintenance },
                "set server b/n1 state maint",
            ),
            (
                ServerCommand::SetState { at: at("n1"), state: ServerState::Drain },
                "set server b/n1 state drain",
            ),
            (ready(), "set server b/n1 state ready"),
            (
                ServerCommand::SetState { at: at("n1"), state: ServerState::ReadyOnceChecked },
                "set server b/n1 state drain;set server b/n1 health down;set server b/n1 state \
                    ready",
            ),
            (ServerCommand::EnableHealth { at: at("n1") }, "enable health b/n1"),
            (ServerCommand::ShutdownSessions { at: at("n1") }, "shutdown sessions server b/n1"),
            (delete(), "del server b/n1"),
        ];
        for (command, text) in commands {
            assert_eq!(command.to_string(), text);
        }
        let (backend, defaults) =
            (BackendName::new("n").unwrap(), BackendName::new("base").unwrap());
        let made = ServerCommand::AddBackend { backend, defaults }.to_string();
        assert_eq!(made, "add backend n from base;publish backend n");
        assert_eq!(
            wait_removable(&at("n1"), Duration::from_secs(2)),
            "wait 2000ms srv-removable b/n1\n"
        );
    }

    #[test]
    fn a_name_that_is_none_never_becomes_a_command() {
        for name in ["", "a b", "a;b", "a/b", "a\nb", "é"] {
            assert!(
                ServerPath::new(name, "n").is_err() && ServerPath::new("b", name).is_err(),
                "{name:?}"
            );
            assert!(BackendName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn each_version_words_its_successes_and_all_are_known() {
        let address = ServerAddress { ip: "::1".parse().unwrap(), port: 5 };
        let set = [ServerCommand::SetAddress { at: at("n1"), address }];
        for text in [
            "IP changed from '127.0.0.1' to '::1', port changed from '1' to '5' by 'stats socket \
                command'",
            "no need to change the addr, no need to change the port by 'stats socket command'",
            "no need to change the addr, port changed from '1' to '5' by 'stats socket command'",
            "port changed from '1' to '5' by 'stats socket command'",
            "nothing changed",
        ] {
            assert_eq!(answered(&set, &format!("{text}\n\nadmin\n\n")), Ok(vec![Ok(())]), "{text}");
        }
        let refused = answered(&set, "Invalid addr 'zz'\n\nadmin\n\n").unwrap();
        assert_eq!(refused, [Err(Refusal::Other { text: "Invalid addr 'zz'".to_owned() })]);
        let made = answered(&[add(&["check"])], "New server registered.\n\n\n\n\n\nadmin\n\n");
        assert_eq!(made, Ok(vec![Ok(())]));
        assert_eq!(answered(&[delete()], "Server deleted.\n\nadmin\n\n"), Ok(vec![Ok(())]));
        let left_over = "Server deleted.\nServer deleted.\n\nadmin\n\n";
        assert_eq!(
            answered(&[delete()], left_over),
            Ok(vec![Ok(())]),
            "a message of an earlier command before it"
        );
    }

    #[test]
    fn replies_without_their_empty_line_are_told_apart() {
        let commands = [delete(), ready(), add(&[]), delete(), ready()];
        let answer =
            "Server deleted.\n\nNo such backend.\nNo such backend.\n\nNo such server.\n\nadmin\n\n";
        let seen = answered(&commands, answer).unwrap();
        assert_eq!(
            seen,
            [Ok(()), Ok(()), Err(Refusal::NoSuchBackend), Err(Refusal::NoSuchServer), Ok(())]
        );
        // The same from 3.0 on.
        let ended =
            answer.replace("deleted.\n", "deleted.\n\n").replace("backend.\nNo", "backend.\n\nNo");
        let ended = ended.replace("No such server.\n", "No such server.\n\n");
        assert_eq!(answered(&commands, &ended).unwrap(), seen);
        // Behind `severity-output`.
        for answer in [answer, &ended] {
            for severity in ["[3]: ", "[info]: "] {
                let told = |text: &str| format!("{severity}{text}");
                let answer = answer
                    .replace("Server", &told("Server"))
                    .replace("No such", &told("No such"))
                    .replace("admin", &told("admin"));
                assert_eq!(answered(&commands, &answer).unwrap(), seen, "{answer}");
            }
        }
    }

    #[test]
    fn a_refusal_that_the_caller_acts_on_is_told_by_its_kind() {
        for (text, refusal) in [
            ("Only servers in maintenance mode can be deleted.", Refusal::NotInMaintenance),
            (
                "Server still has connections attached to it, cannot remove it.",
                Refusal::ConnectionsLeft,
            ),
            (
                "This server cannot be removed at runtime due to other configuration elements \
                    pointing to it.",
                Refusal::Referenced,
            ),
            ("No such server.", Refusal::NoSuchServer),
            (
                "Backend must use a dynamic load balancing to support dynamic servers.",
                Refusal::StaticAlgorithm,
            ),
            (
                "Backend does not support dynamic servers : backend 'st' uses a non dynamic load \
                    balancing method.",
                Refusal::StaticAlgorithm,
            ),
            ("Already exists a server with the same name in backend.", Refusal::NameTaken),
            ("Permission denied", Refusal::Denied),
            (
                "Unknown command: 'add', but maybe one of the following ones is a better match:",
                Refusal::UnknownCommand,
            ),
        ] {
            assert_eq!(
                answered(&[delete()], &format!("{text}\n\nadmin\n\n")),
                Ok(vec![Err(refusal)]),
                "{text}"
            );
        }
        let option = "'resolvers' option is not accepted for dynamic server\n\n\nadmin\n\n";
        assert!(matches!(
            answered(&[add(&[])], option).unwrap()[0],
            Err(Refusal::OptionNotTaken { .. })
        ));
    }

    #[test]
    fn silence_is_success_only_where_nothing_is_said() {
        assert!(answered(&[delete()], "\nadmin\n\n").unwrap()[0].is_err());
        assert!(answered(&[ready()], "Server deleted.\n\nadmin\n\n").unwrap()[0].is_err());
        assert!(answered(&[ready()], "\nsomething\n\n").is_err(), "the line's end must answer");
        assert!(answered(&[ready()], "").is_err());
    }

    #[test]
    fn waiting_tells_whether_a_server_can_be_removed() {
        assert_eq!(removable(b"Done.\n"), Ok(true));
        assert_eq!(removable(b"Wait delay expired.\n"), Ok(false));
        assert_eq!(
            removable(
                b"Wait delay expired. Server still has connections attached to it, \
            cannot remove it.\n"
            ),
            Ok(false)
        );
        assert_eq!(removable(b"Failed. No such server.\n"), Err(Refusal::NoSuchServer));
        assert!(removable(b"Failed.\n").is_err() && removable(b"").is_err());
    }

    fn any_command() -> impl Strategy<Value = ServerCommand> {
        prop_oneof![Just(delete()), Just(ready()), Just(add(&["check"])), Just(add(&[]))]
    }

    /// A command's reply, success or not, as 2.6 ends it.
    fn reply(command: &ServerCommand, refused: bool) -> &'static str {
        match (command, refused) {
            (ServerCommand::Delete { .. }, false) => "Server deleted.\n",
            (ServerCommand::Delete { .. }, true) => {
                "Only servers in maintenance mode can be deleted.\n"
            }
            (ServerCommand::Add { server, .. }, false) if server.options.check => {
                "New server registered.\n\n\n\n\n\n"
            }
            (ServerCommand::Add { .. }, false) => "New server registered.\n\n\n",
            (ServerCommand::Add { server, .. }, true) if server.options.check => {
                "No such backend.\nNo such backend.\n\nNo such backend.\n\nNo such backend.\n\nNo \
                    such backend.\n\n"
            }
            (ServerCommand::Add { .. }, true) => "No such backend.\nNo such backend.\n\n",
            (_, false) => "\n",
            (_, true) => "No such server.\n\n",
        }
    }

    proptest! {
        #[test]
        fn every_outcome_of_a_line_is_known_and_a_cut_answer_tells_none(
            commands in proptest::collection::vec((any_command(), any::<bool>()), 1..8),
            cut: prop::sample::Index,
        ) {
            let mut answer: String =
                commands.iter().map(|(command, refused)| reply(command, *refused)).collect();
            answer.push_str("admin\n\n");
            let refused: Vec<bool> = commands.iter().map(|(_, refused)| *refused).collect();
            let commands: Vec<_> = commands.into_iter().map(|(command, _)| command).collect();
            let seen = answered(&commands, &answer).unwrap();
            prop_assert_eq!(seen.iter().map(Result::is_err).collect::<Vec<_>>(), refused);
            prop_assert!(answered(&commands, &answer[..cut.index(answer.len())]).is_err());
        }

        #[test]
        fn lines_stay_within_the_bound_and_lose_nothing(
            commands in proptest::collection::vec(any_command(), 0..30),
            limit in 200usize..400,
        ) {
            let mut sent = Vec::new();
            for (line, part) in lines(&commands, limit) {
                prop_assert!(
                    line.len() <= limit
                        && line.ends_with(
                            b";show cli \
                    level\n"
                        ),
                    "{:?}",
                    line
                );
                sent.extend_from_slice(part);
            }
            prop_assert_eq!(sent, commands);
        }

        #[test]
        fn no_bytes_make_the_judges_panic(
            answer in proptest::collection::vec(any::<u8>(), 0..80),
            commands in proptest::collection::vec(any_command(), 0..4),
        ) {
            let _ = outcomes(&answer, &commands);
            let _ = removable(&answer);
        }
    }
}
