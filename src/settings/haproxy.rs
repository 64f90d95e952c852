//! `[haproxy]`: the process, and what its configuration says of all frontends and backends.

use std::time::Duration;

use mapsmith_core::config::values::{BindAddress, FilePath, Network, Text};
use mapsmith_core::config::{self, Native, Process};
use serde::Deserialize;

use super::keys::section;
use super::supervision::{self, Managed};
use super::units::{duration, optional_duration};

section! {
    /// HAProxy's own configuration, where Mapsmith writes it: `mapsmith render` shows the text of
    /// this section, of `[[frontend]]` and of `[[backend]]`.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Haproxy {
        /// HAProxy's program, by its path or as the shell finds it.
        #[unset("haproxy")]
        pub binary: Option<Text>,
        /// Who runs HAProxy. `true`: Mapsmith starts it, reloads it, starts it again when it dies,
        /// and leaves it running when it ends itself. `"attached"`: systemd or another supervisor
        /// on this host runs it, and Mapsmith writes `config` and has it reloaded. `false`: nobody
        /// is told of what is rendered.
        #[unset("false")]
        pub managed: Managed,
        /// The folder of candidates and of the last good configuration; managed, also of
        /// `haproxy.cfg`, of HAProxy's sockets, log and pid. 80 bytes at most, as sockets have
        /// short paths; it is created if it is missing.
        #[unset("/var/lib/mapsmith/haproxy")]
        pub folder: Option<FilePath>,
        /// Attached: the file that HAProxy loads, which Mapsmith writes.
        pub config: Option<FilePath>,
        /// Attached: the socket of HAProxy's master process (its option `-S`), by which it is
        /// reloaded.
        pub master_socket: Option<FilePath>,
        /// Attached: the command that reloads HAProxy, each word one text: `["systemctl", "reload",
        /// "haproxy"]`. With `master_socket` too, the command reloads and the socket tells what
        /// came of it.
        #[unset(says "by `master_socket`")]
        pub reload_command: Vec<Text>,
        /// The least time between two reloads; what changes meanwhile goes into the next one.
        #[unset("2s")]
        #[serde(deserialize_with = "optional_duration")]
        pub reload_interval: Option<Duration>,
        /// A reload waits while so many processes of earlier ones still have connections, 1 to
        /// 1000. `hard_stop_after` ends them.
        #[unset("8")]
        pub max_old_workers: Option<u16>,
        /// Managed: Mapsmith opens the sockets that frontends listen on and hands them to HAProxy,
        /// so that connections wait instead of being refused while HAProxy is started again.
        #[unset("false")]
        pub hold_sockets: bool,
        /// The socket of the Runtime API.
        #[unset(says "managed: `admin.sock` in `folder`; else none")]
        pub socket: Option<FilePath>,
        /// Connections at a time.
        #[unset(says "HAProxy's")]
        pub maxconn: Option<u32>,
        /// Threads.
        #[unset(says "one for each processor")]
        pub nbthread: Option<u16>,
        /// The user that HAProxy runs as, once it was started as root.
        #[unset(says "whoever starts it")]
        pub user: Option<Text>,
        /// Its group.
        #[unset(says "whoever starts it")]
        pub group: Option<Text>,
        /// Where logs go, as HAProxy's `log` line has it, each one line.
        #[unset("[\"stdout format raw local0\"]")]
        pub log: Option<Vec<Native>>,
        /// How long an old process may keep its connections after a reload.
        #[unset("30m")]
        #[serde(deserialize_with = "optional_duration")]
        pub hard_stop_after: Option<Duration>,
        /// Timeouts of all frontends and backends.
        #[unset(says "below")]
        pub timeouts: Timeouts,
        /// HAProxy's statistics page: `{ bind, uri }`.
        pub stats: Option<Stats>,
        /// HAProxy's Prometheus exporter at `/metrics`: `{ bind, allow }`.
        pub metrics: Option<Metrics>,
        /// Lines of one's own in `global`.
        #[unset(says "none")]
        pub global: Vec<Native>,
        /// Lines of one's own in `defaults`.
        #[unset(says "none")]
        pub defaults: Vec<Native>,
    }
}

section! {
    /// What HAProxy waits for, and how long.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Timeouts {
        /// A connection to a server.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub connect: Duration,
        /// A client that is silent.
        #[unset("1m")]
        #[serde(deserialize_with = "duration")]
        pub client: Duration,
        /// A server that is silent.
        #[unset("1m")]
        #[serde(deserialize_with = "duration")]
        pub server: Duration,
        /// A place at a server that is full.
        #[unset("30s")]
        #[serde(deserialize_with = "duration")]
        pub queue: Duration,
        /// The headers of a request.
        #[unset("10s")]
        #[serde(deserialize_with = "duration")]
        pub http_request: Duration,
        /// The next request on a kept connection.
        #[unset("15s")]
        #[serde(deserialize_with = "duration")]
        pub http_keep_alive: Duration,
        /// Either side of a tunnel, as of a WebSocket.
        #[unset("1h")]
        #[serde(deserialize_with = "duration")]
        pub tunnel: Duration,
        /// The answer of a health check.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub check: Duration,
    }
}

section! {
    /// HAProxy's statistics page, for reading only.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Stats {
        /// Where it listens; keep it on loopback.
        #[unset(required)]
        pub bind: BindAddress,
        /// Its path.
        #[unset("/")]
        #[serde(default)]
        pub uri: Option<Text>,
    }
}

section! {
    /// HAProxy's own Prometheus exporter.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Metrics {
        /// Where it listens.
        #[unset(required)]
        pub bind: BindAddress,
        /// Addresses and networks that may ask.
        #[unset(says "whoever reaches it")]
        #[serde(default)]
        pub allow: Vec<Network>,
    }
}

/// Where logs go unless the settings say.
const LOG: &str = "stdout format raw local0";
/// How long an old process may keep its connections unless the settings say.
const HARD_STOP_AFTER: Duration = Duration::from_secs(30 * 60);

impl Haproxy {
    /// As the pure core takes it.
    pub fn model(&self) -> Process {
        let log = self
            .log
            .clone()
            .unwrap_or_else(|| Native::try_from(LOG.to_owned()).into_iter().collect());
        let Timeouts {
            connect,
            client,
            server,
            queue,
            http_request,
            http_keep_alive,
            tunnel,
            check,
        } = self.timeouts;
        Process {
            maxconn: self.maxconn,
            threads: self.nbthread,
            user: self.user.clone(),
            group: self.group.clone(),
            log,
            socket: self.socket.clone().or_else(|| supervision::own_socket(self)),
            hard_stop_after: Some(self.hard_stop_after.unwrap_or(HARD_STOP_AFTER)),
            timeouts: config::Timeouts {
                connect,
                client,
                server,
                queue,
                http_request,
                http_keep_alive,
                tunnel,
                check,
            },
            stats: self
                .stats
                .as_ref()
                .map(|stats| config::Stats { bind: stats.bind.clone(), uri: stats.uri.clone() }),
            metrics: self.metrics.as_ref().map(|metrics| config::Metrics {
                bind: metrics.bind.clone(),
                allow: metrics.allow.clone(),
            }),
            global: self.global.clone(),
            defaults: self.defaults.clone(),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        let config::Timeouts {
            connect,
            client,
            server,
            queue,
            http_request,
            http_keep_alive,
            tunnel,
            check,
        } = config::Timeouts::default();
        Self { connect, client, server, queue, http_request, http_keep_alive, tunnel, check }
    }
}
