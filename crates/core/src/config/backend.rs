//! Backends: how requests are shared out among servers.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{ErrorStatus, HeaderName, Method, Name, Secret, StatusRanges, Text};
use super::{Mode, Native, serialized};
use crate::server::{DesiredBackend, Server};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    pub name: Name,
    pub mode: Mode,
    /// None is round robin, or, where the node map routes and masters stand in for each other, a
    /// hash of the node.
    pub balance: Option<Balance>,
    pub check: Option<HttpCheck>,
    /// The host that servers are asked for, whatever the client asked for.
    pub host: Option<Text>,
    pub cookie: Option<Cookie>,
    /// How often a failed attempt is repeated; none leaves it to HAProxy.
    pub retries: Option<u16>,
    /// Whether a repeated attempt goes to another server.
    pub redispatch: bool,
    /// What is repeated; empty leaves it to HAProxy (a failed connection).
    pub retry_on: Vec<RetryOn>,
    pub http_reuse: Option<HttpReuse>,
    /// How many requests may wait; further ones are answered 503.
    pub maxqueue: Option<u32>,
    /// How long a request may wait.
    #[serde(serialize_with = "serialized::optional_time")]
    pub queue_timeout: Option<Duration>,
    /// Answers in place of HAProxy's own.
    pub errors: Vec<ErrorBody>,
    /// What servers have that bring no options of their own.
    pub server_options: Vec<String>,
    /// Sorted by name.
    #[serde(serialize_with = "serialized::servers")]
    pub servers: Vec<Server>,
    /// Those of them, by name, that begin in maintenance.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub disabled: BTreeSet<String>,
    pub natives: Vec<Native>,
}

impl Backend {
    /// Has the servers that it should have, as an operator ordered them.
    pub fn take_servers(&mut self, desired: &DesiredBackend) {
        self.servers = desired.as_ordered().values().cloned().collect();
        self.disabled = desired.disabled();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    RoundRobin,
    LeastConn,
    Random,
    /// A consistent hash of the client's address.
    Source,
    /// A consistent hash of the path.
    Uri,
    /// A consistent hash of a header.
    Header(HeaderName),
}

/// How servers with the option `check` are asked for their health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpCheck {
    /// `GET` unless it is given.
    pub method: Option<Method>,
    pub uri: Text,
    /// 1.0 unless it is given, or 1.1 with a host.
    pub version: Option<HttpVersion>,
    pub host: Option<Text>,
    /// A status of 2xx or 3xx unless it is given.
    pub expect: Option<Expect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum HttpVersion {
    #[serde(rename = "1.0")]
    Http10,
    #[serde(rename = "1.1")]
    Http11,
}

/// The answer of a healthy server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    Status(StatusRanges),
    /// The body contains this.
    Body(Text),
    /// The body matches this regular expression.
    BodyRegex(Text),
}

/// Clients come back to their server by a cookie. Its value follows from the server's address and
/// the key: it is the same at every gateway and after every reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cookie {
    pub name: HeaderName,
    #[serde(skip)]
    pub key: Secret,
}

/// An answer of HAProxy's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    pub status: ErrorStatus,
    /// `text/plain` unless it is given.
    pub content_type: Option<Text>,
    pub body: Text,
    /// Seconds.
    pub retry_after: Option<u32>,
}

/// Whether requests of several clients share a connection to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpReuse {
    Never,
    Safe,
    Aggressive,
    Always,
}

impl HttpReuse {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Safe => "safe",
            Self::Aggressive => "aggressive",
            Self::Always => "always",
        }
    }
}

/// What an attempt may end with that is repeated (`retry-on` in HAProxy's manual).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum RetryOn {
    /// The connection failed: nothing was run.
    ConnFailure,
    /// The connection ended without an answer.
    EmptyResponse,
    /// The answer was no HTTP.
    JunkResponse,
    /// No answer within the timeout.
    ResponseTimeout,
    /// An answer of this status.
    Status(u16),
}

impl RetryOn {
    /// Statuses that HAProxy 2.6 and later can repeat on.
    const STATUSES: [u16; 10] = [401, 403, 404, 408, 425, 500, 501, 502, 503, 504];
}

impl fmt::Display for RetryOn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnFailure => out.write_str("conn-failure"),
            Self::EmptyResponse => out.write_str("empty-response"),
            Self::JunkResponse => out.write_str("junk-response"),
            Self::ResponseTimeout => out.write_str("response-timeout"),
            Self::Status(status) => write!(out, "{status}"),
        }
    }
}

impl TryFrom<String> for RetryOn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let events =
            [Self::ConnFailure, Self::EmptyResponse, Self::JunkResponse, Self::ResponseTimeout];
        let statuses = Self::STATUSES.map(Self::Status);
        let mut known = events.into_iter().chain(statuses);
        known.find(|known| known.to_string() == text).ok_or_else(|| {
            format!(
                "{text:?} is none of conn-failure, empty-response, junk-response, \
                    response-timeout and the statuses {:?}",
                Self::STATUSES
            )
        })
    }
}

impl From<RetryOn> for String {
    fn from(retry: RetryOn) -> Self {
        retry.to_string()
    }
}
