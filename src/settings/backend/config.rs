//! `backend.config`: what `haproxy.cfg` says of a backend beside its servers.

use mapsmith_core::config::values::{HeaderName, Method, Name, Status, Text};
use mapsmith_core::config::{self, Native};
use mapsmith_core::server::Server;
use serde::Deserialize;

use crate::settings::frontend::Mode;
use crate::settings::keys::section;

section! {
    /// How HAProxy serves a backend, where Mapsmith writes its configuration (`[haproxy]`).
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct BackendConfig {
        /// `http` or `tcp`.
        #[unset("http")]
        pub mode: Mode,
        /// How servers take turns: `roundrobin`, `leastconn`, `random`, `source`, `uri`, or
        /// `{ header = "..." }`. The last three are consistent hashes.
        #[unset("roundrobin")]
        pub balance: Balance,
        /// How servers with the option `check` are asked whether they serve: `{ method, uri, host,
        /// status }`.
        #[unset(says "a connection is enough")]
        pub check: Option<Check>,
        /// The host that servers are asked for, whatever the client asked for.
        pub host: Option<Text>,
        /// Clients come back to their server by this cookie: `{ name, key }`. The key is any
        /// secret, the same at each gateway.
        pub cookie: Option<Cookie>,
        /// How often a connection is tried again.
        #[unset(says "HAProxy's")]
        pub retries: Option<u16>,
        /// Whether a connection that failed is tried at another server.
        #[unset("false")]
        pub redispatch: bool,
        /// Answers in place of HAProxy's own: `{ status, content_type, body, retry_after }`.
        #[unset(says "none")]
        pub errors: Vec<ErrorBody>,
        /// Lines of one's own.
        #[unset(says "none")]
        pub natives: Vec<Native>,
    }
}

/// How servers take turns.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    #[default]
    RoundRobin,
    LeastConn,
    Random,
    Source,
    Uri,
    Header(HeaderName),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    pub method: Option<Method>,
    pub uri: Text,
    pub host: Option<Text>,
    pub status: Option<Status>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cookie {
    pub name: HeaderName,
    pub key: Text,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    pub status: Status,
    pub content_type: Option<Text>,
    pub body: Text,
    pub retry_after: Option<u32>,
}

impl BackendConfig {
    /// As the pure core takes it, with the servers that the backend has.
    pub fn model(&self, name: Name, servers: Vec<Server>) -> config::Backend {
        config::Backend {
            name,
            mode: self.mode.into(),
            balance: match &self.balance {
                Balance::RoundRobin => config::Balance::RoundRobin,
                Balance::LeastConn => config::Balance::LeastConn,
                Balance::Random => config::Balance::Random,
                Balance::Source => config::Balance::Source,
                Balance::Uri => config::Balance::Uri,
                Balance::Header(name) => config::Balance::Header(name.clone()),
            },
            check: self.check.clone().map(|Check { method, uri, host, status }| {
                config::HttpCheck { method, uri, host, status }
            }),
            host: self.host.clone(),
            cookie: self.cookie.clone().map(|Cookie { name, key }| config::Cookie { name, key }),
            retries: self.retries,
            redispatch: self.redispatch,
            errors: self.errors.iter().cloned().map(ErrorBody::model).collect(),
            servers,
            natives: self.natives.clone(),
        }
    }
}

impl ErrorBody {
    fn model(self) -> config::ErrorBody {
        let Self { status, content_type, body, retry_after } = self;
        config::ErrorBody { status, content_type, body, retry_after }
    }
}
