//! Why a command has no result, with the words of whoever said so.

use std::io;
use std::time::Duration;

use crate::wire;

/// Why a command did not succeed. Every variant names the socket and, but for the first, the
/// command, cut.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The socket can't be opened.
    #[error("{address}: can't connect: {source}{}", hint(source))]
    #[expect(missing_docs, reason = "the message says what they are")]
    Connect { address: String, source: io::Error },
    /// The command got no answer, or none that is a success.
    #[error("{address}: {command:?}: {failure}")]
    #[expect(missing_docs, reason = "the message says what they are")]
    Command { address: String, command: String, failure: Failure },
}

/// What became of a command that was sent.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The connection broke.
    #[error(
        "the connection broke: {0} (HAProxy stopped, or the command is too big for its \
            tune.bufsize)"
    )]
    Broken(io::Error),
    /// HAProxy accepts and has not answered for so long.
    #[error(
        "no answer within {0:?}; the process may be stopped or stuck, or other programs hold \
            every connection that its `stats maxconn` allows (10 unless set)"
    )]
    Silent(Duration),
    /// The answer still goes on after so long.
    #[error("the answer has no end after {0:?}; is this HAProxy's own `stats socket`?")]
    Endless(Duration),
    /// HAProxy answered, and the answer is not a success.
    #[error(transparent)]
    Reply(#[from] ReplyError),
}

impl RuntimeError {
    /// What HAProxy answered, if it answered.
    pub fn reply(&self) -> Option<&ReplyError> {
        match self {
            Self::Command { failure: Failure::Reply(error), .. } => Some(error),
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

/// Why an answer is not a success: the fields are HAProxy's words, cut, or a count of rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Nothing came: the process died, or it is 2.6 and the payload is larger than its buffer.
    #[error(
        "no answer at all: HAProxy stopped, or the command is too big for its tune.bufsize (lower \
            the instance's max_payload)"
    )]
    Nothing,
    /// The answer ended before it was whole, with these characters.
    #[error("the answer was cut after {0:?}")]
    Cut(String),
    /// Something else than HAProxy's runtime API answers, beginning like this.
    #[error(
        "what answers is not HAProxy's runtime API ({0:?}): name the address of a `stats socket`"
    )]
    NotHaproxy(String),
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
        "the answer has no end: more than {0} rows came; is this HAProxy's own `stats socket`?"
    )]
    TooLong(usize),
    /// The command is larger than HAProxy's buffer.
    #[error(
        "HAProxy says that the command is too big: lower the instance's max_payload, or raise \
            tune.bufsize"
    )]
    TooBig,
    /// HAProxy refused, with this text.
    #[error("HAProxy answered {0:?}")]
    Refused(String),
    /// A row of a listing, cut, can't be read; `why` names the column, or what is wrong.
    #[error("{row:?} can't be read: {why}")]
    #[expect(missing_docs, reason = "the line above says what they are")]
    Unreadable { row: String, why: String },
    /// Something came that the command can't have answered.
    #[error("unexpected answer {0:?}")]
    Unexpected(String),
}

/// The most characters of an answer that an error carries.
const MAX_EXCERPT: usize = 200;

pub(crate) fn excerpt(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_EXCERPT)]).trim_end().to_owned()
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
            _ => Self::Cut(excerpt(&answer[answer.len().saturating_sub(MAX_EXCERPT)..])),
        }
    }

    /// More than the command can have answered.
    pub fn unexpected(answer: &[u8]) -> Self {
        Self::Unexpected(excerpt(answer))
    }

    /// A row that can't be read, cut.
    pub(crate) fn unreadable(row: &str, why: &str) -> Self {
        Self::Unreadable { row: row.chars().take(120).collect(), why: why.to_owned() }
    }

    /// What a text in place of a success says.
    pub fn from_text(text: &[u8]) -> Self {
        let text = excerpt(wire::without_severity(text));
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
            Self::Refused(text)
        }
    }
}
