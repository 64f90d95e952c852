//! `[haproxy]`: the process, and what its configuration says of all frontends and backends.

use std::path::PathBuf;
use std::time::Duration;

use mapsmith_core::config::values::{BindAddress, FilePath, Network, Secret, Text};
use mapsmith_core::config::{self, Health, Include, Native, Process, Template};
use serde::Deserialize;

use super::keys::section;
use super::supervision::{self, Managed};
use super::units::{duration, optional_duration};

mod files;
pub(super) mod own_sockets;

section! {
    /// With this section Mapsmith renders HAProxy's configuration, from this section,
    /// `[[frontend]]`, `[[backend]]` and `[[certificate]]`. `mapsmith render` shows the text.
    #[derive(Debug, Clone, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Haproxy {
        /// HAProxy's program, by its path or as the shell finds it.
        #[unset(says "`haproxy`")]
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
        #[unset(says "`/var/lib/mapsmith/haproxy`")]
        pub folder: Option<FilePath>,
        /// A template of your own for `haproxy.cfg`, in Jinja's language; see
        /// [rendering.md](rendering.md#a-template-of-your-own). It is read with the settings.
        #[unset(says "the rendered text as it is")]
        pub template: Option<PathBuf>,
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
        #[unset(says "`2s`")]
        #[serde(deserialize_with = "optional_duration")]
        pub reload_interval: Option<Duration>,
        /// A reload waits while so many processes of earlier ones still have connections, 1 to
        /// 1000. `hard_stop_after` ends them.
        #[unset(says "`8`")]
        pub max_old_workers: Option<u16>,
        /// Managed: Mapsmith opens the sockets that frontends listen on and hands them to HAProxy,
        /// so that connections wait instead of being refused while HAProxy is started again.
        #[unset("false")]
        pub hold_sockets: bool,
        /// The socket of the Runtime API.
        #[unset(says "managed: `admin.sock` in `folder`; else none")]
        pub socket: Option<FilePath>,
        /// The most concurrent connections of the process, 1 to 5000000.
        #[unset(says "by the limit of open files")]
        pub maxconn: Option<u32>,
        /// The number of threads, 1 to 64.
        #[unset(says "one for each processor")]
        pub nbthread: Option<u16>,
        /// The user that HAProxy changes to when it was started as root.
        #[unset(says "the user who starts it")]
        pub user: Option<Text>,
        /// The group likewise.
        #[unset(says "the group of the user who starts it")]
        pub group: Option<Text>,
        /// Where logs go, as in HAProxy's `log` lines.
        #[unset(says "`[\"stdout format raw local0\"]`")]
        pub log: Option<Vec<Native>>,
        /// The access log's lines: `text` (HAProxy's own format) or `json` (an object each).
        #[unset("text")]
        pub log_format: LogFormat,
        /// How long an old process may keep its connections after a reload.
        #[unset(says "`30m`")]
        #[serde(deserialize_with = "optional_duration")]
        pub hard_stop_after: Option<Duration>,
        /// The timeouts of all frontends and backends.
        #[unset(says "below")]
        pub timeouts: Timeouts,
        /// HAProxy's statistics page.
        pub stats: Option<Stats>,
        /// HAProxy's Prometheus exporter, at `/metrics`.
        pub metrics: Option<Metrics>,
        /// The address of a health check for a load balancer in front: it is answered 200 while
        /// this gateway is ready, 503 until its maps and servers are in force and while it is
        /// being stopped.
        pub health: Option<BindAddress>,
        /// Files that HAProxy loads after the rendered one, in this order: absolute paths, in whose
        /// last part `*` stands for any text. They are checked with it and never written. A SIGHUP
        /// looks at them again.
        #[unset(says "none")]
        pub include: Vec<Text>,
        /// Native lines for the section `global`, after the rendered ones.
        #[unset(says "none")]
        pub global: Vec<Native>,
        /// Native lines for the section `defaults`, after the rendered ones.
        #[unset(says "none")]
        pub defaults: Vec<Native>,
    }
    beside {
        /// The files that `include` stands for.
        pub includes: Vec<Include>,
        /// The certificates, CAs and CRLs that it names, but those that Mapsmith itself writes.
        pub read_with: Vec<Include>,
        /// What `template` holds.
        pub own_template: Option<Template>,
        /// What `stats.auth_file` holds.
        pub stats_auth: Vec<Secret>,
    }
}

