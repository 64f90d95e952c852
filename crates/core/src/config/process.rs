//! HAProxy's process: the sections `global` and `defaults`, and the frontends for operators.

use std::time::Duration;

use serde::Serialize;

use super::values::{BindAddress, FilePath, Name, Network, Secret, Text};
use super::{Native, serialized};

/// The sections `global` and `defaults`, and the frontends for operators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Concurrent connections; none leaves it to HAProxy.
    pub maxconn: Option<u32>,
    /// Threads; none leaves it to HAProxy.
    pub threads: Option<u16>,
    pub user: Option<Text>,
    pub group: Option<Text>,
    /// Where logs go, as HAProxy's `log` has it: `stdout format raw local0`.
    pub log: Vec<Native>,
    pub log_format: LogFormat,
    /// The Runtime API's socket.
    pub socket: Option<FilePath>,
    /// What a worker that takes over reads of servers that a person put into maintenance or drain.
    pub server_states: Option<FilePath>,
    /// How long an old process may keep its connections after a reload.
    #[serde(serialize_with = "serialized::optional_time")]
    pub hard_stop_after: Option<Duration>,
    pub timeouts: Timeouts,
    pub stats: Option<Stats>,
    pub metrics: Option<Metrics>,
    pub health: Option<Health>,
    /// What is answered to a certificate authority that looks whether names lead here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenges: Option<Challenges>,
    /// Native lines.
    pub global: Vec<Native>,
    pub defaults: Vec<Native>,
}

/// The access log's format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// HAProxy's own (`option httplog`, `option tcplog`).
    #[default]
    Text,
    /// An object a line.
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    #[serde(serialize_with = "serialized::time")]
    pub connect: Duration,
    #[serde(serialize_with = "serialized::time")]
    pub client: Duration,
    #[serde(serialize_with = "serialized::time")]
    pub server: Duration,
    #[serde(serialize_with = "serialized::time")]
    pub queue: Duration,
    #[serde(serialize_with = "serialized::time")]
    pub http_request: Duration,
    #[serde(serialize_with = "serialized::time")]
    pub http_keep_alive: Duration,
    #[serde(serialize_with = "serialized::time")]
    pub tunnel: Duration,
    #[serde(serialize_with = "serialized::time")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub bind: BindAddress,
    /// `/` unless it is given.
    pub uri: Option<Text>,
    /// Who may read it, each as `user:password`; empty is whoever reaches the address.
    #[serde(skip)]
    pub auth: Vec<Secret>,
}

/// HAProxy's own Prometheus exporter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    pub bind: BindAddress,
    /// Who may ask; empty is whoever reaches the address.
    pub allow: Vec<Network>,
}

/// Says whether this gateway is ready, for a load balancer in front of it.
///
/// The answer is 200 while the map file has the value [`Health::READY`] for [`Health::KEY`], 503
/// with any other value or none. `set map FILE health ready` switches it at runtime; the file
/// holds the same, so that a reload or restart changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    pub bind: BindAddress,
    pub map: FilePath,
}

impl Health {
    pub const KEY: &'static str = "health";
    pub const READY: &'static str = "ready";
}

/// Answers a certificate authority that looks whether a name leads here (http-01 of RFC 8555,
/// section 8.3): for the token in the path, the map file has what is answered.
///
/// The frontends do so before any rule of their own. A token that the map does not have is a
/// request like any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Challenges {
    pub map: FilePath,
    /// The declared frontends that get them.
    pub frontends: Vec<Name>,
    /// Where a frontend listens for them alone, if one does.
    pub bind: Option<BindAddress>,
}

impl Challenges {
    /// What the paths begin with.
    pub const PATH: &'static str = "/.well-known/acme-challenge/";
}
