//! The command line: one file a verb. `run`, `check`, `plan` and `sync` work by themselves; the
//! others ask a running Mapsmith through its API.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::requests::LONGEST_WAIT;
use crate::settings::{Settings, SettingsFile};
use crate::store::SqliteStore;
use crate::telemetry;

mod approve;
mod certificates;
mod check;
mod command;
mod config;
mod diff;
mod events;
mod explain;
mod failure;
mod haproxy;
mod history;
mod local;
mod master;
mod members;
mod nodes;
mod output;
mod overrides;
mod plan;
mod portmap;
mod registrations;
mod reload;
mod remote;
mod render;
mod rollback;
mod rollout;
mod server;
mod stats;
mod status;
mod sync;
mod token;

const SUCCESS: u8 = 0;
const FAILED: u8 = 1;
/// The arguments or the settings are wrong.
const USAGE: u8 = 2;
/// `plan`: there are changes.
const CHANGES: u8 = 3;
/// The guard holds a change back.
const HELD: u8 = 4;
/// `command run`: nobody knows what came of it.
const UNKNOWN: u8 = 5;
/// SIGHUP ended it, as a shell shows that.
const HUNG_UP: u8 = 128 + 1;

/// The settings file where none is named.
const DEFAULT_CONFIG: &str = "/etc/mapsmith/mapsmith.toml";