/// The access log's format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

section! {
    /// How long HAProxy waits, at most 24 days.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Timeouts {
        /// For a connection to a server.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub connect: Duration,
        /// For data from a client.
        #[unset("1m")]
        #[serde(deserialize_with = "duration")]
        pub client: Duration,
        /// For data from a server.
        #[unset("1m")]
        #[serde(deserialize_with = "duration")]
        pub server: Duration,
        /// For a free slot of a server that has reached its `maxconn`.
        #[unset("30s")]
        #[serde(deserialize_with = "duration")]
        pub queue: Duration,
        /// For the complete headers of a request.
        #[unset("10s")]
        #[serde(deserialize_with = "duration")]
        pub http_request: Duration,
        /// For the next request on a kept connection.
        #[unset("15s")]
        #[serde(deserialize_with = "duration")]
        pub http_keep_alive: Duration,
        /// For data in a tunnel, such as a WebSocket.
        #[unset("1h")]
        #[serde(deserialize_with = "duration")]
        pub tunnel: Duration,
        /// For the answer to a health check.
        #[unset("5s")]
        #[serde(deserialize_with = "duration")]
        pub check: Duration,
    }
}

section! {
    /// HAProxy's statistics page. It is read-only.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Stats {
        /// Its address. Keep it on loopback, or set `auth_file`.
        #[unset(required)]
        pub bind: BindAddress,
        /// Its path.
        #[unset(says "`/`")]
        #[serde(default)]
        pub uri: Option<Text>,
        /// The file with who may read it: lines of `user:password`. Its mode must be 0600. It is
        /// read with the settings, and `mapsmith render` does not show it.
        #[unset(says "whoever reaches the address may")]
        pub auth_file: Option<PathBuf>,
    }
}

section! {
    /// HAProxy's own Prometheus exporter.
    #[derive(Debug, Clone, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Metrics {
        /// Its address.
        #[unset(required)]
        pub bind: BindAddress,
        /// The addresses and networks that may read it.
        #[unset(says "whoever reaches the address may")]
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
            server_states: self.server_states(),
            log_format: match self.log_format {
                LogFormat::Text => config::LogFormat::Text,
                LogFormat::Json => config::LogFormat::Json,
            },
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
            stats: self.stats.as_ref().map(|stats| config::Stats {
                bind: stats.bind.clone(),
                uri: stats.uri.clone(),
                auth: self.stats_auth.clone(),
            }),
            health: self
                .health
                .clone()
                .zip(self.health_map())
                .map(|(bind, map)| Health { bind, map }),
            challenges: None,
            metrics: self.metrics.as_ref().map(|metrics| config::Metrics {
                bind: metrics.bind.clone(),
                allow: metrics.allow.clone(),
            }),
            global: self.global.clone(),
            defaults: self.defaults.clone(),
        }
    }
}

impl Haproxy {
    /// What a worker that takes over reads of its servers.
    pub fn server_states(&self) -> Option<FilePath> {
        let path = self.files().server_states().into_os_string().into_string().ok()?;
        self.is_supervised().then(|| FilePath::try_from(path).ok()).flatten()
    }

    /// The map file that `health` answers from: [`Health::KEY`] and its value.
    pub fn health_map(&self) -> Option<FilePath> {
        let path = self.files().path().join("health.map");
        FilePath::try_from(path.into_os_string().into_string().ok()?).ok()
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
