//! Why HAProxy did not carry out a command. Pure.

use crate::error::ReplyError;

/// Why HAProxy did not carry out a command. What the caller acts on has its own variant; everything
/// else is HAProxy's text.
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
    #[error("an option is not accepted at runtime: {0}")]
    OptionNotTaken(String),
    /// `add backend`: no `defaults` section of that name, or one that names no `mode`.
    #[error("the `defaults` section cannot be used: {0}")]
    Defaults(String),
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
    #[error("the server has no address to change: {0}")]
    NoAddress(String),
    /// This HAProxy does not know the command.
    #[error("this HAProxy is too old for the command")]
    UnknownCommand,
    /// Anything else.
    #[error("HAProxy answered {0:?}")]
    Other(String),
}

impl Refusal {
    /// Whether the same command would be refused again for as long as the process lives. The others
    /// say that something changed between observation and command, which the next one sees.
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
    pub(super) fn from_text(reply: &[u8]) -> Self {
        let text = match ReplyError::from_text(reply) {
            ReplyError::Denied => return Self::Denied,
            ReplyError::Refused(text) => text,
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
            Self::OptionNotTaken(text)
        } else if has("Cannot find default proxy") || has("Mode is required") {
            Self::Defaults(text)
        } else if has("Only servers in maintenance mode can be deleted") {
            Self::NotInMaintenance
        } else if has("still has connections attached") {
            Self::ConnectionsLeft
        } else if has("due to other configuration elements pointing to it") {
            Self::Referenced
        } else if has("server address family is only supported through configuration file") {
            Self::NoAddress(text)
        } else if text.starts_with("Unknown command") {
            Self::UnknownCommand
        } else {
            Self::Other(text)
        }
    }
}
