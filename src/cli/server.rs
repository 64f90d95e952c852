//! `mapsmith server`: servers of backends, taken out, drained, weighted and brought back.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use mapsmith_core::overrides::{OrderedState, ServerOverride};
use reqwest::Method;

use super::output::{Colour, ago, paint, table};
use super::reload::{exit_code, query_of};
use super::remote::{Connection, NOTHING};
use super::{OutputFormat, SUCCESS, print};
use crate::api::types::{
    BackendReport, BackendsReport, ReloadOutcome, ServerChangeReport, ServerInstance, ServerReport,
    ServerRequest,
};

#[derive(Subcommand)]
pub(super) enum ServerVerb {
    /// Show a backend's servers, or those of all: where each comes from, how every HAProxy has it
    /// right now, and what was ordered of it
    List {
        /// The backend; without it all of them
        backend: Option<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Put a server into maintenance in every HAProxy: no requests, no health checks
    Disable {
        #[command(flatten)]
        order: Order,
        /// End it by itself after this time; without it, `enable` or `reset` does
        #[arg(long = "for", value_name = "DURATION", value_parser = super::length)]
        length: Option<String>,
    },
    /// Have a server get no new requests but for persistence, in every HAProxy
    Drain {
        #[command(flatten)]
        order: Order,
        /// End it by itself after this time; without it, `enable` or `reset` does
        #[arg(long = "for", value_name = "DURATION", value_parser = super::length)]
        length: Option<String>,
    },
    /// Put a server into rotation in every HAProxy, whoever took it out, and keep it there
    Enable {
        #[command(flatten)]
        order: Order,
        /// Keep it there for this time; without it until `reset`
        #[arg(long = "for", value_name = "DURATION", value_parser = super::length)]
        length: Option<String>,
    },
    /// Give a server another weight than the listed one, in every HAProxy
    Weight {
        #[command(flatten)]
        order: Order,
        /// The weight, 0 to 256; 0 sends it no new requests
        #[arg(required_unless_present = "reset", value_parser = clap::value_parser!(u16).range(0..=256))]
        weight: Option<u16>,
        /// Give it the listed weight again
        #[arg(long, conflicts_with = "weight")]
        reset: bool,
        /// End the server's override by itself after this time
        #[arg(long = "for", value_name = "DURATION", value_parser = super::length)]
        length: Option<String>,
    },
    /// End everything that was ordered of a server: it is as its list says again
    Reset {
        #[command(flatten)]
        order: Order,
    },
}

/// A change of one server.
#[derive(Args)]
pub(super) struct Order {
    /// The server, by the name that its list or HAProxy has
    #[arg(value_name = "BACKEND/SERVER", value_parser = place)]
    server: (String, String),
    /// Take out the last server that is ready, too
    #[arg(long)]
    force: bool,
    /// Say what would be, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait until every HAProxy has it so, at most this long; 0s does not wait
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "30s")]
    wait: Duration,
    /// Why: the list and the audit have it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

fn place(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((backend, server)) if !backend.is_empty() && !server.is_empty() => {
            Ok((backend.to_owned(), server.to_owned()))
        }
        _ => Err("write the backend and the server, like web/web1".to_owned()),
    }
}

impl ServerVerb {
    pub(super) fn connection(&mut self) -> &mut Connection {
        match self {
            Self::List { connection, .. } => connection,
            Self::Disable { order, .. }
            | Self::Drain { order, .. }
            | Self::Enable { order, .. }
            | Self::Weight { order, .. }
            | Self::Reset { order } => &mut order.connection,
        }
    }
}

pub(super) async fn server(verb: ServerVerb, format: OutputFormat) -> anyhow::Result<u8> {
    let state = |state, length| ServerRequest {
        state: Some(Some(state)),
        duration: Some(length),
        ..ServerRequest::default()
    };
    match verb {
        ServerVerb::List { backend, connection } => list(&connection, backend, format).await,
        ServerVerb::Disable { order, length } => {
            order.send(Some(state(OrderedState::Maint, length)), format).await
        }
        ServerVerb::Drain { order, length } => {
            order.send(Some(state(OrderedState::Drain, length)), format).await
        }
        ServerVerb::Enable { order, length } => {
            order.send(Some(state(OrderedState::Ready, length)), format).await
        }
        ServerVerb::Weight { order, weight, reset: _, length } => {
            let request = ServerRequest {
                weight: Some(weight),
                // Without another end, that of a state which was ordered before stays.
                duration: length.map(Some),
                ..ServerRequest::default()
            };
            order.send(Some(request), format).await
        }
        ServerVerb::Reset { order } => order.send(None, format).await,
    }
}

