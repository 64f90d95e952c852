//! Why a source gave no answer, in words that say what to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use mapsmith_core::{Invalid, names};

use super::format::without_mark;
use super::transport::secret::Secret;

/// A source that can't be set up, or a poll that brought no whole answer. The source's name stands
/// beside it in status and logs.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct SourceError {
    /// The URL (without its query) or the path that was asked.
    pub place: String,
    /// What is wrong. (No `source` of the error: it stands in its text.)
    pub fault: SourceErrorKind,
}

/// What is wrong. Texts of servers are cut to a readable length and freed of control characters and
/// tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceErrorKind {
    /// A setting, certificate or key that can't be used.
    #[error("{0}")]
    Setup(String),
    /// The token file can't be used.
    #[error("token_file {path:?} {cause}")]
    Token {
        /// The token's file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// No connection: refused, no route, no such host.
    #[error("can't be reached: {cause}")]
    Unreachable {
        /// The system's words.
        cause: String,
    },
    /// The server's certificate is not valid yet or not any more, by this machine's clock.
    #[error(
        "the server's certificate is out of date ({cause}); renew it on the server, or set this \
            machine's clock right"
    )]
    ServerOutdated {
        /// The TLS library's words.
        cause: String,
    },
    /// The server's certificate does not lead to a CA that is trusted.
    #[error("the server's certificate is not trusted ({cause}); {}", trusted_by(ca.as_ref()))]
    ServerUntrusted {
        /// The TLS library's words.
        cause: String,
        /// The `ca` setting.
        ca: Option<PathBuf>,
    },
    /// The server's certificate is for another name.
    #[error("the server's certificate is for another name than the url's host: {cause}")]
    ServerName {
        /// The TLS library's words.
        cause: String,
    },
    /// The server's certificate is of a kind that is not taken any more, or never was.
    #[error("the server's certificate {reason} ({cause})")]
    ServerUnfit {
        /// Why, and what to do.
        reason: &'static str,
        /// The TLS library's words.
        cause: String,
    },
    /// The server ended the handshake because of this client's certificate, or for want of one.
    #[error("{} ({alert})", refused_certificate(cert.as_ref()))]
    ClientCertificateRefused {
        /// The alert that the server sent (RFC 8446, section 6).
        alert: String,
        /// The `cert` setting.
        cert: Option<PathBuf>,
    },
    /// TLS failed otherwise.
    #[error("TLS failed: {cause}; does the server speak TLS 1.2 or later on this port?")]
    Tls {
        /// The TLS library's words.
        cause: String,
    },
    /// The connection broke before or within the answer.
    #[error("the connection broke {during}: {cause}")]
    Disconnected {
        /// When: before or within the answer.
        during: &'static str,
        /// The system's words.
        cause: String,
    },
    /// Its data are older than what another server has said.
    #[error("its newest facts are {0:#} older than what is known: its replication is behind")]
    Behind(SignedDuration),
    /// The registry says itself that the answer is not whole, or may be old.
    #[error("{0}")]
    NotWhole(&'static str),
    /// Several servers were asked.
    #[error("{first}; {others}")]
    NoneAnswered {
        /// What went wrong with the first.
        first: Box<SourceErrorKind>,
        /// The errors of the others, with their places.
        others: String,
    },
    /// Nothing came within the bound.
    #[error("gave no answer within {0:?}")]
    NoAnswer(Duration),
    /// The answer began but did not end within the bound.
    #[error("the answer began but did not end within {0:?}")]
    SlowAnswer(Duration),
    /// A status other than success.
    #[error("{meaning}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it means here, with the server's own text.
        meaning: String,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is over `max_bytes`.
    #[error("the content is larger than max_bytes ({0} bytes, after decompression)")]
    TooLarge(u64),
    /// The text ends before it is complete, be it with a status of success.
    #[error("{}the JSON text is cut off at {position}, after {bytes} \
        bytes", if *bytes == 0 { "the answer is empty: " } else { "" })]
    Truncated {
        /// Where it ends.
        position: Position,
        /// Bytes that came.
        bytes: u64,
    },
    /// The body can't be decompressed or framed.
    #[error("the answer's body is damaged: {0}")]
    Damaged(String),
    /// A whole answer is followed by more.
    #[error("something follows the end of the JSON text, at {0}")]
    Trailing(Position),
    /// Something else than JSON.
    #[error("the answer is not JSON: {0}")]
    NotJson(String),
    /// JSON, but an object for a list or the other way round.
    #[error("{expected}, but this is: {text}")]
    WrongShape {
        /// What was expected.
        expected: &'static str,
        /// How the answer begins.
        text: String,
    },
    /// An error object in place of a map.
    #[error("the answer is an error object, no map: {0}")]
    ErrorObject(String),
    /// JSON with a mistake in it.
    #[error("the JSON text has a mistake at {position}: {message}")]
    Syntax {
        /// Where.
        position: Position,
        /// The parser's words.
        message: String,
    },
    /// One row is larger than any sensible one.
    #[error("a single row is larger than {0} bytes; ask for the node and its master only")]
    RowTooLarge(usize),
    /// The rows lack a field that the settings name.
    #[error("no row has the field {field:?} ({setting}); the rows have: {}", listed(seen))]
    NoField {
        /// The setting that names the field.
        setting: &'static str,
        /// The field.
        field: String,
        /// The fields of the first rows.
        seen: Vec<String>,
    },
    /// An object with entries, none of which can stand in a map.
    #[error("none of the object's {entries} entries can stand in a map, for example: {reason}")]
    NothingValid {
        /// How many entries it has.
        entries: u64,
        /// Why one of them was left out.
        reason: Invalid,
    },
    /// "Not modified" although no condition was sent.
    #[error("answered 304 (not modified) although nothing was asked conditionally")]
    NotModified,
    /// Another text where a map file should be.
    #[error("the file is not a map file: {0}")]
    NoMapFile(String),
    /// Another text where lines of servers should be.
    #[error("the file is not a list of host:port lines: {0}")]
    NoLines(String),
    /// The field that should hold the list has none.
    #[error("there is no list in the field {field:?} (list_field) of: {text}")]
    NoList {
        /// The field.
        field: String,
        /// How the answer begins.
        text: String,
    },
    /// One of a folder's files is wrong.
    #[error("{name}: {fault}")]
    Fragment {
        /// The file.
        name: String,
        /// What is wrong with it.
        fault: Box<SourceErrorKind>,
    },
    /// The file can't be read.
    #[error("{0}")]
    File(String),
    /// The program did not say what was asked for.
    #[error("{0}")]
    Command(String),
    /// What the registry answered in its own protocol in place of what was asked for.
    #[error("{0}")]
    Registry(String),
}

