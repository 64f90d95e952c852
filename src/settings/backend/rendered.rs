//! What HAProxy's configuration says of a backend beside its servers.

use std::time::Duration;

use mapsmith_core::config::values::{
    ErrorStatus, FilePath, HeaderName, HostValue, Method, Name, Secret, StatusRanges, Text,
};
use mapsmith_core::config::{self, HttpVersion};
use serde::Deserialize;

use super::Backend;
use crate::settings::keys::section;
use crate::settings::units::optional_duration;

/// How requests are shared out among servers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Balance {
    RoundRobin,
    LeastConn,
    Random,
    Source,
    Uri,
    Header(HeaderName),
}

section! {
    /// A server's health check. Servers get the option `check` and what is given here, as far as
    /// their own options do not say otherwise.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Check {
        /// The path that is asked for by HTTP.
        #[unset(says "a connection is enough")]
        pub uri: Option<Text>,
        /// The method.
        #[unset(says "`GET`")]
        pub method: Option<Method>,
        /// HTTP's version, `1.0` or `1.1`.
        #[unset(says "`1.1` with `host`, else `1.0`")]
        pub version: Option<HttpVersion>,
        /// The `Host` header.
        pub host: Option<HostValue>,
        /// The healthy answer: `{ status = "200-299" }`, `{ body = "running" }` (contains it) or
        /// `{ body_reg = "^ok" }`.
        #[unset(says "a status of 2xx or 3xx")]
        pub expect: Option<Expect>,
        /// The time between two checks.
        #[unset(says "`2s`")]
        #[serde(deserialize_with = "optional_duration")]
        pub interval: Option<Duration>,
        /// After so many good checks a server is up.
        #[unset(says "`2`")]
        pub rise: Option<u16>,
        /// After so many failed checks it is down.
        #[unset(says "`3`")]
        pub fall: Option<u16>,
        /// The port that is checked.
        #[unset(says "the server's")]
        pub port: Option<u16>,
    }
}

/// The answer of a healthy server.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    Status(StatusRanges),
    Body(Text),
    BodyReg(Text),
}

section! {
    /// TLS to servers. They get these options as far as their own do not say otherwise. In
    /// `verify_host` and `sni`, `{server}` stands for the server's name and, with `masters`,
    /// `{producer}` and `{master}` for the master's.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Tls {
        /// The file with the CAs of the servers' certificates (PEM). An absolute path.
        #[unset(says "required unless `verify = false`")]
        pub ca: Option<FilePath>,
        /// The file with the revoked ones (PEM).
        pub crl: Option<FilePath>,
        /// The name that a server's certificate must have.
        #[unset(says "`sni`; one of both is required unless `verify = false`")]
        pub verify_host: Option<String>,
        /// The name that HAProxy asks a server for.
        #[unset(says "`verify_host`")]
        pub sni: Option<String>,
        /// The file with the certificate and key that HAProxy shows to servers (PEM).
        pub cert: Option<FilePath>,
        /// `false`: any certificate is accepted. Whoever can intercept the connection can read and
        /// change it.
        #[unset(says "`true`")]
        pub verify: Option<bool>,
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cookie {
    pub name: HeaderName,
    pub key: Secret,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    pub status: ErrorStatus,
    pub content_type: Option<Text>,
    pub body: Text,
    pub retry_after: Option<u32>,
}

impl Backend {
    /// The keys that are given and only rendered.
    pub(in crate::settings) fn rendered_keys(&self) -> Vec<&'static str> {
        let keys = [
            ("mode", self.mode.is_some()),
            ("balance", self.balance.is_some()),
            ("check", self.check.is_some()),
            ("tls", self.tls.is_some()),
            ("send_proxy", self.send_proxy.is_some()),
            ("maxconn", self.maxconn.is_some()),
            ("maxqueue", self.maxqueue.is_some()),
            ("queue_timeout", self.queue_timeout.is_some()),
            ("host", self.host.is_some()),
            ("cookie", self.cookie.is_some()),
            ("retries", self.retries.is_some()),
            ("redispatch", self.redispatch.is_some()),
            ("retry_on", self.retry_on.is_some()),
            ("http_reuse", self.http_reuse.is_some()),
            ("errors", self.errors.is_some()),
            ("natives", self.natives.is_some()),
        ];
        keys.into_iter().filter_map(|(key, given)| given.then_some(key)).collect()
    }

    /// As the core has it, without servers.
    pub fn model(&self, name: Name) -> config::Backend {
        config::Backend {
            name,
            mode: self.mode.unwrap_or_default().into(),
            balance: self.balance.as_ref().map(Balance::model),
            check: self.check.as_ref().and_then(Check::model),
            host: self.host.clone().map(Text::from),
            cookie: self.cookie.clone().map(|Cookie { name, key }| config::Cookie { name, key }),
            retries: self.retries,
            redispatch: self.redispatch.unwrap_or_default(),
            retry_on: self.retry_on.clone().unwrap_or_default(),
            http_reuse: self.http_reuse,
            maxqueue: self.maxqueue,
            queue_timeout: self.queue_timeout,
            errors: self.errors.iter().flatten().cloned().map(ErrorBody::model).collect(),
            server_options: self.all_options(),
            servers: Vec::new(),
            disabled: Default::default(),
            natives: self.natives.clone().unwrap_or_default(),
        }
    }
}

impl Balance {
    fn model(&self) -> config::Balance {
        match self {
            Self::RoundRobin => config::Balance::RoundRobin,
            Self::LeastConn => config::Balance::LeastConn,
            Self::Random => config::Balance::Random,
            Self::Source => config::Balance::Source,
            Self::Uri => config::Balance::Uri,
            Self::Header(name) => config::Balance::Header(name.clone()),
        }
    }
}

impl Check {
    fn model(&self) -> Option<config::HttpCheck> {
        Some(config::HttpCheck {
            method: self.method.clone(),
            uri: self.uri.clone()?,
            version: self.version,
            host: self.host.clone().map(Text::from),
            expect: self.expect.clone().map(|expect| match expect {
                Expect::Status(statuses) => config::Expect::Status(statuses),
                Expect::Body(text) => config::Expect::Body(text),
                Expect::BodyReg(regex) => config::Expect::BodyRegex(regex),
            }),
        })
    }

    pub(super) fn problems(&self, mut problem: impl FnMut(String)) {
        let by_http = [
            ("method", self.method.is_some()),
            ("version", self.version.is_some()),
            ("host", self.host.is_some()),
            ("expect", self.expect.is_some()),
        ];
        for (key, _) in by_http.into_iter().filter(|(_, given)| *given && self.uri.is_none()) {
            problem(format!("check.{key}: needs uri"));
        }
        let numbers = [("rise", self.rise), ("fall", self.fall), ("port", self.port)];
        for (key, _) in numbers.into_iter().filter(|(_, number)| *number == Some(0)) {
            problem(format!("check.{key}: must not be 0"));
        }
    }
}

impl ErrorBody {
    fn model(self) -> config::ErrorBody {
        let Self { status, content_type, body, retry_after } = self;
        config::ErrorBody { status, content_type, body, retry_after }
    }
}
