//! Why a command has no result, with the words of whoever said so.

use std::io;
use std::time::Duration;

use crate::wire;

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
        "{address}: {command:?}: the connection broke: {source} (HAProxy stopped, or the command \
            is too big for its tune.bufsize)"
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
        "{address}: {command:?}: no answer within {waited:?}; the process may be stopped or \
            stuck, or other programs hold every connection that its `stats maxconn` allows (10 \
            unless set)"
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
    #[error(
        "{address}: {command:?}: the answer has no end after {waited:?}; is this HAProxy's own \
            `stats socket`?"
    )]
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
        io::ErrorKind::NotFound => {
            " (is HAProxy running, and does its `stats socket` have this path?)"
        }
        io::ErrorKind::ConnectionRefused => " (nothing listens there: is HAProxy running?)",
        io::ErrorKind::PermissionDenied => {
            " (the socket's user, group and mode must let Mapsmith in)"
        }
        _ => "",
    }
}

/// Why an answer is no success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Nothing came: the process died, or it is 2.6 and the payload is larger than its buffer.
    #[error(
        "no answer at all: HAProxy stopped, or the command is too big for its tune.bufsize (lower \
            the instance's max_payload)"
    )]
    Nothing,
    /// The answer ended before it was whole.
    #[error("the answer was cut after {got:?}")]
    Cut {
        /// Its last characters.
        got: String,
    },
    /// Something else than HAProxy's runtime API answers.
    #[error(
        "what answers is not HAProxy's runtime API ({got:?}): name the address of a `stats socket`"
    )]
    NotHaproxy {
        /// How its answer begins.
        got: String,
    },
    /// The socket's level does not allow the command.
    #[error("permission denied: the socket needs `level admin` in HAProxy's configuration")]
    Denied,
    /// The map is not used in HAProxy's configuration.
    #[error(
        "HAProxy does not know the map: its configuration must use exactly this path in a map \
            converter"
    )]
    UnknownMap,
    /// There is no stick table of the name.
    #[error(
        "HAProxy has no stick table of this name: the `stick-table` line stands in the backend \
            (or peers section) that names it"
    )]
    UnknownTable,
    /// The version was committed, dropped or overtaken: another writer was later.
    #[error("another writer committed a later version of the map")]
    VersionOvertaken,
    /// A listing has more rows than there can be.
    #[error(
        "the answer has no end: more than {rows} rows came; is this HAProxy's own `stats socket`?"
    )]
    TooLong {
        /// How many rows were read.
        rows: usize,
    },
    /// The command is larger than HAProxy's buffer.
    #[error(
        "HAProxy says that the command is too big: lower the instance's max_payload, or raise \
            tune.bufsize"
    )]
    TooBig,
    /// HAProxy refused, with this text.
    #[error("HAProxy answered {text:?}")]
    Refused {
        /// Its words.
        text: String,
    },
    /// A row of a listing can't be read.
    #[error("{row:?} can't be read: {why}")]
    Unreadable {
        /// The row, cut.
        row: String,
        /// The column, or what is wrong.
        why: String,
    },
    /// Something came that the command can't have answered.
    #[error("unexpected answer {text:?}")]
    Unexpected {
        /// What came.
        text: String,
    },
}

/// The most characters of an answer that an error carries.
const SHOWN: usize = 200;

pub(crate) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]).trim_end().to_owned()
}

impl ReplyError {
    /// An answer that ended too early. A refusal of a whole line ends with one line's end instead
    /// of two, on every version.
    pub fn cut(answer: &[u8]) -> Self {
        if answer.is_empty() {
            return Self::Nothing;
        }
        match Self::from_text(answer) {
            error @ (Self::TooBig | Self::Denied) => error,
            _ => Self::Cut { got: shown(&answer[answer.len().saturating_sub(SHOWN)..]) },
        }
    }

    /// More than the command can have answered.
    pub fn unexpected(answer: &[u8]) -> Self {
        Self::Unexpected { text: shown(answer) }
    }

    /// A row that can't be read, cut.
    pub(crate) fn unreadable(row: &str, why: &str) -> Self {
        Self::Unreadable { row: row.chars().take(120).collect(), why: why.to_owned() }
    }

    /// What a text in place of a success says.
    pub fn from_text(text: &[u8]) -> Self {
        let text = shown(wire::without_severity(text));
        if text.starts_with("Permission denied") {
            Self::Denied
        } else if text.starts_with("Unknown map identifier") {
            Self::UnknownMap
        } else if text.starts_with("No such table") {
            Self::UnknownTable
        } else if text.starts_with("Version number out of range") {
            Self::VersionOvertaken
        } else if text.contains("too big for the buffer size") {
            Self::TooBig
        } else {
            Self::Refused { text }
        }
    }
}