impl SourceErrorKind {
    /// How long the server asks to be left alone, if it does.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A place in a text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in bytes.
    pub column: usize,
}

impl Position {
    /// The first byte.
    pub(super) const START: Self = Self { line: 1, column: 1 };

    /// The place after `text`, if `text` begins here.
    pub(super) fn after(self, text: &[u8]) -> Self {
        match memchr::memrchr(b'\n', text) {
            None => Self { column: self.column + text.len(), ..self },
            Some(last) => Self {
                line: self.line + memchr::memchr_iter(b'\n', text).count(),
                column: text.len() - last,
            },
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}, column {}", self.line, self.column)
    }
}

fn trusted_by(ca: Option<&PathBuf>) -> String {
    match ca {
        Some(ca) => format!(
            "only the CA in {} (ca) is trusted: name the CA that signed it there, or the \
                certificate itself if it is self-signed",
            ca.display()
        ),
        None => "set ca to the CA's certificate (for PuppetDB: the Puppet CA's), or to the \
                certificate itself if it is self-signed"
            .to_owned(),
    }
}

fn refused_certificate(cert: Option<&PathBuf>) -> String {
    match cert {
        Some(cert) => format!(
            "the server refused this client's certificate {} (cert); it must be signed by the CA \
                that the server trusts, for PuppetDB the Puppet CA, and be neither expired nor \
                revoked",
            cert.display()
        ),
        None => "the server demands a client certificate; set cert and key (for PuppetDB: signed \
            by the Puppet CA)"
            .to_owned(),
    }
}