impl Order {
    /// Without a request the override ends.
    async fn send(
        self,
        request: Option<ServerRequest>,
        format: OutputFormat,
    ) -> anyhow::Result<u8> {
        let (backend, server) = &self.server;
        let path = ["v1", "backends", backend, "servers", server];
        let wait = (!self.wait.is_zero()).then_some(self.wait).map(query_of);
        let flag = |name, is_set: bool| is_set.then_some((name, "true"));
        let query: Vec<(&str, &str)> = [
            wait.as_deref().map(|wait| ("wait", wait)),
            self.reason.as_deref().map(|reason| ("reason", reason)),
            flag("force", self.force),
            flag("dry_run", self.dry_run),
        ]
        .into_iter()
        .flatten()
        .collect();
        let answer = match &request {
            Some(request) => {
                self.connection.ask(Method::PUT, &path, query, Some(request), self.wait).await?
            }
            None => self.connection.ask(Method::DELETE, &path, query, NOTHING, self.wait).await?,
        };
        let report: ServerChangeReport = answer.good()?;
        print(format, &report, changed)?;
        Ok(report.outcome.map_or(SUCCESS, exit_code))
    }
}

fn changed(report: &ServerChangeReport) -> String {
    let colour = match report.outcome {
        Some(ReloadOutcome::InSync) => Colour::Green,
        None | Some(ReloadOutcome::Requested) => Colour::Yellow,
        Some(_) => Colour::Red,
    };
    let rows: Vec<_> = report.instances.iter().map(instance).collect();
    format!("{}\n{}", paint(colour, &report.message), table("  ", &rows))
}

async fn list(
    connection: &Connection,
    backend: Option<String>,
    format: OutputFormat,
) -> anyhow::Result<u8> {
    let names = match backend {
        Some(backend) => vec![backend],
        None => {
            let all: BackendsReport = connection.get(&["v1", "backends"]).await?;
            all.items.into_iter().map(|summary| summary.backend).collect()
        }
    };
    let mut backends: Vec<BackendReport> = Vec::new();
    for name in &names {
        backends.push(connection.get(&["v1", "backends", name]).await?);
    }
    print(format, &backends, |backends| backends.iter().map(text).collect())?;
    Ok(SUCCESS)
}

fn text(report: &BackendReport) -> String {
    let mut text = format!("backend {} from {}", report.backend, report.from);
    if let Some(waiting_for) = &report.waiting_for {
        let waits = format!(": waiting for {waiting_for}");
        text.push_str(&paint(Colour::Yellow, &waits));
    }
    text.push('\n');
    for server in &report.servers {
        let _ = writeln!(text, "  {}", line(server));
        if let Some(ordered) = &server.ordered {
            let what = ordered_text(ordered, server.dormant);
            let _ = writeln!(text, "    {}", paint(Colour::Yellow, &what));
        }
        let rows: Vec<_> = server.instances.iter().map(instance).collect();
        text.push_str(&table("    ", &rows));
    }
    text
}

fn line(server: &ServerReport) -> String {
    let mut line = server.server.clone();
    if let Some(address) = &server.address {
        let _ = write!(line, " at {address}");
    }
    if let Some(weight) = server.weight {
        let _ = write!(line, ", weight {weight}");
    }
    match server.from.as_deref() {
        Some("haproxy") => line.push_str(", not listed"),
        Some(_) => {}
        None => line.push_str(", which nobody has"),
    }
    if server.drained {
        line.push_str(", its master is drained");
    }
    line
}

/// What was ordered, by whom and until when.
fn ordered_text(ordered: &ServerOverride, is_dormant: bool) -> String {
    let ServerOverride { order, since, until, note, .. } = ordered;
    let by = note.by.as_deref().unwrap_or("an operator");
    let reason = note.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    let until = until.map_or(String::new(), |until| format!(", until {until:.0}"));
    let dormant = if is_dormant { "; it counts once somebody has the server" } else { "" };
    format!("ordered: {order}, by {by} {}{reason}{until}{dormant}", ago(*since))
}

fn instance(instance: &ServerInstance) -> Vec<String> {
    let mut row = vec![instance.instance.clone()];
    match (&instance.error, instance.state) {
        (Some(error), _) => row.push(paint(Colour::Red, error)),
        (None, None) => row.push("does not have it".to_owned()),
        (None, Some(state)) => {
            let status = instance.status.as_deref().unwrap_or_default();
            let weight = instance.weight.unwrap_or_default();
            let sessions = instance.sessions.unwrap_or_default();
            let slot = instance.slot.as_ref().map(|slot| format!(", in slot {slot}"));
            row.push(state.to_string());
            row.push(format!(
                "{status}, weight {weight}, {sessions} sessions{}",
                slot.unwrap_or_default()
            ));
        }
    }
    row
}