/// Keeps HAProxy gateways routing right: node -> master maps from PuppetDB and other registries,
/// swapped in atomically.
///
/// Exit codes: 0 success, 1 failed, 2 wrong usage or settings, 3 (`plan` only) there are changes, 4
/// held by the guard, 5 (`command run` only) nobody knows whether it was run.
#[derive(Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Arguments {
    /// The settings file (.toml, .yaml or .json); without it /etc/mapsmith/mapsmith.toml. The verbs
    /// that ask a running Mapsmith take its address and token from it
    #[arg(short, long, global = true, value_name = "FILE", env = "MAPSMITH_CONFIG")]
    config: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the daemon: poll, decide, keep every HAProxy in sync, serve the API
    Run {
        /// Write the map file also where another Mapsmith does so; that one becomes read-only
        #[arg(long)]
        take_over: bool,
    },
    /// Name every problem with settings, sources, sockets, map, servers and file at once; changes
    /// nothing
    Check {
        /// Also ask each master of the map, at the addresses of its servers, whether it believes
        /// whoever claims in headers to be a node: a request for Puppet's list of environments, in
        /// plain text and over TLS without a certificate. Takes a minute at most
        #[arg(long)]
        probe_masters: bool,
    },
    /// Show what a sync would change: nodes added, moved, removed, each master's load; changes
    /// nothing
    Plan {
        /// Print every changed node instead of the first 20
        #[arg(long)]
        all: bool,
    },
    /// Poll, decide and bring every HAProxy into sync once, without the daemon
    Sync {
        /// Let this held change through (the id that a held sync printed)
        #[arg(long, value_name = "ID")]
        approve: Option<String>,
    },
    /// Print the haproxy.cfg that the settings declare; writes nothing unless told to
    Render {
        /// Let HAProxy check it, and say which setting each of its errors is about
        #[arg(long)]
        check: bool,
        /// Show what would change in HAProxy's file instead, as `diff -u` does, without secrets
        #[arg(long, conflicts_with_all = ["check", "take_over"])]
        diff: bool,
        /// Put it in place of HAProxy's file, also where that was edited or is not Mapsmith's, if
        /// HAProxy accepts it. A Mapsmith that runs loads it then
        #[arg(long, conflicts_with = "check")]
        take_over: bool,
    },
    /// Show what a portmap declares, service by service, and what is wrong with it; needs no
    /// settings. Exit code 1 if a part of it was rejected
    #[command(after_help = portmap::GRAMMAR)]
    Portmap {
        /// The portmap; `-` reads it from standard input
        text: String,
    },
    /// Start, stop and reload the HAProxy that the settings declare
    #[command(subcommand)]
    Haproxy(haproxy::HaproxyVerb),
    /// Show sources, instances, revision and what is held
    Status(remote::Connection),
    /// Show why a node goes to its master: source, time, and what each HAProxy holds in memory
    /// right now
    Explain {
        /// The node's name, as in X-Node-Name
        node: String,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// List nodes of the map in force with their masters, by name
    Nodes {
        #[command(flatten)]
        search: nodes::Search,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show what goes to a master, and whether it can be stopped: no node is routed to it, and
    /// every HAProxy has left it alone since
    Master {
        /// The master, by HAProxy's name
        master: String,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show the latest revisions of the map: when, why and by whom each came, and what it changed
    History {
        #[command(flatten)]
        revisions: history::Revisions,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show what a revision of the map changed, or what lies between two of them
    Diff {
        #[command(flatten)]
        pair: history::Pair,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show what has happened: revisions, held changes, states of instances and sources, orders
    Events {
        #[command(flatten)]
        wanted: events::Wanted,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show what backends and servers do: sessions, queues, rates, answers; one reading, or what
    /// comes
    Stats {
        #[command(flatten)]
        wanted: stats::Wanted,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Poll every source now, and read every certificate and CRL
    Reload {
        /// Wait until every HAProxy is in sync, at most this long
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show the certificates that frontends show: names, issuer, expiry, next renewal, last error
    #[command(args_conflicts_with_subcommands = true)]
    Certificates {
        #[command(subcommand)]
        verb: Option<certificates::CertificatesVerb>,
        #[command(flatten)]
        connection: remote::Connection,
    },
    #[command(flatten)]
    Order(overrides::OrderVerb),
    /// Take servers of backends out, drain them, weight them and bring them back, in every HAProxy
    /// and for good. Needs [store]
    #[command(subcommand)]
    Server(server::ServerVerb),
    /// Declare frontends and backends beside those of the settings file, and show them. Needs
    /// [store], and a [haproxy] that Mapsmith manages
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// Members: servers that are registered with Mapsmith itself by name and version
    #[command(subcommand)]
    Member(members::MemberVerb),
    /// Give a backend another version of its members: they are ready before the old ones leave
    Switch(members::Switch),
    /// Run a command of the settings on a node, by its master and at most once, and list which
    /// there are. Needs [commands], and a token with a grant
    #[command(subcommand)]
    Command(command::CommandVerb),
    /// Register a node with its master in Mapsmith itself, or many from a file. Needs a [[source]]
    /// of type "registrations"
    Register(registrations::Register),
    /// End a node's registration
    Unregister(registrations::Unregister),
    #[command(flatten)]
    Hold(rollback::HoldVerb),
    /// Let the change through that the guard holds back
    Approve {
        #[command(flatten)]
        asked: approve::Held,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Show the revision that some instances hold before others, and the last few that did; promote
    /// it, or bring back what was before. Exit code 1 if one waits for somebody
    #[command(args_conflicts_with_subcommands = true)]
    Rollout {
        #[command(subcommand)]
        verb: Option<rollout::RolloutVerb>,
        #[command(flatten)]
        connection: remote::Connection,
    },
    /// Say who may ask the API: make, list, rotate and revoke tokens. Needs [store]
    #[command(subcommand)]
    Token(token::TokenVerb),
}

/// How long a pin or a token lasts; the API sets the bound.
fn length(text: &str) -> Result<String, String> {
    match humantime::parse_duration(text) {
        Ok(length) if !length.is_zero() => Ok(text.to_owned()),
        _ => Err("write a duration like 30m or 2h".to_owned()),
    }
}

/// How much is shown at most.
fn count(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write a number, 1 or more".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST_WAIT => Ok(duration),
        _ => Err("write a duration like 30s or 2m, at most 10m".to_owned()),
    }
}

impl Verb {
    fn connection(&mut self) -> Option<&mut remote::Connection> {
        match self {
            Self::Run { .. }
            | Self::Check { .. }
            | Self::Plan { .. }
            | Self::Portmap { .. }
            | Self::Render { .. }
            | Self::Haproxy(_)
            | Self::Sync { .. } => None,
            Self::Certificates {
                verb: Some(certificates::CertificatesVerb::Renew { connection, .. }),
                ..
            }
            | Self::Certificates { verb: None, connection }
            | Self::Status(connection)
            | Self::Explain { connection, .. }
            | Self::Nodes { connection, .. }
            | Self::Master { connection, .. }
            | Self::History { connection, .. }
            | Self::Diff { connection, .. }
            | Self::Events { connection, .. }
            | Self::Stats { connection, .. }
            | Self::Reload { connection, .. }
            | Self::Approve { connection, .. }
            | Self::Rollout { verb: None, connection } => Some(connection),
            Self::Rollout { verb: Some(verb), .. } => Some(verb.connection()),
            Self::Token(verb) => Some(verb.connection()),
            Self::Command(verb) => Some(verb.connection()),
            Self::Server(verb) => Some(verb.connection()),
            Self::Config(verb) => Some(verb.connection()),
            Self::Order(verb) => Some(verb.connection()),
            Self::Member(verb) => Some(verb.connection()),
            Self::Switch(verb) => Some(verb.connection()),
            Self::Register(verb) => Some(verb.connection()),
            Self::Unregister(verb) => Some(verb.connection()),
            Self::Hold(verb) => Some(verb.connection()),
        }
    }
}

/// Parses the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failure::print(
                OutputFormat::Text,
                &anyhow::Error::from(error).context("the async runtime can't start"),
            );
        }
    };
    // Before anything else: until it is caught a SIGHUP ends the program, and a service manager may
    // send one right after the start. The daemon takes them from `app` on, and one before that asks
    // for no more than the polls that it begins with.
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) });
    let Arguments { config, output, verb } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return failure::usage(&error),
    };
    // The other verbs print all there is to say themselves; `RUST_LOG` shows what lies behind it.
    let daemon = matches!(verb, Verb::Run { .. });
    telemetry::start_logging(if daemon {
        "info,tokio_cron_scheduler=warn,zookeeper_client=error"
    } else {
        "off"
    });
    let outcome = runtime.block_on(async {
        let mut hangup = hangup?;
        tokio::select! {
            outcome = carry_out(verb, config.as_deref(), output) => outcome,
            // The daemon has a use for it.
            _ = hangup.recv(), if !daemon => Ok(HUNG_UP),
        }
    });
    // Blocking reads of a source that hangs must not keep the program.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => failure::print(output, &error),
    }
}