fn listed(fields: &[String]) -> String {
    if fields.is_empty() { "none, they are no objects".to_owned() } else { fields.join(", ") }
}

/// The most characters of a server's text in an error.
const EXCERPT_CHARACTERS: usize = 300;
/// The most bytes of a text that are kept for an excerpt: whitespace and markup fall away.
pub(super) const EXCERPT_BYTES: usize = 4096;

/// The beginning of an answer, kept for the case that an error has to quote it.
#[derive(Debug)]
pub(super) struct Excerpt {
    beginning: Vec<u8>,
    hidden: Option<Secret>,
}

impl Excerpt {
    /// Nothing yet. `hidden` never shows.
    pub(super) fn new(hidden: Option<Secret>) -> Self {
        Self { beginning: Vec::new(), hidden }
    }

    /// Takes what still has room.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        let room = EXCERPT_BYTES - self.beginning.len();
        self.beginning.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }

    /// Whether the rest would not be kept.
    pub(super) fn is_full(&self) -> bool {
        self.beginning.len() == EXCERPT_BYTES
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(without_mark(&self.beginning));
        let text = match &self.hidden {
            Some(secret) => secret.hide_in(&text),
            None => text.into_owned(),
        };
        // Of an error page only the title says something.
        let title = || text.split_once("<title>")?.1.split_once("</title>").map(|(title, _)| title);
        let words = title().unwrap_or(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        if words.is_empty() {
            return out.write_str("(no text)");
        }
        for character in words.chars().take(EXCERPT_CHARACTERS) {
            if names::is_invisible(character) {
                write!(out, "{}", character.escape_default())?;
            } else {
                write!(out, "{character}")?;
            }
        }
        if words.chars().nth(EXCERPT_CHARACTERS).is_some() {
            out.write_str("…")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str) -> String {
        let mut excerpt = Excerpt::new(None);
        excerpt.push(text.as_bytes());
        excerpt.to_string()
    }

    #[test]
    fn a_servers_text_is_one_bounded_line_without_control_characters() {
        assert_eq!(excerpt("PQL parse error\n\n  at\tline 1\n"), "PQL parse error at line 1");
        assert_eq!(excerpt("\u{feff}a\u{1b}[31m\u{202e}b"), "a\\u{1b}[31m\\u{202e}b");
        assert_eq!(excerpt(" \n"), "(no text)");
        assert_eq!(excerpt("<html><head>\n<title>Error 404</title></head>"), "Error 404");
        let long = excerpt(&"word ".repeat(2000));
        assert_eq!(long.chars().count(), EXCERPT_CHARACTERS + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_failure_is_named_once_with_its_place() {
        let fault = SourceErrorKind::Setup("ca /ca.pem: can't be read".to_owned());
        let error = anyhow::Error::from(SourceError { place: "source \"a\"".to_owned(), fault });
        assert_eq!(format!("{error:#}"), "source \"a\": ca /ca.pem: can't be read");
    }

    #[test]
    fn a_position_counts_lines_and_bytes() {
        let at = Position::START.after(b"ab");
        assert_eq!(at.to_string(), "line 1, column 3");
        assert_eq!(at.after(b"c\n\nde").to_string(), "line 3, column 3");
        assert_eq!(at.after(b"\n").after(b"x").to_string(), "line 2, column 2");
    }
}
