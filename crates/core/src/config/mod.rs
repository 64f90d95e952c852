//! A declared configuration of HAProxy: what its process, frontends and backends are to do. Pure.
//!
//! Whatever is here can be written into `haproxy.cfg`: values are checked where they come in
//! ([`values`]), lines of one's own by [`natives`], and what contradicts itself by
//! [`Config::problems`].

use std::time::Duration;

pub mod natives;
mod problems;
pub mod rules;
pub mod status;
pub mod values;

pub use natives::Native;
pub use problems::Problem;

use crate::server::Server;
use rules::Rule;
use values::{BindAddress, FilePath, HeaderName, Name, Network, Status, Text};

/// Everything that `haproxy.cfg` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub process: Process,
    pub frontends: Vec<Frontend>,
    pub backends: Vec<Backend>,
}

/// The sections `global` and `defaults`, and the two frontends that are for operators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Connections at a time; none leaves it to HAProxy.
    pub maxconn: Option<u32>,
    /// Threads; none leaves it to HAProxy.
    pub threads: Option<u16>,
    pub user: Option<Text>,
    pub group: Option<Text>,
    /// Where logs go, as HAProxy's `log` has it: `stdout format raw local0`.
    pub log: Vec<Native>,
    /// The Runtime API's socket.
    pub socket: Option<FilePath>,
    /// How long an old process may keep its connections after a reload.
    pub hard_stop_after: Option<Duration>,
    pub timeouts: Timeouts,
    pub stats: Option<Stats>,
    pub metrics: Option<Metrics>,
    /// Lines of one's own.
    pub global: Vec<Native>,
    pub defaults: Vec<Native>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub client: Duration,
    pub server: Duration,
    pub queue: Duration,
    pub http_request: Duration,
    pub http_keep_alive: Duration,
    pub tunnel: Duration,
    pub check: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(5),
            client: seconds(60),
            server: seconds(60),
            queue: seconds(30),
            http_request: seconds(10),
            http_keep_alive: seconds(15),
            tunnel: seconds(3600),
            check: seconds(5),
        }
    }
}

/// HAProxy's own statistics page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub bind: BindAddress,
    /// `/` unless it is given.
    pub uri: Option<Text>,
}

/// HAProxy's own Prometheus exporter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    pub bind: BindAddress,
    /// Who may ask; empty is everybody who reaches the address.
    pub allow: Vec<Network>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Http,
    Tcp,
}

/// A frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    pub name: Name,
    pub mode: Mode,
    pub binds: Vec<Bind>,
    pub maxconn: Option<u32>,
    /// Whether the client's address is passed on as `X-Forwarded-For`, in place of one that it
    /// sent itself.
    pub forwarded_for: bool,
    pub rules: Vec<Rule>,
    /// Where what no rule sends elsewhere goes.
    pub default_backend: Option<Name>,
    pub natives: Vec<Native>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub address: BindAddress,
    pub tls: Option<BindTls>,
    /// Whether whoever connects says by the PROXY protocol for whom.
    pub accept_proxy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTls {
    /// The file, folder or list of certificates.
    pub certificate: FilePath,
    /// Protocols that are offered, the best first.
    pub alpn: Vec<Name>,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    pub name: Name,
    pub mode: Mode,
    pub balance: Balance,
    pub check: Option<HttpCheck>,
    /// The host that servers are asked for, whatever the client asked for.
    pub host: Option<Text>,
    pub cookie: Option<Cookie>,
    /// How often a connection is tried again; none leaves it to HAProxy.
    pub retries: Option<u16>,
    /// Whether a connection that failed is tried at another server.
    pub redispatch: bool,
    /// Answers in place of HAProxy's own, as JSON or text.
    pub errors: Vec<ErrorBody>,
    /// Sorted by name.
    pub servers: Vec<Server>,
    pub natives: Vec<Native>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastConn,
    Random,
    /// By the client's address.
    Source,
    /// By the path, consistently: a server that comes or goes moves its own share only.
    Uri,
    /// By a header, consistently.
    Header(HeaderName),
}

/// How servers that are checked are asked whether they serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// `GET` unless it is given.
    pub method: Option<values::Method>,
    pub uri: Text,
    pub host: Option<Text>,
    pub status: Option<Status>,
}

/// Clients come back to their server by a cookie. Its values follow from the servers' addresses and
/// the key, so that they are the same at every gateway and after every reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    pub name: HeaderName,
    pub key: Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    pub status: Status,
    /// `text/plain` unless it is given.
    pub content_type: Option<Text>,
    pub body: Text,
    /// Seconds.
    pub retry_after: Option<u32>,
}