async fn carry_out(
    mut verb: Verb,
    config: Option<&Path>,
    output: OutputFormat,
) -> anyhow::Result<u8> {
    if let Some(connection) = verb.connection() {
        connection.find(config)?;
    }
    match verb {
        Verb::Run { take_over } => {
            let file = SettingsFile::read(path_of(config))?;
            crate::app::run(file, telemetry::start_metrics()?, take_over).await?;
            Ok(SUCCESS)
        }
        Verb::Check { probe_masters } => {
            check::check(load_with_objects(config).await?, output, probe_masters).await
        }
        Verb::Plan { all } => plan::plan(load_with_services(config).await?, output, all).await,
        Verb::Portmap { text } => portmap::portmap(text, output),
        Verb::Render { diff: true, .. } => {
            render::diff(load_with_services(config).await?, output).await
        }
        Verb::Render { take_over: true, .. } => {
            render::take_over(load_with_services(config).await?, output).await
        }
        Verb::Render { check, .. } => {
            render::render(load_with_services(config).await?, output, check).await
        }
        Verb::Haproxy(verb) => haproxy::haproxy(load(config)?, verb, output).await,
        Verb::Sync { approve } => {
            sync::sync(load_with_services(config).await?, output, approve).await
        }
        Verb::Status(connection) => status::status(connection, output).await,
        Verb::Explain { node, connection } => explain::explain(connection, &node, output).await,
        Verb::Nodes { search, connection } => nodes::nodes(connection, search, output).await,
        Verb::Master { master, connection } => master::master(connection, &master, output).await,
        Verb::History { revisions, connection } => {
            history::history(connection, revisions, output).await
        }
        Verb::Diff { pair, connection } => history::diff(connection, pair, output).await,
        Verb::Events { wanted, connection } => events::events(connection, wanted, output).await,
        Verb::Stats { wanted, connection } => stats::stats(connection, wanted, output).await,
        Verb::Reload { wait, connection } => reload::reload(connection, wait, output).await,
        Verb::Certificates { verb, connection } => {
            certificates::certificates(connection, verb, output).await
        }
        Verb::Order(verb) => verb.carry_out(output).await,
        Verb::Member(verb) => verb.carry_out(output).await,
        Verb::Switch(verb) => verb.carry_out(output).await,
        Verb::Register(verb) => verb.carry_out(output).await,
        Verb::Unregister(verb) => verb.carry_out(output).await,
        Verb::Hold(verb) => verb.carry_out(output).await,
        Verb::Approve { asked, connection } => approve::approve(connection, asked, output).await,
        Verb::Rollout { verb, connection } => rollout::rollout(verb, connection, output).await,
        Verb::Token(verb) => token::token(verb, output).await,
        Verb::Command(verb) => verb.carry_out(output).await,
        Verb::Server(verb) => server::server(verb, output).await,
        Verb::Config(verb) => verb.carry_out(output).await,
    }
}

fn load(config: Option<&Path>) -> anyhow::Result<Settings> {
    Ok(Settings::load(path_of(config), std::env::vars_os())?)
}

/// With what is declared through the API, as the store has it.
async fn load_with_objects(config: Option<&Path>) -> anyhow::Result<Settings> {
    let file = SettingsFile::read(path_of(config))?;
    let Some(store) = &file.settings.store else { return Ok(file.settings) };
    // What is wrong with the store is told by whoever needs it.
    let Ok(objects) = SqliteStore::peek_objects(&store.path).await else {
        return Ok(file.settings);
    };
    Ok(file.with_objects(Arc::new(objects))?.settings)
}

/// With that, and the services of a registry, if there are to be any.
async fn load_with_services(config: Option<&Path>) -> anyhow::Result<Settings> {
    let file = SettingsFile::read(path_of(config))?;
    let objects = match &file.settings.store {
        Some(store) => SqliteStore::peek_objects(&store.path).await?,
        None => Default::default(),
    };
    local::with_known_services(file.with_objects(Arc::new(objects))?.settings).await
}

fn path_of(config: Option<&Path>) -> &Path {
    config.unwrap_or(Path::new(DEFAULT_CONFIG))
}

fn print<T: Serialize>(
    format: OutputFormat,
    report: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    match format {
        OutputFormat::Json => output::line(&serde_json::to_string_pretty(report)?),
        OutputFormat::Text => output::line(text(report).trim_end()),
    }
}
